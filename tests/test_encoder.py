"""The encoder as arrays: greedy codes row by row, and which rows of the table vectors are."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from skadacomp import _encoder
from skadacomp._encoder import RowEncoder, RowIndex, chunks, row_fingerprints

N_DIMS = 8


def random_encoder(n_codebooks, n_codewords, seed=0):
    """Give codebooks, centre and metric at random, and their encoder."""
    rng = np.random.default_rng(seed)
    codebooks = rng.normal(size=(n_codebooks, n_codewords, N_DIMS - 2))
    codebooks *= 0.7 ** np.arange(n_codebooks)[:, None, None]
    centre, metric = rng.normal(size=N_DIMS), rng.normal(size=(N_DIMS, N_DIMS - 2))
    return codebooks, centre, metric, RowEncoder.from_codebooks(codebooks, centre, metric)


def random_vectors(n, seed=1):
    return np.random.default_rng(seed).normal(size=(n, N_DIMS)).astype(np.float32)


# ---------------------------------------------------------------------------------------------
# Chunks


@given(st.integers(0, 5000), st.integers(1, 2**23))
def test_chunks_go_through_all_rows_in_order(n_rows, n_columns):
    parts = list(chunks(n_rows, n_columns))
    rows = [row for part in parts for row in range(part.start, part.stop)]
    assert rows == list(range(n_rows))
    assert all(part.stop - part.start <= max(256, _encoder._CHUNK // n_columns) for part in parts)


# ---------------------------------------------------------------------------------------------
# RowEncoder


@pytest.mark.parametrize(("n_codebooks", "n_codewords"), [(1, 2), (5, 2), (4, 4), (3, 16)])
def test_codes_are_those_of_a_greedy_search(n_codebooks, n_codewords):
    codebooks, centre, metric, encoder = random_encoder(n_codebooks, n_codewords)
    vectors = random_vectors(200)
    codes, _ = encoder.encode(vectors)
    assert codes.shape == (200, n_codebooks)
    assert codes.dtype == np.int32
    assert encoder.n_codebooks == n_codebooks
    left = (vectors - centre) @ metric
    for m in range(n_codebooks):
        distance = ((left[:, None] - codebooks[m]) ** 2).sum(2)
        np.testing.assert_array_equal(codes[:, m], distance.argmin(1))
        left -= codebooks[m, codes[:, m]]


def test_gains_add_up_to_the_decrease_of_the_squared_error():
    codebooks, centre, metric, encoder = random_encoder(4, 4)
    vectors = random_vectors(200)
    codes, gains = encoder.encode(vectors)
    assert gains.dtype == np.float32
    image = (vectors - centre) @ metric
    words = np.stack([codebooks[m, codes[:, m]] for m in range(4)], 1)
    errors = ((image[:, None] - words.cumsum(1)) ** 2).sum(2)
    expected = (image**2).sum(1, keepdims=True) - errors
    np.testing.assert_allclose(gains.cumsum(1), expected, rtol=1e-4, atol=1e-3)


def test_codewords_alike_give_the_first_of_them():
    codebooks, centre, metric, _ = random_encoder(3, 4)
    codebooks[:, 3] = codebooks[:, 1]
    codebooks[:, 2] = codebooks[:, 0]
    codes, _ = RowEncoder.from_codebooks(codebooks, centre, metric).encode(random_vectors(300))
    assert set(codes.ravel()) == {0, 1}


def test_codewords_equally_near_give_the_first_in_any_company():
    """Sums that only their order tells apart differ in last bits, which must not decide."""
    rng = np.random.default_rng(0)
    codebooks = rng.normal(size=(1, 4, N_DIMS))
    codebooks[:, 2:] = codebooks[:, :2, ::-1]  # mirrored
    vectors = random_vectors(400)
    vectors[:, N_DIMS // 2 :] = vectors[:, N_DIMS // 2 - 1 :: -1]  # their own mirror image
    encoder = RowEncoder.from_codebooks(codebooks, np.zeros(N_DIMS), np.eye(N_DIMS))
    codes, _ = encoder.encode(vectors)
    assert set(codes.ravel()) == {0, 1}
    for n in (1, 2, 3, 7):
        parts = [encoder.encode(vectors[i : i + n])[0] for i in range(0, 400, n)]
        np.testing.assert_array_equal(np.concatenate(parts), codes)


def test_no_vectors_give_no_codes():
    _, _, _, encoder = random_encoder(3, 4)
    codes, gains = encoder.encode(np.empty((0, N_DIMS), np.float32))
    assert codes.shape == gains.shape == (0, 3)


ENCODERS = [random_encoder(4, k, seed)[-1] for k in (2, 4, 16) for seed in (0, 1)]


def encoder_with_ties():
    """Whole numbers and codewords alike, so that scores tie exactly."""
    codebooks = np.round(np.random.default_rng(2).normal(size=(3, 4, N_DIMS)))
    codebooks[:, 1], codebooks[:, 2] = 0, codebooks[:, 3]
    return RowEncoder.from_codebooks(codebooks, np.zeros(N_DIMS), np.eye(N_DIMS))


@settings(deadline=None, max_examples=60)
@given(
    encoder=st.sampled_from([*ENCODERS, encoder_with_ties()]),
    vectors=arrays(
        np.float32,
        st.tuples(st.integers(1, 40), st.just(N_DIMS)),
        elements=st.floats(-8, 8, width=32) | st.integers(-3, 3).map(lambda i: i / 2),
    ),
    data=st.data(),
)
def test_codes_of_a_row_depend_on_that_row_alone(encoder, vectors, data):
    codes, gains = encoder.encode(vectors)
    chosen = np.array(data.draw(st.lists(st.integers(0, len(vectors) - 1), min_size=1)))
    for part in (vectors[chosen], np.asfortranarray(vectors[chosen])):
        again, again_gains = encoder.encode(part)
        np.testing.assert_array_equal(again, codes[chosen])
        np.testing.assert_allclose(again_gains, gains[chosen], rtol=1e-5, atol=1e-5)
    alone, _ = encoder.encode(vectors[chosen[:1]])
    np.testing.assert_array_equal(alone, codes[chosen[:1]])


def test_codes_do_not_depend_on_company_among_many_rows():
    *_, encoder = random_encoder(4, 4)
    vectors = random_vectors(700)
    codes, _ = encoder.encode(vectors)
    order = np.random.default_rng(0).permutation(700)
    np.testing.assert_array_equal(encoder.encode(vectors[order])[0], codes[order])
    alone = np.concatenate([encoder.encode(vectors[i : i + 1])[0] for i in range(700)])
    np.testing.assert_array_equal(alone, codes)


def test_codes_do_not_depend_on_the_chunks(monkeypatch):
    *_, encoder = random_encoder(4, 4)
    vectors = random_vectors(700)
    whole = encoder.encode(vectors)
    monkeypatch.setattr(_encoder, "_CHUNK", 1)  # 256 rows at once, the least
    for one, other in zip(encoder.encode(vectors), whole, strict=True):
        np.testing.assert_array_equal(one, other)


def rebuilt(codebooks, codes):
    """Sums of the codewords, -1 adding nothing."""
    return sum(
        np.where(codes[:, m, None] >= 0, codebooks[m, codes[:, m]], 0)
        for m in range(len(codebooks))
    )


def test_one_beam_is_the_greedy_search():
    *_, encoder = random_encoder(5, 4)
    vectors, lengths = random_vectors(300), np.arange(300) % 6
    codes = encoder.search(vectors, lengths, n_beams=1)
    greedy, _ = encoder.encode(vectors)
    np.testing.assert_array_equal(
        codes, np.where(np.arange(5) < lengths[:, None], greedy, np.int32(-1))
    )
    assert codes.dtype == np.int16


@pytest.mark.parametrize(("n_codebooks", "n_codewords"), [(2, 16), (3, 4), (5, 2)])
def test_enough_beams_find_the_best_codes(n_codebooks, n_codewords):
    codebooks, centre, metric, encoder = random_encoder(n_codebooks, n_codewords)
    vectors = random_vectors(60)
    images = (vectors - centre) @ metric
    for length in range(1, n_codebooks + 1):
        every = np.full((n_codewords**length, n_codebooks), -1)
        every[:, :length] = list(np.ndindex(*[n_codewords] * length))
        distances = ((images[:, None] - rebuilt(codebooks, every)) ** 2).sum(2)
        codes = encoder.search(vectors, np.full(60, length), n_beams=n_codewords ** (length - 1))
        np.testing.assert_array_equal(codes, every[distances.argmin(1)])


def test_beams_leave_less_error_than_a_greedy_search():
    codebooks, centre, metric, encoder = random_encoder(12, 8)
    vectors = random_vectors(500) / np.float32(4)
    images = (vectors - centre) @ metric
    greedy, _ = encoder.encode(vectors)
    found = encoder.search(vectors, np.full(500, 12))
    one, other = (((images - rebuilt(codebooks, c)) ** 2).sum(1) for c in (found, greedy))
    assert (one <= other * (1 + 1e-5)).mean() > 0.95
    assert one.sum() < 0.92 * other.sum()


def test_searched_codes_do_not_depend_on_company_or_chunks(monkeypatch):
    *_, encoder = random_encoder(4, 4)
    vectors, lengths = random_vectors(700), np.arange(700) % 5
    codes = encoder.search(vectors, lengths)
    order = np.random.default_rng(0).permutation(700)
    np.testing.assert_array_equal(encoder.search(vectors[order], lengths[order]), codes[order])
    monkeypatch.setattr(_encoder, "_CHUNK", 1)  # 256 rows at once, the least
    np.testing.assert_array_equal(encoder.search(vectors, lengths), codes)
    assert encoder.search(vectors[:0], lengths[:0]).shape == (0, 4)


# ---------------------------------------------------------------------------------------------
# RowIndex


@given(st.integers(1, 60), st.data())
def test_rows_are_found_whatever_their_order(n, data):
    vectors = random_vectors(n)
    index = RowIndex.of(vectors)
    rows = np.array(data.draw(st.lists(st.integers(0, n - 1))), dtype=np.int64)
    np.testing.assert_array_equal(index.find(vectors[rows]), rows)
    np.testing.assert_array_equal(index.find(vectors[::-1]), np.arange(n)[::-1])
    np.testing.assert_array_equal(index.find(vectors), np.arange(n))


def test_foreign_rows_are_not_found():
    vectors, foreign = random_vectors(50), random_vectors(30, seed=9)
    mixed = np.concatenate([foreign, vectors[10:20], np.nextafter(vectors[:5], np.float32(9))])
    expected = [-1] * 30 + list(range(10, 20)) + [-1] * 5
    assert RowIndex.of(vectors).find(mixed).tolist() == expected


def test_a_row_is_known_by_its_values():
    vectors = random_vectors(20)
    vectors[3, 0] = 0.0
    index = RowIndex.of(vectors)
    same = np.asfortranarray(vectors[2:5]).astype(np.float64)
    same[1, 0] = -0.0
    assert index.find(same).tolist() == [2, 3, 4]
    swapped = vectors[2:5][:, ::-1]
    assert index.find(swapped).tolist() == [-1, -1, -1]


def test_the_first_of_equal_rows_stands_for_all():
    vectors = random_vectors(6)[[0, 1, 2, 1, 3, 1, 0]]
    index = RowIndex.of(vectors)
    assert index.find(vectors[1:]).tolist() == [1, 2, 1, 4, 1, 0]
    assert index.find(vectors).tolist() == [0, 1, 2, 1, 4, 1, 0]
    assert index.find(vectors, whole=True).tolist() == list(range(7))


def test_an_index_of_no_rows():
    index = RowIndex.of(np.empty((0, N_DIMS), np.float32))
    assert index.find(random_vectors(3)).tolist() == [-1, -1, -1]
    assert RowIndex.of(random_vectors(3)).find(np.empty((0, N_DIMS), np.float32)).tolist() == []


def test_a_small_index_keeps_its_rows_in_a_pickle(monkeypatch):
    monkeypatch.setattr(_encoder, "_MOST_PICKLED", 40)
    vectors = random_vectors(40)[np.arange(40) // 2]  # each row twice
    index = RowIndex.of(vectors)
    again = pickle.loads(pickle.dumps(index))
    mixed = np.concatenate([vectors[[7, 3, 30]], random_vectors(2, seed=9)])
    assert again.find(mixed).tolist() == index.find(mixed).tolist() == [6, 2, 30, -1, -1]
    np.testing.assert_array_equal(again.find(vectors, whole=True), np.arange(40))
    assert pickle.dumps(again) == pickle.dumps(index)


def test_a_large_index_keeps_the_whole_table_only(monkeypatch):
    vectors = random_vectors(41)
    small = len(pickle.dumps(RowIndex.of(vectors)))
    monkeypatch.setattr(_encoder, "_MOST_PICKLED", 40)
    index = RowIndex.of(vectors)
    assert len(pickle.dumps(index)) < small - 8 * 40
    again = pickle.loads(pickle.dumps(index))
    np.testing.assert_array_equal(again.find(vectors), np.arange(41))
    assert again.find(vectors[:3]).tolist() == [-1, -1, -1]
    assert again.find(vectors[::-1]).tolist() == [-1] * 41
    # Pickled twice it still knows the table, and the index that was pickled is as it was.
    twice = pickle.loads(pickle.dumps(again))
    np.testing.assert_array_equal(twice.find(vectors), np.arange(41))
    assert index.find(vectors[:3]).tolist() == [0, 1, 2]


# ---------------------------------------------------------------------------------------------
# Fingerprints


VECTORS = np.array([[0.5, 1, -2, 0.25], [3, -0.125, 0, 1], [1e-3, 7, 8, -9]], dtype=np.float32)

finite32 = st.floats(width=32, allow_nan=False, allow_infinity=False)


def matrices(elements=finite32):
    shapes = st.tuples(st.integers(1, 6), st.integers(1, 5))
    return arrays(np.float32, shapes, elements=elements)


def test_fingerprints_never_change():
    # Saved models may hold fingerprints: these are the values of the first release.
    first = [0x07BC75276F084AD2, 0x94F67C46ADF28B91, 0x8CFFBCE935293F74]
    expected = np.array(first, dtype=np.uint64)
    np.testing.assert_array_equal(row_fingerprints(VECTORS), expected)


@settings(deadline=None, max_examples=60)
@given(data=st.data(), vectors=matrices())
def test_fingerprints_depend_on_the_row_alone(data, vectors):
    expected = row_fingerprints(vectors)
    assert expected.dtype == np.uint64
    assert expected.shape == (len(vectors),)
    order = data.draw(st.permutations(range(len(vectors))))
    np.testing.assert_array_equal(row_fingerprints(vectors[order]), expected[order])
    np.testing.assert_array_equal(row_fingerprints(vectors[:1]), expected[:1])
    for same in (
        np.asfortranarray(vectors),
        vectors.astype(">f4"),
        vectors.astype(np.float64),
        np.repeat(vectors, 2, axis=1)[:, ::2],
        np.where(vectors == 0, -vectors, vectors),
    ):
        np.testing.assert_array_equal(row_fingerprints(same), expected)


@settings(deadline=None, max_examples=60)
@given(vectors=matrices(elements=st.sampled_from([0.0, 0.5, 1.0, -1.0, 2.0])))
def test_fingerprints_tell_rows_apart(vectors):
    n_distinct = len(np.unique(vectors, axis=0))
    assert len(np.unique(row_fingerprints(vectors))) == n_distinct


def test_fingerprints_of_many_simple_rows():
    # Small whole numbers share their low bits: the hash must not.
    grid = np.stack(np.meshgrid(*[np.arange(16, dtype=np.float32)] * 4), axis=-1).reshape(-1, 4)
    assert len(np.unique(row_fingerprints(grid))) == len(grid)
    low_bits = row_fingerprints(grid) & np.uint64(0xFF)
    assert np.bincount(low_bits.astype(int), minlength=256).min() > 180  # 256 expected


def test_fingerprints_in_chunks(monkeypatch):
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(600, 3)).astype(np.float32)
    expected = row_fingerprints(vectors)
    monkeypatch.setattr("skadacomp._encoder._CHUNK", 20)  # 256 rows are the least
    np.testing.assert_array_equal(row_fingerprints(vectors), expected)
