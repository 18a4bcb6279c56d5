"""How long a fit takes, beside fine-tuning the table and training a quantizer on it.

    python docs/benchmarks/fit_time.py --data FOLDER

Everything is timed in one run, several times in turn, each time with another seed, as how many
epochs a fit takes depends on it; ratios of medians are what counts. Writes ``fit_time.md``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import count
from time import perf_counter

import faiss
import numpy as np
import ours
import torch
from command import command_line, read_arguments
from peers import peers
from report import write_text
from tasks import Case, load_case, load_source

from skadacomp import EmbeddingTable
from skadacomp._learning.shelf import TEACHERS


def medians(jobs: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each job; the jobs take turns, so that a busy moment hits them alike.

    None finds what another has fine-tuned.
    """
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(rounds):
        for name, job in jobs.items():
            TEACHERS.clear()
            start = perf_counter()
            job()
            seconds[name].append(perf_counter() - start)
    return {name: float(np.median(times)) for name, times in seconds.items()}


def with_seeds(job: Callable[[int], object]) -> Callable[[], object]:
    """Give the job another seed each time."""
    seeds = count()
    return lambda: job(next(seeds))


def repeated(case: Case, times: int) -> Case:
    """Give each training document `times` times: as many times the tokens, the same words."""
    return replace(case, train=np.tile(case.train, times))


def widened(case: Case, times: int) -> Case:
    """Add rows that the task never touches, up to `times` as many."""
    whole = load_source("glove-50").table
    n_more = case.table.n_words * (times - 1)
    more = np.setdiff1d(np.arange(whole.n_words), [whole.index[w] for w in case.table.words])
    more = more[:n_more]
    words = [*case.table.words, *(whole.words[i] for i in more)]
    vectors = np.concatenate([case.table.vectors, whole.vectors[more]])
    return replace(case, table=EmbeddingTable(words, vectors))


def table(found: dict[str, float]) -> list[str]:
    """Lay the seconds out as Markdown."""
    rows = [f"| {name} | {seconds:.2f} |" for name, seconds in found.items()]
    return ["| job | median seconds |", "|---|---:|", *rows]


def main() -> None:
    """Run from the command line."""
    parser = command_line(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    given = read_arguments(parser)
    torch.set_num_threads(2)
    faiss.omp_set_num_threads(2)
    case = load_case(given.data, "sst2", "glove-50", None, 0)
    vectors = np.asarray(case.table.vectors)
    eight = {p.method: p.compress for p in peers(*vectors.shape) if p.setting == "8 × 4 bits"}
    fine_tune = partial(ours.fine_tuned, case, "linear")

    def fit(case: Case, seed: int, **schedule: int) -> object:
        return ours.fit(case, "linear", seed, **ours.DEFAULT, **schedule)

    once = ours.weakest_pull()  # in place of once for each pull that held-out documents choose from
    jobs: dict[str, Callable[[int], object]] = {
        "fine-tune the full table, one pull": once(fine_tune),
        "fine-tune the full table": fine_tune,
        "train faiss RQ, 8 codes of 4 bits": partial(eight["RQ"], vectors),
        "train faiss LSQ, 8 codes of 4 bits": partial(eight["LSQ"], vectors),
        "fit": partial(fit, case),
        "fit, 10 times the vocabulary": partial(fit, widened(case, 10)),
    }
    for times in (1, 2, 4, 8):
        # A fixed number of epochs: early stopping would blur the comparison.
        job = partial(fit, repeated(case, times), max_iter=2, n_iter_no_change=2)
        jobs[f"6 epochs, {times} times the tokens"] = once(job)
    found = medians({name: with_seeds(job) for name, job in jobs.items()}, given.rounds)
    tuning, _, rq, lsq, whole, wide, *_ = found.values()
    lines = [
        *table(found),
        "",
        f"Fit over fine-tuning with one pull and RQ: {whole / (tuning + rq):.2f} times.",
        f"Fit over fine-tuning with one pull and LSQ: {whole / (tuning + lsq):.2f} times.",
        f"Ten times the vocabulary: {wide / whole:.2f} times as long.",
    ]
    print("\n".join(lines))
    write_text(given.output / "fit_time.md", "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
