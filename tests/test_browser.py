"""skadacomp.js in headless Chromium: the page of the docs, and files of every kind."""

from __future__ import annotations

import json
import re
import shutil
import sys
import threading
import unicodedata
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.svm import LinearSVC

import skadacomp
from skadacomp import AdaptiveCodebookCompressor, EmbeddingTable, FrozenClassifier, export, freeze
from skadacomp._compressed import FORMAT, CompressedTable
from skadacomp._frozen import Description
from skadacomp._texts import splitter
from skadacomp.datasets import load_glove

DATA = Path(__file__).parent / "data"
DOCS = Path(__file__).parents[1] / "docs"
if not DOCS.exists():
    pytest.skip("the docs are not part of an installed package", allow_module_level=True)
sys.path.insert(0, str(DOCS))

import news_classifier  # noqa: E402

SCRIPT = Path(skadacomp.__file__).with_name("skadacomp.js")
FLAGS = [
    "headless",
    "no-sandbox",  # which root has not
    "disable-dev-shm-usage",  # which is small in containers
    "disable-gpu",
    "disable-quic",
    "disable-sync",
    "no-first-run",
    "disable-background-networking",
    "disable-component-update",
]
PATIENCE = 20  # seconds
MOST_BYTES = 200_000  # of script and classifier, on the page of the docs
# Runs code that has `model`, a Classifier, and `given`.
RUN = """
const [url, code, given, done] = arguments;
import("/skadacomp.js")
  .then(({ Classifier }) => Classifier.fetch(url))
  .then((model) => new Function("model", "given", code)(model, given))
  .then(done, (error) => done({ error: `${error.name}: ${error.message}` }));
"""
SAID = """
return given.map((text) => {
  const said = [model.predict(text), model.scores(text), model.split(text)];
  return [...said, model.split(text).map((word) => model.codeLength(word))];
});
"""


class Quiet(SimpleHTTPRequestHandler):
    """Serves files as they are now, and says nothing of it."""

    def end_headers(self):
        self.send_header("Cache-Control", "no-store")
        super().end_headers()

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder, and where a server shows it."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copy(SCRIPT, folder)
    (folder / "index.html").write_text("<!doctype html><title>empty</title>")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    """Start Chromium."""
    programs = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if None in programs:
        pytest.skip("needs Chromium: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = programs[0]
    for flag in FLAGS:
        options.add_argument(f"--{flag}")
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('chromium')}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("no_proxy", "localhost,127.0.0.1")  # whatever leads out of this machine
        # The driver's place is given, or else selenium would look for one to download.
        chromium = webdriver.Chrome(options, Service(programs[1]))
        chromium.set_script_timeout(PATIENCE)
        yield chromium
        chromium.quit()


@pytest.fixture(scope="module")
def run(driver, site):
    """Run code on a classifier in an empty page."""
    folder, url = site

    def run(frozen, code, given):
        content = frozen if isinstance(frozen, bytes) else saved(frozen, folder)
        (folder / "model").write_bytes(content)
        driver.get(url)
        return driver.execute_async_script(RUN, "/model", code, given)

    return run


def saved(frozen, folder):
    """Bytes of a classifier's file."""
    frozen.save(folder / "saved")
    return (folder / "saved").read_bytes()


# ---------------------------------------------------------------------------------------------
# The page


@pytest.fixture(scope="module")
def news(demo_data):
    """A classifier like that of the docs, of a smaller table; headlines for it, and their truth."""
    glove = load_glove()
    table = EmbeddingTable(glove.words[:10_000], glove.vectors[:10_000])
    train, test, labels, truth = news_classifier.draw()
    frozen = freeze(news_classifier.fit(table, 30_000, train[::8], labels[::8]))
    return frozen, news_classifier.headlines(test[::14]), truth[::14]


def open_page(driver, site, name, content):
    """Open the docs' page on a file."""
    folder, url = site
    static = folder / name / "_static"
    static.mkdir(parents=True, exist_ok=True)
    shutil.copy(SCRIPT, static)
    facts = [{"name": "this file", "nbytes": 1234, "headlines": 0.5, "articles": 0.75}]
    (static / "news.json").write_text(json.dumps(facts))
    if content is not None:
        (static / "news.safetensors").write_bytes(content)
    page = (DOCS / "browser_demo.html").read_text()
    (folder / name / "page.html").write_text(f'<!doctype html><meta charset="utf-8">{page}')
    driver.get(f"{url}/{name}/page.html")
    demo = driver.find_element(By.ID, "news-demo")
    WebDriverWait(driver, PATIENCE).until(lambda _: demo.get_attribute("data-state") != "loading")
    return demo.get_attribute("data-state")


def shown(driver):
    """The page's verdict, and its probabilities."""
    return driver.execute_script(
        "const shares = document.querySelectorAll('#news-bars data');"
        "const verdict = document.getElementById('news-verdict').textContent;"
        "return [verdict, Array.from(shares, (share) => Number(share.value))];"
    )


def test_the_page_says_what_python_says(driver, site, news, tmp_path):
    frozen, headlines, truth = news
    assert open_page(driver, site, "good", saved(frozen, tmp_path)) == "ready"
    verdicts = []
    box = driver.find_element(By.ID, "news-text")
    for text in headlines:
        box.clear()
        box.send_keys(text)
        verdict, probabilities = shown(driver)
        assert verdict == f"This is {frozen.predict([text])[0]}."
        verdicts.append(verdict)
        np.testing.assert_allclose(probabilities, frozen.predict_proba([text])[0], atol=1e-5)
    right = [f"This is {name}." for name in truth]
    assert np.mean(np.array(verdicts) == right) > 0.6  # five classes, and a small table
    names = [
        each.text for each in driver.find_elements(By.CSS_SELECTOR, "#news-bars li > :first-child")
    ]
    assert names == frozen.classes.tolist()
    for button in driver.find_elements(By.CSS_SELECTOR, "#news-examples button"):
        button.click()
        assert box.get_property("value") == button.text
        assert shown(driver)[0] == f"This is {frozen.predict([button.text])[0]}."


def test_the_page_counts_bytes_itself(driver, site, news, tmp_path):
    content = saved(news[0], tmp_path)
    open_page(driver, site, "counted", content)
    rows = driver.find_elements(By.CSS_SELECTOR, "#news-files tbody tr")
    told = [row.find_element(By.TAG_NAME, "td").text for row in rows]
    assert told == [f"{SCRIPT.stat().st_size:,}", f"{len(content):,}"]
    accuracy = driver.find_element(By.CSS_SELECTOR, "#news-accuracy tbody").text
    assert accuracy == "this file 1,234 50.0 % 75.0 %"
    assert SCRIPT.stat().st_size + 1.05 * news_classifier.MAX_BYTES < MOST_BYTES


@pytest.mark.parametrize(
    "text",
    [
        "",
        "xqzzy qqqvv — !",
        "MINISTERS VOTE; Shares Fall",
        "café İstanbul ΟΔΟΣ 東京 ½ co_op naïve 😀 film film",
        "<b>goal</b> & \u2028 \x00 x",
        "goal film bank " * 20_000,
    ],
    ids=["empty", "unknown", "capitals", "characters", "markup", "long"],
)
def test_the_page_takes_any_text(driver, site, news, text, tmp_path):
    frozen = news[0]
    assert open_page(driver, site, "any", saved(frozen, tmp_path)) == "ready"
    box = driver.find_element(By.ID, "news-text")
    driver.execute_script(
        "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('input'))",
        box,
        text,
    )
    verdict, probabilities = shown(driver)
    words = splitter(None, True)(text)
    known = any(word in frozen.table for word in words)
    assert verdict.startswith("This is" if known else "No word of this has a code")
    assert verdict.endswith(f"{frozen.predict([text])[0]}.")
    np.testing.assert_allclose(probabilities, frozen.predict_proba([text])[0], atol=1e-5)
    listed = driver.find_elements(By.CSS_SELECTOR, "#news-words .news-word")
    lengths = dict(
        zip(
            frozen.table.words,
            frozen.table.code_lengths[frozen.table.rows(frozen.table.words)],
            strict=True,
        )
    )
    assert [each.text for each in listed] == [
        f"{word}{lengths.get(word, 0)}" for word in words[:60]
    ]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda content: content[:-1000], "FormatError|cut off"),
        (lambda content: content[:100], "cut off"),
        (lambda content: b"", "too few"),
        (
            lambda content: content.replace(b'"format":"1"', b'"format":"2"'),
            "format 2 is newer than format 1",
        ),
        (
            lambda content: content[:-9] + bytes([content[-9] ^ 1]) + content[-8:],
            "the file is damaged",
        ),
        (lambda content: b"<!doctype html><title>Not found</title>", "no safetensors file"),
        (lambda content: None, "status 404"),
    ],
    ids=["truncated", "header", "nothing", "newer", "flipped", "another", "missing"],
)
def test_the_page_says_what_is_wrong_with_a_file(
    driver, site, news, spoil, message, tmp_path, request
):
    content = spoil(saved(news[0], tmp_path))
    assert open_page(driver, site, request.node.callspec.id, content) == "failed"
    verdict, probabilities = shown(driver)
    assert re.search(message, verdict)
    assert verdict.startswith("The classifier cannot be read.")
    assert probabilities == []


# ---------------------------------------------------------------------------------------------
# Files of every kind

WORDS = [*(f"word{number}" for number in range(200)), "café", "Ωmega", "東京", "x" * 300]


@pytest.fixture(scope="module")
def texts():
    random = np.random.default_rng(0)
    return [" ".join(random.choice([*WORDS, "Unknown"], random.integers(0, 12))) for _ in range(60)]


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize(
    "given",
    [
        {},
        {"n_codewords": 3, "pooling": "sum"},
        {"n_codewords": 256, "code_lengths": (1, 2), "lowercase": False},
        {"code_lengths": (4,), "output": "vectors"},
        {"n_codewords": 2, "bits_per_word": 2.0},
        {"n_codewords": 8, "codebook_bits": 4},
    ],
    ids=str,
)
def test_every_kind_of_table_is_read(run, texts, given, n_classes):
    vectors = np.random.default_rng(1).normal(size=(len(WORDS), 5)).astype(np.float32)
    table = EmbeddingTable(WORDS, vectors)
    labels = [sum(map(ord, text)) % n_classes for text in texts]
    parameters = {"max_iter": 1, "random_state": 0, **given}
    for classifier in (LogisticRegression(), LinearSVC()):
        compressor = AdaptiveCodebookCompressor(table, **parameters)
        pipe = Pipeline([("compressor", compressor), ("classifier", classifier)])
        check_same(run, freeze(pipe.fit(texts, labels)), texts)


def test_rows_that_share_codes_are_read(run):
    codes = np.full((400, 3), -1)
    codes[::2, :3] = np.arange(600).reshape(200, 3) // 60 % 7
    codes[1::4, :1] = np.arange(100)[:, None] % 7
    words = [f"w{number}" for number in range(400)]
    books = np.random.default_rng(0).normal(size=(3, 7, 2))
    table = CompressedTable.from_codes(codes, books, [0, 0], words, code_lengths=(0, 1, 3))
    assert "stored_rows" in table._tensors
    coef = np.random.default_rng(1).normal(size=(1, 22)).astype(np.float32)
    description = Description(["a", "b"], "mean", True, "sigmoid")
    frozen = FrozenClassifier(table, coef, np.ones(1, np.float32), description)
    check_same(run, frozen, [" ".join(words[k : k + 5]) for k in range(0, 400, 3)])


def test_the_golden_file_is_read(run):
    frozen = FrozenClassifier.open(DATA / "classifier-format-1.safetensors")
    check_same(run, frozen, ["tea in a CAFÉ", "the fare of a fast train", "", "no such thing"])


def check_same(run, frozen, texts):
    """Compare classes, scores, words and their code lengths."""
    table = frozen.table
    lengths = dict(
        zip(table.words, table.code_lengths[table.rows(table.words)].tolist(), strict=True)
    )
    classes, scores, words, found = zip(*run(frozen, SAID, texts), strict=True)
    assert list(classes) == frozen.predict(texts).tolist()
    expected = frozen.decision_function(texts).reshape(len(texts), -1)
    np.testing.assert_allclose(scores, expected, atol=1e-5 * np.abs(expected).max())
    split = splitter(None, frozen._description.lowercase)
    assert list(words) == [split(text) for text in texts]
    assert list(found) == [[lengths.get(word, 0) for word in split(text)] for text in texts]


def test_documents_may_be_words(run):
    frozen = FrozenClassifier.open(DATA / "classifier-format-1.safetensors")
    found = run(
        frozen, "return given.map((words) => model.probabilities(words))", [["tea", "Tea", "a"], []]
    )
    np.testing.assert_allclose(found, frozen.predict_proba([["tea", "Tea", "a"], []]), atol=1e-6)


def test_characters_make_words_as_in_python(run):
    """All that this Python knows and are not for private use."""
    every = map(chr, range(sys.maxunicode + 1))
    known = [c for c in every if unicodedata.category(c) not in ("Cn", "Co", "Cs")]
    golden = (DATA / "classifier-format-1.safetensors").read_bytes()
    code = "return [...given].map((c) => model.split(`${c}${c} A${c}b`).join(' ')).join('\\n')"
    found = run(golden, code, "".join(known)).split("\n")
    split = splitter(None, True)
    expected = [" ".join(split(f"{c}{c} A{c}b")) for c in known]
    pairs = zip(known, found, expected, strict=True)
    assert [(c, words) for c, words, right in pairs if words != right] == []


def test_what_is_no_classifier_is_refused(run):
    table = (DATA / "compressed-format-1.safetensors").read_bytes()
    assert "there is no classifier in this file" in run(table, "", None)["error"]
    header = json.dumps({"__metadata__": {"format": "pt"}, "a": None}).encode()
    another = len(header).to_bytes(8, "little") + header
    assert run(another, "", None)["error"].startswith("FormatError: this is not the file of")


def test_probabilities_that_are_not_there_are_refused(run):
    frozen = FrozenClassifier.open(DATA / "classifier-format-1.safetensors")
    frozen._description = frozen._description._replace(link="none")
    found = run(frozen, "return model.probabilities('tea')", None)
    assert found["error"] == "Error: this classifier was frozen without probabilities"


def test_spoiled_headers_are_refused(run):
    """Without a checksum, which would tell of them all."""
    content = (DATA / "classifier-format-1.safetensors").read_bytes()
    size = int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8 : 8 + size]), content[8 + size :]
    del header["__metadata__"]["crc32"]
    said = header["__metadata__"]

    def file(**changed):
        text = json.dumps({**header, **changed}).encode()
        return len(text).to_bytes(8, "little") + text + data

    assert run(file(), "return model.predict('tea')", None) == "travel"
    for changed in (
        {"codes": None},
        {"codes": {**header["codes"], "shape": [1]}},
        {"words": {**header["words"], "dtype": "F64"}},
        {"coef": {**header["coef"], "data_offsets": [0, 10**9]}},
        {"__metadata__": None},
        {"__metadata__": {**said, "counts": "1 2 3"}},
        {"__metadata__": {**said, "counts": "4 4 999999999"}},
        {"__metadata__": {**said, "candidates": "0 1 9"}},
        {"__metadata__": {**said, "classifier": "{}"}},
        {"__metadata__": {**said, "classifier": said["classifier"].replace("mean", "max")}},
        {"__metadata__": {**said, "format": "one"}},
    ):
        found = run(file(**changed), "return model.predict('tea')", None)
        assert "error" in found, changed
        assert found["error"].startswith("FormatError: "), changed


# ---------------------------------------------------------------------------------------------
# What ships


def test_script_and_package_know_the_same_format():
    (number,) = re.findall(r"^const FORMAT = (\d+);", SCRIPT.read_text(), re.M)
    assert int(number) == FORMAT


def test_both_files_are_written(tmp_path):
    golden = DATA / "classifier-format-1.safetensors"
    frozen = FrozenClassifier.open(golden)
    for _ in range(2):  # former files are replaced
        export.to_browser(frozen, tmp_path / "site" / "model")
    written = tmp_path / "site" / "model"
    assert (written / "skadacomp.js").read_bytes() == SCRIPT.read_bytes()
    assert FrozenClassifier.open(written / "classifier.safetensors").predict(["tea"]) == ["travel"]
    with pytest.raises(ValueError, match="must be a fitted scikit-learn Pipeline"):
        export.to_browser(frozen.table, tmp_path)


def test_a_classifier_without_words_is_refused(tmp_path):
    table = CompressedTable.from_codes([[0], [1]], [[[1.0], [2.0]]], [0.0], code_lengths=(1,))
    description = Description(["a", "b"], "mean", True, "none")
    frozen = FrozenClassifier(
        table, np.ones((1, 3), np.float32), np.ones(1, np.float32), description
    )
    with pytest.raises(ValueError, match="holds no words"):
        export.to_browser(frozen, tmp_path / "model")
    assert not (tmp_path / "model").exists()
