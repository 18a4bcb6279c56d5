"""Translations as people would write them, by beam search, and their scores."""

from __future__ import annotations

import re

import torch
from convolution import CPU
from sacrebleu.metrics import BLEU, CHRF

from skadacomp._learning.heads import TranslationHead
from skadacomp._learning.teacher import Teacher
from skadacomp._learning.trainer import Batch, Documents
from skadacomp._targets import TargetEncoder

_N_BEAMS = 5
_N_WORDS_WRITTEN = 40
_NO_SPACE = re.compile(r" (?=[.,!?;:])|(?<=\w) (?=- \w)|(?<=\w -) (?=\w)")
_END = 0  # number of what ends a sentence, and stands before its first word
_UNKNOWN = 1  # number of what stands for all rare target words, which no translation should hold


@torch.no_grad()
def translated(model: Teacher, documents: Documents, encoder: TargetEncoder) -> list[str]:
    """Write a translation of each document."""
    assert encoder.classes is not None
    words = encoder.classes.tolist()
    found = []
    for batch in documents.batches(256, CPU):
        for numbers in written(model, batch).tolist():
            end = numbers.index(_END) if _END in numbers else len(numbers)
            found.append(_NO_SPACE.sub("", " ".join(words[number] for number in numbers[:end])))
    return found


def written(
    model: Teacher, batch: Batch, n_beams: int = _N_BEAMS, n_words: int = _N_WORDS_WRITTEN
) -> torch.Tensor:
    """Numbers of the words written, (n_documents, n_steps at most `n_words`).

    The likeliest beginnings go on, word by word. In the end the sentence is taken whose words are
    the likeliest on average, as a longer one is less likely as a whole (Wu et al. 2016, section 7,
    with a length penalty of 1).
    """
    head = model.head
    assert isinstance(head, TranslationHead)
    vectors = model.vectors[batch.rows]
    memory, state, inside = head.read(vectors, torch.ones_like(vectors[:, 0]), batch)
    n_documents = len(memory)
    memory, inside = (part.repeat_interleave(n_beams, 0) for part in (memory, inside))
    state = state.repeat_interleave(n_beams, 1)
    first = n_beams * torch.arange(n_documents)[:, None]  # of each document's beams
    sentences = torch.full((len(memory), 1), _END)
    totals = torch.full((n_documents, n_beams), -torch.inf)
    totals[:, 0] = 0  # one beginning for all beams
    while sentences.shape[1] <= n_words and not (ended := _ended(sentences)).all():
        answers, state = head.write(memory, inside, state, sentences[:, -1:])
        gains = _gains(head.scores(answers)[:, 0], ended)  # (n_documents * n_beams, n_outputs)
        longer = totals[:, :, None] + gains.view(n_documents, n_beams, -1)
        totals, best = longer.flatten(1).topk(n_beams)
        old, word = first + best // gains.shape[1], best % gains.shape[1]
        sentences = torch.cat([sentences[old.flatten()], word.view(-1, 1)], 1)
        state = state[:, old.flatten()]
    sentences = sentences[:, 1:].view(n_documents, n_beams, -1)
    n_written = ((sentences != _END).sum(2) + 1).clamp_max(sentences.shape[2])  # with the end
    best = (totals / n_written).argmax(1)
    return sentences[torch.arange(n_documents), best]


def _ended(sentences: torch.Tensor) -> torch.Tensor:
    """Which sentences have an end behind their first word."""
    return (sentences[:, 1:] == _END).any(1)


def _gains(scores: torch.Tensor, ended: torch.Tensor) -> torch.Tensor:
    """Log probabilities of the next words; behind an end nothing comes but that, for certain."""
    scores[:, _UNKNOWN] = -torch.inf
    gains = scores.log_softmax(1)
    gains[ended] = -torch.inf
    gains[ended, _END] = 0
    return gains


def bleu(found: list[str], true: list[str]) -> dict[str, float]:
    """BLEU and chrF of translations, 1 at best; sacrebleu's defaults."""
    return {
        "score": BLEU().corpus_score(found, [true]).score / 100,
        "chrF": CHRF().corpus_score(found, [true]).score / 100,
    }
