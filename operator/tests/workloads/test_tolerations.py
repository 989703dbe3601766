"""Which taints the pods of a set tolerate."""

from dataclasses import replace
from typing import Any

import pytest

from flotilla_operator.workloads.tolerations import tolerations_of
from tests.builders.model_replica_set import IMAGES, spec_of

OWN = {"key": "own", "operator": "Exists"}
CHART = {"key": "sku", "value": "gpu", "effect": "NoSchedule"}
GPU = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}


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
    ],
)
def test_tolerations(spec: dict[str, Any], wanted: list[dict[str, str]]) -> None:
    images = replace(IMAGES, accelerator_tolerations=(CHART,))
    assert tolerations_of(spec_of(**spec), images) == wanted
