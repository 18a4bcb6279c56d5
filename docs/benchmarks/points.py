"""The file of points that a benchmark adds to, a line of JSON each, and goes on from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Line = dict[str, Any]


def read_points(file: Path) -> list[Line]:
    """Read the points that a file has; none if there is no such file."""
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    return [json.loads(line) for line in text.splitlines()]


def append_point(file: Path, point: Line) -> None:
    """Add a point as soon as it is found; in one short write, so that two jobs do not mix."""
    with file.open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(point) + "\n")
