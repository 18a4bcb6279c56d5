"""What is lost when a head's outputs are wrong, and how good they are."""

from __future__ import annotations

from typing import Protocol

import torch
from torch.nn import functional


class Criterion(Protocol):
    """Loss and score of outputs against targets; both are means, so batches can be averaged."""

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Give what training lowers, a scalar."""
        ...

    def score(self, outputs: torch.Tensor, targets: torch.Tensor) -> float:
        """Give what people read, 1 at best."""
        ...

    def distillation(self, outputs: torch.Tensor, taught: torch.Tensor) -> torch.Tensor:
        """Give the distance from a teacher's outputs, a scalar in the unit of the loss."""
        ...


class Classes:
    """One class of several: outputs (n, n_classes) are scores, targets (n,) class numbers."""

    temperature = 2.0

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Cross-entropy in nats."""
        return functional.cross_entropy(outputs, targets)

    def score(self, outputs: torch.Tensor, targets: torch.Tensor) -> float:
        """Accuracy."""
        return (outputs.argmax(1) == targets).float().mean().item()

    def distillation(self, outputs: torch.Tensor, taught: torch.Tensor) -> torch.Tensor:
        """Kullback-Leibler divergence from the teacher's softened classes (Hinton et al. 2015)."""
        heat = self.temperature
        return heat**2 * functional.kl_div(
            functional.log_softmax(outputs / heat, 1),
            functional.log_softmax(taught / heat, 1),
            reduction="batchmean",
            log_target=True,
        )


class Indicators:
    """Any number of labels: outputs (n, n_labels) are logits, targets are 0 or 1."""

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Binary cross-entropy in nats, summed over the labels of a document."""
        return targets.shape[1] * functional.binary_cross_entropy_with_logits(outputs, targets)

    def score(self, outputs: torch.Tensor, targets: torch.Tensor) -> float:
        """Share of labels that are right, given or not."""
        return ((outputs > 0) == (targets > 0.5)).float().mean().item()

    def distillation(self, outputs: torch.Tensor, taught: torch.Tensor) -> torch.Tensor:
        """Binary cross-entropy to the teacher's probabilities, above its least."""
        told = torch.sigmoid(taught)
        return self.loss(outputs, told) - self.loss(taught, told)


class Values:
    """Numbers: outputs and targets (n, n_values), each value of mean 0 and variance 1."""

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Mean squared error, as a part of the values' variance."""
        return functional.mse_loss(outputs, targets)

    def score(self, outputs: torch.Tensor, targets: torch.Tensor) -> float:
        """Variance explained."""
        return 1 - functional.mse_loss(outputs, targets).item()

    def distillation(self, outputs: torch.Tensor, taught: torch.Tensor) -> torch.Tensor:
        """Mean squared distance from the teacher's values."""
        return functional.mse_loss(outputs, taught)
