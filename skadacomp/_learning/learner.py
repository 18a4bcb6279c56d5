"""The whole of the learning, from a table and a task to lengths, codes and codebooks."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import nn
from tqdm.auto import tqdm

from skadacomp._codes import code_usage, shortened
from skadacomp._encoder import RowEncoder, chunks
from skadacomp._learning.axes import (
    Axes,
    axes_to_learn_along,
    rows_back,
    turned,
    turned_back,
)
from skadacomp._learning.checkpoint import Checkpoint, Draws, Tensors, as_text, from_text
from skadacomp._learning.codes import (
    RANK_TOLERANCE,
    TiedEncoder,
    paying_rank,
    random_codebooks,
    reduce_rank,
    refit_codebooks,
    residual_kmeans,
)
from skadacomp._learning.heads import USUAL_DIMS, Head, OwnHead
from skadacomp._learning.joint import JointDocuments, JointHead
from skadacomp._learning.lengths import (
    LengthLogits,
    choose,
    choose_within,
    significance,
)
from skadacomp._learning.settings import Learned, Settings, Task
from skadacomp._learning.shelf import TEACHERS, shelf_key
from skadacomp._learning.space import Overlay, Space, find_space
from skadacomp._learning.student import Student, Targets
from skadacomp._learning.teacher import Split, Teacher, fine_tune, usual_scale
from skadacomp._learning.trainer import (
    Batch,
    Course,
    Documents,
    Trainer,
    batch_size,
    one_thread,
    pick_device,
    seeded,
)
from skadacomp._mapped import mean_row, take_rows

CPU = torch.device("cpu")
_SEARCHES = 6  # for codes, with codebooks fitted in between; later ones gain next to nothing
_SAMPLE = 2**14  # rows that codebooks are fitted to, and that training without a task goes through


class _CutShortError(Exception):
    """A step was interrupted, so that nobody else may take it for done."""


class _Encoded(NamedTuple):
    """The table's codes at their longest, and what they leave over."""

    codes: NDArray[np.int16]  # (n_words, n_codebooks)
    # Each word's significance times its squared error at each candidate length; that of no code
    # sums to 1 over the table.
    errors: NDArray[np.float64]  # (n_words, n_candidates)
    left: NDArray[np.float64]  # (n_codebooks + 1,), the whole table's at that many codes


def fine_tune_table(
    vectors: NDArray[np.float32], task: Task | Sequence[Task], settings: Settings
) -> NDArray[np.float32]:
    """Fine-tune the table on the task at full precision: the teacher of `learn`, by itself."""
    settings = replace(settings, reconstruction_weight=0.0)  # nothing of the pretrained vectors
    tasks = _listed(task)
    axes = _axes(vectors, tasks, settings)
    seen = vectors if axes is None else turned(vectors, axes)
    with one_thread(), seeded(settings.seed), _progress(1, settings) as bar:
        learner = _Learner(seen, tasks, settings, bar)
        learner._prepare_tasks()
        tuned = learner.table[np.arange(len(vectors))]
    return tuned if axes is None else rows_back(tuned, axes, vectors)


def check_head(task: Task, vectors: NDArray[np.float32], n_outputs: int) -> None:
    """Ask a user's head about a few documents, and see that its outputs fit the task.

    Raises
    ------
    ValueError
        If they do not.
    """
    head = task.make_head(vectors.shape[1])
    assert isinstance(head, OwnHead)
    batch = task.documents.first(3).batch(np.arange(min(3, len(task.documents))), CPU)
    head.eval().check(torch.as_tensor(vectors[batch.rows.numpy()]), batch, n_outputs)


def learn(
    vectors: NDArray[np.float32],
    task: Task | Sequence[Task] | None,
    settings: Settings,
    checkpoint: Checkpoint | None = None,
) -> Learned:
    """Learn lengths, codes and codebooks for a table, on tasks or for reconstruction alone.

    Parameters
    ----------
    vectors : ndarray (n_words, n_dims) float32
        Rows in order of word frequency where there is a task.
    task : Task, sequence of Task, or None
        Several tasks are learned from at once.
    settings : Settings
    checkpoint : Checkpoint or None
        Keeps the steps that are done, and gives those that were done before.
    """
    tasks = _listed(task)
    # Fine-tuning, codes and codebooks; or codes alone.
    n_stages = (3 if tasks and settings.init != "random" else 1) + (
        settings.length_method == "gumbel-softmax"
    )
    with one_thread(), seeded(settings.seed), _progress(n_stages, settings) as bar:
        axes = _axes(vectors, tasks, settings)
        if axes is None:
            return _Learner(vectors, tasks, settings, bar, checkpoint).run()
        seen, n_dims = turned(vectors, axes), vectors.shape[1]
        learner = _Learner(seen, tasks, settings, bar, checkpoint, n_dims=n_dims)
        return turned_back(learner.run(), axes, vectors)


def _axes(vectors: NDArray[np.float32], tasks: Sequence[Task], settings: Settings) -> Axes | None:
    """Find what to learn along, but for a head that reads the table's own dimensions."""
    any_dims = all(task.any_dims for task in tasks)
    return axes_to_learn_along(vectors, settings.n_components) if any_dims else None


def _listed(task: Task | Sequence[Task] | None) -> tuple[Task, ...]:
    if task is None:
        return ()
    return (task,) if isinstance(task, Task) else tuple(task)


def _progress(n_stages: int, settings: Settings) -> tqdm:
    """Make the bar that all stages move on."""
    return tqdm(total=n_stages * settings.max_iter, disable=not settings.verbose, unit="epoch")


class _Learner:
    """The stages of `learn`, and what they share."""

    def __init__(
        self,
        vectors: NDArray[np.float32],
        tasks: tuple[Task, ...],
        settings: Settings,
        bar: tqdm,
        checkpoint: Checkpoint | None = None,
        *,
        n_dims: int | None = None,
    ) -> None:
        self.vectors, self.tasks, self.settings, self.bar = vectors, tasks, settings, bar
        self.checkpoint = checkpoint
        self.n_dims = n_dims or vectors.shape[1]  # of what ships
        self.n_words = len(vectors)
        self.candidates = np.array(settings.rate.candidates)
        self.n_codebooks = int(self.candidates[-1])
        self.multiplier = settings.size_penalty / self.n_words
        self.budget = settings.budget
        self.device = pick_device(settings.device)
        self.random = np.random.default_rng(settings.seed)
        self.generator = torch.Generator(self.device).manual_seed(settings.seed)
        self.history: list[dict[str, float]] = []
        self.course = Course(keep=settings.on_interrupt == "keep")

    def run(self) -> Learned:
        """Go through the stages."""
        if self.tasks:
            self._prepare_tasks()
        else:
            self._prepare_reconstruction()
        student, encoded = self._start()
        if self.settings.length_method == "gumbel-softmax":
            self._stage(student, "lengths")
            encoded = self._encode_table(student.encoder.codebooks.detach(), "trained")
        self._harden(student, encoded)
        del encoded
        student = self._learn_codes(student)
        return self._finish(student)

    def _prepare_reconstruction(self) -> None:
        """Without a task every row counts alike, and a sample of rows stands for the table."""
        n_active = min(self.n_words, _SAMPLE)
        self.active = np.sort(self.random.choice(self.n_words, n_active, replace=False))
        self.teacher: Teacher | None = None
        self.head: Head | None = None
        self.table = Overlay.bare(self.vectors)
        self.significance = np.full(self.n_words, 1 / self.n_words)
        self.space = self._find_space(None)
        # Each row is a document of its own; all of them train, for they are what is to be rebuilt.
        rows = sparse.csr_matrix(sparse.eye_array(n_active, dtype=np.float32))
        documents = Documents(rows, np.zeros(n_active, np.int64))
        self.split = Split(documents, documents)

    def _prepare_tasks(self) -> None:
        """Fine-tune at full precision; what the head reads then says which distances count."""
        words = [np.unique(task.documents.weights.indices) for task in self.tasks]
        self.active = np.unique(np.concatenate(words)).astype(np.int64)
        self.split = self._splits()
        self.significance = np.average(
            [significance(task.training_words, self.n_words) for task in self.tasks],
            axis=0,
            weights=[task.weight for task in self.tasks],
        )
        if self.settings.init == "random":
            # The plain form: the table as it is, all directions alike, and a head yet to learn.
            self.teacher, self.head = None, self._make_head()
            self.table = Overlay.bare(self.vectors)
            self.space = self._find_space(None)
            return
        self.teacher = self._fine_tune()
        teacher = self.teacher
        self.table = Overlay(self.vectors, self.active, self._targets(teacher))
        gram = _array(teacher.head.metric(teacher.vectors.detach(), self.split.train))
        # Of many directions all but a few are not read; they would count by their number alone.
        n_directions = min(self.vectors.shape)  # that the rows differ in, at most
        unread = teacher.head.unread_share * min(1.0, USUAL_DIMS / n_directions)
        floor = max(self.settings.reconstruction_weight * unread, 0.01)
        self.space = self._find_space(gram, floor=floor)
        # The head goes on from where the teacher's is, and reads the space's vectors.
        self.head = teacher.head.reading(self._tensor(self.space.metric / self.scale))

    def _targets(self, teacher: Teacher) -> NDArray[np.float32]:
        """Give what to rebuild: the fine-tuned vectors, drawn back as the pretrained ones weigh."""
        tuned, weight = _array(teacher.vectors) / self.scale, self.settings.reconstruction_weight
        if teacher.head.drawn_back:
            pretrained = take_rows(self.vectors, self.active)
            tuned = (tuned + weight * pretrained) / (1 + weight)
        return tuned.astype(np.float32)

    def _find_space(self, gram: NDArray[np.float64] | None, **given: float) -> Space:
        def find() -> Tensors:
            parts = self._blocks("measuring", self.n_words)
            space = find_space(self.table, self.significance, gram, parts=parts, **given)
            return {"centre": torch.tensor(space.centre), "metric": torch.tensor(space.metric)}

        return Space(**{name: part.numpy() for name, part in self._once("space", find).items()})

    def _make_head(self) -> Head:
        """Make a fresh head, or one for each task."""
        heads = [task.make_head(self.vectors.shape[1]) for task in self.tasks]
        if len(heads) == 1:
            return heads[0]
        weights = np.array([task.weight for task in self.tasks])
        return JointHead(heads, (weights / weights.sum()).tolist())

    def _splits(self) -> Split:
        """Cut the documents of all tasks."""
        splits = [self._split(task) for task in self.tasks]
        if len(splits) == 1:
            return splits[0]
        return Split(
            JointDocuments.of([split.train for split in splits]),
            JointDocuments.of([split.held_out for split in splits]),
        )

    def _split(self, task: Task) -> Split:
        """Cut the documents, with their words as positions among the active ones."""
        counts = task.documents.weights
        text = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))  # of each entry
        # Not abs(counts): it would sort the entries of `counts` itself, whose order is the words'.
        totals = np.bincount(text, abs(counts.data), minlength=counts.shape[0])
        # Texts weigh about 1 whatever the pooling, so that one learning rate fits all.
        mean = totals[task.documents.texts(task.train)].mean()
        scale = totals if task.average else np.full(len(totals), mean)
        data = counts.data / np.maximum(scale, 1e-12)[text]
        places = np.searchsorted(self.active, counts.indices)
        weights = sparse.csr_matrix(
            (data.astype(np.float32), places, counts.indptr), (len(totals), len(self.active))
        )
        documents = replace(task.documents, weights=weights)
        return Split(documents.part(task.train), documents.part(task.held_out))

    def _fine_tune(self) -> Teacher:
        self.bar.set_description("fine-tuning")
        settings, head = self.settings, self._make_head()
        rows = take_rows(self.vectors, self.active)
        # What the teacher's vectors are multiplied by; a head of one's own sees them as they are.
        any_scale = all(task.any_dims for task in self.tasks)
        self.scale = usual_scale(rows, self.significance[self.active]) if any_scale else 1.0
        rows = np.float32(self.scale) * rows
        teacher = Teacher(torch.as_tensor(rows, device=self.device), head).to(self.device)
        makers = [(task.make_head, task.weight) for task in self.tasks]
        given = (rows, self.split, makers, settings.max_iter, settings.patience)
        train = partial(
            fine_tune,
            teacher,
            self.split,
            Trainer(settings.patience, self.bar, stage="fine-tuning", course=self.course),
            n_epochs=settings.max_iter,
            draws=Draws(self.random, self.generator),
            device=self.device,
        )
        # Accelerators have random states of their own, which a key would not know.
        shared = settings.shared and self.device == CPU
        self._trained("fine-tuning", teacher, train, given if shared else None)
        return teacher

    def _start(self) -> tuple[Student, _Encoded]:
        """Take codes from residual k-means, and lengths from rate and distortion."""
        sample = self.active
        if self.n_words > len(sample):
            others = self.random.choice(self.n_words, min(self.n_words, _SAMPLE), replace=False)
            sample = np.union1d(sample, others)
        find = residual_kmeans if self.settings.init == "residual-kmeans" else random_codebooks
        codebooks = find(
            self._images(sample),
            self._tensor(self.significance[sample]),
            self.n_codebooks,
            self.settings.n_codewords,
            self.generator,
        )
        encoded = self._encode_table(codebooks, "start")
        cost = self._cost(encoded.errors)
        self._choose(cost)
        self._choose_rank(encoded, codebooks)
        # A codeword is chosen as softly as the error left at its codebook is large.
        left = encoded.left[:-1] / max(encoded.left[0], 1e-12)
        encoder = TiedEncoder(codebooks, self._tensor(1 / np.maximum(left, 1e-6)))
        return self._student(encoder, cost), encoded

    def _cost(self, errors: NDArray[np.float64]) -> NDArray[np.float64]:
        """Cost in error of each candidate length for each word, (n_words, n_candidates)."""
        if self.settings.length_method == "frequency":
            # As if every word were rebuilt alike: significance alone tells words apart.
            return np.outer(self.significance, errors.sum(0))
        return errors

    def _student(self, encoder: TiedEncoder, cost: NDArray[np.float64]) -> Student:
        """Put the model together that training starts from."""
        rate = self.settings.rate
        total = cost[self.active] + self.multiplier * rate.bits(self.choices, self.active)
        # Where bits cost next to nothing, a worse candidate is worse beyond all bounds.
        excess = np.minimum((total - total.min(1, keepdims=True)) / self.multiplier, 1e6)
        if self.settings.init == "random":
            excess[:] = 0
        targets = Targets(
            self._images(self.active),
            self._tensor(self.space.centre @ self.space.metric),
            self._tensor(self.significance[self.active]),
        )
        lengths = LengthLogits(self._tensor(excess), rate.candidates, self.n_codebooks)
        if self.head is not None:
            # The compressed table gives its mean vector for a word without a code.
            self.head.dropping(self._tensor(self.mean @ self.space.metric))
        weight = self.settings.reconstruction_weight
        moves = self.teacher is not None
        return Student(targets, encoder, lengths, self.head, weight, inputs_move=moves).to(
            self.device
        )

    def _choose(self, cost: NDArray[np.float64]) -> None:
        """Choose lengths at the budget, or at the penalty's price of a bit."""
        rate, budget = self.settings.rate, self.budget
        if budget is None:
            self.choices = choose(cost, rate, self.multiplier)
        else:
            # A longer code may rebuild a word worse, by a little, but a budget is there to be
            # used: longer counts as at least as good, and by a hair as better.
            hair = 1e-9 * cost[:, 0].mean() * np.arange(cost.shape[1])
            cost = np.minimum.accumulate(cost, axis=1) - hair
            self.choices, self.multiplier = choose_within(cost, rate, budget)

    def _choose_rank(self, encoded: _Encoded, codebooks: torch.Tensor) -> None:
        """Give the codebooks as few axes as pay, and no more than leave out next to nothing.

        A head reads few directions, and where few words have long codes these say little else.
        Random codebooks are yet to be trained, and stay whole.
        """
        self.rank = self.vectors.shape[1]
        if self.settings.init != "random":
            codes = self._shortened(encoded.codes)
            usage = code_usage(codes, self.significance, self.settings.n_codewords)
            error = encoded.errors[np.arange(self.n_words), self.choices].sum()
            self.rank = paying_rank(
                _array(codebooks),
                usage,
                n_dims=self.n_dims,
                n_bits=self.settings.codebook_bits,
                price=self.multiplier,
                negligible=RANK_TOLERANCE * error,
            )
        if self.budget is not None:
            self.rank = self.budget.fitting_rank(self.rank, self.n_words)
            self.budget = replace(self.budget, rank=self.rank)

    def _shortened(self, codes: NDArray[np.int16]) -> NDArray[np.int16]:
        """Cut codes to their words' lengths."""
        return shortened(codes, self.candidates[self.choices])

    def _stage(
        self,
        student: Student,
        what: Literal["lengths", "codes", "codebooks", "searched codebooks"],
    ) -> None:
        """Train the student: in step 1 its lengths and codes, in step 2 codes, then codebooks."""
        settings, lengths_move = self.settings, what == "lengths"
        self.bar.set_description(what)
        bits = self._tensor(self.multiplier * settings.rate.bits(self.choices, self.active))

        def size() -> torch.Tensor:
            expected = (student.lengths.probabilities() * bits).sum()
            return expected if lengths_move else torch.zeros((), device=self.device)

        def losses(epoch: int) -> Iterator[torch.Tensor]:
            # The temperature falls from 1.0 to 0.3, so that samples come to be the best lengths.
            heat = 0.3 ** (epoch / max(settings.max_iter - 1, 1)) if lengths_move else None
            order = self.random.permutation(len(self.split.train))
            for batch in self.split.train.batches(self._batch_size(), self.device, order):
                told = self._teach(batch)
                yield student.loss(batch, heat, self.generator, told)[0] + size()

        train = partial(
            Trainer(settings.patience, self.bar, self.history, what, self.course).run,
            student,
            torch.optim.Adam(self._parameters(student), fused=True),
            settings.max_iter,
            losses,
            lambda: self._evaluate(student, size),
        )
        self._trained(what, student, train)

    def _trained(
        self, step: str, model: nn.Module, train: Callable[[], None], given: Any = None
    ) -> None:
        """Train a model, or give it the weights that it came to before.

        Before is an interrupted fit; or, where `given` has all that the step depends on beside
        random draws, another fit of this process.
        """
        draws, n_done = Draws(self.random, self.generator), self.bar.n
        once: Callable[[Callable[[], Tensors]], Tensors]
        if self.course.interrupted:
            train()
            return
        if self.checkpoint is not None:
            once = partial(self.checkpoint.once, step)
        elif given is not None:
            once = partial(TEACHERS.once, shelf_key(given, draws.state()))
        else:
            train()
            return

        def state() -> Tensors:
            train()
            if self.course.interrupted:
                raise _CutShortError
            weights = {f"model.{name}": part for name, part in model.state_dict().items()}
            return {**weights, **draws.state(), "history": as_text(self.history)}

        try:
            kept = once(state)
        except _CutShortError:
            return  # the model is trained as far as it came to be
        weights = {n.removeprefix("model."): kept[n] for n in kept if n.startswith("model.")}
        model.load_state_dict(weights)
        model.eval()  # as training leaves it
        draws.restore(kept)
        self.history[:] = from_text(kept["history"])
        # Past the stage, if its epochs were not run.
        self.bar.update(max(n_done + self.settings.max_iter - self.bar.n, 0))

    def _batch_size(self) -> int:
        n_documents = len(self.split.train)
        return batch_size(n_documents) if self.head is None else self.head.batch_size(n_documents)

    @torch.no_grad()
    def _teach(self, batch: Batch) -> torch.Tensor | None:
        """Ask the teacher."""
        return None if self.teacher is None else self.teacher(batch)

    def _parameters(self, student: Student) -> list[dict[str, Any]]:
        """Give what belongs to single words a smaller learning rate than what all of them share.

        The inputs take a third. Length logits move as far in an epoch whatever its steps.
        """
        rate = self.settings.learning_rate
        n_steps = len(self.split.train) / self._batch_size()
        own = {"inputs": rate / 3, "lengths.learned": rate * min(1.0, 8 / n_steps)}
        return [
            {"params": [parameter], "lr": own.get(name, rate)}
            for name, parameter in student.named_parameters()
            if parameter.requires_grad
        ]

    @torch.no_grad()
    def _evaluate(self, student: Student, size: Callable[[], torch.Tensor]) -> dict[str, float]:
        """Loss, score and bits per word with every word at its best length."""

        def figures(batch: Batch) -> tuple[float, float]:
            loss, score = student.loss(batch, None, self.generator)
            return loss.item(), score or 0.0

        loss, score = self.split.held_out.mean(figures, self.device, self._batch_size())
        choices = self.choices.copy()
        choices[self.active] = student.lengths.best().cpu().numpy()
        bits = self.settings.rate.code_bits(choices) / self.n_words
        scored = {} if student.head is None else {"task_score": score}
        return {"loss": loss + size().item(), **scored, "bits_per_word": bits}

    @torch.no_grad()
    def _harden(self, student: Student, encoded: _Encoded) -> None:
        """Fix each word's length, and meet the budget with what training has learned."""
        cost = self._cost(self._errors(student, encoded))
        # A logit is twice a cost in bits, see LengthLogits.
        cost[self.active] -= self.multiplier / 2 * _array(student.lengths.learned)
        self._choose(cost)
        if self.settings.init == "random" and self.settings.budget is None:
            # In the plain form the logits alone decide; they have weighed the bits already.
            self.choices[self.active] = student.lengths.best().cpu().numpy()
        chosen = torch.as_tensor(self.choices[self.active].astype(np.int64), device=self.device)
        student.lengths.choices = chosen

    def _learn_codes(self, student: Student) -> Student:
        """Step 2: codes that the task trains, or that are searched for; then their codebooks."""
        source = "task" if self.teacher is None else self.teacher.head.source_of_codes
        if source == "task":
            return self._train_codes(student)
        # The bar counts one stage of codes and one of codebooks.
        self.bar.total += self.settings.max_iter * (1 if source == "either" else -1)
        trained = self._train_codes(copy.deepcopy(student)) if source == "either" else None
        self._search(student)
        self._stage(student, "searched codebooks")
        if trained is None:
            return student

        def loss(student: Student) -> float:
            return self._evaluate(student, lambda: torch.zeros(()))["loss"]

        return min(trained, student, key=loss)

    def _train_codes(self, student: Student) -> Student:
        self._stage(student, "codes")
        if self.teacher is not None:
            student.fix_codes()
            self._stage(student, "codebooks")
        return student

    @torch.no_grad()
    def _search(self, student: Student) -> None:
        """Search for the codes of the lengths chosen, and fit the codebooks to them, by turns.

        Until now each codebook was fitted to what those before it leave, as if all words had
        the longest codes, and each code chosen before those after it.
        """
        inputs, centre = _array(student.inputs), np.zeros(self.vectors.shape[1])
        lengths = self.candidates[self.choices[self.active]]
        weights = self.significance[self.active]

        def search() -> Tensors:
            codebooks: NDArray[np.floating] = _array(student.encoder.codebooks)
            for _ in range(_SEARCHES):
                encoder = RowEncoder.from_codebooks(codebooks, centre, np.eye(len(centre)))
                codes = encoder.search(inputs, lengths)
                codebooks = refit_codebooks(codes, inputs, centre, codebooks, weights)
            return {"codes": torch.from_numpy(codes), "codebooks": torch.from_numpy(codebooks)}

        found = self._once("search", search)
        student.encoder.codebooks.copy_(found["codebooks"])
        # Beyond a word's length any code will do.
        student.fix_codes(found["codes"].long().clamp_min(0).to(self.device))

    def _errors(self, student: Student, encoded: _Encoded) -> NDArray[np.float64]:
        """Errors of the whole table, the active words' from their trained inputs."""
        if self.teacher is None:
            return encoded.errors
        codebooks, longer = student.encoder.codebooks.detach(), np.flatnonzero(self.candidates)
        for part in chunks(len(self.active), self.n_codebooks * self.vectors.shape[1]):
            picked = student.encode(part)
            words = torch.stack([b[p] for b, p in zip(codebooks, picked.T, strict=True)], 1)
            left = student.targets.images[part, None] - words.cumsum(1)
            error = _array((left**2).sum(2))[:, self.candidates[longer] - 1]
            rows = self.active[part]
            encoded.errors[np.ix_(rows, longer)] = error * self.significance[rows, None]
        return encoded.errors

    def _encode_table(self, codebooks: torch.Tensor, step: str) -> _Encoded:
        """Encode every row of the fine-tuned table."""
        encoder = self._row_encoder(_array(codebooks))
        found = _Encoded(
            np.empty((self.n_words, self.n_codebooks), np.int16),
            np.empty((self.n_words, len(self.candidates))),
            np.zeros(self.n_codebooks + 1),
        )

        def encode(part: slice) -> Tensors:
            block = self.table[part]
            codes, gains = encoder.encode(block)
            errors = np.empty((len(block), self.n_codebooks + 1))
            errors[:, 0] = (self.space.image(block) ** 2).sum(1)
            errors[:, 1:] = errors[:, :1] - gains.cumsum(1)
            errors *= self.significance[part, None]
            arrays = _Encoded(codes.astype(np.int16), errors[:, self.candidates], errors.sum(0))
            return {name: torch.from_numpy(part) for name, part in arrays._asdict().items()}

        for number, part in enumerate(self._blocks("encoding", self.n_words)):
            block = self._once(f"{step}-{number:05d}", partial(encode, part))
            found.codes[part] = block["codes"].numpy()
            found.errors[part] = block["errors"].numpy()
            found.left[:] += block["left"].numpy()
        return found

    @torch.no_grad()
    def _final_codes(self, student: Student, encoder: RowEncoder, step: str) -> NDArray[np.int16]:
        """Codes of all words, -1 beyond their lengths; what a task has trained is as it trained it.

        Other rows are searched for the best codes of their own length.
        """
        codes = np.full((self.n_words, self.n_codebooks), -1, np.int16)
        lengths = self.candidates[self.choices]
        rows = np.flatnonzero(lengths)
        if self.tasks:
            rows = np.setdiff1d(rows, self.active, assume_unique=True)
            for part in chunks(len(self.active), self.n_codebooks * self.settings.n_codewords):
                codes[self.active[part]] = student.encode(part).cpu().numpy()

        def search(part: slice) -> Tensors:
            some = rows[part]
            return {"codes": torch.from_numpy(encoder.search(self.table[some], lengths[some]))}

        for number, part in enumerate(self._blocks("encoding", len(rows))):
            found = self._once(f"{step}-{number:05d}", partial(search, part))
            codes[rows[part]] = found["codes"].numpy()
        return self._shortened(codes)

    def _blocks(self, what: str, n_rows: int) -> Iterator[slice]:
        """Cut rows into blocks that are worked on one after the other, with a progress bar."""
        with tqdm(
            total=n_rows,
            desc=what,
            unit="row",
            unit_scale=True,
            leave=False,
            disable=not self.settings.verbose,
        ) as bar:
            widest = max(self.vectors.shape[1], self.n_codebooks * self.settings.n_codewords)
            for part in chunks(n_rows, widest):
                yield part
                bar.update(part.stop - part.start)

    def _once(self, step: str, make: Callable[[], Tensors]) -> Tensors:
        if self.checkpoint is None or self.course.interrupted:
            return make()
        return self.checkpoint.once(step, make)

    @cached_property
    def mean(self) -> NDArray[np.float64]:
        """The table's mean vector, (n_dims,)."""
        return mean_row(self.vectors)

    def _row_encoder(self, images: NDArray[np.float64]) -> RowEncoder:
        """Make the encoder of codebooks, as the space shows them."""
        return RowEncoder.from_codebooks(images, self.space.centre, self.space.metric)

    def _images(self, rows: NDArray[np.int64]) -> torch.Tensor:
        """Rows of the fine-tuned table in the space; `rows` ascending."""
        return self._tensor(self.space.image(self.table[rows]))

    def _finish(self, student: Student) -> Learned:
        """Give codes and codebooks their last form."""
        images, centre = _array(student.encoder.codebooks), self.space.centre
        encoder = self._row_encoder(images)
        codes = self._final_codes(student, encoder, "final")
        trained: NDArray[np.floating] = self.space.source(images)
        if not self.tasks:
            trained = refit_codebooks(codes, self.table, centre, trained)
            # Codes and codebooks are found for each other: a second time around pays.
            encoder = self._row_encoder(trained @ self.space.metric)
            codes = self._final_codes(student, encoder, "last")
            trained = refit_codebooks(codes, self.table, centre, trained)
        # All this saw the vectors from the space's centre. Every word with a code has one in the
        # first codebook, so that carries the difference.
        trained[0] += centre - self.mean
        usage = code_usage(codes, self.significance, self.settings.n_codewords)
        return Learned(
            choices=self.choices,
            codes=codes,
            codebooks=reduce_rank(trained.astype(np.float32), usage, self.space.metric, self.rank),
            rank=self.rank,
            mean=self.mean,
            significance=self.significance,
            encoder=encoder,
            history=self.history,
            course=self.course,
        )

    def _tensor(self, values: Any) -> torch.Tensor:
        return torch.as_tensor(np.asarray(values, np.float32), device=self.device)


def _array(tensor: torch.Tensor) -> NDArray[np.float64]:
    return tensor.detach().cpu().numpy().astype(np.float64)
