"""The embedding table: words and their vectors, immutable, opened from what users have."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, NoReturn
from weakref import WeakSet

import joblib
import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from sklearn.utils import check_array

from skadacomp._mapped import take_rows
from skadacomp._readers import Given, Read, content_of, named, object_reader, read_path

__all__ = ["DetachedTable", "EmbeddingTable", "as_table", "is_frame", "is_table"]

Float32Array = npt.NDArray[np.float32]

# Values looked at in one go: a table larger than memory is read, never copied whole.
_CHUNK_VALUES = 2**20

_ACCEPTED = (
    "an EmbeddingTable, a 2-D array of numbers (n_words, n_dims), a DataFrame indexed by words, "
    "a gensim KeyedVectors, a model2vec StaticModel, spaCy's vectors, a torch.nn.Embedding, or the "
    "path of a file"
)


class EmbeddingTable:
    """Words and their vectors, as one immutable value.

    A table is a resource, not data: scikit-learn's ``clone``, ``copy.copy`` and
    ``copy.deepcopy`` hand back the same object, so a grid search never copies it.

    Parameters
    ----------
    words : sequence of str, length n_words, or None
        The distinct words, in row order. None for a table whose rows have no names.
    vectors : array-like of real numbers, shape (n_words, n_dims)
        One row a word. An array that is C-contiguous native float32 already, memory-mapped
        or not, is kept without a copy (and without making the caller's own array
        read-only); anything else is converted to float32.

    Attributes
    ----------
    words : tuple of str, length n_words, or None
        The words, in row order.
    vectors : ndarray of float32, shape (n_words, n_dims)
        The vectors, read-only.
    index : dict of str to int, or None
        The row of each word, made on first use. None for a table without words.
    n_words, n_dims : int
        Rows and columns of the table.
    nbytes : int
        Bytes of the float32 vectors.
    fingerprint : str
        Hash of words and vectors, made on first use: the same for the same content.

    Raises
    ------
    TypeError
        If `words` is no sequence of str, or `vectors` holds anything but real numbers or is
        sparse.
    ValueError
        If a word occurs twice, the lengths differ, `vectors` is not 2-D, has no rows or no
        columns, is complex, or holds NaN, infinity or a value too large for float32.

    Examples
    --------
    >>> from skadacomp import EmbeddingTable
    >>> table = EmbeddingTable(["coffee", "tea"], [[0.5, 1.0, 0.0], [0.25, 1.0, -1.0]])
    >>> table["tea"]
    array([ 0.25,  1.  , -1.  ], dtype=float32)
    >>> table
    EmbeddingTable(2 words × 3 dims, 24 bytes)
    """

    words: tuple[str, ...] | None
    vectors: Float32Array

    def __init__(self, words: Iterable[str] | None, vectors: npt.ArrayLike) -> None:
        numbers = _real_matrix(vectors, "vectors")
        names = None if words is None else _distinct_words(words, numbers.shape[0])
        float32 = _as_float32(numbers)
        _check_finite(float32, numbers, names)
        self._set(names, float32)

    @classmethod
    def open(
        cls,
        path: Any,
        words: Iterable[str] | os.PathLike[str] | None = None,
        *,
        tokenizer: Any = None,
        tensor: str | None = None,
        member: str | None = None,
        cache: bool | str | os.PathLike[str] = False,
        verbose: int = 0,
    ) -> EmbeddingTable:
        r"""Open a table from a file or folder; `from_object` is for what is in memory.

        ==========================  =======================================  ==========
        path                        holds                                    read with
        ==========================  =======================================  ==========
        ``.txt``, ``.vec``          text of GloVe, word2vec or fastText
        ``.txt.gz`` and the like    such text in ``.gz``, ``.bz2``,
                                    ``.xz`` or ``.zip``
        ``.bin``                    word2vec's binary format, in ``.gz``,    gensim
                                    ``.bz2`` or ``.xz`` too; fastText's
        ``.kv``, ``.model``         KeyedVectors and models of gensim        gensim
        ``.npy``                    a 2-D array, which stays memory-mapped
        ``.safetensors``            a transformer's input table, or the
                                    only 2-D float tensor
        folder of a transformer     ``model.safetensors``, in shards too,    tokenizers
                                    and ``tokenizer.json``
        folder of a StaticModel     what model2vec saves                     model2vec
        folder of spaCy             a pipeline, Vocab or Vectors             spacy
        ==========================  =======================================  ==========

        The packages in the last column are extras: ``pip install "skadacomp[gensim]"``. ``.kv`` and
        ``.model`` are pickles: open only those you trust.

        Parameters
        ----------
        path : str or os.PathLike
            The file, told by its suffix, or the folder. Text is UTF-8, with or without a header
            line; a word may hold spaces, the last n_dims fields are its vector. A word that comes
            twice keeps its first vector.
        words : sequence of str, str or os.PathLike, default=None
            For ``.npy``, ``.safetensors`` and transformers: the words in row order, or the path of
            a UTF-8 file with one word a line or with a JSON list. For a file, None takes
            ``<stem>.words.json``, ``<stem>.words.txt`` or ``<stem>.txt`` beside it where there is
            one, and else makes a table without words.
        tokenizer : tokenizer, str or os.PathLike, default=None
            Instead of `words`: a tokenizer of the package tokenizers or transformers, or the path
            of a ``tokenizer.json``. Its pieces are the words, in order of their ids; up to 1,024
            rows beyond the last id are taken for padding and left out.
        tensor : str, default=None
            Which tensor of a ``.safetensors`` file, or a transformer's folder, is the table. None
            takes the only 2-D float tensor, or that with one of the usual names of an input table,
            such as ``embeddings.word_embeddings.weight`` or ``model.embed_tokens.weight``.
        member : str, default=None
            Which file in a ``.zip``; None if there is only one.
        cache : bool, str or os.PathLike, default=False
            Whether to keep what was read of a text or ``.bin`` file, so that the next time it is
            memory-mapped: True keeps it beside the file, as ``<name>.npy`` and
            ``<name>.words.json``, a path that ends in ``.npy`` there. It is read anew when the
            file's size or time of change is another.
        verbose : int, default=0
            Above 0, a bar shows how much of a text file is read.

        Returns
        -------
        EmbeddingTable
            The table; memory-mapped where it is cached, or an ``.npy`` file in C order and float32.

        Raises
        ------
        FileNotFoundError
            If `path`, or `words` or `tokenizer` as a path, does not exist.
        ImportError
            If the package that reads it is not installed.
        TypeError
            If an argument is of a type that is not among the above.
        FormatError
            If `path` is of no kind above, its content is not what it says or is cut off, or it is
            unpacked to more than 100 times its size. A ValueError, too.
        ValueError
            If an argument is not for its kind.

        Examples
        --------
        >>> import gzip, pathlib, tempfile
        >>> from skadacomp import EmbeddingTable
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, "drinks.txt.gz")
        ...     _ = path.write_bytes(gzip.compress(b"coffee 0.5 1.0\ngreen tea 0.25 1.0\n"))
        ...     EmbeddingTable.open(path).words
        ('coffee', 'green tea')
        """
        if not isinstance(path, (str, os.PathLike)):
            return cls.from_object(path, words, tokenizer=tokenizer)
        given = Given(words, tokenizer, tensor, member, cache, verbose)
        read = read_path(Path(path).expanduser(), given)
        if read.note:
            warnings.warn(read.note, stacklevel=2)
        with content_of(Path(path)):
            return cls(read.words, read.vectors)

    @classmethod
    def from_object(
        cls,
        embeddings: Any,
        words: Iterable[str] | os.PathLike[str] | None = None,
        *,
        tokenizer: Any = None,
    ) -> EmbeddingTable:
        """Make a table of an object in memory; `open` is for files.

        ===============================  =================================================
        embeddings                       words
        ===============================  =================================================
        EmbeddingTable                   its own
        2-D array-like of numbers        `words`, or pieces of `tokenizer`, or none
        DataFrame                        its index if all of it is str; else as of arrays
        gensim KeyedVectors or model     its own
        model2vec StaticModel            its own: the pieces of its tokenizer
        spaCy Language, Vocab, Vectors   its own: those with a vector, in order of the rows
        torch.nn.Embedding               as of arrays; the weight is copied
        ===============================  =================================================

        `AdaptiveCodebookCompressor.fit` takes all of these, and the path of a file. A grid search
        copies its parameters, so give it an EmbeddingTable, which is never copied.

        Parameters
        ----------
        embeddings : object
            One of the above, recognised by its type: no package is imported for it. A path is
            opened.
        words : sequence of str, str or os.PathLike, default=None
            For a table without words of its own: its words in row order, or the path of a UTF-8
            file with one word a line or with a JSON list.
        tokenizer : tokenizer, str or os.PathLike, default=None
            Instead of `words`: see `open`.

        Returns
        -------
        EmbeddingTable
            The table. An EmbeddingTable is returned itself, unless it gets words.

        Raises
        ------
        TypeError
            If `embeddings` is of another type or sparse, or holds what is no number.
        ValueError
            If it is not 2-D, empty, complex, or not finite in float32; or has words of its own and
            more are given.

        Examples
        --------
        >>> import numpy as np
        >>> from skadacomp import EmbeddingTable
        >>> EmbeddingTable.from_object(np.ones((2, 3)), words=["coffee", "tea"])
        EmbeddingTable(2 words × 3 dims, 24 bytes)
        """
        return _of_object(embeddings, words, tokenizer)

    @property
    def n_words(self) -> int:
        """Rows of the table."""
        return len(self.vectors)

    @property
    def n_dims(self) -> int:
        """Columns of the table."""
        return int(self.vectors.shape[1])

    @property
    def nbytes(self) -> int:
        """Bytes of the float32 vectors."""
        return int(self.vectors.nbytes)

    @property
    def index(self) -> dict[str, int] | None:
        """The row of each word, made on first use; None for a table without words."""
        if self.words is None:
            return None
        if "_index" not in self.__dict__:
            self.__dict__["_index"] = {word: row for row, word in enumerate(self.words)}
        cached: dict[str, int] = self.__dict__["_index"]
        return cached

    def __len__(self) -> int:
        return self.n_words

    def __contains__(self, word: object) -> bool:
        return word in (self.index or ())

    def __getitem__(self, word: str) -> Float32Array:
        """Vector of one word, shape (n_dims,); KeyError if the table lacks it."""
        if self.index is None:
            raise KeyError(f"{word!r}: this table has no words; take rows from its vectors")
        row: Float32Array = self.vectors[self.index[word]]
        return row

    # Without this, iterating would fall back on __getitem__ with 0, 1, 2, ... as words.
    __iter__ = None

    def __repr__(self) -> str:
        rows = "rows" if self.words is None else "words"
        return (
            f"EmbeddingTable({self.n_words} {rows} × {self.n_dims} dims, {_in_bytes(self.nbytes)})"
        )

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"an EmbeddingTable is immutable: cannot set {name!r}")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"an EmbeddingTable is immutable: cannot delete {name!r}")

    def __sklearn_clone__(self) -> EmbeddingTable:
        return self

    def __copy__(self) -> EmbeddingTable:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> EmbeddingTable:
        return self

    @property
    def fingerprint(self) -> str:
        """Hash of words and vectors, made on first use: the same for the same content."""
        if "_fingerprint" not in self.__dict__:
            self.__dict__["_fingerprint"] = joblib.hash(self)
        cached: str = self.__dict__["_fingerprint"]
        return cached

    def __getstate__(self) -> dict[str, Any]:
        """Words and vectors always go in; what is quick to remake, such as the index, never does.

        joblib hashes this to tell tables apart, so words are one str: it goes through one by one in
        Python. Equal tables have equal states.
        """
        words = None if self.words is None else _Joined.of(self.words)
        # A pickled memmap would come back as one without a file: send it as a plain array.
        return {"words": words, "vectors": np.asarray(self.vectors)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        words = state["words"]
        self._set(None if words is None else words.split(), state["vectors"])

    def _set(self, words: tuple[str, ...] | None, vectors: Float32Array) -> None:
        vectors = vectors.view()  # the flag below is this view's, not the caller's
        vectors.flags.writeable = False
        self.__dict__.update(words=words, vectors=vectors)
        _TABLES.add(self)


class _Joined(NamedTuple):
    """Words as one str, and where each ends in it."""

    text: str
    ends: npt.NDArray[np.int64]

    @classmethod
    def of(cls, words: tuple[str, ...]) -> _Joined:
        return cls("".join(words), np.cumsum([len(word) for word in words]))

    def split(self) -> tuple[str, ...]:
        return tuple(self.text[a:b] for a, b in pairwise([0, *self.ends.tolist()]))


# Those that this process has, for pickles that left theirs out.
_TABLES: WeakSet[EmbeddingTable] = WeakSet()


@dataclass(frozen=True)
class DetachedTable:
    """Stands in a pickle for the table that it leaves out.

    Where the process that unpickles it has that very table, the table itself comes back.

    Parameters
    ----------
    n_words, n_dims : int
        Shape of the table that was there.
    fingerprint : str, default=None
        Of the table; None where it was no EmbeddingTable, and cannot be known again.
    """

    n_words: int
    n_dims: int
    fingerprint: str | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return _found_or_detached, (self.n_words, self.n_dims, self.fingerprint)

    def __repr__(self) -> str:
        return f"DetachedTable({self.n_words} words × {self.n_dims} dims, left out of the pickle)"


def _found_or_detached(
    n_words: int, n_dims: int, fingerprint: str | None
) -> EmbeddingTable | DetachedTable:
    for table in [] if fingerprint is None else list(_TABLES):
        if (table.n_words, table.n_dims) == (n_words, n_dims) and table.fingerprint == fingerprint:
            return table
    return DetachedTable(n_words, n_dims, fingerprint)


def as_table(embeddings: Any) -> EmbeddingTable:
    """Make an EmbeddingTable of whatever stands for one.

    Parameters
    ----------
    embeddings : object, str or os.PathLike
        What `EmbeddingTable.from_object` takes, which says what it returns and raises.

    Returns
    -------
    EmbeddingTable
    """
    return _of_object(embeddings)


def _of_object(embeddings: Any, words: Any = None, tokenizer: Any = None) -> EmbeddingTable:
    if isinstance(embeddings, (str, os.PathLike)):
        return EmbeddingTable.open(embeddings, words, tokenizer=tokenizer)
    read_object = object_reader(embeddings)
    if read_object is not None:
        read = read_object(embeddings)
    elif isinstance(embeddings, EmbeddingTable):
        if words is None and tokenizer is None:
            return embeddings
        read = Read(embeddings.words, embeddings.vectors)
    # A sparse matrix is no array-like, but has an error of its own below that tells more.
    elif (
        isinstance(embeddings, (list, tuple))
        or hasattr(embeddings, "__array__")
        or sp.issparse(embeddings)
    ):
        vectors = _real_matrix(embeddings, "embeddings", objects=True)
        read = Read(_index_words(embeddings.index) if is_frame(embeddings) else None, vectors)
    else:
        raise TypeError(
            f"embeddings is of type {type(embeddings).__name__}; it must be {_ACCEPTED}."
        )
    read = named(read, words, tokenizer)
    return EmbeddingTable(read.words, read.vectors)


def is_frame(X: Any) -> bool:
    """Whether X looks like a pandas DataFrame (recognised without importing pandas)."""
    return all(hasattr(X, name) for name in ("index", "columns", "to_numpy"))


def is_table(X: Any) -> bool:
    """Whether X stands for a table by its type alone, as no array does."""
    return isinstance(X, EmbeddingTable) or is_frame(X) or object_reader(X) is not None


# -- checks ----------------------------------------------------------------------------------


def _real_matrix(values: Any, name: str, *, objects: bool = False) -> npt.NDArray[Any]:
    """Check that values are a dense, non-empty 2-D array of real numbers, of any such dtype."""
    if sp.issparse(values):
        raise TypeError(
            f"{name} is a sparse {values.shape} matrix, and an embedding table is dense: "
            f"pass {name}.toarray()."
        )
    try:
        numbers = check_array(values, dtype=None, ensure_all_finite=False, input_name=name)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    if objects and numbers.dtype.kind == "O":
        numbers = numbers.astype(np.float64)
    if numbers.dtype.kind not in "fiub":
        raise TypeError(
            f"{name} has dtype {numbers.dtype}, and an embedding table holds real numbers: "
            f"convert it first, for example with numpy.asarray({name}, dtype='float32')."
        )
    # check_array hands a memmap back as a plain array.
    return values if isinstance(values, np.memmap) else numbers


def _as_float32(numbers: npt.NDArray[Any]) -> Float32Array:
    """Give native C-contiguous float32, as the same object where it is that already."""
    if numbers.dtype == np.float32 and numbers.flags.c_contiguous:
        return numbers
    with np.errstate(over="ignore"):  # _check_finite says which value overflowed
        return np.array(numbers, dtype=np.float32, order="C")


def _check_finite(
    vectors: Float32Array, source: npt.NDArray[Any], words: tuple[str, ...] | None
) -> None:
    """Raise for the first value that is NaN, infinite, or became so in float32."""
    step = max(1, _CHUNK_VALUES // vectors.shape[1])
    for start in range(0, len(vectors), step):
        finite = np.isfinite(take_rows(vectors, slice(start, start + step)))
        if finite.all():
            continue
        row, column = np.argwhere(~finite)[0] + (start, 0)
        value = source[row, column]
        if np.isnan(value):
            what = "NaN"
        elif np.isinf(value):
            what = "infinity"
        else:
            what = f"{value!s}, which float32 turns into infinity (its largest is 3.4e+38),"
        word = "" if words is None else f" (word {words[row]!r})"
        raise ValueError(
            f"The embedding table holds {what} at row {row}{word}, column {column}: drop such "
            "rows or put finite numbers in their place."
        )


def _distinct_words(words: Iterable[str], n_rows: int) -> tuple[str, ...]:
    """Check the words against each other and the number of rows; give them as plain str."""
    if isinstance(words, (str, bytes, Mapping, set, frozenset)) or not hasattr(words, "__len__"):
        raise TypeError(
            f"words is of type {type(words).__name__}; it must be a sequence of str in row order, "
            "or None for a table without words."
        )
    names = tuple(words)
    if set(map(type, names)) != {str}:
        names = tuple(_plain_word(word, row) for row, word in enumerate(names))
    if len(names) != n_rows:
        raise ValueError(
            f"words has {len(names)} entries and vectors has {n_rows} rows: "
            "each row needs exactly one word."
        )
    if len(set(names)) != n_rows:
        _raise_duplicate(names)
    return names


def _plain_word(word: object, row: int) -> str:
    """Turn a subclass of str, such as numpy's, into str; refuse all else."""
    if not isinstance(word, str):
        raise TypeError(
            f"words[{row}] is {word!r} of type {type(word).__name__}; every word must be a str."
        )
    return str(word)


def _raise_duplicate(words: tuple[str, ...]) -> NoReturn:
    first: dict[str, int] = {}
    for row, word in enumerate(words):
        if first.setdefault(word, row) != row:
            raise ValueError(
                f"words holds {word!r} twice, at rows {first[word]} and {row}: "
                "words must be distinct, so drop or rename one."
            )
    raise AssertionError("called with distinct words")


def _index_words(index: Any) -> list[str] | None:
    """Words of a DataFrame's index: all of it if it is all str, otherwise none."""
    labels = list(index)
    odd = next((row for row, label in enumerate(labels) if not isinstance(label, str)), None)
    if odd is None:
        return labels
    if any(isinstance(label, str) for label in labels):
        # The usual cause: a reader that takes the words "nan" and "null" for missing values.
        warnings.warn(
            f"The DataFrame's index has {labels[odd]!r} at position {odd}, which is no str, so "
            "the table gets no words. If pandas.read_csv made it, pass keep_default_na=False.",
            stacklevel=4,
        )
    return None


def _in_bytes(n_bytes: int) -> str:
    """Write a number of bytes with a decimal unit, such as 80.0 MB."""
    if n_bytes < 1000:
        return f"{n_bytes} bytes"
    power = min(int(np.log10(n_bytes)) // 3, 3)
    return f"{n_bytes / 1000**power:.1f} {('KB', 'MB', 'GB')[power - 1]}"
