"""Who imports whom, and who needs torch: fit alone."""

from __future__ import annotations

import ast
import os
import pickle
import pydoc
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import joblib
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline

import skadacomp
from skadacomp import AdaptiveCodebookCompressor, EmbeddingTable

PACKAGE = Path(skadacomp.__file__).parent

# Each room may import those below it. `_learning`, `cli` and `display` are folders.
ROOMS = [
    "cli",
    "_demo",
    "__init__",
    "display",
    "export",
    "_onnx",
    "metrics",
    "datasets",
    "nn",
    "_freeze",
    "_compressor",
    "_parameters",
    "_sizes",
    "_tasks",
    "_learning",
    "_targets",
    "_documents",
    "_frozen",
    "_compressed",
    "_codebooks",
    "_decoder",
    "_encoder",
    "_table",
    "_readers",
    "_text_files",
    "_format",
    "_vocabulary",
    "_texts",
    "_mapped",
    "_codes",
    "_extras",
    "_files",
    "_version",
]
WITH_TORCH = ("_learning", "nn")


# ---------------------------------------------------------------------------------------------
# The source: who imports whom


def room_of(file: Path) -> str:
    return file.relative_to(PACKAGE).with_suffix("").parts[0]


def imported(node: ast.AST, file: Path) -> Iterator[str]:
    """Modules and names that an import statement asks for, as dotted paths."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        folders = ("skadacomp", *file.parent.relative_to(PACKAGE).parts)
        base = folders[: len(folders) - node.level + 1] if node.level else ()
        parts = (*base, node.module) if node.module else base
        yield from (".".join((*parts, alias.name)) for alias in node.names)


def at_module_level(tree: ast.AST) -> Iterator[ast.AST]:
    """Statements that run when the module is imported."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        yield node
        yield from at_module_level(node)


def imported_rooms(names: Iterator[str]) -> set[str]:
    """Rooms among the dotted paths; a public name of the package counts as its `__init__`."""
    parts = [name.split(".") for name in names]
    own = [(*part, "__init__")[1] for part in parts if part[0] == "skadacomp"]
    return {name if name in ROOMS else "__init__" for name in own}


SOURCES = {
    file.relative_to(PACKAGE).as_posix(): (file, ast.parse(file.read_text("utf-8")))
    for file in sorted(PACKAGE.rglob("*.py"))
}


@pytest.fixture(params=SOURCES)
def source(request):
    return SOURCES[request.param]


def test_every_file_is_in_a_room():
    assert {room_of(file) for file, _ in SOURCES.values()} <= set(ROOMS)
    assert len(SOURCES) > 10


def test_imports_point_down(source):
    file, tree = source
    room = room_of(file)
    names = [name for node in ast.walk(tree) for name in imported(node, file)]
    allowed = set(ROOMS[ROOMS.index(room) + 1 :])
    if room in ("cli", "display"):  # folders: one module a command or a display
        allowed.add(room)
    if room == "_learning":
        allowed = {"_learning", "_encoder", "_files", "_mapped", "_codes"}
        assert not [name for name in names if name.split(".")[0] == "sklearn"]
    assert not imported_rooms(names) - allowed


def test_only_what_trains_imports_torch_at_module_level(source):
    file, tree = source
    if room_of(file) in WITH_TORCH:
        return
    names = [name for node in at_module_level(tree) for name in imported(node, file)]
    assert not [name for name in names if name.split(".")[0] == "torch"]
    assert not imported_rooms(names) & set(WITH_TORCH)


def test_the_tests_above_see_imports():
    text = """
        import torch.nn
        from . import _codes
        from ._learning import learn
        from .. import torch_is_not_this
        try:
            import sklearn.base
        except ImportError:
            def f():
                from skadacomp import CompressedTable
        if TYPE_CHECKING:
            import typing
    """
    tree = ast.parse(textwrap.dedent(text))
    here = PACKAGE / "_table.py"
    everything = [name for node in ast.walk(tree) for name in imported(node, here)]
    assert imported_rooms(everything) == {"_codes", "_learning", "__init__"}
    early = [name for node in at_module_level(tree) for name in imported(node, here)]
    assert early == [
        "torch.nn",
        "skadacomp._codes",
        "skadacomp._learning.learn",
        "torch_is_not_this",
        "sklearn.base",
    ]
    assert list(imported(ast.parse("from ..nn import x").body[0], PACKAGE / "_learning" / "a.py"))
    assert room_of(PACKAGE / "_learning" / "heads.py") == "_learning"


# ---------------------------------------------------------------------------------------------
# Fresh processes

PREDICT = """
    import sys
    import joblib
    import numpy as np

    folder = sys.argv[1]
    pipe, texts, expected = joblib.load(folder + "/pipe.joblib")
    assert (pipe.predict(texts) == expected["labels"]).all()
    features = pipe[:-1].transform(texts)
    assert np.array_equal(features.toarray(), expected["features"])
    assert np.array_equal(pipe[0].transform(expected["rows"]).toarray(), expected["row_features"])
    assert np.array_equal(pipe[0].inverse_transform(features), expected["vectors"])

    import skadacomp
    from skadacomp import *

    assert all(name in globals() for name in skadacomp.__all__)
    table = CompressedTable.open(folder + "/words.safetensors")
    assert table.words == expected["words"]
    assert table.vectors(table.words).shape == (len(table.words), 2)
    EmbeddingTable(["tea"], [[1, 2]])
    AdaptiveCodebookCompressor()
    skadacomp.metrics, skadacomp.display, skadacomp.datasets, skadacomp.export
"""

REFUSE_TORCH = """
    import sys

    class Refuse:
        def find_spec(self, name, path=None, target=None):
            if name.split(".")[0] == "torch":
                raise ImportError("torch must not be needed")

    sys.meta_path.insert(0, Refuse())
"""


def run(script: str, *arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """Folder of a fitted pipeline with what it predicts, and of a saved table."""
    folder = tmp_path_factory.mktemp("fitted")
    words = ["good", "great", "bad", "awful", "film", "plot"]
    vectors = np.array([[2, 0], [2, 1], [-2, 0], [-2, 1], [0, 2], [0, 3]], np.float32)
    texts, labels = ["good film", "great plot", "bad plot", "awful film"] * 6, [1, 1, 0, 0] * 6
    compressor = AdaptiveCodebookCompressor(
        embeddings=EmbeddingTable(words, vectors), code_lengths=(0, 1, 2), max_iter=2
    ).set_params(random_state=0)
    pipe = Pipeline([("compressor", compressor), ("classifier", LogisticRegression())])
    pipe.fit(texts, labels)
    features = compressor.transform(texts)
    rows = np.vstack([vectors, vectors + 0.25])  # fitted ones, and others for the encoder
    expected = {
        "labels": pipe.predict(texts),
        "features": features.toarray(),
        "rows": rows,
        "row_features": compressor.transform(rows).toarray(),
        "vectors": compressor.inverse_transform(features),
        "words": compressor.compressed_.words,
    }
    joblib.dump((pipe, texts, expected), folder / "pipe.joblib")
    compressor.compressed_.save(folder / "words.safetensors")
    return folder


def test_prediction_where_torch_cannot_be_imported(fitted):
    run(textwrap.dedent(REFUSE_TORCH) + textwrap.dedent(PREDICT), fitted)


def test_prediction_imports_no_torch(fitted):
    script = textwrap.dedent(PREDICT) + "assert 'torch' not in sys.modules\n"
    run(script, fitted)
    # The check can fail: what fits does import it.
    assert run("import sys, skadacomp._learning; print('torch' in sys.modules)") == "True\n"


def test_a_table_and_its_error_load_numpy_alone():
    script = """
        import sys
        from skadacomp import CompressedTable, FormatError
        print(*{"scipy", "sklearn", "torch", "safetensors", "joblib"} & set(sys.modules))
    """
    assert run(script) == "\n"


# ---------------------------------------------------------------------------------------------
# Public names, loaded when asked for


def test_public_names():
    assert {*skadacomp.__all__, "datasets", "metrics", "display", "export"} <= set(dir(skadacomp))
    for name in skadacomp.__all__:
        value = getattr(skadacomp, name)
        assert value.__name__ == name
        assert getattr(skadacomp, name) is value
        assert pickle.loads(pickle.dumps(value)) is value
        assert name in pydoc.render_doc(skadacomp)
    assert skadacomp.datasets.__name__ == "skadacomp.datasets"
    assert skadacomp.FormatError is skadacomp._compressed.FormatError
    with pytest.raises(AttributeError, match="module 'skadacomp' has no attribute 'Compressor'"):
        _ = skadacomp.Compressor
