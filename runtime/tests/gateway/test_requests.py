"""What the task API refuses before anything is stored, figures, views and names; no server."""

import asyncio
import json
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, cast

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flotilla_runtime.agent.journal import CallKind, CallOutcome, Claimed, Done, Ended, Intended, Submitted
from flotilla_runtime.agent.journal import TaskStatus as Status
from flotilla_runtime.agent.store import TaskStore
from flotilla_runtime.agent.tasks import LoadedTask, TaskRecord
from flotilla_runtime.contract import Priority, TaskLimits
from flotilla_runtime.gateway.application import TaskAPI, task_application
from flotilla_runtime.gateway.auth import Identity, NoAuthentication
from flotilla_runtime.gateway.bodies import read_submission
from flotilla_runtime.gateway.events import event_text, place_after
from flotilla_runtime.gateway.figures import fleet_status, percentile
from flotilla_runtime.gateway.openapi import openapi_document
from flotilla_runtime.gateway.problems import ProblemError
from flotilla_runtime.gateway.requests import parse_submission
from flotilla_runtime.gateway.service import Page, TaskService
from flotilla_runtime.gateway.task_ids import is_task_id, task_id
from flotilla_runtime.gateway.views import task_view
from slow_bodies import arriving


@pytest.mark.parametrize(
    ("body", "kind", "says"),
    [
        pytest.param(b"", "not-json", "not JSON", id="an empty body"),
        pytest.param(b"why?", "not-json", "line 1 column 1", id="plain text"),
        pytest.param(b'{"input": "why?"', "not-json", "EOF", id="an object cut short"),
        pytest.param(b'{"input": "\xff"}', "not-json", "not JSON", id="bytes that are no text"),
        pytest.param(b'["why?"]', "invalid-request", "object", id="a list"),
        pytest.param(b"{}", "invalid-request", "input: field required", id="no input"),
        pytest.param(b'{"input": "  "}', "invalid-request", "input: string should have", id="a blank input"),
        pytest.param(
            b'{"input": 7}', "invalid-request", "input: input should be a valid string", id="a number"
        ),
        pytest.param(
            b'{"input": "a", "model": "x"}', "invalid-request", "model: unknown field", id="unknown"
        ),
        pytest.param(
            b'{"input": "a", "limits": {"steps": 1}}',
            "invalid-request",
            "limits.steps: unknown field",
            id="an unknown limit",
        ),
        pytest.param(
            b'{"input": "a", "limits": {"maxSteps": 0}}',
            "invalid-request",
            "limits.maxSteps: input should be greater",
            id="no steps at all",
        ),
        pytest.param(b'{"input": "a", "priority": "Now"}', "invalid-request", "priority: ", id="a priority"),
        pytest.param(
            b'{"input": "a", "metadata": {"k": 1}}', "invalid-request", "metadata.k: ", id="metadata not text"
        ),
    ],
)
def test_a_submission_that_is_wrong_is_refused_with_what_is_wrong(body: bytes, kind: str, says: str) -> None:
    with pytest.raises(ProblemError) as refusal:
        parse_submission(body)
    assert (refusal.value.status, refusal.value.kind) == (HTTPStatus.BAD_REQUEST, kind)
    assert says in refusal.value.detail


def test_all_wrong_fields_are_named_at_once() -> None:
    with pytest.raises(ProblemError) as refusal:
        parse_submission(b'{"input": "", "priority": 3, "wish": 1}')
    assert [each.field for each in refusal.value.fields] == ["input", "priority", "wish"]
    assert [each["field"] for each in refusal.value.document()["errors"]] == ["input", "priority", "wish"]


def test_a_whole_submission_is_read() -> None:
    request = parse_submission(
        json.dumps(
            {
                "input": " why? ",
                "idempotencyKey": "k",
                "priority": "Batch",
                "limits": {"maxSteps": 3, "maxWallSeconds": 1.5},
                "metadata": {"team": "docs"},
            }
        ).encode()
    )
    assert (request.input, request.priority, request.idempotency_key) == ("why?", Priority.BATCH, "k")
    limits = request.limits.within(TaskLimits())
    assert limits == TaskLimits(max_steps=3, max_tokens=200_000, max_wall_seconds=1.5)


@pytest.mark.parametrize(
    ("parts", "status", "kind"),
    [
        pytest.param([b'{"input"'], HTTPStatus.REQUEST_TIMEOUT, "body-too-slow", id="it stops"),
        pytest.param([b'{"input"', None], HTTPStatus.BAD_REQUEST, "body-cut-short", id="it is broken off"),
        pytest.param(
            [b"x" * 1025], HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "body-too-long", id="it is too long"
        ),
    ],
)
async def test_a_body_that_does_not_arrive_is_refused_with_a_problem(
    parts: list[bytes | None], status: HTTPStatus, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flotilla_runtime.gateway.bodies.READ_WITHIN_SECONDS", 0.1)
    with pytest.raises(ProblemError) as refusal:
        await read_submission(arriving(parts), 1024)
    assert (refusal.value.status, refusal.value.kind) == (status, kind)


LONGEST = {"input": "a", "idempotencyKey": "k" * 256, "metadata": {f"{n:063}": "v" * 512 for n in range(32)}}


def test_the_longest_key_and_metadata_of_the_page_are_taken() -> None:
    request = parse_submission(json.dumps(LONGEST).encode())
    assert (request.idempotency_key, request.metadata) == (LONGEST["idempotencyKey"], LONGEST["metadata"])


@pytest.mark.parametrize(
    ("longer", "field"),
    [
        pytest.param({"idempotencyKey": "k" * 257}, "idempotencyKey", id="a key"),
        pytest.param({"metadata": {f"{n}": "v" for n in range(33)}}, "metadata", id="too many texts"),
        pytest.param({"metadata": {"n" * 64: "v"}}, "metadata.", id="a name"),
        pytest.param({"metadata": {"n": "v" * 513}}, "metadata.n", id="a text"),
    ],
)
def test_a_longer_key_and_longer_metadata_are_refused(longer: dict[str, Any], field: str) -> None:
    with pytest.raises(ProblemError) as refusal:
        parse_submission(json.dumps({"input": "a", **longer}).encode())
    (found,) = refusal.value.fields
    assert found.field.startswith(field)


class Pages:
    """Answers with pages that hold no task, and keeps how many tasks were asked for."""

    def __init__(self) -> None:
        self.counts: list[int] = []

    async def page(self, caller: Identity, *, status: Status | None, before: str | None, count: int) -> Page:
        self.counts.append(count)
        return Page(records=(), next_before=None)


@pytest.mark.parametrize(
    ("query", "code", "counts"),
    [
        pytest.param("", HTTPStatus.OK, [50], id="the default"),
        pytest.param("?limit=200", HTTPStatus.OK, [200], id="the most"),
        pytest.param("?limit=201", HTTPStatus.BAD_REQUEST, [], id="too many"),
    ],
)
async def test_a_page_of_the_list_has_50_tasks_and_200_at_most(
    query: str, code: HTTPStatus, counts: list[int]
) -> None:
    service = Pages()
    api = TaskAPI(
        service=cast("TaskService", service),
        store=cast("TaskStore", None),
        authenticator=NoAuthentication(),
        max_body_bytes=1024,
        stopping=asyncio.Event(),
    )
    transport = httpx.ASGITransport(app=task_application(api))
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        assert (await client.get(f"/v1/tasks{query}")).status_code == code
    assert service.counts == counts


def test_a_limit_above_the_fleets_is_refused() -> None:
    request = parse_submission(b'{"input": "a", "limits": {"maxSteps": 50, "maxTokens": 10}}')
    with pytest.raises(ProblemError, match=r"limits\.maxSteps: 50 is above the fleet's limit of 24"):
        request.limits.within(TaskLimits())


TIMES, RANDOM_BITS = (st.integers(0, 2) | st.integers(0, 2**bits - 1) for bits in (48, 80))


@given(st.tuples(TIMES, RANDOM_BITS), st.tuples(TIMES, RANDOM_BITS))
def test_task_ids_sort_by_time(one: tuple[int, int], other: tuple[int, int]) -> None:
    assert is_task_id(task_id(*one))
    assert (task_id(*one) < task_id(*other)) is (one < other)
    assert (task_id(*one) == task_id(*other)) is (one == other)


@pytest.mark.parametrize("text", ["", "t1", "*" * 26, "0" * 25, "0" * 27, "O" * 26])
def test_what_is_no_task_id_is_known_without_redis(text: str) -> None:
    assert not is_task_id(text)


@given(st.lists(st.floats(0.06, 3000), min_size=1, max_size=60), st.sampled_from([0.5, 0.95, 1.0]))
def test_a_percentile_is_within_a_tick_of_the_truth(seconds: list[float], share: float) -> None:
    import math

    ticks: dict[str, int] = {}
    for each in seconds:
        tick = str(math.ceil(4 * math.log2(each / 0.05)))
        ticks[tick] = ticks.get(tick, 0) + 1
    found = percentile(ticks, share)
    exact = sorted(seconds)[math.ceil(share * len(seconds)) - 1]
    assert found is not None
    assert exact / 2**0.26 <= found <= exact * 2**0.26


def test_figures_without_tasks_are_unknown_and_not_zero() -> None:
    status = fleet_status(fleet="d/s", waiting=0, in_flight=0, oldest_waiting_ms=None, windows=[])
    assert (status.p50_seconds, status.p95_seconds, status.oldest_waiting_seconds) == (None, None, None)


def test_figures_sum_the_minutes_up() -> None:
    minute = {"reason:Completed": 2, "took:8": 2, "waited:0": 2, "recovered": 1, "busy:Model/m": 1500}
    status = fleet_status(
        fleet="d/s", waiting=3, in_flight=2, oldest_waiting_ms=700, windows=[minute, minute, {"tokens": 7}]
    )
    assert status.ended == {"Completed": 4}
    assert (status.recovered, status.tokens) == (2, 7)
    assert status.busy_seconds == {"Model/m": 3.0}
    assert status.oldest_waiting_seconds == 0.7
    assert status.p95_seconds is not None
    assert 0.15 < status.p95_seconds <= 0.2


RECORD = TaskRecord(
    id="t",
    status=Status.SUCCEEDED,
    priority=Priority.BATCH,
    caller="c",
    input="why?",
    limits=TaskLimits(),
    metadata={},
    submitted_at=1_700_000_000_000,
    started_at=1_700_000_000_500,
    ended_at=1_700_000_002_000,
    attempts=1,
    cancel_requested=False,
    reason="Completed",
    message=None,
    result={"answer": "so"},
    partial=None,
)


def test_a_task_is_shown_with_usage_and_timeline() -> None:
    entries = (
        Submitted(at=1_700_000_000_000),
        Claimed(at=1_700_000_000_500, worker="w", attempt=1),
        Intended(at=1_700_000_001_000, call="answer/1", kind=CallKind.MODEL, target="m", step=1),
        Done(
            at=1_700_000_001_900,
            call="answer/1",
            outcome=CallOutcome.SUCCEEDED,
            took_ms=900,
            input_tokens=40,
            output_tokens=2,
        ),
        Ended(at=1_700_000_002_000, status=Status.SUCCEEDED, reason="Completed"),
    )
    shown = task_view(LoadedTask(record=RECORD, entries=entries, read_at=0)).model_dump(
        by_alias=True, mode="json", exclude_none=True
    )
    assert shown["usage"] == {"steps": 1, "tokens": 42}
    assert [moment["event"] for moment in shown["timeline"]] == [
        "Submitted",
        "Claimed",
        "Intended",
        "Done",
        "Ended",
    ]
    assert shown["timeline"][3]["tookSeconds"] == 0.9
    assert datetime.fromisoformat(shown["submittedAt"]) == datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)


def test_an_event_has_the_number_that_resumes_after_it() -> None:
    text = event_text(4, Claimed(at=1, worker="w", attempt=2))
    assert text == 'id: 4\nevent: Claimed\ndata: {"type":"Claimed","at":1,"worker":"w","attempt":2}\n\n'
    assert place_after("4") == 5
    assert place_after(None) == 0
    with pytest.raises(ProblemError, match="Last-Event-ID"):
        place_after("abc")


@given(st.integers(0, 10**9))
def test_a_client_that_sends_the_id_of_an_event_gets_the_next_one(number: int) -> None:
    id_line, *_ = event_text(number, Submitted(at=1)).splitlines()
    assert place_after(id_line.removeprefix("id: ")) == number + 1


def test_every_reference_of_the_api_description_leads_somewhere() -> None:
    document = openapi_document()
    text = json.dumps(document)
    names = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert names <= set(document["components"]["schemas"])
    assert {"TaskView", "SubmitRequest", "Problem"} <= names
