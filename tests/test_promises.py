"""The page of promises names tests that are there, and names all its tests."""

import re
from pathlib import Path

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs" / "promises.rst"


def test_each_promise_has_a_test_that_is_there():
    page = PAGE.read_text("utf-8")
    named = re.findall(r"``(test_\w+\.py)::(test_\w+)``", page)
    assert len(named) == page.count("   * - ") - page.count("   * - Promise")
    for file, name in named:
        assert f"def {name}(" in (TESTS / file).read_text("utf-8"), (file, name)
