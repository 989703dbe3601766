"""The other agents of a fleet and its validators, as its workers and gateways read them."""

from collections.abc import Iterator
from dataclasses import dataclass

from flotilla_operator.api.agent_fleet import AgentFleetSpec
from flotilla_operator.api.fleet_delegates import SubAgent, Validator
from flotilla_operator.api.parts import SecretRef
from flotilla_runtime import contract


@dataclass(frozen=True, slots=True, kw_only=True)
class CalledUrl:
    """A URL that a fleet calls, and the secret with its headers, whose `volume` is mounted at `directory`.

    `field` names it in messages.
    """

    field: str
    url: str
    headers: SecretRef | None
    volume: str
    directory: str


def agent_configs(spec: AgentFleetSpec) -> tuple[contract.SubAgentConfig, ...]:
    """The other agents, in the order of the spec."""
    return tuple(_agent(agent) for agent in spec.agents)


def validator_configs(spec: AgentFleetSpec) -> tuple[contract.ValidatorConfig, ...]:
    """The validators, in the order of the spec."""
    return tuple(_validator(one) for one in spec.validators)


def checking_urls(spec: AgentFleetSpec) -> Iterator[CalledUrl]:
    """Every URL that validators call."""
    for position, one in enumerate(spec.validators):
        if one.http is not None:
            yield CalledUrl(
                field=f"spec.validators[{one.name}].http",
                url=one.http.url,
                headers=one.http.headers_secret_ref,
                volume=f"flotilla-validator-{position}",
                directory=_headers(one.name),
            )


def _agent(agent: SubAgent) -> contract.SubAgentConfig:
    return contract.SubAgentConfig(
        name=agent.name,
        description=agent.description,
        prompt=agent.prompt,
        role=agent.role,
        tools=agent.tools,
        indexes=agent.indexes,
    )


def _validator(one: Validator) -> contract.ValidatorConfig:
    judge = one.judge
    return contract.ValidatorConfig(
        name=one.name,
        http=_endpoint(one),
        python=one.python,
        judge=None if judge is None else contract.JudgeConfig(role=judge.role, prompt=judge.prompt),
        timeout_seconds=one.timeout_seconds,
    )


def _endpoint(one: Validator) -> contract.HttpEndpoint | None:
    if one.http is None:
        return None
    has_headers = one.http.headers_secret_ref is not None
    return contract.HttpEndpoint(
        url=one.http.url, headers_directory=_headers(one.name) if has_headers else None
    )


def _headers(validator: str) -> str:
    """No tool has a name with a dot, so no tool has this directory."""
    return f"{contract.TOOLS_DIRECTORY}/validator.{validator}/headers"
