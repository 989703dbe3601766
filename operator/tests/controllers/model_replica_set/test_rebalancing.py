"""Steps of flotilla.dev/rebalance, each from what is seen; the moves that are worth it
are in placement's tests, the real loop in test_rebalancing_apiserver.
"""

from collections.abc import Sequence
from typing import Any

import pytest

from flotilla_operator.api.annotations import ANNOTATION_REBALANCE
from flotilla_operator.controllers.model_replica_set.reasons import EventReason, Reason
from flotilla_operator.controllers.model_replica_set.remembered.remembered import remembered
from flotilla_operator.placement import Claim, Snapshot
from flotilla_operator.placement.groups import RACK
from flotilla_operator.replicas.facts import RouterLoad
from flotilla_operator.replicas.moves import nodes_to_reserve
from tests.builders.model_replica_set import gpu_set
from tests.builders.placement import GPU, cluster, node, used
from tests.builders.pods import NOW, stage_pod, time_text
from tests.controllers.model_replica_set.test_plan import (
    created,
    deleted,
    drained,
    member,
    observed,
    patched,
    pin_of,
    reasons,
    revision_of_set,
    shown,
)
from tests.support.planned import Plan
from tests.support.planned import plan_of_set as plan

HALVES = ("llama-a", "a"), ("llama-b", "b")


def asked(value: str, **spec: Any) -> dict[str, Any]:
    manifest = gpu_set(**{"replicas": 2, **spec})
    manifest["metadata"] = {**manifest["metadata"], "annotations": {ANNOTATION_REBALANCE: value}}
    return manifest


def serving(manifest: dict[str, Any], *places: tuple[str, str]) -> list[dict[str, Any]]:
    return [member(manifest, name, node=at, pin=at, ready=True) for name, at in places]


def after(manifest: dict[str, Any], done: Plan) -> dict[str, Any]:
    """The set with the status that this plan wrote."""
    return {**manifest, "status": done.status}


def told(done: Plan) -> dict[str, Any]:
    assert done.status is not None
    found: dict[str, Any] = done.status["placement"]
    return found


def phases(done: Plan) -> tuple[str, list[tuple[str, str]]]:
    placement = told(done)
    return placement["rebalance"]["phase"], [(m["group"], m["phase"]) for m in placement["moves"]]


def begun(manifest: dict[str, Any], pods: Sequence[dict[str, Any]], claims: tuple[Claim, ...] = ()) -> Plan:
    return plan(observed(manifest, pods, snapshot=cluster(node("a"), node("b"), claims=claims)), NOW)


def test_without_the_annotation_nothing_is_said() -> None:
    manifest = gpu_set()
    placement = told(plan(observed(manifest, serving(manifest, *HALVES)), NOW))
    assert (placement["rebalance"], placement["moves"]) == (None, [])


@pytest.mark.holds("placement.md", "The annotation or the command asks for it")
def test_show_lists_the_moves_with_their_cost_and_changes_nothing() -> None:
    manifest = asked("show")
    done = plan(observed(manifest, serving(manifest, *HALVES)), NOW)
    assert told(done)["rebalance"] == {
        "asked": "show",
        "phase": "Shown",
        "message": "1 move would raise the placement score from 0.5 to 1.0",
        "plannedTime": time_text(),
    }
    assert told(done)["moves"] == [
        {
            "group": "llama-a",
            "fromNodes": ["a"],
            "toNodes": ["b"],
            "step": 1,
            "gain": 0.5,
            "acceleratorsRestarted": 4,
            "sessionsLost": None,
            "phase": "Proposed",
            "drainsFirst": False,
        }
    ]
    assert (created(done), deleted(done), patched(done)) == ([], [], [])
    later = plan(observed(after(manifest, done), serving(manifest, *HALVES)), NOW)
    assert (told(later), later.events) == (told(done), [])


@pytest.mark.holds("placement.md", "Each value of the annotation is answered once")
@pytest.mark.holds("placement.md", "An annotation that means nothing is `Refused`")
@pytest.mark.parametrize(
    ("value", "places", "phase", "message"),
    [
        pytest.param("show", (("x", "a"), ("y", "a")), "Shown", "no move would raise", id="nothing to show"),
        pytest.param("apply", (("x", "a"), ("y", "a")), "Done", "no move would raise", id="nothing to do"),
        pytest.param("show", HALVES[:1], "Waiting", "every replica is ready", id="shown when it is settled"),
        pytest.param("apply", HALVES[:1], "Waiting", "every replica is ready", id="done when it is settled"),
        pytest.param("yes", HALVES, "Refused", "must be show or apply", id="a word that means nothing"),
        pytest.param("apply:2", HALVES, "Moving", "move 1 of 1: llama-a from a to b", id="asked anew"),
    ],
)
def test_the_answer(value: str, places: Sequence[tuple[str, str]], phase: str, message: str) -> None:
    manifest = asked(value)
    rebalance = told(plan(observed(manifest, serving(manifest, *places)), NOW))["rebalance"]
    assert rebalance["phase"] == phase
    assert message in rebalance["message"]


@pytest.mark.parametrize(
    ("tensor", "sessions", "cost"),
    [
        pytest.param(1, 1, "1 accelerator restarts, and 1 session loses its replica", id="one of each"),
        pytest.param(4, 2, "4 accelerators restart, and 2 sessions lose their replica", id="several"),
    ],
)
def test_the_event_of_a_move_has_its_cost(tensor: int, sessions: int, cost: str) -> None:
    manifest = asked("apply", parallelism={"tensor": tensor})
    load = RouterLoad(waiting=0, running=0, sessions={"llama-a": sessions, "llama-b": sessions})
    done = plan(observed(manifest, serving(manifest, *HALVES), load=load), NOW)
    (event,) = [event for event in done.events if event.reason == EventReason.GROUP_MOVES]
    assert event.note.endswith(f"; {cost}")


@pytest.mark.holds(
    "draining.md",
    "A replica leaves by a drain when `replicas` falls, at an update, on a cordoned node, and at a "
    "rebalancing",
)
@pytest.mark.holds(
    "placement.md",
    "A move is carried out with the replacement first, or with the drain first where there is no "
    "room for both",
)
def test_apply_brings_the_replacement_first_then_drains_then_is_done_once() -> None:
    manifest = asked("apply")
    halves = serving(manifest, *HALVES)
    first = begun(manifest, halves)
    assert phases(first) == ("Moving", [("llama-a", "Moving")])
    assert reasons(first) == [EventReason.GROUP_MOVES]
    assert created(first) == [], "a move is in the status before anything is done about it"
    assert first.look_again_seconds == 1

    second = begun(after(manifest, first), halves)
    assert [pin_of(pod) for pod in created(second)] == ["b"]
    assert patched(second) == []
    assert shown(second, "Progressing") == ("True", Reason.REBALANCING)
    assert shown(second, "Ready")[0] == "True"
    assert second.look_again_seconds is not None
    assert second.look_again_seconds <= 30

    loading = [*halves, member(manifest, "llama-c", pin="b", node="b")]
    third = begun(after(manifest, second), loading)
    assert (created(third), patched(third), deleted(third)) == ([], [], [])

    ready = [*halves, *serving(manifest, ("llama-c", "b"))]
    fourth = begun(after(manifest, third), ready)
    assert [patch.ref.name for patch in patched(fourth)] == ["llama-a"], "it drains"
    assert EventReason.GROUP_DRAINING in reasons(fourth)

    gone = serving(manifest, ("llama-b", "b"), ("llama-c", "b"))
    last = begun(after(manifest, fourth), gone)
    assert phases(last) == ("Done", [("llama-a", "Done")])
    assert told(last)["rebalance"]["message"] == "1 move done"
    assert EventReason.REBALANCED in reasons(last)
    assert shown(last, "Progressing") == ("False", Reason.SETTLED)

    scattered = serving(manifest, ("llama-d", "a"), ("llama-e", "b"))
    again = begun(after(manifest, last), scattered)
    assert told(again)["moves"] == told(last)["moves"], "an answered value asks for nothing more"
    assert (created(again), patched(again), again.events) == ([], [], [])


@pytest.mark.holds("placement.md", "The next move begins when the last is done")
def test_the_second_move_waits_until_the_first_is_done() -> None:
    manifest = asked("apply", replicas=3, parallelism={"tensor": 2})
    thirds = serving(manifest, ("llama-a", "a"), ("llama-b", "b"), ("llama-c", "c"))
    around = cluster(*(node(name) for name in "abc"))

    def step(before: Plan | None, pods: Sequence[dict[str, Any]]) -> Plan:
        held = manifest if before is None else after(manifest, before)
        return plan(observed(held, pods, snapshot=around), NOW)

    first = step(None, thirds)
    under_way = ("Moving", [("llama-a", "Moving"), ("llama-c", "Proposed")])
    second = step(first, thirds)
    assert [pin_of(pod) for pod in created(second)] == ["b"]
    third = step(second, [*thirds, member(manifest, "llama-d", pin="b", node="b")])
    replaced = [*thirds, *serving(manifest, ("llama-d", "b"))]
    fourth = step(third, replaced)
    drains = [drained(replaced[0], 1), *replaced[1:]]
    fifth = step(fourth, drains)
    for done in (first, second, third, fourth, fifth):
        assert phases(done) == under_way
        assert [patch.ref.name for patch in patched(done)] == (["llama-a"] if done is fourth else [])
        assert deleted(done) == []

    sixth = step(fifth, drains[1:])
    assert phases(sixth) == ("Moving", [("llama-a", "Done"), ("llama-c", "Moving")])
    assert (created(sixth), patched(sixth)) == ([], [])
    seventh = step(sixth, drains[1:])
    assert [pin_of(pod) for pod in created(seventh)] == ["b"]
    ready = [*drains[1:], *serving(manifest, ("llama-e", "b"))]
    eighth = step(seventh, ready)
    assert [patch.ref.name for patch in patched(eighth)] == ["llama-c"]
    last = step(eighth, [pod for pod in ready if pod["metadata"]["name"] != "llama-c"])
    assert phases(last) == ("Done", [("llama-a", "Done"), ("llama-c", "Done")])


@pytest.mark.holds(
    "placement.md",
    "A move is carried out with the replacement first, or with the drain first where there is no "
    "room for both",
)
def test_without_a_surge_the_group_drains_first_and_its_place_is_held() -> None:
    manifest = asked("apply", update={"maxSurge": 0, "maxUnavailable": 1})
    halves = serving(manifest, *HALVES)
    first = begun(manifest, halves)
    assert told(first)["moves"][0]["drainsFirst"] is True
    going = after(manifest, first)
    move = remembered(going).rebalance.current
    assert move is not None
    assert nodes_to_reserve(move, {"llama-a", "llama-b"}, 2) == ("b",)
    assert nodes_to_reserve(move, {"llama-b", "llama-c"}, 2) == ()

    second = begun(going, halves)
    assert created(second) == []
    assert [patch.ref.name for patch in patched(second)] == ["llama-a"]

    draining = [drained(halves[0], 1), halves[1]]
    third = begun(after(manifest, second), draining)
    assert (created(third), told(third)["rebalance"]["phase"]) == ([], "Moving")

    fourth = begun(after(manifest, third), halves[1:])
    assert [pin_of(pod) for pod in created(fourth)] == ["b"]


@pytest.mark.holds(
    "placement.md",
    "It stops, with the reason and the event, when room is gone, an update begins, or the only "
    "replica would go first",
)
def test_the_only_replica_does_not_go_before_its_replacement() -> None:
    manifest = asked("apply", replicas=1, update={"maxSurge": 0, "maxUnavailable": 1})
    done = begun(manifest, serving(manifest, ("llama-a", "a")), claims=(used("b", 4),))
    assert told(done)["rebalance"]["phase"] == "Stopped"
    assert "no other replica serves" in told(done)["rebalance"]["message"]
    assert EventReason.REBALANCE_STOPPED in reasons(done)


@pytest.mark.holds(
    "placement.md",
    "It stops, with the reason and the event, when room is gone, an update begins, or the only "
    "replica would go first",
)
@pytest.mark.parametrize(
    ("change", "claims", "why"),
    [
        pytest.param({}, (used("b", 4),), "no longer has room", id="somebody took the room"),
        pytest.param(
            {"engine": {"maxNumSeqs": 8}},
            (),
            "an update has begun",
            id="an update comes before a rebalancing",
        ),
    ],
)
def test_what_stops_a_move_that_has_begun(
    change: dict[str, Any], claims: tuple[Claim, ...], why: str
) -> None:
    manifest = asked("apply")
    halves = serving(manifest, *HALVES)
    first = begun(manifest, halves)
    changed = after(asked("apply", **change), first)
    second = begun(changed, halves, claims)
    assert told(second)["rebalance"]["phase"] == "Stopped"
    assert why in told(second)["rebalance"]["message"]
    assert told(second)["rebalance"]["message"].endswith(
        "change the value of the annotation flotilla.dev/rebalance to try again"
    )
    assert shown(second, "Progressing")[1] == (Reason.UPDATING if change else Reason.SETTLED)
    assert shown(second, "Ready")[0] == ("False" if change else "True")
    third = begun(after(asked("apply", **change), second), halves, claims)
    assert patched(third) == [], "no group makes way for a move that has stopped"
    assert bool(created(third)) == bool(change)


@pytest.mark.holds("placement.md", "Removing the annotation calls a move off")
def test_a_move_whose_annotation_goes_is_called_off() -> None:
    manifest = asked("apply")
    halves = serving(manifest, *HALVES)
    going = after(manifest, begun(manifest, halves))
    going["metadata"] = {**going["metadata"], "annotations": {}}
    done = begun(going, halves)
    assert (created(done), told(done)["rebalance"], told(done)["moves"]) == ([], None, [])


@pytest.mark.holds("placement.md", "While a set is paused nothing is computed or moved")
def test_a_paused_set_keeps_what_it_had_and_moves_nothing() -> None:
    manifest = asked("apply")
    halves = serving(manifest, *HALVES)
    first = begun(manifest, halves)
    done = begun(after(asked("apply", paused=True), first), halves)
    assert told(done)["moves"] == told(first)["moves"]
    assert list(done.writes) == []


def racks(*others: str) -> Snapshot:
    """Two nodes of eight accelerators in each of three racks, of which some are in use by others."""
    nodes = [node(name, labels={RACK: rack}) for name, rack in zip("abcdef", "112233", strict=True)]
    return cluster(*nodes, claims=tuple(used(name, 8) for name in others))


def pair(manifest: dict[str, Any], name: str, places: str, *, server_id: int = 1) -> list[dict[str, Any]]:
    """Both pods of a group that serves."""
    fields: dict[str, Any] = {"group": name, "revision": revision_of_set(manifest), "server_id": server_id}
    return [
        stage_pod(stage, pin=at, node=at, ready=True, requests={GPU: "8"}, **fields)
        for stage, at in enumerate(places)
    ]


def apart(replicas: int) -> dict[str, Any]:
    return asked("apply", replicas=replicas, parallelism={"tensor": 8, "pipeline": 2})


@pytest.mark.holds("placement.md", "A replica of several stages moves whole and waits for devices")
def test_a_group_whose_stages_lie_apart_comes_together_and_keeps_the_node_that_it_has() -> None:
    manifest = apart(replicas=2)
    lies_apart = pair(manifest, "llama-a", "ac")
    stays = pair(manifest, "llama-b", "ef", server_id=2)
    first = plan(observed(manifest, [*lies_apart, *stays], snapshot=racks()), NOW)
    (move,) = told(first)["moves"]
    assert (move["fromNodes"], move["toNodes"]) == (["a", "c"], ["a", "b"])
    assert (move["acceleratorsRestarted"], move["drainsFirst"]) == (16, True)
    going = after(manifest, first)
    move_now = remembered(going).rebalance.current
    assert move_now is not None
    assert nodes_to_reserve(move_now, {"llama-a", "llama-b"}, 2) == ("b",), "it holds the other one itself"
    assert nodes_to_reserve(move_now, {"llama-b"}, 2) == ("a", "b")

    second = plan(observed(going, [*lies_apart, *stays], snapshot=racks()), NOW)
    assert [patch.ref.name for patch in patched(second)] == ["llama-a"], "its leader drains"
    assert created(second) == []
    draining = [drained(pod, 1) for pod in lies_apart]
    third = plan(observed(after(manifest, second), [*draining, *stays], snapshot=racks()), NOW)
    assert (phases(third)[0], created(third)) == ("Moving", [])

    fourth = plan(observed(after(manifest, third), stays, snapshot=racks()), NOW)
    assert [pin_of(pod) for pod in created(fourth)] == ["a", "b"]
    together = pair(manifest, "llama-c", "ab")
    last = plan(observed(after(manifest, fourth), [*together, *stays], snapshot=racks()), NOW)
    assert phases(last) == ("Done", [("llama-a", "Done")])
    assert told(last)["score"] > told(first)["score"]


def test_a_group_of_two_stages_moves_after_its_replacement_serves_where_there_is_room_for_both() -> None:
    manifest = apart(replicas=1)
    lies_apart = pair(manifest, "llama-a", "ac")
    first = plan(observed(manifest, lies_apart, snapshot=racks("b", "d")), NOW)
    (move,) = told(first)["moves"]
    assert (move["toNodes"], move["drainsFirst"]) == (["e", "f"], False)
    second = plan(observed(after(manifest, first), lies_apart, snapshot=racks("b", "d")), NOW)
    assert [pin_of(pod) for pod in created(second)] == ["e", "f"]
    leader, _ = created(second)
    assert [patch.ref.name for patch in patched(second)] == [leader["metadata"]["name"]]
    both = [*lies_apart, *pair(manifest, "llama-b", "ef", server_id=2)]
    third = plan(observed(after(manifest, second), both, snapshot=racks("b", "d")), NOW)
    assert [patch.ref.name for patch in patched(third)] == ["llama-a"]
