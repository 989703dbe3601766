"""The base images, made from Debian packages, so that no container registry is needed.

`flotilla-base` is a small Debian 12 with Python 3.11, in place of python:3.11-slim. The pause image and the
CoreDNS image hold one static program each. All are archives in the cache, made once per version.
"""

import shutil
import tempfile
from pathlib import Path

from local_cluster.binaries import binary
from local_cluster.buildah import Buildah
from local_cluster.commands import run
from local_cluster.directories import Directories
from local_cluster.progress import Progress

RELEASE = "bookworm"
# Raise the number when the packages or the removals change.
BASE = f"localhost/flotilla-base:{RELEASE}-1"
PAUSE = "localhost/flotilla-pause:1"
PACKAGES = ("ca-certificates", "python3", "python3-venv")
REMOVED = (
    "var/cache/apt",
    "var/lib/apt/lists",
    "usr/share/doc",
    "usr/share/man",
    "usr/share/locale",
    "var/log",
)


def buildah(places: Directories) -> Buildah:
    """The image store in the cache folder."""
    return Buildah(store=places.cache / "buildah")


def ensure_base(places: Directories, progress: Progress) -> Path:
    """The base image, in the store and as an archive."""
    archive = places.images / f"base-{RELEASE}-1.tar"
    builder = buildah(places)
    if archive.exists() and builder.has(BASE):
        return archive
    with progress.step("base image: Debian 12 with Python 3.11"), tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "root"
        run(
            ["debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", RELEASE, tree],
            part="base image",
        )
        for path in REMOVED:
            shutil.rmtree(tree / path, ignore_errors=True)
            (tree / path).mkdir(parents=True)
        packed = Path(folder) / "root.tar"
        run(["tar", "--numeric-owner", "--xattrs", "-C", tree, "-cf", packed, "."], part="base image")
        configuration = ["--env", "LANG=C.UTF-8", "--cmd", "python3"]
        builder.commit_tree(BASE, packed, configuration=configuration)
        builder.export(BASE, archive)
    return archive


def ensure_pause(places: Directories, progress: Progress) -> Path:
    """The image that holds a pod's namespaces."""
    archive = places.images / "pause-1.tar"
    if not archive.exists():
        program = binary("pause", progress=progress)
        with progress.step("pause image"):
            builder = buildah(places)
            configuration = ["--entrypoint", '["/pause"]', "--user", "65535:65535"]
            builder.commit_tree(PAUSE, program, configuration=configuration, into="/pause")
            builder.export(PAUSE, archive)
    return archive


def ensure_coredns(places: Directories, progress: Progress) -> tuple[str, Path]:
    """CoreDNS as an image of its one program: its reference and archive."""
    program = binary("coredns", progress=progress)
    version = program.parent.name.removeprefix("coredns-")
    reference, archive = f"localhost/flotilla-coredns:{version}", places.images / f"coredns-{version}.tar"
    if not archive.exists():
        with progress.step("CoreDNS image"):
            builder = buildah(places)
            configuration = ["--entrypoint", '["/coredns"]', "--user", "65532:65532"]
            builder.commit_tree(reference, program, configuration=configuration, into="/coredns")
            builder.export(reference, archive)
    return reference, archive
