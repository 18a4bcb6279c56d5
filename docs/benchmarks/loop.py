"""Codes learned in a training loop of one's own: an LSTM that chunks CoNLL-2000.

    python docs/benchmarks/loop.py --data FOLDER

trains one network on GloVe's rows of the task's words: with a plain embedding, fine-tuned and
frozen; with `AdaptiveCodebookEmbedding`, which is hardened, shipped and put back at the end; and on
what RQ makes of the fine-tuned rows. Writes ``loop.jsonl`` and ``loop.md``. Points that the file
has already are not measured again. FOLDER holds ``conll2000`` as `kinds` reads it.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Iterator
from functools import cache, partial

import numpy as np
import torch
from command import command_line, run
from kinds import Case, load_case
from numpy.typing import NDArray
from peers import Peer, peers
from points import Job, Line, grouped, mean_of, size_cells, spread_of
from seqeval.metrics import f1_score
from torch import nn

from skadacomp.nn import AdaptiveCodebookEmbedding, CodebookEmbedding

_N_EPOCHS, _BATCH = 8, 32
_NO_TAG = -100  # what cross_entropy leaves out
_SIZE_PENALTIES = (0.02, 0.005, 0.002)


class Tagger(nn.Module):
    """An embedding, an LSTM both ways, and a layer that scores each word's tags."""

    def __init__(self, embedding: nn.Module, n_dims: int, n_tags: int, n_hidden: int = 64) -> None:
        super().__init__()
        self.embedding = embedding
        self.reader = nn.LSTM(n_dims, n_hidden, batch_first=True, bidirectional=True)
        self.scores = nn.Linear(2 * n_hidden, n_tags)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Score tags, (n_sentences, n_places, n_tags)."""
        scores: torch.Tensor = self.scores(self.reader(self.embedding(rows))[0])
        return scores


class Loop:
    """The task in the form that a loop of torch takes it.

    Parameters
    ----------
    case : Case
        Tagged sentences.
    """

    def __init__(self, case: Case) -> None:
        self.split = case.split
        # One row of zeros after the table's: padding, and words that the table lacks.
        self.weight = torch.tensor(np.pad(case.table.vectors, ((0, 1), (0, 0))))
        self.nbytes, self.padding = 4 * self.weight.numel(), case.table.n_words
        self.names = sorted({tag for tags in case.split.y for tag in tags})
        numbers = {name: number for number, name in enumerate(self.names)}
        index = case.table.index
        self.rows = [[index.get(w, self.padding) for w in words] for words in case.split.X]
        self.tags = [[numbers[tag] for tag in tags] for tags in case.split.y]
        shown = np.concatenate([self.rows[i] for i in case.split.train])
        self.frequency = np.bincount(shown, minlength=len(self.weight))

    def batches(self, chosen: NDArray[np.int64]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Give rows and tags of the chosen sentences, (n_sentences, n_places) each."""
        for part in np.array_split(chosen, -(-len(chosen) // _BATCH)):
            yield (
                _padded([self.rows[i] for i in part], self.padding),
                _padded([self.tags[i] for i in part], _NO_TAG),
            )

    def train(self, embedding: nn.Module, seed: int) -> Tagger:
        """Train a network, and harden what learns codes."""
        torch.manual_seed(seed)
        random = np.random.default_rng(seed)
        model = Tagger(embedding, self.weight.shape[1], len(self.names))
        optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=2e-3)
        coded = embedding if isinstance(embedding, AdaptiveCodebookEmbedding) else None
        for epoch in range(_N_EPOCHS):
            if coded is not None:
                coded.temperature = 0.3 ** (epoch / (_N_EPOCHS - 1))
            for rows, tags in self.batches(random.permutation(self.split.train)):
                loss = nn.functional.cross_entropy(model(rows).flatten(0, 1), tags.flatten())
                if coded is not None:
                    loss = loss + coded.size_loss()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        if coded is not None:
            model.embedding = coded.harden()
        return model.eval()

    @torch.no_grad()
    def score(self, model: Tagger, chosen: NDArray[np.int64]) -> float:
        """F1 of the chunks of sentences."""
        true, found = [], []
        for rows, tags in self.batches(chosen):
            numbers = model(rows).argmax(2)
            for of_words, right in zip(numbers, tags, strict=True):
                inside = right != _NO_TAG
                true.append([self.names[number] for number in right[inside]])
                found.append([self.names[number] for number in of_words[inside]])
        return float(f1_score(true, found))


def _padded(rows: list[list[int]], value: int) -> torch.Tensor:
    return nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], True, value)


def _plain(loop: Loop, weight: torch.Tensor, seed: int, *, freeze: bool) -> Tagger:
    plain = nn.Embedding.from_pretrained(weight.clone(), freeze=freeze, padding_idx=loop.padding)
    return loop.train(plain, seed)


def _coded(loop: Loop, seed: int, size_penalty: float) -> tuple[Tagger, int]:
    """Learn codes in the loop; the model then reads what ships, rounded as it is."""
    embedding = AdaptiveCodebookEmbedding.from_pretrained(
        loop.weight,
        size_penalty=size_penalty,
        frequency=loop.frequency,
        padding_idx=loop.padding,
        seed=seed,
    )
    model = loop.train(embedding, seed)
    shipped = model.embedding.to_compressed()
    model.embedding = CodebookEmbedding.from_compressed(shipped, padding_idx=loop.padding)
    return model, shipped.nbytes


def _quantized(
    loop: Loop, seed: int, peer: Peer, tuned: Callable[[], Tagger]
) -> tuple[Tagger, int]:
    """Quantize the fine-tuned rows, and train the network on them."""
    found = peer.compress(tuned().embedding.weight.detach().numpy(), seed)
    vectors = torch.tensor(found.vectors)
    vectors[loop.padding] = 0
    return _plain(loop, vectors, seed, freeze=True), found.nbytes


def methods(loop: Loop, seed: int) -> Iterator[tuple[str, Callable[[], tuple[Tagger, int]]]]:
    """List what to measure: its name, and what makes a trained model and its table's bytes."""
    plain = partial(_plain, loop, loop.weight, seed)
    tuned = cache(partial(plain, freeze=False))
    yield "full precision, fine-tuned", lambda: (tuned(), loop.nbytes)
    yield "full precision, frozen", lambda: (plain(freeze=True), loop.nbytes)
    for penalty in _SIZE_PENALTIES:
        name = f"codes in the loop, size_penalty={penalty}"
        yield name, partial(_coded, loop, seed, penalty)
    for peer in peers(*loop.weight.shape, "least"):
        if peer.method == "RQ":
            yield f"RQ, {peer.setting}", partial(_quantized, loop, seed, peer, tuned)


def jobs(given: Namespace) -> Iterator[Job]:
    """List what to measure, with every seed."""
    loop = Loop(load_case(given.data, "tagging"))
    for seed in range(given.seeds):
        for method, make in methods(loop, seed):
            yield {"method": method, "seed": seed}, partial(_measure, loop, make)


def _measure(loop: Loop, make: Callable[[], tuple[Tagger, int]]) -> Line:
    model, nbytes = make()
    scores = {
        name: round(loop.score(model, part), 5)
        for name, part in (("dev", loop.split.dev), ("test", loop.split.test))
    }
    return {"nbytes": int(nbytes), "table_nbytes": loop.nbytes, **scores}


def table_of(points: list[Line]) -> str:
    """Lay the points out as Markdown, means over the seeds."""
    lines = ["| embedding | bytes | times smaller | dev F1 | test F1 | seeds |"]
    lines += ["|---|--:|--:|--:|--:|--:|"]
    for (method,), found in grouped(points, "method").items():
        lines.append(
            f"| {method} | {size_cells(found)} | {mean_of(found, 'dev'):.4f} "
            f"| {spread_of(found, 'test')} | {len(found)} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run from the command line."""
    run(command_line(__doc__), "loop", jobs, table_of)


if __name__ == "__main__":
    main()
