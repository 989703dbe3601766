"""Rows of drift, and of changes that the server merely writes its own way, which are none."""

from typing import Any

import pytest

from flotilla_operator.cluster.drift import drifted

DEPLOYMENT = {
    "spec": {
        "replicas": 2,
        "template": {
            "spec": {
                "containers": [
                    {
                        "name": "main",
                        "args": ["a", "b"],
                        "resources": {"requests": {"cpu": "1000m", "memory": "1024Mi"}},
                        "ports": [{"containerPort": 80, "name": "http"}],
                    }
                ]
            }
        },
    }
}


def live(**changes: Any) -> dict[str, Any]:
    container = {
        "name": "main",
        "args": ["a", "b"],
        "imagePullPolicy": "IfNotPresent",
        "resources": {"requests": {"cpu": "1", "memory": "1Gi"}},
        "ports": [{"containerPort": 80, "name": "http", "protocol": "TCP"}],
    }
    container |= changes.pop("container", {})
    containers = [*changes.pop("injected", []), container]
    spec = {"replicas": 2, "strategy": {}, "template": {"spec": {"containers": containers}}}
    return {"spec": spec | changes, "status": {}}


@pytest.mark.parametrize(
    ("seen", "paths"),
    [
        pytest.param(live(), [], id="defaults and quantities in another spelling are no drift"),
        pytest.param(live(replicas=5), [".spec.replicas"], id="someone scaled it"),
        pytest.param(live(injected=[{"name": "mesh"}]), [], id="admission put a container first"),
        pytest.param(
            live(container={"args": ["a"]}),
            [".spec.template.spec.containers[main].args"],
            id="someone shortened the arguments",
        ),
        pytest.param(
            live(container={"args": ["b", "a"]}),
            [
                ".spec.template.spec.containers[main].args[0]",
                ".spec.template.spec.containers[main].args[1]",
            ],
            id="arguments have an order",
        ),
        pytest.param(
            live(container={"resources": {"requests": {"cpu": "2", "memory": "1Gi"}}}),
            [".spec.template.spec.containers[main].resources.requests.cpu"],
            id="someone gave it more CPU",
        ),
    ],
)
def test_drift(seen: dict[str, Any], paths: list[str]) -> None:
    assert sorted(drifted(DEPLOYMENT, seen)) == paths


@pytest.mark.parametrize(
    ("wanted", "found", "same"),
    [
        pytest.param({"a": {}}, {}, True, id="an empty object is an absent one"),
        pytest.param({"a": []}, {}, True, id="an empty list is an absent one"),
        pytest.param({"a": False}, {}, True, id="false is left out by the server"),
        pytest.param({"a": 1}, {}, False, id="a number is not"),
        pytest.param({"a": "0.5"}, {"a": "500m"}, True, id="half a CPU"),
        pytest.param({"a": "1k"}, {"a": "1Ki"}, False, id="a thousand is not 1024"),
        pytest.param({"a": "main"}, {"a": "min"}, False, id="words are not quantities"),
        pytest.param({"a": [{"x": 1}]}, {"a": [{"x": 1}, {"x": 2}]}, False, id="an atomic list that grew"),
    ],
)
def test_values(wanted: Any, found: Any, *, same: bool) -> None:
    assert (not drifted(wanted, found)) is same
