"""``skadacomp vectors``: vectors rebuilt out of a compressed table. numpy alone."""

from __future__ import annotations

import io
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from skadacomp._files import whole_file
from skadacomp.cli._arguments import Commands, add_output
from skadacomp.cli._files import check_output, open_shipped

if TYPE_CHECKING:
    from skadacomp._compressed import CompressedTable

_TEXT = (".txt", ".vec")


def add_to(commands: Commands) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "vectors",
        help="rebuild vectors",
        description="Rebuild the vectors of words, to stdout as lines of a word and its numbers, "
        "or to a file that any reader of GloVe or word2vec takes.",
    )
    parser.add_argument("file", metavar="FILE", help="a compressed table, or a frozen classifier")
    parser.add_argument(
        "words",
        metavar="WORD",
        nargs="*",
        help="which words, or row ids of a table without words (default: all that have a code)",
    )
    parser.add_argument(
        "--missing",
        choices=("raise", "mean"),
        default="raise",
        help="what a WORD without a code gets: an error for all, or the mean vector",
    )
    add_output(
        parser,
        ".txt (as GloVe), .vec (as word2vec, with a header), or .npy with the words in "
        "<name>.words.txt beside it",
        required=False,
    )
    parser.set_defaults(run=run)


def run(parsed: Namespace) -> None:
    """Run the command."""
    from skadacomp._compressed import text_lines

    if parsed.output is not None:
        _check_outputs(parsed.output, force=parsed.force)
    table, _ = open_shipped(parsed.file)
    items = _items(table, parsed.words)
    if parsed.missing == "raise":
        _check_known(table, items)
    if parsed.output is None:
        sys.stdout.writelines(text_lines(table, items))
    elif parsed.output.suffix == ".npy":
        _write_npy(table, items, parsed.output)
    else:
        with whole_file(parsed.output) as file:
            to = io.TextIOWrapper(file, encoding="utf-8", newline="\n")
            if parsed.output.suffix == ".vec":
                to.write(f"{len(items)} {table.n_dims}\n")
            to.writelines(text_lines(table, items))
            to.detach()  # written to the file, which stays open


def _words_file(output: Path) -> Path:
    return output.with_suffix(".words.txt")


def _check_outputs(output: Path, *, force: bool) -> None:
    if output.suffix not in (*_TEXT, ".npy"):
        raise ValueError(f"{output} must end in .txt, .vec or .npy.")
    check_output(output, force=force)
    if output.suffix == ".npy":
        check_output(_words_file(output), force=force)


def _items(table: CompressedTable, words: list[str]) -> Sequence[str] | Sequence[int]:
    """Give the words that are meant; row ids in a table without words."""
    if table.words is not None:
        return words or table.words
    n_words = len(table)
    if not all(word.isascii() and word.isdigit() and int(word) < n_words for word in words):
        raise ValueError(
            f"the table holds no words: each WORD must be a row id, from 0 to {n_words - 1}."
        )
    return [int(word) for word in words] or range(n_words)


def _check_known(table: CompressedTable, items: Sequence[str] | Sequence[int]) -> None:
    unknown = [item for item in items if isinstance(item, str) and item not in table]
    if unknown:
        raise ValueError(
            f"{', '.join(map(repr, unknown))} {'has' if len(unknown) == 1 else 'have'} no code in "
            "this table; --missing mean gives the mean vector instead."
        )


def _write_npy(table: CompressedTable, items: Sequence[str] | Sequence[int], output: Path) -> None:
    """Write an array, and the words where `EmbeddingTable.open` looks for them."""
    import numpy as np

    with whole_file(_words_file(output)) as words, whole_file(output) as to:
        np.save(to, table.vectors(items, missing="mean"))
        words.write("".join(f"{item}\n" for item in items).encode())
