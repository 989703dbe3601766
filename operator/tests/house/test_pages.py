"""Every link and every path of a test in README, CONTRIBUTING, CHANGELOG and docs/ leads somewhere.

Anchors are made from headings as GitHub makes them. Links to other sites are not followed.
"""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[3]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#{1,6} +(.+?) *$", re.MULTILINE)
TEST_PATH = re.compile(r"`((?:[\w.-]+/)+[\w.-]+\.py)\b")


def prose(text: str) -> str:
    """The text without code blocks, where a # is a comment and a bracket is code."""
    return FENCE.sub("", text)


def anchors(text: str) -> set[str]:
    """The anchors of the headings; one that comes again gets a number."""
    seen: Counter[str] = Counter()
    found = set()
    for heading in HEADING.findall(prose(text)):
        shown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        anchor = re.sub(r"[^\w\- ]", "", shown.lower()).replace(" ", "-")
        found.add(f"{anchor}-{seen[anchor]}" if seen[anchor] else anchor)
        seen[anchor] += 1
    return found


def broken_links(page: Path, text: str) -> Iterator[str]:
    """The relative links of a page that lead nowhere."""
    for link in LINK.findall(prose(text)):
        path, _, anchor = link.partition("#")
        if "://" in path:
            continue
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors_of(target, page, text)):
            yield link


def anchors_of(target: Path, page: Path, text: str) -> set[str]:
    return anchors(text if target == page else target.read_text())


def missing_files(text: str) -> Iterator[str]:
    """The Python files that a page names by their path from the root and that are not there."""
    return (path for path in TEST_PATH.findall(text) if not (ROOT / path).is_file())


def test_every_link_leads_to_a_file_and_a_heading() -> None:
    assert {ROOT / "README.md", ROOT / "docs" / "router.md"} <= set(PAGES)
    broken = {str(page.relative_to(ROOT)): list(broken_links(page, page.read_text())) for page in PAGES}
    assert {page: links for page, links in broken.items() if links} == {}


def test_every_file_that_a_page_names_is_there() -> None:
    missing = {str(page.relative_to(ROOT)): list(missing_files(page.read_text())) for page in PAGES}
    assert {page: paths for page, paths in missing.items() if paths} == {}


def test_a_broken_link_is_seen() -> None:
    text = "# Old name\n[a](docs/gone.md) [b](#new-name) [c](#old-name) [d](docs/groups.md#gone) [e](https://x.y)"
    assert list(broken_links(ROOT / "README.md", text)) == [
        "docs/gone.md",
        "#new-name",
        "docs/groups.md#gone",
    ]


def test_a_file_that_is_gone_is_seen() -> None:
    assert list(missing_files("`e2e/tests/test_gone.py::test_it`, `e2e/tests/conftest.py`")) == [
        "e2e/tests/test_gone.py"
    ]


def test_anchors_are_those_of_github() -> None:
    text = "# A, B & `c`\n## A model's [key](x.md)\n```sh\n# no heading\n```\n## Twice\n## Twice\n"
    assert anchors(text) == {"a-b--c", "a-models-key", "twice", "twice-1"}
