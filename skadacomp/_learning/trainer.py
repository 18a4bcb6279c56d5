"""The training loop: batches of documents, early stopping, progress, device."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import nn
from tqdm.auto import tqdm

_TELLING = 1e-3  # part of a held-out loss; one that is lower by less is no reason to go on


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
    starts: torch.Tensor  # (n_texts,) where each text begins among the entries
    targets: torch.Tensor  # (n_documents, ...), or (n_targets,) where a document has several
    target_starts: torch.Tensor | None  # (n_documents,) where each document's targets begin then

    @property
    def n_targets(self) -> int:
        """Targets, which figures of batches are averaged over."""
        return len(self.targets)


@dataclass(frozen=True)
class Documents:
    """A task's documents over its active words, with targets.

    Parameters
    ----------
    weights : csr_matrix (n_texts, n_active)
        Pooling weights: a text's vector is ``weights @ vectors``. For a head that reads words in
        order, an entry a word as they come, repeated ones repeated, and an entry of weight 0 for a
        word that the table lacks.
    targets : ndarray (n_documents, ...) or csr_matrix (n_documents, n_classes)
        Class numbers from 0, indicators or values; or, where a document has a sequence of classes,
        an entry for each as they come.
    n_texts : int, default=1
        Texts of one document, which lie side by side in `weights`: two for pairs.
    """

    weights: sparse.csr_matrix
    targets: Any
    n_texts: int = 1

    def __len__(self) -> int:
        return int(self.targets.shape[0])

    def part(self, chosen: NDArray[np.int64]) -> Documents:
        """Keep the chosen documents."""
        return Documents(
            self.weights[self.texts(chosen)], self.targets[chosen], n_texts=self.n_texts
        )

    def first(self, n_documents: int) -> Documents:
        """Keep the first documents."""
        return self.part(np.arange(min(n_documents, len(self))))

    def texts(self, chosen: NDArray[np.int64]) -> NDArray[np.int64]:
        """Give the rows of the chosen documents' texts."""
        return (chosen[:, None] * self.n_texts + np.arange(self.n_texts)).ravel()

    def batch(self, chosen: NDArray[np.int64], device: torch.device) -> Batch:
        """Gather the chosen documents."""
        texts, targets = self.weights[self.texts(chosen)], self.targets[chosen]
        rows, words = np.unique(texts.indices, return_inverse=True)

        def tensor(values: NDArray[Any]) -> torch.Tensor:
            return torch.as_tensor(np.ascontiguousarray(values), device=device)

        ends = targets.indptr if sparse.issparse(targets) else None
        numbers = targets if ends is None else targets.indices.astype(np.int64)
        return Batch(
            rows=tensor(rows.astype(np.int64)),
            words=tensor(words.astype(np.int64)),
            weights=tensor(texts.data),
            starts=tensor(texts.indptr[:-1].astype(np.int64)),
            targets=tensor(numbers),
            target_starts=None if ends is None else tensor(ends[:-1].astype(np.int64)),
        )

    def batches(
        self, size: int, device: torch.device, order: NDArray[np.int64] | None = None
    ) -> Iterator[Batch]:
        """Go through all documents once, in the given order or as they lie."""
        order = np.arange(len(self)) if order is None else order
        for start in range(0, len(self), size):
            yield self.batch(order[start : start + size], device)

    def mean(
        self, figures: Callable[[Batch], tuple[float, ...]], device: torch.device, size: int = 0
    ) -> tuple[float, ...]:
        """Average figures of batches, of that size or 256 documents, over all targets."""
        total, sums = 0, np.zeros(0)
        for batch in self.batches(max(size, 256), device):
            found = batch.n_targets * np.array(figures(batch))
            total, sums = total + batch.n_targets, found + (sums if total else 0)
        return tuple((sums / max(total, 1)).tolist())


def batch_size(n_documents: int, n_batches: int = 8, smallest: int = 8) -> int:
    """Give about `n_batches` batches an epoch, so that small tasks take enough steps."""
    return max(smallest, -(-n_documents // n_batches))


@dataclass
class Course:
    """How the training of a fit goes, which all its stages share.

    Parameters
    ----------
    keep : bool, default=False
        Whether Ctrl-C ends the training, and not the fit.
    interrupted : bool, default=False
        Whether it has: no stage trains any more.
    notes : list of str
        What the user should know.
    """

    keep: bool = False
    interrupted: bool = False
    notes: list[str] = field(default_factory=list)


@dataclass
class Trainer:
    """Epochs of optimisation that end with the best state seen.

    Parameters
    ----------
    patience : int
        Epochs without a better `evaluate`, by `_TELLING`, before training stops.
    bar : tqdm
        The progress bar to move on, shared by all stages of a fit.
    stage : str, default="training"
        What the notes call it.
    course : Course
    """

    patience: int
    bar: tqdm
    history: list[dict[str, float]] = field(default_factory=list)
    stage: str = "training"
    course: Course = field(default_factory=Course)

    def run(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        n_epochs: int,
        losses: Callable[[int], Iterator[torch.Tensor]],
        evaluate: Callable[[], dict[str, float]],
    ) -> None:
        """Train `model`, then give it back its best state.

        Where the loss or a weight is no longer finite, the epoch ends, the best state comes back,
        and training goes on from there with a tenth of the learning rate.

        Parameters
        ----------
        losses : callable
            Takes the epoch's number and yields one loss a step.
        evaluate : callable
            Gives the figures of the epoch for the history; the state with the least ``"loss"``
            wins. The state before training is a candidate too.

        Raises
        ------
        ValueError
            If the loss is finite neither before training nor after an epoch of it.
        """
        state = deepcopy(model.state_dict())
        if not self.course.interrupted:
            n_done = len(self.history)
            try:
                for better in self._best_states(
                    model, state, optimizer, n_epochs, losses, evaluate
                ):
                    state = better
            except KeyboardInterrupt:
                if not self.course.keep:
                    raise
                self._note_interrupt(len(self.history) - n_done, n_epochs)
        optimizer.zero_grad()  # as large as the weights, and of no more use
        model.load_state_dict(state)
        model.eval()

    def _best_states(
        self,
        model: nn.Module,
        state: dict[str, torch.Tensor],
        optimizer: torch.optim.Optimizer,
        n_epochs: int,
        losses: Callable[[int], Iterator[torch.Tensor]],
        evaluate: Callable[[], dict[str, float]],
    ) -> Iterator[dict[str, torch.Tensor]]:
        """Train from `state`, and give each state that is better than those before."""
        model.eval()
        best = told = _or_infinity(evaluate()["loss"])
        waited = 0
        for epoch in range(n_epochs):
            figures = self._epoch(model, optimizer, losses(epoch), evaluate)
            if figures is None:
                self._check_start(best)
                model.load_state_dict(state)
                self._slow_down(optimizer, epoch)
                figures = evaluate()
            self.history.append(figures)
            self.bar.update()
            if figures["loss"] < best:
                best, state = figures["loss"], deepcopy(model.state_dict())
                yield state
            waited += 1
            if best + _TELLING * abs(best) < told:
                told, waited = best, 0
            if waited >= self.patience:
                self.bar.update(n_epochs - epoch - 1)
                break

    def _check_start(self, best: float) -> None:
        if not math.isfinite(best):
            raise ValueError(
                f"The loss of {self.stage} is not finite, neither before the first step nor after "
                "it, so there is no state to go back to. Look for huge values in the table, in the "
                "weights of documents or in y_task, and at the loss of a head of your own."
            )

    @staticmethod
    def _epoch(
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        losses: Iterator[torch.Tensor],
        evaluate: Callable[[], dict[str, float]],
    ) -> dict[str, float] | None:
        """Take an epoch's steps, and give its figures; None where they are no longer finite."""
        model.train()
        for loss in losses:
            if not math.isfinite(loss.item()):
                model.eval()
                return None
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        model.eval()
        # A weight that the held-out documents never read may be lost as well.
        moved = (weight for weight in model.parameters() if weight.requires_grad)
        if not all(weight.isfinite().all() for weight in moved):
            return None
        figures = evaluate()
        return figures if math.isfinite(figures["loss"]) else None

    def _slow_down(self, optimizer: torch.optim.Optimizer, epoch: int) -> None:
        """Cut the learning rate, and forget the gradients that led astray."""
        optimizer.state.clear()
        for group in optimizer.param_groups:
            group["lr"] /= 10
        note = (
            f"the loss of {self.stage} was not finite in epoch {epoch + 1}, so training went back "
            "to its best state, with a tenth of the learning rate"
        )
        if not any(self.stage in known for known in self.course.notes):
            self.course.notes.append(note)

    def _note_interrupt(self, n_done: int, n_epochs: int) -> None:
        self.course.interrupted = True
        self.course.notes.append(
            f"Ctrl-C cut the training of {self.stage} short, after {n_done} of {n_epochs} epochs: "
            "the best of them is kept, and no later stage was trained"
        )


def _or_infinity(loss: float) -> float:
    """Make a loss that is not finite worse than any other: nothing is less than NaN."""
    return loss if math.isfinite(loss) else math.inf
