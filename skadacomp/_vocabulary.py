"""Vocabulary: a sorted set of words in few bytes, looked up where it lies.

Words are sorted by their utf-8 bytes and cut into blocks. The first word of a block stands in
full; each further one gives how many bytes it shares with the word before it, then its remaining
bytes. Byte values that this text does not use stand for frequent pairs of symbols (byte pair
encoding), so a block is expanded with one table look-up a byte. A look-up searches the first words
of the blocks, expands one block, and reads nothing else: the buffers may be memory maps. Where
look-ups are many, what they expand is kept, some 15 bytes a word, and they become searches in that.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skadacomp._codes import pack, packed_nbytes, unpack, unpack_one

# Words of one block. On 30,000 words, 64 would save 2 % of the bytes and slow a look-up by a
# fifth; 16 would cost 4 % and gain less.
_BLOCK = 32
# utf-8 has no byte from 0xF5 on. In the expanded text these bytes part two words and tell how many
# bytes the second takes over: the sum of (byte - 0xF5) over the run of them.
_SHARED_NONE, _SHARED_MOST = 0xF5, 0xFF
_SHARED_PER_BYTE = _SHARED_MOST - _SHARED_NONE  # the most that one byte tells
_SEPARATOR = re.compile(rb"([\xf5-\xff]+)")
# A symbol stands for at most this many bytes, which bounds what a damaged file can expand to.
_MAX_EXPANSION = 64
# A merge takes 3 bytes itself, so a pair must occur more often than that.
_MERGE_NBYTES = 3
# Above every pair of symbols, left << 8 | right: two symbols of different blocks.
_NO_PAIR = 1 << 16
# Bytes of text that the pairs are counted on; a larger vocabulary is sampled evenly.
_SAMPLE = 1 << 17
# From this share of the words on, expanding every block is cheaper than looking each word up.
_BULK = 1 / 16
# One search expands about this many times what one block's first word takes.
_SEARCHES = 8
_HEAD = 24  # symbols in which a block's first word mostly ends
_AT_A_TIME = 1 << 14  # slots unpacked at a time
# The most bytes of a block that is kept, which bounds what a damaged file can make of itself.
_MOST_KEPT = 64 * _BLOCK
_MARK = b"\xff"  # around each word of a block that is kept: utf-8 has no such byte

_TENSORS = {"words": 1, "word_offsets": 1, "word_slots": 1, "word_merges": 2}  # name: dimensions


class Vocabulary:
    """Immutable set of distinct words, each with an integer slot.

    Make one with `build`, or with `from_tensors` from the arrays that `tensors` gives.

    Parameters
    ----------
    tensors : mapping of str to ndarray
        See `tensors`.
    n_words : int
        Number of words.

    Raises
    ------
    ValueError
        If the tensors do not fit each other or `n_words`.
    """

    def __init__(self, tensors: Mapping[str, NDArray[np.uint8]], n_words: int) -> None:
        _check_tensors(tensors, n_words)
        self._n_words = n_words
        self._text = tensors["words"]
        self._offsets = tensors["word_offsets"]
        self._slots = tensors["word_slots"]
        self._merges = tensors["word_merges"]
        self._expansions = _expansions(self._merges)
        self._slot_of: dict[str, int] | None = None
        self._kept: _Kept | None = None  # once that pays
        self._n_searched = 0

    @classmethod
    def build(cls, words: Sequence[str], slots: ArrayLike) -> Vocabulary:
        """Make a vocabulary.

        Parameters
        ----------
        words : sequence of str
            Distinct words, in any order; any text is a word, the empty one too.
        slots : array-like of shape (n_words,), int
            The slot of each word: a permutation of range(n_words).

        Raises
        ------
        TypeError
            If a word is not a str.
        ValueError
            If a word repeats or the slots are no permutation.
        """
        slot_array = np.asarray(slots, np.int64)
        n_words = len(words)
        if not np.array_equal(np.sort(slot_array), np.arange(n_words)):
            raise ValueError(f"slots must be a permutation of range({n_words})")
        in_order = SortedWords(words)
        packed = _pack_text(*in_order.front_coded(np.ones(n_words, bool)))
        tensors = {
            "words": packed.text,
            "word_offsets": pack(packed.starts, _offset_width(packed.text.size)),
            "word_slots": pack(slot_array[in_order.rows], _slot_width(n_words)),
            "word_merges": packed.merges,
        }
        return cls(tensors, n_words)

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, NDArray[np.uint8]], n_words: int) -> Vocabulary:
        """Make a vocabulary on the arrays that `tensors` gave, which are not copied.

        Raises
        ------
        ValueError
            If the arrays do not fit each other or `n_words`. Text that is damaged in itself shows
            when it is read: `slots`, `words` and `in` then raise ValueError.
        """
        return cls(tensors, n_words)

    def tensors(self) -> dict[str, NDArray[np.uint8]]:
        """Give all that there is to store: flat uint8 arrays, and merges of shape (n_merges, 3)."""
        return {
            "words": self._text,
            "word_offsets": self._offsets,
            "word_slots": self._slots,
            "word_merges": self._merges,
        }

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors."""
        return sum(tensor.nbytes for tensor in self.tensors().values())

    def __len__(self) -> int:
        return self._n_words

    def __contains__(self, word: object) -> bool:
        return isinstance(word, str) and self.slot(word) >= 0

    def __repr__(self) -> str:
        return f"Vocabulary(n_words={self._n_words}, nbytes={self.nbytes})"

    def __getstate__(self) -> dict[str, Any]:
        # The cache of the bulk path is left out; memory maps become arrays.
        copies = {name: np.array(tensor) for name, tensor in self.tensors().items()}
        return {"tensors": copies, "n_words": self._n_words}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def slot(self, word: str) -> int:
        """Slot of one word, -1 if it is unknown.

        Raises
        ------
        ValueError
            If the stored text is damaged.
        """
        if self._slot_of is not None:
            return self._slot_of.get(word, -1)
        key = word.encode("utf-8", "surrogatepass")
        kept = self._kept
        if kept is None:
            return self._searched(key)
        block = bisect_right(kept.heads, key) - 1
        text = kept.blocks[block]
        if text is None:
            text = self._in_full(block)
            if text is None:
                return self._searched(key)
            kept.blocks[block] = text
        place = text.find(_MARK + key + _MARK)
        if place < 0:
            return -1
        return kept.slots[block * _BLOCK + text.count(_MARK, 0, place)]

    def _searched(self, key: bytes) -> int:
        """Slot of a word, found without what is kept."""
        if self._n_words == 0:
            return -1
        self._n_searched += 1
        if self._kept is None and self._n_searched * _SEARCHES > _n_blocks(self._n_words):
            self._kept = self._to_keep()
        block = self._block_of(key)
        for rank, known in enumerate(self._block_words(block), start=block * _BLOCK):
            if known == key:
                return self._checked(unpack_one(self._slots, _slot_width(self._n_words), rank))
            if known > key:
                break
        return -1

    def slots(self, words: Sequence[str]) -> NDArray[np.int64]:
        """Slots of many words.

        Parameters
        ----------
        words : sequence of str

        Returns
        -------
        ndarray of shape (len(words),), int64
            -1 where a word is unknown. If `words` are many beside the vocabulary, all of it is
            expanded once and kept in memory (not in pickles) as a dict.

        Raises
        ------
        ValueError
            If the stored text is damaged.
        """
        if self._slot_of is None and len(words) > max(_BLOCK, self._n_words * _BULK):
            self._slot_of = {word: slot for slot, word in enumerate(self.words())}
        return np.fromiter(map(self.slot, words), np.int64, count=len(words))

    def words(self) -> list[str]:
        """All words as a list of str, in the order of their slots.

        Raises
        ------
        ValueError
            If the stored text is damaged.
        """
        slots = unpack(self._slots, _slot_width(self._n_words), np.arange(self._n_words)).tolist()
        in_order: list[str | None] = [None] * self._n_words
        for block in range(_n_blocks(self._n_words)):
            known = list(self._block_words(block))
            first = block * _BLOCK
            for slot, word in zip(slots[first : first + _BLOCK], known, strict=True):
                in_order[self._checked(slot)] = word.decode("utf-8", "surrogatepass")
        words = [word for word in in_order if word is not None]
        if len(words) != self._n_words:
            raise ValueError("vocabulary: two words have one slot")
        return words

    def words_of(self, slots: NDArray[np.int64]) -> list[str]:
        """Words of a few slots, of which no more is expanded than their blocks.

        Raises
        ------
        ValueError
            If the stored text is damaged.
        """
        words = []
        for rank in self._rank_of_slot[slots].tolist():
            block = list(self._block_words(rank // _BLOCK))
            words.append(block[rank % _BLOCK].decode("utf-8", "surrogatepass"))
        return words

    @cached_property
    def _rank_of_slot(self) -> NDArray[np.int64]:
        of_ranks = unpack(self._slots, _slot_width(self._n_words), np.arange(self._n_words))
        return np.argsort(of_ranks, kind="stable")

    def _checked(self, slot: int) -> int:
        if slot >= self._n_words:
            raise ValueError(f"vocabulary: slot {slot}, but there are {self._n_words}")
        return slot

    def _offset(self, block: int) -> int:
        return unpack_one(self._offsets, _offset_width(self._text.size), block)

    def _expand(self, begin: int, end: int) -> bytes:
        expansions = self._expansions
        return b"".join([expansions[symbol] for symbol in self._text[begin:end].tobytes()])

    def _block_of(self, key: bytes) -> int:
        """Last block whose first word is not above `key`; 0 if there is none."""
        low, high = 0, _n_blocks(self._n_words)
        while high - low > 1:
            middle = (low + high) // 2
            begin = self._offset(middle)
            # A symbol is a byte at least, and one byte past the key's length decides.
            head = self._expand(begin, begin + len(key) + 1)
            if _SEPARATOR.split(head, 1)[0] <= key:
                low = middle
            else:
                high = middle
        return low

    def _to_keep(self) -> _Kept:
        """Begin what look-ups keep: first words and slots now, blocks as they are looked into."""
        n_blocks = _n_blocks(self._n_words)
        begins = unpack(self._offsets, _offset_width(self._text.size), np.arange(n_blocks))
        ends = np.append(begins[1:], self._text.size)
        if (begins > ends).any():  # else damaged blocks could hold the whole text each
            raise ValueError("vocabulary: blocks overlap")
        heads = [self._head(*span) for span in zip(begins.tolist(), ends.tolist(), strict=True)]
        heads[0] = b""  # so that every word has a block to be looked for in
        slots = np.empty(self._n_words, np.int32)
        for start in range(0, slots.size, _AT_A_TIME):  # all at once would take 40 bytes a word
            part = slots[start : start + _AT_A_TIME]
            ranks = np.arange(start, start + part.size)
            part[:] = unpack(self._slots, _slot_width(self._n_words), ranks)
        self._checked(int(slots.max()))
        return _Kept(heads, [None] * n_blocks, slots.data)

    def _head(self, begin: int, end: int) -> bytes:
        """First word of the block that lies there."""
        for stop in (begin + _HEAD, end):
            parts = _SEPARATOR.split(self._expand(begin, min(stop, end)), 1)
            if len(parts) > 1:
                break
        return parts[0]

    def _in_full(self, block: int) -> bytes | None:
        """All words of one block, each between two marks; None if that is too much to keep."""
        text = bytearray(_MARK)
        for word in self._block_words(block):
            text += word + _MARK
            if len(text) > _MOST_KEPT:
                return None
        return bytes(text)

    def _block_words(self, block: int) -> Iterator[bytes]:
        """Words of one block as utf-8, in sorted order."""
        last = block + 1 == _n_blocks(self._n_words)
        end = self._text.size if last else self._offset(block + 1)
        parts = _SEPARATOR.split(self._expand(self._offset(block), end))
        expected = min(_BLOCK, self._n_words - block * _BLOCK)
        if len(parts) != 2 * expected - 1:
            raise ValueError(
                f"vocabulary: block {block} holds {len(parts) // 2 + 1} words, not {expected}"
            )
        word = parts[0]
        yield word
        for separator, rest in zip(parts[1::2], parts[2::2], strict=True):
            word = word[: sum(separator) - _SHARED_NONE * len(separator)] + rest
            yield word


class _Kept(NamedTuple):
    """What a vocabulary keeps to find words at once. Threads that share it write the same."""

    heads: list[bytes]  # first word of each block
    blocks: list[bytes | None]  # the words of each block that was looked into
    slots: memoryview  # of int32, (n_words,), in the order of the words


class SortedWords:
    """Distinct words as sorted utf-8 bytes, any part of which is quickly front-coded.

    Parameters
    ----------
    words : sequence of n_words str
        In any order.

    Attributes
    ----------
    rows : ndarray of shape (n_words,), int64
        Where each sorted word stands in `words`.

    Raises
    ------
    TypeError
        If a word is not a str.
    ValueError
        If a word repeats.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self.rows, self._bytes, self._n_bytes = _in_order(words)
        self._n_shared = _n_shared(self._bytes, self._n_bytes)
        again = (self._n_shared[1:] == self._n_bytes[1:]) & (
            self._n_bytes[1:] == self._n_bytes[:-1]
        )
        if again.any():
            word = words[self.rows[int(again.argmax()) + 1]]
            raise ValueError(f"words must be distinct, but {word!r} is there twice")

    @property
    def n_bytes(self) -> NDArray[np.int64]:
        """Bytes of each word in utf-8, (n_words,), in the order of `words`."""
        n_bytes = np.empty_like(self._n_bytes)
        n_bytes[self.rows] = self._n_bytes
        return n_bytes

    def front_coded(self, kept: NDArray[np.bool_]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Text of some of the words.

        Parameters
        ----------
        kept : ndarray of shape (n_words,), bool
            Which of `words`.

        Returns
        -------
        text : ndarray of shape (n_text,), uint8
        starts : ndarray of shape (n_blocks,), int64
            Where in it each block starts.
        """
        places = np.flatnonzero(kept[self.rows])  # in sorted order
        shared = np.zeros(places.size, np.int64)
        if places.size > 1:
            # Two words share what all neighbours between them share.
            until_last = self._n_shared[: places[-1] + 1]
            shared[1:] = np.minimum.reduceat(until_last, places[:-1] + 1)
        shared[::_BLOCK] = 0
        n_marks = np.maximum(-(-shared // _SHARED_PER_BYTE), 1)  # bytes of the separator
        n_marks[::_BLOCK] = 0
        rest = self._n_bytes[places] - shared
        ends = (n_marks + rest).cumsum()
        text = np.full(ends[-1] if ends.size else 0, _SHARED_MOST, np.uint8)
        last_mark = (ends - rest - 1)[n_marks > 0]
        text[last_mark] = (_SHARED_NONE + shared - _SHARED_PER_BYTE * (n_marks - 1))[n_marks > 0]
        taken = np.zeros_like(self._n_bytes)
        taken[places] = rest
        text[_ends_of(n_marks + rest, rest)] = self._bytes[_ends_of(self._n_bytes, taken)]
        return text, (ends - n_marks - rest)[::_BLOCK]

    def shapes(self, kept: NDArray[np.bool_]) -> dict[str, tuple[int, ...]]:
        """Shapes of the tensors of the vocabulary that `Vocabulary.build` makes of some words.

        Parameters
        ----------
        kept : ndarray of shape (n_words,), bool
            Which of `words`.

        Returns
        -------
        dict of str to tuple of int
            Of uint8 tensors, so that the product of a shape is its bytes.
        """
        packed = _pack_text(*self.front_coded(kept))
        return _shapes(int(kept.sum()), packed.text.size, len(packed.merges))


def _ends_of(sizes: NDArray[np.int64], n_last: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Lay out runs of `sizes` bytes and mark the last `n_last` of each."""
    return np.repeat(
        np.tile([False, True], sizes.size), np.column_stack([sizes - n_last, n_last]).ravel()
    )


class _PackedText(NamedTuple):
    text: NDArray[np.uint8]  # (n_bytes,)
    starts: NDArray[np.int64]  # (n_blocks,)
    merges: NDArray[np.uint8]  # (n_merges, 3): new symbol, left, right


def _n_blocks(n_words: int) -> int:
    return -(-n_words // _BLOCK)


def _offset_width(n_text: int) -> int:
    return n_text.bit_length()


def _slot_width(n_words: int) -> int:
    return max(n_words - 1, 0).bit_length()


def _in_order(
    words: Sequence[str],
) -> tuple[NDArray[np.int64], NDArray[np.uint8], NDArray[np.int64]]:
    """Rows of the words in the order of their bytes, these joined, and how many each word has.

    Millions of words are sorted as an array: a list of their rows would be millions of objects.
    """
    encoded = np.fromiter(_encoded(words), object, len(words))
    rows = np.argsort(encoded, kind="stable")
    in_order = encoded[rows]
    n_bytes = np.fromiter(map(len, in_order), np.int64, len(rows))
    return rows, np.frombuffer(b"".join(in_order), np.uint8), n_bytes


def _encoded(words: Sequence[str]) -> Iterator[bytes]:
    for row, word in enumerate(words):
        if not isinstance(word, str):
            raise TypeError(f"word {row} must be a str, not {type(word).__name__}: {word!r}")
        yield word.encode("utf-8", "surrogatepass")


def _shapes(n_words: int, n_text: int, n_merges: int) -> dict[str, tuple[int, ...]]:
    return {
        "words": (n_text,),
        "word_offsets": (packed_nbytes(_n_blocks(n_words), _offset_width(n_text)),),
        "word_slots": (packed_nbytes(n_words, _slot_width(n_words)),),
        "word_merges": (n_merges, _MERGE_NBYTES),
    }


def _n_shared(joined: NDArray[np.uint8], n_bytes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Bytes that each of the sorted words shares with the one before it, (n_words,)."""
    starts = n_bytes.cumsum() - n_bytes
    shared = np.zeros(n_bytes.size, np.int64)
    alike = np.arange(1, n_bytes.size)  # words that share all bytes looked at so far
    place = 0
    while alike.size:
        alike = alike[(n_bytes[alike] > place) & (n_bytes[alike - 1] > place)]
        alike = alike[joined[starts[alike] + place] == joined[starts[alike - 1] + place]]
        place += 1
        shared[alike] = place
    return shared


def _check_tensors(tensors: Mapping[str, NDArray[np.uint8]], n_words: int) -> None:
    for name, n_dimensions in _TENSORS.items():
        if name not in tensors:
            raise ValueError(f"vocabulary: tensor {name!r} is missing")
        tensor = tensors[name]
        if tensor.dtype != np.uint8 or tensor.ndim != n_dimensions:
            raise ValueError(
                f"vocabulary: tensor {name!r} must be uint8 of {n_dimensions} dimensions, "
                f"not {tensor.dtype} of shape {tensor.shape}"
            )
    shapes = _shapes(n_words, tensors["words"].size, len(tensors["word_merges"]))
    for name, shape in shapes.items():
        if tensors[name].shape != shape:
            raise ValueError(
                f"vocabulary: tensor {name!r} has shape {tensors[name].shape}, "
                f"but {n_words} words need {shape}"
            )


# ---------------------------------------------------------------------------------------------
# Byte pair encoding


def _pack_text(text: NDArray[np.uint8], starts: NDArray[np.int64]) -> _PackedText:
    """Front-coded text to what is stored of it."""
    if text.size == 0:  # no words, or the empty one alone
        return _PackedText(text, starts, np.empty((0, _MERGE_NBYTES), np.uint8))
    is_start = np.zeros(text.size, bool)
    is_start[starts] = True
    unused = np.flatnonzero(np.bincount(text, minlength=256) == 0)
    merges = _learn_merges(*_sampled(text, is_start, starts), unused.tolist())
    for new, left, right in merges:
        text, is_start = _merge(text, is_start, new, left, right)
    merge_array = np.array(merges, np.uint8).reshape(-1, _MERGE_NBYTES)
    return _PackedText(text, np.flatnonzero(is_start), merge_array)


def _sampled(
    text: NDArray[np.uint8], is_start: NDArray[np.bool_], starts: NDArray[np.int64]
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Every so many-th block, so that about `_SAMPLE` bytes are left to learn from."""
    stride = -(-text.size // _SAMPLE)
    if stride <= 1:
        return text, is_start
    block = np.searchsorted(starts, np.arange(text.size), side="right") - 1
    kept = block % stride == 0
    return text[kept], is_start[kept]


def _learn_merges(
    text: NDArray[np.uint8], is_start: NDArray[np.bool_], unused: list[int]
) -> list[tuple[int, int, int]]:
    """Give each unused symbol, in turn, to the pair of symbols that is most frequent by then."""
    n_bytes = [1] * 256  # of what a symbol expands to
    merges = []
    for new in unused:
        pairs = text[:-1].astype(np.int64) << 8 | text[1:]
        pairs[np.flatnonzero(is_start[1:])] = _NO_PAIR
        counts = np.bincount(pairs, minlength=_NO_PAIR)[:_NO_PAIR]
        pair = int(counts.argmax())
        while counts[pair] and n_bytes[pair >> 8] + n_bytes[pair & 255] > _MAX_EXPANSION:
            counts[pair] = 0
            pair = int(counts.argmax())
        if counts[pair] <= _MERGE_NBYTES:
            break
        left, right = divmod(pair, 256)
        merges.append((new, left, right))
        n_bytes[new] = n_bytes[left] + n_bytes[right]
        text, is_start = _merge(text, is_start, new, left, right)
    return merges


def _merge(
    text: NDArray[np.uint8], is_start: NDArray[np.bool_], new: int, left: int, right: int
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Put symbol `new` for each pair (left, right) that lies within a block."""
    found = np.flatnonzero((text[:-1] == left) & (text[1:] == right) & ~is_start[1:])
    if left == right and found.size:
        # In a run of one symbol the pairs overlap: take every other one, from the run's start.
        run_begins = np.flatnonzero(np.diff(found, prepend=-2) > 1)
        run = np.searchsorted(run_begins, np.arange(found.size), side="right") - 1
        found = found[(np.arange(found.size) - run_begins[run]) % 2 == 0]
    merged = text.copy()
    merged[found] = new
    kept = np.ones(text.size, bool)
    kept[found + 1] = False
    return merged[kept], is_start[kept]


def _expansions(merges: NDArray[np.uint8]) -> list[bytes]:
    """For each of the 256 symbols, the bytes that it stands for."""
    table = [bytes([symbol]) for symbol in range(256)]
    for new, left, right in merges.tolist():
        table[new] = table[left] + table[right]
        if len(table[new]) > _MAX_EXPANSION:
            raise ValueError(
                f"vocabulary: symbol {new} expands to {len(table[new])} bytes, "
                f"more than {_MAX_EXPANSION}"
            )
    return table
