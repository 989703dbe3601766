"""Removes everything of the cluster from the machine, whatever state the cluster is in.

Before the cluster changes anything it records the machine's settings (`Before`). Removal needs no record of
what was started: it finds processes by the paths in their command lines, pods' processes by their cgroup, and
mounts by their paths. Every step also works when only half of the cluster is there, or nothing.
"""

import json
import os
import shutil
import signal
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from local_cluster import network
from local_cluster.commands import succeeds
from local_cluster.directories import RUN_DIRECTORY, Directories
from local_cluster.errors import LocalClusterError
from local_cluster.node import CGROUP
from local_cluster.processes import end_process, start_ticks

CGROUP_ROOT = Path("/sys/fs/cgroup")
PROGRAMS = frozenset(
    {
        "etcd",
        "kube-apiserver",
        "kube-controller-manager",
        "kube-scheduler",
        "kube-proxy",
        "kubelet",
        "kwok",
        "local-path-provisioner",
        "containerd",
        "containerd-shim-runc-v2",
    }
)
POLICIES_MODULE = "local_cluster.network_policies"  # a program of Python
# Folders that the kubelet, containerd or CNI make at fixed paths.
SHARED_FOLDERS = ("/var/lib/kubelet", "/var/lib/cni", "/var/log/containers", "/run/containerd", "/run/netns")
SHIM_SOCKETS = Path("/run/containerd/s")
OWNER = RUN_DIRECTORY / "owner"
WAIT_SECONDS = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Before:
    """State of the machine before the cluster."""

    boot: str
    sysctls: dict[str, str]
    folders: tuple[str, ...]

    @classmethod
    def read(cls) -> "Before":
        """The machine's settings as they are now."""
        return cls(
            boot=boot_id(),
            sysctls=network.read_sysctls(),
            folders=tuple(folder for folder in SHARED_FOLDERS if Path(folder).exists()),
        )

    @classmethod
    def load(cls, path: Path) -> "Before | None":
        """The record of when the cluster came up; None when there is no cluster."""
        with suppress(OSError, ValueError):
            found = json.loads(path.read_text())
            return cls(boot=found["boot"], sysctls=found["sysctls"], folders=tuple(found["folders"]))
        return None

    def save(self, path: Path) -> None:
        """Write the record in one step, so that no half of it is ever read."""
        partial = path.with_suffix(".part")
        partial.write_text(json.dumps(asdict(self)))
        partial.rename(path)


def claim(places: Directories) -> None:
    """Record the cache folder of this machine's cluster; raises when it is another cache folder's."""
    check_owner(places)
    RUN_DIRECTORY.mkdir(parents=True, exist_ok=True)
    OWNER.write_text(str(places.cache))


def check_owner(places: Directories) -> None:
    """Raise when the machine's one embedded cluster belongs to another cache folder."""
    owner = OWNER.read_text() if OWNER.exists() else str(places.cache)
    if owner != str(places.cache):
        raise LocalClusterError(
            part="local cluster",
            problem=f"this machine has one already, of the cache folder {owner}",
            fix=f"Use it with FLOTILLA_CACHE={owner}, or remove it: FLOTILLA_CACHE={owner} make cluster-down",
        )


def boot_id() -> str:
    """An id that changes with every start of the machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def clear(places: Directories, before: Before | None) -> None:
    """Remove processes, mounts, cgroups, interfaces, rules and files of the cluster."""
    roots = _roots(places)
    end_processes(places)
    _kill_pods()
    _unmount(roots)
    _remove_cgroups()
    network.take_down()
    for path in (*_stale_shim_sockets(), *_stray_files(places)):
        path.unlink(missing_ok=True)
    if before is not None and before.boot == boot_id():
        network.restore_sysctls(before.sysctls)
    for folder in SHARED_FOLDERS:
        if before is not None and folder not in before.folders:
            _remove_empty(Path(folder))
    _remove_tree(RUN_DIRECTORY)


def end_processes(places: Directories, *, spare: frozenset[str] = frozenset()) -> None:
    """Kill the cluster's processes, except those of the programs in `spare`."""
    for pid in our_processes(places, PROGRAMS - spare):
        end_process(pid, grace_seconds=0)


def our_processes(places: Directories, programs: frozenset[str] = PROGRAMS) -> list[int]:
    """The processes of these programs, and the one that follows network policies, that have one of the
    cluster's folders in their command line.
    """
    prefixes = tuple(f"{root}/" for root in _roots(places))
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with suppress(OSError):
            argv = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            ours = Path(argv[0]).name in programs or POLICIES_MODULE in argv
            if ours and any(prefix in word for word in argv for prefix in prefixes):
                found.append(int(entry.name))
    return found


def _roots(places: Directories) -> tuple[Path, Path, Path]:
    return (RUN_DIRECTORY, places.cluster, places.cache / "containerd")


def cgroup_folders() -> list[Path]:
    """Our cgroup in every hierarchy, deepest folder first."""
    roots = [CGROUP_ROOT / CGROUP, *(root / CGROUP for root in CGROUP_ROOT.iterdir() if root.is_dir())]
    folders: list[Path] = []
    for root in roots:
        if root.is_dir():
            folders += [Path(folder) for folder, _, _ in os.walk(root, topdown=False)]
    return folders


def mounts_below(roots: Iterable[Path]) -> list[str]:
    """Mount points below the folders, the innermost first."""
    prefixes = tuple(f"{root}/" for root in roots)
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    points = [line.split()[4].encode().decode("unicode_escape") for line in lines]
    return [point for point in reversed(points) if point.startswith(prefixes)]


def _kill_pods() -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while (pids := set(_pod_processes())) and time.monotonic() < deadline:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)


def _pod_processes() -> Iterator[int]:
    for folder in cgroup_folders():
        with suppress(OSError):
            for word in (folder / "cgroup.procs").read_text().split():
                if start_ticks(int(word)) is not None:
                    yield int(word)


def _stale_shim_sockets() -> Iterator[Path]:
    """The sockets of containerd's killed shims, in a folder that cannot be configured.

    The folder is shared with other containerds; a socket that nobody listens on is safe to remove.
    """
    for path in SHIM_SOCKETS.glob("*"):
        with socket.socket(socket.AF_UNIX) as client:
            try:
                client.connect(str(path))
            except OSError:
                yield path


def _stray_files(places: Directories) -> Iterator[Path]:
    """Files that CNI, the kubelet and its device plugins leave in shared folders."""
    for result in Path("/var/lib/cni/results").glob("*"):
        if str(RUN_DIRECTORY) in result.read_text(errors="replace"):
            yield result
    for link in Path("/var/log/containers").glob("*.log"):
        if link.is_symlink() and str(link.readlink()).startswith(str(places.cluster)):
            yield link
    yield from Path("/var/lib/kubelet/device-plugins").glob("*")


def _unmount(roots: Iterable[Path]) -> None:
    for point in mounts_below(roots):
        succeeds(["umount", "--lazy", point])


def _remove_cgroups() -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while (folders := cgroup_folders()) and time.monotonic() < deadline:
        for folder in folders:
            with suppress(OSError):
                folder.rmdir()
        time.sleep(0.1)


def _remove_empty(folder: Path) -> None:
    """Remove a folder that the cluster made, and the empty folders in it; other programs' files stay."""
    for below, _, _ in os.walk(folder, topdown=False):
        with suppress(OSError):
            Path(below).rmdir()


def remove_state(places: Directories) -> None:
    """Delete the cluster's data; the logs of the last run stay, to show why it failed."""
    if not places.cluster.is_dir():
        return
    for entry in places.cluster.iterdir():
        if entry.name == "logs":
            continue
        if entry.is_dir():
            _remove_tree(entry)
        else:
            entry.unlink()


def _remove_tree(root: Path) -> None:
    """Delete a folder; raises when something is still mounted in it."""
    if mounted := mounts_below([root]):
        raise LocalClusterError(
            part="clean-up",
            problem=f"these paths are still mounted: {', '.join(mounted)}",
            fix="Find what uses them (fuser -vm PATH), unmount them and run `make cluster-down` again.",
        )
    shutil.rmtree(root, ignore_errors=True)


def make_cgroups() -> None:
    """Make the parent cgroup of the kubelet's pods, in every hierarchy."""
    if (CGROUP_ROOT / "cgroup.controllers").exists():
        (CGROUP_ROOT / CGROUP).mkdir(exist_ok=True)
        return
    for line in Path("/proc/mounts").read_text().splitlines():
        _, mounted, kind, *_ = line.split()
        if kind == "cgroup":
            folder = Path(mounted) / CGROUP
            folder.mkdir(exist_ok=True)
            # No process can join a new cpuset until it has processors and memory nodes.
            for name in ("cpuset.cpus", "cpuset.mems"):
                if (folder / name).exists():
                    (folder / name).write_text((folder.parent / name).read_text())
