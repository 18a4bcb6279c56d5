"""EmbeddingTable and as_table."""

import copy
import pickle
import types

import joblib
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import save_file
from sklearn.base import clone

from skadacomp._table import EmbeddingTable, as_table

WORDS = ["coffee", "tea", "milk"]
VECTORS = np.array([[0.5, 1, -2, 0.25], [3, -0.125, 0, 1], [1e-3, 7, 8, -9]], dtype=np.float32)

finite32 = st.floats(width=32, allow_nan=False, allow_infinity=False)


def matrices(min_dims=1, elements=finite32):
    shapes = st.tuples(st.integers(1, 6), st.integers(min_dims, 5))
    return hnp.arrays(np.float32, shapes, elements=elements)


# -- the value -------------------------------------------------------------------------------


def test_attributes():
    table = EmbeddingTable(WORDS, VECTORS)
    assert table.words == tuple(WORDS)
    assert (table.n_words, table.n_dims, len(table), table.nbytes) == (3, 4, 3, 48)
    assert "tea" in table
    assert "cocoa" not in table
    assert table.index == {"coffee": 0, "tea": 1, "milk": 2}
    assert table.index is table.index
    np.testing.assert_array_equal(table["tea"], VECTORS[1])
    with pytest.raises(KeyError, match="cocoa"):
        table["cocoa"]


def test_without_words():
    table = EmbeddingTable(None, VECTORS)
    assert table.words is None
    assert table.index is None
    assert "tea" not in table
    with pytest.raises(KeyError, match=r"tea.*has no words"):
        table["tea"]


def test_is_no_sequence():
    with pytest.raises(TypeError, match="not iterable"):
        list(EmbeddingTable(WORDS, VECTORS))


@pytest.mark.parametrize(
    ("words", "shape", "text"),
    [
        (None, (3, 4), "EmbeddingTable(3 rows × 4 dims, 48 bytes)"),
        (["a"], (1, 250), "EmbeddingTable(1 words × 250 dims, 1.0 KB)"),
        (None, (400_000, 50), "EmbeddingTable(400000 rows × 50 dims, 80.0 MB)"),
    ],
)
def test_repr(words, shape, text):
    assert repr(EmbeddingTable(words, np.zeros(shape, dtype=np.float32))) == text


def test_float32_is_kept_without_a_copy_and_stays_writeable():
    vectors = VECTORS.copy()
    table = EmbeddingTable(WORDS, vectors)
    assert np.shares_memory(table.vectors, vectors)
    assert not table.vectors.flags.writeable
    assert vectors.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        table.vectors[0, 0] = 1


@pytest.mark.parametrize(
    "vectors",
    [
        VECTORS.astype(np.float64),
        VECTORS.astype(">f4"),
        np.asfortranarray(VECTORS),
        np.repeat(VECTORS, 2, axis=0)[::2],
        VECTORS.tolist(),
    ],
    ids=["float64", "big-endian", "Fortran", "strided", "lists"],
)
def test_anything_else_is_converted(vectors):
    table = EmbeddingTable(WORDS, vectors)
    assert table.vectors.dtype == np.dtype(np.float32)
    assert table.vectors.dtype.isnative
    assert table.vectors.flags.c_contiguous
    assert not table.vectors.flags.writeable
    np.testing.assert_array_equal(table.vectors, VECTORS)


@pytest.mark.parametrize("dtype", [np.int8, np.uint64, np.bool_, np.float16])
def test_other_dtypes_are_converted(dtype):
    table = EmbeddingTable(None, np.array([[0, 1], [1, 1]], dtype=dtype))
    np.testing.assert_array_equal(table.vectors, np.float32([[0, 1], [1, 1]]))


def test_words_become_plain_str():
    for words in (np.array(WORDS), pd.Index(WORDS), dict.fromkeys(WORDS).keys()):
        table = EmbeddingTable(words, VECTORS)
        assert table.words == tuple(WORDS)
        assert {type(word) for word in table.words} == {str}


def test_clones_and_copies_are_the_table_itself():
    table = EmbeddingTable(WORDS, VECTORS)
    assert clone(table) is table
    assert copy.copy(table) is table
    assert copy.deepcopy(table) is table
    assert copy.deepcopy([table])[0] is table


def test_immutable():
    table = EmbeddingTable(WORDS, VECTORS)
    for name in ("words", "vectors", "index", "n_words", "other"):
        with pytest.raises(AttributeError, match=f"immutable: cannot set '{name}'"):
            setattr(table, name, None)
    with pytest.raises(AttributeError, match="immutable: cannot delete 'words'"):
        del table.words


def test_pickle_leaves_the_index_out():
    table = EmbeddingTable(WORDS, VECTORS)
    size = len(pickle.dumps(table))
    assert table.index  # now it is cached
    again = pickle.loads(pickle.dumps(table))
    assert len(pickle.dumps(table)) == size
    assert again.words == table.words
    assert again.index == table.index
    np.testing.assert_array_equal(again.vectors, VECTORS)
    assert not again.vectors.flags.writeable


def test_the_fingerprint_is_that_of_the_content(tmp_path):
    table = EmbeddingTable(["ab", "c", "é"], VECTORS[:3])
    np.save(tmp_path / "t.npy", VECTORS[:3])
    mapped = EmbeddingTable.open(tmp_path / "t.npy", words=["ab", "c", "é"])
    assert joblib.hash(table) == joblib.hash(mapped) == table.fingerprint
    assert pickle.loads(pickle.dumps(table)).fingerprint == table.fingerprint
    others = [
        EmbeddingTable(["a", "bc", "é"], VECTORS[:3]),  # the same letters
        EmbeddingTable(["c", "ab", "é"], VECTORS[:3]),
        EmbeddingTable(["ab", "c", "é"], -VECTORS[:3]),
        EmbeddingTable(None, VECTORS[:3]),
    ]
    assert len({table.fingerprint, *(other.fingerprint for other in others)}) == 5


# -- what the constructor refuses ------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "dtype", "what"),
    [
        (np.nan, np.float32, "NaN"),
        (-np.inf, np.float32, "infinity"),
        (np.nan, np.float64, "NaN"),
        (1e39, np.float64, r"1e\+39, which float32 turns into infinity"),
    ],
)
def test_not_finite(value, dtype, what):
    vectors = VECTORS.astype(dtype)
    vectors[1, 2] = vectors[2, 0] = value
    with pytest.raises(ValueError, match=what + r".* at row 1 \(word 'tea'\), column 2"):
        EmbeddingTable(WORDS, vectors)
    with pytest.raises(ValueError, match=what + ".* at row 1, column 2"):
        EmbeddingTable(None, vectors)


def test_not_finite_far_into_a_large_table():
    vectors = np.zeros((300_000, 5), dtype=np.float32)
    vectors[270_001, 3] = np.nan
    with pytest.raises(ValueError, match="NaN at row 270001, column 3"):
        EmbeddingTable(None, vectors)


@pytest.mark.parametrize(
    ("vectors", "error", "match"),
    [
        (np.zeros((0, 3)), ValueError, r"vectors: .*0 sample\(s\) \(shape=\(0, 3\)\) while a min"),
        (np.zeros((3, 0)), ValueError, r"vectors: .*0 feature\(s\) \(shape=\(3, 0\)\) while a m"),
        (np.zeros(3), ValueError, "vectors: Expected 2D array, got 1D"),
        (np.zeros((3, 2, 2)), ValueError, "vectors: Found array with dim 3"),
        (np.zeros((3, 2), dtype=complex), ValueError, "vectors: Complex data not supported"),
        (np.zeros((3, 2), dtype=object), TypeError, "vectors has dtype object"),
        (np.array([["a"], ["b"], ["c"]]), TypeError, "vectors has dtype <U1.*real numbers"),
        (np.zeros((3, 2), dtype="M8[s]"), TypeError, "vectors has dtype datetime64"),
        ([[1.0, 2.0], [3.0]], ValueError, "vectors: .*inhomogeneous"),
        (sp.eye(3, format="csr"), TypeError, r"vectors is a sparse \(3, 3\).*dense.*toarray"),
    ],
)
def test_bad_vectors(vectors, error, match):
    with pytest.raises(error, match=match):
        EmbeddingTable(WORDS, vectors)


@pytest.mark.parametrize(
    ("words", "error", "match"),
    [
        (["tea", "milk"], ValueError, "words has 2 entries and vectors has 3 rows"),
        (["tea", "milk", "tea"], ValueError, "words holds 'tea' twice, at rows 0 and 2"),
        (["tea", 7, "milk"], TypeError, r"words\[1\] is 7 of type int"),
        (["tea", "milk", None], TypeError, r"words\[2\] is None of type NoneType"),
        ("abc", TypeError, "words is of type str"),
        ({"a", "b", "c"}, TypeError, "words is of type set; it must be a sequence"),
        ({"a": 0, "b": 1, "c": 2}, TypeError, "words is of type dict"),
        (iter(WORDS), TypeError, "words is of type list_iterator"),
    ],
)
def test_bad_words(words, error, match):
    with pytest.raises(error, match=match):
        EmbeddingTable(words, VECTORS)


# -- text files ------------------------------------------------------------------------------

# A word that ends in a number after a space cannot be told from a longer vector, so a header
# comes first or no such word is made.
any_words = st.text("ab1. é漢😀\t\xa0\x85\u2028", min_size=1).filter(lambda w: w == w.strip(" "))
letters = st.text("abé漢 ", min_size=1).filter(lambda word: word == word.strip(" "))


def write_text(path, words, vectors, header, end="\n"):
    lines = [f"{len(words)} {vectors.shape[1]}"] if header else []
    rows = zip(words, vectors.tolist(), strict=True)
    lines += [" ".join([word, *map(repr, row)]) for word, row in rows]
    path.write_bytes("".join(line + end for line in lines).encode())
    return path


@settings(deadline=None, max_examples=60)
@given(data=st.data(), header=st.booleans(), end=st.sampled_from(["\n", "\r\n", " \n"]))
def test_text_round_trip(tmp_path_factory, data, header, end):
    vectors = data.draw(matrices())
    n = len(vectors)
    words = data.draw(
        st.lists(any_words if header else letters, min_size=n, max_size=n, unique=True)
    )
    path = write_text(tmp_path_factory.mktemp("text") / "t.txt", words, vectors, header, end)
    table = EmbeddingTable.open(path)
    assert table.words == tuple(words)
    np.testing.assert_array_equal(table.vectors, vectors)


def test_text_without_header_may_hold_words_that_are_numbers(tmp_path):
    words = ["1", "nan", "windows 95", "name@domain.com at", "the"]
    vectors = np.arange(15, dtype=np.float32).reshape(5, 3)
    path = write_text(tmp_path / "t.vec", words, vectors, header=False)
    table = EmbeddingTable.open(str(path))
    assert table.words == tuple(words)
    np.testing.assert_array_equal(table.vectors, vectors)


@pytest.mark.parametrize("header", [True, False])
def test_text_blank_lines_and_no_last_newline(tmp_path, header):
    path = tmp_path / "t.txt"
    path.write_text(("2 2\n" if header else "") + "tea 1 2\n\nmilk 3 4")
    table = EmbeddingTable.open(path)
    assert table.words == ("tea", "milk")
    assert table.vectors.tolist() == [[1, 2], [3, 4]]


def test_text_duplicates_keep_the_first(tmp_path):
    path = tmp_path / "t.txt"
    path.write_text("tea 1 2\nmilk 3 4\ntea 5 6\ntea 7 8\n")
    with pytest.warns(UserWarning, match=r"t\.txt: 2 of 4 rows repeat a word") as caught:
        table = EmbeddingTable.open(path)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert table.words == ("tea", "milk")
    assert table.vectors.tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("tea 1 2\nmilk 3\n", r"t\.txt, line 2: 1 fields after the word.*has 2 dim"),
        ("2 3\ntea 1 2 3\nmilk 4 5\n", r"t\.txt, line 3: 2 fields after the word.*has 3 dim"),
        ("tea 1 2\nmilk 3 x7\n", r"t\.txt, line 2: 'x7' is not a number; the last 2 fields"),
        ("2 2\ntea 1 oops\nmilk 3 4", r"t\.txt, line 2: 'oops' is not a number"),
        ("3 2\ntea 1 2\nmilk 3 4\n", "header in line 1 promises 3 words and the file holds 2"),
        ("1 2\ntea 1 2\nmilk 3 4\n", "promises 1 words and the file holds 2"),
        ("tea 1 2\nmilk 3 nan\n", r"NaN at row 1 \(word 'milk'\), column 1"),
        ("tea 1 2\nmilk 1e39 4\n", r"infinity at row 1 \(word 'milk'\), column 0"),
        ("", r"t\.txt holds no vectors"),
        ("tea\nmilk\n", r"t\.txt holds no vectors"),
        ("2 0\ntea\nmilk\n", r"t\.txt holds no vectors"),
        ("0 2\n", r"0 sample\(s\)"),
    ],
)
def test_bad_text(tmp_path, content, match):
    path = tmp_path / "t.txt"
    path.write_text(content)
    with pytest.raises(ValueError, match=match):
        EmbeddingTable.open(path)


def test_text_that_is_not_utf8(tmp_path):
    path = tmp_path / "t.txt"
    path.write_bytes("tea 1 2\ncafé 3 4\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"line 2: the word b'caf\\xe9' is not UTF-8"):
        EmbeddingTable.open(path)


# -- other files -----------------------------------------------------------------------------


def test_npy_stays_memory_mapped(tmp_path):
    np.save(tmp_path / "t.npy", VECTORS)
    table = EmbeddingTable.open(tmp_path / "t.npy", words=WORDS)
    assert isinstance(table.vectors, np.memmap)
    assert not table.vectors.flags.writeable
    assert table.words == tuple(WORDS)
    np.testing.assert_array_equal(table.vectors, VECTORS)
    assert type(pickle.loads(pickle.dumps(table)).vectors) is np.ndarray


def test_npy_in_fortran_order_is_converted(tmp_path):
    np.save(tmp_path / "t.npy", np.asfortranarray(VECTORS))
    table = EmbeddingTable.open(tmp_path / "t.npy")
    assert table.vectors.flags.c_contiguous
    np.testing.assert_array_equal(table.vectors, VECTORS)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_words_from_a_file(tmp_path, end):
    np.save(tmp_path / "t.npy", VECTORS)
    words = ["café", "green\rtea", "3"]
    (tmp_path / "names.lst").write_bytes(end.join([*words, ""]).encode())
    assert EmbeddingTable.open(tmp_path / "t.npy").words is None
    table = EmbeddingTable.open(tmp_path / "t.npy", words=str(tmp_path / "names.lst"))
    assert table.words == tuple(words)


def test_words_beside_the_file(tmp_path):
    np.save(tmp_path / "glove.50d.npy", VECTORS)
    (tmp_path / "glove.50d.txt").write_text("a\nb\nc\n")
    assert EmbeddingTable.open(tmp_path / "glove.50d.npy").words == ("a", "b", "c")
    (tmp_path / "glove.50d.words.txt").write_text("d\ne\nf\n")
    assert EmbeddingTable.open(tmp_path / "glove.50d.npy").words == ("d", "e", "f")
    assert EmbeddingTable.open(tmp_path / "glove.50d.npy", words=WORDS).words == tuple(WORDS)


def test_words_beside_the_file_are_not_the_text_table(tmp_path):
    np.save(tmp_path / "t.npy", VECTORS)
    write_text(tmp_path / "t.txt", WORDS, VECTORS, header=False)
    with pytest.raises(ValueError, match=r"t\.txt holds vectors, not one word a line"):
        EmbeddingTable.open(tmp_path / "t.npy")


def test_safetensors(tmp_path):
    path = tmp_path / "t.safetensors"
    save_file({"emb": VECTORS, "bias": np.zeros(4), "ids": np.zeros((2, 2), dtype=int)}, path)
    table = EmbeddingTable.open(path, words=WORDS)
    assert table.words == tuple(WORDS)
    np.testing.assert_array_equal(table.vectors, VECTORS)
    assert EmbeddingTable.open(path).words is None


def test_safetensors_float16_and_bfloat16(tmp_path):
    path = tmp_path / "t.safetensors"
    exact = np.float32([[0.5, -2.0, 3.0], [0.0, 1.5, -0.25]])
    save_file({"emb": exact.astype(np.float16)}, path)
    np.testing.assert_array_equal(EmbeddingTable.open(path).vectors, exact)
    upper_halves = (exact.view(np.uint32) >> 16).astype("<u2").tobytes()
    header = b'{"emb":{"dtype":"BF16","shape":[2,3],"data_offsets":[0,12]}}'
    path.write_bytes(len(header).to_bytes(8, "little") + header + upper_halves)
    np.testing.assert_array_equal(EmbeddingTable.open(path).vectors, exact)


def test_safetensors_with_other_than_one_table(tmp_path):
    path = tmp_path / "t.safetensors"
    save_file({"emb": VECTORS, "out": VECTORS}, path)
    with pytest.raises(ValueError, match=r"holds 2 .*; the 2-D ones are: .*out F32 \(3, 4\)"):
        EmbeddingTable.open(path)
    save_file({"bias": VECTORS[0]}, path)
    with pytest.raises(ValueError, match=r"holds 0 .*; its tensors are: bias F32 \(4,\)\."):
        EmbeddingTable.open(path)


def keyed_vectors():
    return types.SimpleNamespace(vectors=VECTORS, index_to_key=WORDS)


def test_files_that_cannot_be_opened(tmp_path):
    with pytest.raises(ValueError, match=r"suffix '\.csv'.*\.txt, \.vec, \.bin, .* \.gz, "):
        EmbeddingTable.open(tmp_path / "t.csv")
    with pytest.raises(FileNotFoundError, match=r"path=.*absent\.txt': there is no such file"):
        EmbeddingTable.open(tmp_path / "absent.txt")
    np.save(tmp_path / "t.npy", VECTORS)
    with pytest.raises(FileNotFoundError, match=r"words=.*absent\.txt': there is no such file"):
        EmbeddingTable.open(tmp_path / "t.npy", words=tmp_path / "absent.txt")
    write_text(tmp_path / "u.txt", WORDS, VECTORS, header=False)
    with pytest.raises(ValueError, match=r"words is for .*u\.txt.*carries its own words"):
        EmbeddingTable.open(tmp_path / "u.txt", words=WORDS)


def test_suffix_in_capitals(tmp_path):
    path = write_text(tmp_path / "T.TXT", WORDS, VECTORS, header=True)
    assert EmbeddingTable.open(path).words == tuple(WORDS)


# -- as_table --------------------------------------------------------------------------------


def test_as_table_returns_a_table_itself():
    table = EmbeddingTable(WORDS, VECTORS)
    assert as_table(table) is table


@pytest.mark.parametrize("words", [None, WORDS])
@pytest.mark.parametrize("make", [np.asarray, np.ndarray.tolist, lambda v: v.astype(object)])
def test_as_table_of_arrays(make, words):
    vectors = make(VECTORS)
    if words:
        vectors = pd.DataFrame(vectors, index=words)
    table = as_table(vectors)
    assert table.words == (tuple(words) if words else None)
    np.testing.assert_array_equal(table.vectors, VECTORS)


def test_as_table_does_not_copy():
    assert np.shares_memory(as_table(VECTORS).vectors, VECTORS)


def test_as_table_of_a_frame_with_named_columns():
    frame = pd.DataFrame(VECTORS, columns=list("abcd"))
    assert as_table(frame).words is None
    frame["a"] = [1, 2, 3]
    np.testing.assert_array_equal(as_table(frame).vectors[:, 0], [1, 2, 3])


def test_as_table_of_a_frame_indexed_by_few_words():
    frame = pd.DataFrame(VECTORS, index=pd.Index(["tea", float("nan"), "milk"], dtype=object))
    with pytest.warns(UserWarning, match="index has nan at position 1.*keep_default_na") as caught:
        assert as_table(frame).words is None
    assert caught[0].filename == __file__


def test_as_table_of_keyed_vectors_and_paths(tmp_path):
    path = write_text(tmp_path / "t.txt", WORDS, VECTORS, header=True)
    for embeddings in (keyed_vectors(), path, str(path)):
        table = as_table(embeddings)
        assert table.words == tuple(WORDS)
        np.testing.assert_array_equal(table.vectors, VECTORS)


class ArrayLike:
    def __init__(self, array):
        self.array = array

    def __array__(self, dtype=None, copy=None):
        return self.array


def test_as_table_of_array_likes():
    np.testing.assert_array_equal(as_table(ArrayLike(VECTORS)).vectors, VECTORS)


DICT_INSIDE = VECTORS.astype(object)
DICT_INSIDE[0, 0] = {"foo": "bar"}


@pytest.mark.parametrize(
    ("embeddings", "error", "match"),
    [
        (np.zeros(3), ValueError, "(?s)embeddings: Expected 2D array, got 1D.*Reshape your data"),
        ([1.0, 2.0], ValueError, "Expected 2D array, got 1D array instead"),
        (pd.Series([1.0, 2.0]), ValueError, "Expected a 2-dimensional container"),
        (np.zeros((2, 2, 2)), ValueError, "embeddings: Found array with dim 3"),
        (np.zeros((2, 2), dtype=complex), ValueError, "Complex data not supported"),
        (np.full((2, 2), np.nan), ValueError, "NaN"),
        (np.full((2, 2), np.inf), ValueError, "infinity"),
        (np.full((2, 2), np.inf).astype(object), ValueError, "infinity"),
        (
            np.zeros((0, 3)),
            ValueError,
            r"Found array with 0 sample\(s\) \(shape=\(0, 3\)\) while a minimum of 1 is required\.",
        ),
        (
            np.zeros((3, 0)),
            ValueError,
            r"0 feature\(s\) \(shape=\(3, 0\)\) while a minimum of 1 is required\.",
        ),
        (DICT_INSIDE, TypeError, "argument must be .* string.* number"),
        ([["a", "b"]], TypeError, "embeddings has dtype <U1"),
        (sp.eye(3, format="csr"), TypeError, r"embeddings is a sparse .*table is dense"),
        (sp.coo_array(np.eye(3)), TypeError, "sparse"),
        (None, TypeError, "embeddings is of type NoneType; it must be an EmbeddingTable, a 2-D"),
        ({"tea": [1.0]}, TypeError, "embeddings is of type dict"),
        (7, TypeError, "embeddings is of type int"),
    ],
)
def test_as_table_refuses(embeddings, error, match):
    with pytest.raises(error, match=match):
        as_table(embeddings)


def test_open_and_from_object_hand_on_to_each_other(tmp_path):
    path = write_text(tmp_path / "t.txt", WORDS, VECTORS, header=True)
    for table in (EmbeddingTable.open(keyed_vectors()), EmbeddingTable.from_object(path)):
        assert table.words == tuple(WORDS)
        np.testing.assert_array_equal(table.vectors, VECTORS)


def test_from_object_gives_words_to_what_has_none(tmp_path):
    (tmp_path / "words.txt").write_text("coffee\ntea\nmilk\n")
    nameless = EmbeddingTable(None, VECTORS)
    for embeddings in (VECTORS, VECTORS.tolist(), nameless, pd.DataFrame(VECTORS)):
        for words in (WORDS, tmp_path / "words.txt"):
            table = EmbeddingTable.from_object(embeddings, words)
            assert table.words == tuple(WORDS)
            np.testing.assert_array_equal(table.vectors, VECTORS)
    assert EmbeddingTable.from_object(nameless) is nameless


def test_from_object_refuses_words_for_what_has_its_own():
    named = EmbeddingTable(WORDS, VECTORS)
    for embeddings in (named, keyed_vectors(), pd.DataFrame(VECTORS, index=WORDS)):
        with pytest.raises(ValueError, match="this one has its own"):
            EmbeddingTable.from_object(embeddings, WORDS)
