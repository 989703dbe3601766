"""Pods → replicas. What HAProxy is then told is in test_servers.py."""

from typing import Any

import pytest

from flotilla_runtime.contract import ServerState
from flotilla_runtime.router.pods import live_routers, replicas_of
from router_support.builders import ROUTERS, pod

READY, DRAINING = ServerState.READY, ServerState.DRAINING


@pytest.mark.parametrize(
    ("described", "state"),
    [
        pytest.param(pod("a", server_id=1), READY, id="a ready pod takes requests"),
        pytest.param(pod("a", server_id=1, ready=False), DRAINING, id="a pod that lost readiness finishes"),
        pytest.param(pod("a", server_id=1, terminating=True), DRAINING, id="a pod being deleted drains"),
        pytest.param(pod("a", server_id=1, drain_epoch=4), DRAINING, id="a pod told to drain drains"),
        pytest.param(pod("a", server_id=1, drain_epoch="x"), DRAINING, id="an unreadable epoch drains too"),
        pytest.param(pod("a", server_id=1, drain_epoch=""), READY, id="an empty epoch is no drain"),
        pytest.param(pod("a", server_id=1, ip=None), None, id="a pod without an address is no server"),
        pytest.param(pod("a", server_id=1, phase="Failed"), None, id="a pod that ended is no server"),
        pytest.param(pod("a", server_id=1, stage="1"), None, id="only the leader's stage serves"),
    ],
)
def test_state_of_a_pod(described: dict[str, Any], state: ServerState | None) -> None:
    replicas = replicas_of([described]).usable
    assert [replica.state for replica in replicas] == ([] if state is None else [state])


@pytest.mark.parametrize("server_id", [None, "0", "-3", "one", "²"])
def test_a_pod_without_a_usable_id_is_named_with_the_problem(server_id: str | None) -> None:
    replicas = replicas_of([pod("a", server_id=server_id)])
    assert replicas.usable == ()
    assert replicas.unusable == {"a": "the annotation flotilla.dev/server-id is not a positive integer"}


def test_of_two_pods_with_one_id_the_one_that_stays_keeps_it() -> None:
    old = pod("old", server_id=1, terminating=True, created="2026-01-01T00:00:00Z")
    new = pod("new", server_id=1, created="2026-01-02T00:00:00Z")
    for order in ([old, new], [new, old]):
        replicas = replicas_of(order)
        assert [replica.name for replica in replicas.usable] == ["new"]
        assert replicas.unusable == {"old": "the server id 1 belongs to the group new"}


def test_of_two_pods_of_one_group_the_ready_one_serves() -> None:
    replicas = replicas_of(
        [pod("a-1", group="a", server_id=1, ready=False), pod("a-2", group="a", server_id=2, ip="10.0.0.2")]
    )
    assert [(replica.name, replica.id, replica.ip) for replica in replicas.usable] == [("a", 2, "10.0.0.2")]
    assert replicas.unusable == {"a-1": "another pod serves for the group a"}


def test_replicas_come_in_the_order_of_their_ids() -> None:
    pods = [pod(name, server_id=number) for name, number in (("c", 10), ("a", 9), ("b", 2))]
    assert [replica.id for replica in replicas_of(pods).usable] == [2, 9, 10]


@pytest.mark.parametrize(
    ("routers", "count"),
    [
        pytest.param([], 1, id="this router counts before it is seen"),
        pytest.param([pod("me", ready=False, labels=ROUTERS)], 1, id="this router counts before it is ready"),
        pytest.param([pod("me", labels=ROUTERS), pod("other", labels=ROUTERS)], 2, id="both are ready"),
        pytest.param([pod("me"), pod("other", ready=False)], 1, id="one that is not ready takes nothing"),
        pytest.param([pod("me"), pod("other", terminating=True)], 1, id="one that leaves takes nothing new"),
    ],
)
def test_live_routers(routers: list[dict[str, Any]], count: int) -> None:
    assert live_routers(routers, own_name="me") == count
