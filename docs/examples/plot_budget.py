"""
Choose a size: a grid search and its curve
==========================================

How small may a table be before the classifier suffers? A grid search over ``size_penalty`` answers
for one's own task: each candidate is scored for accuracy and for bytes, on parts of the documents
that it has not seen.
"""

# %%
# The table and the task
# ----------------------
#
# Articles of the BBC's news site, and the first 10,000 words of GloVe, so that many fits are quick.

from sklearn.model_selection import train_test_split

from skadacomp import EmbeddingTable
from skadacomp.datasets import load_bbc_news, load_glove

glove = load_glove()
table = EmbeddingTable(glove.words[:10_000], glove.vectors[:10_000])
news = load_bbc_news()
train_texts, test_texts, train_labels, test_labels = train_test_split(
    news.data, news.target, train_size=400, stratify=news.target, random_state=0
)

# %%
# Two scorers
# -----------
#
# A candidate is a pipeline, and every fold compresses the table anew: the search splits the
# documents and never the table. Beside the accuracy it scores minus the bytes of the file.

from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline

from skadacomp import AdaptiveCodebookCompressor
from skadacomp.metrics import n_bytes

compressor = AdaptiveCodebookCompressor(table, max_iter=5, output="vectors", random_state=0)
pipe = Pipeline(
    [("compressor", compressor), ("classifier", LogisticRegression(C=10, max_iter=1000))]
)
search = GridSearchCV(
    pipe,
    {"compressor__size_penalty": [0.5, 0.2, 0.05, 0.01]},
    scoring={"accuracy": "accuracy", "n_bytes": n_bytes},
    refit="accuracy",
    cv=3,
)
search.fit(train_texts, train_labels)

# %%
# The curve
# ---------
#
# Beside it the same classifier with the table as it was, on the same folds. Bars are standard
# deviations over the folds, and the ring is around the candidate with the best mean. Where bars
# overlap by far, the folds cannot tell candidates apart, and the smaller is as good a choice.

from sklearn.feature_extraction.text import CountVectorizer
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, Normalizer

from skadacomp.display import SizeAccuracyDisplay

original = make_pipeline(
    CountVectorizer(vocabulary=table.index),
    Normalizer("l1"),
    FunctionTransformer(lambda shares: shares @ table.vectors),
    LogisticRegression(C=10, max_iter=1000),
)
full_precision = cross_val_score(original, train_texts, train_labels, cv=3).mean()
display = SizeAccuracyDisplay.from_estimator(search, full_precision=full_precision)

# %%
# On new documents
# ----------------
#
# The search refitted its best candidate on all training documents.

original.fit(train_texts, train_labels)
chosen = search.best_estimator_["compressor"]
print("chosen:", search.best_params_)
print(f"{'':12}{'accuracy':>10}{'bytes':>12}")
print(f"{'original':12}{original.score(test_texts, test_labels):10.3f}{table.nbytes:12,}")
accuracy = search.best_estimator_.score(test_texts, test_labels)
print(f"{'compressed':12}{accuracy:10.3f}{chosen.compressed_.file_nbytes:12,}")

# %%
# Beside other methods
# --------------------
#
# The same picture holds methods side by side. Here the candidates stand beside the plainest of
# alternatives: fewer words of the table, each at full precision. Of those only the vectors are
# counted, and not the words.

import numpy as np

n_words = np.array([100, 300, 1000, 3000, 10_000])
scores = [
    cross_val_score(
        make_pipeline(
            CountVectorizer(vocabulary=table.words[:n]),
            Normalizer("l1"),
            FunctionTransformer(lambda shares, n=n: shares @ table.vectors[:n]),
            LogisticRegression(C=10, max_iter=1000),
        ),
        train_texts,
        train_labels,
        cv=3,
    )
    for n in n_words
]
results = search.cv_results_
display = SizeAccuracyDisplay.from_points(
    np.append(-results["mean_test_n_bytes"], 4 * n_words * table.n_dims),
    np.append(results["mean_test_accuracy"], np.mean(scores, axis=1)),
    scores_std=np.append(results["std_test_accuracy"], np.std(scores, axis=1)),
    methods=["skadacomp"] * len(search.cv_results_["params"]) + ["first words"] * len(n_words),
    score_name="accuracy",
    full_precision=full_precision,
)
