"""What a word's code length follows: its frequency in the task, or what it says about the label.

Writes the tables of ``results/code_lengths.md`` and the pictures ``docs/images/lengths_*.png``.
Needs matplotlib and, for its lexicon of polar words, the package vaderSentiment.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import ours
from matplotlib import pyplot
from matplotlib.axes import Axes
from numpy.typing import NDArray
from report import write_text
from scipy.stats import rankdata
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from tasks import Case, load_case
from tqdm.auto import tqdm

from skadacomp.datasets import package_folder

Floats = NDArray[np.float64]

HERE = Path(__file__).resolve().parent
IMAGES = HERE.parent / "images"
RESULTS = HERE / "results" / "code_lengths.md"

TITLES = {"sst2": "SST-2", "trec6": "TREC-6"}
WAYS: dict[str, dict[str, Any]] = {
    "default": {},
    "learned": {"length_method": "gumbel-softmax"},
    "frequency": {"length_method": "frequency"},
    "plain": {"init": "random"},
    "scarce": {"size_penalty": 0.1},
    "scarce, frequency": {"size_penalty": 0.1, "length_method": "frequency"},
}
MEASURES = ("gradient", "gradient per token", "pull", "label skew", "polarity")
POLAR = 1.0  # mean rating, of 4, from which on a word counts as polar
OFTEN = 5  # training documents from which on a word's statistics are less than chance alone
N_NAMES = 30
_STRENGTHS = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)  # C of logistic regression

BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#999999"  # Okabe and Ito's
_STYLE = {"font.size": 11, "axes.spines.top": False, "axes.spines.right": False, "savefig.dpi": 200}


@dataclass(frozen=True)
class Words:
    """The words of a task's training documents.

    Parameters
    ----------
    words : ndarray (n_words,) of str
    n_documents : ndarray (n_words,) of int
        Training documents that hold the word.
    measures : dict of str to ndarray (n_words,)
        What a length may follow, by `MEASURES`.
    lengths : dict of str to ndarray (n_seeds, n_words)
        Code lengths, by `WAYS`; and "rest", the default ones less the mean of words as frequent.
    """

    words: NDArray[np.str_]
    n_documents: NDArray[np.int64]
    measures: dict[str, Floats]
    lengths: dict[str, Floats]

    def at(self, chosen: NDArray) -> Words:
        """Keep some of the words."""
        return Words(
            self.words[chosen],
            self.n_documents[chosen],
            {name: values[chosen] for name, values in self.measures.items()},
            {way: lengths[:, chosen] for way, lengths in self.lengths.items()},
        )

    @property
    def mean_length(self) -> Floats:
        """Mean length over the seeds."""
        return self.lengths["default"].mean(0)

    @property
    def mean_rest(self) -> Floats:
        """Mean over the seeds of what frequency does not say of the length."""
        return self.lengths["rest"].mean(0)


def main() -> None:
    """Fit, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of sst2 and trec6")
    parser.add_argument("--seeds", type=int, default=3, help="2 at least, to compare them")
    args = parser.parse_args()
    if args.seeds < 2:
        parser.error("--seeds must be 2 at least")
    polarity = load_polarity()
    with tqdm(total=len(TITLES) * len(WAYS) * args.seeds, unit="fit") as bar:
        fit = _fitter(args.seeds, bar)
        cases = {
            title: load_case(args.data, task, "glove-50", None, 0) for task, title in TITLES.items()
        }
        tasks = {title: measure(case, polarity, fit(case)) for title, case in cases.items()}
    write_report(tasks, args.seeds)
    pyplot.rcParams.update(_STYLE)
    draw_frequency(tasks)
    draw_gradient(tasks)
    draw_skew(tasks)
    draw_polarity(tasks)
    draw_words(tasks)


# Measuring


def load_polarity() -> dict[str, float]:
    """Read |valence| of the words of the VADER lexicon (Hutto and Gilbert 2014), 0 to 4."""
    file = package_folder("vaderSentiment", "load_polarity", "benchmark") / "vader_lexicon.txt"
    lines = file.read_text(encoding="utf-8").splitlines()
    entries = (line.split("\t")[:2] for line in lines if line)
    return {word: abs(float(valence)) for word, valence in entries}


def _fitter(n_seeds: int, bar: tqdm) -> Callable[[Case], dict[str, Floats]]:
    """Make what fits a case in all ways with all seeds."""

    def fit(case: Case, options: dict, seed: int) -> Floats:
        fitted = ours.fit(case, "linear", seed, device="cpu", **{**ours.DEFAULT, **options})
        bar.update()
        return fitted.code_lengths_.astype(float)

    return lambda case: {
        way: np.array([fit(case, options, seed) for seed in range(n_seeds)])
        for way, options in WAYS.items()
    }


def measure(case: Case, polarity: dict[str, float], lengths: dict[str, Floats]) -> Words:
    """Find the lengths of a task's words, and all that they may follow."""
    n_documents = np.bincount(case.counts[case.train].indices, minlength=case.table.n_words)
    measures = {
        **head_measures(case),
        "label skew": label_skew(case),
        "polarity": np.array([polarity.get(word, 0.0) for word in case.table.words]),
    }
    everything = Words(np.array(case.table.words), n_documents, measures, lengths)
    words = everything.at(n_documents > 0)
    groups = strata(words.n_documents)
    words.lengths["rest"] = np.array([within(row, groups) for row in words.lengths["default"]])
    return words


def head_measures(case: Case) -> dict[str, Floats]:
    """Ask a linear head on the pretrained table, kept as it is, what each word does to it.

    With a document's loss L, its words' mean x and the head's weights W, the gradient of L by the
    vector of a word that makes up the share a of the document is a (p - y) W.
    """
    X = np.asarray(case.averages @ case.table.vectors)
    head = _fit_head(X, case)
    weights = np.vstack([-head.coef_, head.coef_]) / 2 if len(head.coef_) == 1 else head.coef_
    wrong = head.predict_proba(X[case.train]) - np.eye(len(weights))[case.labels[case.train]]
    by_document = wrong @ weights  # the gradient by the document's vector
    shares = case.averages[case.train]
    n_tokens = np.maximum(np.asarray(case.counts[case.train].sum(0)).ravel(), 1)
    centred = case.table.vectors - case.table.vectors.mean(0)
    return {
        "gradient": np.linalg.norm(shares.T @ by_document, axis=1),
        "gradient per token": shares.T @ np.linalg.norm(by_document, axis=1) / n_tokens,
        "pull": np.linalg.norm(centred @ (weights - weights.mean(0)).T, axis=1),
    }


def _fit_head(X: Floats, case: Case) -> LogisticRegression:
    """Fit to train, at the strength that dev likes best."""

    def fit(strength: float) -> LogisticRegression:
        return LogisticRegression(C=strength, max_iter=2000).fit(
            X[case.train], case.labels[case.train]
        )

    def loss(head: LogisticRegression) -> float:
        return log_loss(case.labels[case.dev], head.predict_proba(X[case.dev]))

    return min(map(fit, _STRENGTHS), key=loss)


def label_skew(case: Case) -> Floats:
    """How far the classes of a word's documents are from those of as many drawn at random."""
    holds = (case.counts[case.train] > 0).astype(np.float64)
    classes = np.eye(case.labels.max() + 1)[case.labels[case.train]]
    by_class = holds.T @ classes
    expected = by_class.sum(1, keepdims=True) * classes.mean(0)
    return np.linalg.norm(by_class - expected, axis=1)


# Statistics


def strata(n_documents: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number the groups of equal frequency: the same count up to 7, then quarters of an octave."""
    coarse = np.round(4 * np.log2(n_documents)).astype(np.int64)
    return np.unique(np.where(n_documents < 8, n_documents, coarse), return_inverse=True)[1]


def within(values: Floats, groups: NDArray[np.int64]) -> Floats:
    """Take the mean of its group off each value."""
    return values - (np.bincount(groups, values) / np.bincount(groups))[groups]


def correlate(a: Floats, b: Floats) -> float:
    """Correlate; what does not vary follows nothing."""
    return float(np.corrcoef(a, b)[0, 1]) if a.std() * b.std() > 0 else 0.0


def partial_correlation(a: Floats, b: Floats, control: Floats) -> float:
    """Spearman's correlation of a and b, with the line through the control's ranks taken off."""
    ranks = [rankdata(values) for values in (a, b, control)]
    ab, ac, bc = (correlate(x, y) for x, y in combinations(ranks, 2))
    return (ab - ac * bc) / np.sqrt((1 - ac**2) * (1 - bc**2))


def group_correlation(a: Floats, b: Floats, groups: NDArray[np.int64]) -> float:
    """Correlate ranks that are taken, as shares, within each group and centred there."""
    return correlate(_group_ranks(a, groups), _group_ranks(b, groups))


def _group_ranks(values: Floats, groups: NDArray[np.int64]) -> Floats:
    ranks = np.empty(len(values))
    for group in np.unique(groups):
        inside = groups == group
        ranks[inside] = rankdata(values[inside]) / inside.sum()
    return within(ranks, groups)


def group_difference(
    values: Floats, marked: NDArray[np.bool_], groups: NDArray[np.int64]
) -> tuple[float, float]:
    """Mean of the marked less that of the others of their group, with its standard error."""
    left, marks = within(values, groups), within(marked.astype(float), groups)
    total = (marks**2).sum()
    slope = (marks @ left) / total
    return float(slope), float(np.sqrt((left - slope * marks).var() / total))


def mean_over_seeds(lengths: Floats, statistic: Callable[[Floats], float]) -> float:
    """Take a statistic of each seed's lengths, then the mean."""
    return float(np.mean([statistic(row) for row in lengths]))


# The report


def write_report(tasks: dict[str, Words], n_seeds: int) -> None:
    """Write the tables that the page shows; each has a heading, by which the page finds it."""
    sections = {
        "Words": words_table(tasks),
        "Frequency": frequency_table(tasks),
        **{name.capitalize(): measure_table(tasks, name) for name in MEASURES},
        "Polar words": polar_table(tasks),
        "Tasks": task_table(tasks),
        "Most unlike": names_table(*differences(tasks)),
        "Most unlike at equal frequency": names_table(*differences(tasks, equal_frequency=True)),
    }
    head = f"<!-- Written by docs/benchmarks/code_lengths.py; {n_seeds} seeds. -->\n"
    text = head + "".join(f"\n## {name}\n\n{table}\n" for name, table in sections.items())
    RESULTS.parent.mkdir(exist_ok=True)
    write_text(RESULTS, text)


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Line up a Markdown table, to be read as it stands too."""
    lines = [list(header), *map(list, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    padded = (
        (cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines
    )
    return "\n".join(f"| {' | '.join(cells)} |" for cells in padded)


def _frequent(words: Words) -> Words:
    return words.at(words.n_documents >= OFTEN)


def words_table(tasks: dict[str, Words]) -> str:
    """Count the words, and say what correlation chance alone brings."""
    rows = []
    for title, words in tasks.items():
        for name, part in (("all", words), (f"in {OFTEN}+ documents", _frequent(words))):
            n_polar = int((part.measures["polarity"] >= POLAR).sum())
            chance = 2 / np.sqrt(len(part.words))
            rows.append([title, name, f"{len(part.words):,}", f"{n_polar:,}", f"{chance:.3f}"])
    return format_table(["task", "words", "number", "polar", "2 standard errors of 0"], rows)


def frequency_table(tasks: dict[str, Words]) -> str:
    """Say how much of the lengths is frequency, and whether the rest comes back."""
    header = ["task", "lengths", "dropped", "mean", "rho", f"rho {OFTEN}+", "explained", "rest"]
    rows = []
    for title, words in tasks.items():
        often = _frequent(words)
        groups = strata(words.n_documents)
        for way in WAYS:
            lengths = words.lengths[way]
            rest = [within(row, groups) for row in lengths]
            explained = np.mean(
                [1 - left.var() / row.var() for left, row in zip(rest, lengths, strict=True)]
            )
            again = np.mean([correlate(a, b) for a, b in combinations(rest, 2)])
            rhos = [
                mean_over_seeds(p.lengths[way], lambda row, p=p: _rho(row, p.n_documents))
                for p in (words, often)
            ]
            cells = [f"{(lengths == 0).mean():.0%}", f"{lengths.mean():.2f}"]
            cells += [f"{rho:.2f}" for rho in rhos] + [f"{explained:.0%}", f"{again:.2f}"]
            rows.append([title, way, *cells])
    return format_table(header, rows)


def _rho(a: Floats, b: Floats) -> float:
    return correlate(rankdata(a), rankdata(b))


def measure_table(tasks: dict[str, Words], name: str) -> str:
    """Correlate lengths with a measure: as it is, and with frequency taken out in two ways."""
    parts = ("rho", "partial", "same")
    header = ["task", "lengths", *parts, *(f"{part} {OFTEN}+" for part in parts)]
    rows = []
    for title, words in tasks.items():
        for way in WAYS:
            cells = [f"{c:+.2f}" for p in (words, _frequent(words)) for c in _trio(p, way, name)]
            rows.append([title, way, *cells])
    return format_table(header, rows)


def _trio(words: Words, way: str, name: str) -> Iterator[float]:
    """Correlate without and with control of frequency, means over seeds."""
    values, n_documents = words.measures[name], words.n_documents
    groups = strata(n_documents)
    lengths = words.lengths[way]
    yield mean_over_seeds(lengths, lambda row: _rho(row, values))
    yield mean_over_seeds(lengths, lambda row: partial_correlation(row, values, n_documents))
    yield mean_over_seeds(lengths, lambda row: group_correlation(row, values, groups))


def polar_table(tasks: dict[str, Words]) -> str:
    """Compare polar words with others of the same frequency."""
    header = [
        "task",
        "lengths",
        "codes more",
        f"{OFTEN}+",
        "kept more",
        f"{OFTEN}+",
    ]
    rows = []
    for title, words in tasks.items():
        for way in WAYS:
            cells = []
            for scale, is_kept in (("{:+.2f} ± {:.2f}", False), ("{:+.1%} ± {:.1%}", True)):
                for part in (words, _frequent(words)):
                    lengths = part.lengths[way]
                    values = (lengths > 0).mean(0) if is_kept else lengths.mean(0)
                    polar = part.measures["polarity"] >= POLAR
                    found = group_difference(values, polar, strata(part.n_documents))
                    cells.append(scale.format(*found))
            rows.append([title, way, *cells])
    return format_table(header, rows)


def shared(tasks: dict[str, Words]) -> list[Words]:
    """Keep the words that all tasks hold often, in the same order."""
    often = [_frequent(words) for words in tasks.values()]
    common = set.intersection(*(set(words.words) for words in often))
    return [words.at(np.isin(words.words, list(common))) for words in often]


def task_table(tasks: dict[str, Words]) -> str:
    """Compare two tasks' lengths of the shared words with two seeds' of one task."""
    first, second = shared(tasks)
    ratio = np.log(first.n_documents / second.n_documents)
    columns = []
    for way in ("default", "rest"):
        a, b = first.lengths[way], second.lengths[way]
        pairs = (zip(a, b, strict=True), combinations(a, 2), combinations(b, 2))
        means = [np.mean([_rho(x, y) for x, y in some]) for some in pairs]
        difference = _standard(a.mean(0)) - _standard(b.mean(0))
        columns.append([f"{rho:.2f}" for rho in (*means, _rho(difference, ratio))])
    names = ["two tasks, same seed", *(f"two seeds, {title}" for title in tasks)]
    names.append("difference of the tasks, and of log frequency")
    header = [f"{len(first.words):,} shared words", "lengths", "at equal frequency"]
    return format_table(header, list(zip(names, *columns, strict=True)))


def _standard(values: Floats) -> Floats:
    return (values - values.mean()) / values.std()


def differences(
    tasks: dict[str, Words], *, equal_frequency: bool = False
) -> tuple[list[Words], Floats]:
    """Take one task's standardised lengths off the other's, for words that begin with a letter."""
    both = shared(tasks)
    lengths = [words.mean_rest if equal_frequency else words.mean_length for words in both]
    difference = _standard(lengths[0]) - _standard(lengths[1])
    named = np.char.isalpha(np.array([word[0] for word in both[0].words]))
    return [words.at(named) for words in both], difference[named]


def most_unlike(both: list[Words], difference: Floats) -> tuple[NDArray, NDArray]:
    """Order words by their difference, each way; of equals the more frequent come first."""
    total = both[0].n_documents + both[1].n_documents
    up = np.lexsort([-total, -difference])[:N_NAMES]
    return up, np.lexsort([-total, difference])[:N_NAMES]


def names_table(both: list[Words], difference: Floats) -> str:
    """List the words with lengths and documents in the first and the second task."""
    header = ["longer in SST-2", "codes", "documents", "longer in TREC-6", "codes", "documents"]

    def cells(i: int) -> list[str]:
        a, b = (f"{words.mean_length[i]:.1f}" for words in both)
        return [both[0].words[i], f"{a} : {b}", " : ".join(str(w.n_documents[i]) for w in both)]

    pairs = zip(*most_unlike(both, difference), strict=True)
    return format_table(header, [cells(i) + cells(j) for i, j in pairs])


# The pictures


def octaves(n_documents: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number bins of frequency, each twice as wide as the one before: 1, 2-3, 4-7 and so on."""
    return np.floor(np.log2(n_documents)).astype(np.int64)


def _panels(tasks: dict[str, Words]) -> Iterator[tuple[Axes, Words]]:
    """Make a panel for each task, in one row."""
    _, axes = pyplot.subplots(
        1, len(tasks), figsize=(7, 3.5), sharey=True, sharex=True, layout="constrained"
    )
    axes[0].set_ylabel("mean code length")
    for ax, (title, words) in zip(axes, tasks.items(), strict=True):
        ax.set_title(title)
        ax.set_xscale("log", base=2)
        ax.set_xlim(0.7, 8192)
        ax.set_xticks([1, 8, 64, 512, 4096])
        ax.xaxis.set_major_formatter("{x:,.0f}")
        ax.set_ylim(-0.2, 9)
        ax.set_yticks([0, 2, 4, 6, 8])
        ax.set_xlabel("training documents")
        yield ax, words


def _save(name: str) -> None:
    pyplot.savefig(IMAGES / f"lengths_{name}.png")
    pyplot.close()


def draw_frequency(tasks: dict[str, Words]) -> None:
    """Draw mean code length by frequency, with the middle half of the words."""
    for ax, words in _panels(tasks):
        bins = octaves(words.n_documents)
        for way, label, colour, style in (
            ("frequency", "by frequency alone", GREY, "--"),
            ("default", "skadacomp", BLUE, "o-"),
        ):
            lengths = words.lengths[way].mean(0)
            points = np.array([_quartiles(lengths[bins == b]) for b in np.unique(bins)])
            x = 1.5 * 2.0 ** np.unique(bins) - 0.5  # the middle of 4-7 is 5.5
            ax.plot(x, points[:, 1], style, color=colour, label=label, markersize=4)
            if way == "default":
                ax.fill_between(
                    x,
                    points[:, 0],
                    points[:, 2],
                    color=colour,
                    alpha=0.2,
                    linewidth=0,
                    label="middle half of the words",
                )
    ax.legend(frameon=False, loc="lower right", fontsize=9)
    _save("frequency")


def _quartiles(values: Floats) -> tuple[float, float, float]:
    low, high = np.quantile(values, [0.25, 0.75])
    return float(low), float(values.mean()), float(high)


def draw_gradient(tasks: dict[str, Words]) -> None:
    """Compare words of a great and a small gradient norm, of the same frequency."""
    _draw_thirds(tasks, "gradient", "gradient norm")


def draw_skew(tasks: dict[str, Words]) -> None:
    """Compare words of a great and a small label skew, of the same frequency."""
    _draw_thirds(tasks, "label skew", "label skew")


def _draw_thirds(tasks: dict[str, Words], name: str, label: str) -> None:
    for ax, words in _panels(tasks):
        ranks = _group_ranks(words.measures[name], strata(words.n_documents))
        _draw_means(ax, words, ranks > 1 / 6, f"upper third by {label}", ORANGE, "o-")
        _draw_means(ax, words, ranks < -1 / 6, f"lower third by {label}", BLUE, "s--")
    ax.legend(frameon=False, loc="lower right", fontsize=9)
    _save(name.split()[-1])


def draw_polarity(tasks: dict[str, Words]) -> None:
    """Compare polar words and the others, of the same frequency."""
    for ax, words in _panels(tasks):
        polar = words.measures["polarity"] >= POLAR
        _draw_means(ax, words, polar, "polar words", ORANGE, "o-")
        _draw_means(ax, words, ~polar, "other words", BLUE, "s--")
    ax.legend(frameon=False, loc="lower right", fontsize=9)
    _save("polarity")


def _draw_means(
    ax: Axes, words: Words, marked: NDArray[np.bool_], label: str, colour: str, style: str
) -> None:
    """Draw the means of some words by frequency with 95 % intervals, where there are 10 words."""
    bins = octaves(words.n_documents)
    counts = np.bincount(bins[marked])
    shown = np.flatnonzero(counts >= 10)
    groups = [words.mean_length[marked & (bins == b)] for b in shown]
    means = [group.mean() for group in groups]
    errors = [1.96 * group.std(ddof=1) / np.sqrt(len(group)) for group in groups]
    x = 1.5 * 2.0**shown - 0.5
    ax.errorbar(x, means, errors, fmt=style, color=colour, label=label, markersize=4, capsize=2)


def draw_words(tasks: dict[str, Words]) -> None:
    """Draw the words whose lengths at equal frequency differ most, a panel each way."""
    both, difference = differences(tasks, equal_frequency=True)
    figure, axes = pyplot.subplots(1, 2, figsize=(7, 7), sharex=True, layout="constrained")
    for ax, rows, title in zip(axes, most_unlike(both, difference), tasks, strict=True):
        places = np.arange(len(rows))
        ax.hlines(places, *(words.mean_rest[rows] for words in both), color=GREY, linewidth=1)
        for words, label, colour, marker in zip(both, tasks, (ORANGE, BLUE), "os", strict=True):
            x = words.mean_rest[rows]
            ax.plot(x, places, marker, color=colour, label=label, markersize=5)
        ax.set_yticks(places, both[0].words[rows], fontsize=9)
        ax.axvline(0, color="0.8", linewidth=0.8, zorder=0)
        ax.set_title(f"longer in {title}")
        ax.set_ylim(len(rows) - 0.4, -0.6)
        ax.set_xlabel("codes beyond those of\nwords as frequent")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    _save("words")


if __name__ == "__main__":
    main()
