"""The parameters that a table was made with, as JSON can hold them."""

from __future__ import annotations

from collections.abc import Iterable
from inspect import signature
from numbers import Integral, Real
from typing import Any

from sklearn.base import BaseEstimator

from skadacomp._version import __version__

# The table is not kept, and these change nothing in what is learned.
_LEFT_OUT = ("checkpoint", "device", "embeddings", "on_interrupt", "verbose")


def made_with(estimator: BaseEstimator) -> dict[str, Any]:
    """List the release, and the parameters that were not left at their defaults.

    Parameters
    ----------
    estimator : BaseEstimator

    Returns
    -------
    dict of str to str, bool, int, float, None or list
        Functions and other objects are named.
    """
    chosen = {}
    parameters = signature(type(estimator)).parameters
    for name, value in estimator.get_params(deep=False).items():
        plain = _plain(value)
        if name not in _LEFT_OUT and plain != _plain(parameters[name].default):
            chosen[name] = plain
    return {"skadacomp": __version__, **chosen}


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value)
    if isinstance(value, Iterable):
        return [_plain(item) for item in value]
    # A function's name, else that of the object's class; never its address.
    return getattr(value, "__qualname__", type(value).__qualname__)
