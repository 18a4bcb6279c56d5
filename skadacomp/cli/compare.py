"""``skadacomp compare``: what compression costs, beside full precision."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skadacomp.cli._arguments import Commands, add_json, add_table, add_task
from skadacomp.cli._files import open_shipped, open_table, read_task

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from skadacomp._compressed import CompressedTable
    from skadacomp._table import EmbeddingTable

    Fold = tuple[NDArray[np.int64], NDArray[np.int64]]  # documents that train, and that test

_N_FOLDS = 5
_STRENGTHS = [1.0, 3.0, 10.0, 30.0, 100.0]
_ABOUT = """\
Compare a compressed table with the table that it was made from: accuracy of a logistic regression
on pooled words, reconstruction error, and bytes.

Accuracy is that on the documents of --task, which compress must not have seen: words that learned
from a document classify it better than they will classify others. With --train the regressions
learn from those documents, and all of --task tests. Without it they are cross-validated within
--task, each fold tested by regressions that learned from the others: fewer documents to learn
from, the same ones for all, so the accuracies compare with one another and not with those of a
classifier that learned from the whole training set.

At full precision the regression's C is chosen by cross-validation on the documents that train, so
the table is compared at its best. On codes it is 10: where they were learned from these same
documents, cross-validation would see labels that it must not.
"""


def add_to(commands: Commands) -> None:
    """Describe the command."""
    from argparse import RawDescriptionHelpFormatter

    parser = commands.add_parser(
        "compare",
        help="accuracy, error and bytes beside full precision",
        description=_ABOUT,
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", metavar="FILE", help="what was compressed")
    add_table(parser)
    add_task(parser, required=True, what="labelled documents to test on")
    parser.add_argument(
        "--train",
        type=Path,
        metavar="FILE",
        help="labelled documents to learn from, such as those given to compress; in the same form",
    )
    add_json(parser, "the same")
    parser.set_defaults(run=run)


def run(parsed: Namespace) -> None:
    """Run the command."""
    columns = parsed.text_column, parsed.label_column
    test = read_task(parsed.task, *columns)
    train = ([], []) if parsed.train is None else read_task(parsed.train, *columns)
    texts, labels = [*train[0], *test[0]], [*train[1], *test[1]]
    folds = _folds(labels, len(train[0]), parsed.task)
    compressed, classifier = open_shipped(parsed.file)
    if compressed.words is None:
        raise ValueError(f"{parsed.file} holds no words, so no text can be classified with it.")
    table = open_table(parsed)
    if table.words is None:
        raise ValueError(f"{parsed.table} has no words to find in the documents: give --words.")

    from skadacomp.metrics import reconstruction_error

    errors = {
        words: reconstruction_error(table, compressed, words=words) for words in ("kept", "all")
    }
    accuracy = _accuracies(table, compressed, texts, labels, folds)
    if classifier is not None:
        right = classifier.predict(test[0]) == test[1]
        accuracy["classifier in the file"] = float(right.mean())
    found = {
        "n_test": len(test[0]),
        "n_train": len(train[0]) or None,
        "n_folds": len(folds) if parsed.train is None else None,
        "accuracy": accuracy,
        "reconstruction_error": errors,
        "nbytes": {"full precision": table.nbytes, "file": Path(parsed.file).stat().st_size},
    }
    print(json.dumps(found, indent=2) if parsed.json else _as_text(found))


def _folds(labels: list[str], n_train: int, path: Path) -> list[Fold]:
    """Cut the documents into those that train and those that test."""
    import numpy as np
    from sklearn.model_selection import StratifiedKFold

    everything = np.arange(len(labels))
    if n_train:
        return [(everything[:n_train], everything[n_train:])]
    names, counts = np.unique(labels, return_counts=True)
    if len(names) < 2 or counts.min() < 2:
        raise ValueError(
            f"{path} must hold two classes, and two documents of each, to be cross-validated; "
            "--train gives documents to learn from."
        )
    n_folds = int(min(_N_FOLDS, counts.min()))
    cut = StratifiedKFold(n_folds, shuffle=True, random_state=0)
    return list(cut.split(everything, labels))


def _accuracies(
    table: EmbeddingTable,
    compressed: CompressedTable,
    texts: list[str],
    labels: list[str],
    folds: list[Fold],
) -> dict[str, float]:
    """Classify with each kind of features."""
    import numpy as np
    from tqdm import tqdm

    y = np.array(labels)
    with tqdm(total=3 * len(folds), desc="classifying", unit="fit", leave=False) as bar:
        score = partial(_accuracy, labels=y, folds=folds, done=bar.update)
        return {
            "full precision": score(_means(table, texts), model=_tuned),
            "compressed vectors": score(compressed.documents(texts), model=_fixed),
            "code features": score(compressed.code_features(texts), model=_fixed),
        }


def _means(table: EmbeddingTable, texts: list[str]) -> NDArray[np.float32]:
    """Mean vectors of documents at full precision, (n_documents, n_dims)."""
    import numpy as np

    from skadacomp._documents import document_counts

    counts = document_counts(texts, table.index, table.n_words)
    n_words = np.asarray(counts.sum(1)).reshape(-1, 1)
    return np.asarray(counts @ table.vectors) / np.maximum(n_words, 1)


def _accuracy(
    features: NDArray[Any],
    *,
    labels: NDArray[Any],
    folds: Iterable[Fold],
    model: Callable[[NDArray[Any]], Any],
    done: Callable[[], Any],
) -> float:
    """Share of the tested documents that are classified right; `done` is called after each fit."""
    import numpy as np

    right = []
    for train, test in folds:
        fitted = model(labels[train]).fit(features[train], labels[train])
        right.append(fitted.predict(features[test]) == labels[test])
        done()
    return float(np.concatenate(right).mean())


def _fixed(labels: NDArray[Any]) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=10.0, max_iter=1000)


def _tuned(labels: NDArray[Any]) -> Any:
    """Logistic regression with the best C by cross-validation, where there are documents for it."""
    import numpy as np
    from sklearn.model_selection import GridSearchCV

    n_folds = int(min(_N_FOLDS, np.unique(labels, return_counts=True)[1].min()))
    return (
        GridSearchCV(_fixed(labels), {"C": _STRENGTHS}, cv=n_folds)
        if n_folds > 1
        else _fixed(labels)
    )


def _as_text(found: dict[str, Any]) -> str:
    how = f"{found['n_folds']}-fold cross-validation within them"
    if found["n_train"] is not None:
        how = f"learned from {found['n_train']:,} others"
    nbytes, errors = found["nbytes"], found["reconstruction_error"]
    accuracies = [f"  {name:<24}{score:.4f}" for name, score in found["accuracy"].items()]
    return "\n".join(
        [
            f"accuracy on {found['n_test']:,} documents, {how}",
            *accuracies,
            "reconstruction error, 0 is exact and 1 as far as the mean vector",
            f"  {'words with a code':<24}{errors['kept']:.4f}",
            f"  {'all words':<24}{errors['all']:.4f}",
            "bytes",
            f"  {'full precision':<24}{nbytes['full precision']:>14,}  float32 vectors alone",
            f"  {'file':<24}{nbytes['file']:>14,}  words and all, "
            f"{nbytes['full precision'] / nbytes['file']:,.1f} times smaller",
        ]
    )
