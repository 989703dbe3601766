"""The names of a fleet's models."""

from typing import Any

import pytest

from flotilla_operator.workloads.agent_fleet.model_names import model_names
from tests.builders.agent_fleet import spec_of


def of_set(role: str, name: str) -> dict[str, Any]:
    return {"role": role, "modelRef": {"name": name}}


def at_endpoint(role: str, model: str, url: str = "https://one.example/v1") -> dict[str, Any]:
    return {"role": role, "endpoint": {"url": url, "model": model}}


@pytest.mark.parametrize(
    ("models", "names"),
    [
        pytest.param(
            [of_set("Default", "llama"), at_endpoint("Judge", "gpt")], ["llama", "gpt"], id="different ones"
        ),
        pytest.param(
            [of_set("Default", "llama"), of_set("Routine", "llama")], ["llama", "llama"], id="one set twice"
        ),
        pytest.param(
            [at_endpoint("Default", "gpt"), at_endpoint("Backup", "gpt", "https://two.example/v1")],
            ["gpt", "gpt (Backup)"],
            id="the same model of two providers",
        ),
        pytest.param(
            [at_endpoint("Default", "llama"), of_set("Backup", "llama")],
            ["llama (Default)", "llama"],
            id="an endpoint's model with the name of a set",
        ),
    ],
)
def test_each_model_has_a_name_of_its_own(models: list[dict[str, Any]], names: list[str]) -> None:
    assert list(model_names(spec_of(models=models).models).values()) == names
