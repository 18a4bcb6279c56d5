"""The embedding table: words and their vectors, immutable, opened from what users have."""

from __future__ import annotations

import os
import re
import warnings
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from safetensors import deserialize, safe_open
from sklearn.utils import check_array

__all__ = ["DetachedTable", "EmbeddingTable", "as_table", "is_frame", "is_keyed_vectors"]

Float32Array = npt.NDArray[np.float32]

# Values looked at in one go: a table larger than memory is read, never copied whole.
_CHUNK_VALUES = 2**20

# Lines of a text table that are read to find out how many dimensions it has.
_DETECTION_LINES = 100

_ACCEPTED = (
    "an EmbeddingTable, a 2-D array of numbers (n_words, n_dims), a DataFrame indexed by words, "
    "a gensim KeyedVectors, or the path of a file"
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
        self.__setstate__({"words": names, "vectors": float32})

    @classmethod
    def open(
        cls, path: Any, words: Iterable[str] | os.PathLike[str] | None = None
    ) -> EmbeddingTable:
        """Open a table from a file; the suffix says which kind.

        Parameters
        ----------
        path : str, os.PathLike or gensim KeyedVectors
            KeyedVectors in memory are taken as they are. Of files, the suffix tells the kind.
            ``.txt`` or ``.vec``: GloVe or word2vec text in UTF-8, with or without a header line;
            a word may hold spaces, the last n_dims fields are its vector. A word that comes
            twice keeps its first vector. ``.npy``: a 2-D array, memory-mapped.
            ``.safetensors``: the only 2-D float tensor. ``.kv``, ``.model``, ``.bin``: gensim
            vectors, gensim models, and word2vec's binary format; these three need gensim, and
            the first two are pickles, so open only those you trust.
        words : sequence of str, str or os.PathLike, default=None
            For ``.npy`` and ``.safetensors``: the words in row order, or the path of a UTF-8
            text file with one word a line. None takes ``<stem>.words.txt`` or ``<stem>.txt``
            beside the file where there is one, and else makes a table without words.

        Returns
        -------
        EmbeddingTable
            The table; of an ``.npy`` file in C order and float32, still memory-mapped.

        Raises
        ------
        FileNotFoundError
            If `path`, or `words` as a path, does not exist.
        ImportError
            If the file is one of gensim's and gensim is not installed.
        ValueError
            If the suffix is none of the above, or the content is not what it says.
        """
        if is_keyed_vectors(path):
            return as_table(path)
        file = Path(path).expanduser()
        reader = _READERS.get(file.suffix.lower())
        if reader is None:
            raise ValueError(
                f"path={str(file)!r} has the suffix {file.suffix!r}; the suffixes that can be "
                f"opened are {', '.join(_READERS)}."
            )
        if not file.exists():
            raise FileNotFoundError(f"path={str(file)!r}: there is no such file.")
        carried, vectors = reader(file)
        if carried is None:
            n_dims = vectors.shape[-1] if vectors.ndim else 0
            return cls(_words_for(file, words, n_dims), vectors)
        if words is not None:
            raise ValueError(
                f"words is for .npy and .safetensors files; {file.name} carries its own words: "
                "leave words=None."
            )
        return cls(carried, vectors)

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

    def __getstate__(self) -> dict[str, Any]:
        """Words and vectors always go in; the word index never does, it is quick to remake."""
        # A pickled memmap would come back as one without a file: send it as a plain array.
        return {"words": self.words, "vectors": np.asarray(self.vectors)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vectors = state["vectors"].view()  # the flag below is this view's, not the caller's
        vectors.flags.writeable = False
        self.__dict__.update(words=state["words"], vectors=vectors)


@dataclass(frozen=True)
class DetachedTable:
    """Stands in a pickle for the table that it leaves out.

    Parameters
    ----------
    n_words, n_dims : int
        Shape of the table that was there.
    """

    n_words: int
    n_dims: int

    def __repr__(self) -> str:
        return f"DetachedTable({self.n_words} words × {self.n_dims} dims, left out of the pickle)"


def as_table(embeddings: Any) -> EmbeddingTable:
    """Make an EmbeddingTable of whatever stands for one.

    Parameters
    ----------
    embeddings : EmbeddingTable, array-like, DataFrame, KeyedVectors, str or os.PathLike
        An EmbeddingTable is returned itself. A 2-D array-like of numbers, shape
        (n_words, n_dims), gives a table without words. A DataFrame gives its index as the words
        if all of it is str, otherwise none. A str or path is opened (`EmbeddingTable.open`).

    Returns
    -------
    EmbeddingTable

    Raises
    ------
    TypeError
        If `embeddings` is of another type or sparse, or holds what is no number.
    ValueError
        If it is not 2-D, empty, complex, or not finite in float32.
    """
    if isinstance(embeddings, EmbeddingTable):
        return embeddings
    if isinstance(embeddings, (str, os.PathLike)):
        return EmbeddingTable.open(embeddings)
    if is_keyed_vectors(embeddings):
        return EmbeddingTable(embeddings.index_to_key, embeddings.vectors)
    # A sparse matrix is no array-like, but has an error of its own below that tells more.
    if not (
        isinstance(embeddings, (list, tuple))
        or hasattr(embeddings, "__array__")
        or sp.issparse(embeddings)
    ):
        raise TypeError(
            f"embeddings is of type {type(embeddings).__name__}; it must be {_ACCEPTED}."
        )
    vectors = _real_matrix(embeddings, "embeddings", objects=True)
    words = _index_words(embeddings.index) if is_frame(embeddings) else None
    return EmbeddingTable(words, vectors)


def is_frame(X: Any) -> bool:
    """Whether X looks like a pandas DataFrame (recognised without importing pandas)."""
    return all(hasattr(X, name) for name in ("index", "columns", "to_numpy"))


def is_keyed_vectors(X: Any) -> bool:
    """Whether X looks like a gensim KeyedVectors (recognised without importing gensim)."""
    return hasattr(X, "vectors") and hasattr(X, "index_to_key")


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
        finite = np.isfinite(vectors[start : start + step])
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
            stacklevel=3,
        )
    return None


def _in_bytes(n_bytes: int) -> str:
    """Write a number of bytes with a decimal unit, such as 80.0 MB."""
    if n_bytes < 1000:
        return f"{n_bytes} bytes"
    power = min(int(np.log10(n_bytes)) // 3, 3)
    return f"{n_bytes / 1000**power:.1f} {('KB', 'MB', 'GB')[power - 1]}"


# -- files -----------------------------------------------------------------------------------
# A reader takes a path and gives (words, vectors); words is None where the format has none.

_Read = tuple["list[str] | None", "npt.NDArray[Any]"]


def _read_text(path: Path) -> _Read:
    """Read a GloVe or word2vec text table, one line at a time."""
    has_header, n_dims = _text_layout(path)
    words: dict[str, None] = {}
    values = array("f")
    n_rows = 0
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if (has_header and number == 1) or line.isspace():
                continue
            word, vector = _parse_row(line, n_dims, path, number)
            n_rows += 1
            if word not in words:
                words[word] = None
                values.extend(vector)
    if has_header:
        _check_header_count(path, n_rows)
    if n_rows > len(words):
        warnings.warn(
            f"{path.name}: {n_rows - len(words)} of {n_rows} lines repeat a word; the first "
            "vector of each word is kept.",
            stacklevel=3,
        )
    vectors = np.frombuffer(values, dtype=np.float32).reshape(-1, n_dims)
    return list(words), vectors


def _text_layout(path: Path) -> tuple[bool, int]:
    """Find whether a text table has a header line, and its number of dimensions.

    A header is a line of two whole numbers. Without one, each of the first lines votes with the
    most numbers it can end in, beside a word: a word that holds spaces or digits is outvoted.
    """
    with path.open("rb") as lines:
        first = [line.rstrip(b" \r\n") for line in islice(lines, _DETECTION_LINES)]
    split = [line.split(b" ") for line in first if line]
    has_header = bool(split) and len(split[0]) == 2 and all(map(bytes.isdigit, split[0]))
    if has_header:
        n_dims = int(split[0][1])
    else:
        votes = Counter(min(_n_trailing_numbers(fields), len(fields) - 1) for fields in split)
        n_dims = votes.most_common(1)[0][0] if votes else 0
    if n_dims == 0:
        raise ValueError(
            f"{path} holds no vectors: each line must be a word and its numbers, with a space "
            "between any two of them."
        )
    return has_header, n_dims


def _n_trailing_numbers(fields: list[bytes]) -> int:
    for count, field in enumerate(reversed(fields)):
        if not _is_number(field):
            return count
    return len(fields)


def _is_number(field: bytes) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


def _parse_row(line: bytes, n_dims: int, path: Path, number: int) -> tuple[str, list[float]]:
    """Split a line into its word and its vector."""
    word, *fields = line.rstrip(b" \r\n").rsplit(b" ", n_dims)
    if len(fields) != n_dims:
        raise ValueError(
            f"{path}, line {number}: {len(fields)} fields after the word, where the table has "
            f"{n_dims} dimensions. Is the file cut off?"
        )
    try:
        return word.decode("utf-8"), list(map(float, fields))
    except UnicodeDecodeError as error:  # a ValueError too, so it comes first
        raise ValueError(
            f"{path}, line {number}: the word {word!r} is not UTF-8; convert the file to UTF-8."
        ) from error
    except ValueError as error:
        bad = next(field for field in fields if not _is_number(field))
        raise ValueError(
            f"{path}, line {number}: {bad.decode(errors='replace')!r} is not a number; the last "
            f"{n_dims} fields of each line must be the word's vector."
        ) from error


def _check_header_count(path: Path, n_rows: int) -> None:
    with path.open("rb") as lines:
        promised = int(lines.readline().split()[0])
    if promised != n_rows:
        raise ValueError(
            f"{path}: the header in line 1 promises {promised} words and the file holds {n_rows}. "
            "Is it cut off?"
        )


def _read_npy(path: Path) -> _Read:
    return None, np.load(path, mmap_mode="r", allow_pickle=False)


def _read_safetensors(path: Path) -> _Read:
    """Read the only 2-D float tensor of a safetensors file."""
    with safe_open(path, framework="numpy") as file:
        found = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (it has no __iter__)
        shapes = {name: (s.get_dtype(), tuple(s.get_shape())) for name, s in found.items()}
        # BF16, F16, F32, F64: the floats of at least 16 bits
        tables = [
            name
            for name, (dtype, shape) in shapes.items()
            if len(shape) == 2 and re.fullmatch(r"B?F\d\d", dtype)
        ]
        if len(tables) != 1:
            listing = ", ".join(f"{n} {d} {s}" for n, (d, s) in shapes.items()) or "none"
            raise ValueError(
                f"{path} must hold exactly one 2-D float tensor and holds {len(tables)}; its "
                f"tensors are: {listing}. Load the one you mean and pass EmbeddingTable its array."
            )
        if shapes[tables[0]][0] != "BF16":
            return None, file.get_tensor(tables[0])
    # numpy has no bfloat16: its 16 bits are the upper half of a float32
    raw = dict(deserialize(path.read_bytes()))[tables[0]]  # type: ignore[no-untyped-call]
    upper = np.frombuffer(raw["data"], dtype="<u2").astype(np.uint32) << np.uint32(16)
    return None, upper.view(np.float32).reshape(raw["shape"])


def _read_gensim(path: Path) -> _Read:
    """Read gensim's own formats (pickles) and word2vec's binary format."""
    try:
        from gensim.models import KeyedVectors
        from gensim.utils import SaveLoad
    except ImportError as error:
        raise ImportError(
            f"Opening {path.name} needs the package gensim, which is not installed: "
            'pip install "skadacomp[gensim]"'
        ) from error
    suffix = path.suffix.lower()
    if suffix == ".bin":
        keyed = KeyedVectors.load_word2vec_format(str(path), binary=True)
    elif suffix == ".kv":
        keyed = KeyedVectors.load(str(path), mmap="r")
    else:
        model = SaveLoad.load(str(path), mmap="r")
        keyed = getattr(model, "wv", model)  # a model keeps its vectors in .wv
    return list(keyed.index_to_key), keyed.vectors


_READERS: dict[str, Callable[[Path], _Read]] = {
    ".txt": _read_text,
    ".vec": _read_text,
    ".npy": _read_npy,
    ".safetensors": _read_safetensors,
    ".kv": _read_gensim,
    ".model": _read_gensim,
    ".bin": _read_gensim,
}


def _words_for(path: Path, words: Any, n_dims: int) -> Iterable[str] | None:
    """Words of a file that has none: those given, those in a file beside it, or None."""
    if isinstance(words, (str, os.PathLike)):
        return _read_words(Path(words).expanduser(), n_dims)
    if words is not None:
        return words
    for suffix in (".words.txt", ".txt"):
        sibling = path.with_name(path.stem + suffix)
        if sibling.exists():
            return _read_words(sibling, n_dims)
    return None


def _read_words(path: Path, n_dims: int) -> list[str]:
    """Read a text file with one word a line."""
    if not path.exists():
        raise FileNotFoundError(f"words={str(path)!r}: there is no such file.")
    with path.open(encoding="utf-8", newline="\n") as lines:
        words = [line.rstrip("\r\n") for line in lines]
    # The text table itself often lies beside its .npy: its lines are not words.
    fields = words[-1].split() if words else []
    if len(fields) > n_dims > 1 and _is_number(fields[-1].encode()):
        raise ValueError(
            f"{path} holds vectors, not one word a line: open it as the table, or pass words= a "
            "list or the path of a file with one word a line."
        )
    return words
