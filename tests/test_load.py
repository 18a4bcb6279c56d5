"""Many readers of one artifact: what docs/benchmarks/soak.py does for minutes, for a second."""

import sys
from pathlib import Path

import numpy as np
import pytest

from skadacomp import CompressedTable

BENCHMARKS = Path(__file__).parents[1] / "docs" / "benchmarks"
if not BENCHMARKS.exists() or sys.platform != "linux":
    pytest.skip("needs the benchmarks, and asks Linux for memory", allow_module_level=True)
sys.path.insert(0, str(BENCHMARKS))

import soak  # noqa: E402


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """An artifact of 4,000 words, dropped ones among them."""
    random = np.random.default_rng(0)
    codes = random.integers(0, 16, (4_000, 4))
    codes[np.arange(4) >= random.choice((0, 2, 4), 4_000)[:, None]] = -1
    words = [f"word{number}" for number in range(4_000)]
    table = CompressedTable.from_codes(
        codes, random.normal(size=(4, 16, 100)), np.zeros(100), words, code_lengths=(0, 2, 4)
    )
    file = tmp_path_factory.mktemp("load") / "words.safetensors"
    table.save(file)
    return str(file)


@pytest.fixture(scope="module")
def asked(path):
    """Questions, and what one thread answers."""
    table = CompressedTable.open(path)
    questions = soak.questions_for(table, 60)
    assert {kind for kind, _ in questions} == set(soak.ASK)
    return questions, [soak.digest(table, question) for question in questions]


@pytest.mark.parametrize("readers", [soak.threads, soak.processes])
def test_readers_side_by_side_answer_as_one(path, asked, readers):
    tally, samples = readers(path, *asked, 1.0, 4)
    assert tally.answers >= 4 * len(asked[0])
    assert (tally.wrong, tally.errors) == (0, 0)
    assert min(memory for _, memory in samples) > 1e6


@pytest.mark.parametrize("readers", [soak.threads, soak.processes])
def test_an_answer_that_differs_and_one_that_fails_are_counted(path, asked, readers):
    questions, digests = asked
    questions = [*questions, ("word", "unheard")]
    digests = [digests[0][::-1], *digests[1:], b""]
    tally, _ = readers(path, questions, digests, 0.1, 2)
    assert tally.wrong == tally.errors > 0
    assert tally.answers == tally.wrong * (len(questions) - 1)


def test_what_readers_did_is_written(path, tmp_path, monkeypatch):
    monkeypatch.setattr(soak, "write_artifact", lambda to, words: to.write_bytes(artifact))
    monkeypatch.setattr(soak, "processes", soak.threads)
    monkeypatch.setattr(soak, "N_QUESTIONS", 40)
    monkeypatch.setattr(sys, "argv", ["soak.py", "--seconds", "0.3", "--output", str(tmp_path)])
    artifact = Path(path).read_bytes()
    assert soak.main() == 0
    heading, _, *rows = (tmp_path / "soak.md").read_text().splitlines()
    assert len(rows) == 2
    assert {row.count("|") for row in rows} == {heading.count("|")}
    assert all("| 0 | 0 |" in row for row in rows)
    assert (tmp_path / "soak.png").stat().st_size > 0
    draws = np.random.default_rng(0)
    monkeypatch.setitem(soak.ASK, "in", lambda table, word: draws.random())
    assert soak.main() == 1


@pytest.mark.parametrize("growth", [0.0, 2e6])
def test_growth_is_told_from_what_answers_hold_for_a_moment(growth):
    """Of 200 samples over ten minutes most are higher than what stays, by up to 50 MB."""
    at = np.linspace(0, 600, 200)
    held = np.random.default_rng(0).uniform(0, 5e7, 200) * (np.arange(200) % 10 > 0)
    memory = 1e8 + growth * at / 60 + held
    point = soak.point_of("eight", 600, (soak.Tally(9), list(zip(at, memory, strict=True))))
    assert point["slope"] == pytest.approx(growth / 1e6, abs=0.01)
    assert point["end_mb"] - point["start_mb"] == pytest.approx(
        growth / 1e6 * 5, rel=0.02, abs=0.1
    )  # minutes between
