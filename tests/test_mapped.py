"""Rows of memory-mapped tables: read right, and let go of."""

import sys
from pathlib import Path

import numpy as np
import pytest

from skadacomp import AdaptiveCodebookCompressor, EmbeddingTable
from skadacomp._mapped import mean_row, take_rows

N_WORDS, N_DIMS = 20_000, 100  # 8 MB


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    vectors = np.random.default_rng(0).normal(size=(N_WORDS, N_DIMS)).astype(np.float32)
    path = tmp_path_factory.mktemp("mapped") / "table.npy"
    np.save(path, vectors)
    return path


@pytest.fixture(params=[None, "r", "c", "r+"])
def vectors(request, path):
    """The table in memory, and mapped in all ways that it can be."""
    return np.load(path, mmap_mode=request.param)


@pytest.mark.parametrize(
    "rows",
    [slice(3, 7), slice(N_WORDS - 2, N_WORDS + 9), np.array([5, 5, 0]), np.array([], int)],
    ids=["slice", "beyond the end", "ids", "none"],
)
def test_rows_are_copies(vectors, path, rows):
    whole = np.load(path)
    taken = take_rows(vectors, rows)
    assert type(taken) is np.ndarray
    np.testing.assert_array_equal(taken, whole[rows])
    taken[:] = 0
    np.testing.assert_array_equal(vectors, whole)
    np.testing.assert_allclose(mean_row(vectors), whole.mean(0, dtype=float), atol=1e-12)


def test_what_was_written_to_a_private_map_stays(path):
    vectors = np.load(path, mmap_mode="c")
    vectors[3] = 7
    take_rows(vectors, slice(0, N_WORDS))
    assert (vectors[3] == 7).all()


def resident_bytes(path):
    """Bytes of the mapped file that are in this process's memory."""
    found, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        fields = line.split()
        if "-" in fields[0]:
            inside = fields[-1] == str(path)
        elif inside and fields[0] == "Rss:":
            found += 1024 * int(fields[1])
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux what is in memory")
def test_a_fit_keeps_nothing_of_the_file_in_memory(path):
    table = EmbeddingTable.open(path)
    assert isinstance(table.vectors, np.memmap)
    table.vectors.sum()
    assert resident_bytes(path) > 4 * N_WORDS * N_DIMS / 2
    documents = np.random.default_rng(0).integers(0, 500, (40, 5)).tolist()
    compressor = AdaptiveCodebookCompressor(max_iter=1, random_state=0)
    compressor.fit(table, documents, [0, 1] * 20)
    assert resident_bytes(path) < 4 * N_WORDS * N_DIMS / 20
    # A table of other rows: all are read and encoded.
    compressor.transform(EmbeddingTable(None, table.vectors[::-1][::-1][:-1]))
    assert resident_bytes(path) < 4 * N_WORDS * N_DIMS / 20
