"""How long prompt and answer of a model may be together: what the fleet, the set or its model says. Pure."""

from dataclasses import dataclass

from flotilla_operator.api.fleet_agent import FleetModel
from flotilla_operator.api.model_replica_set import ModelReplicaSetSpec

UNSTATED_CONTEXT_TOKENS = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """A length in tokens; `is_known` is False where nothing says one, and 4,096 is taken."""

    tokens: int
    is_known: bool = True


UNKNOWN = Context(tokens=UNSTATED_CONTEXT_TOKENS, is_known=False)


def context_of_set(model: FleetModel, spec: ModelReplicaSetSpec, made_for: int | None) -> Context:
    """That of a ModelReplicaSet: what the fleet says, else the engine's setting, else what the model was
    made for, where that is known.
    """
    tokens = model.context_tokens or spec.engine.max_model_len or made_for
    return UNKNOWN if tokens is None else Context(tokens=tokens)


def context_of_endpoint(model: FleetModel) -> Context:
    """That of an endpoint, as far as the fleet says it; otherwise the workers ask the endpoint."""
    return UNKNOWN if model.context_tokens is None else Context(tokens=model.context_tokens)
