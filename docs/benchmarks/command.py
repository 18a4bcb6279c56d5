"""The command line of benchmarks that go on from a file of points and lay it out as Markdown."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from points import Job, Line, add_points, read_points
from report import write_text


def command_line(description: str) -> ArgumentParser:
    """Make a parser for the data and where results go."""
    parser = ArgumentParser(description=description.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the tasks")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    return parser


def read_arguments(parser: ArgumentParser) -> Namespace:
    """Read the command line, and make the folder of results."""
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    return given


def run(
    parser: ArgumentParser,
    name: str,
    jobs: Callable[[Namespace], Iterable[Job]],
    table_of: Callable[[list[Line]], str],
) -> None:
    """Add to ``<name>.jsonl`` what it lacks, and lay out all of it as ``<name>.md``.

    The command line takes the number of seeds too.
    """
    parser.add_argument("--seeds", type=int, default=3)
    given = read_arguments(parser)
    torch.set_num_threads(1)
    file = given.output / f"{name}.jsonl"
    add_points(file, jobs(given))
    write_text(file.with_suffix(".md"), table_of(read_points(file)))
