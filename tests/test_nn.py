"""Torch modules: the same vectors as the compressed table, and learning in one's own loop."""

from __future__ import annotations

import copy
import shutil
from inspect import signature

import numpy as np
import pytest
import torch
from torch import nn

from skadacomp import AdaptiveCodebookCompressor, CompressedTable, EmbeddingTable
from skadacomp._compressor import _FOR_NETWORKS
from skadacomp.nn import AdaptiveCodebookEmbedding, CodebookEmbedding

N_WORDS, N_DIMS = 90, 7


def random_table(n_codewords=4, n_codebooks=5, seed=0):
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, n_codewords, (N_WORDS, n_codebooks))
    codes[np.arange(n_codebooks) >= rng.integers(0, n_codebooks + 1, (N_WORDS, 1))] = -1
    books = rng.normal(size=(n_codebooks, n_codewords, N_DIMS))
    lengths = tuple(range(n_codebooks + 1))
    return CompressedTable.from_codes(codes, books, rng.normal(size=N_DIMS), code_lengths=lengths)


@pytest.mark.parametrize("n_codewords", [2, 3, 4, 7, 16, 100, 256, 300, 40_000])
def test_vectors_are_those_of_the_compressed_table(n_codewords):
    table = random_table(n_codewords)
    embedding = CodebookEmbedding.from_compressed(table)
    rows = torch.arange(N_WORDS).reshape(9, 10)
    expected = table.vectors(np.arange(N_WORDS)).reshape(9, 10, N_DIMS)
    torch.testing.assert_close(embedding(rows), torch.as_tensor(expected), atol=1e-5, rtol=1e-5)
    assert embedding(rows[:0]).shape == (0, 10, N_DIMS)
    assert embedding(torch.tensor(3)).shape == (N_DIMS,)


def test_it_is_made_of_an_estimator_a_table_or_a_file(tmp_path):
    vectors = np.random.default_rng(0).normal(size=(N_WORDS, N_DIMS))
    fitted = AdaptiveCodebookCompressor(max_iter=1, random_state=0).fit(
        EmbeddingTable(None, vectors)
    )
    fitted.compressed_.save(tmp_path / "t")
    rows = torch.arange(N_WORDS)
    found = [
        CodebookEmbedding.from_compressed(source)(rows)
        for source in (fitted, fitted.compressed_, tmp_path / "t", str(tmp_path / "t"))
    ]
    for other in found[1:]:
        torch.testing.assert_close(found[0], other)
    with pytest.raises(TypeError, match="of type ndarray"):
        CodebookEmbedding.from_compressed(vectors)


def test_the_padding_row_is_zeros():
    table = random_table()
    embedding = CodebookEmbedding.from_compressed(table, padding_idx=-1)
    vectors = embedding(torch.tensor([3, N_WORDS - 1]))
    assert (vectors[1] == 0).all()
    assert (vectors[0] != 0).any()
    assert embedding.padding_idx == N_WORDS - 1
    with pytest.raises(ValueError, match=f"padding_idx=90 must be a row from 0 to {N_WORDS - 1}"):
        CodebookEmbedding.from_compressed(table, padding_idx=90)


def test_codebooks_are_frozen_or_trained():
    table, rows = random_table(), torch.tensor([0, 5, 8])
    frozen = CodebookEmbedding.from_compressed(table)
    assert not any(parameter.requires_grad for parameter in frozen.parameters())
    trained = CodebookEmbedding.from_compressed(table, freeze=False)
    optimizer = torch.optim.Adam(trained.parameters(), lr=0.1)
    before = trained(rows).square().sum().item()
    for _ in range(20):
        loss = trained(rows).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert trained(rows).square().sum().item() < 0.5 * before


def test_state_goes_round():
    one, other = (CodebookEmbedding.from_compressed(random_table(seed=s)) for s in (0, 1))
    rows = torch.arange(N_WORDS)
    assert (one(rows) != other(rows)).any()
    other.load_state_dict(one.state_dict())
    torch.testing.assert_close(one(rows), other(rows))
    assert set(one.state_dict()) == {"codebooks", "mean", "packed", "lengths"}
    torch.testing.assert_close(copy.deepcopy(one)(rows), one(rows))


def test_it_holds_codes_and_never_the_table():
    codes = np.random.default_rng(0).integers(0, 4, (10_000, 8))
    books = np.zeros((8, 4, 300))
    embedding = CodebookEmbedding(codes, books, np.zeros(300))
    held = sum(t.numel() * t.element_size() for t in embedding.state_dict().values())
    assert held == 10_000 * (2 + 1) + 4 * (8 * 4 * 300 + 300)
    assert held < 10_000 * 300 * 4 / 100


def test_it_stands_in_for_an_embedding_in_a_model():
    model = nn.Sequential(nn.Embedding(N_WORDS, N_DIMS), nn.Flatten(), nn.Linear(3 * N_DIMS, 2))
    model[0] = CodebookEmbedding.from_compressed(random_table())
    rows = torch.randint(N_WORDS, (4, 3))
    assert model(rows).shape == (4, 2)
    assert "n_codewords=4" in repr(model)


def test_it_can_be_exported():
    embedding = CodebookEmbedding.from_compressed(random_table(), padding_idx=0)
    rows = torch.randint(N_WORDS, (6, 3))
    n = torch.export.Dim("n")
    program = torch.export.export(embedding, (rows,), dynamic_shapes=({0: n},))
    for other in (rows, torch.randint(N_WORDS, (11, 3))):
        torch.testing.assert_close(program.module()(other), embedding(other))


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # torch's own, in the backend
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_it_can_be_compiled(backend):
    if backend == "inductor" and shutil.which("g++") is None:
        pytest.skip("torch's default backend needs a C++ compiler")
    embedding = CodebookEmbedding.from_compressed(random_table())
    rows = torch.randint(N_WORDS, (6, 3))
    compiled = torch.compile(embedding, backend=backend, fullgraph=True)
    torch.testing.assert_close(compiled(rows), embedding(rows))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_it_gives_the_same_on_a_gpu():
    embedding = CodebookEmbedding.from_compressed(random_table())
    rows = torch.randint(N_WORDS, (6, 3))
    expected = embedding(rows)
    found = embedding.to("cuda")(rows.to("cuda"))
    assert found.device.type == "cuda"
    torch.testing.assert_close(found.cpu(), expected)


# ---------------------------------------------------------------------------------------------
# Learning in one's own loop


def decisive_loop(n_steps, **parameters):
    """Train on documents whose class ten words decide, in rows of random order."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    weight = torch.as_tensor(rng.normal(size=(200, 12)), dtype=torch.float32)
    decisive = rng.choice(200, 10, replace=False)
    rest = np.setdiff1d(np.arange(200), decisive)
    embedding = AdaptiveCodebookEmbedding.from_pretrained(
        weight, (0, 1, 2, 4), n_codewords=4, frequency=np.ones(200), **parameters
    )
    head = nn.Linear(12, 2)
    optimizer = torch.optim.Adam([*embedding.parameters(), *head.parameters()], lr=0.02)
    losses = []
    for step in range(n_steps):
        embedding.temperature = 1 - 0.7 * step / n_steps
        chosen = rng.integers(10, size=64)
        words = np.column_stack([decisive[chosen], rng.choice(rest, (64, 6))])
        scores = head(embedding(torch.as_tensor(words)).mean(1))
        task = nn.functional.cross_entropy(scores, torch.as_tensor(chosen % 2))
        loss = task + embedding.size_loss()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(task.item())
    return embedding, head, decisive, rest, losses


def test_lengths_follow_the_task_of_ones_own_loop():
    embedding, _, decisive, rest, losses = decisive_loop(300, size_penalty=0.3)
    assert np.mean(losses[-20:]) < 0.4 < losses[0]
    hardened = embedding.harden()
    lengths = hardened.lengths.numpy().astype(float)
    assert lengths[decisive].mean() > 1.5 * lengths[rest].mean()


def test_hardened_vectors_serve_the_same_head():
    embedding, head, decisive, rest, _ = decisive_loop(300, size_penalty=0.02)
    hardened, embedding = embedding.harden(), embedding.eval()
    rng = np.random.default_rng(1)
    chosen = rng.integers(10, size=400)
    words = torch.as_tensor(np.column_stack([decisive[chosen], rng.choice(rest, (400, 6))]))
    for words_to_vectors in (embedding, hardened):
        found = head(words_to_vectors(words).mean(1)).argmax(1).numpy()
        assert (found == chosen % 2).mean() > 0.85
    copied = copy.deepcopy(embedding)
    torch.testing.assert_close(copied(words), embedding(words))
    # Nothing is fitted anew at the end: the model around it has learned from these very vectors.
    every = torch.arange(200)
    torch.testing.assert_close(hardened(every), embedding(every))


@pytest.mark.parametrize("n_codewords", [4, 16, 300])
def test_what_a_loop_has_learned_ships(n_codewords, tmp_path):
    torch.manual_seed(0)
    weight = torch.randn(400, 12)
    hardened = AdaptiveCodebookEmbedding(weight, (0, 1, 3), n_codewords, size_penalty=0.1).harden()
    words = [f"word{row}" for row in range(400)]
    hardened.to_compressed(words).save(tmp_path / "table.safetensors")
    shipped = CompressedTable.open(tmp_path / "table.safetensors")
    lengths = hardened.lengths.numpy()
    assert set(shipped.words) == {words[row] for row in np.flatnonzero(lengths)} < set(words)
    np.testing.assert_array_equal((shipped.codes >= 0).sum(1), lengths)
    again = CodebookEmbedding.from_compressed(shipped)
    every = torch.arange(400)
    # 8 bits a number of a codebook: half a step is 1/254 of its largest.
    step = hardened.codebooks.abs().amax((1, 2)).sum().item() / 127
    torch.testing.assert_close(again(every), hardened(every), rtol=0, atol=step)
    rounded = again.to_compressed(words)
    torch.testing.assert_close(CodebookEmbedding.from_compressed(rounded)(every), again(every))
    assert hardened.to_compressed(codebook_bits=4).nbytes < rounded.nbytes


def test_a_dearer_bit_makes_fewer_of_them():
    sizes = [
        decisive_loop(60, size_penalty=penalty)[0].harden().lengths.float().mean().item()
        for penalty in (1e-4, 1e-2, 3.0)
    ]
    assert sizes[0] > sizes[1] > sizes[2]


def test_the_defaults_are_those_of_the_compressor_for_networks():
    compressor = signature(AdaptiveCodebookCompressor).parameters
    networks = {name: p.default for name, p in compressor.items()} | _FOR_NETWORKS._asdict()
    for make in (AdaptiveCodebookEmbedding, AdaptiveCodebookEmbedding.from_pretrained):
        defaults = {name: p.default for name, p in signature(make).parameters.items()}
        shared = defaults.keys() & networks.keys()
        assert "code_lengths" in shared
        assert {name: defaults[name] for name in shared} == {n: networks[n] for n in shared}


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"code_lengths": (4, 2)}, r"code_lengths=\(4, 2\) must ascend"),
        ({"code_lengths": (0,)}, "must ascend"),
        ({"code_lengths": ()}, "must ascend"),
        ({"frequency": [1, 2]}, "must be 20 counts"),
        ({"padding_idx": 20}, "padding_idx=20"),
        ({"n_codewords": 1}, "n_codewords=1"),
    ],
)
def test_what_cannot_be_is_refused(parameters, message):
    with pytest.raises(ValueError, match=message):
        AdaptiveCodebookEmbedding(torch.randn(20, 3), **parameters)


def test_weights_must_be_finite_numbers():
    for weight in (torch.randn(20), torch.full((20, 3), torch.nan)):
        with pytest.raises(ValueError, match="must be finite numbers"):
            AdaptiveCodebookEmbedding.from_pretrained(weight)
