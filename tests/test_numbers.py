"""Numbers at their edges: the same codes from every form of a table, and never a NaN."""

import os
import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils._param_validation import InvalidParameterError
from torch import nn

from skadacomp import AdaptiveCodebookCompressor, CompressedTable, EmbeddingTable
from skadacomp._learning import axes

N_WORDS, N_DIMS = 120, 6
RANDOM = np.random.default_rng(0)
VECTORS = RANDOM.normal(size=(N_WORDS, N_DIMS)).astype(np.float32)
DOCUMENTS = RANDOM.integers(0, N_WORDS, (60, 6)).tolist()
LABELS = np.array([VECTORS[document, 0].mean() > 0 for document in DOCUMENTS])


def compressor(**parameters):
    defaults = {"code_lengths": (0, 1, 2), "max_iter": 3, "random_state": 0, "device": "cpu"}
    return AdaptiveCodebookCompressor(**{**defaults, **parameters})


def fitted(vectors=VECTORS, documents=DOCUMENTS, labels=LABELS, **parameters):
    return compressor(**parameters).fit(vectors, documents, labels)


def assert_finite(found):
    assert np.isfinite(found.codebooks_).all()
    for name, figures in found.history_.items():
        assert np.isfinite(figures).all(), name
    vectors = found.compressed_.vectors(np.arange(found.compressed_.n_words))
    assert np.isfinite(vectors).all()
    assert np.isfinite(found.transform([[], [0]]).data).all()


def assert_same(one, other):
    np.testing.assert_array_equal(one.codes_, other.codes_)
    np.testing.assert_array_equal(one.codebooks_, other.codebooks_)


@pytest.fixture(scope="module")
def usual():
    return fitted()


# ---------------------------------------------------------------------------------------------
# The same codes


def mapped(vectors, tmp_path):
    np.save(tmp_path / "table.npy", vectors)
    return np.load(tmp_path / "table.npy", mmap_mode="r")


def read_only(vectors, tmp_path):
    vectors = vectors.copy()
    vectors.flags.writeable = False
    return vectors


FORMS = {
    "float64": lambda vectors, path: vectors.astype(np.float64),
    "long double": lambda vectors, path: vectors.astype(np.longdouble),
    "big-endian float32": lambda vectors, path: vectors.astype(">f4"),
    "big-endian float64": lambda vectors, path: vectors.astype(">f8"),
    "Fortran order": lambda vectors, path: np.asfortranarray(vectors),
    "every other column": lambda vectors, path: np.repeat(vectors, 2, axis=1)[:, ::2],
    "backwards": lambda vectors, path: vectors[::-1].copy()[::-1],
    "read-only": read_only,
    "memory-mapped": mapped,
    "memory-mapped, Fortran order": lambda v, path: mapped(np.asfortranarray(v), path),
    "memory-mapped, big-endian": lambda vectors, path: mapped(vectors.astype(">f4"), path),
    "lists": lambda vectors, path: vectors.tolist(),
    "a frame": lambda vectors, path: pd.DataFrame(vectors),
    "a table": lambda vectors, path: EmbeddingTable(None, vectors),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_table_in_any_form_gives_the_same_codes(form, usual, tmp_path):
    given = FORMS[form](VECTORS, tmp_path)
    assert_same(fitted(given), usual)
    np.testing.assert_array_equal(
        usual.transform(given).toarray(), usual.transform(VECTORS).toarray()
    )


@pytest.mark.parametrize("dtype", [np.complex64, "U8", "datetime64[s]"])
def test_what_is_no_real_number_is_refused(dtype):
    with pytest.raises((TypeError, ValueError), match=r"(?i)complex|real numbers|numeric|dtype"):
        fitted(np.ones((N_WORDS, N_DIMS)).astype(dtype))


PROCESS = """
import hashlib, sys
import numpy as np
import torch
import skadacomp
if len(sys.argv) > 1:
    torch.set_num_threads(int(sys.argv[1]))
random = np.random.default_rng(0)
vectors = random.normal(size=(1500, 32)).astype(np.float32)
documents = random.integers(0, 800, (200, 8)).tolist()
labels = [bool(vectors[document, 0].mean() > 0) for document in documents]
for head in ("linear", "convolutional"):
    found = skadacomp.AdaptiveCodebookCompressor(head=head, max_iter=1, random_state=0)
    found.fit(vectors, documents, labels)
    print(hashlib.sha256(found.codes_.tobytes() + found.codebooks_.tobytes()).hexdigest())
"""


def test_processes_and_numbers_of_threads_give_the_same_codes(capsys, monkeypatch):
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    n_threads = "3" if os.environ.get("OMP_NUM_THREADS") == "1" else "1"  # other than here
    found = [
        subprocess.run(
            [sys.executable, "-c", PROCESS, *arguments],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        for arguments, environment in (
            ([], {**dict.fromkeys(names, n_threads), "PYTHONHASHSEED": "7"}),
            (["2"], {}),
        )
    ]
    monkeypatch.setattr(sys, "argv", ["pytest"])
    exec(PROCESS, {})
    here = capsys.readouterr().out.split()
    assert len(here) == 2
    assert found == [here] * 2


# ---------------------------------------------------------------------------------------------
# Tables and tasks at their edges


def with_constant_column():
    vectors = VECTORS.copy()
    vectors[:, 2] = 5
    return vectors


def with_zero_rows():
    vectors = VECTORS.copy()
    vectors[::2] = 0
    return vectors


def with_outlier():
    vectors = VECTORS.copy()
    vectors[3] = 1e20
    return vectors


TABLES = {
    "a constant column": with_constant_column(),
    "all rows equal": np.ones((N_WORDS, N_DIMS)),
    "all zeros": np.zeros((N_WORDS, N_DIMS)),
    "zero vectors": with_zero_rows(),
    "an outlier": with_outlier(),
    "one dimension": VECTORS[:, :1],
    "more dimensions than words": np.random.default_rng(1).normal(size=(N_WORDS, 400)),
    "tiny": VECTORS * np.float32(1e-30),
    "huge": VECTORS * np.float32(1e29),
    "far from 0": VECTORS + np.float32(1e6),
}


@pytest.mark.parametrize("with_task", [True, False])
@pytest.mark.parametrize("name", TABLES)
def test_strange_tables_are_compressed(name, with_task):
    task = (DOCUMENTS, LABELS) if with_task else ()
    found = compressor().fit(TABLES[name], *task)
    assert_finite(found)
    assert found.codes_.shape[0] == N_WORDS


def test_one_word():
    assert_finite(compressor().fit(VECTORS[:1]))
    assert_finite(fitted(VECTORS[:1], [[0], [0, 0], [0]], [0, 1, 0]))


def test_numbers_too_large_to_compute_with_are_refused():
    vectors = VECTORS.copy()
    vectors[3, 1] = -2e30
    with pytest.raises(ValueError, match=r"-2e\+30 at row 3, column 1.*1e\+30 at most"):
        fitted(vectors)


def test_numbers_too_small_to_compute_with_are_refused():
    with pytest.raises(ValueError, match=r"4\.\d+e-40, .*Scale the table"):
        fitted(VECTORS * np.float32(1e-40) / np.abs(VECTORS).max() * 4.5)


@pytest.mark.parametrize(
    "parameters", [{}, {"max_bytes": 45_000}, {"init": "random"}, {"n_components": 20}]
)
def test_10_000_dimensions(tmp_path, parameters):
    vectors = np.random.default_rng(0).normal(size=(N_WORDS, 10_000)).astype(np.float32)
    found = fitted(vectors, max_iter=1, **parameters)
    assert_finite(found)
    assert found.codebooks_.shape[2] == 10_000
    rank = np.linalg.matrix_rank(found.codebooks_.reshape(-1, 10_000))
    assert rank <= parameters.get("n_components", N_WORDS)
    some = vectors[[0, 49]]
    np.testing.assert_array_equal(
        found.transform(some).toarray(), found.transform(vectors).toarray()[[0, 49]]
    )
    found.compressed_.save(tmp_path / "wide.safetensors")
    opened = CompressedTable.open(tmp_path / "wide.safetensors")
    assert opened.file_nbytes <= parameters.get("max_bytes", np.inf)
    np.testing.assert_array_equal(opened.vectors([0, 49]), found.compressed_.vectors([0, 49]))


def test_a_wide_table_is_learned_along_the_axes_of_its_rows(monkeypatch):
    """As well as it is in all its dimensions."""
    vectors = np.random.default_rng(0).normal(size=(60, 200)).astype(np.float32)
    documents = [[word % 60 for word in document] for document in DOCUMENTS]
    labels = [bool(vectors[document, 0].mean() > 0) for document in documents]
    new = np.random.default_rng(1).normal(size=(40, 200)).astype(np.float32)

    def errors(found):
        return [
            np.square(given - found.inverse_transform(found.transform(given))).mean()
            for given in (vectors, new)
        ]

    usual = [fitted(vectors, *task, max_iter=20) for task in ((documents, labels), (None, None))]
    monkeypatch.setattr(axes, "_WIDE", 100)
    wide = [fitted(vectors, *task, max_iter=20) for task in ((documents, labels), (None, None))]
    for one, other in zip(usual, wide, strict=True):
        assert not np.array_equal(one.codebooks_, other.codebooks_)
        np.testing.assert_allclose(errors(one), errors(other), rtol=0.05)
        assert one.code_lengths_.sum() > 0


def test_a_head_of_ones_own_reads_all_dimensions_of_a_wide_table():
    widths = []

    def make(n_dims, n_outputs):
        widths.append(n_dims)
        return Spoiled(n_dims, n_outputs, step=-1)

    vectors = np.random.default_rng(0).normal(size=(N_WORDS, 600)).astype(np.float32)
    assert_finite(fitted(vectors, head=make, max_iter=1))
    assert set(widths) == {600}


@pytest.mark.parametrize("n_classes", [2, 1_000])
def test_numbers_of_classes(n_classes):
    documents = RANDOM.integers(0, N_WORDS, (2_000, 6)).tolist()
    assert_finite(fitted(documents=documents, labels=np.arange(2_000) % n_classes, max_iter=1))


@pytest.mark.parametrize("n_rare", [1, 2])
def test_extreme_imbalance(n_rare):
    documents = RANDOM.integers(0, N_WORDS, (2_000, 6)).tolist()
    labels = np.zeros(2_000, int)
    labels[:n_rare] = 1
    assert_finite(fitted(documents=documents, labels=labels, max_iter=1))


@pytest.mark.parametrize(
    "labels",
    [
        LABELS,
        LABELS.tolist(),
        LABELS.astype(int),
        LABELS.astype(">i8"),
        LABELS.astype(np.uint8),
        LABELS.astype(float),
        LABELS.astype(str),
        LABELS.astype(object),
        LABELS.astype(int).astype(object),
        LABELS.astype(str).astype(object),
        pd.Series(LABELS.astype(int), dtype="Int64"),
        pd.Categorical(LABELS),
    ],
    ids=lambda labels: f"{type(labels).__name__} of {getattr(labels, 'dtype', 'bool')}",
)
def test_labels_of_any_type_give_the_same_codes(labels, usual):
    assert_same(fitted(labels=labels), usual)


@pytest.mark.parametrize("odd", [None, 1, np.nan])
def test_labels_of_several_types_are_refused(odd):
    labels = np.array(["up", odd] * 30, object)
    with pytest.raises(ValueError, match=f"holds {type(odd).__name__}, str"):
        fitted(labels=labels)


def test_one_document():
    with pytest.raises(ValueError, match="one class only"):
        fitted(documents=[[0, 1]], labels=["up"])
    with pytest.raises(ValueError, match="nothing to learn"):
        fitted(documents=[[0, 1]], labels=[0.5])
    assert_finite(fitted(documents=[[0, 1], [2]], labels=["up", "down"]))


def test_documents_of_no_word_and_of_a_million():
    long = RANDOM.integers(0, N_WORDS, 1_000_000).tolist()
    found = fitted(documents=[*DOCUMENTS, [], long], labels=[*LABELS, True, False])
    assert_finite(found)
    rows = found.transform([[], long])
    assert rows[0].nnz == 0
    assert np.isfinite(rows.data).all()


@pytest.mark.parametrize("pooling", ["mean", "sum"])
@pytest.mark.parametrize("weight", [1e38, 1e-38, -1.0])
def test_weights_of_documents_at_their_edges(weight, pooling):
    counts = sparse.csr_matrix(
        (np.full(360, weight), np.ravel(DOCUMENTS), np.arange(0, 361, 6)), shape=(60, N_WORDS)
    )
    assert_finite(fitted(documents=counts, pooling=pooling))


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_values_of_any_size_are_learned(scale):
    values = [float(VECTORS[document].mean() * scale) for document in DOCUMENTS]
    assert_finite(fitted(labels=values))


# ---------------------------------------------------------------------------------------------
# A loss that diverges


@pytest.mark.parametrize("head", ["linear", "convolutional"])
@pytest.mark.parametrize("length_method", ["gumbel-softmax", "rate-distortion"])
def test_an_absurd_learning_rate_is_caught_and_said(head, length_method):
    with pytest.warns(ConvergenceWarning, match="not finite in epoch 1.*tenth") as warned:
        found = fitted(head=head, length_method=length_method, learning_rate=1e30)
    assert len(warned) == 1
    assert_finite(found)


def test_an_absurd_learning_rate_without_a_task_and_in_the_plain_form():
    for task, parameters in (((), {}), ((DOCUMENTS, LABELS), {"init": "random"})):
        with pytest.warns(ConvergenceWarning, match="not finite"):
            found = compressor(learning_rate=1e30, **parameters).fit(VECTORS, *task)
        assert_finite(found)


def test_a_large_learning_rate_costs_no_more_than_the_training():
    """What training spoils is thrown away: what comes out is as good as before it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        found = fitted(learning_rate=1e30)
    none = fitted(learning_rate=1e-30)
    np.testing.assert_allclose(found.history_["loss"][-1], none.history_["loss"][-1], rtol=1e-3)


@pytest.mark.parametrize("name", ["learning_rate", "size_penalty", "reconstruction_weight"])
@pytest.mark.parametrize("value", [1e31, np.inf, np.nan])
def test_parameters_beyond_float32_are_refused(name, value):
    with pytest.raises(InvalidParameterError, match=name):
        fitted(**{name: value})


class Spoiled(nn.Module):
    """A head whose loss is NaN in one step of training, or always."""

    def __init__(self, n_dims, n_outputs, step=None):
        super().__init__()
        self.linear = nn.Linear(n_dims, n_outputs)
        self.n_steps, self.step = 0, step

    def forward(self, vectors, mask):
        return self.linear((vectors * mask[..., None]).sum(1) / mask.sum(1, keepdim=True))

    def loss(self, outputs, targets):
        self.n_steps += self.training
        spoiled = self.step is None or (self.training and self.n_steps == self.step)
        return (torch.nan if spoiled else 1.0) * nn.functional.cross_entropy(outputs, targets)


def test_a_head_that_gives_nan_half_way_is_caught():
    with pytest.warns(ConvergenceWarning, match="fine-tuning was not finite in epoch 2"):
        found = fitted(head=lambda n_dims, n_outputs: Spoiled(n_dims, n_outputs, 3))
    assert_finite(found)


def test_a_head_that_never_gives_a_number_is_refused():
    with pytest.raises(ValueError, match=r"loss of fine-tuning is not finite.*head of your own"):
        fitted(head=Spoiled)
