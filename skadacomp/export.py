"""Compressed tables for other programs: browsers, ONNX, gensim, word2vec text, model2vec and numpy.

All take a CompressedTable, a fitted compressor or a fitted Pipeline that holds one, or a
FrozenClassifier; a browser takes a classifier. Only browsers and ONNX get the codes; all others the
vectors that they stand for, in float32, of the words that have a code.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from shutil import rmtree
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline

from skadacomp._compressed import CompressedTable, text_lines
from skadacomp._extras import missing
from skadacomp._files import whole_file
from skadacomp._freeze import classifier_of, freeze
from skadacomp._frozen import FrozenClassifier
from skadacomp._onnx import model_of
from skadacomp.metrics import find_compressed, find_compressor

if TYPE_CHECKING:
    from gensim.models import KeyedVectors

__all__ = [
    "to_browser",
    "to_keyed_vectors",
    "to_model2vec",
    "to_numpy",
    "to_onnx",
    "to_word2vec_text",
    "to_words_json",
]

_INPUTS = ("ids", "rows", "counts")
_OUTPUTS = ("vectors", "features", "scores", "probabilities")
_WORD = r"[\p{L}\p{N}_]{2,}"  # what our own splitter finds, in the dialect of tokenizers
_SCRIPT = Path(__file__).with_name("skadacomp.js")


def to_onnx(
    model: Any,
    path: str | os.PathLike[str],
    *,
    input: Literal["ids", "rows", "counts"] = "ids",
    output: Literal["vectors", "features", "scores", "probabilities"] | None = None,
) -> None:
    """Write an ONNX model that holds codes and codebooks, and never the table.

    The file is a few percent larger than ours without its words, and 1 to 2 KB: it knows row ids
    alone (`to_words_json` gives those of words). It needs no operator of its own, so any runtime of
    opset 26 runs it: onnxruntime, or onnxruntime-web in a browser.

    Parameters
    ----------
    model : CompressedTable, fitted compressor, FrozenClassifier, or fitted Pipeline
        A Pipeline is a compressor and a linear classifier, as `freeze` takes it; here the
        compressor may have a ``tokenizer``, since no text goes in.
    path : str or path-like
        A former file of that name is replaced.
    input : {"ids", "rows", "counts"}, default="ids"
        The name of the one input, and what it is. Ids are those of the original table's rows.

        - "ids", int64 of shape (n_documents, n_words_at_most): the row ids of each document's
          words, padded with -1.
        - "rows", int64 of shape (n,): row ids, each of which is to have its own vector, as
          `CompressedTable.vectors` gives it; the mean vector for a dropped row and for -1.
        - "counts", float32 of shape (n_documents, n_words): the weight of each row in each
          document, such as ``CountVectorizer(vocabulary=table.index)`` gives, as a dense array.
    output : {"vectors", "features", "scores", "probabilities"}, default=None
        The name of the one output, float32, and what it is: pooled vectors, code features, what
        ``decision_function`` gives, or the probability of each class. None is "probabilities" for a
        classifier, and "vectors" for all else.

    Raises
    ------
    ImportError
        If onnx is not installed.
    NotFittedError
        If `model` is not fitted.
    OSError
        If the file cannot be written.
    TypeError, ValueError
        If `model` is none of these, its classifier is not linear, it has other steps, or it has not
        what `output` asks for.

    See Also
    --------
    skadacomp.freeze : One file that needs numpy alone.

    Notes
    -----
    Documents are pooled as the compressor pools them, and by the mean where `model` is a
    CompressedTable. Words without a code are skipped, and a document without any other is all
    zeros. The classes of a classifier are in the model's metadata, ``classes``, as JSON.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> import numpy as np
    >>> from onnxruntime import InferenceSession
    >>> import skadacomp
    >>> table = skadacomp.CompressedTable.from_codes(
    ...     codes=[[0, 1], [1, -1], [-1, -1]],
    ...     codebooks=[[[1.0, 0.0], [0.0, 1.0]], [[0.0, 0.0], [0.0, 2.0]]],
    ...     mean=[0.0, 0.0],
    ...     code_lengths=(0, 1, 2),
    ... )
    >>> with TemporaryDirectory() as folder:
    ...     skadacomp.to_onnx(table, f"{folder}/table.onnx")
    ...     session = InferenceSession(f"{folder}/table.onnx")
    >>> ids = np.array([[0, 1], [1, -1], [2, -1]])  # two words, one word, one without a code
    >>> session.run(None, {"ids": ids})[0].round(2)
    array([[0.5, 1.5],
           [0. , 1. ],
           [0. , 0. ]], dtype=float32)
    """
    _check_choice("input", input, _INPUTS)
    frozen = _classifier(model)
    table = _table(model)
    output = output or ("vectors" if frozen is None else "probabilities")
    _check_choice("output", output, _OUTPUTS)
    _check_output(output, frozen)
    if not table.n_words or not table.n_codebooks:
        raise ValueError(
            f"a table of n_words={table.n_words} and n_codebooks={table.n_codebooks} holds nothing "
            "to export"
        )
    try:
        made = model_of(table, frozen, input, output, _pooling(model, frozen))
    except ModuleNotFoundError as error:
        raise missing("onnx", "to_onnx", "onnx") from error
    with whole_file(path) as file:
        file.write(made.SerializeToString())


def to_browser(model: Any, folder: str | os.PathLike[str]) -> None:
    """Write the two files with which a page classifies text: the classifier, and what reads it.

    ``classifier.safetensors`` is what `FrozenClassifier.save` writes. ``skadacomp.js``, an ES
    module without dependencies, reads it in the visitor's browser; no server does more than send
    the two.

    Parameters
    ----------
    model : FrozenClassifier or fitted Pipeline
        With words. A Pipeline is what `freeze` takes.
    folder : str or path-like
        Made if it is not there; former files of these names are replaced.

    Raises
    ------
    NotFittedError
        If `model` is not fitted.
    OSError
        If a file cannot be written.
    ValueError
        If `freeze` refuses `model`, or it has no words.

    See Also
    --------
    skadacomp.to_onnx : For onnxruntime-web, which runs any model.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from skadacomp import AdaptiveCodebookCompressor, EmbeddingTable
    >>> from skadacomp.export import to_browser
    >>> table = EmbeddingTable(["tea", "cup", "train", "fare"], [[1.0], [0.9], [-1.0], [-0.9]])
    >>> compressor = AdaptiveCodebookCompressor(table, n_codewords=2, max_iter=1, random_state=0)
    >>> pipe = make_pipeline(compressor, LogisticRegression())
    >>> pipe = pipe.fit(["tea cup", "cup", "train fare", "fare"], ["eat", "eat", "ride", "ride"])
    >>> with TemporaryDirectory() as folder:
    ...     to_browser(pipe, folder)
    ...     print(*sorted(file.name for file in Path(folder).iterdir()))
    classifier.safetensors skadacomp.js
    """
    frozen = model if isinstance(model, FrozenClassifier) else freeze(model)
    _words(frozen.table)
    made = Path(folder)
    made.mkdir(parents=True, exist_ok=True)
    frozen.save(made / "classifier.safetensors")
    with whole_file(made / _SCRIPT.name) as file:
        file.write(_SCRIPT.read_bytes())


def to_words_json(model: Any, path: str | os.PathLike[str]) -> None:
    """Write the words that have a code as a JSON object, from each to its row id.

    It is what a page needs beside the ONNX model, to make ids of words.

    Parameters
    ----------
    model : CompressedTable, fitted compressor, FrozenClassifier, or fitted Pipeline
        With words.
    path : str or path-like
        A former file of that name is replaced. UTF-8.

    Raises
    ------
    NotFittedError
        If `model` is not fitted.
    OSError
        If the file cannot be written.
    TypeError, ValueError
        If `model` is none of these, or has no words.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from skadacomp import CompressedTable
    >>> from skadacomp.export import to_words_json
    >>> table = CompressedTable.from_codes(
    ...     [[0], [-1], [1]], [[[1.0], [-1.0]]], [0.0], ["tea", "a", "coffee"], code_lengths=(0, 1)
    ... )
    >>> with TemporaryDirectory() as folder:
    ...     to_words_json(table, f"{folder}/words.json")
    ...     print(Path(folder, "words.json").read_text())
    {"tea":0,"coffee":2}
    """
    table = _table(model)
    words = _words(table)
    rows = dict(zip(words, table.rows(words).tolist(), strict=True))
    with whole_file(path) as file:
        file.write(json.dumps(rows, ensure_ascii=False, separators=(",", ":")).encode())


def to_keyed_vectors(model: Any) -> KeyedVectors:
    """Make a gensim KeyedVectors of the words that have a code, in the order of their rows.

    Parameters
    ----------
    model : CompressedTable, fitted compressor, FrozenClassifier, or fitted Pipeline
        With words.

    Returns
    -------
    gensim.models.KeyedVectors
        Of float32.

    Raises
    ------
    ImportError
        If gensim is not installed.
    NotFittedError
        If `model` is not fitted.
    TypeError, ValueError
        If `model` is none of these, or has no words.

    Examples
    --------
    >>> from skadacomp import CompressedTable
    >>> from skadacomp.export import to_keyed_vectors
    >>> table = CompressedTable.from_codes(
    ...     [[0], [-1], [1]], [[[1.0], [-1.0]]], [0.0], ["tea", "a", "coffee"], code_lengths=(0, 1)
    ... )
    >>> to_keyed_vectors(table).index_to_key
    ['tea', 'coffee']
    """
    try:
        from gensim.models import KeyedVectors
    except ModuleNotFoundError as error:
        raise missing("gensim", "to_keyed_vectors", "gensim") from error
    table = _table(model)
    words = _words(table)
    vectors = KeyedVectors(table.n_dims, dtype=np.float32)
    vectors.add_vectors(words, table.vectors(words))
    return vectors


def to_word2vec_text(model: Any, path: str | os.PathLike[str]) -> None:
    """Write the words that have a code, and their vectors, as word2vec's text format has them.

    A line with both numbers, then a line a word. `EmbeddingTable.open` reads it, gensim does, and
    so do most programs that take word vectors.

    Parameters
    ----------
    model : CompressedTable, fitted compressor, FrozenClassifier, or fitted Pipeline
        With words.
    path : str or path-like
        A former file of that name is replaced. UTF-8; numbers have as many digits as it takes to
        tell them apart in float32.

    Raises
    ------
    NotFittedError
        If `model` is not fitted.
    OSError
        If the file cannot be written.
    TypeError, ValueError
        If `model` is none of these, has no words, or has one that is empty or holds white space,
        which the format cannot tell from two.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from skadacomp import CompressedTable
    >>> from skadacomp.export import to_word2vec_text
    >>> table = CompressedTable.from_codes(
    ...     [[0], [-1], [1]], [[[1.0], [-1.0]]], [0.0], ["tea", "a", "coffee"], code_lengths=(0, 1)
    ... )
    >>> with TemporaryDirectory() as folder:
    ...     to_word2vec_text(table, f"{folder}/words.txt")
    ...     print(Path(folder, "words.txt").read_text(), end="")
    2 1
    tea 1.0
    coffee -1.0
    """
    table = _table(model)
    words = _words(table)
    for word in words:
        if word.encode().split() != [word.encode()]:
            raise ValueError(
                f"the word {word!r} is empty or holds white space, which word2vec's text format "
                "cannot hold; to_keyed_vectors can"
            )
    with whole_file(path) as file:
        file.write(f"{len(words)} {table.n_dims}\n".encode())
        file.writelines(line.encode() for line in text_lines(table, words))


def to_model2vec(model: Any, path: str | os.PathLike[str]) -> None:
    """Write a folder that ``model2vec.StaticModel.from_pretrained`` loads.

    Its ``encode`` gives the mean of a text's vectors, as `CompressedTable.documents` does, whatever
    the compressor's own pooling: words are split alike, those without a code are skipped, and
    vectors are not normalised.

    Parameters
    ----------
    model : CompressedTable, fitted compressor, FrozenClassifier, or fitted Pipeline
        With words. Texts are made lower case as the compressor makes them, and always where `model`
        is a CompressedTable.
    path : str or path-like
        The folder to make, which must not be there yet.

    Raises
    ------
    FileExistsError
        If there is something of that name.
    ImportError
        If model2vec is not installed.
    NotFittedError
        If `model` is not fitted.
    OSError
        If the folder cannot be written.
    TypeError, ValueError
        If `model` is none of these, has no words, or splits text with a ``tokenizer`` of one's own.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from model2vec import StaticModel
    >>> from skadacomp import CompressedTable
    >>> from skadacomp.export import to_model2vec
    >>> table = CompressedTable.from_codes(
    ...     [[0], [-1], [1]], [[[1.0], [-1.0]]], [0.0], ["tea", "a", "coffee"], code_lengths=(0, 1)
    ... )
    >>> with TemporaryDirectory() as folder:
    ...     to_model2vec(table, f"{folder}/model")
    ...     model = StaticModel.from_pretrained(f"{folder}/model")
    >>> model.encode(["Tea, please!"])  # "please" has no code
    array([[1.]], dtype=float32)
    """
    table = _table(model)
    words, lowercase = _words(table), _lowercase(model)
    folder = Path(os.path.realpath(path))
    if folder.exists():
        raise FileExistsError(f"path={os.fspath(path)!r} is there already; give a new name")
    static = _static_model(words, table.vectors(words), lowercase)
    temporary = folder.with_name(f".{folder.name}.{os.urandom(4).hex()}.tmp")
    try:
        static.save_pretrained(temporary, model_name=folder.name)
        temporary.rename(folder)
    finally:
        rmtree(temporary, ignore_errors=True)


def to_numpy(model: Any) -> NDArray[np.float32]:
    """Give all vectors as an array, one row for each row of the original table.

    Parameters
    ----------
    model : CompressedTable, fitted compressor, FrozenClassifier, or fitted Pipeline
        With or without words.

    Returns
    -------
    ndarray of shape (n_words, n_dims), float32
        The mean vector in the rows that were dropped.

    Raises
    ------
    NotFittedError
        If `model` is not fitted.
    TypeError, ValueError
        If `model` is none of these.

    Examples
    --------
    >>> from skadacomp import CompressedTable
    >>> from skadacomp.export import to_numpy
    >>> table = CompressedTable.from_codes(
    ...     [[0], [-1], [1]], [[[1.0], [-1.0]]], [0.0], code_lengths=(0, 1)
    ... )
    >>> to_numpy(table)
    array([[ 1.],
           [ 0.],
           [-1.]], dtype=float32)
    """
    table = _table(model)
    return table.vectors(np.arange(table.n_words))


# ---------------------------------------------------------------------------------------------
# What users hand in


def _table(model: Any) -> CompressedTable:
    return model.table if isinstance(model, FrozenClassifier) else find_compressed(model, "model")


def _classifier(model: Any) -> FrozenClassifier | None:
    if isinstance(model, FrozenClassifier):
        return model
    return classifier_of(model) if isinstance(model, Pipeline) else None


def _pooling(model: Any, frozen: FrozenClassifier | None) -> str:
    if frozen is not None:
        return frozen._description.pooling
    return "mean" if isinstance(model, CompressedTable) else find_compressor(model, "model").pooling


def _lowercase(model: Any) -> bool:
    """Whether texts are made lower case; splitting must be ours."""
    if isinstance(model, FrozenClassifier):
        return model._description.lowercase
    if isinstance(model, CompressedTable):
        return True
    compressor = find_compressor(model, "model")
    if compressor.tokenizer is not None:
        raise ValueError(
            f"tokenizer={compressor.tokenizer!r:.80} cannot go into the folder; export "
            "compressor.compressed_ to have words split as tokenizer=None splits them"
        )
    return compressor.lowercase


def _words(table: CompressedTable) -> list[str]:
    words = table.words
    if words is None:
        raise ValueError("the table holds no words, only row ids; to_numpy gives its vectors")
    return words


def _check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name}={value!r} must be one of {choices}")


def _check_output(output: str, frozen: FrozenClassifier | None) -> None:
    if output in ("scores", "probabilities") and frozen is None:
        raise ValueError(
            f"output={output!r} needs a classifier: give the Pipeline, or output='vectors'"
        )
    if output == "probabilities" and frozen is not None and frozen._description.link == "none":
        raise ValueError(
            "the classifier has no probabilities that follow from its scores alone; "
            "output='scores' gives those"
        )


# ---------------------------------------------------------------------------------------------
# What other programs read


def _static_model(words: list[str], vectors: NDArray[np.float32], lowercase: bool) -> Any:
    """Make a StaticModel whose tokens are words."""
    try:
        from model2vec import StaticModel
        from tokenizers import Regex, Tokenizer
        from tokenizers.models import WordLevel
        from tokenizers.normalizers import Lowercase
        from tokenizers.pre_tokenizers import Split
    except ModuleNotFoundError as error:
        raise missing("model2vec", "to_model2vec", "model2vec") from error
    unknown, known = "[UNK]", set(words)
    while unknown in known:
        unknown = f"[{unknown}]"
    rows = {word: row for row, word in enumerate([*words, unknown])}
    tokenizer = Tokenizer(WordLevel(rows, unk_token=unknown))
    if lowercase:
        tokenizer.normalizer = Lowercase()
    tokenizer.pre_tokenizer = Split(Regex(_WORD), "removed", invert=True)
    # model2vec skips the unknown token, so its row is never read.
    vectors = np.pad(vectors, ((0, 1), (0, 0)))
    return StaticModel(vectors, tokenizer, normalize=False, max_length=None)
