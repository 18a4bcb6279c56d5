"""Step 1: each word learns its code length.

A word's length is where what it costs in bits and what its vector's error costs the task balance.
The start is rate-distortion theory with word frequencies; a straight-through Gumbel-softmax (Jang
et al. 2017) then lets the task's own loss move it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import nn
from torch.nn import functional

from skadacomp._encoder import chunks

Floats = NDArray[np.floating]
Choices = NDArray[np.uint8]


def significance(weights: sparse.csr_matrix, n_words: int) -> NDArray[np.float64]:
    """Estimate how much of a document each word makes up, words never seen included.

    The Good-Turing estimate (Good 1953) of the share of new documents that training never showed,
    the words seen once over all words seen, goes to a Zipf prior by row, which takes the table's
    rows to be in order of frequency, as published tables are.

    Parameters
    ----------
    weights : csr_matrix (n_documents, n_words)
        Pooling weights of the training documents.

    Returns
    -------
    ndarray (n_words,)
        Positive, summing to 1.
    """
    # In float64: float32 may have no room for the sums of huge weights.
    totals = np.asarray(abs(weights).astype(np.float64).sum(1)).ravel()
    totals = np.clip(totals, 1e-12, np.finfo(weights.dtype).max).astype(weights.dtype)
    shares = sparse.diags_array(1 / totals) @ abs(weights)
    frequency = np.asarray(shares.mean(0)).ravel()
    n_documents_with = np.bincount(weights.indices, minlength=n_words)
    unseen = np.clip((n_documents_with == 1).sum() / max(weights.nnz, 1), 0.01, 0.5)
    prior = 1 / (np.arange(n_words) + 1000.0)
    mixed = (1 - unseen) * frequency / max(frequency.sum(), 1e-12) + unseen * prior / prior.sum()
    return mixed / mixed.sum()


@dataclass(frozen=True)
class Rate:
    """What a code length costs in bits.

    Parameters
    ----------
    candidates : tuple of int
        The code lengths to choose from, ascending.
    code_width : int
        Bits of one code.
    word_bits : ndarray (n_words,)
        Bits that keeping the word costs beside its codes: its place in the vocabulary. 0 where the
        vocabulary is not counted.
    """

    candidates: tuple[int, ...]
    code_width: int
    word_bits: Floats

    def bits(
        self, choices: Choices | None = None, rows: slice | NDArray[np.int64] = slice(None)
    ) -> Floats:
        """Bits of each of these words at each candidate, (n_rows, n_candidates).

        The length itself costs what an entropy coder pays at the frequencies of `choices`.
        """
        lengths = np.array(self.candidates)
        bits = self.word_bits[rows, None] * (lengths > 0) + lengths * self.code_width
        if choices is None:
            return bits
        counts = np.bincount(choices, minlength=len(lengths)) + 1.0
        return bits - np.log2(counts / counts.sum())

    def code_bits(self, choices: Choices) -> float:
        """Bits of all codes and lengths together, lengths at their entropy."""
        lengths = np.array(self.candidates)
        counts = np.bincount(choices, minlength=len(lengths))
        used = counts[counts > 0]
        entropy = -(used * np.log2(used / used.sum())).sum()
        return float(entropy + self.code_width * (counts @ lengths))


@dataclass(frozen=True)
class Budget:
    """What the chosen lengths may take, in the unit of `size_of`.

    Parameters
    ----------
    limit : float
        Never exceeded.
    size : callable
        The exact size of a choice of lengths and of codebooks of a rank, None for full rank.
    rank : int or None, default=None
        The rank that the codebooks have; None where it is not known yet.
    slack : float, default=0.01
        A size above ``(1 - slack) * limit`` is near enough to stop the search.
    """

    limit: float
    size: Callable[[Choices, int | None], float]
    rank: int | None = None
    slack: float = 0.01

    def size_of(self, choices: Choices) -> float:
        """Give the exact size of a choice of lengths."""
        return self.size(choices, self.rank)

    def fitting_rank(self, rank: int, n_words: int) -> int:
        """Halve a rank of the codebooks until the shortest lengths fit beside them."""
        shortest = np.zeros(n_words, np.uint8)
        while rank > 1 and self.size(shortest, rank) > self.limit:
            rank //= 2
        return rank

    def near(self, size: float) -> bool:
        """Whether `size` uses the budget up without exceeding it."""
        return (1 - self.slack) * self.limit <= size <= self.limit


def choose(cost: Floats, rate: Rate, multiplier: float, rounds: int = 6) -> Choices:
    """Give each word the length with the least ``cost + multiplier * bits``.

    What a length costs depends on how many choose it, so the two are found in turns.
    """
    choices = _cheapest(cost, rate, multiplier, None)
    for _ in range(rounds):
        again = _cheapest(cost, rate, multiplier, choices)
        if np.array_equal(again, choices):
            break
        choices = again
    return choices


def _cheapest(cost: Floats, rate: Rate, multiplier: float, choices: Choices | None) -> Choices:
    """Give each word its best length at the frequencies of `choices`."""
    best = np.empty(len(cost), np.uint8)
    for part in chunks(*cost.shape):
        best[part] = (cost[part] + multiplier * rate.bits(choices, part)).argmin(1)
    return best


def choose_within(cost: Floats, rate: Rate, budget: Budget) -> tuple[Choices, float]:
    """Choose lengths that use a budget up and do not exceed it.

    The multiplier of the bits is bisected; where one step of it moves too many words at once, the
    last words are moved one by one.

    Returns
    -------
    choices : ndarray (n_words,) uint8
    multiplier : float
        What a bit costs there.
    """
    # A first guess: the error that a bit saves on average.
    saved = (cost[:, 0] - cost[:, -1]).mean() / rate.bits()[:, -1].mean()
    exponent, step = np.log2(max(saved, 1e-30)), 1.0
    # (log multiplier, choices) above the limit, and within it
    low: tuple[float, Choices] | None = None
    high: tuple[float, Choices] | None = None
    for _ in range(60):
        choices = choose(cost, rate, 2.0**exponent)
        size = budget.size_of(choices)
        if budget.near(size):
            return choices, 2.0**exponent
        if size > budget.limit:
            low = (exponent, choices)
        else:
            high = (exponent, choices)
        if low and high:
            if np.array_equal(low[1], high[1]) or high[0] - low[0] < 1e-6:
                break
            exponent = (low[0] + high[0]) / 2
        else:
            exponent, step = exponent + (step if low else -step), step * 2
            if abs(exponent) > 200:  # every word has its shortest, or its longest, length
                break
    if high is None:
        # The shortest lengths are the least there is, and the estimator has seen that they fit.
        return np.zeros(len(cost), np.uint8), 2.0**exponent
    return (_fill(low[1], high[1], budget) if low else high[1]), 2.0 ** high[0]


def _fill(above: Choices, within: Choices, budget: Budget) -> Choices:
    """Move as many words from their length in `within` to that in `above` as the budget allows."""
    differing = np.flatnonzero(above != within)
    fits, fails = 0, len(differing)
    best = within
    while fails - fits > 1:
        count = (fits + fails) // 2
        mixed = within.copy()
        mixed[differing[:count]] = above[differing[:count]]
        if budget.size_of(mixed) <= budget.limit:
            fits, best = count, mixed
        else:
            fails = count
    return best


class LengthLogits(nn.Module):
    """One logit a word and candidate, sampled with a straight-through Gumbel-softmax.

    Parameters
    ----------
    excess : Tensor (n_words, n_candidates)
        How much worse than its best each candidate starts, in units of one bit's cost.
    candidates : tuple of int
        The code lengths.
    n_codebooks : int
        The longest of them.
    """

    start: torch.Tensor  # (n_words, n_candidates)
    nested: torch.Tensor  # (n_candidates, n_codebooks), 1 where a length uses a codebook
    kept: torch.Tensor  # (n_candidates,), 0 for the length that drops a word

    def __init__(self, excess: torch.Tensor, candidates: tuple[int, ...], n_codebooks: int) -> None:
        super().__init__()
        lengths = torch.tensor(candidates, device=excess.device)
        # Bounded, so that no word starts beyond the reach of what training may find.
        self.register_buffer("start", -torch.clamp(2 * excess, max=4.0))
        self.learned = nn.Parameter(torch.zeros_like(excess))
        self.register_buffer(
            "nested", (lengths[:, None] > torch.arange(n_codebooks, device=excess.device)).float()
        )
        self.register_buffer("kept", (lengths > 0).float())
        self.choices: torch.Tensor | None = None

    def best(self) -> torch.Tensor:
        """Each word's best candidate, (n_words,)."""
        return (self.start + self.learned).argmax(1) if self.choices is None else self.choices

    def probabilities(self) -> torch.Tensor:
        """Softmax of the logits, (n_words, n_candidates)."""
        return row_softmax(self.start + self.learned)

    def forward(
        self,
        rows: torch.Tensor,
        temperature: float | None,
        generator: torch.Generator | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Open the codebooks that each word uses.

        Parameters
        ----------
        rows : Tensor (n_rows,)
            Which words.
        temperature : float or None
            Of the Gumbel-softmax; None takes the best length of each.

        Returns
        -------
        gates : Tensor (n_rows, n_codebooks)
            1 where the word has a code in that codebook, with a gradient to the logits.
        kept : Tensor (n_rows,)
            1 where the word has any code.
        """
        if temperature is None:
            picked = functional.one_hot(self.best()[rows], len(self.kept)).float()
        else:
            logits = self.start[rows] + self.learned[rows]  # (n_rows, n_candidates)
            picked = _gumbel_softmax(logits, temperature, generator)
        return picked @ self.nested, picked @ self.kept


def row_softmax(logits: torch.Tensor) -> torch.Tensor:
    """Softmax of each row, (n_rows, n_columns)."""
    if logits.shape[1] > 8:
        return functional.softmax(logits, 1)
    # Of rows as short as these, torch is several times quicker along columns.
    return functional.softmax(logits.T.contiguous(), 0).T


def hard_softmax(logits: torch.Tensor) -> torch.Tensor:
    """Straight-through: each row's largest one-hot forward, the gradient of a softmax backward."""
    soft = row_softmax(logits)
    hard = torch.zeros_like(soft).scatter_(1, logits.argmax(1, keepdim=True), 1)
    return soft + (hard - soft.detach())


def _gumbel_softmax(
    logits: torch.Tensor, temperature: float, generator: torch.Generator | None
) -> torch.Tensor:
    """Sample one-hot rows."""
    uniform = torch.rand(logits.shape, generator=generator, device=logits.device)
    gumbel = -torch.log(-torch.log(uniform.clamp(1e-9, 1 - 1e-7)))
    return hard_softmax((logits + gumbel) / temperature)
