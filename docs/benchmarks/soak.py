"""Threads, then processes, read one artifact for minutes: every answer right, and no memory lost.

    MALLOC_ARENA_MAX=1 python docs/benchmarks/soak.py --seconds 600

Compresses GloVe-50d for BBC News as the demo does and saves it. One thread answers a list of
questions drawn with a seed: look-ups, documents, code features, nearest words. Then eight threads
of one process that share a table, and after them eight processes with a table each, answer the same
questions, each in orders of its own, for so many seconds; the file is opened anew whenever all have
been asked. Every answer is compared with the first, bit for bit. Writes ``soak.md``, ``soak.png``
and ``soak.jsonl``, and exits with 1 if an answer was wrong. Needs Linux.

Private memory is what `scale.py` counts, that of the processes added up. A reader in the midst of
an answer holds some megabytes more, so the least of ten samples in turn counts: what stays. In the
first fifth of a run caches fill; start, end and slope, with its standard error, are of the rest.
One arena, because glibc else gives each thread one of its own and keeps what they free: that grows
by steps for minutes, and would hide what is lost, or look like it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial, reduce
from multiprocessing.connection import Connection
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from skadacomp import CompressedTable

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from points import Line

# The other rooms are imported where they are needed: readers are processes that import this file,
# and should hold no more than what they read takes.

N_READERS = 8
N_QUESTIONS = 400
_N_SAMPLES = 200  # of the memory
_WARMING = 0.2  # of the time, in which caches fill and each thread finds room of its own
_N_OF_A_LOW = 10  # samples of which the least counts
_SEED = 0
_MB = 1e6

Question = tuple[str, Any]  # what is asked, and of which words, rows or texts
Sample = tuple[float, float]  # seconds, and bytes of private memory

ASK: dict[str, Callable[[CompressedTable, Any], object]] = {
    "word": lambda table, word: table[word],
    "in": lambda table, word: word in table,
    "vectors": lambda table, items: table.vectors(items),
    "documents": lambda table, texts: table.documents(texts),
    "code features": lambda table, texts: table.code_features(texts),
    "nearest": lambda table, word: table.nearest(word, 5),
}
_WEIGHTS = (30, 20, 20, 15, 10, 5)  # how often each is asked


class Tally(NamedTuple):
    """What came of questions.

    Parameters
    ----------
    answers, wrong, errors : int
        Questions answered, those of them whose answer differed, and questions that raised.
    """

    answers: int = 0
    wrong: int = 0
    errors: int = 0

    def plus(self, other: Tally) -> Tally:
        """Add up."""
        return Tally(*map(sum, zip(self, other, strict=True)))


# ---------------------------------------------------------------------------------------------
# Questions and answers


def questions_for(table: CompressedTable, n: int) -> list[Question]:
    """Draw questions, of words that the table has and others."""
    draw = random.Random(_SEED)
    words = table.words or []
    heard = [*words, *(f"{word}?" for word in draw.sample(words, len(words) // 4))]

    def asked(kind: str) -> Any:
        if kind in ("word", "nearest"):
            return draw.choice(words)
        if kind == "in":
            return draw.choice(heard)
        if kind == "vectors":
            by_row = draw.random() < 0.5
            return draw.choices(range(table.n_words) if by_row else words, k=draw.randint(1, 300))
        return [" ".join(draw.choices(heard, k=draw.randint(0, 80))) for _ in range(20)]

    return [(kind, asked(kind)) for kind in draw.choices(list(ASK), _WEIGHTS, k=n)]


def digest(table: CompressedTable, question: Question) -> bytes:
    """Ask, and hash every bit of the answer."""
    kind, given = question
    found = ASK[kind](table, given)
    if isinstance(found, np.ndarray):
        found = (found.dtype.str, found.shape, found.tobytes())
    return hashlib.blake2b(repr(found).encode(), digest_size=16).digest()


def ask_all(
    table: CompressedTable, questions: Sequence[Question], digests: Sequence[bytes], seed: int
) -> Tally:
    """Ask every question once, in an order of one's own, and compare."""
    wrong = errors = 0
    for place in random.Random(seed).sample(range(len(questions)), len(questions)):
        try:
            wrong += digest(table, questions[place]) != digests[place]
        except Exception as error:  # counted, whatever it is
            print(f"{questions[place][0]}: {error!r}", file=sys.stderr)
            errors += 1
    return Tally(len(questions) - errors, wrong, errors)


# ---------------------------------------------------------------------------------------------
# Readers


Run = tuple[Tally, list[Sample]]


@contextmanager
def impatience() -> Iterator[None]:
    """Let threads take turns a thousand times as often, in the midst of answers too."""
    former = sys.getswitchinterval()
    sys.setswitchinterval(former / 1000)
    try:
        yield
    finally:
        sys.setswitchinterval(former)


@impatience()
def threads(
    path: str,
    questions: Sequence[Question],
    digests: Sequence[bytes],
    seconds: float,
    n_readers: int = N_READERS,
) -> Run:
    """Let threads share a table; all of them meet a new one, with nothing cached, each round."""
    from scale import Watched

    tally, seed = Tally(), 0
    with (
        Watched(every=seconds / _N_SAMPLES) as watched,
        ThreadPoolExecutor(n_readers) as pool,
    ):
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            ask = partial(ask_all, CompressedTable.open(path), questions, digests)
            tally = reduce(Tally.plus, pool.map(ask, range(seed, seed + n_readers)), tally)
            seed += n_readers
    return tally, watched.samples


def _reader(
    pipe: Connection,
    path: str,
    questions: Sequence[Question],
    digests: Sequence[bytes],
    seconds: float,
    reader: int,
) -> None:
    """Be one of the processes: begin when told to, and stay until all have been counted."""
    pipe.send("ready")
    pipe.recv()
    tally, round_ = Tally(), 0
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        table = CompressedTable.open(path)
        tally = tally.plus(ask_all(table, questions, digests, reader + N_READERS * round_))
        round_ += 1
    pipe.send(tally)
    pipe.recv()


def processes(
    path: str,
    questions: Sequence[Question],
    digests: Sequence[bytes],
    seconds: float,
    n_readers: int = N_READERS,
) -> Run:
    """Let processes open the same file, each for itself, again each round."""
    from scale import Watched

    context = multiprocessing.get_context("spawn")
    readers: dict[Any, Connection] = {}
    for number in range(n_readers):
        pipe, theirs = context.Pipe()
        given = (theirs, path, questions, digests, seconds, number)
        reader = context.Process(target=_reader, args=given)
        reader.start()
        theirs.close()  # so that a reader that dies ends the wait for it
        readers[reader] = pipe
    for pipe in readers.values():
        pipe.recv()
    with Watched([reader.pid for reader in readers], seconds / _N_SAMPLES) as watched:
        for pipe in readers.values():
            pipe.send("go")
        tally = reduce(Tally.plus, [pipe.recv() for pipe in readers.values()])
    for reader, pipe in readers.items():
        pipe.send("done")
        reader.join()
    return tally, watched.samples


# ---------------------------------------------------------------------------------------------
# What came of it


def runs_of(samples: list[Sample], n: int) -> list[list[Sample]]:
    """Cut samples into runs of n; what is left over is not counted."""
    return [samples[start : start + n] for start in range(0, max(len(samples) - n, 0) + 1, n)]


def point_of(name: str, seconds: float, run: Run) -> Line:
    """Sum up a run."""
    from scipy.stats import linregress

    tally, samples = run
    lows = [min(part, key=itemgetter(1)) for part in runs_of(samples, _N_OF_A_LOW)]
    at, memory = np.array(lows[int(_WARMING * len(lows)) :]).T  # (n_lows,) each
    n = -(-len(at) // 3)  # of the first and of the last of them
    line = linregress(at, memory) if len(at) > 2 else None  # bytes a second
    return {
        "readers": name,
        "seconds": seconds,
        **tally._asdict(),
        "start_mb": round(float(np.median(memory[:n])) / _MB, 2),
        "end_mb": round(float(np.median(memory[-n:])) / _MB, 2),
        "slope": round(60 * float(line.slope) / _MB, 2) if line else None,
        "error_of_slope": round(60 * float(line.stderr) / _MB, 2) if line else None,
        "memory": [[round(t, 1), round(m / _MB, 2)] for t, m in samples],
    }


def table_of(points: list[Line]) -> list[str]:
    """Lay the runs out as Markdown."""
    names = ("seconds", "questions answered", "wrong", "errors")
    memory = ("private memory at the start, MB", "at the end, MB", "slope, MB a minute")
    rows = [f"| | {' | '.join((*names, *memory))} |", "|---|" + "---:|" * 7]
    for point in points:
        rows.append(
            f"| {point['readers']} | {point['seconds']:.0f} | {point['answers']:,} "
            f"| {point['wrong']} | {point['errors']} | {point['start_mb']:.1f} "
            f"| {point['end_mb']:.1f} | {point['slope']} ± {point['error_of_slope']} |"
        )
    return rows


def picture(points: list[Line]) -> Figure:
    """Private memory over time."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.6), layout="constrained")
    ax = figure.subplots()
    for point in points:
        at, memory = np.array(point["memory"]).T
        ax.plot(at, memory, label=point["readers"])
    ax.set(xlabel="seconds", ylabel="private memory, MB", ylim=(0, None))
    ax.grid(alpha=0.3)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False)
    return figure


def write_artifact(path: Path, n_words: int | None) -> None:
    """Compress GloVe, or its first words, in a process whose memory goes with it."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        pool.submit(_compress, path, n_words).result()


def _compress(path: Path, n_words: int | None) -> None:
    from runtime import the_demo

    from skadacomp import EmbeddingTable
    from skadacomp.datasets import load_glove

    glove = load_glove()
    the_demo(EmbeddingTable(glove.words[:n_words], glove.vectors[:n_words])).save(path)


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=600, help="of threads, and of processes")
    parser.add_argument("--words", type=int, help="compress so many words of GloVe, not all")
    parser.add_argument("--artifact", type=Path, help="read this file in place of all that")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    given = parser.parse_args()
    from report import write_text

    given.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        path = given.artifact or Path(folder) / "words.safetensors"
        if given.artifact is None:
            write_artifact(path, given.words)
        alone = CompressedTable.open(path)
        questions = questions_for(alone, N_QUESTIONS)
        digests = [digest(alone, question) for question in questions]
        points = []
        for readers in (threads, processes):
            run = readers(str(path), questions, digests, given.seconds)
            points.append(point_of(f"{N_READERS} {readers.__name__}", given.seconds, run))
            print({name: part for name, part in points[-1].items() if name != "memory"}, flush=True)
    write_text(given.output / "soak.jsonl", "".join(json.dumps(point) + "\n" for point in points))
    write_text(given.output / "soak.md", "\n".join(table_of(points)) + "\n")
    picture(points).savefig(given.output / "soak.png", dpi=150)
    return int(any(point["wrong"] or point["errors"] for point in points))


if __name__ == "__main__":
    sys.exit(main())
