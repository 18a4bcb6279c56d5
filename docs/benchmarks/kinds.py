"""Other kinds of task: tags, pairs and translations, for skadacomp and for the quantizers.

    python docs/benchmarks/kinds.py --data FOLDER

compresses GloVe's rows of CoNLL-2000 (chunking), SICK (entailment and relatedness) and Multi30k
(English to German), each time for the head that skadacomp has for that kind of task; trains that
head on the rebuilt vectors, the same way for every method; and writes ``kinds.jsonl`` and
``kinds.md``. With ``--rows whole`` all rows of GloVe are compressed, for tasks whose words to come
nobody knows. Points that the file has already are not measured again. FOLDER holds
``conll2000/{train,test}.jsonl`` with tokens and tags; ``sick/{train,dev,test}.tsv``, each line
entailment, relatedness, A and B; and ``multi30k_en_de/{train,dev,test2016}.tsv``, each line English
and German.
"""

from __future__ import annotations

import copy
import json
from argparse import Namespace
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from command import command_line, run
from convolution import CPU, USUAL, Schedule, read_fixed
from numpy.typing import NDArray
from ours import BASE, FINE, rebuilt
from peers import Peer, peers
from points import Job, Line, grouped, mean_of, size_cells, spread_of
from scipy.stats import pearsonr
from seqeval.metrics import f1_score
from tasks import PIECES, load_source, part_of
from translations import bleu, translated

from skadacomp import AdaptiveCodebookCompressor, EmbeddingTable
from skadacomp._compressor import Problem
from skadacomp._learning import fine_tune_table
from skadacomp._learning.heads import Head
from skadacomp._learning.teacher import Teacher
from skadacomp._learning.trainer import Documents, one_thread
from skadacomp._targets import PAIRS, TargetEncoder

KINDS = ("tagging", "pair", "pair-regression", "translation")
NAMES = {
    "tagging": "CoNLL-2000 chunking, F1",
    "pair": "SICK entailment, accuracy",
    "pair-regression": "SICK relatedness, Pearson",
    "translation": "Multi30k English to German (test2016), BLEU",
}
_SHOWN = ("full precision", "skadacomp", "RQ", "LSQ")
# Prices of a bit, and budgets for a table of many words; the rest is `BASE`.
_OURS: list[dict[str, Any]] = [
    {"size_penalty": 0.02},
    {"size_penalty": 0.005},
    {"size_penalty": 0.002, "n_codewords": 8},
    {"size_penalty": 0.0005, "code_lengths": (0, 2, 4, 8, 16)},
    *(
        {
            "bits_per_word": bits,
            "n_codewords": 8,
            "code_lengths": (0, 2, 4, 8, 12),
            "learning_rate": 0.002,
            "codebook_bits": 4,
        }
        for bits in (29.5, 29.9)
    ),
    {"size_penalty": 0.002, "n_codewords": 8, "codebook_bits": 4},
    # Few codes of more codewords, and fine steps between the lengths.
    {"size_penalty": 0.005, "n_codewords": 16, "code_lengths": FINE, "codebook_bits": 4},
    {"size_penalty": 0.002, "n_codewords": 16, "code_lengths": FINE, "codebook_bits": 4},
    {"size_penalty": 0.002, "n_codewords": 32, "code_lengths": FINE, "codebook_bits": 4},
    {"bits_per_word": 14.8, "n_codewords": 32, "code_lengths": (0, 1, 2, 4, 6), "codebook_bits": 4},
    {"bits_per_word": 23, "n_codewords": 8, "code_lengths": (0, 2, 4, 8, 12), "codebook_bits": 4},
    # For codes that are searched for: frequent words in longer ones.
    {
        "bits_per_word": 26.5,
        "n_codewords": 16,
        "code_lengths": (0, 1, 2, 4, 8, 16),
        "codebook_bits": 4,
    },
    # As many bits as the longest of the quantizers' codes.
    {
        "bits_per_word": 64,
        "n_codewords": 16,
        "code_lengths": (0, 4, 8, 12, 16),
        "codebook_bits": 8,
    },
]
# Of a whole table, where a price is for few bits a word, and codebooks are little beside the codes.
_OURS_OF_ALL: list[dict[str, Any]] = [
    {"size_penalty": 0.005, "n_codewords": 16, "code_lengths": FINE, "codebook_bits": 4},
    {"size_penalty": 0.005, "n_codewords": 16, "code_lengths": (*FINE, 16), "codebook_bits": 8},
    {
        "size_penalty": 0.002,
        "n_codewords": 16,
        "code_lengths": (0, 2, 4, 8, 16, 32),
        "codebook_bits": 8,
    },
]
# For every method's head alike. Pairs are few, so that their epochs are short; translations many,
# and a translator's weights are averaged over about an epoch of 255 steps.
_PAIRS = Schedule(n_epochs=80, patience=20)
_TRANSLATIONS = Schedule(n_epochs=10, averaging=1 - 1 / 255)
_SCHEDULES = {"pair": _PAIRS, "pair-regression": _PAIRS, "translation": _TRANSLATIONS}


Scores = dict[str, float]  # "score" is the one to read


class Scored(NamedTuple):
    """What a head reached, and the head."""

    dev: Scores
    test: Scores
    head: Head


@dataclass(frozen=True)
class Split:
    """Documents with targets, and those of them that train, choose and end up in the results."""

    X: list[Any]
    y: list[Any]
    train: NDArray[np.int64]
    dev: NDArray[np.int64]
    test: NDArray[np.int64]

    def part(self, chosen: NDArray[np.int64]) -> tuple[list[Any], list[Any]]:
        """Give documents and targets."""
        return [self.X[i] for i in chosen], [self.y[i] for i in chosen]


@dataclass(frozen=True)
class Case:
    """A kind of task on a table's rows: those of its words, or the whole table."""

    kind: str
    rows: str  # "task" or "whole"
    table: EmbeddingTable
    split: Split

    def compressor(self, seed: int, **parameters: Any) -> AdaptiveCodebookCompressor:
        """Make the estimator; networks fit a task within few epochs."""
        given = {**BASE, **self.schedule.of_fits, **parameters}
        return AdaptiveCodebookCompressor(task=self.kind, random_state=seed, **given)

    @property
    def schedule(self) -> Schedule:
        """How long each stage, and each head on rebuilt vectors, is trained."""
        return _SCHEDULES.get(self.kind, USUAL)

    def problem(self, seed: int, *, with_test: bool = False) -> Problem:
        """Read the task, stopped by dev documents; `with_test` puts the test ones after them."""
        late = np.concatenate([self.split.dev, self.split.test]) if with_test else self.split.dev
        (X, y), (X_val, y_val) = self.split.part(self.split.train), self.split.part(late)
        return self.compressor(seed)._problem(self.table, X, y, None, X_val, y_val)

    def score(self, model: Teacher, documents: Documents, chosen: NDArray[np.int64]) -> Scores:
        """Score a model on the chosen documents as the field does."""
        if self.kind == "translation":
            encoder = TargetEncoder.of("translation", [self.split.y[i] for i in self.split.train])
            return bleu(translated(model, documents, encoder), [self.split.y[i] for i in chosen])
        return {"score": self.plain_score(documents.targets, _outputs(model, documents))}

    def plain_score(self, targets: Any, outputs: NDArray[np.float32]) -> float:
        """Score outputs, one for each target."""
        if self.kind == "pair":
            return float((outputs.argmax(1) == targets).mean())
        if self.kind == "pair-regression":
            return float(pearsonr(outputs[:, 0], targets[:, 0])[0])
        names = np.unique([tag for tags in self.split.y for tag in tags])
        ends = targets.indptr[1:-1]
        found, true = (
            [names[part].tolist() for part in np.split(numbers, ends)]
            for numbers in (outputs.argmax(1), targets.indices)
        )
        return float(f1_score(true, found))


def load_case(folder: Path, kind: str, rows: str = "task") -> Case:
    """Read a task; the table keeps the rows of its words, or all of them."""
    readers = {"tagging": _read_tags, "translation": _read_translations}
    X, y, sizes = readers.get(kind, partial(_read_pairs, kind=kind))(folder)
    ends = np.cumsum([0, *sizes])
    train, dev, test = (np.arange(a, b) for a, b in pairwise(ends))
    if len(dev) == 0:
        order = np.random.default_rng(0).permutation(train)
        dev, train = np.sort(order[: len(order) // 10]), np.sort(order[len(order) // 10 :])
    table = load_source("glove-50").table
    if rows == "task":
        texts = [side for pair in X for side in pair] if kind in PAIRS else X
        used = np.unique([table.index[w] for words in texts for w in words if w in table.index])
        table = part_of(table, used)
    return Case(kind, rows, table, Split(X, y, train, dev, test))


def _read_tags(folder: Path) -> tuple[list[Any], list[Any], list[int]]:
    X, y, sizes = [], [], []
    for part in ("train", "test"):
        lines = (folder / "conll2000" / f"{part}.jsonl").read_text(encoding="utf-8").splitlines()
        sentences = [json.loads(line) for line in lines if line]
        X += [[word.lower() for word in sentence["tokens"]] for sentence in sentences]
        y += [sentence["tags"] for sentence in sentences]
        sizes.append(len(sentences))
    return X, y, [sizes[0], 0, sizes[1]]


def _read_pairs(folder: Path, kind: str) -> tuple[list[Any], list[Any], list[int]]:
    X, y, sizes = [], [], []
    for part in ("train", "dev", "test"):
        lines = (folder / "sick" / f"{part}.tsv").read_text(encoding="utf-8").splitlines()
        rows = [line.split("\t") for line in lines if line]
        X += [(a.lower().split(), b.lower().split()) for _, _, a, b in rows]
        y += [label if kind == "pair" else float(value) for label, value, _, _ in rows]
        sizes.append(len(rows))
    return X, y, sizes


def _read_translations(folder: Path) -> tuple[list[Any], list[Any], list[int]]:
    X, y, sizes = [], [], []
    for part in ("train", "dev", "test2016"):
        text = (folder / "multi30k_en_de" / f"{part}.tsv").read_text(encoding="utf-8")
        rows = [line.split("\t") for line in text.split("\n") if line]
        X += [PIECES.findall(source.lower()) for source, _ in rows]
        y += [target for _, target in rows]
        sizes.append(len(rows))
    return X, y, sizes


def head_scores(case: Case, vectors: NDArray[np.float32], seed: int, head: Head | None) -> Scored:
    """Train a head on fixed vectors until dev says stop; score dev and test.

    Parameters
    ----------
    vectors : ndarray (n_words, n_dims)
        The rebuilt table.
    head : Head or None
        Where to start; None for a fresh one.
    """
    (task,) = case.problem(seed, with_test=True).tasks
    n_train, n_dev = len(case.split.train), len(case.split.dev)
    ends = np.cumsum([0, n_train, n_dev, len(case.split.test)])
    train, dev, test = (task.documents.part(np.arange(a, b)) for a, b in pairwise(ends))
    make = task.make_head if head is None else lambda n_dims: copy.deepcopy(head)
    with one_thread():
        model = read_fixed(vectors, make, train, dev, seed, case.schedule)
        scores = [
            case.score(model, part, chosen)
            for part, chosen in ((dev, case.split.dev), (test, case.split.test))
        ]
    return Scored(*scores, model.head)


@torch.no_grad()
def _outputs(model: Teacher, documents: Documents) -> NDArray[np.float32]:
    return torch.cat([model(batch) for batch in documents.batches(256, CPU)]).numpy()


def fine_tuned(case: Case, seed: int) -> NDArray[np.float32]:
    """Fine-tune the table at full precision; our own fits then find their first stage done."""
    problem = case.problem(seed)
    return fine_tune_table(case.table.vectors, problem.tasks, problem.settings)


def methods(
    case: Case, seed: int, tuned: Callable[[], NDArray[np.float32]]
) -> Iterator[tuple[str, str, Callable[[], tuple[Any, int]]]]:
    """List what to measure: method, setting, and what makes vectors and their bytes."""
    nbytes = case.table.nbytes
    yield "full precision", "fine-tuned", lambda: (tuned(), nbytes)
    yield "full precision", "frozen", lambda: (np.asarray(case.table.vectors), nbytes)
    for parameters in _OURS if case.rows == "task" else _OURS_OF_ALL:
        setting = ", ".join(f"{name}={value}" for name, value in parameters.items())
        yield "skadacomp", setting, partial(_ours, case, seed, parameters)
    for peer in peers(*case.table.vectors.shape, "least"):
        if peer.method in _SHOWN:
            yield peer.method, peer.setting, partial(_peer, peer, tuned, seed)


def _ours(case: Case, seed: int, parameters: dict[str, Any]) -> tuple[Any, int]:
    (X, y), (X_val, y_val) = case.split.part(case.split.train), case.split.part(case.split.dev)
    fitted = case.compressor(seed, **parameters).fit(case.table, X, y, X_val=X_val, y_val=y_val)
    return rebuilt(fitted), fitted.nbytes_


def _peer(peer: Peer, tuned: Callable[[], NDArray[np.float32]], seed: int) -> tuple[Any, int]:
    found = peer.compress(tuned(), seed)
    return found.vectors, found.nbytes


def jobs(given: Namespace) -> Iterator[Job]:
    """List what to measure, of each kind with every seed."""
    for kind in given.kinds:
        case = load_case(given.data, kind, given.rows)
        for seed in range(given.seeds):
            tuned = cache(partial(fine_tuned, case, seed))
            start = cache(partial(first_head, case, seed, tuned))
            for method, setting, make in methods(case, seed, tuned):
                names = {"kind": kind, "rows": given.rows, "seed": seed}
                names |= {"method": method, "setting": setting}
                yield names, partial(_measure, case, seed, start, make)


def first_head(case: Case, seed: int, tuned: Callable[[], NDArray[np.float32]]) -> Head | None:
    """Train the head that others go on from: a translator, as that takes long."""
    return head_scores(case, tuned(), seed, None).head if case.kind == "translation" else None


def _measure(
    case: Case,
    seed: int,
    start: Callable[[], Head | None],
    make: Callable[[], tuple[Any, int]],
) -> Line:
    vectors, nbytes = make()
    scored = head_scores(case, vectors, seed, start())
    sizes = {"nbytes": int(nbytes), "table_nbytes": int(case.table.nbytes)}
    return sizes | figures(scored)


def figures(scored: Scored) -> Line:
    """Give what a head reached as results hold it."""
    found = {"dev": round(scored.dev["score"], 5), "test": round(scored.test["score"], 5)}
    if "chrF" in scored.test:
        found["chrF"] = round(scored.test["chrF"], 5)
    return found


def table_of(points: list[Line]) -> str:
    """Lay the points out as Markdown, means over the seeds."""
    lines = []
    groups = grouped(points, "kind", "rows")
    for kind, which in sorted(groups, key=lambda group: (KINDS.index(group[0]), group[1])):
        of_all = "" if which == "task" else f", the {which} table"
        lines += ["", f"**{NAMES[kind]}{of_all}**", ""]
        lines += ["| method | setting | bytes | times smaller | dev | test | seeds |"]
        lines += ["|---|---|--:|--:|--:|--:|--:|"]
        rows = grouped(groups[kind, which], "method", "setting")
        for method, setting in sorted(
            rows, key=lambda row: (_SHOWN.index(row[0]), mean_of(rows[row], "nbytes"))
        ):
            found = rows[method, setting]
            chrf = f", chrF {mean_of(found, 'chrF'):.4f}" if "chrF" in found[0] else ""
            lines.append(
                f"| {method} | {setting} | {size_cells(found)} | {mean_of(found, 'dev'):.4f} "
                f"| {spread_of(found, 'test')}{chrf} | {len(found)} |"
            )
    return "\n".join(lines).strip() + "\n"


def main() -> None:
    """Run from the command line."""
    parser = command_line(__doc__)
    parser.add_argument("--kinds", nargs="+", default=KINDS, choices=KINDS)
    parser.add_argument("--rows", choices=["task", "whole"], default="task")
    run(parser, "kinds", jobs, table_of)


if __name__ == "__main__":
    main()
