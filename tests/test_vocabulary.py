"""Vocabulary: words in few bytes, found where they lie."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import skadacomp._vocabulary as room
from skadacomp._vocabulary import SortedWords, Vocabulary

ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=20)  # lone surrogates too
# Few letters make words that share much and repeat themselves, blocks and merges in plenty.
ALIKE = st.text("ab", max_size=12)
WORDS = st.lists(ANY_TEXT, unique=True, max_size=80) | st.lists(ALIKE, unique=True, max_size=300)


def english(n_words: int, seed: int = 0) -> list[str]:
    """Words made of syllables: long enough a list for many blocks and merges."""
    rng = np.random.default_rng(seed)
    syllables = [a + b for a in "bcdfglmnprst" for b in ("a", "e", "in", "or", "ing", "tion", "é")]
    words: dict[str, None] = {}
    while len(words) < n_words:
        words["".join(rng.choice(syllables, rng.integers(1, 5)))] = None
    return list(words)


def built(words: list[str], seed: int = 0) -> tuple[Vocabulary, np.ndarray]:
    slots = np.random.default_rng(seed).permutation(len(words))
    return Vocabulary.build(words, slots), slots


@settings(max_examples=150)
@given(WORDS, st.lists(ANY_TEXT | ALIKE, max_size=10))
def test_every_word_has_its_slot_and_no_other_has_one(words, others):
    vocabulary, slots = built(words)
    assert len(vocabulary) == len(words)
    assert [vocabulary.slot(word) for word in words] == slots.tolist()
    in_slots = [""] * len(words)
    for word, slot in zip(words, slots, strict=True):
        in_slots[slot] = word
    assert vocabulary.words() == in_slots
    for word in others:
        assert (word in vocabulary) == (word in words)


@given(WORDS, st.data())
def test_shapes_are_known_without_building(words, data):
    kept = data.draw(st.lists(st.booleans(), min_size=len(words), max_size=len(words)))
    vocabulary, _ = built([word for word, keep in zip(words, kept, strict=True) if keep])
    tensors = vocabulary.tensors()
    shapes = SortedWords(words).shapes(np.array(kept, bool))
    assert shapes == {name: tensor.shape for name, tensor in tensors.items()}
    assert vocabulary.nbytes == sum(tensor.nbytes for tensor in tensors.values())


@given(WORDS)
def test_words_are_counted_in_utf8(words):
    n_bytes = [len(word.encode("utf-8", "surrogatepass")) for word in words]
    assert SortedWords(words).n_bytes.tolist() == n_bytes


def test_front_coding():
    text, starts = SortedWords(["team", "a", "tea", "x" * 25, "x" * 24]).front_coded(
        np.array([True, False, True, True, True])
    )
    marks = [0xF5 + 3, 0xF5, 0xFF, 0xFF, 0xF5 + 4]
    expected = b"tea%cm%c" % tuple(marks[:2]) + b"x" * 24 + bytes(marks[2:]) + b"x"
    assert text.tobytes() == expected
    assert starts.tolist() == [0]
    assert SortedWords([]).front_coded(np.empty(0, bool))[1].tolist() == []
    # A block's first word stands in full.
    text, starts = SortedWords([f"w{n:02}" for n in range(40)]).front_coded(np.ones(40, bool))
    assert text[starts[1] :][:4].tobytes() == b"w32\xf7"


@given(WORDS)
def test_tensors_are_all_there_is(words):
    vocabulary, slots = built(words)
    again = Vocabulary.from_tensors(vocabulary.tensors(), len(words))
    assert again.slots(words).tolist() == slots.tolist()


@pytest.mark.parametrize(
    "words",
    [
        [""],
        ["", "\0", "\0\0", "\n", " ", "a b", "a\nb"],
        ["x" * n for n in range(200)],
        ["shared " * 40 + str(n) for n in range(100)],
        ["é" * 3000, "é" * 3000 + "e", "\U0010ffff" * 20, "\ud800", "\ud800\udc00"],
        [chr(point) for point in range(0, 0x3000, 7)],
    ],
    ids=["empty", "blanks", "runs", "long-prefix", "long", "scripts"],
)
def test_unusual_words(words):
    vocabulary, slots = built(words)
    for _ in range(3):  # in the text that is stored, then in what is kept of it
        assert [vocabulary.slot(word) for word in words] == slots.tolist()
        assert vocabulary.slot("x" * 201) == -1
    assert vocabulary._kept is not None
    in_slots = vocabulary.words()
    assert [in_slots[slot] for slot in slots] == words


def test_many_words_at_once_are_found_as_one_by_one():
    words = english(2000)
    vocabulary, slots = built(words)
    asked = [*words[::-1], "never heard", ""]
    few = np.concatenate([vocabulary.slots(asked[i : i + 9]) for i in range(0, len(asked), 9)])
    assert vocabulary._slot_of is None
    many = vocabulary.slots(asked)
    assert vocabulary._slot_of is not None
    assert many.dtype == np.int64
    np.testing.assert_array_equal(many, [*slots[::-1], -1, -1])
    np.testing.assert_array_equal(few, many)
    assert vocabulary.slot(words[5]) == slots[5]
    assert vocabulary.slots([]).shape == (0,)


@given(st.sets(st.text(max_size=40), min_size=1, max_size=200))
def test_many_searches_find_what_the_first_ones_found(words):
    words = sorted(words)
    vocabulary, slots = built(words)
    asked = [*words, *(word + "x" for word in words), "", "\U0010ffff" * 9]
    known = dict(zip(words, slots.tolist(), strict=True))
    expected = [known.get(word, -1) for word in asked]
    first = [Vocabulary.from_tensors(vocabulary.tensors(), len(words)).slot(w) for w in asked]
    assert first == expected
    assert [vocabulary.slot(word) for word in asked] == expected
    assert vocabulary._kept is not None


def test_blocks_of_long_words_are_found_but_not_kept():
    words = [f"{'x' * n}{'y' * 90}" for n in range(90)]
    vocabulary, slots = built(words)
    for _ in range(3):
        assert [vocabulary.slot(word) for word in words] == slots.tolist()
        assert vocabulary.slot("x" * 9) == -1
    assert vocabulary._kept.blocks == [None] * 3


def test_slots_that_are_none_are_refused_before_they_are_kept():
    words = english(1000)
    tensors = {name: tensor.copy() for name, tensor in built(words)[0].tensors().items()}
    tensors["word_slots"][:] = 255
    damaged = Vocabulary.from_tensors(tensors, 1000)
    for _ in range(9):
        with pytest.raises(ValueError, match="slot 1023, but there are 1000"):
            damaged.slot(words[0])


def test_threads_share_what_is_kept():
    words = english(5000)
    vocabulary, slots = built(words)
    known = dict(zip(words, slots.tolist(), strict=True))

    def read(seed):
        asked = np.random.default_rng(seed).permutation(words).tolist()
        return all(vocabulary.slot(word) == known[word] for word in asked)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(read, range(8)))


def test_blocks_that_overlap_are_refused():
    vocabulary, _ = built(english(2000))
    tensors = {name: tensor.copy() for name, tensor in vocabulary.tensors().items()}
    tensors["word_offsets"][:] = tensors["word_offsets"][::-1]
    damaged = Vocabulary.from_tensors(tensors, 2000)
    with pytest.raises(ValueError, match="blocks overlap"):
        damaged._to_keep()


def test_a_look_up_reads_nothing_but_block_heads_and_its_block():
    words = sorted(english(3000))
    vocabulary = Vocabulary.build(words, np.arange(3000))
    tensors = {name: tensor.copy() for name, tensor in vocabulary.tensors().items()}
    half = vocabulary._offset(40)
    tensors["words"][half:] = 0  # what comes after the middle is lost
    damaged = Vocabulary.from_tensors(tensors, 3000)
    assert damaged.slot(words[3]) == 3
    with pytest.raises(ValueError, match="block"):
        damaged.words()


def test_words_take_few_bytes():
    words = english(20_000)
    vocabulary, _ = built(words)
    # 15 bits are the slot's; lone words in utf-8 take more than 8 bytes.
    assert sum(len(word.encode()) for word in words) / 20_000 > 8
    assert vocabulary.nbytes / 20_000 < 5


def test_a_large_vocabulary_learns_from_a_sample(monkeypatch):
    words = english(3000)
    whole = built(words)[0].nbytes
    monkeypatch.setattr(room, "_SAMPLE", 2000)
    vocabulary, slots = built(words)
    np.testing.assert_array_equal(vocabulary.slots(words), slots)
    assert whole < vocabulary.nbytes < 1.2 * whole


def test_no_symbol_stands_for_too_much():
    # One run: each merge doubles the last, until the bound leaves nothing to merge.
    vocabulary, _ = built(["x" * 5000])
    assert max(map(len, vocabulary._expansions)) == room._MAX_EXPANSION
    assert vocabulary.words() == ["x" * 5000]


def test_pickles_hold_the_tensors_alone():
    words = english(3000)
    vocabulary, slots = built(words)
    vocabulary.slots(words)
    content = pickle.dumps(vocabulary)
    assert len(content) < vocabulary.nbytes + 1000
    np.testing.assert_array_equal(pickle.loads(content).slots(words), slots)


def test_words_must_be_distinct_text():
    with pytest.raises(ValueError, match=r"'tea' is there twice"):
        Vocabulary.build(["tea", "coffee", "tea"], [0, 1, 2])
    with pytest.raises(ValueError, match=r"'tea' is there twice"):
        SortedWords(["tea", "coffee", "tea"])
    with pytest.raises(TypeError, match=r"word 1 must be a str, not int: 5"):
        Vocabulary.build(["tea", 5], [0, 1])


@pytest.mark.parametrize("slots", [[0, 0], [1, 2], [0], [-1, 0]])
def test_slots_must_be_a_permutation(slots):
    with pytest.raises(ValueError, match=r"permutation of range\(2\)"):
        Vocabulary.build(["tea", "coffee"], slots)


def test_what_is_no_text_is_in_no_vocabulary():
    vocabulary, _ = built(["tea"])
    assert 5 not in vocabulary
    assert None not in vocabulary


def test_tensors_must_fit_the_number_of_words():
    tensors = built(english(200))[0].tensors()
    for n_words in (0, 1, 150, 1000):
        with pytest.raises(ValueError, match="vocabulary: tensor"):
            Vocabulary.from_tensors(tensors, n_words)
    for name in tensors:
        rest = {other: tensor for other, tensor in tensors.items() if other != name}
        with pytest.raises(ValueError, match=f"{name!r} is missing"):
            Vocabulary.from_tensors(rest, 200)
        wrong = {**tensors, name: tensors[name].astype(np.int16)}
        with pytest.raises(ValueError, match=f"{name!r} must be uint8"):
            Vocabulary.from_tensors(wrong, 200)


def test_merges_that_would_swell_are_refused():
    tensors = built(english(200))[0].tensors()
    doubling = np.array([(new, new, new) for new in range(8)], np.uint8).repeat(9, axis=0)
    with pytest.raises(ValueError, match="expands to 128 bytes"):
        Vocabulary.from_tensors({**tensors, "word_merges": doubling}, 200)


@settings(max_examples=150)
@given(st.sampled_from(["words", "word_offsets", "word_slots", "word_merges"]), st.data())
def test_flipped_bytes_raise_nothing_but_value_errors(name, data):
    words = english(150)
    tensors = {key: value.copy() for key, value in built(words)[0].tensors().items()}
    place = data.draw(st.integers(0, tensors[name].size - 1))
    tensors[name].reshape(-1)[place] ^= data.draw(st.integers(1, 255))
    try:
        vocabulary = Vocabulary.from_tensors(tensors, 150)
    except ValueError:
        return
    for word in words[:20]:
        with suppress(ValueError):
            assert -1 <= vocabulary.slot(word) < 150
    with suppress(ValueError):
        assert len(vocabulary.words()) == 150
