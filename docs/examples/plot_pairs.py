"""
Compare two texts: are they about the same subject
==================================================

A task of pairs asks how two texts go together. Here both are headlines with the first sentences
below them, and the question is whether they stand in the same section of the news: what a reader
needs who wants more of the same, or less.
"""

# %%
# Pairs
# -----
#
# Each article of the BBC's news is paired with one of its own section, and with one of another. A
# pair is a tuple of two texts.

import numpy as np

from skadacomp import EmbeddingTable
from skadacomp.datasets import load_bbc_news, load_glove

glove = load_glove()
table = EmbeddingTable(glove.words[:50_000], glove.vectors[:50_000])
news = load_bbc_news()
leads = [" ".join(text.split()[:40]) for text in news.data]
random = np.random.default_rng(0)


def pairs_of(chosen):
    """Pair texts of the chosen articles, alike and not alike by turns."""
    pairs, y = [], []
    for i in chosen:
        same = news.target[chosen] == news.target[i]
        for what, rows in (("same", chosen[same & (chosen != i)]), ("other", chosen[~same])):
            pairs.append((leads[i], leads[random.choice(rows)]))
            y.append(what)
    return pairs, y


order = random.permutation(len(leads))
train, y_train = pairs_of(order[:1000])
test, y_test = pairs_of(order[1000:])
print(len(train), "pairs train,", len(test), "test")
for one, other in train[:2]:
    print(one[:45], "|", other[:45])

# %%
# Compress the table for the comparison
# -------------------------------------

from skadacomp import AdaptiveCodebookCompressor

compressor = AdaptiveCodebookCompressor(table, max_iter=10, output="vectors", random_state=0)
compressor.fit(train, y_train)
print(compressor.task_, "at a compression ratio of", round(compressor.compression_ratio_))

# %%
# What the next step gets
# -----------------------
#
# ``transform`` gives the columns of the first text, then those of the second. What tells pairs
# apart is how the two differ and agree, column by column. A classifier reads that, and beside it
# another reads the original vectors, pooled the same way.

from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, Normalizer, StandardScaler


def compared(sides):
    """Absolute difference and product of two texts' vectors."""
    one, other = np.split(sides, 2, axis=1)
    return np.hstack([abs(one - other), one * other])


shares = make_pipeline(CountVectorizer(vocabulary=table.index), Normalizer("l1"))


def original(pairs):
    """Mean original vectors of both texts, side by side."""
    sides = [shares.transform(texts) @ table.vectors for texts in zip(*pairs, strict=True)]
    return np.hstack(sides)


print(f"{'':12}{'accuracy':>10}{'bytes':>12}")
for name, vectors_of, nbytes in (
    ("original", original, table.nbytes),
    ("compressed", compressor.transform, compressor.nbytes_),
):
    classifier = LogisticRegression(max_iter=1000)
    model = make_pipeline(FunctionTransformer(compared), StandardScaler(), classifier)
    model.fit(vectors_of(train), y_train)
    print(f"{name:12}{model.score(vectors_of(test), y_test):10.3f}{nbytes:12,}")

# %%
# Which words need long codes
# ---------------------------
#
# Those that come often, as pairs are compared along all directions of their words; and of the rare
# ones those that give the subject away.

from skadacomp.display import CodeLengthDisplay

display = CodeLengthDisplay.from_estimator(compressor)
