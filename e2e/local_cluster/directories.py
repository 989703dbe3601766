"""The folders of the local cluster, all outside the checkout.

`$FLOTILLA_CACHE` (default `~/.cache/flotilla`) holds binaries and images by version, the engine's environment
and the cluster's state. Sockets and mounts are under /run, because a socket's path may have at most 107
characters, and a cache folder that a user names may be longer.
"""

import os
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
RUN_DIRECTORY = Path("/run/flotilla-local-cluster")


@dataclass(frozen=True, slots=True, kw_only=True)
class Directories:
    """The cache folder, and the folders in it."""

    cache: Path

    @property
    def binaries(self) -> Path:
        """One folder per tool and version."""
        return self.cache / "bin"

    @property
    def images(self) -> Path:
        """Archives of base and built images, each named by a hash of its inputs."""
        return self.cache / "images"

    @property
    def engine(self) -> Path:
        """The CPU engine's environments; mounted read-only into every pod as /opt/engine."""
        return self.cache / "engine"

    @property
    def cluster(self) -> Path:
        """State of the one full cluster: etcd, containerd, kubelet, volumes, logs."""
        return self.cache / "cluster"

    @property
    def kubeconfig(self) -> Path:
        """The same path whether kind or the embedded cluster made it."""
        return self.cluster / "kubeconfig"


def directories() -> Directories:
    """The folders that this process's environment names."""
    configured = os.environ.get("FLOTILLA_CACHE")
    return Directories(
        cache=Path(configured).resolve() if configured else Path.home() / ".cache" / "flotilla"
    )
