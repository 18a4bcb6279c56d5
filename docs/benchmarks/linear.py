"""The linear head on pooled words: one recipe for every method."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from tasks import Case

_STRENGTHS = (0.5, 3.0, 20.0, 100.0)  # C of logistic regression


@dataclass(frozen=True)
class Score:
    """Accuracy on dev by what train taught, and on test by what train and dev taught."""

    dev: float
    test: float


def linear_score(case: Case, words: NDArray[np.float32] | sparse.csr_matrix) -> Score:
    """Classify mean-pooled documents by logistic regression.

    C is chosen by log loss on dev; for the test the classifier is then fitted on train and dev.
    Vectors are brought to the scale of the pretrained table, so that the same C suit all tables.

    Parameters
    ----------
    words : array or sparse matrix (n_words, n_features)
        Vectors or other features of the words. Words whose rows are all zeros are skipped.
    """
    X = _pool(case, words)
    if not sparse.issparse(words):
        X *= case.scale
    y = case.labels
    tried = []
    for strength in _STRENGTHS:
        model = _fit(X, y, case.train, strength)
        loss = log_loss(y[case.dev], model.predict_proba(X[case.dev]), labels=model.classes_)
        tried.append((loss, strength, model.score(X[case.dev], y[case.dev])))
    _, strength, dev = min(tried)
    model = _fit(X, y, np.concatenate([case.train, case.dev]), strength)
    return Score(float(dev), float(model.score(X[case.test], y[case.test])))


def _fit(X: NDArray, y: NDArray, part: NDArray[np.int64], strength: float) -> LogisticRegression:
    return LogisticRegression(C=strength, max_iter=300, tol=1e-3).fit(X[part], y[part])


def _pool(case: Case, words: NDArray[np.float32] | sparse.csr_matrix) -> NDArray[np.float32]:
    """Mean of the kept words of each document, (n_documents, n_features)."""
    kept = np.asarray(abs(words).sum(1)).ravel() > 0
    totals = case.counts @ kept.astype(np.float32)
    pooled = sparse.csr_matrix(case.counts) @ words
    pooled = pooled.toarray() if sparse.issparse(pooled) else pooled
    return np.asarray(pooled / np.maximum(totals, 1)[:, None], np.float32)
