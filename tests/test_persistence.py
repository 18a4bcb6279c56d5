"""Pickles without the table, artifacts, and what a loaded compressor can still do."""

import gc
import pickle
import warnings
from pathlib import Path

import joblib
import numpy as np
import pytest
import skops.io
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline

from skadacomp import (
    AdaptiveCodebookCompressor,
    CompressedTable,
    EmbeddingTable,
    FrozenClassifier,
)
from skadacomp._format import FORMAT

DATA = Path(__file__).parent / "data"
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
    # The one of any test that has the same content.
    assert isinstance(loaded[0].embeddings, EmbeddingTable)
    assert loaded[0].embeddings.fingerprint == table.fingerprint
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


def test_skops_round_trip_with_the_types_named(pipeline, task):
    content = skops.io.dumps(pipeline)
    trusted = [
        "skadacomp._compressed.CompressedTable",
        "skadacomp._compressor.AdaptiveCodebookCompressor",
        "skadacomp._encoder.RowEncoder",
        "skadacomp._encoder.RowIndex",
        "skadacomp._table.DetachedTable",
    ]
    assert skops.io.get_untrusted_types(data=content) == trusted
    loaded = skops.io.loads(content, trusted=trusted)
    np.testing.assert_array_equal(loaded.predict_proba(task[0]), pipeline.predict_proba(task[0]))
    np.testing.assert_array_equal(loaded[0].codes_, pipeline[0].codes_)
    with pytest.raises(Exception, match="Untrusted types"):
        skops.io.loads(content)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("skadacomp._compressor.__version__", "skadacomp"),
        ("sklearn.__version__", "scikit-learn"),
        ("numpy.__version__", "numpy"),
    ],
)
def test_a_pickle_of_another_release_warns_by_name(pipeline, monkeypatch, module, name):
    compressor = pipeline[0]
    with monkeypatch.context() as patch:
        patch.setattr(module, "0.0.1")
        content = pickle.dumps(compressor)
    with pytest.warns(UserWarning, match=f"then → now: {name} 0.0.1 → [^,]*\\. It may") as warned:
        loaded = pickle.loads(content)
    assert len(warned) == 1
    np.testing.assert_array_equal(loaded.codes_, compressor.codes_)
    pickle.loads(pickle.dumps(loaded))  # it is of this release from now on


def test_a_skops_file_of_another_release_warns_by_name(pipeline, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("skadacomp._compressor.__version__", "0.0.1")
        content = skops.io.dumps(pipeline[0])
    trusted = skops.io.get_untrusted_types(data=content)
    with pytest.warns(UserWarning, match=r"then → now: skadacomp 0\.0\.1 → "):
        loaded = skops.io.loads(content, trusted=trusted)
    np.testing.assert_array_equal(loaded.codes_, pipeline[0].codes_)


def test_pickles_of_this_release_and_clones_warn_of_nothing(pipeline):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pickle.loads(pickle.dumps(pipeline))
        clone(pipeline)
        pickle.loads(pickle.dumps(AdaptiveCodebookCompressor()))


def golden_compressor():
    """Fit what the golden files hold; run this file to write them, for a new format."""
    words = [f"word{i}" for i in range(60)]
    vectors = np.random.default_rng(0).normal(size=(60, 4))
    compressor = AdaptiveCodebookCompressor(code_lengths=(0, 1, 2), max_iter=3, random_state=0)
    return compressor.fit(EmbeddingTable(words, vectors))


@pytest.mark.parametrize("number", range(1, FORMAT + 1))
def test_each_format_has_golden_files_that_open(number):
    """A new format needs files of its own; those of the former ones stay."""
    for name in ("compressed", "compressor"):
        table = CompressedTable.open(DATA / f"{name}-format-{number}.safetensors")
        assert np.isfinite(table.vectors(np.arange(table.n_words))).all()
    assert len(FrozenClassifier.open(DATA / f"classifier-format-{number}.safetensors").classes) > 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # it came from another release
        assert joblib.load(DATA / f"compressor-format-{number}.joblib").compressed_.n_words


def test_golden_pickle_and_artifact_of_format_1():
    shipped = CompressedTable.open(DATA / "compressor-format-1.safetensors")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # it came from another release
        loaded = joblib.load(DATA / "compressor-format-1.joblib")
    np.testing.assert_array_equal(loaded.codes_, shipped.codes)
    assert loaded.compressed_.words == shipped.words
    known = shipped.words[:5]
    np.testing.assert_array_equal(loaded.compressed_.vectors(known), shipped.vectors(known))
    np.testing.assert_allclose(
        loaded.inverse_transform(loaded.transform([known])),
        shipped.documents([known]),
        rtol=1e-5,
        atol=1e-6,
    )
    vectors = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)  # those it knows
    rows = loaded.inverse_transform(loaded.transform(vectors))
    np.testing.assert_allclose(rows, shipped.vectors(np.arange(60)), rtol=1e-5, atol=1e-6)


if __name__ == "__main__":
    golden = golden_compressor()
    joblib.dump(golden, DATA / "compressor-format-1.joblib")
    golden.compressed_.save(DATA / "compressor-format-1.safetensors")
