"""What learning is given, and what it finds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from skadacomp._encoder import RowEncoder
from skadacomp._learning.heads import Head
from skadacomp._learning.lengths import Budget, Choices, Rate
from skadacomp._learning.trainer import Course, Documents


@dataclass(frozen=True)
class Task:
    """Documents with targets, cut into those that train and those that say when to stop.

    Parameters
    ----------
    documents : Documents
        Over all words of the table, their weights not scaled yet.
    train, held_out : ndarray of int64
        Which documents are which.
    average : bool
        Whether a document's vector is the mean of its words' vectors, or else their sum.
    make_head : callable of int to Head
        Makes a fresh head for vectors of so many dimensions.
    weight : float, default=1.0
        Of this task beside others.
    any_dims : bool, default=True
        Whether the head may read vectors of fewer dimensions than the table's, or at another scale,
        which one of the user's own does not expect.
    """

    documents: Documents
    train: NDArray[np.int64]
    held_out: NDArray[np.int64]
    average: bool
    make_head: Callable[[int], Head]
    weight: float = 1.0
    any_dims: bool = True

    @property
    def training_words(self) -> sparse.csr_matrix:
        """Weights of the words in the training documents, (n_texts, n_words)."""
        return self.documents.weights[self.documents.texts(self.train)]


@dataclass(frozen=True)
class Settings:
    """How to learn; the estimator's parameters and what follows from them.

    Parameters
    ----------
    rate : Rate
        The candidates and what they cost.
    n_codewords : int
    codebook_bits : {4, 8}
        Of a number of the codebooks as they are kept.
    init : {"residual-kmeans", "random"}
        Where codes and lengths start: from the fine-tuned table, or from nothing.
    length_method : {"gumbel-softmax", "rate-distortion", "frequency"}
        What decides the lengths.
    size_penalty : float
        Loss that one more bit a word, over the whole table, has to save. Used without a budget.
    budget : Budget or None
    reconstruction_weight : float
    learning_rate : float
    max_iter : int
        Epochs of each stage at most.
    patience : int
    seed : int
    device : str
    verbose : bool
    on_interrupt : {"raise", "keep"}, default="raise"
        What Ctrl-C ends: the fit, or its training alone.
    shared : bool, default=False
        Whether other fits may come with the same seed, and share the teacher then. Not for a head
        of one's own, which may depend on what nobody knows of.
    n_components : int or None, default=None
        Principal components of the table to learn along; None for all of its dimensions.
    """

    rate: Rate
    n_codewords: int
    codebook_bits: int
    init: str
    length_method: str
    size_penalty: float
    budget: Budget | None
    reconstruction_weight: float
    learning_rate: float
    max_iter: int
    patience: int
    seed: int
    device: str
    verbose: bool
    on_interrupt: str = "raise"
    shared: bool = False
    n_components: int | None = None


@dataclass(frozen=True)
class Learned:
    """What learning found.

    Parameters
    ----------
    choices : ndarray (n_words,) uint8
        Which candidate length each word has.
    codes : ndarray (n_words, n_codebooks) int16
        -1 beyond a word's length.
    codebooks : ndarray (n_codebooks, n_codewords, n_dims) float32
    rank : int
        Axes that the codebooks share, at most.
    mean : ndarray (n_dims,)
        The table's mean vector, which all codes are relative to.
    significance : ndarray (n_words,)
        How much each word's error counts.
    encoder : RowEncoder
        For vectors that were not in the table.
    history : list of dict
        Loss, task score and bits per word of each epoch.
    course : Course
        How the training went.
    """

    choices: Choices
    codes: NDArray[np.int16]
    codebooks: NDArray[np.float32]
    rank: int
    mean: NDArray[np.float64]
    significance: NDArray[np.float64]
    encoder: RowEncoder
    history: list[dict[str, float]]
    course: Course
