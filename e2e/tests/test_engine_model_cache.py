"""A folder of the node or a claim that replicas share, with a real kubelet: one downloads, all start from it.

The same of fetchers alone, with one that is killed, is in test_one_downloader.py; that a namespace that does
not admit such folders is named, in operator/tests/controllers/model_replica_set/test_waiting_apiserver.py.
"""

import hashlib
import itertools
import shutil
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from demo import claims
from demo.environment import Environment
from engine.models import GENERATOR, ensure_models
from local_cluster.errors import ApiError
from tests.support import node_models
from tests.support.applied import REPLICA_SET, Site
from tests.support.asked import asked
from tests.support.hub import Hub
from tests.support.stand_ins import doubles, start_hub

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(2400, func_only=True)]

SOURCE = "acme/tiny"
FOLDER = "acme--tiny"
WEIGHTS = "model.safetensors"
HEADER = b'{"__metadata__":{}}'
CONTENT = struct.pack("<Q", len(HEADER)) + HEADER + bytes(range(256)) * 4096
STALL = {"stall": {"file": WEIGHTS, "after_bytes": len(CONTENT) // 2}}
FETCHER = "fetch-model"
CONTAINERS = ("make-model-folder", FETCHER, "engine")
DIGEST = (
    "import glob, hashlib, sys; (path,) = glob.glob(sys.argv[1], recursive=True); "
    "print(hashlib.sha256(open(path, 'rb').read()).hexdigest())"
)
PRELOADED = "/models/of-the-user.so"  # there is none, and the loader of each process says so
LIST = "import os; print(' '.join(sorted(os.listdir('/models'))))"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cache:
    """A model cache as a set names it, and as any other pod mounts it."""

    namespace: str
    pod_security: str
    settings: dict[str, str]
    volume: dict[str, Any]
    made_by_the_user: tuple[dict[str, Any], ...] = ()
    variables: tuple[dict[str, str], ...] = ()


def node_folder(_folder: Path) -> Cache:
    """A folder of the node that does not exist yet, in a namespace that admits such folders."""
    shutil.rmtree(node_models.FOLDER, ignore_errors=True)
    path = str(node_models.FOLDER)
    return Cache(
        namespace="flotilla-node-cache",
        pod_security="privileged",
        settings={"mode": "Node", "path": path},
        volume={"hostPath": {"path": path, "type": "Directory"}},
        variables=({"name": "LD_PRELOAD", "value": PRELOADED},),
    )


def claim(_folder: Path) -> Cache:
    """A claim that waits for its first pod, in a namespace that admits nothing special."""
    name = "shared-models"
    return Cache(
        namespace="flotilla-claim-cache",
        pod_security="restricted",
        settings={"mode": "Claim", "claimName": name},
        volume={"persistentVolumeClaim": {"claimName": name, "readOnly": True}},
        made_by_the_user=(claims.claim(name, "1Gi"),),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheSite:
    """A namespace with a model cache that holds nothing yet, and a hub."""

    site: Site
    hub: str
    runtime: str
    cache: Cache

    def replicas(self, name: str, image: str, count: int) -> dict[str, Any]:
        """A set whose replicas share the cache."""
        return doubles(
            name,
            image,
            {"env": [{"name": "HF_ENDPOINT", "value": self.hub}, *self.cache.variables]},
            model={"name": name, "source": f"hf://{SOURCE}", "task": "Generate"},
            modelCache=self.cache.settings,
            replicas=count,
        )

    @contextmanager
    def at_hub(self) -> Iterator[Hub]:
        """The hub, from outside of the cluster."""
        with self.site.kubectl.port_forward("service/hub", 80) as port:
            yield Hub(url=f"http://127.0.0.1:{port}", repository=SOURCE)

    def wait_until_all_answer(self, name: str) -> None:
        """Until the set is ready and each of its replicas has answered something asked of the router."""
        self.site.wait_ready(name)
        numbers, heard = itertools.count(), set[str]()
        with asked(self.site.kubectl, name) as ask:

            def all_heard() -> bool:
                heard.add(ask(f"Who answers number {next(numbers)}?"))
                return heard == self.site.pods(name).keys()

            self.site.until(all_heard, REPLICA_SET, name, "an answer of every replica")

    def fetcher_says(self, pod: str) -> str:
        """The log of a pod's fetcher; empty before it runs."""
        try:
            return self.site.objects.log(pod, FETCHER)
        except ApiError:
            return ""

    def digest(self, pod: str, container: str, path: str) -> str:
        """The hash of a file as a container reads it; `path` may be a pattern."""
        return self.told(pod, container, DIGEST, path)

    def told(self, pod: str, container: str, program: str, *arguments: str) -> str:
        """Output of a program in a container."""
        command = ("python3", "-c", program, *arguments)
        return self.site.kubectl.run("exec", pod, f"--container={container}", "--", *command).strip()

    def start_reader(self) -> str:
        """A pod that has nothing to do with us and mounts the cache; its name."""
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
                "volumes": [{"name": "models", **self.cache.volume}],
            },
        }
        self.site.apply(pod)
        ready = ("wait", "--for=condition=Ready", f"pod/{reader}", "--timeout=600s")
        self.site.kubectl.run(*ready, timeout_seconds=610)
        return reader


@pytest.fixture(
    params=[
        pytest.param(node_folder, id="a folder of the node"),
        pytest.param(claim, id="a claim", marks=pytest.mark.rare),
    ]
)
def shared(request: pytest.FixtureRequest, installed: Environment, tmp_path: Path) -> Iterator[CacheSite]:
    described: Callable[[Path], Cache] = request.param
    cache = described(tmp_path)
    made = replace(installed, kubectl=replace(installed.kubectl, namespace=cache.namespace))
    made.make_namespace(cache.pod_security)
    try:
        model = tmp_path / "model"
        model.mkdir()
        (model / "config.json").write_bytes((ensure_models() / GENERATOR.name / "config.json").read_bytes())
        (model / WEIGHTS).write_bytes(CONTENT)
        runtime = installed.build_images()["runtime"]
        hub = start_hub(made, runtime, {SOURCE: model}, "1Gi")
        site = Site(made.kubectl)
        for manifest in cache.made_by_the_user:
            site.apply(manifest)
        yield CacheSite(site=site, hub=hub, runtime=runtime, cache=cache)
    finally:
        everywhere = replace(installed.kubectl, namespace=None)
        everywhere.run("delete", "namespace", cache.namespace, "--wait=false")


@pytest.mark.holds("engine.md", "With a shared cache one replica downloads and the others wait")
@pytest.mark.holds(
    "engine.md", "Sets share files within a namespace and a hub, and see nothing else of the node's folder"
)
@pytest.mark.attack(
    "A user's variables run code as root (`PYTHONPATH`, `LD_PRELOAD`)",
    "A set reads or changes the models of another namespace",
)
def test_of_the_replicas_that_share_a_cache_one_downloads_and_all_start_from_it(
    shared: CacheSite, double: str
) -> None:
    name, site = "cached", shared.site
    with shared.at_hub() as hub:

        def one_fetches_and_one_waits() -> bool:
            logs = [shared.fetcher_says(pod) for pod in site.pods(name)]
            return sum("another replica is fetching" in log for log in logs) == 1 == hub.downloads(WEIGHTS)

        hub.set_faults(STALL)
        site.apply(shared.replicas(name, double, 2))
        site.until(one_fetches_and_one_waits, REPLICA_SET, name, "one that fetches, one that waits for it")
        hub.set_faults({})
        shared.wait_until_all_answer(name)
        assert hub.downloads(WEIGHTS) == 1
        asked_for_two = hub.requests()
        site.apply(shared.replicas(name, double, 3))
        shared.wait_until_all_answer(name)
        assert hub.requests() == asked_for_two, "a replica made later asks the hub for nothing"
    engines = site.pods(name)
    read = {shared.digest(pod, "engine", f"/models/{FOLDER}/{WEIGHTS}") for pod in engines}
    read.add(shared.digest(shared.start_reader(), "reader", f"/models/**/{FOLDER}/{WEIGHTS}"))
    assert (len(engines), read) == (3, {hashlib.sha256(CONTENT).hexdigest()})
    if shared.cache.variables:
        loads = {name for name in CONTAINERS for pod in engines if PRELOADED in site.objects.log(pod, name)}
        assert loads == {"engine"}, "root and the fetcher load nothing of the user's"
    seen = {shared.told(pod, "engine", LIST) for pod in engines}
    assert seen == {f".{FOLDER}.lock {FOLDER}"}, "an engine has its own part of what is shared"
