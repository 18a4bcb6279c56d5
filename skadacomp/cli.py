"""The command line: ``skadacomp demo``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    arguments : sequence of str, default=None
        What follows the command's name; None takes it from the shell.

    Returns
    -------
    int
        Exit status: 0, or 1 where something that the command needs is missing.
    """
    parsed = _parser().parse_args(arguments)
    try:
        parsed.run(parsed)
    except ImportError as error:
        print(f"skadacomp: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    from skadacomp import __version__

    parser = argparse.ArgumentParser(
        prog="skadacomp",
        description="Make word-embedding tables hundreds of times smaller for one task.",
    )
    parser.add_argument("--version", action="version", version=f"skadacomp {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_demo(commands)
    return parser


def _add_demo(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    demo = commands.add_parser(
        "demo",
        help="compress GloVe for BBC News and compare",
        description="Compress GloVe 6B 50d (400,000 words, 80 MB) for classifying BBC News from "
        "a few labelled documents; print accuracies and bytes beside a bag of words and the "
        "full-precision table; save the artifact and a picture.",
    )
    demo.add_argument(
        "--labels",
        type=_Between(25, 2000),
        default=100,
        metavar="N",
        help="labelled documents to learn from, 25 to 2000 (default 100); all others test",
    )
    demo.add_argument(
        "--seeds",
        type=_Between(1, 100),
        default=1,
        metavar="N",
        help="draws of the labelled documents (default 1); the table shows their mean",
    )
    demo.add_argument(
        "--max-bytes",
        type=_Between(5_000, 80_000_000),
        metavar="N",
        help="budget of the compressed table, vocabulary included; by default 500,000 below 400 "
        "labels, for then many words that count were never seen, and else 190,000",
    )
    demo.add_argument(
        "--output",
        type=Path,
        default=Path("skadacomp-demo"),
        metavar="FOLDER",
        help="where the artifact and the picture go (default skadacomp-demo)",
    )
    demo.set_defaults(run=_demo)


class _Between:
    """Reads a whole number within bounds."""

    def __init__(self, least: int, most: int) -> None:
        self.least, self.most = least, most

    def __call__(self, text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = self.least - 1
        if not self.least <= number <= self.most:
            raise argparse.ArgumentTypeError(
                f"{text!r} must be a whole number from {self.least} to {self.most}"
            )
        return number


def _demo(parsed: argparse.Namespace) -> None:
    from skadacomp._demo import default_budget, run

    run(
        n_labels=parsed.labels,
        n_seeds=parsed.seeds,
        max_bytes=parsed.max_bytes or default_budget(parsed.labels),
        folder=parsed.output,
    )
