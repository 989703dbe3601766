"""The control map: what is written is read again. test_router_choice.py lets router.lua read it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flotilla_runtime.router.control_map import Home, entries, initial_text, read_homes, write_homes

HOMES = st.lists(st.builds(Home, name=st.from_regex(r"[a-z0-9.-]{1,40}", fullmatch=True), id=st.integers(1)))


@given(HOMES)
def test_homes_are_read_as_they_were_written(homes: list[Home]) -> None:
    assert read_homes(write_homes(homes)) == tuple(homes)


@given(HOMES)
def test_what_is_written_is_one_word_that_is_never_empty(homes: list[Home]) -> None:
    """The admin socket takes a value up to the next space, and no empty one."""
    assert len(write_homes(homes).split()) == 1


@pytest.mark.parametrize(
    ("value", "homes"),
    [
        pytest.param("-", (), id="no server"),
        pytest.param("", (), id="nothing"),
        pytest.param("a=1,b=2", (Home(name="a", id=1), Home(name="b", id=2)), id="two servers"),
        pytest.param("a=1,b,c=3", (Home(name="a", id=1), Home(name="c", id=3)), id="one without an id"),
    ],
)
def test_a_value_of_the_servers(value: str, homes: tuple[Home, ...]) -> None:
    assert read_homes(value) == homes


def test_haproxy_starts_with_an_entry_of_each_kind() -> None:
    lines = dict(line.split(" ") for line in initial_text(10).splitlines())
    assert lines == {"servers": "-", "queue_limit": "10", "draining": "0"}
    later = entries(homes=[Home(name="a", id=1)], queue_limit=5, draining=True)
    assert later == {"servers": "a=1", "queue_limit": "5", "draining": "1"}
