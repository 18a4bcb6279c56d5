"""What a choice of code lengths takes on disk: the sizes that training has to meet."""

from __future__ import annotations

import math
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from skadacomp._codebooks import codebook_shapes
from skadacomp._codes import code_width, lengths_nbytes, packed_nbytes
from skadacomp._compressed import small_mean
from skadacomp._format import Metadata, Shaped, TensorShape, file_nbytes
from skadacomp._mapped import mean_row
from skadacomp._table import EmbeddingTable
from skadacomp._vocabulary import SortedWords

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from skadacomp._learning import Budget, Rate

_BYTE = np.dtype("u1")


class SizeModel:
    """Exact sizes of the compressed table for any choice of lengths, without its codes.

    A choice is an array of shape (n_words,), uint8: the index of each word's candidate. The
    table's own bytes are known by then.

    Parameters
    ----------
    table : EmbeddingTable
        Whose mean vector the compressed table keeps.
    candidates : tuple of int
        The code lengths to choose from.
    n_codewords : int
        Codewords in a codebook.
    parameters : mapping of str to anything that JSON can hold
        What the compressed table will keep of its making.
    codebook_bits : {4, 8}, default=8
        Of a number of the codebooks or, where they share axes, of the axes.
    """

    def __init__(
        self,
        table: EmbeddingTable,
        candidates: tuple[int, ...],
        n_codewords: int,
        parameters: Mapping[str, Any],
        codebook_bits: int = 8,
    ) -> None:
        self.table = table
        self.n_words = table.n_words
        self.candidates = np.array(candidates)
        self.width = code_width(n_codewords)
        self.parameters = dict(parameters)
        self.codebooks = (candidates[-1], n_codewords, table.n_dims)
        self.codebook_bits = codebook_bits
        self.mean: Shaped = small_mean(mean_row(table.vectors).astype(np.float32))

    @cached_property
    def words(self) -> SortedWords | None:
        """The table's words, sorted once for all choices; None if it has none."""
        return None if self.table.words is None else SortedWords(self.table.words)

    def file_nbytes(self, choices: NDArray[np.uint8], rank: int | None) -> int:
        """Bytes of the file, header and vocabulary included, with codebooks of that rank."""
        shapes = self._code_shapes(choices)
        if self.words is not None:
            shapes |= self.words.shapes(self.candidates[choices] > 0)
        tensors = {name: TensorShape(_BYTE, shape) for name, shape in shapes.items()}
        metadata = Metadata(tuple(self.candidates.tolist()), self._counts(choices), self.parameters)
        books = codebook_shapes(self.codebooks, rank, self.codebook_bits)
        fixed = {"mean": self.mean, **books}
        return file_nbytes({**fixed, **tensors}, metadata.text())

    def bits_per_word(self, choices: NDArray[np.uint8], rank: int | None = None) -> float:
        """Mean bits of codes and lengths, over all words; codebooks of any rank are not in it."""
        return 8 * sum(map(math.prod, self._code_shapes(choices).values())) / self.n_words

    def _counts(self, choices: NDArray[np.uint8]) -> tuple[int, ...]:
        return tuple(np.bincount(choices, minlength=len(self.candidates)).tolist())

    def _code_shapes(self, choices: NDArray[np.uint8]) -> dict[str, tuple[int, ...]]:
        n_codes = self.candidates * self._counts(choices)
        return {
            # Each length's codes begin on a whole byte.
            "codes": (sum(packed_nbytes(int(n), self.width) for n in n_codes),),
            "lengths": (lengths_nbytes(choices, len(self.candidates)),),
        }

    def rate(self, *, count_words: bool) -> Rate:
        """Give what lengths cost in bits, the words' place in the vocabulary included or not."""
        from skadacomp._learning import Rate

        word_bits = np.zeros(self.n_words)
        if count_words and self.words is not None:
            # What a word takes grows with its letters; the scale is measured.
            n_bytes = self.words.n_bytes
            sample = np.arange(self.n_words) < 2**15  # the frequent words: those that will be kept
            nbytes = sum(map(math.prod, self.words.shapes(sample).values()))
            word_bits = 8 * nbytes / n_bytes[sample].sum() * n_bytes
        return Rate(tuple(self.candidates.tolist()), self.width, word_bits)

    def budget(self, *, bits_per_word: float | None, max_bytes: float | None) -> Budget | None:
        """Turn the parameters into a budget, or None without one.

        Raises
        ------
        ValueError
            If both are given, or the one given is less than is possible.
        """
        if bits_per_word is not None and max_bytes is not None:
            raise ValueError(
                f"bits_per_word={bits_per_word} and max_bytes={max_bytes} are two budgets; give "
                "one of them."
            )
        if bits_per_word is not None:
            return self._budget("bits_per_word", bits_per_word, self.bits_per_word)
        if max_bytes is not None:
            return self._budget("max_bytes", max_bytes, self.file_nbytes)
        return None

    def _budget(
        self,
        name: str,
        limit: float,
        size_of: Callable[[NDArray[np.uint8], int | None], float],
    ) -> Budget:
        from skadacomp._learning import Budget

        least = size_of(np.zeros(self.n_words, np.uint8), 1)
        if limit < least:
            raise ValueError(
                f"{name}={limit} is too small to meet: the smallest possible is {least:.6g}, with "
                f"every word at code length {self.candidates[0]}. Raise it, or give smaller "
                "code_lengths or n_codewords."
            )
        return Budget(limit, size_of)
