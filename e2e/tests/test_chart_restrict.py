"""The chart's restrict.enabled on a real API server: what users of the kinds may not say, and what passes."""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from local_cluster.api_client import ApiClient
from local_cluster.control_plane import ControlPlane
from local_cluster.errors import ApiError
from tests.builders.api_objects import smallest
from tests.support.restricted import KINDS, attempt, restricted_namespace

pytestmark = [pytest.mark.apiserver, pytest.mark.timeout(600)]

VALUES = {
    "restrict.enabled": "true",
    "restrict.serviceAccounts": json.dumps(["models"]),
    "restrict.imagePrefixes": json.dumps(["registry.example.com/llm/"]),
    "restrict.pythonModules": json.dumps(["support", "support.*"]),
    "restrict.metadataPrefixes": json.dumps(["costs.example.com/", "team"]),
}
SET, FLEET = "ModelReplicaSet", "AgentFleet"
SECRET = {"name": "APP_TOKEN", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}
PLAIN = [
    {"name": "APP_A", "value": "b"},
    {"name": "HTTPS_PROXY", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "k"}}},
    {"name": "VLLM_LOGGING_LEVEL", "value": "DEBUG"},
]


@pytest.fixture(scope="module")
def restricted(control_plane: ControlPlane) -> ApiClient:
    return control_plane.client


@pytest.fixture(scope="module")
def namespace(restricted: ApiClient) -> Iterator[str]:
    with restricted_namespace(restricted, VALUES) as name:
        yield name


def volume(**source: Any) -> dict[str, Any]:
    return {"pod": {"volumes": [{"name": "v", **source}]}}


def of_workers(**source: Any) -> dict[str, Any]:
    return {"workers": volume(**source)}


@pytest.mark.holds(
    "security.md",
    "`restrict.enabled` bounds Secrets, volumes, images and service accounts on a real API server; "
    "what is allowed passes",
)
@pytest.mark.attack("A user of the kinds reads a Secret of the namespace, or a file of the node")
@pytest.mark.parametrize(
    ("kind", "spec", "words"),
    [
        pytest.param(SET, {"engine": {"env": [*PLAIN, SECRET]}}, "spec.engine.env", id="a variable"),
        pytest.param(
            SET, {"router": {"pod": {"env": [SECRET]}}}, "spec.router.pod.env", id="a variable of the routers"
        ),
        pytest.param(
            FLEET, {"workers": {"pod": {"env": [SECRET]}}}, "spec.workers.pod.env", id="or of workers"
        ),
        pytest.param(
            FLEET,
            {"toolExecutors": {"pod": {"env": [SECRET]}}},
            "spec.toolExecutors.pod.env",
            id="or of tool executors",
        ),
        pytest.param(
            FLEET,
            {"toolExecutors": volume(secret={"secretName": "s"})},
            "spec.toolExecutors.pod.volumes",
            id="or a volume of tool executors",
        ),
        pytest.param(SET, volume(secret={"secretName": "s"}), "spec.pod.volumes", id="a volume"),
        pytest.param(
            SET,
            volume(projected={"sources": [{"secret": {"name": "s"}}]}),
            "restrict.volumeTypes",
            id="a projected volume",
        ),
        pytest.param(SET, volume(hostPath={"path": "/"}), "spec.pod.volumes", id="the node's files"),
        pytest.param(
            FLEET,
            of_workers(secret={"secretName": "s"}),
            "spec.workers.pod.volumes",
            id="workers",
        ),
        pytest.param(FLEET, of_workers(hostPath={"path": "/"}), "restrict.volumeTypes", id="or their node's"),
    ],
)
def test_no_secret_and_no_file_of_the_node_is_read(
    kind: str, spec: dict[str, Any], words: str, restricted: ApiClient, namespace: str
) -> None:
    refusal = attempt(restricted, namespace, kind, spec)
    assert refusal is not None
    assert words in refusal


@pytest.mark.holds(
    "security.md",
    "`restrict.enabled` bounds Secrets, volumes, images and service accounts on a real API server; "
    "what is allowed passes",
)
@pytest.mark.attack("A user of the kinds runs an image or a service account of their choice")
@pytest.mark.parametrize(
    ("kind", "spec", "words"),
    [
        pytest.param(SET, {"engine": {"image": "evil/vllm"}}, "restrict.imagePrefixes", id="an engine"),
        pytest.param(
            SET,
            {"engine": {"image": "registry.example.com/llm-evil/vllm"}},
            "spec.engine.image",
            id="a name that only begins alike",
        ),
        pytest.param("VectorIndex", {"milvus": {"image": "evil/milvus"}}, "spec.milvus.image", id="a Milvus"),
        pytest.param(FLEET, {"image": "evil/agents"}, "spec.image begins with no", id="workers"),
        pytest.param(
            SET,
            {"pod": {"serviceAccountName": "admin"}},
            "restrict.serviceAccounts",
            id="a service account",
        ),
    ],
)
def test_no_other_image_or_service_account_runs(
    kind: str, spec: dict[str, Any], words: str, restricted: ApiClient, namespace: str
) -> None:
    refusal = attempt(restricted, namespace, kind, spec)
    assert refusal is not None
    assert words in refusal


@pytest.mark.holds(
    "security.md",
    "`restrict.enabled` bounds Secrets, volumes, images and service accounts on a real API server; "
    "what is allowed passes",
)
@pytest.mark.parametrize(
    ("kind", "spec"),
    [
        pytest.param(SET, {}, id="the smallest set"),
        pytest.param("VectorIndex", {}, id="the smallest index"),
        pytest.param("AgentFleet", {}, id="the smallest fleet"),
        pytest.param(SET, {"engine": {"env": PLAIN}}, id="variables without Secrets"),
        pytest.param(SET, {"pod": {"serviceAccountName": "models"}}, id="an allowed account"),
        pytest.param(SET, volume(configMap={"name": "m"}), id="an allowed volume"),
        pytest.param(FLEET, of_workers(configMap={"name": "m"}), id="an allowed volume of workers"),
        pytest.param(FLEET, {"image": "registry.example.com/llm/agents:1"}, id="an allowed image of workers"),
        pytest.param(SET, {"engine": {"image": "registry.example.com/llm/vllm:1"}}, id="an allowed image"),
    ],
)
def test_what_is_allowed_passes(
    kind: str, spec: dict[str, Any], restricted: ApiClient, namespace: str
) -> None:
    assert attempt(restricted, namespace, kind, spec) is None


@pytest.mark.holds("security.md", "An object that was there before can be deleted")
@pytest.mark.parametrize(
    ("kind", "not_allowed", "change"),
    [
        pytest.param(SET, {"pod": {"serviceAccountName": "admin"}}, {"replicas": 2}, id="a set"),
        pytest.param(
            "VectorIndex",
            {"milvus": {"image": "evil/milvus"}},
            {"build": {"parallelism": 2}},
            id="an index",
        ),
    ],
)
def test_an_older_object_that_is_not_allowed_can_be_changed_elsewhere_and_deleted(
    kind: str, not_allowed: dict[str, Any], change: dict[str, Any], restricted: ApiClient, namespace: str
) -> None:
    """The object is made while the namespace is not restricted; then it gets and loses a finalizer."""
    labels = f"/api/v1/namespaces/{namespace}"
    restricted.merge(labels, {"metadata": {"labels": {"restricted": None}}})
    manifest = smallest(kind, name="older", namespace=namespace)
    for field, value in not_allowed.items():
        manifest["spec"][field] = {**manifest["spec"].get(field, {}), **value}
    manifest["metadata"]["finalizers"] = ["example.com/held"]
    objects = f"/apis/flotilla.dev/v1alpha1/namespaces/{namespace}/{KINDS[kind]}"
    eventually_created(restricted, objects, manifest)
    restricted.merge(labels, {"metadata": {"labels": {"restricted": "yes"}}})
    older = f"{objects}/older"
    deadline = time.monotonic() + 60
    while changed(restricted, older, {"spec": change}):
        assert time.monotonic() < deadline, "the policies are not in force"
        time.sleep(0.5)
    assert changed(restricted, older, {"metadata": {"labels": {"a": "b"}}})
    assert changed(restricted, f"{older}/status", {"status": {"observedGeneration": 1}})
    restricted.delete(older)
    assert changed(restricted, older, {"metadata": {"finalizers": None}})
    assert not restricted.exists(older)


def eventually_created(client: ApiClient, path: str, manifest: dict[str, Any]) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            client.create(path, manifest)
            return
        except ApiError:
            assert time.monotonic() < deadline
            time.sleep(0.5)


def changed(client: ApiClient, path: str, patch: dict[str, Any]) -> bool:
    try:
        client.merge(path, patch)
    except ApiError:
        return False
    return True
