"""Learning: lengths, codes, heads and the loop that trains them, room by room and as a whole."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from io import StringIO

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from scipy import sparse
from torch import nn
from torch.nn import functional
from tqdm import tqdm

from skadacomp._codes import code_matrix, code_usage
from skadacomp._encoder import RowEncoder
from skadacomp._learning import (
    Budget,
    Rate,
    Settings,
    Task,
    fine_tune_table,
    learn,
    learner,
    shelf,
)
from skadacomp._learning.checkpoint import Draws
from skadacomp._learning.codes import (
    TiedEncoder,
    enough_rank,
    left_out_by_rank,
    paying_rank,
    reduce_rank,
    refit_codebooks,
    residual_kmeans,
)
from skadacomp._learning.criteria import Classes
from skadacomp._learning.heads import ConvolutionalHead, PairHead, PooledHead, _sums, make_head
from skadacomp._learning.joint import JointHead
from skadacomp._learning.lengths import LengthLogits, choose, choose_within, significance
from skadacomp._learning.space import Overlay, find_space
from skadacomp._learning.student import Student, Targets
from skadacomp._learning.teacher import Split, Teacher, evaluate, fine_tune, usual_scale
from skadacomp._learning.trainer import Documents, Trainer, batch_size, pick_device

CPU = torch.device("cpu")


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Tables this small are slower on several threads than on one."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


# ---------------------------------------------------------------------------------------------
# Significance


def counts_of(documents, n_words):
    counts = np.zeros((len(documents), n_words), np.float32)
    for row, document in zip(counts, documents, strict=True):
        np.add.at(row, document, 1)
    return sparse.csr_matrix(counts)


def test_significance_is_a_share_of_every_word():
    rng = np.random.default_rng(0)
    seen = rng.choice(300, 60, replace=False)
    share = significance(counts_of([rng.choice(seen, 9) for _ in range(40)], 300), 300)
    assert share.shape == (300,)
    assert (share > 0).all()
    assert share.sum() == pytest.approx(1)
    present = np.isin(np.arange(300), seen)
    for row in np.flatnonzero(present):
        assert share[row] > share[[r for r in (row - 1, row + 1) if 0 <= r < 300]][
            ~present[[r for r in (row - 1, row + 1) if 0 <= r < 300]]
        ].max(initial=0)
    # Among words never seen, earlier rows are taken to be more frequent.
    assert (np.diff(share[~present]) < 0).all()


@pytest.mark.parametrize(
    ("documents", "unseen"),
    [
        ([[0, 1]] * 30, 0.01),  # every word seen again: the least share
        ([[0, 1], [0, 2], [0, 3]], 0.5),  # 3 of 6 seen once
        ([[0, 1, 2, 3], [4, 5, 6, 7]], 0.5),  # all seen once: the most
        ([[0, 1, 2, 3], [0, 1, 2, 4], [0, 1, 2, 3]], 1 / 12),
    ],
)
def test_the_share_of_words_never_seen_is_good_turing(documents, unseen):
    n_words = 200
    share = significance(counts_of(documents, n_words), n_words)
    prior = 1 / (np.arange(n_words) + 1000)
    prior /= prior.sum()
    never = np.arange(n_words) >= 8
    np.testing.assert_allclose(share[never], unseen * prior[never], rtol=1e-6)


def test_a_document_counts_by_shares_not_by_its_length():
    weights = sparse.csr_matrix(np.array([[8.0, 0, -8, 0], [0, 1, 0, 0]], np.float32))
    share = significance(weights, 4)
    unseen = 0.5 / (np.arange(4) + 1000) / (1 / (np.arange(4) + 1000)).sum()
    np.testing.assert_allclose(share - unseen, 0.5 * np.array([0.25, 0.5, 0.25, 0]), atol=1e-12)


def test_documents_without_words_leave_the_prior():
    share = significance(sparse.csr_matrix((3, 50), dtype=np.float32), 50)
    assert share.sum() == pytest.approx(1)
    assert (share > 0).all()


# ---------------------------------------------------------------------------------------------
# Rate


def test_bits_of_each_word_at_each_length():
    rate = Rate((0, 2, 5), 3, np.array([10.0, 20.0]))
    np.testing.assert_array_equal(rate.bits(), [[0, 16, 25], [0, 26, 35]])
    # The lengths' frequencies are smoothed: 2, 1 and 2 of 5.
    lengths = -np.log2(np.array([2, 1, 2]) / 5)
    np.testing.assert_allclose(rate.bits(np.array([2, 0], np.uint8)), rate.bits() + lengths)


def test_bits_of_a_whole_choice():
    rate = Rate((0, 2, 5), 3, np.full(4, 99.0))
    # 6 + 15 + 0 + 0 bits of codes; lengths at 1/4, 1/4, 1/2: 2 + 2 + 1 + 1 bits.
    assert rate.code_bits(np.array([1, 2, 0, 0], np.uint8)) == pytest.approx(21 + 6)
    assert rate.code_bits(np.array([2, 2, 2, 2], np.uint8)) == pytest.approx(60)
    assert rate.code_bits(np.array([0, 0, 0, 0], np.uint8)) == 0


# ---------------------------------------------------------------------------------------------
# Choosing lengths

CANDIDATES = [(0, 2, 4, 8), (0, 1, 2, 3, 4), (2, 4), (0, 8, 16), (0, 1), (3,)]


def random_costs(n_words, candidates, seed):
    """Errors that fall with the length, for words of very different significance."""
    rng = np.random.default_rng(seed)
    weight = rng.pareto(2, (n_words, 1)) + 0.01
    return weight / weight.sum() * rng.uniform(0.4, 0.9, (n_words, 1)) ** np.array(candidates)


def total_bits(rate, choices):
    kept = np.array(rate.candidates)[choices] > 0
    return rate.code_bits(choices) + rate.word_bits[kept].sum()


def random_rate(n_words, candidates, width, with_words, seed=0):
    letters = np.random.default_rng(seed).integers(8, 60, n_words).astype(float)
    return Rate(candidates, width, letters * with_words)


@pytest.mark.parametrize("candidates", CANDIDATES)
@pytest.mark.parametrize("with_words", [False, True])
def test_a_dearer_bit_never_gives_more_bits(candidates, with_words):
    rate = random_rate(300, candidates, 2, with_words)
    cost = random_costs(300, candidates, 1)
    words = np.arange(300)
    multipliers = 2.0 ** np.arange(-40, 0, 0.25)
    at_fixed_prices = [choose(cost, rate, m, rounds=0) for m in multipliers]
    spent = [rate.bits()[words, c].sum() for c in at_fixed_prices]
    lost = [cost[words, c].sum() for c in at_fixed_prices]
    assert (np.diff(spent) <= 0).all()
    assert (np.diff(lost) >= 0).all()
    # Where lengths are priced by how many choose them the choice is a local optimum, so nearby
    # multipliers may trade places; far ones do not.
    priced = [choose(cost, rate, m) for m in multipliers]
    spent = np.array([rate.bits()[words, c].sum() for c in priced])
    assert (spent[16:] <= spent[:-16]).all()
    assert spent[0] > spent[-1] or len(candidates) == 1


def test_the_ends_of_the_scale_are_all_or_nothing():
    rate, cost = random_rate(300, (0, 2, 4, 8), 2, False), random_costs(300, (0, 2, 4, 8), 1)
    assert (choose(cost, rate, 1e-40) == 3).all()
    assert (choose(cost, rate, 1.0) == 0).all()


@pytest.mark.parametrize("multiplier", [1e-6, 1e-5, 1e-4, 1e-3])
def test_lengths_are_best_at_the_prices_that_they_make(multiplier):
    rate, cost = random_rate(300, (0, 2, 4, 8), 2, True), random_costs(300, (0, 2, 4, 8), 2)
    choices = choose(cost, rate, multiplier, rounds=200)
    assert choices.dtype == np.uint8
    assert len(set(choices)) > 1
    best = (cost + multiplier * rate.bits(choices)).argmin(1)
    np.testing.assert_array_equal(choices, best)


@pytest.mark.parametrize("multiplier", 2.0 ** np.arange(-20, -4, 2))
def test_a_length_that_costs_more_and_takes_more_is_never_chosen(multiplier):
    rate, cost = random_rate(300, (0, 2, 4, 8), 2, False), random_costs(300, (0, 2, 4, 8), 3)
    cost[:, 2] = cost[:, 1] * 1.01
    choices = choose(cost, rate, multiplier)
    assert 2 not in choices


@hypothesis_settings(deadline=None, max_examples=60)
@given(
    candidates=st.sampled_from(CANDIDATES),
    width=st.sampled_from([1, 2, 4, 8]),
    n_words=st.integers(200, 400),
    with_words=st.booleans(),
    seed=st.integers(0, 10**6),
    share=st.floats(0, 1),
)
def test_a_budget_is_used_up_and_never_exceeded(
    candidates, width, n_words, with_words, seed, share
):
    rate = random_rate(n_words, candidates, width, with_words)
    cost = random_costs(n_words, candidates, seed)
    least = total_bits(rate, np.zeros(n_words, np.uint8))
    most = total_bits(rate, np.full(n_words, len(candidates) - 1, np.uint8))
    limit = least + share * (most - least)
    choices, multiplier = choose_within(
        cost, rate, Budget(limit, lambda choices, rank: total_bits(rate, choices))
    )
    assert choices.shape == (n_words,)
    assert choices.dtype == np.uint8
    assert multiplier > 0
    size = total_bits(rate, choices)
    assert size <= limit
    # One word more takes its codes, its letters, and the price of a rare length.
    one_word = candidates[-1] * width + rate.word_bits.max() + np.log2(n_words) + 2
    assert size >= min(0.95 * limit, limit - one_word)


@pytest.mark.parametrize("share", [0.02, 0.1, 0.35, 0.62, 0.9])
def test_equal_words_are_moved_one_by_one(share):
    rate = Rate((0, 2, 4, 8), 2, np.zeros(400))
    cost = np.tile([1.0, 0.5, 0.3, 0.1], (400, 1)) / 400
    limit = share * 400 * 16
    choices, _ = choose_within(
        cost, rate, Budget(limit, lambda choices, rank: rate.code_bits(choices))
    )
    assert 0.95 * limit <= rate.code_bits(choices) <= limit


def test_a_budget_for_single_words_counts_them_exactly():
    rate = Rate((0, 3), 1, np.zeros(300))
    cost = np.tile([1.0, 0.0], (300, 1))
    cost[:150, 0] = 2.0

    def n_kept(choices, rank=None):
        return np.count_nonzero(choices)

    for limit in (0, 1, 7, 149, 150, 151, 299, 300):
        choices, _ = choose_within(cost, rate, Budget(limit, n_kept, slack=0))
        assert n_kept(choices) == limit
        # The words that lose more by being dropped are kept first.
        assert choices[:150].sum() == min(limit, 150)


def test_one_candidate_leaves_no_choice():
    rate, cost = Rate((3,), 2, np.zeros(50)), random_costs(50, (3,), 0)
    for limit in (300, 301, 1e9):
        choices, _ = choose_within(
            cost, rate, Budget(limit, lambda choices, rank: rate.code_bits(choices))
        )
        assert (choices == 0).all()


@pytest.mark.parametrize("candidates", [(0, 2, 4, 8), (2, 4), (0, 1)])
def test_a_limit_above_the_largest_size_gives_the_longest_lengths(candidates):
    rate, cost = random_rate(200, candidates, 2, True), random_costs(200, candidates, 0)
    budget = Budget(1e9, lambda choices, rank: total_bits(rate, choices))
    assert (choose_within(cost, rate, budget)[0] == len(candidates) - 1).all()


@pytest.mark.parametrize("candidates", [(0, 2, 4, 8), (2, 4), (0, 1)])
def test_a_limit_at_the_smallest_size_gives_the_shortest_lengths(candidates):
    rate, cost = random_rate(200, candidates, 2, True), random_costs(200, candidates, 0)
    least = total_bits(rate, np.zeros(200, np.uint8))
    budget = Budget(least, lambda choices, rank: total_bits(rate, choices))
    assert (choose_within(cost, rate, budget)[0] == 0).all()


def test_words_without_any_error_need_no_search():
    rate = Rate((0, 2, 4), 2, np.zeros(200))
    choices, _ = choose_within(
        np.zeros((200, 3)), rate, Budget(300.0, lambda choices, rank: rate.code_bits(choices))
    )
    assert rate.code_bits(choices) <= 300


# ---------------------------------------------------------------------------------------------
# Length logits


def logits_of(candidates, n_words=50, scale=1.0, seed=0):
    excess = np.random.default_rng(seed).exponential(scale, (n_words, len(candidates)))
    excess -= excess.min(1, keepdims=True)
    excess = torch.as_tensor(excess.astype(np.float32))
    return LengthLogits(excess, candidates, candidates[-1]), excess


@pytest.mark.parametrize("candidates", [(0, 2, 4, 8), (1, 3), (0, 5), (4,)])
@pytest.mark.parametrize("temperature", [None, 1.0, 0.3])
def test_gates_open_the_first_codebooks(candidates, temperature):
    lengths, _ = logits_of(candidates)
    rows = torch.arange(50)[::2]
    gates, kept = lengths(rows, temperature, seeded())
    gates, kept = gates.detach().numpy(), kept.detach().numpy()
    assert gates.shape == (25, candidates[-1])
    np.testing.assert_allclose(gates, np.round(gates), atol=1e-6)
    gates = np.round(gates)
    n_open = gates.sum(1)
    assert set(n_open) <= set(candidates)
    np.testing.assert_array_equal(gates, np.arange(candidates[-1]) < n_open[:, None])
    np.testing.assert_allclose(kept, n_open > 0, atol=1e-6)


def test_without_temperature_each_word_has_its_best_length():
    lengths, excess = logits_of((0, 2, 4, 8))
    rows = torch.tensor([3, 3, 40, 0])
    gates, _ = lengths(rows, None, seeded())
    expected = torch.tensor([0, 2, 4, 8])[excess.argmin(1)]
    torch.testing.assert_close(gates.sum(1), expected[rows].float())
    torch.testing.assert_close(lengths.best(), excess.argmin(1))
    with torch.no_grad():
        lengths.learned[3, 1] = 100.0
    assert lengths.best()[3] == 1
    assert lengths(rows, None, seeded())[0].sum(1)[0] == 2


def test_lengths_are_sampled_by_their_probabilities():
    lengths, _ = logits_of((0, 2, 4, 8), n_words=4)
    rows = torch.arange(4).repeat_interleave(20_000)
    gates, _ = lengths(rows, 0.7, seeded())
    n_open = gates.detach().sum(1).round().reshape(4, -1)  # (n_words, n_samples)
    shares = torch.stack([(n_open == length).float().mean(1) for length in (0, 2, 4, 8)], 1)
    torch.testing.assert_close(shares, lengths.probabilities().detach(), atol=0.02, rtol=0)


def test_samples_pass_a_gradient_to_the_logits_of_their_words():
    lengths, _ = logits_of((0, 2, 4, 8))
    rows = torch.arange(10)
    gates, kept = lengths(rows, 1.0, seeded())
    (gates.sum() + kept.sum()).backward()
    gradient = lengths.learned.grad
    assert (gradient[:10].abs().sum(1) > 1e-4).all()
    assert (gradient[10:] == 0).all()
    # A softmax's gradient: what one candidate wins the others lose; more codes open more gates.
    torch.testing.assert_close(gradient.sum(1), torch.zeros(50), atol=1e-5, rtol=0)
    assert (gradient[:10, 3] >= 0).all()
    assert (gradient[:10, 0] <= 0).all()


def test_fixed_choices_win():
    lengths, _ = logits_of((0, 2, 4, 8))
    lengths.choices = torch.arange(50) % 4
    torch.testing.assert_close(lengths.best(), lengths.choices)
    rows = torch.tensor([0, 1, 2, 3])
    assert lengths(rows, None, seeded())[0].sum(1).tolist() == [0, 2, 4, 8]


def test_start_logits_are_bounded():
    lengths, excess = logits_of((0, 2, 4, 8), scale=100.0)
    assert lengths.start.max() == 0
    assert lengths.start.min() == -4
    gentle, excess = logits_of((0, 2, 4, 8), scale=0.1)
    torch.testing.assert_close(gentle.start, -2 * excess)
    assert (lengths.learned == 0).all()


# ---------------------------------------------------------------------------------------------
# Residual k-means


def quantization_error(points, weights, codebooks):
    left, errors = points.clone(), []
    for codewords in codebooks:
        left = left - codewords[torch.cdist(left, codewords).argmin(1)]
        errors.append(((left**2).sum(1) * weights).sum().item())
    return errors


def test_each_codebook_lowers_the_error():
    points, weights = torch.randn(300, 8, generator=seeded()), torch.rand(300, generator=seeded(1))
    codebooks = residual_kmeans(points, weights, 6, 4, seeded())
    assert codebooks.shape == (6, 4, 8)
    errors = [((points**2).sum(1) * weights).sum().item()]
    errors += quantization_error(points, weights, codebooks)
    assert (np.diff(errors) < 0).all()
    assert errors[1] < 0.8 * errors[0]
    assert errors[-1] < 0.3 * errors[0]


def test_separate_clusters_are_found_exactly():
    centres = 10 * torch.tensor([[1.0, 0], [-1, 0], [0, 1], [0, -1]])
    offsets = torch.tensor([[0.5, 0], [-0.5, 0], [0, 0.5], [0, -0.5]])
    points = (centres[:, None] + offsets).flatten(0, 1)
    codewords = residual_kmeans(points, torch.ones(16), 1, 4, seeded())[0]
    order = torch.cdist(centres, codewords).argmin(1)
    torch.testing.assert_close(codewords[order], centres)


def test_weights_pull_the_codewords():
    points = torch.randn(300, 8, generator=seeded())
    heavy = torch.arange(300) < 20
    weights = torch.where(heavy, 1.0, 1e-3)
    error = {}
    for name, w in {"weighted": weights, "plain": torch.ones(300)}.items():
        codebooks = residual_kmeans(points, w, 2, 4, seeded())
        error[name] = quantization_error(points[heavy], torch.ones(20), codebooks)[-1]
    assert error["weighted"] < 0.7 * error["plain"]
    # One codeword is the weighted mean.
    only = residual_kmeans(points, weights, 1, 1, seeded())[0, 0]
    torch.testing.assert_close(only, (weights @ points) / weights.sum())


@pytest.mark.parametrize(
    "points",
    [
        torch.ones(50, 3),
        torch.zeros(50, 3),
        torch.eye(3),  # fewer points than codewords
        torch.eye(3).repeat(10, 1),
        torch.ones(1, 3),
    ],
    ids=["equal", "zero", "few", "few distinct", "one"],
)
def test_too_few_points_for_the_codewords(points):
    codebooks = residual_kmeans(points, torch.ones(len(points)), 3, 8, seeded())
    assert codebooks.shape == (3, 8, 3)
    assert torch.isfinite(codebooks).all()
    assert quantization_error(points, torch.ones(len(points)), codebooks)[0] < 1e-8


def test_residual_kmeans_is_the_generators_and_leaves_the_points_alone():
    points = torch.randn(200, 4, generator=seeded())
    before = points.clone()
    one, other = (residual_kmeans(points, torch.ones(200), 2, 4, seeded(3)) for _ in range(2))
    torch.testing.assert_close(one, other, rtol=0, atol=0)
    torch.testing.assert_close(points, before, rtol=0, atol=0)


# ---------------------------------------------------------------------------------------------
# The tied encoder


def tied_encoder(n_codebooks=3, n_codewords=4, n_dims=8, seed=0):
    codebooks = torch.randn(n_codebooks, n_codewords, n_dims, generator=seeded(seed))
    codebooks = codebooks * 0.6 ** torch.arange(n_codebooks)[:, None, None]
    return TiedEncoder(codebooks, torch.linspace(0.2, 0.5, n_codebooks))


@pytest.mark.parametrize("n_codewords", [2, 4, 16])
def test_the_network_chooses_as_the_search_with_arrays_does(n_codewords):
    encoder = tied_encoder(5, n_codewords)
    inputs = torch.randn(300, 8, generator=seeded(1))
    picks = encoder(inputs).detach()
    assert picks.shape == (300, 5, n_codewords)
    hard = picks.round()
    torch.testing.assert_close(picks, hard, atol=1e-6, rtol=0)
    assert (hard.sum(2) == 1).all()
    books = encoder.codebooks.detach().numpy()
    codes, _ = RowEncoder.from_codebooks(books, np.zeros(8), np.eye(8)).encode(inputs.numpy())
    np.testing.assert_array_equal(picks.argmax(2).numpy(), codes)


@pytest.mark.parametrize("n_codewords", [2, 4, 16])
def test_a_gradient_reaches_inputs_and_every_codebook(n_codewords):
    encoder = tied_encoder(3, n_codewords)
    inputs = torch.randn(40, 8, generator=seeded(1)).requires_grad_()
    mix = torch.randn(40, 3, n_codewords, generator=seeded(2))
    (encoder(inputs) * mix).sum().backward()
    assert (inputs.grad.abs().sum(1) > 1e-6).all()
    assert (encoder.codebooks.grad.abs().sum((1, 2)) > 1e-6).all()
    assert torch.isfinite(encoder.codebooks.grad).all()


def test_the_gradient_is_that_of_a_softmax():
    encoder = tied_encoder(1, 4)
    mix = torch.randn(40, 4, generator=seeded(2))
    hard, soft = (torch.randn(40, 8, generator=seeded(1)).requires_grad_() for _ in range(2))
    (encoder(hard)[:, 0] * mix).sum().backward()
    distance = ((soft[:, None] - encoder.codebooks[0].detach()) ** 2).sum(2)
    (functional.softmax(-distance * encoder.sharpness[0], 1) * mix).sum().backward()
    torch.testing.assert_close(hard.grad, soft.grad, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("n_codewords", [2, 16])
def test_rebuilding_leaves_out_codes_beyond_a_rows_length(n_codewords):
    """The vectors and the gradients are those of all codes with the others masked."""
    n_codes = torch.tensor([3] * 10 + [2] * 20 + [1] * 30 + [0] * 5)
    short, whole = tied_encoder(3, n_codewords), tied_encoder(3, n_codewords)
    one, other = (torch.randn(65, 8, generator=seeded(1)).requires_grad_() for _ in range(2))
    picks = whole(other) * (n_codes[:, None] > torch.arange(3))[:, :, None]
    masked = picks.flatten(1) @ whole.codebooks.flatten(0, 1)
    rebuilt = short.rebuild(one, n_codes)
    torch.testing.assert_close(rebuilt, masked)
    mix = torch.randn(65, 8, generator=seeded(2))
    for vectors in (rebuilt, masked):
        (vectors * mix).sum().backward()
    torch.testing.assert_close(one.grad, other.grad)
    torch.testing.assert_close(short.codebooks.grad, whole.codebooks.grad, atol=1e-4, rtol=1e-4)
    assert not one.grad[60:].any()


@pytest.mark.parametrize("lengths", [[0], [0, 0, 0], []])
def test_rows_without_a_code_are_rebuilt_as_nothing(lengths):
    found = tied_encoder().rebuild(torch.ones(len(lengths), 8), torch.tensor(lengths))
    assert found.shape == (len(lengths), 8)
    assert not found.any()


def test_the_encoder_has_a_copy_of_its_codebooks():
    start = torch.randn(2, 4, 8, generator=seeded())
    encoder = TiedEncoder(start, torch.ones(2))
    with torch.no_grad():
        encoder.codebooks.zero_()
    assert start.abs().sum() > 0


def test_repulsion_sees_codebooks_that_repeat_each_other():
    # Contrasts along axes of their own: nothing to repel.
    axes = torch.zeros(3, 2, 6)
    for m in range(3):
        axes[m, 0, m], axes[m, 1, m] = 1.0, -1.0
    axes += torch.arange(6.0)  # what a codebook's codewords share does not count
    assert TiedEncoder(axes, torch.ones(3)).repulsion().item() == pytest.approx(0, abs=1e-10)
    repeated = TiedEncoder(axes[:1].repeat(3, 1, 1), torch.ones(3))
    assert repeated.repulsion().item() == pytest.approx(1)
    between = tied_encoder(3, 4).repulsion().item()
    assert 0.01 < between < 0.9


def test_repulsion_drives_codebooks_apart():
    start = torch.randn(1, 4, 8, generator=seeded()).repeat(2, 1, 1)
    encoder = TiedEncoder(start + 0.01 * torch.randn(2, 4, 8, generator=seeded(1)), torch.ones(2))
    before = encoder.repulsion()
    optimizer = torch.optim.Adam(encoder.parameters(), lr=0.05)
    for _ in range(50):
        optimizer.zero_grad()
        encoder.repulsion().backward()
        optimizer.step()
    assert encoder.repulsion().item() < 0.5 * before.item()


def test_one_codebook_repeats_nothing():
    repulsion = tied_encoder(1, 4).repulsion()
    assert repulsion.item() == 0
    assert repulsion.shape == ()


# ---------------------------------------------------------------------------------------------
# Refitting codebooks


def coded_table(n_words=400, n_codebooks=3, n_codewords=4, n_dims=8, seed=0):
    """Give vectors made from codes of every length."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, n_codewords, (n_words, n_codebooks)).astype(np.int32)
    lengths = rng.integers(0, n_codebooks + 1, n_words)
    codes[np.arange(n_codebooks) >= lengths[:, None]] = -1
    codebooks = rng.normal(size=(n_codebooks, n_codewords, n_dims))
    mean = rng.normal(size=n_dims)
    vectors = np.tile(mean, (n_words, 1))
    for m in range(n_codebooks):
        vectors += np.where(codes[:, m, None] >= 0, codebooks[m, codes[:, m]], 0)
    vectors[lengths == 0] = 1e3  # words without a code are left out, whatever they are
    return codes, vectors, mean, codebooks


def test_refitting_recovers_the_codebooks_that_made_the_vectors():
    codes, vectors, mean, codebooks = coded_table()
    kept = refit_codebooks(codes, vectors, mean, codebooks)
    assert kept.dtype == np.float32
    np.testing.assert_allclose(kept, codebooks, atol=1e-5)
    found = refit_codebooks(codes, vectors, mean, np.zeros_like(codebooks), pull=1e-9)
    np.testing.assert_allclose(found, codebooks, atol=1e-4)
    near = refit_codebooks(codes, vectors, mean, codebooks + 0.1)
    assert np.abs(near - codebooks).max() < 0.01


def test_codewords_that_no_word_uses_stay_where_they_were():
    codes, vectors, mean, codebooks = coded_table()
    codes[:, 1] = np.where(codes[:, 1] == 2, -1, codes[:, 1])
    codes[:, 2] = np.where(codes[:, 1] < 0, -1, codes[:, 2])
    trained = codebooks + 0.5
    fitted = refit_codebooks(codes, vectors, mean, trained)
    np.testing.assert_allclose(fitted[1, 2], trained[1, 2], rtol=1e-6)
    assert np.abs(fitted - trained).max((1, 2)).min() > 0.1
    none = refit_codebooks(np.full_like(codes, -1), vectors, mean, trained)
    np.testing.assert_allclose(none, trained, rtol=1e-6)


def test_refitting_is_least_squares():
    codes, vectors, mean, _ = coded_table()
    rng = np.random.default_rng(1)
    kept = codes[:, 0] >= 0
    vectors = vectors + rng.normal(size=vectors.shape)
    fitted = refit_codebooks(codes, vectors, mean, np.zeros((3, 4, 8)), pull=1e-9)

    def error(codebooks):
        left = vectors - mean
        for m in range(3):
            left = left - np.where(codes[:, m, None] >= 0, codebooks[m, codes[:, m]], 0)
        return (left[kept] ** 2).sum()

    for _ in range(5):
        assert error(fitted) < error(fitted + 0.02 * rng.normal(size=fitted.shape))


def test_a_word_that_counts_twice_is_refitted_as_two_words():
    codes, vectors, mean, _ = coded_table()
    vectors = vectors + np.random.default_rng(1).normal(size=vectors.shape)
    twice = np.random.default_rng(2).integers(0, 2, len(codes)).astype(bool)
    start = np.zeros((3, 4, 8))
    weighted = refit_codebooks(codes, vectors, mean, start, 1.0 + twice)
    repeated = np.concatenate([np.arange(len(codes)), np.flatnonzero(twice)])
    expected = refit_codebooks(codes[repeated], vectors[repeated], mean, start)
    np.testing.assert_allclose(weighted, expected, atol=1e-5)
    assert np.abs(weighted - refit_codebooks(codes, vectors, mean, start)).max() > 0.01


# ---------------------------------------------------------------------------------------------
# Documents and the training loop


def random_documents(n_documents=30, n_words=40, seed=0, empty=(4, 11)):
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=(n_documents, n_words)) * (rng.random((n_documents, n_words)) < 0.15)
    weights[list(empty)] = 0
    labels = rng.integers(0, 3, n_documents)
    return Documents(sparse.csr_matrix(weights.astype(np.float32)), labels)


@given(st.lists(st.integers(0, 29), min_size=1, max_size=20))
def test_a_batch_holds_its_documents(chosen):
    documents = random_documents()
    batch = documents.batch(np.array(chosen), CPU)
    ends = [*batch.starts.tolist()[1:], len(batch.words)]
    weights = np.zeros((len(chosen), 40), np.float32)
    for i, (start, end) in enumerate(zip(batch.starts.tolist(), ends, strict=True)):
        np.add.at(weights[i], batch.rows[batch.words[start:end]], batch.weights[start:end])
    np.testing.assert_array_equal(weights, documents.weights[chosen].toarray())
    assert batch.rows.tolist() == np.unique(documents.weights[chosen].indices).tolist()
    assert batch.targets.tolist() == documents.targets[chosen].tolist()


def test_a_pooled_batch_is_weights_times_vectors():
    documents = random_documents()
    vectors = torch.randn(40, 8, generator=seeded())
    chosen = np.array([7, 4, 2, 29, 11])
    batch = documents.batch(chosen, CPU)
    pooled = _sums(vectors[batch.rows], batch.weights, batch)
    expected = documents.weights[chosen] @ vectors.numpy()
    np.testing.assert_allclose(pooled.numpy(), expected, atol=1e-5)


def test_batches_go_through_all_documents_once():
    documents = random_documents()
    plain = [batch.targets.tolist() for batch in documents.batches(8, CPU)]
    assert plain == [documents.targets[i : i + 8].tolist() for i in (0, 8, 16, 24)]
    order = np.random.default_rng(0).permutation(30)
    shuffled = list(documents.batches(7, CPU, order))
    assert (
        np.concatenate([b.targets for b in shuffled]).tolist() == documents.targets[order].tolist()
    )


def test_batch_size_makes_about_eight_batches():
    for n in (1, 63, 64, 65, 1000, 4321):
        size = batch_size(n)
        assert size >= 8
        assert -(-n // size) <= 8
    assert batch_size(4000) == 500
    assert batch_size(10) == 8
    assert batch_size(100, n_batches=3, smallest=1) == 34


class Bar:
    """A progress bar that only counts."""

    def __init__(self):
        self.n = 0

    def update(self, n=1):
        self.n += n


def run_scripted(losses, patience, n_epochs):
    """Train a number that falls by 1 each epoch; `losses` are those that evaluating it gives."""
    model = nn.ParameterList([nn.Parameter(torch.zeros(()))])
    trainer = Trainer(patience, Bar())
    epochs, script = [], iter(losses)

    def steps(epoch):
        epochs.append(epoch)
        yield model[0] * 0.5
        yield model[0] * 0.5

    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    trainer.run(model, optimizer, n_epochs, steps, lambda: {"loss": next(script)})
    return -model[0].item(), epochs, trainer


@pytest.mark.parametrize(
    ("losses", "best"),
    [
        ([9, 5, 3, 4, 6], 2),
        ([9, 5, 3, 2, 1], 4),
        ([9, 10, 12, 11, 10], 0),  # the state before training is a candidate too
        ([9, 5, 7, 4, 6], 3),
        ([9, 5, 5, 5, 5], 1),  # the first of equals
    ],
)
def test_training_ends_with_the_best_state(losses, best):
    state, epochs, trainer = run_scripted(losses, patience=9, n_epochs=4)
    assert state == best
    assert epochs == [0, 1, 2, 3]
    assert [figures["loss"] for figures in trainer.history] == losses[1:]
    assert trainer.bar.n == 4


@pytest.mark.parametrize(
    ("losses", "patience", "n_run"),
    [
        ([9, 10, 10, 0], 2, 2),
        ([9, 5, 6, 4, 6, 6, 6, 0], 3, 6),
        ([9, 5, 6, 0], 1, 2),
        ([9, 8, 7, 6, 5, 4, 3, 2, 1], 1, 8),
        ([9, 8, 7.999, 7.998, 7.997, 0], 3, 4),  # lower, but by next to nothing
        ([9, 8, 7.995, 7.99, 8, 8, 8, 0], 3, 6),  # where it adds up
        ([-9, -9.001, -9.002, -9.1, -9.1, -9.1, -9.2], 2, 2),
    ],
)
def test_training_stops_when_patience_is_spent(losses, patience, n_run):
    state, epochs, trainer = run_scripted(losses, patience, n_epochs=8)
    assert epochs == list(range(n_run))
    assert len(trainer.history) == n_run
    assert state == np.argmin(losses[: n_run + 1])
    assert trainer.bar.n == 8  # epochs that are not run are done with, too


def test_the_device_is_there_or_named():
    assert pick_device("cpu") == CPU
    assert pick_device("auto").type in {"cpu", "cuda"}
    for device in ("abacus", "", "cuda:99"):
        with pytest.raises(ValueError, match=rf"device='{device}'.*'auto' and 'cpu'"):
            pick_device(device)


# ---------------------------------------------------------------------------------------------
# The head


def nothing():
    """What a metric that reads weights alone is given and does not look at."""
    return torch.zeros(0, 8), None


def head_of(average, n_classes=3, seed=0):
    head = PooledHead(8, n_classes, average)
    assert (head.linear.weight == 0).all()
    assert (head.linear.bias == 0).all()
    with torch.no_grad():
        head.linear.weight.copy_(torch.randn(n_classes, 8, generator=seeded(seed)))
        head.linear.bias.copy_(torch.randn(n_classes, generator=seeded(seed + 1)))
    return head


@pytest.mark.parametrize("average", [True, False])
def test_the_head_classifies_pooled_vectors(average):
    documents, head = random_documents(), head_of(average)
    rng = np.random.default_rng(0)
    kept = rng.random(40) < 0.6
    kept[np.flatnonzero(documents.weights[7].toarray().ravel())] = False  # document 7 keeps none
    vectors = (rng.normal(size=(40, 8)) * kept[:, None]).astype(np.float32)
    chosen = np.array([3, 7, 4, 0, 20])
    batch = documents.batch(chosen, CPU)
    scores = head(
        torch.as_tensor(vectors)[batch.rows], torch.as_tensor(kept).float()[batch.rows], batch
    )
    weights = documents.weights[chosen].toarray()
    pooled = weights @ vectors
    if average:
        total = (abs(weights) * kept).sum(1, keepdims=True)
        pooled = np.divide(pooled, total, out=np.zeros_like(pooled), where=total > 0)
    linear = head.linear
    expected = pooled @ linear.weight.detach().numpy().T + linear.bias.detach().numpy()
    np.testing.assert_allclose(scores.detach().numpy(), expected, atol=1e-4)
    for empty in (1, 2):  # no word kept, no word at all
        torch.testing.assert_close(scores[empty], linear.bias)


def test_the_metric_weighs_what_tells_classes_apart():
    head = head_of(True)
    metric = head.metric(*nothing())
    values = np.linalg.eigvalsh(metric.numpy())
    assert values[-1] == pytest.approx(1, abs=1e-5)
    assert values[0] > -1e-6
    assert (values > 1e-4).sum() == 2  # classes less one
    with torch.no_grad():
        head.linear.weight += 5 * torch.randn(8, generator=seeded(7))
    torch.testing.assert_close(head.metric(*nothing()), metric, atol=1e-4, rtol=0)
    with torch.no_grad():
        head.linear.weight *= 3
    torch.testing.assert_close(head.metric(*nothing()), metric, atol=1e-4, rtol=0)


def test_the_metric_of_two_classes_is_their_difference():
    head = head_of(True, n_classes=2)
    weight = head.linear.weight.detach()
    axis = functional.normalize(weight[0] - weight[1], dim=0)
    torch.testing.assert_close(head.metric(*nothing()), torch.outer(axis, axis), atol=1e-5, rtol=0)


def test_a_head_that_tells_nothing_apart_has_no_metric():
    assert (PooledHead(8, 3, True).metric(*nothing()) == 0).all()


def test_distillation_measures_the_distance_from_the_teacher():
    scores, teacher = (torch.randn(20, 3, generator=seeded(i)) for i in (0, 1))
    distillation = Classes().distillation
    assert distillation(teacher, teacher).item() == pytest.approx(0, abs=1e-6)
    assert distillation(teacher + 4, teacher).item() == pytest.approx(0, abs=1e-5)
    p, q = (functional.softmax(s / 2, 1) for s in (teacher, scores))
    expected = 4 * (p * (p.log() - q.log())).sum(1).mean()
    torch.testing.assert_close(distillation(scores, teacher), expected)
    assert expected > 0.05


def test_loss_and_score():
    scores, labels = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 1.0]]), torch.tensor([0, 1, 1])
    assert Classes().score(scores, labels) == pytest.approx(2 / 3)
    loss = np.log1p(np.exp([-2.0, -1.0, 2.0])).mean()
    assert Classes().loss(scores, labels).item() == pytest.approx(loss)


def convolution_of(n_dims=8, n_classes=3, **parameters):
    torch.manual_seed(0)
    return ConvolutionalHead(n_dims, n_classes, n_filters=6, **parameters).eval()


def ordered(documents, n_words=40):
    """Documents with an entry a word, in order."""
    ends = np.cumsum([0, *map(len, documents)])
    ids = np.array([i for document in documents for i in document])
    ones = np.ones(len(ids), np.float32)
    entries = sparse.csr_matrix((ones, ids, ends), (len(ends) - 1, n_words))
    return Documents(entries, np.zeros(len(documents), np.int64))


def read(head, vectors, documents):
    batch = ordered(documents).batch(np.arange(len(documents)), CPU)
    with torch.no_grad():
        return head(vectors[batch.rows], torch.ones(len(batch.rows)), batch)


def test_the_convolution_reads_each_document_in_its_order():
    head, vectors = convolution_of(), torch.randn(40, 8, generator=seeded())
    documents = [[3, 3, 7, 1, 9, 3], [9, 1], [5], [1, 9, 7, 3, 3, 3], [9, 1, 9, 9, 20, 21, 22]]
    scores = read(head, vectors, documents)
    for document, score in zip(documents, scores, strict=True):
        # (1, n_dims, n_places), from a window without a word to that of the last word alone
        words = functional.pad(vectors[document].T[None], (5, 4))
        answers = [functional.relu(f(words)).amax(2) for f in head.filters]
        torch.testing.assert_close(score, head.linear(torch.cat(answers, 1))[0])
    assert not torch.allclose(scores[0], scores[3])  # the same words in another order


def test_the_convolution_reads_an_empty_document_and_the_start_of_a_long_one():
    head, vectors = convolution_of(max_words=5), torch.randn(40, 8, generator=seeded())
    scores = read(head, vectors, [[], [1, 2, 3, 4, 5, 6, 7], [1, 2, 3, 4, 5]])
    assert torch.isfinite(scores).all()
    torch.testing.assert_close(scores[1], scores[2])


@hypothesis_settings(max_examples=20)
@given(st.lists(st.lists(st.integers(0, 39), max_size=9), min_size=1, max_size=6))
def test_the_convolution_reads_each_document_as_if_it_were_alone(documents):
    head, vectors = convolution_of(), torch.randn(40, 8, generator=seeded())
    alone = torch.cat([read(head, vectors, [document]) for document in documents])
    torch.testing.assert_close(read(head, vectors, documents), alone)


def test_a_head_reads_an_image_as_it_read_the_vectors():
    basis = torch.randn(8, 8, generator=seeded())
    image = basis @ basis.T + torch.eye(8)
    vectors, documents = torch.randn(40, 8, generator=seeded(1)), [[3, 7, 1], [9, 3, 3, 2]]
    for head in (convolution_of(), head_of(True)):
        again = read(head.reading(image), vectors @ image, documents)
        torch.testing.assert_close(again, read(head, vectors, documents), atol=1e-3, rtol=1e-3)


def test_the_convolution_weighs_the_directions_that_its_filters_read():
    head = convolution_of()
    with torch.no_grad():
        for filters in head.filters:
            filters.weight[:, 3:] = 0  # dimensions that no filter reads
    vectors, documents = torch.randn(40, 8, generator=seeded()), ordered([[3, 7, 1], [9, 3, 2]])
    metric = head.metric(vectors, documents)
    assert np.linalg.eigvalsh(metric.numpy())[-1] == pytest.approx(1, abs=1e-5)
    assert (metric[3:] == 0).all()
    assert metric[:3, :3].diagonal().min() > 0


# ---------------------------------------------------------------------------------------------
# Teacher and space


def split_of(n_train, rng):
    """Vectors, and documents whose label is the sign of their mean vector's first number."""
    vectors = rng.normal(size=(60, 8)).astype(np.float32)
    weights = np.zeros((n_train + 60, 60), np.float32)
    for row in weights:
        row[rng.choice(60, 5, replace=False)] = 0.2
    labels = ((weights @ vectors)[:, 0] > 0).astype(np.int64)
    parts = [
        Documents(sparse.csr_matrix(weights[part]), labels[part])
        for part in (slice(0, n_train), slice(n_train, None))
    ]
    return torch.as_tensor(vectors), Split(*parts)


def test_fine_tuning_lowers_the_held_out_loss():
    rng = np.random.default_rng(0)
    vectors, split = split_of(180, rng)
    trainer = Trainer(10, tqdm(total=10, disable=True))
    teacher = Teacher(vectors, PooledHead(8, 2, True))
    fine_tune(teacher, split, trainer, n_epochs=10, draws=Draws(rng, torch.Generator()), device=CPU)
    figures = evaluate(teacher, split.held_out, CPU)
    assert figures["loss"] < 0.9 * np.log(2)  # that of a head of zeros
    assert figures["task_score"] > 0.8
    assert figures["loss"] == pytest.approx(min(f["loss"] for f in trainer.history))
    moved = np.abs((teacher.vectors.detach() - vectors).numpy())
    assert moved.max() > 0.01
    expected = teacher.strength * (moved**2).sum()
    assert teacher.pull().item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("n_train", "ordered", "n_tried"), [(199, False, 3), (200, False, 1), (199, True, 1)]
)
def test_held_out_documents_choose_the_pull(n_train, ordered, n_tried, monkeypatch):
    monkeypatch.setattr("skadacomp._learning.teacher._MANY", 200)
    monkeypatch.setattr(PooledHead, "ordered", ordered)
    vectors, split = split_of(n_train, np.random.default_rng(0))

    def tuned(*pulls):
        monkeypatch.setattr("skadacomp._learning.teacher._PULLS", pulls)
        trainer = Trainer(3, tqdm(total=3, disable=True))
        teacher = Teacher(vectors, PooledHead(8, 2, True))
        draws = Draws(np.random.default_rng(1), torch.Generator())
        fine_tune(teacher, split, trainer, n_epochs=3, draws=draws, device=CPU)
        return teacher, len(trainer.history), draws.random.random()

    pulls = (100.0, 0.01, 10_000.0)
    alone = [tuned(pull)[0] for pull in pulls]
    losses = [evaluate(teacher, split.held_out, CPU)["loss"] for teacher in alone]
    assert np.argmin(losses) == 1
    chosen = 1 if n_tried == 3 else 0
    teacher, n_epochs, drawn = tuned(*pulls)
    assert n_epochs == 3 * n_tried
    assert teacher.strength == pulls[chosen]
    # Nothing tells that others were tried, not even what is drawn next.
    torch.testing.assert_close(teacher.state_dict(), alone[chosen].state_dict(), rtol=0, atol=0)
    assert drawn == tuned(pulls[chosen])[2]


@hypothesis_settings(deadline=None)
@given(
    replaced=st.sets(st.integers(0, 29)),
    rows=st.sets(st.integers(0, 29)),
    ends=st.tuples(st.integers(0, 30), st.integers(0, 30)).map(sorted),
)
def test_an_overlay_reads_like_the_replaced_table(replaced, rows, ends):
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(30, 4)).astype(np.float32)
    before = vectors.copy()
    replaced = np.array(sorted(replaced), dtype=np.int64)
    values = rng.normal(size=(len(replaced), 4)).astype(np.float32)
    expected = vectors.copy()
    expected[replaced] = values
    overlay = Overlay(vectors, replaced, values)
    assert (len(overlay), overlay.shape) == (30, (30, 4))
    for index in (slice(*ends), np.array(sorted(rows), dtype=np.int64)):
        block = overlay[index]
        assert block.dtype == np.float32
        np.testing.assert_array_equal(block, expected[index])
        block[...] = 7  # a copy
    np.testing.assert_array_equal(vectors, before)


def test_noise_is_what_is_asked_for():
    torch.manual_seed(0)
    words = 3000
    documents = Documents(sparse.eye_array(words, dtype=np.float32).tocsr(), np.zeros(words, int))
    teacher = Teacher(torch.zeros(words, 4), PooledHead(4, 4, True))
    with torch.no_grad():
        teacher.head.linear.weight.copy_(torch.eye(4))
        batch = documents.batch(np.arange(words), CPU)
        assert teacher(batch, 0.3).std().item() == pytest.approx(0.3, rel=0.05)
        assert (teacher(batch) == 0).all()


def test_scores_of_pairs_are_fine_tuned_with_noise_and_classes_are_not():
    made = {kind: pair_head(kind) for kind in ("pair", "pair-regression")}
    assert made["pair-regression"].noise > 0
    assert made["pair"].noise == 0


def test_pairs_are_compared_along_all_directions():
    vectors = torch.randn(40, 8, generator=seeded())
    metric = pair_head().metric(vectors, ordered([[3, 7, 1], [9, 3, 2]]))
    torch.testing.assert_close(metric, torch.eye(8))


def pair_head(kind="pair"):
    return make_head(8, kind=kind, name="pooled", own=None, n_outputs=2, average=True)


def overlay_of(vectors):
    return Overlay(vectors, np.arange(0), vectors[:0])


@pytest.mark.parametrize("gram", [None, "low rank", "zero"])
def test_a_space_is_centred_and_of_unit_size(gram):
    rng = np.random.default_rng(0)
    vectors = (3 + rng.normal(size=(300, 8)) * np.arange(1, 9)).astype(np.float32)
    weights = rng.dirichlet(np.ones(300))
    if gram is not None:
        axes = rng.normal(size=(8, 2)) * (gram == "low rank")
        gram = axes @ axes.T
    space = find_space(overlay_of(vectors), weights, gram)
    np.testing.assert_allclose(space.centre, weights @ vectors, rtol=1e-6)
    image = space.image(vectors)
    assert image.dtype == np.float32
    assert weights @ (image.astype(float) ** 2).sum(1) == pytest.approx(1, rel=1e-5)
    np.testing.assert_allclose(weights @ image, 0, atol=1e-6)


def test_a_space_weighs_directions_as_the_head_reads_them():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(300, 3)).astype(np.float32)
    axes = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    gram = axes @ np.diag([1.0, 0.25, 0.0]) @ axes.T
    space = find_space(overlay_of(vectors), np.full(300, 1 / 300), gram, floor=0.05)
    stretch = np.linalg.norm(axes.T @ space.metric, axis=1)
    np.testing.assert_allclose((stretch / stretch[0]) ** 2, [1, 0.3 / 1.05, 0.05 / 1.05])


def test_a_table_of_equal_rows_has_a_space():
    space = find_space(overlay_of(np.ones((20, 3), np.float32)), np.full(20, 0.05), None)
    assert np.isfinite(space.metric).all()
    np.testing.assert_allclose(space.image(np.ones((20, 3))), 0, atol=1e-7)


# ---------------------------------------------------------------------------------------------
# Codebooks of low rank


def low_rank_case(seed=0):
    """Give codes of 300 words with random weights, codebooks and a metric."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 4, (300, 4)).astype(np.int32)
    codes[np.arange(4) >= rng.integers(0, 5, (300, 1))] = -1
    weights = rng.dirichlet(np.ones(300))
    metric = np.linalg.qr(rng.normal(size=(12, 12)))[0] @ np.diag(np.logspace(0, -2, 12))
    return codes, weights, rng.normal(size=(4, 4, 12)).astype(np.float32), metric


def image_error(codes, weights, one, other, metric):
    picks = code_matrix(codes, 4)[:, :-1]
    left = picks @ (one - other).reshape(16, 12) @ metric
    return float(weights @ (left**2).sum(1))


def test_usage_weighs_words_that_share_codewords():
    codes, weights, _, _ = low_rank_case()
    usage = code_usage(codes, weights, 4)
    assert usage[2, 2] == pytest.approx(weights[codes[:, 0] == 2].sum())
    assert usage[2, 5] == pytest.approx(weights[(codes[:, 0] == 2) & (codes[:, 1] == 1)].sum())
    np.testing.assert_allclose(usage, usage.T)


def test_what_a_rank_leaves_out_is_what_codebooks_of_that_rank_add():
    codes, weights, books, metric = low_rank_case()
    usage, images = code_usage(codes, weights, 4), books.astype(np.float64) @ metric
    left_out = left_out_by_rank(images, usage)
    added = [
        image_error(codes, weights, books, reduce_rank(books, usage, metric, r), metric)
        for r in range(1, 13)
    ]
    assert (np.diff(added) <= 1e-9).all()
    assert (np.diff(left_out) <= 0).all()
    assert left_out[0] == pytest.approx(
        image_error(codes, weights, books, np.zeros_like(books), metric), rel=1e-3
    )
    np.testing.assert_allclose(left_out[1:], added, rtol=1e-3, atol=1e-3 * left_out[0])
    assert np.linalg.matrix_rank(reduce_rank(books, usage, metric, 3).reshape(16, 12), 1e-4) == 3


@pytest.mark.parametrize("share", [0.0, 0.01, 0.1, 0.5, 1.1])
def test_the_rank_is_the_least_that_keeps_within_the_error(share):
    codes, weights, books, metric = low_rank_case()
    usage, images = code_usage(codes, weights, 4), books.astype(np.float64) @ metric
    allowed = share * image_error(codes, weights, books, np.zeros_like(books), metric)
    rank = enough_rank(left_out_by_rank(images, usage), allowed)
    added = [
        image_error(codes, weights, books, reduce_rank(books, usage, metric, r), metric)
        for r in range(1, 13)
    ]
    assert added[rank - 1] <= allowed * 1.001 + 1e-9
    assert rank == 1 or added[rank - 2] > allowed * 0.999


@pytest.mark.parametrize("n_dims", [12, 48])  # of what ships; codewords were learned along 12 axes
@pytest.mark.parametrize("price", [0.0, 1e-6, 1e-4, 1e-3, 1.0])
def test_the_rank_that_pays_costs_least_in_error_and_bits(price, n_dims):
    codes, weights, books, metric = low_rank_case()
    usage, images = code_usage(codes, weights, 4), books.astype(np.float64) @ metric
    left_out = left_out_by_rank(images, usage)
    # An axis: a byte for each of 16 codewords and of the dimensions, and 4 for its scale.
    costs = [left_out[rank] + price * rank * 8 * (16 + n_dims + 4) for rank in range(1, 13)]
    whole = price * 8 * 16 * n_dims
    priced = partial(paying_rank, images, usage, n_dims=n_dims, n_bits=8, price=price)
    rank = priced(negligible=0)
    assert rank == (12 if whole <= min(costs) else 1 + np.argmin(costs))
    enough = priced(negligible=left_out[2])
    assert enough == min(rank, 2)


def test_the_dearer_the_bits_the_fewer_axes_do_codebooks_keep():
    rng = np.random.default_rng(0)
    table = (rng.normal(size=(N_WORDS, 64)) * 0.9 ** np.arange(64)).astype(np.float32)
    task = decisive_task()[0]
    ranks = [
        learn(table, task, settings_of(size_penalty=penalty)).rank
        for penalty in (0.0002, 0.02, 0.2)
    ]
    assert ranks == sorted(ranks, reverse=True)
    assert ranks[0] > ranks[-1] >= 1
    # Bits that cost nothing do not keep axes that leave out next to nothing.
    assert ranks[0] <= learn(table, task, settings_of(size_penalty=1e-9)).rank < 64
    random = settings_of(size_penalty=0.2, init="random")
    assert learn(table, task, random).rank == 64


def test_no_low_rank_codebooks_rebuild_better():
    codes, weights, books, metric = low_rank_case()
    usage = code_usage(codes, weights, 4)
    best = reduce_rank(books, usage, metric, 3)
    least = image_error(codes, weights, books, best, metric)
    rng = np.random.default_rng(1)
    left, sizes, right = np.linalg.svd(best.reshape(16, 12), full_matrices=False)
    for _ in range(50):
        moved = (left[:, :3] + 0.01 * rng.normal(size=(16, 3))) * sizes[:3]
        moved = (moved @ (right[:3] + 0.01 * rng.normal(size=(3, 12)))).reshape(books.shape)
        assert image_error(codes, weights, books, moved, metric) > least


def test_a_budget_halves_the_rank_until_the_shortest_lengths_fit():
    def size(choices, rank):
        return len(choices) + 10 * rank

    assert Budget(200, size).fitting_rank(7, 100) == 7
    assert Budget(150, size).fitting_rank(7, 100) == 3
    assert Budget(100, size).fitting_rank(7, 100) == 1
    assert replace(Budget(150, size), rank=3).size_of(np.zeros(100, np.uint8)) == 130


# ---------------------------------------------------------------------------------------------
# The whole of it

N_WORDS, N_DECISIVE = 200, 20


def settings_of(candidates=(0, 2, 4, 8), n_codewords=4, bits_per_word=None, **changes):
    rate = Rate(candidates, int(np.log2(n_codewords)), np.zeros(N_WORDS))
    budget = bits_per_word and Budget(
        bits_per_word, lambda choices, rank: rate.code_bits(choices) / len(choices)
    )
    settings = Settings(
        rate=rate,
        n_codewords=n_codewords,
        codebook_bits=8,
        init="residual-kmeans",
        length_method="gumbel-softmax",
        size_penalty=0.02,
        budget=budget,
        reconstruction_weight=0.1,
        learning_rate=3e-3,
        max_iter=3,
        patience=10,
        seed=0,
        device="cpu",
        verbose=False,
    )
    return replace(settings, **changes)


def random_table(seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(scale=0.4, size=(N_WORDS, 8)).astype(np.float32)


def task_of(counts, labels, train, held_out, *, average=True, head="linear"):
    kinds = {"kind": "classification", "name": head, "own": None, "average": average}
    make = partial(make_head, n_outputs=int(labels.max()) + 1, **kinds)
    return Task(Documents(counts, labels), train, held_out, average, make)


def with_documents(task, counts=None, labels=None):
    """Give a task other documents, or the same ones other labels."""
    weights = task.documents.weights if counts is None else sparse.csr_matrix(counts)
    labels = task.documents.targets if labels is None else labels
    return replace(task, documents=Documents(weights, labels))


def decisive_task(seed=0, n_documents=500, average=True):
    """One decisive word says each document's class; all words are equally frequent."""
    rng = np.random.default_rng(seed)
    decisive = np.sort(rng.choice(N_WORDS, N_DECISIVE, replace=False))
    rest = np.setdiff1d(np.arange(N_WORDS), decisive)
    counts = np.zeros((n_documents, N_WORDS), np.float32)
    chosen = rng.integers(N_DECISIVE, size=n_documents)
    for row, word in zip(counts, decisive[chosen], strict=True):
        row[word] = 1
        row[rng.choice(rest, 9, replace=False)] = 1
    order = np.arange(n_documents)
    n_train = int(0.8 * n_documents)
    task = task_of(
        sparse.csr_matrix(counts), chosen % 2, order[:n_train], order[n_train:], average=average
    )
    return task, decisive, rest


@pytest.fixture(scope="module")
def learned_on_task():
    return learn(random_table(), decisive_task()[0], settings_of())


def rebuilt(learned):
    vectors = np.tile(learned.mean, (len(learned.codes), 1))
    for m, codewords in enumerate(learned.codebooks):
        codes = learned.codes[:, m]
        vectors += np.where(codes[:, None] >= 0, codewords[codes], 0)
    return vectors


def relative_error(learned, vectors):
    centred = vectors - vectors.mean(0)
    return ((rebuilt(learned) - vectors) ** 2).sum() / (centred**2).sum()


@pytest.mark.parametrize("with_task", [False, True])
@pytest.mark.parametrize("n_codewords", [2, 16])
def test_what_is_learned_has_the_shape_it_says(with_task, n_codewords):
    table = random_table()
    before = table.copy()
    task = decisive_task()[0] if with_task else None
    learned = learn(table, task, settings_of(n_codewords=n_codewords, max_iter=2))
    np.testing.assert_array_equal(table, before)
    assert (learned.choices.shape, learned.choices.dtype) == ((N_WORDS,), np.uint8)
    assert (learned.codes.shape, learned.codes.dtype) == ((N_WORDS, 8), np.int16)
    assert learned.codebooks.shape == (8, n_codewords, 8)
    assert learned.codebooks.dtype == np.float32
    assert np.isfinite(learned.codebooks).all()
    np.testing.assert_allclose(learned.mean, table.mean(0), atol=1e-6)
    lengths = np.array([0, 2, 4, 8])[learned.choices]
    used = np.arange(8) < lengths[:, None]
    assert (learned.codes[~used] == -1).all()
    assert (learned.codes[used] >= 0).all()
    assert learned.codes.max() < n_codewords
    # Stages of max_iter epochs: lengths and codes, and with a task codebooks.
    assert len(learned.history) == (6 if with_task else 4)
    names = {"loss", "bits_per_word"} | ({"task_score"} if with_task else set())
    for figures in learned.history:
        assert set(figures) == names
        assert np.isfinite(list(figures.values())).all()
    # In the second stage lengths are fixed, and these are they.
    bits = settings_of(n_codewords=n_codewords).rate.code_bits(learned.choices) / N_WORDS
    assert learned.history[-1]["bits_per_word"] == pytest.approx(bits)
    assert learned.history[-2]["bits_per_word"] == pytest.approx(bits)


def assert_same(one, other):
    for name in ("choices", "codes", "codebooks"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert one.history == other.history


def test_the_same_seed_learns_the_same(learned_on_task):
    assert_same(learn(random_table(), decisive_task()[0], settings_of()), learned_on_task)
    alone = settings_of(bits_per_word=4.0, max_iter=2)
    one, other = (learn(random_table(), None, alone) for _ in range(2))
    assert_same(one, other)
    different = learn(random_table(), None, replace(alone, seed=1))
    assert (different.codes != one.codes).any()


@pytest.mark.parametrize("with_task", [False, True])
@pytest.mark.parametrize("bits_per_word", [0.5, 1.5, 4.0, 9.0])
def test_a_budget_is_met_by_training(with_task, bits_per_word):
    task = decisive_task()[0] if with_task else None
    settings = settings_of(bits_per_word=bits_per_word, max_iter=2)
    learned = learn(random_table(), task, settings)
    size = settings.rate.code_bits(learned.choices) / N_WORDS
    assert 0.95 * bits_per_word <= size <= bits_per_word


@pytest.mark.parametrize("with_task", [False, True])
def test_a_higher_penalty_gives_fewer_bits(with_task):
    task = decisive_task()[0] if with_task else None
    sizes = []
    for penalty in (0.001, 0.02, 0.4):
        settings = settings_of(size_penalty=penalty, max_iter=2)
        learned = learn(random_table(), task, settings)
        sizes.append(settings.rate.code_bits(learned.choices))
    assert sizes[0] > sizes[1] > sizes[2]


def test_more_bits_rebuild_the_table_better():
    table = random_table()
    errors = [
        relative_error(learn(table, None, settings_of(bits_per_word=bits)), table)
        for bits in (1.0, 4.0, 10.0)
    ]
    assert 1 > errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.25


def test_codes_without_a_task_are_the_encoders():
    table = random_table()
    learned = learn(table, None, settings_of(bits_per_word=6.0))
    lengths = (learned.codes >= 0).sum(1)
    np.testing.assert_array_equal(learned.codes, learned.encoder.search(table, lengths))


def test_codes_without_a_task_are_better_together_than_greedy_ones():
    table = random_table()
    learned = learn(table, None, settings_of(bits_per_word=10.0))
    codes, _ = learned.encoder.encode(table)
    codes = np.where(learned.codes >= 0, codes, -1)
    codebooks = refit_codebooks(codes, table, learned.mean, learned.codebooks)
    greedy = replace(learned, codes=codes, codebooks=codebooks)
    assert relative_error(learned, table) < 0.97 * relative_error(greedy, table)


def test_training_lowers_the_loss():
    # Far from the task's own start, so that there is something to learn.
    settings = settings_of(init="random", max_iter=10)
    losses = [f["loss"] for f in learn(random_table(), decisive_task()[0], settings).history]
    assert losses[9] < losses[0] - 0.01
    table = random_table()
    alone = [f["loss"] for f in learn(table, None, settings_of(bits_per_word=6.0)).history]
    assert alone[2] < alone[0]
    assert alone[-1] < alone[3]


def test_distances_count_as_the_head_reads_them(learned_on_task):
    alone = learn(random_table(), None, settings_of())
    shares = []
    for learned in (learned_on_task, alone):
        values = np.linalg.svd(learned.encoder.projection, compute_uv=False) ** 2
        shares.append(values[0] / values.sum())
    # Two classes: one direction tells them apart, and codes go mostly to it.
    assert shares[0] > 0.6
    assert shares[1] < 0.4


def test_patience_ends_each_stage():
    # So small a step that it changes no float32: no epoch is better than the start.
    settings = settings_of(max_iter=9, patience=2, learning_rate=1e-30, bits_per_word=4.0)
    assert len(learn(random_table(), None, settings).history) == 4


@pytest.mark.parametrize("seed", range(3))
def test_words_that_decide_the_label_get_longer_codes(seed):
    task, decisive, rest = decisive_task(seed)
    frequency = np.asarray(task.documents.weights.sum(0)).ravel()
    assert frequency[decisive].mean() == frequency[rest].mean()  # which tells nothing
    settings = settings_of((0, 1, 2, 4, 8), 2, bits_per_word=3.0, max_iter=8)
    table = random_table(seed)
    learned = learn(table, task, settings)
    lengths = np.array([0, 1, 2, 4, 8])[learned.choices]
    assert lengths[decisive].mean() > 3 * lengths[rest].mean()
    assert (lengths[decisive] > 0).mean() >= 0.9
    assert learned.history[-1]["task_score"] > 0.7
    # Nor do the vectors tell: without the task, or with labels at random, they are like the rest.
    random = np.random.default_rng(seed)
    for other in (None, with_documents(task, labels=random.permutation(task.documents.targets))):
        blind = np.array([0, 1, 2, 4, 8])[learn(table, other, settings).choices]
        assert blind[decisive].mean() < 1.6 * blind[rest].mean()


def test_frequent_words_get_longer_codes():
    """Every word decides alike; rows lie in random order, so only the documents tell frequency."""
    rng = np.random.default_rng(0)
    frequent = rng.choice(N_WORDS, 40, replace=False)
    odds = np.ones(N_WORDS)
    odds[frequent] = 20
    drawn = [rng.choice(N_WORDS, 10, p=odds / odds.sum()) for _ in range(300)]
    task = decisive_task(n_documents=300)[0]
    labels = np.array([(random_table()[words, 0].sum() > 0) for words in drawn]).astype(np.int64)
    task = with_documents(task, counts_of(drawn, N_WORDS), labels)
    learned = learn(random_table(), task, settings_of(bits_per_word=3.0))
    lengths = np.array([0, 2, 4, 8])[learned.choices]
    rare = np.setdiff1d(np.arange(N_WORDS), frequent)
    assert lengths[frequent].mean() > 2 * lengths[rare].mean()


def test_summed_documents_are_learned_too():
    task, decisive, rest = decisive_task(average=False)
    settings = settings_of((0, 1, 2, 4, 8), 2, bits_per_word=3.0, max_iter=8)
    learned = learn(random_table(), task, settings)
    lengths = np.array([0, 1, 2, 4, 8])[learned.choices]
    assert lengths[decisive].mean() > 2 * lengths[rest].mean()
    assert learned.history[-1]["task_score"] > 0.7


def test_held_out_labels_say_when_to_stop_and_train_nothing():
    task, _, _ = decisive_task()
    labels = task.documents.targets.copy()
    labels[task.held_out] = 1 - labels[task.held_out]
    settings, table = settings_of(max_iter=4), random_table()
    tuned = fine_tune_table(table, task, settings)
    assert (tuned != table).any()
    # Labels turned round are told worse than before training, so the untrained table comes back.
    turned = fine_tune_table(table, with_documents(task, labels=labels), settings)
    np.testing.assert_array_equal(turned, table)


def test_fine_tuning_replaces_the_words_of_the_task_alone():
    task, _, _ = decisive_task()
    counts = task.documents.weights.tolil()
    counts[:, 50:80] = 0
    task = with_documents(task, counts)
    table = random_table()
    tuned = fine_tune_table(table, task, settings_of(max_iter=4))
    moved = (tuned != table).any(1)
    assert not moved[50:80].any()
    assert moved[:50].all()
    assert moved[80:].all()


def test_fine_tuning_along_principal_components_stays_along_them():
    table, settings = random_table(), replace(settings_of(max_iter=4), n_components=3)
    tuned = fine_tune_table(table, decisive_task()[0], settings)
    mean = table.mean(0, dtype=np.float64)
    axes = np.linalg.eigh((table - mean).T @ (table - mean))[1][:, -3:]  # (n_dims, 3)
    before, after = ((rows - mean) @ axes @ axes.T for rows in (table, tuned))
    np.testing.assert_allclose(tuned - mean, after, atol=1e-5)
    assert np.abs(after - before).max() > 0.01


@given(st.integers(-100, 100), st.floats(0.36, 0.7))
def test_small_numbers_are_scaled_by_a_power_of_two(exponent, number):
    table = np.array([[1.0, -1.0], [-1.0, 1.0]]) * number * 2.0**exponent
    assert usual_scale(table + table.max(), np.array([2.0, 2.0])) == max(1, 2.0**-exponent)


def test_the_usual_scale_is_that_of_the_words_that_count():
    table = np.array([[0.5], [-0.5], [1e6]])
    assert usual_scale(table, np.array([1.0, 1.0, 0.0])) == 1
    assert usual_scale(np.ones((3, 2)), np.ones(3)) == 1


@pytest.mark.parametrize(("n_dims", "times"), [(8, 1), (50, 1), (400, 8)])
def test_vectors_of_many_dimensions_move_faster_than_filters(n_dims, times):
    head = ConvolutionalHead(n_dims, 2)
    assert head.vectors_rate(n_dims) == pytest.approx(times * head.learning_rate)
    linear = PooledHead(n_dims, 2, True)
    assert linear.vectors_rate(n_dims) == linear.learning_rate
    both = JointHead([head, linear], [0.5, 0.5])
    assert both.vectors_rate(n_dims) == min(h.vectors_rate(n_dims) for h in (head, linear))


def test_fine_tuning_moves_vectors_at_their_rate(monkeypatch):
    monkeypatch.setattr(PooledHead, "vectors_rate", lambda head, n_dims: 0.0)
    table = random_table()
    tuned = fine_tune_table(table, decisive_task()[0], settings_of(max_iter=4))
    np.testing.assert_array_equal(tuned, table)


@pytest.mark.parametrize("scale", [2.0**-20, 0.125])
@pytest.mark.parametrize("head", ["linear", "convolutional"])
def test_a_table_of_small_numbers_is_learned_alike(head, scale):
    task, table = decisive_task()[0], random_table()
    if head == "convolutional":
        task = replace(task, make_head=partial(ConvolutionalHead, n_outputs=2, n_filters=6))
    settings = settings_of(max_iter=4)
    one, other = (learn(table * np.float32(c), task, settings) for c in (1, scale))
    np.testing.assert_array_equal(one.codes, other.codes)
    np.testing.assert_allclose(other.codebooks / scale, one.codebooks, rtol=1e-3, atol=1e-5)


def test_a_head_of_ones_own_sees_the_table_as_it_is():
    task, table = decisive_task()[0], random_table() / 8
    seen = []

    class Watching(PooledHead):
        def forward(self, vectors, kept, batch):
            seen.append(vectors.detach().std().item())
            return super().forward(vectors, kept, batch)

    make = partial(Watching, n_outputs=2, average=True)
    for own in (True, False):
        task = replace(task, make_head=make, any_dims=not own)
        seen.clear()
        fine_tune_table(table, task, settings_of(max_iter=1))
        assert seen[0] == pytest.approx(table.std() * (1 if own else 8), rel=0.1)


@pytest.mark.parametrize(
    ("n_dims", "weight", "floor"),
    [(8, 0.4, 0.4), (50, 0.4, 0.4), (100, 0.4, 0.2), (400, 0.4, 20 / N_WORDS), (100, 0.01, 0.01)],
)
def test_directions_that_the_head_does_not_read_share_a_floor(monkeypatch, n_dims, weight, floor):
    floors = []

    def watched(*args, **given):
        floors.append(given["floor"])
        return find_space(*args, **given)

    monkeypatch.setattr(learner, "find_space", watched)
    monkeypatch.setattr(learner, "axes_to_learn_along", lambda *given: None)
    table = np.random.default_rng(0).normal(size=(N_WORDS, n_dims)).astype(np.float32)
    settings = settings_of((0, 1), max_iter=1, reconstruction_weight=weight)
    learn(table, decisive_task(n_documents=40)[0], settings)
    assert floors == [pytest.approx(floor)]


@pytest.mark.parametrize("with_task", [False, True])
def test_words_that_the_task_never_shows_have_codes_too(with_task):
    task, _, _ = decisive_task()
    counts = task.documents.weights.tolil()
    counts[:, 50:80] = 0
    task = with_documents(task, counts) if with_task else None
    learned = learn(random_table(), task, settings_of((2, 4), 4, bits_per_word=6.0))
    assert (learned.codes[:, :2] >= 0).all()
    assert np.isfinite(learned.codebooks).all()


@pytest.mark.parametrize(
    "table",
    [np.ones((N_WORDS, 4), np.float32), random_table()[:, :1].copy()],
    ids=["equal rows", "one dimension"],
)
def test_strange_tables_are_learned(table):
    learned = learn(table, None, settings_of(max_iter=2))
    assert np.isfinite(learned.codebooks).all()
    assert relative_error(learned, table + 1e-3 * random_table()[:, : table.shape[1]]) < 2


def test_documents_without_known_words_are_no_obstacle():
    task, _, _ = decisive_task()
    counts = task.documents.weights.tolil()
    counts[:300] = 0
    counts[450:] = 0
    task = with_documents(task, counts)
    learned = learn(random_table(), task, settings_of(max_iter=2))
    assert all(np.isfinite(figures["loss"]) for figures in learned.history)
    assert np.isfinite(learned.codebooks).all()


def test_a_held_out_part_without_known_words_still_says_when_to_stop():
    task, _, _ = decisive_task()
    counts = task.documents.weights.tolil()
    counts[task.held_out] = 0
    task = with_documents(task, counts)
    learned = learn(random_table(), task, settings_of(max_iter=2))
    assert all(np.isfinite(figures["loss"]) for figures in learned.history)


@pytest.mark.parametrize("with_task", [False, True])
def test_a_budget_that_nothing_exceeds_gives_the_longest_codes(with_task):
    task = decisive_task()[0] if with_task else None
    for bits_per_word in (16.5, 1000.0):  # 16 are the most
        settings = settings_of(bits_per_word=bits_per_word, max_iter=2)
        learned = learn(random_table(), task, settings)
        assert (learned.choices == 3).all()
        assert (learned.codes >= 0).all()


@pytest.mark.parametrize("with_task", [False, True])
def test_a_budget_is_used_up_where_longer_codes_do_not_help(with_task):
    """Few words and many codewords: the first codebooks rebuild each word exactly."""
    task = decisive_task()[0] if with_task else None
    settings = settings_of(n_codewords=64, bits_per_word=40.0, max_iter=1)
    learned = learn(random_table(), task, settings)
    size = settings.rate.code_bits(learned.choices) / N_WORDS
    assert 0.95 * 40 <= size <= 40


def test_the_plain_form_learns_from_the_table_as_it_is(learned_on_task):
    task = decisive_task()[0]
    learned = learn(random_table(), task, settings_of(init="random", max_iter=3))
    assert np.isfinite(learned.codebooks).all()
    assert not np.array_equal(learned.codes, learned_on_task.codes)


def student_of(n_words=12, n_dims=5, seed=0):
    torch.manual_seed(seed)
    targets = Targets(torch.randn(n_words, n_dims), torch.zeros(n_dims), torch.ones(n_words))
    encoder = TiedEncoder(torch.randn(3, 4, n_dims), torch.ones(3))
    lengths = LengthLogits(torch.zeros(n_words, 2), (0, 3), 3)
    lengths.choices = torch.ones(n_words, dtype=torch.long)
    return Student(targets, encoder, lengths, None, 1.0, inputs_move=True)


def test_fixed_codes_stay_while_codebooks_move():
    student, random = student_of(), torch.Generator()
    rows = torch.tensor([7, 0, 3])
    before = student.words(rows, None, random)[0]
    student.fix_codes()
    codes = student.encode(slice(None))
    assert codes.shape == (12, 3)
    torch.testing.assert_close(student.words(rows, None, random)[0], before)
    assert not student.inputs.requires_grad
    with torch.no_grad():
        student.encoder.codebooks *= torch.randn(3, 4, 5)
    torch.testing.assert_close(student.encode(slice(None)), codes)
    books = student.encoder.codebooks
    after = sum(books[m, codes[rows, m]] for m in range(3))
    torch.testing.assert_close(student.words(rows, None, random)[0], after)


def test_lengths_by_frequency_follow_it_alone():
    rng = np.random.default_rng(0)
    odds = 1 / np.arange(1, N_WORDS + 1)
    drawn = [rng.choice(N_WORDS, 10, p=odds / odds.sum()) for _ in range(500)]
    task = with_documents(decisive_task()[0], counts_of(drawn, N_WORDS))
    settings = settings_of(length_method="frequency", size_penalty=0.1)
    learned = learn(random_table(), task, settings)
    share = significance(task.documents.weights[task.train], N_WORDS)
    assert len(np.unique(learned.choices)) > 1
    assert (np.diff(learned.choices[np.argsort(share, kind="stable")].astype(int)) >= 0).all()


def test_rate_distortion_lengths_are_where_learning_starts():
    """They miss the stage that learns lengths, and so its part of the history."""
    task = decisive_task()[0]
    learned = learn(random_table(), task, settings_of(length_method="rate-distortion"))
    assert len(learned.history) == 6  # codes, and codebooks
    assert len({figures["bits_per_word"] for figures in learned.history}) == 1


def task_of_pairs(n_pairs=300):
    """Is a pair's first word the second's neighbour? Words of the first 60 rows alone."""
    rng = np.random.default_rng(0)
    one = rng.integers(0, 60, n_pairs)
    alike = rng.random(n_pairs) < 0.5
    other = np.where(alike, one ^ 1, rng.integers(0, 60, n_pairs))
    words = np.stack([one, other], 1).ravel()
    counts = sparse.csr_matrix(
        (np.ones(2 * n_pairs, np.float32), words, np.arange(2 * n_pairs + 1)),
        (2 * n_pairs, N_WORDS),
    )
    documents, order = Documents(counts, alike.astype(np.int64), n_texts=2), np.arange(n_pairs)
    return Task(documents, order[:250], order[250:], True, lambda n_dims: pair_head())


def test_a_head_says_where_codes_come_from(monkeypatch):
    """What is searched for leaves less error than greedy codes that training leaves alone."""
    table, task = random_table(), task_of_pairs()
    settings = settings_of(
        bits_per_word=10.0, length_method="rate-distortion", learning_rate=1e-9, max_iter=2
    )
    tuned = fine_tune_table(table, task, settings)
    seen = np.unique(task.documents.weights.indices)
    errors, bars = {}, []

    def progress(n_stages, settings):
        bars.append(tqdm(total=n_stages * settings.max_iter, file=StringIO()))
        return bars[-1]

    monkeypatch.setattr(learner, "_progress", progress)
    # Epochs of codes and of their codebooks, and of codebooks for codes that are searched for.
    for source, n_epochs in {"task": 4, "search": 2, "either": 6}.items():
        monkeypatch.setattr(PairHead, "source_of_codes", source)
        learned = learn(table, task, settings)
        assert len(learned.history) == n_epochs
        assert bars[-1].n == bars[-1].total
        errors[source] = ((rebuilt(learned) - tuned)[seen] ** 2).sum()
    assert errors["search"] < 0.95 * errors["task"]
    assert errors["either"] == pytest.approx(errors["search"])  # what held-out pairs prefer here


@pytest.mark.parametrize("kind", ["pair", "pair-regression"])
def test_scores_of_pairs_rebuild_the_fine_tuned_vectors_alone(kind, monkeypatch):
    """A weight of 1 draws the vectors of all else halfway back to the pretrained ones."""
    table, task = random_table(), task_of_pairs()
    documents = task.documents
    if kind == "pair-regression":
        scores = np.stack([documents.targets] * 2, 1).astype(np.float32)  # one an output
        documents = replace(documents, targets=scores)
    task = replace(task, documents=documents, make_head=lambda n_dims: pair_head(kind))
    settings = settings_of(reconstruction_weight=1.0, length_method="rate-distortion")
    tuned = fine_tune_table(table, task, settings)
    kept, start = [], learner._Learner._start
    monkeypatch.setattr(learner._Learner, "_start", lambda self: kept.append(self) or start(self))
    learn(table, task, settings)
    rebuilds = kept[0].table[np.arange(len(table))]
    expected = tuned if kind == "pair-regression" else (tuned + table) / 2
    np.testing.assert_allclose(rebuilds, expected, rtol=1e-5, atol=1e-6)
    assert not np.allclose(tuned, table, atol=1e-3)


@pytest.mark.parametrize("worse", ["codebooks", "searched codebooks"])
def test_held_out_pairs_say_which_codes_are_kept(monkeypatch, worse):
    """Where one of the two trainings spoils its codebooks, the other one's are kept."""
    stage, trained = learner._Learner._stage, {}

    def spoiling(self, student, what):
        stage(self, student, what)
        trained[what] = student.encoder.codebooks
        if what == worse:
            with torch.no_grad():
                student.encoder.codebooks.mul_(100)

    kept = []
    finish = learner._Learner._finish
    monkeypatch.setattr(learner._Learner, "_stage", spoiling)
    monkeypatch.setattr(
        learner._Learner, "_finish", lambda self, s: kept.append(s) or finish(self, s)
    )
    learn(random_table(), task_of_pairs(), settings_of(length_method="rate-distortion"))
    (other,) = {"codebooks", "searched codebooks"} - {worse}
    assert kept[0].encoder.codebooks is trained[other]


def test_several_tasks_agree_on_where_codes_come_from_or_train_them():
    pairs, words = pair_head(), PooledHead(8, 2, True)
    assert JointHead([pairs, pairs], [0.5, 0.5]).source_of_codes == "either"
    assert JointHead([pairs, words], [0.5, 0.5]).source_of_codes == "task"


def test_several_tasks_are_ordered_if_one_is():
    words = PooledHead(8, 2, True)
    assert not JointHead([pair_head(), words], [0.5, 0.5]).ordered
    assert JointHead([words, ConvolutionalHead(8, 2)], [0.5, 0.5]).ordered


def test_a_convolution_learns_what_order_says():
    """The label is which of two words comes first: no pooled head can tell."""
    rng = np.random.default_rng(0)
    documents, labels = [], []
    for _ in range(800):
        first, second = rng.permutation([0, 1])
        documents.append([first, second, rng.integers(10, N_WORDS)])
        labels.append(first)
    ones, ends = np.ones(3 * 800, np.float32), np.arange(0, 3 * 800 + 1, 3)
    counts = sparse.csr_matrix((ones, np.concatenate(documents), ends), (800, N_WORDS))
    order = np.arange(800)
    scores = {}
    for head in ("linear", "convolutional"):
        task = task_of(counts, np.array(labels), order[:700], order[700:], head=head)
        learned = learn(random_table(), task, settings_of(max_iter=5, size_penalty=1e-3))
        scores[head] = learned.history[-1]["task_score"]
    assert scores["convolutional"] > 0.9
    assert scores["linear"] < 0.65


# ---------------------------------------------------------------------------------------------
# What fits share


def test_the_shelf_is_bounded(monkeypatch):
    """Those used last stay."""
    monkeypatch.setattr(shelf, "MOST_BYTES", 1000)
    kept, made = shelf.Shelf(), []

    def once(key):
        def make():
            made.append(key)
            return {"weight": torch.full((100,), float(len(made)))}

        return kept.once(key, make)["weight"][0].item()

    assert [once(key) for key in "abacacb"] == [1, 2, 1, 3, 1, 3, 4]
    assert made == ["a", "b", "c", "b"]
    assert kept.nbytes == 800


def test_what_lies_on_the_shelf_stays_as_it_was():
    kept, weight = shelf.Shelf(), torch.ones(3)
    kept.once("a", lambda: {"weight": weight})
    weight.zero_()
    assert kept.once("a", dict)["weight"].tolist() == [1, 1, 1]


def test_a_step_is_known_by_all_that_it_depends_on():
    given, drawn = (np.ones((3, 2), np.float32), "head"), {"torch": torch.zeros(4)}
    key = shelf.shelf_key(given, drawn)
    assert shelf.shelf_key((given[0].copy(), "head"), {"torch": torch.zeros(4)}) == key
    others = [
        shelf.shelf_key((given[0] * 2, "head"), drawn),
        shelf.shelf_key((given[0], "other head"), drawn),
        shelf.shelf_key(given, {"torch": torch.ones(4)}),
    ]
    assert len({key, *others}) == 4
