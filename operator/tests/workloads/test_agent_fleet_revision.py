"""Changes that make a new revision of an agent, and those that replace workers within a revision."""

from typing import Any

import pytest

from flotilla_operator.workloads.agent_fleet import revision_of, workers_of
from tests.builders.agent_fleet import AGENTS, OWNER, TOOLS, VALIDATORS, spec_of

BASE: dict[str, Any] = {
    "agent": {"prompt": "Answer."},
    "image": "registry.example/agents:1",
    "models": [
        {"role": "Default", "modelRef": {"name": "llama"}},
        {"role": "Routine", "endpoint": {"url": "https://a.example/v1", "model": "small"}},
    ],
    "indexes": [{"name": "h", "indexRef": {"name": "handbook"}}],
    "tools": TOOLS[:3],
}
DEFAULT, ROUTINE = BASE["models"]


@pytest.mark.holds(
    "tasks.md",
    "Agent, image, tools, models by role and indexes make a revision; limits, prices, keys and pods do not",
)
@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"agent": {"prompt": "Answer briefly."}}, id="another prompt"),
        pytest.param({"agent": {"entrypoint": "app:main"}}, id="code instead of a prompt"),
        pytest.param({"agent": {"graph": "app:graph"}}, id="a graph instead of a prompt"),
        pytest.param({"agent": {"prompt": "Answer.", "retrieval": "Tool"}}, id="another way to search"),
        pytest.param({"image": "registry.example/agents:2"}, id="another image"),
        pytest.param({"tools": TOOLS[:2]}, id="a tool less"),
        pytest.param({"agents": AGENTS[1:]}, id="an agent more"),
        pytest.param({"validators": VALIDATORS[:1]}, id="a validator more"),
        pytest.param({"tools": [{**TOOLS[0], "effect": "Unsafe"}, *TOOLS[1:3]]}, id="another effect"),
        pytest.param({"models": [{**DEFAULT, "modelRef": {"name": "qwen"}}, ROUTINE]}, id="another model"),
        pytest.param({"models": [DEFAULT]}, id="a role less"),
        pytest.param(
            {"models": [DEFAULT, {**ROUTINE, "endpoint": {**ROUTINE["endpoint"], "model": "large"}}]},
            id="another model of an endpoint",
        ),
        pytest.param({"indexes": [{"name": "h", "indexRef": {"name": "faq"}}]}, id="another index"),
    ],
)
def test_a_new_revision(change: dict[str, Any]) -> None:
    assert revision_of(spec_of(**{**BASE, **change})) != revision_of(spec_of(**BASE))


@pytest.mark.holds(
    "tasks.md",
    "Agent, image, tools, models by role and indexes make a revision; limits, prices, keys and pods do not",
)
@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"limits": {"maxSteps": 3, "maxCostUSD": 1}}, id="limits"),
        pytest.param({"workers": {"concurrency": 3, "resources": {"limits": {"cpu": 1}}}}, id="workers"),
        pytest.param({"workers": {"pod": {"env": [{"name": "A", "value": "b"}]}}}, id="pods"),
        pytest.param({"gateway": {"replicas": 4}, "queue": {"maxWaiting": 5}}, id="gateways and queue"),
        pytest.param({"models": [ROUTINE, DEFAULT]}, id="the order of the roles"),
        pytest.param({"models": [{**DEFAULT, "pricing": {}, "contextTokens": 100}, ROUTINE]}, id="prices"),
        pytest.param({"models": [{**DEFAULT, "maxOutputTokens": 100}, ROUTINE]}, id="the bound of answers"),
        pytest.param({"models": [{**DEFAULT, "isolateTenants": True}, ROUTINE]}, id="the caches of tenants"),
        pytest.param(
            {
                "models": [
                    DEFAULT,
                    {**ROUTINE, "endpoint": {**ROUTINE["endpoint"], "apiKeySecretRef": {"name": "k"}}},
                ]
            },
            id="a key",
        ),
        pytest.param(
            {
                "rateLimits": [{"name": "r", "requestsPerMinute": 1}],
                "models": [{**DEFAULT, "rateLimit": "r", "overflowTo": "Routine"}, ROUTINE],
                "tools": [{**tool, "rateLimit": "r"} for tool in BASE["tools"]],
            },
            id="rate limits",
        ),
        pytest.param({"agent": {"prompt": "Answer.", "retrieval": "First"}}, id="a default, written out"),
    ],
)
def test_the_same_revision(change: dict[str, Any]) -> None:
    assert revision_of(spec_of(**{**BASE, **change})) == revision_of(spec_of(**BASE))


def test_a_revision_stays_what_it_is() -> None:
    """Another hash would roll the workers of every fleet in an upgrade."""
    assert revision_of(spec_of(**BASE)) == "3kkpknej"
    assert revision_of(spec_of()) == "fqnein5n"


def test_workers_of_before_revisions_have_the_name_of_then() -> None:
    assert workers_of(OWNER, "").name == "support-worker"
    part = workers_of(OWNER, "abc")
    assert (part.name, part.selector["flotilla.dev/revision"]) == ("support-worker-abc", "abc")
    assert len(workers_of(OWNER, revision_of(spec_of())).name) <= len("support") + 16
