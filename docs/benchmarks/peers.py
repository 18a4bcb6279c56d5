"""Peers: compressors of embedding tables that give every word the same number of codes.

Each of them ships codes, packed to whole bytes over the table, and what rebuilds vectors from
them: codebooks, a basis or a decoder, with their scales. Sizes count both, word strings neither.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import faiss
import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from skadacomp import CompressedTable
from skadacomp._codes import code_usage, code_width, packed_nbytes
from skadacomp._learning.codes import (
    RANK_TOLERANCE,
    enough_rank,
    left_out_by_rank,
    reduce_rank,
    refit_codebooks,
)

Floats = NDArray[np.float32]
Codes = NDArray[np.int32]

_TINY = np.float32(1e-12)
# Rows that faiss trains on at most; the others are only encoded.
_N_TRAINED_ON = 65_536
_NEAREST = {
    *(("RQ", f"{n_codes} × 4 bits") for n_codes in (2, 8, 16)),
    ("LSQ", "8 × 4 bits"),
    *(("scalar", f"{bits} bits a number") for bits in (4, 2)),
    ("PQ", "25 × 4 bits"),
    ("PQ", "32 × 4 bits"),
    ("PCA + int8", "20 dims"),
    ("PCA + int8", "64 dims"),
}
_BITS = (8, 16, 32, 64, 128)  # per word
_LEAST_SAVING = 0.01  # of the bytes, for codebooks to be kept as factors


@dataclass(frozen=True)
class Compressed:
    """A table as it comes back, and what it took.

    Parameters
    ----------
    vectors : ndarray (n_words, n_dims)
    nbytes : int
        Codes, codebooks and scales.
    """

    vectors: Floats
    nbytes: int


@dataclass(frozen=True)
class Peer:
    """A method at one setting; `compress` takes the vectors and a seed."""

    method: str
    setting: str
    compress: Callable[[Floats, int], Compressed]


def peers(n_words: int, n_dims: int, effort: str = "full") -> list[Peer]:
    """List the methods and their settings for a table of this shape.

    Parameters
    ----------
    effort : {"full", "short", "least"}
        "short" for large tables: fewer lengths, and one of each slow method. "least" for slow
        heads: what came nearest to the full precision elsewhere.
    """
    if effort not in ("full", "short", "least"):
        raise ValueError(f"effort={effort!r} is none of 'full', 'short' and 'least'.")
    if effort == "least":
        found = peers(n_words, n_dims, "short")
        return [peer for peer in found if (peer.method, peer.setting) in _NEAREST]
    full = effort == "full"
    found = [*_product_peers(n_words, n_dims, full), *_additive_peers(n_words, n_dims, full)]
    for bits in (8, 4, 2, 1):
        setting = f"{bits} bits a number" if bits > 1 else "1 bit a number"
        found.append(Peer("scalar", setting, partial(_scalar, n_bits=bits)))
    for n_kept in (8, 16, 32, 64, 128) if n_dims > 100 else (5, 10, 20, 35):
        if n_kept < n_dims:
            found.append(Peer("PCA + int8", f"{n_kept} dims", partial(_pca, n_kept=n_kept)))
    return [*found, *_autoencoder_peers(n_dims, full)]


def _product_peers(n_words: int, n_dims: int, full: bool) -> Iterator[Peer]:
    """Product quantizers of the lengths nearest to the wanted ones that divide the dimensions."""
    divisors = np.array([n for n in range(2, n_dims + 1) if n_dims % n == 0])
    for width in (4, 8):
        wanted = np.array(_BITS if full else _BITS[::2]) / width
        nearest = np.abs(np.log(divisors / wanted[:, None])).argmin(1)
        for n_codes in np.unique(divisors[nearest]).tolist():
            if _books_are_small(1, width, n_words):  # its codebooks share the dimensions
                run = partial(_product, n_codes=n_codes, width=width)
                yield Peer("PQ", f"{n_codes} × {width} bits", run)


def _additive_peers(n_words: int, n_dims: int, full: bool) -> Iterator[Peer]:
    """Residual and local-search quantizers.

    One 8-bit code is k-means, the same in both. Sixteen of them are left out: they take minutes,
    and codebooks that outweigh what they gain over 4-bit codes and product quantizers.
    """
    # Local search over many codes of few dimensions ends above the residual quantizer's error.
    longest = (32,) if n_dims > 100 else ()
    lengths = {
        ("RQ", 4): (2, 4, 8, 16, 32) if full else (2, 8, 16),
        ("RQ", 8): (1, 2, 4, 8) if full else (1, 4),
        ("LSQ", 4): (2, 4, 8, 16, *longest) if full else (8,),
        ("LSQ", 8): (2, 4) if full else (),
    }
    for (method, width), numbers in lengths.items():
        for n_codes in numbers:
            if _books_are_small(n_codes, width, n_words):
                run = partial(_additive, method=method, n_codes=n_codes, width=width)
                yield Peer(method, f"{n_codes} × {width} bits", run)
                # As ours may have, and where codebooks are much of the whole.
                if method == "RQ" and n_dims > 100:
                    setting = f"{n_codes} × {width} bits, 4-bit codebooks"
                    yield Peer(method, setting, partial(run, codebook_bits=4))


def _books_are_small(n_codebooks: int, width: int, n_words: int) -> bool:
    """Whether int8 codebooks take at most a fifth of the float32 table."""
    return n_codebooks * 2**width <= n_words * 4 / 5


def _autoencoder_peers(n_dims: int, full: bool) -> Iterator[Peer]:
    """The two that train a network."""
    large = n_dims > 100
    for n_bits in ((64, 128, 256) if large else (16, 32, 64, 128)) if full else (64,):
        yield Peer("binary autoencoder", f"{n_bits} bits", partial(_binary, n_bits=n_bits))
    sizes = ((8, 16), (16, 16)) if large else ((8, 4), (4, 16), (8, 16), (16, 16))
    for n_codes, n_codewords in sizes if full else ((8, 16),):
        run = partial(_compositional, n_codes=n_codes, n_codewords=n_codewords)
        yield Peer("compositional codes", f"{n_codes} of {n_codewords}", run)


# ---------------------------------------------------------------------------------------------
# What all of them share.


def _ship(
    vectors: Floats, codebooks: Floats, rebuild: Callable[[Floats], Floats], nbytes: int
) -> Compressed:
    """Round the codebooks as ours are rounded, and rebuild the table from what is left of them.

    int8 with one float32 scale a codebook where that raises the squared error by less than 1 %,
    else float16.

    Parameters
    ----------
    vectors : ndarray (n_words, n_dims)
    codebooks : ndarray (n_codebooks, n_codewords, n_dims of a codeword)
    rebuild : callable
        Makes vectors of codebooks.
    nbytes : int
        What all but the codebooks takes.
    """
    scales = np.maximum(np.abs(codebooks).max((1, 2), keepdims=True) / 127, _TINY)
    rounded = rebuild(np.rint(codebooks / scales) * scales)
    if _error(vectors, rounded) < 1.01 * _error(vectors, rebuild(codebooks)):
        return Compressed(rounded, nbytes + codebooks.size + 4 * len(codebooks))
    halves = codebooks.astype(np.float16)
    return Compressed(rebuild(halves.astype(np.float32)), nbytes + halves.nbytes)


def _error(vectors: Floats, rebuilt: Floats) -> float:
    return float(np.square(vectors - rebuilt).sum(dtype=np.float64))


def _summed(codebooks: Floats, codes: Codes) -> Floats:
    """Sum each word's codewords, one of every codebook."""
    total = np.zeros((len(codes), codebooks.shape[2]), np.float32)
    for book, code in zip(codebooks, codes.T, strict=True):
        total += book[code]
    return total


def _ship_sums(
    vectors: Floats, codes: Codes, codebooks: Floats, codebook_bits: int = 8
) -> Compressed:
    """Refit additive codebooks to the codes by least squares and ship them, both as ours are.

    Parameters
    ----------
    vectors : ndarray (n_words, n_dims)
    codes : ndarray (n_words, n_codebooks)
    codebooks : ndarray (n_codebooks, n_codewords, n_dims)
        Of the table less its mean.
    """
    mean = vectors.mean(0)
    fitted = refit_codebooks(codes, vectors, mean, codebooks)
    # Every word takes one codeword of each, so the mean needs no bytes of its own.
    fitted += mean / len(fitted)
    nbytes = packed_nbytes(codes.size, code_width(codebooks.shape[1]))
    if codebook_bits == 4:
        return _ship_factored(vectors, codes, fitted, nbytes, codebook_bits)
    whole = _ship(vectors, fitted, partial(_summed, codes=codes), nbytes)
    factored = _ship_factored(vectors, codes, fitted, nbytes)
    return factored if factored.nbytes < (1 - _LEAST_SAVING) * whole.nbytes else whole


def _ship_factored(
    vectors: Floats, codes: Codes, codebooks: Floats, nbytes: int, codebook_bits: int = 8
) -> Compressed:
    """Ship codebooks as factors, of the least rank that adds next to no error.

    Whole, where factors would be larger.
    """
    n_words, n_codebooks = codes.shape
    usage = code_usage(codes, np.ones(n_words), codebooks.shape[1])
    allowed = RANK_TOLERANCE * _error(vectors, _summed(codebooks, codes))
    left_out = left_out_by_rank(codebooks.astype(np.float64), usage)
    rank = enough_rank(left_out, allowed)
    low = reduce_rank(codebooks, usage, np.eye(codebooks.shape[2]), rank)
    none = np.zeros(codebooks.shape[2])
    table = CompressedTable.from_codes(
        codes,
        low,
        none,
        code_lengths=(n_codebooks,),
        rank=rank,
        codebook_bits=codebook_bits,
    )
    nbytes += table.sizes["codebooks"] - table.mean.astype(np.float16).nbytes
    return Compressed(_summed(table.codebooks, codes), nbytes)


# ---------------------------------------------------------------------------------------------
# Quantizers of faiss.


def _product(vectors: Floats, seed: int, n_codes: int, width: int) -> Compressed:
    """Product quantization (Jégou et al. 2011): k-means in every slice of the dimensions."""
    quantizer = faiss.ProductQuantizer(vectors.shape[1], n_codes, width)
    _settle(quantizer.cp, width, seed)
    codes = _train_and_encode(quantizer, vectors, seed, n_codes, width)
    codebooks = faiss.vector_to_array(quantizer.centroids).reshape(n_codes, 2**width, -1)
    nbytes = packed_nbytes(codes.size, width)

    def rebuild(books: Floats) -> Floats:
        return np.hstack([book[code] for book, code in zip(books, codes.T, strict=True)])

    return _ship(vectors, codebooks, rebuild, nbytes)


def _additive(
    vectors: Floats, seed: int, method: str, n_codes: int, width: int, codebook_bits: int = 8
) -> Compressed:
    """Residual or local-search quantization of the table less its mean."""
    n_dims = vectors.shape[1]
    make = _residual if method == "RQ" else _local_search
    quantizer = make(n_dims, n_codes, width, seed)
    codes = _train_and_encode(quantizer, vectors - vectors.mean(0), seed, n_codes, width)
    codebooks = faiss.vector_to_array(quantizer.codebooks).reshape(n_codes, 2**width, n_dims)
    return _ship_sums(vectors, codes, codebooks, codebook_bits)


def _residual(n_dims: int, n_codes: int, width: int, seed: int) -> faiss.ResidualQuantizer:
    """Make a quantizer that searches with a beam and refines its codebooks (Chen et al. 2010)."""
    quantizer = faiss.ResidualQuantizer(n_dims, n_codes, width)
    quantizer.max_beam_size = 8 if width == 4 else 4  # the time goes with 2**width
    # In place of k-means in growing dimensions, the default: within 2 %, in half the time.
    quantizer.train_type = faiss.ResidualQuantizer.Train_refine_codebook
    _settle(quantizer.cp, width, seed)
    return quantizer


def _local_search(n_dims: int, n_codes: int, width: int, seed: int) -> faiss.LocalSearchQuantizer:
    """Make a quantizer that searches all codes jointly (LSQ++, Martinez et al. 2018)."""
    quantizer = faiss.LocalSearchQuantizer(n_dims, n_codes, width)
    quantizer.train_iters = 25
    quantizer.train_ils_iters = 4  # 16 codes end at the error of 8, the default
    quantizer.encode_ils_iters = 16
    quantizer.random_seed = seed
    return quantizer


def _settle(clustering: faiss.ClusteringParameters, width: int, seed: int) -> None:
    """Seed k-means and let it use what rows there are, without a word about their number."""
    clustering.seed = seed
    clustering.min_points_per_centroid = 1
    clustering.max_points_per_centroid = _N_TRAINED_ON >> width


def _train_and_encode(
    quantizer: faiss.Quantizer, vectors: Floats, seed: int, n_codes: int, width: int
) -> Codes:
    """Train on rows drawn by the seed and encode all, (n_words, n_codes)."""
    drawn = vectors
    if len(vectors) > _N_TRAINED_ON:
        rows = np.random.default_rng(seed).choice(len(vectors), _N_TRAINED_ON, replace=False)
        drawn = vectors[np.sort(rows)]
    quantizer.train(np.ascontiguousarray(drawn))
    packed = quantizer.compute_codes(np.ascontiguousarray(vectors))
    return faiss.unpack_bitstrings(packed, n_codes, width).astype(np.int32)


# ---------------------------------------------------------------------------------------------
# Plain numbers.


def _scalar(vectors: Floats, _seed: int, n_bits: int) -> Compressed:
    """Uniform quantization within the range that costs least (May et al. 2019)."""
    widest = np.abs(vectors).max()
    clips = widest * np.geomspace(0.02, 1, 60, dtype=np.float32)
    clip = min(clips, key=lambda clip: _error(vectors, _rounded(vectors, clip, n_bits)))
    nbytes = packed_nbytes(vectors.size, n_bits) + 4
    return Compressed(_rounded(vectors, clip, n_bits), nbytes)


def _rounded(vectors: Floats, clip: np.float32, n_bits: int) -> Floats:
    """Put every number at the middle of its bin, of 2**n_bits from -clip to clip."""
    step = np.float32(2 * clip / 2**n_bits)
    bins = np.clip(np.floor(vectors / step), -(2 ** (n_bits - 1)), 2 ** (n_bits - 1) - 1)
    return (bins + np.float32(0.5)) * step


def _pca(vectors: Floats, _seed: int, n_kept: int) -> Compressed:
    """Principal components, each coordinate as int8."""
    mean = vectors.mean(0)
    centred = vectors - mean
    basis = np.linalg.eigh(centred.T @ centred)[1][:, ::-1][:, :n_kept].T  # (n_kept, n_dims)
    coordinates = centred @ basis.T
    scales = np.maximum(np.abs(coordinates).max(0) / 127, _TINY)
    coordinates = np.rint(coordinates / scales) * scales
    nbytes = coordinates.size + scales.nbytes + mean.nbytes
    return _ship(vectors, basis[None], lambda books: coordinates @ books[0] + mean, nbytes)


# ---------------------------------------------------------------------------------------------
# Autoencoders.


def _descend(
    parameters: list[torch.Tensor], loss: Callable[[], torch.Tensor], rate: float, n_steps: int
) -> None:
    """Train with Adam, the learning rate up to `rate` and down again."""
    for parameter in parameters:
        parameter.requires_grad_()
    optimiser = torch.optim.Adam(parameters, rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=n_steps)
    for _ in range(n_steps):
        optimiser.zero_grad()
        loss().backward()
        optimiser.step()
        schedule.step()
    for parameter in parameters:
        parameter.requires_grad_(False)


def _binary(vectors: Floats, seed: int, n_bits: int) -> Compressed:
    """Near-lossless binarization (Tissier et al. 2019), with a least-squares decoder.

    That decoder is linear. At every setting tried it had less error on both of our tables, by up
    to 10 %, than the one trained along, tanh(Wᵀb + c).
    """
    centred = vectors - vectors.mean(0)
    weights = _binary_weights(centred, seed, n_bits).numpy()
    bits = np.hstack([centred @ weights.T >= 0, np.ones((len(vectors), 1))]).astype(np.float32)
    # A bit that never changes leaves this undecided, and the least of all solutions serves.
    decoder = np.linalg.lstsq(bits.T @ bits, bits.T @ vectors, rcond=None)[0]
    offset = decoder[-1]
    nbytes = packed_nbytes(len(vectors) * n_bits, 1) + offset.nbytes
    return _ship(vectors, decoder[None, :-1], lambda w: bits[:, :-1] @ w[0] + offset, nbytes)


def _binary_weights(vectors: Floats, seed: int, n_bits: int) -> torch.Tensor:
    """Train W of the encoder Wx >= 0 and the decoder tanh(Wᵀb + c), (n_bits, n_dims).

    No gradient passes the threshold: W learns from its use in the decoder, and the pull towards
    orthogonal columns keeps it an encoder.
    """
    random = torch.Generator().manual_seed(seed)
    n_words, n_dims = vectors.shape
    # Scaled by a high quantile, and clipped: by the largest number, most would be near zero.
    inputs = torch.from_numpy(vectors / np.quantile(np.abs(vectors), 0.99)).clamp(-1, 1)
    weights = torch.randn(n_bits, n_dims, generator=random) / max(n_bits, n_dims) ** 0.5
    offset = torch.zeros(n_dims)

    def loss() -> torch.Tensor:
        rows = inputs[torch.randint(n_words, (256,), generator=random)]
        bits = (rows @ weights.detach().T >= 0).float()
        error = functional.mse_loss(torch.tanh(bits @ weights + offset), rows)
        overlap = weights.T @ weights - torch.eye(n_dims)
        return error + 1e-3 / 2 * (overlap**2).sum()

    _descend([weights, offset], loss, rate=5e-3, n_steps=3000)
    return weights


def _compositional(vectors: Floats, seed: int, n_codes: int, n_codewords: int) -> Compressed:
    """Compositional codes (Shu and Nakayama 2018): an autoencoder with Gumbel-softmax codes."""
    random = torch.Generator().manual_seed(seed)
    centred = torch.from_numpy(vectors - vectors.mean(0))
    scale = centred.std()  # so that one learning rate serves all tables
    inputs = centred / scale
    n_words, n_dims = inputs.shape
    n_choices = n_codes * n_codewords
    network = _network(n_dims, n_choices, random)
    codebooks = _glorot(n_choices, n_dims, random)

    def loss() -> torch.Tensor:
        rows = inputs[torch.randint(n_words, (128,), generator=random)]
        scores = _scores(network, rows, n_codes)
        gumbel = -torch.empty_like(scores).exponential_(generator=random).log()
        soft = functional.softmax(scores + gumbel, 2).flatten(1)  # temperature 1
        return ((soft @ codebooks - rows) ** 2).sum(1).mean() / 2

    _descend([*network, codebooks], loss, rate=1e-2, n_steps=4000)
    parts = inputs.split(_N_TRAINED_ON)
    codes = torch.cat([_scores(network, part, n_codes).argmax(2) for part in parts])
    books = (codebooks * scale).reshape(n_codes, n_codewords, n_dims)
    return _ship_sums(vectors, codes.numpy().astype(np.int32), books.numpy())


def _network(n_dims: int, n_choices: int, random: torch.Generator) -> list[torch.Tensor]:
    """Start the encoder, which has one hidden layer: weights, offsets, weights, offsets."""
    n_hidden = n_choices // 2
    first, second = _glorot(n_dims, n_hidden, random), _glorot(n_hidden, n_choices, random)
    return [first, torch.zeros(n_hidden), second, torch.zeros(n_choices)]


def _glorot(n_in: int, n_out: int, random: torch.Generator) -> torch.Tensor:
    bound = (6 / (n_in + n_out)) ** 0.5
    return bound * (2 * torch.rand(n_in, n_out, generator=random) - 1)


def _scores(network: list[torch.Tensor], rows: torch.Tensor, n_codes: int) -> torch.Tensor:
    """Score every codeword for every row, (n_rows, n_codes, n_codewords)."""
    first, first_offset, second, second_offset = network
    hidden = torch.tanh(rows @ first + first_offset)
    positive = functional.softplus(hidden @ second + second_offset)
    return torch.log(positive + 1e-8).reshape(len(rows), n_codes, -1)
