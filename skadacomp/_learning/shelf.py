"""What fits of one process share: points of a grid that differ in codes or sizes have one teacher.

Whatever a step depends on is its key, random states included, so a fit that finds its step here
goes on exactly as if it had done it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from threading import Lock
from typing import Any

import joblib
import torch

MOST_BYTES = 2**28  # on the shelf; those that were used longest ago make room

Tensors = dict[str, torch.Tensor]


def shelf_key(given: Any, drawn: Tensors) -> str:
    """Hash what a step depends on: what it is given, and where random draws stand.

    Parameters
    ----------
    given : anything that joblib hashes by content
    drawn : dict of str to Tensor
    """
    states = {name: tensor.cpu().numpy() for name, tensor in drawn.items()}
    key: str = joblib.hash((given, states))
    return key


class Shelf:
    """Tensors of steps by key, those used last, up to `MOST_BYTES`."""

    def __init__(self) -> None:
        self._steps: OrderedDict[str, Tensors] = OrderedDict()
        self._lock = Lock()

    @property
    def nbytes(self) -> int:
        """Bytes of all that is here."""
        return sum(tensor.nbytes for step in self._steps.values() for tensor in step.values())

    def once(self, key: str, make: Callable[[], Tensors]) -> Tensors:
        """Give what a step came to before, or do it and keep a copy of what it gives."""
        with self._lock:
            known = self._steps.get(key)
            if known is not None:
                self._steps.move_to_end(key)
                return known
        made = {name: tensor.detach().clone() for name, tensor in make().items()}
        with self._lock:
            self._steps[key] = made
            while self.nbytes > MOST_BYTES:
                self._steps.popitem(last=False)
        return made

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._steps.clear()


TEACHERS = Shelf()
