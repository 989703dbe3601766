"""An index's whole life through the real loop: a real API server, Job controller and garbage collector.

The namespace enforces restricted pod security. The test plays the kubelet: it ends a step's pod with the
termination message that the runtime's step would leave. Builds that really build are in the runtime's tests.
"""

import json
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest
import yaml

from flotilla_operator.objects import resources
from flotilla_operator.telemetry.answers import BODY_LIMIT_BYTES
from flotilla_runtime.contract import BuildReason, BuildStep, StepReport
from leaks.planted import planted
from local_cluster.control_plane import ControlPlane
from local_cluster.errors import ApiError
from tests.builders.vector_index import full_featured_objects
from tests.controllers.vector_index.indexes import planned, promoted
from tests.support.children import names
from tests.support.hostile import Hostile, answering, listening
from tests.support.kinds import Operators, enforce_restricted, no_failures
from tests.support.processes import OperatorProcess
from tests.support.waiting import eventually

pytestmark = [pytest.mark.apiserver, pytest.mark.timeout(600)]

KINDS = "/apis/flotilla.dev/v1alpha1/namespaces/{namespace}/{plural}"
NOW = "2026-05-01T12:00:00Z"
CHILDREN = (
    resources.PODS,
    resources.JOBS,
    resources.SERVICES,
    resources.CONFIG_MAPS,
    resources.DEPLOYMENTS,
    resources.STATEFUL_SETS,
    resources.POD_DISRUPTION_BUDGETS,
    resources.NETWORK_POLICIES,
    resources.PERSISTENT_VOLUME_CLAIMS,
)


@pytest.fixture
def operator(operators: Operators) -> OperatorProcess:
    return operators.of("VectorIndex")


class Stage:
    """One test's namespace, in words."""

    def __init__(self, plane: ControlPlane, namespace: str) -> None:
        self.client = plane.client
        self.plane = plane
        self.namespace = namespace
        self.core = f"/api/v1/namespaces/{namespace}"
        self.jobs_path = f"/apis/batch/v1/namespaces/{namespace}/jobs"
        self.indexes = KINDS.format(namespace=namespace, plural="vectorindexes")

    def claim(self, name: str = "documents") -> None:
        spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
        body = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": spec}
        self.client.create(f"{self.core}/persistentvolumeclaims", body)

    def embedder(self) -> None:
        self.claim("models")
        path = KINDS.format(namespace=self.namespace, plural="modelreplicasets")
        model = {"name": "all-minilm", "source": "pvc://models/minilm", "task": "Embed"}
        body = {
            "apiVersion": "flotilla.dev/v1alpha1",
            "kind": "ModelReplicaSet",
            "metadata": {"name": "minilm"},
        }
        self.client.create(path, {**body, "spec": {"model": model}})
        condition = {
            "type": "Available",
            "status": "True",
            "reason": "Yes",
            "message": "",
            "lastTransitionTime": NOW,
        }
        self.client.merge(f"{path}/minilm/status", {"status": {"conditions": [condition]}})

    def create(self, name: str = "handbook", **spec: Any) -> None:
        base = {
            "source": {"path": "pvc://documents/handbook"},
            "embedding": {"modelRef": {"name": "minilm"}, "dimension": 384},
        }
        body = {"apiVersion": "flotilla.dev/v1alpha1", "kind": "VectorIndex", "metadata": {"name": name}}
        self.client.create(self.indexes, {**body, "spec": {**base, **spec}})

    def get(self, name: str = "handbook") -> dict[str, Any]:
        return self.client.get(f"{self.indexes}/{name}")

    def wait(self, kind: str, status: str, reason: str | None = None, name: str = "handbook") -> str:
        """Until a condition says this; returns its message."""

        def holds() -> dict[str, Any] | None:
            conditions = (self.get(name).get("status") or {}).get("conditions") or []
            found = next((c for c in conditions if c["type"] == kind and c["status"] == status), None)
            return found if found and reason in (None, found["reason"]) else None

        try:
            message: str = eventually(holds)["message"]
        except TimeoutError as error:
            raise TimeoutError(f"{error}\n{yaml.safe_dump(self.get(name).get('status'))}") from None
        return message

    def pods(self, selector: str) -> list[dict[str, Any]]:
        items = self.client.get(f"{self.core}/pods?labelSelector={selector}")["items"]
        return [pod for pod in items if "deletionTimestamp" not in pod["metadata"]]

    def ready(self, component: str, name: str = "handbook") -> None:
        """The component's pod is ready, as a kubelet would say."""
        selector = f"flotilla.dev/owner={name},app.kubernetes.io/component={component}"
        for pod in eventually(lambda: self.pods(selector)):
            condition = {"type": "Ready", "status": "True", "lastTransitionTime": NOW}
            status = {"phase": "Running", "conditions": [condition], "startTime": NOW}
            self.client.merge(f"{self.core}/pods/{pod['metadata']['name']}/status", {"status": status})

    def end(self, step: BuildStep, report: StepReport, name: str = "handbook") -> None:
        """Every pod of the step's Job ends with this report."""
        selector = f"flotilla.dev/owner={name},flotilla.dev/step={step}"

        def open_pods() -> list[dict[str, Any]]:
            return [pod for pod in self.pods(selector) if pod["status"]["phase"] == "Pending"]

        for pod in eventually(open_pods):
            code = 0 if report.reason is None else 3
            terminated = {
                "exitCode": code,
                "message": report.model_dump_json(exclude_defaults=True),
                "startedAt": NOW,
                "finishedAt": NOW,
            }
            container = {
                "name": str(step),
                "image": "i",
                "imageID": "",
                "ready": False,
                "restartCount": 0,
                "state": {"terminated": terminated},
            }
            phase = "Succeeded" if code == 0 else "Failed"
            status = {"phase": phase, "containerStatuses": [container], "startTime": NOW}
            self.client.merge(f"{self.core}/pods/{pod['metadata']['name']}/status", {"status": status})

    def jobs(self, name: str = "handbook") -> dict[str, dict[str, Any]]:
        items = self.client.get(f"{self.jobs_path}?labelSelector=flotilla.dev/owner={name}")["items"]
        return {job["metadata"]["labels"]["flotilla.dev/step"]: job for job in items}

    def build(self) -> None:
        self.end(BuildStep.PLAN, planned(shards=2))
        eventually(lambda: "shards" in self.jobs())
        eventually(lambda: len(self.pods("flotilla.dev/step=shards")) == 2)
        self.end(BuildStep.SHARDS, StepReport(step=BuildStep.SHARDS))
        self.end(BuildStep.PROMOTE, promoted())
        self.ready("retriever")

    def everything(self, name: str = "handbook") -> list[str]:
        """Objects with the index's label."""
        return names(self.client, self.namespace, CHILDREN, f"flotilla.dev/owner={name}")


@pytest.fixture
def stage(
    running_control_plane: ControlPlane, running_namespace: str, operator: OperatorProcess
) -> Iterator[Stage]:
    enforce_restricted(running_control_plane, running_namespace)
    made = Stage(running_control_plane, running_namespace)
    with no_failures(operator):
        yield made


@pytest.mark.holds("search.md", "`status.url` is the URL of the page")
@pytest.mark.holds("architecture.md", "Each kind makes the objects that the page lists")
def test_an_index_is_built_served_and_leaves_only_its_claim(stage: Stage) -> None:
    stage.create()
    assert "no ModelReplicaSet 'minilm'" in stage.wait("EmbedderReady", "False", "ModelMissing")
    assert "create it" in stage.wait("SourceReachable", "False", "ClaimMissing")
    stage.wait("Ready", "False")
    stage.claim()
    stage.embedder()
    stage.wait("EmbedderReady", "True")
    stage.ready("milvus")
    stage.wait("MilvusReady", "True")
    stage.wait("Built", "False", "Building")
    assert stage.get()["status"]["phase"] == "Building"
    stage.build()
    stage.wait("Ready", "True")
    status = stage.get()["status"]
    assert status["phase"] == "Ready"
    assert status["documents"]["indexed"] == 9
    assert status["url"] == f"http://handbook-retriever.{stage.namespace}.svc:8080/v1/retrieve"
    table = stage.plane.kubectl("get", "vi", "-n", stage.namespace)
    assert "81" in table
    assert status["activeGeneration"] in table
    before = {item["metadata"]["uid"]: item["metadata"]["resourceVersion"] for item in stage.jobs().values()}

    stage.client.merge(f"{stage.indexes}/handbook", {"spec": {"source": {"revision": "2"}}})

    def built_anew() -> bool:
        jobs = stage.jobs()
        return bool(jobs) and not before.keys() & {job["metadata"]["uid"] for job in jobs.values()}

    eventually(built_anew)
    assert stage.get()["status"]["activeGeneration"] == status["activeGeneration"]
    stage.build()
    stage.wait("Ready", "True")

    stage.plane.kubectl(
        "delete", "vi/handbook", "-n", stage.namespace, "--cascade=foreground", "--wait=false"
    )
    eventually(lambda: stage.everything() == ["persistentvolumeclaims/handbook-milvus"])


def test_an_empty_source_is_said_and_tried_again(stage: Stage) -> None:
    stage.claim()
    stage.embedder()
    stage.create()
    stage.ready("milvus")
    empty = StepReport(
        step=BuildStep.PLAN,
        reason=BuildReason.SOURCE_EMPTY,
        message="source.path: no file matches; add documents",
    )
    stage.end(BuildStep.PLAN, empty)
    assert "add documents" in stage.wait("SourceReachable", "False", "SourceEmpty")
    stage.wait("Stalled", "True", "SourceEmpty")
    first = stage.jobs()["plan"]["metadata"]["uid"]
    eventually(lambda: stage.jobs().get("plan", {"metadata": {"uid": first}})["metadata"]["uid"] != first)
    stage.build()
    stage.wait("Ready", "True")


def test_the_server_takes_every_object_of_every_full_featured_index(stage: Stage) -> None:
    stage.embedder()
    stage.claim()
    stage.claim("shared")
    stage.client.create(
        f"{stage.core}/configmaps",
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "pages"}, "data": {"a.md": "# A"}},
    )
    for name, entries in {"milvus": {"pass": "root:x"}, "searchers": {"ann": "k"}}.items():
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": entries}
        stage.client.create(f"{stage.core}/secrets", secret)
    for manifest in full_featured_objects():
        spec = {**manifest["spec"], "paused": False}
        stage.create(manifest["metadata"]["name"], **spec)
    stage.ready("milvus", "full-lite")
    for name in ("full-lite", "full-external"):
        eventually(partial(is_being_planned, stage, name))
        selector = f"flotilla.dev/owner={name},flotilla.dev/step=plan"
        assert eventually(partial(stage.pods, selector))
    finalizers = stage.get("full-external")["metadata"]["finalizers"]
    assert finalizers == ["flotilla.dev/milvus"]
    assert "finalizers" not in stage.get("full-lite")["metadata"]


def is_being_planned(stage: Stage, index: str) -> bool:
    return "plan" in stage.jobs(index)


class Milvus(BaseHTTPRequestHandler):
    """Milvus' HTTP interface, as far as a farewell needs it."""

    collections: set[str]
    calls: list[tuple[str, dict[str, str], str | None]]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.calls.append((self.path, body, self.headers["Authorization"]))
        data: Any = {}
        if self.path.endswith("collections/list"):
            data = sorted(self.collections)
        if self.path.endswith("collections/drop"):
            self.collections.discard(body["collectionName"])
        content = json.dumps({"code": 0, "data": data}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def milvus() -> Iterator[tuple[str, type[Milvus]]]:
    """The URI of the stand-in, and what it was told."""
    handler = type("Bound", (Milvus,), {"collections": set(), "calls": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", handler
    server.shutdown()
    server.server_close()


@pytest.mark.holds(
    "decisions/0007-index-builds.md",
    "An external Milvus with deletionPolicy Delete is emptied within 45 s, and an event names what was left",
)
def test_a_deleted_index_empties_the_milvus_of_somebody_elses(
    stage: Stage, milvus: tuple[str, type[Milvus]]
) -> None:
    uri, told = milvus
    prefix = f"flotilla_{stage.namespace.replace('-', '_')}_handbook_"
    stage.client.create(
        f"{stage.core}/secrets",
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "milvus"},
            "stringData": {"token": f"root:{planted('x')}"},
        },
    )
    external = {"mode": "External", "uri": uri, "tokenSecretRef": {"name": "milvus"}}
    stage.create(milvus=external, retention={"deletionPolicy": "Delete"})
    eventually(lambda: stage.get()["metadata"].get("finalizers"))
    stage.wait("MilvusReady", "True")
    alias = retriever_alias(stage)
    assert alias.startswith(prefix)
    told.collections |= {f"{alias}_g_one", f"{alias}_g_two", "somebody_elses"}
    stage.client.delete(f"{stage.indexes}/handbook")
    eventually(lambda: gone(stage))
    assert told.collections == {"somebody_elses"}
    drops = [path for path, _, _ in told.calls if path.endswith("/drop")]
    assert [path.split("/")[-2] for path in drops] == ["aliases", "collections", "collections"]
    assert all(authorization == f"Bearer root:{planted('x')}" for _, _, authorization in told.calls)


@pytest.mark.holds(
    "decisions/0007-index-builds.md",
    "An external Milvus with deletionPolicy Delete is emptied within 45 s, and an event names what was left",
)
def test_a_namespace_ends_though_milvus_and_its_secret_are_gone(stage: Stage) -> None:
    external = {"mode": "External", "uri": "http://127.0.0.1:1", "tokenSecretRef": {"name": "never"}}
    stage.create(milvus=external, retention={"deletionPolicy": "Delete"})
    stage.create("lite")
    eventually(lambda: stage.get()["metadata"].get("finalizers"))
    stage.wait("MilvusReady", "False", "SecretMissing")
    stage.client.delete(f"/api/v1/namespaces/{stage.namespace}")
    eventually(lambda: gone(stage))


LEAVES_NOTHING = {"deletionPolicy": "Delete"}


@pytest.mark.attack("That Milvus redirects, answers without end, or never")
@pytest.mark.parametrize(
    ("endless", "status", "why"),
    [
        pytest.param(False, "307 Elsewhere", "status 307", id="a redirect"),
        pytest.param(True, "200 OK", "longer than", id="without end"),
    ],
)
def test_an_index_goes_whatever_its_milvus_answers(
    endless: bool, status: str, why: str, stage: Stage
) -> None:
    with listening(Hostile(port=0, answer=answering("200 OK")), ["127.0.0.1"]) as aim:
        elsewhere = answering(status, Location=f"http://127.0.0.1:{aim.port}/")
        with listening(Hostile(port=0, answer=elsewhere, endless=endless), ["127.0.0.1"]) as milvus:
            uri = f"http://127.0.0.1:{milvus.port}"
            assert why in what_was_left(stage, uri)
            assert milvus.asked
            assert milvus.longest_read < 16 * BODY_LIMIT_BYTES, "most of it fills buffers"
        assert aim.asked == {}


@pytest.mark.holds("security.md", "A clean-up connects to no address that tools may not reach")
@pytest.mark.attack(
    "`milvus.uri` with `deletionPolicy: Delete` names the address where a cloud keeps its credentials"
)
def test_an_index_goes_and_its_milvus_is_no_address_of_a_clouds_credentials(stage: Stage) -> None:
    assert "does not connect to 169.254.169.254" in what_was_left(stage, "http://169.254.169.254:80")


def what_was_left(stage: Stage, uri: str) -> str:
    """The event of an index that was deleted with such a Milvus."""
    stage.create(milvus={"mode": "External", "uri": uri}, retention=LEAVES_NOTHING)
    eventually(lambda: stage.get()["metadata"].get("finalizers"))
    stage.client.delete(f"{stage.indexes}/handbook")
    eventually(lambda: gone(stage))
    return str(eventually(partial(note_of_what_was_left, stage)))


def note_of_what_was_left(stage: Stage) -> str | None:
    """The event comes a moment after the index has gone."""
    events = stage.client.get(f"/apis/events.k8s.io/v1/namespaces/{stage.namespace}/events")["items"]
    return next((one["note"] for one in events if "were not removed" in one.get("note", "")), None)


def retriever_alias(stage: Stage) -> str:
    config_map = stage.client.get(f"{stage.core}/configmaps/handbook-retriever")
    alias: str = json.loads(config_map["data"]["config.json"])["alias"]
    return alias


def gone(stage: Stage) -> bool:
    try:
        stage.get()
    except ApiError as error:
        return error.status == 404
    return False
