"""The full-precision model that the codes learn from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from operator import itemgetter

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.functional import mse_loss

from skadacomp._learning.checkpoint import Draws, Tensors
from skadacomp._learning.heads import Head
from skadacomp._learning.trainer import Batch, Documents, Trainer

# Normal priors on how far a vector moves. They are weighed against the sum of the documents'
# losses, so that few documents move little. Some tasks need their words where they were, and some
# need them moved.
_PULLS = (0.01, 0.1, 1.0)
_MANY = 10_000  # documents that outweigh any of them: the first will do, in a third of the time
# What that prior, the learning rates and the heads' first weights suit: the root mean square of the
# numbers in published 50-dimensional tables. Input tables of transformers have a tenth of it.
_USUAL_NUMBER = 0.5


def usual_scale(vectors: NDArray[np.floating], weights: NDArray[np.floating]) -> float:
    """Find the power of two, at least 1, that brings the small numbers of a table near a half.

    A power of two, so that no digit changes. Large numbers stay as they are: they keep vectors
    that hardly any document shows from being carried away.

    Parameters
    ----------
    vectors : ndarray (n_words, n_dims)
    weights : ndarray (n_words,)
        How much each word counts; not all 0.
    """
    shares = weights / weights.sum()
    rows = vectors.astype(np.float64)
    rows -= shares @ rows
    number = np.sqrt(shares @ (rows**2).mean(1))
    if not number > 0:
        return 1.0
    return float(2.0 ** np.clip(np.round(np.log2(_USUAL_NUMBER / number)), 0, 100))


class Teacher(nn.Module):
    """Word vectors of the task's words and a head, both trained on the task."""

    pretrained: torch.Tensor

    def __init__(self, vectors: torch.Tensor, head: Head) -> None:
        super().__init__()
        self.register_buffer("pretrained", vectors, persistent=False)
        self.vectors = nn.Parameter(vectors.clone())
        self.head = head
        self.strength = _PULLS[0]

    def forward(self, batch: Batch, noise: float = 0.0) -> torch.Tensor:
        """Give the head's outputs for a batch of documents.

        Parameters
        ----------
        noise : float
            Standard deviation of what is added to each number of each word.
        """
        vectors = self.vectors.index_select(0, batch.rows)
        if noise:
            vectors = vectors + noise * torch.randn_like(vectors)
        outputs: torch.Tensor = self.head(vectors, torch.ones_like(vectors[:, 0]), batch)
        return outputs

    def pull(self) -> torch.Tensor:
        """Squared distance from the pretrained vectors: keeps rare words where they were."""
        # As one operation it keeps no difference of all words' numbers for its gradient.
        return self.strength * mse_loss(self.vectors, self.pretrained, reduction="sum")


@dataclass(frozen=True)
class Split:
    """The documents that train and those that decide when to stop."""

    train: Documents
    held_out: Documents


def fine_tune(
    teacher: Teacher,
    task: Split,
    trainer: Trainer,
    *,
    n_epochs: int,
    draws: Draws,
    device: torch.device,
) -> None:
    """Fine-tune the vectors of the task's words together with a head.

    Unless many documents train, or words have places, held-out documents choose how strongly
    vectors are pulled to the pretrained ones.

    Parameters
    ----------
    teacher : Teacher
        With the pretrained vectors of the words in the task's documents, and a fresh head.
    """
    size, noise = teacher.head.batch_size(len(task.train)), _noise(teacher)

    def losses(epoch: int) -> Iterator[torch.Tensor]:
        for batch in task.train.batches(size, device, draws.random.permutation(len(task.train))):
            loss = teacher.head.criterion.loss(teacher(batch, noise), batch.targets)
            yield loss + teacher.pull() / len(task.train)

    held_out = partial(evaluate, teacher, task.held_out, device, size)

    def run() -> None:
        trainer.run(teacher, _optimizer(teacher), n_epochs, losses, held_out)

    if len(task.train) >= _MANY or teacher.head.ordered:
        run()
        return
    trainer.bar.total += (len(_PULLS) - 1) * n_epochs
    _choose_pull(teacher, run, held_out, draws)


def _choose_pull(
    teacher: Teacher,
    run: Callable[[], None],
    held_out: Callable[[], dict[str, float]],
    draws: Draws,
) -> None:
    """Run with each pull, from the same draws, and go on from the least held-out loss."""
    head, drawn = deepcopy(teacher.head.state_dict()), draws.state()

    def outcomes() -> Iterator[tuple[float, float, dict[str, torch.Tensor], Tensors]]:
        for pull in _PULLS:
            teacher.strength = pull
            teacher.vectors.data.copy_(teacher.pretrained)
            teacher.head.load_state_dict(head)
            draws.restore(drawn)
            run()
            state = deepcopy(teacher.state_dict())
            yield held_out()["loss"], pull, state, draws.state()

    # One after the other, so that no more than the best is kept.
    _, teacher.strength, best, ended = min(outcomes(), key=itemgetter(0))
    teacher.load_state_dict(best)
    draws.restore(ended)


def _noise(teacher: Teacher) -> float:
    """Give the standard deviation of what the head wants added to the vectors."""
    noisy = teacher.head.noise > 0 and teacher.pretrained.numel() > 1
    return teacher.head.noise * float(teacher.pretrained.std()) if noisy else 0.0


def _optimizer(teacher: Teacher) -> torch.optim.Optimizer:
    head = teacher.head
    vectors_rate = head.vectors_rate(teacher.vectors.shape[1])
    return torch.optim.Adam(
        [
            {"params": [teacher.vectors], "lr": vectors_rate},
            {"params": list(head.parameters()), "lr": head.learning_rate},
        ],
        fused=True,  # one pass over the numbers of all words
    )


@torch.no_grad()
def evaluate(
    teacher: Teacher, documents: Documents, device: torch.device, size: int = 0
) -> dict[str, float]:
    """Loss and score on documents, in batches of that size or 256."""
    criterion = teacher.head.criterion

    def figures(batch: Batch) -> tuple[float, float]:
        outputs = teacher(batch)
        loss = criterion.loss(outputs, batch.targets).item()
        return loss, criterion.score(outputs, batch.targets)

    loss, score = documents.mean(figures, device, size)
    return {"loss": loss, "task_score": score}
