"""The convolutional head on words in their order (Kim 2014): one recipe for every method."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from linear import Score
from numpy.typing import NDArray
from tasks import Case
from tqdm.auto import tqdm

from skadacomp._learning.heads import ConvolutionalHead
from skadacomp._learning.teacher import Teacher, evaluate
from skadacomp._learning.trainer import Documents, Trainer, one_thread, seeded

N_EPOCHS, PATIENCE = 20, 4
_CPU = torch.device("cpu")


def convolutional_score(case: Case, vectors: NDArray[np.float32], seed: int) -> Score:
    """Train a fresh head on fixed vectors until dev says stop; report dev and test accuracy.

    Parameters
    ----------
    vectors : ndarray (n_words, n_dims)
        The rebuilt table.
    """
    with one_thread(), seeded(seed):
        head = ConvolutionalHead(vectors.shape[1], int(case.labels.max()) + 1)
        model = Teacher(torch.as_tensor(np.array(vectors)), head)
        model.vectors.requires_grad_(False)
        train, dev, test = (
            Documents(case.sequences[part], case.labels[part])
            for part in (case.train, case.dev, case.test)
        )
        optimizer = torch.optim.Adam(head.parameters(), lr=head.learning_rate)
        random = np.random.default_rng(seed)

        def losses(epoch: int) -> Iterator[torch.Tensor]:
            order = random.permutation(len(train))
            for batch in train.batches(head.batch_size(len(train)), _CPU, order):
                yield head.criterion.loss(model(batch), batch.targets)

        trainer = Trainer(PATIENCE, tqdm(disable=True))
        trainer.run(model, optimizer, N_EPOCHS, losses, lambda: evaluate(model, dev, _CPU))
        return Score(*(evaluate(model, part, _CPU)["task_score"] for part in (dev, test)))
