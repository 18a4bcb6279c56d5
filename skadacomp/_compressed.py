"""CompressedTable: what ships. Words or row ids in, vectors out; saved, opened, memory-mapped.

Needs numpy alone. A table is its tensors, the very ones that its file holds, so sizes are exact
and a table decodes the same before it is saved and after it is opened.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice, pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skadacomp._codebooks import BITS, codebook_tensors, read_codebooks
from skadacomp._codes import (
    MAX_CANDIDATES,
    code_usage,
    code_width,
    decode_lengths,
    encode_lengths,
    pack,
    packed_nbytes,
    unpack,
)
from skadacomp._decoder import Decoder, Group
from skadacomp._format import (
    AXIS_TENSORS,
    CLASSIFIER_TENSORS,
    DTYPES,
    FORMAT,
    UNREADABLE,
    WORD_TENSORS,
    FormatError,
    Metadata,
    Tensors,
    check_tensors,
    file_nbytes,
    read,
    reading,
    unreadable,
    write,
)
from skadacomp._texts import looked_up, segment_sums, splitter, word_ids
from skadacomp._vocabulary import Vocabulary

__all__ = ["FORMAT", "CompressedTable", "FormatError", "small_mean", "text_lines"]

_CODEBOOK_TENSORS = ("codebooks", "scales", *AXIS_TENSORS, "mean")
_MAX_WORDS = 1 << 31
# Codewords whose rounding errors make up for one another: with their number memory grows as the
# square, and time as the cube.
_MOST_IN_TURN = 4096
# Bound of the numbers in codebooks, scales and mean: far beyond any embedding, and so far within
# float32 that no sum of codewords overflows.
LARGEST = 1e30

# Rows that are all alike take no bits: a file of no size could say that it has any number of them,
# and whoever asks for one would wait for memory for all.
_FREE_ROWS, _MOST_ROWS_A_BYTE = 2**22, 1000
# Half precision holds 11 bits; a mean that loses more (overflow, underflow) is kept in float32.
_MEAN_TOLERANCE = 2.0**-11
# Items decoded at a time by `vectors`, which bounds what it needs beside its result.
_CHUNK = 1 << 17
_LINES = 4096  # words whose vectors are in memory while text is written
_BATCH = 1024  # documents whose words are looked up together
_KEY_FACTOR = 0x5851F42D4C957F2D  # odd and large: it spreads a row's codes over 64 bits
_N_NAMED = 5  # missing words that an error names


class CompressedTable:
    """A compressed embedding table: codes, code lengths, codebooks, and its words if it has any.

    Make one with `from_codes` or `open`. Immutable; it pickles as small as its file.

    Parameters
    ----------
    tensors : dict of str to ndarray
        As in the file that `save` writes.
    metadata : mapping of str to str
        As in that file.
    source : str, default="table"
        Where they come from, for error messages.

    Raises
    ------
    FormatError
        If tensors and metadata do not fit each other.

    Notes
    -----
    Rows with a code are stored by code length, then by row; the place of a row in that order is
    its *slot*. Dropped rows (code length 0) hold nothing, and their words are not kept. Rows with
    equal codes are stored once where that is smaller; each slot then says which stored row it has.
    """

    def __init__(
        self, tensors: Tensors, metadata: Mapping[str, str], source: str = "table"
    ) -> None:
        self._source = source
        # A classifier in the same file is its own affair.
        self._tensors = {n: t for n, t in tensors.items() if n not in CLASSIFIER_TENSORS}
        with reading(source, "metadata"):
            self._metadata = Metadata.parsed(metadata)
        with reading(source, "tensors"):
            check_tensors(tensors)
            _check_numbers(self._tensors)
            self._width = code_width(self.n_codewords)
            _check_candidates(self.candidates, self.n_codebooks)
            self._groups = _groups(self._metadata, self._width)
            _check_rows(tensors, self._metadata, self._groups)
        with reading(source, "vocabulary"):
            self._vocabulary = self._found_vocabulary()

    @classmethod
    def from_codes(
        cls,
        codes: ArrayLike,
        codebooks: ArrayLike,
        mean: ArrayLike,
        words: Sequence[str] | None = None,
        *,
        code_lengths: Sequence[int],
        rank: int | None = None,
        codebook_bits: int = 8,
        weights: ArrayLike | None = None,
        parameters: Mapping[str, Any] | None = None,
        verbose: bool = False,
    ) -> CompressedTable:
        """Compress codes and codebooks into a table.

        Parameters
        ----------
        codes : array-like of shape (n_words, n_codebooks), int
            Each from 0 to n_codewords - 1, padded with -1. The number of codes before the first
            -1 is the row's code length; a row of code length 0 is dropped.
        codebooks : array-like of shape (n_codebooks, n_codewords, n_dims), float
            Kept as whole numbers with one float32 scale a codebook.
        mean : array-like of shape (n_dims,), float
            Kept as float16 where that holds it, else as float32.
        words : sequence of n_words str, default=None
            The word of each row; those with a code must be distinct. None makes a table that
            knows row ids alone.
        code_lengths : sequence of int
            The candidate code lengths, ascending, from 0 to n_codebooks.
        rank : int, default=None
            Keep the codebooks as the product of coordinates and this many axes that they share,
            where that is smaller. Codebooks of a higher rank lose what the axes do not span. None
            keeps them whole.
        codebook_bits : {4, 8}, default=8
            Of a number of the codebooks or, where they share axes, of the axes. 8 lose next to
            nothing; 4 lose a little, and nearly halve what codebooks take.
        weights : array-like of shape (n_words,), float, default=None
            How much each row counts when codebooks are rounded to 4 bits, at least 0. None counts
            all alike.
        parameters : mapping, default=None
            Anything that JSON can hold, kept with the table.
        verbose : bool, default=False
            Show a progress bar, as tqdm draws it.

        Returns
        -------
        CompressedTable

        Raises
        ------
        TypeError
            If `parameters` cannot be JSON or a word is not a str.
        ValueError
            If shapes do not fit each other, numbers are not finite or exceed 1e30, `codebook_bits`
            is not 4 or 8, `weights` are not one a row or below 0, or a row's codes are out of
            bounds, have a code after a -1, or a number that is no candidate.
        """
        if codebook_bits not in BITS:
            raise ValueError(f"codebook_bits={codebook_bits!r} must be 4 or 8")
        books = _finite(codebooks, "codebooks", 3)
        offset = _finite(mean, "mean", 1)
        if books.shape[2:] != offset.shape:
            raise ValueError(
                f"codebooks have {books.shape[2]} dimensions and mean has {offset.size}"
            )
        candidates = tuple(int(length) for length in code_lengths)
        _check_candidates(candidates, len(books))
        rows = _checked_codes(codes, books.shape[0], books.shape[1])
        choices = _choices(rows, candidates)
        counts = tuple(np.bincount(choices, minlength=len(candidates)).tolist())
        coded = rows[_rows_by_length(choices, candidates)]  # (n_slots, n_codebooks)
        stored, packed = _packed_codes(coded, candidates, code_width(books.shape[1]))
        significance = _row_weights(weights, len(rows))
        in_turn = codebook_bits == 4 and books.shape[0] * books.shape[1] <= _MOST_IN_TURN
        usage = code_usage(rows, significance, books.shape[1]) if in_turn else None
        kept = codebook_tensors(books, rank, codebook_bits, usage)
        tensors = {**kept, "mean": small_mean(offset), **packed}
        makers: dict[str, Callable[[], Tensors]] = {
            "lengths": lambda: {"lengths": encode_lengths(choices, len(candidates))},
        }
        if words is not None:
            makers["words"] = lambda: _coded_words(words, choices, candidates).tensors()
        for make in _shown(makers) if verbose else makers.values():
            tensors.update(make())
        return cls(tensors, Metadata(candidates, counts, dict(parameters or {}), stored).text())

    # -----------------------------------------------------------------------------------------
    # What the table is

    @property
    def n_words(self) -> int:
        """Rows of the original table, dropped ones included."""
        return sum(self._metadata.counts)

    @property
    def n_dims(self) -> int:
        """Dimensions of a vector."""
        return int(self._tensors["mean"].size)

    @property
    def n_codewords(self) -> int:
        """Codewords of each codebook."""
        return int(self._tensors["codebooks"].shape[1])

    @property
    def n_codebooks(self) -> int:
        """Codebooks, which is the most codes that a word can have."""
        return int(self._tensors["codebooks"].shape[0])

    @property
    def candidates(self) -> tuple[int, ...]:
        """The code lengths that a row may have, ascending."""
        return self._metadata.candidates

    @property
    def parameters(self) -> dict[str, Any]:
        """How it was made: the release, and the compressor's parameters that were not default.

        A fresh copy of what `from_codes` was given.
        """
        return copy.deepcopy(self._metadata.parameters)

    @property
    def words(self) -> list[str] | None:
        """Words that have a code, in the order of their rows; None if the table holds no words."""
        if self._vocabulary is None:
            return None
        with reading(self._source, "vocabulary"):
            in_slots = self._vocabulary.words()
        rows = self._row_of_slot
        return [in_slots[slot] for slot in np.argsort(rows).tolist()]

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of codes, lengths, codebooks (with scales and mean) and vocabulary."""
        nbytes = {name: tensor.nbytes for name, tensor in self._tensors.items()}
        return {
            "codes": nbytes["codes"] + nbytes.get("stored_rows", 0),
            "lengths": nbytes["lengths"],
            "codebooks": sum(nbytes.get(name, 0) for name in _CODEBOOK_TENSORS),
            "vocabulary": sum(nbytes.get(name, 0) for name in WORD_TENSORS),
        }

    @property
    def nbytes(self) -> int:
        """Bytes of codes, lengths and codebooks: all but the vocabulary."""
        sizes = self.sizes
        return sum(sizes.values()) - sizes["vocabulary"]

    @property
    def file_nbytes(self) -> int:
        """Exact size in bytes of the file that `save` writes, header included."""
        return self._file_nbytes_with({}, {})

    @cached_property
    def codebooks(self) -> NDArray[np.float32]:
        """Codebooks as they decode, (n_codebooks, n_codewords, n_dims) float32, read-only."""
        return _read_only(read_codebooks(self._tensors))

    @cached_property
    def mean(self) -> NDArray[np.float32]:
        """The mean vector, (n_dims,) float32, read-only."""
        return _read_only(self._tensors["mean"].astype(np.float32))

    @cached_property
    def code_lengths(self) -> NDArray[np.int64]:
        """Codes of each row, (n_words,) int64, read-only. Decoded when first asked for."""
        return _read_only(np.array(self.candidates, np.int64)[self._choice_of_row])

    @cached_property
    def codes(self) -> NDArray[np.integer]:
        """Codes of each row, (n_words, n_codebooks) int16 or int32, padded with -1, read-only."""
        dtype = np.int16 if self.n_codewords <= 1 << 15 else np.int32
        codes = np.full((self.n_words, self.n_codebooks), -1, dtype)
        rows = self._row_of_slot
        for start in range(0, rows.size, _CHUNK):
            part = rows[start : start + _CHUNK]
            codes[part] = self._codes_of(np.arange(start, start + part.size))
        return _read_only(codes)

    def __len__(self) -> int:
        return self.n_words

    def __contains__(self, word: object) -> bool:
        return isinstance(word, str) and self._slot(word) >= 0

    def __repr__(self) -> str:
        sizes = self.sizes
        words = (
            f"vocabulary={sizes['vocabulary']} bytes"
            if self._vocabulary is not None
            else "no words"
        )
        return (
            f"CompressedTable(n_words={self.n_words}, n_dims={self.n_dims}, "
            f"n_codewords={self.n_codewords}, code_lengths={self.candidates}, "
            f"nbytes={self.nbytes}, {words})"
        )

    # -----------------------------------------------------------------------------------------
    # Words and row ids to vectors

    def __getitem__(self, word: str) -> NDArray[np.float32]:
        """Vector of one word.

        Parameters
        ----------
        word : str

        Returns
        -------
        ndarray of shape (n_dims,), float32

        Raises
        ------
        KeyError
            If the word has no code here.
        TypeError
            If `word` is not a str; row ids go to `vectors`.
        """
        if not isinstance(word, str):
            raise TypeError(f"table[word] takes a str, not {word!r}; for row ids, vectors([17, 4])")
        slot = self._slot(word)
        if slot < 0:
            raise KeyError(f"word {word!r} has no code in this table{self._hint()}")
        try:  # as `reading`, which would take half as long as all the rest
            stored = self._stored_rows
            return self._decoder.vector(slot if stored is None else int(stored[slot]))
        except UNREADABLE as error:
            raise unreadable(self._source, "codes", error) from error

    def rows(self, words: Sequence[str]) -> NDArray[np.int64]:
        """Row ids of words.

        Parameters
        ----------
        words : sequence of str
            Which words to look up.

        Returns
        -------
        ndarray of shape (len(words),), int64
            -1 where a word has no code in this table.

        Raises
        ------
        TypeError
            If `words` is one str or holds anything else than str.
        """
        names = _checked_items(words, self.n_words)
        if not isinstance(names, list):
            if names.size == 0:
                return np.empty(0, np.int64)
            raise TypeError("rows takes words; these are row ids already")
        slots = self._slots(names)
        rows = np.full(slots.shape, -1, np.int64)
        rows[slots >= 0] = self._row_of_slot[slots[slots >= 0]]
        return rows

    def vectors(
        self, items: Sequence[str] | ArrayLike, missing: str = "raise"
    ) -> NDArray[np.float32]:
        """Vectors of many words or rows.

        Parameters
        ----------
        items : sequence of str, or sequence or 1-D array of int
            Words, or row ids from 0 to n_words - 1. A dropped row has the mean vector.
        missing : {"raise", "mean"}, default="raise"
            What a word without a code gets: a KeyError for all, or the mean vector.

        Returns
        -------
        ndarray of shape (len(items), n_dims), float32

        Raises
        ------
        IndexError
            If a row id is out of bounds.
        KeyError
            If words have no code and `missing` is "raise", or the table holds no words at all.
        TypeError
            If `items` is one str, or neither all words nor all row ids.
        ValueError
            If `missing` is neither of the two.
        """
        if missing not in ("raise", "mean"):
            raise ValueError(f"missing={missing!r} must be 'raise' or 'mean'")
        checked = _checked_items(items, self.n_words)
        if not isinstance(checked, list):
            return self._decoded(self._slots_of(checked))
        if self._vocabulary is None:
            raise KeyError(f"words have no code in this table{self._hint()}")
        slots = self._slots(checked)
        if missing == "raise" and (slots < 0).any():
            raise KeyError(_missing_words(checked, slots))
        return self._decoded(slots)

    def __iter__(self) -> Iterator[str]:
        """Go through the words that have a code, in the order of their rows.

        Raises
        ------
        TypeError
            If the table holds no words.
        """
        words = self.words
        if words is None:
            raise TypeError(f"a table without words cannot be gone through{self._hint()}")
        return iter(words)

    def nearest(self, item: str | ArrayLike, k: int = 10) -> list[tuple[str | int, float]]:
        """Words whose vectors point most nearly the same way.

        Parameters
        ----------
        item : str, or array-like of shape (n_dims,)
            A word, which is not among its own nearest, or a vector.
        k : int, default=10
            How many, at least 1.

        Returns
        -------
        list of (word, float)
            The nearest first, with the cosine of the angle between them, from -1 to 1; fewer than
            k where the table has fewer. Row ids in place of words where it holds no words.

        Raises
        ------
        KeyError
            If the word has no code in this table.
        ValueError
            If k is less than 1, or the vector has another shape, is zero or not finite.
        """
        n_wanted = _at_least_one(k, "k")
        query = self._query(item)
        query /= np.linalg.norm(query.astype(np.float64)) or 1.0
        scores = self._products(query) / np.maximum(self._norms, np.finfo(np.float32).tiny)
        if isinstance(item, str):
            scores[self._slot(item)] = -np.inf
        n = min(n_wanted, scores.size - isinstance(item, str))
        first = np.argpartition(-scores, n - 1)[:n] if n else np.empty(0, np.int64)
        first = first[np.argsort(-scores[first], kind="stable")]
        return list(zip(self._names(first), scores[first].tolist(), strict=True))

    def _names(self, slots: NDArray[np.int64]) -> Sequence[str | int]:
        """Words of slots, or row ids in a table without words."""
        if self._vocabulary is None:
            rows: list[int] = self._row_of_slot[slots].tolist()
            return rows
        with reading(self._source, "vocabulary"):
            return self._vocabulary.words_of(slots)

    def _query(self, item: str | ArrayLike) -> NDArray[np.float32]:
        if isinstance(item, str):
            return self[item]
        query = _finite(item, "item", 1)
        if query.shape != (self.n_dims,) or not query.any():
            raise ValueError(
                f"item of shape {query.shape} must be a word or a vector of n_dims={self.n_dims}, "
                "not all zeros"
            )
        return query

    def _products(self, query: NDArray[np.float32]) -> NDArray[np.float32]:
        """Inner products of all slots' vectors with a vector, (n_slots,)."""
        # Sums of codewords' products are products of sums.
        books, mean = self.codebooks @ query[:, None], np.array([self.mean @ query])
        return self._decoded_by(self._decoder_of(books, mean), np.arange(self._n_slots))[:, 0]

    @cached_property
    def _norms(self) -> NDArray[np.float32]:
        norms = np.empty(self._n_slots, np.float32)
        for start in range(0, norms.size, _CHUNK):
            block = self._decoded(np.arange(start, min(start + _CHUNK, norms.size)))
            # Squares of numbers that float32 holds are numbers that float64 holds.
            squares = np.einsum("nd,nd->n", block, block, dtype=np.float64)
            norms[start : start + _CHUNK] = np.sqrt(squares)
        return norms

    # -----------------------------------------------------------------------------------------
    # Documents

    def documents(
        self,
        X: Sequence[Any],
        *,
        pooling: str = "mean",
        tokenizer: Callable[[str], list[str]] | None = None,
        lowercase: bool = True,
    ) -> NDArray[np.float32]:
        """Pooled vectors of documents; what the compressor gives with ``output="vectors"``.

        Parameters
        ----------
        X : sequence of documents
            Of str, of lists of words, or of lists or arrays of row ids.
        pooling : {"mean", "sum"}, default="mean"
            How the vectors of a document's words become one. Words without a code are skipped.
        tokenizer : callable of str to list of str, default=None
            How to split strings; None takes words of two and more letters or digits.
        lowercase : bool, default=True
            Whether strings are made lower case first. Lists of words never are.

        Returns
        -------
        ndarray of shape (n_documents, n_dims), float32
            Zeros for a document none of whose words has a code.

        Raises
        ------
        TypeError, ValueError
            If X is empty or no such sequence, an id is out of bounds, `pooling` is neither of the
            two, or words meet a table without words.
        """
        split = splitter(tokenizer, lowercase)
        return self._pooled(X, self._decoded, self.n_dims, pooling, split)

    def code_features(
        self,
        X: Sequence[Any],
        *,
        pooling: str = "mean",
        tokenizer: Callable[[str], list[str]] | None = None,
        lowercase: bool = True,
    ) -> NDArray[np.float32]:
        """Code features of documents; what the compressor's `transform` gives, as a dense array.

        Errors are those of `documents`.

        Parameters
        ----------
        X : sequence of documents
            Of str, of lists of words, or of lists or arrays of row ids.
        pooling : {"mean", "sum"}, default="mean"
            How the features of a document's words become one row.
        tokenizer : callable of str to list of str, default=None
            How to split strings; None takes words of two and more letters or digits.
        lowercase : bool, default=True
            Whether strings are made lower case first. Lists of words never are.

        Returns
        -------
        ndarray of shape (n_documents, n_codebooks * n_codewords + 1), float32
        """
        n_features = self.n_codebooks * self.n_codewords + 1
        split = splitter(tokenizer, lowercase)
        return self._pooled(X, self._code_rows, n_features, pooling, split)

    def _pooled(
        self,
        X: Sequence[Any],
        features: Callable[[NDArray[np.int64]], NDArray[np.float32]],
        n_features: int,
        pooling: str,
        split: Callable[[str], list[str]],
    ) -> NDArray[np.float32]:
        """Pool what `features` gives for slots."""
        if pooling not in ("mean", "sum"):
            raise ValueError(f"pooling={pooling!r} must be 'mean' or 'sum'")
        find = None if self._vocabulary is None else self._found_rows
        rows, ends = word_ids(X, find, self.n_words, split)
        slots = self._slots_of(rows)
        coded = np.flatnonzero(slots >= 0)
        if coded.size < slots.size:
            slots, ends = slots[coded], coded.searchsorted(ends)
        pooled = np.empty((len(ends) - 1, n_features), np.float32)
        for part in _documents_at_a_time(ends):
            inside = slots[ends[part.start] : ends[part.stop]]
            used, places = _distinct(inside, self._n_slots)
            local = ends[part.start : part.stop + 1] - ends[part.start]
            pooled[part] = segment_sums(features(used), places, local)
        if pooling == "mean":
            pooled /= np.maximum(np.diff(ends), 1)[:, None]
        return pooled

    def _found_rows(self, documents: Iterable[list[str]]) -> Iterator[list[int]]:
        """Row ids of documents' words, looking each word up but once."""
        known: dict[str, int | None] = {}
        documents = iter(documents)
        while batch := list(islice(documents, _BATCH)):
            words = dict.fromkeys(word for document in batch for word in document)
            fresh = [word for word in words if word not in known]
            rows = self.rows(fresh).tolist()
            known.update(zip(fresh, (None if row < 0 else row for row in rows), strict=True))
            yield from looked_up(batch, known)

    def _code_rows(self, slots: NDArray[np.int64]) -> NDArray[np.float32]:
        """Code features (n, n_codebooks * n_codewords + 1) of slots (n,)."""
        features = np.zeros((slots.size, self.n_codebooks * self.n_codewords + 1), np.float32)
        features[:, -1] = 1
        codes = self._codes_of(slots)
        places, books = np.nonzero(codes >= 0)
        features[places, books * self.n_codewords + codes[places, books]] = 1
        return features

    def _hint(self) -> str:
        return "" if self._vocabulary is not None else ": it holds no words, only row ids"

    def _slot(self, word: str) -> int:
        if self._vocabulary is None:
            return -1
        try:
            return self._vocabulary.slot(word)
        except UNREADABLE as error:
            raise unreadable(self._source, "vocabulary", error) from error

    def _slots(self, words: list[str]) -> NDArray[np.int64]:
        if self._vocabulary is None:
            return np.full(len(words), -1, np.int64)
        with reading(self._source, "vocabulary"):
            return self._vocabulary.slots(words)

    def _decoded(self, slots: NDArray[np.int64]) -> NDArray[np.float32]:
        """Vectors (n, n_dims) of slots (n,); the mean vector for a slot of -1."""
        return self._decoded_by(self._decoder, slots)

    def _decoded_by(self, decoder: Decoder, slots: NDArray[np.int64]) -> NDArray[np.float32]:
        with reading(self._source, "codes"):
            return decoder.vectors(self._stored_row_of(slots))

    @cached_property
    def _decoder(self) -> Decoder:
        return self._decoder_of(self.codebooks, self.mean)

    def _decoder_of(self, books: NDArray[np.float32], mean: NDArray[np.float32]) -> Decoder:
        """Decode the codes with other codebooks, (n_codebooks, n_codewords, n_columns)."""
        return Decoder(self._tensors["codes"], self._groups, books, mean)

    def _codes_of(self, slots: NDArray[np.int64]) -> NDArray[np.int64]:
        """Codes (n, n_codebooks) of slots (n,), padded with -1."""
        codes = np.full((slots.size, self.n_codebooks), -1)
        with reading(self._source, "codes"):
            stored = self._stored_row_of(slots)
        for group in self._groups:
            here = np.flatnonzero((stored >= group.first_slot) & (stored < group.last_slot))
            packed = self._tensors["codes"][group.begin : group.end]
            rows = stored[here] - group.first_slot
            places = rows[:, None] * group.length + np.arange(group.length)
            codes[here, : group.length] = unpack(packed, self._width, places)
        self._check_highest(int(codes.max(initial=0)))
        return codes

    def _check_highest(self, code: int) -> None:
        # Bits that no codeword answers to, where n_codewords is no power of two.
        if code >= self.n_codewords:
            raise FormatError(
                f"{self._source}: codes: {code} is out of {self.n_codewords} codewords"
            )

    def _stored_row_of(self, slots: Any) -> Any:
        """Where the codes of slots are stored: an int or an array, as it was given."""
        if self._stored_rows is None:
            return slots
        return np.where(slots < 0, slots, self._stored_rows[slots])

    @cached_property
    def _stored_rows(self) -> NDArray[np.int64] | None:
        """Stored row of each slot, (n_slots,); None where every slot has its own."""
        if "stored_rows" not in self._tensors:
            return None
        width = _place_width(self._groups[-1].last_slot)
        rows = unpack(self._tensors["stored_rows"], width, np.arange(self._n_slots))
        begin = 0
        for group, n_slots in zip(self._groups, self._slot_counts, strict=True):
            part = rows[begin : begin + n_slots]
            if part.min() < group.first_slot or part.max() >= group.last_slot:
                raise ValueError(f"a row of code length {group.length} is stored with others")
            begin += n_slots
        return rows

    @property
    def _slot_counts(self) -> list[int]:
        """Slots of each code length above 0 that occurs."""
        return [
            n
            for length, n in zip(self.candidates, self._metadata.counts, strict=True)
            if length and n
        ]

    @property
    def _n_slots(self) -> int:
        return sum(self._slot_counts)

    @cached_property
    def _choice_of_row(self) -> NDArray[np.uint8]:
        with reading(self._source, "lengths"):
            choices = decode_lengths(self._tensors["lengths"], self.n_words, len(self.candidates))
            counts = np.bincount(choices, minlength=len(self.candidates)).tolist()
            if tuple(counts) != self._metadata.counts:
                raise ValueError(f"counts are {tuple(counts)}, not {self._metadata.counts}")
        return choices

    @cached_property
    def _row_of_slot(self) -> NDArray[np.int64]:
        return _rows_by_length(self._choice_of_row, self.candidates)

    @cached_property
    def _slot_of_row(self) -> NDArray[np.int64]:
        rows = self._row_of_slot  # first, for it sees whether there are as many rows as it says
        slots = np.full(self.n_words, -1, np.int64)
        slots[rows] = np.arange(rows.size)
        return slots

    def _slots_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Slots (n,) of rows (n,), -1 for dropped ones."""
        if len(self.candidates) == 1 and self._groups:
            return rows  # rows of one length lie in their own order
        return self._slot_of_row[rows]

    def _found_vocabulary(self) -> Vocabulary | None:
        present = [name for name in WORD_TENSORS if name in self._tensors]
        if not present:
            return None
        tensors = {name: self._tensors[name] for name in present}
        return Vocabulary.from_tensors(tensors, self._n_slots)

    # -----------------------------------------------------------------------------------------
    # Files and pickles

    def __getstate__(self) -> dict[str, Any]:
        # Always: the tensors, as arrays even where they were memory maps, and the metadata.
        # Never: what is derived from them (decoded lengths, codes, codebooks, word caches), and the
        # file that they came from, which need not be there any more.
        return {
            "tensors": {name: np.array(tensor) for name, tensor in self._tensors.items()},
            "metadata": self._metadata.text(),
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the table to one safetensors file.

        The file takes its name only when it is complete: a failure leaves a former file as it was.

        Parameters
        ----------
        path : str or path-like
            A former file of that name is replaced.

        Raises
        ------
        OSError
            If the file cannot be written.
        """
        self._write_with(path, {}, {})

    def _write_with(
        self, path: str | os.PathLike[str], tensors: Tensors, metadata: Mapping[str, str]
    ) -> None:
        """Write the table and what shares its file."""
        write(path, self._tensors | tensors, {**self._metadata.text(), **metadata})

    def _file_nbytes_with(self, tensors: Tensors, metadata: Mapping[str, str]) -> int:
        return file_nbytes(self._tensors | tensors, {**self._metadata.text(), **metadata})

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, verify: bool = True) -> CompressedTable:
        """Open a file that `save` wrote, memory-mapped: processes that open it share its memory.

        Parameters
        ----------
        path : str or path-like
            What `save` wrote.
        verify : bool, default=True
            Compare the file's checksum first, which takes about a millisecond a megabyte. Without
            it little is read before it is asked for, and damaged codes can give wrong vectors.

        Returns
        -------
        CompressedTable

        Raises
        ------
        FormatError
            If the file is damaged, not one of a CompressedTable, or of a newer format.
        OSError
            If it cannot be read; FileNotFoundError if it is not there.
        """
        return cls(*read(path, verify=verify), os.fspath(path))


def text_lines(table: CompressedTable, items: Sequence[str] | Sequence[int]) -> Iterator[str]:
    """Give a line each: the word and its numbers, as short as float32 can be read back from."""
    for start in range(0, len(items), _LINES):
        part = items[start : start + _LINES]
        # As text here, where float32 still knows how few digits it needs.
        rows = table.vectors(part, missing="mean").astype(str).tolist()
        for item, row in zip(part, rows, strict=True):
            yield f"{item} {' '.join(row)}\n"


# ---------------------------------------------------------------------------------------------
# What users hand in


def _checked_items(items: Any, n_words: int) -> list[str] | NDArray[np.int64]:
    """Words as a list, or row ids (n,) within bounds."""
    if isinstance(items, (str, bytes)):
        raise TypeError(f"items must be a list of words or of row ids, not {items!r}: [{items!r}]")
    if isinstance(items, np.ndarray) and items.dtype.kind in "iu" and items.ndim == 1:
        return _checked_ids(items, n_words)
    listed = list(items)
    if all(isinstance(item, str) for item in listed):
        return listed if listed else np.empty(0, np.int64)
    for position, item in enumerate(listed):
        if isinstance(item, (bool, np.bool_)) or not isinstance(item, (int, np.integer)):
            raise TypeError(
                f"items must be all words or all row ids, but items[{position}] is {item!r} "
                f"of type {type(item).__name__}"
            )
    return _checked_ids(listed, n_words)


def _checked_ids(ids: Any, n_words: int) -> NDArray[np.int64]:
    try:
        array = np.asarray(ids)
        if array.size == 0 or (array.min() >= 0 and array.max() < n_words):
            return array.astype(np.int64, copy=False)
        outside = (array < 0) | (array >= n_words)
    except OverflowError:
        outside = np.array([not 0 <= item < n_words for item in ids])
    position = int(outside.argmax())
    raise IndexError(
        f"items[{position}] is {ids[position]}, but row ids must be from 0 to {n_words - 1} "
        f"(n_words={n_words})"
    )


def _at_least_one(value: Any, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ValueError(f"{name}={value!r} must be an int of at least 1")
    return int(value)


def _documents_at_a_time(ends: NDArray[np.int64]) -> Iterator[slice]:
    """Cut documents into runs of about `_CHUNK` words, and of one document at least."""
    start = 0
    while start < len(ends) - 1:
        stop = int(np.searchsorted(ends, ends[start] + _CHUNK, side="right")) - 1
        stop = max(stop, start + 1)
        yield slice(start, stop)
        start = stop


def _distinct(
    slots: NDArray[np.int64], n_slots: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Sorted distinct slots, and each one's place among them; `np.unique` would sort them all."""
    occurs = np.zeros(n_slots, bool)
    occurs[slots] = True
    used = np.flatnonzero(occurs)
    place = np.empty(n_slots, np.int64)
    place[used] = np.arange(used.size)
    return used, place[slots]


def _missing_words(words: list[str], slots: NDArray[np.int64]) -> str:
    absent = [words[place] for place in np.flatnonzero(slots < 0).tolist()]
    named = ", ".join(repr(word) for word in list(dict.fromkeys(absent))[:_N_NAMED])
    return (
        f"{len(absent)} of {len(words)} words have no code in this table: {named}"
        f"{', ...' if len(set(absent)) > _N_NAMED else ''}; "
        f"missing='mean' gives them the mean vector"
    )


def _finite(values: ArrayLike, name: str, n_dimensions: int) -> NDArray[np.float32]:
    given = np.asarray(values)
    if given.ndim != n_dimensions or given.dtype.kind not in "fiu":
        raise ValueError(
            f"{name} must be numbers of {n_dimensions} dimensions, "
            f"not {given.dtype} of shape {given.shape}"
        )
    with np.errstate(over="ignore"):  # what overflows is reported below
        array = given.astype(np.float32)
    if not _is_bounded(array):
        raise ValueError(f"{name} must be finite, at most {LARGEST:g}, but has nan, inf or more")
    return array


def _is_bounded(array: NDArray[Any]) -> bool:
    return bool((np.abs(array.astype(np.float32)) <= LARGEST).all())  # never true of nan


def _check_candidates(candidates: tuple[int, ...], n_codebooks: int) -> None:
    ascending = all(one < other for one, other in pairwise(candidates))
    within = bool(candidates) and candidates[0] >= 0 and candidates[-1] <= n_codebooks
    if not ascending or not within or len(candidates) > MAX_CANDIDATES:
        raise ValueError(
            f"code_lengths={candidates} must be 1 to {MAX_CANDIDATES} ascending integers "
            f"from 0 to the {n_codebooks} codebooks there are"
        )


def _row_weights(weights: ArrayLike | None, n_words: int) -> NDArray[np.float32]:
    """Check how much each row counts; without weights all count alike."""
    if weights is None:
        return np.ones(n_words, np.float32)
    counts = _finite(weights, "weights", 1)
    least = counts.min(initial=0.0)
    if counts.size != n_words or least < 0:
        raise ValueError(
            f"weights must be {n_words} numbers of at least 0, one a row of codes; "
            f"they are {counts.size} numbers of at least {least:g}"
        )
    return counts


def _checked_codes(codes: ArrayLike, n_codebooks: int, n_codewords: int) -> NDArray[np.integer]:
    code_width(n_codewords)  # refuses a number of codewords out of bounds
    rows = np.asarray(codes)
    if rows.size == 0 and rows.ndim == 2:
        rows = rows.astype(np.int64)
    if rows.ndim != 2 or rows.shape[1] != n_codebooks or rows.dtype.kind not in "iu":
        raise ValueError(
            f"codes must be integers of shape (n_words, {n_codebooks}), one column a codebook, "
            f"not {rows.dtype} of shape {rows.shape}"
        )
    _refuse_rows(
        ((rows < -1) | (rows >= n_codewords)).any(axis=1),
        lambda row: f"{rows[row].tolist()} must be from -1 to {n_codewords - 1}",
    )
    _refuse_rows(
        ((rows[:, 1:] >= 0) & (rows[:, :-1] < 0)).any(axis=1),
        lambda row: f"{rows[row].tolist()} has a code after a -1",
    )
    return rows


def _choices(rows: NDArray[np.integer], candidates: tuple[int, ...]) -> NDArray[np.int64]:
    """Index into candidates of each row's code length."""
    lengths = (rows >= 0).sum(axis=1)
    choices = np.minimum(np.searchsorted(candidates, lengths), len(candidates) - 1)
    _refuse_rows(
        np.array(candidates)[choices] != lengths,
        lambda row: f"code length {lengths[row]} is none of code_lengths={candidates}",
    )
    return choices


def _refuse_rows(refused: Any, why: Callable[[int], str]) -> None:
    if refused.any():
        row = int(refused.argmax())
        raise ValueError(f"codes: row {row}: {why(row)}")


# ---------------------------------------------------------------------------------------------
# Arrays to tensors


def small_mean(mean: NDArray[np.float32]) -> NDArray[Any]:
    """Give the mean vector as it is kept: float16 where that holds it, else float32."""
    with np.errstate(over="ignore"):
        half = mean.astype(DTYPES["F16"])
        error = np.abs(half.astype(np.float32) - mean).max(initial=0.0)
    fits = error <= _MEAN_TOLERANCE * np.abs(mean).max(initial=0.0)
    return half if fits else mean.astype(DTYPES["F32"])


def _rows_by_length(choices: NDArray[np.integer], candidates: tuple[int, ...]) -> NDArray[np.int64]:
    """Rows that have a code, by code length and then by row: the row of each slot."""
    order = np.argsort(choices, kind="stable")
    n_dropped = int((choices == 0).sum()) if candidates[0] == 0 else 0
    return order[n_dropped:]


def _packed_codes(
    coded: NDArray[np.integer], candidates: tuple[int, ...], width: int
) -> tuple[tuple[int, ...], Tensors]:
    """Pack the codes of slots, each distinct row once if that is smaller.

    Returns
    -------
    stored : tuple of int
        Distinct rows of each candidate's length, or nothing where every slot's row is packed.
    tensors : dict of str to ndarray
    """
    firsts, stored_rows = _equal_rows(coded)
    place_width = _place_width(firsts.size)
    whole, stored = (_edges(rows, candidates) for rows in (coded, coded[firsts]))
    saved = _runs_nbytes(whole, candidates, width) - _runs_nbytes(stored, candidates, width)
    if saved <= packed_nbytes(len(coded), place_width):
        return (), {"codes": _runs(coded, whole, candidates, width)}
    codes = _runs(coded[firsts], stored, candidates, width)
    counts = tuple(np.diff(stored).tolist())
    return counts, {"codes": codes, "stored_rows": pack(stored_rows, place_width)}


def _equal_rows(
    coded: NDArray[np.integer],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where each distinct row comes first, in that order, and which of these every row equals."""
    keys = np.zeros(len(coded), np.int64)
    for column in coded.T:  # numbers sort faster than rows, and need less room
        keys = keys * _KEY_FACTOR + column
    _, firsts, which = np.unique(keys, return_index=True, return_inverse=True)
    if not np.array_equal(coded[firsts][which], coded):  # two rows have one key: take all
        return np.arange(len(coded)), np.arange(len(coded))
    order = np.argsort(firsts)
    places = np.empty_like(order)
    places[order] = np.arange(order.size)
    return firsts[order], places[which]


def _edges(coded: NDArray[np.integer], candidates: tuple[int, ...]) -> list[int]:
    """Where, of rows in the order of their lengths, those of each length begin and end."""
    lengths = (coded >= 0).sum(axis=1)
    edges: list[int] = lengths.searchsorted([*candidates, candidates[-1] + 1]).tolist()
    return edges


def _runs(
    coded: NDArray[np.integer], edges: list[int], candidates: tuple[int, ...], width: int
) -> NDArray[np.uint8]:
    """Pack rows: one run a length, each from a whole byte on."""
    runs = [
        pack(coded[begin:end, :length], width)
        for length, (begin, end) in zip(candidates, pairwise(edges), strict=True)
    ]
    return np.concatenate(runs)


def _runs_nbytes(edges: list[int], candidates: tuple[int, ...], width: int) -> int:
    """Bytes that `_runs` makes."""
    spans = zip(candidates, pairwise(edges), strict=True)
    return sum(packed_nbytes((end - begin) * length, width) for length, (begin, end) in spans)


def _place_width(n_rows: int) -> int:
    """Bits that say which stored row."""
    return max(n_rows - 1, 0).bit_length()


def _coded_words(
    words: Sequence[str], choices: NDArray[np.int64], candidates: tuple[int, ...]
) -> Vocabulary:
    names = list(words)
    if isinstance(words, str) or len(names) != choices.size:
        raise ValueError(f"words must be {choices.size} str, one a row of codes, not {len(names)}")
    rows = _rows_by_length(choices, candidates)
    return Vocabulary.build([names[row] for row in rows], np.arange(rows.size))


def _shown(makers: dict[str, Callable[[], Tensors]]) -> Iterator[Callable[[], Tensors]]:
    """Give what makes each part of the table, with a progress bar."""
    from tqdm.auto import tqdm

    with tqdm(makers.items(), desc="writing", unit="part", leave=False) as bar:
        for name, make in bar:
            bar.set_postfix_str(name)
            yield make


def _read_only(array: NDArray[Any]) -> NDArray[Any]:
    array.flags.writeable = False
    return array


# ---------------------------------------------------------------------------------------------
# Tensors and metadata that fit each other


def _check_numbers(tensors: Tensors) -> None:
    for name in ("scales", "axis_scales", "mean"):
        if name in tensors and not _is_bounded(tensors[name]):
            raise ValueError(f"tensor {name!r} must be finite, at most {LARGEST:g}")
    if "axes" in tensors and tensors["scales"].size and tensors["axis_scales"].size:
        most = float(tensors["scales"].max()) * float(tensors["axis_scales"].max())
        if most > LARGEST:
            raise ValueError(f"scales and axis_scales multiply to {most:g}, above {LARGEST:g}")


def _groups(metadata: Metadata, width: int) -> list[Group]:
    """Lay out the groups of the code lengths above 0 that occur."""
    groups, row, begin = [], 0, 0
    for length, n_rows in zip(
        metadata.candidates, metadata.stored or metadata.counts, strict=False
    ):
        if length and n_rows:
            end = begin + packed_nbytes(n_rows * length, width)
            groups.append(Group(length, row, n_rows, begin, end))
            row, begin = row + n_rows, end
    return groups


def _check_stored(tensors: Tensors, metadata: Metadata) -> None:
    candidates, counts, _, stored = metadata
    fits = bool(stored) == ("stored_rows" in tensors)
    if stored and fits:
        n_slots = sum(n for length, n in zip(candidates, counts, strict=True) if length)
        n_rows = sum(n for length, n in zip(candidates, stored, strict=False) if length)
        fits = tensors["stored_rows"].size == packed_nbytes(n_slots, _place_width(n_rows))
        fits &= len(stored) == len(counts) and all(
            not length or min(n, 1) <= n_stored <= n
            for length, n, n_stored in zip(candidates, counts, stored, strict=False)
        )
    if not fits:
        raise ValueError(f"stored rows {stored} do not fit counts {counts}")


def _check_rows(tensors: Tensors, metadata: Metadata, groups: list[Group]) -> None:
    candidates, counts, *_ = metadata
    if len(counts) != len(candidates) or sum(counts) >= _MAX_WORDS:
        raise ValueError(f"counts {counts} do not fit candidates {candidates}")
    n_bytes = sum(tensor.nbytes for tensor in tensors.values())
    if sum(counts) > max(_FREE_ROWS, _MOST_ROWS_A_BYTE * n_bytes):
        raise ValueError(f"counts {counts} are more rows than {n_bytes} bytes can tell of")
    _check_stored(tensors, metadata)
    expected = groups[-1].end if groups else 0
    if tensors["codes"].size != expected:
        raise ValueError(
            f"codes have {tensors['codes'].size} bytes, but counts {counts} of code lengths "
            f"{candidates} need {expected}"
        )
