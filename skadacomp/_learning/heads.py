"""Task heads: what reads the words' vectors and says how badly the task fares."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from skadacomp._learning.trainer import Batch


class PooledClassifier(nn.Module):
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

    def __init__(self, n_dims: int, n_classes: int, average: bool) -> None:
        super().__init__()
        self.average = average
        self.linear = nn.Linear(n_dims, n_classes)
        # From zero the first gradient is the class means: no random draw decides the start.
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, vectors: torch.Tensor, kept: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Give each document of a batch its class scores, (n_documents, n_classes).

        Parameters
        ----------
        vectors : Tensor (n_batch_words, n_dims)
        kept : Tensor (n_batch_words,)
            1 for a word with a code, 0 for one that documents skip.
        batch : Batch
            Which words the documents hold.
        """
        pooled = self._pool(vectors, batch.weights, batch)  # (n_documents, n_dims)
        if self.average:
            total = self._pool(kept[:, None], batch.weights.abs(), batch)  # (n_documents, 1)
            pooled = pooled / total.clamp_min(1e-6)
        return self.linear(pooled)

    @staticmethod
    def _pool(values: torch.Tensor, weights: torch.Tensor, batch: Batch) -> torch.Tensor:
        return functional.embedding_bag(
            batch.words, values, batch.starts, mode="sum", per_sample_weights=weights
        )

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

    def metric(self) -> torch.Tensor:
        """Weigh directions by how the head reads them, (n_dims, n_dims), largest eigenvalue 1.

        Only differences between classes decide, so the classes' mean weight is taken off.
        """
        weight = self.linear.weight.detach()  # (n_classes, n_dims)
        contrast = weight - weight.mean(0)
        gram = contrast.T @ contrast
        largest = torch.linalg.eigvalsh(gram)[-1]
        return gram / largest if largest > 0 else torch.zeros_like(gram)
