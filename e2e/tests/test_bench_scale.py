"""Counts of the scale benchmark: pods that stand bound, and the operator's requests. Nothing is started."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from local_cluster.control_plane import audit_events
from scale.site import requests_between
from scale.watcher import BoundEngines


def pod(name: str, *, node: str = "", leaves: bool = False, engine: bool = True) -> dict[str, Any]:
    metadata: dict[str, Any] = {"uid": name, "labels": {"flotilla.dev/stage": "0"} if engine else {}}
    if leaves:
        metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    return {"metadata": metadata, "spec": {"nodeName": node} if node else {}}


def event(kind: str, changed: dict[str, Any]) -> dict[str, Any]:
    return {"type": kind, "object": changed}


@pytest.mark.parametrize(
    ("events", "bound"),
    [
        pytest.param([event("ADDED", pod("a"))], set(), id="a pod without a node is not bound"),
        pytest.param([event("MODIFIED", pod("a", node="n"))], {"a"}, id="one that has got its node is"),
        pytest.param([event("ADDED", pod("a", node="n"))], {"a"}, id="also where the binding was not seen"),
        pytest.param([event("ADDED", pod("a", node="n", engine=False))], set(), id="a router is no engine"),
        pytest.param(
            [event("MODIFIED", pod("a", node="n")), event("DELETED", pod("a", node="n"))],
            set(),
            id="one that was deleted counts no more",
        ),
        pytest.param(
            [event("MODIFIED", pod("a", node="n")), event("MODIFIED", pod("a", node="n", leaves=True))],
            set(),
            id="nor one that is being deleted",
        ),
        pytest.param(
            [
                event("MODIFIED", pod("first", node="n")),
                event("DELETED", pod("first", node="n")),
                event("MODIFIED", pod("again", node="n")),
            ],
            {"again"},
            id="a pod that was released and made anew counts once",
        ),
        pytest.param(
            [event("MODIFIED", pod("a", node="n")), {"type": "BOOKMARK", "object": {"metadata": {}}}],
            {"a"},
            id="a bookmark changes nothing",
        ),
    ],
)
def test_the_watcher_counts_pods_that_stand_bound(events: list[dict[str, Any]], bound: set[str]) -> None:
    engines = BoundEngines()
    for each in events:
        engines.take(each)
    assert engines.uids == bound


def test_a_list_of_all_pods_forgets_those_that_went_unseen() -> None:
    engines = BoundEngines()
    engines.replace([pod("a", node="n"), pod("b", node="n"), pod("c")])
    engines.replace([pod("b", node="n"), pod("c", node="n")])
    assert engines.uids == {"b", "c"}


def asked(number: int, second: int, *, stage: str = "ResponseComplete", user: str = "it") -> dict[str, Any]:
    return {
        "auditID": f"request-{number}",
        "stage": stage,
        "user": {"username": user},
        "requestReceivedTimestamp": f"2026-01-01T00:00:{second:02}.000000Z",
    }


def write_log(path: Path, *events: dict[str, Any]) -> None:
    path.write_text("".join(f"{json.dumps(event)}\n" for event in events))


def test_an_audit_log_is_read_with_the_full_ones_put_away_beside_it(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    assert not list(audit_events(log))
    write_log(tmp_path / "audit-2026-01-01T00-00-09.120.log", asked(3, 8), asked(4, 9, user="not it"))
    write_log(tmp_path / "audit-2026-01-01T00-00-04.950.log", asked(1, 2), asked(2, 4))
    write_log(tmp_path / "audit-policy.log", asked(7, 9))
    write_log(log, asked(5, 10))
    with log.open("a") as file:
        file.write(json.dumps(asked(6, 11)))  # a line that is being written
    assert [event["auditID"][-1] for event in audit_events(log)] == ["1", "2", "3", "4", "5"]
    assert [event["auditID"][-1] for event in audit_events(log, user="it")] == ["1", "2", "3", "5"]


SINCE, UNTIL = (datetime(2026, 1, 1, 0, 0, second, tzinfo=UTC) for second in (5, 8))


def test_requests_are_counted_between_two_moments_and_a_watch_once() -> None:
    events = [asked(1, 2), asked(2, 5), asked(3, 6, stage="ResponseStarted"), asked(3, 6), asked(4, 8)]
    assert requests_between(SINCE, UNTIL, events[0], [*events, asked(5, 9)]) == 3


@pytest.mark.parametrize(
    "oldest", [pytest.param(None, id="it is empty"), pytest.param(asked(9, 6), id="it begins later")]
)
def test_a_log_that_does_not_reach_back_gives_no_count(oldest: dict[str, Any] | None) -> None:
    with pytest.raises(RuntimeError, match="does not reach back"):
        requests_between(SINCE, UNTIL, oldest, [asked(9, 6)])
