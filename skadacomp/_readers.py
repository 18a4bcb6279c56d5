"""What users have, read into words and vectors: one short function for each kind.

The packages that made a format read it; each is imported when a table of its kind comes.
"""

from __future__ import annotations

import json
import mmap
import os
import pickle
import re
import struct
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from operator import itemgetter
from pathlib import Path
from tokenize import TokenError
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from skadacomp._extras import missing
from skadacomp._files import whole_file
from skadacomp._format import UNREADABLE, FormatError
from skadacomp._text_files import (
    COMPRESSED,
    is_number,
    most_bytes,
    opened,
    read_text,
    unpacking,
    zip_member,
)

__all__ = ["Given", "Read", "content_of", "named", "object_reader", "read_path"]

# Names of a transformer's input table, the surest first; "bert.embeddings.word_embeddings.weight"
# and the like end in one of them.
_USUAL_TENSORS = (
    "word_embeddings.weight",  # BERT and its kin, BLOOM, Falcon
    "shared.weight",  # T5, BART
    "embed_tokens.weight",  # Llama, Mistral, Qwen, Gemma, OPT
    "wte.weight",  # GPT-2
    "tok_embeddings.weight",  # ModernBERT
    "embed_in.weight",  # GPT-NeoX
    "word_embedding.weight",  # XLNet
    "token_embedding.weight",  # CLIP
    "embedding.weight",
    "embeddings.weight",
    "embeddings",  # model2vec
)
_MOST_NAMED = 20  # tensors that an error lists

# Models often have a few rows more than their tokenizer has pieces, to make the number round.
_MOST_PADDING = 1024

_FASTTEXT_MAGIC = 793712314
_FASTTEXT_HEADER = 64  # bytes before the counts of its vocabulary: magic, version, settings
_WORD2VEC_HEADER = re.compile(rb"(\d{1,18}) (\d{1,9})\s*\n")

_CACHE_FORMAT = 1  # raised whenever a kept table could be misread


class Given(NamedTuple):
    """What `EmbeddingTable.open` was given beside the path."""

    words: Any = None
    tokenizer: Any = None
    tensor: str | None = None
    member: str | None = None
    cache: bool | str | os.PathLike[str] = False
    verbose: int = 0


class Read(NamedTuple):
    """What was read.

    Parameters
    ----------
    words : collection of str, or None
        None where there are no words.
    vectors : ndarray (n_words, n_dims)
        Not checked yet.
    note : str
        What the user should be warned of; empty if nothing.
    """

    words: Collection[str] | None
    vectors: npt.NDArray[Any]
    note: str = ""


class Format(NamedTuple):
    """How a kind of file is read, and which arguments it takes beside its path."""

    read: Callable[[Path, Given], Read]
    takes: frozenset[str] = frozenset()


def _optional(module: str, extra: str, what: str) -> Any:
    """Import what an extra brings."""
    try:
        return import_module(module)
    except ImportError as error:
        raise missing(extra, what, extra) from error


# -- paths -----------------------------------------------------------------------------------

_FOR_WHAT = {
    "words": ".npy and .safetensors files and folders of transformers",
    "tokenizer": ".npy and .safetensors files and folders of transformers",
    "tensor": ".safetensors files and folders of transformers",
    "member": ".zip files",
    "cache": "text tables and .bin files, which must be parsed",
}


def read_path(path: Path, given: Given) -> Read:
    """Read a file or folder.

    Raises
    ------
    FileNotFoundError, ImportError, ValueError
        See `EmbeddingTable.open`.
    """
    with content_of(path):
        form = _form_of(path, given)
    for name, what in _FOR_WHAT.items():
        value = getattr(given, name)
        if value is not None and value is not False and name not in form.takes:
            carries = "; it carries its own words" if name in ("words", "tokenizer") else ""
            raise ValueError(
                f"{name} is for {what}, and path={str(path)!r} is none{carries}: leave {name} out."
            )
    with content_of(path):
        if given.cache is False:
            return form.read(path, given)
        return _cached(path, given, form.read)


@contextmanager
def content_of(path: Path) -> Iterator[None]:
    """Turn what reading raises where the content is not what it should be into a FormatError.

    Raises
    ------
    FormatError
        It names the file.
    """
    try:
        yield
    except FormatError:
        raise
    except UNREADABLE as error:
        text = str(error)
        raise FormatError(text if path.name in text else f"{path}: {text}") from error


def _form_of(path: Path, given: Given) -> Format:
    """Tell the kind of a file by its suffix, and of a folder by what lies in it."""
    if path.is_dir():
        return _folder_form(path)
    suffix = path.suffix.lower()
    if suffix not in _FORMS and suffix not in COMPRESSED:
        raise ValueError(
            f"path={str(path)!r} has the suffix {path.suffix!r}; the suffixes that can be opened "
            f"are {', '.join(_FORMS)}, and text with {', '.join(COMPRESSED)} behind."
        )
    if not path.exists():
        raise FileNotFoundError(f"path={str(path)!r}: there is no such file.")
    if suffix not in COMPRESSED:
        return _FORMS[suffix]
    is_zip = suffix == ".zip"
    content = zip_member(path, given.member) if is_zip else path.stem
    inner = Path(content).suffix.lower()
    if inner == ".bin" and not is_zip:
        return _FORMS[inner]
    if inner == ".tar" or (inner in _FORMS and inner not in _TEXT):
        raise ValueError(
            f"path={str(path)!r}: a {inner} file must be unpacked before it is opened."
        )
    return Format(_read_text, _PARSED | {"member"} if is_zip else _PARSED)


def _folder_form(folder: Path) -> Format:
    if (folder / "0_StaticEmbedding").is_dir():  # as sentence-transformers saves a model2vec
        return Format(_read_static_model)
    file = folder / "model.safetensors"
    if file.exists() and {"embeddings", "embedding.weight"} & set(_tensors(file)):
        return Format(_read_static_model)
    if file.exists() or _shard_index(folder).exists():
        return Format(_read_transformer, frozenset({"words", "tokenizer", "tensor"}))
    if _spacy_folder(folder) is not None:
        return Format(_read_spacy)
    raise ValueError(
        f"path={str(folder)!r} is a folder with neither a model.safetensors in it, as model2vec "
        "and transformers save, nor the vectors of a spaCy pipeline."
    )


# -- text, numpy -----------------------------------------------------------------------------


def _read_text(path: Path, given: Given) -> Read:
    table = read_text(path, given.member, verbose=given.verbose)
    n_repeated = table.n_lines - len(table.words)
    return Read(table.words, table.vectors, _repeats(path, n_repeated, table.n_lines))


def _repeats(path: Path, n_repeated: int, n_rows: int) -> str:
    """Say how many words came again, if any did."""
    if not n_repeated:
        return ""
    return (
        f"{path.name}: {n_repeated} of {n_rows} rows repeat a word; the first vector of each word "
        "is kept."
    )


def _read_npy(path: Path, given: Given) -> Read:
    _check_npy(path)
    try:
        vectors = np.load(path, mmap_mode="r", allow_pickle=False)
    except (EOFError, ValueError, SyntaxError, TypeError, OverflowError, TokenError) as error:
        raise ValueError(f"{path} cannot be read as .npy: {error}") from error
    return _with_words(path, vectors, given)


def _check_npy(path: Path) -> None:
    """Refuse a header that says it is longer than the file: numpy makes room for all of it."""
    with path.open("rb") as file:
        start = file.read(12)
    # From version 2.0 on its length has four bytes; before, two.
    length = int.from_bytes(start[8:12], "little") if start[6:7] > b"\1" else 0
    if start.startswith(b"\x93NUMPY") and length > path.stat().st_size:
        raise ValueError(f"{path}: its header of {length} bytes exceeds the file. Is it damaged?")


def _with_words(path: Path, vectors: npt.NDArray[Any], given: Given) -> Read:
    """Join vectors with the words given, or with those in a file beside them."""
    if given.words is None and given.tokenizer is None:
        for suffix in (".words.json", ".words.txt", ".txt"):
            sibling = path.with_name(path.stem + suffix)
            if sibling.exists():
                return named(Read(None, vectors), sibling)
    return named(Read(None, vectors), given.words, given.tokenizer)


# -- words -----------------------------------------------------------------------------------


def named(read: Read, words: Any = None, tokenizer: Any = None) -> Read:
    """Give a table that has no words those of a list, a file or a tokenizer.

    Parameters
    ----------
    read : Read
    words : sequence of str, path or None
        The words, or the path of a file with them: one a line, or JSON.
    tokenizer : tokenizer, path of a tokenizer.json, or None
        Its pieces are the words, in order of their ids.

    Raises
    ------
    ValueError
        If there are words already, or both kinds are given, or they do not fit.
    """
    if words is None and tokenizer is None:
        return read
    if read.words is not None:
        raise ValueError("words and tokenizer are for tables without words; this one has its own.")
    if tokenizer is not None:
        if words is not None:
            raise ValueError("words and tokenizer both say what the words are: give one of them.")
        pieces = _pieces(tokenizer, read.vectors.shape[0] if read.vectors.ndim else 0)
        return read._replace(words=pieces, vectors=read.vectors[: len(pieces)])
    if isinstance(words, (str, os.PathLike)):
        n_dims = read.vectors.shape[-1] if read.vectors.ndim else 0
        words = _read_words(Path(words).expanduser(), n_dims)
    return read._replace(words=words)


def _read_words(path: Path, n_dims: int) -> list[str]:
    """Read a text file with one word a line, or a JSON file with a list of words."""
    if not path.exists():
        raise FileNotFoundError(f"words={str(path)!r}: there is no such file.")
    if path.suffix.lower() == ".json":
        return _read_json_words(path)
    with path.open(encoding="utf-8", newline="\n") as lines:
        words = [line.rstrip("\r\n") for line in lines]
    # The text table itself often lies beside its .npy: its lines are not words.
    fields = words[-1].split() if words else []
    if len(fields) > n_dims > 1 and is_number(fields[-1].encode()):
        raise ValueError(
            f"{path} holds vectors, not one word a line: open it as the table, or pass words= a "
            "list or the path of a file with one word a line."
        )
    return words


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} cannot be read as JSON: {error}") from error


def _read_json_words(path: Path) -> list[str]:
    content = _read_json(path)
    words = content.get("words") if isinstance(content, dict) else content
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise ValueError(f"{path} must hold a JSON list of words.")
    return words


def _pieces(tokenizer: Any, n_rows: int) -> list[str]:
    """Pieces of a tokenizer in order of their ids; rows beyond the last are padding."""
    if isinstance(tokenizer, (str, os.PathLike)):
        tokenizer = _read_tokenizer(Path(tokenizer).expanduser())
    if not hasattr(tokenizer, "get_vocab"):
        raise TypeError(
            f"tokenizer is of type {type(tokenizer).__name__}; it must be the path of a "
            "tokenizer.json, or a tokenizer of the package tokenizers or transformers."
        )
    # Sorted, so that of two pieces with one id always the same is taken.
    piece_of: dict[int, str] = {}
    for piece, row in sorted(tokenizer.get_vocab().items()):
        piece_of.setdefault(row, piece)
    n_pieces = max(piece_of, default=-1) + 1
    if not n_pieces <= n_rows <= n_pieces + _MOST_PADDING:
        raise ValueError(
            f"The tokenizer has ids up to {n_pieces - 1} and the table {n_rows} rows: it must have "
            f"a row for each id, and at most {_MOST_PADDING} rows of padding behind them. Is it "
            "the tokenizer of this table?"
        )
    gap = next((row for row in range(n_pieces) if row not in piece_of), None)
    if gap is not None:
        raise ValueError(
            f"The tokenizer has no piece with the id {gap}, so that row {gap} has no word: pass "
            "words= a list with a word for each row."
        )
    return [piece_of[row] for row in range(n_pieces)]


def _read_tokenizer(path: Path) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f"tokenizer={str(path)!r}: there is no such file.")
    tokenizers = _optional("tokenizers", "tokenizers", f"Reading {path.name}")
    try:
        return tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers has no narrower class
        raise ValueError(f"tokenizer={str(path)!r} is no tokenizer.json: {error}") from error


# -- safetensors -----------------------------------------------------------------------------


def _tensors(path: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Name, dtype and shape of each tensor in a file."""
    try:
        with safe_open(path, framework="numpy") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (it has no __iter__)
            return {name: (s.get_dtype(), tuple(s.get_shape())) for name, s in slices.items()}
    except SafetensorError as error:
        raise ValueError(f"{path} cannot be read as .safetensors: {error}") from error


def _read_safetensors(path: Path, given: Given) -> Read:
    """Read one 2-D float tensor: that which is asked for, the only one, or the usual one."""
    tensors = _tensors(path)
    # BF16, F16, F32, F64: the floats of at least 16 bits
    tables = [
        name
        for name, (dtype, shape) in tensors.items()
        if len(shape) == 2 and re.fullmatch(r"B?F\d\d", dtype)
    ]
    found = tables if len(tables) == 1 else _usual(tables)
    if given.tensor is not None:
        found = [given.tensor] if given.tensor in tables else []
    if len(found) != 1:
        raise ValueError(_which_tensor(path, given.tensor, tables, tensors))
    (name,) = found
    if tensors[name][0] == "BF16":
        return _with_words(path, _bfloat16(path, name), given)
    with safe_open(path, framework="numpy") as file:
        return _with_words(path, file.get_tensor(name), given)


def _usual(names: Iterable[str]) -> list[str]:
    """Tensors with the first of the usual names that any of them has."""
    names = list(names)
    found = ([n for n in names if f".{n}".endswith(f".{usual}")] for usual in _USUAL_TENSORS)
    return next(filter(None, found), [])


def _which_tensor(
    path: Path,
    wanted: str | None,
    tables: list[str],
    tensors: dict[str, tuple[str, tuple[int, ...]]],
) -> str:
    """Say why no tensor could be picked, and which there are."""
    if wanted is None:
        trouble = (
            f"{path} holds {len(tables)} 2-D float tensors, so which is the table is not clear"
        )
    else:
        trouble = f"tensor={wanted!r} is no 2-D float tensor of {path}"
    listed = [" ".join(map(str, (name, *tensors[name]))) for name in tables or tensors]
    if len(listed) > _MOST_NAMED:
        listed[_MOST_NAMED:] = [f"and {len(listed) - _MOST_NAMED} more"]
    kind = "the 2-D ones" if tables else "its tensors"
    return f"{trouble}. Name the table with tensor=; {kind} are: {', '.join(listed) or 'none'}."


def _bfloat16(path: Path, name: str) -> npt.NDArray[np.float32]:
    """Read what numpy has no dtype for: its 16 bits are the upper half of a float32."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        entry = json.loads(file.read(length))[name]
    begin, shape = 8 + length + entry["data_offsets"][0], tuple(entry["shape"])
    upper = np.memmap(path, "<u2", mode="r", offset=begin, shape=shape)
    return (upper.astype(np.uint32) << np.uint32(16)).view(np.float32)


# -- gensim ----------------------------------------------------------------------------------


def _read_gensim(path: Path, given: Given) -> Read:
    """Read gensim's own files, which are pickles."""
    save_load = _optional("gensim.utils", "gensim", f"Opening {path.name}").SaveLoad
    try:
        saved = save_load.load(str(path), mmap="r")
    except (EOFError, pickle.UnpicklingError) as error:
        raise ValueError(f"{path} cannot be read: {error}. Is it cut off or damaged?") from error
    keyed = getattr(saved, "wv", saved)  # a model keeps its vectors in .wv
    if not _is_keyed_vectors(keyed):
        raise ValueError(f"{path} holds a {type(saved).__name__}, which has no word vectors.")
    return _of_keyed_vectors(keyed)


def _read_bin(path: Path, given: Given) -> Read:
    """Read word2vec's binary format or fastText's, told apart by how they begin."""
    with opened(path) as content:
        start = content.stream.read(64)
        is_packed = content.stream is not content.raw
    header = _WORD2VEC_HEADER.match(start)
    if header is None and not start.startswith(struct.pack("<i", _FASTTEXT_MAGIC)):
        raise ValueError(
            f"{path} is neither word2vec's binary format nor fastText's. If it is a transformer's, "
            "save it as .safetensors."
        )
    if header is None and is_packed:
        raise ValueError(f"{path}: a fastText .bin must be unpacked before it is opened.")
    models = _optional("gensim.models", "gensim", f"Opening {path.name}")
    try:
        with unpacking(path):
            if header is None:
                _check_fasttext(path)
                return _of_keyed_vectors(models.fasttext.load_facebook_vectors(str(path)))
            n_words, n_dims = map(int, header.groups())
            _check_word2vec(path, n_words, n_dims, is_packed=is_packed)
            keyed = models.KeyedVectors.load_word2vec_format(str(path), binary=True)
    except (AssertionError, OverflowError, struct.error, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read: {error}. Is it cut off or damaged?") from error
    read = _of_keyed_vectors(keyed)
    return read._replace(note=_repeats(path, n_words - len(read.vectors), n_words))


def _check_word2vec(path: Path, n_words: int, n_dims: int, *, is_packed: bool) -> None:
    """Refuse a header that promises more than the file can hold: gensim makes room for it all."""
    n_bytes = path.stat().st_size
    if n_words * (4 * n_dims + 2) > (most_bytes(n_bytes) if is_packed else n_bytes):
        raise ValueError(
            f"{path}: the header promises {n_words} words of {n_dims} dimensions and the file has "
            f"{n_bytes} bytes. Is it cut off?"
        )


def _check_fasttext(path: Path) -> None:
    """Refuse what gensim would read for ever or as noise: a file cut off, or a quantized one."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        n_entries, _, n_labels = struct.unpack_from("<3i", content, _FASTTEXT_HEADER)
        (n_pruned,) = struct.unpack_from("<q", content, _FASTTEXT_HEADER + 20)
        at = _FASTTEXT_HEADER + 28
        for _ in range(n_entries):  # a word, a zero, its count and its type
            end = content.find(b"\0", at)
            if end < 0:
                raise EOFError("it ends within its vocabulary")
            at = end + 10
        at += 8 * max(n_pruned, 0)
        is_quantized, n_rows, n_dims = struct.unpack_from("<?2q", content, at)
        if n_labels or is_quantized:
            raise ValueError(
                f"{path} is a fastText {'classifier' if n_labels else 'model, quantized'}: only "
                "word vectors that are not quantized can be opened."
            )
        if at + 17 + 4 * n_rows * n_dims > len(content):
            raise EOFError(f"it ends within its {n_rows} vectors")


# -- folders ---------------------------------------------------------------------------------


@contextmanager
def _read_by(package: str, folder: Path) -> Iterator[None]:
    """Turn whatever else a package raises where files are not those that it wrote.

    Raises
    ------
    ValueError
        It names the folder.
    """
    try:
        yield
    except (ImportError, MemoryError, OSError, ValueError):
        raise
    except Exception as error:
        raise ValueError(
            f"{folder} cannot be read by {package}: {error!r}. Is it cut off or damaged?"
        ) from error


def _read_static_model(folder: Path, given: Given) -> Read:
    model2vec = _optional("model2vec", "model2vec", f"Opening {folder.name}")
    with _read_by("model2vec", folder):
        return _of_static_model(model2vec.StaticModel.from_pretrained(folder))


def _shard_index(folder: Path) -> Path:
    """File that says which of several .safetensors files holds which tensor."""
    return folder / "model.safetensors.index.json"


def _read_transformer(folder: Path, given: Given) -> Read:
    """Read the input table of a transformer; the pieces of its tokenizer are the words."""
    file = folder / "model.safetensors"
    if not file.exists():
        file, tensor = _shard(folder, given.tensor)
        given = given._replace(tensor=tensor)
    if given.words is None and given.tokenizer is None:
        tokenizer = folder / "tokenizer.json"
        if not tokenizer.exists():
            raise ValueError(
                f"path={str(folder)!r} has no tokenizer.json, which would say what the words are: "
                "pass tokenizer= or words=."
            )
        given = given._replace(tokenizer=tokenizer)
    return _read_safetensors(file, given)


def _shard(folder: Path, tensor: str | None) -> tuple[Path, str]:
    """Give the file that the table lies in, and which tensor it is."""
    path = _shard_index(folder)
    index = _read_json(path)
    shards = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(shards, dict):
        shards = {}
    found = _usual(shards) if tensor is None else [tensor]
    if len(found) != 1 or found[0] not in shards:
        raise ValueError(
            f"tensor={tensor!r} picks none of the {len(shards)} tensors of {path}: name that of "
            "the table with tensor=."
        )
    name = shards[found[0]]
    if name not in [file.name for file in folder.iterdir() if file.is_file()]:
        raise ValueError(f"{path}: {found[0]!r} lies in {name!r:.80}, which is no file beside it.")
    return folder / name, found[0]


def _spacy_folder(folder: Path) -> Path | None:
    """Folder with the vectors of a spaCy package, Language, Vocab or Vectors."""
    candidates = (folder, folder / "vocab", *sorted(folder.glob("*/vocab")))
    return next((each for each in candidates if (each / "key2row").exists()), None)


def _read_spacy(folder: Path, given: Given) -> Read:
    vectors = _optional("spacy.vectors", "spacy", f"Opening {folder.name}").Vectors()
    with _read_by("spacy", folder):
        return _of_spacy_vectors(vectors.from_disk(_spacy_folder(folder)))


# -- objects ---------------------------------------------------------------------------------
# Recognised by the names of their type and of the package it comes from: nothing is imported.


def object_reader(value: Any) -> Callable[[Any], Read] | None:
    """Find what reads an object, or None if it is not of a kind known here."""
    for base in type(value).__mro__:
        key = (base.__module__.partition(".")[0], base.__name__)
        if key in _OBJECTS:
            return _OBJECTS[key]
    return _of_keyed_vectors if _is_keyed_vectors(value) else None


def _is_keyed_vectors(value: Any) -> bool:
    return hasattr(value, "vectors") and hasattr(value, "index_to_key")


def _of_keyed_vectors(keyed: Any) -> Read:
    # gensim leaves the places of words that came twice in a file empty, at the end.
    words = [word for word in keyed.index_to_key if word is not None]
    n_empty = len(keyed.index_to_key) - len(words)
    return Read(words, keyed.vectors[: len(keyed.vectors) - n_empty])


def _of_static_model(model: Any) -> Read:
    """Read a model2vec model: the vectors that it adds up, by piece."""
    vectors = model.embedding
    # Pieces may share vectors, with a weight each; models of before have neither.
    mapping = getattr(model, "token_mapping", None)
    weights = getattr(model, "weights", None)
    if mapping is not None:
        vectors = vectors[mapping]
    if weights is not None:
        vectors = vectors * weights[:, None]  # (n_words, n_dims)
    return Read(list(model.tokens), vectors)


def _of_spacy_vectors(vectors: Any) -> Read:
    """Read spaCy's vectors, a row a word even where words share one, in order of the rows."""
    if vectors.mode == "floret":
        raise ValueError(
            "spaCy's floret vectors are made of pieces of words and have no list of words: choose "
            "the words and pass EmbeddingTable(words, vectors.get_batch(words))."
        )
    keys_and_rows = sorted(vectors.key2row.items(), key=itemgetter(1))
    if not keys_and_rows:
        raise ValueError(
            "This spaCy pipeline has no word vectors; those with names in _md and _lg have."
        )
    try:
        words = [vectors.strings.as_string(key) for key, _ in keys_and_rows]
    except KeyError as error:
        raise ValueError(
            f"spaCy's vectors have a key without its word in their strings: {error}. Add the "
            "words, vectors.strings.add(word), or pass the Language or Vocab they belong to."
        ) from error
    rows = [row for _, row in keys_and_rows]
    data = np.asarray(vectors.data)
    return Read(words, data if rows == list(range(len(data))) else data[rows])


def _of_torch_embedding(embedding: Any) -> Read:
    """Copy the weight of a torch.nn.Embedding, which training goes on to change."""
    return Read(None, embedding.weight.detach().float().cpu().numpy().copy())


_OBJECTS: dict[tuple[str, str], Callable[[Any], Read]] = {
    ("gensim", "Word2Vec"): lambda model: _of_keyed_vectors(model.wv),  # fastText's are such too
    ("model2vec", "StaticModel"): _of_static_model,
    ("spacy", "Language"): lambda language: _of_spacy_vectors(language.vocab.vectors),
    ("spacy", "Vocab"): lambda vocab: _of_spacy_vectors(vocab.vectors),
    ("spacy", "Vectors"): _of_spacy_vectors,
    ("torch", "Embedding"): _of_torch_embedding,
}


# -- the kinds of files ----------------------------------------------------------------------

_TEXT = (".txt", ".vec")
_PARSED = frozenset({"cache"})
_NAMED = frozenset({"words", "tokenizer"})

_FORMS: dict[str, Format] = {
    **dict.fromkeys(_TEXT, Format(_read_text, _PARSED)),
    ".bin": Format(_read_bin, _PARSED),
    ".npy": Format(_read_npy, _NAMED),
    ".safetensors": Format(_read_safetensors, _NAMED | {"tensor"}),
    ".kv": Format(_read_gensim),
    ".model": Format(_read_gensim),
}


# -- the cache -------------------------------------------------------------------------------


def _cached(path: Path, given: Given, read: Callable[[Path, Given], Read]) -> Read:
    """Read what was kept of this very file, memory-mapped; if nothing was, read it and keep it."""
    vectors_file = _cache_file(path, given)
    words_file = vectors_file.with_suffix(".words.json")
    status = path.stat()
    source = {
        "format": _CACHE_FORMAT,
        "name": path.name,
        "member": given.member,
        "size": status.st_size,
        "mtime_ns": status.st_mtime_ns,
    }
    kept = _kept(vectors_file, words_file, source)
    if kept is not None:
        return kept
    # Opened before the long work of reading, so that a folder that cannot be written fails at once.
    with whole_file(words_file) as words_to, whole_file(vectors_file) as vectors_to:
        words, vectors, note = read(path, given)
        np.save(vectors_to, np.ascontiguousarray(vectors, dtype=np.float32))
        words_to.write(json.dumps({"source": source, "words": list(words or ())}).encode())
        words_file.unlink(missing_ok=True)  # it vouches for the vectors, so it goes first
    return Read(words, np.load(vectors_file, mmap_mode="r", allow_pickle=False), note)


def _cache_file(path: Path, given: Given) -> Path:
    """Where the vectors are kept; the words lie beside them."""
    if given.cache is True:
        of_member = f".{Path(given.member).name}" if given.member else ""
        return path.with_name(f"{path.name}{of_member}.npy")
    if isinstance(given.cache, bool) or not isinstance(given.cache, (str, os.PathLike)):
        raise TypeError(f"cache={given.cache!r} must be True, False or the path of an .npy file.")
    file = Path(given.cache).expanduser()
    if file.suffix != ".npy":
        raise ValueError(f"cache={str(file)!r} must be True, or a path that ends in .npy.")
    if not file.parent.is_dir():
        raise FileNotFoundError(f"cache={str(file)!r}: there is no folder {str(file.parent)!r}.")
    return file


def _kept(vectors_file: Path, words_file: Path, source: dict[str, Any]) -> Read | None:
    """Open what was kept, unless it is missing, damaged or of another state of the source."""
    try:
        content = json.loads(words_file.read_text("utf-8"))
        if not isinstance(content, dict) or content.get("source") != source:
            return None
        read = Read(content["words"], np.load(vectors_file, mmap_mode="r", allow_pickle=False))
    except (FileNotFoundError, EOFError, ValueError):
        return None
    return read if len(content["words"]) == len(read.vectors) else None
