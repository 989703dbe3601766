"""The security contexts of all our pods, by the `restricted` pod security standard.

Every pod runs as a user that is not root, with a read-only root file system, without capabilities and with
the runtime's default seccomp profile, so namespaces that enforce `restricted` accept it. Programs write to
the emptyDir volumes of `scratch`.
"""

from collections.abc import Mapping
from typing import Any

USER_ID = 65532  # the user of the project's own images; for other images any user id works


def pod_security_context(*, user_id: int = USER_ID) -> dict[str, Any]:
    """The pod's security context. `fsGroup` lets the user write to claims; the owners of files are changed
    only when those of the claim's root are wrong.
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
    """The security context of every container, including init containers."""
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }


def scratch(mounts: Mapping[str, str]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The volumes and mounts of emptyDirs; `mounts` maps volume names to paths."""
    volumes: list[dict[str, Any]] = [{"name": name, "emptyDir": {}} for name in mounts]
    return volumes, [{"name": name, "mountPath": path} for name, path in mounts.items()]
