"""One setting for every task and table, of each method: what to take where nothing can be tuned.

    python docs/benchmarks/one_setting.py

reads what `frontier.py` measured with the linear head, and writes ``one_setting.md``: of each
method the smallest setting that is near full precision as a mean over all tasks and tables, and our
default beside it. Dev chooses; with few labels, whose dev documents are few too, the test documents
do.
"""

from __future__ import annotations

from argparse import ArgumentParser
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import ours
import report
from report import Cell, Curves
from scipy.stats import gmean

_HEADER = ("method", "setting", "times smaller", "dev", "worst", "test", "worst")
_OURS = (report.OURS, report.CODE_FEATURES, report.FIXED)
# Of each setting and cell: how many times smaller, and points above full precision on dev and test.
_Measured = dict[str, list[tuple[float, float, float]]]


class Group(NamedTuple):
    """Cells that one setting has to serve, and which documents choose it."""

    title: str
    rows: str
    labels: tuple[str | int, ...]
    by: Literal["dev", "test"]


GROUPS = (
    Group("All labels, the rows of the task's words; chosen by dev", "task", ("all",), "dev"),
    Group("All labels, whole tables; chosen by dev", "whole", ("all",), "dev"),
    Group("500 labels and 100, the rows of the task's words; by test", "task", (500, 100), "test"),
)


@dataclass(frozen=True)
class Everywhere:
    """A setting that was measured in all cells of a group.

    Parameters
    ----------
    method, source, setting : str
        A setting for each table where these have none in common.
    ratio : float
        How many times smaller than the tables, the geometric mean over the cells.
    dev, test : list of float
        Accuracy above full precision in each cell, in points.
    """

    method: str
    source: str
    setting: str
    ratio: float
    dev: list[float]
    test: list[float]

    def mean(self, by: Literal["dev", "test"]) -> float:
        """Mean over the cells, in points."""
        return float(np.mean(self.dev if by == "dev" else self.test))


def everywhere(cells: dict[Cell, Curves]) -> list[Everywhere]:
    """Find the settings of ours and of the peers that all cells have.

    Where a method has none that both tables share, each table has one of its own.
    """
    found: dict[tuple[str, str], list[_Measured]] = {}
    tables = sorted({cell.table for cell in cells})
    for number, table in enumerate(tables):
        same = {cell: methods for cell, methods in cells.items() if cell.table == table}
        for names, settings in _measured(same).items():
            found.setdefault(names, [{} for _ in tables])[number] = settings
    return [
        _together(names, choice, settings)
        for names, settings in found.items()
        for choice in _choices(settings)
    ]


def _measured(cells: dict[Cell, Curves]) -> dict[tuple[str, str], _Measured]:
    """Give what is known of each setting that all cells of a table have."""
    found: dict[tuple[str, str], _Measured] = defaultdict(lambda: defaultdict(list))
    for cell, methods in cells.items():
        reference = report.reference_of(cell, methods)
        for (method, source), spots in methods.items():
            if method == report.FULL or (method not in _OURS and source not in report.TABLES):
                continue
            for spot in spots:
                dev, test = (report.points_above(spot, reference, by)[0] for by in ("dev", "test"))
                found[method, source][spot.runs[0].setting].append((spot.ratio, dev, test))
    return {
        names: {setting: same for setting, same in settings.items() if len(same) == len(cells)}
        for names, settings in found.items()
    }


def _choices(settings: list[_Measured]) -> Iterable[tuple[str, ...]]:
    """Give the settings that may go together, one a table."""
    common = set(settings[0]).intersection(*settings[1:])
    return [(setting,) * len(settings) for setting in sorted(common)] or product(*settings)


def _together(
    names: tuple[str, str], choice: tuple[str, ...], settings: list[_Measured]
) -> Everywhere:
    figures = [cell for setting, of in zip(choice, settings, strict=True) for cell in of[setting]]
    ratios, dev, test = zip(*figures, strict=True)
    setting = " and ".join(dict.fromkeys(choice))
    return Everywhere(*names, setting, float(gmean(ratios)), list(dev), list(test))


def smallest_near(settings: Sequence[Everywhere], by: Literal["dev", "test"]) -> Everywhere:
    """Pick the smallest setting that is near full precision on average, or else the closest."""
    near = [setting for setting in settings if setting.mean(by) >= -report.TOLERANCE]
    if near:
        return max(near, key=lambda setting: setting.ratio)
    return max(settings, key=lambda setting: setting.mean(by))


def table_of(group: Group, curves: dict[Cell, Curves]) -> str:
    """Lay out each method's setting as Markdown, the smallest first."""
    cells = {
        cell: methods
        for cell, methods in curves.items()
        if cell.head == "linear" and cell.rows == group.rows and cell.labels in group.labels
    }
    by_method: dict[str, list[Everywhere]] = defaultdict(list)
    for setting in everywhere(cells):
        by_method[setting.method].append(setting)
    by_default = ours.Entry(report.OURS, ours.DEFAULT).setting
    picked = [smallest_near(settings, group.by) for settings in by_method.values()]
    picked += [
        replace(found, method=f"{method}, by default", setting="")
        for method in (report.OURS, report.CODE_FEATURES)
        for found in by_method[method]
        if found.setting == by_default
    ]
    rows = [_row(found) for found in sorted(picked, key=lambda found: -found.ratio)]
    return f"**{group.title}**\n\n{report.markdown(_HEADER, rows)}\n"


def _row(found: Everywhere) -> list[str]:
    source = "" if found.method.startswith(report.OURS) else f", {found.source}"
    figures = (found.mean("dev"), min(found.dev), found.mean("test"), min(found.test))
    named = [found.method, found.setting + source, f"{found.ratio:,.0f}"]
    return named + [report.signed(figure) for figure in figures]


def main() -> None:
    """Run from the command line."""
    parser = ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    folder = parser.parse_args().output
    curves = report.curves(report.read(folder / "frontier.jsonl"))
    text = "\n".join(table_of(group, curves) for group in GROUPS)
    report.write_text(folder / "one_setting.md", text)


if __name__ == "__main__":
    main()
