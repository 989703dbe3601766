"""Manifests that README.md prints are whole: valid, and they refer to nothing that they do not make."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from flotilla_operator.api.agent_fleet import AgentFleet
from flotilla_operator.api.model_replica_set import ModelReplicaSet

ROOT = Path(__file__).parents[3]
KINDS = {"AgentFleet": AgentFleet, "ModelReplicaSet": ModelReplicaSet}


def documents() -> list[dict[str, Any]]:
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    return [document for block in blocks for document in yaml.safe_load_all(block)]


def applied() -> list[dict[str, Any]]:
    return [document for document in documents() if "kind" in document]


@pytest.mark.holds("README.md", "The manifests on the page are valid and complete")
def test_every_object_is_valid() -> None:
    assert {KINDS[manifest["kind"]].model_validate(manifest).kind for manifest in applied()} == set(KINDS)


@pytest.mark.holds("README.md", "The manifests on the page are valid and complete")
def test_the_fleet_refers_to_the_model_above_it() -> None:
    model, fleet = applied()
    assert [entry["modelRef"]["name"] for entry in fleet["spec"]["models"]] == [model["metadata"]["name"]]
    assert "indexes" not in fleet["spec"]


@pytest.mark.holds("README.md", "The values file on the page names the repository of each of our images")
def test_the_values_file_names_the_repository_of_each_image_that_no_registry_has() -> None:
    """Tag and digest stay those of the chart."""
    (values,) = (document for document in documents() if "kind" not in document)
    chart = yaml.safe_load((ROOT / "charts" / "flotilla" / "values.yaml").read_text())
    ours = {
        name for name, image in chart["images"].items() if isinstance(image, dict) and not image["repository"]
    }
    assert values.keys() == {"images"}
    assert values["images"].keys() == ours
    assert {tuple(image) for image in values["images"].values()} == {("repository",)}
