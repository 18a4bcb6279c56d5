"""On a dask cluster of two worker processes: blocks of rows and of documents, and grid search."""

import sys

import joblib
import numpy as np
import pytest
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline

from skadacomp import AdaptiveCodebookCompressor

da = pytest.importorskip("dask.array")
distributed = pytest.importorskip("distributed")

# What a cluster says of a slow disk, and of a machine without a network.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Creating scratch directories is taking:UserWarning"),
    pytest.mark.filterwarnings("ignore:Couldn't detect a suitable IP address:RuntimeWarning"),
]

QUICK = {"max_iter": 2, "random_state": 0}


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    given = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    folder = tmp_path_factory.mktemp("workers")
    with (
        distributed.LocalCluster(**given, local_directory=str(folder)) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def fitted(table, task):
    return AdaptiveCodebookCompressor(**QUICK).fit(table, *task)


def has_imported_torch():
    return "torch" in sys.modules


def workers_of(client, array):
    """Addresses of the workers that hold blocks of a computed array."""
    held = array.persist()
    distributed.wait(held)
    return {worker for workers in client.who_has(held).values() for worker in workers}


def test_blocks_of_rows_become_code_features_and_vectors(client, table, fitted):
    rows = da.from_array(np.asarray(table.vectors), chunks=(60, -1))
    features = rows.map_blocks(
        fitted.transform,
        dtype=np.float32,
        chunks=(rows.chunks[0], (len(fitted.get_feature_names_out()),)),
        meta=sparse.csr_matrix((0, 0), dtype=np.float32),
    )
    vectors = features.map_blocks(
        fitted.inverse_transform, dtype=np.float32, chunks=rows.chunks, meta=np.empty((0, 0), "f4")
    )
    assert len(workers_of(client, vectors)) == 2
    found = features.compute()
    assert sparse.issparse(found)
    assert abs(found - fitted.transform(table)).max() == 0
    whole = fitted.inverse_transform(fitted.transform(table))
    np.testing.assert_array_equal(vectors.compute(), whole)


def test_blocks_of_rows_become_vectors_at_once(client, table, task):
    fitted = AdaptiveCodebookCompressor(output="vectors", **QUICK).fit(table, *task)
    # Rows that the table lacks, too: workers encode them as this process does.
    both = np.vstack([table.vectors, table.vectors + np.float32(0.01)])
    rows = da.from_array(both, chunks=(100, -1))
    vectors = rows.map_blocks(fitted.transform, dtype=np.float32, meta=np.empty((0, 0), "f4"))
    assert vectors.shape == both.shape
    np.testing.assert_array_equal(vectors.compute(), fitted.transform(both))


def test_blocks_of_documents(client, task, fitted):
    texts = da.from_array(np.array(task[0], dtype=object), chunks=50)
    features = texts.map_blocks(
        fitted.transform,
        dtype=np.float32,
        new_axis=1,
        chunks=(texts.chunks[0], (len(fitted.get_feature_names_out()),)),
        meta=sparse.csr_matrix((0, 0), dtype=np.float32),
    )
    assert features.shape == (len(task[0]), 8 * 16 + 1)
    assert abs(features.compute() - fitted.transform(task[0])).max() == 0


def test_a_grid_search_runs_on_the_workers(client, table, task):
    steps = [
        ("compressor", AdaptiveCodebookCompressor(embeddings=table, **QUICK)),
        ("classifier", LogisticRegression()),
    ]
    grid = {"compressor__code_lengths": [(0, 2), (0, 2, 4)]}
    here = GridSearchCV(Pipeline(steps), grid, cv=2, error_score="raise").fit(*task)
    there = GridSearchCV(Pipeline(steps), grid, cv=2, error_score="raise")
    with joblib.parallel_config("dask", n_jobs=-1):
        there.fit(*task)
    for name in ("mean_test_score", "std_test_score"):
        np.testing.assert_array_equal(there.cv_results_[name], here.cv_results_[name])
    assert there.best_params_ == here.best_params_
    np.testing.assert_array_equal(there.predict(task[0]), here.predict(task[0]))
    # Fitted there: torch is for fit alone.
    assert any(client.run(has_imported_torch).values())
