"""To whom an AgentFleet's agent gives parts of its task, and who checks its results."""

from typing import Annotated

from pydantic import ConfigDict, Field

from flotilla_operator.api.base import ApiModel, Rule, rules
from flotilla_operator.api.fleet_agent import Description, Prompt, PythonReference, Role
from flotilla_operator.api.parts import HttpUrl, PartName, SecretRef


class SubAgent(ApiModel):
    """An agent to which the agent can give a part of its task, and which takes tasks that name it."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                rule="!has(self.role) || self.role != 'Embed'",
                message="spec.agents[].role must not be Embed, whose model answers nothing; name another "
                "role",
            )
        )
    )

    name: PartName
    """Name of the agent. No entry of `spec.tools` has it: to the model, both are tools."""
    description: Description
    """Description of the agent for the model that calls it: the work that it can do."""
    prompt: Prompt
    """System prompt of the agent. It is the built-in agent, with the fleet's `agent.retrieval`."""
    role: Role = "Default"
    """Role of the model that the agent calls: an entry of `spec.models`."""
    tools: Annotated[tuple[PartName, ...], Field(max_length=64)] = ()
    """Names of the entries of `spec.tools` that the agent may call. It may call no others."""
    indexes: Annotated[tuple[PartName, ...], Field(max_length=16)] = ()
    """Names of the entries of `spec.indexes` that the agent searches. It searches no others."""


class CheckingUrl(ApiModel):
    """A URL that checks results."""

    url: HttpUrl
    """URL that gets `{"input": …, "result": …}` as JSON by POST, and answers `{"accepted": true}` or
    `{"accepted": false, "reason": "…"}`. It must not lead to a link-local address; no redirect is
    followed."""
    headers_secret_ref: SecretRef | None = None
    """Secret whose entries are sent as headers, for example `Authorization`. Absent: none."""


class Judge(ApiModel):
    """A model that judges results."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                rule="!has(self.role) || self.role != 'Embed'",
                message="spec.validators[].judge.role must not be Embed, whose model answers nothing; name "
                "another role",
            )
        )
    )

    role: Role = "Judge"
    """Role of the model: an entry of `spec.models`."""
    prompt: Prompt
    """Instructions that the model judges by. It gets the task's input and the result, and says whether the
    result is accepted, and why not."""


class Validator(ApiModel):
    """A check of results."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                rule="[has(self.python), has(self.http), has(self.judge)].filter(g, g).size() == 1",
                message="each entry of spec.validators needs exactly one of python, http and judge; set one "
                "of them and remove the others",
            )
        )
    )

    name: PartName
    """Name of the check. The error of a task whose result was refused has it, with the reason."""
    python: PythonReference | None = None
    """Calls a Python function from `spec.image`, named as `module:function`, with `result`, and `input` if it
    takes that. It returns True, False or `{"accepted": False, "reason": "…"}`. A plain function runs in a
    thread. Exactly one of `python`, `http` and `judge` is required."""
    http: CheckingUrl | None = None
    """Calls a URL with the result. Exactly one of `python`, `http` and `judge` is required."""
    judge: Judge | None = None
    """Asks a model. Exactly one of `python`, `http` and `judge` is required."""
    timeout_seconds: Annotated[float, Field(gt=0, le=3600)] = 30
    """How long a call of `python` or `http` may take, in seconds. A check that takes longer has given no
    verdict, and the result is refused. A judge has the `timeouts` of its model."""


_NAMED = "self.agents.all(agent, !has(agent.{names}) || agent.{names}.all(name, {there}))"
_HAS = "has(self.{list}) && self.{list}.exists(one, one.name == name)"


def _names_of(list_: str) -> Rule:
    named = _NAMED.format(names=list_, there=_HAS.format(list=list_))
    return Rule(
        rule=f"!has(self.agents) || {named}",
        message=f"spec.agents[].{list_} names an entry that spec.{list_} does not have; add it there, or "
        "remove the name",
    )


# Of the whole spec.
DELEGATE_RULES = (
    _names_of("tools"),
    _names_of("indexes"),
    Rule(
        rule="!has(self.agents) || "
        "self.agents.all(agent, self.models.exists(model, model.role == agent.role))",
        message="spec.agents[].role names a role that no entry of spec.models has; add one, or name another",
    ),
    Rule(
        rule="!has(self.agents) || !has(self.tools) || "
        "self.agents.all(agent, !self.tools.exists(tool, tool.name == agent.name))",
        message="an entry of spec.agents must not have the name of one of spec.tools, because both are tools "
        "to the model; rename one",
    ),
    Rule(
        rule="!has(self.validators) || self.validators.all(one, !has(one.judge) || "
        "self.models.exists(model, model.role == one.judge.role))",
        message="spec.validators[].judge.role names a role that no entry of spec.models has; add one, or "
        "name another",
    ),
    Rule(
        rule="has(self.image) || !has(self.validators) || !self.validators.exists(one, has(one.python))",
        message="spec.validators[].python needs spec.image, which brings the function; set it",
    ),
)
