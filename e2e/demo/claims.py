"""Fills the demo's two claims: one with the models, one with the documents."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from demo.kubectl import Kubectl

FILLER = "filler"
RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}


def claim(name: str, size: str) -> dict[str, Any]:
    """A claim of the default storage class."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}},
    }


def filler_pod(image: str, claims: Sequence[str]) -> dict[str, Any]:
    """A pod that holds the claims open under /data/CLAIM while files are copied in."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": FILLER},
        "spec": {
            "automountServiceAccountToken": False,
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            "securityContext": {"runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532},
            "containers": [
                {
                    "name": FILLER,
                    "image": image,
                    "command": ["sleep", "3600"],
                    "securityContext": RESTRICTED,
                    "volumeMounts": [{"name": name, "mountPath": f"/data/{name}"} for name in claims],
                }
            ],
            "volumes": [{"name": name, "persistentVolumeClaim": {"claimName": name}} for name in claims],
        },
    }


def fill(
    kubectl: Kubectl, image: str, contents: dict[str, tuple[Path, Sequence[str]]], sizes: dict[str, str]
) -> None:
    """Make each claim of `contents` hold exactly the named files of its folder."""
    kubectl.apply([claim(name, sizes[name]) for name in contents])
    kubectl.run("delete", "pod", FILLER, "--ignore-not-found", "--wait")
    kubectl.apply([filler_pod(image, list(contents))])
    try:
        kubectl.run("wait", "--for=condition=Ready", f"pod/{FILLER}", "--timeout=180s", timeout_seconds=200)
        for name, (folder, files) in contents.items():
            kubectl.run("exec", FILLER, "--", "find", f"/data/{name}", "-mindepth", "1", "-delete")
            kubectl.send_files(FILLER, folder, files, f"/data/{name}")
    finally:
        kubectl.run("delete", "pod", FILLER, "--ignore-not-found", "--wait")
