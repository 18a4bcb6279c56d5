"""Several tasks on one table: their documents, heads and losses side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from skadacomp._learning.criteria import Criterion
from skadacomp._learning.heads import Head, normalised
from skadacomp._learning.trainer import Batch, Documents


@dataclass(frozen=True)
class JointBatch(Batch):
    """A batch of each task, over the words that any of them holds."""

    parts: tuple[Batch, ...] = ()

    @property
    def n_targets(self) -> int:
        """Documents of each task."""
        return max(len(part.starts) for part in self.parts)


@dataclass(frozen=True)
class JointDocuments(Documents):
    """Documents of several tasks; those of a smaller task come round again.

    Parameters
    ----------
    parts : tuple of Documents
        Those of each task.
    """

    parts: tuple[Documents, ...] = ()

    @classmethod
    def of(cls, parts: Sequence[Documents]) -> JointDocuments:
        """Put the documents of tasks side by side."""
        longest = max(parts, key=len)
        return cls(longest.weights, longest.targets, longest.n_texts, parts=tuple(parts))

    def part(self, chosen: NDArray[np.int64]) -> JointDocuments:
        """Keep the chosen documents of each task."""
        return JointDocuments.of([part.part(np.unique(chosen % len(part))) for part in self.parts])

    def batch(self, chosen: NDArray[np.int64], device: torch.device) -> JointBatch:
        """Gather the chosen documents of each task."""
        found = [part.batch(chosen % len(part), device) for part in self.parts]
        rows = torch.unique(torch.cat([batch.rows for batch in found]))  # ascending
        parts = tuple(
            replace(batch, rows=rows, words=torch.searchsorted(rows, batch.rows)[batch.words])
            for batch in found
        )
        targets: Any = tuple(batch.targets for batch in parts)
        return JointBatch(rows, *_nothing(rows), targets, None, parts=parts)


def _nothing(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Give words, weights and starts of a batch that has no documents but those of its parts."""
    return rows[:0], rows[:0].float(), rows[:0]


class JointHead(Head):
    """A head for each task.

    Parameters
    ----------
    heads : sequence of Head
    weights : sequence of float
        Of each task's loss; they sum to 1.
    """

    def __init__(self, heads: Sequence[Head], weights: Sequence[float]) -> None:
        super().__init__(JointCriterion([head.criterion for head in heads], weights))
        self.heads, self.weights = nn.ModuleList(heads), tuple(weights)
        # The most cautious of them: the table is shared.
        self.learning_rate = min(head.learning_rate for head in heads)
        self.noise = min(head.noise for head in heads)
        sources = {head.source_of_codes for head in heads}
        self.source_of_codes = sources.pop() if len(sources) == 1 else "task"
        self.ordered = any(head.ordered for head in heads)

    def _each(self) -> list[Head]:
        return cast("list[Head]", list(self.heads))

    def forward(self, vectors: torch.Tensor, kept: torch.Tensor, batch: Batch) -> Any:
        """Let each head read its own documents."""
        parts = cast("JointBatch", batch).parts
        return tuple(
            head(vectors, kept, part) for head, part in zip(self._each(), parts, strict=True)
        )

    def vectors_rate(self, n_dims: int) -> float:
        """Move the table as the most cautious head would."""
        return min(head.vectors_rate(n_dims) for head in self._each())

    def batch_size(self, n_documents: int) -> int:
        """Take as many steps as the head that wants most."""
        return min(head.batch_size(n_documents) for head in self._each())

    def metric(self, vectors: torch.Tensor, documents: Documents) -> torch.Tensor:
        """Average what the heads read."""
        parts = cast("JointDocuments", documents).parts
        each = zip(self._each(), self.weights, parts, strict=True)
        gram = torch.stack([w * head.metric(vectors, part) for head, w, part in each]).sum(0)
        return normalised(gram)

    def reading(self, image: torch.Tensor) -> Self:
        """Move the image's inverse into each head."""
        return type(self)([head.reading(image) for head in self._each()], self.weights)

    def dropping(self, vector: torch.Tensor) -> None:
        """Tell each head where dropped words lie."""
        for head in self._each():
            head.dropping(vector)


class JointCriterion:
    """Weighted means of what each task loses and scores."""

    def __init__(self, criteria: Sequence[Criterion], weights: Sequence[float]) -> None:
        self.criteria, self.weights = criteria, weights

    def loss(self, outputs: Any, targets: Any) -> torch.Tensor:
        """Sum the weighted losses."""
        return torch.stack([w * c.loss(o, t) for c, w, o, t in self._each(outputs, targets)]).sum()

    def score(self, outputs: Any, targets: Any) -> float:
        """Sum the weighted scores."""
        return sum(w * c.score(o, t) for c, w, o, t in self._each(outputs, targets))

    def distillation(self, outputs: Any, taught: Any) -> torch.Tensor:
        """Sum the weighted distances."""
        return torch.stack(
            [w * c.distillation(o, t) for c, w, o, t in self._each(outputs, taught)]
        ).sum()

    def _each(self, outputs: Any, others: Any) -> Any:
        return zip(self.criteria, self.weights, outputs, others, strict=True)
