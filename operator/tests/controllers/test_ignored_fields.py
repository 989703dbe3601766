"""Fields that this operator does not know are named; free keys and passed-on shapes are not fields."""

from typing import Any

import pytest

from flotilla_operator.api.model_replica_set import ModelReplicaSetSpec
from flotilla_operator.controllers.ignored_fields import ignored_fields
from tests.builders.model_replica_set import model_replica_set


def ignored(**spec: Any) -> list[str]:
    return ignored_fields(ModelReplicaSetSpec, model_replica_set(**spec)["spec"], "spec")


@pytest.mark.parametrize(
    ("spec", "paths"),
    [
        pytest.param({"shiny": 1}, ["spec.shiny"], id="at the top"),
        pytest.param(
            {"engine": {"turbo": True}, "b": 1}, ["spec.b", "spec.engine.turbo"], id="below, in order"
        ),
        pytest.param(
            {"accelerator": {"resource": "x/y", "colour": "red"}},
            ["spec.accelerator.colour"],
            id="in something optional",
        ),
        pytest.param(
            {"placement": {"tolerations": [{"key": "a"}, {"key": "b", "mood": 1}]}},
            ["spec.placement.tolerations[1].mood"],
            id="in a list",
        ),
        pytest.param({"pod": {"labels": {"any": "key"}}}, [], id="free keys"),
        pytest.param({"pod": {"volumes": [{"name": "v", "nfs": {"x": 1}}]}}, [], id="a shape passed on"),
    ],
)
def test_ignored(spec: dict[str, Any], paths: list[str]) -> None:
    assert ignored(**spec) == paths
