"""Prices of a fleet's models, and time-outs of their calls. Pure."""

from flotilla_operator.api.fleet_agent import FleetModel
from flotilla_operator.api.model_replica_set import Pricing
from flotilla_runtime import contract


def prices_of(model: FleetModel, of_set: Pricing | None) -> contract.Pricing:
    """The model's own prices, else those of its ModelReplicaSet; what nobody says is None, and never 0."""
    if (own := model.pricing) is not None:
        return contract.Pricing(
            input_per_million_usd=own.input_per_million_usd,
            cached_input_per_million_usd=own.cached_input_per_million_usd,
            output_per_million_usd=own.output_per_million_usd,
        )
    if of_set is None:
        return contract.Pricing()
    return contract.Pricing(
        input_per_million_usd=of_set.input_per_million_usd,
        output_per_million_usd=of_set.output_per_million_usd,
    )


def timeouts_of(model: FleetModel) -> contract.ModelTimeouts:
    """How long a call of the model may take."""
    return contract.ModelTimeouts(
        first_token_seconds=model.timeouts.first_token_seconds,
        between_tokens_seconds=model.timeouts.between_tokens_seconds,
        total_seconds=model.timeouts.total_seconds,
    )
