"""What the picture of code lengths shows and names; not its pixels."""

import sys
import warnings

import joblib
import matplotlib as mpl
import numpy as np
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from skadacomp import AdaptiveCodebookCompressor, CompressedTable, EmbeddingTable
from skadacomp.display import CodeLengthDisplay

mpl.use("agg")
from matplotlib import pyplot
from matplotlib.text import Text

WORDS = ["the", "of", "film", "plot", "awful", "superb"]
LENGTHS = [0, 0, 2, 2, 4, 4]
TEXTS = ["the awful film", "a superb film", "an awful plot", "the superb plot"] * 5
LABELS = [0, 1, 0, 1] * 5


@pytest.fixture(autouse=True)
def _no_figures_left():
    yield
    pyplot.close("all")


@pytest.fixture
def table():
    return EmbeddingTable(WORDS, np.random.default_rng(0).normal(size=(6, 4)))


@pytest.fixture
def compressed():
    codes = np.where(np.arange(4) < np.array(LENGTHS)[:, None], 0, -1)
    return CompressedTable.from_codes(
        codes, np.ones((4, 2, 3)), np.zeros(3), WORDS, code_lengths=(0, 2, 4)
    )


def fitted(table, **parameters):
    given = {"code_lengths": (0, 2), "n_codewords": 2, "max_iter": 2, "random_state": 0}
    return AdaptiveCodebookCompressor(table, **(given | parameters)).fit(TEXTS, LABELS)


def zipf_like(n_words=20_000):
    """Give long codes to frequent words, shorter ones to rarer, none to most, with exceptions."""
    lengths = np.zeros(n_words, int)
    lengths[:8000], lengths[:3000], lengths[:900] = 2, 4, 8
    lengths[[5, 40]] = 0
    lengths[[15_000, 19_000]] = 8
    return lengths, [f"w{row}" for row in range(n_words)]


def named(display):
    return [name.get_text() for name in display.names_]


def described(display):
    return [text.get_text() for text in display.legend_.get_texts()]


def test_attributes(compressed):
    display = CodeLengthDisplay.from_compressed(compressed, words=WORDS)
    np.testing.assert_array_equal(display.code_lengths, LENGTHS)
    assert display.words == WORDS
    assert display.figure_ is display.ax_.figure
    assert display.plot() is display


def test_bands_are_shares_from_the_longest_up():
    display = CodeLengthDisplay(LENGTHS, WORDS).plot()
    values = np.array([band.get_data().values for band in display.bands_])
    bases = np.array([band.get_data().baseline for band in display.bands_])
    np.testing.assert_array_equal(bases[0], 0)
    np.testing.assert_array_equal(bases[1:], values[:-1])
    np.testing.assert_array_equal(values[-1], 1)
    np.testing.assert_array_equal(values[0], [0, 0, 0, 0, 1, 1])
    assert described(display) == ["4 codes: 2 words", "2 codes: 2 words", "dropped: 2 words"]


def test_shares_of_a_large_table_are_right():
    lengths, words = zipf_like()
    longest = CodeLengthDisplay(lengths, words).plot().bands_[0].get_data()
    starts = longest.edges[:-1].astype(int) - 1
    sizes = np.diff(longest.edges)
    assert (starts[0], longest.edges[-1]) == (0, len(lengths) + 1)
    assert sizes.min() >= 20
    for start, size, share in zip(starts, sizes.astype(int), longest.values, strict=True):
        assert share == pytest.approx((lengths[start : start + size] == 8).mean())


@pytest.mark.parametrize(("n_words", "scale"), [(100, "linear"), (101, "log"), (1000, "log")])
def test_bins_cover_every_word(n_words, scale):
    display = CodeLengthDisplay(np.arange(n_words) % 2).plot()
    assert display.ax_.get_xscale() == scale
    edges = display.bands_[0].get_data().edges
    assert edges[-1] - edges[0] == n_words
    assert (np.diff(edges) > 0).all()


def test_names_the_rarest_long_and_the_most_frequent_dropped():
    lengths, words = zipf_like()
    display = CodeLengthDisplay(lengths, words).plot(n_names=2)
    assert named(display) == ["w5", "w40", "w15000", "w19000"]
    captions = [text.get_text() for text in display.ax_.texts if text not in display.names_]
    assert captions == ["most frequent dropped", "rarest with 8 codes"]
    assert named(display.plot(n_names=0)) == []


def test_where_no_word_is_dropped_it_names_the_shortest():
    display = CodeLengthDisplay([1, 1, 4, 4], ["a", "b", "c", "d"]).plot(n_names=1)
    assert named(display) == ["a", "d"]
    assert "most frequent with 1 code" in [text.get_text() for text in display.ax_.texts]


def test_picks_words_only():
    words = [",", "1990", "the", "", None, "—"]
    assert named(CodeLengthDisplay([0, 0, 0, 4, 4, 4], words).plot()) == ["the"]


def test_highlight_names_these_and_no_others():
    display = CodeLengthDisplay(LENGTHS, WORDS).plot(highlight=["superb", "of", "film", "of"])
    assert sorted(named(display)) == ["film", "of", "superb"]
    with pytest.raises(ValueError, match="highlight: 'oops' is none of the words"):
        CodeLengthDisplay(LENGTHS, WORDS).plot(highlight=["of", "oops"])
    with pytest.raises(ValueError, match="highlight: 'of' is none of the words"):
        CodeLengthDisplay(LENGTHS).plot(highlight=["of"])


def test_a_name_points_into_its_band():
    display = CodeLengthDisplay(LENGTHS, WORDS).plot(highlight=WORDS)
    for name in display.names_:
        rank, share = name.xy
        assert rank == 1 + WORDS.index(name.get_text())
        assert 0 < share < 1


@pytest.mark.parametrize("size", [(8, 5), (4, 3), (3, 3)])
@pytest.mark.parametrize("letters", [3, 30])
def test_names_do_not_overlap(size, letters):
    lengths, words = zipf_like()
    words = [f"{word}{'x' * letters}" for word in words]
    _, ax = pyplot.subplots(figsize=size, layout="constrained")
    display = CodeLengthDisplay(lengths, words).plot(ax=ax, n_names=8)
    display.figure_.draw_without_rendering()
    boxes = [Text.get_window_extent(text) for text in ax.texts]
    for number, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:number])
    if size == (8, 5):
        frame = display.figure_.bbox
        assert all(frame.x0 <= box.x0 and box.x1 <= frame.x1 for box in boxes)
        assert display.names_


def test_a_subfigure():
    part = pyplot.figure(figsize=(14, 5), layout="constrained").subfigures(1, 2)[1]
    display = CodeLengthDisplay(LENGTHS, WORDS).plot(ax=part.subplots())
    assert display.figure_ is part
    assert named(display) == ["the", "of", "awful", "superb"]


def test_legend_fits_the_axes():
    display = CodeLengthDisplay(np.arange(50_000) % 12).plot()
    display.figure_.draw_without_rendering()
    legend, figure = display.legend_.get_window_extent(), display.figure_.bbox
    assert legend.x1 <= figure.x1
    assert legend.y1 <= figure.y1


def test_words_are_not_formulas():
    display = CodeLengthDisplay([0, 4], ["a$b$", "c$"]).plot(highlight=["a$b$", "c$"])
    display.figure_.draw_without_rendering()
    assert sorted(named(display)) == ["a$b$", "c$"]


@pytest.mark.parametrize("words", [None, WORDS])
def test_one_code_length_has_nothing_to_name(words):
    display = CodeLengthDisplay(np.full(6, 3), words).plot()
    assert named(display) == []
    assert described(display) == ["3 codes: 6 words"]


def test_a_single_word():
    assert described(CodeLengthDisplay([1], ["a"]).plot()) == ["1 code: 1 word"]


def test_without_words_there_are_no_names(table):
    bare = EmbeddingTable(None, table.vectors)
    ids = [[row % 6, (row + 1) % 6] for row in range(20)]
    compressor = AdaptiveCodebookCompressor(
        bare, code_lengths=(0, 2), n_codewords=2, max_iter=2, random_state=0
    ).fit(ids, LABELS)
    assert named(CodeLengthDisplay.from_estimator(compressor)) == []


def test_from_estimator_and_from_a_pipeline(table):
    compressor = fitted(table)
    display = CodeLengthDisplay.from_estimator(compressor)
    np.testing.assert_array_equal(display.code_lengths, compressor.code_lengths_)
    assert display.words == WORDS
    pipe = make_pipeline(AdaptiveCodebookCompressor(table, max_iter=1), LogisticRegression())
    with pytest.raises(NotFittedError):
        CodeLengthDisplay.from_estimator(pipe)
    pipe.fit(TEXTS, LABELS)
    _, ax = pyplot.subplots()
    assert CodeLengthDisplay.from_estimator(pipe, ax=ax, cmap="cividis").ax_ is ax
    with pytest.raises(TypeError, match="estimator is of type LogisticRegression"):
        CodeLengthDisplay.from_estimator(pipe[-1])


def test_a_loaded_compressor_knows_the_kept_words_only(table, tmp_path):
    joblib.dump(fitted(table), tmp_path / "compressor.joblib")
    loaded = joblib.load(tmp_path / "compressor.joblib")
    display = CodeLengthDisplay.from_estimator(loaded)
    kept = [word for word in display.words if word is not None]
    assert kept == loaded.compressed_.words
    assert CodeLengthDisplay.from_estimator(loaded, words=table).words == WORDS


def test_words_of_a_compressed_table(compressed, table):
    assert CodeLengthDisplay.from_compressed(compressed).words == [None, None, *WORDS[2:]]
    display = CodeLengthDisplay.from_compressed(compressed, words=table)
    assert named(display) == ["the", "of", "awful", "superb"]
    with pytest.raises(ValueError, match="words has 3 entries and code_lengths 6"):
        CodeLengthDisplay.from_compressed(compressed, words=WORDS[:3])


@pytest.mark.parametrize("code_lengths", [[], [[1]], [0.5], ["a"]])
def test_code_lengths_are_whole_numbers(code_lengths):
    with pytest.raises(ValueError, match="code_lengths must hold one whole number a word"):
        CodeLengthDisplay(code_lengths)


def test_code_lengths_are_not_negative():
    with pytest.raises(ValueError, match="code_lengths holds -1"):
        CodeLengthDisplay([0, -1])


def test_without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r'matplotlib.*pip install "skadacomp\[plot\]"'):
        CodeLengthDisplay(LENGTHS, WORDS).plot()


def test_saving_warns_of_nothing(tmp_path):
    lengths, words = zipf_like()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        CodeLengthDisplay(lengths, words).plot().figure_.savefig(tmp_path / "x.png", dpi=150)
