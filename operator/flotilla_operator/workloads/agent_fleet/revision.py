"""The revision of a fleet's agent: a hash of what decides how its tasks run.

These are agent, agents, image, tools, validators, the models by role and the indexes. Limits, rate limits,
prices, keys and the workers' pods are not: a change of them replaces workers within their revision. Fields
that have their default do not count, so a field that a later release adds changes no revision.
"""

from typing import Any

from flotilla_operator.api.agent_fleet import AgentFleetSpec
from flotilla_operator.objects.hashes import stable_hash

LENGTH = 8
PARTS: dict[str, Any] = {
    "agent": True,
    "agents": True,
    "image": True,
    "tools": True,
    "validators": True,
    "models": {"__all__": {"role": True, "model_ref": True, "endpoint": {"url", "model"}}},
    "indexes": True,
}


def revision_of(spec: AgentFleetSpec) -> str:
    """The revision that new tasks of this spec get."""
    written = spec.model_dump(
        mode="json",
        by_alias=True,
        include=PARTS,
        exclude={"tools": {"__all__": {"rate_limit"}}},
        exclude_defaults=True,
        exclude_none=True,
    )
    models = sorted(written.pop("models"), key=lambda model: str(model["role"]))
    return stable_hash({**written, "models": models}, length=LENGTH)
