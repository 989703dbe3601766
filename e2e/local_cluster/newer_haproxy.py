"""HAProxy as later Debian releases package it, so that tests meet what the chart's image does.

Debian 12 has 2.6, the oldest that Flotilla supports. `forky` has the branch of the chart's image, and
`experimental` at times a newer one. Nothing is installed: the programs lie in the cache and run with the C
library of forky.

The machine's own mirror is asked. It keeps only the packages of the day, so Debian's signature stands in for
versions and checksums of our own. What is in the cache stays until its folder is removed.
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
from local_cluster.directories import directories
from local_cluster.errors import BuildFailed
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
# HAProxy starts itself anew under the name it was called by, which must be this script's.
LAUNCHER = """#!/bin/sh
libraries="$(dirname "$0")/../libraries/usr/lib/{triplet}"
exec "$libraries/{loader}" --argv0 "$0" --library-path "$libraries" "$(dirname "$0")/usr/sbin/haproxy" "$@"
"""
LOADERS = {"x86_64": "ld-linux-x86-64.so.2", "aarch64": "ld-linux-aarch64.so.1"}


def newer_haproxies() -> dict[str, Path]:
    """The programs by the suite they are from; fetched first when they are not in the cache."""
    folder = directories().binaries / "haproxy-newer"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder.with_suffix(".lock")):
        if not folder.is_dir():
            fetch(folder)
    return {suite: path for suite in SUITES if (path := folder / suite / "haproxy").is_file()}


def fetch(folder: Path) -> None:
    """Everything or nothing into the folder."""
    if shutil.which("apt-get") is None or not KEYRING.is_file() or platform.machine() not in LOADERS:
        raise BuildFailed(
            part=PART,
            problem="it comes from Debian's packages, and this is no Debian on amd64 or arm64",
            fix="Run the tests on Debian; those of HAProxy 2.6 do without.",
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
        made.rename(folder)


def _keep_what_runs(folder: Path) -> None:
    """A package of tomorrow may need a library that nobody here knows of."""
    if folder.is_dir():
        _write_launcher(folder / "haproxy")
        if not succeeds([folder / "haproxy", "-v"]):
            shutil.rmtree(folder)


def _download(folder: Path) -> list[Path]:
    """Archives, each in a folder named after what it is for."""
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
    """Where the machine has its own packages from."""
    told = run(["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"], part=PART)
    mirrors = [uri for uri in told.split() if "security" not in uri]
    if not mirrors:
        raise BuildFailed(
            part=PART, problem="apt names no source of packages", fix="Run the tests on Debian with a mirror."
        )
    return mirrors[0]


def _apt(folder: Path, until: float, program: str, *words: str, where: Path | None = None) -> str:
    """One of apt's programs, with sources and state of its own beside the machine's."""
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
        raise BuildFailed(
            part=PART,
            problem=f"the mirror needs more than {FETCHED_WITHIN_SECONDS} s",
            fix="Look whether `apt-get update` is quick.",
        ) from slow


def _write_launcher(path: Path) -> None:
    machine = platform.machine()
    path.write_text(LAUNCHER.format(triplet=f"{machine}-linux-gnu", loader=LOADERS[machine]))
    path.chmod(0o755)
