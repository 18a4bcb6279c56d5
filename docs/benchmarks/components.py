"""Learning along principal components of a wide table: time, size and accuracy.

    python docs/benchmarks/components.py --data FOLDER

fits the estimator to the three tasks with all labels and the 384-dimensional table of WordPieces,
along all dimensions and along some of their principal components, and otherwise as by default; and
scores the linear head on the rebuilt vectors, and on those of full precision that were fine-tuned
along as many. Adds to ``components.jsonl`` and writes ``components.md``. FOLDER is that of
``frontier.py``.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator
from functools import partial
from itertools import product
from time import process_time

import ours
from command import command_line, run
from linear import linear_score
from points import Job, Line, grouped, mean_of, size_cells
from report import FULL, OURS
from tasks import TASKS, Case, load_case

from skadacomp._learning.shelf import TEACHERS

_NUMBERS = (None, 256, 128, 64)


def jobs(given: Namespace) -> Iterator[Job]:
    """List what to measure; numbers take turns, so that a busy moment hits them alike."""
    for task in TASKS:
        for seed in range(given.seeds):
            case = load_case(given.data, task, "minilm-384", None, seed)
            for method, number in product((OURS, FULL), _NUMBERS):
                names = {"task": task, "seed": seed, "method": method, "n_components": number}
                yield names, partial(measure, case, seed, method, number)


def measure(case: Case, seed: int, method: str, n_components: int | None) -> Line:
    """Fit, or fine-tune alone, with nothing fine-tuned before; and score."""
    TEACHERS.clear()
    start = process_time()
    if method == FULL:
        vectors = ours.fine_tuned(case, "linear", seed, n_components=n_components)
        nbytes = case.table.nbytes
    else:
        fitted = ours.fit(case, "linear", seed, **ours.DEFAULT, n_components=n_components)
        vectors, nbytes = ours.kept(fitted, ours.rebuilt(fitted)), fitted.nbytes_
    seconds = process_time() - start
    score = linear_score(case, vectors)
    return {
        "nbytes": nbytes,
        "table_nbytes": case.table.nbytes,
        "cpu": round(seconds, 2),
        "dev": round(score.dev, 5),
        "test": round(score.test, 5),
    }


def table_of(points: list[Line]) -> str:
    """Lay the points out as Markdown, means over the seeds."""
    names = ("of CPU, s", "bytes", "times smaller", "dev", "test", "full precision, dev", "test")
    lines = [f"| task | components | {' | '.join(names)} |", "| --- |" + " ---: |" * 8]
    rows = grouped(points, "task", "n_components", "method")
    for (task, number, _), found in ((key, rows[key]) for key in rows if key[2] == OURS):
        scores = " | ".join(
            f"{100 * mean_of(points, part):.1f} %"
            for points in (found, rows[task, number, FULL])
            for part in ("dev", "test")
        )
        seconds = mean_of(found, "cpu")
        lines.append(
            f"| {task} | {number or 'all'} | {seconds:.1f} | {size_cells(found)} | {scores} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    run(command_line(__doc__), "components", jobs, table_of)
