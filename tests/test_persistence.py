"""Pickles without the table, artifacts, and what a loaded compressor can still do."""

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


def test_a_fitted_pickle_leaves_the_table_out(pipeline, table, task):
    loaded = pickle.loads(pickle.dumps(pipeline))
    assert "300 words × 8 dims" in repr(loaded[0].embeddings)
    with pytest.raises(ValueError, match=r"set_params\(embeddings=table\)"):
        loaded.fit(*task)
    # The one that was pickled still has it.
    assert pipeline[0].embeddings is table
    loaded.set_params(compressor__embeddings=table).fit(*task)
    np.testing.assert_array_equal(loaded[0].codes_, pipeline[0].codes_)


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
