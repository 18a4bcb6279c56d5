"""Documents of every form to counts, and counts to pooled features."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import CountVectorizer

from skadacomp._documents import document_counts, kind_of, n_documents, pool
from skadacomp._table import EmbeddingTable

WORDS = ["tea", "coffee", "milk", "café", "the"]
ROWS = {word: row for row, word in enumerate(WORDS)}
N = len(WORDS)
TABLE = EmbeddingTable(WORDS, np.eye(N))


def dense(X, **options):
    return document_counts(X, ROWS, N, **options).toarray().tolist()


def assert_identical(a, b):
    assert type(a) is type(b) is sp.csr_matrix
    assert a.shape == b.shape
    for name in ("data", "indices", "indptr"):
        left, right = getattr(a, name), getattr(b, name)
        assert left.dtype == right.dtype, name
        np.testing.assert_array_equal(left, right)


# -- kind_of ---------------------------------------------------------------------------------


class Collection:
    """A sequence that is no list, as data set libraries have them."""

    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, at):
        return self.items[at]


class ArrayLike:
    def __init__(self, array):
        self.array = np.asarray(array)

    def __array__(self, dtype=None, copy=None):
        return self.array


def objects(*items):
    array = np.empty(len(items), dtype=object)
    array[:] = items
    return array


VECTORS = {
    "table": TABLE,
    "keyed": type("KeyedVectors", (), {"vectors": np.eye(2), "index_to_key": ["a", "b"]})(),
    "frame": pd.DataFrame(np.eye(2)),
    "frame of words": pd.DataFrame([["a", "b"]]),
    "float64": np.eye(2),
    "int": np.eye(2, dtype=int),
    "bool": np.eye(2, dtype=bool),
    "complex": np.eye(2, dtype=complex),
    "object": np.eye(2).astype(object),
    "2-D strings": np.array([["a", "b"]]),
    "empty": np.zeros((0, 2)),
    "1-D float": np.zeros(2),
    "1-D int": np.zeros(2, dtype=int),
    "1-D empty": np.zeros(0),
    "3-D": np.zeros((2, 2, 2)),
    "0-D": np.float64(3),
    "series": pd.Series([1.0, 2.0]),
    "array-like": ArrayLike(np.eye(2)),
    "lists": [[0.5, 1.0], [2.0, 3.0]],
    "tuples": ((0.5, 1.0), (2.0, 3.0)),
    "mixed numbers": [[1, 0.5], [2, 3]],
    "float32 scalars": [[np.float32(1), np.float32(2)]],
    "list of arrays": [np.array([0.5, 1.0])],
    "3-D lists": [[[0.5], [1.0]]],
    "3-D arrays": [np.eye(2), np.eye(2)],
    "3-D int arrays": [np.eye(2, dtype=int)],
}

DOCUMENTS = {
    "strings": ["tea milk", ""],
    "tuple": ("tea milk",),
    "str array": np.array(["tea", "milk"]),
    "str objects": np.array(["tea", "milk"], dtype=object),
    "str series": pd.Series(["tea", "milk"], index=[7, 3]),
    "string series": pd.Series(["tea", "milk"], dtype="string"),
    "category series": pd.Series(["tea", "milk"], dtype="category"),
    "words": [["tea"], []],
    "word tuples": [("tea", "milk")],
    "word arrays": [np.array(["tea", "milk"]), np.array(["tea"], dtype=object)],
    "word series": pd.Series([["tea", "milk"], []]),
    "word objects": objects(["tea"], []),
    "ids": [[0, 1], [2]],
    "equally long ids": [[0, 1], [2, 1]],
    "id arrays": [np.array([0, 1]), np.array([2], dtype=np.uint8)],
    "numpy ids": [[np.int64(1), np.int32(0)]],
    "id objects": objects([0, 1], np.array([2])),
    "empty first": [[], np.array([]), [1]],
    "all empty": [[], ()],
    "collection": Collection(["tea", "milk"]),
    "csr": sp.eye(N, format="csr"),
    "coo array": sp.coo_array(np.eye(N)),
}


@pytest.mark.parametrize("X", VECTORS.values(), ids=VECTORS)
def test_vectors(X):
    assert kind_of(X) == "vectors"


@pytest.mark.parametrize("X", VECTORS.values(), ids=VECTORS)
def test_vectors_are_not_counted(X):
    with pytest.raises(TypeError, match=r"X of type \w+ holds vectors, not documents: a document"):
        document_counts(X, ROWS, N)


@pytest.mark.parametrize("X", DOCUMENTS.values(), ids=DOCUMENTS)
def test_documents(X):
    assert kind_of(X) == "documents"
    assert document_counts(X, ROWS, N).shape == (n_documents(X), N)


def test_n_documents():
    assert n_documents(TABLE) == N
    assert n_documents(["a", "b"]) == 2
    assert n_documents(sp.csr_matrix((4, 3))) == 4
    assert n_documents(np.zeros((4, 3))) == 4
    assert n_documents(pd.DataFrame(np.zeros((4, 3)))) == 4


@pytest.mark.parametrize("call", [kind_of, lambda X: document_counts(X, ROWS, N)])
@pytest.mark.parametrize(
    ("X", "error", "match"),
    [
        ("tea milk", ValueError, r"Iterable over raw text documents expected, string.*\[text\]"),
        ([], ValueError, "X is empty: it must hold at least one document"),
        (pd.Series([], dtype=object), ValueError, "X is empty"),
        (None, TypeError, "X is of type NoneType; it must be vectors .* or a list of documents"),
        (b"tea", TypeError, "X is of type bytes"),
        ({"tea": 1}, TypeError, "X is of type dict"),
        ({"tea"}, TypeError, "X is of type set"),
        (7, TypeError, "X is of type int"),
        ((text for text in ["tea"]), TypeError, "X is of type generator"),
        ([None, "tea"], TypeError, r"X\[0\] is of type NoneType; a document is a string, a list"),
        ([1.5, 2.5], TypeError, r"X\[0\] is of type float"),
        ([[], {"tea": 1}], TypeError, r"X\[1\] is of type dict"),
        ([b"tea"], TypeError, r"X\[0\] is of type bytes"),
        ([3, 4], TypeError, r"X\[0\] is of type int; .*A single document goes in a list of its"),
        ([[True, False]], TypeError, r"X\[0\] is of type list that begins with True \(bool\)"),
        ([np.array([True])], TypeError, r"X\[0\] is of type ndarray that begins with .*bool"),
        ([[None]], TypeError, r"X\[0\] is of type list that begins with None \(NoneType\)"),
        (np.array([b"tea"]), TypeError, r"X\[0\] is of type bytes"),
    ],
)
def test_neither(call, X, error, match):
    with pytest.raises(error, match=match):
        call(X)


# -- document_counts -------------------------------------------------------------------------

# The last two are in no table: every form must skip them.
known_and_not = st.sampled_from([*WORDS, "unknown", "tees"])
bags = st.lists(st.lists(known_and_not, max_size=12), min_size=1, max_size=8)


@settings(deadline=None)
@given(bags=bags, joint=st.sampled_from([" ", ", ", " - ", "\n"]), upper=st.booleans())
def test_all_forms_agree(bags, joint, upper):
    texts = [joint.join(words).upper() if upper else joint.join(words) for words in bags]
    ids = [[ROWS[word] for word in words if word in ROWS] for words in bags]
    counts = CountVectorizer(vocabulary=ROWS).fit_transform(texts)
    expected = document_counts(bags, ROWS, N)
    np.testing.assert_array_equal(expected.toarray(), counts.toarray())
    assert expected.dtype == np.float32
    assert expected.has_canonical_format
    assert (expected.data != 0).all()
    for X, rows in (
        (texts, ROWS),
        (np.array(texts, dtype=object), ROWS),
        ([tuple(words) for words in bags], ROWS),
        (pd.Series(bags), ROWS),
        (ids, None),
        ([np.array(i, dtype=np.int32) for i in ids], None),
        (counts, None),
        (sp.coo_array(counts), None),
        (sp.csc_matrix(counts, dtype=np.float64), None),
    ):
        assert_identical(document_counts(X, rows, N), expected)


def test_words_are_taken_as_they_are():
    assert dense([["tea", "Tea", "tea milk", "tea"]]) == [[2, 0, 0, 0, 0]]


def test_strings_are_split_as_scikit_learn_does():
    assert dense(["Tea,TEA milk-coffee a"]) == [[2, 1, 1, 0, 0]]
    assert dense(["Tea,TEA milk-coffee a"], lowercase=False) == [[0, 1, 1, 0, 0]]
    assert dense(["tea milk", "TEA,milk"], tokenizer=str.split) == [[1, 0, 1, 0, 0], [0] * 5]
    assert dense(["Tea tea"], tokenizer=str.split, lowercase=False) == [[1, 0, 0, 0, 0]]


def test_empty_documents_go_with_any_form():
    assert dense(["tea", [], ""]) == [[1, 0, 0, 0, 0], [0] * 5, [0] * 5]
    assert dense([[], ["tea"]]) == [[0] * 5, [1, 0, 0, 0, 0]]
    assert dense([[], [0], ()]) == [[0] * 5, [1, 0, 0, 0, 0], [0] * 5]
    assert document_counts([[], []], None, N).nnz == 0


def test_only_get_is_asked_of_rows():
    class Rows:
        def get(self, word):
            return np.int64(ROWS[word]) if word in ROWS else None

    assert_identical(
        document_counts(["the tea is tea"], Rows(), N), document_counts(["the tea is tea"], ROWS, N)
    )


def test_the_callers_matrix_is_left_alone():
    parts = np.float32([1, 2, 0, -3]), np.int32([2, 2, 1, 0]), np.int32([0, 4])
    X = sp.csr_matrix(parts, shape=(1, N))
    counts = document_counts(X, None, N)
    assert counts.data.tolist() == [-3, 3]
    assert counts.indices.tolist() == [0, 2]
    assert X.data.tolist() == [1, 2, 0, -3]
    assert X.indices.tolist() == [2, 2, 1, 0]
    assert X.indptr.tolist() == [0, 4]
    canonical = sp.csr_matrix(np.float32([[0, 1, 2, 0, 0]]))
    assert not np.shares_memory(document_counts(canonical, None, N).data, canonical.data)


def test_sparse_weights_are_used_as_they_are():
    X = sp.lil_array(np.array([[0, 0.5, -2.0, 0, 0], [0] * 5]))
    assert dense(X) == [[0, 0.5, -2.0, 0, 0], [0] * 5]
    assert dense(sp.csr_matrix(np.eye(N, dtype=bool))) == np.eye(N).tolist()


def sparse_with(value, dtype=np.float64):
    X = sp.csr_matrix(np.ones((4, N), dtype=dtype))
    X.data[2 * N + 3] = value
    return X


@pytest.mark.parametrize(
    ("X", "error", "match"),
    [
        ([[0, 1], [2, 5]], ValueError, r"X\[1\]\[1\] is the row id 5, which must be in \[0, 5\)"),
        ([[0, 1], [-1]], ValueError, r"X\[1\]\[0\] is the row id -1, which"),
        ([np.array([7])], ValueError, r"X\[0\]\[0\] is the row id 7, which"),
        ([[10**30]], ValueError, r"X\[0\]\[0\] is the row id 10+, which"),
        ([[0, True]], TypeError, r"X\[0\]\[1\] is True of type bool in a list of row ids"),
        ([[0], [1, 2.0]], TypeError, r"X\[1\]\[1\] is 2.0 of type float.*Vectors go in a 2-D"),
        ([[0], [1, "tea"]], TypeError, r"X\[1\]\[1\] is 'tea' of type str in a list of row ids"),
        ([["tea"], ["tea", 1]], TypeError, r"X\[1\]\[1\] is 1 of type int in a list of words"),
        ([["tea"], ["tea", None]], TypeError, r"X\[1\]\[1\] is None of type NoneType in a list of"),
        (["tea", None], TypeError, r"X\[1\] is of type NoneType; a document is"),
        (["tea", float("nan")], TypeError, r"X\[1\] is of type float; a document is"),
        (["tea", b"tea"], TypeError, r"X\[1\] is of type bytes"),
        ([["tea"], {"tea": 1}], TypeError, r"X\[1\] is of type dict"),
        ([[0], np.eye(2)], TypeError, r"X\[1\] is of type ndarray; a document is"),
        (["tea", ["tea"]], TypeError, r"X\[1\] is .* given as words while X\[0\] is given as text"),
        ([[], [1], [], ["tea"]], TypeError, r"X\[3\] is .* as words while X\[1\] is given as ids"),
        (
            sp.eye(7, format="csr"),
            ValueError,
            r"shape \(7, 7\).*n_words=5 words\. CountVectorizer\(vocabulary",
        ),
        (sp.coo_array(np.ones(N)), ValueError, r"X is sparse with shape \(5,\)"),
        (sp.csr_matrix((0, N)), ValueError, "X is empty"),
        (sp.eye(N, dtype=complex), ValueError, "Complex data not supported: X is sparse"),
        (sparse_with(np.nan), ValueError, r"X holds NaN or infinity.* in document 2, column 3"),
        (sparse_with(-np.inf), ValueError, r"X holds NaN or infinity.* in document 2, column 3"),
        (sparse_with(1e300), ValueError, r"X holds NaN or infinity.* in document 2, column 3"),
    ],
)
def test_refused(X, error, match):
    with pytest.raises(error, match=match):
        document_counts(X, ROWS, N)


def test_the_document_of_a_bad_weight_is_found_behind_empty_ones():
    X = sp.lil_array((4, N))
    X[2, 1] = np.nan
    with pytest.raises(ValueError, match="in document 2, column 1"):
        document_counts(X, ROWS, N)


@pytest.mark.parametrize("X", [["tea"], [["tea"]]])
def test_words_need_a_table_with_words(X):
    with pytest.raises(ValueError, match=r"no words to look them up in.*EmbeddingTable\(words, ve"):
        document_counts(X, None, N)


# -- pool ------------------------------------------------------------------------------------

# words 0 to 2 have codes, words 3 and 4 have none; the last column is the constant
FEATURES = np.float32([[1, 0, 1, 1], [0, 1, 1, 1], [1, 0, 0, 1], [0] * 4, [0] * 4])
MATRIX = sp.csr_matrix(FEATURES)


def test_pool_sum():
    pooled = pool(document_counts([[0, 0, 1], [3, 4], [2, 4]], None, N), MATRIX, "sum")
    assert pooled.toarray().tolist() == [[2, 1, 3, 3], [0] * 4, [1, 0, 0, 1]]


def test_pool_mean_leaves_words_without_codes_out():
    pooled = pool(document_counts([[0, 0, 1, 1, 3], [3, 4], [], [2, 4]], None, N), MATRIX, "mean")
    assert pooled.toarray().tolist() == [[0.5, 0.5, 1, 1], [0] * 4, [0] * 4, [1, 0, 0, 1]]


def test_pool_mean_divides_by_absolute_weights():
    counts = sp.csr_matrix(np.float32([[3, -1, 0, 5, 0], [0.5, 0, -0.5, 0, 0]]))
    pooled = pool(counts, MATRIX, "mean")
    assert pooled.toarray().tolist() == [[0.75, -0.25, 0.5, 0.5], [0, 0, 0.5, 0]]
    assert pooled.nnz == 5  # what cancels out is not stored
    assert counts.toarray().tolist() == [[3, -1, 0, 5, 0], [0.5, 0, -0.5, 0, 0]]


def test_pool_sees_through_explicit_zeros():
    data = FEATURES[:, :3].ravel()
    indices, indptr = np.tile(np.arange(3), N), np.arange(N + 1) * 3
    matrix = sp.csr_matrix((data, indices, indptr), shape=(N, 3))
    counts = sp.csr_matrix((np.float32([1, 0, 2]), [0, 1, 3], [0, 3]), shape=(1, N))
    assert pool(counts, matrix, "mean").toarray().tolist() == [[1, 0, 1]]
    assert matrix.nnz == 3 * N
    zero_weights = sp.csr_matrix((np.float32([0]), [0], [0, 1]), shape=(1, N))
    assert pool(zero_weights, matrix, "mean").toarray().tolist() == [[0, 0, 0]]


@settings(deadline=None)
@given(
    ids=st.lists(st.lists(st.integers(0, N - 1), max_size=9), min_size=1, max_size=6),
    pooling=st.sampled_from(["mean", "sum"]),
)
def test_pool_is_row_by_row(ids, pooling):
    pooled = pool(document_counts(ids, None, N), MATRIX, pooling)
    assert type(pooled) is sp.csr_matrix
    assert pooled.dtype == np.float32
    assert pooled.has_canonical_format
    for row, document in enumerate(ids):
        alone = pool(document_counts([document[::-1]], None, N), MATRIX, pooling)
        assert_identical(pooled[row], alone)
        coded = FEATURES[[i for i in document if i < 3]]
        expected = coded.sum(axis=0) / (max(1, len(coded)) if pooling == "mean" else 1)
        np.testing.assert_allclose(alone.toarray()[0], expected, rtol=1e-6)


def test_pool_refuses_other_poolings():
    with pytest.raises(ValueError, match="pooling='max' must be 'mean' or 'sum'"):
        pool(sp.csr_matrix((1, N)), MATRIX, "max")
