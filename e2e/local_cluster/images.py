"""The images that the chart runs, built from this checkout and imported into the local cluster.

An image's tag is a hash of everything it is made of (Dockerfile, arguments, base image, files). So nothing is
built twice, and pods are replaced only when a file of their image has changed. The build context of an image
is a folder with copies of the paths that the image names: the builder reads its whole context, and a checkout
also holds a virtual environment.
"""

import hashlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from local_cluster import base_image, kind
from local_cluster.cluster import local_cluster
from local_cluster.commands import run, succeeds
from local_cluster.directories import CHECKOUT, Directories
from local_cluster.embedded import EmbeddedCluster
from local_cluster.progress import Progress

REPOSITORY = "localhost/flotilla"
KEY_CHARACTERS = 16
UPSTREAM_BASE = "python:3.11-slim"
IGNORED = shutil.ignore_patterns("__pycache__", "*.pyc", ".*_cache")


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """Parts of an image; of the folder `context` the build gets `paths` alone."""

    name: str
    dockerfile: Path
    context: Path
    paths: tuple[str, ...]
    target: str | None = None
    arguments: Mapping[str, str] = field(default_factory=dict)

    def key(self, base: str) -> str:
        """A hash of everything that the image is made of."""
        digest = hashlib.sha256()
        for word in (base, self.target or "", *(f"{k}={v}" for k, v in sorted(self.arguments.items()))):
            digest.update(word.encode() + b"\0")
        digest.update(self.dockerfile.read_bytes())
        for path in self.files():
            digest.update(f"{path.relative_to(self.context)}\0{path.stat().st_mode & 0o111}\0".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
        return digest.hexdigest()[:KEY_CHARACTERS]

    def reference(self, base: str) -> str:
        """The image's full name."""
        return f"{REPOSITORY}-{self.name}:{self.key(base)}"

    def files(self) -> Iterator[Path]:
        """The files that go into the build, in a fixed order."""
        with_ignored = (self.context / path for path in self.paths)
        for root in with_ignored:
            found = [root] if root.is_file() else sorted(root.rglob("*"))
            for path in found:
                if path.is_file() and not _ignored(path.relative_to(self.context)):
                    yield path

    def stage(self, folder: Path) -> None:
        """Copy the files into a folder, which becomes the build context."""
        for path in self.files():
            target = folder / path.relative_to(self.context)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target)


def _ours(name: str) -> Image:
    folder = CHECKOUT / "e2e" / "images" / name
    return Image(name=name, dockerfile=folder / "Dockerfile", context=folder, paths=(".",))


CHART_IMAGES: tuple[Image, ...] = (
    Image(
        name="operator",
        dockerfile=CHECKOUT / "Dockerfile",
        target="operator",
        context=CHECKOUT,
        paths=(
            "requirements/operator.txt",
            "operator/flotilla_operator",
            "runtime/flotilla_runtime/__init__.py",
            "runtime/flotilla_runtime/contract",
        ),
    ),
    Image(
        name="runtime",
        dockerfile=CHECKOUT / "Dockerfile",
        target="runtime",
        context=CHECKOUT,
        paths=("requirements/runtime.txt", "runtime/flotilla_runtime"),
    ),
    _ours("haproxy"),
    _ours("redis"),
    _ours("milvus"),
    Image(
        name="engine",
        dockerfile=CHECKOUT / "e2e" / "engine" / "Dockerfile",
        context=CHECKOUT / "e2e" / "engine",
        paths=("entrypoint.py",),
    ),
)


def ensure(*, images: Sequence[Image] = CHART_IMAGES, progress: Progress | None = None) -> dict[str, str]:
    """Build and import the images that are missing; returns each image's reference by name."""
    shown = progress or Progress()
    target = local_cluster(shown)
    if isinstance(target, EmbeddedCluster):
        return {image.name: _ensure_embedded(image, target, shown) for image in images}
    return {image.name: _ensure_kind(image, shown) for image in images}


def build_and_import(
    *,
    name: str,
    dockerfile: Path,
    context: Path,
    paths: tuple[str, ...] = (".",),
    target: str | None = None,
    arguments: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> str:
    """Build one more image, for a test or an example, and import it; returns its reference."""
    image = Image(
        name=name,
        dockerfile=dockerfile,
        context=context,
        paths=paths,
        target=target,
        arguments=arguments or {},
    )
    return ensure(images=[image], progress=progress)[name]


def retag(references: Mapping[str, str], tag: str) -> dict[str, str]:
    """Give these images a second tag in the cluster: a next release with the same content.

    Takes and returns references by image name.
    """
    target = local_cluster(Progress())
    renamed = {name: f"{reference.rpartition(':')[0]}:{tag}" for name, reference in references.items()}
    for name, other in renamed.items():
        if isinstance(target, EmbeddedCluster):
            target.runtime.tag_image(references[name], other)
        else:
            run(["docker", "tag", references[name], other], part=f"image {name}")
            run(["kind", "load", "docker-image", f"--name={kind.NAME}", other], part="kind")
    return renamed


def _ensure_embedded(image: Image, cluster: EmbeddedCluster, progress: Progress) -> str:
    reference = image.reference(base_image.BASE)
    if reference in cluster.runtime.images():
        return reference
    places: Directories = cluster.places
    builder = base_image.buildah(places)
    if not builder.has(reference):
        base_image.ensure_base(places, progress)
        with progress.step(f"build image {image.name}"), tempfile.TemporaryDirectory() as folder:
            image.stage(Path(folder))
            builder.build(
                reference,
                dockerfile=image.dockerfile,
                target=image.target,
                context=Path(folder),
                arguments={"BASE_IMAGE": base_image.BASE, **image.arguments},
            )
    with progress.step(f"import image {image.name}"):
        # The builder's store keeps the layers, so the archive is removed after the import.
        archive = places.images / f"{image.name}-{reference.rpartition(':')[2]}.tar"
        builder.export(reference, archive)
        try:
            cluster.runtime.import_image(archive, reference, key=reference.rpartition(":")[2])
        finally:
            archive.unlink()
    return reference


def _ensure_kind(image: Image, progress: Progress) -> str:
    reference = image.reference(UPSTREAM_BASE)
    if not succeeds(["docker", "image", "inspect", reference]):
        with progress.step(f"build image {image.name}"), tempfile.TemporaryDirectory() as folder:
            image.stage(Path(folder))
            command = ["docker", "build", "--tag", reference, "--file", str(image.dockerfile)]
            command += [f"--build-arg={name}={value}" for name, value in sorted(image.arguments.items())]
            command += ["--target", image.target] if image.target else []
            run([*command, folder], part=f"image {image.name}")
    with progress.step(f"import image {image.name}"):
        run(["kind", "load", "docker-image", f"--name={kind.NAME}", reference], part="kind")
    return reference


def _ignored(path: Path) -> bool:
    return any(bool(IGNORED("", [part])) for part in path.parts)
