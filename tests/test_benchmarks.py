"""The benchmark's own rooms, on a made-up task and table: what they count, choose and resume."""

import json
import sys
import time
from dataclasses import replace
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.utils import Bunch
from torch.nn.utils import parameters_to_vector
from torch.optim.optimizer import register_optimizer_step_post_hook

from skadacomp import AdaptiveCodebookCompressor, EmbeddingTable
from skadacomp._learning.teacher import Teacher
from skadacomp._targets import TargetEncoder

BENCHMARKS = Path(__file__).parents[1] / "docs" / "benchmarks"
if not BENCHMARKS.exists():
    pytest.skip("the benchmarks are not part of an installed package", allow_module_level=True)
sys.path.insert(0, str(BENCHMARKS))

import linear  # noqa: E402
import one_setting  # noqa: E402
import ours  # noqa: E402
import rate_distortion  # noqa: E402
import report  # noqa: E402
import scale  # noqa: E402
import tasks  # noqa: E402
import water_filling  # noqa: E402
from points import read_points  # noqa: E402

N_WORDS, N_DIMS = 80, 6
WORDS = [f"w{i}" for i in range(N_WORDS)]


@pytest.fixture(scope="module")
def table():
    vectors = np.random.default_rng(0).normal(size=(N_WORDS, N_DIMS)).astype(np.float32)
    return EmbeddingTable(WORDS, vectors)


@pytest.fixture
def data(tmp_path, table, monkeypatch):
    """A task whose label is the sign of the mean vector's first dimension."""
    random = np.random.default_rng(1)
    (tmp_path / "made").mkdir()
    for part, size in {"train": 300, "dev": 60, "test": 90}.items():
        documents = random.integers(0, N_WORDS - 10, (size, 8))
        labels = np.where(table.vectors[documents, 0].mean(1) > 0, "up", "down")
        texts = [" ".join(WORDS[i] for i in document) for document in documents]
        lines = [f"{label}\t{text}\n" for label, text in zip(labels, texts, strict=True)]
        (tmp_path / "made" / f"{part}.tsv").write_text("".join(lines), encoding="utf-8")
    source = tasks.Source(table, lambda text: tasks._glove_rows(text, table.index))
    monkeypatch.setattr(tasks, "load_source", lambda name: source)
    return tmp_path


def test_a_task_is_cut_into_its_splits_over_its_own_rows(data, table):
    case = tasks.load_case(data, "made", "any", None, 0)
    assert [len(part) for part in (case.train, case.dev, case.test)] == [300, 60, 90]
    assert case.table.n_words <= N_WORDS - 10
    ids = np.concatenate(case.documents)
    np.testing.assert_array_equal(np.unique(ids), np.arange(case.table.n_words))
    for word, vector in zip(case.table.words, case.table.vectors, strict=True):
        np.testing.assert_array_equal(vector, table.vectors[table.index[word]])
    assert case.counts.sum() == 8 * 450
    assert case.frequency.sum() == pytest.approx(1)
    whole = tasks.load_case(data, "made", "any", None, 0, whole=True)
    assert whole.table.n_words == N_WORDS


def test_few_labels_are_drawn_by_the_seed_and_leave_the_test_alone(data):
    cases = [tasks.load_case(data, "made", "any", 40, seed) for seed in (0, 0, 1)]
    for case in cases:
        assert len(case.train) + len(case.dev) == 40
        assert len(np.intersect1d(case.train, case.dev)) == 0
        assert max(case.train.max(), case.dev.max()) < 300  # out of train.tsv alone
        np.testing.assert_array_equal(case.test, np.arange(360, 450))
    np.testing.assert_array_equal(cases[0].train, cases[1].train)
    assert not np.array_equal(cases[0].train, cases[2].train)


def test_without_a_dev_split_a_part_of_train_is_held_out_for_all_seeds(data):
    (data / "made" / "dev.tsv").unlink()
    one, other = (tasks.load_case(data, "made", "any", None, seed) for seed in (0, 1))
    assert (len(one.train), len(one.dev)) == (270, 30)
    np.testing.assert_array_equal(one.dev, other.dev)


def test_a_token_that_the_table_lacks_is_split():
    index = {"don't": 0, "stop": 1, "(": 2, "now": 3}
    assert tasks._glove_rows("Don't (stop) now unknown", index) == [0, 2, 1, 3]


def test_the_linear_head_reads_pooled_words_and_skips_rows_of_zeros(data):
    case = tasks.load_case(data, "made", "any", None, 0)
    score = linear.linear_score(case, case.table.vectors)
    assert min(score.dev, score.test) > 0.9
    blind = linear.linear_score(case, np.ones((case.table.n_words, 1), np.float32))
    assert blind.test < 0.7
    kept = np.arange(case.table.n_words) % 2 == 0
    words = np.where(kept[:, None], case.table.vectors, 0)
    pooled = linear._pool(case, words)
    document = case.documents[5]
    expected = case.table.vectors[document[kept[document]]].mean(0)
    np.testing.assert_allclose(pooled[5], expected, atol=1e-5)
    np.testing.assert_allclose(linear._pool(case, sparse.csr_matrix(words)), pooled, atol=1e-6)


def test_the_convolutional_head_beats_chance(data):
    convolution = pytest.importorskip("convolution")
    case = tasks.load_case(data, "made", "any", None, 0)
    assert convolution.convolutional_score(case, case.table.vectors, 0).test > 0.75


def test_a_pruned_bag_of_words_is_smaller_and_counts_its_bytes(data):
    from bag_of_words import bag_of_words

    found = bag_of_words(tasks.load_case(data, "made", "any", None, 0))
    largest = max(found, key=lambda pruned: pruned.nbytes)
    assert largest.test > 0.85
    assert largest.nbytes < 4 * N_WORDS
    assert min(pruned.nbytes for pruned in found) < largest.nbytes


def test_peers_rebuild_better_with_more_bits_and_count_what_they_ship():
    pytest.importorskip("faiss")
    from peers import peers

    vectors = np.random.default_rng(0).normal(size=(600, 8)).astype(np.float32)
    found = {}
    for peer in peers(600, 8, "short"):
        shipped = peer.compress(vectors, 0)
        assert shipped.vectors.shape == vectors.shape
        assert 0 < shipped.nbytes < vectors.nbytes
        error = float(((vectors - shipped.vectors) ** 2).sum() / (vectors**2).sum())
        found.setdefault(peer.method, []).append((shipped.nbytes, error))
    assert set(found) > {"PQ", "RQ", "scalar", "PCA + int8"}
    for method, points in found.items():
        errors = [error for _, error in sorted(points)]
        assert errors[-1] <= errors[0], method
    sizes = [nbytes for nbytes, _ in found["scalar"]]
    assert sorted(sizes) == sorted(600 * bits + 4 for bits in (1, 2, 4, 8))  # 8 dims, one range


def test_peers_may_have_codebooks_of_four_bits():
    pytest.importorskip("faiss")
    from peers import peers

    vectors = np.random.default_rng(0).normal(size=(600, 104)).astype(np.float32)
    by_setting = {p.setting: p for p in peers(600, 104, "short") if p.method == "RQ"}
    eight, four = (
        by_setting[f"8 × 4 bits{ending}"].compress(vectors, 0)
        for ending in ("", ", 4-bit codebooks")
    )
    assert 600 * 4 < four.nbytes < 0.7 * eight.nbytes  # codes take the same
    errors = [np.square(vectors - shipped.vectors).mean() for shipped in (eight, four)]
    assert errors[0] < errors[1] < 1.05 * errors[0]


def run_frontier(data, output, monkeypatch, effort="short"):
    frontier = pytest.importorskip("frontier")
    monkeypatch.setattr(frontier, "peers", lambda *shape: [])
    cells = [frontier.Cell("made", "any", "task", "all", "linear", seed) for seed in (0, 1)]
    frontier.measure(cells, data, effort, output)
    return [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]


def test_an_interrupted_run_goes_on_where_it_stopped(data, tmp_path, monkeypatch):
    pytest.importorskip("faiss")
    monkeypatch.setitem(ours._CURVES, "linear", [{"size_penalty": 0.02, "max_iter": 2}])
    monkeypatch.setattr(ours, "_ABLATIONS", {})
    output = tmp_path / "frontier.jsonl"
    lines = run_frontier(data, output, monkeypatch)
    names = {(line["method"], line["source"]) for line in lines}
    assert names == {
        ("bag of words", "none"),
        ("full precision", "frozen"),
        ("full precision", "fine-tuned"),
        ("full precision", "weakest pull"),
        ("skadacomp", "task"),
        ("skadacomp, code features", "task"),
    }
    assert run_frontier(data, output, monkeypatch) == lines  # nothing is measured twice
    # Lost lines are measured again, and they alone.
    kept = [line for line in lines if not line["method"].startswith("skadacomp")]
    output.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
    again = run_frontier(data, output, monkeypatch)
    assert again[: len(kept)] == kept
    assert [line["test"] for line in again[len(kept) :]] == [
        line["test"] for line in lines if line["method"].startswith("skadacomp")
    ]
    frozen = [line for line in lines if line["source"] == "frozen"]
    assert all(line["error"] == 0 and line["nbytes"] == line["table_nbytes"] for line in frozen)


@pytest.mark.parametrize("chosen", [0, 1])
def test_peers_compress_the_table_of_the_weakest_pull_where_dev_chose_another(
    data, tmp_path, monkeypatch, chosen
):
    frontier = pytest.importorskip("frontier")
    from peers import Compressed, Peer

    from skadacomp._learning import teacher

    n_pulls = []

    def fine_tuned(case, head, seed):
        n_pulls.append(len(teacher._PULLS))
        pull = chosen if n_pulls[-1] > 1 else 0
        return case.table.vectors * np.float32(1 + pull)

    whole = Peer("PQ", "all", lambda vectors, seed: Compressed(vectors, vectors.nbytes))
    monkeypatch.setattr(ours, "fine_tuned", fine_tuned)
    monkeypatch.setattr(ours, "entries", lambda *given: [])
    monkeypatch.setattr(frontier, "peers", lambda *shape: [whole])
    output = tmp_path / "frontier.jsonl"
    cell = frontier.Cell("made", "any", "task", "all", "linear", 0)
    for _ in range(2):  # the second time all is there
        frontier.measure([cell], data, "short", output)
    lines = [json.loads(text) for text in output.read_text(encoding="utf-8").splitlines()]
    sources = [line["source"] for line in lines if line["method"] == "PQ"]
    assert sources == ["fine-tuned", "frozen"] + ["weakest pull"] * chosen
    assert n_pulls == [1, 3]  # each table once


def line(method, source, setting, nbytes, dev, test, seed=0):
    cell = {"task": "made", "table": "any", "rows": "task", "labels": "all", "head": "linear"}
    sizes = {"nbytes": nbytes, "table_nbytes": 100_000}
    scores = {"dev": dev, "test": test, "error": 0.5, "seconds": 1.0}
    names = {"seed": seed, "method": method, "source": source, "setting": setting}
    return json.dumps({**cell, **names, **sizes, **scores}) + "\n"


def test_the_report_picks_the_smallest_that_is_as_accurate(tmp_path):
    text = "".join(
        line("full precision", "fine-tuned", "float32", 100_000, 0.9, 0.9, seed)
        + line("full precision", "frozen", "float32", 100_000, 0.8, 0.8, seed)
        + line("skadacomp", "task", "a", 100, 0.85, 0.86, seed)
        + line("skadacomp", "task", "b", 250, 0.898, 0.899, seed)
        + line("skadacomp", "task", "c", 500, 0.90, 0.90, seed)
        + line("skadacomp", "task", "d", 600, 0.905, 0.89, seed)
        + line("RQ", "fine-tuned", "2 × 4 bits", 1_000, 0.88, 0.87, seed)
        + line("RQ", "fine-tuned", "8 × 4 bits", 2_000, 0.897, 0.91, seed)
        for seed in (0, 1)
    )
    file = tmp_path / "frontier.jsonl"
    file.write_text(text, encoding="utf-8")
    points = report.read(file)
    (above,) = report.dominated(points)  # .91 at 2,000 bytes against our .90
    assert above.peer.name == "RQ, 8 × 4 bits, fine-tuned"
    assert above.points == pytest.approx(1)
    assert above.on_dev == pytest.approx(-0.8)  # .897 against the .905 of another
    summary = report.summary(points)
    assert "50×: +1.0 ± 0.0, dev −0.8" in summary
    assert "| 400× |" in summary  # b: 100,000 / 250
    assert "| RQ, 8 × 4 bits, fine-tuned | 50× |" in summary
    written = report.write(file, tmp_path / "out")
    assert all(path.stat().st_size > 0 for path in written)
    assert {path.suffix for path in written} == {".md", ".csv", ".png"}
    assert not list((tmp_path / "out").glob(".*"))  # no temporary file is left


def test_the_report_compares_within_the_seeds_that_both_have(tmp_path):
    text = (
        line("full precision", "fine-tuned", "float32", 100_000, 0.9, 0.9, seed=0)
        + line("full precision", "fine-tuned", "float32", 100_000, 0.8, 0.8, seed=1)
        + line("skadacomp", "task", "a", 200, 0.797, 0.797, seed=1)
        + line("skadacomp, one fixed length", "task", "4", 500, 0.798, 0.798, seed=1)
        + line("RQ", "fine-tuned", "8 × 4 bits", 2_000, 0.81, 0.81, seed=1)
    )
    file = tmp_path / "frontier.jsonl"
    file.write_text(text, encoding="utf-8")
    points = report.read(file)
    (above,) = report.dominated(points)
    assert above.points == pytest.approx(1.3)
    summary = report.summary(points)
    # 0.3 below seed 1 of the reference, though 5.3 below its mean.
    assert "| 500× | −0.3 | RQ, 8 × 4 bits, fine-tuned | 50× | +1.0 | 0.10 |" in summary
    assert f"| {' | '.join(['2.50'] * 10)} |" in report.fixed_length(points)  # 500 over 200 bytes


def test_the_report_holds_the_bag_of_words_against_ours_at_each_size(tmp_path):
    text = (
        line("full precision", "fine-tuned", "float32", 100_000, 0.9, 0.9)
        + line("skadacomp", "task", "a", 600, 0.87, 0.83)
        + line("skadacomp", "task", "b", 3_000, 0.8, 0.9)  # dev prefers the smaller
        + line("bag of words", "none", "30 words", 50, 0.6, 0.6)
        + line("bag of words", "none", "900 words", 1_500, 0.7, 0.75)
    )
    file = tmp_path / "frontier.jsonl"
    file.write_text(text, encoding="utf-8")
    cells = ["– / 60.0", "83.0 / 60.0", *["83.0 / 75.0"] * 6]  # of no more than 500, 1,000, ...
    assert f"| {' | '.join(cells)} |" in report.summary(report.read(file))


def test_the_report_holds_one_fixed_length_against_ours_at_each_accuracy(tmp_path):
    text = (
        line("full precision", "fine-tuned", "float32", 100_000, 0.9, 0.9)
        + line("skadacomp", "task", "a", 100, 0.87, 0.83)
        + line("skadacomp", "task", "b", 200, 0.9, 0.895)
        + line("skadacomp, one fixed length", "task", "1", 150, 0.88, 0.87)
        + line("skadacomp, one fixed length", "task", "2", 300, 0.896, 0.88)
    )
    file = tmp_path / "frontier.jsonl"
    file.write_text(text, encoding="utf-8")
    *_, row = report.fixed_length(report.read(file)).splitlines()
    dev, test = row.split(" | ")[1:6], row.removesuffix(" |").split(" | ")[6:]
    assert dev == ["1.50", "1.50", "0.75", "1.50", "1.50"]  # 2 points below: 150 over 200 bytes
    assert test == ["never near", "never near", "1.50", "0.75", "1.50"]


def test_the_report_takes_a_peer_on_the_better_of_two_fine_tuned_tables(tmp_path):
    text = "".join(
        line("full precision", "fine-tuned", "float32", 100_000, 0.9, 0.9, seed)
        + line("skadacomp", "task", "a", 200, 0.9, 0.9, seed)
        # Seed 1 chose the weakest pull: its table has rows under one name only.
        + line("RQ", "fine-tuned", "8 × 4 bits", 2_000, 0.7 + 0.2 * seed, 0.7 + 0.2 * seed, seed)
        for seed in (0, 1)
    ) + line("RQ", "weakest pull", "8 × 4 bits", 2_000, 0.92, 0.92)
    file = tmp_path / "frontier.jsonl"
    file.write_text(text, encoding="utf-8")
    points = report.read(file)
    (above,) = report.dominated(points)
    assert above.peer.name == "RQ, 8 × 4 bits, weakest pull"
    assert above.points == pytest.approx(1)  # 2 points in seed 0, none in seed 1
    assert "| RQ, 8 × 4 bits, weakest pull | 50× | +1.0 ± 1.0 | 0.10 |" in report.summary(points)


def setting_of(parameters):
    return ours.Entry("skadacomp", parameters).setting


def test_the_default_is_that_of_the_estimator(table):
    measured = ours.compressor("linear", 0, **ours.DEFAULT)
    settings = [
        made._settings(table, 0, ["linear"], trained=False)
        for made in (AdaptiveCodebookCompressor(), measured)
    ]
    for name in ("n_codewords", "codebook_bits", "size_penalty", "reconstruction_weight"):
        assert getattr(settings[0], name) == getattr(settings[1], name)
    assert settings[0].rate.candidates == settings[1].rate.candidates
    assert ours.DEFAULT in [entry.parameters for entry in ours.entries("short", "linear", 50)]


def test_a_table_has_the_settings_of_fewer_components_than_its_dimensions():
    numbers = [
        {entry.parameters.get("n_components") for entry in ours.entries("full", "linear", n_dims)}
        for n_dims in (32, 50, 384)
    ]
    assert numbers == [{None}, {None, 32}, {None, 32, 128}]


def test_one_setting_is_near_on_average_over_all_tasks(tmp_path):
    def lines(task, small, large):
        text = (
            line("full precision", "fine-tuned", "float32", 100_000, 0.9, 0.9)
            + line("skadacomp", "task", "a", 100, 0.9 + small, 0.9)
            + line("skadacomp", "task", "b", 250, 0.9 + large, 0.89)
            + line("RQ", "fine-tuned", "2 × 4 bits", 1_000, 0.87, 0.88)
            + line("RQ", "fine-tuned", "8 × 4 bits", 4_000, 0.89, 0.90)
            + line("RQ", "frozen", "8 × 4 bits", 4_000, 0.85, 0.86)
        )
        return text.replace('"made"', f'"{task}"')

    file = tmp_path / "frontier.jsonl"
    # a is near on one of both; c, which is smaller still, was not measured on the other.
    text = lines("one", 0, -0.004) + lines("other", -0.02, -0.002)
    c = line("skadacomp", "task", "c", 50, 0.9, 0.9).replace('"made"', '"one"')
    by_default = line("skadacomp", "task", setting_of(ours.DEFAULT), 200, 0.88, 0.9)
    text += by_default.replace('"made"', '"one"') + by_default.replace('"made"', '"other"')
    file.write_text(text + c, encoding="utf-8")
    table = one_setting.table_of(one_setting.GROUPS[0], report.curves(report.read(file)))
    assert "| skadacomp | b | 400 | −0.3 | −0.4 | −1.0 | −1.0 |" in table
    assert "| skadacomp, by default |  | 500 | −2.0 | −2.0 | 0.0 | 0.0 |" in table
    assert "| RQ | 8 × 4 bits, fine-tuned | 25 | −1.0 | −1.0 | 0.0 | 0.0 |" in table
    assert "| skadacomp | a |" in one_setting.table_of(
        one_setting.GROUPS[0]._replace(by="test"), report.curves(report.read(file))
    )


def test_one_setting_is_one_for_each_table_where_tables_share_none(tmp_path):
    full = line("full precision", "fine-tuned", "float32", 100_000, 0.9, 0.9)
    narrow = full + line("PCA + int8", "fine-tuned", "5 dims", 10_000, 0.9, 0.9)
    wide = full + "".join(
        line("PCA + int8", "fine-tuned", f"{n} dims", 100 * n, 0.896 - 0.1 * (n < 100), 0.9)
        for n in (16, 128, 256)
    )
    file = tmp_path / "frontier.jsonl"
    file.write_text(narrow + wide.replace('"any"', '"wide"'), encoding="utf-8")
    table = one_setting.table_of(one_setting.GROUPS[0], report.curves(report.read(file)))
    times = round(np.sqrt(10 * 100_000 / 12_800))
    assert f"| PCA + int8 | 5 dims and 128 dims, fine-tuned | {times} | −0.2 | −0.4 |" in table


def test_unequal_lengths_save_what_water_filling_does():
    assert water_filling.least_bits(np.full(10, 0.3), 3) == pytest.approx(3)
    # Where all words have bits: half the logarithm of the arithmetic over the geometric mean.
    saved = np.log2(2.5 / 2) / 2
    assert water_filling.least_bits(np.array([1.0, 1, 4, 4]), 3) == pytest.approx(3 - saved)
    # Of two words one hardly counts, and has none.
    assert water_filling.least_bits(np.array([1.0, 1e-9]), 2) == pytest.approx(1)


def test_the_best_code_leaves_the_errors_of_reverse_water_filling():
    variances, weights = np.array([4.0, 1.0]), np.array([0.75, 0.25])
    errors = rate_distortion.least_errors(variances, weights, 6)
    assert np.log2(variances / errors).sum() / 2 == pytest.approx(6)
    weighted = errors * weights[:, None]  # alike wherever there are bits
    np.testing.assert_allclose(weighted, weighted[0, 0])
    # Half a bit goes to what counts most, and nothing to the rest.
    np.testing.assert_allclose(
        rate_distortion.least_errors(variances, np.array([1.0, 1e-9]), 0.5), [[2, 1], [4, 1]]
    )


def test_the_best_channel_leaves_as_much_error_as_it_says(table):
    weights = np.full(N_WORDS, 1 / N_WORDS)
    nbytes = N_WORDS * N_DIMS * 2 / 8  # two bits a number
    sent = rate_distortion.sent(table.vectors, weights, nbytes, 0)
    error = np.square(sent - table.vectors).mean()
    variances = np.linalg.eigvalsh(np.cov(table.vectors.T, bias=True))
    level = np.exp(np.log(variances).mean()) * 2.0**-4
    assert error == pytest.approx(level, rel=0.1)


# ---------------------------------------------------------------------------------------------
# Other kinds of task


@pytest.fixture
def kinds(tmp_path, table, monkeypatch):
    """Tagged sentences and pairs of texts, each for the made-up table."""
    pytest.importorskip("faiss")
    pytest.importorskip("seqeval")
    pytest.importorskip("sacrebleu")
    import kinds

    random = np.random.default_rng(2)
    (tmp_path / "conll2000").mkdir()
    for part, size in {"train": 120, "test": 30}.items():
        sentences = [random.integers(0, N_WORDS, random.integers(1, 7)) for _ in range(size)]
        lines = [
            json.dumps(
                {
                    "tokens": [WORDS[i].upper() for i in ids],
                    "tags": ["B-NP" if i % 2 else "O" for i in ids],
                }
            )
            for ids in sentences
        ]
        text = "\n".join(lines) + "\n"
        (tmp_path / "conll2000" / f"{part}.jsonl").write_text(text, encoding="utf-8")
    (tmp_path / "sick").mkdir()
    for part, size in {"train": 90, "dev": 20, "test": 30}.items():
        pairs = random.integers(0, N_WORDS, (size, 2, 5))
        values = table.vectors[pairs, 0].mean(2) @ [1.0, -1.0]
        rows = [
            f"{'yes' if value > 0 else 'no'}\t{value}\t{' '.join(a)}\t{' '.join(b)}\n"
            for value, (a, b) in zip(values, np.array(WORDS)[pairs], strict=True)
        ]
        (tmp_path / "sick" / f"{part}.tsv").write_text("".join(rows), encoding="utf-8")
    (tmp_path / "multi30k_en_de").mkdir()
    for part, size in {"train": 90, "dev": 20, "test2016": 30}.items():
        rows = np.array(WORDS)[random.integers(0, N_WORDS, (size, 4))]
        text = "".join(f"{' '.join(row).title()}\t{' '.join(row[::-1])}.\n" for row in rows)
        (tmp_path / "multi30k_en_de" / f"{part}.tsv").write_text(text, encoding="utf-8")
    source = tasks.Source(table, lambda text: [])
    monkeypatch.setattr(kinds, "load_source", lambda name: source)
    monkeypatch.setattr(kinds, "_OURS", [{"size_penalty": 0.001}])
    schedules = dict.fromkeys(kinds.KINDS, kinds.Schedule(n_epochs=2))
    monkeypatch.setattr(kinds, "_SCHEDULES", schedules)
    monkeypatch.setattr(kinds, "peers", lambda *shape: [])
    return kinds


def run_twice(main, folder, monkeypatch, *more):
    """Run a script whose second run finds all of its points, and read them."""
    given = ["--data", str(folder), "--output", str(folder), "--seeds", "1", *more]
    monkeypatch.setattr(sys, "argv", [main.__module__, *given])
    file = folder / f"{main.__module__}.jsonl"
    main()
    found = file.read_text("utf-8")
    main()
    assert file.read_text("utf-8") == found
    assert file.with_suffix(".md").read_text("utf-8").startswith(("| ", "**"))
    return read_points(file)


def test_other_kinds_are_measured_once_and_laid_out(kinds, tmp_path, monkeypatch):
    points = run_twice(kinds.main, tmp_path, monkeypatch)
    assert len(points) == 4 * 3  # frozen, fine-tuned, ours
    full = [point for point in points if point["method"] == "full precision"]
    assert all(point["nbytes"] == point["table_nbytes"] for point in full)
    assert all(-1 <= point[part] <= 1 for point in points for part in ("dev", "test"))
    text = kinds.table_of(points)
    assert text.count("| skadacomp | size_penalty=0.001 |") == 4
    assert all(("chrF" in point) == (point["kind"] == "translation") for point in points)
    assert "CoNLL-2000 chunking, F1" in text


def test_a_kind_is_measured_on_the_whole_table_beside_the_rows_of_its_words(
    kinds, table, tmp_path, monkeypatch
):
    vectors = np.vstack([table.vectors, np.ones((5, N_DIMS), np.float32)])
    more = EmbeddingTable([*table.words, *(f"unseen{i}" for i in range(5))], vectors)
    monkeypatch.setattr(kinds, "load_source", lambda name: tasks.Source(more, lambda text: []))
    monkeypatch.setattr(kinds, "_OURS_OF_ALL", [{"size_penalty": 0.002}])
    run_twice(kinds.main, tmp_path, monkeypatch, "--kinds", "pair")
    points = run_twice(kinds.main, tmp_path, monkeypatch, "--kinds", "pair", "--rows", "whole")
    sizes = {(point["rows"], point["table_nbytes"]) for point in points}
    assert sizes == {("task", table.nbytes), ("whole", more.nbytes)}
    text = kinds.table_of(points)
    _, task, whole = text.split("**SICK entailment, accuracy")
    assert task.startswith("**")
    assert "| skadacomp | size_penalty=0.001 |" in task
    assert whole.startswith(", the whole table**")
    assert "| skadacomp | size_penalty=0.002 |" in whole


def test_tags_and_pairs_are_scored_as_the_field_does(kinds, tmp_path):
    case = kinds.load_case(tmp_path, "tagging")
    assert [len(part) for part in (case.split.train, case.split.dev, case.split.test)] == [
        *(108, 12, 30)
    ]
    targets = sparse.csr_matrix(([1.0] * 4, [0, 1, 0, 0], [0, 2, 4]), (2, 2))
    assert case.plain_score(targets, np.eye(2)[[0, 1, 0, 0]]) == 1
    assert case.plain_score(targets, np.eye(2)[[0, 1, 1, 0]]) == pytest.approx(0.8)
    pair = kinds.load_case(tmp_path, "pair-regression")
    values = np.array([[0.1], [0.5], [-1.0]])
    assert pair.plain_score(values, 3 * values + 1) == pytest.approx(1)


@pytest.fixture
def translator(kinds, tmp_path):
    """An untrained translator, seven documents for it, and the target words."""
    case = kinds.load_case(tmp_path, "translation")
    assert case.split.X[0] == [word.lower() for word in case.split.X[0]]
    (task,) = case.problem(0).tasks
    encoder = TargetEncoder.of("translation", [case.split.y[i] for i in case.split.train])
    torch.manual_seed(0)
    model = Teacher(torch.as_tensor(case.table.vectors.copy()), task.make_head(N_DIMS)).eval()
    return model, task.documents.first(7), encoder


@pytest.fixture
def head_steps():
    """The weights of a head after each step of any optimizer."""
    steps = []

    def note(optimizer, *_):
        steps.append(parameters_to_vector(optimizer.param_groups[0]["params"]).detach())

    hook = register_optimizer_step_post_hook(note)
    yield steps
    hook.remove()


@pytest.mark.parametrize("averaging", [0.0, 0.75])
def test_heads_are_kept_as_running_means_of_their_weights(kinds, tmp_path, averaging, head_steps):
    case = kinds.load_case(tmp_path, "translation")
    (task,) = case.problem(0).tasks
    part, late = task.documents.part(np.arange(64)), task.documents.part(np.arange(64, 90))
    schedule = kinds.Schedule(2, averaging=averaging)
    found = kinds.read_fixed(case.table.vectors, task.make_head, part, late, 0, schedule)
    assert len(head_steps) == 4  # both epochs better than the one before
    mean = head_steps[0]
    for weights in head_steps[1:]:
        mean = averaging * mean + (1 - averaging) * weights
    torch.testing.assert_close(parameters_to_vector(found.head.parameters()), mean)
    assert not found.training


def test_a_head_that_diverges_goes_back_to_its_best_state(kinds, tmp_path, head_steps, monkeypatch):
    case = kinds.load_case(tmp_path, "translation")
    (task,) = case.problem(0).tasks
    part, late = task.documents.part(np.arange(64)), task.documents.part(np.arange(64, 90))
    head = task.make_head(case.table.vectors.shape[1])
    loss, factors = head.criterion.loss, iter([1.0, 1.0, 1.0, torch.nan])

    def diverging(outputs, targets):
        factor = next(factors, 1.0) if outputs.requires_grad else 1.0
        return factor * loss(outputs, targets)

    monkeypatch.setattr(head.criterion, "loss", diverging)
    kinds.read_fixed(case.table.vectors, lambda n_dims: head, part, late, 0, kinds.Schedule(3))
    _, best, left, after = head_steps[:4]  # an epoch has two steps
    rate = head.learning_rate
    assert (left - best).abs().max() > 0.5 * rate
    assert (after - best).abs().max() < 0.11 * rate  # a tenth of the rate from there


def test_translations_are_written_as_people_would_and_scored(translator):
    import translations

    assert translations.bleu(["a b c d e."], ["a b c d e."])["score"] == pytest.approx(1)
    assert translations.bleu(["a b x d e."], ["a b c d e."])["score"] < 0.6
    assert translations._NO_SPACE.sub("", "Ein T - Shirt , alt .") == "Ein T-Shirt, alt."
    model, documents, encoder = translator
    assert len(translations.translated(model, documents, encoder)) == 7
    assert encoder.classes[translations._UNKNOWN] == "<unk>"
    model.head.bias.data[translations._UNKNOWN] = 1e6
    assert "<unk>" not in " ".join(translations.translated(model, documents, encoder))
    model.head.bias.data[translations._END] = 1e6
    assert translations.translated(model, documents, encoder) == [""] * 7


def log_probabilities(model, batch, sentences):
    """What the head says of each word of sentences behind the true words before it."""
    import translations

    n, n_steps = sentences.shape
    starts = torch.arange(0, n * n_steps, n_steps)
    scores = model(replace(batch, targets=sentences.flatten(), target_starts=starts))
    scores[:, translations._UNKNOWN] = -torch.inf
    told = scores.log_softmax(1).gather(1, sentences.flatten()[:, None])
    return scores, told.view(n, n_steps)


@torch.no_grad()
def test_one_beam_writes_the_likeliest_next_word(translator):
    from translations import written

    model, documents, _ = translator
    (batch,) = documents.batches(7, torch.device("cpu"))
    found = written(model, batch, n_beams=1)[:, :3]
    scores, _ = log_probabilities(model, batch, found)
    torch.testing.assert_close(scores.argmax(1), found.flatten())


@pytest.mark.parametrize("ending", [0.0, 0.5])  # the larger, the more short sentences
@torch.no_grad()
def test_beams_find_the_sentence_whose_words_are_likeliest_on_average(translator, ending):
    from translations import _END, written

    model, documents, encoder = translator
    (batch,) = documents.batches(7, torch.device("cpu"))
    words = (_END, 2, 3, 4, 5, 6)  # all that is ever written
    model.head.bias[[i for i in range(len(encoder.classes)) if i not in words]] = -1e6
    model.head.words_out.weight *= 3  # words that tell much of those after them
    model.head.bias[_END] = ending
    every = [
        sentence
        for sentence in product(words, repeat=3)
        if all(after == _END for word, after in pairwise(sentence) if word == _END)
    ]
    means = []
    for sentence in every:
        _, told = log_probabilities(model, batch, torch.tensor(sentence).repeat(7, 1))
        means.append(told[:, : np.count_nonzero(sentence) + 1].mean(1))  # with the end
    best = [list(every[i]) for i in torch.stack(means).argmax(0)]
    assert written(model, batch, n_beams=36, n_words=3).tolist() == best
    assert written(model, batch, n_beams=1, n_words=3).tolist() != best


def test_codes_learned_in_a_loop_are_scored_as_they_ship(kinds, tmp_path, monkeypatch):
    import loop

    monkeypatch.setattr(loop, "_N_EPOCHS", 2)
    found = run_twice(loop.main, tmp_path, monkeypatch)
    points = {point["method"]: point for point in found}
    assert len(points) == len(found) >= 6
    whole = points["full precision, fine-tuned"]["nbytes"]
    assert all(0 <= point["test"] <= 1 for point in points.values())
    sizes = [points[name]["nbytes"] for name in points if "in the loop" in name]
    assert 0 < sizes[0] <= sizes[-1] < whole
    assert "\n| RQ, " in loop.table_of(list(points.values()))


def test_two_tasks_share_a_table_of_both_words(kinds, tmp_path, monkeypatch):
    import joint

    (tmp_path / "sst2").mkdir()
    random = np.random.default_rng(3)
    for part, size in {"train": 90, "dev": 20, "test": 30}.items():
        rows = random.integers(20, N_WORDS, (size, 5))
        lines = [
            f"{'up' if row[0] % 2 else 'down'}\t{' '.join(WORDS[i] for i in row)}\n" for row in rows
        ]
        (tmp_path / "sst2" / f"{part}.tsv").write_text("".join(lines), encoding="utf-8")
    source = kinds.load_source("glove-50")
    whole = replace(source, split=lambda text: [int(word[1:]) for word in text.split()])
    monkeypatch.setattr(tasks, "load_source", lambda name: whole)
    pair = joint.Pair.load(tmp_path)
    assert set(pair.table.words) <= set(WORDS)
    document = pair.sentiment.documents[3]
    vectors = whole.table.vectors[[int(pair.table.words[i][1:]) for i in document]]
    np.testing.assert_array_equal(pair.table.vectors[document], vectors)
    points = run_twice(joint.main, tmp_path, monkeypatch)
    assert [point["name"] for point in points] == list(joint._NAMES)
    assert "\n| both | " in joint.table_of(points)


def test_what_ships_is_timed_beside_the_whole_table(monkeypatch):
    pytest.importorskip("faiss")
    import runtime

    random = np.random.default_rng(0)
    vectors = random.normal(size=(400, 6)).astype(np.float32)
    words = [f"w{number}" for number in range(400)]
    table = EmbeddingTable(words, vectors)
    fitted = AdaptiveCodebookCompressor(code_lengths=(2,), max_iter=1, random_state=0).fit(table)
    shipped = {"small": fitted.compressed_}
    texts = [" ".join(random.choice(words, 8)) for _ in range(20)]
    monkeypatch.setattr(runtime, "decoders", lambda *shape: iter(()))  # faiss wants more rows
    lines = runtime.random_ids(shipped, vectors, rounds=2)
    lines += runtime.whole_table(shipped, vectors, rounds=2)
    lines += runtime.single_words(shipped, table, rounds=1)
    lines += runtime.documents(shipped, table, texts, rounds=1)
    lines += runtime.fresh(shipped, table, rounds=1)
    monkeypatch.setattr(runtime, "_N_PROCESSES", 2)
    lines += runtime.processes(shipped)
    lines += runtime.imports(rounds=1)
    lines += runtime.sizes(shipped)
    text = "\n".join(lines)
    assert text.count("| skadacomp, small |") == 5
    # All rows have two codes of 4 bits.
    assert "| small | 400 |" in text
    # Two processes map the file once.
    assert f"| small | {fitted.compressed_.file_nbytes:,} | 4,096 | 0 |" in text
    assert "times as long as `import numpy`" in text


# ---------------------------------------------------------------------------------------------
# Scale


@pytest.fixture
def small_scale(table, monkeypatch):
    """Tables and news of the size of a test."""
    random = np.random.default_rng(0)
    texts = [" ".join(WORDS[i] for i in row) for row in random.integers(0, 50, (40, 6))]
    news = Bunch(data=texts, target=np.array(["a", "b"] * 20))
    monkeypatch.setattr(scale, "load_glove", lambda: table)
    monkeypatch.setattr(scale, "load_bbc_news", lambda: news)
    monkeypatch.setattr(scale, "_ROWS_A_BLOCK", 20)
    monkeypatch.setattr(scale, "_N_DIMS", 12)
    monkeypatch.setattr(scale, "_N_DOCUMENTS", 30)
    monkeypatch.setattr(scale, "_A_BATCH", 8)


def test_a_small_made_table_is_the_beginning_of_a_larger_one(small_scale, tmp_path, table):
    small, large = (EmbeddingTable.open(scale.make_table(tmp_path, n)) for n in (40, 200))
    assert (small.n_dims, large.n_words) == (12, 200)
    np.testing.assert_array_equal(small.vectors, large.vectors[:40])
    assert large.words == (*WORDS, *(f"w{i}" for i in range(N_WORDS, 200)))
    # Rows come again, with noise of their own.
    again, other = large.vectors[N_WORDS:160], large.vectors[N_WORDS - 1 : 159]
    distance = np.abs(large.vectors[:N_WORDS] - again).mean()
    assert 0 < distance < 0.7 * np.abs(large.vectors[:N_WORDS] - other).mean()


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for its memory")
def test_scale_measures_and_goes_on_from_what_it_has(small_scale, tmp_path, monkeypatch):
    runs = []

    def here(kind, path, job):
        runs.append(job)
        return {"fit": scale.fit, "transform": scale.transform}[kind](path, job)

    monkeypatch.setattr(scale, "in_a_process", here)
    monkeypatch.setattr(scale, "SIZES", (40, 200))
    points = tmp_path / "scale.jsonl"
    scale.measure(tmp_path, points, [40, 200])
    assert len(runs) == 2 * len(scale.JOBS) + len(scale.TRANSFORMS)
    scale.measure(tmp_path, points, [40, 200])
    assert len(runs) == 2 * len(scale.JOBS) + len(scale.TRANSFORMS)
    lines = scale.read_points(points)
    whole = [line for line in lines if "every word" in line["job"]]
    assert [line["words_kept"] for line in whole] == [40, 200]
    rows = [*scale.fits_table(lines), *scale.transforms_table(lines)]
    assert len({row.count("|") for row in rows[:8]}) == 1
    assert len(rows) == 2 + 6 + 2 + 3
    scale.picture(lines).savefig(tmp_path / "scale.png")


def test_memory_is_watched_meanwhile():
    if sys.platform != "linux":
        pytest.skip("asks Linux for its memory")
    with scale.Watched() as watched:
        block = np.ones(10_000_000)
        time.sleep(0.5)
        del block
    assert watched.most - watched.before > 7e7
    assert watched.seconds >= 0.5
