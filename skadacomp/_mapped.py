"""Rows of a table that may be a memory-mapped file, read without keeping its pages. numpy alone.

Pages that were read count as the process's memory for as long as they stay mapped, though the
system could take them back: `ps`, batch systems and dask's workers see a table of 4 GB as 4 GB.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

_AT_ONCE = 2**22  # numbers that are copied at a time
_SCATTERED = 1024  # rows: the system maps 64 KB around each


def take_rows(vectors: NDArray[Any], rows: slice | NDArray[np.integer]) -> NDArray[Any]:
    """Copy rows, and let go of the file's pages, which stay in the system's cache.

    Parameters
    ----------
    vectors : ndarray (n_words, n_dims)
    rows : slice or ndarray of int (n_rows,)

    Returns
    -------
    ndarray (n_rows, n_dims)
    """
    if isinstance(rows, slice):
        block = np.array(vectors[rows], subok=False)
        _let_go(vectors)
        return block
    block = np.empty((len(rows), vectors.shape[1]), vectors.dtype)
    for start in range(0, len(rows), _SCATTERED):
        part = slice(start, start + _SCATTERED)
        block[part] = vectors[rows[part]]
        _let_go(vectors)
    return block


def _let_go(vectors: NDArray[Any]) -> None:
    # Only where nothing can have been written: pages that are written to would be lost.
    if isinstance(vectors, np.memmap) and vectors.mode == "r":
        mapped: Any = vectors._mmap  # type: ignore[attr-defined]
        if isinstance(mapped, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
            mapped.madvise(mmap.MADV_DONTNEED)


def check_whole(vectors: NDArray[Any]) -> None:
    """See that a mapped file still has all its rows: reading beyond its end kills the process.

    Raises
    ------
    RuntimeError
        If it was cut off.
    """
    mapped: Any = getattr(vectors, "_mmap", None)
    if isinstance(mapped, mmap.mmap) and mapped.size() < len(mapped):
        raise RuntimeError(
            f"The table's file {vectors.filename} was cut off after it was opened: "  # type: ignore[attr-defined]
            f"{mapped.size()} bytes are left of {len(mapped)}. Write it anew, and open it again."
        )


@contextmanager
def unchanged(vectors: NDArray[Any]) -> Iterator[None]:
    """See that nobody writes to a mapped file meanwhile.

    A file that is removed, or replaced by another of its name, does no harm: the map keeps it.

    Raises
    ------
    RuntimeError
        If somebody did.
    """
    before = _written(vectors)
    yield
    after = _written(vectors)
    if before is not None and after is not None:
        same_file = before[:2] == after[:2]
        if same_file and before != after:
            raise RuntimeError(
                f"The table's file {vectors.filename} was written to while it was compressed, so "  # type: ignore[attr-defined]
                "codes would mix two tables. Fit again; to change a file that others may have "
                "open, write another one and rename it."
            )


def _written(vectors: NDArray[Any]) -> tuple[int, int, int, int] | None:
    """Say which file is mapped and when it was written to last."""
    path = getattr(vectors, "filename", None)
    try:
        found = None if path is None else os.stat(path)
    except OSError:
        return None
    return found and (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def mean_row(vectors: NDArray[Any]) -> NDArray[np.float64]:
    """Mean of all rows, (n_dims,)."""
    n_rows, n_dims = vectors.shape
    total = np.zeros(n_dims)
    step = max(1, _AT_ONCE // n_dims)
    for start in range(0, n_rows, step):
        total += take_rows(vectors, slice(start, start + step)).sum(0, dtype=np.float64)
    return total / n_rows
