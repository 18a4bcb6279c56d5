"""What users hand in: text, words, row ids or counts, made into sparse matrices."""

from __future__ import annotations

from functools import partial
from numbers import Integral, Number
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from skadacomp._table import is_table
from skadacomp._texts import (
    ACCEPTED,
    WordRows,
    as_list,
    form_of,
    is_empty,
    looked_up,
    refuse_text,
    splitter,
    word_ids,
)

__all__ = ["document_counts", "kind_of", "n_documents", "pool"]


def kind_of(X: Any) -> Literal["vectors", "documents"]:
    """Tell from the type of X alone whether it holds vectors or documents.

    Parameters
    ----------
    X : object
        Vectors are an EmbeddingTable, what `EmbeddingTable.from_object` knows by its type, any
        array of numbers (of whatever rank: `as_table` refuses all but 2-D), and a list of lists
        of floats.
        Documents are a sparse matrix and a list, tuple, 1-D array or Series of strings, of lists
        of words or of lists of ints. The first document that is not empty decides.

    Returns
    -------
    {"vectors", "documents"}

    Raises
    ------
    ValueError
        If X is a bare string, or has no documents.
    TypeError
        If X is no collection, or its first document is none of the above.
    """
    refuse_text(X)
    if is_table(X):
        return "vectors"
    if sp.issparse(X):
        return "documents"
    if hasattr(X, "__array__"):
        X = np.asarray(X)
        if X.dtype.kind in "biufc" or X.ndim != 1:
            return "vectors"
    for position, document in enumerate(as_list(X)):
        if not is_empty(document):
            return _kind_of_first(document, position)
    return "documents"


def n_documents(X: Any) -> int:
    """Count the documents, or the rows of vectors, of anything that `kind_of` accepts."""
    return int(X.shape[0]) if hasattr(X, "shape") else len(X)


def document_counts(
    X: Any,
    rows: WordRows | None,
    n_words: int,
    *,
    tokenizer: Any = None,
    lowercase: bool = True,
) -> sp.csr_matrix:
    """Count the words of each document.

    The same documents given as text, as words, as row ids or as counts give the same matrix.

    Parameters
    ----------
    X : sequence of documents, or sparse matrix of shape (n_documents, n_words)
        Strings are split as scikit-learn's CountVectorizer splits them; lists of words and lists
        of row ids are taken as they are; a sparse matrix holds counts or other weights, of any
        sign. All documents are of one kind; an empty list is a document with no words.
    rows : mapping of str to int, or None
        The row of each word (``get`` is all that is used); words without one are skipped. None
        for a table without words, which can only read ids and sparse matrices.
    n_words : int
        Rows of the table.
    tokenizer : callable of str to list of str, default=None
        How to split strings; None takes words of two and more letters or digits.
    lowercase : bool, default=True
        Whether strings are made lower case first. Lists of words never are.

    Returns
    -------
    csr_matrix of float32, shape (n_documents, n_words)
        Indices sorted, duplicates summed, no explicit zeros.

    Raises
    ------
    TypeError
        If X holds vectors, a document is of no accepted type, of another kind than the first, or
        holds something that is no word or id.
    ValueError
        If X is empty or a bare string, an id is not in [0, n_words), text or words meet a table
        without words, or a sparse matrix has other than n_words columns or values that are not
        finite.
    """
    if sp.issparse(X):
        return _sparse_counts(X, n_words)
    ids, ends = _word_ids(X, rows, n_words, tokenizer, lowercase)
    return _canonical(np.ones(len(ids), dtype=np.float32), ids, ends, n_words)


def document_sequences(
    X: Any,
    rows: WordRows | None,
    n_words: int,
    *,
    tokenizer: Any = None,
    lowercase: bool = True,
    keep_unknown: bool = False,
) -> sp.csr_matrix:
    """List the words of each document in their order.

    Parameters and errors are those of `document_counts`, but for sparse matrices.

    Parameters
    ----------
    keep_unknown : bool, default=False
        Whether a word that the table lacks keeps its place: an entry of weight 0.

    Returns
    -------
    csr_matrix of float32, shape (n_documents, n_words)
        One entry a word as the words come, of weight 1; repeated words are repeated entries.

    Raises
    ------
    ValueError
        If X is sparse: it has no order.
    """
    if sp.issparse(X):
        raise ValueError(
            "X is a sparse matrix, which holds counts but no order of words, and this task's head "
            "reads words in order. Pass text, lists of words or lists of row ids."
        )
    unknown = -1 if keep_unknown else None
    ids, ends = _word_ids(X, rows, n_words, tokenizer, lowercase, unknown)
    weights = (ids >= 0).astype(np.float32)
    return sp.csr_matrix((weights, np.maximum(ids, 0), ends), shape=(len(ends) - 1, n_words))


def are_word_lists(X: Any) -> bool:
    """Whether all documents are lists of words, or of row ids."""
    return (
        not isinstance(X, str)
        and hasattr(X, "__len__")
        and all(
            isinstance(document, (list, tuple, np.ndarray))
            and not any(isinstance(item, (list, tuple, np.ndarray)) for item in document)
            for document in X
        )
    )


def are_pairs(X: Any, *, strict: bool = True) -> bool:
    """Whether X is a list of pairs of texts.

    Parameters
    ----------
    X : object
    strict : bool, default=True
        Take nothing but tuples of two for a pair: a list of two strings is a document of two
        words.
    """
    if not isinstance(X, (list, tuple, np.ndarray)) or len(X) == 0:
        return False
    kinds = tuple if strict else (tuple, list, np.ndarray)
    return all(
        isinstance(pair, kinds)
        and len(pair) == 2
        and all(isinstance(side, (str, list, tuple, np.ndarray)) for side in pair)
        for pair in X
    )


def pair_texts(X: Any, name: str) -> list[Any]:
    """List both texts of each pair, one pair after the other.

    Raises
    ------
    ValueError
        If something is no pair, or one side of it is missing.
    """
    texts: list[Any] = []
    for position, pair in enumerate(X):
        if not isinstance(pair, (tuple, list, np.ndarray)) or len(pair) != 2:
            raise ValueError(
                f"{name}[{position}] is {pair!r:.60}, not a pair: every document of this task is "
                "(A, B), two texts."
            )
        for side in pair:
            if side is None or isinstance(side, float):
                raise ValueError(
                    f"{name}[{position}] is {pair!r:.60}: one of its two texts is missing."
                )
            texts.append(side)
    return texts


def pool(
    counts: sp.csr_matrix, matrix: sp.csr_matrix, pooling: Literal["mean", "sum"]
) -> sp.csr_matrix:
    """Pool the features of each document's words.

    Parameters
    ----------
    counts : csr_matrix, shape (n_documents, n_words)
        Weight of each word in each document.
    matrix : csr_matrix, shape (n_words, n_features)
        Features of each word, the last of them the constant. A word with no code has a row of
        zeros.
    pooling : {"mean", "sum"}
        "sum" adds up weight times features. "mean" divides by the sum of the absolute weights of
        the document's words that have a code.

    Returns
    -------
    csr_matrix of float32, shape (n_documents, n_features)
        A document none of whose words has a code is a row of zeros.

    Raises
    ------
    ValueError
        If `pooling` is neither of the two.
    """
    if pooling not in ("mean", "sum"):
        raise ValueError(f"pooling={pooling!r} must be 'mean' or 'sum'.")
    pooled = sp.csr_matrix(counts @ matrix, dtype=np.float32)
    pooled.eliminate_zeros()  # scipy's product leaves none in, but does not promise it
    if pooling == "mean":
        weights = abs(counts).astype(np.float64) @ _has_features(matrix)  # (n_documents,)
        # A row with anything in it has a word with a code, so nothing divides by 0 here.
        pooled.data /= np.repeat(weights, np.diff(pooled.indptr))
    pooled.sort_indices()
    return pooled


def _has_features(matrix: sp.csr_matrix) -> npt.NDArray[np.bool_]:
    """Whether each row holds anything but zeros, shape (n_words,)."""
    if not matrix.data.all():
        matrix = matrix.copy()
        matrix.eliminate_zeros()
    has: npt.NDArray[np.bool_] = np.diff(matrix.indptr) > 0
    return has


# -- what X is -------------------------------------------------------------------------------


def _kind_of_first(document: Any, position: int) -> Literal["vectors", "documents"]:
    """Kind of X by its first document that is not empty."""
    if isinstance(document, np.ndarray) and (document.ndim > 1 or document.dtype.kind in "fc"):
        return "vectors"
    if isinstance(document, (list, tuple)) and any(map(_is_vector_entry, document)):
        return "vectors"
    form_of(document, position)
    return "documents"


def _is_vector_entry(item: Any) -> bool:
    """Whether an item makes its list a vector: a number but no id, or (3-D) another list."""
    if isinstance(item, (list, tuple, np.ndarray)):
        return True
    return isinstance(item, Number) and not isinstance(item, Integral)


def _word_ids(
    X: Any,
    rows: WordRows | None,
    n_words: int,
    tokenizer: Any,
    lowercase: bool,
    unknown: int | None = None,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Row ids of all documents one after the other, and where each document begins and ends.

    A word that the table lacks gets the id `unknown`, or none at all.
    """
    if kind_of(X) == "vectors":
        raise TypeError(f"X of type {type(X).__name__} holds vectors, not documents: {ACCEPTED}.")
    find = None if rows is None else partial(looked_up, rows=rows, unknown=unknown)
    return word_ids(X, find, n_words, splitter(tokenizer, lowercase))


def _sparse_counts(X: Any, n_words: int) -> sp.csr_matrix:
    """Check a matrix of weights and bring it into the one form."""
    if X.ndim != 2 or X.shape[1] != n_words:
        raise ValueError(
            f"X is sparse with shape {X.shape} and needs one column for each of the table's "
            f"n_words={n_words} words. CountVectorizer(vocabulary=table.index) makes such columns."
        )
    if X.dtype.kind == "c":
        raise ValueError(f"Complex data not supported: X is sparse with dtype {X.dtype}.")
    if X.shape[0] == 0:
        raise ValueError("X is empty: it must hold at least one document.")
    with np.errstate(over="ignore"):  # what overflows is refused below
        weights = sp.csr_matrix(X, dtype=np.float32)
    finite = np.isfinite(weights.data)
    if not finite.all():
        at = int(np.argmin(finite))
        row = int(np.searchsorted(weights.indptr, at, side="right")) - 1
        raise ValueError(
            f"X holds NaN or infinity (in float32) in document {row}, column "
            f"{weights.indices[at]}: weights must be finite."
        )
    return _canonical(weights.data.copy(), weights.indices, weights.indptr, n_words)


def _canonical(
    data: npt.NDArray[np.float32], indices: npt.NDArray[Any], indptr: npt.NDArray[Any], n_words: int
) -> sp.csr_matrix:
    """Sorted, summed and without zeros; may write to data."""
    shape = (len(indptr) - 1, n_words)
    # Summing works in place: copies keep it off a matrix that is the caller's.
    counts = sp.csr_matrix((data, indices.copy(), indptr.copy()), shape=shape)
    counts.sum_duplicates()
    counts.eliminate_zeros()
    return counts
