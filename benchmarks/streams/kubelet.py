"""Takes the place of kubelets: runs containers for each pod that is bound to a node, until it is deleted.

It sets annotations on the pods, and KWOK writes the pods' status from them (pod-stages.yaml). A deleted pod
gets its preStop hooks and its grace period, and is removed when its containers have stopped.
"""

import itertools
import random
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flotilla_runtime import contract
from local_cluster.control_plane import ControlPlane
from local_cluster.errors import ApiError
from streams.containers import Containers, EngineContainers, RouterContainers

ADDRESS = "streams.test/address"
READY = "streams.test/ready"
STOPPED = "streams.test/stopped"
LOOK_SECONDS = 0.3
PROBE_EVERY_SECONDS = 2.0
FAILURES_UNTIL_UNREADY = 3
STARTED_WITHIN_SECONDS = 120.0

Pod = Mapping[str, Any]


class PodLife(threading.Thread):
    """One pod from its start to its end."""

    def __init__(self, plane: ControlPlane, pod: Pod, *, address: str, folder: Path) -> None:
        super().__init__(name=pod["metadata"]["name"], daemon=True)
        self._plane = plane
        self._containers = _containers(plane, pod, address, folder)
        self.address = address
        self.pod = pod
        self.gone = threading.Event()
        self._leaves = threading.Event()

    def run(self) -> None:
        """Start, answer probes, stop."""
        try:
            self._annotate(ADDRESS, self.address)
            self._containers.start()
            self._probe_until_it_leaves()
            if not self.gone.is_set():
                self._containers.before_stop(self.pod["metadata"].get("deletionGracePeriodSeconds") or 0)
            self._containers.stop()
            self._annotate(STOPPED, "True")
        finally:
            self._containers.kill()

    def see(self, pod: Pod | None) -> None:
        """Take in the pod's latest version; None when it no longer exists."""
        if pod is None:
            self.gone.set()
            self._leaves.set()
        else:
            self.pod = pod
            if "deletionTimestamp" in pod["metadata"]:
                self._leaves.set()

    def kill(self) -> None:
        """Kill the containers."""
        self._containers.kill()

    def _probe_until_it_leaves(self) -> None:
        deadline = time.monotonic() + STARTED_WITHIN_SECONDS
        while not self._containers.started():
            if self._leaves.wait(LOOK_SECONDS):
                return
            if time.monotonic() > deadline:
                raise TimeoutError(f"pod {self.name} did not start within {STARTED_WITHIN_SECONDS:.0f} s")
        shown, failures = False, 0
        while True:
            failures = 0 if self._containers.ready() else failures + 1
            if (failures == 0 and not shown) or (shown and failures == FAILURES_UNTIL_UNREADY):
                shown = failures == 0
                self._annotate(READY, str(shown))
            if self._leaves.wait(PROBE_EVERY_SECONDS):
                return

    def _annotate(self, name: str, value: str) -> None:
        metadata = self.pod["metadata"]
        path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"
        try:
            self._plane.client.merge(
                path, {"metadata": {"uid": metadata["uid"], "annotations": {name: value}}}
            )
        except ApiError as error:
            if error.status not in (404, 409):
                raise


class Kubelets(threading.Thread):
    """Runs all pods of one namespace."""

    def __init__(self, plane: ControlPlane, namespace: str, folder: Path) -> None:
        super().__init__(name="kubelets", daemon=True)
        self._plane = plane
        self._path = f"/api/v1/namespaces/{namespace}/pods"
        self._folder = folder
        self._block = f"127.{random.randint(16, 250)}"
        self._numbers = itertools.count(1)
        self._lives: dict[str, PodLife] = {}
        self._stopping = threading.Event()

    def run(self) -> None:
        """Poll the pods until stopped."""
        while not self._stopping.wait(LOOK_SECONDS):
            pods = {pod["metadata"]["uid"]: pod for pod in self._plane.client.get(self._path)["items"]}
            for uid, life in self._lives.items():
                life.see(pods.get(uid))
            for uid in pods.keys() - self._lives.keys():
                if pods[uid]["spec"].get("nodeName"):
                    self._lives[uid] = self._begin(pods[uid])

    def life_of(self, name: str) -> PodLife:
        """The pod of this name."""
        return next(life for life in list(self._lives.values()) if life.name == name)

    def stop(self) -> None:
        """Stop all pods."""
        self._stopping.set()
        self.join()
        for life in self._lives.values():
            life.see(None)
        for life in self._lives.values():
            life.join(timeout=30)

    def _begin(self, pod: Pod) -> PodLife:
        number = next(self._numbers)
        address = f"{self._block}.{number // 250}.{number % 250 + 1}"
        life = PodLife(self._plane, pod, address=address, folder=self._folder / pod["metadata"]["name"])
        life.start()
        return life


@contextmanager
def kubelets(plane: ControlPlane, namespace: str, folder: Path) -> Iterator[Kubelets]:
    """Run the pods during the block."""
    made = Kubelets(plane, namespace, folder)
    made.start()
    try:
        yield made
    finally:
        made.stop()


def _containers(plane: ControlPlane, pod: Pod, address: str, folder: Path) -> Containers:
    if pod["metadata"]["labels"][contract.LABEL_COMPONENT] == "engine":
        return EngineContainers(plane, pod, address, folder)
    return RouterContainers(plane, pod, address, folder)
