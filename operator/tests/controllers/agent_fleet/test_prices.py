"""Prices of a fleet's models: where they come from, and that unknown is never 0."""

from typing import Any

import pytest

from flotilla_operator.api.fleet_agent import FleetModel
from flotilla_operator.api.model_replica_set import Pricing
from flotilla_operator.controllers.agent_fleet.prices import prices_of, timeouts_of
from flotilla_runtime import contract

OF_SET = Pricing(input_per_million_usd=1, output_per_million_usd=2)
OWN = {"inputPerMillionUSD": 3, "cachedInputPerMillionUSD": 1.5, "outputPerMillionUSD": 4}


def model(**fields: Any) -> FleetModel:
    return FleetModel.model_validate({"role": "Default", "modelRef": {"name": "llama"}, **fields})


def prices(own: float | None, cached: float | None, out: float | None) -> contract.Pricing:
    return contract.Pricing(
        input_per_million_usd=own, cached_input_per_million_usd=cached, output_per_million_usd=out
    )


@pytest.mark.holds("tasks.md", "A model's prices are the fleet's, else its set's, and unknown is never 0")
@pytest.mark.parametrize(
    ("pricing", "of_set", "expected", "known"),
    [
        pytest.param(OWN, OF_SET, prices(3, 1.5, 4), True, id="the fleet says it"),
        pytest.param(None, OF_SET, prices(1, None, 2), True, id="the set says it"),
        pytest.param(None, None, prices(None, None, None), False, id="nobody says it"),
        pytest.param({"inputPerMillionUSD": 3}, OF_SET, prices(3, None, None), False, id="half is said"),
        pytest.param(
            {"inputPerMillionUSD": 0, "outputPerMillionUSD": 0}, None, prices(0, None, 0), True, id="0"
        ),
    ],
)
def test_prices(
    pricing: dict[str, Any] | None, of_set: Pricing | None, expected: contract.Pricing, known: bool
) -> None:
    found = prices_of(model(pricing=pricing), of_set)
    assert (found, found.is_known) == (expected, known)


def test_what_the_fleet_says_of_times_reaches_the_workers() -> None:
    assert timeouts_of(model()) == contract.ModelTimeouts()
    timeouts = {"firstTokenSeconds": 1, "betweenTokensSeconds": 2, "totalSeconds": 3}
    assert timeouts_of(model(timeouts=timeouts)) == contract.ModelTimeouts(
        first_token_seconds=1, between_tokens_seconds=2, total_seconds=3
    )
