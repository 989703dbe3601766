"""Mistakes that users make, on the cluster with the real kubelet: each is told in words, and nothing is lost.

Every test makes its own objects beside the demo's and takes them away. What a task's body or a caller's
credentials can have wrong is in test_demo.py, and what the schema refuses in the tests of the API.
"""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from demo import claims
from demo.kubectl import KubectlError
from flotilla_cli.tasks import ask
from tests.support.applied import WAIT_SECONDS, Site, example, replica_set
from tests.support.waiting import eventually

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900, func_only=True)]

MEBIBYTE = 2**20
GUIDE = "# Leave\n\nEvery employee has thirty-one days of leave a year. Ask your manager early.\n"


def index(name: str, path: str) -> dict[str, Any]:
    """An index like the example's over another folder; dead letters are let through."""
    found = example("VectorIndex", name)
    found["spec"]["source"]["path"] = path
    found["spec"]["build"]["maxFailedPercent"] = 100
    return found


def fleet(name: str, model: str, **spec: Any) -> dict[str, Any]:
    """A fleet without indexes over one model."""
    return example(
        "AgentFleet", name, models=[{"role": "Default", "modelRef": {"name": model}}], indexes=[], **spec
    )


def fill(site: Site, claim: str, folder: Path) -> None:
    """Make the claim hold exactly what the folder holds, empty folders too."""
    names = sorted(str(path.relative_to(folder)) for path in folder.iterdir())
    pods = site.kubectl.get("pods")["items"]
    image = next(
        container["image"]
        for pod in pods
        for container in pod["spec"]["containers"]
        if container["name"] == "retriever"
    )
    claims.fill(site.kubectl, image, {claim: (folder, names)}, {claim: "1Gi"})


@pytest.fixture
def documents(site: Site) -> str:
    """The name of a claim of the test's own."""
    site.made.append(("persistentvolumeclaim", "mistakes"))
    return "mistakes"


def test_a_model_folder_that_does_not_exist_is_named_and_the_set_recovers(site: Site) -> None:
    site.apply(
        replica_set("typo", model={"name": "typo", "source": "pvc://models/smollm", "task": "Generate"})
    )
    message = site.wait("modelreplicaset", "typo", "Available", "False", "ModelFetchFailed")
    assert "smollm" in message
    mended = {"spec": {"model": {"source": "pvc://models/smollm2"}}}
    site.kubectl.run("patch", "modelreplicaset", "typo", "--type=merge", f"--patch={json.dumps(mended)}")
    site.wait("modelreplicaset", "typo", "Ready", "True")


def test_a_claim_that_does_not_exist_is_named(site: Site) -> None:
    site.apply(
        replica_set("nowhere", model={"name": "m", "source": "pvc://no-such-claim/m", "task": "Generate"})
    )
    assert "no-such-claim" in site.wait("modelreplicaset", "nowhere", "SpecValid", "False", "ClaimMissing")


def test_an_index_over_a_missing_or_empty_folder_says_which_and_is_built_once_it_is_filled(
    site: Site, documents: str, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    fill(site, documents, tmp_path)
    site.apply(index("early", f"pvc://{documents}/missing"))
    assert "missing" in site.wait("vectorindex", "early", "SourceReachable", "False", "PathMissing")
    moved = {"spec": {"source": {"path": f"pvc://{documents}/empty"}}}
    site.kubectl.run("patch", "vectorindex", "early", "--type=merge", f"--patch={json.dumps(moved)}")
    site.wait("vectorindex", "early", "SourceReachable", "False", "SourceEmpty")
    (tmp_path / "empty" / "guide.md").write_text(GUIDE)
    fill(site, documents, tmp_path)
    site.wait("vectorindex", "early", "Ready", "True")
    assert site.kubectl.get("vectorindex", "early")["status"]["documents"]["indexed"] == 1


def test_documents_that_cannot_be_read_are_counted_and_named_and_the_rest_is_served(
    site: Site, documents: str, tmp_path: Path
) -> None:
    folder = tmp_path / "mixed"
    folder.mkdir()
    (folder / "guide.md").write_text(GUIDE)
    (folder / "broken.pdf").write_bytes(b"%PDF-1.7\n" + b"\x00\xff" * 500)
    (folder / "nothing.txt").write_bytes(b"")
    (folder / "huge.txt").write_bytes(b"a sentence about leave. " * (100 * MEBIBYTE // 24))
    fill(site, documents, tmp_path)
    site.apply(index("mixed", f"pvc://{documents}/mixed"))
    site.wait("vectorindex", "mixed", "Ready", "True")
    status = site.kubectl.get("vectorindex", "mixed")["status"]
    counts = status["documents"]
    assert (counts["discovered"], counts["indexed"], counts["deadLettered"]) == (4, 1, 3)
    message = site.condition("vectorindex", "mixed", "Built")["message"]
    assert [name for name in ("broken.pdf", "nothing.txt", "huge.txt") if name not in message] == []


def test_a_fleet_without_its_model_says_so_at_once_and_answers_when_the_model_appears(site: Site) -> None:
    site.apply(fleet("orphan", "later"))
    with pytest.raises(KubectlError, match="timed out"):
        site.kubectl.run("wait", "--for=condition=Ready", "agentfleet/orphan", "--timeout=5s")
    assert "'later'" in site.wait("agentfleet", "orphan", "ModelsReady", "False", "ModelMissing")
    site.apply(replica_set("later"))
    site.kubectl.run(
        *("wait", "--for=condition=Ready", "agentfleet/orphan", f"--timeout={WAIT_SECONDS:.0f}s"),
        timeout_seconds=WAIT_SECONDS + 30,
    )
    token = site.kubectl.run("create", "token", "default").strip()
    site.kubectl.run(
        *("create", "rolebinding", "orphan-callers", "--clusterrole=edit"),
        f"--serviceaccount={site.kubectl.namespace}:default",
    )
    site.made.append(("rolebinding", "orphan-callers"))
    with (
        site.kubectl.port_forward("service/orphan-gateway", 8080) as port,
        httpx.Client(
            base_url=f"http://127.0.0.1:{port}", headers={"Authorization": f"Bearer {token}"}, timeout=60
        ) as client,
    ):
        eventually(lambda: client.get("/v1/tasks/none").status_code == 404)
        assert ask(client, "Say hello.").text.strip()


def test_a_secret_that_is_missing_is_named_and_waited_for(site: Site) -> None:
    site.apply(
        fleet(
            "keyless",
            "smollm2",
            gateway={"replicas": 1, "auth": {"mode": "Secret", "secretRef": {"name": "callers"}}},
        )
    )
    assert "'callers'" in site.wait("agentfleet", "keyless", "GatewayReady", "False", "SecretMissing")
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "callers"},
        "stringData": {"me": "a-key-of-mine"},
    }
    site.apply(secret)
    site.wait("agentfleet", "keyless", "Ready", "True")
    with site.kubectl.port_forward("service/keyless-gateway", 8080) as port:
        place = f"http://127.0.0.1:{port}/v1/tasks/none"
        eventually(
            lambda: httpx.get(place, headers={"Authorization": "Bearer a-key-of-mine"}).status_code == 404
        )
        assert httpx.get(place, headers={"Authorization": "Bearer another"}).status_code == 401


def test_a_service_of_the_users_own_is_left_alone_and_its_name_taken_once_it_is_free(site: Site) -> None:
    theirs = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "taken-model"},
        "spec": {"ports": [{"port": 1234}], "selector": {"app": "theirs"}},
    }
    site.apply(theirs)
    before = site.kubectl.get("service", "taken-model")
    site.apply(replica_set("taken", replicas=0))
    assert "Service taken-model" in site.wait("modelreplicaset", "taken", "RouterReady", "False", "NameTaken")
    assert site.kubectl.get("service", "taken-model") == before
    site.remove("service", "taken-model")
    site.wait("modelreplicaset", "taken", "Ready", "True")
    assert site.kubectl.get("service", "taken-model")["spec"]["ports"][0]["port"] == 8000
