"""Pickles without the table, artifacts, and what a loaded compressor can still do."""

import gc
import pickle

import joblib
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline

from skadacomp import AdaptiveCodebookCompressor, CompressedTable, EmbeddingTable

QUICK = {"max_iter": 2, "random_state": 0}


@pytest.fixture(scope="module")
def pipeline(table, task):
    compressor = AdaptiveCodebookCompressor(embeddings=table, **QUICK)
    steps = [("compressor", compressor), ("classifier", LogisticRegression())]
    return Pipeline(steps).fit(*task)


def test_joblib_round_trip_predicts_the_same(pipeline, task, tmp_path):
    joblib.dump(pipeline, tmp_path / "classifier.joblib")
    loaded = joblib.load(tmp_path / "classifier.joblib")
    np.testing.assert_array_equal(loaded.predict_proba(task[0]), pipeline.predict_proba(task[0]))


def test_a_fitted_pickle_leaves_the_table_out(table, task):
    elsewhere = EmbeddingTable(table.words, table.vectors + 1)
    fitted = AdaptiveCodebookCompressor(embeddings=elsewhere, **QUICK).fit(*task)
    codes, content = fitted.codes_, pickle.dumps(fitted)
    # The one that was pickled still has it.
    assert fitted.embeddings is elsewhere
    del fitted, elsewhere
    gc.collect()  # now this process is one that never had the table
    loaded = pickle.loads(content)
    assert "300 words × 8 dims" in repr(loaded.embeddings)
    assert loaded.transform(task[0]).shape[0] == len(task[0])
    with pytest.raises(ValueError, match=r"set_params\(embeddings=table\)"):
        loaded.fit(*task)
    # Pickled once more it still says which table it was.
    again = EmbeddingTable(table.words, table.vectors + 1)
    assert pickle.loads(pickle.dumps(loaded)).embeddings is again
    loaded.set_params(embeddings=again).fit(*task)
    np.testing.assert_array_equal(loaded.codes_, codes)


def test_a_process_that_has_the_table_puts_it_back(pipeline, table):
    other = EmbeddingTable(table.words, -table.vectors)  # of the same shape
    loaded = pickle.loads(pickle.dumps(pipeline))
    assert loaded[0].embeddings is table
    assert other.fingerprint != table.fingerprint


def test_a_table_that_came_as_an_array_does_not_come_back(table, task):
    compressor = AdaptiveCodebookCompressor(embeddings=table.vectors, **QUICK)
    words = [[table.index[word] for word in text.split()] for text in task[0]]
    loaded = pickle.loads(pickle.dumps(compressor.fit(words, task[1])))
    assert repr(loaded.embeddings).startswith("DetachedTable(300 words")


def test_an_unfitted_pickle_keeps_the_table(table, task):
    """A grid search sends unfitted estimators to its workers."""
    loaded = pickle.loads(pickle.dumps(AdaptiveCodebookCompressor(embeddings=table, **QUICK)))
    assert loaded.embeddings.words == table.words
    loaded.fit(*task)


def test_a_path_stays_in_the_pickle(table, task, tmp_path):
    np.save(tmp_path / "table.npy", table.vectors)
    (tmp_path / "table.words.txt").write_text("\n".join(table.words), encoding="utf-8")
    compressor = AdaptiveCodebookCompressor(embeddings=tmp_path / "table.npy", **QUICK).fit(*task)
    loaded = pickle.loads(pickle.dumps(compressor))
    assert loaded.embeddings == tmp_path / "table.npy"
    loaded.fit(*task)


def test_a_loaded_compressor_knows_the_rows_that_it_learned(pipeline, table):
    loaded = pickle.loads(pickle.dumps(pipeline[0]))
    assert abs(loaded.transform(table) - pipeline[0].transform(table)).max() == 0
    some = table.vectors[[7, 3]]
    assert abs(loaded.transform(some) - pipeline[0].transform(some)).max() == 0


def test_a_table_of_400_000_words_pickles_below_a_megabyte(tmp_path):
    random = np.random.default_rng(0)
    words = [f"w{i:x}" for i in range(400_000)]
    vectors = random.normal(size=(400_000, 50)).astype(np.float32)
    table = EmbeddingTable(words, vectors)
    documents = [random.integers(0, 20_000, 40).tolist() for _ in range(60)]
    labels = [int(vectors[document].mean(0)[0] > 0) for document in documents]
    compressor = AdaptiveCodebookCompressor(embeddings=table, **QUICK)
    pipeline = Pipeline([("compressor", compressor), ("classifier", LogisticRegression())])
    pipeline.fit(documents, labels)
    joblib.dump(pipeline, tmp_path / "classifier.joblib")
    assert (tmp_path / "classifier.joblib").stat().st_size < 1_000_000
    loaded = joblib.load(tmp_path / "classifier.joblib")
    np.testing.assert_array_equal(loaded.predict(documents), pipeline.predict(documents))
    # The whole table is known again, though its rows' fingerprints stayed behind.
    assert abs(loaded[0].transform(table) - pipeline[0].transform(table)).max() == 0


def test_the_artifact_gives_what_the_compressor_gives(pipeline, task, tmp_path):
    compressor = pipeline[0]
    compressor.compressed_.save(tmp_path / "words.safetensors")
    shipped = CompressedTable.open(tmp_path / "words.safetensors")
    rows = np.arange(len(shipped))
    np.testing.assert_array_equal(shipped.vectors(rows), compressor.compressed_.vectors(rows))
    np.testing.assert_array_equal(shipped.codes, compressor.codes_)
    text = task[0][0]
    words = [word for word in text.split() if word in shipped]
    document = compressor.inverse_transform(compressor.transform([text]))[0]
    np.testing.assert_allclose(shipped.vectors(words).mean(0), document, atol=1e-5)


def test_cloning_a_fitted_compressor_keeps_the_table(pipeline, table):
    assert clone(pipeline)[0].embeddings is table
