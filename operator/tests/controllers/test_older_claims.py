"""Claims that lose the label by which Argo CD may track; in scenes/test_claims.py an operator does it."""

import pytest

from flotilla_operator.controllers.older_claims import without_instance
from flotilla_operator.objects.resources import Manifest

INSTANCE = "app.kubernetes.io/instance"
OLDER = {
    "flotilla.dev/kind": "AgentFleet",
    "flotilla.dev/owner": "support",
    "app.kubernetes.io/component": "redis",
    "app.kubernetes.io/managed-by": "flotilla",
    "app.kubernetes.io/name": "redis",
    INSTANCE: "support",
}
WITHOUT = {name: value for name, value in OLDER.items() if name != INSTANCE}


def claim(labels: dict[str, str] | None, name: str = "support-redis") -> Manifest:
    metadata: Manifest = {"name": name, "namespace": "default", "uid": f"uid-{name}"}
    if labels is not None:
        metadata["labels"] = labels
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata}


@pytest.mark.holds(
    "argocd.md",
    "No claim has the label by which Argo CD may track, and older claims lose it, also of fleets "
    "that are paused or gone",
)
@pytest.mark.parametrize(
    ("labels", "loses"),
    [
        pytest.param(OLDER, True, id="made by an older operator"),
        pytest.param(WITHOUT, False, id="has lost it, or never had it"),
        pytest.param(None, False, id="somebody's claim without labels"),
        pytest.param({INSTANCE: "support"}, False, id="somebody's claim"),
        pytest.param({**OLDER, INSTANCE: "shop"}, False, id="somebody else labelled it"),
        pytest.param({**OLDER, "app.kubernetes.io/managed-by": "Helm"}, False, id="of another manager"),
    ],
)
def test_only_a_label_that_an_older_operator_set_is_removed(
    labels: dict[str, str] | None, loses: bool
) -> None:
    patch = without_instance(claim(labels))
    assert (patch is not None) is loses
    if patch is not None:
        path = "/metadata/labels/app.kubernetes.io~1instance"
        assert [(one["op"], one["path"]) for one in patch.operations] == [("test", path), ("remove", path)]
        assert patch.uid == "uid-support-redis", "never another claim of that name"
