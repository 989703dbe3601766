"""The three kinds on a real API server, and an operator with the controller of one of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from local_cluster.control_plane import ControlPlane
from tests.support.processes import PATIENT_LEADER, ROOT, OperatorProcess, operator_process

CRD_PATH = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
ESTABLISHED_WITHIN_SECONDS = 180


def install_kinds(plane: ControlPlane) -> None:
    """Apply crds/ and wait until the API server serves the kinds."""
    paths = sorted((ROOT / "crds").glob("*.yaml"))
    for path in paths:
        manifest = yaml.safe_load(path.read_text(encoding="utf-8"))
        plane.client.apply(f"{CRD_PATH}/{manifest['metadata']['name']}", manifest)
    plane.kubectl(
        "wait",
        "--for=condition=Established",
        f"--timeout={ESTABLISHED_WITHIN_SECONDS}s",
        *(f"crd/{path.stem.split('_')[1]}.flotilla.dev" for path in paths),
    )


@contextmanager
def kind_operator(plane: ControlPlane, folder: Path, module: str) -> Iterator[OperatorProcess]:
    """An operator of this module of tests.support, with a lease of its own.

    It ends by SIGKILL and so keeps its lease for a while; the next module's operator must not wait for that.
    """
    install_kinds(plane)
    leader = {**PATIENT_LEADER, "leaseName": module.replace("_", "-")}
    name = f"tests.support.{module}"
    with operator_process(folder, plane.kubeconfig, module=name, leader=leader) as process:
        yield process
