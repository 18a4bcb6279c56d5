"""The codec: codes to packed bits, code lengths to an entropy-coded stream, codes to vectors.

Pure functions on arrays. At import this module needs numpy alone; `code_matrix` loads scipy when
it is called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

MAX_CODEWORDS = 65536
MAX_WIDTH = 32
MAX_CANDIDATES = 256

# Values expanded to single bits at a time, a multiple of 8 so that chunks meet on whole bytes.
_PACK_CHUNK = 1 << 16
# Floats of the output that `decode` works on at a time: about 1 MB, which stays in the cache.
_DECODE_CHUNK = 1 << 18
_USAGE_CHUNK = 1 << 16  # rows that `code_usage` works on at a time


def shortened(codes: NDArray[np.integer], lengths: NDArray[np.integer]) -> NDArray[Any]:
    """Cut codes (n_words, n_codebooks) to their words' lengths; -1 beyond them."""
    inside = np.arange(codes.shape[1]) < lengths[:, None]
    return np.where(inside, codes, codes.dtype.type(-1))


def code_width(n_codewords: int) -> int:
    """Bits of one fixed-width code.

    Parameters
    ----------
    n_codewords : int
        Codewords of one codebook, 2 to 65536.

    Returns
    -------
    int
        ceil(log2(n_codewords)), in bits.

    Raises
    ------
    ValueError
        If `n_codewords` is outside its bounds.
    """
    if not 2 <= n_codewords <= MAX_CODEWORDS:
        raise ValueError(f"n_codewords={n_codewords} must be from 2 to {MAX_CODEWORDS}")
    return (int(n_codewords) - 1).bit_length()


def packed_nbytes(n_values: int, width: int) -> int:
    """Bytes that `pack` makes of `n_values` values of `width` bits."""
    return (n_values * width + 7) // 8


# ---------------------------------------------------------------------------------------------
# Fixed-width packing. Value i occupies bits [i * width, (i + 1) * width), lowest bit first.


def pack(values: ArrayLike, width: int) -> NDArray[np.uint8]:
    """Pack integers at a fixed width of bits.

    Parameters
    ----------
    values : array-like of int
        Values from 0 to 2**width - 1; taken in C order.
    width : int
        Bits of one value, 0 to 32.

    Returns
    -------
    ndarray of shape (ceil(n_values * width / 8),), uint8

    Raises
    ------
    ValueError
        If `width` is out of bounds or a value does not fit it.
    """
    _check_width(width)
    flat = np.ravel(_integers(values, "values"))
    if flat.size and (int(flat.min()) < 0 or int(flat.max()) >> width):
        raise ValueError(
            f"values from {flat.min()} to {flat.max()} do not fit width={width}: "
            f"they must be from 0 to {(1 << width) - 1}"
        )
    packed = np.empty(packed_nbytes(flat.size, width), np.uint8)
    for start in range(0, flat.size if width else 0, _PACK_CHUNK):
        chunk = flat[start : start + _PACK_CHUNK].astype("<u4")
        bits = np.unpackbits(chunk.view(np.uint8).reshape(-1, 4), axis=1, bitorder="little")
        part = np.packbits(bits[:, :width], bitorder="little")
        begin = start * width // 8
        packed[begin : begin + part.size] = part
    return packed


def unpack(packed: NDArray[np.uint8], width: int, positions: ArrayLike) -> NDArray[np.int64]:
    """Read values at any positions out of what `pack` made.

    Only the bytes that hold these values are read, so `packed` may be a memory map.

    Parameters
    ----------
    packed : ndarray of shape (n_bytes,), uint8
    width : int
        Bits of one value, 0 to 32.
    positions : array-like of int, any shape
        Which values, each from 0 to the number of packed values - 1.

    Returns
    -------
    ndarray of the shape of `positions`, int64

    Raises
    ------
    ValueError
        If `width` is out of bounds.
    IndexError
        If a position lies outside `packed`.
    """
    _check_width(width)
    wanted = _integers(positions, "positions").astype(np.int64, copy=False)
    if width == 0 or wanted.size == 0:
        return np.zeros(wanted.shape, np.int64)
    lowest, highest, bound = int(wanted.min()), int(wanted.max()), packed.size * 8 // width
    if lowest < 0 or highest >= bound:
        raise IndexError(
            f"positions from {lowest} to {highest} lie outside the {bound} values of {width} bits"
        )
    first_bit = wanted * width
    first_byte = first_bit >> 3
    value = packed[first_byte].astype(np.int64)
    # A value touches one byte more than its width asks for, unless its width divides a byte.
    n_touched = 1 if 8 % width == 0 else (width + 14) // 8
    for further in range(1, n_touched):
        # Past the end there is nothing that the mask below would keep: any byte will do.
        byte = packed[np.minimum(first_byte + further, packed.size - 1)]
        value |= byte.astype(np.int64) << (8 * further)
    return (value >> (first_bit & 7)) & ((1 << width) - 1)


def unpack_one(packed: NDArray[np.uint8], width: int, position: int) -> int:
    """Read one value; the same as `unpack` for a single position, without an array's overhead."""
    first_bit = position * width
    begin, end = first_bit >> 3, (first_bit + width + 7) >> 3
    if position < 0 or end > packed.size:
        raise IndexError(f"position {position} lies outside {packed.size} bytes at {width} bits")
    value = int.from_bytes(packed[begin:end].tobytes(), "little")
    return (value >> (first_bit & 7)) & ((1 << width) - 1)


def _check_width(width: int) -> None:
    if not 0 <= width <= MAX_WIDTH:
        raise ValueError(f"width={width} must be from 0 to {MAX_WIDTH} bits")


def _integers(values: ArrayLike, name: str) -> NDArray[np.integer]:
    array = np.asarray(values)
    if array.size == 0:
        return np.zeros(array.shape, np.int64)
    if array.dtype.kind not in "iu":
        raise ValueError(f"{name} must be integers, not {array.dtype}")
    return array


# ---------------------------------------------------------------------------------------------
# The stream of code lengths: range coding with asymmetric numeral systems.
#
# Rows lie in the order of word frequency and their lengths drift along the table, so the model
# learns as it goes: it starts uniform and after every step counts what it saw, forgetting older
# steps. No table of frequencies is stored. One step codes `lanes` neighbouring rows at once under
# one model; that is what makes it quick in numpy, at 2 bytes a lane.
#
# A stream is one byte of memory m, then a uint32 state a lane, then uint16 words, little-endian.
# m = 0 says that there is no model and that the choices follow, packed at a fixed width. Otherwise
# a step keeps 1 - 2**-m of the counts before it.

_SCALE_BITS = 12
_STATE_FLOOR = 1 << 16
_START_COUNT = 16
_STEP_COUNT = 32
_MEMORIES = np.arange(1, 11)
_ROWS_PER_LANE = 512
_MAX_LANES = 256


def encode_lengths(choices: ArrayLike, n_candidates: int) -> NDArray[np.uint8]:
    """Entropy-code which candidate length each row has.

    Parameters
    ----------
    choices : array-like of shape (n_words,), int
        Index of each row's candidate, 0 to n_candidates - 1. Best in the order of word frequency.
    n_candidates : int
        Number of candidate lengths, 1 to 256. With one candidate the stream is empty.

    Returns
    -------
    ndarray of shape (n_bytes,), uint8
        The smaller of the adaptive stream and the fixed-width one.

    Raises
    ------
    ValueError
        If a choice or `n_candidates` is out of bounds.
    """
    _check_n_candidates(n_candidates)
    rows = _integers(choices, "choices")
    if rows.ndim != 1:
        raise ValueError(f"choices must have one dimension, not shape {rows.shape}")
    if rows.size and (int(rows.min()) < 0 or int(rows.max()) >= n_candidates):
        raise ValueError(
            f"choices from {rows.min()} to {rows.max()} must be from 0 to {n_candidates - 1}"
        )
    if n_candidates == 1 or rows.size == 0:
        return np.empty(0, np.uint8)
    plain = np.concatenate([np.zeros(1, np.uint8), pack(rows, (n_candidates - 1).bit_length())])
    adaptive = _encode_adaptive(rows, n_candidates)
    return adaptive if adaptive.size < plain.size else plain


def lengths_nbytes(choices: ArrayLike, n_candidates: int) -> int:
    """Bytes of the stream that `encode_lengths` makes of the same arguments."""
    return encode_lengths(choices, n_candidates).size


def decode_lengths(stream: NDArray[np.uint8], n_words: int, n_candidates: int) -> NDArray[np.uint8]:
    """Read back what `encode_lengths` wrote.

    Parameters
    ----------
    stream : ndarray of shape (n_bytes,), uint8
    n_words : int
        Number of rows that the stream holds.
    n_candidates : int
        Number of candidate lengths, 1 to 256.

    Returns
    -------
    ndarray of shape (n_words,), uint8
        Index of each row's candidate.

    Raises
    ------
    ValueError
        If the stream is cut, or was not written for these arguments. Work and memory never exceed
        what `n_words` rows need.
    """
    _check_n_candidates(n_candidates)
    if n_candidates == 1 or n_words == 0:
        if stream.size:
            raise ValueError(f"stream of lengths: {stream.size} bytes where none are needed")
        return np.zeros(n_words, np.uint8)
    if stream.size == 0:
        raise ValueError(f"stream of lengths: empty, but there are {n_words} rows")
    memory = int(stream[0])
    if memory == 0:
        return _decode_plain(stream[1:], n_words, n_candidates)
    if memory > _MEMORIES[-1]:
        raise ValueError(f"stream of lengths: memory {memory} must be 0 to {_MEMORIES[-1]}")
    return _decode_adaptive(stream[1:], n_words, n_candidates, memory)


def _check_n_candidates(n_candidates: int) -> None:
    if not 1 <= n_candidates <= MAX_CANDIDATES:
        raise ValueError(f"n_candidates={n_candidates} must be from 1 to {MAX_CANDIDATES}")


def _decode_plain(packed: NDArray[np.uint8], n_words: int, n_candidates: int) -> NDArray[np.uint8]:
    width = (n_candidates - 1).bit_length()
    if packed.size != packed_nbytes(n_words, width):
        raise ValueError(
            f"stream of lengths: {packed.size} bytes, but {n_words} rows at {width} bits "
            f"need {packed_nbytes(n_words, width)}"
        )
    rows = unpack(packed, width, np.arange(n_words))
    if int(rows.max()) >= n_candidates:
        raise ValueError(f"stream of lengths: candidate {rows.max()} of {n_candidates}")
    return rows.astype(np.uint8)


def _n_lanes(n_words: int) -> int:
    """Rows of one step: a power of two that grows with the table, so that lanes cost little."""
    return 1 << min(max(n_words // _ROWS_PER_LANE, 1), _MAX_LANES).bit_length() - 1


def _start_counts(n_candidates: int, *shape: int) -> NDArray[np.int64]:
    return np.full((*shape, n_candidates), _START_COUNT, np.int64)


def _bounds(counts: NDArray[np.int64], steps: NDArray[np.int64]) -> NDArray[np.int64]:
    """Upper bounds of the candidates' shares of 2**_SCALE_BITS, none of them empty.

    `steps` is arange(1, n_candidates + 1): one unit a candidate is its own whatever the counts.
    """
    total = counts.cumsum(axis=-1)  # (..., n_candidates)
    return total * ((1 << _SCALE_BITS) - steps.size) // total[..., -1:] + steps


def _encode_adaptive(rows: NDArray[np.integer], n_candidates: int) -> NDArray[np.uint8]:
    lanes = _n_lanes(rows.size)
    n_steps = -(-rows.size // lanes)
    cell = np.arange(rows.size) // lanes * n_candidates + rows.astype(np.int64)
    seen = np.bincount(cell, minlength=n_steps * n_candidates).reshape(n_steps, n_candidates)
    memory, bounds = _best_memory(seen)
    states, words = _code_steps(rows, lanes, bounds)
    return np.concatenate(
        [np.array([memory], np.uint8), states.astype("<u4").view(np.uint8), words.view(np.uint8)]
    )


def _best_memory(seen: NDArray[np.int64]) -> tuple[int, NDArray[np.int64]]:
    """Run the model at every memory; give the cheapest with its bounds (n_steps, n_candidates)."""
    n_steps, n_candidates = seen.shape
    memories, steps = _MEMORIES[:, None], np.arange(1, n_candidates + 1)
    counts = _start_counts(n_candidates, len(_MEMORIES))
    bounds = np.empty((n_steps, len(_MEMORIES), n_candidates), np.int64)
    for step in range(n_steps):
        bounds[step] = _bounds(counts, steps)
        counts += _STEP_COUNT * seen[step] - (counts >> memories)
    shares = np.diff(bounds, axis=-1, prepend=0)
    bits = -(seen[:, None] * np.log2(shares)).sum(axis=(0, 2))  # (n_memories,), up to a constant
    best = int(bits.argmin())
    return int(_MEMORIES[best]), bounds[:, best]


def _code_steps(
    rows: NDArray[np.integer], lanes: int, bounds: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.uint16]]:
    """Code the steps from the last to the first, since the decoder undoes them in turn."""
    uppers = bounds[np.arange(rows.size) // lanes, rows]
    shares = np.diff(bounds, axis=-1, prepend=0)[np.arange(rows.size) // lanes, rows]
    states = np.full(lanes, _STATE_FLOOR, np.int64)
    words = []
    for start in range((len(bounds) - 1) * lanes, -1, -lanes):
        share = shares[start : start + lanes]
        state = states[: share.size]  # the last step may leave lanes idle
        full = np.flatnonzero(state >= share << (32 - _SCALE_BITS))
        words.append(state[full].astype("<u2"))
        state[full] >>= 16
        quotient, remainder = np.divmod(state, share)
        lower = uppers[start : start + lanes] - share
        state[:] = (quotient << _SCALE_BITS) + remainder + lower
    return states, np.concatenate(words[::-1])


def _decode_adaptive(
    body: NDArray[np.uint8], n_words: int, n_candidates: int, memory: int
) -> NDArray[np.uint8]:
    lanes = _n_lanes(n_words)
    if body.size < 4 * lanes or body.size % 2:
        raise ValueError(f"stream of lengths: {body.size} bytes cannot be {lanes} lanes and words")
    states = np.frombuffer(body[: 4 * lanes].tobytes(), "<u4").astype(np.int64)
    words = np.frombuffer(body[4 * lanes :].tobytes(), "<u2").astype(np.int64)
    rows = np.empty(n_words, np.uint8)
    n_read = _decode_steps(rows, states, words, n_candidates, memory)
    # The coder began at the floor: a stream that does not end there is not one of ours.
    if n_read != words.size or (states != _STATE_FLOOR).any():
        raise ValueError("stream of lengths: it does not end where it should, so it is damaged")
    return rows


def _decode_steps(
    rows: NDArray[np.uint8],
    states: NDArray[np.int64],
    words: NDArray[np.int64],
    n_candidates: int,
    memory: int,
) -> int:
    """Fill `rows`, run `states` down and return how many words were read."""
    steps, counts = np.arange(1, n_candidates + 1), _start_counts(n_candidates)
    edges = np.zeros(n_candidates + 1, np.int64)
    n_read, lanes = 0, states.size
    for start in range(0, rows.size, lanes):
        state = states[: rows.size - start]  # the last step may leave lanes idle
        edges[1:] = _bounds(counts, steps)
        within = state & ((1 << _SCALE_BITS) - 1)
        choice = edges[1:].searchsorted(within, side="right")
        lower = edges[choice]
        state[:] = (edges[choice + 1] - lower) * (state >> _SCALE_BITS) + within - lower
        low = (state < _STATE_FLOOR).nonzero()[0]
        if n_read + low.size > words.size:
            raise ValueError(f"stream of lengths: it ends at row {start} of {rows.size}")
        state[low] = (state[low] << 16) | words[n_read : n_read + low.size]
        n_read += low.size
        rows[start : start + lanes] = choice
        counts += _STEP_COUNT * np.bincount(choice, minlength=n_candidates) - (counts >> memory)
    return n_read


# ---------------------------------------------------------------------------------------------
# Codes as features and as vectors


def code_matrix(codes: ArrayLike, n_codewords: int) -> csr_matrix:
    """Codes as a sparse matrix of features.

    Parameters
    ----------
    codes : array-like of shape (n, n_codebooks), int
        -1 where a row has no further code.
    n_codewords : int
        Codewords of one codebook, at most 65536.

    Returns
    -------
    scipy.sparse.csr_matrix of shape (n, n_codebooks * n_codewords + 1), float32
        Column m * n_codewords + k is 1 where code m is k. The last column is 1 everywhere: it
        carries the mean vector, so that a product with the codebooks (and the mean as last row)
        gives the vectors.

    Raises
    ------
    ValueError
        If `codes` is not 2-D or a code lies outside -1 to n_codewords - 1.
    """
    from scipy.sparse import csr_matrix

    rows = _check_codes(codes, n_codewords)
    n, n_codebooks = rows.shape
    n_columns = n_codebooks * n_codewords + 1
    columns = np.empty((n, n_codebooks + 1), np.int32)
    columns[:, :-1] = rows + np.arange(n_codebooks) * n_codewords
    columns[:, -1] = n_columns - 1
    kept = np.ones(columns.shape, bool)
    kept[:, :-1] = rows >= 0
    indices = columns[kept]
    starts = np.concatenate([[0], kept.sum(axis=1).cumsum()])
    ones = np.ones(indices.size, np.float32)
    return csr_matrix((ones, indices, starts), shape=(n, n_columns))


def code_usage(
    codes: NDArray[np.integer], weights: NDArray[np.floating], n_codewords: int
) -> NDArray[np.float64]:
    """Say how much each codeword is used, alone and together with each other one.

    Parameters
    ----------
    codes : ndarray of shape (n_words, n_codebooks), int
        -1 beyond a word's length.
    weights : ndarray of shape (n_words,), float
        How much each word counts.
    n_codewords : int
        Codewords of one codebook, at most 65536.

    Returns
    -------
    ndarray of shape (n_codebooks * n_codewords, n_codebooks * n_codewords), float64
    """
    n_columns = codes.shape[1] * n_codewords
    usage = np.zeros((n_columns, n_columns))
    for start in range(0, len(codes), _USAGE_CHUNK):
        part = slice(start, start + _USAGE_CHUNK)
        picks = code_matrix(codes[part], n_codewords)[:, :-1].astype(np.float64)
        usage += (picks.T @ picks.multiply(weights[part, None])).toarray()
    return usage


def decode(codes: ArrayLike, codebooks: ArrayLike, mean: ArrayLike) -> NDArray[np.float32]:
    """Vectors of codes: the sum of their codewords and the mean vector.

    Parameters
    ----------
    codes : array-like of shape (n, n_codes), int
        -1 where a row has no further code; n_codes is at most n_codebooks.
    codebooks : array-like of shape (n_codebooks, n_codewords, n_dims), float32
    mean : array-like of shape (n_dims,), float32

    Returns
    -------
    ndarray of shape (n, n_dims), float32

    Raises
    ------
    ValueError
        If the shapes do not fit or a code lies outside -1 to n_codewords - 1.
    """
    books = np.asarray(codebooks, np.float32)
    offset = np.asarray(mean, np.float32)
    if books.ndim != 3 or offset.shape != books.shape[2:]:
        raise ValueError(
            f"codebooks of shape {books.shape} and mean of shape {offset.shape} do not fit "
            f"(n_codebooks, n_codewords, n_dims) and (n_dims,)"
        )
    rows = _check_codes(codes, books.shape[1])
    if rows.shape[1] > len(books):
        raise ValueError(f"{rows.shape[1]} codes a row, but only {len(books)} codebooks")
    if rows.size and int(rows.min()) < 0:
        # Index -1 is the last codeword: a codeword of zeros there makes padding add nothing.
        books = np.pad(books, ((0, 0), (0, 1), (0, 0)))
    vectors = np.empty((len(rows), offset.size), np.float32)
    n_chunk = max(1, _DECODE_CHUNK // max(1, offset.size))
    for start in range(0, len(rows), n_chunk):
        part = vectors[start : start + n_chunk]
        part[:] = offset
        for book, column in zip(books, rows[start : start + n_chunk].T, strict=False):
            part += book.take(column, axis=0)
    return vectors


def _check_codes(codes: ArrayLike, n_codewords: int) -> NDArray[np.integer]:
    rows = _integers(codes, "codes")
    if rows.ndim != 2:
        raise ValueError(f"codes must have two dimensions (n, n_codebooks), not {rows.shape}")
    if rows.size and (int(rows.min()) < -1 or int(rows.max()) >= n_codewords):
        raise ValueError(
            f"codes from {rows.min()} to {rows.max()} must be from -1 to {n_codewords - 1}"
        )
    return rows
