"""Time and memory of a fit against the rows of the table, up to 3,000,000 × 300; and of transform.

    python docs/benchmarks/scale.py --files FOLDER

Makes tables of 30,000, 300,000 and 3,000,000 rows in FOLDER (4 GB, removed at the end unless
``--keep``) and fits each to BBC News, each time in a process of its own: as by default; with one
epoch a stage, which leaves little but what grows with the rows; and so that every word is kept.
Then transforms 1,000,000 short documents. Adds a line a run to ``scale.jsonl`` and goes on from it;
writes ``scale.md`` and ``scale.png``. Needs Linux.

Private memory is what the process shares with nobody (Private_Clean and Private_Dirty in
``/proc/self/smaps_rollup``), libraries and pages of the mapped table included, at its most.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from matplotlib.figure import Figure
from numpy.lib.format import open_memmap
from points import Line, append_point, read_points
from report import write_text

from skadacomp import AdaptiveCodebookCompressor, EmbeddingTable
from skadacomp.datasets import load_bbc_news, load_glove

SIZES = (30_000, 300_000, 3_000_000)
JOBS: dict[str, dict[str, Any]] = {
    "default": {},
    "one epoch a stage": {"max_iter": 1},
    "one epoch a stage, every word kept": {"max_iter": 1, "code_lengths": (2, 4, 8)},
}
TRANSFORMS = ("one call", "one call, a generator", "batches of 10,000, none kept")
_N_DIMS = 300
_ROWS_A_BLOCK = 10_000
_NOISE = 0.3  # of a coordinate's standard deviation
_SEED = 0
_N_DOCUMENTS, _N_WORDS, _A_BATCH = 1_000_000, 12, 10_000
_MB = 1e6


def make_table(folder: Path, n_words: int) -> Path:
    """Write GloVe's rows, again and again, in 300 dimensions with noise, and their words.

    A smaller table is the beginning of a larger one.
    """
    path = folder / f"table-{n_words}.npy"
    if path.exists():
        return path
    glove = load_glove()
    names = (*glove.words[:n_words], *(f"w{row}" for row in range(glove.n_words, n_words)))
    path.with_suffix(".words.txt").write_text("\n".join(names) + "\n", encoding="utf-8")
    turn = np.random.default_rng(_SEED).normal(size=(glove.n_dims, _N_DIMS)).astype(np.float32)
    turn /= np.sqrt(_N_DIMS)
    unfinished = path.with_suffix(".tmp")
    rows = open_memmap(unfinished, "w+", np.float32, (n_words, _N_DIMS))
    for start in range(0, n_words, _ROWS_A_BLOCK):
        random = np.random.default_rng((_SEED, start))
        block = rows[start : start + _ROWS_A_BLOCK]  # (n_rows, 300)
        ids = np.arange(start, start + len(block)) % glove.n_words
        block[:] = glove.vectors[ids] @ turn
        block += _NOISE * block.std() * random.standard_normal(block.shape, np.float32)
    rows.flush()
    return unfinished.rename(path)


class Watched:
    """The time that a block of code takes, and the private memory of processes meanwhile.

    Parameters
    ----------
    processes : sequence of int or str
        Their numbers; "self" is this one. The memory of all is added up.
    every : float
        Seconds between samples of the memory.

    Attributes
    ----------
    seconds, cpu : float
        On the clock, and of this process on the processor.
    samples : list of (float, float)
        Seconds since the block began, and bytes; the first is from before it, the last from after.
    """

    def __init__(self, processes: Sequence[int | str] = ("self",), every: float = 0.1) -> None:
        self._processes, self._every = processes, every
        self.samples: list[tuple[float, float]] = []

    def __enter__(self) -> Self:
        self._over = threading.Event()
        self._start, self._cpu = time.perf_counter(), time.process_time()
        self._sample()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.seconds = time.perf_counter() - self._start
        self.cpu = time.process_time() - self._cpu
        self._over.set()
        self._thread.join()
        if error is None:  # or else a process may be gone
            self._sample()

    @property
    def before(self) -> float:
        """Bytes when the block began."""
        return self.samples[0][1]

    @property
    def most(self) -> float:
        """Bytes at the highest."""
        return max(nbytes for _, nbytes in self.samples)

    def _watch(self) -> None:
        while not self._over.wait(self._every):
            self._sample()

    def _sample(self) -> None:
        at = time.perf_counter() - self._start
        self.samples.append((at, sum(map(private_memory, self._processes))))


def private_memory(process: int | str = "self") -> float:
    """Bytes of memory that a process shares with no other."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    kilobytes = (int(line.split()[1]) for line in lines if line.startswith("Private_"))
    return 1024.0 * sum(kilobytes)


def fit(path: Path, job: str) -> Line:
    """Open a table, fit and save: this process's own part of the benchmark."""
    news = load_bbc_news()
    compressor = AdaptiveCodebookCompressor(random_state=_SEED, **JOBS[job])
    with Watched() as load:
        table = EmbeddingTable.open(path)
    with Watched() as fitting:
        compressor.fit(table, news.data, news.target)
    with tempfile.TemporaryDirectory() as folder, Watched() as save:
        compressor.compressed_.save(Path(folder, "words.safetensors"))
    return {
        "job": job,
        "rows": table.n_words,
        "open": round(load.seconds, 3),
        "fit": round(fitting.seconds, 3),
        "fit_cpu": round(fitting.cpu, 3),
        "save": round(save.seconds, 3),
        "private_mb": round(max(part.most for part in (load, fitting, save)) / _MB, 1),
        "bytes": compressor.compressed_.file_nbytes,
        "words_kept": int((compressor.code_lengths_ > 0).sum()),
    }


def documents(words: list[str]) -> Iterator[str]:
    """Make short texts, one at a time."""
    draw = random.Random(_SEED)
    for _ in range(_N_DOCUMENTS):
        yield " ".join(draw.choices(words, k=_N_WORDS))


def transform(path: Path, job: str) -> Line:
    """Transform a million documents in one of three ways."""
    news, table = load_bbc_news(), EmbeddingTable.open(path)
    compressor = AdaptiveCodebookCompressor(random_state=_SEED, max_iter=1)
    compressor.fit(table, news.data, news.target)
    words = compressor.compressed_.words
    compressor.transform(news.data[:1])  # what it looks words up in stays
    listed = [] if job == TRANSFORMS[1] else list(documents(words))
    with Watched() as watched:
        if job == TRANSFORMS[2]:
            for start in range(0, len(listed), _A_BATCH):
                found = compressor.transform(listed[start : start + _A_BATCH])
        else:
            found = compressor.transform(listed or documents(words))
    nbytes = found.data.nbytes + found.indices.nbytes + found.indptr.nbytes
    return {
        "job": job,
        "documents": _N_DOCUMENTS,
        "seconds": round(watched.seconds, 3),
        "result_mb": round(nbytes / _MB, 1),
        "grown_mb": round((watched.most - watched.before) / _MB, 1),
    }


def fits_table(lines: list[Line]) -> list[str]:
    """Lay the fits out as Markdown."""
    names = ("rows", "open, s", "fit, s", "of CPU, s", "save, s", "private memory, MB")
    head = f"| | {' | '.join(names)} | words kept | file, bytes |"
    rows = [head, "|---|---:|---:|---:|---:|---:|---:|---:|---:|"]
    for job in JOBS:
        for line in sorted((x for x in lines if x["job"] == job), key=lambda x: x["rows"]):
            seconds = f"{line['open']:.2f} | {line['fit']:.0f} | {line['fit_cpu']:.0f}"
            rows.append(
                f"| {job} | {line['rows']:,} | {seconds} | {line['save']:.2f} "
                f"| {line['private_mb']:,.0f} | {line['words_kept']:,} | {line['bytes']:,} |"
            )
    return rows


def transforms_table(lines: list[Line]) -> list[str]:
    """Lay the transforms out as Markdown."""
    head = "| 1,000,000 documents | seconds | the last result, MB | grown meanwhile, MB |"
    rows = [head, "|---|---:|---:|---:|"]
    found = {line["job"]: line for line in lines}
    for job in (job for job in TRANSFORMS if job in found):
        line = found[job]
        sizes = f"{line['result_mb']:,.1f} | {line['grown_mb']:,.1f}"
        rows.append(f"| {job} | {line['seconds']:.1f} | {sizes} |")
    return rows


def picture(lines: list[Line]) -> Figure:
    """Seconds of fit, and private memory, against rows."""
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    seconds, memory = figure.subplots(1, 2)
    for job, marker in zip(JOBS, "osD", strict=True):
        found = sorted((x for x in lines if x["job"] == job), key=lambda x: x["rows"])
        rows = [line["rows"] for line in found]
        seconds.loglog(rows, [line["fit_cpu"] for line in found], marker=marker, label=job)
        memory.semilogx(rows, [line["private_mb"] for line in found], marker=marker)
    lowest, highest = seconds.get_ylim()
    sizes = np.array(SIZES)
    seconds.loglog(sizes, highest * sizes / sizes[-1], color="0.6", ls=":", label="linear")
    seconds.set(ylim=(lowest, highest), ylabel="CPU seconds to fit")
    memory.set(ylim=(0, 2200), ylabel="private memory at its most, MB")
    memory.axhline(2000, color="0.6", ls=":")
    for ax in (seconds, memory):
        ax.set(xlabel=f"rows of {_N_DIMS} float32")
        ax.set_xticks(SIZES, [f"{size:,}" for size in SIZES])
        ax.grid(alpha=0.3)
        ax.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=4, frameon=False)
    return figure


def in_a_process(kind: str, path: Path, job: str) -> Line:
    """Run a part of the benchmark in a process of its own."""
    command = [sys.executable, __file__, "--files", str(path), "--run", kind, job]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    line: Line = json.loads(output)
    return line


def measure(files: Path, points: Path, sizes: list[int]) -> None:
    """Run what is not there yet."""
    done = {(line["job"], line.get("rows")) for line in read_points(points)}
    todo = [("fit", job, size) for size in sizes for job in JOBS if (job, size) not in done]
    todo += [("transform", job, SIZES[0]) for job in TRANSFORMS if (job, None) not in done]
    for kind, job, size in todo:
        line = in_a_process(kind, make_table(files, size), job)
        print(line, flush=True)
        append_point(points, line)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--files", type=Path, required=True, help="folder for the tables")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="rows of the tables")
    parser.add_argument("--keep", action="store_true", help="leave the tables there")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--run", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.run:
        kind, job = given.run
        print(json.dumps({"fit": fit, "transform": transform}[kind](given.files, job)))
        return
    given.files.mkdir(parents=True, exist_ok=True)
    given.output.mkdir(parents=True, exist_ok=True)
    points = given.output / "scale.jsonl"
    measure(given.files, points, given.sizes)
    lines = read_points(points)
    tables = [*fits_table(lines), "", *transforms_table(lines)]
    write_text(given.output / "scale.md", "\n".join(tables) + "\n")
    picture(lines).savefig(given.output / "scale.png", dpi=150)
    if not given.keep:
        for file in given.files.glob("table-*"):
            file.unlink()


if __name__ == "__main__":
    main()
