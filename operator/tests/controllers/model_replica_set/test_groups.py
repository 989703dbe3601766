"""Groups of several stages in the next step of a set: created behind a gate, let go together, ended together,
tried again with backoff. What ends a group: test_life; single pods: test_plan; the real scheduler:
test_groups_apiserver.
"""

from datetime import timedelta
from typing import Any

import pytest

from flotilla_operator.cluster.writes import Create, Delete, JsonPatch
from flotilla_operator.controllers.model_replica_set.reasons import Reason
from flotilla_operator.controllers.model_replica_set.remembered.failures import backoff_status
from flotilla_operator.objects.refused_writes import RefusedWrite, WriteReason
from flotilla_operator.objects.resources import ObjectRef
from flotilla_operator.replicas.backoff import Backoff
from flotilla_operator.replicas.group import EndingReason
from flotilla_operator.replicas.intent import in_force
from flotilla_operator.replicas.rounds import asked_by_another
from flotilla_operator.replicas.surroundings import Surroundings
from flotilla_operator.workloads.gate import GATE, is_gated
from flotilla_runtime import contract
from tests.builders.model_replica_set import gpu_set
from tests.builders.placement import GPU, POLICY, cluster, node, used
from tests.builders.pods import NOW, container_status, stage_pod, terminated, time_text
from tests.controllers.model_replica_set.test_plan import (
    condition,
    created,
    deleted,
    observed,
    pin_of,
    reasons,
    revision_of_set,
    seen_set,
    shown,
)
from tests.support.planned import Plan, told_of_set
from tests.support.planned import plan_of_set as plan

FOUR = {GPU: "4"}
TWO_NODES = cluster(node("a", gpus=4), node("b", gpus=4))


def pairs(replicas: int = 1, **changes: Any) -> dict[str, Any]:
    """A set of groups of two stages with four accelerators each."""
    return gpu_set(replicas=replicas, parallelism={"tensor": 4, "pipeline": 2}, **changes)


def members(manifest: dict[str, Any], group: str = "llama-aaaaa", **fields: Any) -> list[dict[str, Any]]:
    """Both pods of a group, on or pinned to nodes a and b."""
    where = {"node": True} | fields
    bound = where.pop("node")
    return [
        stage_pod(
            stage,
            group=group,
            revision=revision_of_set(manifest),
            pin=name,
            node=name if bound else None,
            requests=FOUR,
            **where,
        )
        for stage, name in enumerate("ab")
    ]


SERVES = container_status("engine", started=True, ready=True, running=True)


def not_let_go(manifest: dict[str, Any], **last: Any) -> list[dict[str, Any]]:
    """A group of which the last pod exists, as it is told, and the leader's gate still stands."""
    leader, _ = members(manifest, node=False, gated=True)
    return [leader, members(manifest, **last)[1]]


def lifted(done: Plan) -> list[JsonPatch]:
    return [write for write in done.writes if isinstance(write, JsonPatch)]


@pytest.mark.holds(
    "placement.md", "The score has three parts that weigh 4, 2 and 1, and what is not known has no weight"
)
def test_the_score_is_told_with_its_parts() -> None:
    zone = "topology.kubernetes.io/zone"
    manifest = pairs(placement={"spreadReplicasAcross": zone})
    around = cluster(node("a", labels={zone: "z1"}), node("b", labels={zone: "z1"}))
    done = plan(observed(manifest, members(manifest, ready=True), snapshot=around), NOW)
    assert done.status is not None
    # Two nodes of one zone, the widest of three levels; four of the eight GPUs of each; one zone there is.
    assert done.status["placement"]["scoreParts"] == {"packing": 0.33, "fragmentation": 0.5, "spread": 1.0}
    assert done.status["placement"]["score"] == round((4 / 3 + 2 * 0.5 + 1) / 7, 2)


def needed(done: Plan, pod: dict[str, Any]) -> frozenset[ObjectRef]:
    """Objects that have to be there before this pod is created."""
    (write,) = (write for write in done.writes if isinstance(write, Create) and write.manifest is pod)
    return write.needs


def graces(done: Plan) -> dict[str, int | None]:
    """The seconds that each deleted pod gets to end."""
    return {write.ref.name: write.grace_period_seconds for write in done.writes if isinstance(write, Delete)}


class TestAGroupOfTwoStages:
    @pytest.mark.holds("groups.md", "All pods of a group but the last are created gated and pinned")
    def test_is_created_whole_pinned_and_gated(self) -> None:
        done = plan(observed(pairs(), snapshot=TWO_NODES), NOW)
        leader, second = created(done)
        name = leader["metadata"]["name"]
        assert second["metadata"]["name"] == f"{name}-1"
        assert [pin_of(pod) for pod in (leader, second)] == ["a", "b"]
        gates = [pod["spec"].get("schedulingGates") for pod in (leader, second)]
        assert gates == [[{"name": GATE}], None], "with the last pod the group is whole"
        needs = {pod["metadata"]["name"]: {ref.name for ref in needed(done, pod)} for pod in (leader, second)}
        assert needs == {name: {"llama-engine"}, f"{name}-1": {"llama-engine", name}}
        (let_go,) = lifted(done)
        assert let_go.ref.name == name
        assert {ref.name for ref in let_go.needs} == {"llama-engine", name, f"{name}-1"}
        assert let_go.operations[1] == {"op": "remove", "path": "/spec/schedulingGates/0"}
        assert [pod["metadata"]["labels"][contract.LABEL_GROUP] for pod in (leader, second)] == [name] * 2
        assert [pod["metadata"]["labels"][contract.LABEL_STAGE] for pod in (leader, second)] == ["0", "1"]
        assert {p["metadata"]["annotations"][contract.ANNOTATION_SERVER_ID] for p in (leader, second)} == {
            "1"
        }
        assert [event.note for event in done.events] == [f"{name} is placed on a, b"]
        resting = {"llama-engine", name, f"{name}-1"}
        assert {ref.name for ref in done.rests_on[name]} == resting
        assert done.rests_on["Placed"] == done.rests_on[name]

    @pytest.mark.holds("groups.md", "All stages are placed together or none")
    def test_that_has_room_for_one_stage_only_has_no_pods(self) -> None:
        done = plan(observed(pairs(), snapshot=cluster(node("a", gpus=4), node("b", gpus=2))), NOW)
        assert created(done) == []
        assert shown(done, "Placed") == ("False", Reason.NO_NODE_CAN_FIT)

    @pytest.mark.holds(
        "groups.md",
        "The gates are lifted when the group is whole; the next leader lifts them or releases the group",
    )
    def test_is_let_go_when_all_of_it_exists(self) -> None:
        manifest = pairs()
        pods = members(manifest, node=False, gated=True)
        done = plan(observed(manifest, pods, snapshot=TWO_NODES), NOW)
        assert [patch.ref.name for patch in lifted(done)] == ["llama-aaaaa", "llama-aaaaa-1"]
        assert lifted(done)[0].resource_version == "1"
        assert lifted(done)[0].operations == [
            {"op": "test", "path": "/spec/schedulingGates/0/name", "value": GATE},
            {"op": "remove", "path": "/spec/schedulingGates/0"},
            {"op": "add", "path": "/metadata/annotations/flotilla.dev~1gate-lifted-at", "value": time_text()},
        ]
        assert deleted(done) == []
        assert done.status is not None
        assert done.status["groupCounts"]["gated"] == 1
        assert done.status["groups"][0]["nodes"] == ["a", "b"]

    def test_keeps_the_gates_of_others(self) -> None:
        manifest = pairs()
        pods = members(manifest, node=False, gated=True)
        pods[0]["spec"]["schedulingGates"].insert(0, {"name": "example.com/quota"})
        done = plan(observed(manifest, pods, snapshot=TWO_NODES), NOW)
        assert lifted(done)[0].operations[1] == {"op": "remove", "path": "/spec/schedulingGates/1"}

    def test_of_which_one_gate_is_lifted_already_gets_the_other_lifted(self) -> None:
        manifest = pairs()
        first, _ = members(manifest, node=False, lifted=2)
        _, second = members(manifest, node=False, gated=True)
        done = plan(observed(manifest, [first, second], snapshot=TWO_NODES), NOW)
        assert [patch.ref.name for patch in lifted(done)] == ["llama-aaaaa-1"]
        assert done.look_again_seconds == 28

    @pytest.mark.holds("groups.md", "All pods of a group but the last are created gated and pinned")
    def test_of_three_stages_has_a_gate_on_all_but_the_last_and_the_last_needs_them(self) -> None:
        manifest = gpu_set(replicas=1, parallelism={"tensor": 4, "pipeline": 3})
        done = plan(observed(manifest, snapshot=cluster(*(node(n, gpus=4) for n in "abc"))), NOW)
        pods = created(done)
        names = [pod["metadata"]["name"] for pod in pods]
        assert [is_gated(pod["spec"]) for pod in pods] == [True, True, False]
        assert {ref.name for ref in needed(done, pods[1])} == {"llama-engine"}
        assert {ref.name for ref in needed(done, pods[2])} == {"llama-engine", *names[:2]}
        assert [patch.ref.name for patch in lifted(done)] == names[:2]
        assert all({ref.name for ref in patch.needs} == {"llama-engine", *names} for patch in lifted(done))

    @pytest.mark.holds(
        "groups.md",
        "The gates are lifted when the group is whole; the next leader lifts them or releases the group",
    )
    @pytest.mark.parametrize("node", [True, False], ids=["bound", "not bound"])
    def test_of_which_the_last_pod_exists_and_no_gate_was_lifted_is_let_go(self, node: bool) -> None:
        manifest = pairs()
        pods = not_let_go(manifest, node=node, age=2)
        done = plan(observed(manifest, pods, snapshot=TWO_NODES), NOW)
        assert [patch.ref.name for patch in lifted(done)] == ["llama-aaaaa"]
        assert deleted(done) == []
        assert created(done) == []

    def test_that_is_let_go_late_has_its_time_to_bind_from_then_on(self) -> None:
        manifest = pairs()
        first, _ = members(manifest, node=False, lifted=2)
        _, second = members(manifest, age=40)
        done = plan(observed(manifest, [first, second], snapshot=TWO_NODES), NOW)
        assert deleted(done) == []
        assert done.look_again_seconds == 28

    @pytest.mark.holds("groups.md", "Nor does `spec.paused`; what is gated is released at once")
    def test_of_a_paused_set_whose_last_pod_is_bound_already_gives_its_accelerators_back(self) -> None:
        manifest = pairs(paused=True)
        pods = not_let_go(manifest, age=2)
        done = plan(observed(manifest, pods, snapshot=TWO_NODES), NOW)
        assert lifted(done) == []
        assert deleted(done) == ["llama-aaaaa", "llama-aaaaa-1"]

    def test_that_nobody_let_go_in_time_gives_its_accelerators_back(self) -> None:
        manifest = pairs()
        pods = not_let_go(manifest, age=31)
        done = plan(observed(manifest, pods, snapshot=TWO_NODES), NOW)
        assert lifted(done) == []
        assert deleted(done) == ["llama-aaaaa", "llama-aaaaa-1"]

    @pytest.mark.holds(
        "groups.md",
        "The gates are lifted when the group is whole; the next leader lifts them or releases the group",
    )
    def test_whose_room_was_taken_behind_the_gate_is_released_and_placed_elsewhere(self) -> None:
        manifest = pairs()
        pods = not_let_go(manifest, node=False, age=2)
        taken = cluster(*(node(name, gpus=4) for name in "abcd"), claims=(used("b", 1),))
        done = plan(observed(manifest, pods, snapshot=taken), NOW)
        assert [patch.ref.name for patch in lifted(done)] == [created(done)[0]["metadata"]["name"]]
        assert deleted(done) == ["llama-aaaaa", "llama-aaaaa-1"]
        assert [pin_of(pod) for pod in created(done)] == ["c", "d"]
        assert reasons(done)[0] == EndingReason.RELEASED

    @pytest.mark.holds(
        "groups.md",
        "A group that is not bound in 30 s is deleted whole and placed anew without the node that failed",
    )
    def test_half_bound_for_too_long_gives_its_accelerators_back_and_leaves_the_node_out(self) -> None:
        manifest = pairs()
        first, _ = members(manifest, lifted=31)
        _, second = members(manifest, node=False, lifted=31)
        snapshot = cluster(*(node(name, gpus=4) for name in "abcd"))
        done = plan(observed(manifest, [first, second], snapshot=snapshot), NOW)
        assert graces(done) == {"llama-aaaaa": 3, "llama-aaaaa-1": 3}
        assert [pin_of(pod) for pod in created(done)] == ["c", "d"]

    @pytest.mark.holds(
        "draining.md", "A replica that has not given its first answer is deleted without a drain"
    )
    @pytest.mark.holds("groups.md", "A replica that never served ends within 3 s")
    def test_that_never_served_leaves_within_seconds_when_it_is_not_wanted_any_more(self) -> None:
        manifest = pairs(replicas=0)
        first, _ = members(manifest, lifted=2)
        _, second = members(manifest, node=False, lifted=2)
        done = plan(observed(manifest, [first, second], snapshot=TWO_NODES), NOW)
        assert graces(done) == {"llama-aaaaa": 3, "llama-aaaaa-1": 3}

    @pytest.mark.holds("draining.md", "A replica of several stages drains as a whole, carried by its leader")
    def test_leaves_with_all_its_pods_after_a_drain_that_its_leader_carries(self) -> None:
        manifest = pairs(replicas=0)
        pods = members(manifest, ready=True)
        begun = plan(observed(manifest, pods, snapshot=TWO_NODES), NOW)
        assert [patch.ref.name for patch in lifted(begun)] == ["llama-aaaaa"]
        assert deleted(begun) == []
        epoch = str(int((NOW - timedelta(seconds=301)).timestamp() * 1000))
        pods[0]["metadata"]["annotations"][contract.ANNOTATION_DRAIN_EPOCH] = epoch
        done = plan(observed(manifest, pods, snapshot=TWO_NODES), NOW)
        assert deleted(done) == ["llama-aaaaa", "llama-aaaaa-1"]

    @pytest.mark.holds("groups.md", "A pod that is deleted or evicted gives the others the drain's deadline")
    def test_of_which_a_pod_is_deleted_by_somebody_goes_whole_and_drains(self) -> None:
        manifest = pairs(drain={"deadlineSeconds": 100})
        first, second = members(manifest, ready=True)
        second["metadata"]["deletionTimestamp"] = time_text()
        done = plan(observed(manifest, [first, second], snapshot=TWO_NODES), NOW)
        assert graces(done) == {"llama-aaaaa": 130}
        assert reasons(done)[0] == EndingReason.FAILED

    @pytest.mark.holds("groups.md", "A replica that never served ends within 3 s")
    def test_that_never_served_and_of_which_a_pod_is_deleted_has_nothing_to_drain(self) -> None:
        manifest = pairs(drain={"deadlineSeconds": 100})
        first, second = members(manifest)
        second["metadata"]["deletionTimestamp"] = time_text()
        done = plan(observed(manifest, [first, second], snapshot=TWO_NODES), NOW)
        assert graces(done) == {"llama-aaaaa": 3}

    def test_on_a_lost_node_is_forced_only_there(self) -> None:
        manifest = pairs()
        pods = members(manifest, ready=True)
        done = plan(observed(manifest, pods, snapshot=cluster(node("a", gpus=4))), NOW)
        assert graces(done) == {"llama-aaaaa": 30, "llama-aaaaa-1": 0}

    @pytest.mark.holds("groups.md", "The leader carries the group's name, and status and scale count groups")
    def test_is_one_replica_in_the_status(self) -> None:
        labels = {"topology.kubernetes.io/zone": "eu-1", "topology.kubernetes.io/rack": "r3"}
        snapshot = cluster(node("a", gpus=4, labels=labels), node("b", gpus=4, labels=labels))
        manifest = pairs()
        done = plan(observed(manifest, members(manifest, ready=True), snapshot=snapshot), NOW)
        assert done.status is not None
        assert (done.status["replicas"], done.status["ready"]) == (1, "1/1")
        (group,) = done.status["groups"]
        assert group["domain"] == "topology.kubernetes.io/rack=eu-1/r3"
        assert condition(done, "Ready")["status"] == "True"

    def test_that_serves_though_the_cache_shows_a_pod_without_a_node_is_deleted_only_as_it_was_seen(
        self,
    ) -> None:
        """A conflict has shown that the leader serves; the other pod is as it was half a minute ago."""
        manifest = pairs()
        leader, _ = members(manifest, ready=True, phase="Running", containers=[SERVES], lifted=31)
        _, last = members(manifest, node=False, lifted=31)
        done = plan(observed(manifest, [leader, last], snapshot=TWO_NODES), NOW)
        deletes = [write for write in done.writes if isinstance(write, Delete)]
        assert [write.ref.name for write in deletes] == ["llama-aaaaa-1", "llama-aaaaa"]
        assert [write.resource_version for write in deletes] == ["1", "1"]
        assert [{ref.name for ref in write.needs} for write in deletes] == [set(), {"llama-aaaaa-1"}]


class TestPaused:
    @pytest.mark.holds("groups.md", "Nor does `spec.paused`; what is gated is released at once")
    def test_half_a_group_that_is_not_bound_in_time_is_released(self) -> None:
        manifest = pairs(paused=True)
        first, second = members(manifest, lifted=31)
        half = [first, {**second, "spec": {**second["spec"], "nodeName": None}}]
        done = plan(observed(manifest, half, snapshot=TWO_NODES), NOW)
        assert sorted(deleted(done)) == ["llama-aaaaa", "llama-aaaaa-1"]
        assert reasons(done)[0] == EndingReason.RELEASED
        assert created(done) == []
        assert shown(done, "Progressing") == ("False", Reason.PAUSED)

    @pytest.mark.holds("groups.md", "Nor does `spec.paused`; what is gated is released at once")
    @pytest.mark.parametrize(
        ("stages", "reason"),
        [
            pytest.param(2, EndingReason.RELEASED, id="whole; nobody would lift its gates"),
            pytest.param(1, EndingReason.INCOMPLETE, id="half; its other pod was refused"),
        ],
    )
    def test_a_gated_group_keeps_no_room_from_others_and_its_age(self, stages: int, reason: str) -> None:
        manifest = pairs(paused=True)
        gated = members(manifest, node=False, gated=True, age=7)[:stages]
        done = plan(observed(manifest, gated, snapshot=TWO_NODES), NOW)
        assert sorted(deleted(done)) == [pod["metadata"]["name"] for pod in gated]
        assert (reasons(done)[0], lifted(done), created(done)) == (reason, [], [])
        assert done.status is not None
        ages = [group["sinceTime"] for group in done.status["groups"] if group["phase"] == "Waiting"]
        assert ages == [time_text(7)]

    @pytest.mark.holds("groups.md", "Nor does `spec.paused`; what is gated is released at once")
    def test_a_group_that_fails_otherwise_is_left_alone(self) -> None:
        manifest = pairs(paused=True)
        done = plan(observed(manifest, crashed(manifest, "llama-aaaaa"), snapshot=TWO_NODES), NOW)
        assert done.writes == []


def crashed(manifest: dict[str, Any], group: str) -> list[dict[str, Any]]:
    first, second = members(manifest, group)
    ended = container_status(restartCount=1, lastState=terminated(1, "NCCL error"))
    second["status"]["containerStatuses"] = [ended]
    return [first, second]


def backing_off(failures: int, seconds_ago: float) -> dict[str, Any]:
    failed_at = NOW - timedelta(seconds=seconds_ago)
    held = Backoff(failures=failures, failed_at=failed_at, group="llama-x", why="NCCL error")
    return {"status": {"backoff": backoff_status(held)}}


class TestBackoff:
    @pytest.mark.holds(
        "groups.md", "The first failure costs nothing, further ones wait 10 s, 20 s up to five minutes"
    )
    def test_the_first_failure_costs_nothing_and_each_further_one_twice_as_much(self) -> None:
        manifest, now, waits = pairs(), NOW, []
        for turn in range(8):
            seen = observed(manifest, crashed(manifest, f"llama-{turn}"), snapshot=TWO_NODES)
            failed = plan(seen, now)
            assert reasons(failed)[0] == EndingReason.FAILED
            assert failed.status is not None
            manifest = {**manifest, "status": failed.status}
            waited = 0
            while not created(done := plan(observed(manifest, snapshot=TWO_NODES), now)):
                assert done.look_again_seconds is not None
                step = round(done.look_again_seconds)
                now, waited = now + timedelta(seconds=step), waited + step
            waits.append(waited)
        assert waits == [0, 10, 20, 40, 80, 160, 300, 300]

    @pytest.mark.holds("groups.md", "Evictions are no failures")
    def test_evictions_are_no_failures(self) -> None:
        manifest = pairs()
        leaving = members(manifest, ready=True)
        leaving[1]["metadata"]["deletionTimestamp"] = "2026-05-01T12:00:00Z"
        leaving[1]["status"]["conditions"].append(
            {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}
        )
        done = plan(observed(manifest, leaving, snapshot=TWO_NODES), NOW)
        assert reasons(done)[0] == EndingReason.EVICTED
        assert done.status is not None
        assert not done.status.get("backoff")

    @pytest.mark.holds("groups.md", "`status.backoff` shows how many, why and until when")
    def test_is_said_with_the_reason(self) -> None:
        manifest = pairs() | backing_off(failures=2, seconds_ago=3)
        done = plan(observed(manifest, snapshot=TWO_NODES), NOW)
        assert created(done) == []
        assert shown(done, "Placed") == ("False", Reason.BACKING_OFF)
        assert condition(done, "Placed")["message"] == (
            "1 replica waits until 2026-05-01T12:00:07Z after 2 failures in a row; "
            "last failure: llama-x: NCCL error"
        )
        assert done.look_again_seconds == 7
        assert done.status is not None
        assert done.status["backoff"] == manifest["status"]["backoff"]

    @pytest.mark.holds("groups.md", "Ten minutes without a failure end the backoff")
    @pytest.mark.parametrize(
        ("age", "ready", "forgotten"),
        [
            pytest.param(599, True, False, id="ten minutes are not over"),
            pytest.param(601, False, False, id="what followed does not serve yet"),
            pytest.param(601, True, True, id="all is well again"),
        ],
    )
    def test_is_forgotten(self, age: int, ready: bool, forgotten: bool) -> None:
        manifest = pairs() | backing_off(failures=3, seconds_ago=age)
        done = plan(observed(manifest, members(manifest, ready=ready), snapshot=TWO_NODES), NOW)
        assert done.status is not None
        assert (done.status["backoff"] is None) == forgotten

    def test_a_quota_that_refuses_the_last_pod_leaves_none_and_its_words_stay(self) -> None:
        words = 'pods "llama-x-1" is forbidden: exceeded quota: gpus, requested: 4, used: 4, limited: 4'
        manifest = pairs() | backing_off(failures=1, seconds_ago=3)
        tried = plan(observed(manifest, snapshot=TWO_NODES), NOW)
        name = created(tried)[0]["metadata"]["name"]
        (second,) = (ref for ref in tried.rests_on[name] if ref.name.endswith("-1"))
        refusal = RefusedWrite(ref=second, reason=WriteReason.FORBIDDEN, message=words)
        manifest["status"] = told_of_set(observed(manifest, snapshot=TWO_NODES), [refusal], NOW).status

        half = members(manifest, name, node=False, gated=True)[:1]
        again = plan(observed(manifest, half, snapshot=TWO_NODES), NOW)
        assert (lifted(again), created(again), deleted(again)) == ([], [], [name])
        assert reasons(again)[0] == EndingReason.INCOMPLETE
        assert words in condition(again, "Placed")["message"]
        assert again.status is not None
        assert again.status["backoff"]["failures"] == 2
        later = plan(observed({**manifest, "status": again.status}, half, snapshot=TWO_NODES), NOW)
        assert later.status is not None
        assert later.status["backoff"] == again.status["backoff"], "one failure is counted once"


def test_a_group_whose_pods_are_being_made_has_failed_for_no_other_set() -> None:
    """Its first pod is seen and its second is not. After an earlier failure the set would back off."""
    manifest = pairs(replicas=2) | backing_off(failures=1, seconds_ago=60)
    first, _ = members(manifest, node=False, gated=True)
    seen = in_force(seen_set(manifest, [first]))

    def asks(promised: dict[str, set[str]]) -> int:
        around = Surroundings(snapshot=TWO_NODES, policy=POLICY, promised=promised)
        return len(asked_by_another(seen, around, NOW).groups)

    assert asks({"uid-llama": {"llama-aaaaa"}}) == 1, "the other of the two still waits"
    assert asks({"uid-llama": {"llama-bbbbb"}}) == 0, "a group that lost a pod is a failure"
