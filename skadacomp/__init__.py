"""Word-embedding tables hundreds of times smaller, with code lengths learned on your task."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from skadacomp._version import __version__ as __version__

if TYPE_CHECKING:
    from skadacomp import datasets as datasets
    from skadacomp import display as display
    from skadacomp import export as export
    from skadacomp import metrics as metrics
    from skadacomp import nn as nn
    from skadacomp._compressed import CompressedTable
    from skadacomp._compressor import AdaptiveCodebookCompressor
    from skadacomp._format import FormatError
    from skadacomp._freeze import freeze
    from skadacomp._frozen import FrozenClassifier
    from skadacomp._table import EmbeddingTable
    from skadacomp.export import to_onnx

__all__ = [
    "AdaptiveCodebookCompressor",
    "CompressedTable",
    "EmbeddingTable",
    "FormatError",
    "FrozenClassifier",
    "freeze",
    "to_onnx",
]

# Loaded when first asked for, so that a shipped table is opened with numpy alone.
_ROOM_OF = {
    "AdaptiveCodebookCompressor": "_compressor",
    "CompressedTable": "_compressed",
    "EmbeddingTable": "_table",
    "FormatError": "_format",
    "FrozenClassifier": "_frozen",
    "freeze": "_freeze",
    "to_onnx": "export",
}
_SUBMODULES = ("datasets", "display", "export", "metrics", "nn")


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return import_module(f"{__name__}.{name}")
    if name not in _ROOM_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_ROOM_OF[name]}"), name)
    globals()[name] = value  # the next time it is found without this function
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_SUBMODULES})
