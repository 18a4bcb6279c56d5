"""What a fit has done, kept in a folder, so that an interrupted fit goes on from there.

A fit is a row of steps, and a step gives tensors: trained weights, or the codes of some rows. The
folder holds a file for each step that is done. A fit goes through all its steps again and takes
from the folder what it finds there; all else follows from the same seeds as before.
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from scipy import sparse
from torch import nn

from skadacomp._files import whole_file

# Raise this by one whenever the same fit would take other steps, or come to other numbers in one.
FORMAT = 1

Tensors = dict[str, torch.Tensor]
About = Mapping[str, Mapping[str, str]]

_ABOUT = "fit.json"
_STEP = ".safetensors"


class Checkpoint:
    """The folder of one fit.

    Parameters
    ----------
    folder : path-like
        Made if it is not there; its parent must be. Where a fit has left its steps, they are gone
        on from.
    about : mapping of str to mapping of str to str
        All that decides what the steps give, in parts, each a mapping of names to values.

    Raises
    ------
    ValueError
        If the folder holds another fit's steps, or something else, or is damaged.
    OSError
        If it cannot be read or made.
    """

    def __init__(self, folder: str | os.PathLike[str], about: About) -> None:
        self.folder = Path(folder).expanduser()
        release = {"format": str(FORMAT), "torch": torch.__version__}
        self._check_folder({"release": release, **about})

    def once(self, step: str, make: Callable[[], Tensors]) -> Tensors:
        """Give what the folder holds of a step, or do it and keep what it gives.

        Raises
        ------
        ValueError
            If the step's file is damaged.
        """
        file = self.folder / f"{step}{_STEP}"
        if file.exists():
            return self._read(file)
        made = {name: tensor.detach().cpu().contiguous() for name, tensor in make().items()}
        with whole_file(file) as unfinished:
            # Cloned, since a file cannot hold two tensors that share their memory.
            kept = {name: tensor.clone() for name, tensor in made.items()}
            unfinished.write(save(kept, {"crc32": _checksum(kept)}))
        return made

    def remove(self) -> None:
        """Remove the steps, and the folder if it holds nothing else."""
        for file in (*self.folder.glob(f"*{_STEP}"), *self.folder.glob(".*.tmp")):
            file.unlink()
        (self.folder / _ABOUT).unlink()
        if not any(self.folder.iterdir()):
            self.folder.rmdir()

    def _check_folder(self, about: About) -> None:
        """See that the folder is this fit's, or make it so."""
        file = self.folder / _ABOUT
        if file.exists():
            self._compare(self._read_about(file), about)
            return
        # A process that was killed outright may have left no more than an unfinished file.
        if self.folder.exists() and set(self.folder.iterdir()) - set(self.folder.glob(".*.tmp")):
            raise ValueError(
                f"checkpoint={str(self.folder)!r} is a folder of something else: it has files, but "
                f"no {_ABOUT}. Give a folder that is empty or not there."
            )
        self.folder.mkdir(exist_ok=True)
        with whole_file(file) as unfinished:
            unfinished.write(json.dumps(about, indent=1).encode())

    def _compare(self, found: dict[str, Any], about: About) -> None:
        for part, values in about.items():
            former = found.get(part, {})
            differing = [n for n in {**former, **values} if former.get(n) != values.get(n)]
            if differing:
                shown = ", ".join(f"{n} {former.get(n)} → {values.get(n)}" for n in differing)
                raise ValueError(
                    f"checkpoint={str(self.folder)!r} was left by another fit; {part}, then → now: "
                    f"{shown}. Fit as then to go on from it, give another folder, or remove it."
                )

    def _read_about(self, file: Path) -> dict[str, Any]:
        try:
            found = json.loads(file.read_bytes())
            if all(isinstance(part, dict) for part in found.values()):
                return dict(found)
        except (ValueError, AttributeError) as error:
            raise self._damaged(file) from error
        raise self._damaged(file)

    def _read(self, file: Path) -> Tensors:
        try:
            with safe_open(file, framework="pt") as kept:
                tensors = {name: kept.get_tensor(name) for name in kept.keys()}  # noqa: SIM118 (it has no __iter__)
                checksum = (kept.metadata() or {}).get("crc32")
        except SafetensorError as error:
            raise self._damaged(file) from error
        if checksum != _checksum(tensors):
            raise self._damaged(file)
        return tensors

    def _damaged(self, file: Path) -> ValueError:
        return ValueError(
            f"checkpoint={str(self.folder)!r}: its file {file.name} is damaged. Remove the folder "
            "to begin anew."
        )


def _checksum(tensors: Tensors) -> str:
    total = 0
    for name in sorted(tensors):
        total = zlib.crc32(tensors[name].reshape(-1).view(torch.uint8).numpy().data, total)
    return str(total)


@dataclass(frozen=True)
class Draws:
    """All that a fit draws random numbers from, torch's own generators included.

    Parameters
    ----------
    random : numpy Generator
    generator : torch Generator
        On the device that trains.
    """

    random: np.random.Generator
    generator: torch.Generator

    def state(self) -> Tensors:
        """Give where the draws stand."""
        state = {
            "numpy": as_text(self.random.bit_generator.state),
            "torch": self.generator.get_state(),
            "torch.cpu": torch.get_rng_state(),
        }
        if self.generator.device.type == "cuda":
            state["torch.cuda"] = torch.cuda.get_rng_state(self.generator.device)
        return state

    def restore(self, state: Tensors) -> None:
        """Go on from where they stood."""
        self.random.bit_generator.state = from_text(state["numpy"])
        self.generator.set_state(state["torch"])
        torch.set_rng_state(state["torch.cpu"])
        if "torch.cuda" in state:
            torch.cuda.set_rng_state(state["torch.cuda"], self.generator.device)


def as_text(value: Any) -> torch.Tensor:
    """Write what JSON can hold as a tensor of bytes."""
    return torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)


def from_text(text: torch.Tensor) -> Any:
    """Undo `as_text`."""
    return json.loads(text.numpy().tobytes())


def fingerprint(value: Any) -> str:
    """Hash what a task is made of: arrays, sparse matrices, modules, dataclasses and plain values.

    Functions go by their names.
    """
    digest = hashlib.sha256()
    _feed(digest, value)
    return digest.hexdigest()[:16]


def _feed(digest: Any, value: Any) -> None:
    digest.update(f"{type(value).__qualname__}:".encode())
    if isinstance(value, np.ndarray):
        digest.update(f"{value.dtype.str}{value.shape}".encode())
        digest.update(np.ascontiguousarray(value).reshape(-1).data)
        return
    for part in _parts(value):
        _feed(digest, part)
    if isinstance(value, str | int | float | np.generic):
        digest.update(repr(value).encode("utf-8", "backslashreplace"))


def _parts(value: Any) -> Any:
    """Take a value apart; a plain one has no parts."""
    if sparse.issparse(value):
        return (value.data, value.indices, value.indptr, value.shape)
    if isinstance(value, nn.Module):
        return (repr(value), {n: t.cpu().numpy() for n, t in value.state_dict().items()})
    if is_dataclass(value):
        return [getattr(value, field.name) for field in fields(value)]
    if isinstance(value, partial):
        return (value.func, value.args, value.keywords)
    if isinstance(value, Mapping):
        return value.items()
    if isinstance(value, tuple | list):
        return value
    if callable(value):
        return (value.__module__, getattr(value, "__qualname__", repr(value)))
    return ()
