"""
Learn codes in a training loop of your own
==========================================

:class:`~skadacomp.nn.AdaptiveCodebookEmbedding` takes the place of :class:`torch.nn.Embedding`
while a model trains. Code lengths and codes are learned with everything else, and what is left at
the end is a layer that holds codes.
"""

# %%
# Row ids and classes
# -------------------
#
# The beginnings of news articles, as rows of GloVe's first 10,000 words.

import numpy as np
import torch
from sklearn.model_selection import train_test_split
from torch import nn

from skadacomp.datasets import load_bbc_news, load_glove

glove = load_glove()
news = load_bbc_news()
weight = torch.tensor(glove.vectors[:10_000])
index = {word: row for row, word in enumerate(glove.words[:10_000])}
rows = [[index[word] for word in text.lower().split() if word in index][:60] for text in news.data]
ids = torch.tensor([row + [0] * (60 - len(row)) for row in rows])  # row 0 is "the"
classes, y = np.unique(news.target, return_inverse=True)
y = torch.tensor(y)
train, test = train_test_split(np.arange(len(y)), test_size=500, stratify=y, random_state=0)

# %%
# A model, twice
# --------------
#
# Once with a plain embedding, once with one that learns codes. The loop is the same but for three
# things: ``size_loss()`` joins the loss, ``temperature`` falls from 1 to 0.3, and ``harden()`` ends
# it.

from skadacomp.nn import AdaptiveCodebookEmbedding


def model_of(embedding):
    torch.manual_seed(0)
    return nn.Sequential(embedding, Mean(), nn.Linear(50, len(classes)))


class Mean(nn.Module):
    def forward(self, vectors):
        return vectors.mean(1)


def fit(model, n_epochs=20):
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    embedding = model[0]
    adaptive = isinstance(embedding, AdaptiveCodebookEmbedding)
    for epoch in range(n_epochs):
        if adaptive:
            embedding.temperature = 0.3 ** (epoch / (n_epochs - 1))
        for batch in np.array_split(np.random.default_rng(epoch).permutation(train), 25):
            loss = nn.functional.cross_entropy(model(ids[batch]), y[batch])
            if adaptive:
                loss = loss + embedding.size_loss()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    if adaptive:
        model[0] = embedding.harden()
    return model


def accuracy(model):
    with torch.no_grad():
        return (model(ids[test]).argmax(1) == y[test]).double().mean().item()


plain = fit(model_of(nn.Embedding.from_pretrained(weight.clone(), freeze=False)))
adaptive = AdaptiveCodebookEmbedding.from_pretrained(weight)
coded = fit(model_of(adaptive))

# %%
# What the layer holds
# --------------------

layer = coded[0]
print(layer)
nbytes = sum(part.numel() * part.element_size() for part in layer.state_dict().values())
print(f"{'plain':8}accuracy {accuracy(plain):.3f}{4 * weight.numel():12,} bytes")
print(f"{'coded':8}accuracy {accuracy(coded):.3f}{nbytes:12,} bytes in torch")

# %%
# In torch every row has room for the longest code, and codebooks are float32. What ships has
# neither: ``to_compressed`` packs codes at their own lengths and rounds the codebooks, into a file
# that numpy alone reads. Put back into the model, it serves as well.

from skadacomp.nn import CodebookEmbedding

shipped = layer.to_compressed(glove.words[:10_000])
coded[0] = CodebookEmbedding.from_compressed(shipped)
print(f"{'shipped':8}accuracy {accuracy(coded):.3f}{shipped.nbytes:12,} bytes and the words")

# %%
# See :doc:`/torch` for what else the layers can do.
