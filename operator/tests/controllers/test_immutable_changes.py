"""Changes of fields that end in something Kubernetes does not let anybody change.

Each gives a replacement, a condition or a refusal at apply, and nothing hangs: what else was changed with it
is done, and taking the change back mends the object. New Jobs of a new build are in the index's own tests.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

from flotilla_operator.api.kinds import KINDS
from local_cluster.control_plane import ControlPlane
from local_cluster.errors import ApiError
from tests.builders.api_objects import changed, smallest
from tests.support.kinds import create_volume_for
from tests.support.waiting import eventually

pytestmark = [pytest.mark.apiserver, pytest.mark.timeout(900)]

PLURALS = {kind.name: kind.plural for kind in KINDS}
PATHS = {
    "Pod": "/api/v1/namespaces/{}/pods",
    "Service": "/api/v1/namespaces/{}/services",
    "PersistentVolumeClaim": "/api/v1/namespaces/{}/persistentvolumeclaims",
    "PodDisruptionBudget": "/apis/policy/v1/namespaces/{}/poddisruptionbudgets",
}


class Stage:
    """One object `x` of a kind in a namespace of its own."""

    def __init__(self, plane: ControlPlane, namespace: str, kind: str) -> None:
        self.client = plane.client
        self.namespace = namespace
        self.kind = kind
        self.folder = f"/apis/flotilla.dev/v1alpha1/namespaces/{namespace}/{PLURALS[kind]}"

    def create(self, **values: Any) -> None:
        manifest = changed(smallest(self.kind, name="x", namespace=self.namespace), **values)
        self.client.create(self.folder, manifest)

    def change(self, **values: Any) -> None:
        """A whole new spec, as `kubectl replace` sends it."""
        manifest = changed({"spec": self.get()["spec"]}, **values)
        self.client.merge(f"{self.folder}/x", manifest)

    def get(self) -> dict[str, Any]:
        return self.client.get(f"{self.folder}/x")

    def condition(self, condition_type: str) -> dict[str, Any]:
        """A condition of the newest generation, or nothing."""
        manifest = self.get()
        conditions = (manifest.get("status") or {}).get("conditions") or []
        generation = manifest["metadata"]["generation"]
        found: dict[str, Any] = next(
            (c for c in conditions if c["type"] == condition_type and c["observedGeneration"] == generation),
            {},
        )
        return found

    def child(self, kind: str, name: str) -> dict[str, Any] | None:
        path = f"{PATHS[kind].format(self.namespace)}/{name}"
        return self.client.get(path) if self.client.exists(path) else None

    def engine_pods(self) -> dict[str, str]:
        """The UIDs of the set's pods that stay, and how far each is."""
        items = self.client.get(f"{PATHS['Pod'].format(self.namespace)}?labelSelector=flotilla.dev/stage=0")
        return {
            pod["metadata"]["uid"]: pod["status"]["phase"]
            for pod in items["items"]
            if "deletionTimestamp" not in pod["metadata"]
        }


@pytest.fixture
def volumes(running_control_plane: ControlPlane, running_namespace: str) -> Iterator[None]:
    """A volume that nobody can grow, for the claim of Redis."""
    path = create_volume_for(running_control_plane, running_namespace, "x-redis", name=running_namespace)
    yield
    running_control_plane.client.delete(path)


@dataclass(frozen=True, kw_only=True)
class Said:
    """Words of Ready on a change that cannot be done; `mended` takes the change back."""

    reason: str
    words: tuple[str, ...]
    mended: dict[str, Any]
    stalled: bool


REDIS = "spec__queue__redis__storage"
MILVUS = "spec__milvus__storage"
CANNOT = [
    pytest.param(
        "AgentFleet",
        {f"{REDIS}__size": "20Gi"},
        Said(
            reason="Forbidden",
            words=("spec.queue.redis.storage", "x-redis", "resize"),
            mended={f"{REDIS}__size": "10Gi"},
            stalled=False,
        ),
        id="Redis' claim grows where it cannot",
    ),
    pytest.param(
        "AgentFleet",
        {f"{REDIS}__size": "5Gi"},
        Said(
            reason="Invalid",
            words=("spec.queue.redis.storage", "x-redis", "less than"),
            mended={f"{REDIS}__size": "10Gi"},
            stalled=True,
        ),
        id="Redis' claim shrinks",
    ),
    pytest.param(
        "AgentFleet",
        {f"{REDIS}__storageClassName": "other"},
        Said(
            reason="Invalid",
            words=("spec.queue.redis.storage", "x-redis", "immutable"),
            mended={f"{REDIS}__storageClassName": "first"},
            stalled=True,
        ),
        id="Redis' claim changes its class",
    ),
    pytest.param(
        "VectorIndex",
        {f"{MILVUS}__size": "20Gi"},
        Said(
            reason="Invalid",
            words=("x-milvus", "immutable"),
            mended={f"{MILVUS}__size": "10Gi"},
            stalled=True,
        ),
        id="Milvus' claim grows before it is bound",
    ),
    pytest.param(
        "VectorIndex",
        {f"{MILVUS}__storageClassName": "other"},
        Said(
            reason="Invalid",
            words=("x-milvus", "immutable"),
            mended={f"{MILVUS}__storageClassName": "first"},
            stalled=True,
        ),
        id="Milvus' claim changes its class",
    ),
]
CLAIMS = {"AgentFleet": "x-redis", "VectorIndex": "x-milvus"}
FIRST = {
    "AgentFleet": {f"{REDIS}__size": "10Gi"},
    "VectorIndex": {f"{MILVUS}__size": "10Gi"},
}
ALONGSIDE = {"AgentFleet": "gateway", "VectorIndex": "retriever"}


@pytest.mark.usefixtures("operator_of_all", "volumes")
@pytest.mark.parametrize(("kind", "change", "said"), CANNOT)
def test_what_cannot_be_done_is_said_and_taking_it_back_mends_it(
    running_control_plane: ControlPlane,
    running_namespace: str,
    kind: str,
    change: dict[str, Any],
    said: Said,
) -> None:
    stage, claim = Stage(running_control_plane, running_namespace, kind), CLAIMS[kind]
    named = {name: value for name, value in said.mended.items() if name.endswith("storageClassName")}
    stage.create(**{**FIRST[kind], **named})
    eventually(lambda: stage.child("PersistentVolumeClaim", claim))
    if kind == "AgentFleet" and not named:
        eventually(lambda: (stage.child("PersistentVolumeClaim", claim) or {})["status"]["phase"] == "Bound")
    eventually(lambda: stage.condition("Ready").get("status") == "False")

    service = f"spec__{ALONGSIDE[kind]}__service__type"
    stage.change(**change, **{service: "NodePort"})

    def told() -> bool:
        """Ready gives the reason, with what it is about"""
        ready = stage.condition("Ready")
        words = str(ready.get("message"))
        return ready.get("reason") == said.reason and all(word in words for word in said.words)

    try:
        eventually(told)
    except TimeoutError as error:
        raise TimeoutError(f"{error}: {stage.condition('Ready')}") from None
    eventually(lambda: stage.condition("Stalled").get("status") == str(said.stalled))
    other = f"x-{ALONGSIDE[kind]}"
    eventually(lambda: (stage.child("Service", other) or {"spec": {}})["spec"].get("type") == "NodePort")

    stage.change(**said.mended)
    eventually(lambda: stage.condition("Ready").get("reason", said.reason) != said.reason)


SERVICES = [
    pytest.param("ModelReplicaSet", "router", "x-model", id="the router's"),
    pytest.param("VectorIndex", "retriever", "x-retriever", id="the retriever's"),
    pytest.param("AgentFleet", "gateway", "x-gateway", id="the gateway's"),
]


def is_of_type(stage: Stage, service: str, wanted: str) -> bool:
    found = stage.child("Service", service)
    return found is not None and found["spec"]["type"] == wanted


@pytest.mark.usefixtures("operator_of_all")
@pytest.mark.parametrize(("kind", "part", "name"), SERVICES)
def test_a_service_takes_every_type_there_and_back(
    running_control_plane: ControlPlane, running_namespace: str, kind: str, part: str, name: str
) -> None:
    stage = Stage(running_control_plane, running_namespace, kind)
    stage.create()
    first = eventually(lambda: stage.child("Service", name))
    for wanted in ("NodePort", "LoadBalancer", "ClusterIP"):
        stage.change(**{f"spec__{part}__service__type": wanted})
        eventually(partial(is_of_type, stage, name, wanted))
    last = stage.child("Service", name)
    assert last is not None
    assert last["spec"]["clusterIP"] == first["spec"]["clusterIP"]
    assert not any("nodePort" in port for port in last["spec"]["ports"])


@pytest.mark.usefixtures("operator_of_all")
def test_a_pod_is_replaced_by_one_of_the_new_template(
    running_control_plane: ControlPlane, running_namespace: str
) -> None:
    stage = Stage(running_control_plane, running_namespace, "ModelReplicaSet")
    stage.create(spec__model__source="hf://meta/llama", spec__drain__deadlineSeconds=1)
    eventually(lambda: "Running" in stage.engine_pods().values())
    before = stage.engine_pods()
    stage.change(spec__engine__maxNumSeqs=8)
    eventually(lambda: stage.engine_pods() and not before.keys() & stage.engine_pods().keys())


@pytest.mark.usefixtures("operator_of_all")
def test_the_task_of_a_model_is_refused_at_apply(
    running_control_plane: ControlPlane, running_namespace: str
) -> None:
    stage = Stage(running_control_plane, running_namespace, "ModelReplicaSet")
    stage.create()
    with pytest.raises(ApiError) as refusal:
        stage.change(spec__model__task="Embed")
    assert "spec.model.task cannot be changed" in refusal.value.message
