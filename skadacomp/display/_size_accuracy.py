"""Score against size, drawn for the candidates of a search or for methods side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted

from skadacomp.display._drawing import FONT_SIZE, lay_out, legend_above, new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.container import ErrorbarContainer
    from matplotlib.figure import Figure
    from matplotlib.legend import Legend
    from matplotlib.lines import Line2D
    from matplotlib.path import Path
    from matplotlib.text import Annotation
    from matplotlib.ticker import Locator
    from matplotlib.transforms import Bbox

# Okabe and Ito's colours; yellow is left out, it does not show on white.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#000000")
_MARKERS = "os^DvPX<>h"
_MARKER_SIZE, _RING_SIZE = 6.0, 12.0  # points
_LONGEST_NAME = 28  # letters of a name that are drawn
_MARGIN = 1.2  # factor between a size and the edge of the axes, at least
# Where a name may stand: horizontal and vertical side of its point. Right of and below a rising
# curve is most room.
_SIDES = ((1, -1), (0, -1), (1, 0), (-1, 1), (0, 1), (-1, 0), (1, 1), (-1, -1))


class SizeAccuracyDisplay:
    """Size-accuracy curve: the score of each candidate against the bytes of what ships.

    A line goes through the points that are worth their bytes: those that score higher than all
    smaller points of their method. The others are hollow.

    Make one with `from_estimator`, of a fitted search, or with `from_points`.

    Parameters
    ----------
    nbytes : array-like of float, shape (n_points,)
        Size of each point, in bytes.
    scores : array-like of float, shape (n_points,)
        Score of each point; greater is better.
    nbytes_std, scores_std : array-like of float, shape (n_points,), default=None
        Their standard deviations, drawn as error bars.
    methods : str or sequence of str, length n_points, default=None
        The method that each point belongs to, which has a line and a colour of its own. A str
        names a single one.
    names : sequence of str, length n_points, default=None
        What is written beside each point, "" for nothing.
    chosen : int, default=None
        The point to put a ring around.
    full_precision : float, default=None
        Score of the table as it was, drawn as a line across.
    score_name : str, default="score"
        What the scores are.

    Attributes
    ----------
    nbytes, scores : ndarray of float64, shape (n_points,)
        As given.
    nbytes_std, scores_std : ndarray of float64, shape (n_points,), or None
        As given.
    methods : list of str or None, length n_points
        The method of each point.
    names : list of str, length n_points
        As given.
    chosen : int or None
        As given.
    full_precision : float or None
        As given.
    score_name : str
        As given.
    ax_ : matplotlib Axes
        Where it was drawn.
    figure_ : matplotlib Figure
        The figure of these axes.
    line_ : matplotlib Line2D
        The line of the first method.
    lines_ : list of matplotlib Line2D
        The line of each method, in order of appearance.
    errorbars_ : list of matplotlib ErrorbarContainer
        The error bars of each method.
    names_ : list of matplotlib Annotation
        The names that found room.
    chosen_ : matplotlib Line2D or None
        The ring.
    full_precision_ : matplotlib Line2D or None
        The line across.
    legend_ : matplotlib Legend or None
        None where there is nothing to tell apart.

    Raises
    ------
    ValueError
        If there are no points, sizes are not above 0, numbers are not finite, lengths differ, or
        `chosen` is none of the points.

    Examples
    --------
    >>> from skadacomp.display import SizeAccuracyDisplay
    >>> display = SizeAccuracyDisplay.from_points(
    ...     [2_000, 9_000, 20_000, 4_000, 40_000],
    ...     [0.80, 0.86, 0.85, 0.70, 0.85],
    ...     methods=["ours", "ours", "ours", "PQ", "PQ"],
    ...     full_precision=0.87,
    ... )
    >>> [line.get_label() for line in display.lines_]
    ['ours', 'PQ']
    >>> display.line_.get_xdata()  # 20,000 bytes score less than 9,000
    array([2000., 9000.])
    """

    def __init__(
        self,
        nbytes: ArrayLike,
        scores: ArrayLike,
        *,
        nbytes_std: ArrayLike | None = None,
        scores_std: ArrayLike | None = None,
        methods: str | Sequence[str] | None = None,
        names: Sequence[str] | None = None,
        chosen: int | None = None,
        full_precision: float | None = None,
        score_name: str = "score",
    ) -> None:
        self.nbytes = _numbers(nbytes, "nbytes", np.size(nbytes))
        if not self.nbytes.size or self.nbytes.min() <= 0:
            raise ValueError("nbytes must hold at least one size, and all above 0.")
        n_points = len(self.nbytes)
        self.scores = _numbers(scores, "scores", n_points)
        self.nbytes_std = _spread(nbytes_std, "nbytes_std", n_points)
        self.scores_std = _spread(scores_std, "scores_std", n_points)
        one_method = methods is None or isinstance(methods, str)
        self.methods = _texts([methods] * n_points if one_method else methods, "methods", n_points)
        self.names = _texts([""] * n_points if names is None else names, "names", n_points)
        if chosen is not None and not 0 <= chosen < n_points:
            raise ValueError(f"chosen={chosen!r} must be one of the points 0 to {n_points - 1}.")
        self.chosen = chosen
        self.full_precision = full_precision
        self.score_name = score_name

    @classmethod
    def from_estimator(
        cls,
        search: Any,
        *,
        scoring: str | None = None,
        size: str = "n_bytes",
        method: str | None = None,
        full_precision: float | None = None,
        ax: Axes | None = None,
    ) -> SizeAccuracyDisplay:
        """Draw the candidates of a search, with the spread over its splits.

        The legend says which parameters differ, and beside each point stand their values. The ring
        is around the candidate that the search refitted.

        Parameters
        ----------
        search : fitted GridSearchCV or RandomizedSearchCV
            One that was given several scorers, a scorer of bytes among them, such as
            ``scoring={"accuracy": "accuracy", "n_bytes": n_bytes}``.
        scoring : str, default=None
            The name in the search's `scoring` of the score to draw. None takes that of `refit`, or
            the only one beside `size`.
        size : str, default="n_bytes"
            The name in the search's `scoring` of a scorer of minus the bytes.
        method : str, default=None
            What the legend calls the line. None is the names of the parameters that differ.
        full_precision : float, default=None
            Score of the table as it was, on the same splits.
        ax : matplotlib Axes, default=None
            See `plot`.

        Returns
        -------
        SizeAccuracyDisplay

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        NotFittedError
            If the search is not fitted.
        ValueError
            If the search has no such scores, if `size` is not negative, or if all its fits failed.

        Examples
        --------
        >>> import numpy as np
        >>> from sklearn.linear_model import LogisticRegression
        >>> from sklearn.model_selection import GridSearchCV
        >>> from sklearn.pipeline import Pipeline
        >>> from skadacomp import AdaptiveCodebookCompressor, EmbeddingTable
        >>> from skadacomp.display import SizeAccuracyDisplay
        >>> from skadacomp.metrics import n_bytes
        >>> vectors = np.random.default_rng(0).normal(size=(4, 8))
        >>> table = EmbeddingTable(["good", "bad", "film", "plot"], vectors)
        >>> texts, labels = ["good film", "bad film", "good plot", "bad plot"] * 6, [1, 0] * 12
        >>> compressor = AdaptiveCodebookCompressor(table, max_iter=1, random_state=0)
        >>> search = GridSearchCV(
        ...     Pipeline([("compressor", compressor), ("classifier", LogisticRegression())]),
        ...     {"compressor__code_lengths": [(0, 1), (0, 4)]},
        ...     scoring={"accuracy": "accuracy", "n_bytes": n_bytes},
        ...     refit="accuracy",
        ...     cv=2,
        ... ).fit(texts, labels)
        >>> display = SizeAccuracyDisplay.from_estimator(search)
        >>> display.methods[0], display.names
        ('code_lengths', ['(0, 1)', '(0, 4)'])
        """
        check_is_fitted(search, "cv_results_")
        results: Mapping[str, Any] = search.cv_results_
        scoring = _scoring(search, results, scoring, size)
        scores, sizes = (np.asarray(results[f"mean_test_{name}"]) for name in (scoring, size))
        scored = np.flatnonzero(np.isfinite(scores) & np.isfinite(sizes))
        if not scored.size or sizes[scored].max() >= 0:
            raise ValueError(
                f"size={size!r} must name a scorer of minus the bytes, as n_bytes is, and "
                f"at least one fit must have succeeded; its means are {sizes.tolist()}."
            )
        differing, names = _differing([results["params"][row] for row in scored])
        best = np.flatnonzero(scored == getattr(search, "best_index_", None)).tolist()
        display = cls(
            -sizes[scored],
            scores[scored],
            nbytes_std=np.asarray(results[f"std_test_{size}"])[scored],
            scores_std=np.asarray(results[f"std_test_{scoring}"])[scored],
            methods=method or differing or None,
            names=names,
            chosen=best[0] if best else None,
            full_precision=full_precision,
            score_name=scoring.replace("_", " "),
        )
        return display.plot(ax=ax)

    @classmethod
    def from_points(
        cls,
        nbytes: ArrayLike,
        scores: ArrayLike,
        *,
        nbytes_std: ArrayLike | None = None,
        scores_std: ArrayLike | None = None,
        methods: str | Sequence[str] | None = None,
        names: Sequence[str] | None = None,
        chosen: int | None = None,
        full_precision: float | None = None,
        score_name: str = "score",
        ax: Axes | None = None,
    ) -> SizeAccuracyDisplay:
        """Draw points measured elsewhere: peers, or another metric.

        Parameters
        ----------
        nbytes : array-like of float, shape (n_points,)
            Size of each point, in bytes.
        scores : array-like of float, shape (n_points,)
            Score of each point; greater is better.
        nbytes_std, scores_std : array-like of float, shape (n_points,), default=None
            Their standard deviations, drawn as error bars.
        methods : str or sequence of str, length n_points, default=None
            The method that each point belongs to.
        names : sequence of str, length n_points, default=None
            What is written beside each point, "" for nothing.
        chosen : int, default=None
            The point to put a ring around.
        full_precision : float, default=None
            Score of the table as it was.
        score_name : str, default="score"
            What the scores are.
        ax : matplotlib Axes, default=None
            See `plot`.

        Returns
        -------
        SizeAccuracyDisplay

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError
            See the class.
        """
        display = cls(
            nbytes,
            scores,
            nbytes_std=nbytes_std,
            scores_std=scores_std,
            methods=methods,
            names=names,
            chosen=chosen,
            full_precision=full_precision,
            score_name=score_name,
        )
        return display.plot(ax=ax)

    def plot(self, *, ax: Axes | None = None) -> Self:
        """Draw the picture.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; a figure with ``layout="constrained"`` gives the legend its room. Axes
            that have a picture of this kind keep it, and the new methods take other colours. None
            makes a figure of 8 by 5 inches.

        Returns
        -------
        SizeAccuracyDisplay
            Itself, with the artists as attributes.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        self.ax_ = new_axes(type(self).__name__) if ax is None else ax
        self.figure_: Figure = self.ax_.figure  # type: ignore[assignment]  # or a SubFigure
        self.lines_: list[Line2D] = []
        self.errorbars_: list[ErrorbarContainer] = []
        for method in dict.fromkeys(self.methods):
            self._draw_method(method)
        self.line_ = self.lines_[0]
        self._draw_marks()
        self._draw_axes()
        n_labels = len(self.ax_.get_legend_handles_labels()[1])
        self.legend_: Legend | None = legend_above(self.ax_, n_labels, 1.8) if n_labels else None
        lay_out(self.ax_)
        self.names_ = self._draw_names()
        return self

    def _draw_method(self, method: str | None) -> None:
        """Draw all points of a method, and the line through those worth their bytes."""
        rows = np.array([row for row, name in enumerate(self.methods) if name == method])
        number = len(self.ax_.containers)  # of methods that are there already
        colour, marker = _COLOURS[number % len(_COLOURS)], _MARKERS[number % len(_MARKERS)]
        bars = self.ax_.errorbar(
            self.nbytes[rows],
            self.scores[rows],
            xerr=None if self.nbytes_std is None else self.nbytes_std[rows],
            yerr=None if self.scores_std is None else self.scores_std[rows],
            fmt="none",
            ecolor=colour,
            elinewidth=1.0,
            alpha=0.6,
        )
        self.errorbars_.append(bars)
        front, rest = _front(self.nbytes, self.scores, rows)
        style: dict[str, Any] = {
            "color": colour,
            "marker": marker,
            "markersize": _MARKER_SIZE,
            "zorder": 3,
        }
        label = "_points" if method is None else method  # an underscore keeps it from the legend
        self.lines_ += self.ax_.plot(
            self.nbytes[front], self.scores[front], linewidth=1.8, label=label, **style
        )
        hollow = style | {"linestyle": "none", "markerfacecolor": "white"}
        self.ax_.plot(self.nbytes[rest], self.scores[rest], label="_smaller is as good", **hollow)

    def _draw_marks(self) -> None:
        """Draw the ring, and full precision."""
        self.chosen_: Line2D | None = None
        if self.chosen is not None:
            (self.chosen_,) = self.ax_.plot(
                self.nbytes[self.chosen],
                self.scores[self.chosen],
                linestyle="none",
                marker="o",
                markersize=_RING_SIZE,
                markerfacecolor="none",
                markeredgecolor="black",
                markeredgewidth=1.4,
                zorder=4,
                label="chosen",
            )
        self.full_precision_: Line2D | None = None
        if self.full_precision is not None:
            self.full_precision_ = self.ax_.axhline(
                self.full_precision,
                color="black",
                linewidth=1.2,
                linestyle=(0, (5, 3)),
                zorder=1,
                label="full precision",
            )

    def _draw_axes(self) -> None:
        from matplotlib.ticker import EngFormatter, NullFormatter

        ax = self.ax_
        low, high = ax.dataLim.intervalx
        low = low if low > 0 else ax.dataLim.minposx  # an error bar may reach below 0
        margin = max(_MARGIN, (high / low) ** 0.08)
        ax.set_xscale("log")
        ax.set_xlim(low / margin, high * margin)
        ax.xaxis.set_major_locator(_size_locator(high / low))
        ax.xaxis.set_major_formatter(EngFormatter(unit="B"))
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.set_xlabel("size of what ships (log scale)")
        ax.set_ylabel(self.score_name)
        ax.grid(color="0.9", linewidth=0.7)
        ax.set_axisbelow(True)
        ax.spines[["top", "right"]].set_visible(False)

    def _draw_names(self) -> list[Annotation]:
        """Write names beside their points, the best ones first; those without room go."""
        places = _Places.of(self.ax_)
        order = np.lexsort((self.nbytes, -self.scores)).tolist()
        filled = [row for row in order if self._is_filled(row)]
        first = [] if self.chosen is None else [self.chosen]
        named = [row for row in dict.fromkeys([*first, *filled, *order]) if self.names[row]]
        return [name for row in named if (name := self._draw_name(row, places))]

    def _is_filled(self, row: int) -> bool:
        """Tell whether a point is on its method's line."""
        line = self.lines_[list(dict.fromkeys(self.methods)).index(self.methods[row])]
        return bool(
            (np.asarray(line.get_xydata()) == (self.nbytes[row], self.scores[row])).all(1).any()
        )

    def _draw_name(self, row: int, places: _Places) -> Annotation | None:
        """Write a name at the best side of its point that is free, and take that place."""
        text = self.names[row]
        name = self.ax_.annotate(
            text if len(text) <= _LONGEST_NAME else text[: _LONGEST_NAME - 1] + "…",
            (self.nbytes[row], self.scores[row]),
            xytext=(0, 0),
            textcoords="offset points",
            fontsize=FONT_SIZE,
            parse_math=False,  # a value may hold dollar signs
            zorder=5,
        )
        distance = (_RING_SIZE if row == self.chosen else _MARKER_SIZE) / 2 + 1.5  # points
        for may_cross in (False, True):
            for right, up in _SIDES:
                name.set_position((distance * right, distance * up))
                name.set_horizontalalignment(("right", "center", "left")[right + 1])
                name.set_verticalalignment(("top", "center", "bottom")[up + 1])
                if places.take(name.get_window_extent(), may_cross=may_cross):
                    return name
        name.remove()
        return None


class _Places(NamedTuple):
    """Where on the axes names may stand; all in pixels.

    Parameters
    ----------
    frame : Bbox
        Of the axes.
    taken : list of Bbox
        Marks and texts that are there.
    lines : list of Path
        What a name had better not cross: lines and error bars.
    """

    frame: Bbox
    taken: list[Bbox]
    lines: list[Path]

    @classmethod
    def of(cls, ax: Axes) -> _Places:
        """Find what is drawn."""
        from matplotlib.collections import LineCollection
        from matplotlib.transforms import Bbox

        taken = [text.get_window_extent() for text in ax.texts]
        for line in ax.lines:
            if line.get_marker() not in ("None", None):
                half = line.get_markersize() * ax.figure.dpi / 72 / 2
                for x, y in ax.transData.transform(line.get_xydata()):
                    taken.append(Bbox.from_extents(x - half, y - half, x + half, y + half))
        lines = [
            line.get_transform().transform_path(line.get_path())
            for line in ax.lines
            if line.get_linestyle() not in ("None", None)
        ]
        for bars in ax.collections:
            if isinstance(bars, LineCollection):
                lines += [ax.transData.transform_path(path) for path in bars.get_paths()]
        return cls(ax.get_window_extent(), taken, lines)

    def take(self, box: Bbox, *, may_cross: bool) -> bool:
        """Take the place of a box, if it is free."""
        frame = self.frame
        free = (
            frame.x0 <= box.x0
            and box.x1 <= frame.x1
            and frame.y0 <= box.y0
            and box.y1 <= frame.y1
            and not any(box.overlaps(other) for other in self.taken)
            and (may_cross or not any(line.intersects_bbox(box, False) for line in self.lines))
        )
        if free:
            self.taken.append(box)
        return free


class _Differing(NamedTuple):
    """What tells the candidates of a search apart: parameters, and their values for each."""

    parameters: str
    values: list[str]


def _differing(candidates: Sequence[Mapping[str, Any]]) -> _Differing:
    """Name the parameters that differ, without the steps that they belong to, and their values."""
    found = [
        name
        for name in candidates[0]
        if len({repr(candidate.get(name)) for candidate in candidates}) > 1
    ]
    values = [", ".join(_value(candidate.get(name)) for name in found) for candidate in candidates]
    return _Differing(", ".join(name.rpartition("__")[2] for name in found), values)


def _value(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _scoring(search: Any, results: Mapping[str, Any], scoring: str | None, size: str) -> str:
    """Find the name of the score to draw, and check that there are results of both."""
    there = [name[10:] for name in results if name.startswith("mean_test_")]
    if size not in there:
        raise ValueError(
            f"size={size!r} is none of the search's scores, which are {', '.join(there)}. Give it "
            f"scoring={{'accuracy': 'accuracy', {size!r}: n_bytes}}, or name the scorer of "
            "bytes with size=."
        )
    others = [name for name in there if name != size]
    refit = getattr(search, "refit", None)
    if scoring is None and isinstance(refit, str) and refit in others:
        scoring = refit
    if scoring is None and len(others) == 1:
        scoring = others[0]
    if scoring not in others:
        raise ValueError(f"scoring={scoring!r} must be one of {', '.join(others) or 'several'}.")
    return scoring


def _front(
    nbytes: NDArray[np.float64], scores: NDArray[np.float64], rows: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split rows into those that score higher than all smaller ones, by size, and the rest."""
    rows = rows[np.lexsort((-scores[rows], nbytes[rows]))]
    before = np.maximum.accumulate(np.append(-np.inf, scores[rows][:-1]))
    is_better = scores[rows] > before
    return rows[is_better], rows[~is_better]


def _size_locator(ratio: float) -> Locator:
    """Choose where marks go on a log axis whose ends have this ratio."""
    from matplotlib.ticker import LogLocator, MaxNLocator

    if ratio < 4:
        return MaxNLocator(nbins=5)
    return LogLocator(subs=(1.0, 2.0, 5.0) if ratio < 50 else (1.0,))


def _numbers(values: ArrayLike, name: str, n_points: int) -> NDArray[np.float64]:
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.shape != (n_points,) or not np.isfinite(numbers).all():
        raise ValueError(
            f"{name} must hold a finite number for each of the {n_points} points, not an array of "
            f"shape {numbers.shape}."
        )
    return numbers


def _spread(values: ArrayLike | None, name: str, n_points: int) -> NDArray[np.float64] | None:
    if values is None:
        return None
    numbers = _numbers(values, name, n_points)
    if numbers.min() < 0:
        raise ValueError(f"{name} holds {numbers.min()}; a standard deviation is 0 or more.")
    return numbers


def _texts(values: Any, name: str, n_points: int) -> list[Any]:
    texts = list(values)
    if len(texts) != n_points:
        raise ValueError(f"{name} has {len(texts)} entries for {n_points} points.")
    return texts
