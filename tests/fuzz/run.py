"""Feed spoiled files to everything that opens files, until a count or a time is reached.

``python tests/fuzz/run.py --seconds 600`` reports how many inputs were tried, how many were refused
and what was found. Every finding is written to a file, to be made a small regression test.
"""

from __future__ import annotations

import argparse
import random
import re
import resource
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from targets import Finding, Judge, mutated, valid_files

_ROOM = 2**31  # bytes of address space beyond what the process has: a huge allocation fails


def main() -> int:
    """Run, and give the number of findings."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--findings", type=Path, default=Path("fuzz-findings"))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="skadacomp-fuzz-", dir=_fastest_folder()) as folder:
        judge = Judge(Path(folder))
        _limit_memory()
        tried, found = _search(judge, Path(folder), given)
    print(f"{sum(tried.values())} inputs: {judge.n_refused} refused, the others opened")
    print(", ".join(f"{kind} {n}" for kind, n in tried.items()))
    for what, finding in found.items():
        given.findings.mkdir(exist_ok=True)
        path = given.findings / f"{len(list(given.findings.iterdir())):03d}{finding.kind}"
        path.write_bytes(finding.content)
        print(f"FOUND in {finding.kind}: {what} ({path})")
    print(f"{len(found)} findings")
    return min(len(found), 1)


def _search(
    judge: Judge, folder: Path, given: argparse.Namespace
) -> tuple[Counter[str], dict[str, Finding]]:
    """Try inputs; findings by the beginning of what they are."""
    draws, contents = random.Random(given.seed), valid_files(folder)
    # Our own format more often: it is the one that ships, and nobody else has tested it.
    kinds = [kind for kind in contents for _ in range(4 if kind in (".shipped", ".frozen") else 1)]
    tried: Counter[str] = Counter()
    found: dict[str, Finding] = {}
    ends = time.monotonic() + given.seconds
    for number in range(given.inputs):
        if time.monotonic() > ends:
            break
        kind = draws.choice(kinds)
        finding = judge.judge(kind, mutated(draws, kind, contents), memory=number % 20 == 0)
        tried[kind] += 1
        if finding is not None:
            found.setdefault(re.sub(r"\d+|'.*?'", "#", finding.what)[:70], finding)
    return tried, found


def _fastest_folder() -> str | None:
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def _limit_memory() -> None:
    statm = Path("/proc/self/statm")
    if statm.exists():
        size = int(statm.read_text().split()[0]) * resource.getpagesize() + _ROOM
        resource.setrlimit(resource.RLIMIT_AS, (size, resource.RLIM_INFINITY))


if __name__ == "__main__":
    sys.exit(main())
