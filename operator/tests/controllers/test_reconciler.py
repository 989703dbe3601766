"""One reconcile in all its outcomes: the fake API behind the writer, a controller that does as it is told."""

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError
from structlog.testing import capture_logs

from flotilla_operator.cluster.caches import Caches
from flotilla_operator.cluster.client import ApiError
from flotilla_operator.cluster.events import Recorder
from flotilla_operator.cluster.lease import NotLeadingError
from flotilla_operator.cluster.ownership import Reconciled
from flotilla_operator.cluster.queue import KeyedQueue
from flotilla_operator.cluster.status import StatusLimiter
from flotilla_operator.cluster.writer import Writer
from flotilla_operator.cluster.writes import Acts, Apply, Create, Delete, Event, EventType, Told
from flotilla_operator.controllers.controller import World
from flotilla_operator.controllers.errors import SpecError
from flotilla_operator.controllers.failures import corrected
from flotilla_operator.controllers.reconciler import Hands, Reconciler
from flotilla_operator.controllers.secret_reader import CachedSecrets
from flotilla_operator.controllers.steering import FiguresOnly
from flotilla_operator.controllers.wakes import Wakes
from flotilla_operator.objects.refused_writes import RefusedWrite
from flotilla_operator.objects.resources import (
    CONFIG_MAPS,
    EVENTS,
    MODEL_REPLICA_SETS,
    NAMESPACES,
    PODS,
    SECRETS,
    Key,
    Manifest,
    Reference,
    Resource,
)
from flotilla_operator.telemetry.measurements import Measurements, Target
from flotilla_operator.telemetry.metrics import Metrics
from flotilla_operator.telemetry.scrape import Scraper
from flotilla_runtime import contract
from flotilla_runtime.contract import RouterStatus
from leaks.planted import in_secret, planted
from tests.builders.world import CONFIG, NoneIsGone, NothingDecided, steering_loop
from tests.cluster.test_queue import HandClock, longest
from tests.support.fake_api import FakeApi
from tests.support.planned import Plan

KEY = Key("ModelReplicaSet", "default", "m")
READY = {"type": "Ready", "status": "True", "reason": "Ready"}


class Planned:
    """A controller whose plan a test writes."""

    resource: Resource = MODEL_REPLICA_SETS
    watches: Sequence[Resource] = (CONFIG_MAPS,)

    def __init__(self) -> None:
        self.planned: Callable[[Manifest], Plan] = lambda _: Plan()
        self.targets: Sequence[Target] = ()
        self.done: list[str] = []

    def references(self, manifest: Manifest) -> Iterable[Reference]:
        return ()

    def wakes(self, resource: Resource, manifest: Manifest, caches: Caches) -> Iterable[Key]:
        return ()

    async def observe(self, key: Key, manifest: Manifest, world: World, now: datetime) -> Manifest:
        return manifest

    def decide(self, manifest: Manifest, now: datetime) -> Plan:
        return self.planned(manifest)

    def act(self, manifest: Manifest, plan: Plan, now: datetime) -> Acts:
        return plan.acts

    def tell(self, manifest: Manifest, plan: Plan, refusals: Sequence[RefusedWrite], now: datetime) -> Told:
        return corrected(plan.told, refusals, manifest, now, plan.rests_on)

    def steering(self, manifest: Manifest, plan: Plan) -> FiguresOnly:
        return FiguresOnly(uid=manifest["metadata"]["uid"], targets=self.targets, report=RouterStatus)

    def left_behind(self, key: Key, world: World) -> Sequence[Delete]:
        return ()

    def carried_out(self, manifest: Manifest) -> None:
        self.done.append(manifest["metadata"]["name"])

    def was_told(self, manifest: Manifest) -> None:
        """Nothing to remember."""


@dataclass
class Bench:
    api: FakeApi
    caches: Caches
    controller: Planned
    reconciler: Reconciler = field(init=False)
    clock: HandClock = field(default_factory=HandClock)
    queue: KeyedQueue = field(init=False)
    scraper: Scraper = field(init=False)
    metrics: Metrics = field(default_factory=Metrics)
    taken: bool = False

    def woken_by_itself(self, key: Key) -> None:
        if self.taken:
            self.queue.add_by_itself(key)

    async def take(self) -> None:
        """Take the key as a worker does; without this the queue hears nothing of the reconcile."""
        self.queue.add(KEY)
        assert await self.queue.take() == KEY
        self.taken = True

    async def reconcile(self, plan: Plan | Exception) -> None:
        def planned(_manifest: Manifest) -> Plan:
            if isinstance(plan, Exception):
                raise plan
            return plan

        self.controller.planned = planned
        await self.reconciler.attempt(KEY)

    def ready(self) -> tuple[str, str]:
        status = (self.caches.get(MODEL_REPLICA_SETS, "default", "m") or {}).get("status") or {}
        ready = next(c for c in status["conditions"] if c["type"] == "Ready")
        return ready["status"], ready["reason"]

    def condition(self, name: str) -> Any:
        status = (self.caches.get(MODEL_REPLICA_SETS, "default", "m") or {})["status"]
        return next((c["status"] for c in status["conditions"] if c["type"] == name), None)

    def message(self, name: str) -> str:
        status = (self.caches.get(MODEL_REPLICA_SETS, "default", "m") or {})["status"]
        return next(str(c["message"]) for c in status["conditions"] if c["type"] == name)

    def reasons(self) -> list[str]:
        return [event["reason"] for event in self.api.shelf(EVENTS).objects.values()]

    def planned_in(self) -> float | None:
        looks = [look.at for look in self.clock.planned if not look.cancelled]
        return min(looks, default=self.clock.now) - self.clock.now if looks else None


@asynccontextmanager
async def bench() -> AsyncIterator[Bench]:
    api, caches, controller = FakeApi(), Caches(), Planned()
    made = Bench(api, caches, controller)
    manifest = api.put(MODEL_REPLICA_SETS, {"metadata": {"name": "m", "namespace": "default"}, "spec": {}})
    caches.store(MODEL_REPLICA_SETS).put(manifest)
    made.queue = KeyedQueue(timer=made.clock, draw=longest)
    wakes = Wakes([controller], caches, lambda _key: None, made.woken_by_itself)
    async with api.running(), api.client() as client:
        made.scraper = Scraper(Measurements())
        steering = steering_loop(made.queue)
        made.reconciler = Reconciler(
            [controller],
            World(
                caches=caches,
                measurements=Measurements(),
                config=CONFIG,
                secrets=CachedSecrets(client),
                decisions=steering,
                absent_nodes=NoneIsGone(),
                steady=lambda: 0.0,
            ),
            Hands(
                queue=made.queue,
                writer=Writer(client, caches, StatusLimiter(), on_change=wakes.changed),
                recorder=Recorder(client, "test"),
                scraper=made.scraper,
                steering=steering,
                wakes=wakes,
                metrics=made.metrics,
            ),
        )
        yield made
        await made.scraper.close()


def config_map(name: str = "c") -> Manifest:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"}}


async def test_an_invalid_spec_becomes_a_condition_and_touches_nothing() -> None:
    async with bench() as b:
        await b.reconcile(SpecError(field="spec.model", problem="is not there", fix="name one"))
        assert b.ready() == ("False", "InvalidSpec")
        assert (b.condition("SpecValid"), b.condition("Stalled")) == ("False", "True")
        assert b.planned_in() == pytest.approx(600, abs=1)
        assert b.reasons() == ["InvalidSpec"]
        await b.reconcile(SpecError(field="spec.model", problem="is not there", fix="name one"))
        assert b.reasons() == ["InvalidSpec"]
        assert [request.path.rsplit("/", 1)[-1] for request in b.api.writes()] == [
            "status",
            "status",
            "events",
        ]


@pytest.mark.holds(
    "architecture.md", "In a namespace that is being deleted pods go without a drain and nothing is made"
)
async def test_in_a_namespace_that_is_being_deleted_pods_go_without_a_drain_and_nothing_is_made() -> None:
    async with bench() as b:
        going = {
            "name": "default",
            "uid": "n",
            "resourceVersion": "1",
            "deletionTimestamp": "2026-05-01T12:00:00Z",
        }
        b.caches.store(NAMESPACES).put({"apiVersion": "v1", "kind": "Namespace", "metadata": going})
        labels = {"flotilla.dev/kind": "ModelReplicaSet", "flotilla.dev/owner": "m"}
        pod = b.api.put(
            PODS, {"metadata": {"name": "m-0", "namespace": "default", "labels": labels}, "spec": {}}
        )
        b.caches.store(PODS).put(pod)
        await b.reconcile(Plan(writes=[Create(manifest=config_map())], status={}))
        (request,) = [request for request in b.api.writes() if "status" not in request.path]
        assert (request.method, request.path.rsplit("/", 1)[-1]) == ("DELETE", "m-0")
        assert request.body["gracePeriodSeconds"] == 1


async def test_what_pydantic_refuses_names_the_field() -> None:
    class ModelReplicaSet(BaseModel):
        replicas: int

    async with bench() as b:
        await b.reconcile(validation_error(ModelReplicaSet, {"replicas": "many"}))
        status = (b.caches.get(MODEL_REPLICA_SETS, "default", "m") or {})["status"]
        assert "replicas: " in next(c["message"] for c in status["conditions"] if c["type"] == "SpecValid")


async def test_what_pydantic_refuses_of_anything_else_is_a_failure_and_no_fault_of_the_spec() -> None:
    async with bench() as b:
        with capture_logs():
            await b.reconcile(validation_error(contract.RouterStatus, {"waiting": "many"}))
        assert b.reasons() == ["ReconcileFailed"]
        assert b.queue.failures(KEY) == 1
        assert b.ready() == ("Unknown", "Reconciling")
        assert b.condition("SpecValid") is None


def validation_error(model: type[BaseModel], content: Manifest) -> ValidationError:
    with pytest.raises(ValidationError) as raised:
        model.model_validate(content)
    return raised.value


async def test_a_name_that_is_taken_is_said_in_ready_and_waited_for() -> None:
    async with bench() as b:
        b.api.put(CONFIG_MAPS, config_map())
        await b.reconcile(Plan(writes=[Apply(manifest=config_map())], status={"conditions": []}))
        assert b.ready() == ("False", "NameTaken")
        assert b.condition("Stalled") == "True"
        assert b.reasons() == ["NameTaken"]
        assert b.queue.failures(KEY) == 0
        assert b.planned_in() == pytest.approx(600, abs=1)


async def test_a_taken_name_of_what_nobody_watches_is_looked_at_sooner() -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "default"}}
    async with bench() as b:
        b.api.put(SECRETS, secret)
        await b.reconcile(Plan(writes=[Create(manifest=secret)], status={"conditions": []}))
        assert b.ready() == ("False", "NameTaken")
        assert b.planned_in() == pytest.approx(30, abs=1)


async def test_a_secret_of_a_deleted_object_is_looked_at_again_however_often_it_was_in_the_way() -> None:
    metadata = {"name": "s", "namespace": "default"}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata}
    async with bench() as b:
        live = b.caches.get(MODEL_REPLICA_SETS, "default", "m") or {}
        reference = Reconciled(resource=MODEL_REPLICA_SETS, manifest=live).reference
        before = {**metadata, "ownerReferences": [{**reference, "uid": "before"}]}
        b.api.put(SECRETS, {**secret, "metadata": before})
        for _ in range(8):
            b.queue.retry(KEY)
        b.clock.advance(1000)
        b.queue.done(await b.queue.take())
        await b.reconcile(Plan(writes=[Create(manifest=secret)], status={"conditions": []}))
        assert b.queue.failures(KEY) == 9
        assert b.planned_in() == pytest.approx(30, abs=1)


async def test_a_quota_is_said_in_ready_and_tried_again() -> None:
    async with bench() as b:
        b.api.fail(lambda r: "configmaps" in r.path and r.writes, 403)
        await b.reconcile(Plan(writes=[Apply(manifest=config_map())], status={"conditions": []}))
        assert b.ready() == ("False", "Forbidden")
        assert b.condition("Reconciling") == "True"
        assert b.queue.failures(KEY) == 1
        assert b.controller.done == ["m"], "the controller hears that nothing more comes of its plan"
        await b.reconcile(
            Plan(
                writes=[Apply(manifest=config_map())],
                status={"conditions": [{"type": "Ready", "status": "True", "reason": "Ready"}]},
            )
        )
        assert b.ready() == ("True", "Ready")
        assert b.queue.failures(KEY) == 0


async def test_what_rests_on_a_refused_write_is_not_said() -> None:
    refused, done = PODS.ref("default", "refused"), PODS.ref("default", "done")
    plan = Plan(
        writes=[Create(manifest=pod("refused")), Create(manifest=pod("done"))],
        status={
            "conditions": [
                {"type": "Placed", "status": "True", "reason": "AllPlaced"},
                {"type": "RouterReady", "status": "True", "reason": "RouterAvailable"},
            ]
        },
        events=[
            Event(type=EventType.NORMAL, reason="GroupPlaced", note="refused goes to n", subject="g-1"),
            Event(type=EventType.NORMAL, reason="GroupPlaced", note="done goes to n", subject="g-2"),
            Event(type=EventType.NORMAL, reason="AllPlaced", note="", subject="Placed"),
        ],
        rests_on={
            "g-1": frozenset({refused}),
            "g-2": frozenset({done}),
            "Placed": frozenset({refused, done}),
        },
    )
    async with bench() as b:
        b.api.fail(
            lambda r: r.writes and (r.body or {}).get("metadata", {}).get("name") == "refused", 403, times=2
        )
        for _ in range(2):
            await b.reconcile(plan)
        assert b.condition("Placed") == "False"
        assert b.condition("RouterReady") == "True"
        notes = [event["note"] for event in b.api.shelf(EVENTS).objects.values()]
        assert notes[0] == "done goes to n"
        assert [note.partition(":")[0] for note in notes[1:]] == ["refused"]


def pod(name: str) -> Manifest:
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"}, "spec": {}}


@pytest.mark.parametrize(
    ("error", "events"),
    [
        pytest.param(ApiError(status=500, message="x"), ["ReconcileFailed"], id="the server failed"),
        pytest.param(TimeoutError(), ["ReconcileFailed"], id="it took too long"),
        pytest.param(ZeroDivisionError(), ["ReconcileFailed"], id="our own mistake"),
        pytest.param(ApiError(status=409, message="x"), [], id="someone else wrote first"),
    ],
)
async def test_a_failure_is_repeated_with_backoff_and_told_once(error: Exception, events: list[str]) -> None:
    async with bench() as b:
        with capture_logs():
            await b.reconcile(error)
            await b.reconcile(error)
        assert b.queue.failures(KEY) == 2
        assert b.planned_in() == pytest.approx(1, abs=0.5)
        assert b.reasons() == events


async def test_a_hundred_failures_are_at_most_three_events() -> None:
    async with bench() as b:
        with capture_logs() as logs:
            for _ in range(100):
                await b.reconcile(ZeroDivisionError())
        assert len(logs) == 100
        assert b.reasons() == ["ReconcileFailed"]


async def test_a_server_that_asks_to_wait_is_given_the_time() -> None:
    async with bench() as b:
        await b.reconcile(ApiError(status=429, retry_after_seconds=17))
        assert b.planned_in() == pytest.approx(17, abs=0.5)


async def test_a_lost_lease_goes_up_and_ends_the_process() -> None:
    async with bench() as b:
        with pytest.raises(NotLeadingError):
            await b.reconcile(NotLeadingError())


async def test_a_finalizer_goes_on_first_and_off_last() -> None:
    async with bench() as b:
        plan = Plan(
            writes=[Apply(manifest=config_map())], status={"phase": "x"}, finalizers=["flotilla.dev/a"]
        )
        await b.reconcile(plan)
        paths = [request.path.rsplit("/", 2)[-2:] for request in b.api.writes()]
        first = ["m", "status"]
        assert paths == [first, ["modelreplicasets", "m"], ["configmaps", "c"], ["m", "status"]]
        await b.reconcile(Plan(status={"phase": "y"}, finalizers=[]))
        assert [request.path.rsplit("/", 1)[-1] for request in b.api.writes()[4:]] == ["status", "m"]
        assert "finalizers" not in (b.api.get(MODEL_REPLICA_SETS, "default", "m") or {})["metadata"]


async def test_a_finalizer_stays_while_a_write_before_it_is_refused() -> None:
    async with bench() as b:
        await b.reconcile(Plan(finalizers=["flotilla.dev/a"]))
        b.api.fail(lambda r: "configmaps" in r.path and r.writes, 422)
        await b.reconcile(Plan(writes=[Apply(manifest=config_map())], finalizers=[]))
        live = b.api.get(MODEL_REPLICA_SETS, "default", "m") or {}
        assert live["metadata"]["finalizers"] == ["flotilla.dev/a"]


async def test_an_object_whose_children_fail_says_which() -> None:
    async with bench() as b:
        b.api.fail(lambda r: "configmaps" in r.path and r.writes, 500, times=2)
        with capture_logs():
            for _ in range(2):
                await b.reconcile(Plan(writes=[Apply(manifest=config_map())], status={"conditions": [READY]}))
        assert b.ready() == ("False", "WriteFailed")
        assert "configmaps/c: 500" in b.message("Ready")
        assert (b.condition("Reconciling"), b.condition("Stalled")) == ("True", "False")
        assert len(written_statuses(b)) == 2, "for a new object and for the failure, not at every attempt"
        await b.reconcile(Plan(writes=[Apply(manifest=config_map())], status={"conditions": [READY]}))
        assert b.ready() == ("True", "Ready")
        await b.reconcile(Plan(writes=[Apply(manifest=config_map())], status={"conditions": [READY]}))
        assert len(written_statuses(b)) == 3


async def test_what_a_failed_reconcile_wrote_does_not_end_its_backoff() -> None:
    async with bench() as b:
        b.api.fail(lambda r: "services" in r.path and r.writes, 500)
        service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "m", "namespace": "default"}}
        await b.take()
        with capture_logs():
            await b.reconcile(Plan(writes=[Apply(manifest=config_map()), Apply(manifest=service)]))
        b.queue.done(KEY)
        assert len(b.queue) == 0
        assert (b.planned_in() or 0) > 0


async def test_when_the_server_asks_to_be_left_alone_nothing_comes_earlier() -> None:
    async with bench() as b:
        b.api.fail(lambda r: "configmaps" in r.path and r.writes, 429, retry_after=30)
        await b.take()
        with capture_logs():
            await b.reconcile(Plan(writes=[Apply(manifest=config_map())], look_again_seconds=1))
        b.queue.done(KEY)
        b.queue.add(KEY)
        assert len(b.queue) == 0
        assert (b.planned_in() or 0) >= 30


async def test_an_object_that_vanishes_at_its_first_status_is_left() -> None:
    async with bench() as b:
        b.api.fail(lambda r: r.path.endswith("/status"), 404)
        await b.reconcile(Plan(writes=[Apply(manifest=config_map())]))
        assert [request.path.rsplit("/", 1)[-1] for request in b.api.writes()] == ["status"]


async def test_a_status_that_the_server_refuses_is_a_failure_and_is_told() -> None:
    async with bench() as b:
        await b.reconcile(Plan())
        b.api.fail(lambda r: r.path.endswith("/status"), 422)
        with capture_logs() as logs:
            await b.reconcile(Plan(status={"phase": "x"}))
        assert [entry["event"] for entry in logs] == ["reconcile_failed"]
        assert b.reasons() == ["ReconcileFailed"]


async def test_a_finalizer_on_an_object_that_moved_on_is_a_conflict() -> None:
    async with bench() as b:
        await b.reconcile(Plan())
        b.api.fail(lambda r: r.method == "PATCH" and r.path.endswith("/m"), 422, reason="Invalid")
        with capture_logs() as logs:
            await b.reconcile(Plan(finalizers=["flotilla.dev/a"]))
        assert [entry["event"] for entry in logs] == ["reconcile_conflict"]
        assert b.reasons() == []
        assert b.queue.failures(KEY) == 1


def written_statuses(b: Bench) -> list[str]:
    return [request.path for request in b.api.writes() if request.path.endswith("/status")]


async def test_figures_that_had_to_wait_are_written_later() -> None:
    async with bench() as b:
        await b.reconcile(Plan(status={"load": 1}))
        await b.reconcile(Plan(status={"load": 2}, look_again_seconds=30))
        assert b.planned_in() == pytest.approx(10, abs=0.5)


async def test_the_plans_events_are_recorded_and_its_targets_scraped() -> None:
    async with bench() as b:
        b.controller.targets = [Target(key="pod", url="http://127.0.0.1:9/")]
        await b.reconcile(Plan(events=[Event(type=EventType.NORMAL, reason="GroupPlaced", note="here")]))
        assert b.reasons() == ["GroupPlaced"]
        assert len(b.scraper) == 1


async def test_an_object_that_is_gone_leaves_nothing_behind() -> None:
    async with bench() as b:
        b.controller.targets = [Target(key="pod", url="http://127.0.0.1:9/")]
        await b.reconcile(Plan(look_again_seconds=60))
        uid = (b.caches.get(MODEL_REPLICA_SETS, "default", "m") or {})["metadata"]["uid"]
        b.caches.store(MODEL_REPLICA_SETS).remove("default", "m", uid)
        await b.reconcile(Plan())
        assert (len(b.scraper), b.planned_in()) == (0, None)
        assert not b.reconciler._uids


async def test_secrets_are_asked_for_once_a_minute_and_never_shown() -> None:
    now = 0.0
    api = FakeApi()
    metadata = {"name": "s", "namespace": "default", "annotations": {"flotilla.dev/send-to": "hub.example"}}
    api.put(SECRETS, {"metadata": metadata, "data": {"token": in_secret("hush")}})
    async with api.running(), api.client() as client:
        secrets = CachedSecrets(client, clock=lambda: now)
        for _ in range(3):
            found = await secrets.get("default", "s")
        assert found is not None
        assert (found.data, found.send_to) == ({"token": planted("hush").encode()}, "hub.example")
        assert planted("hush") not in repr(found)
        assert await secrets.get("default", "other") is None
        assert len(api.requests) == 2
        now = 11.0
        await secrets.get("default", "s")
        await secrets.get("default", "other")
        assert [request.path.rsplit("/", 1)[-1] for request in api.requests] == ["s", "other", "other"]
        now = 61.0
        await secrets.get("default", "s")
        assert len(api.requests) == 4


async def test_who_makes_a_secret_asks_until_it_is_seen_and_then_once_a_minute() -> None:
    owner = {
        "apiVersion": "flotilla.dev/v1alpha1",
        "kind": "ModelReplicaSet",
        "name": "m",
        "controller": True,
    }
    secret = {"name": "s", "namespace": "default"}
    api = FakeApi()
    async with api.running(), api.client() as client:
        secrets = CachedSecrets(client, clock=lambda: 0.0)
        world = World(
            caches=Caches(),
            measurements=Measurements(),
            config=CONFIG,
            secrets=secrets,
            decisions=NothingDecided(),
            absent_nodes=NoneIsGone(),
            steady=lambda: 0.0,
        )
        assert await world.own_secret("default", "s", "me") is None
        api.put(SECRETS, {"metadata": {**secret, "ownerReferences": [{**owner, "uid": "before"}]}})
        assert await world.own_secret("default", "s", "me") is None
        api.put(SECRETS, {"metadata": {**secret, "ownerReferences": [{**owner, "uid": "me"}]}})
        for _ in range(3):
            assert await world.own_secret("default", "s", "me") is not None
        assert len(api.requests) == 3
