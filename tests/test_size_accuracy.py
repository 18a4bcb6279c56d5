"""What the size-accuracy curve shows and names; not its pixels."""

import sys

import matplotlib as mpl
import numpy as np
import pytest
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV

from skadacomp.display import SizeAccuracyDisplay

mpl.use("agg")
from matplotlib import pyplot

NBYTES = [9_000, 2_000, 20_000, 4_000]
SCORES = [0.86, 0.80, 0.85, 0.84]


class Sized(BaseEstimator):
    """Score and size are its parameters, with a spread over the splits."""

    def __init__(self, score=0.5, nbytes=1000.0, colour="red"):
        self.score, self.nbytes, self.colour = score, nbytes, colour

    def fit(self, X, y=None):
        self.fitted_ = True
        self.shift_ = float(np.mean(X))
        return self


def accuracy(estimator, X, y=None):
    return estimator.score + estimator.shift_ / 1000


def minus_bytes(estimator, X, y=None):
    return -estimator.nbytes - estimator.shift_


GRID = [
    {"score": [score], "nbytes": [nbytes]}
    for score, nbytes in zip(SCORES, map(float, NBYTES), strict=True)
]


def searched(grid=GRID, refit="accuracy", size="n_bytes", **scorers):
    scoring = {"accuracy": accuracy, size: minus_bytes, **scorers}
    return GridSearchCV(Sized(), grid, scoring=scoring, refit=refit, cv=2).fit(np.arange(10.0))


@pytest.fixture(autouse=True)
def _no_figures_left():
    yield
    pyplot.close("all")


def named(display):
    return [name.get_text() for name in display.names_]


def legend_of(display):
    return [text.get_text() for text in display.legend_.get_texts()]


def test_the_line_goes_through_points_that_score_higher_than_all_smaller_ones():
    display = SizeAccuracyDisplay(NBYTES, SCORES).plot()
    np.testing.assert_array_equal(display.line_.get_xdata(), [2_000, 4_000, 9_000])
    np.testing.assert_array_equal(display.line_.get_ydata(), [0.80, 0.84, 0.86])
    assert display.plot() is display
    assert display.figure_ is display.ax_.figure
    assert display.ax_.get_xscale() == "log"


def test_every_point_is_drawn():
    display = SizeAccuracyDisplay(NBYTES, SCORES).plot()
    drawn = np.vstack([line.get_xydata() for line in display.ax_.lines])
    np.testing.assert_array_equal(
        np.unique(drawn, axis=0), sorted(zip(NBYTES, SCORES, strict=True))
    )


def test_of_equal_sizes_the_better_is_on_the_line():
    display = SizeAccuracyDisplay([10, 10, 20], [0.5, 0.6, 0.6]).plot()
    np.testing.assert_array_equal(display.line_.get_xydata(), [[10, 0.6]])


def test_methods_have_lines_and_legends_of_their_own():
    methods = ["ours", "PQ", "ours", "PQ"]
    display = SizeAccuracyDisplay.from_points(NBYTES, SCORES, methods=methods)
    assert [line.get_label() for line in display.lines_] == ["ours", "PQ"]
    assert legend_of(display) == ["ours", "PQ"]
    one, other = display.lines_
    assert one.get_color() != other.get_color()
    assert one.get_marker() != other.get_marker()
    assert display.line_ is one
    np.testing.assert_array_equal(one.get_xdata(), [9_000])


def test_nothing_to_tell_apart_has_no_legend():
    display = SizeAccuracyDisplay(NBYTES, SCORES).plot()
    assert (display.legend_, display.chosen_, display.full_precision_) == (None, None, None)


def test_error_bars_are_the_standard_deviations():
    display = SizeAccuracyDisplay(
        NBYTES, SCORES, nbytes_std=[100, 0, 0, 0], scores_std=[0.01] * 4
    ).plot()
    (bars,) = display.errorbars_
    across, up = (collection.get_segments() for collection in bars.lines[2])
    np.testing.assert_allclose(across[0], [[8_900, 0.86], [9_100, 0.86]])
    np.testing.assert_allclose(up[0], [[9_000, 0.85], [9_000, 0.87]])


def test_ring_and_full_precision():
    display = SizeAccuracyDisplay(NBYTES, SCORES, chosen=3, full_precision=0.9).plot()
    assert display.chosen_.get_xydata().tolist() == [[4_000, 0.84]]
    assert set(display.full_precision_.get_ydata()) == {0.9}
    assert legend_of(display) == ["chosen", "full precision"]
    assert display.ax_.get_ylim()[1] > 0.9


def test_sizes_are_written_with_units():
    display = SizeAccuracyDisplay([900, 2e6], [0.5, 0.6]).plot()
    display.figure_.draw_without_rendering()
    assert {"1 kB", "1 MB"} <= {label.get_text() for label in display.ax_.get_xticklabels()}


@pytest.mark.parametrize("nbytes", [[5_000], [5_000, 5_100], [5_000, 12_000], [10, 3e9]])
def test_the_axis_holds_all_points_and_has_marks(nbytes):
    spread = 2 * np.array(nbytes)  # reaches below 0, where a log axis ends
    display = SizeAccuracyDisplay(nbytes, [0.5] * len(nbytes), nbytes_std=spread).plot()
    low, high = display.ax_.get_xlim()
    assert 0 < low < min(nbytes)
    assert max(nbytes) < high
    assert sum(low <= mark <= high for mark in display.ax_.get_xticks()) >= 2


@pytest.mark.parametrize("size", [(8, 5), (4, 3)])
@pytest.mark.parametrize("letters", [1, 8, 60])
def test_names_do_not_collide(size, letters):
    random = np.random.default_rng(0)
    nbytes, scores = 10 ** random.uniform(3, 5, 25), random.uniform(0.7, 0.9, 25)
    names = [f"{number}{'x' * letters}" for number in range(25)]
    _, ax = pyplot.subplots(figsize=size, layout="constrained")
    display = SizeAccuracyDisplay(nbytes, scores, names=names, chosen=7).plot(ax=ax)
    display.figure_.draw_without_rendering()
    boxes = [name.get_window_extent() for name in display.names_]
    frame = ax.get_window_extent()
    places = ax.transData.transform(np.column_stack([nbytes, scores]))
    for number, box in enumerate(boxes):
        assert frame.x0 <= box.x0 <= box.x1 <= frame.x1
        assert not any(box.overlaps(other) for other in boxes[:number])
        assert not any(box.contains(*place) for place in places)
    if letters == 1:
        assert len(boxes) > 15
        assert named(display)[0] == "7x"
    assert len(ax.texts) == len(boxes)


def test_a_name_keeps_off_the_line_where_there_is_room():
    display = SizeAccuracyDisplay([1e3, 1e4, 1e5], [0.5, 0.7, 0.8], names=["a", "bbbbbb", "c"])
    display.plot()
    line = display.line_.get_transform().transform_path(display.line_.get_path())
    assert len(display.names_) == 3
    boxes = [name.get_window_extent() for name in display.names_]
    assert not any(line.intersects_bbox(box, filled=False) for box in boxes)


def test_names_are_not_formulas_and_are_cut():
    display = SizeAccuracyDisplay([1e3], [0.5], names=["$a$" + "b" * 60]).plot()
    (name,) = named(display)
    assert name.startswith("$a$b")
    assert (len(name), name[-1]) == (28, "…")


def test_a_second_picture_joins_the_first():
    first = SizeAccuracyDisplay.from_points(NBYTES, SCORES, methods="ours")
    second = SizeAccuracyDisplay.from_points([50_000], [0.9], methods="PQ", ax=first.ax_)
    assert second.ax_ is first.ax_
    assert first.line_.get_color() != second.line_.get_color()
    assert legend_of(second) == ["ours", "PQ"]
    low, high = second.ax_.get_xlim()
    assert (low < 2_000, high > 50_000) == (True, True)


def test_a_search():
    search = searched()
    display = SizeAccuracyDisplay.from_estimator(search, full_precision=0.9)
    np.testing.assert_allclose(display.scores, search.cv_results_["mean_test_accuracy"])
    np.testing.assert_allclose(display.nbytes, -search.cv_results_["mean_test_n_bytes"])
    np.testing.assert_allclose(display.scores_std, search.cv_results_["std_test_accuracy"])
    np.testing.assert_allclose(display.nbytes_std, search.cv_results_["std_test_n_bytes"])
    assert display.nbytes_std.min() > 0
    assert display.chosen == search.best_index_ == 0
    assert display.methods[0] == "nbytes, score"
    assert display.names[1] == "2000, 0.8"
    assert display.ax_.get_ylabel() == "accuracy"
    assert legend_of(display) == ["nbytes, score", "chosen", "full precision"]


def test_a_search_names_what_differs_only():
    grid = {"colour": [("red", 1), ("blue", 2)], "score": [0.5]}
    display = SizeAccuracyDisplay.from_estimator(searched(grid))
    assert (display.methods[0], display.names) == ("colour", ["('red', 1)", "('blue', 2)"])
    display = SizeAccuracyDisplay.from_estimator(searched({"score": [0.5]}))
    assert (display.methods, display.names) == ([None], [""])
    assert SizeAccuracyDisplay.from_estimator(searched(), method="ours").methods == ["ours"] * 4


def test_which_score_of_a_search():
    search = searched(refit=False, other=lambda estimator, X, y=None: 0.1)
    with pytest.raises(ValueError, match="scoring=None must be one of accuracy, other"):
        SizeAccuracyDisplay.from_estimator(search)
    display = SizeAccuracyDisplay.from_estimator(search, scoring="other")
    assert (set(display.scores), display.chosen, display.score_name) == ({0.1}, None, "other")
    search = searched(refit="other", other=lambda estimator, X, y=None: 0.1)
    assert SizeAccuracyDisplay.from_estimator(search).score_name == "other"
    smallest = searched(refit=lambda results: int(np.argmax(results["mean_test_n_bytes"])))
    display = SizeAccuracyDisplay.from_estimator(smallest)
    assert (display.score_name, display.chosen) == ("accuracy", 1)


def test_a_search_without_sizes_is_told_how():
    with pytest.raises(ValueError, match=r"size='n_bytes' is none .* accuracy, weight"):
        SizeAccuracyDisplay.from_estimator(searched(size="weight"))
    assert SizeAccuracyDisplay.from_estimator(searched(size="weight"), size="weight").names
    with pytest.raises(ValueError, match="scoring='loss' must be one of accuracy"):
        SizeAccuracyDisplay.from_estimator(searched(), scoring="loss")
    search = searched(ratio=lambda estimator, X, y=None: 100.0)
    with pytest.raises(ValueError, match=r"size='ratio' must name a scorer of minus the bytes"):
        SizeAccuracyDisplay.from_estimator(search, scoring="accuracy", size="ratio")
    with pytest.raises(NotFittedError):
        SizeAccuracyDisplay.from_estimator(GridSearchCV(Sized(), GRID))


def test_a_candidate_that_failed_is_left_out():
    search = searched()
    search.cv_results_["mean_test_accuracy"][1] = np.nan
    search.best_index_ = 3
    display = SizeAccuracyDisplay.from_estimator(search)
    np.testing.assert_allclose(display.scores, np.array(SCORES)[[0, 2, 3]], atol=0.01)
    assert (display.chosen, display.names[2]) == (2, "4000, 0.84")


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"nbytes": []}, "nbytes must hold at least one size"),
        ({"nbytes": [1, 2, 0, 4]}, "nbytes must hold at least one size, and all above 0"),
        ({"nbytes": [[1, 2]]}, r"nbytes must hold a finite number .* shape \(1, 2\)"),
        ({"scores": SCORES[:3]}, r"scores must hold a finite number .* 4 points"),
        ({"scores": [*SCORES[:3], np.nan]}, "scores must hold a finite number"),
        ({"scores_std": [-1, 0, 0, 0]}, "scores_std holds -1.0"),
        ({"methods": ["a"]}, "methods has 1 entries for 4 points"),
        ({"names": ["a"] * 5}, "names has 5 entries for 4 points"),
        ({"chosen": 4}, "chosen=4 must be one of the points 0 to 3"),
    ],
)
def test_bad_points(parameters, message):
    with pytest.raises(ValueError, match=message):
        SizeAccuracyDisplay(**({"nbytes": NBYTES, "scores": SCORES} | parameters))


def test_without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r"SizeAccuracyDisplay .*skadacomp\[plot\]"):
        SizeAccuracyDisplay(NBYTES, SCORES).plot()


def test_saving_warns_of_nothing(tmp_path):
    display = SizeAccuracyDisplay.from_estimator(searched(), full_precision=0.9)
    display.figure_.savefig(tmp_path / "x.png", dpi=150)
    assert (tmp_path / "x.png").stat().st_size > 10_000
