"""Let atheris look for inputs that reach new lines of the package; a finding ends the run.

``python tests/fuzz/guided.py -max_total_time=60`` takes the options of libFuzzer. The first byte of
an input says what kind of file the rest is.
"""

from __future__ import annotations

import random
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["skadacomp"]):
    from targets import Judge, mutated, signed, valid_files


def main() -> None:
    """Fuzz until libFuzzer's options say that it is enough."""
    folder = Path(tempfile.mkdtemp(prefix="skadacomp-fuzz-"))
    contents = valid_files(folder)
    judge, kinds = Judge(folder), list(contents)

    def try_one(data: bytes) -> None:
        if not data:
            return
        kind, content = kinds[data[0] % len(kinds)], data[1:]
        if kind in (".shipped", ".frozen"):
            content = signed(content)
        found = judge.judge(kind, content)
        if found is not None:
            raise AssertionError(f"{found.kind}: {found.what}")

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        """Spoil the input as libFuzzer does, or a valid file as `run.py` does."""
        draws = random.Random(seed)
        if data and draws.random() < 0.7:
            return bytes(atheris.Mutate(data, most))
        number = draws.randrange(len(kinds))
        return (bytes([number]) + mutated(draws, kinds[number], contents))[:most]

    corpus = folder / "corpus"
    corpus.mkdir()
    for number, kind in enumerate(kinds):
        for which, content in enumerate(contents[kind]):
            (corpus / f"{number}-{which}").write_bytes(bytes([number]) + content)
    atheris.Setup([*sys.argv, str(corpus)], try_one, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
