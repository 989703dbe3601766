"""Renders docs/tested.md: a section for each page, and in it the promises in the order of the alphabet.

The order of pages is that of untested.yaml, which has every page, with the promises that no test holds.
"""

from collections.abc import Iterable, Mapping

from tested_page.marks import Held

README = "README.md"
HEAD = """\
# What is tested

Look here for the test that holds a promise of the docs, and for promises that no test holds. There is a
section for each page. A row has the promise in short words, then the tests: `path::name`, the path from the
root of the repository. To run one, for example:

```sh
.venv/bin/pytest operator/tests/house/test_tested_page.py::test_every_test_that_the_page_names_exists
```

"untested" means that no test would fail if the promise were broken. Some of these figures are measured by a
benchmark; then the row names its command. Descriptions of other programs and of single measurements are no
promises and have no row.

`make generate` writes this page from the marks `@pytest.mark.holds(page, promise)` on the tests, and from
`e2e/tested_page/untested.yaml`. When you change what a page promises, change the marks.
"""
Untested = Mapping[str, Mapping[str, str]]


def rendered_page(held: Iterable[Held], untested: Untested) -> str:
    """The page. Raises ValueError for a page that `untested` lacks, and for a promise that is in both."""
    rows: dict[str, dict[str, list[str]]] = {page: {} for page in untested}
    for one in held:
        if one.page not in rows:
            raise ValueError(f"{one.test} holds a promise of {one.page}, which untested.yaml does not list")
        if one.promise in untested[one.page]:
            raise ValueError(f"{one.test} holds {one.promise!r} of {one.page}, which untested.yaml lists")
        rows[one.page].setdefault(one.promise, []).append(one.test)
    sections = [_section(page, rows[page], untested[page]) for page in untested]
    return "\n".join([HEAD, *sections])


def _section(page: str, held: Mapping[str, list[str]], untested: Mapping[str, str]) -> str:
    cells = {
        promise: ", ".join(f"`{test}`" for test in sorted(set(tests))) for promise, tests in held.items()
    }
    cells |= {promise: f"untested ({why})" if why else "untested" for promise, why in untested.items()}
    title, link = (page, f"../{page}") if page == README else (f"docs/{page}", page)
    lines = [f"## [{title}]({link})", "", "| promise | test |", "|---|---|"]
    return "\n".join([*lines, *(f"| {one} | {cells[one]} |" for one in sorted(cells, key=_in_order))]) + "\n"


def _in_order(promise: str) -> tuple[str, str]:
    """By the words, without the marks of code around them."""
    return promise.replace("`", "").casefold(), promise
