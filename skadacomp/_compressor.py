"""AdaptiveCodebookCompressor: the estimator that people fit, search over, and put in a Pipeline."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import islice, pairwise
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self, TypeVar

import numpy as np
import sklearn
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import (
    check_array,
    check_random_state,
    estimator_html_repr,
    metadata_routing,
)
from sklearn.utils._param_validation import Interval, Options, StrOptions
from sklearn.utils.validation import (
    _check_feature_names_in,
    check_is_fitted,
    validate_data,
)

from skadacomp._codebooks import BITS
from skadacomp._codes import MAX_CANDIDATES, code_matrix
from skadacomp._compressed import LARGEST, CompressedTable
from skadacomp._documents import (
    are_pairs,
    are_word_lists,
    document_counts,
    document_sequences,
    kind_of,
    pair_texts,
    pool,
)
from skadacomp._encoder import RowEncoder, RowIndex, chunks
from skadacomp._mapped import check_whole, take_rows, unchanged
from skadacomp._parameters import made_with
from skadacomp._sizes import SizeModel
from skadacomp._table import (
    DetachedTable,
    EmbeddingTable,
    as_table,
    is_frame,
)
from skadacomp._targets import IN_PLACE, KINDS, PAIRS, Kind
from skadacomp._tasks import HEADS, GivenTask, TaskReader, are_several, several_tasks
from skadacomp._texts import as_list
from skadacomp._version import __version__

if TYPE_CHECKING:
    from skadacomp._learning import Checkpoint, Learned, Settings, Task

    # scikit-learn has no types; with its decorator, fit would have none either.
    Method = TypeVar("Method", bound=Callable[..., Any])

    def _fit_context(*, prefer_skip_nested_validation: bool) -> Callable[[Method], Method]: ...
else:
    from sklearn.base import _fit_context


class Chosen(NamedTuple):
    """Parameters that are best chosen by what reads the vectors."""

    size_penalty: float
    reconstruction_weight: float
    learning_rate: float


_FOR_LINEAR = Chosen(0.014, 0.1, 3e-3)
_FOR_NETWORKS = Chosen(0.005, 0.3, 1e-3)  # they read more of a vector
_BY_HEAD = {"linear": _FOR_LINEAR, "pooled": _FOR_NETWORKS._replace(learning_rate=3e-3)}

_HARDLY_FELT = 1 / 20  # part of a budget that codebooks may take in 8 bits rather than 4

_HEAD_NAMES = {name for names in HEADS.values() for name in names}
# Parameters that change nothing that is learned, and those that the task's fingerprint covers.
_NOT_LEARNED_FROM = {
    "checkpoint",
    "embeddings",
    "head",
    "lowercase",
    "on_interrupt",
    "output",
    "tokenizer",
    "verbose",
}
_CACHES = ("_word_features", "_rows_of_words")  # remade from what is kept, so left out of pickles
_VERSIONS = "_pickled_with"  # key of a pickle's state
_BATCH = 2**14  # documents that are read together


class Problem(NamedTuple):
    """What there is to learn."""

    table: EmbeddingTable
    kinds: tuple[Kind, ...]
    tasks: tuple[Task, ...]
    settings: Settings


class AdaptiveCodebookCompressor(TransformerMixin, BaseEstimator):
    """Compress an embedding table into discrete codes whose lengths the task decides.

    Each word is stored as a few codes that pick codewords out of codebooks; its vector is the sum
    of them and of the table's mean vector. How many codes a word gets is learned from the task: a
    word that the task hardly needs gets few or none, a word that decides the label gets many.

    Parameters
    ----------
    embeddings : EmbeddingTable, array-like, DataFrame, KeyedVectors or path, default=None
        The table, where the compressor is a step of a Pipeline. `fit` then takes the task alone,
        so that cross-validation splits the task and never the table. Without it the table is
        `fit`'s first argument. What else makes a table: see `EmbeddingTable.from_object`.

    code_lengths : array-like of int, default=(0, 1, 2, 4, 8)
        The code lengths, in codes, that a word may have: ascending, from 0, which drops the word.
        The longest is the number of codebooks. A word of length l uses the first l of them.

    n_codewords : int, default=16
        Codewords in a codebook, 2 to 4096. A code takes ``ceil(log2(n_codewords))`` bits: 2 gives
        binary codes, 16 and 256 codes of 4 and 8 bits.

    codebook_bits : {4, 8}, default=None
        Bits of a number of the codebooks or, where they share axes, of the axes. 8 lose next to
        nothing; 4 lose a little, and nearly halve what codebooks take, which is much of a small
        table of many dimensions. None is 4, and 8 where codebooks of 8 bits are a twentieth of the
        budget or less.

    n_components : int, default=None
        Principal components of the table to learn along; rebuilt vectors differ along no others. Of
        hundreds of dimensions most say little: along 128 of 384 a fit takes half the time or less.
        All rows as seen along them lie in memory meanwhile. None learns along all dimensions. Not
        for a head of your own, which reads whole vectors.

    bits_per_word : float, default=None
        Budget in bits: the mean over all words of the table, dropped ones included, of the bits
        of codes and lengths. Met within 5 % and never exceeded, unless all words at their longest
        take less.

    max_bytes : int, default=None
        Budget in bytes: the size of the file that ``compressed_.save`` writes, vocabulary
        included. Met like `bits_per_word`; only one of the two may be given.

    task : {"classification", "multilabel", "regression", "tagging", "pair", "pair-regression", \
            "translation"}, default=None
        What y_task is: a class, a row of 0s and 1s, a number or several for each document; a list
        of tags for each list of words; a class, or a number, for each pair of texts (A, B); a
        sentence in another language. None tells it from the documents, where pairs are tuples of
        two, and from the type of y_task; "translation" must be said.
        A list of kinds says that there are several tasks; `fit` then takes a list of documents and
        one of targets for each.

    task_weights : sequence of float, default=None
        How much each of several tasks counts; None weighs them alike.

    head : {"linear", "convolutional", "pooled", "recurrent"}, Module or callable, default=None
        The task head that lengths and codes learn to serve: what will read the documents.
        "linear" is a linear layer on a document's pooled words. "convolutional" reads the words in
        their order with filters 3, 4 and 5 words wide (Kim 2014 [2]_), so X_task must have an
        order: text, words or ids; it takes many times as long. Tags are read by two convolutions,
        and pairs ("pooled") by a layer on both texts' pooled words, their difference and their
        product; sentences to translate ("recurrent") by a GRU each way, beside one that writes the
        translation with attention. None is "linear" for documents, and what there is for the
        others.

        A torch module of your own, or a callable that makes one of ``(n_dims, n_outputs)``, maps
        word vectors (n_documents, n_places, n_dims) and a mask (n_documents, n_places), True where
        there is a word, to outputs: (n_documents, n_outputs), or (n_documents, n_places, n_outputs)
        for tags. For pairs both have an axis of 2 after the first. The loss is that of the task,
        or the module's ``loss(outputs, targets)`` if it has one. Several tasks may have a list of
        heads.

    init : {"residual-kmeans", "random"}, default="residual-kmeans"
        Where learning starts. "residual-kmeans" fine-tunes the table, quantizes it in the
        directions that the head reads, and balances each word's bits against its error. "random"
        is the plain form of the method, for comparison: random codewords, all lengths equally
        likely, the pretrained vectors as they are.

    length_method : {"rate-distortion", "gumbel-softmax", "frequency"}, default=None
        What decides the code lengths. "rate-distortion" weighs a word's bits against its frequency
        in the task and its error in what the task's head reads. "gumbel-softmax" goes on from there
        and learns the lengths on the task's loss, as the paper does; it takes about twice as long.
        "frequency" gives the more frequent word the longer code, whatever it means. None is
        "rate-distortion"; without a task, and with ``init="random"``, it is "gumbel-softmax".

    size_penalty : float, default=None
        Without a budget: the loss that one more bit a word, as a mean over the table, has to
        save. The unit of loss is nats per document, or with no task the relative squared error.
        None is 0.014 for the linear head and without a task, and 0.005 for other heads, which read
        more of a vector.

    reconstruction_weight : float, default=None
        What rebuilding the table as it was counts beside the task: the weight of directions that
        the task's head does not read against those that it reads most (a fifteenth of it with the
        convolutional head; of more than 50 dimensions 50 / n_dims of it), of the pretrained against
        the fine-tuned vectors (but for scores of pairs, which want the fine-tuned ones as they
        are), and of the reconstruction error (relative) against the task's loss.
        None is 0.1 for the linear head, and 0.3 for others, which read more of a vector; both are
        for the task. At 10 the rebuilt vectors are close to the best that the bits allow.

    pooling : {"mean", "sum"}, default="mean"
        How the words of a document make one row. "mean" divides by the sum of the absolute
        weights of the words that have a code.

    output : {"code_features", "vectors"}, default="code_features"
        What `transform` gives: code features, sparse, one column a codeword and one for the mean
        vector; or dense vectors of `n_dims` columns.

    tokenizer : callable, default=None
        Splits a string into words. None takes words of two and more letters or digits, as
        scikit-learn's CountVectorizer does. The table of a transformer or of model2vec needs the
        tokenizer it was made with, and ``lowercase=False``.

    lowercase : bool, default=True
        Whether strings are made lower case before they are split.

    learning_rate : float, default=None
        Of Adam, for codebooks, lengths and head; the words' own inputs take a third of it. None is
        3e-3 for heads that pool words, linear or of pairs, and 1e-3 for others, which soon know
        their documents by heart.

    max_iter : int, default=40
        Epochs of each stage at most: fine-tuning at full precision (three times for heads that
        pool words, where fewer than 10,000 documents train), lengths, codes.

    n_iter_no_change : int, default=10
        Epochs after which a stage stops, if they lower the held-out loss by less than a thousandth.

    validation_fraction : float, default=0.15
        Part of X_task that is held out, stratified where the classes allow it, to say when to
        stop and, for heads that pool words and where fewer than 10,000 documents train, how
        strongly fine-tuning holds vectors where they were. A task of fewer than 20 documents is
        too small to spare any. Not used where `fit` is given X_val.

    random_state : int, RandomState instance or None, default=None
        Decides the held-out part, the starting codebooks, the batches and the sampled lengths.
        The same seed on the same machine gives the same codes.

    device : str, default="auto"
        Where torch trains: "auto" takes an accelerator if there is one, or a torch device's name.

    checkpoint : str or path-like, default=None
        A folder in which `fit` keeps what it has done: the trained weights, and the codes of the
        rows that it has encoded. Where it is interrupted, the same `fit` goes on from there, in a
        new process too, and gives the codes that it would have given. The folder is made, takes
        some 50 bytes a row of the table beside the weights, and is removed when the fit is
        complete. It is of one fit at a time, and random_state must be an int.

    on_interrupt : {"raise", "keep"}, default="raise"
        What Ctrl-C does while `fit` trains. "raise" ends the fit with KeyboardInterrupt. "keep"
        ends the training alone: the best epoch so far counts, no further stage is trained, codes
        are written from there, and a ConvergenceWarning says what was cut short. A second Ctrl-C
        ends the fit. The checkpoint stays then, and the same fit goes on from it to the end.

    verbose : int, default=0
        1 shows progress bars: epochs, rows that are encoded, and parts of what ships.

    Attributes
    ----------
    compressed_ : CompressedTable
        What ships: save it with ``compressed_.save(path)``.
    code_lengths_ : ndarray of int, shape (n_words,)
        Codes of each word.
    task_ : str, tuple of str, or None
        The kind of task, or of each task, that it was fitted to, as in `task`.
    codes_ : ndarray of int, shape (n_words, n_codebooks)
        The codes, -1 beyond a word's length.
    codebooks_ : ndarray of float32, shape (n_codebooks, n_codewords, n_dims)
        The codewords, as they are stored.
    sizes_ : dict of str to int
        Bytes of "codes", "lengths", "codebooks" and "vocabulary".
    nbytes_ : int
        Bytes of all of these but the vocabulary.
    compression_ratio_ : float
        Bytes of the float32 table over `nbytes_`.
    history_ : dict of str to ndarray of float, one number an epoch
        "loss" on the held-out part, "task_score" (accuracy there; with a task only) and
        "bits_per_word" after each epoch of learning lengths, then codes. Bits are those of an
        entropy coder that knows how many words have each length; the file's needs fewer. With
        pairs the last epochs are those of codes that are tried beside the trained ones, whether
        or not they are the ones kept.
    n_features_in_ : int
        Dimensions of the table's vectors.
    feature_names_in_ : ndarray of str, shape (n_dims,)
        Columns of the table, where it came as a DataFrame with str columns.
    n_iter_ : int
        Epochs of learning lengths and codes.

    See Also
    --------
    CompressedTable : What a fitted compressor ships.
    EmbeddingTable : Words and vectors, opened from files.

    Notes
    -----
    The two steps, lengths and then codes, are those of Kim, Kim and Lee [1]_; starting both from
    rate and distortion in the directions that the task's head reads is ours.

    With a task, the rows of the table are taken to be in order of word frequency, as published
    tables are: words that training never shows are judged by it.

    References
    ----------
    .. [1] Y. Kim, K.-M. Kim and S. Lee, "Adaptive Compression of Word Embeddings", ACL 2020.

    .. [2] Y. Kim, "Convolutional Neural Networks for Sentence Classification", EMNLP 2014.

    Examples
    --------
    >>> import numpy as np
    >>> from skadacomp import AdaptiveCodebookCompressor, EmbeddingTable
    >>> words = ["good", "great", "bad", "awful", "film", "plot"]
    >>> vectors = np.array([[2, 0], [2, 1], [-2, 0], [-2, 1], [0, 2], [0, 3]])
    >>> texts, labels = ["good film", "great plot", "bad plot", "awful film"] * 5, [1, 1, 0, 0] * 5
    >>> compressor = AdaptiveCodebookCompressor(code_lengths=(0, 1, 2), random_state=0)
    >>> compressor.fit(EmbeddingTable(words, vectors), texts, labels)
    AdaptiveCodebookCompressor(code_lengths=(0, 1, 2), random_state=0)
    >>> compressor.transform(["a good film"]).shape
    (1, 33)
    """

    _parameter_constraints: dict[str, Any] = {  # noqa: RUF012 - scikit-learn's convention
        "embeddings": "no_validation",  # as_table says what is wrong
        "code_lengths": ["array-like"],
        "n_codewords": [Interval(Integral, 2, 4096, closed="both")],
        "codebook_bits": [None, Options(Integral, set(BITS))],
        "n_components": [None, Interval(Integral, 1, None, closed="left")],
        "bits_per_word": [None, Interval(Real, 0, None, closed="neither")],
        "max_bytes": [None, Interval(Real, 0, None, closed="neither")],
        "task": [None, StrOptions(set(KINDS)), tuple, list],
        "task_weights": [None, "array-like"],
        "head": [None, StrOptions(_HEAD_NAMES), callable, tuple, list],
        "init": [StrOptions({"residual-kmeans", "random"})],
        "length_method": [None, StrOptions({"gumbel-softmax", "rate-distortion", "frequency"})],
        "size_penalty": [None, Interval(Real, 0, LARGEST, closed="right")],
        "reconstruction_weight": [None, Interval(Real, 0, LARGEST, closed="both")],
        "pooling": [StrOptions({"mean", "sum"})],
        "output": [StrOptions({"code_features", "vectors"})],
        "tokenizer": [None, callable],
        "lowercase": ["boolean"],
        "learning_rate": [None, Interval(Real, 0, LARGEST, closed="right")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "random_state": ["random_state"],
        "device": [str],
        "checkpoint": [None, str, os.PathLike],
        "on_interrupt": [StrOptions({"raise", "keep"})],
        "verbose": ["verbose"],
    }

    # The table is a resource and not metadata to be routed.
    __metadata_request__fit = {"embeddings": metadata_routing.UNUSED}  # noqa: RUF012

    def __init__(
        self,
        embeddings: Any = None,
        *,
        code_lengths: Sequence[int] = (0, 1, 2, 4, 8),
        n_codewords: int = 16,
        codebook_bits: Literal[4, 8] | None = None,
        n_components: int | None = None,
        bits_per_word: float | None = None,
        max_bytes: int | None = None,
        task: Kind | Sequence[Kind] | None = None,
        task_weights: Sequence[float] | None = None,
        head: Any = None,
        init: Literal["residual-kmeans", "random"] = "residual-kmeans",
        length_method: Literal["gumbel-softmax", "rate-distortion", "frequency"] | None = None,
        size_penalty: float | None = None,
        reconstruction_weight: float | None = None,
        pooling: Literal["mean", "sum"] = "mean",
        output: Literal["code_features", "vectors"] = "code_features",
        tokenizer: Any = None,
        lowercase: bool = True,
        learning_rate: float | None = None,
        max_iter: int = 40,
        n_iter_no_change: int = 10,
        validation_fraction: float = 0.15,
        random_state: Any = None,
        device: str = "auto",
        checkpoint: str | os.PathLike[str] | None = None,
        on_interrupt: Literal["raise", "keep"] = "raise",
        verbose: int = 0,
    ) -> None:
        self.embeddings = embeddings
        self.code_lengths = code_lengths
        self.n_codewords = n_codewords
        self.codebook_bits = codebook_bits
        self.n_components = n_components
        self.bits_per_word = bits_per_word
        self.max_bytes = max_bytes
        self.task = task
        self.task_weights = task_weights
        self.head = head
        self.init = init
        self.length_method = length_method
        self.size_penalty = size_penalty
        self.reconstruction_weight = reconstruction_weight
        self.pooling = pooling
        self.output = output
        self.tokenizer = tokenizer
        self.lowercase = lowercase
        self.learning_rate = learning_rate
        self.max_iter = max_iter
        self.n_iter_no_change = n_iter_no_change
        self.validation_fraction = validation_fraction
        self.random_state = random_state
        self.device = device
        self.checkpoint = checkpoint
        self.on_interrupt = on_interrupt
        self.verbose = verbose

    # The second argument is called y for scikit-learn's sake: fit(X, y) and fit(X, y=y) are how its
    # tools call. It is X_task when a third argument brings the labels.
    @_fit_context(prefer_skip_nested_validation=True)
    def fit(
        self,
        embeddings: Any = None,
        y: Any = None,
        y_task: Any = None,
        *,
        X_task: Any = None,
        X_val: Any = None,
        y_val: Any = None,
    ) -> Self:
        """Learn code lengths, codes and codebooks.

        ``fit(embeddings, X_task, y_task)`` learns from a task, given by position or by keyword;
        ``fit(embeddings)`` for reconstruction alone; ``fit(embeddings, y)`` takes each row as a
        sample and y as its label. With the table in the constructor, ``fit(X_task, y_task)``.

        Parameters
        ----------
        embeddings : EmbeddingTable, array-like, DataFrame, KeyedVectors or path, default=None
            The table, n_words rows of n_dims numbers; or X_task if the constructor has the table.
        y : array-like of shape (n_words,), or documents, default=None
            A label for each row; or X_task if y_task follows; or y_task if the constructor has
            the table.
        y_task : array-like of shape (n_documents,) or (n_documents, n_values), default=None
            Targets of the documents: classes of any type, two or more; numbers; indicators; a list
            of tags for each document; or sentences. Of several tasks, a list of such.
        X_task : documents, default=None
            Strings, lists of words, lists of row ids, or a sparse (n_documents, n_words) matrix;
            or tuples (A, B) of two such. Of several tasks, a list of such: lengths and codes are
            learned from all of them at once.
        X_val : documents, default=None
            Documents that say when to stop, instead of a part of X_task.
        y_val : array-like of shape (n_val_documents,), default=None
            Their labels, each of which y_task holds too.

        Returns
        -------
        self

        Raises
        ------
        TypeError
            If the table or a document is of no accepted type.
        ValueError
            If the table or the task cannot be learned from, or the budget cannot be met; or if
            `checkpoint` is damaged or another fit's. The message says which, where, and what would
            do.
        RuntimeError
            If the table's memory-mapped file was cut off, or written to while it was read.

        Warns
        -----
        ConvergenceWarning
            If the loss came to be NaN or infinite. Training has gone on from its best state with
            a tenth of the learning rate, so all that was learned is finite. Or if Ctrl-C cut the
            training short, see `on_interrupt`.
        """
        problem = self._problem(embeddings, y, y_task, X_task, X_val, y_val)
        index = RowIndex.of(problem.table.vectors)
        checkpoint = self._opened_checkpoint(problem, index)

        from skadacomp._learning import learn  # torch: for fit alone

        vectors, tasks, settings = problem.table.vectors, problem.tasks, problem.settings
        with unchanged(vectors):
            learned = learn(vectors, tasks, settings, checkpoint)
        self._keep(problem, index, learned)
        if checkpoint is not None and not learned.course.interrupted:
            checkpoint.remove()
        if learned.course.notes:
            warnings.warn("; ".join(learned.course.notes) + ".", ConvergenceWarning, stacklevel=3)
        return self

    def _opened_checkpoint(self, problem: Problem, index: RowIndex) -> Checkpoint | None:
        """Open the folder that this very fit may have left its steps in."""
        if self.checkpoint is None:
            return None
        if not isinstance(self.random_state, Integral):
            raise ValueError(
                f"checkpoint={os.fspath(self.checkpoint)!r} with random_state="
                f"{self.random_state!r}: each fit would draw other numbers, and none go on from "
                "another. Give random_state an int."
            )
        from skadacomp._learning import Checkpoint, fingerprint

        parameters = self.get_params(deep=False).items()
        words = "\0".join(problem.table.words or ())  # one text: millions of words are slow to hash
        return Checkpoint(
            self.checkpoint,
            {
                "parameters": {n: repr(v) for n, v in parameters if n not in _NOT_LEARNED_FROM},
                "table": {"rows": index.digest[:16], "words": fingerprint(words)},
                "task": {"documents, targets and head": fingerprint(problem.tasks)},
            },
        )

    def _problem(
        self, embeddings: Any, y: Any, y_task: Any, X_task: Any, X_val: Any, y_val: Any
    ) -> Problem:
        """Turn what `fit` was given into what there is to learn."""
        _check_code_lengths(self.code_lengths)
        source, documents, labels = self._resolve(embeddings, y, y_task, X_task)
        _check_validation(X_val, y_val, documents)
        table = as_table(source)
        check_whole(table.vectors)
        _check_range(table)
        self._note_features(source, table)
        seed = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
        kinds: list[Kind] = []
        tasks: list[Task] = []
        names: list[str] = []
        given = [] if labels is None else self._listed_tasks(documents, labels, X_val, y_val)
        for part in given:
            reader = self._reader(table, part)
            kind, task = reader.read(part.X, part.y, part.X_val, part.y_val, seed=seed)
            kinds.append(kind)
            tasks.append(replace(task, weight=part.weight))
            names.append(reader.head_name(kind))
        # Trained lengths are the plain form's, and without a task they rebuild the table better.
        trained = self.init == "random" or not tasks
        settings = self._settings(table, seed, names, trained=trained)
        return Problem(table, tuple(kinds), tuple(tasks), settings)

    def _listed_tasks(self, X: Any, y: Any, X_val: Any, y_val: Any) -> list[GivenTask]:
        """List the tasks that were given, most often one."""
        named = None if self.task is None or isinstance(self.task, str) else tuple(self.task)
        if not are_several(X, y, named):
            if self.task_weights is not None:
                raise ValueError(
                    f"task_weights={self.task_weights!r} weighs several tasks, and there is one."
                )
            return [GivenTask(X, y, X_val, y_val, self.task, self.head)]
        return several_tasks(X, y, X_val, y_val, named, self.head, self.task_weights)

    def _reader(self, table: EmbeddingTable, given: GivenTask) -> TaskReader:
        return TaskReader(
            table=table,
            task=given.task,
            head=given.head,
            average=self.pooling == "mean",
            tokenizer=self.tokenizer,
            lowercase=self.lowercase,
            validation_fraction=self.validation_fraction,
        )

    def _resolve(self, embeddings: Any, y: Any, y_task: Any, X_task: Any) -> tuple[Any, Any, Any]:
        """Tell table, documents and labels apart, by who was given what."""
        if isinstance(self.embeddings, DetachedTable):
            raise ValueError(
                f"embeddings is {self.embeddings!r}: a fitted compressor is pickled without its "
                "table. To fit it again, set the table first: set_params(embeddings=table)."
            )
        given = [value for value in (embeddings, y, y_task, X_task) if value is not None]
        if self.embeddings is None:
            if embeddings is None:
                raise ValueError(
                    "There is no embedding table: fit(embeddings, X_task, y_task), or give it to "
                    "the constructor, AdaptiveCodebookCompressor(embeddings=table)."
                )
            if X_task is None and y_task is None:
                return embeddings, None, y
            return (embeddings, *self._both(X_task, y, y_task))
        if len(given) > 2:
            raise ValueError(
                "The embedding table came twice, to the constructor and to fit. With the table in "
                "the constructor, fit takes the task alone: fit(X_task, y_task)."
            )
        if not given:
            return self.embeddings, None, None
        documents = embeddings if X_task is None else X_task
        return (self.embeddings, *self._both(documents, None, y if y_task is None else y_task))

    @staticmethod
    def _both(X_task: Any, y: Any, y_task: Any) -> tuple[Any, Any]:
        """Documents and labels; `y` is whichever of them is still missing."""
        if X_task is None:
            X_task = y
        elif y_task is None:
            y_task = y
        if X_task is None or y_task is None:
            missing = "X_task" if X_task is None else "y_task"
            raise ValueError(
                f"requires y to be passed, but the target y is None: {missing} is missing. A task "
                "needs both its documents X_task and their labels y_task."
            )
        return X_task, y_task

    def _note_features(self, source: Any, table: EmbeddingTable) -> None:
        if is_frame(source):
            validate_data(self, source, skip_check_array=True)
        else:
            # A table fitted before may have had names.
            self.__dict__.pop("feature_names_in_", None)
            self.n_features_in_ = table.n_dims

    def _chosen(self, heads: Sequence[str]) -> Chosen:
        """Give the parameters, those left at None as they suit the heads."""
        # Without a task as for the linear head; heads that differ in it need the most caution.
        found = {_BY_HEAD.get(name, _FOR_NETWORKS) for name in heads or ["linear"]}
        usual = found.pop() if len(found) == 1 else _FOR_NETWORKS
        given = {name: getattr(self, name) for name in Chosen._fields}
        return usual._replace(**{name: own for name, own in given.items() if own is not None})

    def _fitting_bits(self, table: EmbeddingTable) -> Literal[4, 8]:
        """Give codebooks 8 bits a number where a budget hardly feels it."""
        budget = self.max_bytes or (self.bits_per_word or 0) * table.n_words / 8
        in_full = max(self.code_lengths) * self.n_codewords * table.n_dims
        return 8 if in_full <= _HARDLY_FELT * budget else 4

    def _settings(
        self, table: EmbeddingTable, seed: int, heads: list[str], *, trained: bool
    ) -> Settings:
        from skadacomp._learning import Settings

        _check_components(self.n_components, table, heads)
        chosen = self._chosen(heads)
        candidates = tuple(map(int, self.code_lengths))
        bits = self.codebook_bits or self._fitting_bits(table)
        sizes = SizeModel(table, candidates, self.n_codewords, made_with(self), bits)
        return Settings(
            rate=sizes.rate(count_words=self.max_bytes is not None),
            n_codewords=self.n_codewords,
            codebook_bits=bits,
            n_components=self.n_components,
            init=self.init,
            length_method=self.length_method
            or ("gumbel-softmax" if trained else "rate-distortion"),
            size_penalty=chosen.size_penalty,
            budget=sizes.budget(bits_per_word=self.bits_per_word, max_bytes=self.max_bytes),
            reconstruction_weight=chosen.reconstruction_weight,
            learning_rate=chosen.learning_rate,
            max_iter=self.max_iter,
            patience=self.n_iter_no_change,
            seed=seed,
            device=self.device,
            verbose=bool(self.verbose),
            on_interrupt=self.on_interrupt,
            shared=isinstance(self.random_state, Integral) and "own" not in heads,
        )

    def _keep(self, problem: Problem, index: RowIndex, learned: Learned) -> None:
        """Set the fitted attributes."""
        for cache in _CACHES:
            self.__dict__.pop(cache, None)
        self.compressed_ = CompressedTable.from_codes(
            learned.codes,
            learned.codebooks,
            learned.mean,
            problem.table.words,
            code_lengths=problem.settings.rate.candidates,
            rank=learned.rank,
            codebook_bits=problem.settings.codebook_bits,
            weights=learned.significance,
            parameters=made_with(self),
            verbose=bool(self.verbose),
        )
        self._encoder: RowEncoder = learned.encoder
        self._row_index = index
        kinds = problem.kinds
        self.task_ = kinds if len(kinds) > 1 else kinds[0] if kinds else None
        names = learned.history[0] if learned.history else {}
        self.history_ = {name: np.array([h[name] for h in learned.history]) for name in names}
        self.n_iter_ = len(learned.history)

    def transform(self, X: Any) -> sparse.csr_matrix | NDArray[np.float32]:
        """Give code features, or vectors, of documents or of words.

        Parameters
        ----------
        X : documents, EmbeddingTable, or array-like of shape (n, n_dims)
            Documents as in `fit`, or an iterator of such, are pooled; of their words, those without
            a code are skipped. After a task of tags or translations, lists of words give one row a
            word, all zeros for a word without a code; after a task of pairs, pairs give the columns
            of both texts side by side. A table or array gives one row a vector: the codes that this
            row of the fitted table learned, or those that the encoder finds if it was not in it.

        Returns
        -------
        csr_matrix of float32, shape (n, n_codebooks * n_codewords + 1)
            Code features: the weight of each codeword of each codebook, then that of the mean
            vector. A document with no known word is all zeros.
        ndarray of float32, shape (n, n_dims)
            The vectors, with ``output="vectors"``.

        Raises
        ------
        TypeError, ValueError
            If X is of no accepted type, or of the wrong shape.
        """
        check_is_fitted(self)
        if isinstance(X, Iterator):
            return _stacked([self.transform(batch) for batch in _batches(X)])
        are_vectors = not self._are_pairs(X) and kind_of(X) == "vectors"
        features = self._vector_features(X) if are_vectors else self._document_features(X)
        return self._rebuild(features) if self.output == "vectors" else features

    def inverse_transform(self, codes: Any) -> NDArray[np.float32]:
        """Rebuild vectors from code features, with one product.

        Parameters
        ----------
        codes : sparse matrix or array-like of shape (n, n_codebooks * n_codewords + 1)
            What `transform` gave. With ``output="vectors"`` that is vectors already, which come
            back as they are.

        Returns
        -------
        ndarray of float32, shape (n, n_dims)
        """
        check_is_fitted(self)
        features = check_array(codes, accept_sparse="csr", dtype=np.float32, input_name="codes")
        n_columns = len(self._column_names())
        n_sides = 2 if self.task_ in PAIRS else 1
        if features.shape[1] not in (n_columns, n_sides * n_columns):
            raise ValueError(
                f"codes has {features.shape[1]} columns; what transform gives has "
                f"{n_sides * n_columns}."
            )
        return features if self.output == "vectors" else self._rebuild(features)

    def get_feature_names_out(self, input_features: ArrayLike | None = None) -> NDArray[Any]:
        """Name the columns that `transform` gives.

        Parameters
        ----------
        input_features : array-like of str, length n_dims, default=None
            Only checked against the table's columns.

        Returns
        -------
        ndarray of str
            ``codebook0_codeword0`` and so on, then ``mean``; or ``dimension0`` and so on with
            ``output="vectors"``. After a task of pairs, twice: ``first_...`` and ``second_...``.
        """
        check_is_fitted(self)
        _check_feature_names_in(self, input_features)
        names = self._column_names()
        if self.task_ in PAIRS:
            names = [f"{side}_{name}" for side in ("first", "second") for name in names]
        return np.array(names, dtype=object)

    def _column_names(self) -> list[str]:
        """Name the columns of one text or word."""
        if self.output == "vectors":
            return [f"dimension{i}" for i in range(self.n_features_in_)]
        books, words = self.compressed_.n_codebooks, self.compressed_.n_codewords
        names = [f"codebook{m}_codeword{k}" for m in range(books) for k in range(words)]
        return [*names, "mean"]

    @property
    def code_lengths_(self) -> NDArray[np.int64]:
        """Codes of each word, shape (n_words,)."""
        return self.compressed_.code_lengths

    @property
    def codes_(self) -> NDArray[np.integer]:
        """Codes of each word, -1 beyond its length, shape (n_words, n_codebooks)."""
        return self.compressed_.codes

    @property
    def codebooks_(self) -> NDArray[np.float32]:
        """Codewords as stored, shape (n_codebooks, n_codewords, n_dims)."""
        return self.compressed_.codebooks

    @property
    def sizes_(self) -> dict[str, int]:
        """Bytes of codes, lengths, codebooks and vocabulary."""
        return self.compressed_.sizes

    @property
    def nbytes_(self) -> int:
        """Bytes of codes, lengths and codebooks."""
        return self.compressed_.nbytes

    @property
    def compression_ratio_(self) -> float:
        """Bytes of the float32 table over `nbytes_`."""
        return 4 * self.compressed_.n_words * self.compressed_.n_dims / self.nbytes_

    def _document_features(self, X: Any) -> sparse.csr_matrix:
        """Read documents batch by batch: their words take more room than their features."""
        if self.task_ in IN_PLACE and are_word_lists(X):
            read = self._features_in_place
        else:
            read = self._pair_features if self._are_pairs(X) else self._pooled_features
        if sparse.issparse(X):
            return read(X)
        documents, parts = as_list(X), []
        for start in range(0, len(documents), _BATCH):
            try:
                parts.append(read(documents[start : start + _BATCH]))
            except (TypeError, ValueError) as error:
                if start:
                    error.add_note(f"X was read in batches, and in this one X[0] is X[{start}].")
                raise
        return parts[0] if len(parts) == 1 else _stacked(parts)

    def _pooled_features(self, X: Any) -> sparse.csr_matrix:
        counts = self._read_by(document_counts, X)
        return pool(counts, self._word_features, self.pooling)

    def _pair_features(self, X: Any) -> sparse.csr_matrix:
        pooled = self._pooled_features(pair_texts(X, "X"))
        return sparse.hstack([pooled[::2], pooled[1::2]], format="csr")

    def _features_in_place(self, X: Any) -> sparse.csr_matrix:
        """Give a row a word."""
        words = self._read_by(document_sequences, X, keep_unknown=True)
        known = sparse.diags_array(words.data, format="csr")
        return sparse.csr_matrix(known @ self._word_features[words.indices])

    def _read_by(self, read: Any, X: Any, **given: Any) -> sparse.csr_matrix:
        return read(
            X,
            self._rows_of_words,
            self.compressed_.n_words,
            tokenizer=self.tokenizer,
            lowercase=self.lowercase,
            **given,
        )

    def _are_pairs(self, X: Any) -> bool:
        """Whether X is pairs, which only a compressor that was fitted on pairs takes."""
        return self.task_ in PAIRS and are_pairs(X, strict=self.task is None)

    def _vector_features(self, X: Any) -> sparse.csr_matrix:
        """Codes learned or, for rows that were not in the table, found by the encoder."""
        if is_frame(X):
            validate_data(self, X, reset=False, skip_check_array=True)
        table = as_table(X)
        if table.n_dims != self.n_features_in_:
            raise ValueError(
                f"X has {table.n_dims} features, but {type(self).__name__} is expecting "
                f"{self.n_features_in_} features as input."
            )
        # Rows with words are themselves; of equal rows in an array none can tell which it is.
        rows = self._row_index.find(table.vectors, whole=isinstance(X, EmbeddingTable))
        codes = self.compressed_.codes[rows]
        new = np.flatnonzero(rows < 0)
        for part in chunks(len(new), table.n_dims):
            codes[new[part]], _ = self._encoder.encode(take_rows(table.vectors, new[part]))
        return code_matrix(codes, self.compressed_.n_codewords)

    def _rebuild(self, features: Any) -> NDArray[np.float32]:
        books = self.compressed_.codebooks  # (n_codebooks, n_codewords, n_dims)
        parts = np.vstack([books.reshape(-1, books.shape[2]), self.compressed_.mean])
        n_columns = len(parts)
        sides = [
            features[:, start : start + n_columns] @ parts
            for start in range(0, features.shape[1], n_columns)
        ]
        return np.hstack(sides).astype(np.float32, copy=False)

    @cached_property
    def _word_features(self) -> sparse.csr_matrix:
        """Code features of each row, nothing for a dropped word: documents skip it."""
        has_code = self.compressed_.code_lengths > 0
        codes = self.compressed_.codes[has_code]
        kept = code_matrix(codes, self.compressed_.n_codewords)
        starts = np.zeros(len(has_code) + 1, kept.indptr.dtype)
        starts[1:][has_code] = np.diff(kept.indptr)
        shape = (len(has_code), kept.shape[1])
        return sparse.csr_matrix((kept.data, kept.indices, starts.cumsum()), shape=shape)

    @cached_property
    def _rows_of_words(self) -> dict[str, int] | None:
        words = self.compressed_.words
        if words is None:
            return None
        return dict(zip(words, np.flatnonzero(self.code_lengths_).tolist(), strict=True))

    def __getstate__(self) -> dict[str, Any]:
        """Leave the table out of a fitted compressor's pickle.

        Always there: parameters, `compressed_`, the encoder, history. Never: what is remade from
        them. Optional: `embeddings`, kept until the compressor is fitted (a grid search sends
        unfitted ones to its workers), and after that only where it is a path. A process that has
        the same EmbeddingTable puts it back, as a Pipeline needs that takes a fit from its cache.
        """
        state = {**super().__getstate__()}
        for cache in _CACHES:
            state.pop(cache, None)
        if "compressed_" in state:
            state[_VERSIONS] = _versions()
        table = state.get("embeddings")
        fitted = "compressed_" in state
        if fitted and table is not None and not isinstance(table, (str, os.PathLike)):
            is_known = isinstance(table, (EmbeddingTable, DetachedTable))
            state["embeddings"] = DetachedTable(
                self.compressed_.n_words,
                self.compressed_.n_dims,
                table.fingerprint if is_known else None,
            )
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Warn, as scikit-learn does, where a fitted compressor comes from other releases."""
        state = {**state}
        then, now = state.pop(_VERSIONS, {}), _versions()
        changed = [
            f"{name} {then[name]} → {now.get(name)}" for name in then if then[name] != now.get(name)
        ]
        if changed:
            warnings.warn(
                f"{type(self).__name__} was pickled with other releases, then → now: "
                f"{', '.join(changed)}. It may give other results, or none. The file that "
                "compressed_.save writes is what later releases are sure to open.",
                UserWarning,
                stacklevel=2,
            )
        super().__setstate__(state)

    def _sk_visual_block_(self) -> Any:
        """Show the sizes of a fitted compressor under its name in scikit-learn's HTML diagrams.

        The class is scikit-learn's own affair; where it cannot be found, or differs, scikit-learn
        shows the diagram that it would have shown without this method.
        """
        drawing = sys.modules[estimator_html_repr.__module__]
        caption = None
        if self.__sklearn_is_fitted__():
            bits = 8 * (self.sizes_["codes"] + self.sizes_["lengths"]) / self.compressed_.n_words
            caption = (
                f"{self.compressed_.file_nbytes:,} bytes, compression ratio "
                f"{self.compression_ratio_:,.1f}, {bits:.2f} bits per word"
            )
        return drawing._VisualBlock(
            "single",
            self,
            names=type(self).__name__,
            name_details=str(self),
            name_caption=caption,
        )

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "compressed_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        reads_documents = self.embeddings is not None
        tags.input_tags.sparse = reads_documents
        tags.input_tags.string = reads_documents
        tags.input_tags.two_d_array = not reads_documents
        tags.target_tags.required = reads_documents
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags


def _versions() -> dict[str, str]:
    """Releases that what a pickle holds may depend on."""
    return {
        "skadacomp": __version__,
        "scikit-learn": sklearn.__version__,
        "numpy": np.__version__,
    }


def _batches(documents: Iterator[Any]) -> Iterator[list[Any]]:
    while batch := list(islice(documents, _BATCH)):
        yield batch


def _stacked(parts: list[Any]) -> Any:
    """Put the features, or vectors, of batches of documents under one another."""
    if not parts:
        raise ValueError("X is empty: it must hold at least one document.")
    if sparse.issparse(parts[0]):
        return sparse.vstack(parts, format="csr")
    return np.vstack(parts)


def _check_code_lengths(given: Sequence[int]) -> None:
    """Say what is wrong with code lengths."""
    lengths = list(given)
    if not lengths:
        raise ValueError("code_lengths is empty; give at least one length, such as (0, 2, 4).")
    if not all(isinstance(n, Integral) and not isinstance(n, bool) for n in lengths):
        raise ValueError(f"code_lengths={given!r} must hold whole numbers of codes.")
    if min(lengths) < 0:
        raise ValueError(f"code_lengths={given!r} holds {min(lengths)}; the least is 0.")
    if any(b <= a for a, b in pairwise(lengths)):
        raise ValueError(
            f"code_lengths={given!r} must ascend without repeats, as "
            f"{tuple(sorted(set(map(int, lengths))))} does."
        )
    if lengths[-1] == 0:
        raise ValueError("code_lengths=(0,) would drop every word; add a length above 0.")
    if len(lengths) > MAX_CANDIDATES:
        raise ValueError(
            f"code_lengths holds {len(lengths)} lengths; at most {MAX_CANDIDATES} are possible."
        )


def _check_components(n_components: int | None, table: EmbeddingTable, heads: list[str]) -> None:
    """Say why a table or a head does not go with principal components."""
    if n_components is None:
        return
    if n_components > table.n_dims:
        raise ValueError(
            f"n_components={n_components} is more than the {table.n_dims} dimensions of the table. "
            "Give fewer, or None for all."
        )
    if "own" in heads:
        raise ValueError(
            f"n_components={n_components} with a head of your own, which reads vectors of all "
            f"{table.n_dims} dimensions. Leave n_components out, or bring the table to fewer "
            "dimensions before the fit."
        )


def _check_range(table: EmbeddingTable) -> None:
    """Refuse numbers that are finite, but leave float32 no room to compute with them."""
    largest = 0.0
    for part in chunks(table.n_words, table.n_dims):
        block = np.abs(take_rows(table.vectors, part))
        largest = max(largest, float(block.max()))
        if largest > LARGEST:
            row, column = np.argwhere(block > LARGEST)[0] + (part.start, 0)
            raise ValueError(
                f"The embedding table holds {table.vectors[row, column]:g} at row {row}, column "
                f"{column}; what can be compressed is {LARGEST:g} at most. Scale the table, or "
                "drop such rows."
            )
    if 0 < largest < 1 / LARGEST:
        raise ValueError(
            f"The embedding table's largest number is {largest:g}, too small for float32 to "
            "compute with. Scale the table."
        )


def _check_validation(X_val: Any, y_val: Any, documents: Any) -> None:
    """Refuse documents to validate on that lack their labels, or a task."""
    if (X_val is None) != (y_val is None):
        missing = "X_val" if X_val is None else "y_val"
        raise ValueError(f"{missing} is missing: give X_val and y_val together.")
    if X_val is not None and documents is None:
        raise ValueError("X_val needs a task of documents: fit(embeddings, X_task, y_task).")
