"""The ids of calls: their paths, their numbers, and what has none that would be the same in every replay."""

import asyncio
from collections.abc import Callable

import pytest

from flotilla_runtime.agent.engine.scopes import LONGEST_NAME, Scopes
from flotilla_runtime.agent.failures import ScopeError


def begun() -> Scopes:
    scopes = Scopes()
    scopes.enter_root()
    return scopes


@pytest.mark.holds("agent-code.md", "Ids are the names of scopes, numbered where they come again")
async def test_an_id_is_the_path_of_scopes() -> None:
    scopes = begun()
    ids = [scopes.call_id("ask")]
    with scopes.scope("turn"):
        ids += [scopes.call_id("tool/weather"), scopes.call_id("tool/weather")]
        with scopes.scope("inner"):
            ids.append(scopes.call_id("ask"))
    with scopes.scope("turn"):
        ids.append(scopes.call_id("tool/weather"))
    ids += [scopes.call_id("ask"), scopes.call_id("ask")]
    assert ids == [
        "ask",
        "turn/tool/weather",
        "turn/tool/weather#2",
        "turn/inner/ask",
        "turn#2/tool/weather",
        "ask#2",
        "ask#3",
    ]


async def test_branches_have_scopes_of_their_own_in_whatever_order_they_run() -> None:
    async def ids_of(order: list[str]) -> dict[str, list[str]]:
        scopes = begun()
        ids: dict[str, list[str]] = {}
        turns = {name: asyncio.Event() for name in order}

        async def branch(name: str) -> None:
            with scopes.scope(name):
                await turns[name].wait()
                ids[name] = [scopes.call_id("ask"), scopes.call_id("ask")]

        async with asyncio.TaskGroup() as group:
            for name in "ab":
                group.create_task(branch(name))
            for name in order:
                await asyncio.sleep(0)
                turns[name].set()
        return ids

    assert (
        await ids_of(["a", "b"])
        == await ids_of(["b", "a"])
        == {
            "a": ["a/ask", "a/ask#2"],
            "b": ["b/ask", "b/ask#2"],
        }
    )


async def test_a_call_that_is_named_before_it_is_awaited_needs_no_scope() -> None:
    scopes = begun()

    async def made(call: str) -> str:
        return call

    ids = [*await asyncio.gather(made(scopes.call_id("a")), made(scopes.call_id("a")))]
    assert ids == ["a", "a#2"]


async def _in_another_task(scopes: Scopes) -> None:
    async def branch() -> None:
        scopes.call_id("ask")

    await asyncio.create_task(branch())


async def _same_path(scopes: Scopes) -> None:
    scopes.call_id("a/ask")
    with scopes.scope("a"):
        scopes.call_id("ask")


def _named(name: str) -> Callable[[Scopes], object]:
    async def call(scopes: Scopes) -> None:
        scopes.call_id(name)

    return call


@pytest.mark.holds(
    "agent-code.md", "A call in the scope of another branch, and a name that is none, are errors"
)
@pytest.mark.parametrize(
    ("call", "says"),
    [
        pytest.param(_in_another_task, "has no scope of its own", id="in the scope of another branch"),
        pytest.param(_same_path, "two calls or scopes have the path a/ask", id="two with one path"),
        pytest.param(_named("a#2"), "cannot be the name", id="a number"),
        pytest.param(_named(""), "cannot be the name", id="nothing"),
        pytest.param(_named("/a"), "cannot be the name", id="a path from the root"),
        pytest.param(_named("a\nb"), "cannot be the name", id="two lines"),
        pytest.param(_named("a" * (LONGEST_NAME + 1)), "cannot be the name", id="too long"),
    ],
)
async def test_what_could_be_another_call_in_a_replay_is_refused(
    call: Callable[[Scopes], object], says: str
) -> None:
    with pytest.raises(ScopeError, match=says):
        await call(begun())  # type: ignore[misc]
