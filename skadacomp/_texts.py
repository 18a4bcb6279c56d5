"""Documents to row ids, and features of their words to sums. Needs numpy alone."""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from numbers import Integral
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

ACCEPTED = (
    "a document is a string, a list of words, a list of row ids (ints), or a row of a sparse "
    "(n_documents, n_words) matrix"
)

_Form = Literal["text", "words", "ids", "empty"]

_WORD = re.compile(r"(?u)\b\w\w+\b")  # scikit-learn's token_pattern
_PIECE = 128  # words added up one after the other; longer documents are cut, and the sums added
_AT_A_TIME = 1024  # pieces whose sums grow side by side


class WordRows(Protocol):
    """Anything with a dict's ``get``, from a word to its row or None."""

    def get(self, word: str, /) -> int | None:
        """Row of a word, None if the table lacks it."""
        ...


def refuse_text(X: Any) -> None:
    """Refuse one text where a list of documents is meant."""
    if isinstance(X, str):
        raise ValueError(
            "Iterable over raw text documents expected, string object received. Put a single "
            "document in a list: [text]."
        )


def as_list(X: Any) -> list[Any]:
    """List the documents of X, of which there must be one at least."""
    refuse_text(X)
    if hasattr(X, "__array__"):
        documents = np.asarray(X).tolist()
    elif isinstance(X, (bytes, bytearray, Mapping, set, frozenset)) or not (
        hasattr(X, "__len__") and hasattr(X, "__getitem__")
    ):
        raise TypeError(
            f"X is of type {type(X).__name__}; it must be vectors (an EmbeddingTable or a 2-D "
            f"array) or a list of documents, where {ACCEPTED}."
        )
    else:
        documents = list(X)
    if not documents:
        raise ValueError("X is empty: it must hold at least one document.")
    return documents


def is_empty(document: Any) -> bool:
    return isinstance(document, (list, tuple, np.ndarray)) and len(document) == 0


def form_of(document: Any, position: int) -> _Form:
    """Form of one document, by its type and its first item."""
    if isinstance(document, str):
        return "text"
    if is_empty(document):
        return "empty"
    within = ""
    if isinstance(document, (list, tuple)) or (
        isinstance(document, np.ndarray) and document.ndim == 1
    ):
        first = document[0]
        if isinstance(first, str):
            return "words"
        if _is_id_type(type(first)):
            return "ids"
        within = f" that begins with {first!r} ({type(first).__name__})"
    raise TypeError(
        f"X[{position}] is of type {type(document).__name__}{within}; {ACCEPTED}. A single "
        "document goes in a list of its own, vectors in a 2-D array."
    )


def _is_id_type(kind: type) -> bool:
    return issubclass(kind, Integral) and not issubclass(kind, bool)


def _common_form(documents: list[Any]) -> _Form:
    """Form that all documents have; empty ones go with any."""
    common: _Form = "empty"
    first = 0
    for position, document in enumerate(documents):
        form = form_of(document, position)
        if common == "empty":
            common, first = form, position
        elif form not in (common, "empty"):
            raise TypeError(
                f"X[{position}] is a document given as {form} while X[{first}] is given as "
                f"{common}: all documents must be given in the same way."
            )
    return common


def _checked_words(documents: list[Any]) -> Iterator[list[str]]:
    for position, document in enumerate(documents):
        if not all(issubclass(kind, str) for kind in set(map(type, document))):
            at, item = next((a, i) for a, i in enumerate(document) if not isinstance(i, str))
            raise TypeError(
                f"X[{position}][{at}] is {item!r} of type {type(item).__name__} in a list of "
                "words: every word must be a str."
            )
        yield document


def _checked_ids(documents: list[Any], n_words: int) -> Iterator[list[int]]:
    for position, document in enumerate(documents):
        ids = document.tolist() if isinstance(document, np.ndarray) else document
        if not all(map(_is_id_type, set(map(type, ids)))):
            at, item = next((a, i) for a, i in enumerate(ids) if not _is_id_type(type(i)))
            raise TypeError(
                f"X[{position}][{at}] is {item!r} of type {type(item).__name__} in a list of row "
                "ids: every id must be an int. Vectors go in a 2-D array."
            )
        if ids and (min(ids) < 0 or max(ids) >= n_words):
            at, item = next((a, i) for a, i in enumerate(ids) if not 0 <= i < n_words)
            raise ValueError(
                f"X[{position}][{at}] is the row id {item}, which must be in [0, {n_words}), the "
                "rows of the embedding table."
            )
        yield ids


def looked_up(
    documents: Iterable[Iterable[str]], rows: WordRows, unknown: int | None = None
) -> Iterator[list[int]]:
    """Rows of the words that the table has, and `unknown` for the others if that is a row."""
    for words in documents:
        found = (unknown if row is None else row for row in map(rows.get, words))
        yield [row for row in found if row is not None]


def word_ids(
    X: Any,
    find: Callable[[Iterable[list[str]]], Iterable[list[int]]] | None,
    n_words: int,
    split: Callable[[str], list[str]],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Row ids of all documents one after the other, and where each document begins and ends.

    Parameters
    ----------
    X : sequence of documents
        Of str, of lists of words or of lists of row ids.
    find : callable or None
        Gives the row ids for documents as lists of words; None for a table without words.
    n_words : int
        Rows of the table.
    split : callable
        Gives the words of a text.
    """
    if getattr(X, "ndim", 1) != 1:
        raise TypeError(
            f"X of type {type(X).__name__} has {X.ndim} dimensions: pass documents as a list. "
            "Vectors and sparse counts are for the compressor's transform."
        )
    documents = as_list(X)
    if all(type(document) is np.ndarray for document in documents):
        joined = _joined(documents)
        if joined is not None and _within(joined[0], n_words):
            return joined
    form = _common_form(documents)
    if form == "ids":
        return _listed(_checked_ids(documents, n_words))
    if form == "empty":
        return _listed(documents)
    if find is None:
        raise ValueError(
            "X holds text or words, and the embedding table has no words to look them up in. Give "
            "it words, EmbeddingTable(words, vectors), or pass documents as lists of row ids."
        )
    if form == "text":
        words: Iterable[list[str]] = (split(text) if text else [] for text in documents)
    else:
        words = _checked_words(documents)
    return _listed(find(words))


def _joined(
    documents: list[npt.NDArray[Any]],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]] | None:
    """Arrays of row ids as one, and where each begins and ends; None if one is something else."""
    sizes = [document.size for document in documents]
    if any(d.ndim != 1 or (d.size and d.dtype.kind not in "iu") for d in documents):
        return None
    ids = np.concatenate([np.empty(0, np.int64), *(d for d in documents if d.size)])
    # Beside 64 unsigned bits concatenation makes floats, for lack of a common integer.
    return (ids, np.append(0, np.cumsum(sizes))) if ids.dtype.kind == "i" else None


def _within(ids: npt.NDArray[np.int64], n_words: int) -> bool:
    return ids.size == 0 or bool(ids.min() >= 0 and ids.max() < n_words)


def _listed(
    documents: Iterable[Iterable[int]],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    ids, ends = array("q"), array("q", [0])
    for document in documents:
        ids.extend(document)
        ends.append(len(ids))
    return np.asarray(ids), np.asarray(ends)


def splitter(
    tokenizer: Callable[[str], list[str]] | None, lowercase: bool
) -> Callable[[str], list[str]]:
    """Give what splits texts as scikit-learn's CountVectorizer does."""
    split = _WORD.findall if tokenizer is None else tokenizer
    return (lambda text: split(text.lower())) if lowercase else split


def segment_sums(
    features: npt.NDArray[np.float32],
    rows: npt.NDArray[np.int64],
    ends: npt.NDArray[np.int64],
) -> npt.NDArray[np.float32]:
    """Add up rows of features, document by document.

    Documents grow side by side, each by its next word: a few additions of large arrays, where
    ``np.add.reduceat`` makes a small one for every word.

    Parameters
    ----------
    features : ndarray (n_rows, n_features) float32
    rows : ndarray (n_entries,)
        Which row each entry is, document after document.
    ends : ndarray (n_documents + 1,)
        Where documents begin and end among the entries, from 0.

    Returns
    -------
    ndarray (n_documents, n_features) float32
    """
    n_pieces = -(-np.diff(ends) // _PIECE)
    firsts = np.cumsum(n_pieces) - n_pieces  # each document's first piece
    document = np.repeat(np.arange(len(n_pieces)), n_pieces)
    begins = ends[document] + _PIECE * (np.arange(len(document)) - firsts[document])
    sizes = np.minimum(ends[document + 1] - begins, _PIECE)
    pieces = np.empty((len(document), features.shape[1]), np.float32)
    by_size = np.argsort(-sizes, kind="stable")
    for start in range(0, len(by_size), _AT_A_TIME):
        chosen = by_size[start : start + _AT_A_TIME]
        pieces[chosen] = _grown(features, rows, begins[chosen], sizes[chosen])
    if (n_pieces == 1).all():
        return pieces
    some = np.flatnonzero(n_pieces)
    sums = np.zeros((len(n_pieces), features.shape[1]), np.float32)
    if some.size:
        sums[some] = np.add.reduceat(pieces, firsts[some], axis=0)
    return sums


def _grown(
    features: npt.NDArray[np.float32],
    rows: npt.NDArray[np.int64],
    begins: npt.NDArray[np.int64],
    sizes: npt.NDArray[np.int64],
) -> npt.NDArray[np.float32]:
    """Add up pieces that begin there, the longest first."""
    # Row ids step by step, (n_steps, n_pieces); beyond a piece's end they are not used.
    steps = rows.take(np.add.outer(np.arange(sizes[0]), begins), mode="clip")
    # How many pieces have more words than the step's number.
    n_growing = len(sizes) - np.searchsorted(sizes[::-1], np.arange(sizes[0]), side="right")
    sums = features.take(steps[0], axis=0)
    spare = np.empty_like(sums)
    for step, n in zip(steps[1:], n_growing[1:].tolist(), strict=True):
        features.take(step[:n], axis=0, out=spare[:n], mode="clip")
        sums[:n] += spare[:n]
    return sums
