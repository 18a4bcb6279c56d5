"""Codebooks as they are kept: whole or as a product, in 8 or 4 bits a number."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from skadacomp._format import DTYPES, Tensors, TensorShape, row_width

BITS = (4, 8)
_ZERO = 8  # what a half byte has for 0
_HALVES = np.arange(-_ZERO, _ZERO)
# What half bytes stand for: squares with a sign, as axes have a few large numbers and many small
# ones. -64 is left out, so that the numbers are as far up as down.
_SQUARES = (_HALVES * abs(_HALVES)).astype(np.int8)
_BETWEEN = (_SQUARES[1:-1] + _SQUARES[2:].astype(np.float64)) / 2
# Of its largest number, what a block's numbers are cut to: with few steps it pays to cut some.
_CUTS = {8: (1.0,), 4: tuple(np.linspace(0.4, 1.0, 25).tolist())}
_MOST = {8: 127, 4: 49}
# Of the mean use of a row, what is added to each: rows that are hardly used take little of what
# others lose.
_DAMPING = 0.01


def codebook_shapes(
    shape: tuple[int, int, int], rank: int | None, bits: int = 8
) -> dict[str, TensorShape]:
    """Give the tensors that codebooks are kept as, whichever form is smaller.

    Parameters
    ----------
    shape : (n_codebooks, n_codewords, n_dims)
    rank : int or None
        Axes that the codebooks may share; None for no bound.
    bits : {4, 8}, default=8
        Of a number of the codebooks or, where they share axes, of the axes.
    """
    n_codebooks, n_codewords, n_dims = shape
    dtype = DTYPES["I8" if bits == 8 else "U8"]
    whole = {
        "codebooks": TensorShape(dtype, (n_codebooks, n_codewords, row_width(dtype, n_dims))),
        "scales": TensorShape(DTYPES["F32"], (n_codebooks,)),
    }
    if rank is None:
        return whole
    factored = {
        # Few numbers beside those of the axes, and each moves a whole codeword.
        "codebooks": TensorShape(DTYPES["I8"], (n_codebooks, n_codewords, rank)),
        "scales": whole["scales"],
        "axes": TensorShape(dtype, (rank, row_width(dtype, n_dims))),
        "axis_scales": TensorShape(DTYPES["F32"], (rank,)),
    }
    return min(whole, factored, key=lambda form: sum(part.nbytes for part in form.values()))


def codebook_tensors(
    books: NDArray[np.float32],
    rank: int | None,
    bits: int = 8,
    usage: NDArray[np.float64] | None = None,
) -> Tensors:
    """Bring codebooks into the form of `codebook_shapes`.

    Parameters
    ----------
    books : ndarray (n_codebooks, n_codewords, n_dims)
    rank, bits
        As in `codebook_shapes`.
    usage : ndarray (n_codebooks * n_codewords, n_codebooks * n_codewords) or None
        How much each codeword is used with each other one: rounding then changes their sums
        least. None changes each of them least.
    """
    shapes = codebook_shapes(books.shape, rank, bits)
    tensors: Tensors = {}
    if "axes" in shapes:
        (n_axes,), n_dims = shapes["axis_scales"].shape, books.shape[2]
        # Coordinates of unit length, so that no axis is small beside another's int8 steps.
        flat = books.reshape(-1, n_dims).astype(np.float64)
        left, sizes, right = np.linalg.svd(flat, full_matrices=False)
        axes = np.zeros((n_axes, n_dims))  # further axes than codebooks can have stay zero
        axes[: len(sizes)] = (sizes[:, None] * right)[:n_axes]
        coordinates = np.zeros((len(flat), n_axes), np.float32)
        coordinates[:, : len(sizes)] = left[:, :n_axes]
        of_axes = None if usage is None else coordinates.T @ usage @ coordinates
        tensors["axes"], tensors["axis_scales"] = _quantised(axes, bits, of_axes)
        books, bits, usage = coordinates.reshape(shapes["codebooks"].shape), 8, None
    tensors["codebooks"], tensors["scales"] = _quantised(books, bits, usage)
    return tensors


def read_codebooks(tensors: Tensors) -> NDArray[np.float32]:
    """Give codebooks as they decode, (n_codebooks, n_codewords, n_dims)."""
    books = _scaled(codebook_steps(tensors), tensors["scales"])
    if "axes" in tensors:
        books = books @ _scaled(axis_steps(tensors), tensors["axis_scales"])
    return books


def codebook_steps(tensors: Tensors) -> NDArray[np.int8]:
    """Whole numbers of the codebooks, (n_codebooks, n_codewords, n_axes or n_dims)."""
    n_across = tensors["axis_scales" if "axes" in tensors else "mean"].size
    return _steps(tensors["codebooks"], n_across)


def axis_steps(tensors: Tensors) -> NDArray[np.int8]:
    """Whole numbers of the axes, (n_axes, n_dims)."""
    return _steps(tensors["axes"], tensors["mean"].size)


def _quantised(
    blocks: NDArray[np.floating], bits: int, usage: NDArray[np.float64] | None
) -> tuple[NDArray[np.integer], NDArray[np.float32]]:
    """Blocks as whole numbers and one scale each; block = number * scale."""
    found = _rounded(blocks, bits)
    if usage is not None and usage.any():
        rows = blocks.reshape(len(usage), -1).astype(np.float64)

        def error(found: tuple[NDArray[np.int8], NDArray[np.float32]]) -> float:
            lost = rows - _scaled(*found).reshape(rows.shape)
            return float((lost * (usage @ lost)).sum())

        found = min(found, _rounded_in_turn(rows, len(blocks), bits, usage), key=error)
    steps, scales = found[0].reshape(blocks.shape), found[1]
    return (steps if bits == 8 else _halved(steps)), scales


def _rounded(
    blocks: NDArray[np.floating], bits: int
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Round each number to the nearest one, at the scale of its block that loses least."""
    largest = np.abs(blocks).reshape(len(blocks), -1).max(axis=1, initial=0.0)  # (n_blocks,)
    least = np.full(len(blocks), np.inf)
    steps, scales = np.zeros(blocks.shape, np.int8), np.ones(len(blocks), DTYPES["F32"])
    for cut in _CUTS[bits]:
        tried = (cut * largest / _MOST[bits]).astype(DTYPES["F32"])
        tried[tried == 0] = 1.0  # a block of zeros, or too small for float32: zeros it stays
        each = tried.reshape(-1, *[1] * (blocks.ndim - 1))
        found = _nearest(blocks / each, bits)
        error = ((found * each.astype(np.float64) - blocks) ** 2).reshape(len(blocks), -1).sum(1)
        better = error < least
        steps[better], scales[better], least[better] = found[better], tried[better], error[better]
    return steps, scales


def _rounded_in_turn(
    rows: NDArray[np.float64], n_blocks: int, bits: int, usage: NDArray[np.float64]
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Round one row after the other; those still to come make up for what it loses.

    How, says the inverse of the usage (Hassibi and Stork 1993), whose Cholesky factor has it for
    all rows (Frantar et al. 2023).
    """
    left = rows.reshape(n_blocks, -1, rows.shape[1]).copy()  # (n_blocks, n_rows_a_block, n_dims)
    flat = left.reshape(rows.shape)  # the same numbers
    steps, scales = np.zeros(left.shape, np.int8), np.ones(n_blocks, DTYPES["F32"])
    damped = usage + _DAMPING * usage.diagonal().mean() * np.eye(len(usage))
    shares = np.linalg.cholesky(np.linalg.inv(damped))  # (n_rows, n_rows)
    shares /= shares.diagonal()
    for row in range(len(rows)):
        block, place = divmod(row, left.shape[1])
        if place == 0:
            scales[block] = _rounded(left[block : block + 1], bits)[1][0]
        scale = float(scales[block])
        steps[block, place] = _nearest(flat[row] / scale, bits)
        lost = flat[row] - steps[block, place] * scale
        flat[row + 1 :] -= shares[row + 1 :, row, None] * lost
    return steps, scales


def _nearest(numbers: NDArray[np.floating], bits: int) -> NDArray[np.int8]:
    """Round to the nearest number that there is."""
    if bits == 8:
        return np.rint(numbers).clip(-_MOST[8], _MOST[8]).astype(np.int8)
    return _SQUARES[np.searchsorted(_BETWEEN, numbers) + 1]


def _halved(steps: NDArray[np.int8]) -> NDArray[np.uint8]:
    """Two numbers a byte along the last axis, the first in the lower half."""
    halves = np.searchsorted(_SQUARES, steps).astype(np.uint8)
    odd = halves.shape[-1] % 2
    halves = np.pad(halves, [(0, 0)] * (halves.ndim - 1) + [(0, odd)], constant_values=_ZERO)
    return halves[..., ::2] | halves[..., 1::2] << np.uint8(4)


def _steps(tensor: NDArray[np.integer], n_across: int) -> NDArray[np.int8]:
    """Undo `_halved`, where it has been done."""
    if tensor.dtype == DTYPES["I8"]:
        return tensor.astype(np.int8, copy=False)
    halves = np.stack([tensor & 15, tensor >> 4], -1).reshape(*tensor.shape[:-1], -1)
    return _SQUARES[halves[..., :n_across]]


def _scaled(steps: NDArray[np.int8], scales: NDArray[np.float32]) -> NDArray[np.float32]:
    """Undo the rest of `_quantised`."""
    each = scales.reshape(-1, *[1] * (steps.ndim - 1))
    return steps.astype(np.float32) * each.astype(np.float32)
