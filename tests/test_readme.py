"""The README's code is what users type first, so it runs as it stands."""

import re
from pathlib import Path

import numpy as np
import pytest

from skadacomp import CompressedTable, EmbeddingTable, datasets

README = Path(__file__).parents[1] / "README.md"


def _code():
    (block,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.S)
    return block


def test_the_readmes_code_runs(monkeypatch, tmp_path, demo_data):
    """On the real table's first words and a part of the news, to be quick."""
    whole, news = datasets.load_glove(), datasets.load_bbc_news()
    part = np.arange(0, len(news.data), 10)
    small = type(news)(data=[news.data[i] for i in part], target=news.target[part])
    table = EmbeddingTable(whole.words[:5000], whole.vectors[:5000])
    monkeypatch.setattr(datasets, "load_glove", lambda: table)
    monkeypatch.setattr(datasets, "load_bbc_news", lambda: small)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile(_code(), str(README), "exec"), names)
    assert names["vectors"].shape == (5000, 50)
    assert names["search"].best_score_ > 0.5  # five classes
    assert (tmp_path / "classifier.joblib").stat().st_size < 1_000_000
    assert isinstance(names["shipped"], CompressedTable)


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_to_files_of_the_repository_lead_somewhere(name):
    page = README.with_name(name)
    links = re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8"))
    inside = [link for link in links if not link.startswith("https://")]
    assert [link for link in inside if not (page.parent / link).exists()] == []
    assert inside or name != "README.md"
