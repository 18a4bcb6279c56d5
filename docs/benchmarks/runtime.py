"""What it costs to use what ships, beside the float32 table and the decoders of faiss.

    python docs/benchmarks/runtime.py

Compresses all of GloVe-50d for BBC News as the demo does, and at 32 bits a word without a task;
times both, beside the peers, in turns; and writes ``runtime.md``. Ratios of medians are what
counts. What a fresh process needs is measured in fresh processes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import faiss
import numpy as np
from fit_time import medians
from numpy.typing import NDArray
from report import write_text
from scipy import sparse

from skadacomp import AdaptiveCodebookCompressor, CompressedTable, EmbeddingTable
from skadacomp.datasets import load_bbc_news, load_glove

_BATCH, _N_BATCHES = 1024, 20
_N_PROCESSES = 10
_READER = """
import json, sys
from skadacomp import CompressedTable
table = CompressedTable.open(sys.argv[1])
table.vectors(range(table.n_words))
table[table.words[0]]
print("read", flush=True)
sys.stdin.readline()
found, inside = {"Pss": 0, "Private": 0}, False
for line in open("/proc/self/smaps"):
    first, *rest = line.split()
    if "-" in first:
        inside = rest[-1:] == [sys.argv[1]]
    elif inside and first.split("_")[0].rstrip(":") in found:
        found[first.split("_")[0].rstrip(":")] += 1024 * int(rest[0])
print(json.dumps(found), flush=True)
sys.stdin.readline()
"""
_N_LOOKED_UP = 10_000
_FRESH = """
import json, sys, time
import numpy as np
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
folder, ours = sys.argv[1], sys.argv[2] == "ours"
words = json.load(open(folder + "/words.json"))
bare = resident()
if ours:
    from skadacomp import CompressedTable
    import skadacomp._compressed
    start = time.perf_counter()
    table = CompressedTable.open(folder + "/words.safetensors")
else:
    start = time.perf_counter()
    vectors = np.load(folder + "/table.npy")
    names = open(folder + "/table.txt", encoding="utf-8").read().split("\\n")
    rows = {name: row for row, name in enumerate(names)}
    table = {words[0]: vectors[rows[words[0]]]}
table[words[0]]
first = time.perf_counter() - start
if ours:
    for word in words:
        table[word]
    table.vectors(words)
print(json.dumps({"first": first, "grown": resident() - bare}))
"""


def the_demo(table: EmbeddingTable) -> CompressedTable:
    """Compress the table as the demo does."""
    news = load_bbc_news()
    demo = AdaptiveCodebookCompressor(max_bytes=500_000, random_state=0)
    return demo.fit(table, news.data, news.target).compressed_


def compressed(table: EmbeddingTable) -> dict[str, CompressedTable]:
    """Compress the table in both ways."""
    fixed = AdaptiveCodebookCompressor(code_lengths=(8,), random_state=0)
    return {
        "the demo's setting": the_demo(table),
        "32 bits a word": fixed.fit(table).compressed_,
    }


def in_turn(
    batches: list[NDArray[np.int64]], read: Callable[..., object], first: int
) -> Callable[[], object]:
    """Read a few batches a turn, one after the other: each method finds the cache as it left it."""
    numbers = count(first)

    def turn() -> None:
        for _ in range(_N_BATCHES):
            read(batches[next(numbers) % len(batches)])

    return turn


def decoders(n_words: int, n_dims: int) -> Iterator[tuple[str, Callable[..., object]]]:
    """Give faiss's decoders of 32 bits; what the codes are makes no difference to the time."""
    random = np.random.default_rng(0)
    sample = random.normal(size=(20_000, n_dims)).astype(np.float32)
    codes = random.integers(256, size=(n_words, 4)).astype(np.uint8)
    for quantizer in (
        faiss.ResidualQuantizer(n_dims, 8, 4),
        faiss.LocalSearchQuantizer(n_dims, 8, 4),
        faiss.ProductQuantizer(n_dims - n_dims % 4, 4, 8),
    ):
        quantizer.train(np.ascontiguousarray(sample[:, : quantizer.d]))
        yield type(quantizer).__name__, lambda ids, q=quantizer: q.decode(codes[ids])


def random_ids(
    shipped: dict[str, CompressedTable], vectors: NDArray[np.float32], rounds: int = 50
) -> list[str]:
    """Time random ids to vectors."""
    batches = list(np.random.default_rng(0).integers(len(vectors), size=(200, _BATCH)))
    readers: dict[str, Callable[..., object]] = {
        "numpy, vectors[ids]": lambda ids: vectors[ids],
        "numpy, vectors.take(ids, axis=0)": lambda ids: vectors.take(ids, axis=0),
        **{f"faiss {name}": read for name, read in decoders(*vectors.shape)},
        **{f"skadacomp, {name}": table.vectors for name, table in shipped.items()},
    }
    turns = {
        # No two of them read the same batch at the same time.
        name: in_turn(batches, read, _N_BATCHES * place)
        for place, (name, read) in enumerate(readers.items())
    }
    found = medians(turns, rounds)
    scale, base = 1e9 / _BATCH / _N_BATCHES, found["numpy, vectors[ids]"]
    return [
        f"Random ids, {_BATCH:,} at a time:\n",
        *_rows(found, scale, base, "ns a row", "times as fast as vectors[ids]"),
    ]


def whole_table(
    shipped: dict[str, CompressedTable], vectors: NDArray[np.float32], rounds: int = 9
) -> list[str]:
    """Time all rows to vectors."""
    every = np.arange(len(vectors))
    jobs: dict[str, Callable[[], object]] = {"numpy, vectors.copy()": vectors.copy}
    for name, table in shipped.items():
        jobs[f"skadacomp, {name}"] = lambda table=table: table.vectors(every)
    found = medians(jobs, rounds)
    base = found["numpy, vectors.copy()"]
    return ["\nThe whole table:\n", *_rows(found, 1e3, base, "ms", "times as fast as a copy")]


def single_words(
    shipped: dict[str, CompressedTable], table: EmbeddingTable, rounds: int = 9
) -> list[str]:
    """Time one word to its vector, beside numpy for the same words."""
    random = np.random.default_rng(0)
    vectors, index = table.vectors, dict(table.index)
    jobs: dict[str, Callable[[], object]] = {}
    for name, small in shipped.items():
        words = small.words
        assert words is not None
        chosen = [words[i] for i in random.integers(len(words), size=1000)]
        jobs[f"numpy and dict, words of {name}"] = lambda c=chosen: [vectors[index[w]] for w in c]
        jobs[f"skadacomp, {name}"] = lambda c=chosen, t=small: [t[w] for w in c]
    found = list(medians(jobs, rounds).items())
    lines = ["\nOne word to its vector, words drawn at random:\n"]
    for place in range(0, len(found), 2):
        base = found[place][1]
        rows = _rows(dict(found[place : place + 2]), 1e3, base, "µs a word", "times as fast")
        lines += rows if place == 0 else rows[2:]  # under one heading
    return lines


def documents(
    shipped: dict[str, CompressedTable], table: EmbeddingTable, texts: list[str], rounds: int = 9
) -> list[str]:
    """Time documents of row ids to mean vectors."""
    vectors, index = table.vectors, table.index
    ids = [np.array([index[w] for w in t.lower().split() if w in index]) for t in texts]
    jobs: dict[str, Callable[[], object]] = {
        "scipy, counts @ vectors": lambda: _counts(ids, len(vectors)) @ vectors
    }
    for name, small in shipped.items():
        jobs[f"skadacomp, {name}"] = lambda t=small: t.documents(ids)
    found = medians(jobs, rounds)
    scale, base = 1e9 / sum(map(len, ids)), found["scipy, counts @ vectors"]
    return [
        "\nDocuments of row ids to mean vectors:\n",
        *_rows(found, scale, base, "ns a word", "times as fast as scipy"),
    ]


def _counts(documents: list[NDArray[np.int64]], n_words: int) -> sparse.csr_matrix:
    ids, ends = np.concatenate(documents), np.append(0, np.cumsum([len(d) for d in documents]))
    counts = sparse.csr_matrix((np.ones(ids.size, np.float32), ids, ends), (len(ends) - 1, n_words))
    counts.sum_duplicates()
    return counts


def fresh(shipped: dict[str, CompressedTable], table: EmbeddingTable, rounds: int) -> list[str]:
    """Time opening and the first word, and measure memory, each time in a new process."""
    lines = ["\nOpening, in a new process:\n"]
    lines += ["| | file, bytes | to the first word, ms | memory beyond bare numpy, MB |"]
    lines += ["|---|---:|---:|---:|"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        np.save(path / "table.npy", table.vectors)
        write_text(path / "table.txt", "\n".join(table.words))
        for number, (name, small) in enumerate(shipped.items()):
            small.save(path / "words.safetensors")
            words = small.words or []
            drawn = np.random.default_rng(0).integers(len(words), size=_N_LOOKED_UP)
            write_text(path / "words.json", json.dumps([words[i] for i in drawn]))
            whos = {"ours": f"skadacomp, {name}"}
            if number == 0:
                whos["numpy"] = "numpy.load and a dict"
            for who, shown in whos.items():
                found = [_run(_FRESH, folder, who) for _ in range(rounds)]
                first, grown = (np.median([f[key] for f in found]) for key in ("first", "grown"))
                size = small.file_nbytes if who == "ours" else table.nbytes
                lines += [f"| {shown} | {size:,} | {1e3 * first:.1f} | {grown / 1e6:.1f} |"]
    return lines


def processes(shipped: dict[str, CompressedTable]) -> list[str]:
    """Let processes read one file side by side, and say how much of its memory is their own."""
    lines = [f"\nThe same file in {_N_PROCESSES} processes that each read all of it:\n"]
    lines += ["| | file, bytes | of it in memory, all together | of it private |"]
    lines += ["|---|---:|---:|---:|"]
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "words.safetensors")
        for name, small in shipped.items():
            small.save(path)
            readers = [
                subprocess.Popen(
                    [sys.executable, "-c", _READER, path],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                )
                for _ in range(_N_PROCESSES)
            ]
            for reader in readers:  # all have read the file before one of them counts
                assert reader.stdout is not None
                reader.stdout.readline()
            found = [_answer(reader) for reader in readers]  # and none goes before all have
            for reader in readers:
                reader.communicate()
            together, private = (sum(f[key] for f in found) for key in ("Pss", "Private"))
            lines += [f"| {name} | {small.file_nbytes:,} | {together:,} | {private:,} |"]
    return lines


def _answer(reader: subprocess.Popen[bytes]) -> dict[str, int]:
    assert reader.stdin is not None
    assert reader.stdout is not None
    reader.stdin.write(b"\n")
    reader.stdin.flush()
    return json.loads(reader.stdout.readline())


def imports(rounds: int) -> list[str]:
    """Time the import, in new processes."""
    script = (
        "import json, time; s = time.perf_counter(); {}; print(json.dumps(time.perf_counter() - s))"
    )
    whats = ("import numpy", "from skadacomp import CompressedTable")
    numpy, ours = (
        float(np.median([_run(script.format(what)) for _ in range(rounds)])) for what in whats
    )
    return [
        f"\n`{whats[1]}` takes {1e3 * ours:.0f} ms, {ours / numpy:.2f} times as long as "
        f"`{whats[0]}`."
    ]


def sizes(shipped: dict[str, CompressedTable]) -> list[str]:
    """Account for the file, beside the entropy of what is in it."""
    lines = ["\nThe file, bytes:\n"]
    lines += [
        "| | codes | their entropy | lengths | their entropy | codebooks | words | header | "
        "file over entropies, codebooks and words |"
    ]
    lines += ["|---|" + "---:|" * 8]
    for name, small in shipped.items():
        parts = small.sizes
        header = small.file_nbytes - sum(parts.values())
        of_codes = sum(
            _entropy(column[column >= 0]) for column in small.codes.T if (column >= 0).any()
        )
        figures = [
            parts["codes"],
            of_codes,
            parts["lengths"],
            _entropy(small.code_lengths),
            parts["codebooks"],
            parts["vocabulary"],
            header,
        ]
        least = of_codes + _entropy(small.code_lengths) + parts["codebooks"] + parts["vocabulary"]
        shown = [*(f"{figure:,.0f}" for figure in figures), f"{small.file_nbytes / least:.3f}"]
        lines += [f"| {name} | " + " | ".join(shown) + " |"]
    return lines


def _entropy(values: NDArray[np.integer]) -> float:
    """Bytes that a code of each value's frequency would take."""
    shares = np.unique(values, return_counts=True)[1] / values.size
    return float((shares * np.log2(1 / shares)).sum() * values.size / 8)


def _run(script: str, *arguments: str) -> object:
    command = [sys.executable, "-c", script, *arguments]
    # Installed packages come compiled.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(command, capture_output=True, check=True, env=environment)
    return json.loads(done.stdout)


def _rows(found: dict[str, float], scale: float, base: float, unit: str, against: str) -> list[str]:
    rows = [
        f"| {name} | {scale * seconds:.3g} | {base / seconds:.2f} |"
        for name, seconds in found.items()
    ]
    return [f"| | {unit} | {against} |", "|---|---:|---:|", *rows]


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=9, help="new processes of each kind")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    faiss.omp_set_num_threads(2)
    table = load_glove()
    vectors = np.array(table.vectors)
    table = EmbeddingTable(table.words, vectors)
    shipped = compressed(table)
    lines = [
        *random_ids(shipped, vectors),
        *whole_table(shipped, vectors),
        *single_words(shipped, table),
        *documents(shipped, table, load_bbc_news().data),
        *fresh(shipped, table, given.rounds),
        *processes(shipped),
        *imports(given.rounds),
        *sizes(shipped),
    ]
    print("\n".join(lines))
    write_text(given.output / "runtime.md", "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
