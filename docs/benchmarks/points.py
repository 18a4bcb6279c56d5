"""The file of points that a benchmark adds to, a line of JSON each, and goes on from."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Line = dict[str, Any]
Job = tuple[Line, Callable[[], Line]]  # what tells a point from others, and what finds the rest


def read_points(file: Path) -> list[Line]:
    """Read the points that a file has; none if there is no such file."""
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    return [json.loads(line) for line in text.splitlines()]


def append_point(file: Path, point: Line) -> None:
    """Add a point as soon as it is found; in one short write, so that two jobs do not mix."""
    with file.open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(point) + "\n")


def add_points(file: Path, jobs: Iterable[Job]) -> None:
    """Measure what the file lacks, writing each point as it is found."""
    known = read_points(file)
    for names, find in jobs:
        if not any(names.items() <= point.items() for point in known):
            append_point(file, names | find())


def grouped(points: Iterable[Line], *keys: str) -> dict[tuple[Any, ...], list[Line]]:
    """Put the points together that have the same values of the keys, in the order they came in."""
    groups: dict[tuple[Any, ...], list[Line]] = {}
    for point in points:
        groups.setdefault(tuple(point[key] for key in keys), []).append(point)
    return groups


def mean_of(points: Sequence[Line], key: str) -> float:
    """Give the mean of a figure."""
    return float(np.mean([point[key] for point in points]))


def size_cells(points: Sequence[Line]) -> str:
    """Lay out bytes, and how many times smaller than the table that is; means over the seeds."""
    nbytes = mean_of(points, "nbytes")
    return f"{nbytes:,.0f} | {points[0]['table_nbytes'] / nbytes:,.0f}"


def spread_of(points: Sequence[Line], key: str) -> str:
    """Lay out a mean over the seeds and, of more than one, their standard deviation."""
    values = np.array([point[key] for point in points])
    spread = f" ± {values.std(ddof=1):.4f}" if len(values) > 1 else ""
    return f"{values.mean():.4f}{spread}"
