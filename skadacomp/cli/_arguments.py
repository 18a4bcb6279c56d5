"""Arguments that several commands take, and how they are read."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any, TypeAlias

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}
_TASK_HELP = (
    "a line each: label, tab, text. Or, where it ends in .csv or columns are named, a table with "
    "a header line"
)


class Parser(argparse.ArgumentParser):
    """Takes options before, after and between other arguments: ``predict FILE --json TEXT``.

    Alone, argparse takes TEXT to be missing as soon as it has met FILE and an option.
    """

    _mixing = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Read what is known; return that and the rest."""
        if self._mixing:  # it is called again for the options, and for all others
            return super().parse_known_args(args, namespace)
        self._mixing = True
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._mixing = False


class Between:
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


def byte_count(text: str) -> int:
    """Read a number of bytes with or without a unit.

    Examples
    --------
    >>> byte_count("100kB"), byte_count("1.5MB"), byte_count("64 KiB"), byte_count("800")
    (100000, 1500000, 65536, 800)
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmg]i?)?b?", text.strip().lower())
    n_bytes = int(float(match[1]) * _UNITS[match[2] or ""]) if match else 0
    if n_bytes < 1:
        raise argparse.ArgumentTypeError(
            f"{text!r} must be a number of bytes, such as 50000, 100kB, 1.5MB or 64KiB"
        )
    return n_bytes


def add_task(parser: argparse._ActionsContainer, *, required: bool, what: str) -> None:
    """Add ``--task`` and the columns of a table of documents."""
    parser.add_argument(
        "--task",
        type=Path,
        metavar="FILE",
        required=required,
        help=f"{what}; {_TASK_HELP}",
    )
    parser.add_argument(
        "--text-column", metavar="NAME", help="the column of the texts (default text)"
    )
    parser.add_argument(
        "--label-column", metavar="NAME", help="the column of the labels (default label)"
    )


def add_table(parser: argparse._ActionsContainer) -> None:
    """Add the embedding table and where its words are."""
    parser.add_argument(
        "table",
        metavar="TABLE",
        help="the embedding table at full precision, any file that EmbeddingTable.open reads: "
        "GloVe or word2vec text (.txt, .vec), .npy, .safetensors, gensim's files and more",
    )
    parser.add_argument(
        "--words",
        metavar="FILE",
        help="the words of a TABLE that has none, such as .npy: UTF-8, one a line, in row order",
    )


def add_json(parser: argparse._ActionsContainer, what: str) -> None:
    """Add ``--json``."""
    parser.add_argument("--json", action="store_true", help=f"{what} as JSON, on stdout")


def add_output(parser: argparse._ActionsContainer, what: str, *, required: bool) -> None:
    """Add ``-o`` and ``--force``."""
    parser.add_argument("-o", "--output", type=Path, metavar="OUT", required=required, help=what)
    parser.add_argument("--force", action="store_true", help="replace OUT if it is there already")
