"""examples/agentfleet-hf.yaml on the cluster, with a stand-in for the hub that the models come from."""

import tempfile
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
from local_cluster import images

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1200, func_only=True)]

NAMESPACE = "flotilla-hub"
EXAMPLE = ROOT / "examples" / "agentfleet-hf.yaml"
STUB = ROOT / "e2e" / "hub_stub"
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
        fill_hub(made, references["runtime"])
        claims.fill(
            made.kubectl,
            references["runtime"],
            {"documents": (tmp_path, ["leave.md"])},
            {"documents": "1Gi"},
        )
        start_hub(made, references["runtime"])
        yield made
    finally:
        everywhere = replace(demo.kubectl, namespace=None)
        everywhere.run("delete", "namespace", NAMESPACE, "--wait=false")


def fill_hub(site: Environment, image: str) -> None:
    """A claim that holds the repositories."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for repository, model in REPOSITORIES.items():
            (root / repository).parent.mkdir(parents=True)
            (root / repository).symlink_to(ensure_models() / model)
        files = [
            str(path.relative_to(root)) for name in REPOSITORIES for path in sorted((root / name).iterdir())
        ]
        claims.fill(site.kubectl, image, {"hub": (root, files)}, {"hub": "2Gi"})


def start_hub(site: Environment, runtime: str) -> None:
    """The stub behind a service `hub`."""
    image = images.build_and_import(
        name="hub-stub",
        dockerfile=STUB / "Dockerfile",
        context=STUB,
        arguments={"RUNTIME_IMAGE": runtime},
    )
    labels = {"app": "hub"}
    container = {
        "name": "hub",
        "image": image,
        "args": ["--root", "/hub"],
        "securityContext": claims.RESTRICTED,
        "ports": [{"containerPort": 8080}],
        "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1},
        "volumeMounts": [{"name": "hub", "mountPath": "/hub", "readOnly": True}],
    }
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "hub", "labels": labels},
        "spec": {
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 0,
            "securityContext": {"runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532},
            "containers": [container],
            "volumes": [{"name": "hub", "persistentVolumeClaim": {"claimName": "hub"}}],
        },
    }
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "hub"},
        "spec": {"selector": labels, "ports": [{"port": 80, "targetPort": 8080}]},
    }
    site.kubectl.apply([pod, service])
    site.kubectl.run("wait", "--for=condition=Ready", "pod/hub", "--timeout=120s", timeout_seconds=130)


def pointed_at_the_hub() -> list[dict[str, Any]]:
    """The example's objects, their engines told where the hub is, as the example's comment says."""
    objects: list[dict[str, Any]] = list(yaml.safe_load_all(EXAMPLE.read_text()))
    for item in objects:
        if item["kind"] == "ModelReplicaSet":
            item["spec"]["engine"]["env"].append(
                {"name": "HF_ENDPOINT", "value": f"http://hub.{NAMESPACE}.svc"}
            )
    return objects


def test_models_from_a_hub_are_fetched_and_an_answer_names_its_page(site: Environment) -> None:
    site.kubectl.apply(pointed_at_the_hub())
    site.wait_until_ready()
    ((_, answer),) = site.ask([Question(text="How many days of leave does an employee have?")])
    assert answer.documents == ("leave.md",)
    assert answer.text.strip()
