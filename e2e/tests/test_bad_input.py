"""Mistakes that users make, on the cluster with the real kubelet: each is told in words, and nothing is lost.

Every test makes its own objects and takes them away. Where a set only has to serve, its engine is the double.
What a task's body or a caller's credentials can have wrong is in test_demo.py, and what the schema refuses in
the tests of the API.
"""

from pathlib import Path
from typing import Any

import httpx2
import pytest

from demo import claims
from demo.kubectl import KubectlError
from flotilla_cli.tasks import ask
from leaks.planted import planted
from tests.support.applied import REPLICA_SET, Site, example, replica_set
from tests.support.fleet_tasks import fleet_token
from tests.support.stand_ins import doubles
from tests.support.waiting import eventually

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(2400, func_only=True)]

KEY = planted("a-key-of-mine")
MEBIBYTE = 2**20
GUIDE = "# Leave\n\nEvery employee has thirty-one days of leave a year. Ask your manager early.\n"


def index(name: str, path: str, embedder: str) -> dict[str, Any]:
    """An index like the example's over another folder; dead letters are let through."""
    found = example("VectorIndex", name)
    found["spec"]["source"]["path"] = path
    found["spec"]["embedding"]["modelRef"]["name"] = embedder
    found["spec"]["build"]["maxFailedPercent"] = 100
    return found


def embedder(name: str, image: str) -> dict[str, Any]:
    """A set of doubles that embeds."""
    model = {"name": name, "source": "pvc://models/smollm2", "task": "Embed"}
    return doubles(name, image, model=model)


def fleet(name: str, model: str, **spec: Any) -> dict[str, Any]:
    """A fleet without indexes over one model."""
    return example(
        "AgentFleet", name, models=[{"role": "Default", "modelRef": {"name": model}}], indexes=[], **spec
    )


def fill(site: Site, image: str, claim: str, folder: Path) -> None:
    """Make the claim hold exactly what the folder holds, empty folders too; `image` has find and tar."""
    names = sorted(str(path.relative_to(folder)) for path in folder.iterdir())
    site.made.append(("PersistentVolumeClaim", claim))
    claims.fill(site.kubectl, image, {claim: (folder, names)}, {claim: "1Gi"})


def test_a_model_folder_that_does_not_exist_is_named_and_the_set_recovers(site: Site, double: str) -> None:
    model = {"name": "typo", "source": "pvc://models/smollm", "task": "Generate"}
    site.apply(doubles("typo", double, model=model))
    message = site.wait(REPLICA_SET, "typo", "Available", "False", "ModelFetchFailed")
    assert "smollm" in message
    site.patch(REPLICA_SET, "typo", {"spec": {"model": {"source": "pvc://models/smollm2"}}})
    site.wait_ready("typo")


def test_a_claim_that_does_not_exist_is_named(site: Site) -> None:
    model = {"name": "m", "source": "pvc://no-such-claim/m", "task": "Generate"}
    site.apply(replica_set("nowhere", model=model))
    assert "no-such-claim" in site.wait(REPLICA_SET, "nowhere", "SpecValid", "False", "ClaimMissing")


def test_an_index_over_a_missing_or_empty_folder_says_which_and_is_built_once_it_is_filled(
    site: Site, double: str, tmp_path: Path
) -> None:
    documents = "early-documents"
    (tmp_path / "empty").mkdir()
    fill(site, double, documents, tmp_path)
    site.apply(embedder("early-embedder", double))
    site.apply(index("early", f"pvc://{documents}/missing", "early-embedder"))
    assert "missing" in site.wait("VectorIndex", "early", "SourceReachable", "False", "PathMissing")
    moved = {"spec": {"source": {"path": f"pvc://{documents}/empty"}}}
    site.patch("VectorIndex", "early", moved)
    site.wait("VectorIndex", "early", "SourceReachable", "False", "SourceEmpty")
    (tmp_path / "empty" / "guide.md").write_text(GUIDE)
    fill(site, double, documents, tmp_path)
    site.wait("VectorIndex", "early", "Ready", "True")
    assert site.objects.get("VectorIndex", "early")["status"]["documents"]["indexed"] == 1


@pytest.mark.holds(
    "decisions/0007-index-builds.md",
    "Documents that cannot be read are counted and named, and too many keep the live index",
)
def test_documents_that_cannot_be_read_are_counted_and_named_and_the_rest_is_served(
    site: Site, double: str, tmp_path: Path
) -> None:
    documents, folder = "mixed-documents", tmp_path / "mixed"
    folder.mkdir()
    (folder / "guide.md").write_text(GUIDE)
    (folder / "broken.pdf").write_bytes(b"%PDF-1.7\n" + b"\x00\xff" * 500)
    (folder / "nothing.txt").write_bytes(b"")
    (folder / "huge.txt").write_bytes(b"a sentence about leave. " * (100 * MEBIBYTE // 24))
    fill(site, double, documents, tmp_path)
    site.apply(embedder("mixed-embedder", double))
    site.apply(index("mixed", f"pvc://{documents}/mixed", "mixed-embedder"))
    site.wait("VectorIndex", "mixed", "Ready", "True")
    status = site.objects.get("VectorIndex", "mixed")["status"]
    counts = status["documents"]
    assert (counts["discovered"], counts["indexed"], counts["deadLettered"]) == (4, 1, 3)
    message = site.condition("VectorIndex", "mixed", "Built")["message"]
    assert [name for name in ("broken.pdf", "nothing.txt", "huge.txt") if name not in message] == []


def test_a_fleet_without_its_model_says_so_at_once_and_answers_when_the_model_appears(
    site: Site, double: str
) -> None:
    site.apply(fleet("orphan", "later"))
    assert "'later'" in site.wait("AgentFleet", "orphan", "ModelsReady", "False", "ModelMissing")
    with pytest.raises(KubectlError, match="timed out"):
        site.kubectl.run("wait", "--for=condition=Ready", "agentfleet/orphan", "--timeout=2s")
    site.apply(doubles("later", double))
    site.wait("AgentFleet", "orphan", "Ready", "True")
    token = fleet_token(site.kubectl, "orphan", "default")
    site.apply(
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"name": "orphan-callers"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit"},
            "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": site.objects.namespace}],
        }
    )
    with (
        site.kubectl.port_forward("service/orphan-gateway", 8080) as port,
        httpx2.Client(
            base_url=f"http://127.0.0.1:{port}", headers={"Authorization": f"Bearer {token}"}, timeout=60
        ) as client,
    ):
        eventually(lambda: client.get("/v1/tasks/none").status_code == 404)
        assert ask(client, "Say hello.").text.strip()


def test_a_secret_that_is_missing_is_named_and_waited_for(site: Site, double: str) -> None:
    site.apply(doubles("keyed", double))
    gateway = {"replicas": 1, "auth": {"mode": "Secret", "secretRef": {"name": "callers"}}}
    site.apply(fleet("keyless", "keyed", gateway=gateway))
    assert "'callers'" in site.wait("AgentFleet", "keyless", "GatewayReady", "False", "SecretMissing")
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "callers"},
        "stringData": {"me": KEY},
    }
    site.apply(secret)
    site.wait("AgentFleet", "keyless", "Ready", "True")
    with site.kubectl.port_forward("service/keyless-gateway", 8080) as port:
        place = f"http://127.0.0.1:{port}/v1/tasks/none"
        eventually(lambda: httpx2.get(place, headers={"Authorization": f"Bearer {KEY}"}).status_code == 404)
        assert httpx2.get(place, headers={"Authorization": "Bearer another"}).status_code == 401
