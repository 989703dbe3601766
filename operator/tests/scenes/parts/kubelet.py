"""The kubelets of all nodes: pods start after a time, report, and end when they are deleted."""

import asyncio
from collections.abc import Callable
from typing import Any

from flotilla_operator.objects.resources import NODES, PODS, Manifest
from flotilla_operator.objects.times import timestamp
from flotilla_operator.placement.manifests import FINISHED
from tests.scenes.parts.part import Cluster, Part

STARTS_AFTER_SECONDS = 20.0
ENDS_AFTER_SECONDS = 2.0
NODE_IS_MISSED_AFTER_SECONDS = 40.0


class Kubelets(Part):
    """`mute` names nodes whose kubelet does nothing; pods that are `never_ready` run without it."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster)
        self.starts_after_seconds = STARTS_AFTER_SECONDS
        self.mute: set[str] = set()
        self.never_ready: Callable[[Manifest], bool] = lambda _pod: False
        self._begun: set[tuple[str, str]] = set()
        self._tasks: set[asyncio.Task[bool]] = set()
        self._addresses = 0

    def look(self) -> None:
        for pod in self.api.listed(PODS):
            node = pod["spec"].get("nodeName")
            if node is None:
                continue
            if "deletionTimestamp" in pod["metadata"]:
                self._begin("end", pod, self._end)
            elif pod["status"].get("phase") == "Pending":
                self._begin("start", pod, self._start)

    def _begin(self, what: str, pod: Manifest, act: Callable[[Manifest], Any]) -> None:
        """Begin once for each pod whose node has a kubelet."""
        place = (what, pod["metadata"]["uid"])
        if place not in self._begun and self._works(pod):
            self._begun.add(place)
            task = asyncio.create_task(act(pod), name=f"{what} {pod['metadata']['name']}")
            self._tasks.add(task)
            task.add_done_callback(lambda ended: self._ended(ended, place))

    def _ended(self, task: "asyncio.Task[bool]", place: tuple[str, str]) -> None:
        """Begin anew later what could not be done because the node was silent."""
        self._tasks.discard(task)
        if not task.cancelled() and not task.result():
            self._begun.discard(place)

    def _works(self, pod: Manifest) -> bool:
        node = pod["spec"]["nodeName"]
        return node not in self.mute and self.api.get(NODES, "", node) is not None

    def _current(self, pod: Manifest) -> Manifest | None:
        """The pod as it is now, if it is still the same and its node has a kubelet."""
        metadata = pod["metadata"]
        found = self.api.get(PODS, metadata["namespace"], metadata["name"])
        if found is None or found["metadata"]["uid"] != metadata["uid"] or not self._works(found):
            return None
        return found

    async def _start(self, pod: Manifest) -> bool:
        await asyncio.sleep(self.starts_after_seconds)
        found = self._current(pod)
        if found is None or "deletionTimestamp" in found["metadata"] or found["status"]["phase"] in FINISHED:
            return found is not None
        self._addresses += 1
        address = f"10.0.{self._addresses // 250}.{self._addresses % 250 + 1}"
        self.cluster.report(PODS, found, **self._running(found, address, ready=not self.never_ready(found)))
        return True

    def _running(self, pod: Manifest, address: str, *, ready: bool) -> Manifest:
        now = timestamp(self.api.now())
        conditions = pod
        for kind, status in (
            ("Initialized", "True"),
            ("ContainersReady", str(ready)),
            ("Ready", str(ready)),
        ):
            merged = self.cluster.condition(conditions, kind, status)
            conditions = {"status": {"conditions": merged}}
        return {
            "phase": "Running",
            "podIP": address,
            "podIPs": [{"ip": address}],
            "startTime": now,
            "conditions": conditions["status"]["conditions"],
            "initContainerStatuses": [
                _initialised(container, now) for container in pod["spec"].get("initContainers", ())
            ],
            "containerStatuses": [
                {
                    **_container(container),
                    "ready": ready,
                    "started": ready,
                    "state": {"running": {"startedAt": now}},
                }
                for container in pod["spec"]["containers"]
            ],
        }

    async def _end(self, pod: Manifest) -> bool:
        await asyncio.sleep(min(ENDS_AFTER_SECONDS, pod["metadata"]["deletionGracePeriodSeconds"]))
        if (found := self._current(pod)) is not None:
            self.cluster.delete(PODS, found, gracePeriodSeconds=0)
        return found is not None


def _container(container: Manifest) -> Manifest:
    return {"name": container["name"], "image": container["image"], "imageID": "", "restartCount": 0}


def _initialised(container: Manifest, now: str) -> Manifest:
    if container.get("restartPolicy") == "Always":
        return {
            **_container(container),
            "ready": True,
            "started": True,
            "state": {"running": {"startedAt": now}},
        }
    ended = {"exitCode": 0, "reason": "Completed", "startedAt": now, "finishedAt": now}
    return {**_container(container), "ready": True, "state": {"terminated": ended}}
