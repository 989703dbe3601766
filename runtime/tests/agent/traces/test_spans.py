"""Attributes and ids of spans, for collectors and Langfuse. Whole traces are in test_whole_traces.py."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace.sampling import Decision, TraceIdRatioBased

from flotilla_runtime.agent.journal import (
    CallKind,
    CallOutcome,
    Claimed,
    Done,
    Entry,
    HandedOver,
    Intended,
    TaskStatus,
)
from flotilla_runtime.agent.models import ModelRequest
from flotilla_runtime.agent.tasks import NewTask, TaskRecord
from flotilla_runtime.agent.traces.ids import Parent, is_sampled, read_traceparent, trace_of, traceparent
from flotilla_runtime.agent.traces.messages import answer_document, message_documents
from flotilla_runtime.agent.traces.spans import End, Fleet, Span, SpanKind, TaskSpans, scopes_of, submission
from flotilla_runtime.contract import ModelConnection, Priority, TaskLimits

START = 1_700_000_000_000
GIVEN = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
FLEET = Fleet(
    name="support",
    models={
        "llama-70b": ModelConnection(
            role="Default", name="llama-70b", url="http://m/v1", model="meta/Llama", tokenizes=True
        ),
        "gpt": ModelConnection(role="Judge", name="gpt", url="https://x/v1", model="gpt"),
    },
)


def record(**fields: Any) -> TaskRecord:
    return TaskRecord.of(
        {
            "id": "t1",
            "status": "Running",
            "priority": "Interactive",
            "caller": "hash",
            "input": "Why?",
            "limits": "{}",
            "metadata": "{}",
            "submittedAt": str(START),
            "attempts": "1",
            "tenantName": "team",
            "conversationId": "c7",
            **fields,
        }
    )


def span_of(
    kind: CallKind,
    target: str,
    *,
    fleet: Fleet = FLEET,
    arguments: Any = None,
    request: Any = None,
    **done: Any,
) -> Span:
    spans = TaskSpans(record(), fleet)
    spans.asked("turn/1/x", request)
    child = "t2" if kind is CallKind.SPAWN else None
    spans.told(
        Intended(at=START + 10, call="turn/1/x", kind=kind, target=target, arguments=arguments, child=child)
    )
    ended = {"outcome": CallOutcome.SUCCEEDED, "took_ms": 20, **done}
    span = spans.told(Done(at=START + 30, call="turn/1/x", **ended))
    assert span is not None
    return span


COMMON = {
    "flotilla.task.id": "t1",
    "flotilla.fleet": "support",
    "langfuse.trace.name": "support",
    "user.id": "team",
    "session.id": "c7",
    "gen_ai.conversation.id": "c7",
    "flotilla.call.id": "turn/1/x",
    "flotilla.tries": 1,
}


@pytest.mark.holds(
    "observability.md",
    "Spans have the names of OpenTelemetry's conventions, and what Langfuse reads; an unknown cost is absent",
)
@pytest.mark.parametrize(
    ("span", "name", "told"),
    [
        pytest.param(
            span_of(
                *(CallKind.MODEL, "llama-70b"),
                input_tokens=100,
                cached_input_tokens=60,
                output_tokens=7,
                nano_usd=2_500_000,
                replica="llama-70b-0",
                value="secret",
                tries=2,
            ),
            "chat meta/Llama",
            {
                "gen_ai.operation.name": "chat",
                "gen_ai.provider.name": "vllm",
                "gen_ai.request.model": "meta/Llama",
                "gen_ai.usage.input_tokens": 100,
                "gen_ai.usage.cache_read.input_tokens": 60,
                "gen_ai.usage.output_tokens": 7,
                "gen_ai.usage.cost": 0.0025,
                "langfuse.observation.type": "generation",
                "langfuse.observation.cost_details": '{"total": 0.0025}',
                "flotilla.model": "llama-70b",
                "flotilla.replica": "llama-70b-0",
                "flotilla.tries": 2,
            },
            id="a model of the fleet's, with its replica and its cost",
        ),
        pytest.param(
            span_of(CallKind.MODEL, "gpt", input_tokens=3),
            "chat gpt",
            {
                "gen_ai.operation.name": "chat",
                "gen_ai.provider.name": "openai",
                "gen_ai.request.model": "gpt",
                "gen_ai.usage.input_tokens": 3,
                "gen_ai.usage.cache_read.input_tokens": 0,
                "gen_ai.usage.output_tokens": 0,
                "langfuse.observation.type": "generation",
                "flotilla.model": "gpt",
            },
            id="an endpoint without a price: its cost is unknown, not 0",
        ),
        pytest.param(
            span_of(CallKind.TOOL, "pay", arguments={"to": "secret"}, value="secret"),
            "execute_tool pay",
            {
                "gen_ai.operation.name": "execute_tool",
                "gen_ai.tool.name": "pay",
                "gen_ai.tool.call.id": "turn/1/x",
                "gen_ai.tool.type": "function",
                "langfuse.observation.type": "tool",
            },
            id="a tool, without what it was asked and answered",
        ),
        pytest.param(
            span_of(CallKind.RETRIEVE, "handbook", arguments={"query": "secret"}, generation="g-1"),
            "retrieval handbook",
            {
                "gen_ai.operation.name": "retrieval",
                "gen_ai.data_source.id": "handbook",
                "flotilla.index.generation": "g-1",
                "langfuse.observation.type": "retriever",
            },
            id="a search",
        ),
        pytest.param(
            span_of(CallKind.SPAWN, "", arguments={"input": "secret"}),
            "spawn",
            {"flotilla.child.id": "t2", "langfuse.observation.type": "span"},
            id="a spawned task",
        ),
        pytest.param(
            span_of(CallKind.APPROVE, "pay", arguments="secret"),
            "approve pay",
            {"langfuse.observation.type": "span"},
            id="an approval",
        ),
    ],
)
def test_a_call_says_what_collectors_and_langfuse_read(span: Span, name: str, told: dict[str, Any]) -> None:
    assert span.attributes == {**COMMON, **told}
    assert (span.name, span.began_at - START, span.ended_at - START, span.error) == (name, 10, 30, None)
    is_to_others = "gen_ai.operation.name" in told
    assert span.kind is (SpanKind.CLIENT if is_to_others else SpanKind.INTERNAL)


@pytest.mark.holds(
    "observability.md",
    "Spans have the names of OpenTelemetry's conventions, and what Langfuse reads; an unknown cost is absent",
)
def test_the_task_itself_is_an_agent_that_was_invoked() -> None:
    spans = TaskSpans(record(conversationId="c7"), FLEET)
    end = End(at=START + 90, status=TaskStatus.FAILED, reason="ToolFailed", result=None)
    (task,) = spans.ended(end)
    assert task.attributes == {
        **{name: value for name, value in COMMON.items() if "call" not in name and "tries" not in name},
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.agent.name": "support",
        "langfuse.observation.type": "agent",
        "flotilla.task.status": "Failed",
        "flotilla.task.reason": "ToolFailed",
        "flotilla.task.attempts": 1,
    }
    assert (task.name, task.error, task.above) == ("invoke_agent support", "ToolFailed", None)
    assert (task.began_at, task.ended_at) == (START, START + 90)


def test_an_agent_of_the_fleets_has_its_own_name() -> None:
    spans = TaskSpans(record(agent="researcher", parent="t0", root="t0"), FLEET)
    (task,) = spans.ended(End(at=START + 90, status=TaskStatus.SUCCEEDED, reason="Completed"))
    assert task.name == "invoke_agent researcher"
    assert (task.attributes["gen_ai.agent.name"], task.attributes["flotilla.fleet"]) == (
        "researcher",
        "support",
    )


CONTENT = Fleet(name="support", models=FLEET.models, content=True)
REQUEST = ModelRequest(
    session_id="s",
    priority=Priority.INTERACTIVE,
    messages=(
        {"role": "system", "content": "Be good."},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"id": "k", "type": "function", "function": {"name": "pay", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": "k", "content": "paid"},
    ),
    max_tokens=5,
)


@pytest.mark.holds(
    "observability.md", "Content is sent only where it is asked for, in the form of the conventions"
)
def test_content_has_the_form_of_the_conventions() -> None:
    value = {"text": "So.", "toolCalls": [{"id": "a", "name": "pay", "arguments": '{"to": 1}'}]}
    span = span_of(CallKind.MODEL, "gpt", fleet=CONTENT, request=REQUEST, value=value)
    assert json.loads(str(span.attributes["gen_ai.input.messages"])) == [
        {"role": "system", "parts": [{"type": "text", "content": "Be good."}]},
        {
            "role": "assistant",
            "parts": [{"type": "tool_call", "id": "k", "name": "pay", "arguments": "{}"}],
        },
        {"role": "tool", "parts": [{"type": "tool_call_response", "id": "k", "response": "paid"}]},
    ]
    assert json.loads(str(span.attributes["gen_ai.output.messages"])) == [
        {
            "role": "assistant",
            "parts": [
                {"type": "text", "content": "So."},
                {"type": "tool_call", "id": "a", "name": "pay", "arguments": '{"to": 1}'},
            ],
            "finish_reason": "tool_call",
        }
    ]
    assert answer_document({"text": "So", "isCut": True})["finish_reason"] == "length"
    assert message_documents([{}]) == [{"role": "", "parts": []}]
    tool = span_of(CallKind.TOOL, "pay", fleet=CONTENT, arguments={"to": 1}, value="paid")
    assert tool.attributes["gen_ai.tool.call.arguments"] == '{"to": 1}'
    assert tool.attributes["gen_ai.tool.call.result"] == "paid"


@pytest.mark.parametrize("content", [False, True])
def test_the_words_of_a_problem_are_content_and_its_kind_is_not(content: bool) -> None:
    fleet = Fleet(name="support", content=content)
    failed = {"outcome": CallOutcome.FAILED, "problem": "answered 500: the secret"}
    span = span_of(CallKind.TOOL, "pay", fleet=fleet, **failed)
    assert (span.error, span.problem) == ("Failed", "answered 500: the secret" if content else None)


@pytest.mark.parametrize(
    ("call", "scopes"),
    [
        pytest.param("llm/Default", [], id="a call of the task"),
        pytest.param("turn/1/agent/researcher", ["turn/1/"], id="a task of another agent"),
        pytest.param("mine", [], id="a call with a name of its own"),
        pytest.param("fan_out/Faro/tool/weather", ["fan_out/", "fan_out/Faro/"], id="a branch"),
        pytest.param("fan_out#2/Faro/tool#3/weather", ["fan_out#2/", "fan_out#2/Faro/"], id="one of many"),
        pytest.param("turn/2/tool/pay", ["turn/2/"], id="a turn, whose name has a slash"),
        pytest.param("turn/2/pay", ["turn/2/"], id="a call with a name of its own in a turn"),
        pytest.param("a/b/c", ["a/", "a/b/"], id="scopes in scopes"),
    ],
)
def test_the_scopes_of_a_call(call: str, scopes: list[str]) -> None:
    assert list(scopes_of(call)) == scopes


def test_waits_are_numbered_and_no_lost_worker_makes_one() -> None:
    spans = TaskSpans(record(), FLEET)
    claims: list[Entry] = [
        Claimed(at=START + 5, worker="w", attempt=1),
        Claimed(at=START + 50, worker="w", attempt=2),
        HandedOver(at=START + 60, worker="w"),
        Claimed(at=START + 70, worker="w", attempt=2),
    ]
    waits = [span for entry in claims if (span := spans.told(entry)) is not None]
    assert [(wait.name, wait.began_at - START, wait.ended_at - START) for wait in waits] == [
        ("queue", 0, 5),
        ("queue", 60, 70),
    ]
    assert [wait.span_id for wait in waits] == [spans.trace.wait(1), spans.trace.wait(2)]


@pytest.mark.attack("A caller sends a `traceparent` that is none, or very long")
@pytest.mark.parametrize(
    ("header", "parent"),
    [
        pytest.param(GIVEN, (0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331), id="as W3C writes it"),
        pytest.param(GIVEN.replace("00-0a", "cc-0a") + "-more", "same", id="of a later version"),
        pytest.param(None, None, id="none"),
        pytest.param("", None, id="empty"),
        pytest.param(GIVEN + "-more", None, id="more than this version has"),
        pytest.param("ff" + GIVEN[2:], None, id="no version"),
        pytest.param("00-" + "0" * 32 + GIVEN[35:], None, id="no trace"),
        pytest.param(GIVEN[:36] + "0" * 16 + "-01", None, id="no span"),
        pytest.param(GIVEN.upper(), None, id="capitals"),
        pytest.param(GIVEN + "\n", None, id="a line break"),
        pytest.param("x" * 5000, None, id="anything else"),
    ],
)
def test_a_traceparent_is_read_or_ignored(header: str | None, parent: Any) -> None:
    same = (0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331)
    found = read_traceparent(header)
    expected = same if parent == "same" else parent
    assert (None if found is None else (found.trace_id, found.span_id)) == expected


@given(st.integers(1, 2**128 - 1), st.integers(1, 2**64 - 1))
def test_a_traceparent_that_is_written_is_read_again(trace: int, span: int) -> None:
    parent = Parent(trace_id=trace, span_id=span)
    assert read_traceparent(traceparent(parent)) == parent


@pytest.mark.holds(
    "observability.md", "A trace is sampled by its id, as OpenTelemetry decides, whole or not at all"
)
@given(st.integers(1, 2**128 - 1), st.floats(0, 100))
def test_a_trace_is_sampled_as_opentelemetry_decides(trace: int, percent: float) -> None:
    """So every part of a system that samples as many of its traces samples the same ones."""
    decided = TraceIdRatioBased(percent / 100).should_sample(None, trace, "x").decision
    assert is_sampled(trace, percent) == (decided is Decision.RECORD_AND_SAMPLE)


@pytest.mark.holds("observability.md", "A task goes on in the same trace, whatever happened to its workers")
def test_a_trace_is_that_of_who_submitted_the_task() -> None:
    own, given_one = trace_of(record()), trace_of(record(traceparent=GIVEN))
    assert own.above is None
    assert given_one.above == 0xB7AD6B7169203331
    below = record(id="t2", parent="t1", root="t1", traceparent=GIVEN)
    assert trace_of(below).trace_id == given_one.trace_id
    assert trace_of(record(id="t2", parent="t1", root="t1")).trace_id == own.trace_id
    assert trace_of(below).above == span_of(CallKind.SPAWN, "").span_id


def test_the_request_that_submits_a_task_is_a_span_below_it() -> None:
    task = NewTask(
        id="t1", input="secret", caller="ann", limits=TaskLimits(), traceparent=GIVEN, conversation_id="c7"
    )
    span = submission(task, "support", START - 5, START)
    trace = trace_of(record(traceparent=GIVEN))
    assert (span.trace_id, span.above, span.kind) == (trace.trace_id, trace.root, SpanKind.SERVER)
    assert "secret" not in repr(span)
    assert (span.attributes["user.id"], span.attributes["session.id"]) == ("ann", "c7")
