"""An interrupted fit goes on where it stopped, and comes to what it would have come to."""

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from functools import partial

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

from skadacomp import AdaptiveCodebookCompressor, CompressedTable, EmbeddingTable
from skadacomp._encoder import RowEncoder
from skadacomp._learning import shelf
from skadacomp._learning.checkpoint import Checkpoint, fingerprint
from skadacomp._learning.trainer import Trainer

N_WORDS, N_DIMS = 1000, 8
SETTINGS = {
    "default": {},
    "dropout, trained lengths": {"head": "convolutional", "length_method": "gumbel-softmax"},
    "budget, by frequency": {"max_bytes": 4000, "length_method": "frequency"},
    "plain form": {"init": "random"},
}
# Fine-tuning, three times for a linear head; then lengths, codes and codebooks as the setting says.
N_TRAININGS = {
    "default": 5,
    "dropout, trained lengths": 4,
    "budget, by frequency": 5,
    "plain form": 1,
}


@pytest.fixture(scope="module")
def table():
    vectors = np.random.default_rng(0).normal(size=(N_WORDS, N_DIMS)).astype(np.float32)
    return EmbeddingTable([f"word{i}" for i in range(N_WORDS)], vectors)


@pytest.fixture(scope="module")
def task(table):
    """Documents of the first 200 words; encoding goes over all rows, in blocks of 256."""
    documents = np.random.default_rng(1).integers(0, 200, (80, 6))
    texts = [" ".join(table.words[i] for i in document) for document in documents]
    return texts, table.vectors[documents, 0].mean(1) > 0


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr("skadacomp._encoder._CHUNK", 2048)


def compressor(folder=None, **parameters):
    given = {"max_iter": 3, "random_state": 0, "code_lengths": (0, 2, 4), "checkpoint": folder}
    return AdaptiveCodebookCompressor(**{**given, **parameters})


def assert_same(one, other):
    np.testing.assert_array_equal(one.codes_, other.codes_)
    np.testing.assert_array_equal(one.codebooks_, other.codebooks_)
    assert one.compressed_.words == other.compressed_.words
    assert one.history_.keys() == other.history_.keys()
    for name, figures in one.history_.items():
        np.testing.assert_array_equal(figures, other.history_[name])


def interrupt(monkeypatch, owner, name, call):
    """Let a method be interrupted at its so many-th call, and count its calls."""
    method, calls = getattr(owner, name), []

    def patched(*args, **kwargs):
        calls.append(1)
        if len(calls) == call:
            raise KeyboardInterrupt
        return method(*args, **kwargs)

    monkeypatch.setattr(owner, name, patched)
    return calls


def interrupted(fit, owner, name, call):
    with pytest.MonkeyPatch.context() as patch:
        interrupt(patch, owner, name, call)
        with pytest.raises(KeyboardInterrupt):
            fit()


@pytest.fixture(scope="module")
def whole_fits(table, task):
    """Uninterrupted fits, each made when it is first asked for."""
    made = {}

    def fit(name):
        if name not in made:
            made[name] = compressor(**SETTINGS[name]).fit(table, *task)
        return made[name]

    return fit


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize(
    ("owner", "method", "call"),
    [
        (Trainer, "run", 1),
        (Trainer, "run", 2),
        (Trainer, "run", N_TRAININGS),
        (RowEncoder, "encode", 1),
        (RowEncoder, "encode", 3),
        (RowEncoder, "search", 1),
        (CompressedTable, "from_codes", 1),
    ],
    ids=[
        "training",
        "next training",
        "last training",
        "first block",
        "block",
        "late block",
        "writing",
    ],
)
def test_an_interrupted_fit_goes_on(table, task, whole_fits, tmp_path, name, owner, method, call):
    whole = whole_fits(name)
    fit = partial(compressor(tmp_path / "kept", **SETTINGS[name]).fit, table, *task)
    interrupted(fit, owner, method, call[name] if call is N_TRAININGS else call)
    assert (tmp_path / "kept").exists()
    assert_same(fit(), whole)
    assert not (tmp_path / "kept").exists()


@pytest.mark.parametrize(
    ("owner", "method", "call"), [(RowEncoder, "search", 3), (Trainer, "run", 4)]
)
def test_an_interrupted_search_for_codes_goes_on(table, tmp_path, owner, method, call):
    documents = np.random.default_rng(1).integers(0, 200, (80, 2, 4))
    pairs = [tuple(" ".join(table.words[i] for i in side) for side in pair) for pair in documents]
    y = table.vectors[documents, 0].mean(2)
    make = partial(compressor, length_method="rate-distortion")
    fit = partial(make(tmp_path / "kept").fit, table, pairs, y[:, 0] > y[:, 1])
    interrupted(fit, owner, method, call)
    assert_same(fit(), make().fit(table, pairs, y[:, 0] > y[:, 1]))


def test_what_is_done_is_not_done_again(table, task, tmp_path, monkeypatch):
    def n_calls(name, folder, call):
        """Calls of training and of the block encoder, up to the interruption or to the end."""
        shelf.TEACHERS.clear()  # where another test may have left this fit's
        with monkeypatch.context() as patch:
            trainings = interrupt(patch, Trainer, "run", 0)
            blocks = interrupt(patch, RowEncoder, "encode", 0)
            searches = interrupt(patch, RowEncoder, "search", call)
            try:
                compressor(folder).fit(table, *task)
            except KeyboardInterrupt:
                searches.pop()
        return np.array([len(trainings), len(blocks) + len(searches)])

    whole = n_calls("whole", None, 0)
    first = n_calls("first", tmp_path / "kept", 1)
    # The table is encoded, all is trained (fine-tuning three times), and rows are missing.
    assert first.tolist() == [5, 4]
    second = n_calls("second", tmp_path / "kept", 0)
    np.testing.assert_array_equal(first + second, whole)


def test_without_an_interruption_nothing_differs(table, task, whole_fits, tmp_path):
    fitted = compressor(str(tmp_path / "kept")).fit(table, *task)
    assert_same(fitted, whole_fits("default"))
    assert not (tmp_path / "kept").exists()


def test_without_a_task_it_goes_on_too(table, tmp_path):
    fit = partial(compressor(tmp_path / "kept").fit, table)
    interrupted(fit, RowEncoder, "encode", 7)
    assert_same(fit(), compressor().fit(table))


_CHILD = """
import pickle, signal, sys, time
import skadacomp._encoder as encoder

signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job may ignore it
encoder._CHUNK = 2048
encode = encoder.RowEncoder.encode

def slow(self, vectors):
    time.sleep(0.5)
    return encode(self, vectors)

encoder.RowEncoder.encode = slow
compressor, table, task = pickle.load(open(sys.argv[1], "rb"))
compressor.fit(table, *task)
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT to send")
def test_ctrl_c_loses_nothing(table, task, whole_fits, tmp_path):
    kept = tmp_path / "kept"
    with (tmp_path / "what.pickle").open("wb") as file:
        pickle.dump((compressor(kept), table, task), file)
    child = subprocess.Popen(
        [sys.executable, "-c", _CHILD, str(tmp_path / "what.pickle")], stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 100
    while not (kept / "start-00001.safetensors").exists():
        assert child.poll() is None, child.stderr.read().decode()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    child.send_signal(signal.SIGINT)
    _, errors = child.communicate(timeout=100)
    assert child.returncode != 0
    assert b"KeyboardInterrupt" in errors
    assert not list(kept.glob(".*.tmp"))
    assert_same(compressor(kept).fit(table, *task), whole_fits("default"))


# -- what is refused ---------------------------------------------------------------------------


@pytest.fixture
def kept(table, task, tmp_path):
    """A folder that an interrupted fit left."""
    folder = tmp_path / "kept"
    interrupted(partial(compressor(folder).fit, table, *task), RowEncoder, "encode", 3)
    return folder


def other_vectors(table):
    return EmbeddingTable(table.words, table.vectors * np.float32(1.001))


@pytest.mark.parametrize(
    ("parameters", "other_table", "other_task", "message"),
    [
        ({"n_codewords": 8}, None, None, r"parameters, then → now: n_codewords 16 → 8\. "),
        ({"random_state": 1}, None, None, "random_state 0 → 1"),
        ({}, other_vectors, None, "table, then → now: rows "),
        ({}, lambda t: EmbeddingTable([f"{w}s" for w in t.words], t.vectors), "ids", "words "),
        ({}, None, lambda x, y: (x, ~y), "task, then → now: documents, targets and head "),
        ({}, None, lambda x, y: (x[::-1], y), "task, then → now: documents, targets and head "),
        ({"head": "convolutional"}, None, None, "task, then → now: documents, targets and head "),
    ],
)
def test_another_fits_checkpoint_is_refused(
    table, task, kept, parameters, other_table, other_task, message
):
    before = sorted(kept.iterdir())
    if other_task == "ids":
        other_task = lambda x, y: ([[table.index[w] for w in text.split()] for text in x], y)  # noqa: E731
    given = (other_table or (lambda t: t))(table), *(other_task or (lambda *t: t))(*task)
    with pytest.raises(ValueError, match=message):
        compressor(kept, **parameters).fit(*given)
    assert sorted(kept.iterdir()) == before
    compressor(kept).fit(table, *task)


def test_parameters_that_change_nothing_may_differ(table, task, kept):
    compressor(kept, output="vectors", verbose=1).fit(table, *task)
    assert not kept.exists()


@pytest.mark.parametrize("damage", ["cut", "changed", "empty"])
@pytest.mark.parametrize("name", ["fit.json", "fine-tuning.safetensors", "start-00000.safetensors"])
def test_a_damaged_checkpoint_is_refused(table, task, kept, name, damage):
    content = bytearray((kept / name).read_bytes())
    if damage == "changed":
        content[-1] ^= 255
    cut = {"cut": len(content) - 3, "changed": len(content), "empty": 0}[damage]
    (kept / name).write_bytes(content[:cut])
    with pytest.raises(ValueError, match=rf"kept'.* file {name} is damaged. Remove the folder"):
        compressor(kept).fit(table, *task)


@pytest.mark.parametrize("content", ["[]", '{"table": 3}', "3"])
def test_a_fit_json_of_something_else_is_refused(table, task, tmp_path, content):
    (tmp_path / "fit.json").write_text(content)
    with pytest.raises(ValueError, match=r"fit\.json is damaged"):
        compressor(tmp_path).fit(table, *task)


def test_a_folder_of_something_else_is_left_alone(table, task, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"a folder of something else.*empty or not there"):
        compressor(tmp_path).fit(table, *task)
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]


def test_files_that_came_later_stay(table, task, kept):
    (kept / "notes.txt").write_text("mine")
    (kept / ".start-00003.safetensors.0123abcd.tmp").write_bytes(b"cut off")
    compressor(kept).fit(table, *task)
    assert [file.name for file in kept.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("random_state", [None, np.random.RandomState(0)])
def test_a_seed_is_needed(table, task, tmp_path, random_state):
    with pytest.raises(ValueError, match="random_state an int"):
        compressor(tmp_path / "kept", random_state=random_state).fit(table, *task)


def test_a_search_is_told_that_its_fits_need_folders_of_their_own(table, task, kept):
    search = GridSearchCV(
        compressor(kept, embeddings=table), {"n_codewords": [8]}, cv=2, error_score="raise"
    )
    search.set_params(scoring=lambda *_: 0.0)
    with pytest.raises(ValueError, match="was left by another fit"):
        search.fit(*task)


def test_the_parameter_survives_clone_and_pickle(table, task, tmp_path):
    fitted = compressor(tmp_path / "kept").fit(table, *task)
    assert clone(fitted).checkpoint == tmp_path / "kept"
    assert pickle.loads(pickle.dumps(fitted)).checkpoint == tmp_path / "kept"


# -- the folder and the fingerprint ------------------------------------------------------------


def test_a_step_is_kept_as_it_was(tmp_path):
    def make():
        weights = torch.arange(6.0).reshape(2, 3)
        return {
            "transposed": weights.T,
            "shared": weights[0],
            "weights": weights,
            "scalar": torch.tensor(2.5, dtype=torch.float64),
            "half": torch.tensor([1.5], dtype=torch.bfloat16),
            "flags": torch.tensor([True, False]),
            "nothing": torch.empty(0, 3),
        }

    about = {"parameters": {"n": "1"}}
    Checkpoint(tmp_path / "kept", about).once("step", make)
    found = Checkpoint(tmp_path / "kept", about).once("step", lambda: pytest.fail("done again"))
    for name, tensor in make().items():
        assert found[name].dtype == tensor.dtype
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=0)
    assert json.loads((tmp_path / "kept" / "fit.json").read_text())["parameters"] == {"n": "1"}


def test_fingerprints_tell_values_apart():
    linear = torch.nn.Linear(2, 3)
    moved = pickle.loads(pickle.dumps(linear))
    values = [
        None,
        0,
        False,
        "0",
        ("a", "b"),
        ("ab",),
        ["ab"],
        {"a": 1},
        {"a": 2},
        np.zeros(2),
        np.zeros(2, np.float32),
        np.zeros((2, 1)),
        np.int64(0),
        print,
        len,
        partial(print, sep=""),
        partial(print, sep=" "),
        linear,
        torch.nn.Linear(2, 3),
    ]
    found = [fingerprint(value) for value in values]
    assert len(set(found)) == len(values)
    assert fingerprint(moved) == fingerprint(linear)


# -- progress ----------------------------------------------------------------------------------


def test_bars_show_what_goes_on(table, task, capsys):
    compressor(verbose=1).fit(table, *task)
    shown = capsys.readouterr().err
    for what in ("fine-tuning", "encoding", "codebooks", "writing", "words"):
        assert what in shown
    compressor().fit(table, *task)
    assert capsys.readouterr().err == ""
