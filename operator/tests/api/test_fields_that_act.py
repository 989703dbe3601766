"""The operator reads every field of a spec, except those that the API server refuses as not yet supported.

Every controller settles the objects of its kind's `full_featured_objects()`, as they are and with `paused`
inverted, while the fields that the operator's own code reads are recorded.
"""

import asyncio
import functools
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from flotilla_operator.api.base import ApiModel
from flotilla_operator.api.kinds import KINDS, Kind
from flotilla_operator.api.model_replica_set import ModelReplicaSet
from flotilla_operator.api.schema import not_yet
from flotilla_operator.controllers.agent_fleet.controller import AgentFleetController
from flotilla_operator.controllers.model_replica_set.controller import ModelReplicaSetController
from flotilla_operator.controllers.vector_index.controller import VectorIndexController
from tests.builders import agent_fleet, model_replica_set, vector_index
from tests.builders.api_objects import changed, smallest
from tests.builders.pod_options import runtime_class
from tests.support.field_reads import FieldReads, paths_below, recorded
from tests.support.settling import SettlingCluster

NOW = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
ROUNDS = 6
by_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
# A core/v1 shape is passed on as a whole, so one way to use it is enough.
PASSED_ON = ".env[].valueFrom."
BUILDERS: dict[str, Any] = {
    "ModelReplicaSet": model_replica_set,
    "VectorIndex": vector_index,
    "AgentFleet": agent_fleet,
}
CONTROLLERS: dict[str, Any] = {
    "ModelReplicaSet": ModelReplicaSetController,
    "VectorIndex": VectorIndexController,
    "AgentFleet": AgentFleetController,
}


def objects_of(kind: str) -> Iterator[dict[str, Any]]:
    for manifest in BUILDERS[kind].full_featured_objects():
        yield manifest
        yield changed(manifest, spec__paused=not manifest["spec"].get("paused", False))


def surroundings() -> list[dict[str, Any]]:
    """The objects that they refer to, except secrets."""
    available = {"conditions": [{"type": "Available", "status": "True"}]}
    embedder = model_replica_set.model_replica_set(
        "minilm",
        model={"name": "minilm", "source": "pvc://models/minilm", "task": "Embed"},
        status=available,
    )
    names = ("models", "heads", "documents", "shared")
    claims = [core("PersistentVolumeClaim", name, spec={"accessModes": ["ReadWriteMany"]}) for name in names]
    priority = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "value": 7}
    return [
        embedder,
        agent_fleet.served_model(pricing={"inputPerMillionUSD": 1, "outputPerMillionUSD": 2}),
        agent_fleet.served_index(),
        *claims,
        core("ConfigMap", "pages", data={"a.md": "# A"}),
        core("Node", "a", status={"allocatable": {"nvidia.com/gpu": "64", "cpu": "512", "pods": "500"}}),
        {**priority, "metadata": {"name": "serving"}},
        runtime_class(),
        {
            "apiVersion": "resource.k8s.io/v1",
            "kind": "DeviceClass",
            "metadata": {"name": "gpu"},
            "spec": {"selectors": [{"cel": {"expression": "device.driver == 'gpu.example'"}}]},
        },
    ]


def core(kind: str, name: str, **fields: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": "default"}, **fields}


@functools.cache
def reads() -> FieldReads:
    """Fields that the controllers of all kinds read: fleets read the prices of the sets that they call."""
    with recorded() as found:
        for kind, controller in CONTROLLERS.items():
            for manifest in objects_of(kind):
                cluster = SettlingCluster(*surroundings())
                asyncio.run(cluster.settle(controller(), manifest, NOW, ROUNDS))
    return found


def fields_of(kind: Kind) -> tuple[set[str], set[str]]:
    """The paths that must be read, and those that are refused."""
    spec = kind.model.model_fields["spec"].annotation
    assert isinstance(spec, type)
    assert issubclass(spec, ApiModel)
    refused = {field.path for field in not_yet(kind) if not field.values}
    below = tuple(f"{path}{end}" for path in refused for end in (".", "[]"))
    acting = {path for path in paths_below(spec, "spec") if not path.startswith(below)} - refused
    return acting, refused


def untruths(kind: Kind, read: set[str]) -> list[str]:
    """Where the marks of fields that are not yet supported are wrong."""
    acting, refused = fields_of(kind)
    return [
        *(
            f"{path} is marked as not yet supported, and read: take its NotYet away"
            for path in sorted(refused & read)
        ),
        *(f"{path} is read by nothing: use it, or mark it NotYet" for path in sorted(acting - read)),
    ]


@pytest.mark.holds("README.md", "The list of fields that do not act is generated and true")
@pytest.mark.holds("api/not-yet.md", "A field of the spec that is not listed acts")
@by_kind
def test_a_field_is_read_unless_it_is_refused(kind: Kind) -> None:
    assert untruths(kind, reads().of(kind.name)) == []


@pytest.mark.parametrize("kind", [kind for kind in KINDS if not_yet(kind)], ids=lambda kind: kind.name)
def test_a_mark_that_is_wrong_is_noticed(kind: Kind) -> None:
    acting, refused = fields_of(kind)
    listed, unlisted = min(refused), min(acting)
    assert untruths(kind, acting | {listed}) == [
        f"{listed} is marked as not yet supported, and read: take its NotYet away"
    ]
    assert untruths(kind, acting - {unlisted}) == [
        f"{unlisted} is read by nothing: use it, or mark it NotYet"
    ]


@by_kind
def test_the_full_featured_objects_use_every_field_that_is_supported_and_no_other(kind: Kind) -> None:
    acting, refused = fields_of(kind)
    given = {path for manifest in BUILDERS[kind.name].full_featured_objects() for path in given_in(manifest)}
    assert sorted(given & refused) == []
    assert [path for path in sorted(acting - given) if PASSED_ON not in path] == []


def given_in(value: Any, path: str = "") -> Iterator[str]:
    if isinstance(value, dict):
        for key, content in value.items():
            here = f"{path}.{key}" if path else key
            yield here
            yield from given_in(content, here)
    elif isinstance(value, list):
        for item in value:
            yield from given_in(item, f"{path}[]")


def test_the_recorder_sees_the_operator_and_not_the_tests() -> None:
    from flotilla_operator.workloads.engine_pod import engine_requests

    with recorded() as found:
        spec = ModelReplicaSet.model_validate(smallest("ModelReplicaSet")).spec
        assert spec.router.replicas == 2
        assert found.of("ModelReplicaSet") == set()
        engine_requests(spec)
    read = found.of("ModelReplicaSet")
    assert {"spec.accelerator", "spec.engine", "spec.engine.resources.limits"} <= read
    assert "spec.router" not in read
    assert "spec.engine.env" not in read
