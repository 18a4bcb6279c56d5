"""What compression costs in error, and scorers that tell a search how small a table became.

The scorers take ``(estimator, X, y)`` as scikit-learn calls them, and need the estimator alone::

    scoring = {"accuracy": "accuracy", "nbytes": neg_file_nbytes}
    GridSearchCV(pipe, grid, scoring=scoring, refit="accuracy")
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from skadacomp._compressed import CompressedTable
from skadacomp._compressor import AdaptiveCodebookCompressor
from skadacomp._encoder import chunks
from skadacomp._mapped import mean_row, take_rows
from skadacomp._table import EmbeddingTable, as_table

__all__ = ["compression_ratio", "neg_file_nbytes", "reconstruction_error"]


def reconstruction_error(embeddings: Any, compressed: Any, *, words: str = "kept") -> float:
    """Relative squared error of the rebuilt vectors: ``‖E − Ê‖² / ‖E − mean‖²``.

    0 means that the vectors are rebuilt exactly, 1 that they are no nearer than the table's mean
    vector is.

    Parameters
    ----------
    embeddings : EmbeddingTable, array-like, DataFrame, KeyedVectors or path
        The original table, its rows as they were when it was compressed. Read part by part, so
        that a memory-mapped table is not copied.
    compressed : CompressedTable, fitted compressor, or fitted Pipeline that holds one
        What it was compressed to.
    words : {"kept", "all"}, default="kept"
        The rows that both sums go over. "kept" takes the words with a code: how near are the
        vectors that can be looked up? "all" takes dropped words too, whose rebuilt vector is the
        mean vector: how much of the table is left? Only "all" compares two compressors that drop
        different words. The mean is that of all rows either way.

    Returns
    -------
    float
        0 or more, without a unit.

    Raises
    ------
    NotFittedError
        If the compressor is not fitted.
    TypeError
        If `embeddings` or `compressed` is of no accepted type.
    ValueError
        If the two differ in their shape or in their words, if there is no row to measure, or if
        all of them equal the mean vector, so that nothing can be relative to their spread.

    Examples
    --------
    >>> from skadacomp import CompressedTable
    >>> from skadacomp.metrics import reconstruction_error
    >>> vectors = [[1.0, 0.0], [-1.0, 0.0], [0.0, 2.0], [0.0, -2.0]]
    >>> codes = [[0], [1], [-1], [-1]]  # the last two words are dropped
    >>> compressed = CompressedTable.from_codes(
    ...     codes, codebooks=[[[1.0, 0.0], [-1.0, 0.0]]], mean=[0.0, 0.0], code_lengths=(0, 1)
    ... )
    >>> reconstruction_error(vectors, compressed)
    0.0
    >>> reconstruction_error(vectors, compressed, words="all")
    0.8
    """
    if words not in ("kept", "all"):
        raise ValueError(f"words={words!r} must be 'kept' or 'all'.")
    shipped = find_compressed(compressed, "compressed")
    table = as_table(embeddings)
    _check_fit(table, shipped)
    kept = np.flatnonzero(shipped.code_lengths)
    if words == "kept" and not kept.size:
        raise ValueError("No word has a code; words='all' measures the dropped ones.")
    rows = kept if words == "kept" else np.arange(table.n_words)
    mean = mean_row(table.vectors)  # (n_dims,)
    error, spread = _squares(table.vectors, shipped, rows, mean)
    # Rows that all equal the mean differ from it by rounding alone.
    if spread <= len(rows) * np.square(np.finfo(np.float32).eps * mean).sum():
        raise ValueError(
            f"The {len(rows)} rows measured all equal the mean vector: there is no spread to "
            "measure the error against."
        )
    return error / spread


def compression_ratio(estimator: Any, X: Any = None, y: Any = None) -> float:
    """Score a fitted compressor by its compression ratio; greater is better.

    Parameters
    ----------
    estimator : fitted compressor, Pipeline that holds one, fitted search over one of these, \
or CompressedTable
        What is scored.
    X, y : ignored
        Here because scikit-learn passes them.

    Returns
    -------
    float
        Bytes of the float32 table over those of codes, lengths and codebooks, as
        ``compression_ratio_``. The vocabulary is not counted: `neg_file_nbytes` does that.

    Raises
    ------
    NotFittedError
        If the compressor is not fitted.
    TypeError, ValueError
        If `estimator` holds no compressor, or holds several.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.model_selection import cross_validate
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from skadacomp import AdaptiveCodebookCompressor, EmbeddingTable
    >>> from skadacomp.metrics import compression_ratio, neg_file_nbytes
    >>> vectors = np.random.default_rng(0).normal(size=(4, 256))
    >>> table = EmbeddingTable(["good", "bad", "film", "plot"], vectors)
    >>> texts, labels = ["good film", "bad film", "good plot", "bad plot"] * 6, [1, 0] * 12
    >>> compressor = AdaptiveCodebookCompressor(
    ...     table, code_lengths=(0, 1), n_codewords=2, max_iter=1, random_state=0
    ... )
    >>> scores = cross_validate(
    ...     make_pipeline(compressor, LogisticRegression()),
    ...     texts,
    ...     labels,
    ...     cv=2,
    ...     scoring={"ratio": compression_ratio, "nbytes": neg_file_nbytes},
    ... )
    >>> bool((scores["test_ratio"] > 1).all())
    True
    """
    shipped = find_compressed(estimator, "estimator")
    return 4 * shipped.n_words * shipped.n_dims / shipped.nbytes


def neg_file_nbytes(estimator: Any, X: Any = None, y: Any = None) -> int:
    """Score a fitted compressor by minus the bytes of what ships; greater is better.

    Negative, as scikit-learn's own ``neg_...`` scorers are, so that a search which takes the
    greatest score takes the smallest file.

    Parameters
    ----------
    estimator : fitted compressor, Pipeline that holds one, fitted search over one of these, \
or CompressedTable
        What is scored.
    X, y : ignored
        Here because scikit-learn passes them.

    Returns
    -------
    int
        Minus the size in bytes of the file that ``compressed_.save`` writes, vocabulary and header
        included: what ``max_bytes`` bounds.

    Raises
    ------
    NotFittedError
        If the compressor is not fitted.
    TypeError, ValueError
        If `estimator` holds no compressor, or holds several.

    Examples
    --------
    >>> from skadacomp import AdaptiveCodebookCompressor
    >>> from skadacomp.metrics import neg_file_nbytes
    >>> compressor = AdaptiveCodebookCompressor(max_iter=1, random_state=0)
    >>> compressor = compressor.fit([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    >>> neg_file_nbytes(compressor) == -compressor.compressed_.file_nbytes
    True
    """
    return -find_compressed(estimator, "estimator").file_nbytes


def find_compressor(estimator: Any, name: str) -> AdaptiveCodebookCompressor:
    """Find the one compressor that an estimator is or holds.

    Parameters
    ----------
    estimator : AdaptiveCodebookCompressor, Pipeline, or search with a ``best_estimator_``
        Pipelines may hold pipelines.
    name : str
        The parameter that it came as, for errors.

    Raises
    ------
    NotFittedError
        If the compressor is not fitted.
    TypeError
        If there is none.
    ValueError
        If there are several.
    """
    found = _compressors(estimator)
    if len(found) > 1:
        raise ValueError(
            f"{name} holds {len(found)} compressors; pass the one that is meant, such as pipe[0]."
        )
    if not found:
        raise TypeError(
            f"{name} is of type {type(estimator).__name__} and holds no compressor; it must be an "
            "AdaptiveCodebookCompressor or a Pipeline with one as a step."
        )
    check_is_fitted(found[0])
    return found[0]


def find_compressed(source: Any, name: str) -> CompressedTable:
    """Take a CompressedTable itself, or that of the compressor that `find_compressor` finds."""
    if isinstance(source, CompressedTable):
        return source
    return find_compressor(source, name).compressed_


def _compressors(estimator: Any) -> list[AdaptiveCodebookCompressor]:
    if isinstance(estimator, AdaptiveCodebookCompressor):
        return [estimator]
    inner = getattr(estimator, "best_estimator_", None)
    steps = [inner] if inner is not None else [s for _, s in getattr(estimator, "steps", ())]
    return [found for step in steps for found in _compressors(step)]


def _check_fit(table: EmbeddingTable, compressed: CompressedTable) -> None:
    """Check that a table and a compressed table have the same rows."""
    shapes = (table.n_words, table.n_dims), (compressed.n_words, compressed.n_dims)
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"embeddings has shape {shapes[0]} (n_words, n_dims) and compressed {shapes[1]}: they "
            "must be one table before and after."
        )
    if table.words is None or compressed.words is None:
        return
    kept = np.flatnonzero(compressed.code_lengths).tolist()
    for row, word in zip(kept, compressed.words, strict=True):
        if table.words[row] != word:
            raise ValueError(
                f"Row {row} is {table.words[row]!r} in embeddings and {word!r} in compressed: they "
                "must be one table before and after, with its rows in one order."
            )


def _squares(
    vectors: NDArray[np.float32],
    compressed: CompressedTable,
    rows: NDArray[np.int64],
    mean: NDArray[np.float64],
) -> tuple[float, float]:
    """Sum the squares of what rebuilding, and of what the mean, leaves of the rows."""
    error = spread = 0.0
    for part in chunks(len(rows), vectors.shape[1]):
        block = take_rows(vectors, rows[part]).astype(np.float64)  # (n_rows, n_dims)
        error += float(np.square(block - compressed.vectors(rows[part])).sum())
        spread += float(np.square(block - mean).sum())
    return error, spread
