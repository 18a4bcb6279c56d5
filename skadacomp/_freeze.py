"""A fitted pipeline of compressor and linear classifier, made into a FrozenClassifier."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from skadacomp._compressor import AdaptiveCodebookCompressor
from skadacomp._frozen import Description, FrozenClassifier
from skadacomp._targets import IN_PLACE, PAIRS


def freeze(pipeline: Pipeline) -> FrozenClassifier:
    """Freeze a fitted pipeline into one file that classifies text with numpy alone.

    Parameters
    ----------
    pipeline : Pipeline
        Fitted; an AdaptiveCodebookCompressor, then a classifier that is linear on what it gives,
        with ``classes_``, ``coef_`` and ``intercept_``: LogisticRegression, LinearSVC,
        RidgeClassifier, SGDClassifier and the like. With ``output="vectors"`` the classifier's
        weights are moved onto the codewords. Steps of "passthrough" between them are skipped.

    Returns
    -------
    FrozenClassifier
        With ``predict``, ``decision_function``, ``predict_proba`` where the classifier is a
        logistic regression, and ``save``.

    Raises
    ------
    NotFittedError
        If the pipeline is not fitted.
    ValueError
        If it has other steps, the classifier is not linear, the compressor was fitted for tags,
        pairs or translations, or splits text with a ``tokenizer`` of one's own, which no file can
        hold.
    """
    frozen = classifier_of(pipeline)
    tokenizer = _steps(pipeline)[0].tokenizer
    if tokenizer is not None:
        raise ValueError(
            f"tokenizer={tokenizer!r:.80} cannot go into a file: fit the pipeline with "
            "tokenizer=None on lists of words, and give lists of words to the frozen classifier"
        )
    return frozen


def classifier_of(pipeline: Pipeline) -> FrozenClassifier:
    """Take a pipeline apart, as `freeze` does, however it splits text."""
    compressor, classifier = _steps(pipeline)
    check_is_fitted(compressor)
    check_is_fitted(classifier)
    _check_compressor(compressor)
    weights = _weights(classifier)
    table = compressor.compressed_
    if compressor.output == "vectors":
        books = table.codebooks.reshape(-1, table.n_dims)
        weights = weights @ np.vstack([books, table.mean]).T.astype(np.float64)
    description = Description(
        classifier.classes_.tolist(), compressor.pooling, compressor.lowercase, _link(classifier)
    )
    intercept = np.atleast_1d(np.asarray(classifier.intercept_, np.float32))
    # Without an intercept scikit-learn keeps a single 0.
    intercept = np.broadcast_to(intercept, weights.shape[:1]).copy()
    return FrozenClassifier(table, weights.astype(np.float32), intercept, description)


def _steps(pipeline: Pipeline) -> tuple[AdaptiveCodebookCompressor, Any]:
    if not isinstance(pipeline, Pipeline):
        raise ValueError(f"pipeline={pipeline!r:.80} must be a fitted scikit-learn Pipeline")
    steps = [step for _, step in pipeline.steps if step not in (None, "passthrough")]
    if len(steps) != 2 or not isinstance(steps[0], AdaptiveCodebookCompressor):
        kinds = [type(step).__name__ for step in steps]
        raise ValueError(
            f"pipeline has the steps {kinds}; it must be an AdaptiveCodebookCompressor and a "
            "linear classifier. Scaling can be left out: code features have one scale."
        )
    return steps[0], steps[1]


def _check_compressor(compressor: AdaptiveCodebookCompressor) -> None:
    if compressor.task_ in PAIRS or compressor.task_ in IN_PLACE:
        raise ValueError(
            f"the compressor was fitted for task={compressor.task_!r}, which gives more than one "
            "row of features a text; only a classifier of whole texts can be frozen"
        )


def _weights(classifier: Any) -> NDArray[np.float64]:
    """Weights of a linear classifier, (n_outputs, n_features)."""
    names = ("classes_", "coef_", "intercept_")
    coef = getattr(classifier, "coef_", None)
    if coef is None or not all(hasattr(classifier, name) for name in names):
        raise ValueError(
            f"the last step is {type(classifier).__name__}, which has no {', '.join(names)}: only "
            "a linear classifier can be frozen, such as LogisticRegression or LinearSVC"
        )
    coef = np.atleast_2d(np.asarray(coef.toarray() if hasattr(coef, "toarray") else coef, float))
    n_classes = len(classifier.classes_)
    if len(coef) != (1 if n_classes == 2 else n_classes):
        raise ValueError(
            f"the {type(classifier).__name__} has {len(coef)} rows of weights for {n_classes} "
            "classes; a linear classifier has one a class, or one for two classes"
        )
    return coef


def _link(classifier: Any) -> str:
    """Say what makes probabilities of scores."""
    if not isinstance(classifier, (LogisticRegression, LogisticRegressionCV)):
        return "none"
    if len(classifier.classes_) == 2:
        return "sigmoid"
    # This solver fits one class against the rest, and its probabilities are another formula.
    apart = classifier.solver == "liblinear" or getattr(classifier, "multi_class", None) == "ovr"
    return "none" if apart else "softmax"
