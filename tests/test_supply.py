"""What goes into the archives, what the package needs, and what it leaves alone while it works."""

import os
import shutil
import subprocess
import sys
import tarfile
import textwrap
import tomllib
import zipfile
from pathlib import Path, PurePosixPath

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from pathspec import GitIgnoreSpec

import skadacomp

ROOT = Path(__file__).parents[1]
PROJECT = ROOT / "pyproject.toml"
checkout = pytest.mark.skipif(
    not PROJECT.exists(), reason="the project's files are not part of an installed package"
)

# ---------------------------------------------------------------------------------------------
# Archives

# What lies about in a folder that is worked in.
LITTER = [
    ".cache/glove.npy",
    ".coverage",
    ".hypothesis/examples/a",
    ".mypy_cache/a.json",
    ".pytest_cache/a",
    ".tox/py311/lib/a.py",
    ".venv/lib/a.py",
    ".venv-test/lib/a.py",
    "build/lib/skadacomp/old.py",
    "classifier.joblib",
    "dist/skadacomp-0.0.1.tar.gz",
    "docs/_build/html/index.html",
    "docs/auto_examples/plot_news.rst",
    "docs/generated/skadacomp.nn.rst",
    "glove.6B.50d.txt",
    "skadacomp-demo/code_lengths.png",
    "skadacomp/__pycache__/nn.cpython-311.pyc",
    "tests/__pycache__/conftest.cpython-311.pyc",
    "words.safetensors",
]


def project_files():
    """Files of the project: what git knows; in an unpacked sdist, what .gitignore leaves."""
    if (ROOT / ".git").exists() and shutil.which("git"):
        command = ["git", "-C", str(ROOT), "ls-files", "-z"]
        listed = subprocess.run(command, capture_output=True, text=True, check=True)
        names = filter(None, listed.stdout.split("\0"))
    else:
        ignored = (ROOT / ".gitignore").read_text("utf-8").splitlines()
        names = GitIgnoreSpec.from_lines(ignored).match_tree_files(ROOT, negate=True)
    return {PurePosixPath(name) for name in names if (ROOT / name).is_file()}


def build(kind, project, folder):
    """Build an archive as pip does, and return its path."""
    script = f"from hatchling.build import build_{kind}; print(build_{kind}({str(folder)!r}))"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=project, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder / done.stdout.split()[-1]


@pytest.fixture(scope="module")
def littered(tmp_path_factory):
    """A copy of the project's files in a folder that was worked in."""
    folder = tmp_path_factory.mktemp("project")
    for name in [*LITTER, *project_files()]:
        to = folder / name
        to.parent.mkdir(parents=True, exist_ok=True)
        if name in LITTER:
            to.write_text("litter", "utf-8")
        else:
            shutil.copy(ROOT / name, to)
    return folder


@pytest.fixture(scope="module")
def wheel(littered, tmp_path_factory):
    return build("wheel", littered, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def sdist(littered, tmp_path_factory):
    return build("sdist", littered, tmp_path_factory.mktemp("sdist"))


def names_in(archive):
    """Names of an archive's files, each once."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as opened:
            names = opened.namelist()
    else:
        with tarfile.open(archive) as opened:
            names = opened.getnames()
    assert len(set(names)) == len(names)
    return {PurePosixPath(name) for name in names}


@checkout
def test_a_wheel_holds_the_package_and_nothing_else(wheel):
    package = {path for path in project_files() if path.parts[0] == "skadacomp"}
    assert {path.suffix for path in package} == {".js", ".py", ".typed"}
    assert PurePosixPath("skadacomp/py.typed") in package  # users' type checkers look for it
    info = PurePosixPath(f"skadacomp-{skadacomp.__version__}.dist-info")
    about = {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE"}
    assert names_in(wheel) == package | {info / name for name in about}


@checkout
def test_an_sdist_holds_what_builds_and_tests_the_package_and_nothing_else(sdist):
    """The source, the tests, the docs that they read, and no raw measurements."""
    root = PurePosixPath(f"skadacomp-{skadacomp.__version__}")
    alone = {".gitignore", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "README.md", "tox.ini"}
    alone |= {"constraints.txt", "constraints-min.txt", "pyproject.toml"}
    expected = {
        path
        for path in project_files()
        if (path.parts[0] in ("docs", "skadacomp", "tests") or str(path) in alone)
        and not (path.match("docs/benchmarks/results/*") and path.suffix in (".csv", ".jsonl"))
    }
    assert names_in(sdist) == {root / path for path in expected} | {root / "PKG-INFO"}


@checkout
def test_archives_tell_nothing_of_the_machine_that_made_them(wheel, sdist, littered):
    with zipfile.ZipFile(wheel) as opened:
        contents = [opened.read(name) for name in opened.namelist()]
    with tarfile.open(sdist) as opened:
        members = opened.getmembers()
        contents += [opened.extractfile(member).read() for member in members]
    owners = {(member.uid, member.gid, member.uname, member.gname) for member in members}
    assert owners == {(0, 0, "", "")}
    assert not [content for content in contents if str(littered).encode() in content]


@checkout
def test_the_wheel_of_an_sdist_is_that_of_the_project(wheel, sdist, tmp_path):
    with tarfile.open(sdist) as opened:
        opened.extractall(tmp_path, filter="data")
    (unpacked,) = tmp_path.iterdir()
    again = build("wheel", unpacked, tmp_path)
    assert again.name == wheel.name
    assert again.read_bytes() == wheel.read_bytes()


# ---------------------------------------------------------------------------------------------
# Versions


def pins(name):
    """Version of each package in a file of constraints."""
    lines = (line.split("#")[0].strip() for line in (ROOT / name).read_text("utf-8").splitlines())
    pairs = [line.split("==") for line in lines if line]
    pinned = {canonicalize_name(name): Version(version) for name, version in pairs}
    assert len(pinned) == len(pairs)
    return pinned


def requirements():
    """What pyproject.toml asks for: to build, to run, and in each extra."""
    content = tomllib.loads(PROJECT.read_text("utf-8"))
    asked = [*content["build-system"]["requires"], *content["project"]["dependencies"]]
    for extra in content["project"]["optional-dependencies"].values():
        asked += extra
    found = [Requirement(text) for text in asked]
    return [each for each in found if each.name != "skadacomp"]


@checkout
def test_the_oldest_versions_that_are_admitted_are_those_that_are_tested():
    oldest, n_floors = pins("constraints-min.txt"), 0
    for requirement in requirements():
        for bound in requirement.specifier:
            if bound.operator == ">=":
                assert oldest[canonicalize_name(requirement.name)] == Version(bound.version)
                n_floors += 1
            else:
                assert bound.operator == "==", f"{requirement}: no upper bounds"
    assert n_floors > 15


@checkout
def test_each_requirement_has_one_version_that_is_tested():
    newest = pins("constraints.txt")
    for requirement in requirements():
        exact = [bound.version for bound in requirement.specifier if bound.operator == "=="]
        if not exact:  # those are packages of data
            assert newest[canonicalize_name(requirement.name)] in requirement.specifier
    oldest = pins("constraints-min.txt")
    assert not [name for name in oldest if name in newest and oldest[name] > newest[name]]


# ---------------------------------------------------------------------------------------------
# A fresh process

JOB = """
    import contextlib, importlib, io, json, pkgutil, sys

    import numpy as np
    import skadacomp

    names = [found.name for found in pkgutil.walk_packages(skadacomp.__path__, "skadacomp.")]
    assert {"skadacomp.nn", "skadacomp.cli.info", "skadacomp._learning.codes"} <= set(names)
    for name in names:
        importlib.import_module(name)

    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    folder = sys.argv[1]
    words = ["good", "great", "bad", "awful", "film", "plot"]
    vectors = np.array([[2, 0], [2, 1], [-2, 0], [-2, 1], [0, 2], [0, 3]], np.float32)
    with open(folder + "/table.txt", "w", encoding="utf-8") as to:
        for word, vector in zip(words, vectors):
            print(word, *vector, file=to)
    texts, labels = ["good film", "great plot", "bad plot", "awful film"] * 6, [1, 1, 0, 0] * 6

    table = skadacomp.EmbeddingTable.open(folder + "/table.txt")
    compressor = skadacomp.AdaptiveCodebookCompressor(
        table, code_lengths=(0, 1, 2), max_iter=2, random_state=0
    )
    pipe = make_pipeline(compressor, LogisticRegression()).fit(texts, labels)
    assert pipe[:-1].transform(texts).shape[0] == len(texts)
    skadacomp.freeze(pipe).save(folder + "/classifier")
    frozen = skadacomp.FrozenClassifier.open(folder + "/classifier")
    assert list(frozen.predict(texts)) == list(pipe.predict(texts))
    compressor.compressed_.save(folder + "/words")
    shipped = skadacomp.CompressedTable.open(folder + "/words")
    assert shipped.vectors(shipped.words).shape[1] == 2

    with contextlib.redirect_stdout(io.StringIO()) as said:
        assert skadacomp.cli.main(["info", "--json", folder + "/words"]) == 0
    assert json.loads(said.getvalue())["n_words"] == 6
"""

# Python audits every way to the network. Attempts are kept, too: someone may catch the error.
REFUSE_NETWORK = """
    import sys

    attempts = []

    def refuse(event, arguments):
        if event.split(".")[0] in ("ftplib", "http", "smtplib", "socket", "urllib"):
            attempts.append((event, *map(str, arguments)))
            raise OSError(f"no network: {event}")

    sys.addaudithook(refuse)
"""


def run(script, *arguments, options=()):
    """Run a script in a fresh process, and return what it said."""
    done = subprocess.run(
        [sys.executable, *options, "-c", script, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(Path(skadacomp.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_nothing_goes_to_the_network(tmp_path):
    refuse = textwrap.dedent(REFUSE_NETWORK)
    assert run(refuse + textwrap.dedent(JOB) + "print(attempts)", tmp_path) == "[]\n"
    # The check can fail.
    script = """
        from urllib.request import urlopen
        try:
            urlopen("http://127.0.0.1:9")
        except OSError as error:
            print(error)
    """
    said = run(refuse + textwrap.dedent(script) + "print(len(attempts) > 0)")
    assert said.startswith("no network")
    assert said.endswith("True\n")


def test_nothing_warns_where_warnings_are_errors(tmp_path):
    run(textwrap.dedent(JOB), tmp_path, options=["-W", "error"])
