"""What the scale benchmark counts: pods that stand bound, and the operator's requests. Nothing is started."""

from typing import Any

import pytest

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
