"""What the best code there can be keeps of the fine-tuned table, for pairs and translations.

    python docs/benchmarks/rate_distortion.py --data FOLDER

takes words for draws of one Gaussian variable with the covariance of the fine-tuned vectors,
whose squared error counts as much as the word comes in the task's documents, or as a power of
that. The least error at a size follows from reverse water-filling over words and axes, and the
vectors that leave it come out of the forward test channel: shrunk, with Gaussian noise (Cover and
Thomas 2006, section 10.3.3). No code of these vectors leaves less error, however long; codebooks
and lengths cost nothing here. A head is trained on such vectors as on those of every method.
Writes ``rate_distortion.jsonl`` and ``rate_distortion.md``. FOLDER is that of ``kinds.py``.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Iterator
from functools import cache, partial
from itertools import product

import numpy as np
from command import command_line, run
from kinds import NAMES, Case, figures, fine_tuned, first_head, head_scores, load_case
from numpy.typing import NDArray
from points import Job, Line, grouped, mean_of
from scipy.optimize import brentq

from skadacomp._learning.heads import Head
from skadacomp._learning.lengths import significance

# How many times smaller; translators take long to train.
_SIZES = {"pair": (50, 34, 25, 15), "pair-regression": (50, 34, 25, 15), "translation": (50,)}
_POWERS = (1.0, 0.7)


def least_errors(
    variances: NDArray[np.float64], weights: NDArray[np.float64], n_bits: float
) -> NDArray[np.float64]:
    """Squared errors whose weighted sum is the least at a number of bits, (n_words, n_axes).

    Parameters
    ----------
    variances : ndarray (n_axes,)
        Of every word alike, along independent axes.
    weights : ndarray (n_words,)
        How much each word's squared error counts, positive.
    n_bits : float
        For all words together.
    """

    def errors(log_level: float) -> NDArray[np.float64]:
        return np.minimum(variances, np.exp(log_level) / weights[:, None])

    def excess(log_level: float) -> float:
        return float(np.log2(variances / errors(log_level)).sum()) / 2 - n_bits

    highest = np.log(variances.max() * weights.max())  # no word has any bits
    found: NDArray[np.float64] = errors(brentq(excess, highest - 100, highest))
    return found


def sent(
    vectors: NDArray[np.float32], weights: NDArray[np.float64], nbytes: float, seed: int
) -> NDArray[np.float32]:
    """Send vectors through the channel that leaves the least error at a size."""
    centre = weights @ vectors
    moved = vectors - centre
    variances, axes = np.linalg.eigh((moved * weights[:, None]).T @ moved)
    errors = least_errors(variances, weights, 8 * nbytes)
    kept = 1 - errors / variances
    noise = np.random.default_rng(seed).normal(size=moved.shape)
    received = kept * (moved @ axes) + np.sqrt(errors * kept) * noise
    return (centre + received @ axes.T).astype(np.float32)


def jobs(given: Namespace) -> Iterator[Job]:
    """List what to measure, of each kind with every seed."""
    for kind, sizes in _SIZES.items():
        case = load_case(given.data, kind)
        (task,) = case.problem(0).tasks  # all seeds train on the same documents
        shares = significance(task.training_words, case.table.n_words)
        for seed in range(given.seeds):
            tuned = cache(partial(fine_tuned, case, seed))
            measure = partial(_measure, case, seed, cache(partial(first_head, case, seed, tuned)))
            names = {"kind": kind, "seed": seed}
            yield {**names, "times": 1, "power": 1.0}, partial(measure, tuned)
            for times, power in product(sizes, _POWERS):
                make = partial(_sent, shares**power, case.table.nbytes / times, seed, tuned)
                yield {**names, "times": times, "power": power}, partial(measure, make)


def _sent(
    weights: NDArray[np.float64],
    nbytes: float,
    seed: int,
    tuned: Callable[[], NDArray[np.float32]],
) -> NDArray[np.float32]:
    return sent(tuned(), weights / weights.sum(), nbytes, seed)


def _measure(
    case: Case,
    seed: int,
    start: Callable[[], Head | None],
    make: Callable[[], NDArray[np.float32]],
) -> Line:
    return figures(head_scores(case, make(), seed, start()))


def table_of(points: list[Line]) -> str:
    """Lay out how far each is above the fine-tuned table, in points; means over the seeds."""
    lines = [
        "| points above the fine-tuned table | times smaller | by share: test | dev "
        "| by its power of 0.7: test | dev |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    rows = grouped(points, "kind", "times", "power")
    for kind, sizes in _SIZES.items():
        full = rows[kind, 1, 1.0]
        for times in sizes:
            found = [rows[kind, times, power] for power in _POWERS]
            cells = [_above(full, some, part) for some in found for part in ("test", "dev")]
            lines.append(f"| {NAMES[kind]} | {times} | {' | '.join(cells)} |")
            if "chrF" in full[0]:
                cells = [cell for some in found for cell in (_above(full, some, "chrF"), "")]
                lines.append(f"| chrF of these | {times} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _above(full: list[Line], found: list[Line], part: str) -> str:
    return f"{100 * (mean_of(found, part) - mean_of(full, part)):+.1f}"


def main() -> None:
    """Run from the command line."""
    run(command_line(__doc__), "rate_distortion", jobs, table_of)


if __name__ == "__main__":
    main()
