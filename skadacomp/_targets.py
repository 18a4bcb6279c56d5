"""What y is: which kind of task it makes, and the numbers that a head learns."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from itertools import chain
from numbers import Real
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.utils import column_or_1d
from sklearn.utils.multiclass import type_of_target

from skadacomp._documents import n_documents

Kind = Literal[
    "classification",
    "multilabel",
    "regression",
    "tagging",
    "pair",
    "pair-regression",
    "translation",
]
KINDS: tuple[Kind, ...] = get_args(Kind)
PAIRS: tuple[Kind, ...] = ("pair", "pair-regression")
IN_PLACE: tuple[Kind, ...] = ("tagging", "translation")  # every word of a document has its place

# What a translation's head chooses from: its cost grows with them, and a rare word teaches little.
_N_TARGET_WORDS = 5_000
_END, _UNKNOWN = "</s>", "<unk>"
_WORDS_AND_SIGNS = re.compile(r"\w+|[^\w\s]")


def kind_of_task(task: Kind | None, y: Any, *, pairs: bool, word_lists: bool) -> Kind:
    """Tell the kind of task from its targets and documents, or see that it can be the one named.

    Parameters
    ----------
    task : str or None
        What the user says it is.
    y : object
        The targets.
    pairs : bool
        Whether the documents are pairs of texts.
    word_lists : bool
        Whether all documents are lists of words.

    Raises
    ------
    ValueError
        If `y` is of no kind, of more than one, or not of the one named.
    """
    found = _found_kind(y, pairs, word_lists) if task is None else task
    if (found in PAIRS) != pairs:
        raise ValueError(
            f"task={task!r} needs documents that are pairs (A, B), each a tuple of two."
            if found in PAIRS
            else f"task={task!r} takes documents one by one, but these are pairs (A, B); "
            "task='pair' and task='pair-regression' take pairs."
        )
    return found


def _found_kind(y: Any, pairs: bool, word_lists: bool) -> Kind:
    if _are_sequences(y):
        if word_lists:
            return "tagging"
        raise ValueError(
            "y_task holds a list for each document, as tags do, but the documents are no lists of "
            "words. Split each sentence into the list of its words, one for each tag; or say "
            "task='translation' if the lists are sentences in another language."
        )
    if np.asarray(y).dtype.kind == "f" and not np.isfinite(y).all():
        raise ValueError("y_task contains NaN or infinity; every document needs a target.")
    _refuse_mixed(np.asarray(y))
    with np.errstate(invalid="ignore", over="ignore"):  # it casts numbers to see which are whole
        target = type_of_target(y, input_name="y_task")
    if target in ("binary", "multiclass"):
        _refuse_sentences(y)
        return "pair" if pairs else "classification"
    if target in ("continuous", "continuous-multioutput"):
        return "pair-regression" if pairs else "regression"
    if target == "multilabel-indicator" and not pairs:
        return "multilabel"
    raise ValueError(
        f"Unknown label type: {target!r} of y_task makes no task here. It must be one class, one "
        "number or a row of 0s and 1s for each document, or a list of tags for each list of words; "
        "see task=."
    )


def _refuse_mixed(labels: NDArray[Any]) -> None:
    """Refuse labels of several types, None among them: they have no order to number them by."""
    if labels.dtype.kind != "O" or labels.ndim != 1:
        return
    types = {"str" if isinstance(label, str) else type(label).__name__ for label in labels}
    if len(types) > 1:
        raise ValueError(
            f"Unknown label type: y_task holds {', '.join(sorted(types))}; all labels must be of "
            "one type. Drop documents without a label, and make the others one type, as "
            "[str(label) for label in y_task] does."
        )


def as_array(y: Any) -> Any:
    """Make arrays of what says it is one, such as a Series; lists stay lists.

    Numbers or booleans that came as objects, as in a Series with dtype object, get their own dtype.
    """
    if not hasattr(y, "__array__") or sparse.issparse(y):
        return y
    array = np.asarray(y)
    types = set(map(type, array.flat)) if array.dtype.kind == "O" else set()
    if len(types) == 1 and issubclass(types.pop(), (bool, np.bool_, Real)):
        return np.array(array.tolist())
    return array


def _are_sequences(y: Any) -> bool:
    """Whether y holds lists of strings."""
    if sparse.issparse(y) or (hasattr(y, "ndim") and y.ndim != 1) or isinstance(y, str):
        return False
    items = [item for item in y if len(item)] if _all_sized(y) else []
    return bool(items) and all(isinstance(item[0], str) for item in items)


def _all_sized(y: Any) -> bool:
    return all(isinstance(item, (list, tuple, np.ndarray)) for item in y)


def _refuse_sentences(y: Any) -> None:
    """Refuse strings that look like sentences: hardly any comes twice, and they hold spaces."""
    values = np.asarray(y)
    if values.dtype.kind not in "OUT" or len(values) < 20:
        return
    distinct = {str(value) for value in values.ravel().tolist()}
    if len(distinct) > len(values) / 2 and sum(" " in value for value in distinct) > 10:
        raise ValueError(
            f"y_task is ambiguous: {len(distinct)} of its {len(values)} strings are different, so "
            "they look like sentences and not like classes. Say task='translation' if they are "
            "translations of the documents, or task='classification' if they are classes."
        )


@dataclass(frozen=True)
class TargetEncoder:
    """Targets of a kind of task as numbers, the same way for all documents.

    Parameters
    ----------
    kind : Kind
    classes : ndarray or None
        Classes, tags or words in the order of their numbers; None where targets are numbers.
    shift, scale : ndarray (n_values,)
        What values are centred and divided by.
    n_outputs : int
        What a head has to give for each target.
    """

    kind: Kind
    classes: NDArray[Any] | None
    shift: NDArray[np.float64]
    scale: NDArray[np.float64]
    n_outputs: int

    @classmethod
    def of(cls, kind: Kind, y: Any) -> TargetEncoder:
        """Learn classes, or the scale of values.

        Raises
        ------
        ValueError
            If y cannot be targets of that kind, or there is nothing in it to learn.
        """
        none = np.zeros(0)
        if kind in ("classification", "pair"):
            classes = np.unique(column_or_1d(y, warn=True))
            _refuse_one(classes, "class")
            return cls(kind, classes, none, none, len(classes))
        if kind == "tagging":
            tags = np.unique([tag for sentence in y for tag in sentence])
            _refuse_one(tags, "tag")
            return cls(kind, tags, none, none, len(tags))
        if kind == "translation":
            words = _target_words(y)
            return cls(kind, words, none, none, len(words))
        values = _values(y)
        if kind == "multilabel":
            if not np.isin(values, (0, 1)).all():
                raise ValueError("y_task of a multilabel task must hold 0s and 1s alone.")
            return cls(kind, None, none, none, values.shape[1])
        shift, scale = values.mean(0), values.std(0)
        if (scale == 0).any():
            raise ValueError(
                f"y_task is {values[0].tolist()} for every document: there is nothing to learn."
            )
        return cls(kind, None, shift, scale, values.shape[1])

    def encode(self, y: Any, n_words: NDArray[np.int64], name: str) -> Any:
        """Turn targets into numbers.

        Parameters
        ----------
        y : array-like of length n_documents
        n_words : ndarray (n_documents,)
            Words of each document, which is how many tags there must be.
        name : str
            What the user calls y.

        Returns
        -------
        ndarray (n_documents,) of int64, ndarray (n_documents, n_values) of float32, or csr_matrix
            The matrix has an entry a tag or word, in order: its column is that one's number.

        Raises
        ------
        ValueError
            If there are too many or too few, or a class that `of` did not see.
        """
        n_found = n_documents(y)
        if n_found != len(n_words):
            what = "labels" if self.classes is not None else "rows"
            raise ValueError(
                f"{name} has {n_found} {what} for {len(n_words)} documents; it needs one for each."
            )
        if self.kind == "tagging":
            return self._tags(y, n_words, name)
        if self.kind == "translation":
            return self._sentences(y, name)
        if self.classes is not None:
            return self._numbers(column_or_1d(y, warn=True), name)
        values = _values(y)
        if values.shape[1] != self.n_outputs:
            raise ValueError(f"{name} has {values.shape[1]} columns; y_task has {self.n_outputs}.")
        if self.kind == "multilabel":
            return values.astype(np.float32)
        return ((values - self.shift) / self.scale).astype(np.float32)

    def _tags(self, y: Any, n_words: NDArray[np.int64], name: str) -> sparse.csr_matrix:
        sizes = np.array([len(sentence) for sentence in y], np.int64)
        wrong = np.flatnonzero(sizes != n_words)
        if len(wrong):
            at = int(wrong[0])
            raise ValueError(
                f"{name}[{at}] has {sizes[at]} tags, but its sentence has {n_words[at]} words: "
                "every word needs one tag."
            )
        numbers = self._numbers(np.array([tag for sentence in y for tag in sentence]), name)
        return self._in_order(numbers, sizes)

    def _sentences(self, y: Any, name: str) -> sparse.csr_matrix:
        """List the numbers of each sentence's words, and its end; rare words are all one."""
        assert self.classes is not None
        number = {word: i for i, word in enumerate(self.classes.tolist())}
        unknown = number[_UNKNOWN]
        sentences = [[*words, _END] for words in _split_sentences(y, name)]
        numbers = [number.get(word, unknown) for word in chain.from_iterable(sentences)]
        return self._in_order(np.array(numbers), np.array(list(map(len, sentences))))

    def _in_order(self, numbers: NDArray[np.int64], sizes: NDArray[np.int64]) -> sparse.csr_matrix:
        """Give each document so many of the numbers, an entry each."""
        ends = np.concatenate([[0], sizes.cumsum()])
        ones = np.ones(len(numbers), np.float32)
        return sparse.csr_matrix((ones, numbers, ends), (len(sizes), self.n_outputs))

    def _numbers(self, labels: NDArray[Any], name: str) -> NDArray[np.int64]:
        assert self.classes is not None
        unknown = np.setdiff1d(labels, self.classes)
        if len(unknown):
            raise ValueError(
                f"{name} holds the class {unknown.tolist()[0]!r}, which y_task does not hold."
            )
        return np.searchsorted(self.classes, labels).astype(np.int64)


def _refuse_one(classes: NDArray[Any], what: str) -> None:
    if len(classes) < 2:
        raise ValueError(
            f"y_task holds one {what} only, {classes.tolist()[0]!r}; there must be two at least. "
            "To compress without a task leave it out: fit(embeddings)."
        )


def _target_words(y: Any) -> NDArray[np.str_]:
    """List the most frequent words of target sentences, after the end of a sentence and the rest.

    The end is number 0.
    """
    counts = Counter(chain.from_iterable(_split_sentences(y, "y_task")))
    for own in (_END, _UNKNOWN):
        del counts[own]  # whoever has marked them already means the same
    frequent = [word for word, _ in counts.most_common(_N_TARGET_WORDS)]
    _refuse_one(np.array(frequent or [""]), "word")
    return np.array([_END, _UNKNOWN, *frequent])


def _split_sentences(y: Any, name: str) -> list[list[str]]:
    """Split strings into words and signs; lists of words stay as they are."""
    sentences = []
    for position, sentence in enumerate(y):
        if isinstance(sentence, str):
            sentence = _WORDS_AND_SIGNS.findall(sentence)
        elif not isinstance(sentence, (list, tuple)) or not all(
            isinstance(word, str) for word in sentence
        ):
            raise ValueError(
                f"{name}[{position}] is {sentence!r:.60}; task='translation' needs a sentence for "
                "each document, a string or a list of words."
            )
        sentences.append(list(sentence))
    return sentences


def _values(y: Any) -> NDArray[np.float64]:
    """Numbers as rows, (n_documents, n_values)."""
    values = np.asarray(y.toarray() if sparse.issparse(y) else y, np.float64)
    values = values[:, None] if values.ndim == 1 else values
    if values.ndim != 2 or not np.isfinite(values).all():
        raise ValueError(
            f"y_task must be finite numbers of shape (n_documents,) or (n_documents, n_values), "
            f"not {values.dtype} of shape {values.shape}"
        )
    return values
