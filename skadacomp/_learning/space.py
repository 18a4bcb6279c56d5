"""Where distances count as the task counts them, and the fine-tuned table that lies there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from skadacomp._encoder import chunks
from skadacomp._mapped import take_rows


@dataclass(frozen=True)
class Space:
    """A linear image of the vectors in which distances count as the task's head counts them.

    Parameters
    ----------
    centre : ndarray (n_dims,)
    metric : ndarray (n_dims, n_dims)
        An image is ``(vector - centre) @ metric``; the rows' weighted mean square there is 1.
    """

    centre: NDArray[np.float64]
    metric: NDArray[np.float64]

    def image(self, vectors: NDArray[np.floating]) -> NDArray[np.float32]:
        """Map vectors into the space."""
        return ((vectors - self.centre) @ self.metric).astype(np.float32)

    def source(self, images: NDArray[np.float64]) -> NDArray[np.float64]:
        """Map images back, to vectors as seen from the centre, (..., n_dims)."""
        flat = images.reshape(-1, len(self.metric))
        # Few images: an inverse would cost many times as much.
        vectors = np.linalg.solve(self.metric.T, flat.T).T
        return np.asarray(vectors, np.float64).reshape(images.shape)


def find_space(
    vectors: Overlay,
    weights: NDArray[np.float64],
    gram: NDArray[np.floating] | None,
    floor: float = 0.1,
    parts: Iterable[slice] | None = None,
) -> Space:
    """Weigh each direction by how much the head reads it, and none by less than `floor`.

    Parameters
    ----------
    vectors : Overlay (n_words, n_dims)
    weights : ndarray (n_words,)
        How much each row counts; they sum to 1.
    gram : ndarray (n_dims, n_dims) or None
        The head's metric, largest eigenvalue 1; None weighs all directions alike.
    floor : float
        Weight that every direction has beside it, above 0.
    parts : iterable of slice, default=None
        Which rows to look at together, all of them in turn.
    """
    centre, energy = moments(vectors, weights, parts)
    if gram is None:
        root, total = np.eye(len(centre)), np.trace(energy)
    else:
        values, axes = np.linalg.eigh(gram + floor * np.eye(len(centre)))
        root = (axes * np.sqrt(values)) @ axes.T
        total = np.trace(root @ energy @ root)
    return Space(centre, root / np.sqrt(total) if total > 0 else root)


def moments(
    vectors: Overlay,
    weights: NDArray[np.float64],
    parts: Iterable[slice] | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weighted mean (n_dims,) and covariance (n_dims, n_dims) of rows; as in `find_space`."""
    n_words, n_dims = vectors.shape
    mean, energy = np.zeros(n_dims), np.zeros((n_dims, n_dims))
    for part in chunks(n_words, n_dims) if parts is None else parts:
        block = vectors[part].astype(np.float64)
        mean += weights[part] @ block
        energy += (block * weights[part, None]).T @ block
    return mean, energy - np.outer(mean, mean)


@dataclass(frozen=True)
class Overlay:
    """A table with some rows replaced, without a copy of it. Index it with ascending row ids.

    Parameters
    ----------
    vectors : ndarray (n_words, n_dims)
    rows : ndarray (n_replaced,) of int64
        Ascending.
    values : ndarray (n_replaced, n_dims)
    """

    vectors: NDArray[np.float32]
    rows: NDArray[np.int64]
    values: NDArray[np.float32]

    @classmethod
    def bare(cls, vectors: NDArray[np.float32]) -> Self:
        """Make one that replaces nothing."""
        return cls(vectors, np.empty(0, np.int64), vectors[:0])

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the table."""
        return self.vectors.shape

    def __getitem__(self, rows: slice | NDArray[np.int64]) -> NDArray[np.float32]:
        block = take_rows(self.vectors, rows)
        if isinstance(rows, slice):
            begin, end = np.searchsorted(self.rows, (rows.start, rows.stop))
            block[self.rows[begin:end] - rows.start] = self.values[begin:end]
            return block
        replaced = np.isin(rows, self.rows, assume_unique=True)
        block[replaced] = self.values[np.searchsorted(self.rows, rows[replaced])]
        return block
