"""Task accuracy against bytes, for skadacomp and for what people would use instead.

    python docs/benchmarks/frontier.py --data FOLDER

measures every method on every task, table, number of labels, head and seed; appends a line of JSON
for each point to ``frontier.jsonl``; and writes from it the tables and the pictures. Points that
the file has already are not measured again, so that an interrupted run goes on where it stopped.
FOLDER holds a folder a task with ``train.tsv``, ``test.tsv`` and perhaps ``dev.tsv``, each line
``label<TAB>text``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from pathlib import Path
from time import perf_counter

import faiss
import numpy as np
import ours
import report
import torch
from bag_of_words import bag_of_words
from command import command_line, read_arguments
from convolution import convolutional_score
from joblib import Parallel, delayed
from linear import Score, linear_score
from numpy.typing import NDArray
from peers import Compressed, Peer, peers
from points import Line, append_point, read_points
from tasks import TABLES, TASKS, Case, load_case
from tqdm.auto import tqdm

_LARGE = 10_000_000  # numbers in a table from which on the slow methods are left out
_FROZEN: dict[tuple[str, ...], Compressed] = {}  # of this process
Done = dict[tuple[str, str, str], Line]  # points by method, source and setting


@dataclass(frozen=True)
class Cell:
    """What all methods are compared on at once."""

    task: str
    table: str
    rows: str  # "task" or "whole"
    labels: int | str  # "all" or how many labelled documents there are
    head: str
    seed: int

    def load(self, folder: Path) -> Case:
        """Read the task and cut it."""
        n_labels = None if self.labels == "all" else int(self.labels)
        whole = self.rows == "whole"
        return load_case(folder, self.task, self.table, n_labels, self.seed, whole=whole)


class Bench:
    """One cell's measurements, less those that are done.

    Parameters
    ----------
    cell : Cell
    folder : Path
        Where the tasks lie.
    done : dict of (method, source, setting) to line
    effort : {"full", "short"}
        Which settings of each method.
    """

    def __init__(self, cell: Cell, folder: Path, done: Done, effort: str) -> None:
        self.cell, self.done = cell, done
        self.case = cell.load(folder)
        self.effort = "short" if self.case.table.vectors.size >= _LARGE else effort
        self.tuned: dict[str, NDArray[np.float32]] = {}  # by pull

    def lines(self) -> Iterator[Line]:
        """Measure everything."""
        if self.cell.head == "linear":
            yield from self._bag_of_words()
        yield from self._full_precision()
        yield from self._ours()
        yield from self._peers()

    def _bag_of_words(self) -> Iterator[Line]:
        if ("bag of words", "none", "") in self.done:
            return
        start = perf_counter()
        for found in bag_of_words(self.case):
            score, seconds = Score(found.dev, found.test), perf_counter() - start
            yield self._line(
                "bag of words", "none", found.setting, found.nbytes, score, None, seconds
            )

    def _full_precision(self) -> Iterator[Line]:
        weakest = (report.WEAKEST,) if self.cell.head == "linear" else ()
        for source in (report.FROZEN, *weakest, report.FINE_TUNED):
            if (report.FULL, source, "float32") not in self.done:
                start = perf_counter()
                vectors = self._vectors(source)
                seconds = perf_counter() - start
                name = report.FULL, source, "float32"
                self.done[name] = self._scored(*name, vectors, vectors.nbytes, seconds)
                yield self.done[name]

    def _ours(self) -> Iterator[Line]:
        for entry in ours.entries(self.effort, self.cell.head, self.case.table.n_dims):
            if (entry.method, "task", entry.setting) in self.done:
                continue
            start = perf_counter()
            fitted = ours.fit(self.case, self.cell.head, self.cell.seed, **entry.parameters)
            seconds = perf_counter() - start
            vectors, nbytes = ours.rebuilt(fitted), fitted.nbytes_
            if self.cell.head == "linear":
                score = linear_score(self.case, ours.kept(fitted, vectors))
                if entry.method == report.OURS:
                    by_codes = linear_score(self.case, fitted._word_features)
                    yield self._line(
                        report.CODE_FEATURES, "task", entry.setting, nbytes, by_codes, None, seconds
                    )
            else:
                score = self._score(vectors)
            error = self._error(vectors)
            yield self._line(entry.method, "task", entry.setting, nbytes, score, error, seconds)

    def _peers(self) -> Iterator[Line]:
        shape = self.case.table.vectors.shape
        for source, peer in product(self._sources(), peers(*shape, self._peer_effort)):
            if (peer.method, source, peer.setting) in self.done:
                continue
            vectors = self._vectors(source)
            start = perf_counter()
            found = self._compress(peer, source, vectors)
            seconds = perf_counter() - start
            yield self._scored(
                peer.method, source, peer.setting, found.vectors, found.nbytes, seconds
            )

    def _sources(self) -> Iterator[str]:
        """Name the tables that peers compress."""
        yield report.FINE_TUNED
        # The convolution takes long, and codes of the frozen table come nowhere near it. Its words
        # have places, and always the weakest pull.
        if self.cell.head == "linear":
            yield report.FROZEN
            chosen, weakest = (
                self.done[report.FULL, source, "float32"]
                for source in (report.FINE_TUNED, report.WEAKEST)
            )
            # Two pulls leave the pretrained table behind by unlike errors, if by no other figure.
            if any(chosen[name] != weakest[name] for name in ("dev", "test", "error")):
                yield report.WEAKEST

    @property
    def _peer_effort(self) -> str:
        slow = self.effort == "short" and self.cell.head == "convolutional"
        return "least" if slow else self.effort

    def _compress(self, peer: Peer, source: str, vectors: NDArray[np.float32]) -> Compressed:
        """Quantize the table; the frozen one, which is the same in every cell, once."""
        if source != report.FROZEN:
            return peer.compress(vectors, self.cell.seed)
        key = (self.cell.task, self.cell.table, self.cell.rows, peer.method, peer.setting)
        if key not in _FROZEN:
            _FROZEN[key] = peer.compress(vectors, 0)
        return _FROZEN[key]

    def _vectors(self, source: str) -> NDArray[np.float32]:
        if source == report.FROZEN:
            return np.asarray(self.case.table.vectors)
        if source not in self.tuned:
            with ours.weakest_pull() if source == report.WEAKEST else nullcontext():
                self.tuned[source] = ours.fine_tuned(self.case, self.cell.head, self.cell.seed)
        return self.tuned[source]

    def _scored(
        self,
        method: str,
        source: str,
        setting: str,
        vectors: NDArray[np.float32],
        nbytes: int,
        seconds: float,
    ) -> Line:
        """Score vectors that took so long to make."""
        score, error = self._score(vectors), self._error(vectors)
        return self._line(method, source, setting, nbytes, score, error, seconds)

    def _score(self, vectors: NDArray[np.float32]) -> Score:
        if self.cell.head == "linear":
            return linear_score(self.case, vectors)
        return convolutional_score(self.case, vectors, self.cell.seed)

    def _error(self, vectors: NDArray[np.float32]) -> float:
        """Relative squared error of the pretrained rows, weighted by the words' frequency."""
        weights, table = self.case.frequency, self.case.table.vectors
        left = weights @ ((table - vectors) ** 2).sum(1)
        return float(left / (weights @ ((table - weights @ table) ** 2).sum(1)))

    def _line(
        self,
        method: str,
        source: str,
        setting: str,
        nbytes: int,
        score: Score,
        error: float | None,
        seconds: float,
    ) -> Line:
        found = {
            "method": method,
            "source": source,
            "setting": setting,
            "nbytes": int(nbytes),
            "table_nbytes": 4 * self.case.table.vectors.size,
            "dev": round(score.dev, 5),
            "test": round(score.test, 5),
            "error": None if error is None else round(error, 5),
            "seconds": round(seconds, 2),
        }
        return asdict(self.cell) | found


def measure(cells: list[Cell], folder: Path, effort: str, output: Path) -> None:
    """Measure cells, writing each point as it is found; one thread, for jobs run side by side."""
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    done = done_in(output)
    for cell in cells:
        for line in Bench(cell, folder, done.get(cell, {}), effort).lines():
            append_point(output, line)
    _FROZEN.clear()


def done_in(output: Path) -> dict[Cell, Done]:
    """Read which points the file has, by cell."""
    done: dict[Cell, Done] = {}
    for line in read_points(output):
        cell = Cell(**{name: line[name] for name in Cell.__dataclass_fields__})
        points = done.setdefault(cell, {})
        points[line["method"], line["source"], line["setting"]] = line
        if line["method"] == "bag of words":
            points["bag of words", "none", ""] = line  # all its sizes come from one go
    return done


def _labels(text: str) -> int | str:
    return text if text == "all" else int(text)


def main() -> None:
    """Run from the command line."""
    parser = command_line(__doc__)
    parser.add_argument("--tasks", nargs="+", default=TASKS)
    parser.add_argument("--tables", nargs="+", default=TABLES, choices=TABLES)
    parser.add_argument("--labels", nargs="+", type=_labels, default=["all", 500, 100])
    parser.add_argument("--heads", nargs="+", default=["linear", "convolutional"])
    parser.add_argument("--rows", choices=["task", "whole"], default="task")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--effort", choices=["full", "short"], default="full")
    parser.add_argument("--jobs", type=int, default=1, help="tables and tasks side by side")
    given = read_arguments(parser)
    file = given.output / "frontier.jsonl"
    # All cells of a task and a table are one job: they share the codes of the frozen table.
    jobs = [
        [
            Cell(task, table, given.rows, labels, head, seed)
            for labels, head, seed in product(given.labels, given.heads, range(given.seeds))
        ]
        for table, task in product(given.tables, given.tasks)
    ]
    run = partial(measure, folder=given.data, effort=given.effort, output=file)
    parallel = Parallel(n_jobs=given.jobs, return_as="generator_unordered")
    for _ in tqdm(parallel(delayed(run)(cells) for cells in jobs), total=len(jobs), unit="job"):
        pass
    report.write(file, given.output)


if __name__ == "__main__":
    main()
