"""docs/tested.md is made from marks on tests: which marks are read, what the page has, what is refused."""

import pytest

from tested_page.marks import Held, held_in
from tested_page.page import rendered_page

SOURCE = '''
"""It says pytest.mark.holds, too."""
import pytest

@pytest.mark.holds("install.md", "A digest wins over a tag")
def test_plain() -> None: ...

@pytest.mark.services
@pytest.mark.holds("install.md", "A promise that is longer than a line "
    "goes on in the next one")
@pytest.mark.holds("README.md", "`make` works")
@pytest.mark.parametrize("x", [1])
async def test_two(x: int) -> None: ...

@pytest.mark.holds("start/eks.md", "It starts", case="eks")
def test_case(cloud: str) -> None: ...

class TestOuter:
    class TestInner:
        @pytest.mark.holds("install.md", "A digest wins over a tag")
        def test_deep(self) -> None: ...

def test_that_holds_nothing() -> None: ...
'''
HELD = held_in(SOURCE, "a/test_b.py")


def test_the_marks_of_every_kind_of_test_are_read() -> None:
    assert [
        Held("install.md", "A digest wins over a tag", "a/test_b.py::test_plain"),
        Held(
            "install.md",
            "A promise that is longer than a line goes on in the next one",
            "a/test_b.py::test_two",
        ),
        Held("README.md", "`make` works", "a/test_b.py::test_two"),
        Held("start/eks.md", "It starts", "a/test_b.py::test_case[eks]"),
        Held("install.md", "A digest wins over a tag", "a/test_b.py::TestOuter::TestInner::test_deep"),
    ] == HELD


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        pytest.param("@pytest.mark.holds('a.md')\ndef test_a(): ...", "a.py:1: .* takes", id="no promise"),
        pytest.param("@pytest.mark.holds('a.md', NAME)\ndef test_a(): ...", "takes", id="no text"),
        pytest.param("@pytest.mark.holds('a.md', f'{x}')\ndef test_a(): ...", "takes", id="made of parts"),
        pytest.param("@pytest.mark.holds('a.md', '')\ndef test_a(): ...", "takes", id="empty"),
        pytest.param(
            "@pytest.mark.holds('a.md', 'b', id='c')\ndef test_a(): ...", "takes", id="another word"
        ),
        pytest.param(
            "@pytest.mark.holds('a.md', 'b', case=c)\ndef test_a(): ...", "takes", id="a case by name"
        ),
        pytest.param("@pytest.mark.holds('a.md', 'b | c')\ndef test_a(): ...", "one line", id="a bar"),
        pytest.param(
            "@pytest.mark.holds('a.md', 'b ')\ndef test_a(): ...", "one line", id="a space at its end"
        ),
        pytest.param(
            "@pytest.mark.holds('a.md', 'b')\ndef help(): ...", "a.py:1: .* a test", id="on no test"
        ),
        pytest.param("pytestmark = pytest.mark.holds('a.md', 'b')", "a decorator of a test", id="on a file"),
    ],
)
def test_a_mark_that_cannot_be_read_is_named(source: str, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        held_in(source, "a.py")


def test_the_page_has_a_section_for_each_page_and_its_promises_in_one_order() -> None:
    untested = {
        "README.md": {"Docker is used": ""},
        "start/eks.md": {},
        "install.md": {"It is quick": "measured by `make bench`"},
    }
    page = rendered_page(HELD, untested)
    assert page == rendered_page(reversed(HELD), untested)
    assert (
        page.partition("\n## ")[2]
        == """\
[README.md](../README.md)

| promise | test |
|---|---|
| Docker is used | untested |
| `make` works | `a/test_b.py::test_two` |

## [docs/start/eks.md](start/eks.md)

| promise | test |
|---|---|
| It starts | `a/test_b.py::test_case[eks]` |

## [docs/install.md](install.md)

| promise | test |
|---|---|
| A digest wins over a tag | `a/test_b.py::TestOuter::TestInner::test_deep`, `a/test_b.py::test_plain` |
| A promise that is longer than a line goes on in the next one | `a/test_b.py::test_two` |
| It is quick | untested (measured by `make bench`) |
"""
    )


@pytest.mark.parametrize(
    ("untested", "fault"),
    [
        pytest.param(
            {"README.md": {}}, "of install.md, which untested.yaml does not list", id="no such page"
        ),
        pytest.param(
            {"README.md": {}, "install.md": {"A digest wins over a tag": ""}, "start/eks.md": {}},
            "'A digest wins over a tag' of install.md, which untested.yaml lists",
            id="tested and untested",
        ),
    ],
)
def test_marks_that_contradict_the_list_of_the_untested_are_named(
    untested: dict[str, dict[str, str]], fault: str
) -> None:
    with pytest.raises(ValueError, match=fault):
        rendered_page(HELD, untested)
