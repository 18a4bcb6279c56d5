"""A table seen along fewer axes than it has dimensions, and what was learned there seen back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from skadacomp._encoder import chunks
from skadacomp._learning.settings import Learned
from skadacomp._learning.space import Overlay, moments
from skadacomp._mapped import mean_row, take_rows

Axes = NDArray[np.float64]  # (n_dims, n_axes), orthonormal

_WIDE = 512  # dimensions up to which it takes no time that a table has more of them than words


def axes_to_learn_along(vectors: NDArray[np.float32], n_components: int | None) -> Axes | None:
    """Find axes that save time and memory, which grow with the square and the cube of their number.

    Parameters
    ----------
    vectors : ndarray (n_words, n_dims)
    n_components : int or None
        Principal components that are enough; None for all that the rows hold.

    Returns
    -------
    ndarray (n_dims, n_axes) or None
        None where the table's own dimensions serve as well.
    """
    axes = _axes_of_rows(vectors)
    if n_components is None:
        return axes
    if axes is None:
        return _principal_axes(vectors, n_components)
    return axes @ _principal_axes(turned(vectors, axes), n_components)


def turned(vectors: NDArray[np.float32], axes: Axes) -> NDArray[np.float32]:
    """Rows as seen along axes, (n_words, n_axes)."""
    seen = np.empty((len(vectors), axes.shape[1]), np.float32)
    for part in chunks(*vectors.shape):
        seen[part] = take_rows(vectors, part) @ axes
    return seen


def rows_back(
    seen: NDArray[np.float32], axes: Axes, vectors: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Rows that are seen along axes, as they are in the dimensions of the table, `vectors`."""
    mean = mean_row(vectors)  # which the axes need not hold
    found: NDArray[np.float32] = (seen @ axes.T + (mean - axes @ (mean @ axes))).astype(np.float32)
    return found


def turned_back(learned: Learned, axes: Axes, vectors: NDArray[np.float32]) -> Learned:
    """Give what was learned along axes as it is in the dimensions of the table, `vectors`."""
    encoder = learned.encoder
    return replace(
        learned,
        codebooks=(learned.codebooks @ axes.T).astype(np.float32),
        mean=mean_row(vectors),  # which the axes need not hold
        encoder=replace(
            encoder, projection=(axes @ encoder.projection).astype(encoder.projection.dtype)
        ),
    )


def _axes_of_rows(vectors: NDArray[np.float32]) -> Axes | None:
    """Axes (n_dims, n_words) that all rows of a wide table lie in; None of others.

    Seen along them the rows are as far from each other as before.
    """
    n_words, n_dims = vectors.shape
    if n_dims <= max(n_words, _WIDE):
        return None
    axes: Axes = np.linalg.qr(vectors.T.astype(np.float64))[0]
    return axes


def _principal_axes(vectors: NDArray[np.float32], n_axes: int) -> Axes:
    """Axes (n_dims, n_axes) that the rows differ along most."""
    _, covariance = moments(Overlay.bare(vectors), np.full(len(vectors), 1 / len(vectors)))
    axes: Axes = np.linalg.eigh(covariance)[1]  # the last have the largest eigenvalues
    return axes[:, -n_axes:]
