"""Argo CD beside a control plane: its application controller and its repo server, with a Redis.

They run as processes of this machine, from one program that is each of them by name. Nobody logs in, so its
API server is left out. Git repositories are folders, which Argo CD reads by `file://`.
"""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import yaml

from local_cluster.api_client import Manifest
from local_cluster.binaries import TOOLS, binary, module_directory
from local_cluster.control_plane import ControlPlane
from local_cluster.errors import ApiError
from local_cluster.processes import Daemon, free_port, wait_until

TOOL = "argocd"
NAMESPACE = "argocd"
TIMEOUT_SECONDS = 60.0
LOOKS_EVERY_SECONDS = 10
DEFINITIONS = ("manifests/crds/application-crd.yaml", "manifests/crds/appproject-crd.yaml")
KINDS = ("applications", "appprojects")
CONFIGURATION = "manifests/base/config"
# What Argo CD's API server makes at its first start: a project for everything.
PROJECT: Manifest = {
    "apiVersion": "argoproj.io/v1alpha1",
    "kind": "AppProject",
    "metadata": {"name": "default"},
    "spec": {
        "sourceRepos": ["*"],
        "destinations": [{"namespace": "*", "server": "*"}],
        "clusterResourceWhitelist": [{"group": "*", "kind": "*"}],
    },
}


@contextmanager
def argo_cd(plane: ControlPlane, directory: Path) -> Iterator[None]:
    """Run Argo CD on this control plane; the chart's helm is the one that the tests have."""
    directory.mkdir(parents=True, exist_ok=True)
    _install(plane)
    redis, repository = free_port(), free_port()
    daemons = [_redis(directory, redis), _repo_server(plane, directory, redis, repository)]
    daemons.append(_controller(plane, directory, redis, repository))
    try:
        for daemon in daemons:
            daemon.start()
        for port in (redis, repository):
            wait_until(partial(_listens, port), part=TOOL, timeout_seconds=TIMEOUT_SECONDS, daemons=daemons)
        yield
    finally:
        for daemon in reversed(daemons):
            daemon.stop()


def git_repository(folder: Path, content: Mapping[str, Path]) -> str:
    """A new repository with one commit of files and folders, each at its path; returns the URL."""
    for path, source in content.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            shutil.copy(source, target)
    name = ("-c", "user.name=test", "-c", "user.email=test@example.com")
    for arguments in (("init", "--quiet"), ("add", "--all"), (*name, "commit", "--quiet", "-m", "Content")):
        subprocess.run(["git", *arguments], cwd=folder, check=True)
    return f"file://{folder}"


def _install(plane: ControlPlane) -> None:
    """Create the namespace, the definitions, Argo CD's own configuration and a project for everything."""
    module = module_directory(TOOLS[TOOL])
    folders = [argument for path in DEFINITIONS for argument in ("-f", str(module / path))]
    plane.kubectl("apply", "--server-side", *folders)
    for kind in KINDS:
        wait_until(partial(_is_served, plane, kind), part=TOOL, timeout_seconds=TIMEOUT_SECONDS)
    plane.kubectl("create", "namespace", NAMESPACE)
    configuration = sorted((module / CONFIGURATION).glob("argocd-*.yaml"))
    files = [argument for path in configuration for argument in ("-f", str(path))]
    plane.kubectl("apply", f"--namespace={NAMESPACE}", *files)
    plane.kubectl("apply", f"--namespace={NAMESPACE}", "-f", "-", manifest=yaml.safe_dump(PROJECT))
    key = {"stringData": {"server.secretkey": "of-this-test"}}
    plane.client.merge(f"/api/v1/namespaces/{NAMESPACE}/secrets/argocd-secret", key)


def _is_served(plane: ControlPlane, kind: str) -> bool:
    """Whether the API server answers for a definition that was just made: at first it says 404, then 429."""
    try:
        plane.client.get(f"/apis/argoproj.io/v1alpha1/{kind}")
    except ApiError:
        return False
    return True


def _redis(directory: Path, port: int) -> Daemon:
    arguments = ["redis-server", "--bind", "127.0.0.1", "--port", str(port), "--save", ""]
    return Daemon("argocd-redis", arguments, directory=directory, dies_with_parent=True)


def _repo_server(plane: ControlPlane, directory: Path, redis: int, port: int) -> Daemon:
    arguments = [
        "--disable-tls",
        *("--address", "127.0.0.1", "--port", str(port)),
        *("--metrics-address", "127.0.0.1", "--metrics-port", str(free_port())),
        *("--redis", f"127.0.0.1:{redis}"),
    ]
    return _part(plane, directory, "argocd-repo-server", arguments)


def _controller(plane: ControlPlane, directory: Path, redis: int, repository: int) -> Daemon:
    arguments = [
        *("--namespace", NAMESPACE, "--kubeconfig", str(plane.kubeconfig)),
        "--repo-server-plaintext",
        *("--repo-server", f"127.0.0.1:{repository}"),
        *("--redis", f"127.0.0.1:{redis}"),
        *("--app-resync", str(LOOKS_EVERY_SECONDS), "--app-resync-jitter", "0"),
        *("--metrics-port", str(free_port())),
    ]
    return _part(plane, directory, "argocd-application-controller", arguments)


def _part(plane: ControlPlane, directory: Path, name: str, arguments: list[str]) -> Daemon:
    """One of the programs that the binary is; what it keeps on disk is in the folder."""
    home = directory / name
    for folder in ("tmp", "ssh", "tls", "gpg", "plugins"):
        (home / folder).mkdir(parents=True, exist_ok=True)
    return Daemon(
        name,
        [binary(TOOL), *arguments],
        directory=directory,
        environment={
            "ARGOCD_BINARY_NAME": name,
            "ARGOCD_FAKE_IN_CLUSTER": "true",
            "ARGOCD_CONTROLLER_SHARD": "0",
            "ARGOCD_GPG_ENABLED": "false",
            "ARGOCD_GNUPGHOME": str(home / "gpg"),
            "ARGOCD_SSH_DATA_PATH": str(home / "ssh"),
            "ARGOCD_TLS_DATA_PATH": str(home / "tls"),
            "ARGOCD_PLUGINSOCKFILEPATH": str(home / "plugins"),
            "KUBECONFIG": str(plane.kubeconfig),
            "HOME": str(home),
            "TMPDIR": str(home / "tmp"),
            "PATH": os.pathsep.join([str(binary("helm").parent), os.environ["PATH"]]),
        },
        dies_with_parent=True,
    )


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0
