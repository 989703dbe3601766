"""A revision changes with what the user wrote about the pods, and with nothing else.

The golden hashes hold for every release: a release that changes one of them restarts its users' replicas.
"""

from typing import Any

import pytest

from flotilla_operator.api.model_replica_set import ModelReplicaSet
from flotilla_operator.workloads.revision import revision_of
from tests.builders.model_replica_set import (
    full_featured_objects,
    gpu_set,
    merged,
    model_replica_set,
    spec_of,
)

GOLDEN = {
    "smallest": "yaspgdrqvr",
    "two replicas of four H100": "5xq5i6otsw",
    "full-gpu": "yoompqfq47",
    "full-cpu": "hdexurbyqd",
    "full-node": "dr2pzatw5s",
    "full-engine": "fyc67tg6jr",
    "full-stages": "z43qxlyhqi",
    "full-devices": "wmartk6w7b",
    "full-pods": "pjdwcoruo6",
}


def revision(manifest: dict[str, Any]) -> str:
    return revision_of(ModelReplicaSet.model_validate(manifest).spec)


@pytest.mark.holds("pods.md", "A RuntimeClass makes a new revision, and without it nothing changes")
@pytest.mark.holds("decisions/0008-upgrades.md", "An upgrade of the operator restarts nothing")
def test_golden_hashes() -> None:
    found = {
        "smallest": revision(model_replica_set()),
        "two replicas of four H100": revision(gpu_set()),
        **{m["metadata"]["name"]: revision(m) for m in full_featured_objects()},
    }
    assert found == GOLDEN


@pytest.mark.holds(
    "draining.md",
    "A change of the pods' template is a new revision and replicas are exchanged group by group",
)
@pytest.mark.holds("engine.md", "A changed list of adapters is a new revision")
@pytest.mark.holds("pods.md", "A RuntimeClass makes a new revision, and without it nothing changes")
@pytest.mark.parametrize(
    "spec",
    [
        pytest.param({"model": {"revision": "v2"}}, id="another revision of the model"),
        pytest.param({"model": {"source": "hf://org/other"}}, id="another model"),
        pytest.param({"engine": {"image": "registry/vllm:other"}}, id="another image"),
        pytest.param({"parallelism": {"tensor": 2}}, id="more accelerators in a stage"),
        pytest.param({"parallelism": {"pipeline": 2}}, id="more stages"),
        pytest.param({"engine": {"maxNumSeqs": 8}}, id="an engine setting"),
        pytest.param({"engine": {"env": [{"name": "A", "value": "b"}]}}, id="an environment variable"),
        pytest.param({"accelerator": {"resource": "nvidia.com/gpu"}}, id="an accelerator"),
        pytest.param({"placement": {"nodeSelector": {"a": "b"}}}, id="other nodes"),
        pytest.param({"modelCache": {"mode": "Node"}}, id="another cache"),
        pytest.param({"pod": {"labels": {"a": "b"}}}, id="a label of the pods"),
        pytest.param({"pod": {"runtimeClassName": "sandboxed"}}, id="another runtime of the pods"),
    ],
)
def test_what_changes_a_revision(spec: dict[str, Any]) -> None:
    assert revision_of(spec_of(**spec)) != revision_of(spec_of())


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param({"replicas": 7}, id="the number of replicas"),
        pytest.param({"router": {"maxQueue": 3}}, id="the router"),
        pytest.param({"router": {"pod": {"runtimeClassName": "sandboxed"}}}, id="the router's pods"),
        pytest.param({"drain": {"deadlineSeconds": 5}}, id="the drain"),
        pytest.param({"paused": True}, id="a pause"),
        pytest.param({"traffic": {"sharedPrefixTokens": 1500}}, id="what callers send"),
        pytest.param({"accelerator": {"memoryGiB": 80}}, id="what an accelerator has"),
        pytest.param({"engine": {"maxNumSeqs": 48, "extraArgs": []}}, id="a default that is written out"),
        pytest.param({"unknownField": 1}, id="a field this release does not know"),
    ],
)
def test_what_does_not(spec: dict[str, Any]) -> None:
    gpu = {"accelerator": {"resource": "nvidia.com/gpu"}}
    assert revision_of(spec_of(**merged(gpu, spec))) == revision_of(spec_of(**gpu))


@pytest.mark.holds("decisions/0008-upgrades.md", "`flotilla.dev/refresh` rolls a set's replicas and routers")
def test_a_refresh_is_another_revision_and_none_is_the_same() -> None:
    assert revision_of(spec_of(), refresh="") == revision_of(spec_of())
    assert len({revision_of(spec_of(), refresh=value) for value in ("", "monday", "tuesday")}) == 3


def test_the_order_of_keys_does_not_count() -> None:
    one = spec_of(pod={"labels": {"a": "1", "b": "2"}})
    other = spec_of(pod={"labels": {"b": "2", "a": "1"}})
    assert revision_of(one) == revision_of(other)
