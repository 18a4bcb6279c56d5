"""FrozenClassifier: what a pipeline says, said with numpy alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import (
    LinearRegression,
    LogisticRegression,
    RidgeClassifier,
    SGDClassifier,
)
from sklearn.multiclass import OneVsRestClassifier
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import MaxAbsScaler
from sklearn.svm import LinearSVC

import skadacomp
from skadacomp import (
    AdaptiveCodebookCompressor,
    CompressedTable,
    FormatError,
    FrozenClassifier,
    freeze,
)

WORDS = [f"word{number}" for number in range(60)]


@pytest.fixture(scope="module")
def texts():
    rng = np.random.default_rng(0)
    return [" ".join(rng.choice([*WORDS, "Unknown"], rng.integers(0, 9))) for _ in range(90)]


@pytest.fixture(scope="module")
def table():
    vectors = np.random.default_rng(1).normal(size=(60, 5)).astype(np.float32)
    return skadacomp.EmbeddingTable(WORDS, vectors)


def labels_of(texts, n_classes):
    return [sum(map(ord, text)) % n_classes for text in texts]


def pipeline_of(table, classifier, **parameters):
    given = {"max_iter": 2, "random_state": 0, "n_codewords": 3, **parameters}
    compressor = AdaptiveCodebookCompressor(embeddings=table, **given)
    return Pipeline([("compressor", compressor), ("classifier", classifier)])


@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("output", ["code_features", "vectors"])
@pytest.mark.parametrize(
    "classifier",
    [
        LogisticRegression(C=10),
        LogisticRegression(fit_intercept=False),
        LinearSVC(),
        RidgeClassifier(),
        SGDClassifier(random_state=0),
    ],
    ids=lambda classifier: type(classifier).__name__,
)
def test_it_says_what_the_pipeline_says(table, texts, classifier, output, n_classes, tmp_path):
    y = labels_of(texts, n_classes)
    pipe = pipeline_of(table, classifier, output=output).fit(texts, y)
    freeze(pipe).save(tmp_path / "classifier.safetensors")
    frozen = FrozenClassifier.open(tmp_path / "classifier.safetensors")
    assert (tmp_path / "classifier.safetensors").stat().st_size == frozen.file_nbytes
    weights = frozen.sizes["classifier"]
    assert weights == 4 * (frozen._coef.size + frozen._intercept.size)
    assert frozen.sizes | frozen.table.sizes == frozen.sizes
    scores = pipe.decision_function(texts)
    found = frozen.decision_function(texts)
    np.testing.assert_allclose(found, scores, rtol=1e-3, atol=1e-4 * np.abs(scores).max())
    np.testing.assert_array_equal(frozen.classes, pipe.classes_)
    np.testing.assert_array_equal(frozen.predict(texts), pipe.predict(texts))
    as_words = [text.lower().split() for text in texts]
    np.testing.assert_array_equal(frozen.decision_function(as_words), found)
    if hasattr(pipe, "predict_proba"):
        np.testing.assert_allclose(
            frozen.predict_proba(texts), pipe.predict_proba(texts), rtol=1e-3, atol=1e-4
        )
    else:
        with pytest.raises(AttributeError, match="without probabilities"):
            frozen.predict_proba(texts)


@pytest.mark.parametrize("names", [["no", "yes"], [False, True], [3, 7], [1.0, 2.0], ["ä", "b\n"]])
def test_classes_keep_their_type(table, texts, names, tmp_path):
    y = [names[label] for label in labels_of(texts, 2)]
    pipe = pipeline_of(table, LogisticRegression()).fit(texts, y)
    freeze(pipe).save(tmp_path / "t")
    found = FrozenClassifier.open(tmp_path / "t").predict(texts)
    np.testing.assert_array_equal(found, pipe.predict(texts))
    assert found.dtype.kind == pipe.predict(texts).dtype.kind


def test_pooling_and_case_go_along(table, texts, tmp_path):
    y = labels_of(texts, 3)
    upper = [text.upper() for text in texts]
    for given in ({"pooling": "sum"}, {"lowercase": False}):
        pipe = pipeline_of(table, LogisticRegression(C=3), **given).fit(texts, y)
        frozen = freeze(pipe)
        for X in (texts, upper):
            expected = pipe.predict_proba(X)
            np.testing.assert_allclose(frozen.predict_proba(X), expected, rtol=1e-3, atol=1e-4)


def test_probabilities_of_another_formula_are_left_out(table, texts):
    pipe = pipeline_of(table, LogisticRegression(solver="liblinear"))
    frozen = freeze(pipe.fit(texts, labels_of(texts, 2)))
    np.testing.assert_allclose(frozen.predict_proba(texts), pipe.predict_proba(texts), rtol=1e-3)


def test_the_file_is_that_of_its_table_too(table, texts, tmp_path):
    pipe = pipeline_of(table, LogisticRegression()).fit(texts, labels_of(texts, 3))
    frozen = freeze(pipe)
    frozen.save(tmp_path / "classifier")
    opened = CompressedTable.open(tmp_path / "classifier")
    opened.save(tmp_path / "table")
    pipe[0].compressed_.save(tmp_path / "same")
    assert (tmp_path / "table").read_bytes() == (tmp_path / "same").read_bytes()
    frozen.save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "classifier").read_bytes()
    assert opened.words == frozen.table.words
    assert "FrozenClassifier(classes=[0, 1, 2]" in repr(frozen)
    with pytest.raises(FormatError, match="no classifier in this file"):
        FrozenClassifier.open(tmp_path / "table")


def test_what_cannot_be_frozen_is_refused(table, texts):
    y = labels_of(texts, 3)
    fitted = pipeline_of(table, LogisticRegression()).fit(texts, y)
    compressor = fitted[0]
    scaled = Pipeline([*fitted.steps[:1], ("scale", MaxAbsScaler()), *fitted.steps[1:]]).fit(
        texts, y
    )
    regression = pipeline_of(table, LinearRegression()).fit(texts, np.arange(90.0))
    tokens = pipeline_of(table, LogisticRegression(), tokenizer=str.split).fit(texts, y)
    pairs = AdaptiveCodebookCompressor(max_iter=1, random_state=0)
    pairs.fit(table, [(a, b) for a, b in zip(texts, texts[::-1], strict=True)], y)
    pair_pipe = Pipeline([("compressor", pairs), ("classifier", fitted[1])])
    many = pipeline_of(table, OneVsRestClassifier(LogisticRegression())).fit(texts, y)
    for wrong, message in [
        (compressor, "must be a fitted scikit-learn Pipeline"),
        (Pipeline([("c", compressor)]), "it must be an AdaptiveCodebookCompressor and"),
        (scaled, "MaxAbsScaler"),
        (pipeline_of(table, MultinomialNB()).fit(texts, y), "MultinomialNB, which has no"),
        (regression, "LinearRegression, which has no classes_"),
        (many, "OneVsRestClassifier, which has no"),
        (tokens, "cannot go into a file"),
        (pair_pipe, "task='pair'"),
    ]:
        with pytest.raises(ValueError, match=message):
            freeze(wrong)
    with pytest.raises(NotFittedError):
        freeze(pipeline_of(table, LogisticRegression()))
    passed = Pipeline([fitted.steps[0], ("nothing", "passthrough"), fitted.steps[1]])
    np.testing.assert_array_equal(freeze(passed).predict(texts), fitted.predict(texts))


def test_damaged_classifiers_are_refused(table, texts, tmp_path):
    path = tmp_path / "t"
    freeze(pipeline_of(table, LogisticRegression()).fit(texts, labels_of(texts, 3))).save(path)
    tensors = load_file(path)
    with safe_open(path, "numpy") as file:
        metadata = file.metadata()
    del metadata["crc32"]  # whatever else is wrong has to show
    described = json.loads(metadata["classifier"])
    nan = np.full_like(tensors["coef"], np.nan)
    for changed in ({"coef": tensors["coef"][:2]}, {"coef": nan}, {"coef": nan[0]}):
        save_file({**tensors, **changed}, path, metadata)
        with pytest.raises(FormatError, match="coef"):
            FrozenClassifier.open(path)
    save_file({n: t for n, t in tensors.items() if n != "intercept"}, path, metadata)
    with pytest.raises(FormatError, match="intercept"):
        FrozenClassifier.open(path)
    for wrong in (
        "[",
        "[]",
        "{}",
        json.dumps({**described, "classes": [0, 1, "2"]}),
        json.dumps({**described, "classes": [0, 1, 1]}),
        json.dumps({**described, "classes": []}),
        json.dumps({**described, "classes": [[0], [1], [2]]}),
        json.dumps({**described, "classes": [0, 1]}),
        json.dumps({**described, "pooling": "max"}),
        json.dumps({**described, "lowercase": None}),
        json.dumps({**described, "link": "probit"}),
        json.dumps({**described, "more": 1}),
    ):
        save_file(tensors, path, {**metadata, "classifier": wrong})
        with pytest.raises(FormatError, match="classifier"):
            FrozenClassifier.open(path)
    # Of three codewords two bits can name a fourth.
    bad = {**tensors, "codes": np.full_like(tensors["codes"], 255)}
    save_file(bad, path, metadata)
    with pytest.raises(FormatError, match="out of 3 codewords"):
        FrozenClassifier.open(path).predict(texts)
    with pytest.raises(FileNotFoundError):
        FrozenClassifier.open(tmp_path / "none")


def test_it_classifies_with_numpy_alone(table, texts, tmp_path):
    pipe = pipeline_of(table, LogisticRegression()).fit(texts, labels_of(texts, 3))
    freeze(pipe).save(tmp_path / "t")
    script = """
        import json, sys

        class Refuse:
            def find_spec(self, name, path=None, target=None):
                if name.split(".")[0] in {"scipy", "sklearn", "torch", "safetensors", "joblib"}:
                    raise ImportError(f"{name} must not be needed")

        sys.meta_path.insert(0, Refuse())
        from skadacomp import FrozenClassifier

        texts = json.load(sys.stdin)
        print(json.dumps(FrozenClassifier.open(sys.argv[1]).predict(texts).tolist()))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path / "t")],
        env={**os.environ, "PYTHONPATH": str(Path(skadacomp.__file__).parents[1])},
        input=json.dumps(texts),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == pipe.predict(texts).tolist()
