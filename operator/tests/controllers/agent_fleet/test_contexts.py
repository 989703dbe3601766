"""How long prompt and answer of a fleet's model may be together: who says it, in which order."""

from typing import Any

import pytest

from flotilla_operator.api.fleet_agent import FleetModel
from flotilla_operator.controllers.agent_fleet.contexts import (
    UNKNOWN,
    Context,
    context_of_endpoint,
    context_of_set,
)
from tests.builders.model_replica_set import spec_of

ENDPOINT = {"url": "https://models.example/v1", "model": "gpt"}


def model(**fields: Any) -> FleetModel:
    return FleetModel.model_validate({"role": "Default", **fields})


@pytest.mark.holds(
    "README.md",
    "A fleet whose model sets no `maxModelLen` uses what the model was made for, and 4096 tokens "
    "until that is known",
)
@pytest.mark.holds(
    "tasks.md",
    "A model's context is the fleet's, the engine's, the model's or the endpoint's, else 4,096 tokens",
)
@pytest.mark.parametrize(
    ("fleet", "engine", "made_for", "expected"),
    [
        pytest.param(8192, 16384, 32768, Context(tokens=8192), id="the fleet says it"),
        pytest.param(None, 16384, 32768, Context(tokens=16384), id="the engine is set to it"),
        pytest.param(None, None, 32768, Context(tokens=32768), id="the model was made for it"),
        pytest.param(None, None, None, UNKNOWN, id="nobody says it yet"),
    ],
)
def test_the_context_of_a_set(
    fleet: int | None, engine: int | None, made_for: int | None, expected: Context
) -> None:
    spec = spec_of(engine={"maxModelLen": engine} if engine else {})
    assert context_of_set(model(modelRef={"name": "llama"}, contextTokens=fleet), spec, made_for) == expected


@pytest.mark.parametrize(
    ("fleet", "expected"),
    [
        pytest.param(200_000, Context(tokens=200_000), id="the fleet says it"),
        pytest.param(None, UNKNOWN, id="the workers ask the endpoint"),
    ],
)
def test_the_context_of_an_endpoint(fleet: int | None, expected: Context) -> None:
    assert context_of_endpoint(model(endpoint=ENDPOINT, contextTokens=fleet)) == expected


def test_what_nothing_says_is_4096_and_is_said_to_be_assumed() -> None:
    assert (UNKNOWN.tokens, UNKNOWN.is_known) == (4096, False)
