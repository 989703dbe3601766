"""Requests that the task API refuses before anything is stored, figures, views and names; no server."""

import json
import re
from dataclasses import replace
from http import HTTPStatus
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_support.task_apis import client_of
from flotilla_runtime.agent.errors import (
    BrokenEntryError,
    PayloadsUnavailableError,
    StoreUnavailableError,
    UncertainError,
    UnconfirmedError,
)
from flotilla_runtime.agent.journal import CallOutcome, Done, Payload, WaitKind, encode
from flotilla_runtime.agent.journal import TaskStatus as Status
from flotilla_runtime.agent.tasks import (
    SUMMARY_FIELDS,
    NewTask,
    ResolveOutcome,
    Submission,
    SubmitOutcome,
    TaskRecord,
    caller_key,
    read_summary,
)
from flotilla_runtime.contract import (
    GatewayAuth,
    GatewayConfig,
    Priority,
    QueueConfig,
    TaskLimits,
    percentile,
)
from flotilla_runtime.gateway.auth import Identity
from flotilla_runtime.gateway.bodies import read_posted
from flotilla_runtime.gateway.events import place_after
from flotilla_runtime.gateway.openapi import openapi_document
from flotilla_runtime.gateway.pages import PageWanted, page_wanted
from flotilla_runtime.gateway.problems import ProblemError
from flotilla_runtime.gateway.replays import MOST_KEPT_BYTES, length_refusal
from flotilla_runtime.gateway.requests import (
    named_tenant,
    parse_approval,
    parse_replay,
    parse_resolution,
    parse_signal,
    parse_submission,
)
from flotilla_runtime.gateway.service import Page, Sources, TaskService, quota_refusal
from flotilla_runtime.gateway.task_ids import is_task_id, task_id
from slow_bodies import arriving


@pytest.mark.holds("tasks.md", "Refusals are problem details that name every wrong field")
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
        pytest.param(b'{"input": "a", "tenant": ""}', "invalid-request", "tenant: ", id="an empty tenant"),
        pytest.param(b'{"input": "a", "tenant": "a\\nb"}', "invalid-request", "tenant: ", id="two lines"),
        pytest.param(
            b'{"input": "a", "limits": {"maxCostUSD": Infinity}}',
            "invalid-request",
            "limits.maxCostUSD: NaN and infinite numbers are no JSON",
            id="no limit of money",
        ),
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


@pytest.mark.holds("tasks.md", "Refusals are problem details that name every wrong field")
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
                "limits": {"maxSteps": 3, "maxWallSeconds": 7.5},
                "metadata": {"team": "docs"},
            }
        ).encode()
    )
    assert (request.input, request.priority, request.idempotency_key) == ("why?", Priority.BATCH, "k")
    limits = request.limits.within(TaskLimits())
    assert limits == TaskLimits(max_steps=3, max_tokens=200_000, max_wall_seconds=7.5)


@pytest.mark.holds("tasks.md", "A body that does not arrive within 30 s is 408")
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
        await read_posted(arriving(parts), 1024)
    assert (refusal.value.status, refusal.value.kind) == (status, kind)


LONGEST = {"input": "a", "idempotencyKey": "k" * 256, "metadata": {f"{n:063}": "v" * 512 for n in range(32)}}


@pytest.mark.holds("tasks.md", "`idempotencyKey` and `metadata` are no longer than the page says")
def test_the_longest_key_and_metadata_of_the_page_are_taken() -> None:
    request = parse_submission(json.dumps(LONGEST).encode())
    assert (request.idempotency_key, request.metadata) == (LONGEST["idempotencyKey"], LONGEST["metadata"])


@pytest.mark.holds("tasks.md", "`idempotencyKey` and `metadata` are no longer than the page says")
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

    async def page(self, caller: Identity, wanted: PageWanted) -> Page:
        self.counts.append(wanted.count)
        return Page(records=(), next_before=None)


@pytest.mark.holds("tasks.md", "A page of the list has 50 tasks by default and 200 at most")
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
    async with client_of(service) as client:
        assert (await client.get(f"/v1/tasks{query}")).status_code == code
    assert service.counts == counts


@pytest.mark.parametrize(
    ("more", "code"),
    [pytest.param(0, None, id="as much as may be"), pytest.param(1, 409, id="a byte too much")],
)
def test_what_a_replay_keeps_is_counted_before_it_is_read(more: int, code: int | None) -> None:
    done = Done(at=1, call="look", outcome=CallOutcome.SUCCEEDED, took_ms=1)
    shown = replace(done, payload=Payload(hash="0" * 64, bytes=10**7))
    left = MOST_KEPT_BYTES - len(encode(done)) - len(encode(shown))
    refusal = length_refusal([done, replace(shown, payload=Payload(hash="0" * 64, bytes=left + more))])
    assert (refusal and refusal.status) == code
    assert refusal is None or "replay from an earlier call" in refusal.detail


@pytest.mark.holds(
    "tasks.md", "A limit above the fleet's is refused, and one of money while a price is unknown"
)
def test_a_limit_above_the_fleets_is_refused() -> None:
    request = parse_submission(b'{"input": "a", "limits": {"maxSteps": 50, "maxTokens": 10}}')
    with pytest.raises(ProblemError, match=r"limits\.maxSteps: 50 is above the fleet's limit of 24"):
        request.limits.within(TaskLimits())


@pytest.mark.holds(
    "tasks.md", "A limit above the fleet's is refused, and one of money while a price is unknown"
)
@pytest.mark.parametrize(
    ("limits", "says"),
    [
        pytest.param({"maxCostUSD": 2.5}, "limits.maxCostUSD: 2.5 is above the fleet's limit", id="money"),
        pytest.param({"maxDepth": 3}, "limits.maxDepth: 3 is above the fleet's limit of 2", id="depth"),
        pytest.param({"maxFanOut": 6}, "limits.maxFanOut: 6 is above the fleet's limit of 5", id="width"),
    ],
)
def test_no_limit_is_above_the_fleets_own(limits: dict[str, Any], says: str) -> None:
    request = parse_submission(json.dumps({"input": "a", "limits": limits}).encode())
    with pytest.raises(ProblemError, match=re.escape(says)):
        request.limits.within(TaskLimits(max_cost_usd=2))


def test_limits_of_a_task_are_taken() -> None:
    asked = {"maxCostUSD": 0.5, "maxDepth": 0, "maxFanOut": 1}
    request = parse_submission(json.dumps({"input": "a", "limits": asked}).encode())
    limits = request.limits.within(TaskLimits())
    assert (limits.max_cost_usd, limits.max_depth, limits.max_fan_out) == (0.5, 0, 1)


@pytest.mark.holds(
    "tasks.md", "A limit above the fleet's is refused, and one of money while a price is unknown"
)
def test_a_limit_of_money_is_refused_where_nobody_can_count_it() -> None:
    request = parse_submission(b'{"input": "a", "limits": {"maxCostUSD": 1}}')
    with pytest.raises(ProblemError, match=r"limits\.maxCostUSD: the price of llama is unknown"):
        request.limits.within(TaskLimits(), ("llama",))


@pytest.mark.holds(
    "tasks.md",
    "Only who may act, or is trusted, names another tenant, in the body or in a header; lists show "
    "tasks by tenant",
)
@pytest.mark.parametrize(
    ("field", "header", "named"),
    [
        pytest.param(None, None, None, id="none"),
        pytest.param("a", None, "a", id="in the body"),
        pytest.param(None, "a", "a", id="in the header"),
        pytest.param("a", "a", "a", id="in both"),
    ],
)
def test_a_tenant_is_named_in_the_body_or_in_a_header(
    field: str | None, header: str | None, named: str | None
) -> None:
    assert named_tenant(field, header) == named


@pytest.mark.parametrize(
    ("field", "header", "says"),
    [
        pytest.param("a", "b", "tenant: differs from the header X-Flotilla-Tenant", id="two"),
        pytest.param(None, "", "X-Flotilla-Tenant: a tenant has 1 to 253", id="an empty header"),
        pytest.param(None, "m\xfcller", "X-Flotilla-Tenant: a tenant has", id="no ASCII"),
        pytest.param(None, "a" * 254, "X-Flotilla-Tenant: a tenant has", id="too long"),
    ],
)
def test_a_tenant_that_cannot_be_one_is_refused(field: str | None, header: str, says: str) -> None:
    with pytest.raises(ProblemError, match=says):
        named_tenant(field, header)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        pytest.param({"outcome": "Happened"}, "call: field required", id="no call"),
        pytest.param({"call": "a", "outcome": "Maybe"}, "outcome: ", id="an outcome"),
        pytest.param({"call": "a", "outcome": "Happened", "by": "me"}, "by: unknown field", id="a name"),
        pytest.param({"call": "a", "outcome": "NotHappened", "result": 1}, "result: a call", id="a result"),
    ],
)
def test_a_wrong_word_on_an_effect_is_refused(body: dict[str, Any], says: str) -> None:
    with pytest.raises(ProblemError, match=says):
        parse_resolution(json.dumps(body).encode())


NO_NUMBERS = ("NaN", "Infinity", "-Infinity", "1e999", "-1e999")


@pytest.mark.holds(
    "tasks.md", "NaN and infinite numbers reach no task: the task API and the front ends name the field"
)
@pytest.mark.parametrize("number", NO_NUMBERS)
@pytest.mark.parametrize(
    ("parse", "body", "field"),
    [
        pytest.param(
            parse_resolution, '{"call": "a", "outcome": "Happened", "result": %s}', "result", id="result"
        ),
        pytest.param(
            parse_resolution,
            '{"call": "a", "outcome": "Happened", "result": {"a": [0, {"b": %s}]}}',
            "result.a.1.b",
            id="deep in a result",
        ),
        pytest.param(parse_signal, '{"name": "n", "value": %s}', "value", id="signal"),
        pytest.param(parse_signal, '{"name": "n", "value": [[%s]]}', "value.0.0", id="deep in a signal"),
        pytest.param(
            parse_submission, '{"input": "a", "limits": {"maxCostUSD": %s}}', "limits.maxCostUSD", id="limit"
        ),
        pytest.param(parse_submission, '{"input": "a", "metadata": {"a": %s}}', "metadata.a", id="metadata"),
        pytest.param(parse_approval, '{"call": "a", "approved": %s}', "approved", id="decision"),
        pytest.param(parse_replay, '{"from": %s}', "from", id="replay"),
    ],
)
def test_a_number_that_is_none_is_refused_by_its_field(
    parse: Any, body: str, field: str, number: str
) -> None:
    with pytest.raises(ProblemError) as refusal:
        parse((body % number).encode())
    assert (refusal.value.status, refusal.value.fields[0].field) == (HTTPStatus.BAD_REQUEST, field)
    assert "send null, or a text" in refusal.value.detail


@pytest.mark.holds(
    "tasks.md", "NaN and infinite numbers reach no task: the task API and the front ends name the field"
)
@pytest.mark.parametrize(
    "value",
    ["null", '"NaN"', '"Infinity"', "1e308", "-0.0", "5e-324", "123456789012345678901234567890", "[1, {}]"],
)
def test_other_values_are_taken_as_they_are(value: str) -> None:
    parsed = parse_signal(f'{{"name": "n", "value": {value}}}'.encode())
    assert parsed.value == json.loads(value)


@pytest.mark.holds(
    "tasks.md", "NaN and infinite numbers reach no task: the task API and the front ends name the field"
)
@pytest.mark.parametrize(
    "value",
    ["[" * 300 + "]" * 300, '"\\ud800"', "1" * 5000, "nan", "+1", "[1,]"],
    ids=["deep", "half a character", "5,000 digits", "nan", "a plus", "a comma"],
)
def test_what_is_no_json_is_told_so(value: str) -> None:
    with pytest.raises(ProblemError) as refusal:
        parse_signal(f'{{"name": "n", "value": {value}}}'.encode())
    assert (refusal.value.status, refusal.value.kind) == (HTTPStatus.BAD_REQUEST, "not-json")


@pytest.mark.holds("tasks.md", "A refusal by a quota says whose it is")
@pytest.mark.parametrize(
    ("outcome", "kind", "whose"),
    [
        pytest.param(SubmitOutcome.FULL, "queue-full", "50 tasks are waiting", id="the fleet's places"),
        pytest.param(SubmitOutcome.CALLER_FULL, "caller-full", "80 % of its 50 places", id="own places"),
        pytest.param(SubmitOutcome.STORE_FULL, "store-full", "queue.maxStoredMiB", id="the fleet's bytes"),
        pytest.param(
            SubmitOutcome.CALLER_STORE_FULL,
            "caller-store-full",
            "80 % of queue.max",
            id="the caller's bytes",
        ),
    ],
)
def test_a_full_queue_says_whose_limit_it_is(outcome: SubmitOutcome, kind: str, whose: str) -> None:
    refusal = quota_refusal(outcome, QueueConfig(fleet="d/s", max_waiting=50))
    assert refusal is not None
    assert (refusal.status, refusal.kind) == (HTTPStatus.TOO_MANY_REQUESTS, kind)
    assert whose in refusal.detail
    assert int(refusal.headers["Retry-After"]) > 0


class Broken:
    """A store in which something is wrong."""

    def __init__(self, problem: Exception | None = None) -> None:
        self.problem = problem

    async def summaries(self, task_ids: list[str]) -> list[TaskRecord]:
        told = ["t", "Running", "Interactive", caller_key("ann"), "ann", "1", *[None] * 2, "1"]
        record = read_summary([*told, *[None] * (len(SUMMARY_FIELDS) - len(told))])
        return [] if record is None else [record]

    async def records(self, task_ids: list[str]) -> list[TaskRecord]:
        assert self.problem is not None
        raise self.problem

    async def resolve(self, task_id: str, call: str, **said: Any) -> ResolveOutcome:
        return ResolveOutcome.NO_ROOM


class Failing:
    """A store in which submissions fail one after the other, the last time for good."""

    def __init__(self, problems: list[Exception]) -> None:
        self.problems = problems

    async def submit(self, task: NewTask) -> Submission:
        raise self.problems.pop(0) if len(self.problems) > 1 else self.problems[0]


def service_of(store: Any) -> TaskService:
    seconds = count()
    sources = Sources(
        wall_ms=lambda: 0, monotonic_seconds=lambda: 1.5 * next(seconds), random_bits=lambda bits: 0
    )
    config = GatewayConfig(queue=QueueConfig(fleet="d/s"), namespace="d", name="s", auth=GatewayAuth.NONE)
    return TaskService(store, config, sources)


@pytest.mark.parametrize(
    ("problem", "status", "says"),
    [
        pytest.param(
            BrokenEntryError("its payload is gone"),
            HTTPStatus.GONE,
            "its payload is gone",
            id="a text is gone",
        ),
        pytest.param(
            PayloadsUnavailableError("objects.example answered 403"),
            HTTPStatus.SERVICE_UNAVAILABLE,
            "the object store, which holds large inputs and results, does not answer",
            id="the object store does not answer",
        ),
        pytest.param(
            StoreUnavailableError("down"), HTTPStatus.SERVICE_UNAVAILABLE, "Redis", id="Redis does not answer"
        ),
    ],
)
async def test_a_task_that_cannot_be_shown_says_why(
    problem: Exception, status: HTTPStatus, says: str
) -> None:
    with pytest.raises(ProblemError) as refused:
        await service_of(Broken(problem)).view("0" * 26, Identity(name="ann"))
    assert refused.value.status == status
    assert says in refused.value.detail


@pytest.mark.holds(
    "tasks.md",
    "A submission or replay without a key that may be kept is a 503 that is not to be repeated and "
    "names the task, so OpenAI's client makes one task",
)
@pytest.mark.parametrize(
    ("problems", "key", "is_uncertain"),
    [
        pytest.param([UncertainError("lost"), StoreUnavailableError("down")], None, True, id="then away"),
        pytest.param([StoreUnavailableError("down"), UnconfirmedError(1)], None, True, id="unconfirmed"),
        pytest.param([UncertainError("lost")], "k", False, id="a key finds it"),
        pytest.param([StoreUnavailableError("down")], None, False, id="nothing was sent"),
        pytest.param([PayloadsUnavailableError("403")], None, False, id="the object store does not answer"),
    ],
)
async def test_a_submission_that_may_be_kept_is_not_to_be_sent_again_without_a_key(
    problems: list[Exception], key: str | None, is_uncertain: bool
) -> None:
    asked = parse_submission(json.dumps({"input": "why?", "idempotencyKey": key}).encode())
    with pytest.raises(ProblemError) as refused:
        await service_of(Failing(problems)).submit(asked, Identity(name="ann"), "ann", named="t7")
    problem = refused.value
    assert problem.status == HTTPStatus.SERVICE_UNAVAILABLE
    if is_uncertain:
        assert problem.headers == {"x-should-retry": "false"}
        assert "see whether GET /v1/tasks/t7 finds it" in problem.detail
    else:
        assert problem.headers == {"Retry-After": "2"}
        assert ("send the request again with the same idempotencyKey" in problem.detail) is (key is not None)


async def test_a_word_on_an_effect_for_which_there_is_no_room_is_refused() -> None:
    said = parse_resolution(json.dumps({"call": "a", "outcome": "Happened", "result": "x"}).encode())
    with pytest.raises(ProblemError) as refused:
        await service_of(Broken()).resolve("0" * 26, said, Identity(name="ann"))
    assert (refused.value.status, refused.value.kind) == (HTTPStatus.TOO_MANY_REQUESTS, "caller-store-full")


def test_a_task_that_was_taken_is_no_refusal() -> None:
    queue = QueueConfig(fleet="d/s")
    for outcome in (SubmitOutcome.CREATED, SubmitOutcome.EXISTS):
        assert quota_refusal(outcome, queue) is None


def test_a_page_asks_for_what_its_parameters_say() -> None:
    wanted = page_wanted({"status": "Suspended", "tenant": "team", "waitsFor": "Effect", "limit": "7"})
    assert wanted == PageWanted(
        statuses=frozenset({Status.SUSPENDED}),
        tenant="team",
        waits_for=WaitKind.EFFECT,
        before=None,
        count=7,
    )
    with pytest.raises(ProblemError) as refusal:
        page_wanted({"of": "me", "status": "Gone", "waitsFor": "Rain", "tenant": "", "limit": "9" * 5000})
    assert [each.field for each in refusal.value.fields] == ["of", "status", "waitsFor", "tenant", "limit"]


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


@pytest.mark.parametrize(
    ("last_event_id", "place"), [pytest.param("4", 5, id="an id"), pytest.param(None, 0, id="none")]
)
def test_a_client_that_sends_the_id_of_an_event_gets_what_follows(
    last_event_id: str | None, place: int
) -> None:
    assert place_after(last_event_id) == place


@pytest.mark.parametrize("last_event_id", ["abc", "-1", "1.5", "9" * 5000, "\u0663"])
def test_what_is_no_id_of_an_event_is_refused(last_event_id: str) -> None:
    with pytest.raises(ProblemError, match="Last-Event-ID"):
        place_after(last_event_id)


@pytest.mark.holds("tasks.md", "`/openapi.json` describes the whole API")
def test_every_reference_of_the_api_description_leads_somewhere() -> None:
    document = openapi_document()
    text = json.dumps(document)
    names = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert names <= set(document["components"]["schemas"])
    assert {"TaskView", "SubmitRequest", "ResolveRequest", "Event", "WaitKind", "Problem"} <= names
