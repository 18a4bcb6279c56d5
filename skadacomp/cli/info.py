"""``skadacomp info``: what is inside a compressed table. numpy alone."""

from __future__ import annotations

import json
import os
from argparse import Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from skadacomp.cli._arguments import Between, Commands, add_json
from skadacomp.cli._files import open_shipped

if TYPE_CHECKING:
    from skadacomp._compressed import CompressedTable


def add_to(commands: Commands) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "info",
        help="show what is inside a compressed table",
        description="Show what is inside a compressed table: the bytes of each part, how many "
        "words have each code length, the words with the longest codes, and what it was made from.",
    )
    parser.add_argument("file", metavar="FILE", help="a compressed table, or a frozen classifier")
    parser.add_argument(
        "--longest",
        type=Between(0, 10**9),
        default=20,
        metavar="N",
        help="words to name of those with the longest codes (default 20), the last rows first: "
        "those are rare, and the task kept them nonetheless",
    )
    add_json(parser, "the same")
    parser.set_defaults(run=run)


def run(parsed: Namespace) -> None:
    """Run the command."""
    found = describe(parsed.file, parsed.longest)
    print(json.dumps(found, indent=2, ensure_ascii=False) if parsed.json else as_text(found))


def describe(path: str | os.PathLike[str], n_longest: int) -> dict[str, Any]:
    """Gather what there is to say of a file, as JSON has it.

    Parameters
    ----------
    path : str or path-like
    n_longest : int
        Words to name.

    Returns
    -------
    dict
        ``sizes`` are the bytes of each part, whose sum is ``file_nbytes``.
    """
    table, classifier = open_shipped(os.fspath(path))
    sizes = table.sizes if classifier is None else classifier.sizes
    file_nbytes = os.stat(path).st_size
    sizes["header"] = file_nbytes - sum(sizes.values())
    full = 4 * table.n_words * table.n_dims
    return {
        "file": os.fspath(path),
        "file_nbytes": file_nbytes,
        "sizes": sizes,
        "n_words": table.n_words,
        "n_dims": table.n_dims,
        "n_codebooks": table.n_codebooks,
        "n_codewords": table.n_codewords,
        "n_words_by_code_length": _counts(table),
        "longest": _longest(table, n_longest),
        "bits_per_word": 8 * (sizes["codes"] + sizes["lengths"]) / table.n_words,
        "float32_nbytes": full,
        "compression_ratio": full / table.nbytes,
        "compression_ratio_of_file": full / file_nbytes,
        "classes": None if classifier is None else classifier.classes.tolist(),
        "parameters": table.parameters,
    }


def _counts(table: CompressedTable) -> dict[str, int]:
    """Count the words of each code length; keys are text, as in JSON."""
    lengths = table.code_lengths
    return {str(length): int((lengths == length).sum()) for length in table.candidates}


def _longest(table: CompressedTable, n_longest: int) -> dict[str, Any]:
    """Name words with the longest code, from the table's end; row ids where it has no words."""
    lengths = table.code_lengths[table.code_lengths > 0]
    names: Sequence[str | int] | None = table.words
    if names is None:
        names = table.code_lengths.nonzero()[0].tolist()
    most = int(lengths.max(initial=0))
    (places,) = (lengths == most).nonzero()
    named = [names[place] for place in places[::-1][:n_longest].tolist()]
    return {"code_length": most, "n_words": len(places), "words": named}


def as_text(found: dict[str, Any]) -> str:
    """Lay out what `describe` gave."""
    total, full = found["file_nbytes"], found["float32_nbytes"]
    lines = [
        f"{found['file']}: {total:,} bytes",
        f"{found['n_words']:,} words × {found['n_dims']} dims, {found['n_codebooks']} codebooks "
        f"of {found['n_codewords']} codewords, {found['bits_per_word']:.2f} bits per word",
        "",
        *_shares("bytes", {**found["sizes"], "total": total}, total),
        "",
        f"compression ratio {found['compression_ratio']:,.1f}: {full:,} bytes of the float32 table "
        "over codes, lengths and codebooks",
        f"                  {found['compression_ratio_of_file']:,.1f}: over the whole file",
        "",
        *_shares("code length", found["n_words_by_code_length"], found["n_words"]),
        "",
        _longest_text(found["longest"]),
    ]
    if found["classes"] is not None:
        lines.append(f"classifier of {len(found['classes'])} classes: {_listed(found['classes'])}")
    if found["parameters"]:
        made = (f"{name}={value}" for name, value in found["parameters"].items())
        lines.append(f"made with {', '.join(made)}")
    return "\n".join(lines)


def _shares(title: str, numbers: dict[str, int], total: int) -> list[str]:
    """Give a line each: name, number, percent."""
    rows = [
        f"  {name:<12}{number:>14,}{100 * number / total:>9.1f} %"
        for name, number in numbers.items()
    ]
    return [title, *rows]


def _longest_text(longest: dict[str, Any]) -> str:
    more = longest["n_words"] - len(longest["words"])
    rest = f" and {more:,} more" if more else ""
    return f"longest codes, {longest['code_length']}: {_listed(longest['words'])}{rest}"


def _listed(names: list[Any]) -> str:
    return ", ".join(map(str, names))
