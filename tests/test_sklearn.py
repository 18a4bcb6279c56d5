"""scikit-learn's own checks, and its tools around the compressor."""

import numpy as np
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from skadacomp import AdaptiveCodebookCompressor, EmbeddingTable

QUICK = {"max_iter": 2, "random_state": 0}


@parametrize_with_checks([AdaptiveCodebookCompressor(max_iter=2)])
def test_scikit_learn_checks(estimator, check):
    check(estimator)


def test_clone_shares_the_table(table):
    compressor = AdaptiveCodebookCompressor(embeddings=table)
    assert clone(compressor).embeddings is table


def test_fit_writes_no_parameter(table, task):
    compressor = AdaptiveCodebookCompressor(embeddings=table, code_lengths=[0, 2], **QUICK)
    before = compressor.get_params()
    compressor.fit(*task)
    after = compressor.get_params()
    assert all(after[name] is before[name] for name in before)


def test_pipeline_learns_the_task(table, task):
    pipeline = _pipeline(table, max_iter=10)
    texts, labels = task
    # Chance is one half; three standard deviations of 90 fair coins above it are .66.
    assert pipeline.fit(texts[:150], labels[:150]).score(texts[150:], labels[150:]) > 0.66


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_grid_search_over_code_lengths(table, task, n_jobs):
    grid = {"compressor__code_lengths": [(0, 2, 4), (0, 4, 8)]}
    search = GridSearchCV(_pipeline(table), grid, n_jobs=n_jobs, cv=2, error_score="raise")
    search.fit(*task)
    assert search.best_params_["compressor__code_lengths"] in grid["compressor__code_lengths"]
    assert search.best_estimator_[0].embeddings is table
    alone = _pipeline(table).set_params(**search.best_params_).fit(*task)
    np.testing.assert_array_equal(search.best_estimator_[0].codes_, alone[0].codes_)


def test_cross_validation_is_honest(table, task):
    """Labels of pure noise are learned by nobody who has not seen them."""
    texts, _ = task
    noise = np.random.default_rng(1).integers(0, 2, len(texts))
    scores = cross_val_score(_pipeline(table, max_iter=10), texts, noise, cv=5)
    # 240 fair coins: three standard deviations are .10.
    assert abs(scores.mean() - 0.5) < 0.1


def test_set_output_gives_frames_of_vectors(table, task):
    compressor = AdaptiveCodebookCompressor(embeddings=table, output="vectors", **QUICK)
    frame = compressor.set_output(transform="pandas").fit_transform(*task)
    assert list(frame.columns) == [f"dimension{i}" for i in range(table.n_dims)]
    assert frame.shape == (len(task[0]), table.n_dims)


def test_set_output_says_that_code_features_are_sparse(table, task):
    compressor = AdaptiveCodebookCompressor(embeddings=table, **QUICK).fit(*task)
    with pytest.raises(ValueError, match="sparse"):
        compressor.set_output(transform="pandas").transform(task[0])


def test_feature_names_are_as_many_as_columns(table, task):
    compressor = AdaptiveCodebookCompressor(embeddings=table, **QUICK).fit(*task)
    names = compressor.get_feature_names_out()
    assert names[0] == "codebook0_codeword0"
    assert names[-1] == "mean"
    assert len(names) == compressor.transform(task[0]).shape[1]


def test_column_transformer_of_texts(table, task):
    pandas = pytest.importorskip("pandas")
    texts, labels = task
    frame = pandas.DataFrame({"text": texts, "length": [len(text) for text in texts]})
    columns = ColumnTransformer(
        [("text", AdaptiveCodebookCompressor(embeddings=table, **QUICK), "text")],
        remainder="passthrough",
    )
    assert columns.fit_transform(frame, labels).shape == (len(texts), 34)


def test_counts_from_a_vectorizer_step(table, task):
    """Any step that counts over the table's words may come first."""
    counter = CountVectorizer(vocabulary=table.index)
    counted = make_pipeline(counter, AdaptiveCodebookCompressor(embeddings=table, **QUICK))
    direct = AdaptiveCodebookCompressor(embeddings=table, **QUICK)
    difference = counted.fit_transform(*task) - direct.fit_transform(*task)
    assert sparse.issparse(difference)
    assert abs(difference).max() == 0


def test_tags_follow_the_table():
    plain = AdaptiveCodebookCompressor().__sklearn_tags__()
    step = AdaptiveCodebookCompressor(
        embeddings=EmbeddingTable(["a", "b"], [[0.0], [1.0]])
    ).__sklearn_tags__()
    assert (plain.input_tags.two_d_array, plain.input_tags.string) == (True, False)
    assert (step.input_tags.two_d_array, step.input_tags.string) == (False, True)
    assert step.target_tags.required
    assert not plain.target_tags.required


def _pipeline(table, **parameters):
    compressor = AdaptiveCodebookCompressor(embeddings=table, **{**QUICK, **parameters})
    return Pipeline([("compressor", compressor), ("classifier", LogisticRegression(C=100))])
