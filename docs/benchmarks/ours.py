"""skadacomp's own entries: tables at several sizes, and what each part of it is worth."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray
from report import FIXED, OURS
from tasks import Case

from skadacomp import AdaptiveCodebookCompressor
from skadacomp._learning import fine_tune_table, teacher
from skadacomp._learning.shelf import TEACHERS

_LONG = (0, 2, 4, 8, 16)  # where bits are cheap, longer codes are worth their codebooks
FINE = (0, 1, 2, 4, 8)  # of many codewords a single code says much already
# Nothing for directions that the head does not read.
_TASK_ALONE: dict[str, Any] = {"codebook_bits": 4, "reconstruction_weight": 0}

# What a setting does not say, whatever the head.
BASE: dict[str, Any] = {
    "code_lengths": (0, 2, 4, 8),
    "n_codewords": 4,
    "codebook_bits": 8,
    "size_penalty": 0.02,
}

# What the estimator has by itself, for a linear head.
DEFAULT: dict[str, Any] = {
    "size_penalty": 0.014,
    "code_lengths": FINE,
    "n_codewords": 16,
    "codebook_bits": 4,
}


def _few_labels(
    penalty: float, lengths: tuple[int, ...], n_codewords: int, weight: float
) -> dict[str, Any]:
    """Give a setting that keeps much of the table as it was, for what few labels do not tell."""
    return {
        "size_penalty": penalty,
        "code_lengths": lengths,
        "n_codewords": n_codewords,
        "reconstruction_weight": weight,
        "codebook_bits": 4,
    }


# The first of each list are what lesser efforts run.
_LINEAR: list[dict[str, Any]] = [
    DEFAULT,
    {"size_penalty": 0.02},
    {"size_penalty": 0.005},
    {"size_penalty": 0.0005, "code_lengths": _LONG},
    {"size_penalty": 0.08},
    {"size_penalty": 0.04},
    {"size_penalty": 0.01},
    {"size_penalty": 0.002, "code_lengths": _LONG},
    {"size_penalty": 0.0001, "code_lengths": _LONG},
    {"size_penalty": 0.02, "n_codewords": 8},
    {"size_penalty": 0.01, "n_codewords": 8},
    {"size_penalty": 0.005, "n_codewords": 8},
    {"size_penalty": 0.01, "n_codewords": 16},
    {"size_penalty": 0.007},
    {"size_penalty": 0.015, "n_codewords": 8},
    {"size_penalty": 0.012, "n_codewords": 8},
    # Nothing for directions that the head does not read.
    {"size_penalty": 0.01, "n_codewords": 8, "reconstruction_weight": 0},
    {"size_penalty": 0.002, "reconstruction_weight": 0},
    {"size_penalty": 0.02, "codebook_bits": 4},
    {"size_penalty": 0.005, "n_codewords": 8, "codebook_bits": 4},
    {"size_penalty": 0.01, "n_codewords": 8, "codebook_bits": 4},
    {"size_penalty": 0.0005, "code_lengths": _LONG, "codebook_bits": 4},
    # The large end, for tables of many dimensions.
    {"size_penalty": 0.0001, "code_lengths": _LONG, "codebook_bits": 4},
    {"size_penalty": 0.00003, "code_lengths": (0, 4, 8, 16, 32), "codebook_bits": 4},
    {"size_penalty": 0.04, "codebook_bits": 4},
    # Where one direction tells all, codes beyond a word's third or fourth tell next to nothing.
    {"size_penalty": 0.02, "code_lengths": (0, 1, 2, 3)},
    {"size_penalty": 0.01, "code_lengths": (0, 1, 2, 3, 4)},
    {"size_penalty": 0.04, "code_lengths": (0, 1, 2, 3)},
    # Few codes of more codewords, and fine steps between the lengths.
    {"size_penalty": 0.014, "code_lengths": FINE, "n_codewords": 16, **_TASK_ALONE},
    {"size_penalty": 0.01, "code_lengths": FINE, "n_codewords": 16, **_TASK_ALONE},
    {"size_penalty": 0.012, "code_lengths": FINE, "n_codewords": 8, **_TASK_ALONE},
    {"size_penalty": 0.008, "code_lengths": (0, 1, 2, 4), "n_codewords": 16, "codebook_bits": 4},
    {"size_penalty": 0.02, "code_lengths": (0, 1, 2, 3, 4), "n_codewords": 16, "codebook_bits": 4},
    {"size_penalty": 0.002, "code_lengths": (0, 1, 2, 4), "n_codewords": 32, "codebook_bits": 4},
    {"size_penalty": 0.005, "code_lengths": FINE, "n_codewords": 16, "codebook_bits": 4},
    {"size_penalty": 0.002, "code_lengths": FINE, "n_codewords": 16, "codebook_bits": 4},
    {"size_penalty": 0.01, "code_lengths": FINE, "n_codewords": 16, "codebook_bits": 4},
    {"size_penalty": 0.012, "code_lengths": (0, 1, 2, 4), "n_codewords": 16, "codebook_bits": 4},
    # A code at least for every word, those that training never showed included.
    {"size_penalty": 0.006, "code_lengths": (1, 2, 4), "n_codewords": 16, **_TASK_ALONE},
    {"size_penalty": 0.003, "code_lengths": (1, 2, 4, 8), "n_codewords": 16, **_TASK_ALONE},
    {"size_penalty": 0.003, "code_lengths": (1, 2, 4), "n_codewords": 32, "codebook_bits": 4},
    *(
        _few_labels(*given)
        for given in (
            (0.0001, (0, 4, 8, 16), 16, 1),
            (0.0005, (0, 4, 8, 16), 16, 1),
            (0.002, (0, 4, 8, 16), 16, 1),
            (0.0001, (0, 2, 4, 8), 16, 1),
            # Of many codewords one or two say what a word is about.
            (0.01, (0, 1), 256, 3),
            (0.003, (0, 1), 256, 3),
            (0.003, (0, 1, 2), 256, 3),
            (0.01, (0, 1), 128, 3),
            (0.01, (0, 1, 2), 64, 3),
            # A hundred labels and many dimensions.
            (0.0001, (0, 4, 8, 16), 16, 10),
            (0.0001, (0, 1, 2, 4), 256, 10),
        )
    ),
    # As much of the table's leading components as quantizers have of them.
    *(
        {**_few_labels(penalty, lengths, 16, weight), "n_components": number}
        for number in (128, 32)
        for penalty, lengths, weight in (
            (0.0001, (0, 4, 8, 16), 1),
            (0.00001, (0, 8, 16, 32), 3),
            (0.00001, (0, 8, 16, 32, 64), 3),
        )
    ),
    {
        "size_penalty": 0.002,
        "code_lengths": (0, 1, 2, 4),
        "n_codewords": 32,
        "codebook_bits": 4,
        "n_components": 128,
    },
    # Where bits are dear, few codes: of many codewords for many classes, of few for two. Those of
    # 64 say enough for every word to have one.
    *(
        {
            "size_penalty": penalty,
            "code_lengths": lengths,
            "n_codewords": n_codewords,
            **_TASK_ALONE,
        }
        for penalty, lengths, n_codewords in (
            (0.06, (0, 1, 2), 16),
            (0.04, (0, 1, 2), 16),
            (0.025, (0, 1, 2), 16),
            (0.015, (0, 1, 2, 3), 16),
            (0.04, (0, 1), 32),
            (0.04, (0, 1), 8),
            (0.015, (0, 1, 2), 4),
            (0.02, (0, 1), 64),
            (0.02, (1, 2), 64),
            (0.01, (1, 2), 64),
            # Of fewer codewords a code for every word takes few bytes.
            (0.008, (1, 2), 16),
            (0.01, (1, 2, 4), 8),
            (0.01, (1, 2, 3), 4),
            # The small end: one code, for the words that say most.
            *((penalty, (0, 1), 16) for penalty in (0.08, 0.16, 0.32, 0.64, 1.28)),
        )
    ),
]
_CONVOLUTIONAL: list[dict[str, Any]] = [
    {"size_penalty": 0.02, "n_codewords": 8},
    {"size_penalty": 0.02, "n_codewords": 16},
    {"size_penalty": 0.008, "n_codewords": 8, "code_lengths": _LONG},
    {"size_penalty": 0.005},
    {"size_penalty": 0.01, "n_codewords": 8},
    {"size_penalty": 0.005, "n_codewords": 8},
    {"size_penalty": 0.02},
    {"size_penalty": 0.0015},
    *_LINEAR[4:9],
    {"size_penalty": 0.003, "n_codewords": 8},
    {"size_penalty": 0.005, "n_codewords": 8, "code_lengths": _LONG},
    {"size_penalty": 0.0015, "n_codewords": 8, "code_lengths": _LONG},
    {"size_penalty": 0.0005, "n_codewords": 8, "code_lengths": _LONG},
    {"size_penalty": 0.005, "n_codewords": 16, "code_lengths": FINE, "codebook_bits": 4},
    {"size_penalty": 0.04, "n_codewords": 16, "code_lengths": FINE, "codebook_bits": 4},
]
_CURVES = {"linear": _LINEAR, "convolutional": _CONVOLUTIONAL}
_ABLATIONS: dict[str, list[dict[str, Any]]] = {
    "skadacomp, gumbel-softmax lengths": [
        {"size_penalty": penalty, "length_method": "gumbel-softmax"}
        for penalty in (0.005, 0.02, 0.04, 0.0015)
    ],
    "skadacomp, lengths by frequency": [
        {"size_penalty": penalty, "length_method": "frequency"}
        for penalty in (0.005, 0.02, 0.08, 0.001)
    ],
    FIXED: [
        *({"code_lengths": (length,)} for length in (4, 2, 1, 8, 16)),
        # As the best of ours on TREC-6 is, but for the lengths.
        *({"code_lengths": (length,), "n_codewords": 16, **_TASK_ALONE} for length in (1, 2, 4)),
        *(
            {"code_lengths": (1,), "n_codewords": number, **_TASK_ALONE}
            for number in (8, 32, 64, 4, 2)
        ),
    ],
    # The trade between the task and the table as it was.
    "skadacomp, reconstruction weight 10": [
        {"size_penalty": 0.002, "code_lengths": _LONG, "reconstruction_weight": 10},
        {"size_penalty": 0.02, "code_lengths": _LONG, "reconstruction_weight": 10},
        {
            "size_penalty": 0.0003,
            "code_lengths": _LONG,
            "n_codewords": 16,
            "reconstruction_weight": 10,
        },
    ],
    "skadacomp, reconstruction weight 1": [
        {"size_penalty": penalty, "code_lengths": _LONG, "reconstruction_weight": 1}
        for penalty in (0.005, 0.0005, 0.02)
    ],
    "skadacomp, plain form of the paper": [
        {
            "init": "random",
            "n_codewords": 2,
            "code_lengths": (0, 8, 16, 32),
            "size_penalty": penalty,
        }
        for penalty in (0.002, 0.0005, 0.01)
    ],
}


@dataclass(frozen=True)
class Entry:
    """One of our rows: what the estimator is called in the report, and its parameters."""

    method: str
    parameters: dict[str, Any]

    @property
    def setting(self) -> str:
        """The parameters beside `BASE`."""
        shown = {k: v for k, v in self.parameters.items() if k not in ("init", "length_method")}
        return ", ".join(f"{name}={value}" for name, value in shown.items())


def entries(effort: str, head: str, n_dims: int) -> Iterator[Entry]:
    """List what to measure on a table of so many dimensions.

    ``effort="short"`` has few ablations, and few sizes for a slow head.
    """
    short = effort == "short"
    slow = short and head == "convolutional"
    n_sizes = 3 if slow else None
    n_each = 1 if slow else 3 if short else None
    for parameters in _CURVES[head][:n_sizes]:
        if parameters.get("n_components", 0) < n_dims:
            yield Entry(OURS, parameters)
    for method, settings in _ABLATIONS.items():
        for parameters in settings[:n_each]:
            yield Entry(method, parameters)


def compressor(head: str, seed: int, **parameters: Any) -> AdaptiveCodebookCompressor:
    """Make the estimator; a convolutional head fits a task within few epochs."""
    if head == "convolutional":
        parameters = {"max_iter": 20, "n_iter_no_change": 4, **parameters}
    return AdaptiveCodebookCompressor(head=head, random_state=seed, **{**BASE, **parameters})


def task_of(case: Case, head: str) -> dict[str, Any]:
    """Give what `fit` takes beside the table; the case's dev documents say when to stop."""
    X = [_documents(case, part, head) for part in (case.train, case.dev)]
    y = [case.labels[part] for part in (case.train, case.dev)]
    return {"X_task": X[0], "y_task": y[0], "X_val": X[1], "y_val": y[1]}


def fit(case: Case, head: str, seed: int, **parameters: Any) -> AdaptiveCodebookCompressor:
    """Fit the estimator to the case."""
    return compressor(head, seed, **parameters).fit(case.table, **task_of(case, head))


def _documents(case: Case, part: NDArray[np.int64], head: str) -> Any:
    if head == "convolutional":
        return [case.documents[i].tolist() for i in part]
    return case.counts[part]


def fine_tuned(case: Case, head: str, seed: int, **parameters: Any) -> NDArray[np.float32]:
    """Fine-tune the table at full precision, as our own first stage does, for all methods alike."""
    given = task_of(case, head)
    problem = compressor(head, seed, **parameters)._problem(
        case.table, None, given["y_task"], given["X_task"], given["X_val"], given["y_val"]
    )
    return fine_tune_table(case.table.vectors, problem.tasks, problem.settings)


@contextmanager
def weakest_pull() -> Iterator[None]:
    """Fine-tune once, with the weakest pull, whichever held-out documents would choose."""
    TEACHERS.clear()  # none tells with which pull it was trained
    try:
        with patch.object(teacher, "_PULLS", teacher._PULLS[:1]):
            yield
    finally:
        TEACHERS.clear()


def rebuilt(fitted: AdaptiveCodebookCompressor) -> NDArray[np.float32]:
    """Vectors of all words; a word without a code has the mean vector."""
    return fitted.compressed_.vectors(np.arange(fitted.compressed_.n_words), missing="mean")


def kept(fitted: AdaptiveCodebookCompressor, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Of the rebuilt vectors, zeros for a word without a code, as pooling skips it."""
    return np.where(fitted.code_lengths_[:, None] > 0, vectors, np.float32(0))
