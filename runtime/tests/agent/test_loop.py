"""The built-in loop as a function, and its prompts and citations.

Crashes at every write are in test_run.py; Redis and real processes in test_store.py and test_worker.py.
"""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from flotilla_runtime.agent import story as stories
from flotilla_runtime.agent.citations import CitedBy, cite
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
from flotilla_runtime.agent.loop import (
    Act,
    Action,
    Brief,
    End,
    ModelCall,
    RetrieveCall,
    Situation,
    answer_id,
    next_action,
    retrieve_id,
)
from flotilla_runtime.agent.prompts import (
    FROM_PASSAGES,
    WITHOUT_PASSAGES,
    Prompt,
    Source,
    answer_tokens,
    compose,
    estimated_tokens,
    interleaved,
)
from flotilla_runtime.agent.story import Story
from flotilla_runtime.contract import Passage, TaskLimits
from tests.support.generated import seldom_drawn


def brief(**fields: Any) -> Brief:
    defaults: dict[str, Any] = {
        "question": "How is space reclaimed?",
        "instructions": "You answer questions about PostgreSQL.",
        "indexes": ("manual",),
        "model": "smollm2",
        "context_tokens": 4096,
        "limits": TaskLimits(),
        "max_attempts": 5,
    }
    return Brief(**{**defaults, **fields})


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
    call = retrieve_id(index)
    return [
        Intended(at=1, call=call, kind=CallKind.RETRIEVE, target=index, step=1),
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
            at=3, call=call, kind=CallKind.MODEL, target="smollm2", step=1 + number, reserved_tokens=900
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


def after(
    *entries: Entry, task: Brief | None = None, elapsed: float = 1.0, cancel_requested: bool = False
) -> Action:
    begun: list[Entry] = [Submitted(at=0), Claimed(at=1, worker="w1", attempt=1)]
    return next_action(
        stories.read([*begun, *entries]),
        task or brief(),
        Situation(elapsed_seconds=elapsed, cancel_requested=cancel_requested),
    )


def ended(action: Action) -> End:
    assert isinstance(action, End)
    return action


def acting(action: Action) -> Act:
    assert isinstance(action, Act)
    return action


def test_a_new_task_asks_every_index_at_once() -> None:
    act = acting(after(task=brief(indexes=("manual", "wiki"))))
    assert act.step == 1
    assert [(call.id, call.target) for call in act.calls] == [
        ("retrieve/manual", "manual"),
        ("retrieve/wiki", "wiki"),
    ]
    assert all(isinstance(call, RetrieveCall) and call.query == brief().question for call in act.calls)


def test_a_fleet_without_indexes_answers_at_once() -> None:
    act = acting(after(task=brief(indexes=())))
    (call,) = act.calls
    assert isinstance(call, ModelCall)
    assert call.messages[0]["content"] == "You answer questions about PostgreSQL."
    assert call.messages[1]["content"] == "How is space reclaimed?"


def test_the_second_turn_answers_from_numbered_passages() -> None:
    act = acting(after(*retrieved("manual", passage(1), passage(2))))
    (call,) = act.calls
    assert isinstance(call, ModelCall)
    assert act.step == 2
    assert "[1] Page 1\nVACUUM reclaims" in call.messages[1]["content"]
    assert "[2] Page 2" in call.messages[1]["content"]
    assert call.messages[1]["content"].endswith("Question: How is space reclaimed?")


def test_an_answer_ends_the_task_with_its_sources() -> None:
    end = ended(after(*retrieved("manual", passage(1), passage(2)), *answered("It does [2].")))
    assert (end.status, end.reason) == (TaskStatus.SUCCEEDED, EndReason.COMPLETED)
    assert end.result is not None
    assert end.result["answer"] == "It does [2]."
    assert end.result["citedBy"] == "Markers"
    assert end.result["complete"] is True
    assert end.result["citations"] == [
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


def test_one_index_that_fails_is_named_and_the_answer_is_marked_incomplete() -> None:
    task = brief(indexes=("manual", "wiki"))
    failed = retrieved(
        "wiki", outcome=CallOutcome.TIMED_OUT, value=None, generation=None, problem="no answer within 5 s"
    )
    end = ended(after(*retrieved("manual", passage()), *failed, *answered(), task=task))
    assert end.result is not None
    assert end.result["complete"] is False
    assert end.result["missing"] == {"wiki": "no answer within 5 s"}


@pytest.mark.parametrize(
    ("entries", "task", "situation", "reason", "says", "leaves"),
    [
        pytest.param(
            retrieved("manual", value=None, outcome=CallOutcome.FAILED, problem="503"),
            brief(),
            {},
            EndReason.TOOL_FAILED,
            "manual: 503",
            [],
            id="no index answers",
        ),
        pytest.param(
            [*retrieved("manual", passage()), *answered(None, outcome=CallOutcome.FAILED, problem="400: no")],
            brief(),
            {},
            EndReason.MODEL_FAILED,
            "the model smollm2 gave no answer: 400: no",
            ["page-1.html"],
            id="the model fails for good",
        ),
        pytest.param(
            retrieved("manual", passage()),
            brief(limits=TaskLimits(max_steps=1)),
            {},
            EndReason.MAX_STEPS,
            "maxSteps (1)",
            ["page-1.html"],
            id="the steps are used up",
        ),
        pytest.param(
            retrieved("manual", passage()),
            brief(limits=TaskLimits(max_tokens=120)),
            {},
            EndReason.MAX_TOKENS,
            "maxTokens (120)",
            ["page-1.html"],
            id="the tokens do not last for an answer",
        ),
        pytest.param(
            retrieved("manual", passage()),
            brief(limits=TaskLimits(max_wall_seconds=60)),
            {"elapsed": 60.0},
            EndReason.TIMEOUT,
            "maxWallSeconds (60 s)",
            ["page-1.html"],
            id="the time is up",
        ),
        pytest.param(
            retrieved("manual", passage()),
            brief(),
            {"cancel_requested": True},
            EndReason.CANCELLED,
            "cancelled",
            ["page-1.html"],
            id="the caller cancels",
        ),
        pytest.param(
            [Claimed(at=9, worker="w6", attempt=6)],
            brief(),
            {},
            EndReason.INFRASTRUCTURE,
            "5 workers were lost",
            [],
            id="every worker that takes it dies",
        ),
        pytest.param(
            [],
            brief(question="why? " * 4000),
            {},
            EndReason.INVALID,
            "ask a shorter question",
            [],
            id="the question alone does not fit the model",
        ),
    ],
)
def test_a_task_that_cannot_go_on_ends_with_a_reason(
    entries: list[Entry],
    task: Brief,
    situation: dict[str, Any],
    reason: EndReason,
    says: str,
    leaves: list[str],
) -> None:
    end = ended(after(*entries, task=task, **situation))
    assert end.reason is reason
    assert says in end.message
    assert end.result is None
    assert [found["document"] for found in (end.partial or {}).get("passages", [])] == leaves


@pytest.mark.parametrize(
    ("situation", "reason"),
    [
        pytest.param({}, EndReason.COMPLETED, id="in time"),
        pytest.param({"elapsed": 9999}, EndReason.COMPLETED, id="and then the time was up"),
        pytest.param({"cancel_requested": True}, EndReason.COMPLETED, id="and then the caller cancelled"),
    ],
)
def test_an_answer_in_the_journal_counts(situation: dict[str, Any], reason: EndReason) -> None:
    end = ended(after(*retrieved("manual", passage()), *answered(), **situation))
    assert (end.status, end.reason) == (TaskStatus.SUCCEEDED, reason)


def test_a_prompt_that_is_too_long_is_tried_again_with_half_the_passages() -> None:
    found = retrieved("manual", *(passage(number, "word " * 150) for number in range(12)))
    lengths = []
    entries: list[Entry] = list(found)
    for number in range(1, 6):
        (call,) = acting(after(*entries)).calls
        assert isinstance(call, ModelCall)
        assert call.id == answer_id(number)
        lengths.append(len(call.messages[1]["content"]))
        entries += answered(None, number, outcome=CallOutcome.PROMPT_TOO_LONG, problem="too long")
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[1] < 0.6 * lengths[0]
    assert ended(after(*entries)).reason is EndReason.MODEL_FAILED


def test_tokens_of_a_lost_try_count_as_spent() -> None:
    lost = Intended(at=3, call=answer_id(1), kind=CallKind.MODEL, target="m", step=2, reserved_tokens=700)
    task = brief(limits=TaskLimits(max_tokens=1000))
    (first,) = acting(after(*retrieved("manual", passage()), task=task)).calls
    (again,) = acting(after(*retrieved("manual", passage()), lost, task=task)).calls
    assert isinstance(first, ModelCall)
    assert isinstance(again, ModelCall)
    assert again.id == first.id
    assert again.max_tokens < first.max_tokens
    assert again.reserved_tokens + 700 <= 1000


passages = st.lists(st.builds(passage, st.integers(1, 50), st.text(min_size=1, max_size=400)), max_size=6)
outcomes = st.sampled_from(list(CallOutcome))


@st.composite
def journeys(draw: st.DrawFn) -> tuple[Brief, list[Entry]]:
    """A task played to its end with random replies and lost workers; the journal as it then is."""
    task = brief(
        indexes=tuple(draw(st.lists(st.sampled_from(["a", "b", "c"]), unique=True, max_size=3))),
        context_tokens=draw(st.integers(256, 8192)),
        limits=TaskLimits(max_steps=draw(st.integers(1, 8)), max_tokens=draw(st.integers(50, 5000))),
    )
    entries: list[Entry] = [Submitted(at=0), Claimed(at=1, worker="w", attempt=1)]
    for _ in range(30):
        action = next_action(stories.read(entries), task, Situation(elapsed_seconds=1))
        if isinstance(action, End):
            break
        entries += [
            Intended(
                at=2,
                call=call.id,
                kind=call.kind,
                target=call.target,
                step=action.step,
                reserved_tokens=call.reserved_tokens,
            )
            for call in action.calls
        ]
        for call in action.calls:
            if draw(st.integers(0, 4)) == 0:
                attempt = 1 + stories.read(entries).attempts
                entries.append(Claimed(at=3, worker="w", attempt=attempt))
                break
            spent = draw(st.integers(0, call.reserved_tokens))
            outcome = draw(outcomes)
            value = draw(passages) if call.kind is CallKind.RETRIEVE else draw(st.text())
            entries.append(
                Done(
                    at=4,
                    call=call.id,
                    outcome=outcome,
                    took_ms=3,
                    value=value if outcome is CallOutcome.SUCCEEDED else None,
                    generation="g" if call.kind is CallKind.RETRIEVE else None,
                    input_tokens=spent // 2,
                    output_tokens=spent - spent // 2,
                    problem=None if outcome is CallOutcome.SUCCEEDED else "bad",
                )
            )
    return task, entries


@given(journeys())
def test_every_journey_ends_and_no_finished_call_is_made_again(journey: tuple[Brief, list[Entry]]) -> None:
    task, entries = journey
    assert isinstance(next_action(stories.read(entries), task, Situation(elapsed_seconds=1)), End)
    done = [entry.call for entry in entries if isinstance(entry, Done)]
    assert len(done) == len(set(done))
    for place, entry in enumerate(entries):
        if isinstance(entry, Done):
            later = [other.call for other in entries[place:] if isinstance(other, Intended)]
            assert entry.call not in later


@given(journeys())
def test_no_budget_is_overspent_at_any_point(journey: tuple[Brief, list[Entry]]) -> None:
    task, entries = journey
    for length in range(len(entries) + 1):
        story = stories.read(entries[:length])
        assert story.committed_tokens <= task.limits.max_tokens
        assert story.steps <= task.limits.max_steps
        assert story.reserved_tokens >= 0


@given(journeys())
def test_what_is_next_depends_on_the_journal_alone(journey: tuple[Brief, list[Entry]]) -> None:
    task, entries = journey
    for length in range(2, len(entries) + 1):
        through_redis = [decode(encode(entry)) for entry in entries[:length]]
        situation = Situation(elapsed_seconds=1)
        assert next_action(stories.read(through_redis), task, situation) == next_action(
            stories.read(entries[:length]), task, situation
        )


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
    assert stories.read(doubled).used_tokens == 320
    assert stories.read([answered()[1]]) == Story(length=1)


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
