"""Files made to do harm: refused by name, at once, and without memory for what they only claim.

`fuzz/run.py` searches for more; what it found is here.
"""

import json
import pickle
import random
import subprocess
import sys
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from fuzz.targets import Judge, mutated, signed, tables, use_table, valid_files
from hypothesis import given, settings
from hypothesis import strategies as st

from skadacomp import CompressedTable, EmbeddingTable, FormatError, FrozenClassifier
from skadacomp.cli import main

KINDS = [
    ".shipped",
    ".frozen",
    ".txt",
    ".vec",
    ".txt.gz",
    ".txt.bz2",
    ".txt.xz",
    ".zip",
    ".npy",
    ".safetensors",
    ".words.json",
    ".bin",
    ".tokenizer.json",
    ".index.json",
    ".tsv",
    ".csv",
]


@pytest.fixture(scope="module")
def contents(tmp_path_factory):
    found = valid_files(tmp_path_factory.mktemp("valid"))
    assert list(found) == KINDS
    return found


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    return Judge(tmp_path_factory.mktemp("judged"))


@pytest.mark.parametrize("kind", KINDS)
def test_spoiled_files_are_refused_or_hold(judge, contents, kind):
    before = judge.n_refused

    @settings(max_examples=100, deadline=None, database=None)
    @given(seed=st.integers(0, 2**32), memory=st.booleans())
    def try_one(seed, memory):
        content = mutated(random.Random(seed), kind, contents)
        found = judge.judge(kind, content, memory=memory)
        # A processor that others use too may be slow; the fuzzer measures seconds.
        assert found is None or found.what.endswith(" s"), found

    try_one()
    assert judge.n_refused > before


def parts(content):
    n_header = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + n_header]), content[8 + n_header :]


def joined(header, data):
    text = json.dumps(header).encode()
    return signed(len(text).to_bytes(8, "little") + text + data)


def test_a_file_signed_anew_is_looked_at_as_closely(contents, tmp_path):
    """The checksum finds accidents, and anybody can write it."""
    path = tmp_path / "words.safetensors"
    header, data = parts(contents[".shipped"][0])
    path.write_bytes(joined(header, data))
    use_table(CompressedTable.open(path))
    for key, value in (("counts", "1 2 3"), ("candidates", "0 2 5")):
        spoiled = {**header, "__metadata__": {**header["__metadata__"], key: value}}
        path.write_bytes(joined(spoiled, data))
        with pytest.raises(FormatError, match=r"words\.safetensors: tensors: .*code"):
            CompressedTable.open(path)


@pytest.mark.parametrize("which", range(4))
@pytest.mark.parametrize("n_rows", [10**7, 10**9, 10**12, 10**17])
def test_rows_that_are_only_claimed_take_no_memory(contents, tmp_path, capsys, which, n_rows):
    path = tmp_path / "words.safetensors"
    header, data = parts(contents[".shipped"][which])
    metadata = header["__metadata__"]
    first, *others = metadata["counts"].split(" ")
    metadata["counts"] = " ".join([str(int(first) + n_rows), *others])
    path.write_bytes(joined(header, data))
    tracemalloc.start()
    try:
        with pytest.raises(FormatError, match=r"words\.safetensors: "):
            use_table(CompressedTable.open(path))
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()
    assert main(["info", str(path)]) == 1
    assert "words.safetensors" in capsys.readouterr().err


def test_rows_that_are_all_alike_are_bounded(tmp_path):
    """They take no bits, so that the bytes of a file do not bound them."""
    path = tmp_path / "words.safetensors"
    books = np.ones((2, 2, 3))
    CompressedTable.from_codes(np.zeros((5, 2), int), books, np.zeros(3), code_lengths=(2,)).save(
        path
    )
    header, data = parts(path.read_bytes())
    for n_rows in (10**6, 10**9):
        header["__metadata__"]["counts"] = str(n_rows)
        path.write_bytes(joined(header, data))
        if n_rows == 10**6:
            use_table(CompressedTable.open(path))
            continue
        with pytest.raises(FormatError, match=r"more rows than .* bytes can tell of"):
            CompressedTable.open(path)


def test_an_npy_header_that_claims_to_be_long_takes_no_memory(tmp_path):
    path = tmp_path / "table.npy"
    path.write_bytes(b"\x93NUMPY\x03\x00" + (2**30).to_bytes(4, "little") + b"{'descr'")
    tracemalloc.start()
    try:
        with pytest.raises(FormatError, match=r"table\.npy: its header of 1073741824 bytes"):
            EmbeddingTable.open(path)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("t.txt", b"a 1 2\nb nan 2\n", r"t\.txt: The embedding table holds NaN at row 1"),
        ("t.txt", b"a 1 2\n\xff 1 2\n", r"t\.txt, line 2: .* not UTF-8"),
        ("t.npy", b"", r"t\.npy"),
        ("t.zip", b"PK\5\6" + bytes(18), r"t\.zip"),
    ],
)
def test_what_is_wrong_with_a_table_names_its_file(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FormatError, match=said):
        EmbeddingTable.open(tmp_path / name)


@pytest.mark.parametrize(
    "words",
    [b"[1, 2]", b'["a", null]', b'{"words": "ab"}', b'["a", "a"]', b"[" * 10**5, b'["a", "\xff"]'],
)
def test_words_that_are_none_name_their_file(tmp_path, words):
    np.save(tmp_path / "t.npy", np.ones((2, 3), np.float32))
    (tmp_path / "t.words.json").write_bytes(words)
    with pytest.raises(FormatError, match=r"t\.(words\.json|npy)"):
        EmbeddingTable.open(tmp_path / "t.npy")


def test_a_bomb_within_an_archive_takes_no_memory(tmp_path):
    path = tmp_path / "t.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("t.txt", b"0" * 2**27)
    tracemalloc.start()
    try:
        with pytest.raises(FormatError, match="unpacks to more than"):
            EmbeddingTable.open(path)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


_HOOKED = """
import pickle, sys, tempfile
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from fuzz.targets import Judge
seen = []
sys.addaudithook(lambda event, given: seen.append(event) if event == "pickle.find_class" else None)
pickle.loads(pickle.dumps(Path("a")))
assert seen, "the hook sees nothing"
seen.clear()
with tempfile.TemporaryDirectory() as folder:
    judge = Judge(Path(folder))
print(judge.n_tried, *seen)
"""


def test_nothing_is_unpickled(contents):
    """Python tells a hook of every class that a pickle names; opening all kinds tells of none."""
    child = subprocess.run(
        [sys.executable, "-c", _HOOKED, str(Path(__file__).parent)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert child.stdout.split() == [str(sum(map(len, contents.values())))]


class Harm:
    """Does harm when it is unpickled."""

    def __reduce__(self):
        return exec, ("raise SystemExit('harm is done')",)


@pytest.mark.parametrize("name", ["t.npy", "t.txt", "t.bin", "t.safetensors", "t.txt.gz", "t.zip"])
def test_a_pickle_by_another_name_is_refused_and_not_run(tmp_path, name):
    path = tmp_path / name
    if name == "t.npy":
        np.save(path, np.array([[Harm()]], object), allow_pickle=True)
    else:
        path.write_bytes(pickle.dumps(Harm()))
    for open_one in (EmbeddingTable.open, CompressedTable.open, FrozenClassifier.open):
        with pytest.raises(FormatError, match=name):
            open_one(path)


def test_what_a_file_gives_is_what_was_written(tmp_path):
    """Words of any characters, and vectors to the last bit."""
    for number, table in enumerate(tables()):
        path = tmp_path / f"{number}.safetensors"
        table.save(path)
        opened = CompressedTable.open(path)
        rows = np.arange(table.n_words)
        np.testing.assert_array_equal(opened.vectors(rows), table.vectors(rows))
        assert opened.words == table.words
