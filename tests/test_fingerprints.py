"""The 64-bit hash by which the fitted table's rows are known again."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from skadacomp._encoder import row_fingerprints

VECTORS = np.array([[0.5, 1, -2, 0.25], [3, -0.125, 0, 1], [1e-3, 7, 8, -9]], dtype=np.float32)

finite32 = st.floats(width=32, allow_nan=False, allow_infinity=False)


def matrices(elements=finite32):
    shapes = st.tuples(st.integers(1, 6), st.integers(1, 5))
    return hnp.arrays(np.float32, shapes, elements=elements)


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
