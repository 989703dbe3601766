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


@pytest.mark.parametrize(
    ("spec", "wanted"),
    [
        pytest.param({"engine": GPU}, True, id="in the limits"),
        pytest.param({"engine": {"resources": {"requests": {"amd.com/gpu": 1}}}}, True, id="in the requests"),
        pytest.param({"engine": {**GPU, "image": "my-engine"}}, False, id="for an engine of one's own"),
        pytest.param({"engine": GPU, "accelerator": {"resource": "nvidia.com/gpu"}}, False, id="and said"),
        pytest.param({"engine": {"resources": {"limits": {"cpu": "1"}}}}, False, id="none"),
    ],
)
def test_it_says_what_to_write(spec: dict[str, Any], wanted: bool) -> None:
    missing = accelerator_in_limits(spec_of(**spec))
    assert (missing is not None) == wanted
    if missing is not None:
        assert missing.reason == Reason.ACCELERATOR_IN_RESOURCES
        assert "spec.engine.resources" in missing.message
        assert "accelerator: {resource: " in missing.message


@pytest.mark.parametrize(
    ("resource", "wanted"),
    [
        ("nvidia.com/gpu", True),
        ("nvidia.com/mig-1g.10gb", True),
        ("habana.ai/gaudi", True),
        ("google.com/tpu", True),
        ("aws.amazon.com/neuron", True),
        ("cpu", False),
        ("gpu", False),
        ("memory", False),
        ("rdma/hca", False),
        ("smarter-devices/fuse", False),
    ],
)
def test_the_names_of_accelerators(resource: str, wanted: bool) -> None:
    assert is_accelerator(resource) is wanted
