"""Reconstruction error against its formula, and the scorers inside scikit-learn's searches."""

import copy
import pickle

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import NotFittedError
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline

from skadacomp import AdaptiveCodebookCompressor, CompressedTable, EmbeddingTable, _encoder
from skadacomp.metrics import (
    compression_ratio,
    n_bytes,
    neg_reconstruction_error,
    reconstruction_error,
    smallest_within,
)

WORDS = ["the", "film", "plot", "good", "great", "bad", "awful", "rare"]
TEXTS = ["the good film", "the bad film", "a great plot", "an awful plot"] * 6
LABELS = ["+", "-", "+", "-"] * 6


@pytest.fixture
def table():
    return EmbeddingTable(WORDS, np.random.default_rng(0).normal(1, 1, (len(WORDS), 6)))


@pytest.fixture
def compressed(table):
    random = np.random.default_rng(1)
    codes = np.array([[-1, -1], [0, -1], [1, -1], [0, 1], [1, 1], [0, 0], [1, 0], [-1, -1]])
    return CompressedTable.from_codes(
        codes,
        random.normal(size=(2, 2, 6)),
        table.vectors.mean(0),
        WORDS,
        code_lengths=(0, 1, 2),
    )


def compressor(table=None, **parameters):
    given = {"code_lengths": (0, 2), "n_codewords": 2, "max_iter": 2, "random_state": 0}
    return AdaptiveCodebookCompressor(table, **(given | parameters))


def pipeline(table, **parameters):
    steps = [("compressor", compressor(table, **parameters)), ("classifier", LogisticRegression())]
    return Pipeline(steps)


@pytest.mark.parametrize(
    ("words", "rows"), [("kept", slice(1, 7)), ("all", slice(None))], ids=["kept", "all"]
)
def test_error_is_its_formula(table, compressed, words, rows):
    original = table.vectors.astype(float)
    rebuilt = compressed.vectors(range(len(WORDS)))
    expected = (original - rebuilt)[rows] ** 2 / ((original - original.mean(0))[rows] ** 2).sum()
    error = reconstruction_error(table, compressed, words=words)
    assert isinstance(error, float)
    assert error == pytest.approx(expected.sum())


def test_kept_words_are_the_default(table, compressed):
    kept = reconstruction_error(table, compressed, words="kept")
    assert reconstruction_error(table, compressed) == kept
    assert kept != reconstruction_error(table, compressed, words="all")


def test_dropping_every_word_costs_all_of_the_variance(table):
    dropped = CompressedTable.from_codes(
        np.full((8, 1), -1), np.zeros((1, 2, 6)), table.vectors.mean(0), code_lengths=(0, 1)
    )
    assert reconstruction_error(table, dropped, words="all") == pytest.approx(1, abs=1e-3)
    with pytest.raises(ValueError, match="No word has a code; words='all'"):
        reconstruction_error(table, dropped)


def test_whatever_stands_for_a_table(table, compressed, tmp_path):
    expected = reconstruction_error(table, compressed)
    np.save(tmp_path / "table.npy", table.vectors)
    for embeddings in (
        table.vectors,
        table.vectors.tolist(),
        pd.DataFrame(table.vectors, index=WORDS),
        tmp_path / "table.npy",
        EmbeddingTable.open(tmp_path / "table.npy", words=WORDS),
    ):
        assert reconstruction_error(embeddings, compressed) == pytest.approx(expected)


def test_error_is_summed_over_parts(table, compressed, monkeypatch):
    whole = reconstruction_error(table, compressed, words="all")
    monkeypatch.setattr(
        "skadacomp.metrics.chunks", lambda n, _: (slice(i, min(i + 3, n)) for i in range(0, n, 3))
    )
    assert reconstruction_error(table, compressed, words="all") == pytest.approx(whole)


def test_only_a_part_of_the_table_is_in_memory():
    """A part holds a bounded number of values, whatever the table's shape."""
    assert max(s.stop - s.start for s in _encoder.chunks(10**8, 300)) * 300 < 2**23


def test_error_of_compressor_and_pipeline(table):
    alone = compressor().fit(table)
    assert reconstruction_error(table, alone) == reconstruction_error(table, alone.compressed_)
    pipe = pipeline(table).fit(TEXTS, LABELS)
    inner = pipe["compressor"].compressed_
    assert reconstruction_error(table, pipe, words="all") == reconstruction_error(
        table, inner, words="all"
    )


def test_error_wants_one_table_before_and_after(table, compressed):
    with pytest.raises(ValueError, match=r"embeddings has shape \(7, 6\).*compressed \(8, 6\)"):
        reconstruction_error(table.vectors[:7], compressed)
    with pytest.raises(ValueError, match=r"embeddings has shape \(8, 5\).*compressed \(8, 6\)"):
        reconstruction_error(table.vectors[:, :5], compressed)
    with pytest.raises(ValueError, match="Row 1 is 'awful' in embeddings and 'film' in compressed"):
        reconstruction_error(EmbeddingTable(WORDS[::-1], table.vectors), compressed)


def test_error_without_a_spread(compressed):
    with pytest.raises(ValueError, match="8 rows measured all equal the mean vector"):
        reconstruction_error(np.full((8, 6), 0.1), compressed, words="all")


def test_error_of_what_it_does_not_take(table, compressed):
    with pytest.raises(ValueError, match="words='some' must be 'kept' or 'all'"):
        reconstruction_error(table, compressed, words="some")
    with pytest.raises(TypeError, match="compressed is of type CountVectorizer and holds no"):
        reconstruction_error(table, CountVectorizer())
    with pytest.raises(TypeError, match="embeddings is of type int"):
        reconstruction_error(3, compressed)


def test_scorers_say_what_the_attributes_say(table):
    fitted = compressor().fit(table)
    assert compression_ratio(fitted) == fitted.compression_ratio_
    assert compression_ratio(fitted.compressed_) == fitted.compression_ratio_
    assert n_bytes(fitted) == -fitted.compressed_.file_nbytes


def test_score_is_minus_the_size_of_the_file(table, tmp_path):
    fitted = compressor().fit(table)
    fitted.compressed_.save(tmp_path / "words.safetensors")
    assert n_bytes(fitted) == -(tmp_path / "words.safetensors").stat().st_size


def test_scorers_in_cross_validation(table):
    scoring = {"ratio": compression_ratio, "n_bytes": n_bytes, "accuracy": "accuracy"}
    scores = cross_validate(
        pipeline(table), TEXTS, LABELS, cv=2, scoring=scoring, return_estimator=True
    )
    for number, fitted in enumerate(scores["estimator"]):
        assert scores["test_ratio"][number] == compression_ratio(fitted)
        assert scores["test_n_bytes"][number] == n_bytes(fitted) < 0


def test_a_search_for_the_smallest(table):
    grid = {"compressor__code_lengths": [(2,), (1,), (4,)]}
    search = GridSearchCV(pipeline(table), grid, scoring=n_bytes, cv=2)
    search.fit(TEXTS, LABELS)
    assert search.best_params_ == {"compressor__code_lengths": (1,)}
    assert n_bytes(search) == n_bytes(search.best_estimator_)


def test_a_pipeline_in_a_pipeline(table):
    outer = make_pipeline("passthrough", pipeline(table)).fit(TEXTS, LABELS)
    assert compression_ratio(outer) == compression_ratio(outer[1])


@pytest.mark.parametrize("scorer", [compression_ratio, n_bytes])
def test_scorers_want_one_fitted_compressor(scorer, table):
    with pytest.raises(NotFittedError):
        scorer(compressor(table))
    with pytest.raises(NotFittedError):
        scorer(pipeline(table))
    with pytest.raises(TypeError, match="estimator is of type Pipeline and holds no compressor"):
        scorer(make_pipeline(CountVectorizer(), LogisticRegression()))
    with pytest.raises(ValueError, match="estimator holds 2 compressors"):
        scorer(make_pipeline(compressor(table), compressor()))


def test_error_as_a_scorer(table):
    pipe = pipeline(table).fit(TEXTS, LABELS)
    expected = -reconstruction_error(table, pipe, words="all")
    assert neg_reconstruction_error(pipe) == expected < 0
    assert reconstruction_error(pipe, TEXTS, LABELS) == expected  # as a scorer
    scores = cross_validate(
        pipe, TEXTS, LABELS, cv=2, scoring=neg_reconstruction_error, return_estimator=True
    )
    errors = [reconstruction_error(table, one, words="all") for one in scores["estimator"]]
    np.testing.assert_array_equal(-scores["test_score"], errors)
    with pytest.raises(ValueError, match="embeddings=None, and the error needs the table"):
        neg_reconstruction_error(compressor().fit(table))


def test_compressors_in_unions_and_columns(table):
    union = FeatureUnion([("words", compressor(table)), ("counts", CountVectorizer())])
    pipe = make_pipeline(union, LogisticRegression()).fit(TEXTS, LABELS)
    assert n_bytes(pipe) == -union.transformer_list[0][1].compressed_.file_nbytes
    columns = ColumnTransformer([("words", compressor(table), "text")], remainder="drop")
    with pytest.raises(NotFittedError):
        n_bytes(columns)
    columns.fit(pd.DataFrame({"text": TEXTS, "other": 0}), LABELS)
    fitted = columns.named_transformers_["words"]
    assert n_bytes(columns) == -fitted.compressed_.file_nbytes


# ---------------------------------------------------------------------------------------------
# Which candidate a search takes


def results(scores, sizes, name="accuracy", size="n_bytes"):
    """What a search found: scores (n_candidates, n_folds) and sizes (n_candidates,)."""
    scores = np.array(scores, float)
    folds = {f"split{i}_test_{name}": column for i, column in enumerate(scores.T)}
    means = {f"mean_test_{name}": scores.mean(1), f"mean_test_{size}": np.array(sizes, float)}
    return {**folds, **means}


def test_smallest_within_standard_errors():
    # The best scores .8 on average; its standard error is .1 / sqrt(3) = .0577.
    scores = [[0.7, 0.8, 0.9], [0.75, 0.75, 0.75], [0.74, 0.74, 0.74], [0.68, 0.68, 0.68]]
    found = results(scores, [-4000, -3000, -2000, -1000])
    assert smallest_within(std=0)(found) == 0
    assert smallest_within(std=1)(found) == 1  # .7423 is the least
    assert smallest_within(std=1.05)(found) == 2  # .7394
    assert smallest_within(std=3)(found) == 3
    assert type(smallest_within()(found)) is int


def test_smallest_within_breaks_ties():
    scores = [[0.7, 0.9], [0.8, 0.8], [0.8, 0.8]]
    assert smallest_within()(results(scores, [-10, -10, -10])) == 0
    assert smallest_within()(results([[0.5, 0.9], *scores[1:]], [-10, -10, -10])) == 1


def test_smallest_within_leaves_out_failed_fits():
    scores = [[np.nan, np.nan], [0.8, 0.9], [0.7, 0.9]]
    assert smallest_within()(results(scores, [np.nan, -9, -8])) == 2
    with pytest.raises(ValueError, match="all fits failed"):
        smallest_within()(results([[np.nan, np.nan]], [np.nan]))


def test_smallest_within_by_other_names():
    found = results([[0.8, 0.9], [0.8, 0.9]], [20.0, 30.0], "f1", "ratio")
    assert smallest_within(scoring="f1", size="ratio")(found) == 1
    assert smallest_within(size="ratio")(found) == 1


def test_smallest_within_pickles():
    rule = smallest_within(std=2, scoring="f1")
    assert pickle.loads(pickle.dumps(rule)) == rule == copy.deepcopy(rule)


@pytest.mark.parametrize(
    ("drop", "parameters", "said"),
    [
        ("mean_test_n_bytes", {}, r"size='n_bytes' is none of the search's scores \['accuracy'\]"),
        ("mean_test_accuracy", {"scoring": "accuracy"}, "scoring='accuracy' is none"),
        ("mean_test_accuracy", {}, r"one score beside 'n_bytes', and the search has \[\]"),
        ("split1_test_accuracy", {}, "has 1 fold"),
    ],
)
def test_smallest_within_says_what_is_missing(drop, parameters, said):
    found = results([[0.8, 0.9]], [-10])
    del found[drop]
    with pytest.raises(ValueError, match=said):
        smallest_within(**parameters)(found)


def test_smallest_within_of_several_scores():
    found = results([[0.8, 0.9]], [-10]) | results([[0.8, 0.9]], [-10], "f1")
    with pytest.raises(ValueError, match=r"scoring='accuracy'"):
        smallest_within()(found)
    assert smallest_within(scoring="f1")(found) == 0
    with pytest.raises(ValueError, match="std=-1 must be 0 or more"):
        smallest_within(std=-1)


def test_a_single_score_is_not_enough(table):
    search = GridSearchCV(
        pipeline(table), {"compressor__n_codewords": [2]}, cv=2, refit=smallest_within()
    )
    with pytest.raises(ValueError, match="scoring="):
        search.fit(TEXTS, LABELS)
