"""The file of a CompressedTable: which tensors and metadata it holds, and how it lies on disk.

It is a safetensors file, written here so that the same table always gives the same bytes, and
their number is known beforehand; the safetensors package shuffles the metadata from run to run.
"""

from __future__ import annotations

import json
import math
import os
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from skadacomp._files import whole_file

# Raise this by one whenever a file that `write` makes could be refused or misread by the release
# before: a tensor or a key of the metadata added, dropped, renamed or given another meaning. Then
# keep what reads the former format, and its golden file under tests/data.
FORMAT = 1

Tensors = dict[str, NDArray[Any]]

DTYPES: dict[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
}
_DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}

# What each tensor of the file may be: dtypes and number of dimensions. In the order of the file,
# widest numbers first, so that each lies at a multiple of its own size.
_TENSORS: dict[str, tuple[tuple[str, ...], int]] = {
    "scales": (("F32",), 1),  # (n_codebooks,)
    "axis_scales": (("F32",), 1),  # (n_axes,)
    "coef": (("F32",), 2),  # (n_outputs, n_codebooks * n_codewords + 1), of a FrozenClassifier
    "intercept": (("F32",), 1),  # (n_outputs,)
    "mean": (("F32", "F16"), 1),  # (n_dims,)
    # (n_codebooks, n_codewords, n_dims), or n_axes where there are axes; U8 has two numbers a byte
    "codebooks": (("I8", "U8"), 3),
    "axes": (("I8", "U8"), 2),  # (n_axes, n_dims), or two numbers a byte
    "codes": (("U8",), 1),
    "stored_rows": (("U8",), 1),  # where rows with equal codes share them
    "lengths": (("U8",), 1),
    "words": (("U8",), 1),
    "word_offsets": (("U8",), 1),
    "word_slots": (("U8",), 1),
    "word_merges": (("U8",), 2),  # (n_merges, 3)
}
WORD_TENSORS = ("words", "word_offsets", "word_slots", "word_merges")
AXIS_TENSORS = ("axes", "axis_scales")
CLASSIFIER_TENSORS = ("coef", "intercept")
_OPTIONAL = ("stored_rows", *WORD_TENSORS, *AXIS_TENSORS, *CLASSIFIER_TENSORS)

_MAX_HEADER = 100_000_000  # the bound that safetensors readers share
_CHECKSUM = "crc32"  # its key among the metadata


class FormatError(ValueError):
    """A file, or the tensors of a table, cannot be what `CompressedTable.save` wrote."""


# What reading raises where the content is not what it should be.
UNREADABLE = (ValueError, OverflowError, RecursionError)


def unreadable(source: str, what: str, error: Exception) -> FormatError:
    """Tell what cannot be read, and of which file."""
    return FormatError(f"{source}: {what}: {error}")


@contextmanager
def reading(source: str, what: str) -> Iterator[None]:
    """Turn what reading raises into `unreadable`."""
    try:
        yield
    except UNREADABLE as error:
        raise unreadable(source, what, error) from error


# ---------------------------------------------------------------------------------------------
# Metadata


class Metadata(NamedTuple):
    """What a file says beside its tensors.

    Parameters
    ----------
    candidates : tuple of int
        The code lengths that a row may have.
    counts : tuple of int
        How many rows have each of them.
    parameters : dict of str to anything that JSON can hold
    stored : tuple of int, default=()
        How many distinct rows of codes there are of each, where equal rows are stored once;
        empty where every row is stored.
    """

    candidates: tuple[int, ...]
    counts: tuple[int, ...]
    parameters: dict[str, Any]
    stored: tuple[int, ...] = ()

    def text(self) -> dict[str, str]:
        """Give the metadata as the file has it.

        Raises
        ------
        TypeError
            If the parameters cannot be JSON.
        """
        text = {
            "format": str(FORMAT),
            "candidates": " ".join(map(str, self.candidates)),
            "counts": " ".join(map(str, self.counts)),
        }
        if self.stored:
            text["stored"] = " ".join(map(str, self.stored))
        if self.parameters:
            try:
                text["parameters"] = json.dumps(self.parameters, separators=(",", ":"))
            except TypeError as error:
                raise TypeError(f"parameters must be what JSON can hold: {error}") from error
        return text

    @classmethod
    def parsed(cls, text: Mapping[str, str]) -> Metadata:
        """Read back what `text` gave.

        Raises
        ------
        ValueError
            If it is not that.
        """
        parameters = json.loads(text.get("parameters", "{}"))
        if not isinstance(parameters, dict):
            raise ValueError(f"parameters must be a JSON object, not {text['parameters']!r:.80}")
        stored = _integers(text, "stored") if "stored" in text else ()
        return cls(_integers(text, "candidates"), _integers(text, "counts"), parameters, stored)


def _integers(text: Mapping[str, str], key: str) -> tuple[int, ...]:
    numbers = text.get(key, "").split(" ")
    # No table needs more than 18 digits, and int() refuses very long ones with a text of its own.
    if not all(number.isascii() and number.isdigit() and len(number) <= 18 for number in numbers):
        raise ValueError(f"{key} must be integers, not {text.get(key)!r:.80}")
    return tuple(map(int, numbers))


# ---------------------------------------------------------------------------------------------
# Tensors


class Shaped(Protocol):
    """What the header says of a tensor: an array has it, and so has a `TensorShape`."""

    @property
    def dtype(self) -> np.dtype[Any]: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def nbytes(self) -> int: ...


class TensorShape(NamedTuple):
    """A tensor whose numbers are not known yet."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of the numbers."""
        return math.prod(self.shape) * self.dtype.itemsize


def check_tensors(tensors: Tensors) -> None:
    """Check names, dtypes and dimensions, and that codebooks, scales and mean fit each other.

    Raises
    ------
    ValueError
        If `write` makes no file of such tensors.
    """
    for name, (dtypes, n_dimensions) in _TENSORS.items():
        if name not in tensors:
            if name in _OPTIONAL:
                continue
            raise ValueError(f"tensor {name!r} is missing")
        tensor = tensors[name]
        if _DTYPE_NAMES.get(tensor.dtype) not in dtypes or tensor.ndim != n_dimensions:
            raise ValueError(
                f"tensor {name!r} must be {' or '.join(dtypes)} of {n_dimensions} dimensions, "
                f"not {tensor.dtype} of shape {tensor.shape}"
            )
    unknown = sorted(set(tensors) - set(_TENSORS))
    if unknown:
        raise ValueError(f"tensors {unknown} are unknown")
    _check_codebooks(tensors)


def row_width(dtype: np.dtype[Any], n_numbers: int) -> int:
    """Bytes that so many numbers of codebooks or axes take: one each as I8, a half as U8."""
    return n_numbers if dtype == DTYPES["I8"] else -(-n_numbers // 2)


def _check_codebooks(tensors: Tensors) -> None:
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    n_codebooks, _, width = shapes["codebooks"]
    n_across = shapes["mean"][0]
    fits = shapes["scales"] == (n_codebooks,)
    axes = tensors.get("axes")
    if axes is not None or "axis_scales" in tensors:
        (n_axes,) = shapes.get("axis_scales", (-1,))  # which no axes fit
        fits &= axes is not None and axes.shape == (n_axes, row_width(axes.dtype, n_across))
        n_across = n_axes
    if not fits or width != row_width(tensors["codebooks"].dtype, n_across):
        parts = ("codebooks", "scales", *AXIS_TENSORS, "mean")
        found = ", ".join(f"{name} {shapes[name]}" for name in parts if name in shapes)
        raise ValueError(f"shapes do not fit each other: {found}")


# ---------------------------------------------------------------------------------------------
# Writing


def file_nbytes(tensors: Mapping[str, Shaped], metadata: Mapping[str, str]) -> int:
    """Exact size in bytes of the file that `write` makes of tensors like these."""
    header = _header(tensors, {**metadata, _CHECKSUM: f"{0:08x}"})
    return len(header) + sum(tensor.nbytes for tensor in tensors.values())


def write(path: str | os.PathLike[str], tensors: Tensors, metadata: Mapping[str, str]) -> None:
    """Write the file, which takes its name only when it is complete."""
    with whole_file(path) as file:
        file.write(_header(tensors, {**metadata, _CHECKSUM: _checksum(tensors, metadata)}))
        for name in _in_file_order(tensors):
            file.write(np.ascontiguousarray(tensors[name]).data)


def _in_file_order(tensors: Mapping[str, Shaped]) -> list[str]:
    return [name for name in _TENSORS if name in tensors]


def _header(tensors: Mapping[str, Shaped], metadata: Mapping[str, str]) -> bytes:
    """Length, JSON and padding: everything before the first tensor."""
    entries: dict[str, Any] = {"__metadata__": dict(metadata)}
    begin = 0
    for name in _in_file_order(tensors):
        tensor = tensors[name]
        end = begin + tensor.nbytes
        entries[name] = {
            "dtype": _DTYPE_NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
        begin = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _checksum(tensors: Tensors, metadata: Mapping[str, str]) -> str:
    """CRC-32 of tensors and metadata, in whichever order a program wrote them."""
    said = sorted((key, text) for key, text in metadata.items() if key != _CHECKSUM)
    checksum = zlib.crc32(json.dumps(said).encode())
    for name, tensor in sorted(tensors.items()):
        described = f"{name} {tensor.dtype.str} {tensor.shape}"
        checksum = zlib.crc32(described.encode(), checksum)
        checksum = zlib.crc32(np.ascontiguousarray(tensor).data, checksum)
    return f"{checksum:08x}"


# ---------------------------------------------------------------------------------------------
# Reading


def read(path: str | os.PathLike[str], *, verify: bool = True) -> tuple[Tensors, dict[str, str]]:
    """Map a file into memory: its tensors and metadata, which `check_tensors` has yet to see.

    Parameters
    ----------
    path : str or path-like
    verify : bool, default=True
        Whether to compare the checksum, for which all of the file is read.

    Raises
    ------
    FormatError
        If the file is damaged, not one of a CompressedTable, or of a newer format.
    OSError
        If it cannot be read.
    """
    source = os.fspath(path)
    with reading(source, "header"):
        n_file = os.stat(source).st_size
        if n_file < 8:
            raise ValueError(f"the file has {n_file} bytes, too few for any")
        content = np.memmap(source, np.uint8, mode="r").view(np.ndarray)
        header, begin = _parsed_header(content)
        metadata = _known_metadata(header)
        tensors = _tensor_views(header, content[begin:])
        if verify and _CHECKSUM in metadata:  # the first files of this format have none
            _check_sum(tensors, metadata)
        return tensors, metadata


def _parsed_header(content: NDArray[np.uint8]) -> tuple[dict[str, Any], int]:
    """Give the header of a file, and where its tensors begin."""
    length = int.from_bytes(content[:8].tobytes(), "little")
    if length > min(content.size - 8, _MAX_HEADER):
        raise ValueError(f"its length of {length} bytes exceeds the file of {content.size}")
    header = json.loads(content[8 : 8 + length].tobytes().decode("utf-8"))
    if not isinstance(header, dict):
        raise ValueError("it must be a JSON object")
    return header, 8 + length


def _check_sum(tensors: Tensors, metadata: dict[str, str]) -> None:
    found = _checksum(tensors, metadata)
    if found != metadata[_CHECKSUM]:
        raise ValueError(
            f"the file is damaged: the checksum of what it holds is {found}, "
            f"not {metadata[_CHECKSUM]}"
        )


def _known_metadata(header: dict[str, Any]) -> dict[str, str]:
    metadata = header.get("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise ValueError("its metadata must map text to text")
    found = metadata.get("format", "")
    if not (found.isascii() and found.isdigit() and len(found) <= 9 and "counts" in metadata):
        raise ValueError("this is not the file of a CompressedTable")
    if int(found) > FORMAT:
        raise ValueError(
            f"format {found} is newer than format {FORMAT}, the newest this release reads: "
            f"update skadacomp"
        )
    if int(found) != FORMAT:
        raise ValueError(f"format {found} is unknown")
    return metadata


def _tensor_views(header: dict[str, Any], data: NDArray[np.uint8]) -> Tensors:
    """View the tensors, which must fill `data` without gaps or overlaps."""
    tensors: Tensors = {}
    spans = []
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        dtype, shape, begin, end = _checked_entry(name, entry, data.size)
        tensors[name] = data[begin:end].view(dtype).reshape(shape)
        spans.append((begin, end, name))
    position = 0
    for begin, end, name in sorted(spans):
        if begin != position:
            raise ValueError(f"tensor {name!r} begins at byte {begin}, not at {position}")
        position = end
    if position != data.size:
        raise ValueError(f"the tensors have {position} bytes, but the file holds {data.size}")
    return tensors


def _checked_entry(name: str, entry: Any, n_data: int) -> tuple[np.dtype[Any], list[int], int, int]:
    if not isinstance(entry, dict):
        raise ValueError(f"tensor {name!r} must be described by a JSON object")
    dtype = DTYPES.get(str(entry.get("dtype")))
    shape: Any = entry.get("shape")
    offsets: Any = entry.get("data_offsets")
    if dtype is None or not _are_sizes(shape) or not _are_sizes(offsets) or len(offsets) != 2:
        raise ValueError(f"tensor {name!r} cannot have dtype, shape and offsets {entry!r:.200}")
    begin, end = offsets
    if not begin <= end <= n_data:
        raise ValueError(f"tensor {name!r} lies at {begin} to {end}, but there are {n_data} bytes")
    if math.prod(shape) * dtype.itemsize != end - begin:
        raise ValueError(f"tensor {name!r} of shape {shape} does not fill {end - begin} bytes")
    return dtype, shape, begin, end


def _are_sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)
