"""The full-precision model that the codes learn from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from skadacomp._learning.heads import Classifier
from skadacomp._learning.trainer import Batch, Documents, Trainer


class Teacher(nn.Module):
    """Word vectors of the task's words and a head, both trained on the task."""

    pretrained: torch.Tensor

    def __init__(self, vectors: torch.Tensor, head: Classifier) -> None:
        super().__init__()
        self.register_buffer("pretrained", vectors)
        self.vectors = nn.Parameter(vectors.clone())
        self.head = head

    def forward(self, batch: Batch) -> torch.Tensor:
        """Class scores of a batch of documents."""
        vectors = self.vectors[batch.rows]
        scores: torch.Tensor = self.head(vectors, torch.ones_like(vectors[:, 0]), batch)
        return scores

    def pull(self) -> torch.Tensor:
        """Mean squared distance from the pretrained vectors: keeps rare words where they were."""
        return ((self.vectors - self.pretrained) ** 2).mean()


@dataclass(frozen=True)
class Split:
    """The documents that train and those that decide when to stop."""

    train: Documents
    held_out: Documents


def fine_tune(
    vectors: NDArray[np.float32],
    head: Classifier,
    task: Split,
    trainer: Trainer,
    *,
    n_epochs: int,
    random: np.random.Generator,
    device: torch.device,
) -> Teacher:
    """Fine-tune the vectors of the task's words together with a head.

    Parameters
    ----------
    vectors : ndarray (n_active, n_dims)
        Pretrained vectors of the words in the task's documents.
    head : Classifier
        A fresh one.
    """
    teacher = Teacher(torch.as_tensor(vectors, device=device), head).to(device)
    size = head.batch_size(len(task.train))
    optimizer = torch.optim.Adam(teacher.parameters(), lr=head.learning_rate)

    def losses(epoch: int) -> Iterator[torch.Tensor]:
        for batch in task.train.batches(size, device, random.permutation(len(task.train))):
            yield head.loss(teacher(batch), batch.labels) + teacher.pull()

    trainer.run(
        teacher, optimizer, n_epochs, losses, lambda: evaluate(teacher, task.held_out, device)
    )
    return teacher


@torch.no_grad()
def evaluate(teacher: Teacher, documents: Documents, device: torch.device) -> dict[str, float]:
    """Loss and score on documents."""
    scores = torch.cat([teacher(batch) for batch in documents.batches(256, device)])
    labels = torch.as_tensor(documents.labels, device=device)
    return {
        "loss": teacher.head.loss(scores, labels).item(),
        "task_score": teacher.head.score(scores, labels),
    }
