"""FrozenClassifier: a whole text classifier in one file, which needs numpy alone.

A classifier that is linear on code features gives each codeword a score for each class, and a
document the mean of its words' sums. So the scores are decoded as vectors are, with what the
classifier learned in the codebooks' place.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skadacomp._compressed import CompressedTable
from skadacomp._decoder import Decoder
from skadacomp._format import CLASSIFIER_TENSORS, FormatError, Tensors, read, reading
from skadacomp._texts import splitter

_KEY = "classifier"  # in the file's metadata
_LINKS = ("none", "sigmoid", "softmax")


class Description(NamedTuple):
    """How documents become features, and scores probabilities.

    Parameters
    ----------
    classes : list of str, or of int, float or bool
    pooling : {"mean", "sum"}
    lowercase : bool
    link : {"none", "sigmoid", "softmax"}
        "none" for a classifier without probabilities.
    """

    classes: list[Any]
    pooling: str
    lowercase: bool
    link: str

    @classmethod
    def parsed(cls, text: Mapping[str, str]) -> Description:
        """Read the file's metadata.

        Raises
        ------
        ValueError
            If they are not those of a FrozenClassifier.
        """
        if _KEY not in text:
            raise ValueError("there is no classifier in this file; CompressedTable.open reads it")
        found = json.loads(text[_KEY])
        if not isinstance(found, dict) or set(found) != set(cls._fields):
            raise ValueError(
                f"the classifier must be described by {cls._fields}, not {found!r:.80}"
            )
        if not (
            _are_classes(found["classes"])
            and found["pooling"] in ("mean", "sum")
            and found["lowercase"] in (False, True)
            and found["link"] in _LINKS
        ):
            raise ValueError(f"the classifier cannot be {found!r:.200}")
        return cls(**found)


def _are_classes(found: Any) -> bool:
    """Whether these are names of one type, each different, two at least."""
    return (
        isinstance(found, list)
        and len({type(name) for name in found}) == 1
        and isinstance(found[0], (str, int, float))
        and len(set(found)) == len(found) > 1
    )


class FrozenClassifier:
    """A fitted pipeline of compressor and linear classifier, frozen into what ships.

    Make one with `skadacomp.freeze` or `open`. Immutable; needs numpy alone.

    Parameters
    ----------
    table : CompressedTable
        The words' codes.
    coef : ndarray of shape (n_outputs, n_codebooks * n_codewords + 1), float32
        Weights of code features: one output for two classes, else one a class.
    intercept : ndarray of shape (n_outputs,), float32
        Score of a document without words.
    description : Description
        The classes, and how documents become features and scores probabilities.

    Raises
    ------
    FormatError
        If they do not fit each other.
    """

    def __init__(
        self,
        table: CompressedTable,
        coef: NDArray[np.float32],
        intercept: NDArray[np.float32],
        description: Description,
    ) -> None:
        self.table = table
        self._coef, self._intercept, self._description = coef, intercept, description
        n_classes = len(description.classes)
        n_outputs = 1 if n_classes == 2 else n_classes
        shape = (n_outputs, table.n_codebooks * table.n_codewords + 1)
        if coef.shape != shape or intercept.shape != shape[:1]:
            raise FormatError(
                f"coef {coef.shape} and intercept {intercept.shape} do not fit {n_classes} classes "
                f"and {shape[1]} code features"
            )
        if not (np.isfinite(coef).all() and np.isfinite(intercept).all()):
            raise FormatError("coef and intercept must be finite")

    @property
    def classes(self) -> NDArray[Any]:
        """The classes, (n_classes,), in the order of their scores."""
        return np.array(self._description.classes)

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of the table's parts, as `CompressedTable.sizes`, and of the classifier."""
        nbytes = sum(tensor.nbytes for tensor in self._tensors.values())
        return {**self.table.sizes, "classifier": nbytes}

    @property
    def file_nbytes(self) -> int:
        """Exact size in bytes of the file that `save` writes."""
        return self.table._file_nbytes_with(self._tensors, self._metadata)

    def __repr__(self) -> str:
        return f"FrozenClassifier(classes={self._description.classes!r:.80}, table={self.table!r})"

    def decision_function(self, X: Sequence[Any]) -> NDArray[np.float32]:
        """Scores of documents.

        Parameters
        ----------
        X : sequence of documents
            Of str, of lists of words, or of lists or arrays of row ids.

        Returns
        -------
        ndarray of shape (n_documents,) for two classes, else (n_documents, n_classes), float32

        Raises
        ------
        TypeError, ValueError
            If X is empty or no such sequence, or an id is out of bounds.
        """
        split = splitter(None, self._description.lowercase)
        pooling, n_outputs = self._description.pooling, len(self._intercept)
        of_words = partial(self.table._decoded_by, self._scores)
        scores = self.table._pooled(X, of_words, n_outputs, pooling, split)
        scores += self._intercept
        return scores[:, 0] if n_outputs == 1 else scores

    def predict(self, X: Sequence[Any]) -> NDArray[Any]:
        """Class of each document.

        Parameters
        ----------
        X : sequence of documents
            As in `decision_function`.

        Returns
        -------
        ndarray of shape (n_documents,)
            Of the type that the classes had in training.
        """
        scores = self.decision_function(X)
        chosen = (scores > 0).astype(np.int64) if scores.ndim == 1 else scores.argmax(1)
        return self.classes[chosen]

    def predict_proba(self, X: Sequence[Any]) -> NDArray[np.float32]:
        """Probability of each class.

        Parameters
        ----------
        X : sequence of documents
            As in `decision_function`.

        Returns
        -------
        ndarray of shape (n_documents, n_classes), float32

        Raises
        ------
        AttributeError
            If the classifier has no probabilities that follow from its scores alone.
        """
        if self._description.link == "none":
            raise AttributeError("this classifier was frozen without probabilities")
        scores = self.decision_function(X)
        if scores.ndim == 1:
            scores = np.stack([np.zeros_like(scores), scores], 1)
        powers = np.exp(scores - scores.max(1, keepdims=True))
        shares: NDArray[np.float32] = powers / powers.sum(1, keepdims=True)
        return shares

    @cached_property
    def _scores(self) -> Decoder:
        shape = (-1, self.table.n_codebooks, self.table.n_codewords)
        of_codewords = self._coef[:, :-1].reshape(shape).transpose(1, 2, 0)
        return self.table._decoder_of(np.ascontiguousarray(of_codewords), self._coef[:, -1])

    @property
    def _tensors(self) -> Tensors:
        return {"coef": self._coef, "intercept": self._intercept}

    @property
    def _metadata(self) -> dict[str, str]:
        return {_KEY: json.dumps(self._description._asdict(), separators=(",", ":"))}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write table and classifier to one file, which `CompressedTable.open` reads too.

        The file takes its name only when it is complete: a failure leaves a former file as it was.

        Parameters
        ----------
        path : str or path-like
            A former file of that name is replaced.

        Raises
        ------
        OSError
            If the file cannot be written.
        """
        self.table._write_with(path, self._tensors, self._metadata)

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, verify: bool = True) -> FrozenClassifier:
        """Open a file that `save` wrote, memory-mapped.

        Parameters
        ----------
        path : str or path-like
            What `save` wrote.
        verify : bool, default=True
            Compare the file's checksum first; see `CompressedTable.open`.

        Returns
        -------
        FrozenClassifier

        Raises
        ------
        FormatError
            If the file is damaged, holds no classifier, or is of a newer format.
        OSError
            If it cannot be read; FileNotFoundError if it is not there.
        """
        source = os.fspath(path)
        tensors, metadata = read(path, verify=verify)
        with reading(source, "classifier"):
            found = Description.parsed(metadata)
            missing = [name for name in CLASSIFIER_TENSORS if name not in tensors]
            if missing:
                raise ValueError(f"tensors {missing} are missing")
        table = CompressedTable(tensors, metadata, source)
        with reading(source, "classifier"):
            return cls(table, tensors["coef"], tensors["intercept"], found)
