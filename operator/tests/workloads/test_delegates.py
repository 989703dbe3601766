"""The other agents of a fleet and its validators, in the files that workers and gateways read."""

from pathlib import Path

import pytest
import yaml

from flotilla_operator.api.agent_fleet import AgentFleet
from flotilla_operator.workloads.agent_fleet.delegates import agent_configs, checking_urls, validator_configs
from flotilla_operator.workloads.agent_fleet.tools import called_urls, secret_volumes
from tests.builders.agent_fleet import AGENTS, TOOLS, VALIDATORS, spec_of

EXAMPLE = Path(__file__).parents[3] / "examples" / "agentfleet-team.yaml"


@pytest.mark.holds(
    "agents.md", "The examples with other agents and validators are as they are shown, and run"
)
def test_the_example_names_what_it_has() -> None:
    spec = AgentFleet.model_validate(yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))).spec
    orders, rules = agent_configs(spec)
    assert (orders.tools, orders.indexes, orders.role) == (("order",), (), "Default")
    assert (rules.tools, rules.indexes) == ((), ("handbook",))
    promises, names = validator_configs(spec)
    assert promises.judge is not None
    assert (promises.judge.role, promises.http) == ("Judge", None)
    assert names.http is not None
    assert (names.http.url, names.http.headers_directory) == ("http://privacy.support.svc/check", None)


@pytest.mark.holds("security.md", "The headers of a validator go to its URL alone")
def test_the_headers_of_a_validator_are_files_of_their_own() -> None:
    spec = spec_of(tools=[{**TOOLS[0], "name": "policy"}], agents=AGENTS[1:], validators=VALIDATORS)
    (checking,) = checking_urls(spec)
    assert checking in list(called_urls(spec)), "its secret is looked up, and may be sent there alone"
    volumes, mounts = secret_volumes(spec)
    paths = [mount["mountPath"] for mount in mounts]
    assert "/var/run/flotilla/tools/validator.policy/headers" in paths
    assert len(set(paths)) == len(paths), "also beside a tool of the same name"
    assert {"name": "flotilla-validator-1", "secret": {"secretName": "policy"}} in volumes
