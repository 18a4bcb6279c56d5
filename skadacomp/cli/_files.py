"""Files that several commands read and write."""

from __future__ import annotations

import csv
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from skadacomp._compressed import CompressedTable
    from skadacomp._frozen import FrozenClassifier
    from skadacomp._table import EmbeddingTable

_MOST_CHARACTERS = 2**31 - 1  # of a field; the csv module stops at 131,072 unless told
_SHIPPED = "what `skadacomp compress`, save or freeze wrote"


def open_table(parsed: Namespace) -> EmbeddingTable:
    """Open the embedding table at full precision.

    Raises
    ------
    ValueError
        If it is not one, or is compressed already.
    """
    from skadacomp._format import FormatError, read
    from skadacomp._table import EmbeddingTable

    path = parsed.table
    try:
        read(path)
    except (FormatError, OSError):
        pass  # as it should be; what cannot be read at all fails below, with a better message
    else:
        raise ValueError(
            f"{path} is compressed already: TABLE must be the table at full precision."
        )
    try:
        verbose = int(not getattr(parsed, "quiet", False))
        return EmbeddingTable.open(path, parsed.words, verbose=verbose)
    except (ImportError, OSError):
        raise
    except Exception as error:  # the readers of foreign formats raise whatever they like
        raise ValueError(f"{path} cannot be opened as an embedding table: {error}") from error


def open_shipped(path: str) -> tuple[CompressedTable, FrozenClassifier | None]:
    """Open what was compressed, and the classifier in the same file if there is one.

    Raises
    ------
    ValueError
        If the file is damaged or something else.
    """
    from skadacomp._compressed import CompressedTable
    from skadacomp._format import CLASSIFIER_TENSORS, FormatError, read
    from skadacomp._frozen import FrozenClassifier

    try:
        tensors, _ = read(path, verify=False)  # opening it does that
        if not tensors.keys() & set(CLASSIFIER_TENSORS):
            return CompressedTable.open(path), None
        classifier = FrozenClassifier.open(path)
        return classifier.table, classifier
    except FormatError as error:
        raise ValueError(f"{path} is not {_SHIPPED}, or is damaged: {error}") from error


def read_task(
    path: Path, text_column: str | None, label_column: str | None
) -> tuple[list[str], list[str]]:
    """Read labelled documents.

    Parameters
    ----------
    path : Path
        UTF-8. Where it ends in .csv or a column is named, a table with a header line, of commas
        or, in a .tsv or .txt file, tabs. Else a line each: label, tab, text.
    text_column, label_column : str or None
        None is "text" and "label".

    Returns
    -------
    texts, labels : list of str

    Raises
    ------
    ValueError
        If it is something else, and where.
    """
    is_table = path.suffix.lower() == ".csv" or text_column or label_column
    csv.field_size_limit(_MOST_CHARACTERS)
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            if is_table:
                columns = (text_column or "text", label_column or "label")
                pairs = list(_table_rows(path, lines, *columns))
            else:
                pairs = list(_plain_rows(path, lines))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8: {error}. Convert it first.") from error
    except csv.Error as error:
        raise ValueError(f"{path} cannot be read as CSV: {error}.") from error
    if not pairs:
        raise ValueError(f"{path} holds no documents.")
    return [text for text, _ in pairs], [label for _, label in pairs]


def _plain_rows(path: Path, lines: Any) -> Iterator[tuple[str, str]]:
    """Text and label of each line that is not empty."""
    for number, line in enumerate(lines, start=1):
        if line.isspace():
            continue
        label, tab, text = line.rstrip("\r\n").partition("\t")
        if not tab:
            raise ValueError(
                f"{path}, line {number}: there is no tab. Each line must be a label, a tab and a "
                "text; a table with a header needs --text-column and --label-column."
            )
        yield text, label


def _table_rows(
    path: Path, lines: Any, text_column: str, label_column: str
) -> Iterator[tuple[str, str]]:
    """Text and label of each row of a table with a header."""
    delimiter = "\t" if path.suffix.lower() in (".tsv", ".txt") else ","
    reader = csv.DictReader(lines, delimiter=delimiter)
    for option, column in (("--text-column", text_column), ("--label-column", label_column)):
        if column not in (reader.fieldnames or ()):
            raise ValueError(
                f"{path} has no column {column!r}; its header is "
                f"{list(reader.fieldnames or ())!r:.200}. Say {option}."
            )
    for row in reader:
        text, label = row[text_column], row[label_column]
        if text is None or label is None:
            raise ValueError(
                f"{path}, line {reader.line_num}: the row has fewer fields than the header."
            )
        yield text, label


def check_output(path: Path, *, force: bool) -> None:
    """See that a file can be written, before any work is done for it.

    Raises
    ------
    ValueError
        If it is there already and may not be replaced, or its folder is not there.
    """
    if path.is_dir():
        raise ValueError(f"{path} is a folder: OUT must be a file.")
    if path.exists() and not force:
        raise ValueError(f"{path} is there already: --force replaces it.")
    if not path.absolute().parent.is_dir():
        raise ValueError(f"{path} cannot be written: there is no folder {path.parent}.")
