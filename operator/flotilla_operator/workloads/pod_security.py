"""Restricted pod security, written once.

Every pod of ours runs as a user that is not root, on a read-only root file system, without capabilities and
under the runtime's default seccomp profile, so the namespaces that enforce `restricted` accept it. What a
program must write goes to the emptyDir volumes of `scratch`.
"""

from collections.abc import Mapping
from typing import Any

USER_ID = 65532  # the user of the project's own images; any other would do for images that are not ours


def pod_security_context(*, user_id: int = USER_ID) -> dict[str, Any]:
    """For the pod: `fsGroup` lets the user write to claims, without a walk over a claim that is right
    already.
    """
    return {
        "runAsNonRoot": True,
        "runAsUser": user_id,
        "runAsGroup": user_id,
        "fsGroup": user_id,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container_security_context() -> dict[str, Any]:
    """For every container, init containers too."""
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }


def scratch(mounts: Mapping[str, str]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Volumes and mounts of emptyDirs, by volume name and path."""
    volumes: list[dict[str, Any]] = [{"name": name, "emptyDir": {}} for name in mounts]
    return volumes, [{"name": name, "mountPath": path} for name, path in mounts.items()]
