"""Kubeconfig files that carry everything they need, so that they can be copied anywhere."""

import base64
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
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path


def _data(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
