"""What the measured points say: tables in Markdown, all means as CSV, and pictures.

Accuracies are means over seeds. Differences are in points of accuracy (percent).
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, NullFormatter
from numpy.typing import NDArray

OURS = "skadacomp"
CODE_FEATURES = "skadacomp, code features"
FIXED = "skadacomp, one fixed length"
TRADE = ("skadacomp, reconstruction weight 1", "skadacomp, reconstruction weight 10")
ABLATIONS = (
    CODE_FEATURES,
    "skadacomp, gumbel-softmax lengths",
    "skadacomp, lengths by frequency",
    FIXED,
    *TRADE,
    "skadacomp, plain form of the paper",
)
FULL = "full precision"
BAG = "bag of words"
# Tables that peers compress. Held-out documents may choose to fine-tune with another pull than the
# weakest; the table of that one, which codes may tell better, has points for the seeds in question.
FINE_TUNED, WEAKEST, FROZEN = "fine-tuned", "weakest pull", "frozen"
_TUNED = (FINE_TUNED, WEAKEST)
TABLES = (*_TUNED, FROZEN)

TOLERANCE = 0.5  # points below the reference that count as no loss
_TOLERANCES = (TOLERANCE, 1, 2, 4, 8)  # at which one fixed length is held against ours
_BAG_SIZES = (500, 1000, 2000, 4000, 8000, 16_000, 32_000, 64_000)  # bytes, as is a bag of words
_SMALLEST, _LARGEST = 1 / 5000, 1 / 10  # sizes at which peers are held against our curve
_BELOW, _ABOVE = 12, 2  # points around the fine-tuned accuracy that a picture shows
_TINY = 2e-3  # points: accuracies come rounded, and equal ones may differ by as much

# Okabe and Ito's colours; yellow is left out, it does not show on white.
_OUR_COLOUR = "#0072B2"
_PEER_COLOURS = ("#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#000000")
_PEER_MARKERS = "s^vDPX<>hd"
_DASHES = (
    (0, (6, 2)),
    (0, (6, 2, 1, 2)),
    "-",
    (0, (10, 2)),
    (0, (10, 2, 2, 2)),
    (0, (1, 1)),
    (0, (3, 1, 1, 1, 1, 1)),
)
_BAG_STYLE = {"color": "0.25", "linestyle": ":", "linewidth": 2.0}
_ENVELOPE_STYLE = {"color": "0.6", "linewidth": 1.2, "drawstyle": "steps-post"}
_FULL_STYLES = {FINE_TUNED: "-", FROZEN: (0, (5, 3))}
_PALE = {"alpha": 0.35}  # settings that a smaller one of the same method is as good as
_FONT_SIZE = 10.5  # points


@dataclass(frozen=True)
class Point:
    """One measurement: a table compressed one way at one setting, and a head trained on it.

    Parameters
    ----------
    nbytes, table_nbytes : int
        Of what ships (codes, lengths and codebooks) and of the embedding table.
    dev, test : float
        Accuracies, 0 to 1.
    error : float or None
        Relative squared reconstruction error of the pretrained rows, weighted by frequency.
    """

    task: str
    table: str
    rows: str
    labels: str | int
    head: str
    seed: int
    method: str
    source: str
    setting: str
    nbytes: int
    table_nbytes: int
    dev: float
    test: float
    error: float | None
    seconds: float


class Cell(NamedTuple):
    """What a comparison holds fixed."""

    task: str
    table: str
    rows: str
    labels: str | int
    head: str

    @property
    def data(self) -> str:
        """Task and table, in words."""
        rows = "" if self.rows == "task" else f", {self.rows} table"
        return f"{self.task}, {self.table}{rows}"

    @property
    def regime(self) -> str:
        """Labels and head, in words."""
        return f"{self.labels} labels, {self.head} head"

    @property
    def order(self) -> tuple[Any, ...]:
        """Sorts the linear head and many labels first."""
        return self.head != "linear", self.head, _by_labels(self.labels), *self[:3]


@dataclass(frozen=True)
class Spot:
    """One setting of a method in a cell.

    Parameters
    ----------
    runs : tuple of Point
        One for each seed.
    """

    runs: tuple[Point, ...]

    @property
    def nbytes(self) -> float:
        """Mean size."""
        return self.mean("nbytes")

    @property
    def ratio(self) -> float:
        """Compression ratio."""
        return self.runs[0].table_nbytes / self.nbytes

    @property
    def name(self) -> str:
        """Method, setting and table compressed, in words."""
        run = self.runs[0]
        return f"{run.method}, {run.setting}, {run.source}"

    def mean(self, field: str) -> float:
        """Mean over seeds; NaN where no seed has a value."""
        values = self._values(field)
        return float(np.mean(values)) if values else np.nan

    def spread(self, field: str) -> float:
        """Standard deviation over seeds; NaN for fewer than two."""
        values = self._values(field)
        return float(np.std(values, ddof=1)) if len(values) > 1 else np.nan

    def by_seed(self, field: str) -> dict[int, float]:
        """Value of each seed."""
        return {run.seed: getattr(run, field) for run in self.runs}

    def _values(self, field: str) -> list[float]:
        return [value for value in self.by_seed(field).values() if value is not None]


Curves = dict[tuple[str, str], list[Spot]]  # (method, source) -> settings, the smallest first


class Pick(NamedTuple):
    """A setting near the reference, or, where none is near enough, the closest."""

    spot: Spot
    is_near: bool


class Above(NamedTuple):
    """A peer's point above our curve.

    Parameters
    ----------
    cell : Cell
    peer : Spot
    ours : Spot or None
        Our best point of no more bytes; None if all of ours are larger.
    points, error : float
        How far above, and the standard error of that over seeds; NaN where it is not known.
    on_dev : float
        Points above our best on dev of no more bytes; NaN where it is not known.
    """

    cell: Cell
    peer: Spot
    ours: Spot | None
    points: float
    error: float
    on_dev: float


def read(path: str | os.PathLike[str]) -> list[Point]:
    """Read measured points from JSON lines; a point measured again replaces the earlier one."""
    found: dict[tuple[Any, ...], Point] = {}
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        if line.strip():
            point = Point(**json.loads(line))
            found[_cell(point), point.method, point.source, point.setting, point.seed] = point
    return list(found.values())


def curves(points: Iterable[Point]) -> dict[Cell, Curves]:
    """Group points into cells, methods and settings."""
    runs: dict[tuple[Cell, str, str, str], list[Point]] = defaultdict(list)
    for point in points:
        runs[_cell(point), point.method, point.source, point.setting].append(point)
    found: dict[Cell, Curves] = defaultdict(lambda: defaultdict(list))
    for (cell, method, source, setting), same in runs.items():
        if source == WEAKEST:
            # Of the other seeds the fine-tuned table is this one.
            there = {run.seed for run in same}
            tuned = runs.get((cell, method, FINE_TUNED, setting), [])
            same = same + [replace(run, source=source) for run in tuned if run.seed not in there]
        found[cell][method, source].append(Spot(tuple(same)))
    return {
        cell: {key: sorted(found[cell][key], key=_size) for key in sorted(found[cell])}
        for cell in sorted(found, key=lambda cell: cell.order)
    }


def summary(points: Iterable[Point]) -> str:
    """Write the comparison as Markdown."""
    points = list(points)
    parts = [_INTRODUCTION]
    for regime, cells in _regimes(points).items():
        parts += [f"## {regime}", *_regime_tables(cells)]
    parts += _reconstruction_tables(points)
    return "\n\n".join([*parts, _list_above(points)]) + "\n"


def fixed_length(points: Iterable[Point]) -> str:
    """Write how many times our bytes one fixed length needs, as Markdown."""
    parts = [
        text
        for regime, cells in _regimes(points).items()
        for text in (
            f"**{regime}**",
            markdown(_FIXED_HEADER, [_fixed_row(cell, found) for cell, found in cells]),
        )
    ]
    return "\n\n".join(parts) + "\n"


def dominated(points: Iterable[Point]) -> list[Above]:
    """List the points of peers that lie above our curve.

    A peer's point is held against the best of ours that has no more bytes. Peers of 1/5000 to 1/10
    of the table count.

    Returns
    -------
    list of Above
        In the order of cells, and in a cell the farthest above first. Peers smaller than all our
        points come last.
    """
    found = []
    for cell, cell_curves in curves(points).items():
        ours = cell_curves.get((OURS, "task"), [])
        peers = _compared(cell_curves) if ours else []
        above = [_held_against(cell, peer, ours) for peer in peers]
        kept = [one for one in above if one.ours is None or one.points > _TINY]
        found += sorted(kept, key=lambda one: (one.ours is None, -one.points, one.peer.name))
    return found


def full_table(points: Iterable[Point]) -> str:
    """Write every setting of every curve as CSV; what one seed does not tell is left empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    measured = ("nbytes", "dev", "test", "error", "seconds")
    names = [f"{field}_{part}" for field in measured for part in ("mean", "sd")]
    key = (*Cell._fields, "method", "source", "setting")
    writer.writerow([*key, "n_seeds", "table_nbytes", "compression_ratio", *names])
    for found in curves(points).values():
        for spot in _all_spots(found):
            run = asdict(spot.runs[0])
            values = [v for field in measured for v in (spot.mean(field), spot.spread(field))]
            writer.writerow(
                [run[field] for field in key]
                + [len(spot.runs), run["table_nbytes"], f"{spot.ratio:.6g}"]
                + ["" if np.isnan(value) else f"{value:.8g}" for value in values]
            )
    return text.getvalue()


def draw(points: Iterable[Point], folder: str | os.PathLike[str]) -> list[Path]:
    """Draw accuracy against size: a picture for each task, table, head and rows.

    Returns
    -------
    list of Path
        The PNG files.
    """
    found = curves(points)
    styles = _peer_styles(found.values())
    pictures: dict[tuple[str, ...], list[Cell]] = defaultdict(list)
    for cell in found:
        pictures[cell.task, cell.table, cell.rows, cell.head].append(cell)
    paths = []
    for name, cells in pictures.items():
        with mpl.rc_context({"font.size": _FONT_SIZE}):
            figure = _accuracy_figure([(cell, found[cell]) for cell in cells], styles)
            paths.append(_save(figure, Path(folder, f"{'-'.join(name)}.png")))
    return paths


def draw_error(points: Iterable[Point], folder: str | os.PathLike[str]) -> list[Path]:
    """Draw reconstruction error against size, all labels and the linear head.

    Peers are drawn on the frozen table: those are the rows that the error is measured against.

    Returns
    -------
    list of Path
        The PNG files, one for each task, table and rows.
    """
    found = curves(points)
    styles = _peer_styles(found.values())
    paths = []
    for cell, cell_curves in found.items():
        spots = _all_spots(cell_curves)
        has_error = any(s.mean("error") > 0 for s in spots)
        if cell.labels == "all" and cell.head == "linear" and has_error:
            with mpl.rc_context({"font.size": _FONT_SIZE}):
                figure = _error_figure(cell, cell_curves, styles)
                name = f"{cell.task}-{cell.table}-{cell.rows}-error.png"
                paths.append(_save(figure, Path(folder, name)))
    return paths


def write(path_jsonl: str | os.PathLike[str], folder: str | os.PathLike[str]) -> list[Path]:
    """Write the tables, points.csv and the pictures; each file appears whole or not at all.

    Returns
    -------
    list of Path
        What was written.
    """
    points = read(path_jsonl)
    Path(folder).mkdir(parents=True, exist_ok=True)
    texts = {
        "summary.md": summary(points),
        "fixed_length.md": fixed_length(points),
        "points.csv": full_table(points),
    }
    for name, text in texts.items():
        write_text(Path(folder, name), text)
    paths = [Path(folder, name) for name in texts]
    return [*paths, *draw(points, folder), *draw_error(points, folder)]


def write_text(path: Path, text: str) -> None:
    """Write a file that appears whole or not at all."""
    with _replacing(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def _cell(point: Point) -> Cell:
    return Cell(point.task, point.table, point.rows, point.labels, point.head)


def _regimes(points: Iterable[Point]) -> dict[str, list[tuple[Cell, Curves]]]:
    """Group cells by labels and head."""
    found: dict[str, list[tuple[Cell, Curves]]] = defaultdict(list)
    for cell, cell_curves in curves(points).items():
        name = cell.regime
        found[f"{name[0].upper()}{name[1:]}"].append((cell, cell_curves))
    return found


def _by_labels(labels: str | int) -> float:
    return -np.inf if labels == "all" else -float(labels)


def _size(spot: Spot) -> float:
    return spot.nbytes


def _all_spots(found: Curves) -> list[Spot]:
    return [spot for spots in found.values() for spot in spots]


def _peer_curves(found: Curves, sources: Sequence[str]) -> Curves:
    """Curves of the methods that compress a table, ours left out."""
    return {key: found[key] for key in found if key[0] != FULL and key[1] in sources}


def _full_precision(found: Curves, source: str) -> Spot | None:
    return next(iter(found.get((FULL, source), [])), None)


def reference_of(cell: Cell, found: Curves) -> Spot | None:
    """Full precision: fine-tuned with all labels, and with few labels the better on dev."""
    sources = (FINE_TUNED, FROZEN)
    there = [spot for source in sources if (spot := _full_precision(found, source))]
    if cell.labels == "all":
        there = there[:1]  # frozen only where nothing was fine-tuned
    return max(there, key=lambda spot: spot.mean("dev"), default=None)


def _pick(
    spots: Sequence[Spot], reference: Spot, by: str, tolerance: float = TOLERANCE
) -> Pick | None:
    """Pick the smallest setting that is near the reference by "dev" or "test"."""
    points = {spot: points_above(spot, reference, by)[0] for spot in spots}
    near = [spot for spot in spots if points[spot] >= -tolerance - _TINY]
    if near:
        return Pick(min(near, key=lambda spot: (spot.nbytes, -points[spot])), True)
    closest = max(spots, key=lambda spot: (points[spot], -spot.nbytes), default=None)
    return Pick(closest, False) if closest else None


def points_above(spot: Spot, other: Spot, by: str) -> tuple[float, float]:
    """Points from `other` up to `spot` and the standard error, over the seeds that they share."""
    ours, theirs = spot.by_seed(by), other.by_seed(by)
    # Seeds draw the labelled documents, so the difference is taken within each.
    by_seed = 100 * np.array([ours[seed] - theirs[seed] for seed in ours if seed in theirs])
    error = np.std(by_seed, ddof=1) / np.sqrt(len(by_seed)) if len(by_seed) > 1 else np.nan
    return float(np.mean(by_seed)) if len(by_seed) else np.nan, float(error)


def _compared(found: Curves) -> list[Spot]:
    """Points of peers, of the sizes at which they are held against our curve."""
    spots = _all_spots(_peer_curves(found, TABLES))
    return [spot for spot in spots if _SMALLEST <= 1 / spot.ratio <= _LARGEST]


def _bag_of_words(found: Curves, budget: float) -> tuple[float, float] | None:
    """Choose the bag of words for a number of bytes by dev, as its user would.

    Its settings say what each seed's dev chose, so that seeds share few of them: the choice is made
    within a seed.

    Returns
    -------
    tuple of float or None
        Mean test accuracy and mean size; None if some seed has nothing so small.
    """
    runs: dict[int, list[Point]] = defaultdict(list)
    for spot in found.get((BAG, "none"), []):
        for run in spot.runs:
            runs[run.seed].append(run)
    affordable = [[run for run in same if run.nbytes <= budget] for same in runs.values()]
    if not affordable or not all(affordable):
        return None
    best = [max(same, key=lambda run: (run.dev, -run.nbytes)) for same in affordable]
    return float(np.mean([run.test for run in best])), float(np.mean([run.nbytes for run in best]))


def _held_against(cell: Cell, peer: Spot, ours: Sequence[Spot]) -> Above:
    smaller = [spot for spot in ours if spot.nbytes <= peer.nbytes]
    if not smaller:
        return Above(cell, peer, None, np.nan, np.nan, np.nan)
    best, best_on_dev = (max(smaller, key=lambda spot: spot.mean(by)) for by in ("test", "dev"))
    on_dev, _ = points_above(peer, best_on_dev, "dev")
    return Above(cell, peer, best, *points_above(peer, best, "test"), on_dev)


# ---- Markdown ----

_INTRODUCTION = f"""\
# Results

Sizes count codes, code lengths and codebooks; words are not counted for any method. Differences
(Δ) are in points of accuracy from the reference, means over seeds, ± the standard error over
seeds. *Near* the reference means at most {TOLERANCE} points below it.

The reference is full precision: with all labels the fine-tuned table, with fewer labels the frozen
or the fine-tuned one, whichever is better on dev. Ours and the best peer are the smallest settings
near the reference; the peers are all methods, on the frozen table, on the fine-tuned one and, where
dev chose to pull its vectors more strongly to the pretrained ones, on that of the weakest pull.
Where none is near, the closest is given, after "none"."""

_DEV_HEADER = (
    "data",
    "table, bytes",
    "reference, test",
    "ours",
    "Δ dev",
    "Δ test",
    "best peer",
    "ratio",
    "Δ test",
    "our bytes / peer’s",
)
_NAMES = ("data", "best peer", "method", "setting")  # columns of words
_TEST_HEADER = ("data", "ours", "Δ test", "best peer", "ratio", "Δ test", "our bytes / peer’s")
_ERROR_HEADER = (
    "data",
    "ours",
    "bytes",
    "error",
    "test",
    "peers’ error at most these bytes",
    "peers’ bytes for no more error",
)
_BAG_HEADER = ("data", *(f"{size:,}" for size in _BAG_SIZES))
_FIXED_HEADER = ("data", *(f"{by}, {points:g}" for by in ("dev", "test") for points in _TOLERANCES))


def _regime_tables(cells: Sequence[tuple[Cell, Curves]]) -> list[str]:
    """Give the tables of one regime, a row for each task and table."""
    return [
        "Smallest settings near the reference on dev:",
        markdown(_DEV_HEADER, [_dev_row(cell, found) for cell, found in cells]),
        "The same read off the test curve (it chooses by the test, so it flatters whoever has "
        "more settings):",
        markdown(_TEST_HEADER, [_test_row(cell, found) for cell, found in cells]),
        *_bag_tables(cells),
    ]


def _bag_tables(cells: Sequence[tuple[Cell, Curves]]) -> list[str]:
    rows = [_bag_row(cell, found) for cell, found in cells if (BAG, "none") in found]
    if not rows:
        return []
    return [
        "Test accuracy of ours / of the bag of words, each at the setting of no more than so many "
        "bytes that is best on dev, in per cent:",
        markdown(_BAG_HEADER, rows),
    ]


def _reconstruction_tables(points: Iterable[Point]) -> list[str]:
    """Hold the errors of our tables, at each reconstruction weight, against those of the peers."""
    rows = [
        row
        for cell, found in curves(points).items()
        if cell.regime == "all labels, linear head"
        for row in _reconstruction_rows(cell, found)
    ]
    if not rows:
        return []
    return [
        "## Reconstruction",
        "Error of the pretrained rows, weighted by frequency, and test accuracy; beside them the "
        "least error of any peer of no more bytes, and the fewest bytes in which a peer has no "
        "more error. Peers quantize the pretrained table.",
        markdown(_ERROR_HEADER, rows),
    ]


def _reconstruction_rows(cell: Cell, found: Curves) -> Iterator[list[str]]:
    peers = _all_spots(_peer_curves(found, (FROZEN,)))
    for name in (OURS, *TRADE):
        for spot in found.get((name, "task"), []):
            error = spot.mean("error")
            smaller = [peer.mean("error") for peer in peers if peer.nbytes <= spot.nbytes]
            better = [peer.nbytes for peer in peers if peer.mean("error") <= error]
            yield [
                cell.data,
                name.removeprefix("skadacomp, "),
                f"{spot.nbytes:,.0f}",
                f"{error:.3f}",
                f"{100 * spot.mean('test'):.1f} %",
                f"{min(smaller):.3f}" if smaller else "none so small",
                f"{min(better):,.0f}" if better else "–",
            ]


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Lay out a table, numbers to the right."""
    marks = ["---" if name in _NAMES else "---:" for name in header]
    return "\n".join(f"| {' | '.join(row)} |" for row in [header, marks, *rows])


def _dev_row(cell: Cell, found: Curves) -> list[str]:
    size = f"{next(iter(found.values()))[0].runs[0].table_nbytes:,}"
    reference = reference_of(cell, found)
    if reference is None:
        return [cell.data, size, "no full precision", *["–"] * 7]
    named = f"{100 * reference.mean('test'):.1f} % ({reference.runs[0].source})"
    ours, peer = _picks(found, reference, "dev")
    delta = _delta(ours, reference, "dev")
    return [cell.data, size, named, _ratio(ours), delta, *_against(ours, peer, reference)]


def _test_row(cell: Cell, found: Curves) -> list[str]:
    reference = reference_of(cell, found)
    if reference is None:
        return [cell.data, *["–"] * 6]
    ours, peer = _picks(found, reference, "test")
    return [cell.data, _ratio(ours), *_against(ours, peer, reference)]


def _bag_row(cell: Cell, found: Curves) -> list[str]:
    return [cell.data, *(_bag_beside_ours(found, size) for size in _BAG_SIZES)]


def _bag_beside_ours(found: Curves, budget: float) -> str:
    affordable = [spot for spot in found.get((OURS, "task"), []) if spot.nbytes <= budget]
    ours = max(affordable, key=lambda spot: (spot.mean("dev"), -spot.nbytes), default=None)
    bag = _bag_of_words(found, budget)
    accuracies = (ours and ours.mean("test"), bag and bag[0])
    return " / ".join("–" if value is None else f"{100 * value:.1f}" for value in accuracies)


def _fixed_row(cell: Cell, found: Curves) -> list[str]:
    reference = reference_of(cell, found)
    if reference is None:
        return [cell.data, *["–"] * (len(_FIXED_HEADER) - 1)]
    shares = [
        _fixed_over_ours(found, reference, by, points)
        for by in ("dev", "test")
        for points in _TOLERANCES
    ]
    return [cell.data, *shares]


def _fixed_over_ours(found: Curves, reference: Spot, by: str, tolerance: float) -> str:
    fixed, own = (_pick_own(found, name, reference, by, tolerance) for name in (FIXED, OURS))
    if fixed and not fixed.is_near:
        return "never near"
    return _bytes_over(fixed, own)


def _pick_own(
    found: Curves, method: str, reference: Spot, by: str, tolerance: float = TOLERANCE
) -> Pick | None:
    return _pick(found.get((method, "task"), []), reference, by, tolerance)


def _picks(found: Curves, reference: Spot, by: str) -> tuple[Pick | None, Pick | None]:
    """Ours and the best peer."""
    peers = _all_spots(_peer_curves(found, TABLES))
    return _pick_own(found, OURS, reference, by), _pick(peers, reference, by)


def _against(ours: Pick | None, peer: Pick | None, reference: Spot) -> list[str]:
    """Give our test difference, the best peer with its ratio and difference, and both sizes."""
    name = "–" if peer is None else peer.spot.name if peer.is_near else f"none: {peer.spot.name}"
    deltas = [_delta(pick, reference, "test") for pick in (ours, peer)]
    return [deltas[0], name, _ratio(peer), deltas[1], _bytes_over(ours, peer)]


def _ratio(pick: Pick | None) -> str:
    if pick is None:
        return "–"
    return f"{'' if pick.is_near else 'none: '}{_times(pick.spot)}"


def _times(spot: Spot) -> str:
    """Compression ratio to three digits."""
    return f"{spot.ratio:,.0f}×" if spot.ratio >= 100 else f"{spot.ratio:.3g}×"


def _delta(pick: Pick | None, reference: Spot, by: str) -> str:
    return "–" if pick is None else signed(*points_above(pick.spot, reference, by))


def signed(points: float, error: float = np.nan) -> str:
    """Points with their sign, and ± where the error is known."""
    text = f"{points:+.1f}".replace("-", "−").replace("−0.0", "0.0").replace("+0.0", "0.0")
    return text if np.isnan(error) else f"{text} ± {error:.1f}"


def _bytes_over(one: Pick | None, other: Pick | None) -> str:
    """One size over another, where both are near the reference."""
    if one is None or other is None or not (one.is_near and other.is_near):
        return "–"
    return f"{one.spot.nbytes / other.spot.nbytes:.2f}"


def _list_above(points: Iterable[Point]) -> str:
    """Give the peers above our curve as a list, a cell a line."""
    points = list(points)
    by_cell: dict[Cell, list[Above]] = defaultdict(list)
    for one in dominated(points):
        by_cell[one.cell].append(one)
    n_compared = {cell: len(_compared(found)) for cell, found in curves(points).items()}
    higher = [one for found in by_cell.values() for one in found if one.ours is not None]
    clear = sum(one.points > 2 * one.error for one in higher)
    on_both = sum(one.on_dev > _TINY for one in higher)
    lines = [
        "## Peers above our curve",
        "Peers of 1/5000 to 1/10 of the table whose mean test accuracy is higher than that of our "
        f"best point of no more bytes, and by how many points: {len(higher)} of "
        f"{sum(n_compared.values()):,}, {clear} by more than two standard errors. After each, how "
        f"far it is above our best on dev; {on_both} are above both.",
    ]
    items = [_line_above(cell, found, n_compared[cell]) for cell, found in by_cell.items()]
    return "\n\n".join([*lines, "\n".join(items) or "None."])


def _line_above(cell: Cell, found: Sequence[Above], n_compared: int) -> str:
    higher = [one for one in found if one.ours is not None]
    parts = [f"{len(higher)} of {n_compared} points"]
    n_smaller = len(found) - len(higher)
    if n_smaller:
        parts.append(f"{n_smaller} smaller than all of ours")
    named = [
        f"\n  - {one.peer.name}, {_times(one.peer)}: {signed(one.points, one.error)}, "
        f"dev {signed(one.on_dev)}"
        for one in higher
    ]
    return f"- {cell.data}, {cell.regime}: {', '.join(parts)}{''.join(named)}"


# ---- Pictures ----


class _Measure(NamedTuple):
    """What a picture draws against size."""

    field: str
    scale: float
    best: np.ufunc  # of two values


_ACCURACY = _Measure("test", 100, np.maximum)
_ERROR = _Measure("error", 1, np.minimum)


def _peer_styles(cells: Iterable[Curves]) -> dict[str, dict[str, Any]]:
    """Give each peer a colour and a marker, the same in every picture; colours return hollow."""
    found = {method for curves in cells for method, _ in _peer_curves(curves, TABLES)}
    return {
        method: {
            "color": _PEER_COLOURS[i % len(_PEER_COLOURS)],
            "marker": _PEER_MARKERS[i % len(_PEER_MARKERS)],
            "markerfacecolor": "white" if i >= len(_PEER_COLOURS) else None,
            "linewidth": 1.3,
            "markersize": 5.5,
        }
        for i, method in enumerate(sorted(found))
    }


def _accuracy_figure(
    cells: Sequence[tuple[Cell, Curves]], styles: dict[str, dict[str, Any]]
) -> Figure:
    """Draw a panel for each number of labels."""
    figure = Figure(figsize=(12, 6.4), layout="constrained")
    panels = figure.subplots(1, len(cells), squeeze=False, sharex=True)[0]
    for ax, (cell, found) in zip(panels, cells, strict=True):
        _draw_ours(ax, found, ABLATIONS, _ACCURACY)
        _draw_peers(ax, _peer_curves(found, _TUNED), styles, _ACCURACY)
        _draw_frozen_envelope(ax, found)
        _draw_bag_of_words(ax, found)
        _draw_full_precision(ax, found)
        _set_axes(ax, found)
        _set_accuracy_range(ax, found)
        ax.set_title(f"{cell.labels} labels", fontsize=_FONT_SIZE + 0.5, fontweight="bold")
    panels[0].set_ylabel("test accuracy, %")
    figure.suptitle(f"{cells[0][0].data}, {cells[0][0].head} head", fontsize=_FONT_SIZE + 1.5)
    _add_legends(figure, styles, FINE_TUNED)
    return figure


def _error_figure(cell: Cell, found: Curves, styles: dict[str, dict[str, Any]]) -> Figure:
    figure = Figure(figsize=(12, 6.4), layout="constrained")
    ax = figure.subplots()
    # Code features come from the same tables as ours.
    _draw_ours(ax, found, [name for name in ABLATIONS if name != CODE_FEATURES], _ERROR)
    _draw_peers(ax, _peer_curves(found, (FROZEN,)), styles, _ERROR)
    _set_axes(ax, found)
    ax.set_ylabel("relative squared error of the pretrained rows,\nweighted by frequency")
    ax.set_ylim(bottom=0)
    figure.suptitle(f"{cell.data}: reconstruction error", fontsize=_FONT_SIZE + 1.5)
    _add_legends(figure, styles, FROZEN)
    return figure


def _line(spots: Sequence[Spot], measure: _Measure) -> tuple[NDArray, NDArray, NDArray]:
    """Sizes, values and their spread over seeds, of the settings that have a value."""
    there = [spot for spot in spots if not np.isnan(spot.mean(measure.field))]
    sizes = np.array([spot.nbytes for spot in there])
    values = np.array([spot.mean(measure.field) for spot in there])
    spread = np.array([spot.spread(measure.field) for spot in there])
    return sizes, measure.scale * values, measure.scale * np.nan_to_num(spread)


def _draw_curve(
    ax: Axes,
    spots: Sequence[Spot],
    measure: _Measure,
    style: dict[str, Any],
    others: dict[str, Any],
    bars: dict[str, Any] | None = None,
) -> None:
    """Draw all settings as marks, and a line through those that no smaller one is as good as.

    Parameters
    ----------
    style, others : dict
        Of the line and its marks, and what is different for the other marks.
    bars : dict or None
        Of bars that show the spread over seeds along the line; None draws none.
    """
    sizes, values, spread = _line(spots, measure)
    if not sizes.size:
        return
    so_far = measure.best.accumulate(values)
    best = np.append(True, so_far[1:] != so_far[:-1])
    if bars is None:
        ax.plot(sizes[best], values[best], **style)
    else:
        ax.errorbar(sizes[best], values[best], yerr=spread[best], **style, **bars)
    ax.plot(sizes[~best], values[~best], **style | {"linestyle": "none", "label": None} | others)


def _draw_ours(ax: Axes, found: Curves, ablations: Sequence[str], measure: _Measure) -> None:
    """Draw our curve bold with the spread over seeds, and those of its ablations thin."""
    ours = {"color": _OUR_COLOUR}
    # Dots, for an ablation may have a single setting.
    thin = ours | {"linewidth": 1.1, "marker": ".", "zorder": 3}
    for name, dashes in zip(ABLATIONS, _DASHES, strict=True):
        if name in ablations:
            style = thin | {"linestyle": dashes, "label": name}
            _draw_curve(ax, found.get((name, "task"), []), measure, style, _PALE)
    bold = ours | {"linewidth": 3, "marker": "o", "markersize": 6.5, "zorder": 4, "label": OURS}
    bars = {"capsize": 3, "elinewidth": 1.3}
    spots = found.get((OURS, "task"), [])
    _draw_curve(ax, spots, measure, bold, _PALE | {"markersize": 5}, bars)


def _draw_peers(
    ax: Axes, found: Curves, styles: dict[str, dict[str, Any]], measure: _Measure
) -> None:
    """Draw a curve for each method, whichever table its settings compress."""
    for method in sorted({method for method, _ in found}):
        spots = [spot for key, some in found.items() if key[0] == method for spot in some]
        # Of two tables compressed to the same size the better counts.
        spots.sort(key=lambda spot: (spot.nbytes, -spot.mean("test")))
        _draw_curve(ax, spots, measure, styles[method] | {"label": method}, _PALE)


def _draw_frozen_envelope(ax: Axes, found: Curves) -> None:
    """Draw the best accuracy that any peer on the frozen table has at no more bytes."""
    spots = sorted(_all_spots(_peer_curves(found, (FROZEN,))), key=_size)
    if spots:
        sizes, values, _ = _line(spots, _ACCURACY)
        best = np.maximum.accumulate(values)
        ax.plot(sizes, best, label="best peer on the frozen table", **_ENVELOPE_STYLE)


def _draw_bag_of_words(ax: Axes, found: Curves) -> None:
    sizes = sorted({run.nbytes for spot in found.get((BAG, "none"), []) for run in spot.runs})
    there = [bag for size in sizes if (bag := _bag_of_words(found, size))]
    if there:
        accuracies, mean_sizes = np.array(there).T
        ax.plot(mean_sizes, 100 * accuracies, label=BAG, **_BAG_STYLE)


def _draw_full_precision(ax: Axes, found: Curves) -> None:
    """Draw full precision as lines across, named above the higher and below the lower."""
    there = [s for source in (FINE_TUNED, FROZEN) if (s := _full_precision(found, source))]
    there.sort(key=lambda spot: -spot.mean("test"))
    for place, spot in enumerate(there):
        source, y = spot.runs[0].source, 100 * spot.mean("test")
        style = {"color": "black", "linewidth": 1.2, "linestyle": _FULL_STYLES[source]}
        ax.axhline(y, label=f"full precision, {source}", **style)
        ax.annotate(
            source,
            (0.015, y),
            (0, -3 if place else 3),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            va="top" if place else "bottom",
            annotation_clip=True,
        )


def _set_axes(ax: Axes, found: Curves) -> None:
    """Set sizes below and compression ratios above, both on a log scale."""
    table_nbytes = next(iter(found.values()))[0].runs[0].table_nbytes
    ax.set_xscale("log")
    ax.set_xlabel("codes + lengths + codebooks")
    ax.margins(x=0.1)  # room for the names of the lines of full precision
    low, high = ax.get_xlim()
    named = (1.0, 2.0, 5.0) if high < 300 * low else (1.0,)  # a short axis has few powers of ten
    ax.xaxis.set_major_locator(LogLocator(subs=named))
    ax.xaxis.set_major_formatter(EngFormatter(unit="B"))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.grid(color="0.9", linewidth=0.7)
    ax.set_axisbelow(True)
    ax.spines[["right"]].set_visible(False)

    def inverse(values: Any) -> Any:
        return table_nbytes / np.maximum(values, 1e-9)  # matplotlib tries 0 too

    upper = ax.secondary_xaxis("top", functions=(inverse, inverse))
    upper.set_xlabel("compression ratio")
    upper.xaxis.set_major_locator(LogLocator(subs=named, numticks=4))  # names of ratios are long
    upper.xaxis.set_major_formatter(FuncFormatter(lambda ratio, _: f"{ratio:,.0f}×"))
    upper.xaxis.set_minor_formatter(NullFormatter())


def _set_accuracy_range(ax: Axes, found: Curves) -> None:
    """Show what lies near the fine-tuned accuracy, and all that lies above it."""
    best = max(100 * spot.mean("test") for spot in _all_spots(found))
    full = _full_precision(found, FINE_TUNED) or _full_precision(found, FROZEN)
    centre = 100 * full.mean("test") if full else best
    ax.set_ylim(centre - _BELOW, max(centre + _ABOVE, best + 1.0))  # room for a line's name


def _add_legends(figure: Figure, styles: dict[str, dict[str, Any]], table: str) -> None:
    """Put ours to the lower left and the peers to the lower right, outside the panels."""
    named: dict[str, Any] = {}
    for ax in figure.axes:
        handles, names = ax.get_legend_handles_labels()
        named |= dict(zip(names, handles, strict=True))
    own = [name for name in (OURS, *ABLATIONS) if name in named]
    own += [name for name in named if name not in own and name not in styles]
    methods = [name for name in styles if name in named]
    legends = ((own, None, "left"), (methods, f"peers on the {table} table", "right"))
    for names, title, side in legends:
        if names:
            figure.legend(
                [named[name] for name in names],
                names,
                title=title,
                loc=f"outside lower {side}",
                alignment="left",
                ncols=2,
                frameon=False,
            )


def _save(figure: Figure, path: Path) -> Path:
    with _replacing(path) as unfinished:
        figure.savefig(unfinished, format="png", dpi=150)
    return path


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """Give a temporary file to write, and put it in place once it is whole."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
