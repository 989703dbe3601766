"""The text of models that a worker shows, and to whom."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from flotilla_runtime.agent.errors import StoreUnavailableError
from flotilla_runtime.agent.models import ModelProblem, ModelProblemReason, TextDelta, Withdrawn
from flotilla_runtime.agent.store.texts import Piece, TaskPieces
from flotilla_runtime.agent.worker.texts import MOST_OF_A_CALL, MOST_OF_A_TASK, CallText, Texts
from router_support.waiting import until

PROBLEM = ModelProblem(reason=ModelProblemReason.STALLED, message="it stopped")


@dataclass
class Screen:
    """The pieces that were shown; `watching` are the tasks that somebody watches."""

    watching: set[str] = field(default_factory=set)
    shown: list[TaskPieces] = field(default_factory=list)
    asked: list[list[str]] = field(default_factory=list)
    is_away: bool = False

    async def watched(self, tasks: list[str]) -> set[str]:
        self.asked.append(tasks)
        if self.is_away:
            raise StoreUnavailableError("away")
        return self.watching & set(tasks)

    async def show(self, tasks: list[TaskPieces]) -> None:
        self.shown += tasks

    def pieces(self) -> list[Piece]:
        return [piece for task in self.shown for piece in task.pieces]


def writes(text: CallText, *parts: str) -> None:
    for part in parts:
        text.take(TextDelta(text=part))


async def test_text_is_sent_once_and_in_few_pieces() -> None:
    screen = Screen(watching={"t"})
    texts = Texts(screen)
    text = texts.begin("t", 7, "c", answers=True)
    writes(text, "VAC", "UUM")
    await texts.look()
    writes(text, " frees space")
    await texts.look()
    await texts.look()
    assert screen.pieces() == [
        Piece(call="c", text="VACUUM", answers=True),
        Piece(call="c", at=6, text=" frees space", answers=True),
    ]
    assert {task.token for task in screen.shown} == {7}
    assert len(screen.asked) == 2, "nothing is asked while nothing is new"


@pytest.mark.holds(
    "tasks.md",
    "Text is bounded for each call and task, and costs one command of a worker where nobody watches",
)
async def test_where_nobody_watches_one_question_for_all_tasks_is_all() -> None:
    screen = Screen()
    texts = Texts(screen)
    for task in ("a", "b"):
        writes(texts.begin(task, 1, "c", answers=False), "text")
    await texts.look()
    assert (screen.asked, screen.shown) == ([["a", "b"]], [])


@pytest.mark.holds(
    "tasks.md",
    "`text` comes as the model writes it, whole for who comes late, taken back with its try, and "
    "is not written to the append-only file",
)
async def test_who_comes_late_gets_it_from_the_beginning() -> None:
    screen = Screen()
    texts = Texts(screen)
    text = texts.begin("t", 1, "c", answers=False)
    writes(text, "VACUUM ")
    await texts.look()
    screen.watching = {"t"}
    writes(text, "frees")
    await texts.look()
    assert screen.pieces() == [Piece(call="c", text="VACUUM frees")]


@pytest.mark.holds(
    "tasks.md",
    "`text` comes as the model writes it, whole for who comes late, taken back with its try, and "
    "is not written to the append-only file",
)
async def test_the_text_of_a_try_that_died_is_taken_back_only_where_it_was_shown() -> None:
    screen = Screen(watching={"t"})
    texts = Texts(screen)
    shown, unseen = texts.begin("t", 1, "shown", answers=False), texts.begin("t", 1, "unseen", answers=False)
    writes(shown, "old")
    await texts.look()
    writes(unseen, "old")
    for text in (shown, unseen):
        text.take(Withdrawn(problem=PROBLEM))
    await texts.look()
    writes(shown, "new")
    await texts.look()
    assert screen.pieces()[1:] == [Piece(call="shown", number=1), Piece(call="shown", number=1, text="new")]


async def test_what_was_shown_is_dropped_with_the_last_call() -> None:
    screen = Screen(watching={"t"})
    texts = Texts(screen)
    first, second = texts.begin("t", 1, "a", answers=False), texts.begin("t", 1, "b", answers=False)
    writes(first, "x")
    writes(second, "y")
    await texts.look()
    first.end()
    await texts.look()
    assert screen.shown[-1].pieces == [Piece(call="a", ends=True)]
    second.end()
    await texts.look()
    assert screen.shown[-1] == TaskPieces(task="t", token=1, pieces=[])
    assert texts.tasks == 0


@pytest.mark.holds(
    "tasks.md",
    "Text is bounded for each call and task, and costs one command of a worker where nobody watches",
)
@pytest.mark.attack("A model's answer has no end, and somebody watches it")
async def test_a_call_and_a_task_show_no_more_than_their_share_and_never_a_gap() -> None:
    screen = Screen(watching={"t"})
    texts = Texts(screen)
    calls = [texts.begin("t", 1, f"c{number}", answers=False) for number in range(6)]
    for _ in range(3):
        for text in calls:
            writes(text, "x" * (MOST_OF_A_CALL // 2))
        await texts.look()
    written = {text.call: "" for text in calls}
    for piece in screen.pieces():
        assert piece.at == len(written[piece.call])
        written[piece.call] += piece.text
    assert max(map(len, written.values())) == MOST_OF_A_CALL
    assert sum(map(len, written.values())) == MOST_OF_A_TASK


async def test_text_that_is_no_unicode_is_shown_all_the_same() -> None:
    screen = Screen(watching={"t"})
    texts = Texts(screen)
    writes(texts.begin("t", 1, "c", answers=False), "a\ud83d")
    await texts.look()
    assert [piece.text for piece in screen.pieces()] == ["a?"]


@contextlib.asynccontextmanager
async def following(texts: Texts) -> AsyncIterator[None]:
    task = asyncio.create_task(texts.follow())
    yield
    task.cancel()


async def test_text_comes_when_redis_is_back() -> None:
    screen = Screen(watching={"t"}, is_away=True)
    texts = Texts(screen, every_seconds=0.01)
    async with following(texts):
        writes(texts.begin("t", 1, "c", answers=False), "text")
        await until(lambda: len(screen.asked) >= 3)
        screen.is_away = False
        await until(lambda: bool(screen.shown))
    assert screen.pieces() == [Piece(call="c", text="text")]
