"""Taints that the pods of a set tolerate."""

from dataclasses import replace
from typing import Any

import pytest

from flotilla_operator.placement.manifests import toleration_of
from flotilla_operator.replicas.asking import ask_for_nodes
from flotilla_operator.replicas.group import GroupIdentity
from flotilla_operator.replicas.provisioning import PlaceholderId
from flotilla_operator.workloads.engine_pod import engine_pod
from flotilla_operator.workloads.forms import Marks, form_of
from flotilla_operator.workloads.placeholder import Dress, placeholder_pod
from flotilla_operator.workloads.tolerations import tolerations_of
from tests.builders.model_replica_set import IMAGES, OWNER, spec_of
from tests.builders.outlooks import outlook, refused, waiting
from tests.builders.pods import NOW

OWN = {"key": "own", "operator": "Exists"}
CHART = {"key": "sku", "value": "gpu", "effect": "NoSchedule"}
GPU = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}


@pytest.mark.holds(
    "placement.md", "Pods tolerate the taint of their accelerator, their own, and the chart's, each once"
)
@pytest.mark.parametrize(
    ("spec", "wanted"),
    [
        pytest.param({}, [], id="no accelerator"),
        pytest.param({"placement": {"tolerations": [OWN]}}, [OWN], id="its own, without an accelerator"),
        pytest.param({"accelerator": {"resource": "nvidia.com/gpu"}}, [GPU, CHART], id="an accelerator"),
        pytest.param(
            {"accelerator": {"resource": "nvidia.com/gpu"}, "placement": {"tolerations": [OWN, GPU]}},
            [OWN, GPU, CHART],
            id="each once",
        ),
        pytest.param(
            {"accelerator": {"deviceClass": {"name": "gpu.example.com"}}}, [CHART], id="devices of a class"
        ),
        pytest.param(
            {"engine": {"image": "own", "resources": {"limits": {"nvidia.com/gpu": 1}}}},
            [],
            id="an engine of its own, which the operator does not place",
        ),
    ],
)
def test_tolerations(spec: dict[str, Any], wanted: list[dict[str, str]]) -> None:
    images = replace(IMAGES, accelerator_tolerations=(CHART,))
    assert tolerations_of(spec_of(**spec), images) == wanted


@pytest.mark.holds("placement.md", "Placement and placeholders take the tolerations of the pods")
def test_placement_and_placeholders_take_those_of_the_pods() -> None:
    """To the letter: a placeholder with fewer seconds would leave a node that the replica may stay on."""
    images = replace(IMAGES, accelerator_tolerations=(CHART,))
    patient = {"key": "spot", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 60}
    placement = {"tolerations": [OWN, patient], "nodeProvisioning": {"mode": "Placeholders"}}
    spec = spec_of(accelerator={"resource": "nvidia.com/gpu"}, placement=placement)
    form = form_of(OWNER, spec, Marks(), images)
    pod = engine_pod(OWNER, spec, GroupIdentity(name="any", server_id=1, revision="r"), images)["spec"]
    assert pod["tolerations"] == [OWN, patient, GPU, CHART]
    assert form.asks is not None
    assert form.asks.tolerations == tuple(map(toleration_of, pod["tolerations"]))

    seen = outlook(waiting=waiting("x"), outcomes=(refused("x"),))
    intent = replace(seen.me.intent, form=form)
    asking = ask_for_nodes(replace(seen, me=replace(seen.me, intent=intent)), (), 0, NOW)
    assert asking is not None
    assert asking.shape is not None
    dress = Dress(images=images, priority_class="flotilla-placeholder", labels={})
    placeholder = placeholder_pod(OWNER, "p", PlaceholderId(slot=0, stage=0), asking.shape, dress)
    assert placeholder["spec"]["tolerations"] == pod["tolerations"]
