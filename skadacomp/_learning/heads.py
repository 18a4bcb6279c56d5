"""Task heads: what reads the words' vectors and says how badly the task fares."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Literal, Self, cast

import torch
from torch import nn
from torch.nn import functional

from skadacomp._learning.criteria import Classes, Criterion, Indicators, Values
from skadacomp._learning.trainer import Batch, Documents, batch_size

USUAL_DIMS = 50  # of the tables that rates and shares are meant for; those of more scale them
SourceOfCodes = Literal["task", "search", "either"]
_N_SKETCHED = 512  # documents that a head is asked about when its metric is estimated


class Head(nn.Module):
    """What heads have in common.

    A head maps the words of a batch of documents to outputs: ``head(vectors, kept, batch)``.

    Parameters
    ----------
    criterion : Criterion
        What the outputs should be.
    """

    # Whether words have places. Dropped ones are not skipped then. Nor do held-out documents choose
    # how strongly fine-tuning holds the vectors where they were: a strong pull keeps them apart,
    # and codes tell them less well. On CoNLL-2000 the fine-tuned table gains 0.3 points of F1 by
    # the choice, and its codes lose 0.9.
    ordered: bool = True
    learning_rate: float = 2e-3  # of Adam, when fine-tuned together with the table
    # Of the vectors while they are fine-tuned, as a part of their numbers' standard deviation.
    noise: float = 0.0
    label_weight: float = 0.5  # of the targets, beside what the fine-tuned head says, for codes
    # What `reconstruction_weight` is multiplied by for directions that the head does not read.
    unread_share: float = 1.0
    # Where codes come from: the task trains them; or they are searched for, to rebuild the
    # fine-tuned vectors best, for a head that reads much of a vector; or held-out loss chooses.
    source_of_codes: SourceOfCodes = "task"
    # Whether codes rebuild vectors between the fine-tuned and the pretrained ones, as
    # `reconstruction_weight` says, or the fine-tuned ones alone.
    drawn_back: bool = True
    inverse: torch.Tensor | None  # (n_dims, n_dims), what undoes the image that the head is given
    dropped: torch.Tensor | None  # (n_dims,), where words without a code lie in that image

    def __init__(self, criterion: Criterion) -> None:
        super().__init__()
        self.criterion = criterion
        self.register_buffer("inverse", None)
        self.register_buffer("dropped", None)

    def forward(self, vectors: torch.Tensor, kept: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Give outputs: one row a document, or one a word or target where these have places.

        Parameters
        ----------
        vectors : Tensor (n_batch_words, n_dims)
            Zeros for a word that was dropped.
        kept : Tensor (n_batch_words,)
            1 for a word with a code, 0 for one that was dropped.
        batch : Batch
            Which words the documents hold.
        """
        raise NotImplementedError

    def dropping(self, vector: torch.Tensor) -> None:
        """Tell where a word without a code lies for a head that reads words in their places.

        A head that pools skips such a word.
        """
        if self.ordered:
            self.dropped = vector

    def seen(self, vectors: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
        """Put dropped words where they lie, and undo the image that `reading` was told of."""
        if self.dropped is not None:
            vectors = vectors + (1 - kept)[:, None] * self.dropped
        return vectors if self.inverse is None else vectors @ self.inverse

    def vectors_rate(self, n_dims: int) -> float:
        """Give the learning rate of the vectors that are fine-tuned together with the head."""
        return self.learning_rate

    def batch_size(self, n_documents: int) -> int:
        """Make about 32 batches an epoch: a network fits a task within few of them."""
        return batch_size(n_documents, 32, smallest=32)

    def metric(self, vectors: torch.Tensor, documents: Documents) -> torch.Tensor:
        """Weigh directions by how the head reads them, (n_dims, n_dims), largest eigenvalue 1.

        The Gauss-Newton matrix of a word's vector: the mean square of the outputs' gradient,
        taken along random directions of the outputs.

        Parameters
        ----------
        vectors : Tensor (n_words, n_dims)
            Words of the documents.
        documents : Documents
        """
        random = torch.Generator(vectors.device).manual_seed(0)
        n_dims = vectors.shape[1]
        gram = torch.zeros(n_dims, n_dims, device=vectors.device)
        self.eval()
        for batch in documents.first(_N_SKETCHED).batches(64, vectors.device):
            words = vectors[batch.rows].detach().requires_grad_()
            outputs = self(words, torch.ones_like(words[:, 0]), batch)
            along = torch.randn(outputs.shape, generator=random, device=outputs.device)
            (gradient,) = torch.autograd.grad((outputs * along).sum(), words)
            gram += gradient.T @ gradient
        return normalised(gram)

    def reading(self, image: torch.Tensor) -> Self:
        """Copy the head so that it reads ``vectors @ image`` as it reads vectors now."""
        head = copy.deepcopy(self)
        head.inverse = torch.linalg.inv(image)
        return head


class PooledHead(Head):
    """A linear layer on a document's pooled vector.

    Parameters
    ----------
    n_dims : int
        Length of a word's vector.
    n_outputs : int
        Classes, labels or values.
    average : bool
        Divide by the weights of the words that are kept, as ``pooling="mean"`` does.
    criterion : Criterion, default=Classes()
    """

    ordered = False
    learning_rate = 1e-2
    # Fine-tuned, it was stopped before it knew its documents by heart, and says all there is.
    label_weight = 0.0

    def __init__(
        self, n_dims: int, n_outputs: int, average: bool, criterion: Criterion | None = None
    ) -> None:
        super().__init__(criterion or Classes())
        self.average = average
        self.linear = nn.Linear(n_dims, n_outputs)
        # From zero the first gradient is the class means: no random draw decides the start.
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, vectors: torch.Tensor, kept: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Pool the words that are kept, and read the sum or mean."""
        outputs: torch.Tensor = self.linear(_pooled(vectors, kept, batch, self.average))
        return outputs

    def batch_size(self, n_documents: int) -> int:
        """Make about 8 batches an epoch, so that small tasks take enough steps."""
        return batch_size(n_documents)

    def metric(self, vectors: torch.Tensor, documents: Documents) -> torch.Tensor:
        """Weigh directions by the weights; of classes only the differences decide."""
        rows = _telling(self.linear.weight, self.criterion)
        return normalised(rows.T @ rows)

    def reading(self, image: torch.Tensor) -> Self:
        """Move the image's inverse into the weights."""
        head = copy.deepcopy(self)
        with torch.no_grad():
            head.linear.weight.copy_(self.linear.weight @ torch.linalg.inv(image).T)
        return head


class ConvolutionalHead(Head):
    """Filters over neighbouring words, the largest answer of each, and a linear layer (Kim 2014).

    Parameters
    ----------
    n_dims, n_outputs : int
    criterion : Criterion, default=Classes()
    n_filters : int
        Of each width.
    widths : tuple of int
        Words that a filter spans.
    max_words : int
        Documents are read up to here, so that one long one does not fill the memory.
    """

    label_weight = 0.0  # it knows its documents by heart soon, and codes would too
    unread_share = 1 / 15  # it reads few directions, whatever its filters started from

    def __init__(
        self,
        n_dims: int,
        n_outputs: int,
        criterion: Criterion | None = None,
        n_filters: int = 100,
        widths: tuple[int, ...] = (3, 4, 5),
        max_words: int = 400,
    ) -> None:
        super().__init__(criterion or Classes())
        self.max_words, self.gap = max_words, max(widths)
        filters = [nn.Conv1d(n_dims, n_filters, width) for width in widths]
        self.filters = nn.ModuleList(filters)
        self.dropout = nn.Dropout(0.5)
        self.linear = nn.Linear(n_filters * len(widths), n_outputs)

    def forward(self, vectors: torch.Tensor, kept: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Read the words in their order; around a document there are zeros."""
        seen = self.seen(vectors, kept)
        line, windows = self._line(batch, nothing=len(seen))
        answers = [self._answers(filters, seen, line) for filters in self._convolutions()]
        largest = torch.segment_reduce(torch.cat(answers, 1), "max", lengths=windows)
        outputs: torch.Tensor = self.linear(self.dropout(functional.relu(largest)))
        return outputs

    def _line(self, batch: Batch, nothing: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Lay documents in one line, so that none is padded to the longest.

        Returns
        -------
        line : Tensor (n_windows + gap,)
            Words as they come; `nothing` around documents, and for a word that the table lacks.
        windows : Tensor (n_documents,)
            How many windows of each document there are, one of nothing and those with a word.
        """
        entries, inside = _laid_out(batch.starts, len(batch.words), self.max_words)
        words = torch.where(batch.weights == 0, nothing, batch.words)[entries[inside]]
        sizes = inside.sum(1)
        line = words.new_full((len(words) + self.gap * (len(sizes) + 1),), nothing)
        places = _in_line(sizes.cumsum(0) - sizes, len(words), self.gap)
        return line.index_copy(0, places, words), sizes + self.gap

    def _answers(
        self, filters: nn.Conv1d, vectors: torch.Tensor, line: torch.Tensor
    ) -> torch.Tensor:
        """Answer at each window, (n_windows, n_filters).

        A word comes many times in a batch, and each time in as many windows as these are wide: what
        it says at each place of a window is computed once, and summed where it comes.
        """
        n_filters, n_dims, width = filters.weight.shape
        told = vectors @ filters.weight.permute(1, 2, 0).reshape(n_dims, width * n_filters)
        told = functional.pad(told.reshape(-1, n_filters), (0, 0, 0, width))  # nothing says nothing
        windows = line.unfold(0, width, 1)[: len(line) - self.gap]  # (n_windows, width)
        rows = windows * width + torch.arange(width, device=line.device)
        assert filters.bias is not None
        return functional.embedding_bag(rows, told, mode="sum") + filters.bias

    def vectors_rate(self, n_dims: int) -> float:
        """Let vectors of many dimensions move faster.

        Otherwise the filters have learned the documents by heart before the vectors have moved, and
        vectors that have not, which say much besides the task, are the harder to compress.
        """
        return self.learning_rate * max(1.0, n_dims / USUAL_DIMS)

    def _convolutions(self) -> list[nn.Conv1d]:
        return cast("list[nn.Conv1d]", list(self.filters))

    def reading(self, image: torch.Tensor) -> Self:
        """Move the image's inverse into the filters."""
        head = copy.deepcopy(self)
        inverse = torch.linalg.inv(image)
        with torch.no_grad():
            for filters in head._convolutions():
                filters.weight.copy_(torch.einsum("fdw,ed->few", filters.weight, inverse))
        return head


class TaggingHead(Head):
    """Two convolutions over neighbouring words, and a linear layer that tags each word.

    Parameters
    ----------
    n_dims, n_outputs : int
        `n_outputs` is the number of tags.
    n_filters : int
        Of each convolution.
    width : int
        Words that a filter spans, odd.
    """

    learning_rate = 1e-2

    def __init__(self, n_dims: int, n_outputs: int, n_filters: int = 96, width: int = 3) -> None:
        super().__init__(Classes())
        self.reach = width // 2
        self.near = nn.Conv1d(n_dims, n_filters, width, padding=self.reach)
        self.far = nn.Conv1d(n_filters, n_filters, width, padding=self.reach)
        self.dropout = nn.Dropout(0.2)
        self.linear = nn.Linear(n_filters, n_outputs)

    def forward(self, vectors: torch.Tensor, kept: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Give each word of each document its tags' scores, (n_entries, n_tags)."""
        # All documents lie in one line, so that none is padded to the longest.
        words = self.seen(vectors, kept)[batch.words] * (batch.weights != 0)[:, None]
        places = _in_line(batch.starts, len(words), self.reach)
        line = words.new_zeros(len(words) + self.reach * (len(batch.starts) + 1), words.shape[1])
        line = line.index_copy(0, places, words)
        inside = line.new_zeros(len(line)).index_fill(0, places, 1.0)
        near = functional.relu(self.near(line.T[None])) * inside
        far = near + functional.relu(self.far(self.dropout(near)))  # (1, n_filters, n_places)
        outputs: torch.Tensor = self.linear(self.dropout(far[0].T[places]))
        return outputs


class PairHead(Head):
    """A layer on both texts' pooled vectors, their difference and their product.

    What Tai et al. (2015) read a pair's meaning from, and the two sides themselves.

    Parameters
    ----------
    n_dims, n_outputs : int
    average : bool
        Whether a text's vector is the mean of its words', or else their sum.
    criterion : Criterion
    n_hidden : int
        Units between.
    """

    ordered = False
    source_of_codes = "either"

    def __init__(
        self,
        n_dims: int,
        n_outputs: int,
        average: bool,
        criterion: Criterion,
        n_hidden: int = 100,
    ) -> None:
        super().__init__(criterion)
        self.average = average
        # Few scores are soon known by heart: noise is worth half a point on SICK's dev pairs. Their
        # classes lose as much by it.
        self.noise = 0.3 if isinstance(criterion, Values) else 0.0
        # Scores grade all that fine-tuning has moved. Drawn back, SICK's scores are half a point
        # below the fine-tuned table's however many bits there are.
        self.drawn_back = not isinstance(criterion, Values)
        self.hidden = nn.Linear(4 * n_dims, n_hidden)
        self.dropout = nn.Dropout(0.2)
        self.linear = nn.Linear(n_hidden, n_outputs)

    def forward(self, vectors: torch.Tensor, kept: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Compare the texts, which lie in the batch by turns."""
        pooled = _pooled(self.seen(vectors, kept), kept, batch, self.average)
        one, other = pooled[::2], pooled[1::2]  # (n_documents, n_dims)
        compared = torch.cat([one, other, (one - other).abs(), one * other], 1)
        hidden = self.dropout(functional.relu(self.hidden(compared)))
        outputs: torch.Tensor = self.linear(hidden)
        return outputs

    def vectors_rate(self, n_dims: int) -> float:
        """Let vectors move faster, or the layer knows its pairs by heart before they have moved.

        On SICK's dev pairs it is worth 1.7 points of entailment and 0.7 of relatedness.
        """
        return 4 * self.learning_rate

    def metric(self, vectors: torch.Tensor, documents: Documents) -> torch.Tensor:
        """Weigh all directions alike: texts are compared along each of them."""
        return torch.eye(vectors.shape[1], device=vectors.device)


class TranslationHead(Head):
    """A recurrent network that reads a sentence both ways, and one that writes its translation.

    The writer attends to what was read (Luong et al. 2015), and learns with the true words behind
    it; its words' vectors are also what it compares its answer to (Press and Wolf 2017).

    Parameters
    ----------
    n_dims : int
    n_outputs : int
        Words to choose from, of which number 0 ends a sentence.
    n_hidden : int
        Units of reader and writer.
    n_dims_out : int
        Length of a target word's vector.
    """

    learning_rate = 4e-3
    # Codes that this head trains move far from the fine-tuned vectors, and a translator trained
    # anew on them does worse than its own held-out loss says.
    source_of_codes = "search"

    def __init__(
        self, n_dims: int, n_outputs: int, n_hidden: int = 128, n_dims_out: int = 64
    ) -> None:
        super().__init__(Classes())
        self.reader = nn.GRU(n_dims, n_hidden // 2, batch_first=True, bidirectional=True)
        self.writer = nn.GRU(n_dims_out, n_hidden, batch_first=True)
        self.question = nn.Linear(n_hidden, n_hidden, bias=False)
        self.answer = nn.Linear(2 * n_hidden, n_dims_out)
        self.words_out = nn.Embedding(n_outputs, n_dims_out)
        nn.init.normal_(self.words_out.weight, std=n_dims_out**-0.5)
        self.bias = nn.Parameter(torch.zeros(n_outputs))
        self.dropout = nn.Dropout(0.2)

    def batch_size(self, n_documents: int) -> int:
        """Make about 256 batches an epoch: a translator takes many steps."""
        return batch_size(n_documents, 256, smallest=32)

    def forward(self, vectors: torch.Tensor, kept: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Score the next word at each place of the target sentences, (n_targets, n_outputs)."""
        assert batch.target_starts is not None
        memory, state, inside = self.read(vectors, kept, batch)
        steps, written = _laid_out(batch.target_starts, len(batch.targets))
        # Each word is told by those before it; before the first stands the end of another.
        before = functional.pad(batch.targets[steps], (1, -1))  # (n_documents, n_steps)
        answers, _ = self.write(memory, inside, state, before)
        return self.scores(answers[written])

    def read(
        self, vectors: torch.Tensor, kept: torch.Tensor, batch: Batch
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Read sentences.

        Returns
        -------
        memory : Tensor (n_documents, n_places, n_hidden)
        state : Tensor (1, n_documents, n_hidden)
            What the writer starts from.
        inside : Tensor (n_documents, n_places) of bool
            Where there is something to attend to; an empty sentence has one place.
        """
        words, inside = padded(self.seen(vectors, kept), batch)
        inside[:, 0] = True
        packed = nn.utils.rnn.pack_padded_sequence(
            self.dropout(words), inside.sum(1).cpu(), batch_first=True, enforce_sorted=False
        )
        found, ends = self.reader(packed)
        memory, _ = nn.utils.rnn.pad_packed_sequence(
            found, batch_first=True, total_length=inside.shape[1]
        )
        return memory, ends.transpose(0, 1).flatten(1)[None], inside

    def write(
        self, memory: torch.Tensor, inside: torch.Tensor, state: torch.Tensor, before: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Answer at each step, and give the state after the last.

        Parameters
        ----------
        before : Tensor (n_documents, n_steps)
            The word before each step.

        Returns
        -------
        answers : Tensor (n_documents, n_steps, n_dims_out)
        state : Tensor (1, n_documents, n_hidden)
        """
        states, last = self.writer(self.dropout(self.words_out(before)), state)
        fits = self.question(states) @ memory.transpose(1, 2)  # (n_documents, n_steps, n_places)
        shares = fits.masked_fill(~inside[:, None], -torch.inf).softmax(2)
        answers = torch.tanh(self.answer(torch.cat([states, shares @ memory], 2)))
        return self.dropout(answers), last

    def scores(self, answers: torch.Tensor) -> torch.Tensor:
        """Score every target word, (..., n_outputs)."""
        return answers @ self.words_out.weight.T + self.bias


class OwnHead(Head):
    """A user's module, on padded words and a mask.

    Parameters
    ----------
    module : Module
        ``module(vectors, mask)`` gives outputs, from vectors (n_documents, n_places, n_dims) and a
        mask (n_documents, n_places) that is True where there is a word. If it has a method
        ``loss(outputs, targets)``, that is the loss.
    criterion : Criterion
    by_word : bool
        Whether the outputs have a row for each place, as tags do.
    n_texts : int
        Texts of a document: of pairs, vectors and mask have an axis of two after the first.
    """

    def __init__(
        self, module: nn.Module, criterion: Criterion, *, by_word: bool, n_texts: int
    ) -> None:
        super().__init__(OwnLoss(module, criterion) if hasattr(module, "loss") else criterion)
        self.module, self.by_word, self.n_texts = module, by_word, n_texts

    def forward(self, vectors: torch.Tensor, kept: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Ask the module."""
        words, inside = self._given(self.seen(vectors, kept), batch)
        outputs: torch.Tensor = self.module(words, inside)
        return outputs[inside] if self.by_word else outputs

    def _given(self, vectors: torch.Tensor, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        words, inside = padded(vectors, batch)
        if self.n_texts == 1:
            return words, inside
        return words.unflatten(0, (-1, self.n_texts)), inside.unflatten(0, (-1, self.n_texts))

    @torch.no_grad()
    def check(self, vectors: torch.Tensor, batch: Batch, n_outputs: int) -> None:
        """See that the outputs have the shape that targets ask for.

        Raises
        ------
        ValueError
            If they have not.
        """
        words, inside = self._given(vectors, batch)
        expected = (*inside.shape, n_outputs) if self.by_word else (len(inside), n_outputs)
        outputs = self.module(words, inside)
        found = tuple(outputs.shape) if isinstance(outputs, torch.Tensor) else type(outputs)
        if found != expected:
            raise ValueError(
                f"head gives outputs of shape {found} for vectors of shape {tuple(words.shape)} "
                f"and a mask of shape {tuple(inside.shape)}; this task needs {expected}: "
                f"{n_outputs} outputs for each {'word' if self.by_word else 'document'}."
            )


class OwnLoss:
    """A user's loss; score and distillation are those of the kind of task."""

    def __init__(self, module: nn.Module, criterion: Criterion) -> None:
        self.module, self.criterion = module, criterion

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Ask the module."""
        loss: torch.Tensor = cast("Criterion", self.module).loss(outputs, targets)
        return loss

    def score(self, outputs: torch.Tensor, targets: torch.Tensor) -> float:
        """Score as the kind of task does."""
        return self.criterion.score(outputs, targets)

    def distillation(self, outputs: torch.Tensor, taught: torch.Tensor) -> torch.Tensor:
        """Distil as the kind of task does."""
        return self.criterion.distillation(outputs, taught)


_CRITERIA: dict[str, Callable[[], Criterion]] = {
    "classification": Classes,
    "pair": Classes,
    "tagging": Classes,
    "translation": Classes,
    "multilabel": Indicators,
    "regression": Values,
    "pair-regression": Values,
}


def make_head(
    n_dims: int, *, kind: str, name: str, own: Any, n_outputs: int, average: bool
) -> Head:
    """Make a fresh head for a kind of task.

    Parameters
    ----------
    n_dims : int
    kind : str
        Of task.
    name : {"linear", "convolutional", "pooled", "recurrent", "own"}
    own : Module, callable or None
        A user's module, which is copied, or what makes one of ``(n_dims, n_outputs)``.
    n_outputs : int
    average : bool
    """
    criterion = _CRITERIA[kind]()
    if name == "own":
        module = copy.deepcopy(own) if isinstance(own, nn.Module) else own(n_dims, n_outputs)
        if not isinstance(module, nn.Module):
            raise TypeError(
                f"head={own!r} made {type(module).__name__}; it must make a torch.nn.Module."
            )
        return OwnHead(module, criterion, by_word=kind == "tagging", n_texts=_n_texts(kind))
    if kind == "tagging":
        return TaggingHead(n_dims, n_outputs)
    if kind == "translation":
        return TranslationHead(n_dims, n_outputs)
    if kind in ("pair", "pair-regression"):
        return PairHead(n_dims, n_outputs, average, criterion)
    if name == "convolutional":
        return ConvolutionalHead(n_dims, n_outputs, criterion)
    return PooledHead(n_dims, n_outputs, average, criterion)


def _n_texts(kind: str) -> int:
    return 2 if kind in ("pair", "pair-regression") else 1


def _in_line(starts: torch.Tensor, n_entries: int, gap: int) -> torch.Tensor:
    """Give entries places in one line, with as many free ones around each document, (n_entries,).

    Parameters
    ----------
    starts : Tensor (n_documents,)
        Where each document begins among the entries.
    """
    numbers = torch.arange(n_entries, device=starts.device)
    return numbers + gap * torch.bucketize(numbers, starts, right=True)


def padded(
    vectors: torch.Tensor, batch: Batch, max_words: int | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Lay documents out word by word.

    Parameters
    ----------
    vectors : Tensor (n_batch_words, n_dims)
    batch : Batch
    max_words : int, default=None
        Where to cut documents.

    Returns
    -------
    words : Tensor (n_documents, n_places, n_dims)
        Zeros beyond a document's end, and for a word that the table lacks (one of weight 0).
    inside : Tensor (n_documents, n_places) of bool
        Whether there is a word. Of documents that are not cut, ``words[inside]`` are the entries.
    """
    entries, inside = _laid_out(batch.starts, len(batch.words), max_words)
    known = torch.where(batch.weights == 0, -1, batch.words)
    places = known.new_full(inside.shape, -1)
    places[inside] = known[entries[inside]]
    with_zeros = functional.pad(vectors, (0, 0, 0, 1))  # a last row of zeros, which -1 picks
    return with_zeros[places], inside


def _laid_out(
    starts: torch.Tensor, n_entries: int, longest: int | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Lay entries that follow each other out in rows, one place at least.

    Parameters
    ----------
    starts : Tensor (n_rows,)
        Where each row begins among the entries.
    n_entries : int
    longest : int, default=None
        Where to cut rows.

    Returns
    -------
    entries : Tensor (n_rows, n_places)
        Which entry lies at each place; any, where there is none.
    inside : Tensor (n_rows, n_places) of bool
        Whether there is one.
    """
    sizes = functional.pad(starts[1:], (0, 1), value=n_entries) - starts
    if longest is not None:
        sizes = sizes.clamp_max(longest)
    steps = torch.arange(max(int(sizes.max()), 1), device=starts.device)
    entries = (starts[:, None] + steps).clamp_max(max(n_entries - 1, 0))
    return entries, steps < sizes[:, None]


def _pooled(vectors: torch.Tensor, kept: torch.Tensor, batch: Batch, average: bool) -> torch.Tensor:
    """Sum or average of each document's words, (n_documents, n_dims)."""
    total = _sums(vectors, batch.weights, batch)
    if not average:
        return total
    return total / _sums(kept[:, None], batch.weights.abs(), batch).clamp_min(1e-6)


def _sums(values: torch.Tensor, weights: torch.Tensor, batch: Batch) -> torch.Tensor:
    return functional.embedding_bag(
        batch.words, values, batch.starts, mode="sum", per_sample_weights=weights
    )


def _telling(weight: torch.Tensor, criterion: Criterion) -> torch.Tensor:
    """Weights of outputs, (n_outputs, n_features); of classes less what moves all of them alike."""
    weight = weight.detach()
    return weight - weight.mean(0) if isinstance(criterion, Classes) else weight


def normalised(gram: torch.Tensor) -> torch.Tensor:
    """Scale a Gram matrix (n_dims, n_dims) to a largest eigenvalue of 1."""
    largest = torch.linalg.eigvalsh(gram)[-1]
    return gram / largest if largest > 0 else torch.zeros_like(gram)
