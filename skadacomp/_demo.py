"""The demo: GloVe compressed for BBC News, beside what one would ship without it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.utils import Bunch

from skadacomp._compressed import CompressedTable
from skadacomp._compressor import AdaptiveCodebookCompressor
from skadacomp._documents import document_counts
from skadacomp._table import EmbeddingTable
from skadacomp._vocabulary import Vocabulary
from skadacomp.datasets import load_bbc_news, load_glove

_PARTS = ("vectors", "codes", "lengths", "codebooks", "vocabulary", "classifier")
_N_SHOWN = 5  # unseen documents that are classified for show


@dataclass(frozen=True)
class Result:
    """One way to classify, on one draw of the labelled documents."""

    name: str
    accuracy: float
    nbytes: dict[str, int]  # of each part that ships


@dataclass(frozen=True)
class Case:
    """One draw of the labelled documents; all others are the test."""

    table: EmbeddingTable
    news: Bunch
    train: NDArray[np.int64]
    test: NDArray[np.int64]
    seed: int

    def documents(self, part: NDArray[np.int64]) -> tuple[list[str], NDArray[Any]]:
        """Texts and labels."""
        return [self.news.data[i] for i in part], self.news.target[part]


def default_budget(n_labels: int) -> int:
    """Bytes that the compressed table may take.

    The fewer the labels, the more of the words that count are words that training never showed,
    and the more of those have to be kept.
    """
    return 500_000 if n_labels < 400 else 190_000


def run(n_labels: int, n_seeds: int, max_bytes: int, folder: Path) -> list[list[Result]]:
    """Run the demo and print what it finds.

    Parameters
    ----------
    n_labels : int
        Labelled documents for training, stratified; all others test.
    n_seeds : int
        Draws of them.
    max_bytes : int
        Budget of the compressed table, vocabulary included.
    folder : Path
        Where the artifact and the picture go; made if it is not there.

    Returns
    -------
    list of list of Result
        For each draw, one result a row of the printed table.
    """
    start = perf_counter()
    folder.mkdir(parents=True, exist_ok=True)
    table, news = load_glove(), load_bbc_news()
    print(f"{table}\nBBC News: {len(news.data)} documents in {len(news.target_names)} classes")
    results = []
    for seed in range(n_seeds):
        everything = np.arange(len(news.data))
        train, test = train_test_split(
            everything, train_size=n_labels, stratify=news.target, random_state=seed
        )
        case = Case(table, news, np.sort(train), np.sort(test), seed)
        print(f"\nDraw {seed}: {len(train)} documents to learn from, {len(test)} to test on")
        rows, pipeline = _compare(case, max_bytes)
        results.append(rows)
    _print_table(results, table.nbytes)
    _use_artifact(case, pipeline, folder)
    print(f"\n{perf_counter() - start:.0f} s in all")
    return results


def _compare(case: Case, max_bytes: int) -> tuple[list[Result], Pipeline]:
    """Classify with and without compression."""
    pipeline = _pipeline(case, max_bytes)
    rows = [_bag_of_words(case), *_full_precision(case, pipeline[0])]
    texts, labels = case.documents(case.train)
    pipeline.fit(texts, labels)
    accuracy = pipeline.score(*case.documents(case.test))
    compressed = pipeline[0].compressed_
    # What the file takes beside its tensors is its header; it goes with the codebooks.
    sizes = dict(compressed.sizes)
    sizes["codebooks"] += compressed.file_nbytes - sum(sizes.values())
    sizes["classifier"] = _classifier_nbytes(pipeline[-1])
    return [*rows, Result("compressed", accuracy, sizes)], pipeline


def _pipeline(case: Case, max_bytes: int) -> Pipeline:
    compressor = AdaptiveCodebookCompressor(
        embeddings=case.table,
        max_bytes=max_bytes,
        output="vectors",
        random_state=case.seed,
        verbose=1,
    )
    return Pipeline([("compressor", compressor), ("classifier", _fixed())])


def _bag_of_words(case: Case) -> Result:
    """Classify with no embedding at all: tf-idf weights of the words that training showed."""
    texts, labels = case.documents(case.train)
    model = make_pipeline(TfidfVectorizer(sublinear_tf=True), _tuned(labels)).fit(texts, labels)
    words = model[0].get_feature_names_out().tolist()
    classifier = _classifier_nbytes(model[1].best_estimator_) + model[0].idf_.size * 4
    nbytes = {"vocabulary": _vocabulary_nbytes(words), "classifier": classifier}
    return Result("bag of words", model.score(*case.documents(case.test)), nbytes)


def _full_precision(case: Case, compressor: AdaptiveCodebookCompressor) -> list[Result]:
    """Classify with the table as it is, and fine-tuned as the compressor's own teacher is."""
    from skadacomp._learning import fine_tune_table

    texts, labels = case.documents(case.train)
    problem = compressor._problem(texts, labels, None, None, None, None)
    vectors = fine_tune_table(case.table.vectors, problem.tasks, problem.settings)
    nbytes = {"vectors": case.table.nbytes, "vocabulary": _vocabulary_nbytes(case.table.words)}
    # Cross-validation can tune a classifier on frozen vectors; on vectors that have seen the
    # labels it is blind, so there, as for the compressed ones, C is fixed.
    ways = [
        ("full precision, frozen", case.table.vectors, _tuned(labels)),
        ("full precision, fine-tuned", vectors, _fixed()),
    ]
    return [_classify_means(case, name, table, nbytes, model) for name, table, model in ways]


def _classify_means(
    case: Case, name: str, vectors: NDArray[np.float32], nbytes: dict[str, int], model: Any
) -> Result:
    """Classify documents by the mean vector of their words."""

    def means(texts: list[str]) -> NDArray[np.float64]:
        counts = document_counts(texts, case.table.index, case.table.n_words)
        totals = np.asarray(counts.sum(1)).reshape(-1, 1)
        return np.asarray(counts @ vectors) / np.maximum(totals, 1)

    texts, labels = case.documents(case.train)
    model.fit(means(texts), labels)
    texts, labels = case.documents(case.test)
    accuracy = model.score(means(texts), labels)
    classifier = _classifier_nbytes(getattr(model, "best_estimator_", model))
    return Result(name, accuracy, {**nbytes, "classifier": classifier})


def _fixed() -> LogisticRegression:
    """Logistic regression for mean vectors, which are short: a C of 1 would hold it back."""
    return LogisticRegression(C=10.0, max_iter=1000)


def _tuned(labels: NDArray[Any]) -> GridSearchCV:
    """Logistic regression, its C chosen by cross-validation on the training documents."""
    n_folds = min(5, np.unique(labels, return_counts=True)[1].min())
    grid = {"C": [1.0, 3.0, 10.0, 30.0, 100.0]}
    return GridSearchCV(LogisticRegression(max_iter=1000), grid, cv=int(n_folds))


def _classifier_nbytes(classifier: LogisticRegression) -> int:
    """Bytes of a linear classifier in float32."""
    return 4 * (classifier.coef_.size + classifier.intercept_.size)


def _vocabulary_nbytes(words: Any) -> int:
    """Bytes of words as compactly as ours are stored."""
    return Vocabulary.build(words, np.arange(len(words))).nbytes


def _print_table(results: list[list[Result]], full: int) -> None:
    """Print accuracy and bytes, means over the draws."""
    parts = "".join(f"{part:>12}" for part in _PARTS)
    print(f"\n{'bytes of what ships':<28}{'accuracy':>15}{parts}{'total':>12}{'ratio':>9}")
    for rows in zip(*results, strict=True):
        scores = [row.accuracy for row in rows]
        spread = f" ± {np.std(scores):.4f}" if len(scores) > 1 else ""
        means = [np.mean([row.nbytes.get(part, 0) for row in rows]) for part in _PARTS]
        cells = "".join(f"{mean:>12,.0f}" if mean else f"{'–':>12}" for mean in means)
        total = sum(means)
        print(
            f"{rows[0].name:<28}{f'{np.mean(scores):.4f}{spread}':>15}{cells}{total:>12,.0f}"
            f"{full / total:>8,.1f}×"
        )
    print(f"ratio: the {full:,} bytes of the float32 table over the total")
    frozen, tuned, ours = (np.mean([r[i].accuracy for r in results]) for i in (1, 2, 3))
    points = 100 * (ours - max(frozen, tuned))
    print(f"compressed against the better of frozen and fine-tuned: {points:+.2f} points")


def _use_artifact(case: Case, pipeline: Pipeline, folder: Path) -> None:
    """Save what ships, open it again, and work from it alone."""
    path, picture = folder / "words.safetensors", folder / "code_lengths.png"
    pipeline[0].compressed_.save(path)
    shipped = CompressedTable.open(path)
    print(f"\nSaved {path} ({path.stat().st_size:,} bytes) and opened it again: {shipped}")
    _classify_unseen(case, shipped, pipeline[-1])
    _rebuild_words(case.table, shipped)
    _draw(shipped, case.table, picture)
    print(f"\nPicture: {picture}")


def _classify_unseen(case: Case, shipped: CompressedTable, classifier: LogisticRegression) -> None:
    """Classify documents that training never saw, from the opened artifact."""
    split = CountVectorizer().build_analyzer()
    shown = np.random.default_rng(case.seed).choice(case.test, _N_SHOWN, replace=False)
    print("\nUnseen documents, classified from the artifact:")
    for text, label in zip(*case.documents(shown), strict=True):
        words = [word for word in split(text) if word in shipped]
        document = shipped.vectors(words).mean(0, keepdims=True)
        guess = classifier.predict(document)[0]
        sure = classifier.predict_proba(document).max()
        headline = text.splitlines()[0][:50]
        print(f"  {headline:<50}  {guess:<13} ({sure:.2f})  truth: {label}")


def _rebuild_words(table: EmbeddingTable, shipped: CompressedTable) -> None:
    """Rebuild a few words and set them beside their full-precision vectors."""
    words = ["coffee", "election", "goalkeeper", "broadband", "profits"]
    print("\nWords rebuilt from the artifact, as seen from the mean vector:")
    rows = table.index or {}
    for word in filter(rows.__contains__, words):
        row = rows[word]
        n_codes = shipped.code_lengths[row]
        if n_codes == 0:
            print(f"  {word:<12} dropped: the task does not need it")
            continue
        codes = ", ".join(map(str, shipped.codes[row, :n_codes]))
        rebuilt, pretrained = shipped[word] - shipped.mean, table[word] - shipped.mean
        cosine = rebuilt @ pretrained / np.linalg.norm(rebuilt) / np.linalg.norm(pretrained)
        print(f"  {word:<12} codes ({codes}), cosine to the pretrained vector {cosine:.2f}")


def _draw(shipped: CompressedTable, table: EmbeddingTable, picture: Path) -> None:
    """Draw code length by word; the table names dropped words, which do not ship."""
    from skadacomp.display import CodeLengthDisplay

    display = CodeLengthDisplay.from_compressed(shipped, words=table)
    display.figure_.savefig(picture, dpi=150, bbox_inches="tight")
