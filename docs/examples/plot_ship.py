"""
Ship a classifier of some kilobytes that needs numpy alone
==========================================================

A fitted pipeline becomes one file. The process that reads it knows neither torch nor scikit-learn
nor the original table, as on a small device or in a function that starts from cold.
"""

# %%
# A pipeline, fitted
# ------------------

from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline

from skadacomp import AdaptiveCodebookCompressor, EmbeddingTable
from skadacomp.datasets import load_bbc_news, load_glove

glove = load_glove()
table = EmbeddingTable(glove.words[:20_000], glove.vectors[:20_000])
news = load_bbc_news()
train_texts, test_texts, train_labels, test_labels = train_test_split(
    news.data, news.target, train_size=400, stratify=news.target, random_state=0
)
compressor = AdaptiveCodebookCompressor(table, max_bytes=15_000, max_iter=5, random_state=0)
pipe = make_pipeline(compressor, LogisticRegression(max_iter=1000))
pipe.fit(train_texts, train_labels)
print(f"accuracy {pipe.score(test_texts, test_labels):.3f}")

# %%
# One file
# --------
#
# Each codeword gets a score for each class, so a document's class is read off its codes without any
# vectors. The file holds those scores beside the words and codes.

import tempfile
from pathlib import Path

from skadacomp import freeze

folder = tempfile.TemporaryDirectory()
path = Path(folder.name, "news.safetensors")
frozen = freeze(pipe)
frozen.save(path)
for part, nbytes in frozen.sizes.items():
    print(f"{part:12}{nbytes:8,} bytes")
print(f"{path.name}: {path.stat().st_size:,} bytes, the table: {table.nbytes:,}")

# %%
# Another process
# ---------------
#
# It reads the file, classifies two texts, and says how long that took and which of the large
# packages it had to import.

import subprocess
import sys

program = """
import sys
import time

start = time.perf_counter()
from skadacomp import FrozenClassifier

classifier = FrozenClassifier.open(sys.argv[1])
texts = ["The striker scored twice in the cup final", "Shares fell after the bank's loss"]
print(classifier.predict(texts))
print(classifier.predict_proba(texts).round(2))
print(f"{time.perf_counter() - start:.2f} s")
print("imported:", {"numpy", "scipy", "sklearn", "torch"} & set(sys.modules))
"""
found = subprocess.run(
    [sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True
)
print(found.stdout)

# %%
# The words in it are a table of their own. Words that tell of the same section may share their
# codes: for this task they are one.

from skadacomp import CompressedTable

shipped = CompressedTable.open(path)
print(shipped)
print("near 'goal':", *(word for word, _ in shipped.nearest("goal", 5)))

folder.cleanup()
