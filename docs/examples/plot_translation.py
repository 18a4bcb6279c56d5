"""
Translate: what a translator needs of a table
=============================================

A translator's source table is as large as its source language, and a narrow translator needs little
of it. This one turns dates and spans of time from English into German. ``y_task`` holds sentences,
and a small recurrent network, which reads the source and writes the target, learns with the codes.
"""

# %%
# Sentences in two languages
# --------------------------
#
# Both sides come from the Unicode consortium's locale data, through Babel: the same date or span,
# written the long way.

from datetime import date, timedelta

import numpy as np
from babel.dates import format_date, format_timedelta

from skadacomp import EmbeddingTable
from skadacomp.datasets import load_glove

glove = load_glove()
table = EmbeddingTable(glove.words[:50_000], glove.vectors[:50_000])
random = np.random.default_rng(0)


def both(day, span):
    """Write a day and the time to it, in English and in German."""
    return tuple(
        f"{format_date(day, 'full', locale=language)}, "
        f"{format_timedelta(span, add_direction=True, threshold=1.2, locale=language)}"
        for language in ("en", "de")
    )


days = [date(2000, 1, 1) + timedelta(days=int(n)) for n in random.integers(0, 9000, 3000)]
spans = [timedelta(hours=int(n)) for n in random.normal(0, 4000, 3000)]
english, german = zip(*map(both, days, spans), strict=True)
print(english[0], "|", german[0])

# %%
# Compress the table for the translator
# -------------------------------------
#
# That ``y_task`` is a translation must be said, for sentences might be classes too. Lists of words
# keep signs and short words, which the default tokenizer of strings leaves out.

import re

from skadacomp import AdaptiveCodebookCompressor

X = [re.findall(r"\w+|[^\w\s]", text.lower()) for text in english]
compressor = AdaptiveCodebookCompressor(table, task="translation", max_iter=10, random_state=0)
compressor.fit(X[:2500], list(german[:2500]), X_val=X[2500:], y_val=list(german[2500:]))
right = compressor.history_["task_score"][-1]
print(f"compression ratio {compressor.compression_ratio_:.0f}, {compressor.nbytes_:,} bytes")
print(f"words foretold rightly in {len(X[2500:])} other translations: {right:.1%}")

# %%
# What the next step gets
# -----------------------
#
# ``transform`` gives lists of words a row for each, in their order; ``skadacomp.nn`` puts the same
# vectors into a torch model in place of its embedding.

import torch

from skadacomp.nn import CodebookEmbedding

print(compressor.transform(X[:1]).shape)
embedding = CodebookEmbedding.from_compressed(compressor.compressed_)
ids = torch.tensor([table.index[word] for word in X[0] if word in table.index])
print(embedding(ids).shape)

# %%
# Which words need long codes
# ---------------------------
#
# Months, weekdays and numbers, and what tells the past from the future.

from skadacomp.display import CodeLengthDisplay

display = CodeLengthDisplay.from_estimator(compressor)
