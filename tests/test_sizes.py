"""SizeModel: the size of a choice of lengths is that of the file, to the byte."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from skadacomp import CompressedTable, EmbeddingTable
from skadacomp._codebooks import BITS
from skadacomp._sizes import SizeModel

PARAMETERS = {"n_codewords": 8, "note": "é"}


def random_table(n_words: int, words: bool, scale: float, rng: np.random.Generator):
    names = [f"{'wörd' if n % 3 else 'shared beginning'} {n}" for n in range(n_words)]
    vectors = scale * rng.normal(1, 1, size=(n_words, 5))
    return EmbeddingTable(names if words else None, vectors)


def compressed(table, choices, candidates, n_codewords, rng, rank=None, bits=8):
    """Give a table of random codes that has these lengths."""
    lengths = np.array(candidates)[choices]
    codes = rng.integers(0, n_codewords, (table.n_words, candidates[-1]))
    codes[np.arange(candidates[-1]) >= lengths[:, None]] = -1
    codebooks = rng.normal(size=(candidates[-1], n_codewords, table.n_dims))
    mean = table.vectors.mean(0, dtype=np.float64)
    return CompressedTable.from_codes(
        codes,
        codebooks,
        mean,
        table.words,
        code_lengths=candidates,
        rank=rank,
        codebook_bits=bits,
        parameters=PARAMETERS,
    )


@settings(max_examples=100, deadline=None)
@given(
    n_words=st.integers(1, 400),
    words=st.booleans(),
    scale=st.sampled_from([1.0, 1e6, 1e-8]),  # a mean that float16 holds, and two that it does not
    candidates=st.sets(st.integers(0, 12), min_size=1, max_size=5)
    .filter(lambda lengths: lengths != {0})
    .map(lambda lengths: tuple(sorted(lengths))),
    n_codewords=st.sampled_from([2, 4, 16, 256]),
    only=st.none() | st.integers(0, 4),
    rank=st.none() | st.integers(1, 6),
    bits=st.sampled_from(BITS),
    seed=st.integers(0, 999),
)
@example(300, True, 1.0, (0, 2, 4, 8), 4, 0, None, 8, 0)  # everything dropped
@example(300, False, 1.0, (0, 2, 4, 8), 4, 0, 2, 4, 0)
@example(300, True, 1.0, (3,), 16, None, 1, 8, 0)  # one candidate
@example(1, True, 1.0, (0, 1), 2, 1, 6, 4, 0)
def test_sizes_are_exact(n_words, words, scale, candidates, n_codewords, only, rank, bits, seed):
    rng = np.random.default_rng(seed)
    table = random_table(n_words, words, scale, rng)
    shares = rng.dirichlet(np.ones(len(candidates)))
    choices = rng.choice(len(candidates), n_words, p=shares).astype(np.uint8)
    if only is not None:
        choices[:] = only % len(candidates)
    model = SizeModel(table, candidates, n_codewords, PARAMETERS, bits)
    shipped = compressed(table, choices, candidates, n_codewords, rng, rank, bits)
    assert model.file_nbytes(choices, rank) == shipped.file_nbytes
    code_bits = 8 * (shipped.sizes["codes"] + shipped.sizes["lengths"]) / n_words
    assert model.bits_per_word(choices) == code_bits


def test_one_model_sizes_many_choices(tmp_path):
    rng = np.random.default_rng(0)
    table = random_table(5000, True, 1.0, rng)
    model = SizeModel(table, (0, 2, 8), 16, PARAMETERS)
    for share in (0.0, 0.001, 0.3, 0.9, 1.0):
        choices = (rng.random(5000) < share).astype(np.uint8) * rng.integers(1, 3, dtype=np.uint8)
        compressed(table, choices, (0, 2, 8), 16, rng).save(tmp_path / "table")
        assert model.file_nbytes(choices, None) == (tmp_path / "table").stat().st_size


@pytest.mark.parametrize("words", [True, False])
def test_rate_knows_the_words(words):
    table = random_table(500, words, 1.0, np.random.default_rng(0))
    model = SizeModel(table, (0, 2), 4, {})
    assert not model.rate(count_words=False).word_bits.any()
    word_bits = model.rate(count_words=True).word_bits
    # All words kept, they take what their vocabulary takes.
    codes = np.zeros((500, 2), int)
    books, mean = np.zeros((2, 4, 5)), np.zeros(5)
    everything = CompressedTable.from_codes(codes, books, mean, table.words, code_lengths=(0, 2))
    assert word_bits.sum() == pytest.approx(8 * everything.sizes["vocabulary"])
    if words:
        assert word_bits[0] > 2 * word_bits[1]  # "shared beginning 0" and "wörd 1"


def test_budgets():
    table = random_table(100, True, 1.0, np.random.default_rng(0))
    model = SizeModel(table, (0, 2), 4, {})
    assert model.budget(bits_per_word=None, max_bytes=None) is None
    choices = np.ones(100, np.uint8)
    for name, size_of in (("bits_per_word", model.bits_per_word), ("max_bytes", model.file_nbytes)):
        neither = {"bits_per_word": None, "max_bytes": None}
        budget = model.budget(**{**neither, name: 5000})
        assert budget.limit == 5000
        assert budget.size_of(choices) == size_of(choices, None)
        assert replace(budget, rank=2).size_of(choices) == size_of(choices, 2)
        least = size_of(np.zeros(100, np.uint8), 1)
        assert model.budget(**{**neither, name: least}).limit == least
        with pytest.raises(ValueError, match=rf"{name}=.* the smallest possible is"):
            model.budget(**{**neither, name: 0.999 * least})
    with pytest.raises(ValueError, match="two budgets"):
        model.budget(bits_per_word=8, max_bytes=5000)
