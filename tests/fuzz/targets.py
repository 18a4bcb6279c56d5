"""What the fuzzers feed: small valid files, ways to spoil them, and what may come of it."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import json
import lzma
import random
import signal
import time
import tracemalloc
import warnings
import zipfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from gensim.models import FastText, KeyedVectors, fasttext
from safetensors.numpy import save as save_tensors
from tokenizers import Tokenizer, models, pre_tokenizers

from skadacomp import CompressedTable, EmbeddingTable, FormatError, FrozenClassifier, _format
from skadacomp._format import FORMAT
from skadacomp._frozen import Description
from skadacomp.cli import main

MOST_SECONDS = 1.0  # of the processor, for one input
_HUNG = 10.0  # seconds of it after which an input is given up
# Bytes that an honest small file may take beside twice its size: the dictionaries of packers.
SLACK = {".txt.xz": 2**24, ".txt.bz2": 2**23}
WORDS = ["coffee", "green tea", "wörd", "nul\0", "line\nbreak", "tab\t", "x" * 40, "plain"] + [
    f"word{i}" for i in range(30)
]


# ---------------------------------------------------------------------------------------------
# Valid files


def tables() -> list[CompressedTable]:
    """Tables of every layout: with and without words, axes, stored rows."""
    made = []
    for n_codewords, candidates, words in (
        (4, (0, 2, 4), True),
        (3, (0, 1), False),
        (2, (3,), True),
    ):
        draws = np.random.default_rng(n_codewords)
        lengths = draws.choice(candidates, len(WORDS))
        codes = draws.integers(0, n_codewords, (len(WORDS), candidates[-1]))
        codes[np.arange(candidates[-1]) >= lengths[:, None]] = -1
        books = draws.normal(size=(candidates[-1], n_codewords, 5)).astype(np.float32)
        made.append(
            CompressedTable.from_codes(
                codes,
                books,
                draws.normal(size=5),
                WORDS if words else None,
                code_lengths=candidates,
                parameters={"seed": 0},
            )
        )
    # Few distinct rows, and codebooks of rank 1: both are stored once where that is smaller.
    codes = np.tile(np.array([[0, 1], [1, 0]]), (200, 1))
    books = np.outer(np.arange(8.0), np.arange(64.0)).reshape(2, 4, 64)
    for bits in (8, 4):
        made.append(
            CompressedTable.from_codes(
                codes, books, np.zeros(64), code_lengths=(2,), rank=1, codebook_bits=bits
            )
        )
    return made


def _saved(thing: CompressedTable | FrozenClassifier, folder: Path) -> bytes:
    thing.save(folder / "valid.safetensors")
    return (folder / "valid.safetensors").read_bytes()


def _binary_files(folder: Path) -> list[bytes]:
    """Make the binary formats of word2vec and of fastText."""
    sentences = [["coffee", "tea"], ["milk", "and", "coffee"]]
    keyed = KeyedVectors(3)
    keyed.add_vectors(["coffee", "tea"], np.arange(6, dtype=np.float32).reshape(2, 3))
    keyed.save_word2vec_format(str(folder / "valid.bin"), binary=True)
    found = [(folder / "valid.bin").read_bytes()]
    model = FastText(sentences, vector_size=3, min_count=1, bucket=9, workers=1)
    fasttext.save_facebook_model(model, str(folder / "valid.bin"))
    return [*found, (folder / "valid.bin").read_bytes()]


def valid_files(folder: Path) -> dict[str, list[bytes]]:
    """Contents by suffix; those of ``.shipped`` and ``.frozen`` are our own format.

    ``.tokenizer.json`` and ``.index.json`` lie in the folder of a transformer, ``.tsv`` and
    ``.csv`` are documents that the command line reads.
    """
    shipped = tables()
    columns = shipped[0].n_codebooks * shipped[0].n_codewords + 1
    description = Description(["no", "yes"], "mean", True, "logistic")
    classifier = FrozenClassifier(
        shipped[0], np.ones((1, columns), np.float32), np.ones(1, np.float32), description
    )
    vectors = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    text = "".join(
        f"{w} {' '.join(map(str, v))}\n"
        for w, v in zip("abcdefghijklmnopqrst", vectors.tolist(), strict=True)
    )
    raw = text.encode()
    array = io.BytesIO()
    np.save(array, vectors)
    return {
        ".shipped": [_saved(table, folder) for table in shipped],
        ".frozen": [_saved(classifier, folder)],
        ".txt": [raw, f"20 3\n{text}".encode()],
        ".vec": [b"1 2\ncaf\xc3\xa9 1 2\n"],
        **{kind: [pack(raw)] for kind, pack in _PACK.items()},
        ".npy": [array.getvalue()],
        ".safetensors": [
            save_tensors({"table": vectors}),
            save_tensors({"wte.weight": vectors, "other": vectors.astype(np.float16)}),
        ],
        ".words.json": [json.dumps([f"w{i}" for i in range(20)]).encode()],
        ".bin": _binary_files(folder),
        ".tokenizer.json": [_tokenizer()],
        ".index.json": [json.dumps({"weight_map": {_TENSOR: "model-1.safetensors"}}).encode()],
        ".tsv": [b"up\tgood coffee\ndown\tno t\xc3\xa9a\n" * 2],
        ".csv": [b'label,text\nup,"good, ""coffee"""\ndown,no tea\n' * 2],
    }


_TENSOR = "model.embed_tokens.weight"


def _tokenizer() -> bytes:
    """Make the tokenizer.json of a transformer with 20 rows."""
    pieces = {"[UNK]": 0, **{f"w{i}": i for i in range(1, 20)}}
    tokenizer = Tokenizer(models.WordPiece(pieces, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer.to_str().encode()


# ---------------------------------------------------------------------------------------------
# Ways to spoil them

_EDGES = [
    0,
    1,
    7,
    8,
    127,
    128,
    255,
    2**15,
    2**16,
    2**31 - 1,
    2**31,
    2**32,
    2**53,
    2**63 - 1,
    2**63,
    2**64,
    -1,
    -8,
    10**30,
]
_VALUES = [
    *_EDGES,
    None,
    True,
    0.5,
    float("nan"),
    float("inf"),
    "",
    "F32",
    "F64",
    "I8",
    "U8",
    "BF16",
    [],
    {},
    [[]],
    "\0",
    "\ud800",
    "9" * 400,
]


def _mutated_bytes(random: random.Random, content: bytes, others: list[bytes]) -> bytes:
    """Flip, overwrite, cut, repeat or splice a few bytes."""
    spoiled = bytearray(content)
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        at = random.randrange(min(len(spoiled), random.choice((16, 200, 10**9))) or 1)
        n = random.choice((1, 1, 2, 4, 8, 40))
        how = random.randrange(7)
        if how == 0 and spoiled:
            at = min(at, len(spoiled) - 1)
            spoiled[at] ^= 1 << random.randrange(8)
        elif how == 1:
            spoiled[at : at + n] = random.randbytes(n)
        elif how == 2:
            edge = random.choice(_EDGES) % 2**64
            spoiled[at : at + 8] = edge.to_bytes(8, random.choice(("little", "big")))
        elif how == 3:
            del spoiled[at : at + n]
        elif how == 4:
            del spoiled[random.randrange(len(spoiled) + 1) :]
        elif how == 5:
            spoiled[at:at] = spoiled[at : at + n] * random.choice((1, 2, 50))
        else:
            other = random.choice(others)
            spoiled[at:] = other[random.randrange(len(other)) :]
    return bytes(spoiled)


def _mutated_text(random: random.Random, content: bytes) -> bytes:
    """Put in what text tables should not hold."""
    odd = random.choice(
        [
            b"nan",
            b"inf",
            b"1e39",
            b"-1e400",
            b"\xff\xfe",
            b"\0",
            b"\r",
            b"\xc2\xa0",
            b"  ",
            b"1_0",
            b"0x1p3",
            b"9" * 500,
            b"\n\n",
            b"99999 3\n",
            b"\t",
            b'"',
        ]
    )
    at = random.randrange(len(content) + 1)
    return content[:at] + odd + content[at + random.choice((0, len(odd))) :]


def _mutated_json(random: random.Random, content: bytes) -> bytes:
    """Change a value somewhere in JSON, and leave it JSON."""
    outer = [json.loads(content)]
    at: Any = outer
    while True:
        key = random.choice(list(at) if isinstance(at, dict) else list(range(len(at))))
        if not isinstance(at[key], (dict, list)) or not at[key] or random.random() < 0.3:
            break
        at = at[key]
    at[key] = _changed(random, at[key])
    return json.dumps(outer[0]).encode("utf-8", "surrogatepass")


def _mutated_header(random: random.Random, content: bytes) -> bytes:
    """Change what a safetensors header says, and leave it JSON."""
    n_header = int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8 : 8 + n_header]), content[8 + n_header :]
    for _ in range(random.choice((1, 1, 2, 3))):
        name = random.choice(list(header) or ["codes"])
        entry = header.get(name)
        how = random.randrange(6)
        if how == 0:
            header.pop(name, None)
        elif how == 1:
            header[random.choice(["coef", "words", "axes", "more", "", "\0"])] = entry
        elif how == 2 or not isinstance(entry, dict) or not entry:
            header[name] = random.choice(_VALUES)
        else:
            key = random.choice(list(entry))
            entry[key] = _changed(random, entry[key])
    spoiled = json.dumps(header).encode("utf-8", "surrogatepass")
    if random.random() < 0.3:
        data = _mutated_bytes(random, data or b"\0", [content])
    return len(spoiled).to_bytes(8, "little") + spoiled + data


def _changed(random: random.Random, value: Any) -> Any:
    """Change a number within a list or a text; or all of it."""
    if isinstance(value, list) and value and random.random() < 0.8:
        value = list(value)
        at = random.randrange(len(value))
        near = isinstance(value[at], int) and random.random() < 0.5
        value[at] = value[at] + random.choice((-8, -1, 1, 8)) if near else random.choice(_VALUES)
        return value
    if isinstance(value, str) and value and random.random() < 0.8:
        parts = value.split(" ")
        parts[random.randrange(len(parts))] = str(random.choice(_EDGES))
        return " ".join(parts)
    return random.choice(_VALUES)


def unsigned(content: bytes) -> bytes:
    """Take a file's checksum away, so that deeper checks are reached."""
    return content.replace(b'"crc32"', b'"crc-3"', 1)


def signed(content: bytes) -> bytes:
    """Give a file the checksum that its spoiled content has, where it can be read that far."""
    try:
        header, begin = _format._parsed_header(np.frombuffer(content, np.uint8))
        tensors = _format._tensor_views(header, np.frombuffer(content[begin:], np.uint8))
        metadata = header["__metadata__"]
        metadata["crc32"] = _format._checksum(tensors, metadata)
        text = json.dumps(header).encode()
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return unsigned(content)
    return len(text).to_bytes(8, "little") + text + content[begin:]


def _zipped(content: bytes) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("table.txt", content)
    return archive.getvalue()


_PACK = {
    ".txt.gz": gzip.compress,
    ".txt.bz2": bz2.compress,
    ".txt.xz": lzma.compress,
    ".zip": _zipped,
}


@cache
def _bomb(kind: str, n_bytes: int) -> bytes:
    """Pack so many bytes of a text table, which take next to none."""
    line = b"a 0 0 0\n"
    return _PACK[kind](line * (n_bytes // len(line)))


def mutated(random: random.Random, kind: str, contents: dict[str, list[bytes]]) -> bytes:
    """Make a spoiled file of a kind."""
    content = random.choice(contents[kind])
    ours = kind in (".shipped", ".frozen")
    others = random.choice(list(contents.values()))
    if (ours or kind == ".safetensors") and random.random() < 0.5:
        content = _mutated_header(random, content)
    elif kind.endswith(".json") and random.random() < 0.5:
        content = _mutated_json(random, content)
    elif kind in (".txt", ".vec", ".words.json", ".tsv", ".csv") and random.random() < 0.5:
        content = _mutated_text(random, content)
    elif ".txt." in kind and random.random() < 0.3:  # well packed, its content spoiled
        return _PACK[kind](_mutated_text(random, contents[".txt"][0]))
    elif kind in _PACK and random.random() < 0.002:
        return _bomb(kind, random.choice((2**20, 2**23)))
    else:
        content = _mutated_bytes(random, content, others)
    how = random.random()
    return (
        (unsigned(content) if how < 0.5 else signed(content) if how < 0.9 else content)
        if ours
        else content
    )


# ---------------------------------------------------------------------------------------------
# What may come of it


class Hung(BaseException):
    """An input took `_HUNG` seconds of the processor. No code catches it as it does errors."""


@contextlib.contextmanager
def _given_up() -> Iterator[None]:
    """Give up what takes too long, where the system has such a clock."""

    def give_up(number: int, frame: object) -> None:
        raise Hung(f"hung: given up after {_HUNG:g} s")

    if not hasattr(signal, "setitimer"):
        yield
        return
    former = signal.signal(signal.SIGVTALRM, give_up)
    signal.setitimer(signal.ITIMER_VIRTUAL, _HUNG)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, former)


class Finding(NamedTuple):
    """What went wrong with an input."""

    what: str
    kind: str
    content: bytes


def _checksum_of(path: Path) -> str | None:
    """Give the checksum that an opened file carries."""
    header, _ = _format._parsed_header(np.fromfile(path, np.uint8))
    found: str | None = header["__metadata__"].get("crc32")
    return found


class Known:
    """What valid files give, by the checksum that they carry: no other answer may come of it."""

    def __init__(self) -> None:
        self._answers: dict[tuple[str | None, str], bytes] = {}
        self.learning = True

    def check(self, path: Path, what: str, answer: Callable[[], bytes]) -> None:
        """Learn an answer of a valid file, or compare that of a spoiled one."""
        key = (_checksum_of(path), what)
        if self.learning and key[0]:
            self._answers[key] = answer()
        elif key in self._answers:
            assert answer() == self._answers[key], f"wrong {what}"


def _use_shipped(path: Path, known: Known) -> None:
    table = CompressedTable.open(path)
    use_table(table)

    def answer() -> bytes:
        # Rows without a code take next to no bytes, so a small file may well have many; the memory
        # that their vectors take is what was asked for.
        vectors = table.vectors(np.arange(min(table.n_words, 2**10)))
        return repr(table.words).encode() + vectors.tobytes()

    known.check(path, "words or vectors", answer)


def _use_frozen(path: Path, known: Known) -> None:
    classifier = FrozenClassifier.open(path)
    texts = ["coffee plain", "green", ""]
    scores = classifier.decision_function(texts)
    assert not np.isnan(scores).any(), "NaN scores"
    assert len(classifier.predict(["coffee"])) == 1
    known.check(path, "scores", lambda: classifier.decision_function(texts).tobytes())


def _use_embeddings(path: Path, known: Known) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of words that repeat
        warnings.simplefilter("ignore", ResourceWarning)  # gensim leaves files open,
        warnings.simplefilter("ignore", RuntimeWarning)  # and adds what overflows
        table = EmbeddingTable.open(path)
    assert np.isfinite(table.vectors).all(), "vectors that are not finite"
    assert table.words is None or len(table.words) == len(set(table.words)) == table.n_words


def use_table(table: CompressedTable) -> None:
    """Ask a table for a little of all that it gives."""
    n = table.n_words
    rows = sorted({0, n // 2, n - 1}) if n else []
    vectors = table.vectors(rows)
    assert vectors.shape == (len(rows), table.n_dims), "vectors of another shape"
    assert np.isfinite(vectors).all(), "vectors that are not finite"
    known = [word for word in ("coffee", "plain", "nul\0", "unheard") if word in table]
    assert np.isfinite(table.vectors(known)).all() if known else True, "words that are not finite"
    for word in known:
        assert table.rows([word])[0] < n, "a row beyond the table"
    assert repr(table)
    if n < 10**4 and table.words is not None:
        assert np.isfinite(table.documents([["coffee", "nul\0"], []])).all()
        assert np.isfinite(table.code_features([[0, n - 1]])).all()
        near = table.nearest(known[0], 2) if known and table[known[0]].any() else []
        assert all(abs(cosine) < 1.001 for _, cosine in near), "cosines that are none"


def _command(path: Path, *arguments: object) -> str:
    """Give the message, which names a file; none where all went well. Else it is a finding."""
    said, told = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(told):
        status = main([str(argument) for argument in arguments])
    message = told.getvalue()
    assert status in (0, 1), f"status {status}"
    if status:
        assert message.startswith("skadacomp: error: "), message
        assert path.parent.name in message, f"a message that names no file: {message}"
        assert "Unable to allocate" not in message, message
    return message if status else ""


def _use_cli(path: Path, known: Known) -> None:
    if not _command(path, "info", path):
        _command(path, "vectors", "--missing", "mean", path, "0", "1")
        _command(path, "predict", path, "coffee plain")


def _use_cli_with_documents(path: Path, known: Known) -> None:
    """Read the documents of a task. There is no table, which is said where they are well."""
    message = _command(path, "compress", path.parent / "none.txt", "--task", path, "-o", "o")
    assert message, "a table that is not there"
    if "none.txt" not in message:
        raise FormatError(message)


Use = Callable[[Path, Known], None]


def uses(kind: str) -> tuple[Use, ...]:
    """Say how a kind of file is opened and used."""
    return {
        ".shipped": (_use_shipped, _use_cli),
        ".frozen": (_use_frozen, _use_shipped, _use_cli),
        ".tsv": (_use_cli_with_documents,),
        ".csv": (_use_cli_with_documents,),
    }.get(kind, (_use_embeddings,))


class Judge:
    """Opens inputs in a folder, and judges what comes of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.n_tried = self.n_refused = 0
        self.known = Known()
        rows = np.ones((20, 3), np.float32)
        np.save(folder / "named.npy", rows)
        for name, file in (("model", "model.safetensors"), ("shards", "model-1.safetensors")):
            (folder / name).mkdir()
            (folder / name / file).write_bytes(save_tensors({_TENSOR: rows, "other": rows}))
        (folder / "shards" / "tokenizer.json").write_bytes(_tokenizer())
        # Modules that are imported on first use would count as the first input's.
        for kind, contents in valid_files(folder).items():
            for content in contents:
                found = self.judge(kind, content)
                assert found is None, found
        self.known.learning = False

    def _path(self, kind: str) -> Path:
        name = {
            ".shipped": "in.safetensors",
            ".frozen": "in.safetensors",
            ".words.json": "named.words.json",
            ".tokenizer.json": "model/tokenizer.json",
            ".index.json": "shards/model.safetensors.index.json",
        }
        return self.folder / name.get(kind, f"in{kind}")

    def _wrong(self, use: Use, path: Path) -> str:
        try:
            with _given_up():
                use(path, self.known)
        except FormatError as error:
            self.n_refused += use is not _use_frozen  # which is opened as a table, too
            if self.folder.name not in str(error):
                return f"a message that names no file: {error}"
        except BaseException as error:  # whatever else comes is what is looked for
            if isinstance(error, KeyboardInterrupt):
                raise
            return f"{type(error).__name__}: {error}"
        return ""

    def judge(self, kind: str, content: bytes, *, memory: bool = False) -> Finding | None:
        """Open and use an input; None if it is refused as it should be, or holds.

        Parameters
        ----------
        memory : bool, default=False
            Measure what opening allocates, which takes several times as long.
        """
        path = self._path(kind)
        path.write_bytes(content)
        opened = {
            ".words.json": self.folder / "named.npy",
            ".tokenizer.json": path.parent,
            ".index.json": path.parent,
        }.get(kind, path)
        began = time.process_time()
        what = ""
        if memory:
            tracemalloc.start()
        for use in uses(kind):
            what = what or self._wrong(use, opened)
        if memory:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            if peak > 2 * len(content) + SLACK.get(kind, 2**20):
                what = what or f"{peak} bytes allocated for a file of {len(content)}"
        seconds = time.process_time() - began
        self.n_tried += 1
        if not memory and seconds > MOST_SECONDS:
            what = what or f"{seconds:.1f} s"
        return Finding(what, kind, content) if what else None


assert FORMAT == 1, "add valid files of the new format"
