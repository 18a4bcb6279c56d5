"""What ships, in an environment that has numpy and nothing else: `tox -e numpy`.

Runs in the other environments too; nothing here may import more than numpy and pytest.
"""

import importlib.util
import json
import threading
from pathlib import Path

import numpy as np
import pytest

from skadacomp import CompressedTable, FormatError, FrozenClassifier, cli
from skadacomp._frozen import Description

DATA = Path(__file__).parent / "data"
TABLE = DATA / "compressed-format-1.safetensors"
CLASSIFIER = DATA / "classifier-format-1.safetensors"
MISSING = [
    name
    for name in ("joblib", "safetensors", "scipy", "sklearn", "torch", "tqdm")
    if importlib.util.find_spec(name) is None
]


def golden_classifier():
    """Make what the golden file holds; run this file to write it, for a new FORMAT."""
    codes = [[k % 4, k // 4][: k % 3] for k in range(12)]
    padded = [row + [-1] * (2 - len(row)) for row in codes]
    books = np.arange(2 * 4 * 3).reshape(2, 4, 3) - 11.0
    words = ["the", "tea", "café", "of", "train", "fare", "a", "cup", "fast", "in", "milk", "seat"]
    table = CompressedTable.from_codes(
        padded, books, [0.5, 0.0, -1.0], words, code_lengths=(0, 1, 2), parameters={"note": "é"}
    )
    coef = np.zeros((2, 9), np.float32)
    coef[0, :8] = np.arange(8) % 3 - 1.0
    description = Description(["drinks", "travel"], "mean", True, "sigmoid")
    return FrozenClassifier(table, coef[:1], np.array([0.25], np.float32), description)


def test_nothing_else_is_there():
    if not MISSING:
        pytest.skip("an environment that has more")
    assert len(MISSING) == 6


def test_a_table():
    table = CompressedTable.open(TABLE)
    assert (len(table), table.n_dims, "tea0" in table, "coffee" in table) == (40, 2, True, False)
    assert list(table) == table.words
    vectors = table.vectors(table.words)
    np.testing.assert_array_equal(vectors, table.vectors(table.rows(table.words)))
    np.testing.assert_array_equal(vectors[3], table[table.words[3]])
    word, cosine = table.nearest("tea0", 1)[0]
    assert word in table.words
    assert -1 <= cosine <= 1.00001
    with pytest.raises(KeyError, match="coffee"):
        table["coffee"]


def test_documents():
    table = CompressedTable.open(TABLE)
    first, second = table.words[:2]
    texts = [f"{first} unknown, {second}!", "unknown"]
    pooled = table.documents(texts)
    np.testing.assert_allclose(pooled[0], table.vectors([first, second]).mean(0), rtol=1e-6)
    assert not pooled[1].any()
    features = table.code_features(texts, pooling="sum")
    lengths = table.code_lengths[table.rows([first, second])]
    assert features[0, :-1].sum() == lengths.sum()
    assert features[:, -1].tolist() == [2, 0]


def test_a_classifier():
    classifier, expected = FrozenClassifier.open(CLASSIFIER), golden_classifier()
    texts = ["A cup of tea", "the fast train", "milk in the café", ""]
    assert classifier.predict(texts).tolist() == expected.predict(texts).tolist()
    assert set(classifier.predict(texts)) == {"drinks", "travel"}
    scores = expected.decision_function(texts)
    np.testing.assert_allclose(classifier.decision_function(texts), scores, rtol=1e-6)
    np.testing.assert_allclose(classifier.predict_proba(texts).sum(1), 1, rtol=1e-6)
    assert scores[-1] == 0.25  # no word


def test_files_are_written_and_damage_is_refused(tmp_path):
    path = tmp_path / "words"
    golden_classifier().save(path)
    assert CompressedTable.open(path).words == golden_classifier().table.words
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(FormatError, match="the file is damaged"):
        FrozenClassifier.open(path)


def test_threads_share_a_table():
    table = CompressedTable.open(TABLE)
    alone, found = table.vectors(table.words), {}

    def read(number):
        found[number] = np.array([table[word] for word in table.words])

    threads = [threading.Thread(target=read, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    for vectors in found.values():
        np.testing.assert_array_equal(vectors, alone)


def test_commands(capsys):
    assert cli.main(["info", "--json", str(CLASSIFIER)]) == 0
    assert json.loads(capsys.readouterr().out)["classes"] == ["drinks", "travel"]
    assert cli.main(["vectors", str(TABLE), "tea0"]) == 0
    assert capsys.readouterr().out.startswith("tea0 ")
    assert cli.main(["predict", str(CLASSIFIER), "a cup of tea"]) == 0
    assert capsys.readouterr().out.strip().startswith(("drinks", "travel"))


if __name__ == "__main__":
    golden_classifier().save(CLASSIFIER)
