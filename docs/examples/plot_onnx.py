"""
Export to ONNX, for a browser or any other runtime
==================================================

An ONNX graph runs where there is no Python. Here a classifier goes into one, codes and all, and
onnxruntime runs it; onnxruntime-web runs the same file in a page.
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
compressor = AdaptiveCodebookCompressor(table, max_iter=5, random_state=0)
pipe = make_pipeline(compressor, LogisticRegression(max_iter=1000))
pipe.fit(train_texts, train_labels)

# %%
# Two files
# ---------
#
# The graph takes row ids, so whoever splits text needs the words and their ids too.

import tempfile
from pathlib import Path

from skadacomp import to_onnx
from skadacomp.export import to_words_json

folder = tempfile.TemporaryDirectory()
model_path, words_path = Path(folder.name, "news.onnx"), Path(folder.name, "words.json")
to_onnx(pipe, model_path)
to_words_json(pipe, words_path)
for path in (model_path, words_path):
    print(f"{path.name:12}{path.stat().st_size:8,} bytes")

# %%
# Run it
# ------
#
# As a page would: split the text, look the words up, hand over their row ids.

import json
import re

import numpy as np
from onnxruntime import InferenceSession

session = InferenceSession(model_path)
row_of = json.loads(words_path.read_text(encoding="utf-8"))
classes = json.loads(session.get_modelmeta().custom_metadata_map["classes"])


def probabilities(text):
    words = re.findall(r"\w{2,}", text.lower())
    ids = [row_of[word] for word in words if word in row_of]
    return session.run(None, {"ids": np.array([ids])})[0][0]


for text in ("The striker scored twice in the cup final", "Shares fell after the bank's loss"):
    found = probabilities(text)
    print(f"{classes[found.argmax()]:14}{found.max():.2f}  {text}")

# %%
# It gives what the pipeline gives:

ours = np.array([probabilities(text) for text in test_texts[:200]])
print("largest difference:", abs(ours - pipe.predict_proba(test_texts[:200])).max())

folder.cleanup()
