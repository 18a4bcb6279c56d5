"""The compressed model in training: encoder, lengths and head together."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from skadacomp._encoder import chunks
from skadacomp._learning.codes import TiedEncoder
from skadacomp._learning.heads import Head
from skadacomp._learning.lengths import LengthLogits
from skadacomp._learning.trainer import Batch

_REPULSION = 1e-3  # weight of the penalty on repeated codewords: a nudge, not a goal


@dataclass(frozen=True)
class Targets:
    """What the words' vectors should be, in the image in which distances count for the task.

    Parameters
    ----------
    images : Tensor (n_active, n_dims)
        Vectors of the active words, as seen from `centre`.
    centre : Tensor (n_dims,)
    weights : Tensor (n_active,)
        How much each word's error counts.
    """

    images: torch.Tensor
    centre: torch.Tensor
    weights: torch.Tensor


class Student(nn.Module):
    """Words as variable-length codes, and a head that reads them.

    Parameters
    ----------
    targets : Targets
    encoder : TiedEncoder
    lengths : LengthLogits
    head : Head or None
        None without a task.
    reconstruction_weight : float
        Of the reconstruction error beside the task's loss.
    inputs_move : bool
        Whether the words' vectors are trained on their way into the encoder.
    """

    def __init__(
        self,
        targets: Targets,
        encoder: TiedEncoder,
        lengths: LengthLogits,
        head: Head | None,
        reconstruction_weight: float,
        *,
        inputs_move: bool,
    ) -> None:
        super().__init__()
        self.targets, self.encoder, self.lengths, self.head = targets, encoder, lengths, head
        self.reconstruction_weight = reconstruction_weight
        # Learning from a teacher each word may move away from its vector to reach a better code.
        self.inputs = nn.Parameter(targets.images.clone(), requires_grad=inputs_move)
        self.codes: torch.Tensor | None = None  # (n_active, n_codebooks) once they are fixed

    def encode(self, rows: slice) -> torch.Tensor:
        """Give the words' codes, (n_rows, n_codebooks)."""
        if self.codes is not None:
            return self.codes[rows]
        codes: torch.Tensor = self.encoder(self.inputs[rows]).argmax(2)
        return codes

    @torch.no_grad()
    def fix_codes(self, codes: torch.Tensor | None = None) -> None:
        """Keep codes; what is left to train are codebooks and head.

        Parameters
        ----------
        codes : Tensor (n_active, n_codebooks) or None
            None keeps those that the words have now.
        """
        if codes is None:
            n_words, n_scores = len(self.inputs), self.encoder.codebooks[..., 0].numel()
            codes = torch.cat([self.encode(part) for part in chunks(n_words, n_scores)])
        self.codes = codes
        self.inputs.requires_grad_(False)

    def _picks(self, rows: torch.Tensor) -> torch.Tensor:
        """One-hot codes of words, (n_rows, n_codebooks, n_codewords)."""
        if self.codes is None:
            picks: torch.Tensor = self.encoder(self.inputs[rows])
            return picks
        n_codewords = self.encoder.codebooks.shape[1]
        return functional.one_hot(self.codes[rows], n_codewords).to(self.inputs.dtype)

    def words(
        self, rows: torch.Tensor, heat: float | None, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Rebuild words from their codes.

        Parameters
        ----------
        rows : Tensor (n_rows,)
        heat : float or None
            Temperature at which lengths are sampled; None takes the best ones.

        Returns
        -------
        vectors : Tensor (n_rows, n_dims)
            As seen from the targets' centre.
        kept : Tensor (n_rows,)
            0 for the words that have no code.
        """
        gates, kept = self.lengths(rows, heat, generator)  # (n_rows, n_codebooks), (n_rows,)
        if self.codes is None and heat is None:
            n_codes, order = gates.sum(1).sort(descending=True)
            inputs = self.inputs.index_select(0, rows[order])  # quicker than by []
            found = self.encoder.rebuild(inputs, n_codes)
            return torch.empty_like(found).index_copy(0, order, found), kept
        gated = (self._picks(rows) * gates[:, :, None]).flatten(1)
        return gated @ self.encoder.codebooks.flatten(0, 1), kept

    def loss(
        self,
        batch: Batch,
        heat: float | None,
        generator: torch.Generator,
        taught: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, float | None]:
        """Loss of a batch on the task and on reconstruction, and its task score.

        Parameters
        ----------
        taught : Tensor or None
            The teacher's outputs; all of the task's loss but the head's `label_weight` is then the
            distance from them.
        """
        vectors, kept = self.words(batch.rows, heat, generator)
        error = self._error(vectors, batch.rows) + _REPULSION * self.encoder.repulsion()
        if self.head is None:
            return error, None
        placed = vectors + kept[:, None] * self.targets.centre
        outputs, criterion = self.head(placed, kept, batch), self.head.criterion
        task = criterion.loss(outputs, batch.targets)
        if taught is not None:
            task = torch.lerp(criterion.distillation(outputs, taught), task, self.head.label_weight)
        score = criterion.score(outputs, batch.targets)
        return task + self.reconstruction_weight * error, score

    def _error(self, vectors: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Weighted squared error; the targets' weighted mean square is 1, so it is relative."""
        error = ((vectors - self.targets.images.index_select(0, rows)) ** 2).sum(1)
        weights = self.targets.weights[rows]
        # Documents without a known word have no error, rather than 0 / 0.
        return (error * weights).sum() / weights.sum().clamp_min(1e-30)
