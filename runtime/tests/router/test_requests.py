"""HAProxy's request lines → records → metrics."""

import asyncio
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import generate_latest

from flotilla_runtime.contract import RouterServer, RouterStatus, ServerState
from flotilla_runtime.router.admin_socket import AdminSocket
from flotilla_runtime.router.files import RunFiles
from flotilla_runtime.router.metrics import RouterMetrics
from flotilla_runtime.router.openai_errors import RefusalReason
from flotilla_runtime.router.requests import LINE_FORMAT, RequestRecord, parse_request
from router_support.haproxy_version import ON_BOTH
from router_support.routers import Caller, Router, fleet
from router_support.waiting import until

LINE = {
    "endedMilliseconds": "1795291298572",
    "request": "r-1",
    "caller": "fleet",
    "priority": "Interactive",
    "key": "Header",
    "conversation": "812",
    "moved": "0",
    "refused": "-",
    "replica": "smol-a",
    "path": "/v1/chat/completions",
    "status": "200",
    "termination": "--",
    "queueMilliseconds": "12",
    "firstByteMilliseconds": "340",
    "totalMilliseconds": "7500",
}


TEXTS = st.none() | st.text(min_size=1).filter(lambda text: text != "-")
SECONDS = st.none() | st.integers(0, 10**7).map(lambda milliseconds: milliseconds / 1000)
RECORDS = st.builds(
    RequestRecord,
    ended_at=st.integers(0, 2 * 10**12).map(lambda milliseconds: milliseconds / 1000),
    caller=TEXTS,
    priority=st.sampled_from([None, "Interactive", "Batch"]),
    key_source=st.sampled_from([None, "Header", "Messages"]),
    conversation=st.none() | st.integers(0, 2**32 - 1).map(str),
    moved=st.booleans(),
    refused=st.none() | st.sampled_from(RefusalReason).map(str),
    replica=st.none() | st.from_regex(r"[a-z0-9-]*[a-z0-9]", fullmatch=True),
    status=st.integers(100, 599),
    aborted=st.booleans(),
    queue_seconds=SECONDS,
    first_byte_seconds=SECONDS,
    total_seconds=SECONDS,
)


def haproxys_line(record: RequestRecord) -> str:
    """The format as HAProxy fills it in for this request."""

    def text(value: str | None) -> str:
        return "-" if value is None else json.dumps(value)[1:-1]

    def milliseconds(seconds: float | None) -> str:
        return "-1" if seconds is None else str(round(seconds * 1000))

    filled = {
        "%[date(0,ms)]": milliseconds(record.ended_at),
        "%[var(txn.request_id),json(utf8s)]": "r-1",
        "%[var(txn.caller),json(utf8s)]": text(record.caller),
        "%[var(txn.priority),json(utf8s)]": text(record.priority),
        "%[var(txn.key_source),json(utf8s)]": text(record.key_source),
        "%[var(txn.key)]": text(record.conversation),
        "%[var(txn.moved),json(utf8s)]": "1" if record.moved else "0",
        "%[var(txn.refused),json(utf8s)]": text(record.refused),
        '"%s"': f'"{record.replica or "<NOSRV>"}"',
        "%[var(txn.path),json(utf8s)]": "/v1/chat/completions",
        "%ST": str(record.status),
        "%ts": "CD" if record.aborted else "--",
        "%Tw": milliseconds(record.queue_seconds),
        "%Tr": milliseconds(record.first_byte_seconds),
        "%Ta": milliseconds(record.total_seconds),
    }
    known = re.compile("|".join(re.escape(variable) for variable in filled))
    return known.sub(lambda found: filled[found[0]], LINE_FORMAT)


@given(RECORDS)
def test_a_line_in_our_format_is_read_as_the_request_that_it_tells_of(record: RequestRecord) -> None:
    assert parse_request(haproxys_line(record)) == record


@pytest.mark.services
@pytest.mark.usefixtures("haproxy")
@ON_BOTH
async def test_haproxys_own_words_for_no_server_an_answer_and_a_caller_that_left() -> None:
    async with fleet() as made, Router(made.api, "router-1", engine_port=made.engine_port) as router:
        async with Caller(router) as caller:
            assert (await caller.post()).status == 503
            engine = await made.add("a", 1)
            await until(lambda: router.ready_servers() == {"a"})
            assert (await caller.post(session="s")).status == 200
            engine.gate.clear()
            leaving = asyncio.create_task(caller.post())
            await until(lambda: router.status.in_flight == 1)
            leaving.cancel()
        refused, answered, left = await records(router, 3)
    assert (refused.replica, refused.refused, refused.status) == (None, "NoReplicas", 503)
    assert (answered.replica, answered.key_source, answered.status) == ("a", "Header", 200)
    assert (answered.moved, answered.aborted, answered.refused) == (False, False, None)
    assert (left.replica, left.aborted, left.first_byte_seconds) == ("a", True, None)


async def records(router: Router, count: int) -> list[RequestRecord]:
    """The first requests that HAProxy tells of."""
    found: list[RequestRecord] = []
    async with asyncio.timeout(30):
        async for line in AdminSocket(RunFiles(str(router.directory))).request_lines(only_new=False):
            if (read := parse_request(line)) is not None:
                found.append(read)
            if len(found) == count:
                break
    return found


def record(**fields: str) -> RequestRecord:
    parsed = parse_request(json.dumps(LINE | fields))
    assert parsed is not None
    return parsed


def test_an_answered_request() -> None:
    assert record() == RequestRecord(
        ended_at=1_795_291_298.572,
        caller="fleet",
        priority="Interactive",
        key_source="Header",
        conversation="812",
        moved=False,
        refused=None,
        replica="smol-a",
        status=200,
        aborted=False,
        queue_seconds=0.012,
        first_byte_seconds=0.34,
        total_seconds=7.5,
    )


def test_what_did_not_happen_is_none() -> None:
    parsed = record(replica="<NOSRV>", key="-", queueMilliseconds="-1", firstByteMilliseconds="-1", caller="")
    assert (parsed.replica, parsed.key_source, parsed.caller) == (None, None, None)
    assert (parsed.queue_seconds, parsed.first_byte_seconds) == (None, None)


@pytest.mark.holds("router.md", "What the router refused is no answer of the replica's")
def test_a_request_that_ended_in_the_queue_was_refused() -> None:
    assert record(termination="sQ", status="503").refused == "QueueTimeout"


@pytest.mark.parametrize("line", ["", "Server engines/a is UP/READY", "{}", "[1]", '{"status": "2'])
def test_lines_that_are_no_request(line: str) -> None:
    assert parse_request(line) is None


@pytest.mark.holds(
    "router.md", "Counters start at zero with the agent, and refused ones at zero for every caller"
)
@pytest.mark.parametrize("reason", RefusalReason)
def test_what_is_refused_is_counted_from_zero_for_every_caller(reason: RefusalReason) -> None:
    metrics = RouterMetrics()
    metrics.expect(["fleet", "ann"])
    metrics.count(record(caller="ann", refused="NoReplicas", status="503", replica="<NOSRV>"))
    metrics.expect(["fleet", "ann"])
    text = generate_latest(metrics.registry).decode()
    for caller in ("unknown",) if reason is RefusalReason.UNAUTHORIZED else ("fleet", "ann"):
        count = 1.0 if (caller, reason) == ("ann", RefusalReason.NO_REPLICAS) else 0.0
        assert f'flotilla_router_refused_total{{caller="{caller}",reason="{reason}"}} {count}\n' in text


@pytest.mark.holds(
    "router.md", "Callers' keys come from the secret, and the entry's name is the caller in the metrics"
)
@pytest.mark.holds(
    "router.md",
    "Requests, refusals, queue time and how a replica was chosen are told with the labels of the table",
)
def test_metrics_by_caller_replica_and_reason() -> None:
    metrics = RouterMetrics()
    metrics.count(record())
    metrics.count(record(moved="1", key="Messages"))
    metrics.count(record(termination="CH", status="400"))
    metrics.count(record(refused="QueueFull", status="429", replica="<NOSRV>"))
    text = generate_latest(metrics.registry).decode()
    for line in (
        'flotilla_router_requests_total{caller="fleet",replica="smol-a",status="200"} 2.0',
        'flotilla_router_requests_total{caller="fleet",replica="none",status="429"} 1.0',
        'flotilla_router_requests_total{caller="fleet",replica="smol-a",status="aborted"} 1.0',
        'flotilla_router_refused_total{caller="fleet",reason="QueueFull"} 1.0',
        'flotilla_router_routed_total{by="Messages"} 1.0',
        "flotilla_router_moved_total 1.0",
        'flotilla_router_queue_seconds_count{priority="Interactive"} 3.0',
    ):
        assert line in text
    assert metrics.refused == {"QueueFull": 1}


@pytest.mark.holds(
    "router.md", "In-flight requests, conversations and KV usage are told by replica, and go when it goes"
)
def test_a_replica_that_is_gone_leaves_no_line() -> None:
    metrics = RouterMetrics()
    ready = RouterServer(name="a", id=1, address="x:1", state=ServerState.READY, in_flight=2, queued=1)
    unknown = ready.model_copy(update={"name": "b"})
    metrics.show(status(ready.model_copy(update={"sessions": 3, "kv_usage": 0.25}), unknown))
    text = generate_latest(metrics.registry)
    assert b'in_flight_requests{replica="a"} 2.0' in text
    assert b'flotilla_router_sessions{replica="a"} 3.0' in text
    assert b'flotilla_router_kv_usage{replica="a"} 0.25' in text
    assert b'flotilla_router_kv_usage{replica="b"}' not in text
    metrics.show(status())
    assert b'replica="a"' not in generate_latest(metrics.registry)


def status(*servers: RouterServer) -> RouterStatus:
    return RouterStatus(
        name="smol",
        synced=True,
        draining=False,
        live_routers=1,
        waiting=0,
        in_flight=0,
        max_connections_per_replica=53,
        queue_limit=1000,
        servers=servers,
        refused={},
        unusable={},
    )
