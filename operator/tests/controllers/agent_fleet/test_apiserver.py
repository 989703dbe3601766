"""A fleet's life through the real loop: a real API server, its controllers, and KWOK's nodes.

The namespace enforces restricted pod security, so every pod of ours that appears has been accepted under it.
KWOK plays the kubelet: gateways do not answer here, so how workers follow the queue is shown in test_plan.py
and, with real processes, in the demo.
"""

import json
import time
from collections.abc import Iterator
from http.client import NOT_FOUND
from typing import Any

import pytest
import yaml

from flotilla_operator.objects import resources
from flotilla_operator.objects.deletion_cost import ANNOTATION
from flotilla_runtime import contract
from local_cluster.control_plane import ControlPlane
from local_cluster.errors import ApiError
from tests.builders.agent_fleet import full_featured_objects
from tests.scenes.parts.part import is_ready
from tests.support.children import names
from tests.support.kinds import (
    STATUS_INTERVAL_SECONDS,
    Operators,
    create_volume_for,
    enforce_restricted,
    no_failures,
)
from tests.support.processes import OperatorProcess
from tests.support.site import reconciles
from tests.support.waiting import eventually

pytestmark = [pytest.mark.apiserver, pytest.mark.timeout(600)]

KINDS = "/apis/flotilla.dev/v1alpha1/namespaces/{namespace}"
WORKERS = "flotilla.dev/owner=support,app.kubernetes.io/component=worker"
OF_FLEET = "flotilla.dev/owner=support,flotilla.dev/kind=AgentFleet"
CHILDREN = (
    resources.STATEFUL_SETS,
    resources.DEPLOYMENTS,
    resources.SERVICES,
    resources.CONFIG_MAPS,
    resources.SECRETS,
    resources.NETWORK_POLICIES,
    resources.POD_DISRUPTION_BUDGETS,
    resources.PODS,
)


@pytest.fixture
def operator(operators: Operators) -> OperatorProcess:
    return operators.of("AgentFleet", node_gpus=0)


class Stage:
    """One test's namespace, in words."""

    def __init__(self, plane: ControlPlane, namespace: str) -> None:
        self.client = plane.client
        self.plane = plane
        self.namespace = namespace
        self.kinds = KINDS.format(namespace=namespace)
        self.fleets = f"{self.kinds}/agentfleets"
        self.volumes: list[str] = []

    def volume(self) -> None:
        """Room for one claim of Redis."""
        name = f"{self.namespace}-{len(self.volumes)}"
        path = create_volume_for(self.plane, self.namespace, "support-redis", name=name)
        self.volumes.append(path)

    def model(self, name: str = "llama") -> None:
        """A ModelReplicaSet that says that it answers."""
        path = f"{self.kinds}/modelreplicasets"
        model = {"name": name, "source": "hf://meta/llama"}
        body = {
            "apiVersion": "flotilla.dev/v1alpha1",
            "kind": "ModelReplicaSet",
            "metadata": {"name": name},
            "spec": {"model": model},
        }
        self.client.create(path, body)
        condition = {
            "type": "Available",
            "status": "True",
            "reason": "ReplicasAvailable",
            "message": "",
            "lastTransitionTime": "2026-05-01T12:00:00Z",
        }
        url = f"http://{name}-model.{self.namespace}.svc:8000/v1"
        self.client.merge(f"{path}/{name}/status", {"status": {"url": url, "conditions": [condition]}})

    def index(self, name: str = "handbook") -> None:
        """A VectorIndex that says that it is searched with the key in its secret."""
        path = f"{self.kinds}/vectorindexes"
        spec = {
            "source": {"path": "pvc://documents"},
            "embedding": {"modelRef": {"name": "minilm"}, "dimension": 384},
        }
        body = {"apiVersion": "flotilla.dev/v1alpha1", "kind": "VectorIndex", "metadata": {"name": name}}
        self.client.create(path, {**body, "spec": spec})
        url = f"http://{name}-retriever.{self.namespace}.svc:8080/v1/retrieve"
        keys = {"secretName": f"{name}-retriever-key", "entry": "key", "required": True}
        self.client.merge(f"{path}/{name}/status", {"status": {"url": url, "keys": keys}})

    def create(self, name: str = "support", **spec: Any) -> dict[str, Any]:
        base = {
            "agent": {"prompt": "Answer."},
            "models": [{"role": "Default", "modelRef": {"name": "llama"}}],
            "gateway": {"replicas": 1},
        }
        return self.client.create(
            self.fleets,
            {
                "apiVersion": "flotilla.dev/v1alpha1",
                "kind": "AgentFleet",
                "metadata": {"name": name},
                "spec": {**base, **spec},
            },
        )

    def change(self, **spec: Any) -> None:
        self.client.merge(f"{self.fleets}/support", {"spec": spec})

    def get(self) -> dict[str, Any]:
        return self.client.get(f"{self.fleets}/support")

    def condition(self, condition_type: str) -> dict[str, Any]:
        conditions = (self.get().get("status") or {}).get("conditions") or []
        found: dict[str, Any] = next(
            (c for c in conditions if c["type"] == condition_type),
            {"status": None, "reason": None, "message": ""},
        )
        return found

    def wait(self, condition_type: str, status: str, reason: str | None = None) -> str:
        """Until a condition says this; returns its message."""

        def holds() -> dict[str, Any] | None:
            found = self.condition(condition_type)
            same = found["status"] == status and (reason is None or found["reason"] == reason)
            return found if same else None

        try:
            message: str = eventually(holds, what=f"{condition_type}={status} {reason or ''}")["message"]
        except TimeoutError as error:
            raise TimeoutError(f"{error}\n{yaml.safe_dump(self.get().get('status'))}") from None
        return message

    def child(self, path: str) -> dict[str, Any] | None:
        """An object of the namespace, such as `apps/v1/deployments/x`, or None."""
        group, version, plural, name = path.split("/") if path.count("/") == 3 else ("", *path.split("/"))
        root = f"/apis/{group}/{version}" if group else f"/api/{version}"
        place = f"{root}/namespaces/{self.namespace}/{plural}/{name}"
        try:
            return self.client.get(place)
        except ApiError as error:
            if error.status == NOT_FOUND:
                return None
            raise

    def secret(self, name: str, **entries: str) -> None:
        path = f"/api/v1/namespaces/{self.namespace}/secrets"
        body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": entries}
        self.client.create(path, body)

    def children(self) -> list[str]:
        return names(self.client, self.namespace, CHILDREN, OF_FLEET)

    def versions(self) -> dict[str, str]:
        """The resource version of the fleet and of each of its children, by UID."""
        paths = [f"{resource.path(self.namespace)}?labelSelector={OF_FLEET}" for resource in CHILDREN]
        found = [self.get(), *(item for path in paths for item in self.client.get(path)["items"])]
        return {item["metadata"]["uid"]: item["metadata"]["resourceVersion"] for item in found}

    def look_again(self) -> dict[str, Any]:
        """Make the operator look at the fleet, which stays as it is; returns the fleet."""
        look = {"metadata": {"annotations": {"look": str(time.monotonic())}}}
        return self.client.merge(f"{self.fleets}/support", look)


@pytest.fixture
def stage(
    running_control_plane: ControlPlane, running_namespace: str, operator: OperatorProcess
) -> Iterator[Stage]:
    enforce_restricted(running_control_plane, running_namespace)
    made = Stage(running_control_plane, running_namespace)
    try:
        with no_failures(operator):
            yield made
    finally:
        for item in running_control_plane.client.get(made.fleets)["items"]:
            running_control_plane.client.delete(f"{made.fleets}/{item['metadata']['name']}")
        for volume in made.volumes:
            running_control_plane.client.delete(volume)


@pytest.mark.holds("decisions/0003-redis-for-tasks.md", "It keeps its claim when the fleet is deleted")
def test_a_fleet_waits_for_its_model_is_ready_with_it_and_leaves_its_claim(
    stage: Stage, operator: OperatorProcess
) -> None:
    stage.volume()
    stage.create()
    assert "no ModelReplicaSet 'llama'" in stage.wait("ModelsReady", "False", "ModelMissing")
    stage.wait("GatewayReady", "True")
    stage.wait("QueueReady", "True")
    assert stage.condition("Ready")["reason"] == "ModelMissing"
    assert names(stage.client, stage.namespace, (resources.DEPLOYMENTS,), WORKERS) == []

    stage.model()
    stage.wait("Ready", "True")
    status = stage.get()["status"]
    assert status["url"] == f"http://support-gateway.{stage.namespace}.svc:8080"
    assert (status["ready"], status["workers"]) == ("2/2", {"desired": 0, "ready": 0})
    table = stage.plane.kubectl("get", "af", "-n", stage.namespace)
    assert "2/2" in table
    stage.change(workers={"minReplicas": 2})
    stage.wait("WorkersReady", "True", "WorkersAvailable")
    eventually(lambda: stage.get()["status"]["ready"] == "4/4")
    is_written_no_more(stage, operator)

    claim = stage.child("v1/persistentvolumeclaims/support-redis")
    assert claim is not None
    assert "ownerReferences" not in claim["metadata"]
    stage.plane.kubectl("delete", "af/support", "-n", stage.namespace, "--cascade=foreground")
    eventually(lambda: not stage.children())
    kept = stage.child("v1/persistentvolumeclaims/support-redis")
    assert kept is not None
    assert kept["metadata"]["uid"] == claim["metadata"]["uid"]

    stage.create()
    stage.wait("Ready", "True")
    again = stage.child("v1/persistentvolumeclaims/support-redis")
    assert again is not None
    assert again["metadata"]["uid"] == claim["metadata"]["uid"], "a fleet of the same name finds its tasks"


def is_written_no_more(stage: Stage, operator: OperatorProcess) -> None:
    """Neither the fleet nor its children, although the operator looks at them again."""

    def settled() -> bool:
        before = stage.versions()
        time.sleep(2 * STATUS_INTERVAL_SECONDS)
        return stage.versions() == before

    eventually(settled)
    before, done = stage.versions(), reconciles(operator)
    looked = stage.look_again()["metadata"]
    eventually(lambda: reconciles(operator) > done)
    time.sleep(2 * STATUS_INTERVAL_SECONDS)
    assert stage.versions() == {**before, looked["uid"]: looked["resourceVersion"]}


def test_a_missing_secret_is_named_and_the_fleet_goes_on_when_it_appears(stage: Stage) -> None:
    stage.volume()
    stage.model()
    stage.create(gateway={"replicas": 1, "auth": {"mode": "Secret", "secretRef": {"name": "callers"}}})
    assert "Secret 'callers'" in stage.wait("GatewayReady", "False", "SecretMissing")
    assert stage.condition("Stalled")["status"] == "True"
    stage.secret("callers", ann="key")
    stage.wait("Ready", "True")


def test_a_paused_fleet_makes_nothing_until_it_goes_on(stage: Stage) -> None:
    stage.volume()
    stage.model()
    stage.create(paused=True)
    stage.wait("Paused", "True")
    assert stage.children() == []
    stage.change(paused=False)
    stage.wait("Ready", "True")
    assert stage.condition("Paused")["status"] is None


def test_the_password_is_made_once_and_the_claim_follows_its_policy(stage: Stage) -> None:
    stage.volume()
    stage.model()
    stage.create()
    stage.wait("Ready", "True")
    password = stage.child("v1/secrets/support-redis")
    assert password is not None
    stage.change(queue={"redis": {"deletionPolicy": "Delete"}})

    def owned() -> bool:
        claim = stage.child("v1/persistentvolumeclaims/support-redis")
        return bool(claim and claim["metadata"].get("ownerReferences"))

    eventually(owned)
    stage.plane.kubectl("delete", "af/support", "-n", stage.namespace, "--cascade=foreground")
    eventually(lambda: not stage.children())
    eventually(lambda: stage.child("v1/persistentvolumeclaims/support-redis") is None)
    assert stage.child("v1/secrets/support-redis") is None


def test_with_a_redis_of_the_users_own_ours_is_taken_down(stage: Stage) -> None:
    stage.volume()
    stage.model()
    stage.create()
    stage.wait("Ready", "True")
    stage.secret("redis", url="redis://redis.example:6379")
    stage.change(queue={"redis": {"mode": "External", "urlSecretRef": {"name": "redis"}}})
    eventually(lambda: stage.child("apps/v1/statefulsets/support-redis") is None)
    eventually(lambda: stage.child("v1/services/support-redis") is None)
    assert stage.child("v1/persistentvolumeclaims/support-redis") is not None
    stage.wait("QueueReady", "False", "RedisUnreachable")


@pytest.mark.holds("tasks.md", "With `gateway.tls` the port is named `https`, and `status.url` says so")
def test_with_a_certificate_callers_are_led_to_https_and_without_it_back(stage: Stage) -> None:
    """The Service leads to the same port of the pods all the time, so a roll leaves no caller without one."""
    stage.volume()
    stage.model()
    stage.create()
    stage.wait("Ready", "True")

    def port() -> tuple[str, int, str]:
        (found,) = (stage.child("v1/services/support-gateway") or {})["spec"]["ports"]
        return found["name"], found["port"], found["targetPort"]

    assert port() == ("http", 8080, "http")
    stage.change(gateway={"tls": {"secretRef": {"name": "tls"}}})
    stage.wait("GatewayReady", "False", "SecretMissing")
    assert port() == ("http", 8080, "http")
    stage.secret("tls", **{"tls.crt": "certificate", "tls.key": "key"})
    stage.wait("Ready", "True")
    eventually(lambda: port() == ("https", 8080, "http"))
    assert stage.get()["status"]["url"].startswith("https://")
    stage.change(gateway={"tls": None})
    eventually(lambda: port() == ("http", 8080, "http"))


def worker_deployments(stage: Stage) -> dict[str, dict[str, Any]]:
    """The Deployments of workers, by revision."""
    path = f"{resources.DEPLOYMENTS.path(stage.namespace)}?labelSelector={WORKERS}"
    return {
        one["metadata"]["labels"]["flotilla.dev/revision"]: one for one in stage.client.get(path)["items"]
    }


def worker_pods(stage: Stage) -> list[dict[str, Any]]:
    """The worker pods that are ready and stay."""
    path = f"{resources.PODS.path(stage.namespace)}?labelSelector={WORKERS}"
    return [
        pod
        for pod in stage.client.get(path)["items"]
        if "deletionTimestamp" not in pod["metadata"] and is_ready(pod)
    ]


def test_a_new_revision_takes_over_with_objects_of_its_own(stage: Stage, operator: OperatorProcess) -> None:
    """No gateway answers here, so nobody says that no task of the old one is left: its deadline ends it."""
    stage.volume()
    stage.model()
    stage.create(workers={"minReplicas": 1}, update={"deadlineSeconds": 5})
    stage.wait("Ready", "True")
    (old,) = worker_deployments(stage)
    stage.change(agent={"prompt": "Answer otherwise."})
    stage.wait("Progressing", "True", "Updating")
    eventually(lambda: set(worker_deployments(stage)) != {old} and old not in worker_deployments(stage))
    (new,) = worker_deployments(stage)
    config = stage.child(f"v1/configmaps/support-worker-{new}")
    assert config is not None
    assert json.loads(config["data"]["adopted.json"]) == sorted(["", old])
    assert stage.child(f"v1/configmaps/support-worker-{old}") is None
    stage.wait("Progressing", "True", "Settled")
    stage.wait("Ready", "True")
    assert stage.get()["status"]["revision"] == new
    is_written_no_more(stage, operator)


def test_kubernetes_deletes_the_pods_with_the_lowest_cost(stage: Stage) -> None:
    stage.volume()
    stage.model()
    stage.create(workers={"minReplicas": 3})
    first, second, third = eventually(lambda: found if len(found := worker_pods(stage)) == 3 else None)
    for pod, cost in ((first, "5"), (second, "0"), (third, "7")):
        path = f"{resources.PODS.path(stage.namespace)}/{pod['metadata']['name']}"
        stage.client.merge(path, {"metadata": {"annotations": {ANNOTATION: cost}}})
    stage.change(workers={"minReplicas": 1, "maxReplicas": 1})
    (kept,) = eventually(lambda: found if len(found := worker_pods(stage)) == 1 else None)
    assert kept["metadata"]["uid"] == third["metadata"]["uid"]


@pytest.mark.holds(
    "search.md",
    "Fleets have the generated key; in a Secret of the user's they need an entry `agentfleet-NAME`",
)
def test_workers_with_the_key_of_an_index_are_admitted(stage: Stage) -> None:
    stage.model()
    stage.index()
    indexes = [{"name": "h", "indexRef": {"name": "handbook"}}]
    stage.create(indexes=indexes, workers={"minReplicas": 1})
    of_worker = f"{OF_FLEET},app.kubernetes.io/component=worker"
    path = f"{resources.PODS.path(stage.namespace)}?labelSelector={of_worker}"
    (pod,) = eventually(lambda: stage.client.get(path)["items"])
    assert pod["metadata"]["labels"][contract.LABEL_INDEX_KEYS] == contract.INDEX_KEYS_SENT
    (volume,) = (one for one in pod["spec"]["volumes"] if one["name"] == "index-keys")
    (source,) = volume["projected"]["sources"]
    assert source["secret"]["name"] == "handbook-retriever-key"
    assert source["secret"]["items"] == [{"key": "key", "path": "h"}]


@pytest.mark.parametrize("fleet", full_featured_objects(), ids=lambda fleet: fleet["metadata"]["name"])
def test_every_field_is_taken_by_the_api_server(stage: Stage, fleet: dict[str, Any]) -> None:
    body = {**fleet, "metadata": {"name": fleet["metadata"]["name"]}}
    stage.client.create(f"{stage.fleets}?dryRun=All&fieldValidation=Strict", body)
