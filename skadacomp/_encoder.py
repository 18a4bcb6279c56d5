"""Vectors to codes, with numpy alone: which row of the table is it, or else what encodes it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skadacomp._mapped import take_rows

_CHUNK = 2**22  # numbers in the arrays worked on at once: bounds the memory at any table's size
_N_BEAMS = 16  # eight leave a hundredth more error, four a fortieth


def chunks(n_rows: int, n_columns: int) -> Iterator[slice]:
    """Cut ``range(n_rows)`` into slices of rows with about `_CHUNK` numbers each."""
    size = max(256, _CHUNK // n_columns)
    return (slice(start, min(start + size, n_rows)) for start in range(0, n_rows, size))


@dataclass(frozen=True)
class RowEncoder:
    """Search for the codes of vectors: greedy for all lengths at once, or along beams for one.

    A codeword's score is how much it lowers the squared error of what is still unexplained.

    Parameters
    ----------
    projection : ndarray (n_dims, n_codebooks * n_codewords) float32
        Scores of the codewords are ``vectors @ projection + offset``.
    offset : ndarray (n_codebooks * n_codewords,) float32
    overlap : ndarray (n_codebooks * n_codewords, n_codebooks * n_codewords) float32
        What a chosen codeword (row) takes off the scores of those in later codebooks (column).
    n_codewords : int
        Codewords in a codebook.
    """

    projection: NDArray[np.float32]
    offset: NDArray[np.float32]
    overlap: NDArray[np.float32]
    n_codewords: int

    @classmethod
    def from_codebooks(
        cls,
        codebooks: NDArray[np.floating],
        centre: NDArray[np.floating],
        metric: NDArray[np.floating],
    ) -> RowEncoder:
        """Build the encoder of codebooks that were learned in a linear image of the vectors.

        Parameters
        ----------
        codebooks : ndarray (n_codebooks, n_codewords, n_image)
        centre : ndarray (n_dims,)
        metric : ndarray (n_dims, n_image)
            A vector's image is ``(vector - centre) @ metric``.
        """
        flat = codebooks.reshape(-1, codebooks.shape[2]).astype(np.float64)
        projection = 2 * metric.astype(np.float64) @ flat.T
        offset = -centre.astype(np.float64) @ projection - (flat**2).sum(1)
        overlap = 2 * flat @ flat.T
        return cls(
            projection.astype(np.float32),
            offset.astype(np.float32),
            overlap.astype(np.float32),
            codebooks.shape[1],
        )

    @property
    def n_codebooks(self) -> int:
        """Codes of a vector."""
        return len(self.offset) // self.n_codewords

    def encode(
        self, vectors: NDArray[np.floating]
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Find the codes of vectors, and what each code takes off the squared error.

        Parameters
        ----------
        vectors : ndarray (n, n_dims)

        Returns
        -------
        codes : ndarray (n, n_codebooks) int32
        gains : ndarray (n, n_codebooks) float32
            Decrease of the squared error, in the image in which the codebooks were learned.
        """
        codes = np.empty((len(vectors), self.n_codebooks), np.int32)
        gains = np.empty(codes.shape, np.float32)
        for part in chunks(len(vectors), max(self.projection.shape)):
            codes[part], gains[part] = self._encode(np.asarray(vectors[part]))
        return codes, gains

    def _encode(
        self, vectors: NDArray[np.floating]
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        # Products depend in their last bits on how many rows are multiplied together. Rounding
        # doubles to float32 hides that, so that a row's codes do not depend on its company.
        scores = vectors.astype(np.float64) @ self.projection.astype(np.float64) + self.offset
        overlap = self.overlap.astype(np.float64)
        codes = np.empty((len(vectors), self.n_codebooks), np.int32)
        gains = np.empty(codes.shape, np.float32)
        for m in range(self.n_codebooks):
            here = slice(m * self.n_codewords, (m + 1) * self.n_codewords)
            score = scores[:, here].astype(np.float32)
            codes[:, m] = score.argmax(1)
            gains[:, m] = score.max(1)
            later = slice(here.stop, None)
            scores[:, later] -= overlap[codes[:, m] + here.start, later]
        return codes, gains

    def search(
        self,
        vectors: NDArray[np.floating],
        lengths: NDArray[np.integer],
        n_beams: int = _N_BEAMS,
    ) -> NDArray[np.int16]:
        """Find codes of known lengths, which explain vectors better together than greedy ones.

        A beam search (Babenko and Lempitsky 2014): after each codebook the best sequences of codes
        so far go on. The first codes of a sequence may be poor by themselves.

        Parameters
        ----------
        vectors : ndarray (n, n_dims)
        lengths : ndarray (n,) of int
            Codes of each vector, at most `n_codebooks`.
        n_beams : int
            Sequences that go on.

        Returns
        -------
        ndarray (n, n_codebooks) int16
            -1 beyond a vector's length.
        """
        codes = np.full((len(vectors), self.n_codebooks), -1, np.int16)
        for length in np.unique(lengths[lengths > 0]).tolist():
            alike = np.flatnonzero(lengths == length)
            for part in chunks(len(alike), n_beams * length * self.n_codewords):
                rows = alike[part]
                codes[rows, :length] = self._search(vectors[rows], length, n_beams)
        return codes

    def _search(
        self, vectors: NDArray[np.floating], n_codes: int, n_beams: int
    ) -> NDArray[np.integer]:
        k, rows = self.n_codewords, np.arange(len(vectors))[:, None]
        here = slice(n_codes * k)
        alone = vectors.astype(np.float64) @ self.projection[:, here].astype(np.float64)
        # Of each sequence, (n, n_beams, columns); rounded for the reason that `_encode` gives.
        scores = (alone + self.offset[here]).astype(np.float32)[:, None]
        gains = np.zeros(scores.shape[:2], np.float32)
        codes = np.empty((*gains.shape, 0), np.int64)
        for m in range(n_codes):
            totals = (gains[:, :, None] + scores[:, :, :k]).reshape(len(vectors), -1)
            best = np.argpartition(totals, -min(n_beams, totals.shape[1]), axis=1)[:, -n_beams:]
            beams, picked = np.divmod(best, k)
            gains = np.take_along_axis(totals, best, axis=1)
            codes = np.concatenate([codes[rows, beams], picked[:, :, None]], axis=2)
            later = slice((m + 1) * k, here.stop)
            scores = scores[:, :, k:][rows, beams] - self.overlap[picked + m * k, later]
        return codes[rows[:, 0], gains.argmax(1)]


_MOST_PICKLED = 2**15  # rows whose fingerprints a pickle still holds: 256 KB


class RowIndex:
    """Which row of the fitted table a vector is, without the table.

    Parameters
    ----------
    fingerprints : ndarray (n_words,) of uint64
        As `row_fingerprints` gives them, in row order.

    Notes
    -----
    A pickle of a table of more than 32,768 rows would be mostly fingerprints, so it keeps one of
    them all: there, the whole table is still known again, and single rows are taken as new.
    """

    def __init__(self, fingerprints: NDArray[np.uint64]) -> None:
        self._whole = self._digest(fingerprints)
        self._set(fingerprints)

    def _set(self, fingerprints: NDArray[np.uint64]) -> None:
        # Stable: of equal rows the first stands for all.
        self._order = np.argsort(fingerprints, kind="stable")
        self._sorted = fingerprints[self._order]

    @classmethod
    def of(cls, vectors: NDArray[np.floating]) -> RowIndex:
        """Index the rows of a table."""
        return cls(row_fingerprints(vectors))

    @property
    def digest(self) -> str:
        """Hash of all rows in their order, in hexadecimal."""
        return self._whole

    @staticmethod
    def _digest(fingerprints: NDArray[np.uint64]) -> str:
        return hashlib.sha256(np.ascontiguousarray(fingerprints, "<u8").tobytes()).hexdigest()

    def find(self, vectors: NDArray[np.floating], *, whole: bool = False) -> NDArray[np.int64]:
        """Rows of vectors, -1 for those that the table does not have.

        Parameters
        ----------
        vectors : ndarray (n, n_dims)
        whole : bool, default=False
            Whether vectors may be told by their place, where all together are the table: then
            equal rows keep apart. Otherwise a row is found by itself, and of equal ones the first.

        Returns
        -------
        ndarray (n,) of int64
        """
        fingerprints = row_fingerprints(vectors)
        alone = len(self._sorted) > 0
        if (whole or not alone) and self._digest(fingerprints) == self._whole:
            return np.arange(len(fingerprints))
        if not alone:
            return np.full(len(fingerprints), -1)
        at = np.minimum(np.searchsorted(self._sorted, fingerprints), len(self._sorted) - 1)
        return np.where(self._sorted[at] == fingerprints, self._order[at], -1)

    def __getstate__(self) -> dict[str, Any]:
        """Keep the digest always; fingerprints, in row order, while they are few."""
        few = len(self._sorted) <= _MOST_PICKLED
        fingerprints = np.empty_like(self._sorted)
        fingerprints[self._order] = self._sorted
        return {"whole": self._whole, "fingerprints": fingerprints[: None if few else 0]}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._whole = state["whole"]
        self._set(state["fingerprints"])


def row_fingerprints(vectors: ArrayLike) -> NDArray[np.uint64]:
    """Hash each row of float32 values to 64 bits.

    A row's fingerprint depends on its values alone: not on the other rows, their order, the
    array's memory layout, nor the sign of a zero. Equal fingerprints mean equal rows but for a
    chance of about n² / 2**65 among n rows. It is no protection against rows made to collide.

    Parameters
    ----------
    vectors : array-like, shape (n, n_dims)
        Converted to float32.

    Returns
    -------
    ndarray of uint64, shape (n,)
    """
    rows = vectors if isinstance(vectors, np.memmap) else np.asarray(vectors)
    n, n_dims = rows.shape
    # Raw bits of a bit generator never change between numpy versions, those of a Generator may.
    multipliers = np.random.PCG64(20200705).random_raw(n_dims) | np.uint64(1)  # (n_dims,)
    fingerprints = np.empty(n, dtype=np.uint64)
    for part in chunks(n, n_dims):
        # Adding 0.0 turns -0.0 into 0.0.
        block = np.add(take_rows(rows, part), np.float32(0), dtype=np.float32)
        bits = _scatter(block.view(np.uint32).astype(np.uint64))  # (n_part, n_dims)
        fingerprints[part] = _scatter((bits * multipliers).sum(axis=1))
    return fingerprints


def _scatter(bits: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Mix 64-bit integers one to one, in place, so that every bit reaches the low ones.

    Values such as 0.5 or 3.0 end in many zero bits, which a product alone would keep.
    """
    for multiplier in (0x9E3779B97F4A7C15, 0xD6E8FEB86659FD93):
        bits *= np.uint64(multiplier)
        bits ^= bits >> np.uint64(32)
    return bits
