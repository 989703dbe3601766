"""The options of pods on a real API server: every component's pods are made with them, and what the server
refuses is told with the field. Real controllers make the pods, admission looks at them.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import yaml

from flotilla_operator.objects.resources import (
    AGENT_FLEETS,
    DEPLOYMENTS,
    JOBS,
    MODEL_REPLICA_SETS,
    PERSISTENT_VOLUME_CLAIMS,
    PODS,
    PRIORITY_CLASSES,
    RUNTIME_CLASSES,
    STATEFUL_SETS,
    VECTOR_INDEXES,
    Resource,
)
from local_cluster.control_plane import ControlPlane
from local_cluster.errors import ApiError
from tests.builders.api_objects import changed, smallest
from tests.builders.pod_options import pod_options, runtime_class
from tests.support.kinds import enforce_restricted
from tests.support.processes import OperatorProcess
from tests.support.waiting import eventually

pytestmark = [pytest.mark.apiserver, pytest.mark.timeout(600)]

EMBEDDER = {"name": "minilm", "source": "hf://org/minilm", "task": "Embed"}
ON_HUB = {"name": "m", "source": "hf://org/m"}
ENDPOINT = {"role": "Default", "endpoint": {"url": "http://models.example/v1", "model": "m"}}
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"


class Stage:
    """One test's namespace, with a RuntimeClass and a PriorityClass of its own."""

    def __init__(self, plane: ControlPlane, namespace: str) -> None:
        self.client = plane.client
        self.namespace = namespace
        self.class_name = f"{namespace}-own"

    def make_runtime_class(self) -> None:
        manifest = runtime_class(self.class_name)
        del manifest["metadata"]["uid"]
        self.client.create(RUNTIME_CLASSES.path(None), manifest)

    def make_priority_class(self) -> None:
        metadata = {"name": self.class_name}
        body = {"apiVersion": PRIORITY_CLASSES.api_version, "kind": PRIORITY_CLASSES.kind, "value": 5}
        self.client.create(PRIORITY_CLASSES.path(None), {**body, "metadata": metadata})

    def forget_classes(self) -> None:
        for resource in (RUNTIME_CLASSES, PRIORITY_CLASSES):
            self.client.delete(resource.path(None, self.class_name))

    def options(self, *, resources: bool = True) -> dict[str, Any]:
        own = {"runtimeClassName": self.class_name, "priorityClassName": self.class_name}
        return {**pod_options(resources=resources), **own}

    def create(self, resource: Resource, name: str, **spec: Any) -> None:
        manifest = changed(smallest(resource.kind, name=name, namespace=self.namespace), **spec)
        self.client.create(resource.path(self.namespace), manifest)

    def get(self, resource: Resource, name: str) -> dict[str, Any]:
        return self.client.get(resource.path(self.namespace, name))

    def listed(self, resource: Resource, selector: str) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = self.client.get(
            f"{resource.path(self.namespace)}?labelSelector={selector}"
        )["items"]
        return items

    def wait(self, resource: Resource, name: str, kind: str, status: str, reason: str) -> str:
        """Until a condition says this; returns its message."""

        def holds() -> dict[str, Any] | None:
            found = (self.get(resource, name).get("status") or {}).get("conditions") or []
            same = {"type": kind, "status": status, "reason": reason}
            return next((one for one in found if same.items() <= one.items()), None)

        try:
            message: str = eventually(holds, what=f"{name}: {kind}={status} {reason}")["message"]
        except TimeoutError as error:
            raise TimeoutError(f"{error}\n{yaml.safe_dump(self.get(resource, name).get('status'))}") from None
        return message


@pytest.fixture
def stage(
    running_control_plane: ControlPlane, running_namespace: str, operator_of_all: OperatorProcess
) -> Iterator[Stage]:
    enforce_restricted(running_control_plane, running_namespace)
    made = Stage(running_control_plane, running_namespace)
    yield made
    made.forget_classes()


def test_the_pods_of_every_component_are_made_with_every_option(stage: Stage) -> None:
    stage.make_runtime_class()
    stage.make_priority_class()
    options, without_resources = stage.options(), stage.options(resources=False)
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    body = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "documents"}}
    stage.client.create(PERSISTENT_VOLUME_CLAIMS.path(stage.namespace), {**body, "spec": claim})
    stage.create(MODEL_REPLICA_SETS, "minilm", spec__model=EMBEDDER)
    own_runtime = {"runtimeClassName": stage.class_name}
    stage.create(
        MODEL_REPLICA_SETS, "m", spec__model=ON_HUB, spec__router={"pod": options}, spec__pod=own_runtime
    )
    stage.create(VECTOR_INDEXES, "lite", spec__milvus={"pod": options}, spec__retriever={"pod": options})
    milvus = {"mode": "External", "uri": "http://milvus.example:19530"}
    stage.create(VECTOR_INDEXES, "built", spec__milvus=milvus, spec__build={"pod": without_resources})
    stage.create(
        AGENT_FLEETS,
        "f",
        spec__models=[ENDPOINT],
        spec__queue={"redis": {"pod": options}},
        spec__gateway={"pod": options},
        spec__workers={"minReplicas": 1, "pod": without_resources},
    )
    rows = [
        (DEPLOYMENTS, "m", "router", options),
        (STATEFUL_SETS, "lite", "milvus", options),
        (DEPLOYMENTS, "lite", "retriever", options),
        (JOBS, "built", "build", without_resources),
        (STATEFUL_SETS, "f", "redis", options),
        (DEPLOYMENTS, "f", "gateway", options),
        (DEPLOYMENTS, "f", "worker", without_resources),
    ]
    for resource, owner, component, wanted in rows:
        selector = f"flotilla.dev/owner={owner},app.kubernetes.io/component={component}"
        (workload,) = eventually(partial(stage.listed, resource, selector), what=component)
        pods = eventually(partial(stage.listed, PODS, selector), what=f"pods of {component}")
        for pod in (workload["spec"]["template"], *pods):
            assert carried(pod, wanted) == wanted, component
    (engine,) = eventually(lambda: stage.listed(PODS, "flotilla.dev/owner=m,flotilla.dev/stage=0"))
    assert engine["spec"]["runtimeClassName"] == stage.class_name


def carried(pod: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
    """The options that a pod or a template has, of those that are wanted."""
    spec, first = pod["spec"], pod["spec"]["containers"][0]
    names = {variable["name"] for variable in wanted["env"]}
    found = {
        **{name: spec[name] for name in ("nodeSelector", "priorityClassName", "runtimeClassName")},
        "tolerations": [one for one in spec["tolerations"] if one in wanted["tolerations"]],
        "affinity": {
            kind: {rule: with_only(terms, wanted["affinity"][kind][rule]) for rule, terms in rules.items()}
            for kind, rules in spec["affinity"].items()
        },
        "env": [_of_the_user(variable) for variable in first["env"] if variable["name"] in names],
        "resources": {
            name: {key: first["resources"][name][key] for key in amounts}
            for name, amounts in wanted.get("resources", {}).items()
        },
    }
    for marks in ("labels", "annotations"):
        found[marks] = {name: pod["metadata"][marks].get(name) for name in wanted[marks]}
    return {name: found[name] for name in wanted}


def with_only(terms: Any, wanted: Any) -> Any:
    """Without Flotilla's own terms."""
    return [term for term in terms if term in wanted] if isinstance(terms, list) else terms


def _of_the_user(variable: dict[str, Any]) -> dict[str, Any]:
    """The variable without what the API server adds."""
    source = variable.get("valueFrom", {}).get("fieldRef")
    if source is None:
        return variable
    return {"name": variable["name"], "valueFrom": {"fieldRef": {"fieldPath": source["fieldPath"]}}}


@pytest.mark.holds("pods.md", "What the API server refuses is told with the field, and what runs stays")
@pytest.mark.parametrize(
    ("options", "reason", "says"),
    [
        pytest.param(
            {"affinity": {"podAffinity": {REQUIRED: [{"labelSelector": {}}]}}},
            "Invalid",
            "topologyKey",
            id="a term without a topology key",
        ),
        pytest.param(
            {"affinity": {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": "all"}}}},
            "WriteFailed",
            "nodeSelectorTerms",
            id="no list of terms",
        ),
        pytest.param(
            {"affinity": {"podAffinity": {REQUIRED: [{"topologyKey": "zone", "shiny": 1}]}}},
            "WriteFailed",
            "shiny",
            id="a field that no term has",
        ),
        pytest.param(
            {"resources": {"requests": {"memory": "2Gi"}, "limits": {"memory": "1Gi"}}},
            "Invalid",
            "must be less than or equal to memory limit",
            id="more requested than allowed",
        ),
        pytest.param(
            {"labels": {"team": "no spaces"}}, "Invalid", "no spaces", id="a value that no label has"
        ),
        pytest.param({"nodeSelector": {"a b": "c"}}, "Invalid", "a b", id="a key that no label has"),
        pytest.param(
            {"env": [{"name": "A", "valueFrom": {}}]}, "Invalid", "valueFrom", id="a variable from nowhere"
        ),
    ],
)
def test_what_the_server_refuses_is_told_with_the_field_and_what_runs_stays(
    stage: Stage, options: dict[str, Any], reason: str, says: str
) -> None:
    stage.create(AGENT_FLEETS, "f", spec__models=[ENDPOINT], spec__gateway={"replicas": 1})
    before = eventually(lambda: stage.listed(DEPLOYMENTS, "app.kubernetes.io/component=gateway"))
    stage.client.merge(AGENT_FLEETS.path(stage.namespace, "f"), {"spec": {"gateway": {"pod": options}}})
    message = stage.wait(AGENT_FLEETS, "f", "Ready", "False", reason)
    assert "deployments/f-gateway: spec.gateway.pod: " in message
    assert says in message
    # To a term of the wrong shape the server answers 500, as to its own trouble, so it is tried again.
    kind = "Stalled" if reason == "Invalid" else "Reconciling"
    assert stage.wait(AGENT_FLEETS, "f", kind, "True", reason) == message
    (live,) = stage.listed(DEPLOYMENTS, "app.kubernetes.io/component=gateway")
    assert live["spec"] == before[0]["spec"]
    stage.client.merge(AGENT_FLEETS.path(stage.namespace, "f"), {"spec": {"gateway": {"pod": None}}})
    eventually(lambda: reason not in ready_reasons(stage))


def ready_reasons(stage: Stage) -> list[str]:
    conditions = stage.get(AGENT_FLEETS, "f")["status"]["conditions"]
    return [one["reason"] for one in conditions if one["type"] == "Ready"]


def test_no_replica_is_made_before_the_runtime_class_exists(stage: Stage) -> None:
    """The server would refuse the pods, and says so to whoever creates them."""
    container = {"name": "c", "image": "none"}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": stage.namespace}}
    spec = {"runtimeClassName": stage.class_name, "containers": [container]}
    with pytest.raises(ApiError, match="RuntimeClass") as refused:
        stage.client.create(PODS.path(stage.namespace), {**pod, "spec": spec})
    assert refused.value.status == 403

    own = {"runtimeClassName": stage.class_name}
    stage.create(MODEL_REPLICA_SETS, "m", spec__model=ON_HUB, spec__pod=own)
    message = stage.wait(MODEL_REPLICA_SETS, "m", "SpecValid", "False", "RuntimeClassMissing")
    assert message.startswith(f"spec.pod.runtimeClassName: there is no RuntimeClass '{stage.class_name}'")
    assert stage.listed(PODS, "flotilla.dev/owner=m,flotilla.dev/stage=0") == []
    stage.make_runtime_class()
    eventually(lambda: stage.listed(PODS, "flotilla.dev/owner=m,flotilla.dev/stage=0"))
    stage.wait(MODEL_REPLICA_SETS, "m", "SpecValid", "True", "Valid")
