"""Values read from the caches: priorities, rivals, loads, and the two memories. What the spec names:
test_references.
"""

import itertools
from datetime import timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from flotilla_operator.cluster.caches import Caches
from flotilla_operator.cluster.writes import Create
from flotilla_operator.controllers.config import OperatorConfig, parse_config
from flotilla_operator.controllers.controller import World
from flotilla_operator.controllers.model_replica_set.controller import ModelReplicaSetController
from flotilla_operator.controllers.model_replica_set.observe.memory import PROMISED_FOR, Memory, PerVersion
from flotilla_operator.controllers.model_replica_set.observe.observe import observe, router_targets
from flotilla_operator.controllers.model_replica_set.observe.priority import priority_of
from flotilla_operator.controllers.model_replica_set.seen import Observed
from flotilla_operator.controllers.reconciler import RECONCILE_TIMEOUT_SECONDS
from flotilla_operator.objects.owners import Owner
from flotilla_operator.objects.resources import MODEL_REPLICA_SETS, NODES, PODS, SERVICES, Key
from flotilla_operator.placement import Policy
from flotilla_operator.placement.manifests import pinned_node
from flotilla_operator.replicas.demand import judged_groups
from flotilla_operator.replicas.facts import FailedPin
from flotilla_operator.replicas.intent import in_force
from flotilla_operator.replicas.trouble import TroubleReason
from flotilla_operator.telemetry.measurements import Measurement, Measurements
from flotilla_operator.workloads.router import routers
from flotilla_runtime import contract
from tests.builders.model_replica_set import gpu_set, model_replica_set, said, spec_of
from tests.builders.pods import NOW, container_status, engine_pod, terminated, time_text, waiting
from tests.builders.world import CONFIG, Entries, Secrets
from tests.builders.world import world as any_world
from tests.support.planned import Plan, plan_by
from tests.support.planned import plan_of_set as plan


def world(
    *manifests: dict[str, Any],
    measurements: Measurements | None = None,
    config: OperatorConfig = CONFIG,
    **secrets: Entries,
) -> World:
    """One whose secrets the set made itself."""
    held = Secrets(secrets, controller_uid="uid-llama")
    return any_world(*manifests, secrets=held, measurements=measurements, config=config)


async def seen(manifest: dict[str, Any], around: World, memory: Memory | None = None) -> Observed:
    return await observe(manifest, around, memory or Memory(), NOW)


def node(name: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "uid": f"uid-{name}",
            "resourceVersion": "1",
            "labels": {"nvidia.com/gpu.product": "H100"},
        },
        "status": {
            "allocatable": {"nvidia.com/gpu": "8", "cpu": "64", "memory": "512Gi", "pods": "110"},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }


@pytest.mark.holds("placement.md", "The topology levels and the interconnect are configuration of the chart")
async def test_the_operators_configuration_is_what_placement_goes_by() -> None:
    labels = {"topologyLevels": ["row", "kubernetes.io/hostname"], "interconnect": "", "gpuProducts": ["x"]}
    placement = {"agingSeconds": 1200, "bindTimeoutSeconds": 45}
    images = CONFIG.images.model_dump(by_alias=True)
    told = parse_config({"images": images, "labels": labels, "placement": placement})
    manifest = gpu_set(replicas=1)
    pod = engine_pod(pin="a", age=44, owner_uid=manifest["metadata"]["uid"])
    around = world(manifest, node("a"), pod, config=told)
    observed = await seen(manifest, around)
    assert observed.around.policy == Policy(
        product_labels=("x",),
        aging_seconds=1200,
        topology_levels=("row", "kubernetes.io/hostname"),
        interconnect_label=None,
    )
    assert plan(observed, NOW).look_again_seconds == 1
    (group,) = judged_groups(in_force(observed.facts), observed.around, NOW + timedelta(seconds=1))
    assert group.ending is not None
    assert "not bound to a within 45 s" in group.ending.message


def priority_class(name: str, value: int, *, default: bool = False) -> dict[str, Any]:
    return {
        "apiVersion": "scheduling.k8s.io/v1",
        "kind": "PriorityClass",
        "metadata": {"name": name, "uid": name},
        "value": value,
        "globalDefault": default,
    }


@pytest.mark.parametrize(
    ("named", "priority"),
    [
        pytest.param("serving", 100, id="the class it names"),
        pytest.param(None, 5, id="else the cluster's default"),
        pytest.param("absent", 0, id="a class that is not there is no other's"),
    ],
)
def test_priority(named: str | None, priority: int) -> None:
    classes = [priority_class("serving", 100), priority_class("usual", 5, default=True)]
    spec = spec_of(placement={"priorityClassName": named} if named else {})
    assert priority_of(spec, classes) == priority


class TestRivals:
    def rival(self, **fields: Any) -> dict[str, Any]:
        manifest = gpu_set(**fields.pop("spec", {}))
        metadata = {**manifest["metadata"], "name": "other", "uid": "uid-other"}
        return {**manifest, "metadata": metadata, **fields}

    @pytest.mark.holds("placement.md", "Room for a move is kept from other sets")
    async def test_the_room_that_a_move_of_theirs_needs_is_taken_until_its_replica_is_there(self) -> None:
        told = {"asked": "apply", "phase": "Moving"}
        move = {"group": "x", "fromNodes": ["a"], "toNodes": ["b"], "phase": "Moving"}
        other = self.rival(status={"placement": {"rebalance": told, "moves": [move]}})
        other["metadata"]["annotations"] = {"flotilla.dev/rebalance": "apply"}
        gpus = {"nvidia.com/gpu": "4"}
        pods = [engine_pod(name, node="a", owner_uid="uid-other", requests=gpus) for name in ("x", "y", "z")]
        for here, reserved in ((pods[:2], ["b"]), (pods, [])):
            claims = (await seen(gpu_set(), world(other, *here))).around.snapshot.claims
            assert [claim.node for claim in claims if claim.node != "a"] == reserved
            assert {claim.requests["nvidia.com/gpu"] for claim in claims} == {4}

    async def found(self, rival: dict[str, Any]) -> int:
        me = gpu_set()
        return len((await seen(me, world(me, rival))).asks.others)

    async def test_a_set_that_was_never_looked_at_may_want_something(self) -> None:
        assert await self.found(self.rival()) == 1

    async def test_a_set_that_waits_does(self) -> None:
        status = {"observedGeneration": 1, "groupCounts": {"waiting": 1}}
        assert await self.found(self.rival(status=status)) == 1

    async def test_a_set_that_lacks_pods_does(self) -> None:
        assert await self.found(self.rival(status={"observedGeneration": 1})) == 1

    @pytest.mark.holds(
        "capacity.md",
        "A prefix that cannot be counted with gives `SharedPrefixIgnored`, and the set is Ready all the same",
    )
    async def test_a_set_whose_shared_prefix_is_ignored_gets_its_replicas_all_the_same(self) -> None:
        ignored = [said("SpecValid", "SharedPrefixIgnored")]
        status = {"observedGeneration": 1, "groupCounts": {"waiting": 2}, "conditions": ignored}
        assert await self.found(self.rival(status=status)) == 1

    @pytest.mark.parametrize(
        "fields",
        [
            pytest.param({"spec": {"paused": True}}, id="paused"),
            pytest.param({"spec": {"replicas": 0}, "status": {"observedGeneration": 1}}, id="settled"),
            pytest.param(
                {
                    "status": {
                        "observedGeneration": 1,
                        "groupCounts": {"waiting": 2},
                        "conditions": [said("SpecValid", "SecretMissing")],
                    }
                },
                id="held back by what is missing",
            ),
        ],
    )
    async def test_these_do_not(self, fields: dict[str, Any]) -> None:
        assert await self.found(self.rival(**fields)) == 0

    @pytest.mark.holds("placement.md", "A set whose pods are refused backs off, and others get its room")
    @pytest.mark.parametrize(
        ("reason", "failed", "generation", "waits"),
        [
            pytest.param("Forbidden", None, 1, False, id="its pods were refused just now"),
            pytest.param("BackingOff", "Forbidden", 1, False, id="it backs off since they were"),
            pytest.param("Conflict", None, 1, True, id="somebody else wrote meanwhile"),
            pytest.param("BackingOff", "GroupFailed", 1, True, id="it backs off since a group failed"),
            pytest.param("InsufficientCapacity", "Forbidden", 1, True, id="it waits for room again"),
            pytest.param("Forbidden", None, 2, True, id="its spec was changed since"),
        ],
    )
    async def test_one_whose_pods_are_refused(
        self, reason: str, failed: str | None, generation: int, waits: bool
    ) -> None:
        held = {"failures": 3, "failedTime": time_text(60), "untilTime": time_text(40), "reason": failed}
        rival = self.rival(
            status={
                "observedGeneration": 1,
                "groupCounts": {"waiting": 1},
                "conditions": [said("Placed", reason)],
                "backoff": held if failed else None,
            }
        )
        rival["metadata"]["generation"] = generation
        assert await self.found(rival) == waits

    async def test_a_broken_one_does_not(self) -> None:
        rival = self.rival()
        rival["spec"] = {**rival["spec"], "replicas": "many"}
        assert await self.found(rival) == 0


class TestLoad:
    def router_pod(self, name: str, ip: str | None) -> dict[str, Any]:
        part = routers(Owner(kind="ModelReplicaSet", namespace="default", name="llama", uid="uid-llama"))
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": "default", "uid": name, "labels": part.labels},
            "spec": {"containers": []},
            "status": {"podIP": ip} if ip else {},
        }

    def status(self, waiting: int, **in_flight: int) -> dict[str, Any]:
        servers = tuple(
            contract.RouterServer(
                name=name,
                id=index,
                address="a",
                state=contract.ServerState.READY,
                in_flight=count,
                queued=0,
                sessions=count,
            )
            for index, (name, count) in enumerate(in_flight.items(), start=1)
        )
        return contract.RouterStatus(
            name="llama",
            synced=True,
            draining=False,
            live_routers=2,
            waiting=waiting,
            in_flight=sum(in_flight.values()),
            max_connections_per_replica=9,
            queue_limit=9,
            servers=servers,
            refused={},
            unusable={},
        ).model_dump(mode="json", by_alias=True)

    @pytest.mark.holds(
        "router.md", "`status.load` sums what routers say, and is told anew when it changed enough"
    )
    async def test_is_the_sum_over_the_routers_that_answer(self) -> None:
        measurements = Measurements()
        measurements.record("r1", Measurement(at=NOW, document=self.status(2, x=1, y=3)))
        measurements.record("r2", Measurement(at=NOW, document=self.status(1, x=4)))
        pods = [self.router_pod(f"r{i}", f"10.0.0.{i}") for i in (1, 2, 3)]
        found = (await seen(model_replica_set(), world(*pods, measurements=measurements))).load
        assert (found.waiting, found.running) == (3, 8)
        assert found.by_group == {"x": 5, "y": 3}
        assert found.sessions == {"x": 5, "y": 3}

    async def test_is_unknown_when_none_answers(self) -> None:
        found = (await seen(model_replica_set(), world(self.router_pod("r1", "10.0.0.1")))).load
        assert (found.waiting, found.running) == (None, None)

    async def test_an_answer_that_cannot_be_read_is_unknown_and_said_once(self) -> None:
        measurements = Measurements()
        measurements.record("r1", Measurement(at=NOW, document={"waiting": "many"}))
        measurements.record("r2", Measurement(at=NOW, document=self.status(1, x=4)))
        around = world(*(self.router_pod(f"r{i}", f"10.0.0.{i}") for i in (1, 2)), measurements=measurements)
        with capture_logs() as logs:
            found = [(await seen(model_replica_set(), around)).load for _ in range(3)]
            assert [load.waiting for load in found] == [1, 1, 1]
            assert [(entry["event"], entry["url"]) for entry in logs] == [
                ("answer_unreadable", "http://10.0.0.1:8405/v1/status")
            ]
            measurements.record("r1", Measurement(at=NOW, document=self.status(2)))
            assert (await seen(model_replica_set(), around)).load.waiting == 3
            measurements.record("r1", Measurement(at=NOW, document=["something", "else"]))
            assert (await seen(model_replica_set(), around)).load.waiting == 1
        assert len(logs) == 2

    async def test_only_routers_with_an_address_are_asked(self) -> None:
        pods = [self.router_pod("r1", "fd00::1"), self.router_pod("r2", None)]
        targets = (await seen(model_replica_set(), world(*pods))).targets
        assert [target.url for target in targets] == ["http://[fd00::1]:8405/v1/status"]
        assert targets == router_targets(pods[:1])

    def test_routers_are_asked_every_five_seconds_and_more_often_on_request(self) -> None:
        pods = [self.router_pod("r1", "10.0.0.1")]
        (usual,), (often,) = router_targets(pods), router_targets(pods, often=True)
        assert (usual.interval_seconds, often.interval_seconds) == (5.0, 1.0)

    async def test_a_router_that_does_not_get_on_is_seen_and_one_that_is_over_is_not(self) -> None:
        over, stuck = self.router_pod("r1", "10.0.0.1"), self.router_pod("r2", None)
        ended = container_status("haproxy", state=terminated(137, reason="OOMKilled"))
        over["status"] |= {"phase": "Failed", "containerStatuses": [ended]}
        stuck["spec"]["nodeName"] = "a"
        stuck["status"]["containerStatuses"] = [
            container_status("haproxy", **waiting("ErrImagePull", "none"))
        ]
        assert (await seen(model_replica_set(), world(over))).router_trouble is None
        found = (await seen(model_replica_set(), world(over, stuck))).router_trouble
        assert found is not None
        assert (found.reason, found.message) == (
            TroubleReason.IMAGE_PULL_FAILED,
            "r2: container haproxy: none",
        )


class TestMemory:
    def test_an_object_is_read_once_a_version(self) -> None:
        counter = itertools.count(1)
        remembered = PerVersion(lambda _manifest: next(counter))
        one = {"metadata": {"uid": "a", "resourceVersion": "1"}}
        changed = {"metadata": {"uid": "a", "resourceVersion": "2"}}
        assert list(remembered.of([one])) == [1]
        assert list(remembered.of([one])) == [1]
        assert list(remembered.of([changed])) == [2]
        assert list(remembered.of([])) == []
        assert list(remembered.of([changed])) == [3]

    def test_the_topology_is_one_value_until_a_node_changes(self) -> None:
        memory = Memory()
        before = memory.topology_of([node("b"), node("a")])
        assert memory.topology_of([node("a"), node("b")]) is before
        newer = {**node("a")["metadata"], "resourceVersion": "2"}
        cordoned = {**node("a"), "metadata": newer, "spec": {"unschedulable": True}}
        after = memory.topology_of([cordoned, node("b")])
        assert [seen.cordoned for seen in after.nodes] == [True, False]

    async def test_a_pod_and_a_spec_are_read_once_until_they_change(self) -> None:
        memory, me, pod = Memory(), gpu_set(replicas=1), engine_pod("llama-x", node="a")
        before = (await observe(me, world(me, pod), memory, NOW)).facts
        again = (await observe(me, world(me, pod), memory, NOW)).facts
        assert again.groups[0].members[0] is before.groups[0].members[0]
        assert again.newest is before.newest
        changed = {"resourceVersion": "2", "deletionTimestamp": "2026-05-01T12:00:00Z"}
        drains = {**pod, "metadata": {**pod["metadata"], **changed}}
        after = (await observe(me, world(me, drains), memory, NOW)).facts
        assert [group.going for group in (*before.groups, *after.groups)] == [False, True]

    async def test_a_failed_pin_is_remembered_for_five_minutes(self) -> None:
        me = gpu_set(replicas=1)
        late = engine_pod("llama-x", pin="a", age=31)
        late["spec"]["containers"][0]["resources"] = {"limits": {"nvidia.com/gpu": "4"}}
        controller, key = ModelReplicaSetController(), Key("", "", "")
        memory = controller.memory

        async def pins(manifest: dict[str, Any], *others: dict[str, Any], later: int = 0) -> Any:
            now = NOW + timedelta(seconds=later)
            plan_by(controller, await controller.observe(key, manifest, world(*others), now), now)
            return memory.failed_pins.get(manifest["metadata"]["uid"], ())

        (pin,) = await pins(me, me, node("a"), late)
        assert (pin.node, pin.free) == ("a", 8), "what it has free once the failed pod is gone"
        assert await pins(me, me, node("a"), later=299) == (pin,)
        other = {**me, "metadata": {**me["metadata"], "name": "other", "uid": "uid-other"}}
        await pins(other, me, other)
        assert memory.failed_pins.keys() == {"uid-llama"}
        await pins(other, other)
        assert memory.failed_pins == {}, "the set is gone"
        memory.failed_pins["uid-llama"] = (pin,)
        assert await pins(me, me, node("a"), later=301) == ()
        assert memory.failed_pins == {}


class TestPromises:
    """A node is promised in the plan and held while the pod is being created."""

    def other(self) -> dict[str, Any]:
        manifest = gpu_set()
        return {**manifest, "metadata": {**manifest["metadata"], "name": "other", "uid": "uid-other"}}

    async def test_hold_the_room_of_pods_that_nobody_has_seen_yet(self) -> None:
        controller = ModelReplicaSetController()
        around = world(gpu_set(), self.other(), node("a"), node("b"))
        mine, theirs = Key("", "", ""), Key("", "", "")
        first = plan_by(controller, await controller.observe(mine, gpu_set(), around, NOW), NOW)
        second = plan_by(controller, await controller.observe(theirs, self.other(), around, NOW), NOW)
        assert [pinned_node(pod["spec"]) for pod in created(first)] == ["a", "a"]
        assert [pinned_node(pod["spec"]) for pod in created(second)] == ["b", "b"]

    async def test_are_kept_until_the_pod_is_seen_or_as_long_as_a_reconcile_may_take(self) -> None:
        memory, around = Memory(), world(gpu_set(), node("a"))
        done = plan(await observe(gpu_set(), around, memory, NOW), NOW)
        owner = Owner(kind="ModelReplicaSet", namespace="default", name="llama", uid="uid-llama")
        memory.note_promises(owner, done.writes, NOW)
        assert len(memory.open_promises("uid-other", around.caches, NOW)["uid-llama"]) == 2
        seen_pod = {**created(done)[0]}
        seen_pod["metadata"] = {**seen_pod["metadata"], "uid": "p", "resourceVersion": "1"}
        around.caches.store(PODS).put(seen_pod)
        assert len(memory.open_promises("uid-other", around.caches, NOW)["uid-llama"]) == 1
        assert PROMISED_FOR.total_seconds() >= RECONCILE_TIMEOUT_SECONDS
        assert memory.open_promises("uid-other", around.caches, NOW + PROMISED_FOR) == {}

    async def test_end_when_the_pods_are_made_or_refused(self) -> None:
        controller = ModelReplicaSetController()
        around = world(gpu_set(), self.other(), node("a"))
        key = Key("", "", "")
        plan_by(controller, await controller.observe(key, gpu_set(), around, NOW), NOW)
        assert (await controller.observe(key, self.other(), around, NOW)).around.snapshot.claims != ()
        controller.carried_out(gpu_set())
        assert (await controller.observe(key, self.other(), around, NOW)).around.snapshot.claims == ()

    async def test_are_settled_when_their_own_set_is_planned_again(self) -> None:
        controller = ModelReplicaSetController()
        around = world(gpu_set(), node("a"))
        key = Key("", "", "")
        first = plan_by(controller, await controller.observe(key, gpu_set(), around, NOW), NOW)
        again = {**gpu_set(), "status": first.status}
        second = plan_by(controller, await controller.observe(key, again, around, NOW), NOW)
        names = [pod["metadata"]["name"] for pod in created(first)]
        assert len(names) == 2
        assert [pod["metadata"]["name"] for pod in created(second)] == names


def created(done: Plan) -> list[dict[str, Any]]:
    """The pods; the engines' key is a test of its own."""
    made = [write.manifest for write in done.writes if isinstance(write, Create)]
    return [manifest for manifest in made if manifest["kind"] == "Pod"]


class TestWakes:
    def waiting_set(self) -> dict[str, Any]:
        return {**gpu_set(), "status": {"groupCounts": {"waiting": 1}}}

    def woken(self, resource: Any, manifest: dict[str, Any], *cached: dict[str, Any]) -> list[Key]:
        controller = ModelReplicaSetController()
        return list(controller.wakes(resource, manifest, Caches.of(*cached)))

    def test_a_node_wakes_the_sets_that_wait(self) -> None:
        key = Key("ModelReplicaSet", "default", "llama")
        assert self.woken(NODES, node("a"), node("a"), self.waiting_set()) == [key]
        assert self.woken(NODES, node("a"), node("a"), gpu_set()) == []
        drains = {**gpu_set(), "status": {"groupCounts": {"draining": 1}}}
        assert self.woken(NODES, node("a"), node("a"), drains) == [key]
        reason = {"type": "Progressing", "reason": "EmptyingNodes"}
        moves = {**gpu_set(), "status": {"conditions": [reason]}}
        assert self.woken(NODES, node("a"), node("a"), moves) == [key]

    async def test_a_heartbeat_of_a_node_that_a_plan_has_seen_wakes_nobody(self) -> None:
        controller, waits = ModelReplicaSetController(), self.waiting_set()
        await controller.observe(
            Key("ModelReplicaSet", "default", "llama"), waits, world(waits, node("a")), NOW
        )
        beat = {**node("a"), "metadata": {**node("a")["metadata"], "resourceVersion": "2"}}
        cordoned = {**beat, "spec": {"unschedulable": True}}
        assert list(controller.wakes(NODES, beat, Caches.of(beat, waits))) == []
        assert len(list(controller.wakes(NODES, cordoned, Caches.of(cordoned, waits)))) == 1
        assert len(list(controller.wakes(NODES, beat, Caches.of(waits)))) == 1, "it is gone"

    def test_a_pod_wakes_them_when_it_gives_room_back(self) -> None:
        running, over = engine_pod(node="a", ready=True), engine_pod(node="a", phase="Failed")
        assert self.woken(PODS, running, running, self.waiting_set()) == []
        assert len(self.woken(PODS, over, over, self.waiting_set())) == 1
        leaving = engine_pod(node="a", deleting=True)
        assert len(self.woken(PODS, leaving, leaving, self.waiting_set())) == 1

    def test_a_pod_that_is_gone_without_a_last_change_wakes_them(self) -> None:
        """Its deletion came while the watch was cut, and a new list lacks it, or has another of its name."""
        running = engine_pod(node="a", ready=True)
        other = {**running, "metadata": {**running["metadata"], "uid": "uid-of-another"}}
        assert len(self.woken(PODS, running, self.waiting_set())) == 1
        assert len(self.woken(PODS, running, other, self.waiting_set())) == 1

    def test_a_set_wakes_them_when_its_pods_are_refused(self) -> None:
        for reason, woken in (("Forbidden", 1), ("BackingOff", 0), ("InsufficientCapacity", 0)):
            status = {"observedGeneration": 1, "conditions": [said("Placed", reason)]}
            refused = model_replica_set("other", status=status)
            assert len(self.woken(MODEL_REPLICA_SETS, refused, self.waiting_set(), refused)) == woken
        for counted, woken in ((False, 1), (True, 0)):
            status = {"observedGeneration": 1, "refusedPods": {"reason": "Forbidden", "counted": counted}}
            refused = model_replica_set("other", status=status)
            assert len(self.woken(MODEL_REPLICA_SETS, refused, self.waiting_set(), refused)) == woken

    async def test_of_the_sets_that_only_wait_three_make_the_round_for_all(self) -> None:
        sets = [
            {**self.waiting_set(), "metadata": {**gpu_set()["metadata"], "name": name, "uid": f"uid-{name}"}}
            for name in ("a", "b", "c", "d", "e")
        ]
        controller, around = ModelReplicaSetController(), world(*sets)
        for one in sets[:4]:
            facts = await controller.observe(Key("", "", ""), one, around, NOW)
            controller.act(facts, controller.decide(facts, NOW), NOW)
        over = engine_pod(node="a", phase="Failed")

        def woken() -> set[str]:
            return {key.name for key in controller.wakes(PODS, over, around.caches)}

        first = woken()
        assert len(first) == 3, "of five: what the fifth asks for is known, too"
        one, other = (each for each in sets if each["metadata"]["name"] not in first)
        metadata = {**one["metadata"], "resourceVersion": "9"}
        counts = {"groupCounts": {"waiting": 1, "draining": 1}}
        drains = {**one, "metadata": metadata, "status": counts}
        around.caches.store(MODEL_REPLICA_SETS).put(drains)
        assert woken() == first | {one["metadata"]["name"]}
        pin = FailedPin(node="a", free=0, at=NOW)
        controller.memory.failed_pins[other["metadata"]["uid"]] = (pin,)
        assert len(woken()) == 5

    def test_a_node_that_is_gone_wakes_the_sets_that_stood_on_it(self) -> None:
        pod = engine_pod(node="a", ready=True)
        pod["metadata"]["labels"] |= {
            contract.LABEL_OWNER_KIND: "ModelReplicaSet",
            contract.LABEL_OWNER_NAME: "llama",
            contract.LABEL_STAGE: "0",
        }
        assert self.woken(NODES, node("a"), pod) == [Key("ModelReplicaSet", "default", "llama")]
        assert self.woken(NODES, node("a"), node("a"), pod) == []
        cordoned = {**node("a"), "spec": {"unschedulable": True}}
        assert len(self.woken(NODES, cordoned, cordoned, pod)) == 1
        tainted = {**node("a"), "spec": {"taints": [{"key": "x", "effect": "NoExecute"}]}}
        assert len(self.woken(NODES, tainted, tainted, pod)) == 1

    def test_what_a_set_names_is_referred_to(self) -> None:
        manifest = model_replica_set(model={"source": "pvc://models/x"})
        references = {
            (reference.resource, reference.name)
            for reference in ModelReplicaSetController().references(manifest)
        }
        assert (SERVICES, "llama-model") in references
        assert any(name == "models" for _, name in references)
        assert list(ModelReplicaSetController().references({"metadata": {}, "spec": {}})) == []

    def test_its_kind(self) -> None:
        assert ModelReplicaSetController().resource == MODEL_REPLICA_SETS
