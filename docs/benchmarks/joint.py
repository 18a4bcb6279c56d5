"""Two tasks on one table, beside each alone: chunking (CoNLL-2000) and sentiment (SST-2).

    python docs/benchmarks/joint.py --data FOLDER

compresses GloVe's rows of the words of both tasks: for chunking, for sentiment, and for both at
once. Scores each task on each table, and writes ``joint.jsonl`` and ``joint.md``. Points that the
file has already are not measured again. FOLDER holds ``conll2000`` and ``sst2`` as `kinds` and
`frontier` read them.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import kinds
import numpy as np
import tasks
from command import command_line, run
from linear import linear_score
from ours import BASE, kept, rebuilt
from points import Job, Line, grouped, mean_of, size_cells

from skadacomp import AdaptiveCodebookCompressor, EmbeddingTable

CHUNKING, SENTIMENT = "chunking", "sentiment"
# What to compress for, and how; tags need more bits a word than moods.
_COMMON: dict[str, Any] = {**BASE, "n_codewords": 8, "size_penalty": 0.002}
_NAMES: dict[str, dict[str, Any]] = {
    CHUNKING: {},
    SENTIMENT: {},
    "both": {},
    "both, chunking weighs 4 times": {"task_weights": (4, 1)},
    "the same, bits at 2/3 of the price": {"task_weights": (4, 1), "size_penalty": 0.002 * 2 / 3},
    "chunking weighs twice, bits at 3/5 of the price": {
        "task_weights": (2, 1),
        "size_penalty": 0.002 * 3 / 5,
    },
    "the same, bits at 0.55 of the price": {"task_weights": (2, 1), "size_penalty": 0.002 * 0.55},
}


@dataclass(frozen=True)
class Pair:
    """Both tasks, on a table of the words of both."""

    table: EmbeddingTable
    chunking: kinds.Case
    sentiment: tasks.Case

    @classmethod
    def load(cls, folder: Path) -> Pair:
        """Read both and put their rows together."""
        chunking = kinds.load_case(folder, "tagging")
        sentiment = tasks.load_case(folder, "sst2", "glove-50", None, 0)
        whole = tasks.load_source("glove-50").table
        words = [*chunking.table.words, *sentiment.table.words]
        table = tasks.part_of(whole, np.unique([whole.index[word] for word in words]))
        rows = np.array([table.index[word] for word in sentiment.table.words])
        documents = [rows[document] for document in sentiment.documents]
        return cls(
            table,
            replace(chunking, table=table),
            replace(sentiment, table=table, documents=documents),
        )

    def fit(self, name: str, seed: int) -> AdaptiveCodebookCompressor:
        """Compress the table for one task, or for both."""
        chunks = self.chunking.split
        moods = self.sentiment
        documents = [[self.table.words[i] for i in document] for document in moods.documents]
        given = {
            CHUNKING: [chunks.part(part) for part in (chunks.train, chunks.dev)],
            SENTIMENT: [
                ([documents[i] for i in part], moods.labels[part])
                for part in (moods.train, moods.dev)
            ],
        }
        parameters = {**_COMMON, **_NAMES[name], "random_state": seed}
        if name != SENTIMENT:  # networks fit a task within few epochs
            parameters |= self.chunking.schedule.of_fits
        compressor = AdaptiveCodebookCompressor(**parameters)
        if name in given:
            (X, y), (X_val, y_val) = given[name]
        else:
            late, early = ([given[task][k] for task in (CHUNKING, SENTIMENT)] for k in (1, 0))
            X, y = ([part[k] for part in early] for k in (0, 1))
            X_val, y_val = ([part[k] for part in late] for k in (0, 1))
        return compressor.fit(self.table, X, y, X_val=X_val, y_val=y_val)

    def measure(self, name: str, seed: int) -> Line:
        """Compress the table, and score both tasks on it: F1 of chunks, accuracy of moods."""
        fitted = self.fit(name, seed)
        vectors = rebuilt(fitted)
        chunks = kinds.head_scores(self.chunking, vectors, seed, None)
        return {
            "nbytes": fitted.nbytes_,
            "table_nbytes": self.table.nbytes,
            CHUNKING: round(chunks.test["score"], 5),
            SENTIMENT: round(linear_score(self.sentiment, kept(fitted, vectors)).test, 5),
        }


def jobs(given: Namespace) -> Iterator[Job]:
    """List what to measure."""
    pair = Pair.load(given.data)
    for seed in range(given.seeds):
        for name in _NAMES:
            yield {"name": name, "seed": seed}, partial(pair.measure, name, seed)


def table_of(points: list[Line]) -> str:
    """Lay the points out as Markdown, means over the seeds."""
    names = ("compressed for", "bytes", "times smaller")
    names += ("chunking, F1", "sentiment, accuracy", "seeds")
    lines = [f"| {' | '.join(names)} |", "|---|" + "--:|" * (len(names) - 1)]
    for (name,), found in grouped(points, "name").items():
        scores = [f"{mean_of(found, task):.4f}" for task in (CHUNKING, SENTIMENT)]
        lines.append(f"| {name} | {size_cells(found)} | {' | '.join(scores)} | {len(found)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run from the command line."""
    run(command_line(__doc__), "joint", jobs, table_of)


if __name__ == "__main__":
    main()
