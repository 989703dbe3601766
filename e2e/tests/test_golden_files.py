"""Differences from a golden file: what a person reads, and that they lose nothing.

What is rendered with them is in operator/tests/workloads, runtime/tests/router/test_haproxy.py and
test_chart.py.
"""

from textwrap import dedent

import pytest
from hypothesis import given
from hypothesis import strategies as st

from golden_files import Part, Whole, difference, objects_of, renamed, replaced, restored, sections_of

DEPLOYMENT = """\
kind: Deployment
metadata:
  name: llama-router
spec:
  replicas: 2
  template:
    spec:
      containers:
      - args:
        - a
        - b
        name: agent
"""
CLAIM = """\
kind: Claim
metadata:
  name: models
  owners:
  - llama
  - another
spec:
  access:
  - once
  - many
  mode: block
  size: 1Gi
  storage: fast
  volumes:
  - one
  - two
  - three
  - four
  - five
"""


def whole(text: str) -> Whole:
    return Whole(file="smallest.yaml", parts=objects_of(text))


def body(text: str) -> list[str]:
    """The blocks of a difference after its heading and the list of parts."""
    return text.split("\n\n")[2:]


def test_a_hunk_names_the_path_of_its_lines() -> None:
    text = difference(whole(DEPLOYMENT), objects_of(DEPLOYMENT.replace("- b", "- c")))
    (shown,) = body(text)
    assert shown == dedent("""\
        ~ Deployment llama-router
        @@ spec.template.spec.containers[agent].args[1]
               - args:
                 - a
        -        - b
        +        - c
                 name: agent
        """)


def test_the_list_of_parts_tells_what_became_of_each() -> None:
    text = difference(
        whole(f"{DEPLOYMENT}---\n{CLAIM}"), objects_of(f"kind: A\nname: new\n---\n{DEPLOYMENT}")
    )
    assert text.split("\n\n")[1].splitlines()[1:] == [
        "+ A new",
        "  Deployment llama-router",
        "- Claim models",
    ]


def test_a_new_part_that_is_much_like_another_is_compared_with_it() -> None:
    second = CLAIM.replace("name: models", "name: others")
    text = difference(whole(CLAIM), objects_of(f"{CLAIM}---\n{second}"))
    (shown,) = body(text)
    assert shown.splitlines()[0] == "+ Claim others, like Claim models"
    assert [line for line in shown.splitlines() if line[0] in "+-"][1:] == [
        "-  name: models",
        "+  name: others",
    ]


def test_a_new_part_of_another_kind_is_shown_whole() -> None:
    (shown,) = body(difference(whole(CLAIM), objects_of(f"{CLAIM}---\n{DEPLOYMENT}")))
    assert shown.splitlines()[1:] == [f"+{line}" for line in DEPLOYMENT.splitlines()]


def test_another_owners_name_is_no_difference() -> None:
    other = Whole(file="f", parts=objects_of(DEPLOYMENT), owner=("llama", "full"), ids={"- b": "- c"})
    text = difference(other, objects_of(DEPLOYMENT.replace("llama", "full").replace("- b", "- c")))
    assert "  llama -> full\n  - b -> - c\n" in text
    assert body(text) == []


@pytest.mark.parametrize(
    ("line", "after"),
    [
        pytest.param("name: llama-router", "name: full-router", id="a name made of the owner's"),
        pytest.param("name: llama", "name: full", id="the owner's name"),
        pytest.param('"flotilla.dev/owner": "llama",', '"flotilla.dev/owner": "full",', id="in JSON"),
        pytest.param("uid: uid-llama", "uid: uid-full", id="a uid"),
        pytest.param("url: http://llama-model.default", "url: http://full-model.default", id="a host"),
        pytest.param("- hf://meta/llama", "- hf://meta/llama", id="a model's source stays"),
        pytest.param("value: llama", "value: llama", id="a model's name in the environment stays"),
        pytest.param("name: llamas", "name: llamas", id="a longer word stays"),
    ],
)
def test_a_name_is_replaced_only_where_it_is_the_owners(line: str, after: str) -> None:
    (changed,) = renamed([Part(title="Pod llama", lines=(line,), paths=((),))], "llama", "full")
    assert (changed.title, changed.lines) == ("Pod full", (after,))


def test_ids_are_replaced_at_once_and_everywhere() -> None:
    (changed,) = replaced([Part(title="Job aa-1", lines=("x-aa-bb",), paths=((),))], {"aa": "bb", "bb": "aa"})
    assert (changed.title, changed.lines) == ("Job bb-1", ("x-bb-aa",))


def test_a_configuration_is_split_at_lines_that_are_not_indented() -> None:
    text = "\nglobal\n    a\n\nfrontend x\n    b\n"
    assert [(part.title, part.lines) for part in sections_of(text)] == [
        ("head", ("",)),
        ("global", ("global", "    a", "")),
        ("frontend x", ("frontend x", "    b")),
    ]


# Few different lines and titles, so that they repeat and a hunk could fit in several places.
LINES = st.lists(st.sampled_from(["", "a", "b", "- a", "@@ a", "+ a", "  a"]), max_size=12).map(tuple)
TEXTS = st.dictionaries(st.sampled_from(["Pod a", "Pod b", "Pod c", "Job a"]), LINES, max_size=4)


def parts_of(texts: dict[str, tuple[str, ...]]) -> list[Part]:
    return [Part(title=title, lines=lines, paths=((),) * len(lines)) for title, lines in texts.items()]


@given(base=TEXTS, here=TEXTS)
def test_nothing_is_lost(base: dict[str, tuple[str, ...]], here: dict[str, tuple[str, ...]]) -> None:
    text = difference(Whole(file="whole", parts=parts_of(base)), parts_of(here))
    assert restored(text, parts_of(base)) == list(here.items())
