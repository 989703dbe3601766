"""What README.md prints to be applied is whole: valid, and it refers to nothing that it does not make."""

import re
from pathlib import Path
from typing import Any

import yaml

from flotilla_operator.api.agent_fleet import AgentFleet
from flotilla_operator.api.model_replica_set import ModelReplicaSet

README = Path(__file__).parents[3] / "README.md"
KINDS = {"AgentFleet": AgentFleet, "ModelReplicaSet": ModelReplicaSet}


def printed() -> list[dict[str, Any]]:
    (block,) = re.findall(r"```yaml\n(.*?)```", README.read_text(), re.DOTALL)
    return list(yaml.safe_load_all(block))


def test_every_object_is_valid() -> None:
    assert {KINDS[manifest["kind"]].model_validate(manifest).kind for manifest in printed()} == set(KINDS)


def test_the_fleet_refers_to_the_model_above_it() -> None:
    model, fleet = printed()
    assert [entry["modelRef"]["name"] for entry in fleet["spec"]["models"]] == [model["metadata"]["name"]]
    assert "indexes" not in fleet["spec"]
