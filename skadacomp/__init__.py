"""Word-embedding tables hundreds of times smaller, with code lengths learned on your task."""

from skadacomp._compressed import CompressedTable, FormatError
from skadacomp._compressor import AdaptiveCodebookCompressor
from skadacomp._table import EmbeddingTable

__all__ = ["AdaptiveCodebookCompressor", "CompressedTable", "EmbeddingTable", "FormatError"]

__version__ = "0.1.0.dev0"
