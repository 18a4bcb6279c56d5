"""CompressedTable: what ships. Exact sizes, whole round trips, hostile files."""

from __future__ import annotations

import copy
import json
import os
import pickle
import re
import subprocess
import sys
import textwrap
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import skadacomp._compressed as room
from skadacomp._codebooks import codebook_shapes
from skadacomp._codes import code_matrix, decode, encode_lengths
from skadacomp._compressed import FORMAT, CompressedTable, FormatError
from skadacomp._texts import segment_sums

GOLDEN = Path(__file__).parent / "data" / "compressed-format-1.safetensors"


def random_case(n_words=200, n_codewords=4, n_dims=6, candidates=(0, 2, 4, 8), seed=0, shares=None):
    """Codes (n_words, max(candidates)) padded with -1, codebooks and mean."""
    rng = np.random.default_rng(seed)
    n_codebooks = max(1, *candidates)
    lengths = rng.choice(candidates, n_words, p=shares)
    codes = rng.integers(0, n_codewords, (n_words, n_codebooks))
    codes[np.arange(n_codebooks) >= lengths[:, None]] = -1
    codebooks = rng.normal(size=(n_codebooks, n_codewords, n_dims)).astype(np.float32)
    return codes, codebooks, rng.normal(size=n_dims).astype(np.float32)


def random_words(n_words):
    return [f"word {n}" if n % 3 else f"wörd\n{n}" for n in range(n_words)]


def random_table(n_words=200, candidates=(0, 2, 4, 8), words=True, **case):
    codes, codebooks, mean = random_case(n_words, candidates=candidates, **case)
    names = random_words(n_words) if words else None
    return CompressedTable.from_codes(
        codes, codebooks, mean, names, code_lengths=candidates, parameters={"seed": 0}
    )


def golden_table():
    """Make the table that the golden file holds; run this file to write it, for a new FORMAT."""
    codes = [[k % 3, k // 3 % 3, k // 9 % 3][: (3, 2, 2, 0)[k % 4]] for k in range(40)]
    padded = [row + [-1] * (3 - len(row)) for row in codes]
    codebooks = np.arange(3 * 3 * 2).reshape(3, 3, 2) - 8.0
    words = [f"{'grün' if k % 2 else 'tea'}{k}" for k in range(40)]
    parameters = {"n_codewords": 3, "note": 'quoted "text", é'}
    return CompressedTable.from_codes(
        padded, codebooks, [0.5, -70000.0], words, code_lengths=(0, 2, 3), parameters=parameters
    )


@pytest.fixture
def saved(tmp_path):
    table = random_table()
    path = tmp_path / "table.safetensors"
    table.save(path)
    return table, path


def assert_same(one, other):
    """Both hold the same tensors and decode to the same numbers."""
    assert (one.n_words, one.n_dims, one.n_codewords) == (
        (other.n_words, other.n_dims, other.n_codewords)
    )
    assert (one.candidates, one.parameters, one.sizes) == (
        (other.candidates, other.parameters, other.sizes)
    )
    assert one.words == other.words
    for name in ("codes", "code_lengths", "codebooks", "mean"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    ids = np.arange(one.n_words)
    np.testing.assert_array_equal(one.vectors(ids), other.vectors(ids))


# ---------------------------------------------------------------------------------------------
# From codes


@settings(max_examples=60, deadline=None)
@given(
    n_words=st.integers(0, 60),
    n_codewords=st.sampled_from([2, 3, 4, 16, 256]),
    candidates=st.lists(st.integers(0, 9), min_size=1, max_size=5, unique=True).map(
        lambda lengths: tuple(sorted(lengths))
    ),
    with_words=st.booleans(),
    n_distinct=st.sampled_from([1, 3, 60]),
    seed=st.integers(0, 9),
)
def test_what_is_saved_is_what_is_opened(
    tmp_path_factory, n_words, n_codewords, candidates, with_words, n_distinct, seed
):
    codes, codebooks, mean = random_case(n_words, n_codewords, 5, candidates, seed)
    codes = codes[np.arange(n_words) % n_distinct]
    words = random_words(n_words) if with_words else None
    table = CompressedTable.from_codes(codes, codebooks, mean, words, code_lengths=candidates)
    path = tmp_path_factory.mktemp("table") / "table.safetensors"
    table.save(path)
    opened = CompressedTable.open(path)
    assert_same(table, opened)
    np.testing.assert_array_equal(opened.codes, codes)
    lengths = (codes >= 0).sum(axis=1)
    np.testing.assert_array_equal(opened.code_lengths, lengths)
    assert path.stat().st_size == table.file_nbytes == opened.file_nbytes
    expected = opened.vectors(range(n_words))
    by_codes = decode(codes, opened.codebooks, opened.mean)
    np.testing.assert_allclose(expected, by_codes, rtol=1e-5, atol=1e-5)
    if words is not None:
        kept = [word for word, length in zip(words, lengths, strict=True) if length]
        assert opened.words == kept
        assert all((word in opened) == (word in kept) for word in words)
        np.testing.assert_array_equal(opened.vectors(kept), expected[lengths > 0])
        for word, row in zip(kept, np.flatnonzero(lengths), strict=True):
            np.testing.assert_array_equal(opened[word], expected[row])


def table_of_few(tmp_path):
    """A saved table of 400 rows, of which at most 30 differ; some are dropped."""
    codes, codebooks, mean = random_case(30, n_codewords=16)
    codes = np.tile(codes, (14, 1))[:400]
    table = CompressedTable.from_codes(
        codes, codebooks, mean, random_words(400), code_lengths=(0, 2, 4, 8)
    )
    table.save(tmp_path / "few")
    return codes, table, tmp_path / "few"


def test_equal_rows_are_stored_once(tmp_path):
    codes, table, path = table_of_few(tmp_path)
    n_distinct = len(np.unique(codes[codes[:, 0] >= 0], axis=0))
    n_coded = int((codes[:, 0] >= 0).sum())
    assert load_file(path)["stored_rows"].size == -(-n_coded * (n_distinct - 1).bit_length() // 8)
    assert table.sizes["codes"] < n_coded * (n_distinct - 1).bit_length() // 8 + 30 * 4
    opened = CompressedTable.open(path)
    np.testing.assert_array_equal(opened.codes, codes)
    by_codes = decode(codes, opened.codebooks, opened.mean)
    np.testing.assert_allclose(opened.vectors(range(400)), by_codes, rtol=1e-5, atol=1e-5)
    word = opened.words[7]
    np.testing.assert_array_equal(opened[word], opened.vectors([word])[0])
    np.testing.assert_array_equal(
        opened.code_features([[word]], pooling="sum")[0, :-1].reshape(8, 16).argmax(1)[:2],
        codes[opened.rows([word])[0], :2],
    )
    assert opened.nearest(word, 3)[0][1] == pytest.approx(1)  # one of its equals
    assert_same(pickle.loads(pickle.dumps(opened)), table)


def test_rows_that_differ_are_not_looked_up_elsewhere(saved):
    assert "stored_rows" not in load_file(saved[1])


def test_stored_rows_that_cannot_be_are_refused(tmp_path):
    *_, path = table_of_few(tmp_path)
    tensors, metadata = load_file(path), parts(path.read_bytes())[0]["__metadata__"]
    stored = list(map(int, metadata["stored"].split()))
    more, fewer = ([*stored[:-1], stored[-1] + change] for change in (1000, -stored[-1]))
    without = {name: tensor for name, tensor in tensors.items() if name != "stored_rows"}
    for wrong, said in (
        (without, metadata),
        ({**tensors, "stored_rows": tensors["stored_rows"][:-1]}, metadata),
        (tensors, {key: value for key, value in metadata.items() if key != "stored"}),
        (tensors, {**metadata, "stored": "0 1"}),
        (tensors, {**metadata, "stored": " ".join(map(str, more))}),
        (tensors, {**metadata, "stored": " ".join(map(str, fewer))}),
    ):
        save_file(wrong, path, said)
        with pytest.raises(FormatError, match="stored rows"):
            CompressedTable.open(path)
    zeros = {**tensors, "stored_rows": np.zeros_like(tensors["stored_rows"])}
    save_file(zeros, path, metadata)
    opened = CompressedTable.open(path)
    for read in (lambda: opened.codes, lambda: opened.vectors([0]), lambda: opened["word 1"]):
        with pytest.raises(FormatError, match="is stored with others"):
            read()


@pytest.mark.parametrize("words", [True, False])
def test_everything_dropped(words, tmp_path):
    table = random_table(30, shares=(1, 0, 0, 0), words=words)
    table.save(tmp_path / "t")
    opened = CompressedTable.open(tmp_path / "t")
    assert_same(table, opened)
    assert opened.sizes["codes"] == 0
    assert not opened.code_lengths.any()
    assert (opened.codes == -1).all()
    assert opened.words == ([] if words else None)
    np.testing.assert_array_equal(opened.vectors([3, 29]), [opened.mean] * 2)
    assert "no words" in repr(opened) or words


def test_one_row():
    table = CompressedTable.from_codes(
        [[1, 0]], np.eye(4).reshape(2, 2, 4), np.zeros(4), ["tea"], code_lengths=(2,)
    )
    assert len(table) == 1
    np.testing.assert_allclose(table["tea"], [0, 1, 1, 0])
    assert table.sizes["codes"] == 1


def test_codes_are_wide_enough_for_every_codebook():
    codes = np.array([[65535, 0], [40000, 1]])
    table = CompressedTable.from_codes(
        codes, np.zeros((2, 65536, 1)), np.ones(1), code_lengths=(2,)
    )
    np.testing.assert_array_equal(table.codes, codes)
    assert table.codes.dtype == np.int32
    assert random_table().codes.dtype == np.int16


def test_codebooks_lose_little_to_int8():
    _, codebooks, _ = random_case()
    scaled = codebooks * np.logspace(-30, 29, len(codebooks))[:, None, None]
    table = CompressedTable.from_codes([[-1] * 8], scaled, np.zeros(6), code_lengths=(0,))
    most = np.abs(scaled).max(axis=(1, 2), keepdims=True)
    assert (np.abs(table.codebooks - scaled) <= most / 127 / 2 * 1.001).all()


@pytest.mark.parametrize(
    ("rank", "n_axes"),
    [(None, None), (1, 1), (3, 3), (12, 12), (25, None), (100, None)],  # 32 x 90 against 126 a rank
)
def test_codebooks_of_low_rank_are_kept_as_factors_where_that_is_smaller(rank, n_axes, tmp_path):
    codes, _, _ = random_case()
    rng = np.random.default_rng(0)
    books = rng.normal(size=(8, 4, 12)) @ rng.normal(size=(12, 90))
    whole = CompressedTable.from_codes(codes, books, np.zeros(90), code_lengths=(0, 2, 4, 8))
    table = CompressedTable.from_codes(
        codes, books, np.zeros(90), code_lengths=(0, 2, 4, 8), rank=rank
    )
    expected = 32 * 90 if n_axes is None else n_axes * (32 + 90 + 4)
    assert table.sizes["codebooks"] == expected + 8 * 4 + 90 * 2  # scales, mean
    truncated = low_rank(books, n_axes or 90)
    assert np.abs(table.codebooks - truncated).max() < 0.02 * np.abs(books).max()
    assert table.code_lengths.tolist() == whole.code_lengths.tolist()
    table.save(tmp_path / "t")
    assert_same(CompressedTable.open(tmp_path / "t"), table)


def low_rank(books, rank):
    left, sizes, right = np.linalg.svd(books.reshape(-1, books.shape[2]), full_matrices=False)
    return ((left[:, :rank] * sizes[:rank]) @ right[:rank]).reshape(books.shape)


def test_more_axes_than_codebooks_have_stay_zero():
    books = np.random.default_rng(0).normal(size=(1, 2, 1000))
    table = CompressedTable.from_codes([[1]], books, np.zeros(1000), code_lengths=(1,), rank=1)
    assert table.sizes["codebooks"] == 2 + 1000 + 4 + 4 + 2000
    shapes = codebook_shapes((1, 100, 300), 70)
    assert shapes["axes"].shape == (70, 300)
    wide = np.random.default_rng(0).normal(size=(1, 100, 300)) @ np.diag([1.0] * 40 + [0.0] * 260)
    kept = CompressedTable.from_codes([[1]], wide, np.zeros(300), code_lengths=(1,), rank=70)
    assert np.abs(kept.codebooks - wide).max() < 0.03 * np.abs(wide).max()


@pytest.mark.parametrize("bits", [4, 8])
def test_codebooks_of_zeros_stay_zeros(bits):
    codebooks = np.zeros((2, 4, 3))
    codebooks[1, 2] = 1e-45  # a scale that float32 cannot tell from 0
    table = CompressedTable.from_codes(
        [[0, 2]], codebooks, np.zeros(3), code_lengths=(2,), codebook_bits=bits
    )
    np.testing.assert_array_equal(table._tensors["scales"], 1)
    np.testing.assert_array_equal(table.codebooks, 0)
    np.testing.assert_array_equal(table.vectors([0]), 0)


@pytest.mark.parametrize("n_dims", [1, 6, 37])
@pytest.mark.parametrize("rank", [None, 1])
def test_codebooks_of_four_bits_take_half(n_dims, rank, tmp_path):
    codes, _, _ = random_case()
    books = np.random.default_rng(0).normal(size=(8, 4, n_dims))
    if rank:
        books = books[:, :, :1] * np.arange(1, n_dims + 1)
    given = {"codes": codes, "mean": np.zeros(n_dims), "code_lengths": (0, 2, 4, 8), "rank": rank}
    whole = CompressedTable.from_codes(codebooks=books, **given)
    # Where no row counts, each number goes to its nearest.
    alone = np.zeros(len(codes))
    table = CompressedTable.from_codes(codebooks=books, codebook_bits=4, weights=alone, **given)
    factored = "axes" in table._tensors
    assert factored == ("axes" in whole._tensors) == (rank is not None and n_dims > 1)
    name = "axes" if factored else "codebooks"
    *rows, width = whole._tensors[name].shape
    assert table._tensors[name].shape == (*rows, (width + 1) // 2)
    error = ((table.codebooks - books) ** 2).sum() / (books**2).sum()
    assert 0 < error < 0.03
    if not factored:  # each number is at the nearest of fifteen signed squares
        numbers = np.array([n * abs(n) for n in range(-7, 8)])
        levels = table._tensors["scales"][:, None] * numbers  # (n_codebooks, 15)
        nearest = abs(books[..., None] - levels[:, None, None]).min(-1)
        np.testing.assert_allclose(abs(table.codebooks - books), nearest, atol=1e-6)
    table.save(tmp_path / "t")
    assert_same(CompressedTable.open(tmp_path / "t"), table)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(table)).codebooks, table.codebooks)


def rounding_case(*, low_rank):
    """Codes, codebooks and weights of a few hundred words, and what the codebooks' sums lose."""
    rng = np.random.default_rng(0)
    codes, weights = rng.integers(0, 8, (300, 6)), rng.exponential(size=300) ** 3
    books = rng.normal(size=(6, 8, 30))
    if low_rank:
        books = books[..., :5] @ rng.normal(size=(5, 30))
    given = {"mean": np.zeros(30), "code_lengths": (6,), "rank": 5 if low_rank else None}

    def lost(**weighted):
        table = CompressedTable.from_codes(codes, books, codebook_bits=4, **given, **weighted)
        off = (table.codebooks - books)[np.arange(6), codes].sum(1)  # (n_words, n_dims)
        return weights @ (off**2).sum(1), (off**2).sum()

    return lost, weights


@pytest.mark.parametrize("low_rank", [False, True])
def test_rounded_codebooks_make_up_for_one_another(low_rank):
    lost, weights = rounding_case(low_rank=low_rank)
    nearest, alike, weighted = lost(weights=0 * weights), lost(), lost(weights=weights)
    assert alike[1] < (0.97 if low_rank else 0.7) * nearest[1]
    assert weighted[0] < 0.9 * alike[0]
    assert lost(weights=1e-3 * weights) == pytest.approx(weighted, rel=1e-3)


def test_of_very_many_codewords_each_is_rounded_alone(monkeypatch):
    lost, weights = rounding_case(low_rank=False)
    nearest = lost(weights=0 * weights)
    monkeypatch.setattr(room, "_MOST_IN_TURN", 6 * 8 - 1)
    assert lost(weights=weights) == nearest
    monkeypatch.setattr(room, "_MOST_IN_TURN", 6 * 8)
    assert lost(weights=weights) != nearest


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0], "weights must be 2 numbers of at least 0.*are 1 numbers"),
        ([1.0, -2.0], "weights must be 2 numbers of at least 0.*at least -2"),
        ([1.0, np.nan], "weights must be finite"),
        ("ab", "weights must be numbers"),
    ],
)
def test_wrong_weights_are_refused(weights, message):
    with pytest.raises(ValueError, match=message):
        CompressedTable.from_codes(
            [[0], [1]],
            np.ones((1, 2, 3)),
            np.zeros(3),
            code_lengths=(1,),
            codebook_bits=4,
            weights=weights,
        )


def test_other_bits_of_codebooks_are_refused():
    with pytest.raises(ValueError, match="codebook_bits=5 must be 4 or 8"):
        CompressedTable.from_codes(
            [[0]], np.ones((1, 2, 2)), [0, 0], code_lengths=(1,), codebook_bits=5
        )


def test_codebooks_of_four_bits_and_a_wrong_width_are_refused(tmp_path):
    books = np.ones((1, 2, 7))
    table = CompressedTable.from_codes(
        [[0], [1]], books, np.zeros(7), code_lengths=(1,), codebook_bits=4
    )
    table.save(tmp_path / "t")
    metadata = parts((tmp_path / "t").read_bytes())[0]["__metadata__"]
    tensors = load_file(tmp_path / "t")
    for width in (3, 7):
        spoiled = {**tensors, "codebooks": np.full((1, 2, width), 0x99, np.uint8)}
        save_file(spoiled, tmp_path / "u", metadata)
        with pytest.raises(FormatError, match="do not fit each other"):
            CompressedTable.open(tmp_path / "u")


@pytest.mark.parametrize(
    ("mean", "dtype"),
    [
        ([0.5, -3.0], "float16"),
        ([0.5, 1e5], "float32"),
        ([1e-9, 2e-9], "float32"),
        ([0, 0], "float16"),
    ],
)
def test_mean_is_kept_in_half_precision_where_that_holds_it(mean, dtype):
    table = CompressedTable.from_codes([[-1]], np.zeros((1, 2, 2)), mean, code_lengths=(0, 1))
    assert table._tensors["mean"].dtype == dtype
    np.testing.assert_allclose(table.mean, mean, rtol=1e-3)


BOOKS, MEAN = np.zeros((3, 4, 2)), np.zeros(2)


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        ([[0, 1, -1], [0, 1, 4]], r"row 1: \[0, 1, 4\] must be from -1 to 3"),
        ([[0, 1, -2]], r"row 0: \[0, 1, -2\] must be"),
        ([[0, 1, 2], [0, 1, 2], [0, -1, 2]], r"row 2: \[0, -1, 2\] has a code after a -1"),
        ([[0, 1, 2], [0, -1, -1]], r"row 1: code length 1 is none of code_lengths=\(0, 2, 3\)"),
        ([[0, 1]], r"shape \(n_words, 3\)"),
        ([0, 1, 2], r"shape \(n_words, 3\)"),
        ([[0.0, 1.0, 2.0]], "integers"),
    ],
)
def test_codes_that_cannot_be_are_refused(codes, message):
    with pytest.raises(ValueError, match=message):
        CompressedTable.from_codes(codes, BOOKS, MEAN, code_lengths=(0, 2, 3))


@pytest.mark.parametrize("code_lengths", [(), (2, 0), (0, 0, 2), (-1, 2), (0, 4)])
def test_code_lengths_that_cannot_be_are_refused(code_lengths):
    with pytest.raises(ValueError, match="code_lengths"):
        CompressedTable.from_codes([[0, 1, -1]], BOOKS, MEAN, code_lengths=code_lengths)


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"codebooks": np.full((3, 4, 2), np.nan)}, ValueError, "codebooks must be finite"),
        ({"codebooks": np.full((3, 4, 2), 1e39)}, ValueError, "codebooks must be finite"),
        ({"codebooks": np.full((3, 4, 2), 2e30)}, ValueError, "codebooks must be finite"),
        ({"codebooks": np.zeros((3, 4))}, ValueError, "3 dimensions"),
        ({"codebooks": np.zeros((3, 1, 2))}, ValueError, "n_codewords=1"),
        ({"mean": np.array([0, np.inf])}, ValueError, "mean must be finite"),
        ({"mean": np.zeros(3)}, ValueError, "2 dimensions and mean has 3"),
        ({"words": ["tea"]}, ValueError, "words must be 2 str"),
        ({"words": "ab"}, ValueError, "words must be 2 str"),
        ({"words": ["tea", "tea"]}, ValueError, "'tea' is there twice"),
        ({"words": ["tea", 5]}, TypeError, "must be a str"),
        ({"parameters": {"a": {1, 2}}}, TypeError, "parameters must be what JSON can hold"),
    ],
)
def test_what_does_not_fit_is_refused(changed, error, message):
    given = {"codes": [[0, 1, -1], [2, 3, -1]], "codebooks": BOOKS, "mean": MEAN, "words": None}
    with pytest.raises(error, match=message):
        CompressedTable.from_codes(**{**given, **changed}, code_lengths=(0, 2))


def test_dropped_words_may_repeat():
    table = CompressedTable.from_codes(
        [[-1, -1, -1], [0, 1, -1], [-1, -1, -1]], BOOKS, MEAN, ["a", "a", "b"], code_lengths=(0, 2)
    )
    assert table.rows(["a", "b"]).tolist() == [1, -1]


def test_properties():
    table = random_table()
    assert len(table) == table.n_words == 200
    assert (table.n_dims, table.n_codewords, table.n_codebooks) == (6, 4, 8)
    assert table.candidates == (0, 2, 4, 8)
    assert table.parameters == {"seed": 0}
    assert list(table.sizes) == ["codes", "lengths", "codebooks", "vocabulary"]
    assert table.nbytes == sum(table.sizes.values()) - table.sizes["vocabulary"]
    assert table.sizes["codebooks"] == 8 * 4 * 6 + 8 * 4 + 6 * 2
    n_codes = [table.code_lengths[table.code_lengths == length].sum() for length in (2, 4, 8)]
    assert table.sizes["codes"] == sum(-(-int(n) * 2 // 8) for n in n_codes)
    assert repr(table).startswith("CompressedTable(n_words=200, n_dims=6, n_codewords=4")
    assert len(repr(table)) < 160


def test_what_a_table_gives_cannot_change_it():
    table = random_table()
    for name in ("codes", "code_lengths", "codebooks", "mean"):
        with pytest.raises(ValueError, match="read-only"):
            getattr(table, name)[...] = 0
    table.parameters["seed"] = 1
    table[table.words[0]][:] = 0
    assert_same(table, random_table())


# ---------------------------------------------------------------------------------------------
# Words and row ids to vectors


def test_rows_are_those_of_the_original_table():
    table = random_table()
    words = random_words(200)
    expected = np.where(table.code_lengths > 0, np.arange(200), -1)
    np.testing.assert_array_equal(table.rows(words), expected)
    assert table.rows([words[5], "unheard"]).tolist() == [expected[5], -1]
    assert table.rows([]).shape == (0,)


@pytest.mark.parametrize("length", [0, 4])
def test_rows_of_one_length_lie_in_their_own_order(length):
    codes, books, mean = random_case(30, candidates=(length,), shares=[1])
    table = CompressedTable.from_codes(codes, books, mean, code_lengths=(length,))
    np.testing.assert_array_equal(table.codes, codes)
    ids = np.array([17, 3, 29, 3])
    expected = decode(codes[ids], table.codebooks, table.mean)
    np.testing.assert_allclose(table.vectors(ids), expected, rtol=1e-5, atol=1e-5)
    pooled = expected.mean(0) if length else 0 * expected[0]  # dropped words are skipped
    np.testing.assert_allclose(table.documents([ids])[0], pooled, rtol=1e-5, atol=1e-5)


def test_items_come_in_many_forms():
    table = random_table()
    ids = np.flatnonzero(table.code_lengths)[[5, 3, 5]]
    expected = decode(table.codes[ids], table.codebooks, table.mean)
    words = [random_words(200)[row] for row in ids]
    forms = [ids, ids.tolist(), tuple(ids), ids.astype(np.uint8), list(ids.astype(np.int32))]
    for items in [
        *forms,
        words,
        tuple(words),
        np.array(words),
        np.array(words, object),
        iter(words),
    ]:
        vectors = table.vectors(items)
        assert vectors.dtype == np.float32
        np.testing.assert_allclose(vectors, expected, rtol=1e-5, atol=1e-5)
    for nothing in ([], (), np.array([]), np.array([], int)):
        assert table.vectors(nothing).shape == (0, 6)


def test_vectors_join_their_chunks(monkeypatch):
    table = random_table()
    ids = np.random.default_rng(0).integers(0, 200, 500)
    expected, codes = table.vectors(ids), table.codes
    monkeypatch.setattr(room, "_CHUNK", 7)
    again = random_table()
    np.testing.assert_array_equal(again.vectors(ids), expected)
    np.testing.assert_array_equal(again.codes, codes)


def test_words_without_a_code():
    table = random_table()
    lost = random_words(200)[int(np.flatnonzero(table.code_lengths == 0)[0])]
    known = table.words[0]
    assert known in table
    for word in (lost, "unheard", ""):
        assert word not in table
        with pytest.raises(KeyError) as caught:
            table[word]
        assert repr(word) in str(caught.value.args[0])
    asked = [known, lost, *[f"no {n}" for n in range(9)], lost]
    with pytest.raises(
        KeyError, match=r"11 of 12 words .*'no 0', 'no 1', .*\.\.\.; missing='mean'"
    ):
        table.vectors(asked)
    with pytest.raises(KeyError, match=r"3 of 3 words .*: 'x', 'y'; missing"):
        table.vectors(["x", "y", "x"])
    vectors = table.vectors(asked, missing="mean")
    np.testing.assert_array_equal(vectors[0], table[known])
    np.testing.assert_array_equal(vectors[1:], np.tile(table.mean, (11, 1)))
    assert 5 not in table


def test_a_table_without_words():
    table = random_table(words=False)
    assert table.words is None
    assert table.sizes["vocabulary"] == 0
    assert "tea" not in table
    assert table.rows(["tea"]).tolist() == [-1]
    for missing in ("raise", "mean"):
        with pytest.raises(KeyError, match="holds no words, only row ids"):
            table.vectors(["tea"], missing=missing)
    with pytest.raises(KeyError, match="'tea' has no code in this table: it holds no words"):
        table["tea"]


@pytest.mark.parametrize(
    ("items", "position", "value"),
    [([0, 200], 1, 200), ([-1], 0, -1), (np.array([1, 2, -7]), 2, -7), ([3, 10**30], 1, 10**30)],
)
def test_row_ids_out_of_bounds(items, position, value):
    with pytest.raises(IndexError, match=rf"items\[{position}\] is {value}, .* 0 to 199"):
        random_table().vectors(items)


@pytest.mark.parametrize(
    "items", ["coffee", b"coffee", [1, "a"], ["a", 1], [0.5], [True], [None], np.array([0.0]), 7]
)
def test_items_that_are_neither_words_nor_row_ids(items):
    with pytest.raises(TypeError):
        random_table().vectors(items)


def test_a_bare_word_is_told_to_go_in_a_list():
    for method in ("vectors", "rows"):
        with pytest.raises(TypeError, match=r"\['coffee'\]"):
            getattr(random_table(), method)("coffee")
    with pytest.raises(TypeError, match=r"vectors\(\[17, 4\]\)"):
        random_table()[17]
    with pytest.raises(TypeError, match="row ids already"):
        random_table().rows([1, 2])


def test_missing_is_one_of_two():
    with pytest.raises(ValueError, match="missing='skip'"):
        random_table().vectors([0], missing="skip")


# ---------------------------------------------------------------------------------------------
# Files and pickles


def test_golden_file_of_format_1():
    table = CompressedTable.open(GOLDEN)
    assert_same(table, golden_table())
    assert table["tea0"].tolist() == pytest.approx([-8 - 2 + 4 + 0.5, -7 - 1 + 5 - 70000], abs=0.1)
    assert (table.rows(["grün1", "grün3", "tea2"]).tolist(), len(table)) == ([1, -1, 2], 40)
    assert table.parameters["note"] == 'quoted "text", é'


def test_sizes_are_those_of_the_file(saved):
    table, path = saved
    content = path.read_bytes()
    n_header = 8 + int.from_bytes(content[:8], "little")
    assert n_header % 8 == 0
    assert len(content) == n_header + sum(table.sizes.values()) == table.file_nbytes
    for words in (True, False):
        assert random_table(words=words).file_nbytes - sum(
            random_table(words=words).sizes.values()
        ) < (800 if words else 500)


def test_the_file_is_a_safetensors_file(saved, tmp_path):
    table, path = saved
    tensors = load_file(path)
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(tensor, table._tensors[name])
    assert set(tensors) == set(table._tensors)
    with safe_open(path, "np") as file:
        metadata = file.metadata()
    assert metadata["format"] == str(FORMAT)
    # What the safetensors package writes from it is opened, too.
    save_file(tensors, tmp_path / "again", metadata)
    assert_same(CompressedTable.open(tmp_path / "again"), table)
    assert (tmp_path / "again").stat().st_size == table.file_nbytes


def test_the_same_table_gives_the_same_bytes(saved, tmp_path):
    _, path = saved
    random_table().save(tmp_path / "again")
    CompressedTable.open(path).save(tmp_path / "reopened")
    assert (tmp_path / "again").read_bytes() == path.read_bytes()
    assert (tmp_path / "reopened").read_bytes() == path.read_bytes()


def test_opening_maps_the_file(saved):
    _, path = saved
    table = CompressedTable.open(str(path))
    base = table._tensors["codes"]
    while isinstance(base.base, np.ndarray):
        base = base.base
    assert isinstance(base, np.memmap)
    assert table[table.words[0]].shape == (6,)


def test_an_open_table_can_be_saved_over_its_file(saved):
    table, path = saved
    opened = CompressedTable.open(path)
    opened.save(path)
    assert_same(opened, table)
    assert_same(CompressedTable.open(path), table)


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_failing_save_leaves_the_old_file(saved, monkeypatch, failing):
    _, path = saved
    before = path.read_bytes()

    def fail(*_):
        raise OSError("no space left")

    monkeypatch.setattr(os, failing, fail)
    with pytest.raises(OSError, match="no space left"):
        random_table(seed=1).save(path)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


def test_saving_where_nothing_can_be_saved(tmp_path):
    with pytest.raises(FileNotFoundError):
        random_table().save(tmp_path / "no" / "such" / "folder")
    with pytest.raises(OSError, match="directory"):
        random_table().save(tmp_path)
    assert os.listdir(tmp_path) == []


def test_a_saved_file_has_the_permissions_of_any_other(saved, tmp_path):
    _, path = saved
    (tmp_path / "other").write_bytes(b"")
    assert path.stat().st_mode == (tmp_path / "other").stat().st_mode


def test_pickles_are_as_small_as_the_file(saved):
    table, path = saved
    opened = CompressedTable.open(path)
    for one in (table, opened):
        fresh = len(pickle.dumps(one))
        one.vectors(one.words), one.codes, one.code_lengths
        content = pickle.dumps(one)
        assert len(content) == fresh < table.file_nbytes + 1000
        assert all(tensor.base is None for tensor in one.__getstate__()["tensors"].values())
        path.unlink(missing_ok=True)  # a pickle needs no file
        assert_same(pickle.loads(content), table)
    assert_same(copy.deepcopy(opened), table)


# ---------------------------------------------------------------------------------------------
# Hostile files


def use(table):
    """Read all that a table can be asked for."""
    table.codes, table.code_lengths, table.words, table.file_nbytes, repr(table)
    table.vectors(range(table.n_words))
    known = table.words
    for word in [*random_words(20), *(known or [])[:20]]:
        if word in table:
            table[word]
    if known:
        table.vectors(known)
        table.rows(known)


def parts(content):
    """Header and data, without the checksum: whatever else is wrong with them has to show."""
    n_header = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + n_header])
    del header["__metadata__"]["crc32"]
    return header, content[8 + n_header :]


def joined(header, data):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def test_a_file_cut_anywhere_is_refused(saved):
    _, path = saved
    content = path.read_bytes()
    header, _ = parts(content)
    begin = len(content) - max(entry["data_offsets"][1] for entry in list(header.values())[1:])
    edges = {begin + edge for e in list(header.values())[1:] for edge in e["data_offsets"]}
    cuts = {cut for edge in {0, 8, begin, *edges} for cut in range(edge - 2, edge + 3)}
    for cut in sorted(cuts | set(range(0, len(content), 37))):
        if 0 <= cut < len(content):
            path.write_bytes(content[:cut])
            with pytest.raises(FormatError, match=path.name):
                CompressedTable.open(path)
    path.write_bytes((1 << 40).to_bytes(8, "little") + content[8:])
    with pytest.raises(FormatError, match="length of 1099511627776 bytes exceeds"):
        CompressedTable.open(path)
    path.write_bytes(content + b"\0")
    with pytest.raises(FormatError, match="the file holds"):
        CompressedTable.open(path)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_flipped_bits_are_refused(tmp_path_factory, data):
    table = random_table(60)
    path = tmp_path_factory.mktemp("flipped") / "table.safetensors"
    table.save(path)
    content = bytearray(path.read_bytes())
    name = content.index(b"crc32")  # under another name it is no checksum
    places = st.integers(0, len(content) - 1).filter(lambda place: not 0 <= place - name < 5)
    content[data.draw(places)] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    with pytest.raises(FormatError, match=r"table\.safetensors: "):
        CompressedTable.open(path)
    with suppress(FormatError):
        use(CompressedTable.open(path, verify=False))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_flipped_bytes_raise_nothing_but_format_errors(tmp_path_factory, data):
    table = random_table(60, n_codewords=3)
    path = tmp_path_factory.mktemp("flipped") / "table.safetensors"
    table.save(path)
    content = bytearray(path.read_bytes().replace(b'"crc32"', b'"crc-3"'))
    n_header = table.file_nbytes - sum(table.sizes.values())
    end = data.draw(st.sampled_from([n_header, len(content)]))  # half of them in the header
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, end - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    with suppress(FormatError, OSError):
        use(CompressedTable.open(path))


HEADERS = {
    "a list": b"[]",
    "no JSON": b"{",
    "no utf-8": b'{"\xff": 1}',
    "deep": b'{"a":' + b"[" * 100_000,
    "empty": b"",
    "no tensors": {"__metadata__": {"format": "1", "candidates": "0", "counts": "3"}},
    "metadata of numbers": {"__metadata__": {"format": 1}},
}


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)
def test_headers_that_are_none_are_refused(header, tmp_path):
    (tmp_path / "t").write_bytes(joined(header, b""))
    with pytest.raises(FormatError, match="t: "):
        CompressedTable.open(tmp_path / "t")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("format", "2", "format 2 is newer than format 1.*update skadacomp"),
        ("format", "0", "format 0 is unknown"),
        ("format", "pt", "not the file of a CompressedTable"),
        ("format", "9" * 5000, "not the file of a CompressedTable"),
        ("counts", "1 2", "counts"),
        ("counts", "1 2 3 4", "codes have"),
        ("counts", "9999999999 {1} {2} {3}", "counts .* do not fit"),
        ("counts", "9" * 5000, "counts must be integers"),
        ("counts", "²", "counts must be integers"),
        ("candidates", "0 4 2 8", "ascending"),
        ("candidates", "0 2 4 9", "8 codebooks"),
        ("candidates", "0 2 4 -8", "candidates must be integers"),
        ("candidates", "", "candidates must be integers"),
        ("parameters", "[1]", "parameters must be a JSON object"),
        ("parameters", "{", "metadata"),
        ("parameters", "[" * 100_000, "metadata"),
    ],
)
def test_metadata_that_cannot_be_is_refused(saved, key, value, message):
    _, path = saved
    header, data = parts(path.read_bytes())
    counts = header["__metadata__"]["counts"].split()
    header["__metadata__"][key] = value.format(*counts) if "{1}" in value else value
    path.write_bytes(joined(header, data))
    with pytest.raises(FormatError, match=rf"{path.name}: .*{message}"):
        CompressedTable.open(path)


@pytest.mark.parametrize(
    ("name", "changed", "message"),
    [
        ("codes", {"data_offsets": [0, 2**70]}, "there are"),
        ("codes", {"data_offsets": [-4, 4]}, "cannot have"),
        ("codes", {"data_offsets": [4]}, "cannot have"),
        ("codes", {"data_offsets": [True, 4]}, "cannot have"),
        ("codes", {"data_offsets": None}, "cannot have"),
        ("codes", {"dtype": "F64"}, "cannot have"),
        ("codes", {"dtype": []}, "cannot have"),
        ("codes", {"dtype": "I8"}, "'codes' must be U8"),
        ("codes", {"shape": [3]}, "does not fill"),
        ("codes", {"shape": [0, 2**63, 2**63], "data_offsets": [0, 0]}, "header"),
        ("lengths", {"shape": [1] * 70}, "header|does not fill"),
        ("mean", {"dtype": "I8", "shape": [12]}, "'mean' must be F32 or F16"),
        ("mean", {"shape": [2, 3]}, "'mean' must be"),
        ("codebooks", {"shape": [4, 8, 6]}, "do not fit each other"),
        ("codebooks", {"shape": [8, 6, 4]}, "do not fit each other"),
        ("scales", {"data_offsets": [8, 40]}, "begins at byte"),
        ("word_slots", None, "JSON object"),
        ("word_merges", {"shape": [1, 2]}, "word_merges"),
    ],
)
def test_tensors_that_cannot_be_are_refused(saved, name, changed, message):
    _, path = saved
    header, data = parts(path.read_bytes())
    header[name] = changed if changed is None else {**header[name], **changed}
    path.write_bytes(joined(header, data))
    with pytest.raises(FormatError, match=message):
        CompressedTable.open(path)


def test_codebooks_of_one_codeword_are_refused(saved, tmp_path):
    _, path = saved
    tensors = load_file(path)
    tensors["codebooks"] = tensors["codebooks"][:, :1].copy()
    save_file(tensors, tmp_path / "t", parts(path.read_bytes())[0]["__metadata__"])
    with pytest.raises(FormatError, match="n_codewords=1"):
        CompressedTable.open(tmp_path / "t")


@pytest.fixture
def factored(tmp_path):
    codes, _, mean = random_case(n_dims=90)
    books = np.random.default_rng(0).normal(size=(8, 4, 90))
    table = CompressedTable.from_codes(codes, books, mean, code_lengths=(0, 2, 4, 8), rank=3)
    path = tmp_path / "factored"
    table.save(path)
    return path


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("axes", None, "do not fit each other"),
        ("axis_scales", None, "do not fit each other"),
        ("axes", lambda axes: axes[:2].copy(), "do not fit each other"),
        ("axes", lambda axes: axes[:, :80].copy(), "do not fit each other"),
        ("axes", lambda axes: axes[0].copy(), "'axes' must be I8 or U8 of 2 dimensions"),
        ("axis_scales", lambda scales: scales[:2].copy(), "do not fit each other"),
        ("axis_scales", lambda scales: scales * np.float32(np.nan), "'axis_scales' must be finite"),
        # Each within its bound, and yet numbers that float32 does not hold.
        ("axis_scales", lambda scales: scales * 0 + np.float32(1e30), None),
        ("scales", lambda scales: scales * 0 + np.float32(1e20), None),
    ],
)
def test_axes_that_cannot_be_are_refused(factored, tmp_path, name, change, message):
    tensors = load_file(factored)
    if message is None:
        other = "scales" if name == "axis_scales" else "axis_scales"
        tensors[other] = tensors[other] * 0 + np.float32(1e20)
        message = "multiply to"
    tensors[name] = tensors[name] if change is None else change(tensors[name])
    if change is None:
        del tensors[name]
    save_file(tensors, tmp_path / "t", parts(factored.read_bytes())[0]["__metadata__"])
    with pytest.raises(FormatError, match=message):
        CompressedTable.open(tmp_path / "t")


def test_overlapping_tensors_are_refused(saved):
    _, path = saved
    header, data = parts(path.read_bytes())
    header["more"] = dict(header["codes"])
    path.write_bytes(joined(header, data))
    with pytest.raises(FormatError, match="begins at byte"):
        CompressedTable.open(path)


@pytest.mark.parametrize("name", ["scales", "mean", "codes", "word_offsets", "lengths"])
def test_missing_tensors_are_refused(saved, tmp_path, name):
    _, path = saved
    tensors = load_file(path)
    del tensors[name]
    save_file(tensors, tmp_path / "t", parts(path.read_bytes())[0]["__metadata__"])
    with pytest.raises(FormatError, match=f"{name!r} is missing"):
        CompressedTable.open(tmp_path / "t")


@pytest.mark.parametrize("name", ["scales", "mean"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_refused(saved, tmp_path, name, value):
    _, path = saved
    tensors = load_file(path)
    tensors[name][1] = value
    save_file(tensors, tmp_path / "t", parts(path.read_bytes())[0]["__metadata__"])
    with pytest.raises(FormatError, match=f"{name!r} must be finite"):
        CompressedTable.open(tmp_path / "t")


def test_damage_that_shows_on_reading_names_the_file(tmp_path):
    path = tmp_path / "t"
    random_table(100, n_codewords=3).save(path)
    tensors, metadata = load_file(path), parts(path.read_bytes())[0]["__metadata__"]
    other = encode_lengths(np.zeros(100, int), 4)  # a sound stream of other lengths
    save_file({**tensors, "lengths": other}, path, metadata)
    with pytest.raises(FormatError, match=r"lengths: counts are \(100, 0, 0, 0\), not"):
        CompressedTable.open(path).vectors([0])
    reads = {
        "codes": lambda table: table.vectors(range(100)),
        "lengths": lambda table: table.code_lengths,
        "words": lambda table: table.words,
    }
    for name, read in reads.items():
        save_file({**tensors, name: np.full_like(tensors[name], 255)}, path, metadata)
        damaged = CompressedTable.open(path)
        with pytest.raises(FormatError, match=f"^{re.escape(str(path))}: "):
            read(damaged)
    save_file({**tensors, "codes": np.full_like(tensors["codes"], 255)}, path, metadata)
    damaged = CompressedTable.open(path)
    with pytest.raises(FormatError, match="out of 3 codewords"):
        damaged[damaged.words[0]]


def test_what_is_no_file_stays_an_error_of_the_system(tmp_path):
    with pytest.raises(FileNotFoundError):
        CompressedTable.open(tmp_path / "none")
    with pytest.raises((OSError, FormatError)):
        CompressedTable.open(tmp_path)
    save_file({"weight": np.zeros(3)}, tmp_path / "model", {"format": "pt"})
    with pytest.raises(FormatError, match="not the file of a CompressedTable"):
        CompressedTable.open(tmp_path / "model")


def test_a_shipped_table_needs_numpy_alone(saved):
    table, path = saved
    script = """
        import sys

        class Refuse:
            def find_spec(self, name, path=None, target=None):
                if name.split(".")[0] in {"scipy", "sklearn", "torch", "safetensors", "joblib"}:
                    raise ImportError(f"{name} must not be needed")

        sys.meta_path.insert(0, Refuse())
        from skadacomp import CompressedTable

        loaded = {name for name in sys.modules if name.startswith("numpy")}
        table = CompressedTable.open(sys.argv[1])
        word = sys.argv[2]
        table[word]  # loads no more of numpy, which would take longer than the rest of it
        assert {name for name in sys.modules if name.startswith("numpy")} == loaded
        assert word == table.words[0]
        assert (table[word] == table.vectors(table.rows([word]))[0]).all()
        assert table.vectors([word]).shape == (1, table.n_dims)
        assert table.documents([[0], []]).shape == (2, table.n_dims)
        assert table.code_features([[word]]).any()
        assert len(table.nearest(word, 10)) == 10
        table.save(sys.argv[1])
        print(float(table.vectors(range(len(table))).sum()))
    """
    package = Path(room.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(path), table.words[0]],
        env={**os.environ, "PYTHONPATH": str(package)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == pytest.approx(float(table.vectors(range(200)).sum()))


# ---------------------------------------------------------------------------------------------
# Documents and neighbours


def texts_of(table, rng, n_documents=60):
    """Documents of known, dropped and unknown words, some of them empty."""
    names = [*random_words(table.n_words), "unheard"]
    sizes = rng.integers(0, 9, n_documents)
    return [[names[i] for i in rng.integers(len(names), size=size)] for size in sizes]


@pytest.mark.parametrize("pooling", ["mean", "sum"])
def test_documents_are_pooled_from_their_coded_words(pooling):
    table = random_table()
    documents = texts_of(table, np.random.default_rng(0))
    vectors = table.documents(documents, pooling=pooling)
    features = table.code_features(documents, pooling=pooling)
    assert (vectors.dtype, features.dtype) == (np.float32, np.float32)
    whole = code_matrix(table.codes, table.n_codewords).toarray()
    for document, vector, feature in zip(documents, vectors, features, strict=True):
        rows = table.rows(document)
        rows = rows[rows >= 0]
        n_read = 1 if pooling == "sum" else max(rows.size, 1)
        expected = table.vectors(rows).sum(0) / n_read
        np.testing.assert_allclose(vector, expected, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(feature, whole[rows].sum(0) / n_read, rtol=1e-6)
    assert not vectors[[not (table.rows(document) >= 0).any() for document in documents]].any()


def test_documents_come_in_many_forms():
    words = ["coffee", "tea", "x", "cake", "und"]
    codes, books, mean = random_case(5, candidates=(0, 2, 4), shares=[0, 0.5, 0.5])
    table = CompressedTable.from_codes(codes, books, mean, words, code_lengths=(0, 2, 4))
    expected = table.documents([["coffee", "tea", "tea"], [], ["cake"]])
    for form in (
        ["Coffee, tea x TEA!", "...", "a cake"],  # one letter is no word, as in CountVectorizer
        [[0, 1, 1], [], [3]],
        [np.array([0, 1, 1]), np.array([], int), np.array([3], np.uint8)],
    ):
        np.testing.assert_array_equal(table.documents(form), expected)
    assert not table.documents(["Coffee TEA"], lowercase=False).any()
    split = table.documents(["coffee|tea|tea"], tokenizer=lambda text: text.split("|"))
    np.testing.assert_array_equal(split[0], expected[0])


def test_neither_order_nor_company_changes_a_document(monkeypatch):
    table = random_table()
    rng = np.random.default_rng(0)
    documents = [rng.integers(200, size=size) for size in [0, 1, 5, 30, 700, 3, 2000]]
    vectors = table.documents(documents)
    for number, document in enumerate(documents):
        np.testing.assert_array_equal(table.documents([document])[0], vectors[number])
    np.testing.assert_array_equal(table.documents(documents[::-1]), vectors[::-1])
    monkeypatch.setattr(room, "_CHUNK", 7)
    monkeypatch.setattr(room, "_BATCH", 2)
    np.testing.assert_array_equal(table.documents(documents), vectors)


def test_documents_that_cannot_be_read_are_refused():
    table = random_table()
    for wrong, error, message in [
        ("coffee", ValueError, "string object received"),
        ([], ValueError, "at least one"),
        ([[200]], ValueError, r"must be in \[0, 200\)"),
        ([np.array([-1])], ValueError, r"must be in \[0, 200\)"),
        (np.zeros((2, 3), int), TypeError, "2 dimensions"),
        ([["tea"], [3]], TypeError, "same way"),
        ([[0.5]], TypeError, "begins with 0.5"),
    ]:
        with pytest.raises(error, match=message):
            table.documents(wrong)
    with pytest.raises(ValueError, match="pooling='max'"):
        table.code_features([[1]], pooling="max")
    with pytest.raises(ValueError, match="no words to look them up"):
        random_table(words=False).documents([["tea"]])


@settings(max_examples=60, deadline=None)
@given(sizes=st.lists(st.integers(0, 700), max_size=12), seed=st.integers(0, 9))
def test_segment_sums_add_up_rows(sizes, seed):
    rng = np.random.default_rng(seed)
    features = rng.integers(-9, 9, (20, 3)).astype(np.float32)
    ends = np.append(0, np.cumsum(sizes, dtype=np.int64))
    rows = rng.integers(20, size=ends[-1])
    expected = [features[rows[a:b]].sum(0) for a, b in pairwise(ends)]
    found = segment_sums(features, rows, ends)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.reshape(expected, (len(sizes), 3)))


def test_the_nearest_have_the_largest_cosine():
    table = random_table()
    vectors = table.vectors(table.words)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    word = table.words[9]
    found = table.nearest(word, 5)
    cosines = np.delete(unit @ unit[9], 9)
    names = np.delete(table.words, 9)
    np.testing.assert_allclose([score for _, score in found], np.sort(cosines)[::-1][:5], rtol=1e-4)
    for name, score in found:
        assert cosines[names == name] == pytest.approx(score, rel=1e-4)
    # A vector's nearest may be the word that it came from; there are no more than there are.
    assert table.nearest(table[word] * 3, 1)[0][1] == pytest.approx(1)
    assert len(table.nearest(word, 10_000)) == len(table.words) - 1
    without = random_table(words=False)
    row = int(np.flatnonzero(without.code_lengths)[4])
    assert without.nearest(without.vectors([row])[0])[0] == (row, pytest.approx(1))


@pytest.mark.parametrize("scale", [2.0**-99, 2.0**96])  # their squares are beyond float32
def test_the_nearest_are_the_same_at_any_scale(scale):
    codes, books, mean = random_case(200, candidates=(0, 2))
    words = [f"w{row}" for row in range(200)]
    usual, scaled = (
        CompressedTable.from_codes(codes, books * by, mean * by, words, code_lengths=(0, 2))
        for by in (1.0, scale)
    )
    for word in usual.words[:3]:
        expected, found = usual.nearest(word, 5), scaled.nearest(word, 5)
        assert [name for name, _ in found] == [name for name, _ in expected]
        np.testing.assert_allclose(
            [cosine for _, cosine in found], [cosine for _, cosine in expected], rtol=1e-3
        )
    assert scaled.nearest(scaled[word], 1)[0][1] == pytest.approx(1)


def test_nearest_refuses_what_has_no_direction():
    table = random_table()
    with pytest.raises(KeyError, match="unheard"):
        table.nearest("unheard")
    for wrong in (np.zeros(6), np.ones(5), np.full(6, np.nan)):
        with pytest.raises(ValueError, match="item"):
            table.nearest(wrong)
    for k in (0, -1, 1.5, True, "3"):
        with pytest.raises(ValueError, match="k="):
            table.nearest(table.words[0], k)


def test_a_table_of_nothing_has_no_neighbours():
    codes, books, mean = random_case(5, candidates=(0, 2), shares=[1, 0])
    table = CompressedTable.from_codes(codes, books, mean, list("abcde"), code_lengths=(0, 2))
    assert table.nearest(np.ones(6)) == []
    assert list(table) == []
    assert not table.documents([["a", "b"]]).any()


def test_going_through_a_table_gives_its_words():
    table = random_table()
    assert list(table) == table.words
    assert all(word in table for word in table)
    with pytest.raises(TypeError, match="without words"):
        iter(random_table(words=False))


if __name__ == "__main__":
    golden_table().save(GOLDEN.with_name(f"compressed-format-{FORMAT}.safetensors"))
