"""What unequal lengths can save at most, where words differ in nothing but how often they come.

    python docs/benchmarks/water_filling.py --data FOLDER

takes each word's number in one direction for a Gaussian variable of the same variance, whose
squared error counts as much as the word comes in the task's documents. Lengths are best then by
reverse water-filling (Cover and Thomas 2006, section 10.3.3): every word that has any bits is left
with the same weighted error. Writes ``water_filling.md``: for one fixed length, the mean bits that
such lengths need for the same sum of errors.
"""

from __future__ import annotations

from itertools import product

import numpy as np
from command import command_line, read_arguments
from numpy.typing import NDArray
from report import write_text
from scipy.optimize import brentq
from tasks import TABLES, TASKS, load_case

from skadacomp._learning.lengths import significance

_FIXED = (1, 2, 3, 4, 5, 6)  # bits a word and direction


def least_bits(weights: NDArray[np.float64], fixed: float) -> float:
    """Mean bits of the best lengths that leave as much weighted error as `fixed` bits for all.

    Parameters
    ----------
    weights : ndarray (n_words,)
        How much each word's squared error counts, positive.
    fixed : float
        Bits, above 0.
    """
    errors = weights / weights.sum()  # each word's, without a bit
    target = 2.0 ** (-2 * fixed)

    def excess(level: float) -> float:
        return float(np.minimum(errors, level).sum()) - target

    level = brentq(excess, 0, errors.max(), xtol=1e-16)  # many words: each one's error is tiny
    return float(np.maximum(0, np.log2(errors / level) / 2).mean())


def main() -> None:
    """Run from the command line."""
    given = read_arguments(command_line(__doc__))
    lines = [
        f"| bits a word of one fixed length | {' | '.join(map(str, _FIXED))} |",
        "|---" + "|---:" * len(_FIXED) + "|",
    ]
    for table, task, whole in product(TABLES, TASKS, (False, True)):
        case = load_case(given.data, task, table, None, 0, whole=whole)
        weights = significance(case.counts[case.train], len(case.table.vectors))
        bits = {fixed: least_bits(weights, fixed) for fixed in _FIXED}
        cells = [f"{least:.2f} ({fixed / least:.1f}×)" for fixed, least in bits.items()]
        name = f"{task}, {table}{', whole table' if whole else ''}"
        lines.append(f"| {name} | {' | '.join(cells)} |")
    write_text(given.output / "water_filling.md", "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
