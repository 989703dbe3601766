"""Edits that a real API server allows of a pod behind our gate, and of one whose gate was lifted.

Placement rests on this (docs/decisions/0004-pinning-and-gates.md): what a gated pod asks of its node may only
be narrowed, so a group that must go elsewhere gets new pods. The pods here are those that the operator makes.
What the operator does with them: controllers/model_replica_set/test_groups_apiserver.py.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import pytest

from flotilla_operator.replicas.group import GroupIdentity
from flotilla_operator.workloads.engine_pod import engine_pods
from flotilla_operator.workloads.gate import GATE, gates, lifting
from flotilla_operator.workloads.pinning import REQUIRED, pinned
from local_cluster.control_plane import ControlPlane
from local_cluster.errors import ApiError
from tests.builders.model_replica_set import GPU, IMAGES, OWNER, spec_of

pytestmark = pytest.mark.apiserver

UNPROCESSABLE = 422
JSON_PATCH = "application/json-patch+json"
NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
SPEC = spec_of(
    accelerator=GPU,
    parallelism={"tensor": 8, "pipeline": 2},
    placement={"nodeSelector": {"pool": "inference"}, "tolerations": [{"key": "team", "operator": "Exists"}]},
)
IDENTITY = GroupIdentity(name="llama-abcde", server_id=1, revision="r", nodes=("gpu-7", "gpu-8"))
ZONE = {"key": "topology.kubernetes.io/zone", "operator": "In", "values": ["a", "b"]}
RACK = {"key": "topology.kubernetes.io/rack", "operator": "Exists"}
LIKE_IT = {"labelSelector": {"matchLabels": {"app": "x"}}, "topologyKey": "kubernetes.io/hostname"}

# What the API server says.
ADDITIONS = "only additions are allowed (no mutations or deletions)"
TERMS = "no additions/deletions to non-empty NodeSelectorTerms list are allowed"
LABELS = "only additions to spec.nodeSelector are allowed"
TOLERATIONS = "existing toleration can not be modified"
GATES = "only deletion is allowed, but found new scheduling gate"
OTHERS = "pod updates may not change fields other than"

Edit = Callable[[dict[str, Any]], Any]


@dataclass(frozen=True, slots=True)
class Pods:
    """The pods of a namespace on a real API server."""

    plane: ControlPlane
    namespace: str

    @contextmanager
    def pod(self, edit: Edit) -> Iterator[str]:
        """The path of the leader's pod of a group of two, made with such a change of its spec."""
        leader, _ = engine_pods(replace(OWNER, namespace=self.namespace), SPEC, IDENTITY, IMAGES)
        edit(leader["spec"])
        collection = f"/api/v1/namespaces/{self.namespace}/pods"
        path = f"{collection}/{self.plane.client.create(collection, leader)['metadata']['name']}"
        yield path
        self.plane.client.delete(f"{path}?gracePeriodSeconds=0")

    def refusal(self, path: str, edit: Edit) -> str:
        """The API server's words against a change of a pod's spec; empty where it was taken."""
        pod = self.plane.client.get(path)
        wanted = copy.deepcopy(pod)
        edit(wanted["spec"])
        assert wanted["spec"] != pod["spec"], "an edit that changes nothing shows nothing"
        try:
            self.plane.client.request("PUT", path, body=wanted)
        except ApiError as error:
            if error.status != UNPROCESSABLE:
                raise
            return error.message
        return ""

    def lift(self, path: str) -> None:
        """Lift our gate, as the operator does."""
        operations: Any = lifting(self.plane.client.get(path), NOW)
        self.plane.client.request("PATCH", path, body=operations, kind=JSON_PATCH)


@pytest.fixture
def pods(control_plane: ControlPlane, namespace: str) -> Pods:
    return Pods(control_plane, namespace)


def as_made(spec: dict[str, Any]) -> None:
    """Pod as the operator makes it."""


def without_a_pin(spec: dict[str, Any]) -> None:
    del spec["affinity"]


def terms(spec: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = spec["affinity"]["nodeAffinity"][REQUIRED]["nodeSelectorTerms"]
    return found


def narrowed(spec: dict[str, Any]) -> None:
    for term in terms(spec):
        term.setdefault("matchExpressions", []).append(ZONE)


def with_two_terms(spec: dict[str, Any]) -> None:
    spec["affinity"]["nodeAffinity"][REQUIRED]["nodeSelectorTerms"] = [
        {"matchExpressions": [ZONE]},
        {"matchExpressions": [RACK]},
    ]


def each_of_two_terms_pinned(spec: dict[str, Any]) -> None:
    spec["affinity"] = pinned(spec["affinity"], "gpu-7")


def preferred(spec: dict[str, Any]) -> None:
    wish = {"weight": 1, "preference": {"matchExpressions": [ZONE]}}
    spec["affinity"]["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"] = [wish]


@pytest.mark.holds(
    "decisions/0004-pinning-and-gates.md",
    "A gated pod's affinity may only be narrowed, an ungated pod's not be changed",
)
@pytest.mark.parametrize(
    ("before", "edit"),
    [
        pytest.param(as_made, lambda s: s["nodeSelector"].update(disk="fast"), id="one more label of nodes"),
        pytest.param(as_made, lambda s: s["tolerations"].append({"key": "x"}), id="one more toleration"),
        pytest.param(as_made, narrowed, id="one more requirement in a term"),
        pytest.param(
            without_a_pin, lambda s: s.update(affinity=pinned(None, "gpu-9")), id="a pin where there is none"
        ),
        pytest.param(with_two_terms, each_of_two_terms_pinned, id="a pin in each of the user's two terms"),
        pytest.param(as_made, preferred, id="a wish for nodes, which forbids none"),
        pytest.param(as_made, lambda s: s.pop("schedulingGates"), id="no gate any more"),
    ],
)
def test_a_gated_pod_takes(before: Edit, edit: Edit, pods: Pods) -> None:
    with pods.pod(before) as path:
        assert pods.refusal(path, edit) == ""


@pytest.mark.holds(
    "decisions/0004-pinning-and-gates.md",
    "A gated pod's affinity may only be narrowed, an ungated pod's not be changed",
)
@pytest.mark.parametrize(
    ("before", "edit", "words"),
    [
        pytest.param(
            as_made, lambda s: s.update(affinity=pinned(None, "gpu-9")), ADDITIONS, id="another pin"
        ),
        pytest.param(as_made, lambda s: s.pop("affinity"), TERMS, id="no pin"),
        pytest.param(
            as_made,
            lambda s: terms(s).append({"matchExpressions": [ZONE]}),
            TERMS,
            id="an alternative to the pin",
        ),
        pytest.param(with_two_terms, lambda s: terms(s).pop(), TERMS, id="one alternative less"),
        pytest.param(
            narrowed,
            lambda s: terms(s)[0].pop("matchExpressions"),
            ADDITIONS,
            id="one requirement less in a term",
        ),
        pytest.param(
            as_made, lambda s: s["nodeSelector"].update(pool="x"), LABELS, id="another label of nodes"
        ),
        pytest.param(as_made, lambda s: s.pop("nodeSelector"), LABELS, id="one label of nodes less"),
        pytest.param(as_made, lambda s: s["tolerations"].clear(), TOLERATIONS, id="one toleration less"),
        pytest.param(
            as_made,
            lambda s: s["affinity"].update(podAffinity={REQUIRED: [LIKE_IT]}),
            OTHERS,
            id="a pod that it must be with",
        ),
        pytest.param(
            as_made,
            lambda s: s["affinity"].update(podAntiAffinity={REQUIRED: [LIKE_IT]}),
            OTHERS,
            id="a pod that it must not be with",
        ),
        pytest.param(
            as_made,
            lambda s: s["containers"][0]["env"].append({"name": "NODE", "value": "gpu-9"}),
            OTHERS,
            id="an environment variable",
        ),
        pytest.param(as_made, lambda s: s.update(nodeName="gpu-7"), OTHERS, id="a node past the scheduler"),
        pytest.param(
            as_made, lambda s: s["schedulingGates"].append({"name": "a/b"}), GATES, id="one more gate"
        ),
    ],
)
def test_a_gated_pod_refuses(before: Edit, edit: Edit, words: str, pods: Pods) -> None:
    with pods.pod(before) as path:
        assert words in pods.refusal(path, edit)


@pytest.mark.holds(
    "decisions/0004-pinning-and-gates.md",
    "A gated pod's affinity may only be narrowed, an ungated pod's not be changed",
)
@pytest.mark.parametrize(
    ("edit", "words"),
    [
        pytest.param(lambda s: s.update(schedulingGates=gates()), GATES, id="its gate again"),
        pytest.param(narrowed, OTHERS, id="one more requirement in a term"),
        pytest.param(lambda s: s["nodeSelector"].update(disk="fast"), OTHERS, id="one more label of nodes"),
    ],
)
def test_a_pod_whose_gate_was_lifted_refuses(edit: Edit, words: str, pods: Pods) -> None:
    with pods.pod(as_made) as path:
        pods.lift(path)
        assert words in pods.refusal(path, edit)


@pytest.mark.holds("decisions/0004-pinning-and-gates.md", "A gate is lifted by one patch that tests it first")
def test_a_gate_is_lifted_once(pods: Pods) -> None:
    with pods.pod(as_made) as path:
        operations: Any = lifting(pods.plane.client.get(path), NOW)
        pods.lift(path)
        with pytest.raises(ApiError) as refused:
            pods.plane.client.request("PATCH", path, body=operations, kind=JSON_PATCH)
        assert refused.value.status == UNPROCESSABLE
        assert GATE not in str(pods.plane.client.get(path)["spec"])
