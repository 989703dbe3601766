"""The next step of a set, from what is seen. The pieces have tests of their own (test_life, test_turnover,
placement); here are the writes, the conditions, the events and the status that they amount to. The real loop:
test_apiserver.
"""

import base64
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from flotilla_operator.api.annotations import refresh_of
from flotilla_operator.api.model_replica_set import ModelReplicaSet
from flotilla_operator.autoscaling.from_zero import ZeroDecision, decide
from flotilla_operator.cluster.writes import Apply, Create, Delete, EventType, JsonPatch
from flotilla_operator.controllers.missing import Missing
from flotilla_operator.controllers.model_replica_set.observe.engine_key import EngineKey
from flotilla_operator.controllers.model_replica_set.observe.recorded import Record
from flotilla_operator.controllers.model_replica_set.reasons import EventReason, Reason
from flotilla_operator.controllers.model_replica_set.remembered.remembered import remembered, told_before
from flotilla_operator.controllers.model_replica_set.seen import Observed, Rendering
from flotilla_operator.objects.owners import Owner
from flotilla_operator.objects.resources import MODEL_REPLICA_SETS, SECRETS, SERVICES
from flotilla_operator.placement import Claim, Snapshot
from flotilla_operator.placement.manifests import claim_of
from flotilla_operator.placement.topology import Taint
from flotilla_operator.replicas.facts import FailedPin, RouterLoad, SetFacts
from flotilla_operator.replicas.group import EndingReason, groups_of
from flotilla_operator.replicas.intent import in_force
from flotilla_operator.replicas.leaving.draining import epoch_of
from flotilla_operator.replicas.rounds import Asks, asked_by_another
from flotilla_operator.replicas.scale import all_ready_since, policy_of, zero_signals
from flotilla_operator.replicas.surroundings import Surroundings
from flotilla_operator.replicas.trouble import Trouble, TroubleReason
from flotilla_operator.workloads.forms import Marks, form_of
from flotilla_operator.workloads.group_pods import member_of
from flotilla_operator.workloads.model_facts import reported_by_revision
from flotilla_operator.workloads.model_replica_set import names_of_stages, router_objects
from flotilla_operator.workloads.revision import revision_of
from flotilla_runtime import contract
from tests.builders.model_replica_set import IMAGES, gpu_set, model_replica_set
from tests.builders.placement import POLICY, cluster, node, used
from tests.builders.pods import NOW, container_status, engine_pod, stage_pod, terminated, time_text, waiting
from tests.replicas.test_draining import SILENT, router
from tests.support.planned import Plan
from tests.support.planned import plan_of_set as plan

READY_ROUTER = {"status": {"readyReplicas": 2}}


def seen_set(manifest: dict[str, Any], pods: Sequence[dict[str, Any]] = (), **fields: Any) -> SetFacts:
    spec, owner = ModelReplicaSet.model_validate(manifest).spec, Owner.of(MODEL_REPLICA_SETS.kind, manifest)
    marks = Marks(refresh=refresh_of(manifest), key_made_anew=fields.get("key_made_anew", ""))
    newest, memory = form_of(owner, spec, marks, IMAGES), remembered(manifest)
    good = memory.rollout.good
    return SetFacts(
        owner=owner,
        newest=newest,
        good=replace(newest, revision=good) if good not in ("", newest.revision) else None,
        leaves="deletionTimestamp" in manifest["metadata"],
        groups=groups_of(map(member_of, pods)),
        memory=memory,
        **fields,
    )


def decided_on(me: SetFacts, load: RouterLoad) -> ZeroDecision | None:
    """Decision of the steering loop on this load."""
    policy = policy_of(me.newest.spec)
    signals = zero_signals(load, all_ready_since(me.groups), NOW)
    return None if policy is None else decide(signals, policy, current=me.memory.wanted)


def observed(
    manifest: dict[str, Any],
    pods: Sequence[dict[str, Any]] = (),
    *,
    snapshot: Snapshot | None = None,
    rivals: Sequence[SetFacts] = (),
    missing: tuple[Missing, ...] = (),
    foreign: Sequence[str] = (),
    router_ready: bool = True,
    load: RouterLoad | None = None,
    failed_pins: tuple[FailedPin, ...] = (),
) -> Observed:
    """A set with its pods; every object of ours stands as we want it, but for the names that are foreign."""
    me = seen_set(manifest, pods, failed_pins=failed_pins)
    base = snapshot or cluster(node("a"), node("b"))
    claims = [claim for pod in pods if (claim := claim_of(pod)) is not None]
    around = Surroundings(
        snapshot=Snapshot(topology=base.topology, claims=(*base.claims, *claims)),
        policy=POLICY,
        gone=frozenset(name for pod in pods if (name := pod["spec"].get("nodeName")))
        - base.topology.positions.keys(),
    )
    existing = {}
    others = [in_force(rival) for rival in rivals]
    wanted_now = in_force(me)
    to_keep = max(0, wanted_now.replicas - 1)
    for wanted in router_objects(
        me.owner, wanted_now.spec, IMAGES, several_stages=wanted_now.several_stages, pods_to_keep=to_keep
    ):
        wanted["metadata"]["uid"] = f"uid-{wanted['kind']}"
        live = wanted | (READY_ROUTER if router_ready and wanted["kind"] == "Deployment" else {})
        if f"{wanted['kind']} {wanted['metadata']['name']}" in foreign:
            live = {**wanted, "metadata": {**wanted["metadata"], "ownerReferences": []}}
        existing[wanted["kind"], wanted["metadata"]["name"]] = live
    return Observed(
        manifest=manifest,
        facts=me,
        before=told_before(manifest),
        pods=pods,
        around=around,
        asks=Asks(others={one.full_name: asked_by_another(one, around, NOW) for one in others}),
        existing=existing,
        rendering=Rendering(images=IMAGES),
        missing=missing,
        model_facts=reported_by_revision(pods),
        load=load or RouterLoad(),
        scaled=decided_on(me, load or RouterLoad()),
        records={me.newest.revision: Record(name="record", uid="uid-record")},
    )


def revision_of_set(manifest: dict[str, Any]) -> str:
    return revision_of(ModelReplicaSet.model_validate(manifest).spec)


def member(manifest: dict[str, Any], name: str, **fields: Any) -> dict[str, Any]:
    pod = engine_pod(name, revision=fields.pop("revision", revision_of_set(manifest)), **fields)
    accelerator = manifest["spec"].get("accelerator")
    if accelerator:
        tensor = str(manifest["spec"]["parallelism"]["tensor"])
        pod["spec"]["containers"][0]["resources"] = {"limits": {accelerator["resource"]: tensor}}
    return pod


def condition(done: Plan, condition_type: str) -> dict[str, Any]:
    assert done.status is not None
    found: dict[str, Any] = next(c for c in done.status["conditions"] if c["type"] == condition_type)
    return found


def shown(done: Plan, condition_type: str) -> tuple[str, str]:
    found = condition(done, condition_type)
    return found["status"], found["reason"]


def creates(done: Plan, kind: str) -> list[dict[str, Any]]:
    made = [write.manifest for write in done.writes if isinstance(write, Create)]
    return [manifest for manifest in made if manifest["kind"] == kind]


def created(done: Plan) -> list[dict[str, Any]]:
    return creates(done, "Pod")


def deleted(done: Plan) -> list[str]:
    return [write.ref.name for write in done.writes if isinstance(write, Delete)]


def patched(done: Plan) -> list[JsonPatch]:
    return [write for write in done.writes if isinstance(write, JsonPatch)]


def drained(pod: dict[str, Any], seconds_ago: int) -> dict[str, Any]:
    epoch = int((NOW.timestamp() - seconds_ago) * 1000)
    pod["metadata"]["annotations"][contract.ANNOTATION_DRAIN_EPOCH] = str(epoch)
    return pod


def is_engine_budget(manifest: dict[str, Any]) -> bool:
    kind, name = manifest["kind"], str(manifest["metadata"]["name"])
    return kind == "PodDisruptionBudget" and name.endswith("engine")


def pin_of(pod: dict[str, Any]) -> str:
    terms = pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    (field,) = terms["nodeSelectorTerms"][0]["matchFields"]
    name: str = field["values"][0]
    return name


def reasons(done: Plan) -> list[str]:
    return [str(event.reason) for event in done.events]


def rival_set(**changes: Any) -> dict[str, Any]:
    manifest = gpu_set(**changes)
    return {**manifest, "metadata": {**manifest["metadata"], "name": "other", "uid": "uid-other"}}


class TestANewSet:
    @pytest.mark.holds("groups.md", "A replica of one pod is left to the kubelet's restarts and has no gate")
    @pytest.mark.holds(
        "decisions/0004-pinning-and-gates.md",
        "A pod of an admitted group is pinned to its node, and the scheduler binds it",
    )
    def test_gets_its_groups_pinned_with_ids_of_their_own(self) -> None:
        done = plan(observed(gpu_set(), router_ready=False), NOW)
        pods = created(done)
        assert [pin_of(pod) for pod in pods] == ["a", "a"], "one node is filled before another is begun"
        assert [p["metadata"]["annotations"][contract.ANNOTATION_SERVER_ID] for p in pods] == ["1", "2"]
        assert len({pod["metadata"]["name"] for pod in pods}) == 2
        assert reasons(done) == [EventReason.GROUP_PLACED, EventReason.GROUP_PLACED]
        names = {pod["metadata"]["labels"][contract.LABEL_GROUP] for pod in pods}
        assert {event.subject for event in done.events} == names
        assert {ref.name for ref in done.rests_on["Placed"]} == {pod["metadata"]["name"] for pod in pods}
        assert done.rests_on.keys() == {"Placed", *names}
        assert done.look_again_seconds == 30

    def test_writes_ready_false_and_reconciling_at_once(self) -> None:
        done = plan(observed(gpu_set(), router_ready=False), NOW)
        assert condition(done, "Ready")["status"] == "False"
        assert condition(done, "Reconciling")["status"] == "True"
        assert condition(done, "Stalled")["status"] == "False"

    @pytest.mark.holds("placement.md", "A set without an accelerator is left to the kube-scheduler")
    def test_without_an_accelerator_leaves_its_pods_to_the_scheduler(self) -> None:
        done = plan(observed(model_replica_set(replicas=2)), NOW)
        assert len(created(done)) == 2
        assert all("affinity" not in pod["spec"] for pod in created(done))
        assert shown(done, "Placed") == ("True", Reason.LEFT_TO_SCHEDULER)
        assert reasons(done) == [EventReason.GROUP_CREATED] * 2

    def test_that_wants_none_is_ready_with_none(self) -> None:
        done = plan(observed(gpu_set(replicas=0)), NOW)
        assert created(done) == []
        assert shown(done, "Available") == ("True", Reason.SCALED_TO_ZERO)
        assert condition(done, "Ready")["status"] == "True"
        assert done.status is not None
        assert done.status["ready"] == "0/0"


class TestPlacement:
    @pytest.mark.holds("decisions/0004-pinning-and-gates.md", "A group that does not fit has no pods")
    def test_a_group_that_does_not_fit_says_so_in_one_sentence_and_keeps_name_and_time(self) -> None:
        snapshot = cluster(node("a"), node("b", product="A100"), claims=(used("a", 6),))
        first = plan(observed(gpu_set(replicas=1), snapshot=snapshot), NOW)
        assert created(first) == []
        assert shown(first, "Placed") == ("False", Reason.INSUFFICIENT_CAPACITY)
        assert condition(first, "Placed")["message"] == (
            "1 replica waits for 4 nvidia.com/gpu on one node: "
            "0/2 nodes fit: 1 InsufficientGPUs, 1 ProductMismatch"
        )
        assert condition(first, "Reconciling")["status"] == "True"
        assert shown(first, "Available") == ("False", Reason.NO_REPLICA_READY)
        assert first.status is not None
        assert first.status["placement"]["blocked"] == [
            {"reason": "InsufficientGPUs", "nodes": 1},
            {"reason": "ProductMismatch", "nodes": 1},
        ]
        (group,) = first.status["groups"]
        assert group["phase"] == "Waiting"
        later = observed({**gpu_set(replicas=1), "status": first.status}, snapshot=snapshot)
        second = plan(later, NOW + timedelta(seconds=90))
        assert second.status is not None
        assert second.status["groups"] == [group]
        assert second.events == []

    def test_room_that_appears_is_taken_by_the_name_that_waited(self) -> None:
        status = {
            "groups": [{"name": "llama-waitd", "phase": "Waiting", "nodes": [], "sinceTime": time_text(50)}]
        }
        done = plan(observed({**gpu_set(replicas=1), "status": status}), NOW)
        assert [pod["metadata"]["name"] for pod in created(done)] == ["llama-waitd"]

    @pytest.mark.holds("placement.md", "Priority, then age in minutes; within a minute the largest first")
    def test_an_older_rival_is_served_first_and_nothing_is_promised_twice(self) -> None:
        rival = {
            **gpu_set(replicas=2),
            "metadata": {**gpu_set()["metadata"], "name": "older", "uid": "uid-older"},
            "status": {
                "groups": [
                    {"name": f"older-{i}", "phase": "Waiting", "nodes": [], "sinceTime": time_text(100)}
                    for i in (1, 2)
                ]
            },
        }
        one_node = cluster(node("a"))
        done = plan(observed(gpu_set(), snapshot=one_node, rivals=[seen_set(rival)]), NOW)
        assert created(done) == []
        theirs = plan(observed(rival, snapshot=one_node, rivals=[seen_set(gpu_set())]), NOW)
        assert len(created(theirs)) == 2

    @pytest.mark.holds("placement.md", "Priority, then age in minutes; within a minute the largest first")
    def test_a_younger_rival_of_higher_priority_is_served_first(self) -> None:
        waiting_since = [
            {"name": f"llama-{i}", "phase": "Waiting", "nodes": [], "sinceTime": time_text(500)}
            for i in (1, 2)
        ]
        mine = {**gpu_set(), "status": {"groups": waiting_since}}
        rival = rival_set(replicas=2)
        urgent = seen_set(rival, priority=100)
        one_node = cluster(node("a"))
        done = plan(observed(mine, snapshot=one_node, rivals=[urgent]), NOW)
        assert created(done) == []
        assert shown(done, "Placed") == ("False", Reason.INSUFFICIENT_CAPACITY)
        theirs = observed(rival, snapshot=one_node, rivals=[seen_set(mine)])
        assert len(created(plan(replace(theirs, facts=urgent), NOW))) == 2
        assert len(created(plan(replace(theirs, facts=replace(urgent, priority=0)), NOW))) == 0

    @pytest.mark.holds("placement.md", "A younger group passes one that does not fit, for ten minutes")
    @pytest.mark.parametrize(
        ("waited_seconds", "passes"),
        [
            pytest.param(599, True, id="passes an older one that does not fit"),
            pytest.param(600, False, id="leaves the node to it once it has waited long"),
        ],
    )
    def test_a_small_group(self, waited_seconds: int, passes: bool) -> None:
        rival = rival_set(replicas=1, parallelism={"pipeline": 2})
        since = time_text(waited_seconds)
        rival["status"] = {
            "groups": [{"name": "other-1", "phase": "Waiting", "nodes": [], "sinceTime": since}]
        }
        one_is_taken = cluster(node("a", gpus=4), node("b", gpus=4), claims=(used("b", 4),))
        done = plan(observed(gpu_set(replicas=1), snapshot=one_is_taken, rivals=[seen_set(rival)]), NOW)
        assert [pin_of(pod) for pod in created(done)] == (["a"] if passes else [])
        assert done.status is not None
        refused = {blocked["reason"] for blocked in done.status["placement"]["blocked"]}
        assert refused == (set() if passes else {"KeptForOlderGroup", "InsufficientGPUs"})

    def test_a_rival_that_is_paused_asks_for_nothing(self) -> None:
        rival = gpu_set(paused=True)
        rival["metadata"] = {**rival["metadata"], "name": "older", "uid": "uid-older"}
        done = plan(observed(gpu_set(), snapshot=cluster(node("a")), rivals=[seen_set(rival)]), NOW)
        assert len(created(done)) == 2

    def test_of_more_groups_than_are_shown_the_same_ones_keep_their_names(self) -> None:
        first = plan(observed(gpu_set(replicas=70), snapshot=cluster()), NOW)
        again = {**gpu_set(replicas=70), "status": first.status}
        second = plan(observed(again, snapshot=cluster()), NOW + timedelta(seconds=60))
        assert first.status is not None
        assert second.status is not None
        assert len(first.status["groups"]) == 50
        assert second.status["groups"] == first.status["groups"]
        assert second.status["groupCounts"]["waiting"] == 70

    def test_the_score_is_in_the_status(self) -> None:
        manifest = gpu_set(replicas=1)
        done = plan(observed(manifest, [member(manifest, "llama-a", node="a", pin="a", ready=True)]), NOW)
        assert done.status is not None
        assert done.status["placement"]["score"] == 0.5
        assert done.status["placement"]["scoreParts"] == {"fragmentation": 0.5}


class TestAPinThatFails:
    @pytest.mark.holds(
        "decisions/0004-pinning-and-gates.md",
        "A pinned pod that is not bound in time is planned anew without that node",
    )
    def test_is_released_and_planned_anew_without_that_node(self) -> None:
        manifest = gpu_set(replicas=1)
        late = member(manifest, "llama-late", pin="a", age=31, scheduler="0/2 nodes are available.")
        done = plan(observed(manifest, [late]), NOW)
        assert deleted(done) == ["llama-late"]
        assert [pin_of(pod) for pod in created(done)] == ["b"]
        assert created(done)[0]["metadata"]["name"] != "llama-late"
        assert reasons(done)[0] == EndingReason.RELEASED

    @pytest.mark.holds(
        "groups.md",
        "A group that is not bound in 30 s is deleted whole and placed anew without the node that failed",
    )
    @pytest.mark.parametrize(
        ("age", "free", "fits"),
        [
            pytest.param(60, 8, False, id="left out while nothing has changed"),
            pytest.param(301, 8, True, id="five minutes at most"),
            pytest.param(60, 4, True, id="until what it has free changes"),
        ],
    )
    def test_leaves_its_node_out_for_a_while(self, age: int, free: int, fits: bool) -> None:
        pin = FailedPin(node="a", free=free, at=NOW - timedelta(seconds=age))
        done = plan(observed(gpu_set(replicas=1), snapshot=cluster(node("a")), failed_pins=(pin,)), NOW)
        assert bool(created(done)) == fits

    def test_is_looked_for_when_its_time_is_up(self) -> None:
        manifest = gpu_set(replicas=1)
        done = plan(observed(manifest, [member(manifest, "llama-x", pin="a", age=12)]), NOW)
        assert done.look_again_seconds == 18


class TestGroupsThatEnd:
    def test_an_evicted_one_is_replaced_under_the_same_server_id_only_when_it_is_free(self) -> None:
        manifest = gpu_set(replicas=1)
        pod = member(manifest, "llama-x", node="a", phase="Failed", message="Evicted", server_id=1)
        done = plan(observed(manifest, [pod]), NOW)
        assert deleted(done) == ["llama-x"]
        assert EndingReason.FAILED in reasons(done)
        (new,) = created(done)
        assert new["metadata"]["annotations"][contract.ANNOTATION_SERVER_ID] == "2"

    def test_one_whose_node_is_gone_is_deleted_by_force(self) -> None:
        manifest = gpu_set(replicas=1)
        done = plan(observed(manifest, [member(manifest, "llama-x", node="gone", ready=True)]), NOW)
        (delete,) = [write for write in done.writes if isinstance(write, Delete)]
        assert delete.grace_period_seconds == 0
        assert delete.uid == "uid-llama-x"
        assert EndingReason.LOST in reasons(done)

    def test_one_that_leaves_is_not_deleted_twice(self) -> None:
        manifest = gpu_set(replicas=0)
        done = plan(
            observed(manifest, [member(manifest, "llama-x", node="a", ready=True, deleting=True)]), NOW
        )
        assert deleted(done) == []
        assert done.status is not None
        assert done.status["drainingReplicas"] == 1


class TestScaling:
    LOAD = RouterLoad(waiting=0, running=5, by_group={"llama-x": 1, "llama-y": 4})

    @pytest.mark.holds(
        "draining.md",
        "A replica leaves by a drain when `replicas` falls, at an update, on a cordoned node, and "
        "at a rebalancing",
    )
    def test_down_drains_the_one_with_the_least_to_do(self) -> None:
        manifest = gpu_set(replicas=1)
        pods = [member(manifest, name, node="a", ready=True) for name in ("llama-x", "llama-y")]
        done = plan(observed(manifest, pods, load=self.LOAD), NOW)
        (patch,) = patched(done)
        assert (patch.ref.name, patch.uid) == ("llama-x", "uid-llama-x")
        epoch = str(int(NOW.timestamp() * 1000))
        path = "/metadata/annotations/flotilla.dev~1drain-epoch"
        assert patch.operations == [{"op": "add", "path": path, "value": epoch}]
        assert deleted(done) == []
        assert reasons(done) == [EventReason.GROUP_DRAINING]
        assert done.rests_on["llama-x"] == {patch.ref}
        assert done.look_again_seconds == 1
        assert done.status is not None
        assert done.status["load"] == {"waiting": 0, "running": 5, "sessions": 0}

    @pytest.mark.parametrize(
        ("began_seconds_ago", "goes"),
        [
            pytest.param(99, False, id="it waits for its proof"),
            pytest.param(100, True, id="and for its deadline at most"),
        ],
    )
    def test_a_group_that_drains(self, began_seconds_ago: int, goes: bool) -> None:
        manifest = gpu_set(replicas=1, drain={"deadlineSeconds": 100})
        pods = [
            drained(member(manifest, "llama-x", node="a", ready=True), began_seconds_ago),
            member(manifest, "llama-y", node="a", ready=True),
        ]
        done = plan(observed(manifest, pods), NOW)
        assert deleted(done) == (["llama-x"] if goes else [])
        assert reasons(done) == ([EventReason.GROUP_REMOVED] if goes else [])
        assert done.status is not None
        assert done.status["drainingReplicas"] == 1
        assert done.status["ready"] == "1/1"
        (budget,) = [w.manifest for w in done.writes if isinstance(w, Apply) and is_engine_budget(w.manifest)]
        assert budget["spec"]["minAvailable"] == 1, "the draining one is healthy and does not count"

    @pytest.mark.parametrize(
        ("in_flight", "left"),
        [pytest.param(1, "1 request", id="one"), pytest.param(3, "3 requests", id="several")],
    )
    def test_the_event_at_the_deadline_has_the_figures(self, in_flight: int, left: str) -> None:
        manifest = gpu_set(replicas=1, drain={"deadlineSeconds": 100})
        pods = [
            drained(member(manifest, "llama-x", node="a", ready=True), 100),
            member(manifest, "llama-y", node="a", ready=True),
        ]
        epoch = epoch_of(NOW - timedelta(seconds=100))
        routers = (router(epoch=epoch, in_flight=in_flight, group="llama-x"), SILENT)
        done = plan(replace(observed(manifest, pods), routers=routers), NOW)
        (event,) = [event for event in done.events if event.reason == EventReason.GROUP_REMOVED]
        assert event.note.endswith(
            "the deadline spec.drain.deadlineSeconds has passed; 1 of 2 routers acknowledged the drain and "
            f"report {left} in flight or queued"
        )

    @pytest.mark.holds("draining.md", "The victim of a scale-down is chosen in the order of the page")
    def test_down_makes_whole_the_node_whose_other_pods_hold_no_accelerator(self) -> None:
        manifest = gpu_set(replicas=1)
        pods = [
            member(manifest, "llama-x", node="a", pin="a", ready=True, age=10),
            member(manifest, "llama-y", node="b", pin="b", ready=True, age=20),
        ]
        cpus = [Claim(node="b", requests={"cpu": 1000, "pods": 1})] * 3
        around = cluster(node("a"), node("b"), claims=(used("a", 4), *cpus))
        done = plan(observed(manifest, pods, snapshot=around, load=RouterLoad()), NOW)
        assert [patch.ref.name for patch in patched(done)] == ["llama-y"]

    @pytest.mark.holds("draining.md", "The victim of a scale-down is chosen in the order of the page")
    def test_without_accelerators_down_leaves_the_node_with_the_fewest_other_pods(self) -> None:
        manifest = model_replica_set(replicas=1)
        pods = [member(manifest, f"llama-{at}", node=at, ready=True) for at in "ab"]
        others = [Claim(node="a", requests={"cpu": 1000, "pods": 1})] * 3
        around = cluster(node("a"), node("b"), claims=tuple(others))
        done = plan(observed(manifest, pods, snapshot=around, load=RouterLoad()), NOW)
        assert [patch.ref.name for patch in patched(done)] == ["llama-b"]

    @pytest.mark.holds(
        "draining.md",
        "A drain is called off when replicas are wanted again; the replica with the most "
        "conversations comes back",
    )
    def test_up_again_calls_the_drain_off(self) -> None:
        manifest = gpu_set(replicas=2)
        pods = [
            drained(member(manifest, "llama-x", node="a", ready=True), 5),
            member(manifest, "llama-y", node="a", ready=True),
        ]
        done = plan(observed(manifest, pods), NOW)
        (patch,) = patched(done)
        assert [operation["op"] for operation in patch.operations] == ["remove"]
        assert created(done) == []
        assert reasons(done) == [EventReason.GROUP_RETURNED]

    def test_up_adds_ids_that_are_free(self) -> None:
        manifest = gpu_set(replicas=3)
        pods = [member(manifest, "llama-x", node="a", ready=True, server_id=2)]
        done = plan(observed(manifest, pods), NOW)
        ids = [p["metadata"]["annotations"][contract.ANNOTATION_SERVER_ID] for p in created(done)]
        assert ids == ["1", "3"]


class TestAnUpdate:
    def test_surges_by_one(self) -> None:
        manifest = gpu_set()
        pods = [member(manifest, f"llama-{i}", node="a", ready=True, revision="old") for i in "xy"]
        done = plan(observed(manifest, pods), NOW)
        assert len(created(done)) == 1
        assert deleted(done) == []
        assert shown(done, "Progressing") == ("True", Reason.UPDATING)
        assert condition(done, "Ready")["status"] == "False"
        assert condition(done, "Available")["status"] == "True"

    def test_that_finds_no_room_says_so(self) -> None:
        manifest = gpu_set()
        pods = [member(manifest, f"llama-{i}", node="a", ready=True, revision="old") for i in "xy"]
        done = plan(observed(manifest, pods, snapshot=cluster(node("a"))), NOW)
        assert created(done) == []
        assert shown(done, "Progressing") == ("False", Reason.UPDATE_WAITS_FOR_ROOM)
        assert "free or add accelerators" in condition(done, "Progressing")["message"]

    def test_that_is_paused_says_how_far_it_is(self) -> None:
        manifest = gpu_set(paused=True)
        pods = [member(manifest, f"llama-{i}", node="a", ready=True, revision="old") for i in "xy"]
        done = plan(observed(manifest, pods), NOW)
        assert shown(done, "Progressing") == ("False", Reason.UPDATE_PAUSED)
        assert "0 of 2 replicas run the new revision" in condition(done, "Progressing")["message"]

    @pytest.mark.holds(
        "draining.md",
        "A failed update goes on with the last good revision, `Progressing` is RolledBack, and a "
        "change of the spec tries again",
    )
    def test_that_does_not_get_on_is_taken_back_and_says_why(self) -> None:
        manifest = gpu_set()
        pods = [member(manifest, f"llama-{i}", node="a", ready=True, revision="old") for i in "xy"]
        crash = [container_status(lastState=terminated(1, "no such option"))]
        pods.append(member(manifest, "llama-z", node="b", containers=crash))
        rollout = {
            "revision": revision_of_set(manifest),
            "goodRevision": "old",
            "outdatedReplicas": 2,
            "progressTime": time_text(1800),
        }
        done = plan(observed({**manifest, "status": {"rollout": rollout}}, pods), NOW)
        assert shown(done, "Progressing") == ("False", Reason.ROLLED_BACK)
        assert EventType.WARNING in {
            event.type for event in done.events if event.reason == Reason.ROLLED_BACK
        }
        assert "no such option" in condition(done, "Progressing")["message"]
        assert shown(done, "Ready") == ("False", Reason.ROLLED_BACK)
        assert condition(done, "Stalled")["status"] == "True"
        assert condition(done, "Available")["status"] == "True"
        assert done.status is not None
        assert done.status["rollout"]["failedRevision"] == revision_of_set(manifest)

    def test_is_under_way_until_the_last_old_pod_is_gone(self) -> None:
        manifest = gpu_set()
        pods = [member(manifest, f"llama-{i}", node="a", ready=True) for i in "xy"]
        pods.append(member(manifest, "llama-z", node="b", revision="old", deleting=True))
        done = plan(observed(manifest, pods), NOW)
        assert shown(done, "Progressing") == ("True", Reason.UPDATING)
        assert condition(done, "Progressing")["message"].endswith("whose pods are still terminating: 1")
        assert condition(done, "Ready")["status"] == "True"

    def test_that_is_on_trial_is_ready_and_keeps_what_the_way_back_needs(self) -> None:
        manifest = gpu_set()
        pods = [member(manifest, f"llama-{i}", node="a", ready=True) for i in "xy"]
        rollout = {"revision": revision_of_set(manifest), "goodRevision": "old", "outdatedReplicas": 1}
        records = {name: Record(name=f"llama-{name}", uid="u") for name in ("old", revision_of_set(manifest))}
        seen = observed({**manifest, "status": {"rollout": rollout}}, pods)
        done = plan(replace(seen, records=records), NOW)
        assert shown(done, "Progressing") == ("True", Reason.ON_TRIAL)
        message = condition(done, "Progressing")["message"]
        until = time_text(-1800)
        assert message.endswith(f"until {until}; if it fails, the set goes back to revision old")
        assert condition(done, "Ready")["status"] == "True"
        assert deleted(done) == []

    @pytest.mark.holds("draining.md", "Each revision is kept as a ControllerRevision")
    def test_has_its_revision_put_on_record_and_what_nothing_needs_dropped(self) -> None:
        manifest = gpu_set()
        pods = [member(manifest, "llama-x", node="a", ready=True, revision="old")]
        records = {name: Record(name=f"llama-{name}", uid=f"uid-{name}") for name in ("old", "older")}
        done = plan(replace(observed(manifest, pods), records=records), NOW)
        (kept,) = creates(done, "ControllerRevision")
        assert kept["metadata"]["name"] == f"llama-{revision_of_set(manifest)}"
        assert kept["data"]["parallelism"]["tensor"] == 4
        assert deleted(done) == ["llama-older"]


class TestANodeThatLeaves:
    @pytest.mark.holds(
        "draining.md", "A cordoned node's replicas move one at a time, with the replacement ready first"
    )
    @pytest.mark.holds(
        "placement.md",
        "A change of the chart's tolerations replaces no replica, and what a replica's own pods "
        "tolerate keeps it where it is",
    )
    @pytest.mark.parametrize(
        ("shape", "leaves"),
        [
            pytest.param({"cordoned": True}, True, id="cordoned"),
            pytest.param({"taints": (Taint(key="x", effect="NoExecute"),)}, True, id="a taint that evicts"),
            pytest.param({"taints": (Taint(key="x"),)}, False, id="a taint that only keeps others away"),
            pytest.param(
                {"taints": (Taint(key="known", effect="NoExecute"),)}, False, id="one that is tolerated"
            ),
        ],
    )
    def test_gets_a_replacement_elsewhere_first(self, shape: dict[str, Any], leaves: bool) -> None:
        """The pod's own tolerations count, not those of pods of today: the chart's tolerations may change."""
        manifest = gpu_set(replicas=1)
        pod = member(manifest, "llama-x", pin="a", node="a", ready=True)
        pod["spec"]["tolerations"] = [{"key": "known", "operator": "Exists"}]
        done = plan(observed(manifest, [pod], snapshot=cluster(node("a", **shape), node("b"))), NOW)
        assert [pin_of(pod) for pod in created(done)] == (["b"] if leaves else [])
        assert patched(done) == []
        shows = ("True", Reason.EMPTYING_NODES) if leaves else ("False", Reason.SETTLED)
        assert shown(done, "Progressing") == shows
        assert condition(done, "Ready")["status"] == "True"

    def test_then_drains(self) -> None:
        manifest = gpu_set(replicas=1)
        pods = [
            member(manifest, "llama-x", pin="a", node="a", ready=True),
            member(manifest, "llama-y", pin="b", node="b", ready=True, server_id=2),
        ]
        nodes = cluster(node("a", cordoned=True), node("b"))
        (patch,) = patched(plan(observed(manifest, pods, snapshot=nodes), NOW))
        assert patch.ref.name == "llama-x"


class TestTrouble:
    @pytest.mark.holds(
        "groups.md",
        "`ImagePullFailed`, `ContainerConfigError`, `ModelFetchFailed` and `EngineCrashing` have "
        "the kubelet's words",
    )
    @pytest.mark.parametrize(
        ("pod", "reason", "words"),
        [
            pytest.param(
                {"containers": [container_status(**waiting("ErrImagePull", "manifest unknown"))]},
                TroubleReason.IMAGE_PULL_FAILED,
                "container engine: manifest unknown",
                id="the image cannot be pulled",
            ),
            pytest.param(
                {"containers": [container_status(lastState=terminated(1, "OSError: no such model"))]},
                TroubleReason.ENGINE_CRASHING,
                "OSError: no such model",
                id="a crash loop",
            ),
            pytest.param(
                {"inits": [container_status("fetch-model", state=terminated(1, "hf://a/b does not exist"))]},
                TroubleReason.MODEL_FETCH_FAILED,
                "hf://a/b does not exist",
                id="the model cannot be fetched",
            ),
            pytest.param(
                {"containers": [container_status(**waiting("CreateContainerConfigError", "no secret"))]},
                TroubleReason.CONTAINER_CONFIG_ERROR,
                "no secret",
                id="the container cannot be made",
            ),
        ],
    )
    def test_stands_in_the_conditions(self, pod: dict[str, Any], reason: Reason, words: str) -> None:
        manifest = gpu_set(replicas=1)
        done = plan(observed(manifest, [member(manifest, "llama-x", pin="a", node="a", **pod)]), NOW)
        assert shown(done, "Available") == ("False", reason)
        assert words in condition(done, "Ready")["message"]
        assert condition(done, "Stalled")["status"] == "True"
        assert [(event.type, event.reason) for event in done.events] == [("Warning", reason)]
        assert condition(done, "Ready")["message"].count("llama-x") == 1

    def test_of_a_slow_start_is_left_to_time_and_the_kubelet(self) -> None:
        manifest = {**gpu_set(replicas=1), "status": {"capacity": {"startupSeconds": 60.0}}}
        runs = container_status(started=False, state={"running": {"startedAt": time_text(301)}})
        done = plan(observed(manifest, [member(manifest, "llama-x", node="a", containers=[runs])]), NOW)
        assert shown(done, "Available") == ("False", TroubleReason.ENGINE_SLOW_TO_START)
        assert "other replicas of the set needed 60 s" in condition(done, "Ready")["message"]
        assert condition(done, "Stalled")["status"] == "False"

    @pytest.mark.holds("groups.md", "`PodSetupSlow` after two minutes without volumes")
    @pytest.mark.parametrize(
        ("seconds", "status", "reason"),
        [
            pytest.param(119, "False", Reason.NO_REPLICA_READY, id="a disk takes its time"),
            pytest.param(120, "False", TroubleReason.POD_SETUP_SLOW, id="two minutes are too long"),
            pytest.param(999, "True", Reason.NO_REPLICA_READY, id="they have been there for long"),
        ],
    )
    def test_of_volumes_that_do_not_come_says_where_the_kubelet_tells_why(
        self, seconds: float, status: str, reason: Reason | TroubleReason
    ) -> None:
        manifest = gpu_set(replicas=1)
        pod = member(manifest, "llama-x", node="a")
        held = {
            "type": "PodReadyToStartContainers",
            "status": status,
            "lastTransitionTime": time_text(seconds),
        }
        pod["status"]["conditions"].append(held)
        done = plan(observed(manifest, [pod]), NOW)
        assert shown(done, "Available") == ("False", reason)
        told = "see kubectl describe pod llama-x" in condition(done, "Ready")["message"]
        assert told is (reason is TroubleReason.POD_SETUP_SLOW)
        assert condition(done, "Stalled")["status"] == "False"

    @pytest.mark.parametrize("slow", ["llama-a", "llama-b"])
    def test_that_a_person_must_mend_is_told_before_what_time_mends(self, slow: str) -> None:
        manifest = gpu_set(replicas=2)
        runs = container_status(started=False, state={"running": {"startedAt": time_text(601)}})
        unknown = container_status(**waiting("ImagePullBackOff", "manifest unknown"))
        pods = [
            member(manifest, name, node="a", containers=[runs if name == slow else unknown])
            for name in ("llama-a", "llama-b")
        ]
        done = plan(observed(manifest, pods), NOW)
        assert shown(done, "Available") == ("False", TroubleReason.IMAGE_PULL_FAILED)
        assert shown(done, "Stalled") == ("True", TroubleReason.IMAGE_PULL_FAILED)

    def test_of_the_scheduler_stands_under_placed(self) -> None:
        manifest = model_replica_set()
        pods = [member(manifest, "llama-x", scheduler="0/1 nodes are available: 1 Insufficient cpu.")]
        done = plan(observed(manifest, pods), NOW)
        assert shown(done, "Placed") == ("False", TroubleReason.UNSCHEDULABLE)
        assert "Insufficient cpu" in condition(done, "Placed")["message"]

    def test_of_the_scheduler_stands_there_too_when_another_stage_has_worse(self) -> None:
        manifest = model_replica_set(parallelism={"tensor": 1, "pipeline": 2})
        unknown = container_status(**waiting("ImagePullBackOff", "manifest unknown"))
        stages: list[dict[str, Any]] = [
            {"scheduler": "0/1 nodes are available"},
            {"node": "a", "containers": [unknown]},
        ]
        pods = [
            member(manifest, name, group="llama-x", stage=number, stages=2, **stages[number])
            for number, name in enumerate(("llama-x", "llama-x-1"))
        ]
        done = plan(observed(manifest, pods), NOW)
        assert shown(done, "Placed") == ("False", TroubleReason.UNSCHEDULABLE)
        assert condition(done, "Placed")["message"] == "0/1 nodes are available"
        assert shown(done, "Available") == ("False", TroubleReason.IMAGE_PULL_FAILED)

    def test_of_one_replica_keeps_the_set_available_and_not_ready(self) -> None:
        manifest = gpu_set()
        pods = [
            member(manifest, "llama-x", node="a", ready=True),
            member(
                manifest,
                "llama-y",
                node="a",
                containers=[container_status(lastState=terminated(1, "CUDA error"))],
            ),
        ]
        done = plan(observed(manifest, pods), NOW)
        assert condition(done, "Available")["status"] == "True"
        assert condition(done, "Ready")["status"] == "False"
        assert condition(done, "Ready")["message"].endswith("CUDA error")
        assert shown(done, "Progressing") == ("True", Reason.SCALING)


class TestWhatIsMissing:
    def test_leaves_running_groups_alone(self) -> None:
        manifest = gpu_set(replicas=1)
        absent = Missing(reason=Reason.SECRET_MISSING, message="m")
        pods = [member(manifest, "llama-x", node="a", ready=True)]
        done = plan(observed(manifest, pods, missing=(absent,)), NOW)
        assert deleted(done) == []
        assert condition(done, "Available")["status"] == "True"

    def test_recovers_when_it_appears(self) -> None:
        absent = Missing(reason=Reason.SECRET_MISSING, message="m")
        before = plan(observed(gpu_set(), missing=(absent,)), NOW)
        after = plan(observed({**gpu_set(), "status": before.status}), NOW + timedelta(seconds=10))
        assert len(created(after)) == 2
        assert shown(after, "SpecValid") == ("True", Reason.VALID)
        assert Reason.VALID in reasons(after)


class TestNames:
    def test_a_service_of_somebody_elses_is_said_and_held_against_the_set(self) -> None:
        done = plan(observed(gpu_set(), foreign=["Service llama-model"]), NOW)
        assert shown(done, "RouterReady") == ("False", Reason.NAME_TAKEN)
        assert "Service llama-model" in condition(done, "RouterReady")["message"]
        assert condition(done, "Stalled")["status"] == "True"


class TestTheNamesOfStages:
    """The Service stands from a time at which groups had two pods."""

    def seen(
        self, manifest: dict[str, Any], pods: Sequence[dict[str, Any]], *, ours: bool = True
    ) -> Observed:
        seen = observed(manifest, pods)
        service = names_of_stages(seen.facts.owner)
        owners = service["metadata"]["ownerReferences"] if ours else []
        metadata = {**service["metadata"], "uid": "uid-of-service", "ownerReferences": owners}
        live = {**service, "metadata": metadata}
        return replace(seen, existing={**seen.existing, ("Service", "llama-engine"): live})

    def applied(self, done: Plan) -> dict[tuple[str, str], dict[str, Any]]:
        manifests = [write.manifest for write in done.writes if isinstance(write, Apply)]
        return {(one["kind"], one["metadata"]["name"]): one for one in manifests}

    def test_go_with_the_last_group_of_several(self) -> None:
        done = plan(self.seen(gpu_set(), [member(gpu_set(), "llama-x", node="a", server_id=1)]), NOW)
        (gone,) = [write for write in done.writes if isinstance(write, Delete)]
        assert (gone.ref.plural, gone.ref.name, gone.uid) == ("services", "llama-engine", "uid-of-service")
        assert ("Service", "llama-engine") not in self.applied(done)

    def test_stay_with_the_stages_right_to_talk_as_long_as_there_is_one(self) -> None:
        pods = [stage_pod(stage, node="a", ready=True) for stage in (0, 1)]
        done = plan(self.seen(gpu_set(), pods), NOW)
        assert "llama-engine" not in deleted(done)
        applied = self.applied(done)
        assert ("Service", "llama-engine") in applied
        assert len(applied["NetworkPolicy", "llama-engine"]["spec"]["ingress"]) == 2

    @pytest.mark.parametrize(
        ("ours", "paused"),
        [pytest.param(False, False, id="somebody else's"), pytest.param(True, True, id="a paused set's")],
    )
    def test_are_left_alone(self, ours: bool, paused: bool) -> None:
        assert deleted(plan(self.seen(gpu_set(paused=paused), [], ours=ours), NOW)) == []

    @pytest.mark.holds(
        "groups.md",
        "Stages meet at their leader's name from a headless service; a set of single pods has none",
    )
    def test_are_there_before_the_pods_that_need_them(self) -> None:
        manifest = gpu_set(replicas=1, parallelism={"tensor": 4, "pipeline": 2})
        done = plan(self.seen(manifest, [], ours=False), NOW)
        created = [write for write in done.writes if isinstance(write, Create)]
        needs = [write.needs for write in created if write.manifest["kind"] == "Pod"]
        assert len(needs) == 2
        assert all(SERVICES.ref("default", "llama-engine") in each for each in needs)
        assert shown(done, "RouterReady") == ("False", Reason.NAME_TAKEN)


class TestHeldSets:
    def test_a_paused_set_is_looked_at_and_not_touched(self) -> None:
        manifest = gpu_set(paused=True)
        pods = [member(manifest, "llama-x", node="a", phase="Failed")]
        done = plan(observed(manifest, pods), NOW)
        assert list(done.writes) == []
        assert shown(done, "Progressing") == ("False", Reason.PAUSED)
        assert shown(done, "Placed") == ("False", Reason.PAUSED)


class TestTheRouter:
    def test_starting_holds_ready_back(self) -> None:
        manifest = gpu_set(replicas=1)
        pods = [member(manifest, "llama-x", node="a", ready=True)]
        done = plan(observed(manifest, pods, router_ready=False), NOW)
        assert shown(done, "RouterReady") == ("False", Reason.ROUTER_STARTING)
        assert condition(done, "Ready")["status"] == "False"

    @pytest.mark.holds("router.md", "`RouterReady` says in the kubelet's words why no router pod is ready")
    @pytest.mark.parametrize(
        ("router_ready", "shown_as"),
        [
            pytest.param(False, ("False", TroubleReason.IMAGE_PULL_FAILED), id="nobody can call"),
            pytest.param(True, ("True", Reason.ROUTER_AVAILABLE), id="another router serves"),
        ],
    )
    def test_that_does_not_get_on_is_told_of_in_the_kubelets_words(
        self, router_ready: bool, shown_as: tuple[str, Reason]
    ) -> None:
        manifest = gpu_set(replicas=1)
        seen = observed(
            manifest, [member(manifest, "llama-x", node="a", ready=True)], router_ready=router_ready
        )
        trouble = Trouble(
            reason=TroubleReason.IMAGE_PULL_FAILED, message="llama-router-a: container haproxy: x"
        )
        done = plan(replace(seen, router_trouble=trouble), NOW)
        assert shown(done, "RouterReady") == shown_as
        assert condition(done, "RouterReady")["message"].endswith("; llama-router-a: container haproxy: x")
        assert condition(done, "Stalled")["status"] == str(not router_ready)


class TestASettledSet:
    def settled(self) -> Observed:
        manifest = gpu_set()
        pods = [member(manifest, f"llama-{i}", pin="a", node="a", ready=True, server_id=i) for i in (1, 2)]
        first = plan(observed(manifest, pods), NOW)
        return observed({**manifest, "status": first.status}, pods)

    def test_is_ready_and_shows_it(self) -> None:
        done = plan(self.settled(), NOW)
        assert condition(done, "Ready")["status"] == "True"
        assert shown(done, "Progressing") == ("False", Reason.SETTLED)
        assert shown(done, "Placed") == ("True", Reason.ALL_PLACED)
        assert shown(done, "RouterReady") == ("True", Reason.ROUTER_AVAILABLE)
        assert shown(done, "Available") == ("True", Reason.REPLICAS_AVAILABLE)
        assert done.status is not None
        assert done.status["ready"] == "2/2"
        assert done.status["selector"].startswith("app.kubernetes.io/component=engine,")
        assert done.status["groupCounts"] == {
            "waiting": 0,
            "gated": 0,
            "binding": 0,
            "loading": 0,
            "ready": 2,
            "draining": 0,
        }

    def test_is_looked_at_again_when_its_secret_may_have_changed_and_not_for_its_load(self) -> None:
        loaded = replace(self.settled(), load=RouterLoad(waiting=7, running=2))
        done = plan(loaded, NOW)
        assert done.look_again_seconds == 75
        assert done.status is not None
        assert done.status["load"] == {"waiting": 7, "running": 2, "sessions": 0}

    def test_tells_when_a_group_became_ready(self) -> None:
        manifest = gpu_set(replicas=1)
        loading = member(manifest, "llama-1", pin="a", node="a")
        before = plan(observed(manifest, [loading]), NOW)
        ready = member(manifest, "llama-1", pin="a", node="a", ready=True)
        after = plan(observed({**manifest, "status": before.status}, [ready]), NOW)
        assert EventReason.GROUP_READY in reasons(after)
        assert after.status is not None
        assert after.status["groups"][0]["phase"] == "Ready"

    def test_shows_at_most_fifty_groups_those_not_ready_first(self) -> None:
        manifest = model_replica_set(replicas=60)
        pods = [member(manifest, f"llama-{i:02}", node="a", ready=i != 59) for i in range(60)]
        done = plan(observed(manifest, pods), NOW)
        assert done.status is not None
        assert len(done.status["groups"]) == 50
        assert done.status["groups"][0]["name"] == "llama-59"


HELD = RouterLoad(waiting=1, running=0, idle_seconds=5.0)
NEVER_READY = RouterLoad(waiting=0, running=0, idle_seconds=10_000.0)


class TestASetThatMayGoToZero:
    manifest = model_replica_set(
        replicas=3, autoscaling={"minReplicas": 0, "maxReplicas": 2, "scaleToZeroAfterSeconds": 60}
    )

    def planned(self, load: RouterLoad, manifest: dict[str, Any] | None = None) -> Plan:
        return plan(observed(manifest or self.manifest, load=load), NOW)

    @pytest.mark.holds("router.md", "`spec.replicas` is then ignored, and `ScalingActive` says so")
    def test_has_no_pods_at_zero_whatever_spec_replicas_says(self) -> None:
        done = self.planned(RouterLoad(waiting=0, running=0, idle_seconds=5.0))
        assert created(done) == []
        assert shown(done, "Available") == ("True", Reason.SCALED_TO_ZERO)
        assert "the next request starts a replica" in condition(done, "Available")["message"]
        assert shown(done, "ScalingActive") == ("True", Reason.REPLICAS_IGNORED)
        assert shown(done, "Ready")[0] == "True"
        assert done.look_again_seconds == 75

    @pytest.mark.holds("router.md", "`spec.replicas` is then ignored, and `ScalingActive` says so")
    def test_is_woken_by_a_held_request_and_says_so(self) -> None:
        done = self.planned(HELD)
        assert len(created(done)) == 1
        assert done.status is not None
        assert done.status["desiredReplicas"] == 1
        (said,) = done.status["autoscaling"]["lastDecisions"]
        assert (said["from"], said["to"]) == (0, 1)
        assert said["reason"] == "Held: the routers have 1 request"

    @pytest.mark.holds("router.md", "`status.autoscaling` has the last decisions")
    def test_keeps_the_last_five_decisions(self) -> None:
        manifest = self.manifest
        for number in range(7):
            done = self.planned(NEVER_READY if number % 2 else HELD, manifest)
            manifest = {**manifest, "status": done.status}
        assert [entry["to"] for entry in manifest["status"]["autoscaling"]["lastDecisions"]] == [
            1,
            0,
            1,
            0,
            1,
        ]

    @pytest.mark.holds("router.md", "While a router does not answer, nothing goes to zero")
    def test_says_when_nothing_is_known(self) -> None:
        done = self.planned(RouterLoad())
        assert shown(done, "ScalingActive") == ("False", Reason.NO_FIGURES)
        assert condition(done, "ScalingActive")["message"] == (
            "not every router reports its requests, so spec.autoscaling keeps the number of replicas at 0; "
            "spec.replicas is ignored"
        )
        assert shown(done, "Ready")[0] == "True"

    def test_a_set_with_a_number_of_its_own_has_no_such_condition(self) -> None:
        done = plan(observed(gpu_set()), NOW)
        assert done.status is not None
        assert "ScalingActive" not in {entry["type"] for entry in done.status["conditions"]}
        assert done.status["autoscaling"] is None


def key_made(done: Plan) -> bytes:
    first = done.writes[0]
    assert isinstance(first, Create)
    return base64.b64decode(first.manifest["data"]["key"])


class TestTheEnginesKey:
    def test_is_written_before_what_is_started_with_it(self) -> None:
        seen = replace(observed(model_replica_set()), engine_key=EngineKey(missing=True))
        done = plan(seen, NOW)
        first = done.writes[0]
        assert isinstance(first, Create)
        assert first.manifest["metadata"]["name"] == "llama-engine-key"
        need_it = {
            write.manifest["kind"]
            for write in done.writes
            if isinstance(write, Apply | Create) and SECRETS.ref_to(first.manifest) in write.needs
        }
        assert need_it == {"Deployment", "Pod"}
        assert EventReason.ENGINE_KEY_LOST not in reasons(done)
        keys = {key_made(done) for done in (plan(seen, NOW), plan(seen, NOW))}
        assert all(len(key) > 40 for key in keys)
        assert len(keys) == 2, "each is drawn anew"

    @pytest.mark.holds(
        "router.md",
        "A deleted key is made anew with the event `EngineKeyLost`, and replicas and routers are replaced",
    )
    def test_that_was_lost_replaces_engines_and_routers(self) -> None:
        manifest = gpu_set(replicas=1)
        before = observed(manifest, [member(manifest, "llama-1", pin="a", node="a", ready=True)])
        key = EngineKey(missing=True, made_anew="2026-05-01T12:00:00Z", lost=True)
        marked = Marks(key_made_anew=key.made_anew)
        newest = form_of(before.facts.owner, before.facts.newest.spec, marked, IMAGES)
        facts = replace(before.facts, key_made_anew=key.made_anew, newest=newest)
        done = plan(replace(before, facts=facts, engine_key=key), NOW)
        assert EventReason.ENGINE_KEY_LOST in reasons(done)
        assert shown(done, "Progressing") == ("True", Reason.UPDATING)
        (deployment,) = (
            write.manifest
            for write in done.writes
            if isinstance(write, Apply) and write.manifest["kind"] == "Deployment"
        )
        made = deployment["spec"]["template"]["metadata"]["annotations"]["flotilla.dev/engine-key-made"]
        assert made == key.made_anew
