"""
Compress for a network of your own
==================================

``head=`` takes the torch module that will read the vectors. Here it is attention over the words
of a headline; codes are learned for it, and the same module then reads the compressed table.
"""

# %%
# Headlines
# ---------
#
# A short text leaves a classifier few words to go by, so it matters which of them it looks at.

import re

from sklearn.model_selection import train_test_split

from skadacomp import EmbeddingTable
from skadacomp.datasets import load_bbc_news, load_glove

glove = load_glove()
table = EmbeddingTable(glove.words[:20_000], glove.vectors[:20_000])
news = load_bbc_news()
headlines = [re.findall(r"\w+", text.split("\n")[0].lower()) for text in news.data]
train, test, train_labels, test_labels = train_test_split(
    headlines, news.target, test_size=500, stratify=news.target, random_state=0
)
print(train_labels[0], "|", *train[0])

# %%
# A head
# ------
#
# A class, or any callable, of ``(n_dims, n_outputs)``. It reads padded vectors, and a mask that is
# True where there is a word.

import torch
from torch import nn

from skadacomp import AdaptiveCodebookCompressor


class Attention(nn.Module):
    def __init__(self, n_dims, n_outputs):
        super().__init__()
        self.score = nn.Linear(n_dims, 1)
        self.classify = nn.Linear(n_dims, n_outputs)

    def weights(self, vectors, mask):
        scores = self.score(vectors)[..., 0].masked_fill(~mask, -1e9)
        return torch.softmax(scores, -1)  # (n_documents, n_places)

    def forward(self, vectors, mask):
        pooled = (self.weights(vectors, mask)[..., None] * vectors).sum(-2)
        return self.classify(pooled)


compressor = AdaptiveCodebookCompressor(table, head=Attention, max_iter=10, random_state=0)
compressor.fit(train, train_labels)
print("compression ratio:", round(compressor.compression_ratio_))

# %%
# The same module on the compressed table
# ---------------------------------------
#
# :class:`~skadacomp.nn.CodebookEmbedding` stands where :class:`torch.nn.Embedding` would; the head
# is trained afresh, once on each.

import numpy as np

from skadacomp.nn import CodebookEmbedding

classes = sorted(set(news.target))
PADDING = table.n_words - 1  # any row will do, for the mask covers it


def padded(documents):
    rows = [[table.index[word] for word in words if word in table.index] for words in documents]
    ids = np.full((len(rows), max(map(len, rows))), PADDING)
    mask = np.zeros(ids.shape, dtype=bool)
    for i, known in enumerate(rows):
        ids[i, : len(known)], mask[i, : len(known)] = known, True
    mask[~mask.any(1), 0] = True  # a headline without a known word looks at the padding
    return torch.tensor(ids), torch.tensor(mask)


def trained(embedding):
    torch.manual_seed(0)
    head = Attention(table.n_dims, len(classes))
    ids, mask = padded(train)
    vectors = embedding(ids).detach()
    y = torch.tensor([classes.index(label) for label in train_labels])
    optimizer = torch.optim.Adam(head.parameters(), lr=1e-2, weight_decay=1e-4)
    for _ in range(150):
        loss = nn.functional.cross_entropy(head(vectors, mask), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return head


ids, mask = padded(test)
original = nn.Embedding.from_pretrained(torch.tensor(table.vectors))
compressed = CodebookEmbedding.from_compressed(compressor)
heads = {}
for name, embedding, nbytes in (
    ("original", original, table.nbytes),
    ("compressed", compressed, compressor.nbytes_),
):
    heads[name] = trained(embedding)
    found = heads[name](embedding(ids), mask).argmax(1).numpy()
    accuracy = (np.array(classes)[found] == test_labels).mean()
    print(f"{name:12}accuracy {accuracy:.3f}{nbytes:12,} bytes")

# %%
# What it looks at
# ----------------

weights = heads["compressed"].weights(compressed(ids), mask).detach().numpy()
for words, row in list(zip(test, weights, strict=True))[:5]:
    known = [word for word in words if word in table.index]
    parts = zip(known, row[: len(known)], strict=True)
    print("  ".join(f"{word} {weight:.2f}" for word, weight in parts))
