"""Vectors straight from packed codes: numpy alone, and nearly as quick as reading a table.

Neighbouring codes of a row are read as one number, and what their codewords sum to is looked up in
a table of partial sums. The tables are small enough to stay in the processor's cache, which the
table of all vectors is not.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from skadacomp._codes import code_width

_TABLE_NBYTES = 1 << 18  # of one table of partial sums, at most, unless one codebook has more
_BLOCK = 1 << 16  # numbers of the result filled at a time: they stay in the cache
_WINDOW = 8  # bytes read at a time
_WINDOW_BITS = 57  # of them that follow the first bit wanted, wherever in a byte it lies


class Group(NamedTuple):
    """Rows of one code length. Their codes are one run of fixed-width values."""

    length: int
    first_slot: int
    n_rows: int
    begin: int  # bytes within the tensor of codes
    end: int

    @property
    def last_slot(self) -> int:
        """One beyond the slots of these rows."""
        return self.first_slot + self.n_rows


class Decoder:
    """Vectors of slots, out of their packed codes.

    Parameters
    ----------
    packed : ndarray (n_bytes,) uint8
        May be a memory map: only the bytes asked for are read.
    groups : list of Group
        In the order of their slots.
    codebooks : ndarray (n_codebooks, n_codewords, n_dims) float32
    mean : ndarray (n_dims,) float32
    """

    def __init__(
        self,
        packed: NDArray[np.uint8],
        groups: list[Group],
        codebooks: NDArray[np.float32],
        mean: NDArray[np.float32],
    ) -> None:
        self._n_codewords = codebooks.shape[1]
        self._width = code_width(self._n_codewords)
        self._n_joined = _n_joined(self._width, mean.size)
        self._first_slots = [group.first_slot for group in groups]
        # As arrays, with an entry before the others for a slot that is none.
        bits = [self._width * group.length for group in groups]
        begins = [8 * g.begin - b * g.first_slot for g, b in zip(groups, bits, strict=True)]
        self._firsts = np.array(self._first_slots, np.int64)
        self._row_bits, self._begins = (np.array([0, *each], np.int64) for each in (bits, begins))
        self._windows = _windows(packed)
        longest = max((group.length for group in groups), default=0)
        lengths = np.array([0, *(group.length for group in groups)])
        self._looks = [
            _Look.of(codebooks[first : first + self._n_joined], lengths - first)
            for first in range(0, max(longest, 1), self._n_joined)
        ]
        self._looks[0].sums[:] += mean
        self._step = self._n_joined * self._width
        self._bytes = np.ascontiguousarray(packed).data
        # The same for one slot at a time, as plain numbers, and of the looks those that it needs.
        self._plans = [
            (
                int(self._begins[number]),
                int(self._row_bits[number]),
                [
                    (look, int(look.masks[number]), int(look.offsets[number]))
                    for look in self._looks
                    if look.masks[number]
                ],
            )
            for number in range(1, len(groups) + 1)
        ]

    def vectors(self, slots: NDArray[np.int64]) -> NDArray[np.float32]:
        """Vectors (n, n_dims) of slots (n,); the mean vector for a slot of -1."""
        n_dims = self._looks[0].sums.shape[1]
        vectors = np.empty((slots.size, n_dims), np.float32)
        n_rows = max(256, _BLOCK // max(n_dims, 1))
        spare = np.empty((min(n_rows, slots.size), n_dims), np.float32)
        for start in range(0, slots.size, n_rows):
            part = vectors[start : start + n_rows]
            self._fill(part, slots[start : start + n_rows], spare[: len(part)])
        return vectors

    def _fill(
        self, vectors: NDArray[np.float32], slots: NDArray[np.int64], spare: NDArray[np.float32]
    ) -> None:
        group = self._firsts.searchsorted(slots, side="right")
        bits = self._begins.take(group) + slots * self._row_bits.take(group)
        n_read, step = 0, self._step
        for number, look in enumerate(self._looks):
            if number == 0 or n_read + step > _WINDOW_BITS:
                value, n_read = self._read(bits + number * step), 0
            index = value & look.masks.take(group)
            index += look.offsets.take(group)
            self._check(look, index)
            # mode="clip" writes to `out` without a buffer; no index is out of bounds.
            look.sums.take(index, axis=0, out=spare if number else vectors, mode="clip")
            if number:
                vectors += spare
            value >>= step
            n_read += step

    def _read(self, bits: NDArray[np.int64]) -> NDArray[np.int64]:
        """Read the `_WINDOW_BITS` from each place on, or as many as there are before the end."""
        # Of a row whose codes end before there is nothing to read: any place will do.
        byte = np.minimum(bits >> 3, self._windows.size - 1)
        value: NDArray[np.int64] = self._windows[byte]
        value >>= bits - 8 * byte
        return value

    def vector(self, slot: int) -> NDArray[np.float32]:
        """Vector (n_dims,) of one slot: as `vectors`, without an array's overhead."""
        begin, n_bits, (first, *others) = self._plans[bisect_right(self._first_slots, slot) - 1]
        first_bit = begin + slot * n_bits
        value = int.from_bytes(
            self._bytes[first_bit >> 3 : (first_bit + n_bits + 7) >> 3], "little"
        )
        value >>= first_bit & 7
        vector: NDArray[np.float32] = self._found(first, value).copy()
        for plan in others:
            value >>= self._step
            vector += self._found(plan, value)
        return vector

    def _found(self, plan: tuple[_Look, int, int], value: int) -> NDArray[np.float32]:
        look, mask, offset = plan
        index = (value & mask) + offset
        self._check(look, index)
        found: NDArray[np.float32] = look.sums[index]
        return found

    def _check(self, look: _Look, index: NDArray[np.int64] | int) -> None:
        if look.valid is not None and not np.all(look.valid[index]):
            raise ValueError(f"a code is out of {self._n_codewords} codewords")


class _Look(NamedTuple):
    """Partial sums over a few codebooks, for rows that have all, some or none of these codes."""

    sums: NDArray[np.float32]  # (n_sums, n_dims)
    masks: NDArray[np.int64]  # (n_groups,) which bits of a number are codes of such a row
    offsets: NDArray[np.int64]  # (n_groups,) where the sums of such rows begin
    valid: NDArray[np.bool_] | None  # (n_sums,) where some bits answer to no codeword

    @classmethod
    def of(cls, codebooks: NDArray[np.float32], n_codes: NDArray[np.int64]) -> _Look:
        """Sum codewords for rows that have so many codes of these codebooks, or of further ones."""
        width = code_width(codebooks.shape[1])
        counts = np.clip(n_codes, 0, len(codebooks))
        kinds = np.array(sorted({0, *counts.tolist()}))  # np.unique would load numpy.ma first
        blocks = [_partial_sums(codebooks[:count]) for count in kinds]
        starts = np.cumsum([0, *(len(block) for block, _ in blocks)])
        whole = 1 << width == codebooks.shape[1]
        return cls(
            np.concatenate([block for block, _ in blocks]),
            (np.int64(1) << width * counts) - 1,
            starts[np.searchsorted(kinds, counts)],
            None if whole else np.concatenate([valid for _, valid in blocks]),
        )


def _partial_sums(
    codebooks: NDArray[np.float32],
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Sum of codewords for each number that codes make, and whether it is one that they make.

    Returns
    -------
    sums : ndarray (2 ** (width * n_codebooks), n_dims) float32
    valid : ndarray (2 ** (width * n_codebooks),) of bool
    """
    sums, valid = np.zeros((1, codebooks.shape[2]), np.float32), np.ones(1, bool)
    for book in codebooks:
        n_missing = (1 << code_width(len(book))) - len(book)
        words = np.pad(book, ((0, n_missing), (0, 0)))
        # The first code lies in the lowest bits, so each further one goes around those before.
        sums = (words[:, None] + sums).reshape(len(words) * len(sums), -1)
        valid = ((np.arange(len(words))[:, None] < len(book)) & valid).ravel()
    return sums, valid


def _n_joined(width: int, n_dims: int) -> int:
    """Codes to look up at once: as many as the cache has room for."""
    n_sums = _TABLE_NBYTES // (4 * max(n_dims, 1))
    return max(1, (n_sums.bit_length() - 1) // width)


def _windows(packed: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Read 8 bytes as a number from any byte on: a view, unless there are fewer than 8."""
    if packed.size < _WINDOW:
        packed = np.pad(packed, (0, _WINDOW - packed.size))
    return np.ndarray((packed.size - _WINDOW + 1,), "<i8", packed, strides=(1,))
