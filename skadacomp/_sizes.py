"""What a choice of code lengths takes on disk: the sizes that training has to meet."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from skadacomp._codes import code_width, lengths_nbytes, packed_nbytes
from skadacomp._compressed import CompressedTable
from skadacomp._table import EmbeddingTable
from skadacomp._vocabulary import vocabulary_nbytes

if TYPE_CHECKING:
    from skadacomp._learning import Budget, Rate

_HEADER_SLACK = 32  # bytes by which the numbers in a file's header may grow


class SizeModel:
    """Sizes of the compressed table for any choice of lengths, without its codes.

    Parameters
    ----------
    table : EmbeddingTable
    candidates : tuple of int
        The code lengths to choose from.
    n_codewords : int
        Codewords in a codebook.
    """

    def __init__(
        self, table: EmbeddingTable, candidates: tuple[int, ...], n_codewords: int
    ) -> None:
        self.words = None if table.words is None else np.array(table.words, dtype=object)
        self.n_words = table.n_words
        self.candidates = np.array(candidates)
        self.width = code_width(n_codewords)
        # All that does not depend on the lengths: header, codebooks, mean.
        shape = (self.candidates[-1], n_codewords, table.n_dims)
        empty = CompressedTable.from_codes(
            np.full((1, shape[0]), -1),
            np.zeros(shape),
            np.zeros(table.n_dims),
            None if table.words is None else [""],
            code_lengths=(0, *(n for n in candidates if n)),
        )
        self.fixed_nbytes = empty.file_nbytes - empty.sizes["lengths"] + _HEADER_SLACK

    def code_nbytes(self, choices: NDArray[np.uint8]) -> int:
        """Bytes of codes and lengths."""
        counts = np.bincount(choices, minlength=len(self.candidates))
        codes = sum(
            packed_nbytes(int(n * length), self.width)
            for n, length in zip(counts, self.candidates, strict=True)
        )
        return codes + lengths_nbytes(choices, len(self.candidates))

    def file_nbytes(self, choices: NDArray[np.uint8]) -> int:
        """Bytes of the file, at most."""
        words = 0
        if self.words is not None:
            words = vocabulary_nbytes(self.words[self.candidates[choices] > 0].tolist())
        return self.fixed_nbytes + self.code_nbytes(choices) + words

    def bits_per_word(self, choices: NDArray[np.uint8]) -> float:
        """Mean bits of codes and lengths, over all words."""
        return 8 * self.code_nbytes(choices) / self.n_words

    def rate(self, *, count_words: bool) -> Rate:
        """What lengths cost in bits, the words' place in the vocabulary included or not."""
        from skadacomp._learning import Rate

        word_bits = np.zeros(self.n_words)
        if count_words and self.words is not None:
            sample = self.words[: 2**15]  # the frequent words: those that will be kept
            lengths = np.array([len(word.encode("utf-8", "surrogatepass")) for word in self.words])
            # What a word takes grows with its letters; the scale is measured.
            scale = 8 * vocabulary_nbytes(sample.tolist()) / lengths[: len(sample)].sum()
            word_bits = scale * lengths
        return Rate(tuple(self.candidates.tolist()), self.width, word_bits)

    def budget(self, *, bits_per_word: float | None, max_bytes: float | None) -> Budget | None:
        """Turn the parameters into a budget, or None without one.

        Raises
        ------
        ValueError
            If both are given, or the one given is less than is possible.
        """
        from skadacomp._learning import Budget

        if bits_per_word is not None and max_bytes is not None:
            raise ValueError(
                f"bits_per_word={bits_per_word} and max_bytes={max_bytes} are two budgets; give "
                "one of them."
            )
        if bits_per_word is None and max_bytes is None:
            return None
        name, limit, size_of = (
            ("bits_per_word", bits_per_word, self.bits_per_word)
            if max_bytes is None
            else ("max_bytes", max_bytes, self.file_nbytes)
        )
        least = size_of(np.zeros(self.n_words, np.uint8))
        if limit < least:
            raise ValueError(
                f"{name}={limit} is too small to meet: the smallest possible is {least:.6g}, with "
                f"every word at code length {self.candidates[0]}. Raise it, or give smaller "
                "code_lengths or n_codewords."
            )
        return Budget(limit, size_of)
