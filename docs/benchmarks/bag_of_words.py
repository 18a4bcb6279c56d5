"""The classifier without any embedding: logistic regression on the words, pruned and rounded."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.special import expit
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.multiclass import OneVsRestClassifier
from sklearn.preprocessing import normalize
from tasks import Case

FEATURES = ("counts", "binary", "tf-idf")
_STRENGTHS = (0.3, 1.0, 3.0, 10.0, 30.0)  # C of the logistic regression
_PENALTIES = {"l2": 0.0, "l1": 1.0}  # as shares of l1
# scikit-learn before 1.8 goes by the name and warns of the share; later ones do the reverse.
_BY_NAME = LogisticRegression().penalty == "l2"
_FEWEST_WORDS = 30
_N_SIZES = 8


@dataclass(frozen=True)
class Pruned:
    """A classifier over some of the words.

    Parameters
    ----------
    nbytes : int
        Weights, inverse document frequencies, biases and scales, and which words are kept.
    dev : float
        Accuracy of the model fitted on train.
    test : float
        Accuracy of the model fitted on train and dev.
    setting : str
    """

    nbytes: int
    dev: float
    test: float
    setting: str


@dataclass(frozen=True)
class _Recipe:
    """What a model is fitted with."""

    features: str
    penalty: str
    strength: float
    words: NDArray[np.int64]  # ids of those kept


@dataclass(frozen=True)
class _Model:
    """Rounded weights over the words of a recipe.

    Parameters
    ----------
    weights : ndarray (n_scores, n_words) of float32
        int8 times a scale a class; there is one score for two classes.
    bias : ndarray (n_scores,)
    idf : ndarray (n_words,) of float32
        int8 times a scale; ones where the features need none.
    """

    recipe: _Recipe
    weights: NDArray[np.float32]
    bias: NDArray[np.float32]
    idf: NDArray[np.float32]


def bag_of_words(case: Case) -> list[Pruned]:
    """Fit on all words, then on fewer and fewer, with each kind of features.

    The accuracy on dev chooses the penalty, its strength and how words are ranked, with the log
    loss to settle ties.
    Whoever reads the result chooses among the features and numbers of words by `dev` and `nbytes`.

    Returns
    -------
    list of Pruned
        For each kind of features, from most words to fewest.
    """
    return [pruned for features in FEATURES for pruned in _prune(case, features)]


def _prune(case: Case, features: str) -> Iterator[Pruned]:
    """Rank the words by the best model on all of them, and keep the first k."""
    everything = np.arange(case.counts.shape[1])
    model, _ = _best(case, features, tuple(_PENALTIES), [everything])
    rankings = _rankings(case, model)
    n_useful = max(int(np.any(model.weights != 0, axis=0).sum()), 1)
    fewest = min(_FEWEST_WORDS, n_useful)
    sizes = np.unique(np.geomspace(fewest, n_useful, _N_SIZES).round().astype(int))[::-1]
    for size in sizes:
        kept = [np.sort(ranking[:size]) for ranking in rankings]
        model, dev = _best(case, features, (model.recipe.penalty,), kept)
        recipe = model.recipe
        final = _fit(case, recipe, np.concatenate([case.train, case.dev]))
        test, _ = _score(case, final, case.test)
        setting = f"{features}, {size} words, {recipe.penalty}, C={recipe.strength:g}"
        yield Pruned(_nbytes(final, len(everything)), dev, test, setting)


def _rankings(case: Case, model: _Model) -> list[NDArray[np.int64]]:
    """Order the words by the norm of their weights, alone and with their frequency in it.

    The first serves thousands of words. Among the few largest weights are many rare words, which
    touch few documents, so the second serves better there.
    """
    norms = np.linalg.norm(model.weights, axis=0)
    n_with = np.asarray((case.counts[case.train] > 0).sum(0)).ravel()
    merits = norms, norms * np.sqrt(n_with)
    return [np.argsort(-merit, kind="stable") for merit in merits]


def _best(
    case: Case, features: str, penalties: tuple[str, ...], kept: list[NDArray[np.int64]]
) -> tuple[_Model, float]:
    """Choose penalty, strength and words on dev; return the model on train and its accuracy.

    Parameters
    ----------
    kept : list of ndarray
        Sets of word ids to choose from.
    """
    recipes = [
        _Recipe(features, *choice) for choice in itertools.product(penalties, _STRENGTHS, kept)
    ]
    models = [_fit(case, recipe, case.train) for recipe in recipes]
    scores = [_score(case, model, case.dev) for model in models]
    best = max(range(len(models)), key=lambda i: (scores[i][0], -scores[i][1]))
    return models[best], scores[best][0]


def _fit(case: Case, recipe: _Recipe, documents: NDArray[np.int64]) -> _Model:
    """Fit and round to int8."""
    counts = case.counts[documents][:, recipe.words]
    idf = np.ones(len(recipe.words), np.float32)
    if recipe.features == "tf-idf":
        n_with = np.bincount(counts.indices, minlength=len(recipe.words))
        idf = _round_to_int8(np.log((1 + len(documents)) / (1 + n_with)) + 1)
    name = recipe.penalty
    regression = LogisticRegression(
        C=recipe.strength,
        **({"penalty": name} if _BY_NAME else {"l1_ratio": _PENALTIES[name]}),
        solver="liblinear",
        random_state=0,
        tol=1e-3,
        max_iter=300,
    )
    inputs = _inputs(counts, recipe, idf)
    with warnings.catch_warnings():
        # Few documents that words tell apart at a large C: dev judges the fit wherever it stops.
        warnings.simplefilter("ignore", ConvergenceWarning)
        fitted = OneVsRestClassifier(regression).fit(inputs, case.labels[documents])
    weights = np.vstack([one.coef_ for one in fitted.estimators_])
    bias = np.concatenate([one.intercept_ for one in fitted.estimators_]).astype(np.float32)
    return _Model(recipe, _round_to_int8(weights), bias, idf)


def _inputs(
    counts: sparse.csr_matrix, recipe: _Recipe, idf: NDArray[np.float32]
) -> sparse.csr_matrix:
    """Make features of the counts of the kept words, (n_documents, n_kept)."""
    if recipe.features == "counts":
        return counts
    if recipe.features == "binary":
        return counts.sign()
    # The length is over the kept words: it cannot be folded into the weights, so idf ships.
    return normalize(sparse.csr_matrix(counts @ sparse.diags_array(idf)))


def _round_to_int8(values: NDArray[np.floating]) -> NDArray[np.float32]:
    """Round to int8 times one scale a row."""
    scales = np.maximum(np.abs(values).max(-1, keepdims=True) / 127, 1e-12)
    return (np.rint(values / scales) * scales).astype(np.float32)


def _score(case: Case, model: _Model, documents: NDArray[np.int64]) -> tuple[float, float]:
    """Measure accuracy and log loss."""
    inputs = _inputs(case.counts[documents][:, model.recipe.words], model.recipe, model.idf)
    chances = expit(inputs @ model.weights.T + model.bias)  # (n_documents, n_scores)
    if chances.shape[1] == 1:
        chances = np.hstack([1 - chances, chances])
    chances = np.maximum(chances, 1e-9).astype(np.float64)
    chances /= chances.sum(1, keepdims=True)
    labels = case.labels[documents]
    loss = log_loss(labels, chances, labels=np.arange(chances.shape[1]))
    return float(np.mean(chances.argmax(1) == labels)), loss


def _nbytes(model: _Model, n_words: int) -> int:
    """Count what ships; which words are kept at the entropy of the mask, and no word strings."""
    n_scores = len(model.weights)
    # A word whose weights all round to zero need not ship (tf-idf needs it for the length).
    needed = np.any(model.weights != 0, axis=0) | (model.recipe.features == "tf-idf")
    n_kept = int(needed.sum())
    share = np.clip(n_kept / n_words, 1e-12, 1 - 1e-12)
    mask = -n_words * (share * np.log2(share) + (1 - share) * np.log2(1 - share)) / 8
    nbytes = n_kept * n_scores + 4 * 2 * n_scores + int(np.ceil(mask))
    return nbytes + (n_kept + 4 if model.recipe.features == "tf-idf" else 0)
