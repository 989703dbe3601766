"""Fills the demo's two persistent volume claims: one with the models, one with the documents."""

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


def filler_name(claims: Sequence[str]) -> str:
    """The name of the pod that fills these claims; others may be filled meanwhile."""
    return f"{FILLER}-{claims[0]}"


def filler_pod(image: str, claims: Sequence[str]) -> dict[str, Any]:
    """A pod that holds the claims open under /data/CLAIM while files are copied in."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": filler_name(claims)},
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
    filler = filler_name(list(contents))
    kubectl.run("delete", "pod", filler, "--ignore-not-found", "--wait")
    kubectl.apply([filler_pod(image, list(contents))])
    try:
        kubectl.run("wait", "--for=condition=Ready", f"pod/{filler}", "--timeout=180s", timeout_seconds=200)
        for name, (folder, files) in contents.items():
            kubectl.run("exec", filler, "--", "find", f"/data/{name}", "-mindepth", "1", "-delete")
            kubectl.send_files(filler, folder, files, f"/data/{name}")
    finally:
        kubectl.run("delete", "pod", filler, "--ignore-not-found", "--wait")
