"""The command line of benchmarks that go on from a file of points and lay it out as Markdown."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from points import Job, Line, add_points, read_points
from report import write_text


def command_line(description: str) -> ArgumentParser:
    """Make a parser for the data, the number of seeds and where results go."""
    parser = ArgumentParser(description=description.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the tasks")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    return parser


def run(
    parser: ArgumentParser,
    name: str,
    jobs: Callable[[Namespace], Iterable[Job]],
    table_of: Callable[[list[Line]], str],
) -> None:
    """Add to ``<name>.jsonl`` what it lacks, and lay out all of it as ``<name>.md``."""
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    file = given.output / f"{name}.jsonl"
    add_points(file, jobs(given))
    write_text(file.with_suffix(".md"), table_of(read_points(file)))
