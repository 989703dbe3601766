"""Builds images without a daemon, with Debian's buildah and an image store in the cache folder.

This machine's certificate authorities and pip settings are mounted into each build, so `pip install` works
behind a proxy or a package mirror. They are mounted for the build only and are in no image.
"""

import os
import shutil
import ssl
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from local_cluster.commands import run, succeeds

MOUNTED_AUTHORITIES = "/etc/ssl/certs/flotilla-host.crt"
PIP_PREFIX = "PIP_"
# Settings that concern the calling pip, and not the place that packages come from.
PIP_LOCAL_SETTINGS = frozenset({"cert", "require-virtualenv", "target", "user", "cache-dir", "find-links"})
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Buildah:
    """buildah with its image store."""

    store: Path

    def build(
        self,
        reference: str,
        *,
        dockerfile: Path,
        target: str | None,
        context: Path,
        arguments: Mapping[str, str],
    ) -> None:
        """Build one target of a Dockerfile."""
        with host_settings() as mounts:
            command = ["build", "--isolation", "chroot", "--layers", "--tag", reference]
            command += ["--file", str(dockerfile)]
            command += [f"--volume={mount}" for mount in mounts]
            command += [f"--build-arg={name}={value}" for name, value in sorted(arguments.items())]
            command += ["--target", target] if target else []
            self._run([*command, str(context)], part=f"image {reference}")

    def commit_tree(
        self, reference: str, tree: Path, *, configuration: Sequence[str] = (), into: str = "/"
    ) -> None:
        """Make an image of one layer from a folder or an archive."""
        container = self._run(["from", "scratch"], part=reference).strip()
        try:
            self._run(["add", container, str(tree), into], part=reference)
            if configuration:
                self._run(["config", *configuration, container], part=reference)
            self._run(["commit", "--quiet", container, reference], part=reference)
        finally:
            self._run(["rm", container], part=reference)

    def export(self, reference: str, archive: Path) -> None:
        """Write an image as an archive that containerd can import."""
        partial = archive.with_suffix(".part")
        partial.unlink(missing_ok=True)
        archive.parent.mkdir(parents=True, exist_ok=True)
        self._run(["push", "--quiet", reference, f"docker-archive:{partial}:{reference}"], part=reference)
        partial.rename(archive)

    def has(self, reference: str) -> bool:
        """Whether the store holds the image."""
        return succeeds([*self._prefix(), "inspect", "--type", "image", reference])

    def _run(self, arguments: Sequence[str], *, part: str) -> str:
        self.store.mkdir(parents=True, exist_ok=True)
        return run([*self._prefix(), *arguments], part=part, timeout_seconds=3600)

    def _prefix(self) -> list[str]:
        return [
            "buildah",
            f"--root={self.store / 'storage'}",
            f"--runroot={self.store / 'run'}",
            "--storage-driver=overlay",
        ]


def architecture() -> str:
    """This machine's architecture, as image names spell it."""
    machine = os.uname().machine
    return ARCHITECTURES.get(machine, machine)


@contextmanager
def host_settings() -> Iterator[list[str]]:
    """Volumes that give a build the machine's certificate authorities and pip settings."""
    with tempfile.TemporaryDirectory(prefix="flotilla-build-") as folder:
        settings = Path(folder)
        bundle = _authorities()
        mounts = []
        options = pip_options(os.environ)
        if bundle is not None:
            shutil.copy(bundle, settings / "authorities.crt")
            mounts.append(f"{settings / 'authorities.crt'}:{MOUNTED_AUTHORITIES}:ro")
            options["cert"] = MOUNTED_AUTHORITIES
        lines = ["[global]", *(f"{name} = {value}" for name, value in sorted(options.items()))]
        (settings / "pip.conf").write_text("\n".join(lines) + "\n")
        mounts.append(f"{settings / 'pip.conf'}:/etc/pip.conf:ro")
        yield mounts


def pip_options(environment: Mapping[str, str]) -> dict[str, str]:
    """The pip options that say where packages come from, as its configuration file names them."""
    options = {
        name.removeprefix(PIP_PREFIX).lower().replace("_", "-"): value
        for name, value in environment.items()
        if name.startswith(PIP_PREFIX) and value
    }
    return {name: value for name, value in options.items() if name not in PIP_LOCAL_SETTINGS}


def _authorities() -> Path | None:
    named = os.environ.get("PIP_CERT") or os.environ.get("SSL_CERT_FILE")
    default = ssl.get_default_verify_paths().openssl_cafile
    candidates = [named, default, "/etc/ssl/certs/ca-certificates.crt"]
    return next((Path(each) for each in candidates if each and Path(each).is_file()), None)
