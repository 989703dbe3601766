"""A folder of the node that replicas share, with a real kubelet: one downloads, all start from it.

The same of fetchers alone, with one that is killed, is in test_one_downloader.py; that a namespace that does
not admit such folders is named, in operator/tests/controllers/model_replica_set/test_apiserver.py.
"""

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from demo import claims
from demo.environment import Environment
from demo.kubectl import KubectlError
from engine.models import GENERATOR, ensure_models
from tests.support.applied import REPLICA_SET, Site
from tests.support.stand_ins import doubles, start_hub

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900, func_only=True)]

NAMESPACE = "flotilla-node-cache"
SOURCE = "acme/tiny"
FOLDER = "acme--tiny"
WEIGHTS = "model.safetensors"
HEADER = b'{"__metadata__":{}}'
CONTENT = struct.pack("<Q", len(HEADER)) + HEADER + bytes(range(256)) * 4096
STALL = {"stall": {"file": WEIGHTS, "after_bytes": len(CONTENT) // 2}}
FETCHER = "fetch-model"
DIGEST = "import hashlib, sys; print(hashlib.sha256(open(sys.argv[1], 'rb').read()).hexdigest())"


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheSite:
    """A namespace that admits folders of the node, a hub in it, and a folder for its models that does not
    exist yet.
    """

    site: Site
    hub: str
    runtime: str
    path: Path

    def replicas(self, name: str, image: str, count: int) -> dict[str, Any]:
        """A set whose replicas share the node's folder."""
        variables = {
            "HF_ENDPOINT": self.hub,
            "HF_HUB_DOWNLOAD_TIMEOUT": "300",  # or a fetcher that stalls would ask again by itself
        }
        return doubles(
            name,
            image,
            {"env": [{"name": key, "value": value} for key, value in variables.items()]},
            model={"name": name, "source": f"hf://{SOURCE}", "task": "Generate"},
            modelCache={"mode": "Node", "path": str(self.path)},
            replicas=count,
        )

    def fetcher_says(self, pod: str) -> str:
        """The log of a pod's fetcher; empty before it runs."""
        try:
            return self.site.kubectl.run("logs", pod, f"--container={FETCHER}")
        except KubectlError:
            return ""

    def digest(self, pod: str, container: str, path: str) -> str:
        """The hash of a file as a container reads it."""
        command = ("python3", "-c", DIGEST, path)
        return self.site.kubectl.run("exec", pod, f"--container={container}", "--", *command).strip()

    def start_reader(self) -> str:
        """A pod that has nothing to do with us and mounts the node's folder; its name."""
        reader = "reader"
        container = {
            "name": reader,
            "image": self.runtime,
            "command": ["sleep", "3600"],
            "securityContext": {**claims.RESTRICTED, "runAsUser": 65532},
            "volumeMounts": [{"name": "models", "mountPath": "/models", "readOnly": True}],
        }
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": reader},
            "spec": {
                "automountServiceAccountToken": False,
                "terminationGracePeriodSeconds": 0,
                "containers": [container],
                "volumes": [{"name": "models", "hostPath": {"path": str(self.path), "type": "Directory"}}],
            },
        }
        self.site.apply(pod)
        ready = ("wait", "--for=condition=Ready", f"pod/{reader}", "--timeout=120s")
        self.site.kubectl.run(*ready, timeout_seconds=130)
        return reader


@pytest.fixture
def node_cache(demo: Environment, tmp_path: Path) -> Iterator[CacheSite]:
    made = replace(demo, kubectl=replace(demo.kubectl, namespace=NAMESPACE))
    made.make_namespace("privileged")
    try:
        model = tmp_path / "model"
        model.mkdir()
        (model / "config.json").write_bytes((ensure_models() / GENERATOR.name / "config.json").read_bytes())
        (model / WEIGHTS).write_bytes(CONTENT)
        runtime = demo.build_images()["runtime"]
        hub = start_hub(made, runtime, {SOURCE: model}, "1Gi")
        path = tmp_path / "node" / "models"
        yield CacheSite(site=Site(made.kubectl), hub=hub, runtime=runtime, path=path)
    finally:
        everywhere = replace(demo.kubectl, namespace=None)
        everywhere.run("delete", "namespace", NAMESPACE, "--wait=false")


def test_of_the_replicas_on_a_node_one_downloads_and_all_start_from_its_folder(
    node_cache: CacheSite, double: str
) -> None:
    name, site = "cached", node_cache.site
    with (
        site.kubectl.port_forward("service/hub", 80) as port,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as hub,
    ):

        def downloads() -> int:
            """How often the weights were asked for."""
            seen: list[str] = hub.get("/admin/requests").json()
            return seen.count(f"GET /large/{SOURCE}/{WEIGHTS}")

        def one_fetches_and_one_waits() -> bool:
            logs = [node_cache.fetcher_says(pod) for pod in site.pods(name)]
            return sum("another replica fills" in log for log in logs) == 1 == downloads()

        hub.post("/admin/faults", json=STALL).raise_for_status()
        site.apply(node_cache.replicas(name, double, 2))
        site.until(one_fetches_and_one_waits, REPLICA_SET, name, "one that fetches, one that waits for it")
        hub.post("/admin/faults", json={}).raise_for_status()
        site.wait(REPLICA_SET, name, "Ready", "True")
        site.apply(node_cache.replicas(name, double, 3))
        site.wait(REPLICA_SET, name, "Ready", "True")
        assert downloads() == 1
    model = f"/models/{FOLDER}/{WEIGHTS}"
    engines = site.pods(name)
    read = {node_cache.digest(pod, "engine", model) for pod in engines}
    read.add(node_cache.digest(node_cache.start_reader(), "reader", model))
    assert (len(engines), read) == (3, {hashlib.sha256(CONTENT).hexdigest()})
