"""The local cluster of the kind that this machine can run.

With a Docker engine and kind it is a kind cluster; else it is the embedded cluster, which needs root on
Debian. The kubeconfig has the same path either way.
"""

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from local_cluster.directories import directories
from local_cluster.embedded import EmbeddedCluster
from local_cluster.kind import KindCluster
from local_cluster.prerequisites import docker_answers
from local_cluster.progress import Progress


def local_cluster(progress: Progress | None = None) -> EmbeddedCluster | KindCluster:
    """The cluster that this machine has or would get."""
    shown = progress or Progress()
    embedded = EmbeddedCluster(places=directories(), progress=shown)
    if not embedded.present and shutil.which("kind") is not None and docker_answers():
        return KindCluster(places=directories(), progress=shown)
    return embedded


def up(*, gpu_node_count: int = 2, dual_stack: bool = False, progress: Progress | None = None) -> Path:
    """Start the parts that are not running; returns the kubeconfig's path."""
    with _one_at_a_time():
        local_cluster(progress).up(gpu_node_count=gpu_node_count, dual_stack=dual_stack)
    return directories().kubeconfig


def down(*, progress: Progress | None = None) -> None:
    """Remove the cluster from the machine."""
    with _one_at_a_time():
        local_cluster(progress).down()


def status() -> list[str]:
    """The lines that `status` prints."""
    return local_cluster().status()


def running() -> bool:
    """Whether every part of the cluster is running."""
    return local_cluster().healthy()


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    places = directories()
    places.cache.mkdir(parents=True, exist_ok=True)
    with (places.cache / "cluster.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
