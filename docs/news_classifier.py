"""The classifier that the page "In a browser" runs: which section a headline belongs in.

It learns from articles of the demo's data and from their headlines alone, since a visitor will
type no more. `conf.py` has it made when the site is built, and `tests/test_browser.py` for a test.
"""

import json
from pathlib import Path

import numpy as np
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, Normalizer

from skadacomp import AdaptiveCodebookCompressor, EmbeddingTable, freeze
from skadacomp.datasets import load_bbc_news, load_glove

N_ROWS = 100_000  # of the table: its most frequent words
MAX_BYTES = 120_000


def headlines(texts: list[str]) -> list[str]:
    """First lines of articles."""
    return [text.splitlines()[0] for text in texts]


def draw() -> list:
    """Articles and sections: texts to learn from and to test on, labels of both."""
    news = load_bbc_news()
    return train_test_split(
        news.data, news.target, train_size=1600, stratify=news.target, random_state=0
    )


def fit(table: EmbeddingTable, max_bytes: int, train: list[str], labels: np.ndarray) -> Pipeline:
    """Fit what ships, on articles and on their headlines."""
    compressor = AdaptiveCodebookCompressor(table, max_bytes=max_bytes, max_iter=5, random_state=0)
    pipe = make_pipeline(compressor, LogisticRegression(max_iter=1000))
    return pipe.fit(train + headlines(train), np.concatenate([labels, labels]))


def write(classifier: Path, facts: Path) -> None:
    """Write the classifier, and its accuracy beside that of the table it came from, as JSON."""
    glove = load_glove()
    table = EmbeddingTable(glove.words[:N_ROWS], glove.vectors[:N_ROWS])
    train, test, labels, truth = draw()
    frozen = freeze(fit(table, MAX_BYTES, train, labels))
    # Mean vectors are short: a C of 1 would hold the full-precision classifier back.
    whole = make_pipeline(
        CountVectorizer(vocabulary=table.index),
        Normalizer("l1"),
        FunctionTransformer(lambda shares: shares @ table.vectors),
        LogisticRegression(C=10.0, max_iter=1000),
    ).fit(train + headlines(train), np.concatenate([labels, labels]))
    frozen.save(classifier)
    found = [
        {
            "name": name,
            "nbytes": nbytes,
            "headlines": float((model.predict(headlines(test)) == truth).mean()),
            "articles": float((model.predict(test) == truth).mean()),
        }
        for name, model, nbytes in (
            ("full precision", whole, table.nbytes),
            ("this file", frozen, frozen.file_nbytes),
        )
    ]
    facts.write_text(json.dumps(found))
