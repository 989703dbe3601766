"""The kinds on a real API server, for the tests of this folder."""

import pytest
import yaml

from flotilla_operator.api.generate import CRDS, ROOT
from local_cluster.control_plane import ControlPlane

CRD_PATH = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
ESTABLISHED_WITHIN_SECONDS = 30


def install_kinds(plane: ControlPlane) -> None:
    """Apply crds/ and wait until the API server serves the kinds."""
    paths = sorted((ROOT / CRDS).glob("*.yaml"))
    for path in paths:
        manifest = yaml.safe_load(path.read_text(encoding="utf-8"))
        plane.client.apply(f"{CRD_PATH}/{manifest['metadata']['name']}", manifest)
    plane.kubectl(
        "wait",
        "--for=condition=Established",
        f"--timeout={ESTABLISHED_WITHIN_SECONDS}s",
        *(f"crd/{path.stem.split('_')[1]}.flotilla.dev" for path in paths),
    )


@pytest.fixture(scope="session")
def kinds_installed(control_plane: ControlPlane) -> ControlPlane:
    """The shared API server with our kinds."""
    install_kinds(control_plane)
    return control_plane
