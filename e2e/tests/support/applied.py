"""What end-to-end tests apply beside the demo's objects, what they wait for, and what they saw where it did
not come.
"""

from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

import yaml

from demo.environment import EXAMPLE
from demo.kubectl import Kubectl
from tests.support.waiting import eventually

WAIT_SECONDS = 300.0
REPLICA_SET = "modelreplicaset"


class Site:
    """A namespace, and what a test made in it."""

    def __init__(self, kubectl: Kubectl) -> None:
        self.kubectl = kubectl
        self.made: list[tuple[str, str]] = []

    def apply(self, manifest: dict[str, Any]) -> None:
        """Apply an object that goes with the test."""
        self.made.append((manifest["kind"].lower(), manifest["metadata"]["name"]))
        self.kubectl.apply([manifest])

    def patch(self, kind: str, name: str, patch: str) -> None:
        """Change an object by a merge patch."""
        self.kubectl.run("patch", kind, name, "--type=merge", f"--patch={patch}")

    def remove(self, kind: str, name: str) -> None:
        """Delete an object and wait until it is gone."""
        self.kubectl.run("delete", kind, name, "--ignore-not-found", "--wait", timeout_seconds=200)

    def remove_all(self) -> None:
        """Delete what the test made, the newest first."""
        for kind, name in reversed(self.made):
            self.remove(kind, name)

    def condition(self, kind: str, name: str, condition_type: str) -> dict[str, Any]:
        """One condition of an object; empty where it has none yet."""
        item = self.kubectl.get(kind, name)
        status = item.get("status") or {}
        if status.get("observedGeneration") != item["metadata"]["generation"]:
            return {}
        return next((c for c in status.get("conditions", ()) if c["type"] == condition_type), {})

    def wait(
        self,
        kind: str,
        name: str,
        condition_type: str,
        status: str,
        reason: str | None = None,
        *,
        words: str = "",
    ) -> str:
        """Until a condition says this, with these words in its message; returns the message."""

        def holds() -> dict[str, Any] | None:
            found = self.condition(kind, name, condition_type)
            right = found.get("status") == status and reason in (None, found["reason"])
            return found if right and words in found.get("message", "") else None

        wanted = f"{condition_type}={status} {reason} {words!r}"
        message: str = self.until(holds, kind, name, wanted)["message"]
        return message

    def until(self, holds: Callable[[], Any], kind: str, name: str, wanted: str) -> Any:
        """Until something holds of an object; who waits in vain is told what was there instead."""
        try:
            return eventually(holds, WAIT_SECONDS)
        except AssertionError as error:
            raise AssertionError(f"{kind}/{name} {wanted}: {error}\n{self.seen(kind, name)}") from None

    def pods(self, name: str) -> dict[str, dict[str, Any]]:
        """The engine pods of a set that stay, by name."""
        selector = f"--selector=flotilla.dev/owner={name},app.kubernetes.io/component=engine"
        return {
            pod["metadata"]["name"]: pod
            for pod in self.kubectl.get("pods", selector)["items"]
            if "deletionTimestamp" not in pod["metadata"]
        }

    def notes(self, name: str, reason: str) -> list[str]:
        """What the events of this reason say about an object."""
        return [
            event["message"]
            for event in self.kubectl.get("events", f"--field-selector=involvedObject.name={name}")["items"]
            if event["reason"] == reason
        ]

    def seen(self, kind: str, name: str) -> str:
        """What a test that fails needs to tell: the object's status, and its engines' containers."""
        told: dict[str, Any] = {"status": self.kubectl.get(kind, name).get("status")}
        if kind == REPLICA_SET:
            told["engines"] = {pod: containers(found) for pod, found in self.pods(name).items()}
        return yaml.safe_dump(told)


def containers(pod: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What the kubelet says of a pod's containers, init containers first."""
    status = pod.get("status") or {}
    return [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]


def example(kind: str, name: str, **spec: Any) -> dict[str, Any]:
    """The example's first object of this kind under another name, with parts of its spec replaced."""
    objects = yaml.safe_load_all(EXAMPLE.read_text())
    found: dict[str, Any] = deepcopy(next(item for item in objects if item["kind"] == kind))
    found["metadata"]["name"] = name
    found["spec"].update(spec)
    return found


def replica_set(name: str, **spec: Any) -> dict[str, Any]:
    """A set like the example's smollm2."""
    return example("ModelReplicaSet", name, **spec)
