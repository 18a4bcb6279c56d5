"""Exports: other programs say what the compressed table says."""

from __future__ import annotations

import json
import sys

import numpy as np
import onnx
import pytest
from gensim.models import KeyedVectors
from hypothesis import given, settings
from hypothesis import strategies as st
from model2vec import StaticModel
from onnxruntime import InferenceSession, SessionOptions
from scipy import sparse
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import MaxAbsScaler
from sklearn.svm import LinearSVC

import skadacomp
from skadacomp import AdaptiveCodebookCompressor, CompressedTable, EmbeddingTable, freeze
from skadacomp._onnx import OPSET, Graph, _packed_lengths, _stepped_lengths
from skadacomp.export import (
    to_keyed_vectors,
    to_model2vec,
    to_numpy,
    to_onnx,
    to_word2vec_text,
    to_words_json,
)

WORDS = [f"word{number}" for number in range(60)]
TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}


def run(path, **inputs):
    [output] = InferenceSession(path).run(None, inputs)
    return output


def padded(documents):
    """Documents of row ids as one array, padded with -1."""
    ids = np.full((len(documents), max(map(len, documents))), -1)
    for row, document in zip(ids, documents, strict=True):
        row[: len(document)] = document
    return ids


def table_of(
    n_words=700,
    n_codewords=16,
    lengths=(0, 2, 4, 8),
    n_dims=6,
    rank=None,
    words=None,
    dropped=0.0,
    bits=8,
):
    """Random codes; the later a row, the shorter its code. A part of the rows may be dropped."""
    rng = np.random.default_rng(n_codewords)
    n_codebooks = lengths[-1]
    share = rng.random(n_words) * np.linspace(1.2, 0.3, n_words)
    choices = (share * len(lengths)).astype(int).clip(0, len(lengths) - 1)
    choices[rng.random(n_words) < dropped] = 0
    codes = rng.integers(0, n_codewords, (n_words, n_codebooks))
    codes[np.arange(n_codebooks) >= np.array(lengths)[choices][:, None]] = -1
    books = rng.normal(size=(n_codebooks, n_codewords, n_dims))
    if rank is not None:
        books = books[..., :rank] @ rng.normal(size=(rank, n_dims))
    mean = rng.normal(size=n_dims)
    return CompressedTable.from_codes(
        codes, books, mean, words, code_lengths=lengths, rank=rank, codebook_bits=bits
    )


@pytest.fixture(scope="module")
def documents():
    """Row ids; an empty document among them, and one that has its words twice."""
    rng = np.random.default_rng(3)
    drawn = [rng.integers(0, 700, rng.integers(1, 40)).tolist() for _ in range(12)]
    return [*drawn, [], drawn[0] * 2, [0], [699]]


# ---------------------------------------------------------------------------------------------
# ONNX: tables


@pytest.mark.parametrize(
    "settings",
    [
        {"n_codewords": 2},
        {"n_codewords": 3},
        {"n_codewords": 8},
        {"n_codewords": 16},
        {"n_codewords": 256},
        {"n_codewords": 700, "lengths": (1, 3)},
        {"n_codewords": 40_000, "lengths": (0, 1), "n_words": 700},
        {"n_codewords": 8, "lengths": (5,)},
        {"n_codewords": 8, "lengths": (0, 1, 2, 3, 4, 5, 6, 7)},
        {"n_codewords": 8, "rank": 2, "n_dims": 40},
        {"n_codewords": 8, "n_dims": 7, "bits": 4},
        {"n_codewords": 8, "rank": 3, "n_dims": 41, "bits": 4},
        {"n_codewords": 8, "n_words": 9000, "dropped": 0.95},
    ],
    ids=str,
)
def test_vectors_and_features_are_ours(settings, documents, tmp_path):
    table, path = table_of(**settings), tmp_path / "table.onnx"
    assert ("axes" in table._tensors) == ("rank" in settings)
    to_onnx(table, path)
    found = run(path, ids=padded(documents))
    expected = table.documents(documents)
    np.testing.assert_allclose(found, expected, **TOLERANCE)
    assert found.dtype == np.float32
    assert not found[len(documents) - 4].any()  # the empty one
    to_onnx(table, path, output="features")
    found = run(path, ids=padded(documents))
    np.testing.assert_allclose(found, table.code_features(documents), rtol=1e-6)
    to_onnx(table, path, input="rows")
    every = np.arange(table.n_words)
    np.testing.assert_allclose(run(path, rows=every), table.vectors(every), **TOLERANCE)
    np.testing.assert_allclose(run(path, rows=np.array([-1]))[0], table.mean, **TOLERANCE)


def test_documents_without_any_word(tmp_path):
    table, path = table_of(), tmp_path / "table.onnx"
    to_onnx(table, path)
    assert not run(path, ids=np.full((3, 2), -1)).any()
    assert run(path, ids=np.full((3, 0), -1)).shape == (3, 6)
    assert run(path, ids=np.full((0, 2), -1)).shape == (0, 6)
    dropped = np.flatnonzero(table.code_lengths == 0)[:5]
    assert not run(path, ids=dropped[None]).any()


def test_a_table_whose_words_are_all_dropped(tmp_path):
    table = CompressedTable.from_codes(
        [[-1], [-1]], [[[1.0], [2.0]]], mean=[3.0], code_lengths=(0, 1)
    )
    to_onnx(table, tmp_path / "ids.onnx")
    assert run(tmp_path / "ids.onnx", ids=np.array([[0, 1]])).tolist() == [[0.0]]
    to_onnx(table, tmp_path / "rows.onnx", input="rows")
    assert run(tmp_path / "rows.onnx", rows=np.array([0, 1])).tolist() == [[3.0], [3.0]]


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(1, 400)), min_size=1, max_size=12),
    st.integers(1, 9),
    st.sampled_from([_packed_lengths, _stepped_lengths]),
)
@settings(max_examples=60, deadline=None)
def test_code_lengths_are_read_back(runs, factor, form):
    lengths = np.repeat([factor * length for length, _ in runs], [n for _, n in runs])
    graph = Graph()
    name = form(graph, lengths)
    helper = onnx.helper
    output = helper.make_tensor_value_info(name, onnx.TensorProto.INT64, ["n"])
    made = helper.make_graph(graph.nodes, "lengths", [], [output], graph.constants)
    opsets = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(
        made, opset_imports=opsets, ir_version=helper.find_min_ir_version_for(opsets)
    )
    [found] = InferenceSession(model.SerializeToString()).run(None, {})
    np.testing.assert_array_equal(found, lengths)


@pytest.mark.parametrize(("lengths", "dropped"), [(range(8), 0.0), ((0, 2, 4, 8), 0.9)])
def test_size_and_what_is_left_to_each_call(lengths, dropped, tmp_path):
    table = table_of(n_words=100_000, n_dims=50, lengths=lengths, dropped=dropped)
    path = tmp_path / "table.onnx"
    to_onnx(table, path)
    assert path.stat().st_size <= 1.1 * table.file_nbytes
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert [each.version for each in model.opset_import] == [OPSET]
    options = SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "loaded.onnx")
    options.log_severity_level = 3  # it warns that what it wrote is for this machine
    InferenceSession(path, options)
    # The code lengths are summed up once, on loading.
    kinds = {node.op_type for node in model.graph.node}
    assert "CumSum" in kinds
    assert ("Range" in kinds) == (dropped == 0)  # the one form of code lengths, or the other
    loaded = onnx.load(tmp_path / "loaded.onnx")
    assert not {"CumSum", "Range"} & {node.op_type for node in loaded.graph.node}


# ---------------------------------------------------------------------------------------------
# ONNX: compressors and classifiers


@pytest.fixture(scope="module")
def texts():
    rng = np.random.default_rng(0)
    return [" ".join(rng.choice([*WORDS, "Unknown"], rng.integers(0, 9))) for _ in range(90)]


@pytest.fixture(scope="module")
def table():
    vectors = np.random.default_rng(1).normal(size=(60, 5)).astype(np.float32)
    return EmbeddingTable(WORDS, vectors)


@pytest.fixture(scope="module")
def pipeline(table, texts):
    """A fitted pipeline for each set of parameters, fitted once."""
    fitted = {}

    def of(classifier=None, n_classes=3, **parameters):
        key = repr((classifier, n_classes, parameters))
        if key not in fitted:
            given = {"max_iter": 2, "random_state": 0, "n_codewords": 3, **parameters}
            compressor = AdaptiveCodebookCompressor(embeddings=table, **given)
            steps = [("compressor", compressor), ("classifier", classifier or LogisticRegression())]
            labels = [f"class {sum(map(ord, text)) % n_classes}" for text in texts]
            fitted[key] = Pipeline(steps).fit(texts, labels)
        return fitted[key]

    return of


def ids_of(texts, table):
    return padded([table.compressed_.rows(text.split()).tolist() for text in texts])


@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("output", ["code_features", "vectors"])
def test_probabilities_and_scores_are_the_pipelines(pipeline, texts, n_classes, output, tmp_path):
    pipe, path = pipeline(n_classes=n_classes, output=output), tmp_path / "classifier.onnx"
    ids = ids_of(texts, pipe[0])
    to_onnx(pipe, path)
    found = run(path, ids=ids)
    np.testing.assert_allclose(found, pipe.predict_proba(texts), rtol=1e-4, atol=1e-5)
    metadata = InferenceSession(path).get_modelmeta().custom_metadata_map
    assert json.loads(metadata["classes"]) == pipe.classes_.tolist()
    to_onnx(freeze(pipe), path, output="scores")
    expected = pipe.decision_function(texts)
    np.testing.assert_allclose(run(path, ids=ids), expected, rtol=1e-4, atol=1e-5)
    to_onnx(pipe, path, output="vectors")
    expected = pipe[0].compressed_.documents(texts)
    np.testing.assert_allclose(run(path, ids=ids), expected, **TOLERANCE)


@pytest.mark.parametrize("pooling", ["mean", "sum"])
def test_weights_of_words_count_as_the_compressor_counts_them(pipeline, texts, pooling, tmp_path):
    pipe, path = pipeline(pooling=pooling), tmp_path / "m.onnx"
    counts = CountVectorizer(vocabulary=WORDS).transform(texts).astype(np.float32)
    rng = np.random.default_rng(0)
    signed = sparse.csr_matrix(counts)
    signed.data = rng.normal(size=signed.data.size).astype(np.float32)
    for weights in (counts, signed):
        to_onnx(pipe[0], path, input="counts", output="features")
        expected = pipe[0].transform(weights).toarray()
        np.testing.assert_allclose(run(path, counts=weights.toarray()), expected, **TOLERANCE)
        to_onnx(pipe, path, input="counts")
        expected = pipe.predict_proba(weights)
        np.testing.assert_allclose(run(path, counts=weights.toarray()), expected, atol=1e-5)
    to_onnx(pipe[0], path)
    expected = pipe[0].inverse_transform(pipe[0].transform(texts))
    np.testing.assert_allclose(run(path, ids=ids_of(texts, pipe[0])), expected, **TOLERANCE)


def test_a_tokenizer_of_ones_own_is_no_matter(pipeline, texts, tmp_path):
    pipe = pipeline(tokenizer=str.split)
    to_onnx(pipe, tmp_path / "m.onnx")
    found = run(tmp_path / "m.onnx", ids=ids_of(texts, pipe[0]))
    np.testing.assert_allclose(found, pipe.predict_proba(texts), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="tokenizer=<method 'split'"):
        to_model2vec(pipe, tmp_path / "model")


def test_what_cannot_be_onnx_is_refused(pipeline, table, texts, tmp_path):
    path = tmp_path / "m.onnx"
    pipe = pipeline()
    scaled = Pipeline([pipe.steps[0], ("scale", MaxAbsScaler()), pipe.steps[1]])
    codes = np.empty((0, 1), np.int64)
    nothing = CompressedTable.from_codes(codes, [[[1.0], [2.0]]], [0.0], code_lengths=(0, 1))
    for model, parameters, message in [
        (scaled, {}, "MaxAbsScaler"),
        (pipeline(MultinomialNB()), {}, "MultinomialNB, which has no"),
        (pipeline(LinearSVC()), {}, "output='scores'"),
        (pipe[0], {"output": "probabilities"}, "needs a classifier"),
        (pipe, {"input": "text"}, "input='text' must be one of"),
        (pipe, {"output": "labels"}, "output='labels' must be one of"),
        (nothing, {}, "n_words=0 and n_codebooks=1 holds nothing"),
    ]:
        with pytest.raises(ValueError, match=message):
            to_onnx(model, path, **parameters)
    with pytest.raises(TypeError, match="model is of type EmbeddingTable"):
        to_onnx(table, path)
    assert not list(tmp_path.iterdir())
    to_onnx(pipeline(LinearSVC()), path, output="scores")
    found = run(path, ids=ids_of(texts, pipeline(LinearSVC())[0]))
    expected = pipeline(LinearSVC()).decision_function(texts)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(Exception, match="out of data bounds"):
        run(path, ids=np.array([[60]]))


# ---------------------------------------------------------------------------------------------
# Vectors for other programs


@pytest.fixture(scope="module")
def shipped():
    words = [*(f"word{number}" for number in range(298)), "naïve_wörd", "[UNK]"]
    return table_of(n_words=300, words=words, n_codewords=8)


def test_keyed_vectors(shipped):
    vectors = to_keyed_vectors(shipped)
    assert isinstance(vectors, KeyedVectors)
    assert vectors.index_to_key == shipped.words
    assert vectors.vectors.dtype == np.float32
    np.testing.assert_array_equal(vectors.vectors, shipped.vectors(shipped.words))
    assert vectors.most_similar("word3")[0][0] == shipped.nearest("word3", 1)[0][0]


def test_word2vec_text(shipped, tmp_path):
    path = tmp_path / "words.txt"
    to_word2vec_text(shipped, path)
    for found in (KeyedVectors.load_word2vec_format(path), to_keyed_vectors(shipped)):
        assert found.index_to_key == shipped.words
        np.testing.assert_array_equal(found.vectors, shipped.vectors(shipped.words))
    opened = EmbeddingTable.open(path)
    assert list(opened.words) == shipped.words
    np.testing.assert_array_equal(opened.vectors, shipped.vectors(shipped.words))


@pytest.mark.parametrize("word", ["", "New York", "a\n", "tab\tbed"])
def test_word2vec_text_refuses_what_it_cannot_hold(word, tmp_path):
    books = [[[1.0], [2.0]]]
    table = CompressedTable.from_codes([[0], [1]], books, [0.0], ["tea", word], code_lengths=(1,))
    (tmp_path / "words.txt").write_text("former")
    with pytest.raises(ValueError, match="is empty or holds white space"):
        to_word2vec_text(table, tmp_path / "words.txt")
    assert (tmp_path / "words.txt").read_text() == "former"


def test_a_failure_leaves_the_former_file(shipped, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise MemoryError

    (tmp_path / "words.txt").write_text("former")
    monkeypatch.setattr(CompressedTable, "vectors", fail)
    with pytest.raises(MemoryError):
        to_word2vec_text(shipped, tmp_path / "words.txt")
    assert [file.read_text() for file in tmp_path.iterdir()] == ["former"]


def test_model2vec(shipped, tmp_path):
    texts = [
        "word1 WORD2, word3!",
        "word4-word5 (word250)\nnope x Naïve_Wörd word1",
        "[UNK] unk",
        "nothing known",
        "",
        " ".join(shipped.words * 4),  # longer than model2vec reads of itself
    ]
    to_model2vec(shipped, tmp_path / "model")
    model = StaticModel.from_pretrained(tmp_path / "model")
    np.testing.assert_allclose(model.encode(texts), shipped.documents(texts), **TOLERANCE)
    assert shipped.documents(texts)[[0, 1, 5]].any(axis=1).all()
    with pytest.raises(FileExistsError, match="is there already"):
        to_model2vec(shipped, tmp_path / "model")
    assert [file.name for file in tmp_path.iterdir()] == ["model"]


def test_model2vec_keeps_the_compressors_case(pipeline, texts, tmp_path):
    upper = [text.upper() for text in texts]
    for number, model in enumerate([pipeline(lowercase=False), freeze(pipeline())]):
        to_model2vec(model, tmp_path / str(number))
        found = StaticModel.from_pretrained(tmp_path / str(number)).encode(upper)
        assert found.any() == (number == 1)
        table = model.table if number else model[0].compressed_
        expected = table.documents(upper, lowercase=number == 1)
        np.testing.assert_allclose(found, expected, **TOLERANCE)


def test_words_json(shipped, tmp_path):
    to_words_json(shipped, tmp_path / "words.json")
    rows = json.loads((tmp_path / "words.json").read_text("utf-8"))
    assert list(rows) == shipped.words
    assert list(rows.values()) == shipped.rows(shipped.words).tolist()


def test_numpy(shipped, pipeline):
    assert to_numpy(shipped).shape == (300, 6)
    np.testing.assert_array_equal(to_numpy(shipped)[17], shipped.vectors([17])[0])
    compressor = pipeline()[0]
    for model in (compressor, pipeline(), freeze(pipeline())):
        np.testing.assert_array_equal(to_numpy(model), to_numpy(compressor.compressed_))


def test_a_table_without_words_is_refused(tmp_path):
    for export in (to_keyed_vectors, to_word2vec_text, to_words_json, to_model2vec):
        arguments = () if export is to_keyed_vectors else (tmp_path / "x",)
        with pytest.raises(ValueError, match="holds no words, only row ids"):
            export(table_of(), *arguments)


@pytest.mark.parametrize(
    ("export", "package", "extra"),
    [
        (to_keyed_vectors, "gensim.models", "gensim"),
        (to_onnx, "onnx", "onnx"),
        (to_model2vec, "model2vec", "model2vec"),
    ],
)
def test_a_missing_package_is_named(export, package, extra, shipped, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    arguments = () if export is to_keyed_vectors else (tmp_path / "x",)
    with pytest.raises(ImportError, match=rf'pip install "skadacomp\[{extra}\]"'):
        export(shipped, *arguments)
    assert not list(tmp_path.iterdir())


def test_the_public_name():
    assert skadacomp.to_onnx is to_onnx
