"""
Compress a table by itself, without a task
==========================================

Where there are no labels, or too many uses to name one, a table can be compressed to be rebuilt as
well as its bits allow. What that keeps is looked at here: the error, and the neighbours of words.
"""

# %%
# A table and a budget
# --------------------
#
# ``bits_per_word`` is the mean over all words, code lengths included; a float32 vector of 50
# dimensions takes 1,600 bits. ``code_lengths`` begins at 1, so that every word stays.

from skadacomp import AdaptiveCodebookCompressor, EmbeddingTable
from skadacomp.datasets import load_glove

glove = load_glove()
table = EmbeddingTable(glove.words[:20_000], glove.vectors[:20_000])
compressor = AdaptiveCodebookCompressor(
    code_lengths=(1, 2, 4, 8, 12), bits_per_word=32, max_iter=3, random_state=0
)
compressor.fit(table)
print("compression ratio:", round(compressor.compression_ratio_))

# %%
# Codes and vectors
# -----------------
#
# ``transform`` gives a word's codes as a sparse row, a 1 for each codeword that it takes and for
# the mean vector. One product with the codewords makes vectors of them again.

codes = compressor.transform(table)
vectors = compressor.inverse_transform(codes)
print(codes.shape, vectors.shape)
print("codes of 'coffee':", compressor.codes_[table.index["coffee"]])

# %%
# What is left of the vectors
# ---------------------------
#
# The error is 0 for vectors that are rebuilt exactly, and 1 for a table that knows the mean vector
# alone. Neighbours say more of what it means:

import numpy as np

from skadacomp.metrics import reconstruction_error

print(f"reconstruction error: {reconstruction_error(table, compressor):.2f}")


def neighbours(word, n=6):
    """Words whose original vectors point most nearly the same way."""
    directions = table.vectors / np.linalg.norm(table.vectors, axis=1, keepdims=True)
    cosines = directions @ directions[table.index[word]]
    return [table.words[row] for row in np.argsort(-cosines)[1 : n + 1]]


for word in ("coffee", "guitar", "tuesday"):
    print(f"{word:10}before:", *neighbours(word))
    print(f"{'':10}after: ", *(near for near, _ in compressor.compressed_.nearest(word, 6)))

# %%
# Which words got long codes
# --------------------------
#
# Here every word counts alike. Those far from all others need more codes to be rebuilt.

from skadacomp.display import CodeLengthDisplay

display = CodeLengthDisplay.from_compressed(compressor.compressed_, words=table)
