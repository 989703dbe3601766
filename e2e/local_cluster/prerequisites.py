"""The programs, rights and disk space that the machine needs, checked before anything starts."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from local_cluster.binaries import missing_binaries
from local_cluster.commands import run
from local_cluster.container_runtime import CNI_PROGRAMS
from local_cluster.directories import directories
from local_cluster.errors import MissingPrerequisites

FREE_DISK_GIB = 15
POLICY = Path("/usr/sbin/policy-rc.d")


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """A program and its Debian package; an absolute path, which may hold a *, names a file."""

    path: str
    package: str

    def present(self) -> bool:
        """Whether the machine has it; /usr/sbin and /sbin are searched even when they are not in PATH."""
        if self.path.startswith("/"):
            return any(Path("/").glob(self.path.removeprefix("/")))
        return shutil.which(self.path, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") is not None


CLUSTER_NEEDS = (
    Need(path="containerd", package="containerd"),
    Need(path="ctr", package="containerd"),
    Need(path="runc", package="runc"),
    Need(path=f"{CNI_PROGRAMS}/ptp", package="containernetworking-plugins"),
    Need(path="buildah", package="buildah"),
    Need(path="debootstrap", package="debootstrap"),
    Need(path="nft", package="nftables"),
    Need(path="ip", package="iproute2"),
    Need(path="mount", package="mount"),
    Need(path="setpriv", package="util-linux"),
)
SERVICE_NEEDS = (
    Need(path="haproxy", package="haproxy"),
    Need(path="redis-server", package="redis-server"),
    Need(path="/usr/lib/*/libnuma.so.1", package="libnuma1"),
    Need(path="lscpu", package="util-linux"),
    Need(path="/usr/lib/postgresql/*/bin/initdb", package="postgresql"),
)
DOCUMENTS: tuple[Need, ...] = (
    Need(path="/usr/share/doc/postgresql-doc-15/html", package="postgresql-doc-15"),
)
TEST_NEEDS: tuple[Need, ...] = (*CLUSTER_NEEDS, *SERVICE_NEEDS, *DOCUMENTS)


def demo_needs(*, embedded: bool) -> tuple[Need, ...]:
    """Needs of the demo: the embedded cluster's programs, or nothing with kind, which Docker runs."""
    return CLUSTER_NEEDS if embedded else ()


def missing_packages(needs: tuple[Need, ...]) -> list[str]:
    """The Debian packages to install, each once, in the order of the needs."""
    return list(dict.fromkeys(need.package for need in needs if not need.present()))


def check_embedded() -> None:
    """Raise MissingPrerequisites with everything that the embedded cluster lacks on this machine."""
    missing = []
    if os.geteuid() != 0:
        missing.append("root rights (the kubelet mounts volumes, and pod networks are created)")
    if not Path("/etc/debian_version").exists():
        missing.append(
            "Debian (the images are made from its packages); on another Linux, install Docker and kind"
        )
    packages = missing_packages(CLUSTER_NEEDS)
    missing += [f"package {package}" for package in packages]
    missing += missing_toolchain()
    free_gib = shutil.disk_usage(existing_parent(directories().cache)).free / 1024**3
    if free_gib < FREE_DISK_GIB:
        missing.append(
            f"{FREE_DISK_GIB} GiB of free disk space below {directories().cache} ({free_gib:.0f} GiB free)"
        )
    if missing:
        raise MissingPrerequisites(missing=missing, fix=_fix(packages))


def missing_toolchain() -> list[str]:
    """Go, when it is not installed and a program must still be built."""
    if shutil.which("go") is None and (unbuilt := missing_binaries()):
        return [f"Go 1.26 or newer, to build {', '.join(unbuilt)} (https://go.dev/dl)"]
    return []


def existing_parent(path: Path) -> Path:
    """The path itself, else its nearest parent folder that exists."""
    return path if path.exists() else existing_parent(path.parent)


def install(packages: list[str]) -> None:
    """Install Debian packages; services that they bring are not started."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    with _services_stay_off():
        run(["apt-get", "update"], part="apt-get", environment=environment)
        run(
            ["apt-get", "install", "--yes", "--no-install-recommends", *packages],
            part="apt-get",
            environment=environment,
        )


def can_install() -> bool:
    """Whether this user may install packages here."""
    return os.geteuid() == 0 and shutil.which("apt-get") is not None


@contextmanager
def _services_stay_off() -> Iterator[None]:
    """Keep Debian from starting installed services, with a policy file that refuses it."""
    ours = not POLICY.exists()
    if ours:
        POLICY.write_text("#!/bin/sh\nexit 101\n")
        POLICY.chmod(0o755)
    try:
        yield
    finally:
        if ours:
            POLICY.unlink()


def install_command(packages: list[str]) -> str:
    """The shell command that installs the packages."""
    return "apt-get update && apt-get install --yes --no-install-recommends " + " ".join(packages)


def _fix(packages: list[str]) -> str:
    return f"Run as root: {install_command(packages)}" if packages else "Provide these, then try again."


def docker_answers() -> bool:
    """Whether there is a Docker engine to run kind in."""
    if shutil.which("docker") is None:
        return False
    try:
        return (
            subprocess.run(["docker", "info"], capture_output=True, timeout=20, check=False).returncode == 0
        )
    except subprocess.TimeoutExpired:
        return False
