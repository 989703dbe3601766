"""The chart, rendered by the real helm."""

import subprocess
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from local_cluster.binaries import TOOLS, binary

ROOT = Path(__file__).parents[3]
CHART = ROOT / "charts" / "flotilla"
RELEASE = "flotilla"
NAMESPACE = "flotilla-system"
HELM_TIMEOUT_SECONDS = 300
HOOK = "helm.sh/hook"

# Flotilla's own images, which the chart has no default for.
IMAGES = {
    "images.operator.repository": '"registry.example/flotilla/operator"',
    "images.runtime.repository": '"registry.example/flotilla/runtime"',
    "images.milvus.repository": '"registry.example/flotilla/milvus-lite"',
}

Manifest = dict[str, Any]


class HelmRefusedError(Exception):
    """Helm ended with an error; the text is what it said."""


def helm(*arguments: str) -> str:
    """Run helm and return what it prints."""
    done = subprocess.run(
        [binary("helm"), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=HELM_TIMEOUT_SECONDS,
    )
    if done.returncode != 0:
        raise HelmRefusedError(done.stderr)
    return done.stdout


def setting(values: Mapping[str, str]) -> Iterator[str]:
    """Values as arguments: texts and what helm reads as JSON."""
    for path, value in values.items():
        yield from ("--set-json", f"{path}={value}")


def rendered(values: Mapping[str, str] | None = None, *, release: str = RELEASE) -> list[Manifest]:
    """Manifests that an installation applies; `values` are JSON texts by path."""
    return [manifest for manifest in everything(values, release=release) if HOOK not in annotations(manifest)]


def hooks(values: Mapping[str, str] | None = None) -> list[Manifest]:
    """Manifests that helm applies at a moment of its own, for example after an uninstall."""
    return [manifest for manifest in everything(values) if HOOK in annotations(manifest)]


def annotations(manifest: Manifest) -> Mapping[str, str]:
    """The annotations of a manifest."""
    return manifest["metadata"].get("annotations") or {}


def everything(values: Mapping[str, str] | None = None, *, release: str = RELEASE) -> list[Manifest]:
    """Every manifest of the chart; Flotilla's own images are named."""
    text = _template(release, *setting({**IMAGES, **(values or {})}))
    return [manifest for manifest in yaml.load_all(text, Loader=yaml.CSafeLoader) if manifest]


@cache
def _template(release: str, *settings: str) -> str:
    """Helm's output; tests ask for the same again and again, and the chart stays as it is."""
    return helm(
        *("template", release, str(CHART)),
        f"--namespace={NAMESPACE}",
        f"--kube-version={TOOLS['kube-apiserver'].version()}",
        *settings,
    )


def of_kind(manifests: list[Manifest], kind: str) -> list[Manifest]:
    """The manifests of one kind."""
    return [manifest for manifest in manifests if manifest["kind"] == kind]


def only(manifests: list[Manifest], kind: str) -> Manifest:
    """The manifest of a kind that has exactly one."""
    (manifest,) = of_kind(manifests, kind)
    return manifest
