"""Text tables, as GloVe, word2vec and fastText write them: plain or compressed, read once."""

from __future__ import annotations

import bz2
import errno
import gzip
import io
import lzma
import re
import zipfile
import zlib
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain, count, islice
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import numpy.typing as npt
from tqdm.auto import tqdm

__all__ = [
    "COMPRESSED",
    "Content",
    "TextTable",
    "is_number",
    "most_bytes",
    "opened",
    "read_text",
    "unpacking",
    "zip_member",
]

# What unpacks as it reads. A zip is an archive: `opened` takes one member out of it.
_UNPACKERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
COMPRESSED = (*_UNPACKERS, ".zip")

# Lines that are read to find out how many dimensions the table has.
_DETECTION_LINES = 100

# Text tables shrink to a third or so. What grows a hundredfold was made to fill the memory, and so
# was a line of more bytes than any vector takes. What little files may grow to is parsed in less
# than a second.
_MOST_GROWTH = 100
_FREE_BYTES = 2**20
_LONGEST_LINE = 2**22

_BUFFER_BYTES = 2**17
_LINES_A_STEP = 1000  # of the progress bar

_HEADER = re.compile(rb"(\d{1,18}) (\d{1,9})")


class Content(NamedTuple):
    """What a file holds, while it is unpacked.

    Parameters
    ----------
    stream : file
        Gives the content.
    raw : file
        The file itself; its position says how far reading has come.
    begin, n_bytes : int
        The part of the file that the content lies in.
    """

    stream: IO[bytes]
    raw: IO[bytes]
    begin: int
    n_bytes: int


class TextTable(NamedTuple):
    """Words and vectors of a text file, and how many lines of how many repeated a word.

    Parameters
    ----------
    words : list of str, length n_words
    vectors : ndarray (n_words, n_dims) float32
    n_lines : int
        Lines with a vector; more than n_words where words are repeated.
    """

    words: list[str]
    vectors: npt.NDArray[np.float32]
    n_lines: int


def read_text(path: Path, member: str | None = None, *, verbose: int = 0) -> TextTable:
    """Read a text table one line at a time; a word that comes twice keeps its first vector.

    Raises
    ------
    ValueError
        If it is no such table, is cut off, or grows beyond all measure as it is unpacked.
    """
    with opened(path, member) as content:
        lines = _lines(content, path, verbose)
        first = list(islice(lines, _DETECTION_LINES))
        n_promised, n_dims = _layout(first, path)
        words: dict[str, None] = {}
        values = array("f")
        n_lines = 0
        for number, line in enumerate(chain(first, lines), start=1):
            if (number == 1 and n_promised is not None) or line.isspace():
                continue
            word, vector = _parse_row(line, n_dims, path, number)
            n_lines += 1
            if word not in words:
                words[word] = None
                values.extend(vector)
    if n_promised not in (None, n_lines):
        raise ValueError(
            f"{path}: the header in line 1 promises {n_promised} words and the file holds "
            f"{n_lines}. Is it cut off?"
        )
    vectors = np.frombuffer(values, dtype=np.float32).reshape(-1, n_dims)
    return TextTable(list(words), vectors, n_lines)


# -- lines -----------------------------------------------------------------------------------


@contextmanager
def unpacking(path: Path) -> Iterator[None]:
    """Turn the many errors for damaged compression into a ValueError that names the file."""
    try:
        yield
    except (EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, NotImplementedError) as error:
        raise _damaged(path, error) from error
    except OSError as error:
        # What the system says is no damage, but for a place that a damaged zip points to.
        if error.errno not in (None, errno.EINVAL):
            raise
        raise _damaged(path, error) from error


@contextmanager
def opened(path: Path, member: str | None = None) -> Iterator[Content]:
    """Open a file, unpacking it on the way if its suffix says that it is compressed.

    Raises
    ------
    ValueError
        If the compression is damaged or cut off, or a zip's `member` is not clear.
    """
    suffix = path.suffix.lower()
    with unpacking(path), path.open("rb") as raw:
        if suffix == ".zip":
            with zipfile.ZipFile(raw) as archive:
                info = _member_info(archive, path, member)
                with _buffered(archive.open(info)) as stream:
                    yield Content(stream, raw, info.header_offset, info.compress_size)
        elif suffix in _UNPACKERS:
            with _buffered(_UNPACKERS[suffix](raw)) as stream:
                yield Content(stream, raw, 0, path.stat().st_size)
        else:
            yield Content(raw, raw, 0, path.stat().st_size)


def _buffered(stream: Any) -> IO[bytes]:
    """Let C cut lines, several times as fast as the readers of Python's library."""
    return io.BufferedReader(stream, _BUFFER_BYTES)


def _damaged(path: Path, error: Exception) -> ValueError:
    return ValueError(f"{path} cannot be read: {error}. Is it cut off or damaged?")


def zip_member(path: Path, member: str | None) -> str:
    """Name of the only member of a zip, or of the one asked for."""
    with unpacking(path), zipfile.ZipFile(path) as archive:
        return _member_info(archive, path, member).filename


def _member_info(archive: zipfile.ZipFile, path: Path, member: str | None) -> zipfile.ZipInfo:
    # Folders end in a slash, and macOS puts notes of its own beside the files.
    infos = {
        info.filename: info
        for info in archive.infolist()
        if not info.filename.endswith("/") and not info.filename.startswith("__MACOSX/")
    }
    if member is None and len(infos) == 1:
        member = next(iter(infos))
    if member not in infos:
        asked = f"has no member {member!r}" if member else f"holds {len(infos)} files, not one"
        raise ValueError(
            f"{path} {asked}: say which with member=, one of {', '.join(map(repr, infos)) or '-'}."
        )
    info = infos[member]
    if info.flag_bits & 1:
        raise ValueError(f"{path}: the member {member!r} is encrypted: unpack it first.")
    if info.file_size > most_bytes(info.compress_size):
        raise _too_large(path, info.compress_size)
    return info


def most_bytes(n_compressed: int) -> int:
    """Most bytes that a compressed table is unpacked to."""
    return max(_FREE_BYTES, _MOST_GROWTH * n_compressed)


def _too_large(path: Path, n_compressed: int) -> ValueError:
    return ValueError(
        f"{path} unpacks to more than {most_bytes(n_compressed)} bytes, {_MOST_GROWTH} times what "
        "it takes, as no table does. If you trust it, unpack it and open what comes out."
    )


def _lines(content: Content, path: Path, verbose: int) -> Iterator[bytes]:
    """Give the lines, moving a progress bar along with the position in the file."""
    n_read, most = 0, most_bytes(content.n_bytes)
    with tqdm(
        total=content.n_bytes, desc=path.name, unit="B", unit_scale=True, disable=not verbose
    ) as bar:
        for number in count(1):
            line = content.stream.readline(_LONGEST_LINE)
            if not line:
                bar.update(content.n_bytes - bar.n)
                return
            n_read += len(line)
            if n_read > most:
                raise _too_large(path, content.n_bytes)
            if len(line) == _LONGEST_LINE:
                raise ValueError(
                    f"{path}, line {number} is longer than {_LONGEST_LINE} bytes: this is no text "
                    "table with a word and its vector in each line."
                )
            if number % _LINES_A_STEP == 0:
                done = content.raw.tell() - content.begin
                bar.update(min(done, content.n_bytes) - bar.n)
            yield line


# -- rows ------------------------------------------------------------------------------------


def _layout(first: list[bytes], path: Path) -> tuple[int | None, int]:
    """Find the number of words that a header line promises, if any, and that of dimensions.

    A header is a line of two whole numbers. Without one, each of the first lines votes with the
    most numbers it can end in, beside a word: a word that holds spaces or digits is outvoted.
    """
    lines = [line.rstrip(b" \r\n") for line in first]
    header = _HEADER.fullmatch(lines[0]) if lines else None
    if header:
        n_promised, n_dims = map(int, header.groups())
    else:
        n_promised = None
        split = [line.split(b" ") for line in lines if line]
        votes = Counter(min(_n_trailing_numbers(fields), len(fields) - 1) for fields in split)
        n_dims = votes.most_common(1)[0][0] if votes else 0
    if n_dims == 0:
        raise ValueError(
            f"{path} holds no vectors: each line must be a word and its numbers, with a space "
            "between any two of them."
        )
    return n_promised, n_dims


def _n_trailing_numbers(fields: list[bytes]) -> int:
    for number, field in enumerate(reversed(fields)):
        if not is_number(field):
            return number
    return len(fields)


def is_number(field: bytes) -> bool:
    """Whether a field of a text table is a number."""
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
            f"{path}, line {number}: the word {word!r:.80} is not UTF-8; convert the file to UTF-8."
        ) from error
    except ValueError as error:
        bad = next(field for field in fields if not is_number(field))
        raise ValueError(
            f"{path}, line {number}: {bad.decode(errors='replace')!r:.80} is not a number; the "
            f"last {n_dims} fields of each line must be the word's vector."
        ) from error
