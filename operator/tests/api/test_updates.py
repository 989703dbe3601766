"""Creating and updating on a real API server: what may change, what may not, and what the server fills in."""

from typing import Any

import pytest

from flotilla_operator.api.kinds import KINDS
from local_cluster.control_plane import ControlPlane
from local_cluster.errors import ApiError
from tests.builders.api_objects import changed, smallest

pytestmark = pytest.mark.apiserver

PLURALS = {kind.name: kind.plural for kind in KINDS}
TASK_REFUSAL = "spec.model.task cannot be changed; create another ModelReplicaSet for the other task"
PATH = "/apis/flotilla.dev/v1alpha1/namespaces/{namespace}/{plural}"


class Stored:
    """One object on the API server."""

    def __init__(self, plane: ControlPlane, manifest: dict[str, Any]) -> None:
        self.client = plane.client
        metadata = manifest["metadata"]
        folder = PATH.format(namespace=metadata["namespace"], plural=PLURALS[manifest["kind"]])
        self.path = f"{folder}/{metadata['name']}"
        self.manifest = self.client.create(folder, manifest)

    def put(self, **values: Any) -> dict[str, Any]:
        return self.client.request("PUT", self.path, body=changed(self.manifest, **values))

    def merge(self, patch: dict[str, Any], *, subresource: str = "") -> dict[str, Any]:
        return self.client.merge(f"{self.path}{subresource}", patch)


@pytest.mark.holds("engine.md", "What does not go together is refused when the object is applied")
@pytest.mark.parametrize(
    ("created", "values", "refused"),
    [
        pytest.param("Generate", {"spec__model__task": "Embed"}, True, id="Generate becomes Embed"),
        pytest.param("Embed", {"spec__model__task": "Generate"}, True, id="Embed becomes Generate"),
        pytest.param(None, {"spec__model__task": "Embed"}, True, id="the default becomes Embed"),
        pytest.param("Embed", {"spec__model__task": None}, True, id="Embed is taken away, so Generate"),
        pytest.param("Generate", {"spec__model__task": None}, False, id="the default is taken away"),
        pytest.param("Embed", {"spec__model__task": "Embed"}, False, id="nothing changes"),
        pytest.param(
            "Embed", {"spec__model__source": "pvc://models/other"}, False, id="another model, same task"
        ),
    ],
)
def test_the_task_of_a_model_cannot_be_changed(
    control_plane: ControlPlane,
    namespace: str,
    created: str | None,
    values: dict[str, Any],
    refused: bool,
) -> None:
    first = smallest("ModelReplicaSet", namespace=namespace)
    stored = Stored(control_plane, changed(first, spec__model__task=created) if created else first)
    if not refused:
        stored.put(**values)
        return
    with pytest.raises(ApiError) as refusal:
        stored.put(**values)
    assert TASK_REFUSAL in refusal.value.message


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        pytest.param("ModelReplicaSet", "spec__model__name", "other", id="the served name"),
        pytest.param("ModelReplicaSet", "spec__parallelism__tensor", 4, id="the size of a replica"),
        pytest.param("VectorIndex", "spec__embedding__dimension", 768, id="the embedder"),
        pytest.param(
            "VectorIndex", "spec__milvus", {"mode": "External", "uri": "http://m:19530"}, id="Milvus"
        ),
        pytest.param("AgentFleet", "spec__workers__maxReplicas", 3, id="the number of workers"),
    ],
)
def test_what_may_change(
    control_plane: ControlPlane, namespace: str, kind: str, path: str, value: Any
) -> None:
    stored = Stored(control_plane, smallest(kind, namespace=namespace))
    assert stored.put(**{path: value})["metadata"]["generation"] == 2


def test_defaults_are_stored_and_null_means_absent(control_plane: ControlPlane, namespace: str) -> None:
    manifest = changed(
        smallest("ModelReplicaSet", namespace=namespace),
        spec__model__source="hf://org/private",
        spec__model__tokenSecretRef={"name": "hf"},
        spec__engine={"maxNumSeqs": 8},
    )
    manifest["spec"].update(slo=None, accelerator=None, drain=None)
    spec = Stored(control_plane, manifest).manifest["spec"]
    assert spec["model"]["tokenSecretRef"]["key"] == "token"
    assert spec["engine"]["maxNumSeqs"] == 8
    assert spec["engine"]["prefixCaching"] is True
    assert spec["router"]["service"] == {"type": "ClusterIP"}
    assert spec["drain"] == {"deadlineSeconds": 300}
    assert not {"slo", "accelerator", "autoscaling"} & set(spec)


@pytest.mark.holds("groups.md", "The leader carries the group's name, and status and scale count groups")
@pytest.mark.holds("router.md", "A scaler of one's own sets `replicas` through the scale subresource")
def test_kubectl_scales_a_set(control_plane: ControlPlane, namespace: str) -> None:
    stored = Stored(control_plane, smallest("ModelReplicaSet", namespace=namespace))
    status = {"replicas": 1, "selector": "flotilla.dev/owner=smallest"}
    stored.merge({"status": status}, subresource="/status")
    control_plane.kubectl("scale", "mrs/smallest", "--replicas=3", f"--namespace={namespace}")
    scale = stored.client.get(f"{stored.path}/scale")
    assert scale["spec"]["replicas"] == 3
    assert scale["status"] == status


def test_a_status_is_written_apart_from_the_spec(control_plane: ControlPlane, namespace: str) -> None:
    stored = Stored(control_plane, smallest("AgentFleet", namespace=namespace))
    stored.merge({"spec": {"paused": True}, "status": {"ready": "1/2"}}, subresource="/status")
    stored.merge({"spec": {"paused": True}, "status": {"ready": "2/2"}})
    now = stored.client.get(stored.path)
    assert now["spec"]["paused"] is True
    assert now["status"]["ready"] == "1/2"


def test_volumes_pass_through_as_they_are(control_plane: ControlPlane, namespace: str) -> None:
    volume = {"name": "shared", "csi": {"driver": "d.example", "volumeAttributes": {"a": "b"}}}
    mount = {"mountPath": "/shared", "name": "shared", "mountPropagation": "None"}
    manifest = changed(
        smallest("ModelReplicaSet", namespace=namespace),
        spec__pod={"volumes": [volume], "volumeMounts": [mount]},
    )
    pod = Stored(control_plane, manifest).manifest["spec"]["pod"]
    assert (pod["volumes"], pod["volumeMounts"]) == ([volume], [mount])
