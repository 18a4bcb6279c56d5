"""Compressed embeddings as torch modules: drop-ins for `torch.nn.Embedding`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from skadacomp._codes import code_width, shortened
from skadacomp._compressed import CompressedTable
from skadacomp._learning.codes import TiedEncoder, residual_kmeans
from skadacomp._learning.lengths import LengthLogits, Rate, choose

__all__ = ["AdaptiveCodebookEmbedding", "CodebookEmbedding"]

_SAMPLE = 2**14  # rows that codebooks are started from
_CODE_LENGTHS = (0, 1, 2, 4, 8)  # what the compressor takes for networks


class CodebookEmbedding(nn.Module):
    """A compressed table in place of `torch.nn.Embedding`: row ids in, vectors out.

    Codes and lengths are buffers, codebooks and mean vector parameters. What it holds is that of
    the codes, and never the table: less than a byte a code, and a byte for each word's length.

    Parameters
    ----------
    codes : array-like of int, shape (n_words, n_codebooks)
        -1 beyond a word's length.
    codebooks : array-like of float, shape (n_codebooks, n_codewords, n_dims)
        A word's vector is the sum of the codewords that its codes pick.
    mean : array-like of float, shape (n_dims,)
        Added to every word's sum of codewords; a word without a code is just that.
    padding_idx : int, default=None
        A row whose vector is zeros, as in `torch.nn.Embedding`.
    freeze : bool, default=True
        Whether the codebooks stay as they are in training.

    Examples
    --------
    >>> import torch
    >>> from skadacomp.nn import CodebookEmbedding
    >>> codes = [[0, 1], [1, -1], [-1, -1]]
    >>> embedding = CodebookEmbedding(codes, [[[1.0], [2.0]], [[10.0], [20.0]]], [0.5])
    >>> embedding(torch.tensor([0, 1, 2])).tolist()
    [[21.5], [2.5], [0.5]]
    """

    packed: torch.Tensor  # (n_words, n_bytes) of uint8, or int16 for more than 256 codewords
    lengths: torch.Tensor  # (n_words,) of uint8

    def __init__(
        self,
        codes: Any,
        codebooks: Any,
        mean: Any,
        *,
        padding_idx: int | None = None,
        freeze: bool = True,
    ) -> None:
        super().__init__()
        numbers = np.asarray(codes)
        self.codebooks = _parameter(codebooks, freeze)
        self.mean = _parameter(mean, freeze)
        self.n_codebooks, self.n_codewords, self.embedding_dim = self.codebooks.shape
        self.num_embeddings = len(numbers)
        self.padding_idx = _checked_padding(padding_idx, self.num_embeddings)
        width = code_width(self.n_codewords)
        self.width = next(wide for wide in (1, 2, 4, 8, 16) if wide >= width)
        self.register_buffer("packed", torch.as_tensor(_packed(numbers, self.width)))
        lengths = (numbers >= 0).sum(1).astype(np.uint8)
        self.register_buffer("lengths", torch.as_tensor(lengths))

    @classmethod
    def from_compressed(
        cls, compressed: Any, *, padding_idx: int | None = None, freeze: bool = True
    ) -> Self:
        """Take a fitted compressor, a CompressedTable, or the path of a saved one.

        Parameters
        ----------
        compressed : AdaptiveCodebookCompressor, CompressedTable, str or path-like
            What to take codes and codebooks from.
        padding_idx : int, default=None
            A row whose vector is zeros.
        freeze : bool, default=True
            Whether the codebooks stay as they are in training.

        Returns
        -------
        CodebookEmbedding
            Of ``n_words`` rows, in the order of the original table.

        Raises
        ------
        TypeError
            If `compressed` is none of these.
        """
        table = getattr(compressed, "compressed_", compressed)
        if isinstance(table, str | os.PathLike):
            table = CompressedTable.open(table)
        if not isinstance(table, CompressedTable):
            raise TypeError(
                f"compressed is of type {type(compressed).__name__}; it must be a fitted "
                "AdaptiveCodebookCompressor, a CompressedTable, or the path of a saved one."
            )
        books = table.codebooks, table.mean
        return cls(table.codes, *books, padding_idx=padding_idx, freeze=freeze)

    def to_compressed(
        self, words: Sequence[str] | None = None, **parameters: Any
    ) -> CompressedTable:
        """Give what ships: a table to save, which numpy alone reads.

        Parameters
        ----------
        words : sequence of str, default=None
            The word of each row; those with a code must be distinct. None makes a table that knows
            row ids alone.
        **parameters
            How codebooks are kept: ``rank``, ``codebook_bits`` and ``weights`` of
            `CompressedTable.from_codes`.

        Returns
        -------
        CompressedTable
            Without `padding_idx`: that row has a vector like any other.

        Raises
        ------
        ValueError
            If `words` are not one a row, or `CompressedTable.from_codes` refuses a parameter.
        """
        return CompressedTable.from_codes(
            shortened(_array(self._unpacked(self.packed)), _array(self.lengths)),
            _array(self.codebooks),
            _array(self.mean),
            words,
            code_lengths=self.lengths.unique().tolist(),
            **parameters,
        )

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Give the vectors of row ids.

        Parameters
        ----------
        input : Tensor of int, any shape
            Row ids.

        Returns
        -------
        Tensor of the shape of `input` and one dimension more, n_dims
        """
        rows = input.reshape(-1)
        codes = self._unpacked(self.packed[rows])  # (n_rows, n_codebooks)
        book = torch.arange(self.n_codebooks, device=rows.device)
        # Beyond a word's length comes a last codeword of zeros.
        none = self.n_codebooks * self.n_codewords
        places = torch.where(book < self.lengths[rows, None], codes + book * self.n_codewords, none)
        codewords = functional.pad(self.codebooks.flatten(0, 1), (0, 0, 0, 1))
        vectors = functional.embedding_bag(places, codewords, mode="sum") + self.mean
        vectors = _without_padding(vectors, rows, self.padding_idx)
        return vectors.reshape(*input.shape, self.embedding_dim)

    def _unpacked(self, packed: torch.Tensor) -> torch.Tensor:
        """Codes (n_rows, n_codebooks) of what `_packed` made."""
        if self.width >= 8:
            # int16 is signed: codes of more than 15 bits come back through the mask.
            return packed.long() & ((1 << self.width) - 1)
        shifts = torch.arange(0, 8, self.width, device=packed.device)
        codes = (packed.long()[:, :, None] >> shifts) & ((1 << self.width) - 1)
        return codes.flatten(1)[:, : self.n_codebooks]

    def extra_repr(self) -> str:
        """Say the sizes, as `torch.nn.Embedding` does."""
        return (
            f"{self.num_embeddings}, {self.embedding_dim}, n_codebooks={self.n_codebooks}, "
            f"n_codewords={self.n_codewords}, padding_idx={self.padding_idx}"
        )


class AdaptiveCodebookEmbedding(nn.Module):
    """An embedding that learns code lengths and codes within one's own training loop.

    In training every word is rebuilt from codes, at a length drawn by its logits; the gradient
    reaches the words, the codebooks and the logits straight through. Add `size_loss` to the loss,
    lower `temperature` from 1 to .3 as training goes on, and `harden` at last.

    Parameters
    ----------
    weight : Tensor (n_words, n_dims)
        Pretrained vectors.
    code_lengths : sequence of int, default=(0, 1, 2, 4, 8)
        Candidates, ascending.
    n_codewords : int, default=16
        Of a codebook.
    size_penalty : float, default=0.005
        Loss that one more bit a word, as a mean over the table, has to save.
    frequency : array-like of shape (n_words,), default=None
        How often each word occurs in the task; None takes rows to be in order of frequency
        (Zipf's law).
    padding_idx : int, default=None
        A row whose vector is zeros.
    seed : int, default=0
        Of the starting codebooks. Lengths are drawn by torch's own seed, like dropout.

    Attributes
    ----------
    temperature : float
        Of the Gumbel-softmax that draws lengths. 1 at first.

    Examples
    --------
    >>> import torch
    >>> from skadacomp.nn import AdaptiveCodebookEmbedding
    >>> weight = torch.randn(100, 8, generator=torch.Generator().manual_seed(0))
    >>> embedding = AdaptiveCodebookEmbedding.from_pretrained(weight, code_lengths=(0, 2, 4))
    >>> loss = embedding(torch.tensor([[3, 5], [7, 9]])).square().mean() + embedding.size_loss()
    >>> loss.backward()
    >>> embedding.harden()(torch.tensor([3, 5])).shape
    torch.Size([2, 8])
    """

    mean: torch.Tensor  # (n_dims,)
    bits: torch.Tensor  # (n_words, n_candidates)

    def __init__(
        self,
        weight: torch.Tensor,
        code_lengths: Sequence[int] = _CODE_LENGTHS,
        n_codewords: int = 16,
        *,
        size_penalty: float = 0.005,
        frequency: Any = None,
        padding_idx: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if weight.ndim != 2 or not torch.isfinite(weight).all():
            raise ValueError(
                f"weight of shape {tuple(weight.shape)} must be finite numbers (n_words, n_dims)."
            )
        weight = weight.detach().float()
        self.num_embeddings, self.embedding_dim = weight.shape
        self.padding_idx = _checked_padding(padding_idx, self.num_embeddings)
        self.candidates = _checked_lengths(code_lengths)
        self.size_penalty, self.temperature = size_penalty, 1.0
        self.rate = Rate(self.candidates, code_width(n_codewords), np.zeros(len(weight)))
        significance = _significance(frequency, self.num_embeddings)
        self.register_buffer("mean", weight.mean(0))
        self.weight = nn.Parameter(weight.clone())
        generator = torch.Generator(weight.device).manual_seed(seed)
        self._start(weight - weight.mean(0), significance, n_codewords, generator)

    @classmethod
    def from_pretrained(
        cls, weight: torch.Tensor, code_lengths: Sequence[int] = _CODE_LENGTHS, **parameters: Any
    ) -> Self:
        """Start from pretrained vectors.

        Parameters
        ----------
        weight : Tensor (n_words, n_dims)
            Pretrained vectors.
        code_lengths : sequence of int, default=(0, 1, 2, 4, 8)
            Candidates, ascending.
        **parameters
            The others of the class.

        Returns
        -------
        AdaptiveCodebookEmbedding
        """
        return cls(weight, code_lengths, **parameters)

    @torch.no_grad()
    def _start(
        self,
        centred: torch.Tensor,
        significance: NDArray[np.float64],
        n_codewords: int,
        generator: torch.Generator,
    ) -> None:
        """Take codes from residual k-means, and lengths from rate and distortion."""
        weights = torch.as_tensor(significance, dtype=torch.float32, device=centred.device)
        energy = (centred.square().sum(1) * weights).sum().clamp_min(1e-12)
        drawn = torch.randperm(len(centred), generator=generator, device=centred.device)
        drawn = drawn[:_SAMPLE]
        n_codebooks = self.candidates[-1]
        books = residual_kmeans(centred[drawn], weights[drawn], n_codebooks, n_codewords, generator)
        left = _errors(TiedEncoder(books, books.new_ones(n_codebooks)), centred)
        cost = (left * weights[:, None] / energy)[:, list(self.candidates)].double().cpu().numpy()
        multiplier = self.size_penalty / self.num_embeddings
        choices = choose(cost, self.rate, multiplier)
        bits = self.rate.bits(choices)
        total = cost + multiplier * bits
        excess = np.minimum((total - total.min(1, keepdims=True)) / multiplier, 1e6)
        self.register_buffer(
            "bits", torch.as_tensor(bits, dtype=torch.float32, device=centred.device)
        )
        share = (left[:, :-1] * weights[:, None]).sum(0) / energy
        self.encoder = TiedEncoder(books, 1 / (share * energy).clamp_min(1e-6))
        start = torch.as_tensor(excess, dtype=torch.float32, device=centred.device)
        self.lengths = LengthLogits(start, self.candidates, n_codebooks)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Give the vectors of row ids, rebuilt from codes.

        Parameters
        ----------
        input : Tensor of int, any shape
            Row ids.

        Returns
        -------
        Tensor of the shape of `input` and one dimension more, n_dims
        """
        rows, places = torch.unique(input, return_inverse=True)
        picks = self.encoder(self.weight[rows] - self.mean)  # (n_rows, n_codebooks, n_codewords)
        heat = self.temperature if self.training else None
        gates, _ = self.lengths(rows, heat)  # (n_rows, n_codebooks)
        gated = (picks * gates[:, :, None]).flatten(1)
        vectors = gated @ self.encoder.codebooks.flatten(0, 1) + self.mean
        vectors = _without_padding(vectors, rows, self.padding_idx)
        return vectors[places]

    def size_loss(self) -> torch.Tensor:
        """Give what the expected bits of all words cost, to add to the loss."""
        bits: torch.Tensor = (self.lengths.probabilities() * self.bits).sum(1).mean()
        return self.size_penalty * bits

    @torch.no_grad()
    def harden(self) -> CodebookEmbedding:
        """End the learning: give each word its best length, and the codes that it has there.

        Returns
        -------
        CodebookEmbedding
            Gives the vectors that this one gives in eval mode.
        """
        parts = (self.weight - self.mean).split(_SAMPLE)
        codes = torch.cat([self.encoder(part).argmax(2) for part in parts])
        lengths = np.array(self.candidates)[_array(self.lengths.best())]
        found = CodebookEmbedding(
            shortened(_array(codes), lengths),
            _array(self.encoder.codebooks),
            _array(self.mean),
            padding_idx=self.padding_idx,
        )
        return found.to(self.weight.device)


def _array(tensor: torch.Tensor) -> NDArray[Any]:
    return tensor.detach().cpu().numpy()


def _errors(encoder: TiedEncoder, centred: torch.Tensor) -> torch.Tensor:
    """Squared error of each row at each number of codes, (n_words, n_codebooks + 1)."""
    found = []
    for part in centred.split(_SAMPLE):
        picked = encoder(part).argmax(2)
        words = torch.stack([b[p] for b, p in zip(encoder.codebooks, picked.T, strict=True)], 1)
        left = part[:, None] - functional.pad(words.cumsum(1), (0, 0, 1, 0))
        found.append(left.square().sum(2))
    return torch.cat(found)


def _significance(frequency: Any, n_words: int) -> NDArray[np.float64]:
    if frequency is None:
        weights = 1 / (np.arange(n_words) + 10.0)
    else:
        weights = np.asarray(frequency, np.float64) + 0.5
        if weights.shape != (n_words,) or not (weights > 0).all():
            raise ValueError(
                f"frequency of shape {weights.shape} must be {n_words} counts, one a row, none "
                "below 0."
            )
    return weights / weights.sum()


def _checked_lengths(code_lengths: Sequence[int]) -> tuple[int, ...]:
    lengths = tuple(int(n) for n in code_lengths)
    if not lengths or lengths[0] < 0 or lengths[-1] < 1 or sorted(set(lengths)) != list(lengths):
        raise ValueError(
            f"code_lengths={tuple(code_lengths)} must ascend from 0 or more to 1 or more, such as "
            "(0, 2, 4, 8)."
        )
    return lengths


def _checked_padding(padding_idx: int | None, n_words: int) -> int | None:
    if padding_idx is not None and not -n_words <= padding_idx < n_words:
        raise ValueError(f"padding_idx={padding_idx} must be a row from 0 to {n_words - 1}.")
    return padding_idx if padding_idx is None else padding_idx % n_words


def _without_padding(
    vectors: torch.Tensor, rows: torch.Tensor, padding_idx: int | None
) -> torch.Tensor:
    """Make the padding row's vectors zeros, (n_rows, n_dims)."""
    return vectors if padding_idx is None else vectors * (rows != padding_idx)[:, None]


def _parameter(values: Any, freeze: bool) -> nn.Parameter:
    tensor = torch.as_tensor(np.array(values, np.float32))
    return nn.Parameter(tensor, requires_grad=not freeze)


def _packed(codes: NDArray[Any], width: int) -> NDArray[Any]:
    """Pack codes within bytes, the first in the lowest bits; -1 becomes 0."""
    kept = np.maximum(codes, 0)
    if width == 16:
        return kept.astype(np.uint16).view(np.int16)
    if width == 8:
        return kept.astype(np.uint8)
    in_byte = 8 // width
    padded = np.pad(kept, ((0, 0), (0, -kept.shape[1] % in_byte))).astype(np.uint8)
    shifts = np.arange(0, 8, width, dtype=np.uint8)
    grouped = padded.reshape(len(padded), -1, in_byte) << shifts
    return np.bitwise_or.reduce(grouped, axis=2)
