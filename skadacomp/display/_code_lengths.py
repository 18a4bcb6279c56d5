"""Code length by word, drawn as shares along the table's rows."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skadacomp._compressed import CompressedTable
from skadacomp._table import DetachedTable, EmbeddingTable, as_table
from skadacomp.display._drawing import FONT_SIZE, lay_out, legend_above, new_axes
from skadacomp.metrics import find_compressed, find_compressor

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.legend import Legend
    from matplotlib.patches import StepPatch
    from matplotlib.text import Annotation

    _Box = tuple[Annotation, float]  # a text and its width, as a part of the axes' width

_BINS_PER_DECADE = 12
_SMALLEST_BIN = 20  # words; fewer make shares that jump
_FEW_WORDS = 100  # up to here each word is a bin of its own, on a linear axis
_DROPPED_COLOUR = "0.9"
_LONGEST_NAME = 18  # letters of a word that are drawn
_STRIP = 0.66  # inches above or below the shares for the names of words


class CodeLengthDisplay:
    """Code length by word: the share of each code length along the table's rows.

    Rows are taken to be in order of word frequency, as published tables are, so the picture shows
    how codes are spent from frequent words on the left to rare ones on the right, and names words
    that frequency alone would have treated otherwise.

    Make one with `from_estimator` or `from_compressed`.

    Parameters
    ----------
    code_lengths : array-like of int, shape (n_words,)
        Code length of each word, 0 for those that are dropped.
    words : sequence of str or None, length n_words, default=None
        The word of each row; None for a word that is not known. None makes a picture without
        names.

    Attributes
    ----------
    code_lengths : ndarray of int64, shape (n_words,)
        As given.
    words : list of str or None, length n_words; or None
        As given.
    ax_ : matplotlib Axes
        Where it was drawn.
    figure_ : matplotlib Figure
        The figure of these axes.
    bands_ : list of matplotlib StepPatch
        The share of each code length, the longest first: that is also the lowest.
    names_ : list of matplotlib Annotation
        The words that are named.
    legend_ : matplotlib Legend
        Code lengths and how many words have each.

    Raises
    ------
    ValueError
        If `code_lengths` is not 1-D, empty or negative, or `words` is not as long as it.

    Notes
    -----
    Shares are taken over bins of row rank (the row id counted from 1), about twelve to a factor of
    ten, none of fewer than 20 words. A table of up to 100 words has one bin a word.

    Unless `plot` is told which, it names the rarest of the words with the longest code length: the
    task gave them long codes although it hardly meets them. And it names the most frequent of the
    words with the shortest (dropped, where words were): common, and yet the task does without.
    Only words that begin with a letter are picked, so no numbers and no punctuation. Where all
    code lengths are the same there is nothing to name.

    Examples
    --------
    >>> from skadacomp.display import CodeLengthDisplay
    >>> words = ["the", "of", "film", "plot", "awful", "superb"]
    >>> display = CodeLengthDisplay([0, 0, 2, 2, 4, 4], words).plot()
    >>> [name.get_text() for name in display.names_]
    ['the', 'of', 'awful', 'superb']
    """

    def __init__(self, code_lengths: ArrayLike, words: Sequence[str | None] | None = None) -> None:
        lengths = np.asarray(code_lengths)
        if lengths.ndim != 1 or not lengths.size or lengths.dtype.kind not in "iu":
            raise ValueError(
                "code_lengths must hold one whole number a word, not "
                f"{lengths.dtype} of shape {lengths.shape}."
            )
        if lengths.min() < 0:
            raise ValueError(f"code_lengths holds {lengths.min()}; the least is 0.")
        self.code_lengths: NDArray[np.int64] = lengths.astype(np.int64)
        self.words = None if words is None else list(words)
        if self.words is not None and len(self.words) != lengths.size:
            raise ValueError(
                f"words has {len(self.words)} entries and code_lengths {lengths.size}; it needs "
                "one for each row of the original table."
            )

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        *,
        words: Any = None,
        highlight: Iterable[str] | None = None,
        n_names: int = 6,
        cmap: str = "viridis",
        ax: Axes | None = None,
    ) -> CodeLengthDisplay:
        """Draw the code lengths of a fitted compressor.

        Parameters
        ----------
        estimator : fitted compressor, or fitted Pipeline that holds one
            What to draw.
        words : EmbeddingTable or sequence of str, length n_words, default=None
            The words of the original table's rows, dropped ones included. None takes them from
            the compressor's `embeddings`, or, where it has none, names no dropped words.
        highlight : iterable of str, default=None
            See `plot`.
        n_names : int, default=6
            See `plot`.
        cmap : str, default="viridis"
            See `plot`.
        ax : matplotlib Axes, default=None
            See `plot`.

        Returns
        -------
        CodeLengthDisplay

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        NotFittedError
            If the compressor is not fitted.
        TypeError, ValueError
            If `estimator` holds no compressor or several, or `words` or `highlight` does not fit.
        """
        compressor = find_compressor(estimator, "estimator")
        if words is None:
            words = _table_of(compressor.embeddings)
        return cls.from_compressed(
            compressor.compressed_,
            words=words,
            highlight=highlight,
            n_names=n_names,
            cmap=cmap,
            ax=ax,
        )

    @classmethod
    def from_compressed(
        cls,
        compressed: CompressedTable,
        *,
        words: Any = None,
        highlight: Iterable[str] | None = None,
        n_names: int = 6,
        cmap: str = "viridis",
        ax: Axes | None = None,
    ) -> CodeLengthDisplay:
        """Draw the code lengths of a compressed table.

        Parameters
        ----------
        compressed : CompressedTable
            What to draw.
        words : EmbeddingTable or sequence of str, length n_words, default=None
            The words of the original table's rows. None takes those that the compressed table
            kept; it knows no others.
        highlight : iterable of str, default=None
            See `plot`.
        n_names : int, default=6
            See `plot`.
        cmap : str, default="viridis"
            See `plot`.
        ax : matplotlib Axes, default=None
            See `plot`.

        Returns
        -------
        CodeLengthDisplay

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        TypeError, ValueError
            If `compressed` is no CompressedTable, or `words` or `highlight` does not fit.
        """
        shipped = find_compressed(compressed, "compressed")
        names = words.words if isinstance(words, EmbeddingTable) else words
        if names is None and shipped.words is not None:
            names = [None] * shipped.n_words
            for row, word in zip(np.flatnonzero(shipped.code_lengths), shipped.words, strict=True):
                names[row] = word
        display = cls(shipped.code_lengths, names)
        return display.plot(highlight=highlight, n_names=n_names, cmap=cmap, ax=ax)

    def plot(
        self,
        *,
        highlight: Iterable[str] | None = None,
        n_names: int = 6,
        cmap: str = "viridis",
        ax: Axes | None = None,
    ) -> Self:
        """Draw the picture.

        Parameters
        ----------
        highlight : iterable of str, default=None
            The words to name. None picks them (see Notes of the class).
        n_names : int, default=6
            Words to pick of either kind, at most; 0 names none. Fewer are drawn where the axes are
            too narrow.
        cmap : str, default="viridis"
            Name of the colormap, its first colour for the longest codes. Dropped words are grey.
        ax : matplotlib Axes, default=None
            Where to draw; a figure with ``layout="constrained"`` gives the legend its room. None
            makes such a figure of 8 by 5 inches.

        Returns
        -------
        CodeLengthDisplay
            Itself, with the artists as attributes.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError
            If a word of `highlight` is not among `words`.
        """
        rows = self._picked(n_names) if highlight is None else self._rows_of(highlight)
        self.ax_ = new_axes(type(self).__name__) if ax is None else ax
        self.figure_: Figure = self.ax_.figure  # type: ignore[assignment]  # or a SubFigure
        shares = _Shares.of(self.code_lengths)
        self._draw_bands(shares, cmap)
        self._draw_axis(shares)
        self.legend_: Legend = legend_above(self.ax_, min(4, len(shares.lengths)))
        lay_out(self.ax_)
        self.names_: list[Annotation] = []
        if rows:
            self._draw_names(shares, rows, picked=highlight is None)
        return self

    def _rows_of(self, highlight: Iterable[str]) -> list[int]:
        wanted = list(highlight)
        row_of = {word: row for row, word in enumerate(self.words or ()) if word is not None}
        absent = [word for word in wanted if word not in row_of]
        if absent:
            raise ValueError(
                f"highlight: {absent[0]!r} is none of the words that this display knows. Dropped "
                "words are not kept in what ships: words=table brings them."
            )
        return sorted(row_of[word] for word in dict.fromkeys(wanted))

    def _picked(self, n_names: int) -> list[int]:
        """Rows to name: the most frequent of the shortest, and the rarest of the longest."""
        shortest, longest = self.code_lengths.min(), self.code_lengths.max()
        if self.words is None or shortest == longest:
            return []
        frequent = self._first_words(np.flatnonzero(self.code_lengths == shortest), n_names)
        rare = self._first_words(np.flatnonzero(self.code_lengths == longest)[::-1], n_names)
        return sorted(frequent + rare)

    def _first_words(self, rows: NDArray[np.int64], n: int) -> list[int]:
        words = self.words or []
        picked: list[int] = []
        for row in rows.tolist():
            if len(picked) >= n:
                break
            word = words[row]
            if word and word[0].isalpha():
                picked.append(row)
        return picked

    def _draw_bands(self, shares: _Shares, cmap: str) -> None:
        """Stack the shares, the longest code length lowest."""
        self.bands_: list[StepPatch] = []
        below = np.zeros(len(shares.edges) - 1)
        for length, share, colour in zip(
            shares.lengths, shares.shares, _colours(shares.lengths, cmap), strict=True
        ):
            band = self.ax_.stairs(
                below + share,
                shares.edges,
                baseline=below,
                fill=True,
                facecolor=colour,
                edgecolor="white",
                linewidth=0.6,
                label=_described(length, int((self.code_lengths == length).sum())),
            )
            self.bands_.append(band)
            below = below + share

    def _draw_axis(self, shares: _Shares) -> None:
        ax = self.ax_
        if shares.is_log:
            ax.set_xscale("log")
        ax.xaxis.set_major_formatter(_rank_formatter())
        ax.set_xlim(shares.edges[0], shares.edges[-1])
        ax.set_ylim(0, 1)
        ax.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0 %", "25 %", "50 %", "75 %", "100 %"])
        ax.set_xlabel(f"row rank, from frequent to rare words{' (log scale)' * shares.is_log}")
        ax.set_ylabel("share of words by code length")
        ax.spines[["top", "right", "left"]].set_visible(False)

    def _draw_names(self, shares: _Shares, rows: list[int], *, picked: bool) -> None:
        """Name words above the shares (those with the shortest codes) and below (the others)."""
        shortest = shares.lengths[-1] if len(shares.lengths) > 1 else -1
        above = [row for row in rows if self.code_lengths[row] == shortest]
        below = [row for row in rows if self.code_lengths[row] != shortest]
        height = self.ax_.get_window_extent().height / self.figure_.dpi  # inches
        strip = min(0.25, _STRIP / height)  # as a part of the axes
        under, over = strip * bool(below), strip * bool(above)
        scale = 1 / (1 - under - over)  # shares in a part of the axes
        self.ax_.set_ylim(-under * scale, 1 + over * scale)
        upper = [self._draw_name(shares, row, 0.985, "top") for row in above]
        lower = [self._draw_name(shares, row, 0.01, "bottom") for row in below]
        less = "dropped" if shortest == 0 else f"with {_codes(shortest)}"
        # Names come in order of preference: where there is no room, the last ones go.
        self.names_ = [
            *_spread(upper, self.ax_, f"most frequent {less}" * picked),
            *_spread(lower[::-1], self.ax_, f"rarest with {_codes(shares.lengths[0])}" * picked),
        ]
        self._draw_dots()

    def _draw_name(self, shares: _Shares, row: int, y: float, side: str) -> Annotation:
        """Write a word at the edge of the axes, with a line to its place among the shares."""
        word = str((self.words or [])[row])
        return self.ax_.annotate(
            word if len(word) <= _LONGEST_NAME else word[: _LONGEST_NAME - 1] + "…",
            shares.place(row, int(self.code_lengths[row]), side),
            xytext=(0.5, y),
            textcoords="axes fraction",
            ha="center",
            va=side,
            fontsize=FONT_SIZE,
            parse_math=False,  # a dollar sign is a word of many tables
            arrowprops={
                "arrowstyle": "-",
                "color": "0.5",
                "linewidth": 0.8,
                "relpos": (0.5, 0.0 if side == "top" else 1.0),
                "shrinkB": 0,
            },
        )

    def _draw_dots(self) -> None:
        places = np.array([name.xy for name in self.names_]).reshape(-1, 2)
        (dots,) = self.ax_.plot(places[:, 0], places[:, 1], "o", mfc="white", mec="0.2", ms=4)
        dots.set(zorder=4, clip_on=False)


class _Shares(NamedTuple):
    """Shares of the code lengths in bins of row rank.

    Parameters
    ----------
    lengths : tuple of int
        The code lengths that occur, the longest first.
    edges : ndarray (n_bins + 1,)
        Of the bins, in ranks.
    shares : ndarray (n_lengths, n_bins)
        Columns sum to 1.
    is_log : bool
        Whether ranks go on a log axis.
    """

    lengths: tuple[int, ...]
    edges: NDArray[np.float64]
    shares: NDArray[np.float64]
    is_log: bool

    @classmethod
    def of(cls, code_lengths: NDArray[np.int64]) -> _Shares:
        """Count the code lengths of words in row order."""
        n_words = len(code_lengths)
        is_log = n_words > _FEW_WORDS
        starts = _bin_starts(n_words) if is_log else np.arange(n_words)  # rows
        lengths = np.unique(code_lengths)[::-1]
        sizes = np.diff(np.append(starts, n_words))
        counts = [np.add.reduceat(code_lengths == length, starts, dtype=int) for length in lengths]
        # Rank r is from r to r + 1 on the log axis, which begins at 1, and else around r.
        edges = np.append(starts, n_words) + (1.0 if is_log else 0.5)
        return cls(tuple(lengths.tolist()), edges, np.array(counts) / sizes, is_log)

    def place(self, row: int, length: int, side: str) -> tuple[float, float]:
        """Give the rank of a row, and a share within its code length's band, near to `side`."""
        column = int(np.searchsorted(self.edges, row + 1, side="right")) - 1
        index = self.lengths.index(length)
        low, high = self.shares[:index, column].sum(), self.shares[: index + 1, column].sum()
        inset = min(0.03, (high - low) / 2)
        return row + 1, float(high - inset if side == "top" else low + inset)


def _bin_starts(n_words: int) -> NDArray[np.int64]:
    """First rows of bins that grow by a constant factor, none smaller than `_SMALLEST_BIN`."""
    starts = [0]
    while True:
        rank = starts[-1] + 1
        step = max(_SMALLEST_BIN, round(rank * (10 ** (1 / _BINS_PER_DECADE) - 1)))
        if starts[-1] + 1.5 * step >= n_words:  # a short rest joins the bin before it
            return np.array(starts)
        starts.append(starts[-1] + step)


def _spread(names: list[Annotation], ax: Axes, caption: str) -> list[Annotation]:
    """Move names along the axes, as near to their words as they go without overlap.

    Parameters
    ----------
    names : list of Annotation
        In order of preference: those at the end are removed where there is no room for all.
    ax : Axes
    caption : str
        Written beside them.

    Returns
    -------
    list of Annotation
        Those that stay, from left to right.
    """
    if not names:
        return []
    title = ax.annotate(
        caption,
        names[0].get_position(),
        xycoords="axes fraction",
        ha="center",
        va=names[0].get_verticalalignment(),
        fontsize=FONT_SIZE,
        style="italic",
    )
    title_width, *widths = (_width(text, ax) for text in (title, *names))
    n_fit = sum(total <= 1 for total in accumulate(widths, initial=title_width))
    n_fit = max(n_fit - 1, 0)  # the caption is the first that has to fit
    for text in [*names[n_fit:], *[title] * (n_fit == 0)]:
        text.remove()
    boxes = sorted(zip(names, widths, strict=True), key=lambda box: box[0].xy[0])
    boxes = [(name, width) for name, width in boxes if name in set(names[:n_fit])]
    if boxes:
        _line_up(boxes, (title, title_width), ax)
    return [name for name, _ in boxes]


def _line_up(boxes: list[_Box], title: _Box, ax: Axes) -> None:
    """Place texts side by side, the title before them if there is room, else after them."""
    to_axes = ax.transData + ax.transAxes.inverted()
    wanted = [float(to_axes.transform(name.xy)[0]) - width / 2 for name, width in boxes]
    before, after = wanted[0] - title[1], wanted[-1] + boxes[-1][1]
    if before >= 0:
        boxes, wanted = [title, *boxes], [before, *wanted]
    else:
        boxes, wanted = [*boxes, title], [*wanted, after]
    starts = _side_by_side(wanted, [width for _, width in boxes])
    for (text, width), start in zip(boxes, starts, strict=True):
        text.set_position((start + width / 2, text.get_position()[1]))


def _width(text: Annotation, ax: Axes) -> float:
    """Width of a text and the space after it, as a part of the axes' width."""
    from matplotlib.text import Text

    width = Text.get_window_extent(text).width  # without the line to its word
    space = FONT_SIZE / 72 * ax.figure.dpi if text.get_text() else 0.0
    return float((width + space) / ax.get_window_extent().width)


def _side_by_side(wanted: Sequence[float], widths: Sequence[float]) -> list[float]:
    """Left ends within 0 to 1 of boxes that do not overlap, in the order given."""
    starts: list[float] = []
    end = 0.0
    for want, width in zip(wanted, widths, strict=True):
        starts.append(max(want, end))
        end = starts[-1] + width
    end = 1.0
    for i in reversed(range(len(starts))):
        starts[i] = min(starts[i], end - widths[i])
        end = starts[i]
    return starts


def _described(length: int, n_words: int) -> str:
    return f"{_codes(length)}: {n_words:,} word{'s' if n_words != 1 else ''}"


def _codes(length: int) -> str:
    return "dropped" if length == 0 else f"{length} code{'s' if length > 1 else ''}"


def _colours(lengths: Sequence[int], cmap: str) -> list[Any]:
    """From the first colour of the map for the longest, to grey for dropped words."""
    from matplotlib import colormaps

    n_kept = sum(length > 0 for length in lengths)
    colours = colormaps[cmap](np.linspace(0.1, 0.9, n_kept) if n_kept > 1 else [0.35])
    return [*colours, _DROPPED_COLOUR][: len(lengths)]


def _rank_formatter() -> Any:
    from matplotlib.ticker import StrMethodFormatter

    return StrMethodFormatter("{x:,.0f}")


def _table_of(embeddings: Any) -> EmbeddingTable | None:
    """Take the table that a compressor was given, if that needs no file to be read again."""
    absent = embeddings is None or isinstance(embeddings, (DetachedTable, str, os.PathLike))
    return None if absent else as_table(embeddings)
