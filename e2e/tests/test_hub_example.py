"""examples/agentfleet-hf.yaml on the cluster, with a stand-in for the hub that the models come from."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from demo import claims
from demo.environment import ROOT, Environment
from demo.questions import Question
from engine.models import EMBEDDER, GENERATOR, ensure_models
from tests.support.stand_ins import start_hub

pytestmark = [pytest.mark.cluster, pytest.mark.rare, pytest.mark.timeout(1200, func_only=True)]

NAMESPACE = "flotilla-hub"
EXAMPLE = ROOT / "examples" / "agentfleet-hf.yaml"
REPOSITORIES = {
    "HuggingFaceTB/SmolLM2-135M-Instruct": GENERATOR.name,
    "sentence-transformers/all-MiniLM-L6-v2": EMBEDDER.name,
}
GUIDE = "# Leave\n\nEvery employee has thirty-one days of leave a year. Unused days end in March.\n"


@pytest.fixture
def site(demo: Environment, tmp_path: Path) -> Iterator[Environment]:
    """A namespace of its own with the hub and a claim of documents in it."""
    made = replace(demo, kubectl=replace(demo.kubectl, namespace=NAMESPACE))
    made.make_namespace()
    try:
        references = made.build_images()
        (tmp_path / "leave.md").write_text(GUIDE)
        claims.fill(
            made.kubectl,
            references["runtime"],
            {"documents": (tmp_path, ["leave.md"])},
            {"documents": "1Gi"},
        )
        models = ensure_models()
        repositories = {repository: models / folder for repository, folder in REPOSITORIES.items()}
        start_hub(made, references["runtime"], repositories, "2Gi")
        yield made
    finally:
        everywhere = replace(demo.kubectl, namespace=None)
        everywhere.run("delete", "namespace", NAMESPACE, "--wait=false")


def pointed_at_the_hub() -> list[dict[str, Any]]:
    """The example's objects, their engines told where the hub is, as the example's comment says."""
    objects: list[dict[str, Any]] = list(yaml.safe_load_all(EXAMPLE.read_text()))
    for item in objects:
        if item["kind"] == "ModelReplicaSet":
            item["spec"]["engine"]["env"].append(
                {"name": "HF_ENDPOINT", "value": f"http://hub.{NAMESPACE}.svc"}
            )
    return objects


@pytest.mark.holds("README.md", "The example with models from the hub answers with the page")
@pytest.mark.holds(
    "start/kind.md", "An agent like this one answers with its source, with an engine on the CPU"
)
def test_models_from_a_hub_are_fetched_and_an_answer_names_its_page(site: Environment) -> None:
    site.kubectl.apply(pointed_at_the_hub())
    site.wait_until_ready()
    ((_, answer),) = site.ask([Question(text="How many days of leave does an employee have?")])
    assert answer.documents == ("leave.md",)
    assert answer.text.strip()
