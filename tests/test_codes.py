"""The codec: packing, the stream of code lengths, codes to features and vectors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skadacomp._codes import (
    code_matrix,
    code_width,
    decode,
    decode_lengths,
    encode_lengths,
    lengths_nbytes,
    pack,
    packed_nbytes,
    unpack,
    unpack_one,
)

# ---------------------------------------------------------------------------------------------
# Fixed-width packing


@pytest.mark.parametrize(
    ("n_codewords", "width"), [(2, 1), (3, 2), (4, 2), (5, 3), (16, 4), (256, 8), (65536, 16)]
)
def test_code_width_is_the_bits_of_the_highest_code(n_codewords, width):
    assert code_width(n_codewords) == width


@pytest.mark.parametrize("n_codewords", [-1, 0, 1, 65537])
def test_code_width_refuses_what_is_no_codebook(n_codewords):
    with pytest.raises(ValueError, match="n_codewords"):
        code_width(n_codewords)


def test_pack_puts_the_lowest_bit_first():
    assert pack([1, 2, 3], 2).tolist() == [0b11_10_01]
    assert pack([0b1_0000_0001, 0b1_1111_1111], 9).tolist() == [1, 0b1111_1111, 0b11]


@st.composite
def packable(draw):
    width = draw(st.integers(0, 32))
    values = draw(st.lists(st.integers(0, (1 << width) - 1), min_size=1, max_size=60))
    return width, values


@given(packable(), st.data())
def test_unpack_gives_back_any_positions(case, data):
    width, values = case
    packed = pack(values, width)
    assert packed.dtype == np.uint8
    assert packed.size == packed_nbytes(len(values), width) == -(-len(values) * width // 8)
    positions = data.draw(st.lists(st.integers(0, len(values) - 1), max_size=20))
    assert unpack(packed, width, positions).tolist() == [values[p] for p in positions]
    assert [unpack_one(packed, width, p) for p in positions] == [values[p] for p in positions]


def test_pack_joins_its_chunks():
    values = np.random.default_rng(0).integers(0, 1 << 11, 3 * 65536 + 5)
    np.testing.assert_array_equal(unpack(pack(values, 11), 11, np.arange(values.size)), values)


def test_unpack_keeps_the_shape_of_positions():
    packed = pack(np.arange(12), 4)
    np.testing.assert_array_equal(
        unpack(packed, 4, np.arange(12).reshape(3, 4)), np.arange(12).reshape(3, 4)
    )
    assert unpack(packed, 4, np.empty((0, 3), int)).shape == (0, 3)


@pytest.mark.parametrize("positions", [[-1], [8], [0, 100], [2**62]])
def test_unpack_refuses_positions_that_are_not_there(positions):
    packed = pack(np.arange(8), 5)
    with pytest.raises(IndexError, match="8 values"):
        unpack(packed, 5, positions)
    with pytest.raises(IndexError, match="position"):
        unpack_one(packed, 5, positions[-1])


@pytest.mark.parametrize(("values", "width"), [([4], 2), ([-1], 2), ([1], 0), ([0], 33), ([0], -1)])
def test_pack_refuses_what_does_not_fit(values, width):
    with pytest.raises(ValueError, match="width"):
        pack(values, width)


def test_pack_refuses_floats():
    with pytest.raises(ValueError, match="integers"):
        pack([0.5], 4)


# ---------------------------------------------------------------------------------------------
# The stream of code lengths


def drifting(n_words: int, seed: int = 0, middle: float = 0.2) -> np.ndarray:
    """Indices of 4 candidates, as a table has them: long at its head, dropped along its tail."""
    rng = np.random.default_rng(seed)
    rank = np.log(np.arange(n_words) + 0.02 * n_words)
    dropped = 1 / (1 + np.exp(2 * (np.log(middle * n_words) - rank)))
    long = np.exp(rank[0] - rank)
    draw = rng.random(n_words)
    kept = 1 + (rng.random(n_words) < long) + (rng.random(n_words) < long)
    return np.where(draw < dropped, 0, kept)


def local_entropy(choices: np.ndarray, n_rows: int) -> float:
    """Bytes at the order-0 entropy of each block of rows, nothing paid for its statistics."""
    bits = 0.0
    for start in range(0, choices.size, n_rows):
        counts = np.bincount(choices[start : start + n_rows])
        shares = counts[counts > 0] / counts.sum()
        bits -= (counts[counts > 0] * np.log2(shares)).sum()
    return bits / 8


@given(
    st.integers(1, 6).flatmap(
        lambda n: st.tuples(st.just(n), st.lists(st.integers(0, n - 1), max_size=200))
    )
)
def test_lengths_come_back(case):
    n_candidates, choices = case
    stream = encode_lengths(choices, n_candidates)
    assert stream.dtype == np.uint8
    assert stream.size == lengths_nbytes(choices, n_candidates)
    decoded = decode_lengths(stream, len(choices), n_candidates)
    assert decoded.dtype == np.uint8
    assert decoded.tolist() == choices


@settings(max_examples=20)
@given(st.integers(1, 5000), st.integers(2, 256), st.floats(0.02, 5), st.integers(0, 99))
def test_skewed_lengths_come_back(n_words, n_candidates, skew, seed):
    rng = np.random.default_rng(seed)
    choices = np.minimum(rng.exponential(skew, n_words).astype(int), n_candidates - 1)
    stream = encode_lengths(choices, n_candidates)
    np.testing.assert_array_equal(decode_lengths(stream, n_words, n_candidates), choices)


@pytest.mark.parametrize("n_words", [1023, 1024, 131_072, 150_001])
def test_lengths_of_many_lanes_come_back(n_words):
    choices = drifting(n_words)
    stream = encode_lengths(choices, 4)
    assert stream[0] > 0  # the adaptive form
    np.testing.assert_array_equal(decode_lengths(stream, n_words, 4), choices)


@pytest.mark.parametrize(("n_words", "n_rows"), [(12_000, 1000), (200_000, 4096)])
def test_lengths_take_little_more_than_their_local_entropy(n_words, n_rows):
    choices = drifting(n_words)
    assert lengths_nbytes(choices, 4) < 1.05 * local_entropy(choices, n_rows)


def test_lengths_without_pattern_take_their_plain_bits():
    choices = np.random.default_rng(0).integers(0, 4, 12_000)
    assert lengths_nbytes(choices, 4) <= 12_000 * 2 // 8 + 1


def test_a_single_candidate_takes_nothing():
    assert encode_lengths([0, 0, 0], 1).size == 0
    assert decode_lengths(np.empty(0, np.uint8), 3, 1).tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("choices", "n_candidates"), [([0, 4], 4), ([-1], 4), ([0], 0), ([0], 257)]
)
def test_encode_lengths_refuses_what_is_no_candidate(choices, n_candidates):
    with pytest.raises(ValueError, match="must be from"):
        encode_lengths(choices, n_candidates)
    with pytest.raises(ValueError, match="one dimension"):
        encode_lengths([[0, 1]], 4)


@pytest.mark.parametrize("n_words", [40, 3000])
def test_cut_or_continued_lengths_are_refused(n_words):
    for choices in (drifting(n_words), np.random.default_rng(0).integers(0, 4, n_words)):
        stream = encode_lengths(choices, 4)
        for size in [*range(min(80, stream.size)), stream.size - 2, stream.size - 1]:
            with pytest.raises(ValueError, match="stream of lengths"):
                decode_lengths(stream[:size], n_words, 4)
        for n_more in (1, 2, 100):
            longer = np.append(stream, np.zeros(n_more, np.uint8))
            with pytest.raises(ValueError, match="stream of lengths"):
                decode_lengths(longer, n_words, 4)


def test_lengths_of_another_table_are_refused():
    stream = encode_lengths(drifting(3000), 4)
    for n_words, n_candidates in ((2999, 4), (3001, 4), (3000, 5), (3000, 1), (10**6, 4), (0, 4)):
        with pytest.raises(ValueError, match="stream of lengths"):
            decode_lengths(stream, n_words, n_candidates)


@given(st.binary(max_size=300), st.integers(1, 400), st.integers(1, 5))
def test_foreign_lengths_are_refused_or_within_bounds(content, n_words, n_candidates):
    stream = np.frombuffer(content, np.uint8)
    try:
        choices = decode_lengths(stream, n_words, n_candidates)
    except ValueError:
        return
    assert choices.shape == (n_words,)
    assert choices.max() < n_candidates


def test_plain_lengths_beyond_the_candidates_are_refused():
    stream = np.array([0, 0b11_10_01_00], np.uint8)
    assert decode_lengths(stream, 4, 4).tolist() == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="candidate 3 of 3"):
        decode_lengths(stream, 4, 3)


def test_flipped_bytes_of_adaptive_lengths_are_noticed():
    stream = encode_lengths(drifting(3000), 4)
    for place in [*range(30), *range(30, stream.size, 13), stream.size - 1]:
        damaged = stream.copy()
        damaged[place] ^= 0x41
        with pytest.raises(ValueError, match="stream of lengths"):
            decode_lengths(damaged, 3000, 4)


# ---------------------------------------------------------------------------------------------
# Features and vectors

CODES = np.array([[2, 0, 1], [1, -1, -1], [-1, -1, -1], [0, 2, -1]])


def test_code_matrix_has_a_column_a_codeword_and_a_constant():
    features = code_matrix(CODES, 3)
    assert features.shape == (4, 10)
    assert features.dtype == np.float32
    assert features.has_canonical_format
    expected = np.zeros((4, 10))
    for row, codes in enumerate(CODES):
        for book, code in enumerate(codes):
            if code >= 0:
                expected[row, book * 3 + code] = 1
    expected[:, -1] = 1
    np.testing.assert_array_equal(features.toarray(), expected)


def test_code_matrix_of_no_rows():
    assert code_matrix(np.empty((0, 3), int), 4).shape == (0, 13)


@settings(max_examples=30)
@given(
    st.integers(0, 30), st.integers(1, 5), st.integers(2, 9), st.integers(1, 7), st.integers(0, 9)
)
def test_vectors_are_features_times_codebooks(n, n_codebooks, n_codewords, n_dims, seed):
    rng = np.random.default_rng(seed)
    codes = rng.integers(-1, n_codewords, (n, n_codebooks))
    codebooks = rng.normal(size=(n_codebooks, n_codewords, n_dims)).astype(np.float32)
    mean = rng.normal(size=n_dims).astype(np.float32)
    vectors = decode(codes, codebooks, mean)
    assert vectors.dtype == np.float32
    weights = np.vstack([codebooks.reshape(-1, n_dims), mean])
    expected = code_matrix(codes, n_codewords).toarray() @ weights
    np.testing.assert_allclose(vectors, expected, rtol=1e-5, atol=1e-5)


def test_decode_joins_its_chunks():
    rng = np.random.default_rng(0)
    codes = rng.integers(-1, 4, (3000, 2))
    codebooks, mean = rng.normal(size=(2, 4, 300)), rng.normal(size=300)
    expected = np.concatenate([decode(codes[i : i + 1], codebooks, mean) for i in range(3000)])
    np.testing.assert_array_equal(decode(codes, codebooks, mean), expected)


def test_decode_takes_fewer_codes_than_codebooks():
    codebooks = np.arange(12.0).reshape(3, 2, 2)
    assert decode([[1]], codebooks, [10, 20]).tolist() == [[12, 23]]


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        ([[4]], "from -1 to 3"),
        ([[-2]], "from -1 to 3"),
        ([0], "two dimensions"),
        ([[0] * 3], "3 codes"),
    ],
)
def test_decode_refuses_codes_that_are_not_there(codes, message):
    with pytest.raises(ValueError, match=message):
        decode(codes, np.zeros((2, 4, 5)), np.zeros(5))


def test_decode_refuses_a_mean_of_other_dimensions():
    with pytest.raises(ValueError, match="do not fit"):
        decode([[0]], np.zeros((2, 4, 5)), np.zeros(4))
