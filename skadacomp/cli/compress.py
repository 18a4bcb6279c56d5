"""``skadacomp compress``: an embedding table in, what ships out."""

from __future__ import annotations

import argparse
import json
import math
import sys
from argparse import Namespace
from typing import TYPE_CHECKING, Any

from skadacomp.cli._arguments import (
    Between,
    Commands,
    add_json,
    add_output,
    add_table,
    add_task,
    byte_count,
)
from skadacomp.cli._files import check_output, open_table, read_task
from skadacomp.cli.info import as_text, describe

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

    from skadacomp._compressor import AdaptiveCodebookCompressor

# What the header says of a classifier: two tensors and a few settings, with some bytes to spare.
_HEADER = 512
_N_NAMED = 20  # words with the longest codes that the summary names


def add_to(commands: Commands) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "compress",
        help="compress a table for a task, or to be rebuilt",
        description="Compress an embedding table. With --task, words get the codes that "
        "classifying those documents needs; TABLE's words should then be in order of frequency, "
        "as published tables are. Without it, the vectors are rebuilt as well as the bits allow. "
        "Progress and a summary go to stderr.",
    )
    add_table(parser)
    add_task(parser, required=False, what="labelled documents to learn from")
    add_output(parser, "the compressed table, such as words.safetensors", required=True)
    _add_sizes(parser)
    parser.add_argument(
        "--seed",
        type=Between(0, 2**32 - 1),
        default=0,
        metavar="N",
        help="of all that is random (default 0)",
    )
    parser.add_argument(
        "--classifier",
        action="store_true",
        help="put a logistic regression on the task into the same file, for `skadacomp predict`",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar and no summary")
    add_json(parser, "what `skadacomp info --json` says of OUT")
    parser.set_defaults(run=run)


def _add_sizes(parser: argparse.ArgumentParser) -> None:
    """Add what decides the size."""
    size = parser.add_mutually_exclusive_group()
    size.add_argument(
        "--bits",
        type=_positive,
        metavar="N",
        help="budget in bits per word: the mean of codes and lengths over all words of TABLE",
    )
    size.add_argument(
        "--max-bytes",
        type=byte_count,
        metavar="SIZE",
        help="budget of the whole file: 100kB, 1.5MB, 64KiB, or a number of bytes. Without "
        "a budget bits are weighed against the loss that they save",
    )
    parser.add_argument(
        "--code-lengths",
        type=_whole_numbers,
        metavar="N,N,...",
        help="code lengths that a word may have, ascending, 0 to drop words (default 0,1,2,4,8)",
    )
    parser.add_argument(
        "--n-codewords",
        type=Between(2, 4096),
        metavar="N",
        help="codewords in a codebook, 2 to 4096 (default 16)",
    )
    parser.add_argument(
        "--codebook-bits",
        type=int,
        choices=(4, 8),
        help="bits of a number of the codebooks (default 4, or 8 in a large budget)",
    )
    parser.add_argument(
        "--n-components",
        type=int,
        metavar="N",
        help="learn along N principal components of TABLE, which takes less time where it has "
        "hundreds of dimensions (default all dimensions)",
    )


def _positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} must be a number above 0")
    return number


def _whole_numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} must be whole numbers with commas between them, such as 0,2,4,8"
        ) from None


def run(parsed: Namespace) -> None:
    """Run the command."""
    check_output(parsed.output, force=parsed.force)
    if parsed.classifier and parsed.task is None:
        raise ValueError("--classifier needs a task to classify: give --task.")
    documents: tuple[list[str], list[str]] | None = None
    if parsed.task is not None:
        documents = read_task(parsed.task, parsed.text_column, parsed.label_column)
    table = open_table(parsed)
    if documents is not None and table.words is None:
        raise ValueError(f"{parsed.table} has no words to find in the documents: give --words.")

    from skadacomp._compressor import AdaptiveCodebookCompressor

    names = ("code_lengths", "n_codewords", "codebook_bits", "n_components")
    given = {name: getattr(parsed, name) for name in names if getattr(parsed, name) is not None}
    compressor = AdaptiveCodebookCompressor(
        bits_per_word=parsed.bits,
        random_state=parsed.seed,
        verbose=int(not parsed.quiet),
        **given,
    )
    _compress(parsed, compressor, table, documents)
    found = describe(parsed.output, _N_NAMED)
    if not parsed.quiet:
        print(as_text(found), file=sys.stderr)
    if parsed.json:
        print(json.dumps(found, indent=2, ensure_ascii=False))


def _compress(
    parsed: Namespace,
    compressor: AdaptiveCodebookCompressor,
    table: Any,
    documents: tuple[list[str], list[str]] | None,
) -> None:
    """Fit and save."""
    beside = 0
    if parsed.max_bytes is not None:
        if parsed.classifier and documents is not None:
            beside = _nbytes_of_classifier(compressor, sorted(set(documents[1])))
        compressor.set_params(max_bytes=max(parsed.max_bytes - beside, 1))
    try:
        compressor.fit(table, *(documents or ()))
    except ValueError as error:
        if beside:
            error.add_note(f"(Of --max-bytes {parsed.max_bytes} the classifier takes {beside}.)")
        raise
    if parsed.classifier and documents is not None:
        from skadacomp._freeze import freeze

        freeze(_classifier(compressor, *documents)).save(parsed.output)
    else:
        compressor.compressed_.save(parsed.output)


def _nbytes_of_classifier(compressor: AdaptiveCodebookCompressor, classes: list[str]) -> int:
    """Bytes that a classifier adds to the file, rounded up."""
    n_outputs = 1 if len(classes) == 2 else len(classes)
    n_features = max(compressor.code_lengths) * compressor.n_codewords + 1
    weights = 4 * n_outputs * (n_features + 1)
    return weights + len(json.dumps(json.dumps(classes))) + _HEADER


def _classifier(
    compressor: AdaptiveCodebookCompressor, texts: list[str], labels: list[str]
) -> Pipeline:
    """Fit a logistic regression on the compressed vectors; `freeze` moves it onto the codes."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import Pipeline

    compressor.set_params(output="vectors")  # fewer numbers than code features have
    # Those of a document are means over its words, and short: a C of 1 would hold it back.
    regression = LogisticRegression(C=10.0, max_iter=1000)
    regression.fit(compressor.transform(texts), labels)
    return Pipeline([("compressor", compressor), ("classifier", regression)])
