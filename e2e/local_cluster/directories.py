"""Where the local cluster keeps what it builds and runs: always outside the checkout.

`$FLOTILLA_CACHE` (default `~/.cache/flotilla`) holds binaries and images by version, the engine's
environment and the cluster's state. Sockets and mounts live under /run instead: a socket's path may
have 107 characters, which a cache folder given by a user can exceed.
"""

import os
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
RUN_DIRECTORY = Path("/run/flotilla-local-cluster")


@dataclass(frozen=True, slots=True, kw_only=True)
class Directories:
    """The cache folder and what stands where in it."""

    cache: Path

    @property
    def binaries(self) -> Path:
        """One folder per tool and version."""
        return self.cache / "bin"

    @property
    def images(self) -> Path:
        """Archives of base and built images, named by the hash of what made them."""
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
    """The folders this process is to use, from the environment."""
    configured = os.environ.get("FLOTILLA_CACHE")
    return Directories(
        cache=Path(configured).resolve() if configured else Path.home() / ".cache" / "flotilla"
    )
