"""Drawings of what was learned, by scikit-learn's Display convention. Needs matplotlib."""

from skadacomp.display._code_lengths import CodeLengthDisplay
from skadacomp.display._size_accuracy import SizeAccuracyDisplay

__all__ = ["CodeLengthDisplay", "SizeAccuracyDisplay"]
