"""Packed codes to vectors: the same as code by code, whatever the layout of the bits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skadacomp import _decoder
from skadacomp._codes import code_width, decode, pack
from skadacomp._decoder import Decoder, Group


def random_case(n_codewords, n_dims, lengths, n_rows, seed):
    """Codes of rows group by group, and a decoder of them."""
    rng = np.random.default_rng(seed)
    longest = max(lengths, default=1)
    codebooks = rng.normal(size=(longest, n_codewords, n_dims)).astype(np.float32)
    mean = rng.normal(size=n_dims).astype(np.float32)
    width = code_width(n_codewords)
    groups, runs, rows, begin = [], [], [], 0
    for length in sorted(lengths):
        codes = rng.integers(n_codewords, size=(n_rows, length))
        runs.append(pack(codes, width))
        groups.append(Group(length, len(rows), n_rows, begin, begin + runs[-1].size))
        begin = groups[-1].end
        rows += [[*row, *[-1] * (longest - length)] for row in codes.tolist()]
    packed = np.concatenate([np.empty(0, np.uint8), *runs])
    codes = np.array(rows, int).reshape(-1, longest)
    return Decoder(packed, groups, codebooks, mean), decode(codes, codebooks, mean)


@settings(max_examples=150, deadline=None)
@given(
    n_codewords=st.sampled_from([2, 3, 4, 5, 16, 100, 256, 1000]),
    n_dims=st.sampled_from([1, 3, 50, 3000]),
    lengths=st.sets(st.integers(1, 40), max_size=4),
    n_rows=st.integers(1, 20),
    seed=st.integers(0, 9),
)
def test_vectors_are_sums_of_codewords(n_codewords, n_dims, lengths, n_rows, seed):
    decoder, expected = random_case(n_codewords, n_dims, lengths, n_rows, seed)
    n_slots = len(expected)
    vectors = decoder.vectors(np.arange(n_slots))
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, expected, rtol=1e-4, atol=1e-4)
    # Neither order nor company changes a vector, not by a bit.
    order = np.random.default_rng(seed).permutation(n_slots)
    np.testing.assert_array_equal(decoder.vectors(order), vectors[order])
    for slot in order[:5].tolist():
        np.testing.assert_array_equal(decoder.vector(slot), vectors[slot])


def test_a_slot_of_none_has_the_mean_vector():
    decoder, expected = random_case(4, 6, {2, 5}, 7, 0)
    mean = decoder.vectors(np.array([-1]))[0]
    vectors = decoder.vectors(np.array([-1, 3, -1, 13]))
    np.testing.assert_array_equal(vectors[[0, 2]], [mean, mean])
    np.testing.assert_allclose(vectors[[1, 3]], expected[[3, 13]], atol=1e-5)
    nothing, _ = random_case(4, 6, set(), 0, 0)
    assert nothing.vectors(np.array([-1, -1])).shape == (2, 6)
    assert nothing.vectors(np.array([], int)).shape == (0, 6)


@pytest.mark.parametrize("n_codewords", [4, 10, 16, 256])
def test_rows_of_whole_bytes_are_read_the_same_alone_and_beside_others(n_codewords):
    decoder, expected = random_case(n_codewords, 50, {4, 5, 8}, 40, 0)
    vectors = decoder.vectors(np.arange(120))
    np.testing.assert_allclose(vectors, expected, rtol=1e-4, atol=1e-4)
    assert decoder._plans[0].rows is not None
    order = np.random.default_rng(0).permutation(40)
    for slots in (order, 40 + order, 80 + order):
        np.testing.assert_array_equal(decoder.vectors(slots), vectors[slots])


def test_a_few_rows_among_many_of_none():
    decoder, expected = random_case(16, 50, {1, 4, 9}, 20, 0)
    slots = np.full(9000, -1)
    slots[::150] = np.random.default_rng(0).permutation(60)
    vectors = decoder.vectors(slots)
    np.testing.assert_array_equal(vectors[::150], decoder.vectors(slots[::150]))
    np.testing.assert_allclose(vectors[::150], expected[slots[::150]], rtol=1e-4, atol=1e-4)
    assert (vectors[slots < 0] == decoder.vectors(np.array([-1]))).all()


def test_vectors_of_no_dimensions_are_empty():
    decoder, _ = random_case(4, 0, {2, 5}, 3, 0)
    assert decoder.vectors(np.arange(6)).shape == (6, 0)
    assert decoder.vector(4).shape == (0,)


def test_a_vector_is_ones_own_to_change():
    decoder, _ = random_case(4, 6, {2}, 3, 0)
    before = decoder.vector(1).copy()
    decoder.vector(1)[:] = 0
    decoder.vectors(np.array([1]))[:] = 0
    np.testing.assert_array_equal(decoder.vector(1), before)


def test_blocks_join(monkeypatch):
    decoder, expected = random_case(16, 300, {1, 4, 9}, 400, 0)
    whole = decoder.vectors(np.arange(len(expected)))
    np.testing.assert_allclose(whole, expected, rtol=1e-4, atol=1e-4)
    monkeypatch.setattr(_decoder, "_BLOCK", 300 * 1000)
    np.testing.assert_array_equal(decoder.vectors(np.arange(len(expected))), whole)


@pytest.mark.parametrize("n_codewords", [3, 5, 10, 100])
def test_codes_beyond_the_last_codeword_are_refused(n_codewords):
    width = code_width(n_codewords)
    packed = pack([[0, n_codewords - 1], [1, n_codewords]], width)
    codebooks = np.ones((2, n_codewords, 4), np.float32)
    decoder = Decoder(packed, [Group(2, 0, 2, 0, packed.size)], codebooks, np.zeros(4, np.float32))
    assert decoder.vector(0).tolist() == [2] * 4
    for read in (decoder.vector, lambda slot: decoder.vectors(np.array([0, slot]))):
        with pytest.raises(ValueError, match=f"out of {n_codewords} codewords"):
            read(1)
