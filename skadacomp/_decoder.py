"""Vectors straight from packed codes: numpy alone, and about as quick as reading a table.

Neighbouring codes of a row are read as one number, and what their codewords sum to is looked up in
a table of partial sums. The tables are small enough to stay in the processor's cache, which the
table of all vectors is not.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import reduce
from operator import getitem
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skadacomp._codes import code_width

_TABLE_NBYTES = 1 << 18  # of one table of partial sums, at most, unless one codebook has more
_BLOCK = 200_000  # numbers of the result filled at a time: they stay in the cache
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

    A slot here is where a row of codes is stored; words whose rows are equal may share one.

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
        self._mean = mean
        self._width = code_width(codebooks.shape[1])
        self._n_joined = _n_joined(self._width, mean.size)
        self._step = self._n_joined * self._width
        self._n_rows = max(256, _BLOCK // max(mean.size, 1))
        self._bytes = np.ascontiguousarray(packed).data
        self._windows = _windows(packed)
        longest = max((group.length for group in groups), default=0)
        lengths = np.array([0, *(group.length for group in groups)])
        self._looks = [
            _Look.of(codebooks[first : first + self._n_joined], lengths - first)
            for first in range(0, max(longest, 1), self._n_joined)
        ]
        self._looks[0].table.sums[:] += mean
        self._first_slots = [group.first_slot for group in groups]
        self._plans = [self._plan(packed, *numbered) for numbered in enumerate(groups, start=1)]
        # The tables of each group as lists of rows, once `vector` needs them.
        self._listed: list[list[list[NDArray[np.float32]]] | None] = [None] * len(groups)
        # The same as the plans in arrays, with an entry before the others for a slot that is none.
        self._firsts = np.array(self._first_slots, np.int64)
        self._begins = np.array([0, *(plan.begin for plan in self._plans)], np.int64)
        self._row_bits = np.array([0, *(plan.n_bits for plan in self._plans)], np.int64)

    def _plan(self, packed: NDArray[np.uint8], number: int, group: Group) -> _Plan:
        n_bits = self._width * group.length
        begin = 8 * group.begin - n_bits * group.first_slot
        tables = [look.table_of(number) for look in self._looks if look.masks[number]]
        by_bytes = self._step == 8 and n_bits % 8 == 0
        rows = packed[group.begin : group.end].reshape(group.n_rows, -1) if by_bytes else None
        return _Plan(group.first_slot, begin, n_bits, tables, rows)

    def vectors(self, slots: NDArray[np.int64]) -> NDArray[np.float32]:
        """Vectors (n, n_dims) of slots (n,); the mean vector for a slot of -1."""
        vectors = np.empty((slots.size, self._mean.size), np.float32)
        if 2 * np.count_nonzero(slots >= 0) >= slots.size:
            self._fill(vectors, slots)
            return vectors
        vectors[:] = self._mean  # as most of them are
        coded = np.flatnonzero(slots >= 0)
        for start in range(0, coded.size, self._n_rows):
            rows = coded[start : start + self._n_rows]
            part = np.empty((rows.size, self._mean.size), np.float32)
            self._fill(part, slots[rows])
            vectors[rows] = part
        return vectors

    def _fill(self, vectors: NDArray[np.float32], slots: NDArray[np.int64]) -> None:
        """Write the vectors (n, n_dims) of slots (n,), a few at a time."""
        spare = np.empty((min(self._n_rows, slots.size), self._mean.size), np.float32)
        for start in range(0, slots.size, self._n_rows):
            part = vectors[start : start + self._n_rows]
            found = self._found(slots[start : start + self._n_rows])
            for number, (table, index) in enumerate(found):
                # mode="clip" writes to `out` without a buffer; no index is out of bounds.
                out = spare[: len(part)] if number else part
                table.sums.take(table.checked(index), axis=0, out=out, mode="clip")
                if number:
                    part += out

    def _found(self, slots: NDArray[np.int64]) -> Iterator[tuple[_Table, NDArray[np.integer]]]:
        """Tables whose rows make up the vectors of slots (n,), and which row (n,) of each."""
        first, last = (bisect_right(self._first_slots, s) for s in (slots.min(), slots.max()))
        plan = self._plans[first - 1] if first == last > 0 else None
        if plan is not None and plan.rows is not None:
            rows = plan.rows.take(slots - plan.first_slot, axis=0)  # (n, n_tables)
            yield from zip(plan.tables, rows.T, strict=True)
            return
        group = self._firsts.searchsorted(slots, side="right")
        bits = self._begins.take(group) + slots * self._row_bits.take(group)
        n_left = 0
        for number, look in enumerate(self._looks):
            if n_left < self._step:
                value, n_left = self._read(bits + number * self._step), _WINDOW_BITS
            yield look.table, (value & look.masks.take(group)) + look.offsets.take(group)
            value >>= self._step
            n_left -= self._step

    def _read(self, bits: NDArray[np.int64]) -> NDArray[np.int64]:
        """Read the `_WINDOW_BITS` from each place on, or as many as there are before the end."""
        # Of a row whose codes end before there is nothing to read: any place will do.
        byte = np.minimum(bits >> 3, self._windows.size - 1)
        value: NDArray[np.int64] = self._windows[byte]
        value >>= bits - 8 * byte
        return value

    def vector(self, slot: int) -> NDArray[np.float32]:
        """Vector (n_dims,) of one slot: as `vectors`, without an array's overhead."""
        number = bisect_right(self._first_slots, slot) - 1
        _, begin, n_bits, tables, rows = self._plans[number]
        first_bit = begin + slot * n_bits
        # The bytes of a row are indices, if each table takes one; else they are made into such.
        indices: Sequence[int] = self._bytes[first_bit >> 3 : (first_bit + n_bits + 7) >> 3]
        if rows is None:
            indices = self._split(int.from_bytes(indices, "little") >> (first_bit & 7), tables)
        if tables[0].valid is not None:
            for table, index in zip(tables, indices, strict=True):
                table.checked(index)
        sums = self._listed[number]
        if sums is None:  # a list gives its items sooner than an array does
            sums = self._listed[number] = [list(table.sums) for table in tables]
        vector = reduce(np.add, map(getitem, sums, indices))
        return vector if len(tables) > 1 else vector.copy()  # a sum of one is the table's own

    def _split(self, value: int, tables: list[_Table]) -> list[int]:
        """Cut the codes of a row into an index for each table."""
        return [
            value >> number * self._step & len(table.sums) - 1
            for number, table in enumerate(tables)
        ]


class _Table(NamedTuple):
    """Partial sums, each of a few codewords."""

    sums: NDArray[np.float32]  # (n_sums, n_dims)
    valid: NDArray[np.bool_] | None  # (n_sums,) where some bits answer to no codeword
    n_codewords: int  # of each codebook

    def checked(self, index: NDArray[np.integer] | int) -> Any:
        """Refuse bits that answer to no codeword."""
        if self.valid is not None and not np.all(self.valid[index]):
            raise ValueError(f"a code is out of {self.n_codewords} codewords")
        return index


class _Plan(NamedTuple):
    """Rows of one code length: where their codes lie, and what these are looked up in."""

    first_slot: int
    begin: int  # bits before slot 0, if the rows began there
    n_bits: int  # of a row
    tables: list[_Table]
    rows: NDArray[np.uint8] | None  # (n_rows, n_tables), where each table takes a byte


class _Look(NamedTuple):
    """Partial sums over a few codebooks, for rows that have all, some or none of these codes."""

    table: _Table
    masks: NDArray[np.int64]  # (n_groups,) which bits of a number are codes of such a row
    offsets: NDArray[np.int64]  # (n_groups,) where the sums of such rows begin

    @classmethod
    def of(cls, codebooks: NDArray[np.float32], n_codes: NDArray[np.int64]) -> _Look:
        """Sum codewords for rows that have so many codes of these codebooks, or of further ones."""
        n_codewords = codebooks.shape[1]
        width = code_width(n_codewords)
        counts = np.clip(n_codes, 0, len(codebooks))
        kinds = np.array(sorted({0, *counts.tolist()}))  # np.unique would load numpy.ma first
        blocks = [_partial_sums(codebooks[:count]) for count in kinds]
        starts = np.cumsum([0, *(len(block) for block, _ in blocks)])
        sums = np.concatenate([block for block, _ in blocks])
        whole = 1 << width == n_codewords
        valid = None if whole else np.concatenate([valid for _, valid in blocks])
        masks = (np.int64(1) << width * counts) - 1
        return cls(_Table(sums, valid, n_codewords), masks, starts[np.searchsorted(kinds, counts)])

    def table_of(self, number: int) -> _Table:
        """Give the part that rows of one group look up."""
        sums, valid, n_codewords = self.table
        part = slice(self.offsets[number], self.offsets[number] + self.masks[number] + 1)
        return _Table(sums[part], None if valid is None else valid[part], n_codewords)


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
    """Codes to look up at once: as many as the cache has room for, a byte of them if it can be."""
    n_sums = _TABLE_NBYTES // (4 * max(n_dims, 1))
    n_bits = n_sums.bit_length() - 1
    return 8 // width if n_bits >= 8 and 8 % width == 0 else max(1, n_bits // width)


def _windows(packed: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Read 8 bytes as a number from any byte on: a view, unless there are fewer than 8."""
    if packed.size < _WINDOW:
        packed = np.pad(packed, (0, _WINDOW - packed.size))
    return np.ndarray((packed.size - _WINDOW + 1,), "<i8", packed, strides=(1,))
