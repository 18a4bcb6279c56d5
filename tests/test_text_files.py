"""Text tables out of compressed files: streamed, bounded, with a bar; and the cache."""

import bz2
import gzip
import json
import lzma
import os
import zipfile

import numpy as np
import pytest

from skadacomp import EmbeddingTable, _text_files

WORDS = ("coffee", "green tea", "milk")
VECTORS = np.array([[0.5, 1, -2], [3, -0.125, 0], [7, 8, -9]], dtype=np.float32)
PACK = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}


def text(header=True, n_repeats=1):
    rows = [f"{word} {a} {b} {c}\n" for word, (a, b, c) in zip(WORDS, VECTORS, strict=True)]
    return ("3 3\n" * header + "".join(rows) * n_repeats).encode()


def zipped(path, members, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def assert_is_the_table(table):
    assert table.words == WORDS
    np.testing.assert_array_equal(table.vectors, VECTORS)


# -- compression -----------------------------------------------------------------------------


@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("name", ["t.txt", "t.vec", "T.VEC", "glove.50d", "t"])
@pytest.mark.parametrize("suffix", PACK)
def test_compressed(tmp_path, name, suffix, header):
    path = tmp_path / (name + suffix)
    path.write_bytes(PACK[suffix](text(header)))
    assert_is_the_table(EmbeddingTable.open(path))
    assert os.listdir(tmp_path) == [path.name]  # nothing is unpacked beside it


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])
def test_zip_with_one_member(tmp_path, method):
    members = {"folder/": "", "folder/t.vec": text(), "__MACOSX/._t.vec": b"\0\1"}
    assert_is_the_table(EmbeddingTable.open(zipped(tmp_path / "t.zip", members, method)))


def test_zip_with_several_members(tmp_path):
    path = zipped(tmp_path / "t.zip", {"a.txt": text(), "b.txt": b"tea 1 2\n"})
    with pytest.raises(ValueError, match=r"holds 2 files.*member=, one of 'a\.txt', 'b\.txt'"):
        EmbeddingTable.open(path)
    with pytest.raises(ValueError, match=r"has no member 'c\.txt'.*'a\.txt', 'b\.txt'"):
        EmbeddingTable.open(path, member="c.txt")
    assert_is_the_table(EmbeddingTable.open(path, member="a.txt"))
    assert EmbeddingTable.open(path, member="b.txt").words == ("tea",)
    with pytest.raises(ValueError, match="holds 0 files"):
        EmbeddingTable.open(zipped(tmp_path / "empty.zip", {}))


def test_member_is_for_zips(tmp_path):
    (tmp_path / "t.txt").write_bytes(text())
    with pytest.raises(ValueError, match=r"member is for \.zip files.*leave member out"):
        EmbeddingTable.open(tmp_path / "t.txt", member="t.txt")


@pytest.mark.parametrize("suffix", [*PACK, ".zip"])
@pytest.mark.parametrize("part", [0.1, 0.5, 0.98])
def test_cut_off(tmp_path, suffix, part):
    path = tmp_path / f"t.txt{suffix}"
    if suffix == ".zip":
        zipped(path, {"t.txt": text()})
    else:
        path.write_bytes(PACK[suffix](text()))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(part * len(whole))])
    with pytest.raises(ValueError, match=r"t\.txt.* cannot be read: .*cut off or damaged\?"):
        EmbeddingTable.open(path)


@pytest.mark.parametrize("suffix", [*PACK, ".zip"])
def test_not_compressed_at_all(tmp_path, suffix):
    path = tmp_path / f"t.txt{suffix}"
    path.write_bytes(text())
    with pytest.raises(ValueError, match=r"t\.txt.* cannot be read: .*cut off or damaged\?"):
        EmbeddingTable.open(path)


def test_zip_with_a_flipped_byte(tmp_path):
    path = zipped(tmp_path / "t.zip", {"t.txt": text()}, zipfile.ZIP_STORED)
    path.write_bytes(path.read_bytes().replace(b"milk", b"silk"))
    with pytest.raises(ValueError, match=r"t\.zip cannot be read: Bad CRC-32"):
        EmbeddingTable.open(path)


def test_encrypted_zip(tmp_path):
    path = zipped(tmp_path / "t.zip", {"t.txt": text()})
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\1\2") + 8] |= 1  # the flag, in the central directory
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"the member 't\.txt' is encrypted"):
        EmbeddingTable.open(path)


@pytest.mark.parametrize("name", ["t.tar.gz", "t.npy.gz", "t.safetensors.xz", "t.kv.bz2"])
def test_kinds_that_must_be_unpacked(tmp_path, name):
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(ValueError, match=r"must be unpacked before it is opened"):
        EmbeddingTable.open(tmp_path / name)


def test_binary_in_a_zip_must_be_unpacked(tmp_path):
    with pytest.raises(ValueError, match=r"a \.bin file must be unpacked"):
        EmbeddingTable.open(zipped(tmp_path / "t.zip", {"t.bin": b""}))


# -- bounds ----------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", PACK)
def test_what_grows_beyond_measure_is_refused_while_it_is_read(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(_text_files, "_FREE_BYTES", 1000)
    path = tmp_path / f"t.txt{suffix}"
    path.write_bytes(PACK[suffix](text(header=False, n_repeats=10_000)))
    with pytest.raises(ValueError, match=r"t\.txt.* unpacks to more than .* bytes, 100 times"):
        EmbeddingTable.open(path)


def test_what_grows_within_measure_is_small(tmp_path):
    """However little the file takes, so that none takes long: these are 2 KB."""
    path = tmp_path / "t.txt.gz"
    path.write_bytes(gzip.compress(b"a 0 0 0\n" * 2**17))
    with pytest.warns(UserWarning, match="131071 of 131072 rows repeat a word"):
        assert EmbeddingTable.open(path).n_words == 1
    path.write_bytes(gzip.compress(b"a 0 0 0\n" * (2**17 + 1)))
    with pytest.raises(ValueError, match="unpacks to more than 1048576 bytes"):
        EmbeddingTable.open(path)


def test_a_zip_that_says_it_grows_beyond_measure_is_not_even_opened(tmp_path, monkeypatch):
    monkeypatch.setattr(_text_files, "_FREE_BYTES", 1000)
    path = zipped(tmp_path / "t.zip", {"t.txt": text(header=False, n_repeats=10_000)})
    monkeypatch.setattr(zipfile.ZipFile, "open", None)
    with pytest.raises(ValueError, match=r"unpacks to more than .* bytes, 100 times"):
        EmbeddingTable.open(path)


def test_an_endless_line(tmp_path, monkeypatch):
    monkeypatch.setattr(_text_files, "_LONGEST_LINE", 5000)
    path = tmp_path / "t.txt.gz"
    path.write_bytes(gzip.compress(text(header=False) + bytes(10_000)))
    with pytest.raises(ValueError, match=r"t\.txt\.gz, line 4 is longer than 5000 bytes"):
        EmbeddingTable.open(path)


# -- the bar ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["t.txt", "t.txt.gz", "t.zip"])
def test_bar(tmp_path, capsys, monkeypatch, name):
    monkeypatch.setattr(_text_files, "_LINES_A_STEP", 1)
    path = tmp_path / name
    if name == "t.zip":
        zipped(path, {"other.txt": bytes(5000), "t.txt": text()}, zipfile.ZIP_STORED)
        options = {"member": "t.txt"}
    else:
        path.write_bytes(text() if name == "t.txt" else gzip.compress(text()))
        options = {}
    EmbeddingTable.open(path, **options)
    assert capsys.readouterr() == ("", "")
    EmbeddingTable.open(path, verbose=1, **options)
    out, err = capsys.readouterr()
    assert out == ""
    assert name in err
    assert "100%" in err


# -- the cache -------------------------------------------------------------------------------


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "t.txt.gz"
    path.write_bytes(gzip.compress(text()))
    return path


@pytest.fixture
def n_reads(monkeypatch):
    """List that grows by one with every text that is parsed."""
    reads = []
    real = _text_files._layout
    monkeypatch.setattr(_text_files, "_layout", lambda *args: reads.append(1) or real(*args))
    return reads


def test_cache(source, n_reads):
    for n_opened in (1, 2):
        table = EmbeddingTable.open(source, cache=True)
        assert_is_the_table(table)
        assert isinstance(table.vectors, np.memmap)
        assert len(n_reads) == 1, f"after opening it {n_opened} times"
    files = sorted(each.name for each in source.parent.iterdir())
    assert files == ["t.txt.gz", "t.txt.gz.npy", "t.txt.gz.words.json"]
    assert_is_the_table(EmbeddingTable.open(source.with_name("t.txt.gz.npy")))
    assert len(n_reads) == 1


def test_cache_elsewhere(tmp_path, source, n_reads):
    (tmp_path / "kept").mkdir()
    kept = tmp_path / "kept" / "drinks.npy"
    for _ in range(2):
        assert_is_the_table(EmbeddingTable.open(source, cache=str(kept)))
    assert len(n_reads) == 1
    assert sorted(os.listdir(kept.parent)) == ["drinks.npy", "drinks.words.json"]


def test_cache_of_another_state_of_the_file_is_not_used(source, n_reads):
    EmbeddingTable.open(source, cache=True)
    status = source.stat()
    os.utime(source, ns=(status.st_atime_ns, status.st_mtime_ns + 1))  # the time alone
    EmbeddingTable.open(source, cache=True)
    assert len(n_reads) == 2
    status = source.stat()
    source.write_bytes(gzip.compress(b"tea 1 2\n"))  # the content, at the same time
    os.utime(source, ns=(status.st_atime_ns, status.st_mtime_ns))
    for _ in range(2):
        assert EmbeddingTable.open(source, cache=True).words == ("tea",)
    assert len(n_reads) == 3


def test_cache_of_each_member(tmp_path, n_reads):
    path = zipped(tmp_path / "t.zip", {"a.txt": text(), "b/b.txt": b"tea 1 2\n"})
    for _ in range(2):
        assert_is_the_table(EmbeddingTable.open(path, member="a.txt", cache=True))
        assert EmbeddingTable.open(path, member="b/b.txt", cache=True).words == ("tea",)
    assert len(n_reads) == 2


@pytest.mark.parametrize("spoil", ["no vectors", "cut vectors", "other vectors", "cut words", "[]"])
def test_damaged_cache_is_made_again(source, n_reads, spoil):
    EmbeddingTable.open(source, cache=True)
    vectors, words = source.with_name("t.txt.gz.npy"), source.with_name("t.txt.gz.words.json")
    if spoil == "no vectors":
        vectors.unlink()
    elif spoil == "cut vectors":
        vectors.write_bytes(vectors.read_bytes()[:-4])
    elif spoil == "other vectors":
        np.save(vectors, VECTORS[:2])
    elif spoil == "cut words":
        words.write_text(words.read_text()[:-2])
    else:
        words.write_text("[]")
    for _ in range(2):
        assert_is_the_table(EmbeddingTable.open(source, cache=True))
    assert len(n_reads) == 2


def test_cache_that_fails_leaves_nothing_behind(tmp_path):
    path = tmp_path / "t.txt"
    path.write_bytes(text()[:-20])
    with pytest.raises(ValueError, match="cut off"):
        EmbeddingTable.open(path, cache=True)
    assert os.listdir(tmp_path) == ["t.txt"]


def test_cache_keeps_words_of_any_characters(tmp_path):
    words = ("a\rb", "\u2028", "漢", "\x00", '"')
    path = tmp_path / "t.txt"
    path.write_bytes("".join(f"{word} {i} 1\n" for i, word in enumerate(words)).encode())
    for _ in range(2):
        assert EmbeddingTable.open(path, cache=True).words == words


def test_cache_repeats_its_warning_only_when_it_reads(tmp_path):
    path = tmp_path / "t.txt"
    path.write_bytes(text(header=False, n_repeats=2))
    with pytest.warns(UserWarning, match="3 of 6 rows repeat a word"):
        EmbeddingTable.open(path, cache=True)
    assert_is_the_table(EmbeddingTable.open(path, cache=True))  # warnings are errors here


@pytest.mark.parametrize(
    ("cache", "error", "match"),
    [
        (1, TypeError, "cache=1 must be True, False or the path"),
        (None, TypeError, "cache=None must be True, False or the path"),
        ("kept.txt", ValueError, r"cache='kept\.txt' must be True, or a path that ends in \.npy"),
        ("/nowhere/kept.npy", FileNotFoundError, "there is no folder '/nowhere'"),
    ],
)
def test_bad_cache(source, cache, error, match):
    with pytest.raises(error, match=match):
        EmbeddingTable.open(source, cache=cache)


def test_cache_is_for_what_must_be_parsed(tmp_path):
    np.save(tmp_path / "t.npy", VECTORS)
    with pytest.raises(ValueError, match=r"cache is for text tables and \.bin files"):
        EmbeddingTable.open(tmp_path / "t.npy", cache=True)


def test_words_from_json(tmp_path):
    np.save(tmp_path / "t.npy", VECTORS)
    (tmp_path / "names.json").write_text(json.dumps(WORDS))
    assert_is_the_table(EmbeddingTable.open(tmp_path / "t.npy", tmp_path / "names.json"))
    (tmp_path / "names.json").write_text('{"coffee": 0}')
    with pytest.raises(ValueError, match=r"names\.json must hold a JSON list of words"):
        EmbeddingTable.open(tmp_path / "t.npy", tmp_path / "names.json")
    (tmp_path / "names.json").write_text('["coffee", ')
    with pytest.raises(ValueError, match=r"names\.json cannot be read as JSON: "):
        EmbeddingTable.open(tmp_path / "t.npy", tmp_path / "names.json")
