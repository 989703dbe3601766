"""The marks and the list of untested promises of a checkout."""

from collections.abc import Iterator
from pathlib import Path

import yaml

from local_cluster.directories import CHECKOUT
from tested_page.marks import Held, held_in
from tested_page.page import Untested, rendered_page

PAGE = CHECKOUT / "docs" / "tested.md"
UNTESTED = Path("e2e/tested_page/untested.yaml")
TESTS = ("operator/tests", "runtime/tests", "cli/tests", "e2e/tests")


def page_of_this_checkout() -> str:
    """docs/tested.md as it should be. Raises ValueError for a mark or an entry that is wrong."""
    return rendered_page(held_by_tests(CHECKOUT), untested_in(CHECKOUT))


def held_by_tests(checkout: Path) -> Iterator[Held]:
    """Promises that the tests of a checkout hold."""
    for folder in TESTS:
        for file in sorted((checkout / folder).rglob("*.py")):
            path = file.relative_to(checkout).as_posix()
            yield from held_in(file.read_text(encoding="utf-8"), path)


def untested_in(checkout: Path) -> Untested:
    """The pages in their order, each with the promises that no test holds, and why."""
    found = yaml.safe_load((checkout / UNTESTED).read_text(encoding="utf-8"))
    return {
        page: {one: why or "" for one, why in (promises or {}).items()} for page, promises in found.items()
    }
