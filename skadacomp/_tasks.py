"""A user's task, documents and targets, made into what learning takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.model_selection import train_test_split

from skadacomp._documents import (
    are_pairs,
    are_word_lists,
    document_counts,
    document_sequences,
    n_documents,
    pair_texts,
)
from skadacomp._table import EmbeddingTable
from skadacomp._targets import IN_PLACE, KINDS, PAIRS, Kind, TargetEncoder, as_array, kind_of_task

if TYPE_CHECKING:
    from skadacomp._learning import Task
    from skadacomp._learning.heads import Head

# What may read each kind of task, the default first; a user's own head may read any.
HEADS: dict[Kind, tuple[str, ...]] = {
    "classification": ("linear", "convolutional"),
    "multilabel": ("linear", "convolutional"),
    "regression": ("linear", "convolutional"),
    "tagging": ("convolutional",),
    "pair": ("pooled",),
    "pair-regression": ("pooled",),
    "translation": ("recurrent",),
}


class GivenTask(NamedTuple):
    """A task as the user gave it."""

    X: Any
    y: Any
    X_val: Any
    y_val: Any
    task: Any
    head: Any
    weight: float = 1.0


def are_several(X: Any, y: Any, kinds: Sequence[Kind] | None) -> bool:
    """Whether documents and targets are lists of several tasks' documents and targets.

    Named kinds say so. Else each of X must be documents, texts of several words or lists of words,
    as many as there are targets; lists of single words with lists of strings are tagged sentences.
    """
    if kinds is not None:
        return True
    if not isinstance(X, (list, tuple)) or not isinstance(y, (list, tuple)) or len(X) != len(y):
        return False
    return len(X) > 1 and all(map(_is_task, X, y))


def _is_task(X: Any, y: Any) -> bool:
    """Whether X looks like documents and y like a target for each."""
    if sparse.issparse(X):
        return True
    if isinstance(X, str) or isinstance(y, str) or not hasattr(X, "__len__"):
        return False
    if not hasattr(y, "__len__") or len(X) != len(y) or len(X) == 0:
        return False
    return any(
        " " in document.strip()
        if isinstance(document, str)
        else isinstance(document, (list, tuple))
        for document in X
    )


def several_tasks(
    X: Any,
    y: Any,
    X_val: Any,
    y_val: Any,
    kinds: Sequence[Kind] | None,
    head: Any,
    weights: Sequence[float] | None,
) -> list[GivenTask]:
    """Take several tasks apart.

    Raises
    ------
    ValueError
        If there are not as many of one thing as of another, or a kind or weight cannot be.
    """
    n_tasks = len(X)
    none = [None] * n_tasks
    heads = head if isinstance(head, (list, tuple)) else [head] * n_tasks
    parts = {
        "y_task": y,
        "X_val": none if X_val is None else X_val,
        "y_val": none if y_val is None else y_val,
        "task": none if kinds is None else kinds,
        "head": heads,
        "task_weights": [1.0] * n_tasks if weights is None else weights,
    }
    for name, part in parts.items():
        if len(part) != n_tasks:
            raise ValueError(f"{name} holds {len(part)} entries for the {n_tasks} tasks of X_task.")
    unknown = [kind for kind in parts["task"] if kind is not None and kind not in KINDS]
    if unknown:
        raise ValueError(f"task holds {unknown[0]!r}, which is none of {', '.join(KINDS)}.")
    if not all(np.isfinite(weight) and weight > 0 for weight in parts["task_weights"]):
        raise ValueError(f"task_weights={weights!r} must be numbers above 0.")
    return [GivenTask(*given) for given in zip(X, *parts.values(), strict=True)]


@dataclass(frozen=True)
class TaskReader:
    """How documents and targets are read.

    Parameters
    ----------
    table : EmbeddingTable
    task : Kind or None
        None to tell it from documents and targets.
    head : str, Module, callable or None
        None for the default of the kind.
    average : bool
        Whether a text's vector is the mean of its words', or else their sum.
    tokenizer : callable or None
    lowercase : bool
    validation_fraction : float
    """

    table: EmbeddingTable
    task: Kind | None
    head: Any
    average: bool
    tokenizer: Any
    lowercase: bool
    validation_fraction: float

    def read(
        self, X: Any, y: Any, X_val: Any = None, y_val: Any = None, *, seed: int
    ) -> tuple[Kind, Task]:
        """Read a task; without documents to validate on, a part of X is held out.

        Raises
        ------
        TypeError, ValueError
            If documents, targets and head do not fit each other; before any training.
        """
        from skadacomp._learning import Documents, Task, check_head

        y, y_val = as_array(y), as_array(y_val)
        kind = self._kind(X, y)
        weights = self._row_counts(y) if X is None else self._weights(X, kind, "X_task")
        # A rare tag may turn up among the documents to validate on alone; a class must not.
        late_too = kind == "tagging" and y_val is not None
        encoder = TargetEncoder.of(kind, [*y, *y_val] if late_too else y)
        targets = encoder.encode(y, self._n_words(weights, kind), "y_task")
        n_given = targets.shape[0]
        if X_val is None:
            train, held_out = self._held_out(kind, targets, seed)
        else:
            late = self._weights(X_val, kind, "X_val")
            late_targets = encoder.encode(y_val, self._n_words(late, kind), "y_val")
            weights = sparse.vstack([weights, late], format="csr")
            targets = _stacked(targets, late_targets)
            everything = np.arange(targets.shape[0])
            train, held_out = everything[:n_given], everything[n_given:]
        n_texts = 2 if kind in PAIRS else 1
        average = self.average or X is None
        task = Task(
            Documents(weights, targets, n_texts=n_texts),
            train,
            held_out,
            average,
            self._head_maker(kind, encoder.n_outputs, average),
            any_dims=isinstance(self.head, str | None),
        )
        if not task.any_dims:
            check_head(task, self.table.vectors, encoder.n_outputs)
        return kind, task

    def _kind(self, X: Any, y: Any) -> Kind:
        pairs = X is not None and are_pairs(X, strict=self.task not in PAIRS)
        word_lists = X is not None and are_word_lists(X)
        return kind_of_task(self.task, y, pairs=pairs or self.task in PAIRS, word_lists=word_lists)

    def head_name(self, kind: Kind) -> str:
        """Name the head that reads a kind of task; ``"own"`` for a user's.

        Raises
        ------
        ValueError
            If the head named does not read that kind.
        """
        if self.head is None:
            return HEADS[kind][0]
        if not isinstance(self.head, str):
            if kind == "translation":
                raise ValueError(
                    f"head={self.head!r:.60} reads documents alone, and a translator must read "
                    "what it has written too. Leave head out, or train a model of your own around "
                    "skadacomp.nn.AdaptiveCodebookEmbedding."
                )
            return "own"
        if self.head not in HEADS[kind]:
            readers = list(map(repr, HEADS[kind]))
            if kind != "translation":
                readers.append("a torch module of your own")
            raise ValueError(
                f"head={self.head!r} does not read a task of kind {kind!r}; "
                f"{' and '.join(readers)} {'do' if len(readers) > 1 else 'does'}."
            )
        return self.head

    def _head_maker(self, kind: Kind, n_outputs: int, average: bool) -> Callable[[int], Head]:
        from skadacomp._learning import make_head

        name = self.head_name(kind)
        return partial(
            make_head,
            kind=kind,
            name=name,
            own=self.head if name == "own" else None,
            n_outputs=n_outputs,
            average=average,
        )

    def _weights(self, X: Any, kind: Kind, name: str) -> sparse.csr_matrix:
        """Count the words of texts, or list them where the head reads them in order."""
        if kind in PAIRS:
            X = pair_texts(X, name)
        if kind == "tagging" and not are_word_lists(X):
            raise ValueError(
                f"{name} must be a list of sentences, each a list of words, for task='tagging': "
                "there is a tag for every word."
            )
        read = document_counts
        if kind in IN_PLACE:
            read = partial(document_sequences, keep_unknown=True)
        elif self.head_name(kind) in ("convolutional", "own"):
            read = document_sequences
        weights = read(
            X,
            self.table.index,
            self.table.n_words,
            tokenizer=self.tokenizer,
            lowercase=self.lowercase,
        )
        if not weights.data.any():
            raise ValueError(
                f"{name} holds no word of the embedding table, so there is nothing to learn from. "
                f"Are both in the same language, and in the same case (lowercase={self.lowercase})?"
            )
        return weights

    def _row_counts(self, y: Any) -> sparse.csr_matrix:
        """Take each row of the table for a document of one word."""
        n_labels = n_documents(y)
        if n_labels != self.table.n_words:
            raise ValueError(
                f"y has {n_labels} entries and the table {self.table.n_words} rows: y alone is one "
                "label for each row. For a task of documents pass both, "
                "fit(embeddings, X_task, y_task)."
            )
        return sparse.csr_matrix(sparse.eye_array(self.table.n_words, dtype=np.float32))

    @staticmethod
    def _n_words(weights: sparse.csr_matrix, kind: Kind) -> NDArray[np.int64]:
        """Count the words of each document; pairs count once."""
        n_words = np.diff(weights.indptr).astype(np.int64)
        return n_words[::2] if kind in PAIRS else n_words

    def _held_out(
        self, kind: Kind, targets: Any, seed: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Cut the documents into those that train and those that say when to stop."""
        n_given = targets.shape[0]
        everything = np.arange(n_given)
        n_held_out = int(n_given * self.validation_fraction)
        if n_given < 20 or n_held_out == 0:
            return everything, everything
        train, held_out = train_test_split(
            everything,
            test_size=n_held_out,
            stratify=_strata(kind, targets, n_held_out),
            random_state=seed,
        )
        return np.sort(train), np.sort(held_out)


def _strata(kind: Kind, targets: Any, n_held_out: int) -> NDArray[np.int64] | None:
    """Give the classes to keep in proportion, where there are enough documents of each."""
    if kind not in ("classification", "pair"):
        return None
    counts = np.bincount(targets)
    fits = counts.min() >= 2 and n_held_out >= len(counts) <= len(targets) - n_held_out
    return targets if fits else None


def _stacked(one: Any, other: Any) -> Any:
    if sparse.issparse(one):
        return sparse.vstack([one, other], format="csr")
    return np.concatenate([one, other])
