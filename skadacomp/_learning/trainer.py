"""The training loop: batches of documents, early stopping, progress, device."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import nn
from tqdm.auto import tqdm


def pick_device(device: str) -> torch.device:
    """Turn ``"auto"`` into the accelerator when there is one, else the CPU."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        # "meta" is a device of torch's that holds no numbers: taking one back shows it.
        torch.zeros(1, device=device).cpu()
        return torch.device(device)
    except (RuntimeError, AssertionError, ImportError) as error:
        raise ValueError(
            f"device={device!r} is not there to train on; 'auto' and 'cpu' always are. ({error})"
        ) from error


@contextmanager
def one_thread() -> Iterator[None]:
    """Train on one CPU thread.

    Batches are too small to gain from more; on a busy machine threads wait for one another many
    times as long as they compute; and sums come out the same whatever the number of cores.
    """
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw from a seed what torch's layers draw globally: first weights, dropout."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


@dataclass(frozen=True)
class Batch:
    """Documents, and the words that they hold."""

    rows: torch.Tensor  # (n_batch_words,) the distinct words, as positions among the active words
    words: torch.Tensor  # (n_entries,) positions in `rows`, document after document
    weights: torch.Tensor  # (n_entries,)
    starts: torch.Tensor  # (n_documents,)
    labels: torch.Tensor  # (n_documents,)
    documents: torch.Tensor  # (n_documents,) which documents of the task these are


@dataclass(frozen=True)
class Documents:
    """A task's documents over its active words, with labels.

    Parameters
    ----------
    weights : csr_matrix (n_documents, n_active)
        Pooling weights: a document's vector is ``weights @ vectors``. For a head that reads words
        in order, an entry a word as they come, repeated ones repeated.
    labels : ndarray (n_documents,)
        Class numbers from 0.
    """

    weights: sparse.csr_matrix
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return self.weights.shape[0]

    def batch(self, chosen: NDArray[np.int64], device: torch.device) -> Batch:
        """Gather the chosen documents."""
        part = self.weights[chosen]
        rows, words = np.unique(part.indices, return_inverse=True)
        return Batch(
            *(
                torch.as_tensor(np.ascontiguousarray(a), device=device)
                for a in (
                    rows.astype(np.int64),
                    words.astype(np.int64),
                    part.data,
                    part.indptr[:-1].astype(np.int64),
                    self.labels[chosen],
                    chosen,
                )
            )
        )

    def batches(
        self, size: int, device: torch.device, order: NDArray[np.int64] | None = None
    ) -> Iterator[Batch]:
        """Go through all documents once, in the given order or as they lie."""
        order = np.arange(len(self)) if order is None else order
        for start in range(0, len(self), size):
            yield self.batch(order[start : start + size], device)


def batch_size(n_documents: int, n_batches: int = 8, smallest: int = 8) -> int:
    """Give about `n_batches` batches an epoch, so that small tasks take enough steps."""
    return max(smallest, -(-n_documents // n_batches))


@dataclass
class Trainer:
    """Epochs of optimisation that end with the best state seen.

    Parameters
    ----------
    patience : int
        Epochs without a better `evaluate` before training stops.
    bar : tqdm
        The progress bar to move on, shared by all stages of a fit.
    """

    patience: int
    bar: tqdm
    history: list[dict[str, float]] = field(default_factory=list)

    def run(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        n_epochs: int,
        losses: Callable[[int], Iterator[torch.Tensor]],
        evaluate: Callable[[], dict[str, float]],
    ) -> None:
        """Train `model`, then give it back its best state.

        Parameters
        ----------
        losses : callable
            Takes the epoch's number and yields one loss a step.
        evaluate : callable
            Gives the figures of the epoch for the history; the state with the least ``"loss"``
            wins. The state before training is a candidate too.
        """
        model.eval()
        best, state, waited = evaluate()["loss"], copy.deepcopy(model.state_dict()), 0
        for epoch in range(n_epochs):
            model.train()
            for loss in losses(epoch):
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            model.eval()
            figures = evaluate()
            self.history.append(figures)
            self.bar.update()
            if figures["loss"] < best:
                best, state, waited = figures["loss"], copy.deepcopy(model.state_dict()), 0
            else:
                waited += 1
            if waited >= self.patience:
                self.bar.update(n_epochs - epoch - 1)
                break
        model.load_state_dict(state)
