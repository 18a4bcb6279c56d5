"""Step 2: each word learns its codes.

The encoder is a linear layer tied to the decoder: its weights are the codewords. It scores the
first codebook's codewords, takes the best, takes off what that one explains already, and goes on:
a residual quantizer's greedy search written as a network, so that a gradient can pass through.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from skadacomp._codes import code_matrix
from skadacomp._encoder import chunks
from skadacomp._learning.lengths import hard_softmax

# Of the error that codes leave: what codebooks of low rank may add to it and still do as well.
RANK_TOLERANCE = 0.03


class Rows(Protocol):
    """Whatever gives the rows of a table for their ids: an array, or a stand-in for one."""

    def __getitem__(self, rows: NDArray[np.int64], /) -> NDArray[np.float32]:
        """Rows, one for each id."""
        ...


def residual_kmeans(
    points: torch.Tensor,
    weights: torch.Tensor,
    n_codebooks: int,
    n_codewords: int,
    generator: torch.Generator,
) -> torch.Tensor:
    """Fit codebooks one after the other, each to what those before leave over.

    Parameters
    ----------
    points : Tensor (n_points, n_dims)
    weights : Tensor (n_points,)
        How much each point counts, positive.

    Returns
    -------
    Tensor (n_codebooks, n_codewords, n_dims)
    """
    left = points.clone()
    codebooks = []
    for _ in range(n_codebooks):
        codewords = _kmeans(left, weights, n_codewords, generator)
        left -= codewords[_nearest(left, codewords)]
        codebooks.append(codewords)
    return torch.stack(codebooks)


def random_codebooks(
    points: torch.Tensor,
    weights: torch.Tensor,
    n_codebooks: int,
    n_codewords: int,
    generator: torch.Generator,
) -> torch.Tensor:
    """Draw codewords at random, with as much variance together as the points have.

    Parameters and result are those of `residual_kmeans`.
    """
    shape = (n_codebooks, n_codewords, points.shape[1])
    draws = torch.randn(shape, generator=generator, device=points.device)
    variance = (points**2).sum(1) @ weights / weights.sum()
    return draws * torch.sqrt(variance / points.shape[1] / n_codebooks)


def _kmeans(
    points: torch.Tensor,
    weights: torch.Tensor,
    k: int,
    generator: torch.Generator,
    rounds: int = 12,
) -> torch.Tensor:
    """Weighted k-means, started as k-means++ does; scikit-learn's has no place in this room."""
    centres = _spread(points, weights, k, generator)
    for _ in range(rounds):
        members = _nearest(points, centres)
        mass = torch.zeros(k, device=points.device).index_add_(0, members, weights)
        sums = torch.zeros_like(centres).index_add_(0, members, points * weights[:, None])
        # A codeword that nobody chose stays where it is.
        centres = torch.where(mass[:, None] > 0, sums / mass.clamp_min(1e-30)[:, None], centres)
    return centres


def _spread(
    points: torch.Tensor, weights: torch.Tensor, k: int, generator: torch.Generator
) -> torch.Tensor:
    """Draw k points far from one another (k-means++, Arthur and Vassilvitskii 2007)."""
    chosen = [_draw(weights, generator)]
    distance = ((points - points[chosen[0]]) ** 2).sum(1)
    for _ in range(k - 1):
        # Where all points coincide with a centre, any point serves.
        mass = weights * distance
        chosen.append(_draw(mass if mass.sum() > 0 else weights, generator))
        distance = torch.minimum(distance, ((points - points[chosen[-1]]) ** 2).sum(1))
    return points[chosen].clone()


def _draw(mass: torch.Tensor, generator: torch.Generator) -> int:
    """Draw one index with probability proportional to `mass`."""
    heights = torch.cumsum(mass.double(), 0)
    level = torch.rand(1, generator=generator, device=mass.device, dtype=torch.float64)
    return int(torch.searchsorted(heights, level * heights[-1]).clamp_max(len(mass) - 1))


def _nearest(points: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
    return (2 * points @ centres.T - (centres**2).sum(1)).argmax(1)


def refit_codebooks(
    codes: NDArray[np.integer],
    vectors: Rows,
    mean: NDArray[np.floating],
    trained: NDArray[np.floating],
    weights: NDArray[np.floating] | None = None,
    pull: float = 1e-4,
) -> NDArray[np.float32]:
    """Fit the codebooks to vectors by least squares, with the codes fixed.

    Parameters
    ----------
    codes : ndarray (n_words, n_codebooks)
        -1 beyond a word's length; words without any code are left out.
    vectors : Rows (n_words, n_dims)
    mean : ndarray (n_dims,)
    trained : ndarray (n_codebooks, n_codewords, n_dims)
        Where codewords stay that the codes leave undecided.
    weights : ndarray (n_words,), default=None
        How much each word's error counts; None counts all alike.
    pull : float
        How strongly codewords stay, as a part of all words' weight.
    """
    n_codebooks, n_codewords, n_dims = trained.shape
    n_columns = n_codebooks * n_codewords
    gram, moment = np.zeros((n_columns, n_columns)), np.zeros((n_columns, n_dims))
    kept = np.flatnonzero(codes[:, 0] >= 0)
    counts = np.ones(len(codes)) if weights is None else weights.astype(np.float64)
    for part in chunks(len(kept), n_dims):
        rows = kept[part]
        picks = code_matrix(codes[rows], n_codewords)[:, :-1].astype(np.float64)
        weighted = picks.multiply(counts[rows, None]).T.tocsr()
        gram += (weighted @ picks).toarray()
        moment += weighted @ (vectors[rows] - mean)
    ridge = pull * (counts[kept].sum() or 1.0)
    gram[np.diag_indices(n_columns)] += ridge
    fitted = np.linalg.solve(gram, moment + ridge * trained.reshape(n_columns, n_dims))
    return fitted.reshape(trained.shape).astype(np.float32)


def left_out_by_rank(
    images: NDArray[np.float64], usage: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Weighted squared error that codebooks add at each rank, from 0 to the full one.

    Parameters
    ----------
    images : ndarray (n_codebooks, n_codewords, n_dims)
        Codebooks in the space where distances count.
    usage : ndarray
        As `skadacomp._codes.code_usage` gives it.
    """
    root, _ = _roots(usage)
    sizes = np.linalg.svd(root @ images.reshape(len(root), -1), compute_uv=False)
    return np.append(np.cumsum((sizes**2)[::-1])[::-1], 0.0)


def enough_rank(left_out: NDArray[np.float64], allowed: float) -> int:
    """Find the least rank, 1 at least, that adds no more error than allowed.

    Parameters
    ----------
    left_out : ndarray
        As `left_out_by_rank` gives it.
    allowed : float
        Weighted squared error.
    """
    return max(int((left_out <= allowed).argmax()), 1)


def paying_rank(
    images: NDArray[np.float64],
    usage: NDArray[np.float64],
    *,
    n_dims: int,
    n_bits: int,
    price: float,
    negligible: float,
) -> int:
    """Find the rank whose axes are worth their bits; the full one where no lower rank is smaller.

    Parameters
    ----------
    images, usage
        As in `left_out_by_rank`.
    n_dims : int
        Numbers of an axis, or of a codeword that is kept whole.
    n_bits : int
        Of each of them.
    price : float
        Weighted squared error that a bit of the codes saves; one of an axis has to save as much.
    negligible : float
        Weighted squared error that is no reason for a further axis, however cheap bits are.
    """
    left_out = left_out_by_rank(images, usage)  # of each rank from 0
    # Coordinates take 8 bits; an axis, as many a number as are asked for, and a scale.
    bits = np.arange(len(left_out)) * (8 * len(usage) + n_bits * n_dims + 32)
    whole = n_bits * n_dims * len(usage)
    losses = (left_out + price * bits)[1:]
    pays = losses.min() < price * whole
    priced = int(losses.argmin()) + 1 if pays else images.shape[-1]
    enough = enough_rank(left_out, negligible)
    return min(priced, enough) if bits[enough] < whole else priced


def reduce_rank(
    codebooks: NDArray[np.float32],
    usage: NDArray[np.float64],
    metric: NDArray[np.float64],
    rank: int,
) -> NDArray[np.float32]:
    """Give the codebooks of a rank that rebuild the same vectors with the least weighted error.

    A truncated singular value decomposition, weighed by the codewords' use on one side and by the
    metric on the other (Eckart and Young 1936).
    """
    flat = codebooks.reshape(len(usage), -1).astype(np.float64)
    if rank >= min(flat.shape):
        return codebooks
    root, inverse = _roots(usage)
    left, sizes, right = np.linalg.svd(root @ flat @ metric, full_matrices=False)
    low = (left[:, :rank] * sizes[:rank]) @ right[:rank]
    reduced = inverse @ np.linalg.solve(metric.T, low.T).T
    return reduced.reshape(codebooks.shape).astype(np.float32)


def _roots(usage: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Square root of a usage, and its inverse; codewords without any use count a little."""
    values, axes = np.linalg.eigh(usage)
    values = np.maximum(values, 1e-6 * max(values.mean(), 1e-30))
    return (axes * np.sqrt(values)) @ axes.T, (axes / np.sqrt(values)) @ axes.T


def _lengthened(rows: torch.Tensor, n_rows: int) -> torch.Tensor:
    """Add rows of 0."""
    return functional.pad(rows, (0, 0, 0, n_rows - len(rows)))


class TiedEncoder(nn.Module):
    """Codebooks that both encode and decode, with a hard choice forward and a soft one backward.

    Parameters
    ----------
    codebooks : Tensor (n_codebooks, n_codewords, n_dims)
        Where to start from.
    sharpness : Tensor (n_codebooks,)
        Inverse temperature of the soft choice in each codebook: one over the error left to it.
    """

    sharpness: torch.Tensor

    def __init__(self, codebooks: torch.Tensor, sharpness: torch.Tensor) -> None:
        super().__init__()
        self.codebooks = nn.Parameter(codebooks.clone())
        self.register_buffer("sharpness", sharpness)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Choose a codeword in each codebook.

        Parameters
        ----------
        inputs : Tensor (n_rows, n_dims)

        Returns
        -------
        Tensor (n_rows, n_codebooks, n_codewords)
            One-hot, with the gradient of a softmax.
        """
        return torch.stack(list(self._picks(inputs, [len(inputs)] * len(self.codebooks))), 1)

    def rebuild(self, inputs: torch.Tensor, n_codes: torch.Tensor) -> torch.Tensor:
        """Encode and decode, and spend no time on codes that nobody needs.

        Parameters
        ----------
        inputs : Tensor (n_rows, n_dims)
        n_codes : Tensor (n_rows,)
            How many codes each row has, the most first.

        Returns
        -------
        Tensor (n_rows, n_dims)
            Each row's codewords, summed; the gradient is that of `forward`.
        """
        books = torch.arange(len(self.codebooks), device=n_codes.device)
        n_rows = (n_codes[:, None] > books).sum(0).tolist()  # that use each codebook
        picks = self._picks(inputs, n_rows)
        total = inputs[:0]
        for part in reversed([p @ book for p, book in zip(picks, self.codebooks, strict=True)]):
            total = part + _lengthened(total, len(part))
        return _lengthened(total, len(inputs))

    def _picks(self, inputs: torch.Tensor, n_rows: list[int]) -> Iterator[torch.Tensor]:
        """Choose a codeword in each codebook for the first rows, so many of them."""
        n_codewords = self.codebooks.shape[1]
        doubled, squares = 2 * self.codebooks, (self.codebooks**2).sum(2)
        flat = doubled.detach().flatten(0, 1)
        # What a chosen codeword takes off the scores of the codebooks after it.
        overlaps = (flat @ flat.T / 2).split(n_codewords)
        taken = flat.new_zeros(n_rows[0], len(flat))
        n_going_on = [*n_rows[1:], 0]  # to the next codebook
        books = zip(doubled, squares, self.sharpness, n_rows, n_going_on, strict=True)
        for m, (book, square, sharpness, n, n_next) in enumerate(books):
            inputs = inputs[:n]
            score = inputs @ book.T - square - taken[:, :n_codewords]
            pick = hard_softmax(score * sharpness)  # (n, n_codewords)
            yield pick
            overlap = overlaps[m][:, (m + 1) * n_codewords :]
            taken = taken[:n_next, n_codewords:] + pick[:n_next].detach() @ overlap

    def repulsion(self) -> torch.Tensor:
        """Penalty on codewords that repeat those of another codebook: the mean squared cosine.

        The orthogonality penalty of binary autoencoders (Tissier et al. 2019), on the codewords
        less their codebook's mean, which tells no two words apart.
        """
        n_codebooks, n_codewords, n_dims = self.codebooks.shape
        if n_codebooks == 1:
            return self.codebooks.new_zeros(())
        contrast = self.codebooks - self.codebooks.mean(1, keepdim=True)
        unit = functional.normalize(contrast, dim=2).reshape(-1, n_dims)
        book = torch.arange(len(unit), device=unit.device) // n_codewords
        others = book[:, None] != book
        return ((unit @ unit.T) ** 2)[others].mean()
