"""HAProxy's request lines → records → metrics."""

import json

import pytest
from prometheus_client import generate_latest

from flotilla_runtime.contract import RouterServer, RouterStatus, ServerState
from flotilla_runtime.router.metrics import RouterMetrics
from flotilla_runtime.router.openai_errors import RefusalReason
from flotilla_runtime.router.requests import RequestRecord, parse_request

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
    "totalMilliseconds": "1500",
}


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
        total_seconds=1.5,
    )


def test_what_did_not_happen_is_none() -> None:
    parsed = record(replica="<NOSRV>", key="-", queueMilliseconds="-1", firstByteMilliseconds="-1", caller="")
    assert (parsed.replica, parsed.key_source, parsed.caller) == (None, None, None)
    assert (parsed.queue_seconds, parsed.first_byte_seconds) == (None, None)


def test_a_request_that_ended_in_the_queue_was_refused() -> None:
    assert record(termination="sQ", status="503").refused == "QueueTimeout"


@pytest.mark.parametrize("line", ["", "Server engines/a is UP/READY", "{}", "[1]", '{"status": "2'])
def test_lines_that_are_no_request(line: str) -> None:
    assert parse_request(line) is None


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
