"""The convolutional head on words in their order (Kim 2014): one recipe for every method."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from linear import Score
from numpy.typing import NDArray
from tasks import Case
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm.auto import tqdm

from skadacomp._learning.heads import ConvolutionalHead, Head
from skadacomp._learning.teacher import Teacher, evaluate
from skadacomp._learning.trainer import Documents, Trainer, one_thread, seeded


class Schedule(NamedTuple):
    """How a network is trained: epochs at most, and those without a better one.

    `averaging` is the share of the weights' running means that a step keeps. The means are what is
    evaluated and kept, as steps throw them about less (Polyak and Juditsky 1992).
    """

    n_epochs: int = 20
    patience: int = 4
    averaging: float = 0.0

    @property
    def of_fits(self) -> dict[str, int]:
        """The estimator's parameters that make each stage of a fit as long."""
        return {"max_iter": self.n_epochs, "n_iter_no_change": self.patience}


USUAL = Schedule()
CPU = torch.device("cpu")


def convolutional_score(case: Case, vectors: NDArray[np.float32], seed: int) -> Score:
    """Train a fresh head on fixed vectors until dev says stop; report dev and test accuracy.

    Parameters
    ----------
    vectors : ndarray (n_words, n_dims)
        The rebuilt table.
    """
    train, dev, test = (
        Documents(case.sequences[part], case.labels[part])
        for part in (case.train, case.dev, case.test)
    )
    n_classes = int(case.labels.max()) + 1
    with one_thread():
        make_head = partial(ConvolutionalHead, n_outputs=n_classes)
        model = read_fixed(vectors * np.float32(case.scale), make_head, train, dev, seed)
        return Score(*(evaluate(model, part, CPU)["task_score"] for part in (dev, test)))


def read_fixed(
    vectors: NDArray[np.float32],
    make_head: Callable[[int], Head],
    train: Documents,
    dev: Documents,
    seed: int,
    schedule: Schedule = USUAL,
) -> Teacher:
    """Train a head on vectors that stay as they are, until dev says stop."""
    with seeded(seed):
        head = make_head(vectors.shape[1])
        means = AveragedModel(head, multi_avg_fn=get_ema_multi_avg_fn(schedule.averaging))
        table = torch.as_tensor(np.array(vectors))
        model, found = Teacher(table, head), Teacher(table, means.module)
        model.vectors.requires_grad_(False)
        optimizer = torch.optim.Adam(head.parameters(), lr=head.learning_rate)
        random = np.random.default_rng(seed)

        def losses(epoch: int) -> Iterator[torch.Tensor]:
            order = random.permutation(len(train))
            for batch in train.batches(head.batch_size(len(train)), CPU, order):
                yield head.criterion.loss(model(batch), batch.targets)
                means.update_parameters(head)  # a step later

        trainer = Trainer(schedule.patience, tqdm(disable=True))
        both = torch.nn.ModuleList([head, means])  # a head that diverges goes back with its means
        trainer.run(both, optimizer, schedule.n_epochs, losses, lambda: evaluate(found, dev, CPU))
    return found.eval()
