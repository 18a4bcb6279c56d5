"""Kinds of task: how they are told apart, what is refused, and that each is learned from."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import sparse
from torch import nn

from skadacomp import AdaptiveCodebookCompressor, EmbeddingTable
from skadacomp._targets import TargetEncoder, kind_of_task

N_WORDS, N_DOCUMENTS = 120, 600
WORDS = [f"word{i}" for i in range(N_WORDS)]


@pytest.fixture(scope="module")
def table():
    return EmbeddingTable(WORDS, np.random.default_rng(0).normal(size=(N_WORDS, 12)))


@pytest.fixture(scope="module")
def sentences():
    rng = np.random.default_rng(1)
    return [rng.choice(WORDS, rng.integers(2, 9)).tolist() for _ in range(N_DOCUMENTS)]


def numbers(sentence):
    return np.array([int(word[4:]) for word in sentence])


def fitted(table, X, y, **parameters):
    given = {"max_iter": 30, "size_penalty": 1e-3, "random_state": 0, **parameters}
    late = {name: given.pop(name) for name in ("X_val", "y_val") if name in given}
    return AdaptiveCodebookCompressor(**given).fit(table, X, y, **late)


# ---------------------------------------------------------------------------------------------
# Which kind it is

TEXTS = ["a b", "c", "d e"]
PAIRS = [("a b", "c"), ("d", "e"), ("f", "g")]


@pytest.mark.parametrize(
    ("y", "pairs", "word_lists", "kind"),
    [
        (["x", "y", "x"], False, False, "classification"),
        ([1, 2, 1], False, False, "classification"),
        ([1.0, 2.0, 3.0], False, False, "classification"),
        ([0.5, 1.0, 2.5], False, False, "regression"),
        (np.array([[0.5, 1], [1, 2.5], [0, 1]]), False, False, "regression"),
        (np.array([[0, 1], [1, 1], [0, 0]]), False, False, "multilabel"),
        (sparse.csr_matrix([[0, 1], [1, 1], [0, 0]]), False, False, "multilabel"),
        ([["N", "V"], ["N"], ["N", "N"]], False, True, "tagging"),
        (["x", "y", "x"], True, False, "pair"),
        ([0.5, 1.0, 2.5], True, False, "pair-regression"),
    ],
)
def test_the_kind_follows_from_targets_and_documents(y, pairs, word_lists, kind):
    assert kind_of_task(None, y, pairs=pairs, word_lists=word_lists) == kind
    assert kind_of_task(kind, y, pairs=pairs, word_lists=word_lists) == kind


@pytest.mark.parametrize(
    ("y", "pairs", "message"),
    [
        (np.array([[1, 2, 3], [4, 5, 6]]), False, "Unknown label type: 'multiclass-multioutput'"),
        ([["N", "V"], ["N"]], False, "documents are no lists of words"),
        ([f"this is sentence {i}" for i in range(30)], False, "y_task is ambiguous"),
        (np.array([[0, 1], [1, 1]]), True, "Unknown label type"),
    ],
)
def test_targets_of_no_kind_or_of_two_are_refused(y, pairs, message):
    with pytest.raises(ValueError, match=message):
        kind_of_task(None, y, pairs=pairs, word_lists=False)


def test_a_kind_that_is_named_settles_what_is_ambiguous():
    titles = [f"this is sentence {i}" for i in range(30)]
    for kind in ("classification", "translation"):
        assert kind_of_task(kind, titles, pairs=False, word_lists=False) == kind


def test_sentences_are_numbered_by_their_frequent_words():
    y = ["der Hund, der Hund", ["der", "Baum"], ""]
    encoder = TargetEncoder.of("translation", y)
    assert encoder.classes[:4].tolist() == ["</s>", "<unk>", "der", "Hund"]
    assert set(encoder.classes[4:]) == {",", "Baum"}
    encoded = encoder.encode(y, np.ones(3), "y_task")
    assert encoded.shape == (3, encoder.n_outputs)
    read = [encoder.classes[part].tolist() for part in np.split(encoded.indices, [6, 9])]
    assert read[0] == ["der", "Hund", ",", "der", "Hund", "</s>"]
    assert read[1:] == [["der", "Baum", "</s>"], ["</s>"]]
    (late,) = encoder.encode(["der Mond"], np.ones(1), "y_val").toarray()
    assert late[[0, 1, 2]].tolist() == [1, 1, 1]
    marked = TargetEncoder.of("translation", [["ein", "</s>"], ["<unk>", "Wort"]])
    assert marked.classes.tolist() == ["</s>", "<unk>", "ein", "Wort"]


def test_values_are_centred_and_scaled_by_those_of_training():
    encoder = TargetEncoder.of("regression", [1.0, 3.0, 8.0])
    encoded = encoder.encode([1.0, 3.0, 8.0], np.ones(3), "y_task")
    assert encoded.mean() == pytest.approx(0, abs=1e-6)
    assert encoded.std() == pytest.approx(1, abs=1e-6)
    assert encoder.encode([4.0], np.ones(1), "y_val")[0, 0] == pytest.approx(0, abs=1e-6)


# ---------------------------------------------------------------------------------------------
# What is refused, before any training


@pytest.mark.parametrize(
    ("X", "y", "parameters", "message"),
    [
        (
            [["word1", "word2"]] * 2,
            [["N"], ["N", "V"]],
            {},
            r"y_task\[0\] has 1 tags, but its sentence has 2",
        ),
        (["word1 word2"] * 9, [["N", "V"]] * 9, {"task": "tagging"}, "each a list of words"),
        (["word1"] * 3, [["N", "V"]] * 3, {}, "documents are no lists of words"),
        ([["word1"]] * 3, [["N"]] * 3, {}, "one tag only, 'N'"),
        ([("word1", None)] * 3, [0, 1, 0], {"task": "pair"}, r"X_task\[0\].*is missing"),
        ([("word1", float("nan"))] * 3, [0, 1, 0], {"task": "pair"}, "is missing"),
        ([("word1", "word2", "word3")] * 3, [0, 1, 0], {"task": "pair"}, "not a pair"),
        (["word1 word2"] * 3, [0, 1, 0], {"task": "pair"}, "not a pair"),
        ([("word1", "word2")] * 3, [0, 1, 0], {"task": "classification"}, "these are pairs"),
        ([("word1", "word2")] * 3, [0, 1, 0], {"head": "linear"}, "head='linear' does not read"),
        (["word1"] * 4, [0.5, np.nan, 1.5, 2.0], {}, "NaN"),
        (["word1"] * 3, np.array([[0, 2], [1, 0], [1, 1]]), {"task": "multilabel"}, "0s and 1s"),
        (["word1"] * 3, [0.5, 0.5, 0.5], {}, "nothing to learn"),
        (["word1"] * 3, [0, 1, 0], {"task": "poetry"}, "'task' parameter"),
        (
            ["word1"] * 3,
            [0, 1, 0],
            {"task": "translation"},
            r"y_task\[0\] is 0; .*needs a sentence",
        ),
        (["word1"] * 3, ["ein Wort"] * 2, {"task": "translation"}, "2 labels for 3 documents"),
        (["word1"] * 3, [""] * 3, {"task": "translation"}, "one word only"),
        (
            ["word1"] * 3,
            ["ein Wort"] * 3,
            {"task": "translation", "head": "linear"},
            "head='linear' does not read a task of kind 'translation'; 'recurrent' does",
        ),
        (
            ["word1"] * 3,
            ["ein Wort"] * 3,
            {"task": "translation", "head": nn.Linear},
            "what it has written too",
        ),
    ],
)
def test_a_task_that_does_not_fit_is_refused(table, X, y, parameters, message):
    with pytest.raises(ValueError, match=message):
        AdaptiveCodebookCompressor(**parameters).fit(table, X, y)


def test_validation_targets_must_be_like_the_others(table, sentences):
    classes = ["a" if i % 2 else "b" for i in range(N_DOCUMENTS)]
    with pytest.raises(ValueError, match="y_val holds the class 'c'"):
        AdaptiveCodebookCompressor().fit(table, sentences, classes, X_val=["word1"], y_val=["c"])
    # Tags that training never showed are rare, not wrong.
    tags = [["a" if i % 2 else "b" for i in numbers(words)] for words in sentences]
    late = [["c"] * len(sentences[0])]
    fitted(table, sentences, tags, X_val=sentences[:1], y_val=late, max_iter=1)
    values = np.random.default_rng(0).normal(size=(N_DOCUMENTS, 2))
    with pytest.raises(ValueError, match="y_val has 1 columns; y_task has 2"):
        AdaptiveCodebookCompressor().fit(
            table, sentences, values, X_val=sentences[:3], y_val=values[:3, 0]
        )


# ---------------------------------------------------------------------------------------------
# What is learned


def test_numbers_are_learned(table, sentences):
    y = [table.vectors[numbers(words), 0].mean() for words in sentences]
    fit = fitted(table, sentences, y)
    assert fit.task_ == "regression"
    assert fit.history_["task_score"][-1] > 0.8
    vectors = fit.inverse_transform(fit.transform(sentences))
    assert np.corrcoef(vectors[:, 0], y)[0, 1] > 0.8


def test_several_labels_are_learned(table, sentences):
    means = np.array([table.vectors[numbers(words), :3].mean(0) for words in sentences])
    fit = fitted(table, sentences, (means > 0).astype(int))
    assert fit.task_ == "multilabel"
    assert fit.history_["task_score"][-1] > 0.8


@pytest.fixture(scope="module")
def tagger(table, sentences):
    return fitted(table, sentences, tags_of(sentences))


def tags_of(sentences):
    """Tag a word by its own number, and by whether the word before is odd."""
    tags = []
    for words in sentences:
        own = numbers(words)
        before = np.concatenate([[0], own[:-1]]) % 2
        tags.append([f"{a % 2}{b}" for a, b in zip(own, before, strict=True)])
    return tags


def test_tags_are_learned_from_words_in_their_order(tagger):
    assert tagger.task_ == "tagging"
    # A word alone tells half of its tag: .5 at best.
    assert tagger.history_["task_score"][-1] > 0.6


def test_tags_get_one_row_a_word(tagger, sentences):
    features = tagger.transform([["word1", "unheard of", "word5"], ["word1"]])
    assert features.shape == (4, tagger.get_feature_names_out().size)
    assert features[1].nnz == 0
    assert (features[0] != features[3]).nnz == 0
    alone = tagger.transform([["word1"]])
    assert (features[0] != alone).nnz == 0
    # The table is still rows of vectors.
    kept = tagger.code_lengths_ > 0
    rows = tagger.transform(tagger.compressed_.vectors(np.arange(N_WORDS)))
    assert rows.shape[0] == N_WORDS
    assert kept.any()


def test_pairs_are_learned_and_give_both_sides(table, sentences):
    one, other = sentences[::2], sentences[1::2]
    pairs = [(" ".join(a), " ".join(b)) for a, b in zip(one, other, strict=True)]
    first = [table.vectors[numbers(words), 0].mean() for words in sentences]
    y = np.array(first[::2]) - np.array(first[1::2])
    fit = fitted(table, pairs, y, max_iter=30)
    assert fit.task_ == "pair-regression"
    assert fit.history_["task_score"][-1] > 0.4
    features = fit.transform(pairs)
    n_columns = 8 * 16 + 1  # what suits pairs
    assert features.shape == (len(pairs), 2 * n_columns)
    assert fit.get_feature_names_out().size == 2 * n_columns
    sides = fit.transform([a for a, _ in pairs]), fit.transform([b for _, b in pairs])
    assert (features != sparse.hstack(sides)).nnz == 0
    vectors = fit.inverse_transform(features)
    assert vectors.shape == (len(pairs), 2 * 12)
    np.testing.assert_allclose(vectors[:, 12:], fit.inverse_transform(sides[1]), atol=1e-6)
    # Lists of words, and classes, are pairs too.
    lists = list(zip(one, other, strict=True))
    assert fitted(table, lists, y > 0, max_iter=2).task_ == "pair"


def test_translations_are_learned(table, sentences):
    """A word's translation is one for it and the word after it, written backwards."""
    y = [" ".join(f"W{i // 2}" for i in numbers(words)[::-1]) for words in sentences]
    X = [[*words, "unheard"] for words in sentences]
    fit = fitted(table, X, y, task="translation", max_iter=12, X_val=X[:50], y_val=y[:50])
    assert fit.task_ == "translation"
    # Ends and lengths alone are 1 in 6; guessing a word 1 in 60.
    assert fit.history_["task_score"][-1] > 0.3
    assert len(fit.history_["task_score"]) <= 12  # of codebooks: codes are searched for
    assert fit.transform(X[:2]).shape[0] == len(X[0]) + len(X[1])
    assert fit.transform([" ".join(words) for words in X[:2]]).shape[0] == 2


# ---------------------------------------------------------------------------------------------
# A head of one's own


class Own(nn.Module):
    """Mean of the words, and a linear layer."""

    def __init__(self, n_dims, n_outputs):
        super().__init__()
        self.linear = nn.Linear(n_dims, n_outputs)

    def forward(self, vectors, mask):
        weights = mask[..., None].float()
        return self.linear((vectors * weights).sum(-2) / weights.sum(-2).clamp_min(1))


class ByWord(nn.Module):
    """A linear layer on every word."""

    def __init__(self, n_dims, n_outputs):
        super().__init__()
        self.linear = nn.Linear(n_dims, n_outputs)

    def forward(self, vectors, mask):
        return self.linear(vectors)


class WithLoss(Own):
    """The same, and a loss that counts how often it was asked."""

    n_asked = 0

    def loss(self, outputs, targets):
        type(self).n_asked += 1
        return nn.functional.multi_margin_loss(outputs, targets)


@pytest.mark.parametrize("make", [Own, WithLoss, Own(12, 2)], ids=["class", "loss", "module"])
def test_a_module_of_ones_own_is_the_head(table, sentences, make):
    y = [table.vectors[numbers(words), 0].mean() > 0 for words in sentences]
    before = make.linear.weight.clone() if isinstance(make, nn.Module) else None
    fit = fitted(table, sentences, y, head=make)
    assert fit.history_["task_score"][-1] > 0.8
    if before is not None:
        torch.testing.assert_close(make.linear.weight, before)  # a copy was trained
    if make is WithLoss:
        assert WithLoss.n_asked > 10


def test_a_head_of_ones_own_takes_no_principal_components(table, sentences):
    labels = ["a", "b"] * (len(sentences) // 2)
    with pytest.raises(ValueError, match="n_components=4 with a head of your own"):
        fitted(table, sentences, labels, head=Own, n_components=4)


def test_own_heads_of_tags_and_pairs(table, sentences):
    tags = [[str(i % 2) for i in numbers(words)] for words in sentences]
    fit = fitted(table, sentences, tags, head=ByWord, max_iter=2)
    assert fit.task_ == "tagging"
    pairs = list(zip(sentences[::2], sentences[1::2], strict=True))

    class Both(Own):
        def forward(self, vectors, mask):
            return super().forward(vectors, mask)[:, 0]

    y = np.arange(len(pairs)) % 2
    assert fitted(table, pairs, y, head=Both, max_iter=2).task_ == "pair"


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda n_dims, n_outputs: ByWord(n_dims, n_outputs), ValueError, "head gives outputs of"),
        (lambda n_dims, n_outputs: Own(n_dims, n_outputs + 1), ValueError, "2 outputs for each"),
        (lambda n_dims, n_outputs: "head", TypeError, "it must make a torch.nn.Module"),
    ],
)
def test_a_head_whose_outputs_do_not_fit_is_refused(table, sentences, make, error, message):
    y = np.arange(N_DOCUMENTS) % 2
    with pytest.raises(error, match=message):
        fitted(table, sentences, y, head=make)


# ---------------------------------------------------------------------------------------------
# Several tasks, one table


@pytest.fixture(scope="module")
def two_tasks(sentences):
    """Texts of which word 3 or 5 decides the class, and numbers that other words decide."""
    texts = [f"{'word3' if i % 2 else 'word5'} {' '.join(w)}" for i, w in enumerate(sentences)]
    labels = ["odd" if i % 2 else "even" for i in range(N_DOCUMENTS)]
    tags = [["high" if i in (7, 9) else "low" for i in numbers(words)] for words in sentences]
    return texts, labels, tags


def test_two_tasks_are_learned_at_once(table, sentences, two_tasks):
    texts, labels, tags = two_tasks
    given = {"code_lengths": (0, 1, 2, 4), "size_penalty": 0.05, "max_iter": 15}
    both = fitted(table, [texts, sentences], [labels, tags], **given)
    assert both.task_ == ("classification", "tagging")
    assert both.history_["task_score"][-1] > 0.85
    lengths = both.code_lengths_
    deciding = [3, 5, 7, 9]
    assert lengths[deciding].mean() > 2 * np.delete(lengths, deciding).mean()
    # Documents are pooled, whatever the tasks were.
    assert both.transform(texts[:5]).shape[0] == 5
    alone = fitted(table, texts, labels, **given)
    assert alone.code_lengths_[[7, 9]].mean() < lengths[[7, 9]].mean()


def test_weights_move_codes_from_one_task_to_the_other(table, sentences, two_tasks):
    texts, labels, tags = two_tasks
    given = {"code_lengths": (0, 1, 2, 4), "size_penalty": 0.05, "max_iter": 5}
    score = {}
    for weights in ((1, 1e-6), (1e-6, 1)):
        fit = fitted(table, [texts, sentences], [labels, tags], task_weights=weights, **given)
        score[weights[0]] = fit.code_lengths_[[3, 5]].sum() - fit.code_lengths_[[7, 9]].sum()
    assert score[1] > score[1e-6]


def test_several_tasks_come_with_their_own_dev_documents(table, sentences, two_tasks):
    texts, labels, tags = two_tasks
    late = {"X_val": [texts[:9], sentences[:9]], "y_val": [labels[:9], tags[:9]]}
    kinds = ["classification", "tagging"]
    fit = fitted(table, [texts, sentences], [labels, tags], task=kinds, max_iter=1, **late)
    assert fit.task_ == tuple(kinds)
    heads = [Own, ByWord]
    fitted(table, [texts, sentences], [labels, tags], head=heads, max_iter=1)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"task": ["classification"]}, "task holds 1 entries for the 2 tasks"),
        ({"task": ["classification", "poetry"]}, "task holds 'poetry'"),
        ({"task_weights": [1, -1]}, "must be numbers above 0"),
        ({"task_weights": [1]}, "task_weights holds 1 entries"),
        ({"head": ["linear"] * 3}, "head holds 3 entries"),
        ({"X_val": [["word1"]], "y_val": [["odd"]]}, "X_val holds 1 entries"),
    ],
)
def test_tasks_that_do_not_line_up_are_refused(table, sentences, two_tasks, parameters, message):
    texts, labels, tags = two_tasks
    with pytest.raises(ValueError, match=message):
        fitted(table, [texts, sentences], [labels, tags], **parameters)


def test_weights_of_one_task_are_refused(table, two_tasks):
    with pytest.raises(ValueError, match="weighs several tasks, and there is one"):
        fitted(table, *two_tasks[:2], task_weights=[1])
