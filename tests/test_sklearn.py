"""scikit-learn's own checks, and its tools around the compressor."""

import re

import joblib
import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn import config_context
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, HalvingGridSearchCV, cross_val_score
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from skadacomp import AdaptiveCodebookCompressor, EmbeddingTable
from skadacomp._learning import learner, shelf
from skadacomp.metrics import compression_ratio, n_bytes, smallest_within

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
    assert columns.fit_transform(frame, labels).shape == (len(texts), 8 * 16 + 2)


def test_counts_from_a_vectorizer_step(table, task):
    """Any step that counts over the table's words may come first."""
    counter = CountVectorizer(vocabulary=table.index)
    counted = make_pipeline(counter, AdaptiveCodebookCompressor(embeddings=table, **QUICK))
    direct = AdaptiveCodebookCompressor(embeddings=table, **QUICK)
    difference = counted.fit_transform(*task) - direct.fit_transform(*task)
    assert sparse.issparse(difference)
    assert abs(difference).max() == 0


def test_pipeline_with_a_cache(table, task, tmp_path, monkeypatch):
    texts, labels = task
    fits = []
    fit = AdaptiveCodebookCompressor.fit
    monkeypatch.setattr(
        AdaptiveCodebookCompressor, "fit", lambda *given: fits.append(1) or fit(*given)
    )
    memory = joblib.Memory(tmp_path, verbose=0)
    cached = _pipeline(table).set_params(memory=memory).fit(texts, labels)
    first = cached.predict_proba(texts)
    for _ in range(2):  # the second time it is fitted from what came out of the cache
        cached.fit(texts, labels)
        np.testing.assert_array_equal(cached.predict_proba(texts), first)
        assert isinstance(cached[0].embeddings, EmbeddingTable)
        assert cached[0].embeddings.fingerprint == table.fingerprint
    assert len(fits) == 1
    again = EmbeddingTable(table.words, table.vectors)  # as another session opens it
    _pipeline(again).set_params(memory=memory).fit(texts, labels)
    assert len(fits) == 1
    other = EmbeddingTable(table.words, table.vectors[:, ::-1])
    cached.set_params(compressor__embeddings=other).fit(texts, labels)
    assert len(fits) == 2
    assert cached[0].embeddings is other
    cached.set_params(compressor__n_codewords=2).fit(texts, labels)
    assert len(fits) == 3


@pytest.mark.parametrize("routing", [False, True])
def test_metadata_routing(table, task, routing):
    texts, labels = task
    given = {"X_val": texts[200:], "y_val": labels[200:]}
    alone = AdaptiveCodebookCompressor(embeddings=table, **QUICK)
    alone.fit(texts[:200], labels[:200], **given)
    with config_context(enable_metadata_routing=routing):
        step = AdaptiveCodebookCompressor(embeddings=table, **QUICK)
        if routing:
            step.set_fit_request(X_val=True, y_val=True)
            pipeline = Pipeline([("compressor", step), ("classifier", LogisticRegression())])
            pipeline.fit(texts[:200], labels[:200], **given)
            np.testing.assert_array_equal(pipeline[0].codes_, alone.codes_)
        assert len(cross_val_score(_pipeline(table), texts, labels, cv=2, params={})) == 2


def test_feature_union_of_two_tables(table, task):
    other = EmbeddingTable(table.words[::-1], table.vectors[:, :4])
    tables = {"one": table, "other": other}
    union = FeatureUnion(
        [(name, AdaptiveCodebookCompressor(part, **QUICK)) for name, part in tables.items()]
    )
    features = make_pipeline(union).fit_transform(*task)
    parts = [AdaptiveCodebookCompressor(t, **QUICK).fit_transform(*task) for t in tables.values()]
    assert abs(features - sparse.hstack(parts)).max() == 0


@pytest.mark.parametrize("scoring", ["accuracy", n_bytes])
def test_halving_search(table, task, scoring):
    grid = {"compressor__code_lengths": [(0, 2), (0, 4), (0, 8)]}
    search = HalvingGridSearchCV(_pipeline(table), grid, cv=2, scoring=scoring, random_state=0)
    search.fit(*task)
    assert search.n_candidates_ == [3, 1]
    assert len(search.predict(task[0])) == len(task[0])
    if scoring is n_bytes:
        assert search.best_params_ == {"compressor__code_lengths": (0, 2)}


def test_search_for_the_smallest_that_is_good_enough(table, task):
    grid = {"compressor__code_lengths": [(8,), (1,), (4,)]}
    scoring = {"accuracy": "accuracy", "n_bytes": n_bytes}
    search = GridSearchCV(
        _pipeline(table), grid, scoring=scoring, refit=smallest_within(std=100), cv=3
    )
    search.fit(*task)
    # A hundred standard errors are more than any score lacks.
    assert search.best_params_ == {"compressor__code_lengths": (1,)}
    assert search.best_index_ == 1
    assert search.best_estimator_[0].code_lengths_.max() == 1


def test_a_search_fine_tunes_once_a_fold(table, task, monkeypatch):
    """Results are the same to the bit whether fits share their teacher or not."""
    grid = {"compressor__code_lengths": [(0, 2), (0, 4), (4,)]}
    trained = []
    fine_tune = learner.fine_tune
    monkeypatch.setattr(
        learner, "fine_tune", lambda *a, **k: trained.append(1) or fine_tune(*a, **k)
    )
    searches = []
    for shared in (True, False):
        if not shared:
            monkeypatch.setattr(shelf.Shelf, "once", lambda self, key, make: make())
        shelf.TEACHERS.clear()
        searches.append(GridSearchCV(_pipeline(table), grid, cv=2).fit(*task))
        assert len(trained) == (3 if shared else 3 + 3 * 2 + 1)  # two folds, and all documents
    one, other = searches
    for name, scores in one.cv_results_.items():
        if "_test_" in name:
            np.testing.assert_array_equal(scores, other.cv_results_[name])
    one, other = one.best_estimator_, other.best_estimator_
    np.testing.assert_array_equal(one[0].codes_, other[0].codes_)
    np.testing.assert_array_equal(one[0].codebooks_, other[0].codebooks_)
    np.testing.assert_array_equal(one[-1].coef_, other[-1].coef_)


class OwnHead(torch.nn.Linear):
    """A head of a user's own: a linear layer on the sum of the words."""

    def forward(self, vectors, mask):
        return super().forward((vectors * mask[..., None]).sum(1))


@pytest.mark.parametrize(
    "parameters",
    [{"random_state": None}, {"random_state": np.random.RandomState(0)}, {"head": OwnHead}],
    ids=["no seed", "a generator", "own head"],
)
def test_nothing_is_kept_where_no_other_fit_can_share_it(table, task, parameters):
    shelf.TEACHERS.clear()
    _pipeline(table, **parameters).fit(*task)
    assert shelf.TEACHERS.nbytes == 0


def test_diagrams_show_sizes(table, task):
    pipeline = _pipeline(table)
    assert _captions(pipeline) == []
    compressed = pipeline.fit(*task)[0].compressed_
    (caption,) = _captions(pipeline)
    assert f"{compressed.file_nbytes:,} bytes" in caption
    assert f"ratio {compression_ratio(pipeline):,.1f}" in caption
    assert caption.endswith("bits per word")
    assert _captions(pipeline[0]) == [caption]


def _captions(estimator):
    html = estimator._repr_html_()
    assert "AdaptiveCodebookCompressor" in html
    return re.findall(r'class="caption">([^<]+ bits per word)', html)


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
