"""What goes wrong around the package: killed processes, full disks, files that change, Ctrl-C."""

import errno
import os
import re
import signal
import subprocess
import sys
import time
from functools import partial

import joblib
import numpy as np
import pytest
from joblib.externals.loky.process_executor import TerminatedWorkerError
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from skadacomp import (
    AdaptiveCodebookCompressor,
    CompressedTable,
    EmbeddingTable,
    FrozenClassifier,
    _files,
    to_onnx,
)
from skadacomp._frozen import Description
from skadacomp._learning.shelf import TEACHERS
from skadacomp._learning.trainer import Trainer
from skadacomp.export import to_word2vec_text, to_words_json

posix = pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals and limits")


@pytest.fixture(autouse=True)
def interruptible():
    """A runner that was started in the background ignores Ctrl-C, and so does what it starts."""
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, former)


def compressor(**parameters):
    defaults = {"code_lengths": (0, 1, 2), "max_iter": 4, "random_state": 0, "device": "cpu"}
    return AdaptiveCodebookCompressor(**{**defaults, **parameters})


@pytest.fixture(scope="module")
def small(table):
    """A small table that ships."""
    return compressor(max_iter=1).fit(table).compressed_


@pytest.fixture(scope="module")
def large():
    """One whose file has 100 KB."""
    random = np.random.default_rng(0)
    codes = random.integers(0, 256, (12_000, 8)).astype(np.int16)
    books = random.normal(size=(8, 256, 4))
    return CompressedTable.from_codes(codes, books, np.zeros(4), code_lengths=(8,))


@pytest.fixture
def kept(small, tmp_path):
    """A file that must stay whole, and what it holds."""
    path = tmp_path / "words.safetensors"
    small.save(path)
    return path, path.read_bytes()


def assert_whole(kept, *, leftovers=0):
    path, content = kept
    assert path.read_bytes() == content
    CompressedTable.open(path)
    assert len(list(path.parent.iterdir())) == 1 + leftovers


# ---------------------------------------------------------------------------------------------
# Saving


def in_child(code, *arguments):
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True
    )


_KILLED = """
import os, signal, sys
from skadacomp import CompressedTable
table = CompressedTable.open(sys.argv[1])
os.fsync = lambda number: os.kill(os.getpid(), signal.SIGKILL)
table.save(sys.argv[1])
"""


@posix
def test_kill_9_leaves_the_former_file_and_one_that_tells_what_it_is(kept):
    path, _ = kept
    assert in_child(_KILLED, path).returncode == -signal.SIGKILL
    assert_whole(kept, leftovers=1)
    (leftover,) = path.parent.glob(".words.safetensors.????????.tmp")
    leftover.unlink()
    CompressedTable.open(path).save(path)
    assert_whole(kept)


_REPLACED = """
import sys
from skadacomp import CompressedTable
tables = [CompressedTable.open(path) for path in sys.argv[2:]]
print("ready", flush=True)
while True:
    for table in tables:
        table.save(sys.argv[1])
"""


@posix
def test_kill_9_at_any_moment_leaves_one_whole_file_or_the_other(kept, small, large, tmp_path):
    path, _ = kept
    sources = [tmp_path / "sources" / name for name in ("small", "large")]
    sources[0].parent.mkdir()
    for table, source in zip((small, large), sources, strict=True):
        table.save(source)
    whole = [source.read_bytes() for source in sources]
    seen = set()
    for number in range(8):
        child = subprocess.Popen(
            [sys.executable, "-c", _REPLACED, path, *sources], stdout=subprocess.PIPE
        )
        child.stdout.readline()
        time.sleep(0.01 + 0.003 * number)
        child.kill()
        child.communicate()
        seen.add(whole.index(path.read_bytes()))
    assert seen
    assert len(list(path.parent.glob(".*.tmp"))) <= 8


_FULL = """
import resource, sys
from skadacomp import CompressedTable
table = CompressedTable.open(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
table.save(sys.argv[2])
"""


def frozen(small):
    description = Description(["no", "yes"], "mean", True, "none")
    columns = small.n_codebooks * small.n_codewords + 1
    return FrozenClassifier(
        small, np.ones((1, columns), np.float32), np.ones(1, np.float32), description
    )


def text_table(path):
    path.with_name("t.txt").write_text("a 1 2\nb 3 4\n", encoding="utf-8")
    return path.with_name("t.txt")


WRITERS = {
    "words.safetensors": lambda small, path: small.save(path),
    "frozen.safetensors": lambda small, path: frozen(small).save(path),
    "t.txt.npy": lambda small, path: EmbeddingTable.open(text_table(path), cache=True),
    "words.onnx": lambda small, path: to_onnx(small, path),
    "words.json": lambda small, path: to_words_json(small, path),
    "words.vec": lambda small, path: to_word2vec_text(small, path),
}


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_disk_that_fails_leaves_nothing_of_what_was_begun(
    small, tmp_path, monkeypatch, name, code
):
    def full(number):
        raise OSError(code, os.strerror(code))

    path = tmp_path / name
    path.write_bytes(b"former")
    text_table(path)
    before = {file.name for file in tmp_path.iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(_files.os, "fsync", full)
        with pytest.raises(OSError, match=rf"{os.strerror(code)}: .*{re.escape(name)}") as raised:
            WRITERS[name](small, path)
    assert raised.value.errno == code
    assert {file.name for file in tmp_path.iterdir()} == before
    assert path.read_bytes() == b"former"
    WRITERS[name](small, path)
    assert path.read_bytes() != b"former"


@posix
def test_a_full_disk_leaves_the_former_file_and_is_named(kept, large, tmp_path_factory):
    source = tmp_path_factory.mktemp("source") / "large.safetensors"
    large.save(source)
    child = in_child(_FULL, source, kept[0])
    assert child.returncode == 1
    assert f"[Errno {errno.EFBIG}] File too large: '{kept[0]}'" in child.stderr
    assert_whole(kept)


@posix
def test_a_full_disk_at_a_checkpoint_names_its_file(table, task, tmp_path, monkeypatch):
    def full(number):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    folder = tmp_path / "kept"
    fit = partial(compressor(checkpoint=folder).fit, table, *task)
    whole = compressor().fit(table, *task)
    with monkeypatch.context() as patch:
        patch.setattr(_files.os, "fsync", full)
        with pytest.raises(OSError, match=r"No space left on device: .*kept.fit\.json"):
            fit()
    assert not list(folder.glob(".*"))
    np.testing.assert_array_equal(fit().codes_, whole.codes_)


_FIT = """
import os, signal, sys
import numpy as np
from skadacomp import AdaptiveCodebookCompressor, _files
folder, n_files = sys.argv[1], int(sys.argv[2])
random = np.random.default_rng(0)
vectors = random.normal(size=(200, 6)).astype(np.float32)
documents = random.integers(0, 200, (60, 6)).tolist()
labels = [bool(vectors[document, 0].mean() > 0) for document in documents]
compressor = AdaptiveCodebookCompressor(
    code_lengths=(0, 1, 2), max_iter=4, random_state=0, device="cpu", checkpoint=folder
)
fsync, done = os.fsync, []
def killed(number):
    done.append(number)
    if len(done) == n_files:
        os.kill(os.getpid(), signal.SIGKILL)
    fsync(number)
_files.os.fsync = killed
if __name__ == "__main__":
    compressor.fit(vectors, documents, labels)
"""


@posix
@pytest.mark.parametrize("n_files", [1, 3])
def test_a_fit_goes_on_after_kill_9(tmp_path, n_files):
    """The first file says whose the folder is; each further one is a step that is done."""
    folder = tmp_path / "kept"
    assert in_child(_FIT, folder, n_files).returncode == -signal.SIGKILL
    assert len(list(folder.iterdir())) == n_files
    assert len(list(folder.glob(".*.tmp"))) == 1
    again = {"__name__": "again"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["", str(folder), "0"])
        patch.setattr(_files.os, "fsync", os.fsync)  # what the code below replaces is put back
        exec(_FIT, again)
        task = again["vectors"], again["documents"], again["labels"]
        found = again["compressor"].fit(*task)
    assert not folder.exists()
    whole = compressor().fit(*task)
    np.testing.assert_array_equal(found.codes_, whole.codes_)
    np.testing.assert_array_equal(found.codebooks_, whole.codebooks_)


@pytest.mark.skipif(os.name == "nt", reason="folders are not read-only there")
def test_a_folder_that_takes_no_file_is_named(kept, large):
    path, _ = kept
    path.parent.chmod(0o500)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)  # root may write anywhere
    try:
        with pytest.raises(PermissionError, match=r"words\.safetensors'$"):
            large.save(path)
    finally:
        os.seteuid(user)
        path.parent.chmod(0o700)
    assert_whole(kept)


def test_a_folder_in_place_of_the_file_is_left_alone(small, tmp_path):
    (tmp_path / "words.safetensors").mkdir()
    with pytest.raises(OSError, match=r"words\.safetensors"):
        small.save(tmp_path / "words.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["words.safetensors"]


def test_ctrl_c_while_saving_leaves_the_former_file(kept, large, monkeypatch):
    def interrupt(number):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(_files.os, "fsync", interrupt)
        with pytest.raises(KeyboardInterrupt):
            large.save(kept[0])
    assert_whole(kept)


@posix
def test_an_open_table_keeps_its_file_when_that_is_replaced_or_removed(kept, large, small):
    path, _ = kept
    opened = CompressedTable.open(path, verify=False)  # nothing is read yet
    large.save(path)
    path.unlink()
    rows = np.arange(small.n_words)
    np.testing.assert_array_equal(opened.vectors(rows), small.vectors(rows))


# ---------------------------------------------------------------------------------------------
# A table's file that changes under its map


@pytest.fixture
def mapped(tmp_path):
    path = tmp_path / "table.npy"
    np.save(path, np.random.default_rng(0).normal(size=(2_000, 16)).astype(np.float32))
    return path, EmbeddingTable.open(path)


def meddling(monkeypatch, meddle):
    """Do something to the file once training has begun."""
    run = Trainer.run

    def patched(self, *given):
        meddle()
        return run(self, *given)

    monkeypatch.setattr(Trainer, "run", patched)


@posix
@pytest.mark.parametrize("replaced", [False, True])
def test_a_file_that_vanishes_does_no_harm(mapped, monkeypatch, replaced):
    path, table = mapped
    whole = compressor().fit(np.array(table.vectors))

    def vanish():
        path.unlink(missing_ok=True)
        if replaced:
            np.save(path, np.zeros((3, 16), np.float32))

    meddling(monkeypatch, vanish)
    np.testing.assert_array_equal(compressor().fit(table).codes_, whole.codes_)


def test_a_file_that_is_written_to_is_found_out(mapped, monkeypatch):
    path, table = mapped

    def write():
        with path.open("r+b") as file:
            file.seek(-64, os.SEEK_END)
            file.write(bytes(64))
        os.utime(path, ns=(1, 1))

    meddling(monkeypatch, write)
    estimator = compressor()
    with pytest.raises(RuntimeError, match=r"table\.npy was written to while it was compressed"):
        estimator.fit(table)
    assert not hasattr(estimator, "compressed_")


@posix
def test_a_file_that_was_cut_off_is_an_error_and_no_crash(mapped):
    path, table = mapped
    os.truncate(path, 40_000)
    with pytest.raises(RuntimeError, match=r"table\.npy was cut off .* 40000 bytes are left"):
        compressor().fit(table)


# ---------------------------------------------------------------------------------------------
# Workers


class Killed:
    """A tokenizer that kills the worker that calls it."""

    def __init__(self, parent):
        self.parent = parent

    def __call__(self, text):
        if os.getpid() != self.parent:
            os.kill(os.getpid(), signal.SIGKILL)
        return text.split()


@posix
def test_a_worker_that_is_killed_ends_the_search_and_nothing_else(table, task, tmp_path):
    pipe = make_pipeline(compressor(embeddings=table, max_iter=1), LogisticRegression())
    grid = {"adaptivecodebookcompressor__n_codewords": [2, 4]}
    killed = pipe.set_params(adaptivecodebookcompressor__tokenizer=Killed(os.getpid()))
    with (
        joblib.parallel_config("loky", n_jobs=2),
        pytest.raises(TerminatedWorkerError, match="SIGKILL"),
    ):
        GridSearchCV(killed, grid, cv=2).fit(*task)
    found = GridSearchCV(killed, grid, cv=2).fit(*task)  # here it only splits
    assert found.best_score_ > 0.5


# ---------------------------------------------------------------------------------------------
# Ctrl-C while training


def interrupting(monkeypatch, stage, epoch):
    """Send Ctrl-C in the so many-th epoch of a stage."""
    one_epoch, done = Trainer._epoch, []
    named = []

    def run(self, *given):
        named[:] = [self.stage]
        return whole_run(self, *given)

    def patched(*given):
        done.extend(named)
        if done.count(stage) == epoch and named == [stage]:
            signal.raise_signal(signal.SIGINT)
        return one_epoch(*given)

    whole_run = Trainer.run
    monkeypatch.setattr(Trainer, "run", run)
    monkeypatch.setattr(Trainer, "_epoch", staticmethod(patched))
    return done


@pytest.mark.parametrize("stage", ["fine-tuning", "lengths", "codes", "codebooks"])
def test_ctrl_c_keeps_the_best_so_far_if_asked(table, task, monkeypatch, stage):
    TEACHERS.clear()
    estimator = compressor(on_interrupt="keep", length_method="gumbel-softmax")
    with monkeypatch.context() as patch:
        done = interrupting(patch, stage, 3)
        with pytest.warns(ConvergenceWarning, match=f"training of {stage} short, after 2 of 4"):
            estimator.fit(table, *task)
    assert done.count(stage) == 3
    assert done[-1] == stage  # none was trained after it
    n_later = sum(name != "fine-tuning" for name in done)  # the epoch cut short among them
    assert estimator.n_iter_ == n_later - (stage != "fine-tuning")
    assert np.isfinite(estimator.codebooks_).all()
    whole = compressor(length_method="gumbel-softmax").fit(table, *task)  # not from a cut teacher
    assert whole.n_iter_ == 12
    if stage == "codes":  # what was learned before is what would have been learned
        np.testing.assert_array_equal(
            estimator.history_["loss"], whole.history_["loss"][: estimator.n_iter_]
        )


def test_ctrl_c_raises_by_default(table, task, monkeypatch):
    estimator = compressor()
    interrupting(monkeypatch, "codes", 2)
    with pytest.raises(KeyboardInterrupt):
        estimator.fit(table, *task)
    assert not hasattr(estimator, "compressed_")


def test_a_second_ctrl_c_raises(table, task, monkeypatch):
    def written(*given, **named):
        signal.raise_signal(signal.SIGINT)

    estimator = compressor(on_interrupt="keep")
    monkeypatch.setattr(CompressedTable, "from_codes", written)
    interrupting(monkeypatch, "codes", 2)
    with pytest.raises(KeyboardInterrupt):
        estimator.fit(table, *task)
    assert not hasattr(estimator, "compressed_")


def test_a_fit_that_was_cut_short_goes_on_from_its_checkpoint(table, task, tmp_path, monkeypatch):
    folder = tmp_path / "kept"
    whole = compressor().fit(table, *task)
    with monkeypatch.context() as patch:
        interrupting(patch, "codes", 2)
        with pytest.warns(ConvergenceWarning, match="cut the training of codes short"):
            compressor(checkpoint=folder, on_interrupt="keep").fit(table, *task)
    assert folder.exists()
    found = compressor(checkpoint=folder).fit(table, *task)
    np.testing.assert_array_equal(found.codes_, whole.codes_)
    np.testing.assert_array_equal(found.codebooks_, whole.codebooks_)
    assert not folder.exists()
