"""The writer against the fake API: what is sent, what is not, and what is refused.

Whether a real server agrees (field managers, ownership, defaulting) is in tests/controllers with the mark
`apiserver`; crashes at each crash point too.
"""

import asyncio
import copy
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest

from flotilla_operator.cluster import client
from flotilla_operator.cluster.caches import Caches
from flotilla_operator.cluster.client import ApiError
from flotilla_operator.cluster.connection import HttpConnection
from flotilla_operator.cluster.crash_points import CrashPoint
from flotilla_operator.cluster.ownership import Reconciled
from flotilla_operator.cluster.reflector import Change, Mirror
from flotilla_operator.cluster.status import StatusLimiter
from flotilla_operator.cluster.writer import Writer
from flotilla_operator.cluster.writes import Apply, Create, Delete, DryRun, JsonPatch, Parts, Write
from flotilla_operator.objects.refused_writes import WriteReason
from flotilla_operator.objects.resources import (
    DEPLOYMENTS,
    MODEL_REPLICA_SETS,
    PODS,
    SECRETS,
    SERVICES,
    Key,
    Manifest,
    Resource,
)
from flotilla_operator.objects.unseen import is_unseen
from tests.builders.api_objects import smallest
from tests.support.fake_api import FakeApi
from tests.support.fake_objects import status_document
from tests.support.fake_requests import Fault, RefusedError, Reply, Request

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
    owner: Reconciled
    reached: list[CrashPoint]
    writer: Writer = field(init=False)
    now: float = 0.0
    changes: list[tuple[str, str]] = field(default_factory=list)

    def note_change(
        self, _resource: Resource, manifest: Manifest, change: Change, by: Key | None = None
    ) -> None:
        self.changes.append((change, manifest["metadata"]["name"]))

    async def write(self, *writes: Write) -> list[WriteReason]:
        return [refusal.reason for refusal in await self.writer.carry_out(self.owner, writes)]

    def are_there(self, *names: str) -> bool:
        return all(self.api.get(PODS, "default", name) for name in names)

    def answer_late(self, name: str, *, until: Callable[[], bool], answer: Callable[[], Reply]) -> None:
        """The POST of this pod is not answered before something else has happened."""

        def is_it(request: Request) -> bool:
            return request.method == "POST" and bool(request.body["metadata"]["name"] == name)

        async def wait_and_answer() -> Reply:
            while not until():  # noqa: ASYNC110
                await asyncio.sleep(0)
            return answer()

        self.api.faults.append(Fault(is_it, wait_and_answer))

    def make_late(self, name: str, *, until: Callable[[], bool]) -> None:
        """It is made then."""
        made = partial(self.api.put, PODS, pod(name))
        self.answer_late(name, until=until, answer=lambda: Reply(status=201, document=made()))

    def sent(self) -> list[str]:
        return [request.method for request in self.api.writes()]

    def live_deployment(self) -> Manifest:
        live = self.api.get(DEPLOYMENTS, "default", "m-router")
        assert live is not None
        return live

    def replicas(self) -> int:
        return int(self.live_deployment()["spec"]["replicas"])

    def put_in_cluster(self, manifest: Manifest) -> None:
        """Somebody else writes the deployment, and the watch has reported it."""
        self.caches.store(DEPLOYMENTS).put(self.api.put(DEPLOYMENTS, manifest))

    def somebody_scales_to(self, replicas: int) -> None:
        live = self.live_deployment()
        spec, metadata = {**live["spec"], "replicas": replicas}, {**live["metadata"]}
        self.put_in_cluster({**live, "metadata": metadata, "spec": spec})

    def becomes_ready(self, replicas: int) -> None:
        live = self.live_deployment()
        status = {"readyReplicas": replicas}
        self.put_in_cluster({**live, "metadata": {**live["metadata"]}, "status": status})

    async def status(self, **status: Any) -> float | None:
        waited = await self.writer.write_status(self.owner, status)
        live = self.caches.get(MODEL_REPLICA_SETS, "default", "m") or self.owner.manifest
        self.owner = Reconciled(resource=MODEL_REPLICA_SETS, manifest=live)
        return waited


class Impatient:
    """A connection on which time runs out once the server has heard a request that it does not answer."""

    def __init__(self, connection: HttpConnection, hung: asyncio.Event) -> None:
        self._connection = connection
        self._hung = hung

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    async def request(self, request: client.Request, timeout_seconds: float | None = None) -> Manifest:
        answering = asyncio.ensure_future(self._connection.request(request, timeout_seconds))
        hearing = asyncio.ensure_future(self._hung.wait())
        await asyncio.wait({answering, hearing}, return_when=asyncio.FIRST_COMPLETED)
        hearing.cancel()
        if answering.done():
            return await answering
        answering.cancel()
        self._hung.clear()
        raise TimeoutError


@asynccontextmanager
async def bench() -> AsyncIterator[Bench]:
    api, caches = FakeApi(), Caches()
    owner = api.put(MODEL_REPLICA_SETS, {"metadata": {"name": "m", "namespace": "default"}, "spec": {}})
    async with api.running():
        connection = HttpConnection(api.configuration())
        reached: list[CrashPoint] = []
        made = Bench(api, caches, Reconciled(resource=MODEL_REPLICA_SETS, manifest=owner), reached)
        limiter = StatusLimiter(10, clock=lambda: made.now)
        made.writer = Writer(
            client.Client(Impatient(connection, api.hung)),
            caches,
            limiter,
            on_change=made.note_change,
            reached=reached.append,
            clock=lambda: made.now,
        )
        yield made
        await connection.close()


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


def service() -> Manifest:
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "m", "namespace": "default"}}


def pod(name: str = "m-0") -> Manifest:
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"}, "spec": {}}


@pytest.mark.holds(
    "architecture.md",
    "What is edited goes by server-side apply with the manager `flotilla`, pods and jobs by POST",
)
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
        assert b.live_deployment()["metadata"]["labels"] == {"keep": "1"}


@pytest.mark.holds(
    "decisions/0008-upgrades.md",
    "A part that a release adds to a template is taken when a new image is, and until then the "
    "template stays",
)
async def test_a_workload_that_serves_is_written_no_more_when_a_release_adds_a_part() -> None:
    before, after = deployment(), copy.deepcopy(deployment())
    after["spec"]["template"]["spec"]["serviceAccountName"] = "m-router"
    added = Parts(names=frozenset({"account"}), with_only=lambda names: after if names else before)
    async with bench() as b:
        await b.write(Apply(manifest=before))
        b.becomes_ready(2)
        assert await b.write(Apply(manifest=after, parts=added)) == []
        assert len(b.api.writes()) == 1
        b.becomes_ready(0)
        assert await b.write(Apply(manifest=after, parts=added)) == []
        assert b.api.writes()[-1].body["spec"] == after["spec"]
        b.becomes_ready(2)
        assert await b.write(Apply(manifest=after, parts=added)) == []
        assert len(b.api.writes()) == 2


@pytest.mark.holds(
    "architecture.md", "An unchanged object that has not drifted is not sent, and drift is mended"
)
async def test_drift_in_the_live_object_is_corrected_though_the_hash_is_unchanged() -> None:
    async with bench() as b:
        await b.write(Apply(manifest=deployment(2)))
        b.somebody_scales_to(7)
        await b.write(Apply(manifest=deployment(2)))
        assert b.replicas() == 2


def cap_replicas_at_five(manifest: Manifest) -> None:
    """Changes that an admission webhook of the cluster may make."""
    manifest["spec"]["replicas"] = min(manifest["spec"]["replicas"], 5)


async def test_a_value_that_the_server_changes_is_sent_once_for_each_manifest() -> None:
    async with bench() as b:
        b.api.normalise = cap_replicas_at_five
        for _ in range(3):
            await b.write(Apply(manifest=deployment(9)))
        assert b.sent() == ["PATCH"]
        for _ in range(3):
            await b.write(Apply(manifest=deployment(8)))
        assert b.sent() == ["PATCH", "PATCH"]
        assert b.replicas() == 5


async def test_only_the_value_that_the_server_changes_is_left_to_it() -> None:
    async with bench() as b:
        b.api.normalise = cap_replicas_at_five
        await b.write(Apply(manifest=deployment(9, tier="router")))
        live = b.live_deployment()
        b.put_in_cluster({**live, "metadata": {**live["metadata"], "labels": {"tier": "theirs"}}})
        await b.write(Apply(manifest=deployment(9, tier="router")))
        assert b.live_deployment()["metadata"]["labels"] == {"tier": "router"}


async def test_a_value_that_the_server_takes_again_is_corrected_again() -> None:
    async with bench() as b:
        b.api.normalise = cap_replicas_at_five
        await b.write(Apply(manifest=deployment(9)))
        b.api.normalise = lambda _manifest: None
        await b.write(Apply(manifest=deployment(2)))
        b.somebody_scales_to(7)
        await b.write(Apply(manifest=deployment(2)))
        assert b.replicas() == 2


async def test_what_was_learned_of_a_deleted_object_is_forgotten() -> None:
    async with bench() as b:
        b.api.normalise = cap_replicas_at_five
        await b.write(Apply(manifest=deployment(9)))
        b.writer.forget(b.owner.uid)
        await b.write(Apply(manifest=deployment(9)))
        assert b.sent() == ["PATCH", "PATCH"]


@pytest.mark.holds("architecture.md", "An object that is not ours is never written")
@pytest.mark.parametrize("in_cache", [True, False], ids=["seen by the cache", "not yet seen by the cache"])
async def test_a_users_service_of_our_name_is_never_written(in_cache: bool) -> None:
    service = {"metadata": {"name": "m-model", "namespace": "default"}, "spec": {"ports": [{"port": 1}]}}
    async with bench() as b:
        theirs = b.api.put(SERVICES, service)
        if in_cache:
            b.caches.store(SERVICES).put(theirs)
        ours = {"apiVersion": "v1", "kind": "Service", **service, "spec": {"ports": [{"port": 80}]}}
        refused = await b.write(Apply(manifest=ours), Apply(manifest=deployment()))
        assert refused == [WriteReason.NAME_TAKEN]
        assert [request.path.split("/")[-1] for request in b.api.writes()] == ["m-router"]
        assert b.api.get(SERVICES, "default", "m-model") == theirs


async def test_an_object_of_the_owner_s_predecessor_is_not_ours() -> None:
    async with bench() as b:
        await b.write(Apply(manifest=deployment()))
        again = {**b.owner.manifest, "metadata": {**b.owner.manifest["metadata"], "uid": "another"}}
        b.owner = Reconciled(resource=MODEL_REPLICA_SETS, manifest=again)
        assert await b.write(Apply(manifest=deployment(3))) == [WriteReason.BEING_DELETED]


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
        assert refused == [WriteReason.NAME_TAKEN], "the one refusal tells of all"
        assert [request.body["metadata"]["name"] for request in b.api.writes()] == ["m-1"]


async def test_an_object_that_was_exchanged_behind_the_cache_is_not_written() -> None:
    async with bench() as b:
        await b.write(Apply(manifest=deployment()))
        b.api.remove(DEPLOYMENTS, "default", "m-router")
        b.api.put(
            DEPLOYMENTS, {"metadata": {"name": "m-router", "namespace": "default"}, "spec": {"theirs": 1}}
        )
        assert await b.write(Apply(manifest=deployment(3))) == [WriteReason.CONFLICT]
        assert (b.api.get(DEPLOYMENTS, "default", "m-router") or {})["spec"] == {"theirs": 1}


async def test_a_retained_object_has_no_owner_and_is_known_by_its_labels() -> None:
    labels = {"flotilla.dev/kind": "ModelReplicaSet", "flotilla.dev/owner": "m"}
    async with bench() as b:
        assert await b.write(Apply(manifest=deployment(2, **labels), retained=True)) == []
        assert "ownerReferences" not in b.api.writes()[0].body["metadata"]
        again = {**b.owner.manifest, "metadata": {**b.owner.manifest["metadata"], "uid": "another"}}
        b.owner = Reconciled(resource=MODEL_REPLICA_SETS, manifest=again)
        assert await b.write(Apply(manifest=deployment(3, **labels), retained=True)) == []
        assert b.sent() == ["PATCH", "PATCH"]


@pytest.mark.holds(
    "architecture.md",
    "What is edited goes by server-side apply with the manager `flotilla`, pods and jobs by POST",
)
async def test_a_pod_is_posted_once_and_left_alone_after_that() -> None:
    async with bench() as b:
        assert await b.write(Create(manifest=pod())) == []
        assert await b.write(Create(manifest=pod())) == []
        assert b.sent() == ["POST"]


async def test_a_pod_of_ours_that_the_cache_does_not_know_is_found_and_left_alone() -> None:
    async with bench() as b:
        made = b.api.put(
            PODS, {**pod(), "metadata": {**pod()["metadata"], "ownerReferences": [b.owner.reference]}}
        )
        assert b.caches.get(PODS, "default", "m-0") is None
        assert await b.write(Create(manifest=pod())) == []
        assert b.sent() == ["POST"]
        assert b.caches.get(PODS, "default", "m-0") == made


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
        assert await b.write(Create(manifest=pod())) == [WriteReason.NAME_TAKEN]


async def test_what_is_written_is_in_the_cache_before_the_watch_reports_it() -> None:
    async with bench() as b:
        await b.write(Create(manifest=pod()))
        assert [p["metadata"]["name"] for p in b.caches.owned(PODS, b.owner.uid)] == ["m-0"]


async def test_what_is_written_wakes_whoever_is_concerned_as_the_watch_would() -> None:
    async with bench() as b:
        await b.write(Create(manifest=pod()))
        uid = (b.caches.get(PODS, "default", "m-0") or {})["metadata"]["uid"]
        await b.write(Delete(ref=PODS.ref("default", "m-0"), uid=uid))
        assert b.changes == [("Put", "m-0"), ("Put", "m-0")], "a pod that is being deleted is still there"
        await b.write(Apply(manifest=deployment()))
        uid = (b.caches.get(DEPLOYMENTS, "default", "m-router") or {})["metadata"]["uid"]
        await b.write(Delete(ref=DEPLOYMENTS.ref("default", "m-router"), uid=uid))
        await b.status(phase="Ready")
        assert b.changes[2:] == [("Put", "m-router"), ("Removed", "m-router"), ("Put", "m")]


async def test_an_object_that_is_gone_when_its_status_is_written_is_evicted() -> None:
    async with bench() as b:
        b.caches.store(MODEL_REPLICA_SETS).put(b.owner.manifest)
        b.api.remove(MODEL_REPLICA_SETS, "default", "m", silently=True)
        await b.status(phase="Ready")
        assert b.changes == [("Removed", "m")]


async def test_the_status_of_an_object_that_was_exchanged_is_not_written_and_the_new_one_is_seen() -> None:
    async with bench() as b:
        b.caches.store(MODEL_REPLICA_SETS).put(b.owner.manifest)
        b.api.remove(MODEL_REPLICA_SETS, "default", "m", silently=True)
        newer = b.api.put(MODEL_REPLICA_SETS, {"metadata": {"name": "m", "namespace": "default"}})
        await b.status(phase="Ready")
        assert "status" not in newer
        assert b.changes == [("Put", "m")]


async def test_a_status_that_the_server_takes_for_invalid_is_an_error() -> None:
    async with bench() as b:
        b.api.fail(lambda r: r.path.endswith("/status"), 422, reason="Invalid")
        with pytest.raises(ApiError, match="Invalid"):
            await b.status(phase="Ready")


@pytest.mark.holds("decisions/0004-pinning-and-gates.md", "A gate is lifted by one patch that tests it first")
async def test_a_json_patch_tests_the_resource_version() -> None:
    async with bench() as b:
        held = b.api.put(PODS, {**pod(), "spec": {"schedulingGates": [{"name": "flotilla.dev/group"}]}})
        lift = {"op": "remove", "path": "/spec/schedulingGates/0"}
        version = held["metadata"]["resourceVersion"]
        patch = JsonPatch(ref=PODS.ref("default", "m-0"), resource_version=version, operations=[lift])
        assert await b.write(patch) == []
        assert isinstance(b.api.writes()[0].body, list)
        assert await b.write(patch) == [WriteReason.CONFLICT]


@pytest.mark.holds("architecture.md", "A delete names the UID")
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
        pytest.param(403, ["NamespaceTerminating"], WriteReason.NAMESPACE_TERMINATING, id="namespace ends"),
        pytest.param(403, [], WriteReason.FORBIDDEN, id="a policy forbids it"),
        pytest.param(422, [], WriteReason.INVALID, id="a field is immutable"),
    ],
)
async def test_a_refusal_does_not_stop_the_other_writes(
    status: int, causes: list[str], reason: WriteReason
) -> None:
    async with bench() as b:
        b.api.fail(lambda r: r.method == "POST" and r.body["metadata"]["name"] == "a", status, causes=causes)
        assert await b.write(Create(manifest=pod("a")), Create(manifest=pod("b"))) == [reason]
        assert b.api.get(PODS, "default", "b") is not None


async def test_pods_are_posted_at_once_and_one_that_is_refused_late_stops_none() -> None:
    async with bench() as b:

        def refused() -> Reply:
            return Reply(status=403, document=status_document(403, "Forbidden", "quota"))

        b.answer_late("m-0", until=lambda: b.are_there("m-1", "m-2"), answer=refused)
        async with asyncio.timeout(10):
            reasons = await b.write(*(Create(manifest=pod(f"m-{index}")) for index in range(3)))
        assert reasons == [WriteReason.FORBIDDEN]


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
        assert sorted(posted) == ["m-0", "m-1", "m-2", "m-3"]
        assert posted[-1] == "m-1", "m-0 is answered after m-2 and m-3 were made"
        assert posted.index("m-2") < posted.index("m-3")


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
        assert b.sent()[:2] == ["POST", "POST"]
        assert sorted(b.sent()[2:]) == ["PATCH", "POST"], "neither waits for the other"


async def test_nothing_waits_for_a_pod_whose_creation_failed() -> None:
    async with bench() as b:
        b.api.fail(lambda r: r.method == "POST" and r.body["metadata"]["name"] == "m-0", 500)
        later = Create(manifest=pod("m-1"), needs=frozenset({PODS.ref("default", "m-0")}))
        async with asyncio.timeout(10):
            assert await b.write(Create(manifest=pod("m-0")), later) == [WriteReason.FAILED]
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


async def test_one_write_that_fails_does_not_stop_the_others() -> None:
    async with bench() as b:
        b.api.fail(lambda r: r.method == "PATCH" and "services" in r.path, 500)
        b.api.fail(lambda r: r.method == "POST" and r.body["metadata"]["name"] == "m-0", 500)
        names = [f"m-{number}" for number in range(20)]
        writes: list[Write] = [Apply(manifest=service()), Apply(manifest=deployment())]
        writes += [Create(manifest=pod(name)) for name in names]
        refusals = await b.writer.carry_out(b.owner, writes)
        assert [(one.ref.plural, one.ref.name) for one in refusals] == [("services", "m"), ("pods", "m-0")]
        assert {one["metadata"]["name"] for one in b.api.listed(PODS)} == {*names} - {"m-0"}
        assert b.replicas() == 2


async def test_a_server_that_asks_to_wait_is_sent_nothing_more() -> None:
    async with bench() as b:
        b.api.fail(lambda r: r.method == "PATCH", 429, retry_after=7, times=1)
        (refusal,) = await b.writer.carry_out(
            b.owner, [Apply(manifest=service()), Apply(manifest=deployment()), Create(manifest=pod())]
        )
        assert (refusal.ref.plural, refusal.reason) == ("services", "WriteFailed")
        assert refusal.retry_after_seconds == 7
        assert len(b.api.writes()) == 1


async def test_a_write_whose_time_limit_passes_is_refused() -> None:
    async with bench() as b:
        b.api.hang(lambda r: r.method == "POST")
        assert await b.write(Create(manifest=pod())) == [WriteReason.FAILED]


async def test_a_pod_whose_creation_is_not_answered_counts_until_it_is_seen() -> None:
    async with bench() as b:
        b.api.lose(lambda r: r.method == "POST")
        assert await b.write(Create(manifest=pod())) == [WriteReason.FAILED]
        assumed = b.caches.get(PODS, "default", "m-0")
        assert assumed is not None
        assert is_unseen(assumed["metadata"])
        assert await b.writer.settle_doubts(b.owner) == 60
        real = b.api.get(PODS, "default", "m-0")
        assert real is not None
        b.caches.store(PODS).put(real)
        assert await b.writer.settle_doubts(b.owner) is None
        assert b.caches.listed(PODS) == [real]


@pytest.mark.parametrize("carried_out", [True, False])
async def test_a_minute_later_the_server_is_asked_for_it(carried_out: bool) -> None:
    async with bench() as b:
        b.api.lose(lambda r: r.method == "POST", late_seconds=0 if carried_out else None)
        await b.write(Create(manifest=pod()))
        b.now = 59
        assert await b.writer.settle_doubts(b.owner) == 1
        assert len(b.caches.listed(PODS)) == 1
        b.now = 60
        assert await b.writer.settle_doubts(b.owner) is None
        assert len(b.caches.listed(PODS)) == carried_out
        assert not any(is_unseen(one["metadata"]) for one in b.caches.listed(PODS))


async def test_a_pod_in_doubt_is_neither_patched_nor_deleted() -> None:
    async with bench() as b:
        b.api.lose(lambda r: r.method == "POST", late_seconds=None)
        await b.write(Create(manifest=pod()))
        (assumed,) = b.caches.listed(PODS)
        ref = PODS.ref_to(assumed)
        gone = Delete(ref=ref, uid=assumed["metadata"]["uid"])
        assert await b.write(JsonPatch(ref=ref, operations=[]), gone) == []
        assert b.sent() == ["POST"]
        assert b.caches.listed(PODS) == [assumed]


async def test_a_list_does_not_end_the_doubt() -> None:
    async with bench() as b, b.api.client() as listing:
        b.api.lose(lambda r: r.method == "POST", late_seconds=None)
        await b.write(Create(manifest=pod()))
        mirror = Mirror(resource=PODS, store=b.caches.store(PODS), client=listing, on_change=b.note_change)
        await mirror.list_anew()
        assert len(b.caches.listed(PODS)) == 1


async def test_a_delete_that_names_a_version_spares_a_newer_one() -> None:
    async with bench() as b:
        held = b.api.put(PODS, pod())
        b.caches.store(PODS).put(copy.deepcopy(held))
        serves = b.api.put(PODS, {**copy.deepcopy(held), "status": {"phase": "Running"}})
        metadata = b.caches.listed(PODS)[0]["metadata"]
        ref, version = PODS.ref("default", "m-0"), metadata["resourceVersion"]
        assert version != serves["metadata"]["resourceVersion"]
        delete = Delete(ref=ref, uid=metadata["uid"], resource_version=version)
        assert await b.write(delete) == [WriteReason.CONFLICT]
        assert b.are_there("m-0")
        assert b.caches.listed(PODS)[0]["status"] == {"phase": "Running"}
        again = Delete(ref=ref, uid=metadata["uid"], resource_version=serves["metadata"]["resourceVersion"])
        assert await b.write(again) == []
        assert not b.are_there("m-0")


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


async def test_a_word_that_follows_from_figures_waits_as_they_do() -> None:
    async with bench() as b:
        await b.status(phase="Ready", bottleneck="Model")
        assert await b.status(phase="Ready", bottleneck="Queue") == 10
        assert await b.status(phase="Paused", bottleneck="Queue") is None


async def test_a_failure_that_is_counted_does_not_wait() -> None:
    async with bench() as b:
        await b.status(load=1, backoff={"failures": 1})
        assert await b.status(load=2, backoff={"failures": 2}) is None
        assert await b.status(load=3, backoff={"failures": 2}) == 10


async def test_ten_minutes_of_steady_load_write_one_status_in_ten_seconds() -> None:
    async with bench() as b:
        for second in range(600):
            b.now = float(second)
            await b.status(load=second)
        assert len(b.sent()) == 60


@pytest.mark.holds(
    "README.md",
    "The operator changes nothing in a user's object but its status and a finalizer where one is needed",
)
async def test_finalizers_of_others_stay() -> None:
    async with bench() as b:
        metadata = b.owner.manifest["metadata"]
        foreign = b.api.put(
            MODEL_REPLICA_SETS,
            {**b.owner.manifest, "metadata": {**metadata, "finalizers": ["foregroundDeletion"]}},
        )
        b.owner = Reconciled(resource=MODEL_REPLICA_SETS, manifest=foreign)
        await b.writer.write_finalizers(b.owner, ["flotilla.dev/milvus"])
        live = b.caches.get(MODEL_REPLICA_SETS, "default", "m")
        assert live is not None
        assert live["metadata"]["finalizers"] == ["foregroundDeletion", "flotilla.dev/milvus"]
        b.owner = Reconciled(resource=MODEL_REPLICA_SETS, manifest=live)
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


@pytest.mark.parametrize(
    ("status", "message", "refused"),
    [
        pytest.param(None, "", [], id="it would be taken"),
        pytest.param(422, "a policy denied request", [WriteReason.INVALID], id="a policy refuses it"),
        pytest.param(403, "a webhook denied the request", [WriteReason.FORBIDDEN], id="a webhook refuses it"),
        pytest.param(403, "m is forbidden: exceeded quota: sets", [], id="only a quota is used up"),
        pytest.param(500, "a webhook does not answer", [WriteReason.FAILED], id="nobody can say"),
    ],
)
async def test_a_dry_run_makes_nothing_and_says_what_would_refuse_it(
    status: int | None, message: str, refused: list[WriteReason]
) -> None:
    def judge(resource: Resource, _new: Manifest) -> None:
        if status is not None and resource == MODEL_REPLICA_SETS:
            raise RefusedError(status, "Refused", message)

    async with bench() as b:
        b.api.judge = judge
        before = len(b.api.listed(MODEL_REPLICA_SETS))
        new = smallest("ModelReplicaSet")
        new["metadata"] = {"generateName": "m-", "namespace": "default"}
        ref = MODEL_REPLICA_SETS.ref_to(b.owner.manifest)
        assert await b.write(DryRun(ref=ref, manifest=new)) == refused
        assert len(b.api.listed(MODEL_REPLICA_SETS)) == before
        assert b.changes == []
        (sent,) = [request for request in b.api.requests if request.method == "POST"]
        assert sent.query["dryRun"] == "All"
