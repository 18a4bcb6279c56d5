"""
Tag words: put capitals back
============================

What reads a voice or a chat gets words without capitals. Whether a word wants one depends on the
word and on its neighbours: *bush* is a plant, *George Bush* is not. Here the table is compressed
for that task: sentences are lists of words, and there is a tag for each word.
"""

# %%
# Sentences and tags
# ------------------
#
# Sentences come out of the BBC's news articles. A word is tagged by how it was written there: in
# small letters, with a capital, or in capitals throughout. The first word of a sentence has a
# capital whatever it is, so it is left out.

import re

from skadacomp import EmbeddingTable
from skadacomp.datasets import load_bbc_news, load_glove

glove = load_glove()
table = EmbeddingTable(glove.words[:50_000], glove.vectors[:50_000])


def tag_of(word):
    if word.isupper() and len(word) > 1:
        return "CAPITALS"
    return "Capital" if word[0].isupper() else "small"


sentences, tags = [], []
for text in load_bbc_news().data[::4]:
    for sentence in re.split(r"[.!?\n]\s*", text):
        words = re.findall(r"[^\W\d]+", sentence)[1:]
        if len(words) > 3:
            sentences.append([word.lower() for word in words])
            tags.append([tag_of(word) for word in words])
train, test = slice(0, None, 2), slice(1, None, 2)
print(len(sentences), "sentences,", sum(map(len, sentences)), "words")
print(list(zip(sentences[6], tags[6], strict=True))[:6])

# %%
# Compress the table for the tagger
# ---------------------------------
#
# Lists of words with lists of tags make it a task of kind *tagging*: a small convolution, which
# sees two words to each side, learns with the codes.

from skadacomp import AdaptiveCodebookCompressor

compressor = AdaptiveCodebookCompressor(table, max_iter=4, output="vectors", random_state=0)
compressor.fit(sentences[train], tags[train])
print(compressor.task_, "at a compression ratio of", round(compressor.compression_ratio_))

# %%
# What the next step gets
# -----------------------
#
# ``transform`` gives a row for each word. A classifier of words reads it beside the rows of the
# words before and after, here a plain logistic regression; and beside it another reads the original
# vectors.

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score


def with_neighbours(vectors, chosen):
    """Put the word before and the word after beside each word; zeros where a sentence ends."""
    rows = []
    for part in np.split(vectors, np.cumsum([len(words) for words in chosen])[:-1]):
        nothing = np.zeros_like(part[:1])
        rows.append(
            np.hstack([np.vstack([nothing, part[:-1]]), part, np.vstack([part[1:], nothing])])
        )
    return np.vstack(rows)


def original(chosen):
    """Original vectors, zeros for a word that the table lacks."""
    rows = [table.index.get(word, -1) for words in chosen for word in words]
    return np.vstack([table.vectors, np.zeros((1, table.n_dims), np.float32)])[rows]


y_train, y_test = (np.concatenate(tags[part]) for part in (train, test))
print(f"{'':12}{'F1':>8}{'bytes':>12}")
for name, vectors_of, nbytes in (
    ("original", original, table.nbytes),
    ("compressed", compressor.transform, compressor.nbytes_),
):
    X_train, X_test = (
        with_neighbours(vectors_of(sentences[part]), sentences[part]) for part in (train, test)
    )
    model = LogisticRegression(max_iter=200, tol=1e-3).fit(X_train, y_train)
    score = f1_score(y_test, model.predict(X_test), average="macro")
    print(f"{name:12}{score:8.3f}{nbytes:12,}")

# %%
# Which words need long codes
# ---------------------------
#
# Those that could go either way, and those that tell about their neighbours.

from skadacomp.display import CodeLengthDisplay

display = CodeLengthDisplay.from_estimator(compressor)
