"""What compression costs in error, and how a search weighs it against size.

The scorers take ``(estimator, X, y)`` as scikit-learn calls them, and need the estimator alone. Of
all scores the greater is the better, so bytes and errors are negative::

    scoring = {"accuracy": "accuracy", "n_bytes": n_bytes}
    GridSearchCV(pipe, grid, scoring=scoring, refit=smallest_within(std=1))
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from skadacomp._compressed import CompressedTable
from skadacomp._compressor import AdaptiveCodebookCompressor
from skadacomp._encoder import chunks
from skadacomp._mapped import mean_row, take_rows
from skadacomp._table import DetachedTable, EmbeddingTable, as_table

__all__ = [
    "compression_ratio",
    "n_bytes",
    "neg_reconstruction_error",
    "reconstruction_error",
    "smallest_within",
]


def reconstruction_error(
    embeddings: Any, compressed: Any = None, y: Any = None, *, words: str = "kept"
) -> float:
    """Relative squared error of the rebuilt vectors: ``‖E − Ê‖² / ‖E − mean‖²``.

    0 means that the vectors are rebuilt exactly, 1 that they are no nearer than the table's mean
    vector is. As a scorer, ``scoring=reconstruction_error``, it is `neg_reconstruction_error`.

    Parameters
    ----------
    embeddings : EmbeddingTable, array-like, DataFrame, KeyedVectors or path
        The original table, its rows as they were when it was compressed. Read part by part, so
        that a memory-mapped table is not copied. A fitted estimator, as scikit-learn gives it to a
        scorer, makes the score negative, and the other parameters are ignored.
    compressed : CompressedTable, fitted compressor, or fitted Pipeline that holds one
        What it was compressed to.
    y : ignored
        Here because scikit-learn passes it to scorers.
    words : {"kept", "all"}, default="kept"
        The rows that both sums go over. "kept" takes the words with a code: how near are the
        vectors that can be looked up? "all" takes dropped words too, whose rebuilt vector is the
        mean vector: how much of the table is left? Only "all" compares two compressors that drop
        different words. The mean is that of all rows either way.

    Returns
    -------
    float
        0 or more, without a unit; of an estimator, 0 or less.

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
    if isinstance(embeddings, BaseEstimator):
        return neg_reconstruction_error(embeddings)
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
        ``compression_ratio_``. The vocabulary is not counted: `n_bytes` does that.

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
    >>> from skadacomp.metrics import compression_ratio, n_bytes
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
    ...     scoring={"ratio": compression_ratio, "n_bytes": n_bytes},
    ... )
    >>> bool((scores["test_ratio"] > 1).all())
    True
    """
    shipped = find_compressed(estimator, "estimator")
    return 4 * shipped.n_words * shipped.n_dims / shipped.nbytes


def n_bytes(estimator: Any, X: Any = None, y: Any = None) -> int:
    """Score a fitted compressor by minus the bytes of what ships; greater is better.

    A scorer and nothing else: -8000 for a file of 8000 bytes, so that a search which takes the
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
    >>> from skadacomp.metrics import n_bytes
    >>> compressor = AdaptiveCodebookCompressor(max_iter=1, random_state=0)
    >>> compressor = compressor.fit([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    >>> n_bytes(compressor) == -compressor.compressed_.file_nbytes
    True
    """
    return -find_compressed(estimator, "estimator").file_nbytes


def neg_reconstruction_error(estimator: Any, X: Any = None, y: Any = None) -> float:
    """Score a fitted compressor by minus its reconstruction error; greater is better.

    Parameters
    ----------
    estimator : fitted compressor, Pipeline that holds one, or fitted search over one of these
        What is scored. The table must be in the compressor's constructor.
    X, y : ignored
        Here because scikit-learn passes them.

    Returns
    -------
    float
        Minus the `reconstruction_error` with ``words="all"``, the one that compares compressors
        which drop different words.

    Raises
    ------
    NotFittedError
        If the compressor is not fitted.
    TypeError, ValueError
        If `estimator` holds no compressor, or several, or the compressor has no table.

    Examples
    --------
    >>> from skadacomp import AdaptiveCodebookCompressor, EmbeddingTable
    >>> from skadacomp.metrics import neg_reconstruction_error
    >>> table = EmbeddingTable(["good", "bad", "film"], [[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])
    >>> compressor = AdaptiveCodebookCompressor(table, max_iter=1, random_state=0)
    >>> bool(-1 <= neg_reconstruction_error(compressor.fit()) <= 0)
    True
    """
    compressor = find_compressor(estimator, "estimator")
    if compressor.embeddings is None or isinstance(compressor.embeddings, DetachedTable):
        raise ValueError(
            f"The compressor has embeddings={compressor.embeddings!r}, and the error needs the "
            "table: give it to the constructor, AdaptiveCodebookCompressor(embeddings=table)."
        )
    return -reconstruction_error(compressor.embeddings, compressor, words="all")


def smallest_within(
    std: float = 1, scoring: str | None = None, size: str = "n_bytes"
) -> Callable[[Mapping[str, Any]], int]:
    """Make a rule for a search: the smallest artifact whose score is near enough to the best.

    Near enough is within `std` standard errors of the best candidate's mean score, which is what
    the folds cannot tell apart.

    Parameters
    ----------
    std : float, default=1
        How many standard errors of the best candidate's mean a score may lie below it, 0 or more.
        The standard error is the standard deviation over the folds (with n - 1) by the square root
        of their number.
    scoring : str, default=None
        The name, in the search's `scoring`, of the score to be near in. None takes the only one
        beside `size`.
    size : str, default="n_bytes"
        The name in `scoring` of what tells sizes, greater for smaller artifacts: a name given to
        `n_bytes` or `compression_ratio`.

    Returns
    -------
    callable
        For the `refit` of GridSearchCV and RandomizedSearchCV: it takes ``cv_results_`` and gives
        the number of the candidate. It pickles.

    Raises
    ------
    ValueError
        If `std` is below 0. When called: if the results lack the score or the size, there are
        several scores and none is named, fewer than two folds, or no candidate that was scored.

    Notes
    -----
    Halving searches take one score alone and have no such rule; ``scoring=n_bytes`` or a scorer of
    one's own works there.

    Examples
    --------
    Of three candidates the second is best, and the first is not far from it:

    >>> from skadacomp.metrics import smallest_within
    >>> results = {
    ...     "split0_test_accuracy": [0.80, 0.84, 0.70],
    ...     "split1_test_accuracy": [0.84, 0.82, 0.72],
    ...     "mean_test_accuracy": [0.82, 0.83, 0.71],
    ...     "mean_test_n_bytes": [-9000, -20000, -4000],
    ... }
    >>> smallest_within(std=1)(results)
    0
    >>> smallest_within(std=0)(results)
    1
    """
    if not std >= 0:
        raise ValueError(f"std={std!r} must be 0 or more standard errors.")
    return SmallestWithin(std, scoring, size)


@dataclass(frozen=True)
class SmallestWithin:
    """What `smallest_within` makes; its parameters are those."""

    std: float
    scoring: str | None
    size: str

    def __call__(self, cv_results: Mapping[str, Any]) -> int:
        """Give the number of the smallest candidate whose score is near enough to the best."""
        sizes = _mean_score(cv_results, self.size, "size")
        name = _only_other(cv_results, self.size) if self.scoring is None else self.scoring
        scores = _mean_score(cv_results, name, "scoring")  # (n_candidates,)
        scores = np.where(np.isnan(sizes), np.nan, scores)
        if np.isnan(scores).all():
            raise ValueError(f"No candidate has both {name!r} and {self.size!r}: all fits failed.")
        best = int(np.nanargmax(scores))
        least = scores[best] - self.std * _standard_error(cv_results, name, best)
        # Of candidates with the same size the better, and of equal ones the first.
        near = np.flatnonzero(scores >= least)
        return int(near[np.lexsort((-scores[near], -sizes[near]))[0]])


def _mean_score(cv_results: Mapping[str, Any], name: str, parameter: str) -> NDArray[np.float64]:
    if f"mean_test_{name}" not in cv_results:
        raise ValueError(
            f"{parameter}={name!r} is none of the search's scores {_score_names(cv_results)}. Give "
            'it both, such as scoring={"accuracy": "accuracy", "n_bytes": '
            "skadacomp.metrics.n_bytes}."
        )
    return np.asarray(cv_results[f"mean_test_{name}"], np.float64)


def _score_names(cv_results: Mapping[str, Any]) -> list[str]:
    prefix = "mean_test_"
    return [key.removeprefix(prefix) for key in cv_results if key.startswith(prefix)]


def _only_other(cv_results: Mapping[str, Any], size: str) -> str:
    """Name the only score beside the size."""
    others = [name for name in _score_names(cv_results) if name != size]
    if len(others) != 1:
        raise ValueError(
            f"scoring=None needs one score beside {size!r}, and the search has {others}: say "
            f"which, as in smallest_within(scoring={(others or ['accuracy'])[0]!r})."
        )
    return others[0]


def _standard_error(cv_results: Mapping[str, Any], name: str, candidate: int) -> float:
    """Give the standard error of a candidate's mean score over the folds."""
    keys = [key for key in cv_results if re.fullmatch(rf"split\d+_test_{re.escape(name)}", key)]
    if len(keys) < 2:
        raise ValueError(
            f"The search has {len(keys)} fold; what scores can be told apart takes two at least."
        )
    folds = np.array([cv_results[key][candidate] for key in keys], np.float64)
    return float(folds.std(ddof=1) / np.sqrt(len(folds)))


def find_compressor(estimator: Any, name: str) -> AdaptiveCodebookCompressor:
    """Find the one compressor that an estimator is or holds.

    Parameters
    ----------
    estimator : AdaptiveCodebookCompressor, or search, Pipeline, FeatureUnion, ColumnTransformer
        Which may hold one another.
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
    return [found for part in _parts(estimator) for found in _compressors(part)]


def _parts(estimator: Any) -> list[Any]:
    """List what an estimator is made of: a search, a Pipeline, a union or columns."""
    if hasattr(estimator, "best_estimator_"):
        return [estimator.best_estimator_]
    for name in ("steps", "transformer_list", "transformers_", "transformers"):
        if hasattr(estimator, name):
            return [part[1] for part in getattr(estimator, name)]
    return []


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
