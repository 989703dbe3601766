"""The writer against the fake API: what is sent, what is not, and what is refused.

Whether a real server agrees (field managers, ownership, defaulting) is in tests/controllers with the mark
`apiserver`; crashes at each crash point too.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
from aiohttp import web

from flotilla_operator.cluster.caches import Caches
from flotilla_operator.cluster.client import ApiError
from flotilla_operator.cluster.crash_points import CrashPoint
from flotilla_operator.cluster.ownership import Owner, RefusalReason
from flotilla_operator.cluster.reflector import Change
from flotilla_operator.cluster.resources import (
    DEPLOYMENTS,
    MODEL_REPLICA_SETS,
    PODS,
    SECRETS,
    SERVICES,
    Resource,
)
from flotilla_operator.cluster.status import StatusLimiter
from flotilla_operator.cluster.writer import Writer
from flotilla_operator.cluster.writes import Apply, Create, Delete, JsonPatch, Manifest, Write
from tests.support.fake_api import FakeApi, Fault, Request, status_document

# Events and the lease are not the writer's; test_events and test_lease have them.
OF_OTHERS = (
    CrashPoint.BEFORE_EVENT,
    CrashPoint.AFTER_EVENT,
    CrashPoint.BEFORE_LEASE,
    CrashPoint.AFTER_LEASE,
)


@dataclass
class Bench:
    api: FakeApi
    caches: Caches
    owner: Owner
    reached: list[CrashPoint]
    writer: Writer = field(init=False)
    now: float = 0.0
    changes: list[tuple[str, str]] = field(default_factory=list)

    def note_change(self, _resource: Resource, manifest: Manifest, change: Change) -> None:
        self.changes.append((change, manifest["metadata"]["name"]))

    async def write(self, *writes: Write) -> list[RefusalReason]:
        return [refusal.reason for refusal in await self.writer.carry_out(self.owner, writes)]

    def are_there(self, *names: str) -> bool:
        return all(self.api.get(PODS, "default", name) for name in names)

    def answer_late(
        self, name: str, *, until: Callable[[], bool], answer: Callable[[], web.Response]
    ) -> None:
        """The POST of this pod is not answered before something else has happened."""

        def is_it(request: Request) -> bool:
            return request.method == "POST" and bool(request.body["metadata"]["name"] == name)

        async def wait_and_answer() -> web.Response:
            while not until():  # noqa: ASYNC110
                await asyncio.sleep(0)
            return answer()

        self.api.faults.append(Fault(is_it, wait_and_answer))

    def make_late(self, name: str, *, until: Callable[[], bool]) -> None:
        """It is made then."""
        made = partial(self.api.put, PODS, pod(name))
        self.answer_late(name, until=until, answer=lambda: web.json_response(made(), status=201))

    def sent(self) -> list[str]:
        return [request.method for request in self.api.writes()]

    async def status(self, **status: Any) -> float | None:
        waited = await self.writer.write_status(self.owner, status)
        live = self.caches.get(MODEL_REPLICA_SETS, "default", "m") or self.owner.manifest
        self.owner = Owner(resource=MODEL_REPLICA_SETS, manifest=live)
        return waited


@asynccontextmanager
async def bench() -> AsyncIterator[Bench]:
    api, caches = FakeApi(), Caches()
    owner = api.put(MODEL_REPLICA_SETS, {"metadata": {"name": "m", "namespace": "default"}, "spec": {}})
    async with api.running(), api.client() as client:
        reached: list[CrashPoint] = []
        made = Bench(api, caches, Owner(resource=MODEL_REPLICA_SETS, manifest=owner), reached)
        limiter = StatusLimiter(10, clock=lambda: made.now)
        made.writer = Writer(
            client,
            caches,
            limiter,
            on_change=made.note_change,
            reached=reached.append,
        )
        yield made


def deployment(replicas: int = 2, **labels: str) -> Manifest:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "m-router", "namespace": "default", "labels": labels},
        "spec": {
            "replicas": replicas,
            "template": {"spec": {"containers": [{"name": "haproxy", "image": "h:1"}]}},
        },
    }


def pod(name: str = "m-0") -> Manifest:
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"}, "spec": {}}


async def test_an_apply_is_sent_once_with_our_manager_and_content_type() -> None:
    async with bench() as b:
        assert await b.write(Apply(manifest=deployment())) == []
        assert await b.write(Apply(manifest=deployment())) == []
        (request,) = b.api.writes()
        assert request.content_type == "application/apply-patch+yaml"
        assert request.query["fieldManager"] == "flotilla"
        assert request.query["fieldValidation"] == "Strict"
        (reference,) = request.body["metadata"]["ownerReferences"]
        assert (reference["uid"], reference["controller"]) == (b.owner.uid, True)


async def test_a_changed_manifest_is_sent_whole_so_a_dropped_label_goes() -> None:
    async with bench() as b:
        await b.write(Apply(manifest=deployment(keep="1", drop="1")))
        await b.write(Apply(manifest=deployment(keep="1")))
        live = b.api.get(DEPLOYMENTS, "default", "m-router")
        assert live is not None
        assert live["metadata"]["labels"] == {"keep": "1"}


async def test_drift_in_the_live_object_is_corrected_though_the_hash_is_unchanged() -> None:
    async with bench() as b:
        await b.write(Apply(manifest=deployment(2)))
        scaled = dict(b.api.get(DEPLOYMENTS, "default", "m-router") or {})
        scaled = {**scaled, "metadata": {**scaled["metadata"]}, "spec": {**scaled["spec"], "replicas": 7}}
        b.caches.store(DEPLOYMENTS).put(b.api.put(DEPLOYMENTS, scaled))
        await b.write(Apply(manifest=deployment(2)))
        live = b.api.get(DEPLOYMENTS, "default", "m-router")
        assert live is not None
        assert live["spec"]["replicas"] == 2


async def test_a_value_that_the_server_writes_its_own_way_is_not_sent_for_ever() -> None:
    async with bench() as b:
        await b.write(Apply(manifest=deployment(2)))
        ref = DEPLOYMENTS.ref("default", "m-router")
        for path in (".spec.replicas",):
            digest = b.api.writes()[0].body["metadata"]["annotations"]["flotilla.dev/applied-hash"]
            b.writer._normalised[b.owner.uid] = {ref: (digest, frozenset({path}))}
        live = b.api.get(DEPLOYMENTS, "default", "m-router") or {}
        b.caches.store(DEPLOYMENTS).put(
            b.api.put(
                DEPLOYMENTS,
                {**live, "metadata": {**live["metadata"]}, "spec": {**live["spec"], "replicas": "2.0"}},
            )
        )
        await b.write(Apply(manifest=deployment(2)))
        assert b.sent() == ["PATCH"]
        b.writer.forget(b.owner.uid)
        assert b.writer._normalised == {}


@pytest.mark.parametrize("in_cache", [True, False], ids=["seen by the cache", "not yet seen by the cache"])
async def test_a_users_service_of_our_name_is_never_written(in_cache: bool) -> None:
    service = {"metadata": {"name": "m-model", "namespace": "default"}, "spec": {"ports": [{"port": 1}]}}
    async with bench() as b:
        theirs = b.api.put(SERVICES, service)
        if in_cache:
            b.caches.store(SERVICES).put(theirs)
        ours = {"apiVersion": "v1", "kind": "Service", **service, "spec": {"ports": [{"port": 80}]}}
        refused = await b.write(Apply(manifest=ours), Apply(manifest=deployment()))
        assert refused == [RefusalReason.NAME_TAKEN]
        assert [request.path.split("/")[-1] for request in b.api.writes()] == ["m-router"]
        assert b.api.get(SERVICES, "default", "m-model") == theirs


async def test_an_object_of_the_owner_s_predecessor_is_not_ours() -> None:
    async with bench() as b:
        await b.write(Apply(manifest=deployment()))
        again = {**b.owner.manifest, "metadata": {**b.owner.manifest["metadata"], "uid": "another"}}
        b.owner = Owner(resource=MODEL_REPLICA_SETS, manifest=again)
        assert await b.write(Apply(manifest=deployment(3))) == [RefusalReason.BEING_DELETED]


async def test_what_needs_a_refused_object_is_left_out_and_the_rest_is_written() -> None:
    async with bench() as b:
        service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s", "namespace": "default"}}
        b.api.put(SERVICES, service)
        needs = frozenset({SERVICES.ref_to(service)})
        refused = await b.write(
            Apply(manifest=service),
            Apply(manifest=deployment(), needs=needs),
            Create(manifest=pod(), needs=needs),
            Create(manifest={**pod(), "metadata": {**pod()["metadata"], "name": "m-1"}}),
        )
        assert refused == [RefusalReason.NAME_TAKEN], "the one refusal tells of all"
        assert [request.body["metadata"]["name"] for request in b.api.writes()] == ["m-1"]


async def test_an_object_that_was_exchanged_behind_the_cache_is_not_written() -> None:
    async with bench() as b:
        await b.write(Apply(manifest=deployment()))
        b.api.remove(DEPLOYMENTS, "default", "m-router")
        b.api.put(
            DEPLOYMENTS, {"metadata": {"name": "m-router", "namespace": "default"}, "spec": {"theirs": 1}}
        )
        assert await b.write(Apply(manifest=deployment(3))) == [RefusalReason.CONFLICT]
        assert (b.api.get(DEPLOYMENTS, "default", "m-router") or {})["spec"] == {"theirs": 1}


async def test_a_retained_object_has_no_owner_and_is_known_by_its_labels() -> None:
    labels = {"flotilla.dev/kind": "ModelReplicaSet", "flotilla.dev/owner": "m"}
    async with bench() as b:
        assert await b.write(Apply(manifest=deployment(2, **labels), retained=True)) == []
        assert "ownerReferences" not in b.api.writes()[0].body["metadata"]
        again = {**b.owner.manifest, "metadata": {**b.owner.manifest["metadata"], "uid": "another"}}
        b.owner = Owner(resource=MODEL_REPLICA_SETS, manifest=again)
        assert await b.write(Apply(manifest=deployment(3, **labels), retained=True)) == []
        assert b.sent() == ["PATCH", "PATCH"]


async def test_a_pod_is_posted_once_and_left_alone_after_that() -> None:
    async with bench() as b:
        assert await b.write(Create(manifest=pod())) == []
        assert await b.write(Create(manifest=pod())) == []
        b.caches = b.writer._caches = Caches()
        assert await b.write(Create(manifest=pod())) == []
        assert b.sent() == ["POST", "POST"]
        assert b.caches.get(PODS, "default", "m-0") is not None


async def test_a_secret_is_read_whenever_it_is_asked_for_and_made_anew_when_it_is_gone() -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "default"}}
    async with bench() as b:
        for _ in range(2):
            await b.write(Create(manifest=secret))
        assert [request.method for request in b.api.requests] == ["GET", "POST", "GET"]
        assert b.caches.get(SECRETS, "default", "s") is None, "no secret is kept in memory"
        b.api.remove(SECRETS, "default", "s", silently=True)
        await b.write(Create(manifest=secret))
        assert b.api.get(SECRETS, "default", "s") is not None


async def test_a_pod_of_another_with_our_name_is_reported() -> None:
    async with bench() as b:
        b.api.put(PODS, pod())
        assert await b.write(Create(manifest=pod())) == [RefusalReason.NAME_TAKEN]


async def test_what_is_written_is_in_the_cache_before_the_watch_reports_it() -> None:
    async with bench() as b:
        await b.write(Create(manifest=pod()))
        assert [p["metadata"]["name"] for p in b.caches.owned(PODS, b.owner.uid)] == ["m-0"]


async def test_what_is_written_wakes_whoever_is_concerned_as_the_watch_would() -> None:
    async with bench() as b:
        await b.write(Create(manifest=pod()))
        uid = (b.caches.get(PODS, "default", "m-0") or {})["metadata"]["uid"]
        await b.write(Delete(ref=PODS.ref("default", "m-0"), uid=uid))
        await b.status(phase="Ready")
        assert b.changes == [("Put", "m-0"), ("Removed", "m-0"), ("Put", "m")]


async def test_an_object_that_is_gone_when_its_status_is_written_is_evicted() -> None:
    async with bench() as b:
        b.caches.store(MODEL_REPLICA_SETS).put(b.owner.manifest)
        b.api.remove(MODEL_REPLICA_SETS, "default", "m", silently=True)
        await b.status(phase="Ready")
        assert b.changes == [("Removed", "m")]


async def test_a_json_patch_tests_the_resource_version() -> None:
    async with bench() as b:
        held = b.api.put(PODS, {**pod(), "spec": {"schedulingGates": [{"name": "flotilla.dev/group"}]}})
        lift = {"op": "remove", "path": "/spec/schedulingGates/0"}
        version = held["metadata"]["resourceVersion"]
        patch = JsonPatch(ref=PODS.ref("default", "m-0"), resource_version=version, operations=[lift])
        assert await b.write(patch) == []
        assert isinstance(b.api.writes()[0].body, list)
        assert await b.write(patch) == [RefusalReason.CONFLICT]


async def test_a_delete_names_the_uid_and_spares_a_successor_of_the_name() -> None:
    async with bench() as b:
        old = b.api.put(PODS, pod())
        b.caches.store(PODS).put(old)
        b.api.remove(PODS, "default", "m-0")
        new = b.api.put(PODS, pod())
        assert await b.write(Delete(ref=PODS.ref("default", "m-0"), uid=old["metadata"]["uid"])) == []
        assert b.api.get(PODS, "default", "m-0") == new
        assert b.caches.get(PODS, "default", "m-0") is None


async def test_a_404_evicts_and_no_late_event_brings_the_object_back() -> None:
    async with bench() as b:
        held = b.api.put(PODS, pod())
        b.caches.store(PODS).put(held)
        b.api.remove(PODS, "default", "m-0", silently=True)
        await b.write(Delete(ref=PODS.ref("default", "m-0"), uid=held["metadata"]["uid"]))
        assert b.caches.get(PODS, "default", "m-0") is None
        assert not b.caches.store(PODS).put(held)


async def test_a_pod_that_is_being_deleted_is_not_deleted_again() -> None:
    async with bench() as b:
        held = b.api.put(PODS, {**pod(), "metadata": {**pod()["metadata"], "finalizers": ["x/y"]}})
        b.caches.store(PODS).put(held)
        delete = Delete(ref=PODS.ref("default", "m-0"), uid=held["metadata"]["uid"])
        await b.write(delete)
        await b.write(delete)
        assert b.sent() == ["DELETE"]


@pytest.mark.parametrize(
    ("status", "causes", "reason"),
    [
        pytest.param(403, ["NamespaceTerminating"], RefusalReason.NAMESPACE_TERMINATING, id="namespace ends"),
        pytest.param(403, [], RefusalReason.FORBIDDEN, id="a policy forbids it"),
        pytest.param(422, [], RefusalReason.INVALID, id="a field is immutable"),
    ],
)
async def test_a_refusal_does_not_stop_the_other_writes(
    status: int, causes: list[str], reason: RefusalReason
) -> None:
    async with bench() as b:
        b.api.fail(lambda r: r.method == "POST" and r.body["metadata"]["name"] == "a", status, causes=causes)
        assert await b.write(Create(manifest=pod("a")), Create(manifest=pod("b"))) == [reason]
        assert b.api.get(PODS, "default", "b") is not None


async def test_pods_are_posted_at_once_and_one_that_is_refused_late_stops_none() -> None:
    async with bench() as b:

        def refused() -> web.Response:
            return web.json_response(status_document(403, "Forbidden", "quota"), status=403)

        b.answer_late("m-0", until=lambda: b.are_there("m-1", "m-2"), answer=refused)
        async with asyncio.timeout(10):
            reasons = await b.write(*(Create(manifest=pod(f"m-{index}")) for index in range(3)))
        assert reasons == [RefusalReason.FORBIDDEN]


async def test_a_pod_waits_for_the_pod_it_needs_and_for_no_other() -> None:
    async with bench() as b:
        b.make_late("m-0", until=lambda: b.are_there("m-2", "m-3"))
        async with asyncio.timeout(10):
            refused = await b.write(
                Create(manifest=pod("m-0")),
                Create(manifest=pod("m-1"), needs=frozenset({PODS.ref("default", "m-0")})),
                Create(manifest=pod("m-2")),
                Create(manifest=pod("m-3"), needs=frozenset({PODS.ref("default", "m-2")})),
            )
        assert refused == []
        posted = [request.body["metadata"]["name"] for request in b.api.writes()]
        assert posted == ["m-0", "m-2", "m-3", "m-1"]


async def test_a_pod_of_the_plan_is_changed_before_the_next_one_is_made() -> None:
    both = frozenset({PODS.ref("default", "m-0"), PODS.ref("default", "m-1")})
    change = {"op": "add", "path": "/metadata/labels", "value": {"let": "go"}}
    async with bench() as b:
        b.make_late("m-2", until=lambda: "PATCH" in b.sent())
        async with asyncio.timeout(10):
            refused = await b.write(
                Create(manifest=pod("m-0")),
                Create(manifest=pod("m-1"), needs=frozenset({PODS.ref("default", "m-0")})),
                JsonPatch(ref=PODS.ref("default", "m-0"), operations=[change], needs=both),
                Create(manifest=pod("m-2")),
            )
        assert refused == []
        assert (b.api.get(PODS, "default", "m-0") or {})["metadata"]["labels"] == {"let": "go"}
        assert b.sent() == ["POST", "POST", "POST", "PATCH"]


async def test_nothing_waits_for_a_pod_whose_creation_failed() -> None:
    async with bench() as b:
        b.api.fail(lambda r: r.method == "POST" and r.body["metadata"]["name"] == "m-0", 500)
        later = Create(manifest=pod("m-1"), needs=frozenset({PODS.ref("default", "m-0")}))
        async with asyncio.timeout(10):
            with pytest.raises(ApiError):
                await b.write(Create(manifest=pod("m-0")), later)
        assert b.api.get(PODS, "default", "m-1") is None


@pytest.mark.parametrize(
    ("refused", "made"),
    [
        pytest.param("m-0", [], id="what it needs is refused"),
        pytest.param("m-3", ["m-0", "m-1"], id="something else is refused"),
    ],
)
async def test_what_needs_a_refused_object_is_not_made(refused: str, made: list[str]) -> None:
    async with bench() as b:
        b.api.fail(lambda r: r.method == "POST" and r.body["metadata"]["name"] == refused, 403)
        first = [Create(manifest=pod("m-0")), Create(manifest=pod("m-3"))]
        later = Create(manifest=pod("m-1"), needs=frozenset({PODS.ref("default", "m-0")}))
        refusals = await b.writer.carry_out(b.owner, [*first, later])
        assert [refusal.ref.name for refusal in refusals] == [refused]
        there = [name for name in ("m-0", "m-1") if b.api.get(PODS, "default", name)]
        assert there == made


async def test_a_refusal_names_the_field_that_asked_for_the_object() -> None:
    async with bench() as b:
        b.api.fail(lambda r: r.method == "PATCH", 422)
        write = Apply(manifest=deployment(), field="spec.queue.redis.storage")
        (refusal,) = await b.writer.carry_out(b.owner, [write])
        assert refusal.message == "spec.queue.redis.storage: a fault"


async def test_a_server_that_asks_to_wait_is_obeyed_by_the_caller() -> None:
    async with bench() as b:
        b.api.fail(lambda r: r.method == "POST", 429, retry_after=7)
        with pytest.raises(ApiError) as raised:
            await b.write(Create(manifest=pod()))
        assert raised.value.retry_after_seconds == 7


async def test_a_write_that_hangs_ends_at_its_time_limit() -> None:
    async with bench() as b:
        b.api.hang(lambda r: r.method == "POST")
        b.writer._client._request_timeout_seconds = 0.1
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(b.write(Create(manifest=pod())), 5)


async def test_a_status_that_says_the_same_is_not_written() -> None:
    async with bench() as b:
        await b.status(phase="Ready", message=None)
        await b.status(phase="Ready")
        (request,) = b.api.writes()
        assert request.path.endswith("/m/status")
        assert request.query["fieldManager"] == "flotilla-status"
        assert request.body["status"] == {"phase": "Ready"}


async def test_figures_wait_ten_seconds_and_conditions_do_not() -> None:
    ready = {"type": "Ready", "status": "True", "reason": "Ready"}
    async with bench() as b:
        await b.status(load=1, conditions=[ready])
        assert await b.status(load=2, conditions=[ready]) == 10
        b.now = 4
        assert await b.status(load=3, conditions=[ready]) == 6
        assert await b.status(load=4, conditions=[{**ready, "status": "False"}]) is None
        assert len(b.sent()) == 2


async def test_a_failure_that_is_counted_does_not_wait() -> None:
    async with bench() as b:
        await b.status(load=1, backoff={"failures": 1})
        assert await b.status(load=2, backoff={"failures": 2}) is None
        assert await b.status(load=3, backoff={"failures": 2}) == 10


async def test_ten_minutes_of_steady_load_write_at_most_one_status_in_ten_seconds() -> None:
    async with bench() as b:
        for second in range(600):
            b.now = float(second)
            await b.status(load=second)
        assert len(b.sent()) <= 60


async def test_finalizers_of_others_stay() -> None:
    async with bench() as b:
        metadata = b.owner.manifest["metadata"]
        foreign = b.api.put(
            MODEL_REPLICA_SETS,
            {**b.owner.manifest, "metadata": {**metadata, "finalizers": ["foregroundDeletion"]}},
        )
        b.owner = Owner(resource=MODEL_REPLICA_SETS, manifest=foreign)
        await b.writer.write_finalizers(b.owner, ["flotilla.dev/milvus"])
        live = b.caches.get(MODEL_REPLICA_SETS, "default", "m")
        assert live is not None
        assert live["metadata"]["finalizers"] == ["foregroundDeletion", "flotilla.dev/milvus"]
        b.owner = Owner(resource=MODEL_REPLICA_SETS, manifest=live)
        await b.writer.write_finalizers(b.owner, ["flotilla.dev/milvus"])
        await b.writer.write_finalizers(b.owner, [])
        assert b.sent() == ["PATCH", "PATCH"]


async def test_every_crash_point_is_reached_by_some_write() -> None:
    async with bench() as b:
        gated = {**pod(), "spec": {"schedulingGates": [{"name": "g"}]}}
        await b.write(Apply(manifest=deployment()), Create(manifest=gated))
        held = b.caches.get(PODS, "default", "m-0")
        assert held is not None
        metadata = held["metadata"]
        lift = {"op": "remove", "path": "/spec/schedulingGates/0"}
        await b.write(
            JsonPatch(
                ref=PODS.ref("default", "m-0"),
                resource_version=metadata["resourceVersion"],
                operations=[lift],
            ),
            Delete(ref=PODS.ref("default", "m-0"), uid=metadata["uid"]),
        )
        await b.writer.write_finalizers(b.owner, ["flotilla.dev/x"])
        await b.status(phase="Ready")
        assert b.reached == [point for point in CrashPoint if point not in OF_OTHERS]
