"""Task heads: what reads the words' vectors and says how badly the task fares."""

from __future__ import annotations

import copy
from typing import ClassVar, Self, cast

import torch
from torch import nn
from torch.nn import functional

from skadacomp._learning.trainer import Batch, batch_size


class Classifier(nn.Module):
    """What heads that classify documents have in common.

    A head maps the words of a batch of documents to class scores: ``head(vectors, kept, batch)``.
    """

    ordered: ClassVar[bool]  # whether the order of words counts: dropped ones are not skipped then
    learning_rate: ClassVar[float]  # of Adam, when it is fine-tuned together with the table

    def forward(self, vectors: torch.Tensor, kept: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Give each document of a batch its class scores, (n_documents, n_classes).

        Parameters
        ----------
        vectors : Tensor (n_batch_words, n_dims)
        kept : Tensor (n_batch_words,)
            1 for a word with a code, 0 for one that was dropped.
        batch : Batch
            Which words the documents hold.
        """
        raise NotImplementedError

    def batch_size(self, n_documents: int) -> int:
        """Documents of one step, where an epoch has `n_documents`."""
        raise NotImplementedError

    def metric(self) -> torch.Tensor:
        """Weigh directions by how the head reads them, (n_dims, n_dims), largest eigenvalue 1."""
        raise NotImplementedError

    def reading(self, image: torch.Tensor) -> Self:
        """Copy the head so that it reads ``vectors @ inverse(image)`` as it reads vectors now."""
        raise NotImplementedError

    @staticmethod
    def loss(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Cross-entropy, in nats per document."""
        return functional.cross_entropy(scores, labels)

    @staticmethod
    def score(scores: torch.Tensor, labels: torch.Tensor) -> float:
        """Accuracy."""
        return (scores.argmax(1) == labels).float().mean().item()

    @staticmethod
    def distillation(
        scores: torch.Tensor, teacher: torch.Tensor, temperature: float = 2.0
    ) -> torch.Tensor:
        """Kullback-Leibler divergence from the teacher's softened classes (Hinton et al. 2015)."""
        return temperature**2 * functional.kl_div(
            functional.log_softmax(scores / temperature, 1),
            functional.log_softmax(teacher / temperature, 1),
            reduction="batchmean",
            log_target=True,
        )


class PooledClassifier(Classifier):
    """A linear classifier on a document's pooled vector.

    Parameters
    ----------
    n_dims : int
        Length of a word's vector.
    n_classes : int
        Number of classes, two or more.
    average : bool
        Divide by the weights of the words that are kept, as ``pooling="mean"`` does.
    """

    ordered = False
    learning_rate = 1e-2

    def __init__(self, n_dims: int, n_classes: int, average: bool) -> None:
        super().__init__()
        self.average = average
        self.linear = nn.Linear(n_dims, n_classes)
        # From zero the first gradient is the class means: no random draw decides the start.
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, vectors: torch.Tensor, kept: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Pool the words that are kept, and read the sum or mean."""
        pooled = self._pool(vectors, batch.weights, batch)  # (n_documents, n_dims)
        if self.average:
            total = self._pool(kept[:, None], batch.weights.abs(), batch)  # (n_documents, 1)
            pooled = pooled / total.clamp_min(1e-6)
        scores: torch.Tensor = self.linear(pooled)
        return scores

    @staticmethod
    def _pool(values: torch.Tensor, weights: torch.Tensor, batch: Batch) -> torch.Tensor:
        return functional.embedding_bag(
            batch.words, values, batch.starts, mode="sum", per_sample_weights=weights
        )

    def batch_size(self, n_documents: int) -> int:
        """Make about 8 batches an epoch, so that small tasks take enough steps."""
        return batch_size(n_documents)

    def metric(self) -> torch.Tensor:
        """Weigh directions by the weights; only differences between classes decide."""
        return _normalised(_contrast(self.linear.weight))

    def reading(self, image: torch.Tensor) -> Self:
        """Move the image's inverse into the weights."""
        head = copy.deepcopy(self)
        with torch.no_grad():
            head.linear.weight.copy_(self.linear.weight @ torch.linalg.inv(image))
        return head


class ConvolutionalClassifier(Classifier):
    """Filters over neighbouring words, the largest answer of each, and a linear layer (Kim 2014).

    Parameters
    ----------
    n_dims, n_classes : int
    n_filters : int
        Of each width.
    widths : tuple of int
        Words that a filter spans.
    max_words : int
        Documents are read up to here, so that one long one does not fill the memory.
    """

    ordered = True
    learning_rate = 2e-3

    def __init__(
        self,
        n_dims: int,
        n_classes: int,
        n_filters: int = 100,
        widths: tuple[int, ...] = (3, 4, 5),
        max_words: int = 400,
    ) -> None:
        super().__init__()
        self.max_words = max_words
        filters = [nn.Conv1d(n_dims, n_filters, width, padding=width - 1) for width in widths]
        self.filters = nn.ModuleList(filters)
        self.dropout = nn.Dropout(0.5)
        self.linear = nn.Linear(n_filters * len(widths), n_classes)

    def forward(self, vectors: torch.Tensor, kept: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Read the words in their order; beyond a document's end there are zeros."""
        places = _padded(batch, self.max_words)  # (n_documents, n_places), -1 beyond the end
        known = functional.pad(vectors, (0, 0, 0, 1))  # a last row of zeros, which -1 picks
        words = known[places].transpose(1, 2)  # (n_documents, n_dims, n_places)
        answers = [functional.relu(filters(words)).amax(2) for filters in self.filters]
        scores: torch.Tensor = self.linear(self.dropout(torch.cat(answers, 1)))
        return scores

    def batch_size(self, n_documents: int) -> int:
        """Make about 32 batches an epoch: it fits a task within few of them."""
        return batch_size(n_documents, 32, smallest=32)

    def metric(self) -> torch.Tensor:
        """Weigh directions by the filters, each as heavy as the classes read its answer."""
        heavy = _contrast(self.linear.weight).norm(dim=0)  # (n_filters * n_widths,)
        by_width = heavy.chunk(len(self.filters))
        rows = [
            (filters.weight.detach() * by[:, None, None]).transpose(1, 2).flatten(0, 1)
            for filters, by in zip(self._convolutions(), by_width, strict=True)
        ]
        return _normalised(torch.cat(rows))

    def _convolutions(self) -> list[nn.Conv1d]:
        return cast("list[nn.Conv1d]", list(self.filters))

    def reading(self, image: torch.Tensor) -> Self:
        """Move the image's inverse into the filters."""
        head = copy.deepcopy(self)
        inverse = torch.linalg.inv(image)
        with torch.no_grad():
            for filters in head._convolutions():
                filters.weight.copy_(torch.einsum("fdw,de->few", filters.weight, inverse))
        return head


def _padded(batch: Batch, max_words: int) -> torch.Tensor:
    """Positions in ``batch.rows`` of each document's words, in order, then -1."""
    ends = functional.pad(batch.starts[1:], (0, 1), value=len(batch.words))
    sizes = (ends - batch.starts).clamp_max(max_words)  # (n_documents,)
    steps = torch.arange(max(int(sizes.max()), 1), device=sizes.device)
    inside = steps < sizes[:, None]  # (n_documents, n_places)
    places = torch.full(inside.shape, -1, device=sizes.device)
    places[inside] = batch.words[(batch.starts[:, None] + steps)[inside]]
    return places


def _contrast(weight: torch.Tensor) -> torch.Tensor:
    """Class weights less their mean, which moves all classes alike, (n_classes, n_features)."""
    return weight.detach() - weight.detach().mean(0)


def _normalised(rows: torch.Tensor) -> torch.Tensor:
    """Gram matrix of directions, (n_rows, n_dims) -> (n_dims, n_dims), largest eigenvalue 1."""
    gram = rows.T @ rows
    largest = torch.linalg.eigvalsh(gram)[-1]
    return gram / largest if largest > 0 else torch.zeros_like(gram)
