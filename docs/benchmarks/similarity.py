"""Word similarity of rebuilt vectors: the whole GloVe table, compressed without a task.

    python docs/benchmarks/similarity.py --data FOLDER

FOLDER/wordsim holds MEN and WordSim-353, a line ``word1<TAB>word2<TAB>score`` each. Writes
``similarity.md``: bytes, reconstruction error and Spearman's correlation with human judgement.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
from command import command_line, read_arguments
from numpy.typing import NDArray
from peers import peers
from report import write_text
from scipy.stats import spearmanr

from skadacomp import AdaptiveCodebookCompressor, EmbeddingTable
from skadacomp.datasets import load_glove

_SETS = {"MEN": "EN-MEN-TR-3k.tsv", "WordSim-353": "EN-WS-353-ALL.tsv"}
_SETTINGS = ((8, 16), (16, 16), (32, 16), (64, 16), (32, 256))  # bits a word, codewords
_CODE_LENGTHS = {16: (1, 2, 4, 6, 8, 12, 16, 20), 256: (2, 3, 4, 5, 6)}  # by codewords


@dataclass(frozen=True)
class Row:
    """One way to compress the table."""

    name: str
    nbytes: int
    vectors: NDArray[np.float32]
    seconds: float


def compress(table: EmbeddingTable, bits: list[int]) -> Iterator[Row]:
    """Compress the table in every way."""
    yield Row("float32", table.nbytes, np.asarray(table.vectors), 0.0)
    for budget, n_codewords in _SETTINGS:
        if budget not in bits:
            continue
        start = perf_counter()
        fitted = AdaptiveCodebookCompressor(
            code_lengths=_CODE_LENGTHS[n_codewords],
            n_codewords=n_codewords,
            bits_per_word=budget,
            max_iter=5,
            random_state=0,
        ).fit(table)
        seconds = perf_counter() - start
        vectors = fitted.compressed_.vectors(np.arange(table.n_words))
        name = f"skadacomp, {budget} bits, {n_codewords} codewords"
        yield Row(name, fitted.nbytes_, vectors, seconds)
    for peer in peers(table.n_words, table.n_dims, "short"):
        start = perf_counter()
        found = peer.compress(np.asarray(table.vectors), 0)
        name = f"{peer.method}, {peer.setting}"
        yield Row(name, found.nbytes, found.vectors, perf_counter() - start)


def relative_error(table: EmbeddingTable, vectors: NDArray[np.float32]) -> float:
    """Squared error over that of the mean vector."""
    left = np.square(table.vectors - vectors).sum(dtype=np.float64)
    return float(left / np.square(table.vectors - table.vectors.mean(0)).sum(dtype=np.float64))


def correlation(file: Path, table: EmbeddingTable, vectors: NDArray[np.float32]) -> float:
    """Spearman's correlation of cosines with the scores, over the pairs that the table has."""
    lines = [line.split("\t") for line in file.read_text(encoding="utf-8").splitlines()]
    pairs = [(a.lower(), b.lower(), float(score)) for a, b, score in lines]
    pairs = [pair for pair in pairs if pair[0] in table.index and pair[1] in table.index]
    one, other = (vectors[[table.index[pair[i]] for pair in pairs]] for i in (0, 1))
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    cosines = (one * other).sum(1) / np.maximum(norms, 1e-12)
    return float(spearmanr(cosines, [score for _, _, score in pairs]).statistic)


def main() -> None:
    """Run from the command line."""
    parser = command_line(__doc__)
    parser.add_argument("--bits", type=int, nargs="+", default=[b for b, _ in _SETTINGS])
    given = read_arguments(parser)
    table = load_glove()
    lines = [
        f"| method | bytes | ratio | error | {' | '.join(_SETS)} | seconds |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in compress(table, given.bits):
        error = relative_error(table, row.vectors)
        found = [
            correlation(given.data / "wordsim" / f, table, row.vectors) for f in _SETS.values()
        ]
        scores = " | ".join(f"{value:.3f}" for value in found)
        ratio = table.nbytes / row.nbytes
        lines.append(
            f"| {row.name} | {row.nbytes:,} | {ratio:.1f} | {error:.3f} | {scores} | "
            f"{row.seconds:.0f} |"
        )
        print(lines[-1], flush=True)
    write_text(given.output / "similarity.md", "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
