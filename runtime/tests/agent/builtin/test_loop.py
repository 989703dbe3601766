"""The built-in agent with `retrieval: First` and no tools, and its prompts and citations.

It is played on a store in memory whose journal says how far it had come. Agents with tools are in
test_acting.py, crashes at every point in test_replay.py, Redis and real processes in test_run.py and
test_worker.py.
"""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from agent_support.memory import CrashError, MemoryStore, Stored
from agent_support.running import ScriptedCalls, begin, config_of, failed, found, program_of, said
from flotilla_runtime.agent.builtin.citations import CitedBy, cite
from flotilla_runtime.agent.builtin.loop import built_in
from flotilla_runtime.agent.builtin.passages import MOST_SHRINKS, answer_id
from flotilla_runtime.agent.builtin.prompts import (
    FROM_PASSAGES,
    WITHOUT_PASSAGES,
    Prompt,
    Source,
    answer_tokens,
    compose,
    estimated_tokens,
    interleaved,
)
from flotilla_runtime.agent.engine import history as histories
from flotilla_runtime.agent.engine.context import ALL_THAT_IS_LEFT
from flotilla_runtime.agent.engine.history import History
from flotilla_runtime.agent.journal import (
    CallKind,
    CallOutcome,
    Claimed,
    Done,
    Ended,
    EndReason,
    Entry,
    HandedOver,
    Intended,
    Other,
    Submitted,
    TaskStatus,
    decode,
    encode,
)
from flotilla_runtime.agent.models import ModelRequest
from flotilla_runtime.agent.protocols import Call, Finish, Reply, SearchRequest
from flotilla_runtime.contract import ModelConnection, Passage, TaskLimits
from router_support.waiting import until
from tests.support.generated import seldom_drawn

QUESTION = "How is space reclaimed?"


def passage(
    number: int = 1, text: str = "VACUUM reclaims storage occupied by dead tuples."
) -> dict[str, Any]:
    return {
        "id": f"p{number}",
        "document": f"page-{number}.html",
        "title": f"Page {number}",
        "heading": "",
        "anchor": "a",
        "text": text,
        "score": 0.9,
    }


def retrieved(index: str = "manual", *passages: dict[str, Any], **fields: Any) -> list[Entry]:
    call = f"retrieve/{index}"
    return [
        Intended(at=1, call=call, kind=CallKind.RETRIEVE, target=index, step=1, reserved_steps=1),
        Done(
            at=2,
            call=call,
            **{
                "outcome": CallOutcome.SUCCEEDED,
                "took_ms": 5,
                "value": list(passages),
                "generation": "g-1",
                **fields,
            },
        ),
    ]


def answered(text: str | None = "VACUUM does.", number: int = 1, **fields: Any) -> list[Entry]:
    call = answer_id(number)
    return [
        Intended(
            at=3,
            call=call,
            kind=CallKind.MODEL,
            target="smollm2",
            step=1 + number,
            reserved_tokens=900,
            reserved_steps=1,
        ),
        Done(
            at=4,
            call=call,
            **{
                "outcome": CallOutcome.SUCCEEDED,
                "took_ms": 50,
                "value": text,
                "input_tokens": 300,
                "output_tokens": 20,
                **fields,
            },
        ),
    ]


@dataclass(kw_only=True)
class Played:
    """The calls that a task made, and its end."""

    calls: ScriptedCalls
    task: Stored

    @property
    def end(self) -> Finish:
        assert self.task.finish is not None
        return self.task.finish

    def asked(self, place: int = 0) -> ModelRequest:
        requests = [call.request for call in self.calls.asked if isinstance(call.request, ModelRequest)]
        return requests[place]


def stored(*entries: Entry, question: str = QUESTION, limits: TaskLimits | None = None) -> MemoryStore:
    """A store with one task, whose journal has these entries."""
    store = MemoryStore()
    store.submit("t1", question, limits)
    store.restore("t1", [Claimed(at=store.now_ms, worker="w1", attempt=1), *entries])
    return store


async def played(
    *entries: Entry,
    indexes: tuple[str, ...] = ("manual",),
    script: Any = None,
    elapsed: float = 1.0,
    cancel_requested: bool = False,
    context_tokens: int = 4096,
    question: str = QUESTION,
    limits: TaskLimits | None = None,
    reserved_tokens: int | None = None,
    max_output_tokens: int | None = None,
) -> Played:
    """Run the task from this journal to its end."""
    store = stored(*entries, question=question, limits=limits)
    store.now_ms += round(elapsed * 1000)
    store.tasks["t1"].cancel_requested = cancel_requested
    model = ModelConnection(
        role="Default",
        name="smollm2",
        url="http://m/v1",
        model="m",
        context_tokens=context_tokens,
        max_output_tokens=max_output_tokens,
    )
    config = config_of(indexes=indexes, models=(model,))
    calls = ScriptedCalls(**({} if script is None else {"script": script}), reserved_tokens=reserved_tokens)
    await begin(store, program_of(built_in, config=config), calls).run()
    return Played(calls=calls, task=store.tasks["t1"])


def finding(*passages: dict[str, Any], answer: Reply | None = None) -> Any:
    """Every index finds these passages, and the model answers."""

    def script(call: Call) -> Reply:
        if call.kind is CallKind.RETRIEVE:
            return found(*passages)
        return answer or said("VACUUM does.")

    return script


@pytest.mark.holds("tasks.md", "Every index is searched once, all at the same time")
@pytest.mark.holds("tasks.md", "A step is one call of a model, or the first search of all indexes")
async def test_a_new_task_asks_every_index_at_once() -> None:
    hold = asyncio.Event()
    store = stored()
    calls = ScriptedCalls(hold=hold)
    config = config_of(indexes=("manual", "wiki"))
    run = asyncio.create_task(begin(store, program_of(built_in, config=config), calls).run())
    await until(lambda: len(calls.made) == 2)
    assert calls.made == ["retrieve/manual", "retrieve/wiki"]
    assert [call.target for call in calls.asked] == ["manual", "wiki"]
    assert all(call.request == SearchRequest(query=QUESTION) for call in calls.asked)
    hold.set()
    await run
    steps = [
        (entry.step, entry.reserved_steps)
        for entry in store.tasks["t1"].entries
        if isinstance(entry, Intended)
    ]
    assert steps == [(1, 1), (1, 0), (2, 1)], "the searches are one step, and one of them reserves it"


@pytest.mark.holds("tasks.md", "A fleet without indexes only asks its model")
async def test_a_fleet_without_indexes_answers_at_once() -> None:
    task = await played(indexes=())
    assert task.calls.made == ["answer/1"]
    assert task.asked().messages[0]["content"] == "You answer questions about PostgreSQL."
    assert task.asked().messages[1]["content"] == QUESTION


async def test_the_second_turn_answers_from_numbered_passages() -> None:
    task = await played(*retrieved("manual", passage(1), passage(2)))
    assert task.calls.made == ["answer/1"]
    content = task.asked().messages[1]["content"]
    assert "[1] Page 1\nVACUUM reclaims" in content
    assert "[2] Page 2" in content
    assert content.endswith("Question: How is space reclaimed?")


@pytest.mark.holds("tasks.md", "A result has the answer, its citations and how they were found")
async def test_an_answer_ends_the_task_with_its_sources() -> None:
    task = await played(*retrieved("manual", passage(1), passage(2)), *answered("It does [2]."))
    assert task.calls.made == []
    assert (task.end.status, task.end.reason) == (TaskStatus.SUCCEEDED, EndReason.COMPLETED)
    assert task.end.result["answer"] == "It does [2]."
    assert task.end.result["citedBy"] == "Markers"
    assert task.end.result["complete"] is True
    assert task.end.result["citations"] == [
        {
            "number": 2,
            "document": "page-2.html",
            "title": "Page 2",
            "heading": "",
            "anchor": "a",
            "passage": "p2",
            "index": "manual",
            "generation": "g-1",
            "score": 0.9,
        }
    ]


@pytest.mark.holds("tasks.md", "`missing` names indexes that did not answer, and `complete` is false")
async def test_one_index_that_fails_is_named_and_the_answer_is_marked_incomplete() -> None:
    wrong = retrieved(
        "wiki", outcome=CallOutcome.TIMED_OUT, value=None, generation=None, problem="no answer within 5 s"
    )
    task = await played(*retrieved("manual", passage()), *wrong, *answered(), indexes=("manual", "wiki"))
    assert task.end.result["complete"] is False
    assert task.end.result["missing"] == {"wiki": "no answer within 5 s"}


@pytest.mark.holds(
    "tasks.md", "A task ends with one of the listed reasons, and what was found is in `partial`"
)
@pytest.mark.parametrize(
    ("entries", "situation", "reason", "says", "leaves"),
    [
        pytest.param(
            retrieved("manual", value=None, outcome=CallOutcome.FAILED, problem="503"),
            {},
            EndReason.TOOL_FAILED,
            "manual: 503",
            [],
            id="no index answers",
        ),
        pytest.param(
            [*retrieved("manual", passage()), *answered(None, outcome=CallOutcome.FAILED, problem="400: no")],
            {},
            EndReason.MODEL_FAILED,
            "the model smollm2 gave no answer: 400: no",
            ["page-1.html"],
            id="the model fails for good",
        ),
        pytest.param(
            retrieved("manual", passage()),
            {"limits": TaskLimits(max_steps=1)},
            EndReason.MAX_STEPS,
            "maxSteps (1)",
            ["page-1.html"],
            id="the steps are used up",
        ),
        pytest.param(
            retrieved("manual", passage()),
            {"limits": TaskLimits(max_tokens=120)},
            EndReason.MAX_TOKENS,
            "maxTokens (120)",
            ["page-1.html"],
            id="the tokens do not last for an answer",
        ),
        pytest.param(
            retrieved("manual", passage()),
            {"elapsed": 60.0, "limits": TaskLimits(max_wall_seconds=60)},
            EndReason.TIMEOUT,
            "maxWallSeconds (60 s)",
            ["page-1.html"],
            id="the time is up",
        ),
        pytest.param(
            retrieved("manual", passage()),
            {"cancel_requested": True},
            EndReason.CANCELLED,
            "cancelled",
            ["page-1.html"],
            id="the caller cancels",
        ),
        pytest.param(
            [Claimed(at=9, worker="w6", attempt=6)],
            {},
            EndReason.INFRASTRUCTURE,
            "5 workers were lost",
            [],
            id="every worker that takes it dies",
        ),
        pytest.param(
            [],
            {"question": "why? " * 4000},
            EndReason.INVALID,
            "ask a shorter question",
            [],
            id="the question alone does not fit the model",
        ),
    ],
)
async def test_a_task_that_cannot_go_on_ends_with_a_reason(
    entries: list[Entry], situation: dict[str, Any], reason: EndReason, says: str, leaves: list[str]
) -> None:
    task = await played(*entries, **situation)
    assert task.end.reason is reason
    assert says in task.end.message
    assert task.end.result is None
    assert [one["document"] for one in (task.end.partial or {}).get("passages", [])] == leaves
    assert task.calls.made == []


@pytest.mark.holds(
    "tasks.md", "A task ends with one of the listed reasons, and what was found is in `partial`"
)
@pytest.mark.parametrize(
    ("situation", "reason"),
    [
        pytest.param({}, EndReason.COMPLETED, id="in time"),
        pytest.param({"elapsed": 9999}, EndReason.COMPLETED, id="and then the time was up"),
        pytest.param({"cancel_requested": True}, EndReason.COMPLETED, id="and then the caller cancelled"),
    ],
)
async def test_an_answer_in_the_journal_counts(situation: dict[str, Any], reason: EndReason) -> None:
    task = await played(*retrieved("manual", passage()), *answered(), **situation)
    assert (task.end.status, task.end.reason) == (TaskStatus.SUCCEEDED, reason)


@pytest.mark.holds("tasks.md", "A prompt that is too long is sent again with fewer passages")
async def test_a_prompt_that_is_too_long_is_tried_again_with_half_the_passages() -> None:
    long = [passage(number, "word " * 150) for number in range(12)]
    too_long = failed("too long", CallOutcome.PROMPT_TOO_LONG)
    task = await played(*retrieved("manual", *long), script=finding(*long, answer=too_long))
    assert task.calls.made == [answer_id(number) for number in range(1, MOST_SHRINKS + 2)]
    lengths = [len(task.asked(place).messages[1]["content"]) for place in range(MOST_SHRINKS + 1)]
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[1] < 0.6 * lengths[0]
    assert [task.asked(place).max_tokens for place in (0, 1)] == [ALL_THAT_IS_LEFT, answer_tokens(4096)]
    assert task.end.reason is EndReason.MODEL_FAILED


@pytest.mark.holds("tasks.md", "An answer that was cut off is continued, or ends as MaxTokens with its text")
async def test_an_answer_that_was_cut_is_continued() -> None:
    parts = iter([said({"text": "It ", "isCut": True}), said({"text": "does ", "isCut": True}), said("[1].")])
    task = await played(*retrieved("manual", passage()), script=lambda call: next(parts))
    assert task.calls.made == ["answer/1", "answer/1/more/1", "answer/1/more/2"]
    assert task.end.result["answer"] == "It does [1]."
    assert task.asked(2).continues
    assert task.asked(2).messages[-1] == {"role": "assistant", "content": "It does "}


@pytest.mark.holds("tasks.md", "An answer that was cut off is continued, or ends as MaxTokens with its text")
@pytest.mark.parametrize(
    ("more", "limits", "reason"),
    [
        pytest.param(
            failed("no room", CallOutcome.PROMPT_TOO_LONG), {}, EndReason.MAX_TOKENS, id="the context is full"
        ),
        pytest.param(
            said({"text": "more", "isCut": True}), {}, EndReason.MAX_TOKENS, id="it never comes to an end"
        ),
        pytest.param(said("more"), {"max_tokens": 1500}, EndReason.MAX_TOKENS, id="the budget is used up"),
        pytest.param(said("more"), {"max_steps": 2}, EndReason.MAX_STEPS, id="the steps are used up"),
        pytest.param(failed("503"), {}, EndReason.MODEL_FAILED, id="the model is gone"),
    ],
)
async def test_an_answer_that_cannot_be_continued_is_no_success_and_is_kept(
    more: Reply, limits: dict[str, Any], reason: EndReason
) -> None:
    parts = iter([said({"text": "It does", "isCut": True}, input_tokens=900, output_tokens=100)])
    task = await played(
        *retrieved("manual", passage()),
        script=lambda call: next(parts, more),
        limits=TaskLimits(**limits),
        reserved_tokens=1000,
    )
    assert (task.end.status, task.end.reason, task.end.result) == (TaskStatus.FAILED, reason, None)
    assert task.end.partial["answer"].startswith("It does")
    assert [one["document"] for one in task.end.partial["passages"]] == ["page-1.html"]


@pytest.mark.holds(
    "tasks.md",
    "`maxOutputTokens` bounds each request for an answer, and an answer with all that continues it",
)
async def test_the_bound_of_answers_holds_for_an_answer_and_all_that_continues_it() -> None:
    """One that was cut before the bound, by its context, may take what is left of it, and no more."""
    cut = {"text": "on ", "isCut": True}
    parts = iter([said(cut, output_tokens=100), said(cut, output_tokens=40), said(cut, output_tokens=60)])
    task = await played(
        *retrieved("manual", passage()),
        script=lambda call: next(parts),
        max_output_tokens=200,
    )
    assert [task.asked(place).max_tokens for place in (1, 2)] == [100, 60]
    assert (task.end.status, task.end.reason) == (TaskStatus.FAILED, EndReason.MAX_TOKENS)
    assert "maxOutputTokens" in task.end.message
    assert task.end.partial["answer"] == "on on on "
    assert len(task.calls.made) == 3


@pytest.mark.holds("tasks.md", "A crash never overspends a budget")
async def test_tokens_of_a_lost_try_count_as_spent() -> None:
    lost = Intended(
        at=3,
        call=answer_id(1),
        kind=CallKind.MODEL,
        target="m",
        step=2,
        reserved_tokens=700,
        reserved_steps=1,
    )
    limits = TaskLimits(max_tokens=1000)
    fits = await played(*retrieved("manual", passage()), lost, limits=limits, reserved_tokens=300)
    assert fits.end.status is TaskStatus.SUCCEEDED
    assert fits.calls.made == [answer_id(1)]
    assert fits.task.tree.used.tokens == 700 + 44
    refused = await played(*retrieved("manual", passage()), lost, limits=limits, reserved_tokens=301)
    assert (refused.end.reason, refused.calls.made) == (EndReason.MAX_TOKENS, [])


passages = st.lists(st.builds(passage, st.integers(1, 50), st.text(min_size=1, max_size=400)), max_size=6)
outcomes = st.sampled_from(
    [CallOutcome.SUCCEEDED, CallOutcome.FAILED, CallOutcome.TIMED_OUT, CallOutcome.PROMPT_TOO_LONG]
)


@st.composite
def journeys(draw: st.DrawFn) -> Stored:
    """A task played to its end with random replies and lost workers."""
    context_tokens = draw(st.integers(256, 8192))
    indexes = tuple(draw(st.lists(st.sampled_from(["a", "b", "c"]), unique=True, max_size=3)))
    limits = TaskLimits(max_steps=draw(st.integers(1, 8)), max_tokens=draw(st.integers(50, 5000)))

    def script(call: Call) -> Reply:
        outcome = draw(outcomes)
        spent = draw(st.integers(0, 100))
        if outcome is not CallOutcome.SUCCEEDED:
            return Reply(
                outcome=outcome, problem="bad", output_tokens=0 if call.kind is CallKind.RETRIEVE else spent
            )
        if call.kind is CallKind.RETRIEVE:
            return found(*draw(passages))
        text = draw(st.text())
        value = {"text": text, "isCut": True} if draw(st.booleans()) else text
        return said(value, input_tokens=spent, output_tokens=100 - spent)

    async def play() -> Stored:
        store = MemoryStore()
        store.submit("t1", QUESTION, limits)
        model = ModelConnection(
            role="Default", name="smollm2", url="http://m/v1", model="m", context_tokens=context_tokens
        )
        program = program_of(built_in, config=config_of(indexes=indexes, models=(model,)))
        for _ in range(5):
            calls = ScriptedCalls(script=script, reserved_tokens=draw(st.integers(100, 900)))
            store.points.crash_at = len(store.points.passed) + draw(st.integers(1, 20))
            calls.points = store.points
            try:
                await begin(store, program, calls).run()
            except* CrashError:
                store.points.has_crashed = False
            store.points.crash_at = None
            if store.tasks["t1"].finish is not None:
                break
        else:
            await begin(store, program, ScriptedCalls(script=script, reserved_tokens=100)).run()
        return store.tasks["t1"]

    return asyncio.run(play())


@given(journeys())
def test_every_journey_ends_and_no_finished_call_is_made_again(task: Stored) -> None:
    assert task.finish is not None
    entries = task.entries
    done = [entry.call for entry in entries if isinstance(entry, Done)]
    assert len(done) == len(set(done))
    for place, entry in enumerate(entries):
        if isinstance(entry, Done):
            later = [other.call for other in entries[place:] if isinstance(other, Intended)]
            assert entry.call not in later


@pytest.mark.holds("tasks.md", "A crash never overspends a budget")
@given(journeys())
def test_no_budget_is_overspent_at_any_point(task: Stored) -> None:
    for length in range(len(task.texts) + 1):
        history = histories.read(task.entries[:length])
        held = history.used + history.open_reserve
        assert held.tokens <= task.limits.max_tokens
        assert history.steps <= task.limits.max_steps
    assert task.tree.reserved.tokens == 0
    assert task.tree.used.tokens == history.used.tokens + history.open_reserve.tokens


@pytest.mark.parametrize(
    "entry",
    [
        Submitted(at=1),
        Claimed(at=1, worker="w", attempt=2),
        HandedOver(at=1, worker="w"),
        Intended(at=1, call="c", kind=CallKind.MODEL, target="m", step=1, reserved_tokens=5),
        Done(at=1, call="c", outcome=CallOutcome.FAILED, took_ms=2, problem="no"),
        Ended(at=1, status=TaskStatus.FAILED, reason="Timeout", message="late"),
        Other(at=1, document={"type": "Dreamt", "at": 1, "of": "sheep"}),
    ],
    ids=lambda entry: type(entry).__name__,
)
def test_an_entry_reads_back_as_it_was(entry: Entry) -> None:
    assert decode(encode(entry)) == entry


def test_fields_of_a_newer_version_are_left_alone() -> None:
    assert decode('{"type":"Submitted","at":1,"from":"afar"}') == Submitted(at=1)


def test_a_done_without_an_open_intent_changes_nothing() -> None:
    doubled = [*answered(), answered()[1]]
    assert histories.read(doubled).used.tokens == 320
    assert histories.read([answered()[1]]) == History(length=1)


def source(number: int, text: str, index: str = "manual") -> Source:
    return Source(index=index, generation="g", passage=Passage.model_validate(passage(number, text)))


PROMPTS = (
    st.text(max_size=2000),
    st.lists(
        st.builds(lambda word, times: word * times, st.text(min_size=1, max_size=9), st.integers(1, 300)),
        min_size=1,
        max_size=12,
    ),
    st.sampled_from([1024, 1500, 2048, 4096, 32768]),
    st.integers(0, 4),
)


def prompt_of(question: str, texts: list[str], context_tokens: int, shrinks: int) -> Prompt:
    return compose(
        instructions="Answer.",
        question=question[: context_tokens // 4],
        sources=[source(number, text) for number, text in enumerate(texts)],
        context_tokens=context_tokens,
        shrinks=shrinks,
    )


def kinds_of_prompts(question: str, texts: list[str], context_tokens: int, shrinks: int) -> Iterator[str]:
    taken = len(prompt_of(question, texts, context_tokens, shrinks).sources)
    if taken > 1:
        yield "several passages"
    if 0 < taken < len(texts):
        yield "some passages left out"


def test_prompts_with_and_without_room_for_their_passages_are_drawn() -> None:
    expected = ("several passages", "some passages left out")
    assert seldom_drawn(expected, kinds_of_prompts, *PROMPTS) == {}


@given(*PROMPTS)
def test_a_prompt_with_passages_leaves_room_for_the_answer(
    question: str, texts: list[str], context_tokens: int, shrinks: int
) -> None:
    prompt = prompt_of(question, texts, context_tokens, shrinks)
    for number, taken in enumerate(prompt.sources, start=1):
        assert f"[{number}] {taken.passage.title}" in prompt.user
    assume(prompt.sources)
    assert prompt.tokens + answer_tokens(context_tokens) <= context_tokens


def test_a_model_is_told_of_passages_only_when_there_are_some() -> None:
    def system(*texts: str, retrieves: bool = True) -> str:
        return compose(
            instructions="Be kind.",
            question="why?",
            sources=[source(number, text) for number, text in enumerate(texts)],
            context_tokens=1024,
            retrieves=retrieves,
        ).system

    assert system("short", "word " * 2000) == f"Be kind.\n\n{FROM_PASSAGES}"
    assert system("word " * 2000) == f"Be kind.\n\n{WITHOUT_PASSAGES}", "the one passage does not fit"
    assert system() == f"Be kind.\n\n{WITHOUT_PASSAGES}"
    assert system(retrieves=False) == "Be kind."


def test_tokens_are_estimated_from_bytes() -> None:
    assert estimated_tokens("") == 0
    assert estimated_tokens("four") == 2
    assert estimated_tokens("真空") == 2


def test_several_indexes_take_turns_by_rank() -> None:
    a = [source(1, "x", "a"), source(2, "x", "a"), source(3, "x", "a")]
    b = [source(1, "x", "b")]
    assert [(s.index, s.passage.id) for s in interleaved([a, b])] == [
        ("a", "p1"),
        ("b", "p1"),
        ("a", "p2"),
        ("a", "p3"),
    ]


VACUUM = source(1, "VACUUM reclaims storage occupied by dead tuples.")
INDEX = source(2, "CREATE INDEX CONCURRENTLY builds the index without taking locks that prevent writes.")


@pytest.mark.holds("tasks.md", "A result has the answer, its citations and how they were found")
@pytest.mark.parametrize(
    ("answer", "by", "numbers"),
    [
        pytest.param("Use it [2].", CitedBy.MARKERS, [2], id="a marker is taken at its word"),
        pytest.param("Both [2, 1].", CitedBy.MARKERS, [2, 1], id="two numbers in one marker"),
        pytest.param("Use `pay_by_quarter[1]`.", CitedBy.NOTHING, [], id="a number in a code span"),
        pytest.param("Use ``a ` [1]`` [2].", CitedBy.MARKERS, [2], id="a code span that holds a backtick"),
        pytest.param("Use pay_by_quarter[1].", CitedBy.NOTHING, [], id="the index of an array"),
        pytest.param("Use matrix[1][2].", CitedBy.NOTHING, [], id="two indexes of an array"),
        pytest.param("Thus:\n```sql\nSELECT x [1];\n```\nso [2].", CitedBy.MARKERS, [2], id="fenced code"),
        pytest.param("Thus:\n~~~\na [1]\n~~~\n", CitedBy.NOTHING, [], id="code fenced by tildes"),
        pytest.param("Thus [2]:\n```\na [1]", CitedBy.MARKERS, [2], id="fenced code that was cut off"),
        pytest.param("It is so.[1][2]", CitedBy.MARKERS, [1, 2], id="markers behind a full stop"),
        pytest.param("A lone ` and [1].", CitedBy.MARKERS, [1], id="a backtick that opens nothing"),
        pytest.param("See [7].", CitedBy.NOTHING, [], id="a number that no passage has"),
        pytest.param("The VACUUM command reclaims storage.", CitedBy.OVERLAP, [1], id="the words of one"),
        pytest.param("Create it with CONCURRENTLY.", CitedBy.OVERLAP, [2], id="the words of the other"),
        pytest.param("Yes.", CitedBy.NOTHING, [], id="an answer that shares nothing"),
        pytest.param("", CitedBy.NOTHING, [], id="an empty answer"),
    ],
)
def test_an_answer_cites_what_it_rests_on(answer: str, by: CitedBy, numbers: list[int]) -> None:
    cited = cite(answer, [VACUUM, INDEX])
    assert (cited.by, [number for number, _ in cited.sources]) == (by, numbers)
