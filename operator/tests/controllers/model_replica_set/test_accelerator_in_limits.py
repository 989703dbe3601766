"""Accelerators that only the engine's resources name."""

from typing import Any

import pytest

from flotilla_operator.controllers.model_replica_set.observe.accelerator_in_limits import (
    accelerator_in_limits,
    is_accelerator,
)
from flotilla_operator.controllers.model_replica_set.reasons import Reason
from tests.builders.model_replica_set import spec_of

GPU = {"resources": {"limits": {"nvidia.com/gpu": "1"}}}


@pytest.mark.holds(
    "placement.md",
    "An accelerator that only the engine's resources name is `AcceleratorInResources`, and what runs stays",
)
@pytest.mark.parametrize(
    ("resources", "write"),
    [
        pytest.param(
            GPU["resources"], "spec.accelerator: {resource: nvidia.com/gpu}, or", id="in the limits"
        ),
        pytest.param(
            {"requests": {"amd.com/gpu": 1}}, "spec.accelerator: {resource: amd.com/gpu}, or", id="requested"
        ),
        pytest.param(
            {"limits": {"cpu": "8", "nvidia.com/gpu": "4"}, "requests": {"nvidia.com/gpu": 4}},
            "spec.accelerator: {resource: nvidia.com/gpu} and spec.parallelism.tensor: 4, or",
            id="several",
        ),
    ],
)
def test_it_says_what_to_write(resources: dict[str, Any], write: str) -> None:
    missing = accelerator_in_limits(spec_of(engine={"resources": resources}))
    assert missing is not None
    assert missing.reason == Reason.ACCELERATOR_IN_RESOURCES
    assert missing.message.startswith("spec.engine.resources: ")
    assert f"; write {write} name your own engine in spec.engine.image" in missing.message


@pytest.mark.holds(
    "placement.md",
    "With an engine image of the user's own, accelerators in the resources are left as they are",
)
@pytest.mark.parametrize(
    "spec",
    [
        pytest.param({"engine": {**GPU, "image": "my-engine"}}, id="for an engine of one's own"),
        pytest.param({"engine": GPU, "accelerator": {"resource": "nvidia.com/gpu"}}, id="said twice"),
        pytest.param({"engine": {"resources": {"limits": {"cpu": "1"}}}}, id="none"),
        pytest.param({"engine": {"resources": {"limits": {"nvidia.com/gpu": "0"}}}}, id="none, in figures"),
    ],
)
def test_it_says_nothing(spec: dict[str, Any]) -> None:
    assert accelerator_in_limits(spec_of(**spec)) is None


@pytest.mark.parametrize(
    ("resource", "wanted"),
    [
        ("nvidia.com/gpu", True),
        ("nvidia.com/mig-1g.10gb", True),
        ("habana.ai/gaudi", True),
        ("google.com/tpu", True),
        ("aws.amazon.com/neuron", True),
        ("nvidia.com/gpu.shared", True),
        ("gpu.intel.com/xe", True),
        ("huawei.com/Ascend910", True),
        ("gpu.intel.com/i915_monitoring", False),
        ("cpu", False),
        ("gpu", False),
        ("memory", False),
        ("rdma/hca", False),
        ("smarter-devices/fuse", False),
    ],
)
def test_the_names_of_accelerators(resource: str, wanted: bool) -> None:
    assert is_accelerator(resource) is wanted
