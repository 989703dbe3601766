"""HAProxy from later Debian releases, so that tests run the version of the chart's image.

Debian 12 has 2.6, the oldest that Flotilla supports. `forky` has the branch of the chart's image, and
`experimental` sometimes has a newer one. Nothing is installed: the programs are in the cache and run with
forky's C library.

The packages come from the machine's own mirror. A mirror keeps only the current packages, so versions and
checksums cannot be pinned; Debian's signature is checked. The programs stay in the cache until its folder is
removed. A fetch that finds no program of the chart's branch fails and leaves nothing in the cache.
"""

import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from local_cluster.binaries import locked
from local_cluster.commands import run, succeeds
from local_cluster.declared import NEWER_HAPROXY, check_declared
from local_cluster.directories import directories
from local_cluster.errors import BuildFailed, LocalClusterError
from local_cluster.progress import Progress

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
SUITE_OF_THE_CHART = "forky"
SUITES = (SUITE_OF_THE_CHART, "experimental")
FETCHED_WITHIN_SECONDS = 120  # of the 300 that a test may take, which may have to wait for another's fetch
LIBRARIES = (
    "libc6",
    "libcrypt1",
    "libgcc-s1",
    "libjemalloc2",
    "liblua5.4-0",
    "libopentracing-c-wrapper0t64",
    "libopentracing1",
    "libpcre2-8-0",
    "libssl3t64",
    "libstdc++6",
    "libzstd1",
    "zlib1g",
)
PART = "newer HAProxy"
ANOTHER_WAY = (
    f"The machine's mirror (see `apt-get update`) must offer Debian's {SUITE_OF_THE_CHART}. Or copy the "
    "folder bin/haproxy-newer from another machine's ~/.cache/flotilla."
)
# HAProxy executes itself again by the name that it was started with, which must be this script's.
LAUNCHER = """#!/bin/sh
libraries="$(dirname "$0")/../libraries/usr/lib/{triplet}"
exec "$libraries/{loader}" --argv0 "$0" --library-path "$libraries" "$(dirname "$0")/usr/sbin/haproxy" "$@"
"""
LOADERS = {"x86_64": "ld-linux-x86-64.so.2", "aarch64": "ld-linux-aarch64.so.1"}


def newer_haproxies() -> dict[str, Path]:
    """The path of each suite's HAProxy; fetches them when they are not in the cache.

    The HAProxy of the chart's branch is always among them. Raises BuildFailed where it cannot be had.
    """
    check_declared(NEWER_HAPROXY)
    folder = directories().binaries / NEWER_HAPROXY
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder.with_suffix(".lock")):
        if not (folder / SUITE_OF_THE_CHART / "haproxy").is_file():
            shutil.rmtree(folder, ignore_errors=True)
            fetch(folder)
    return {suite: path for suite in SUITES if (path := folder / suite / "haproxy").is_file()}


def fetch(folder: Path) -> None:
    """Fetch all programs into the folder; on an error the folder is not created."""
    if shutil.which("apt-get") is None or not KEYRING.is_file() or platform.machine() not in LOADERS:
        raise BuildFailed(
            part=PART,
            problem="newer versions are Debian packages, and this machine is not Debian on amd64 or arm64",
            fix="Run the tests on Debian.",
        )
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="haproxy-newer-") as scratch:
        with Progress(out=sys.stderr).step("fetch HAProxy of Debian's coming releases"):
            packages = _download(Path(scratch) / "apt")
            made = Path(scratch) / "made"
            for package in packages:
                suite = package.parent.name
                (made / suite).mkdir(parents=True, exist_ok=True)
                run(["dpkg-deb", "--extract", package, made / suite], part=PART)
            for suite in SUITES:
                _keep_what_runs(made / suite)
        if not (made / SUITE_OF_THE_CHART).is_dir():
            raise BuildFailed(
                part=PART,
                problem=f"Debian's {SUITE_OF_THE_CHART} has no HAProxy that runs here",
                fix="Name the suite that has the branch of the chart's image in SUITE_OF_THE_CHART "
                "(e2e/local_cluster/newer_haproxy.py), and the libraries it needs in LIBRARIES.",
            )
        made.rename(folder)


def _keep_what_runs(folder: Path) -> None:
    """Keep the suites whose HAProxy runs here; a newer package may need a library that is not fetched."""
    if folder.is_dir():
        _write_launcher(folder / "haproxy")
        if not succeeds([folder / "haproxy", "-v"]):
            shutil.rmtree(folder)


def _download(folder: Path) -> list[Path]:
    """Download the package archives of the programs and of the libraries, each into its folder."""
    for needed in ("lists/partial", "archives/partial", "libraries", *SUITES):
        (folder / needed).mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + FETCHED_WITHIN_SECONDS
    lines = [f"deb [signed-by={KEYRING}] {_mirror()} {suite} main\n" for suite in SUITES]
    (folder / "sources.list").write_text("".join(lines))
    _apt(folder, until, "apt-get", "update")
    offered = _apt(folder, until, "apt-cache", "madison", "haproxy")
    wanted = {suite: [f"haproxy/{suite}"] for suite in SUITES if f" {suite}/main " in offered}
    wanted["libraries"] = [f"{library}/{SUITE_OF_THE_CHART}" for library in LIBRARIES]
    for purpose, packages in wanted.items():
        _apt(folder, until, "apt-get", "download", *packages, where=folder / purpose)
    return sorted(folder.glob("*/*.deb"))


def _mirror() -> str:
    """The mirror of the machine's own packages."""
    told = run(["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"], part=PART)
    mirrors = [uri for uri in told.split() if "security" not in uri]
    if not mirrors:
        raise BuildFailed(
            part=PART, problem="apt names no source of packages", fix="Run the tests on Debian with a mirror."
        )
    return mirrors[0]


def _apt(folder: Path, until: float, program: str, *words: str, where: Path | None = None) -> str:
    """Run one of apt's programs with sources and state apart from the machine's."""
    settings = (
        f"Dir::Etc::SourceList={folder / 'sources.list'}",
        "Dir::Etc::SourceParts=/dev/null",
        f"Dir::State::Lists={folder / 'lists'}",
        f"Dir::Cache={folder}",
        "APT::Sandbox::User=root",
        "APT::Update::Error-Mode=any",
        "Acquire::Retries=0",
        "Acquire::http::Timeout=20",
        "Acquire::Languages=none",
        "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false",
    )
    options = [word for setting in settings for word in ("-o", setting)]
    try:
        left = max(0.0, until - time.monotonic())
        return run([program, *options, *words], part=PART, folder=where, timeout_seconds=left)
    except subprocess.TimeoutExpired as slow:
        problem = f"the mirror needs more than {FETCHED_WITHIN_SECONDS} s"
        raise BuildFailed(part=PART, problem=problem, fix=ANOTHER_WAY) from slow
    except LocalClusterError as refused:
        raise BuildFailed(part=PART, problem=refused.problem, fix=ANOTHER_WAY) from refused


def _write_launcher(path: Path) -> None:
    machine = platform.machine()
    path.write_text(LAUNCHER.format(triplet=f"{machine}-linux-gnu", loader=LOADERS[machine]))
    path.chmod(0o755)
