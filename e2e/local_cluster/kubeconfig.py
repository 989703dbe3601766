"""Writes kubeconfig files with certificates and keys inside, so that they can be copied anywhere."""

import base64
import os
import threading
from pathlib import Path

import yaml

from local_cluster.certificates import KeyPair


def write_kubeconfig(path: Path, *, url: str, authority: Path, credentials: KeyPair) -> Path:
    """Write a kubeconfig for one user of one cluster, readable by its owner alone."""
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "flotilla",
        "contexts": [{"name": "flotilla", "context": {"cluster": "flotilla", "user": "flotilla"}}],
        "clusters": [
            {"name": "flotilla", "cluster": {"server": url, "certificate-authority-data": _data(authority)}}
        ],
        "users": [
            {
                "name": "flotilla",
                "user": {
                    "client-certificate-data": _data(credentials.certificate),
                    "client-key-data": _data(credentials.key),
                },
            }
        ],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    put(path, yaml.safe_dump(document, sort_keys=False))
    return path


def put(path: Path, text: str) -> None:
    """Write a file that only its owner may read. A reader gets the whole old text or the whole new one.

    Several processes may start the cluster again while others use it.
    """
    scratch = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    scratch.touch(mode=0o600)
    scratch.write_text(text)
    scratch.replace(path)


def _data(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
