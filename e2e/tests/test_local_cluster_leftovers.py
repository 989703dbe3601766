"""Taking the full cluster down leaves the machine as it was, also after a crash.

These tests take down whatever cluster runs here and leave none, so they run after all others; set
FLOTILLA_KEEP_CLUSTER to skip them. One of the crashes is tried with every change, the others are rare tests.
What they look at (the process table, mounts, links, rules, cgroups, settings) is read here anew, not with the
functions that tidy up.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from local_cluster import cluster
from local_cluster.access import Access
from local_cluster.base_image import BASE
from local_cluster.directories import CHECKOUT, RUN_DIRECTORY, directories
from local_cluster.embedded import EmbeddedCluster
from local_cluster.errors import LocalClusterError

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.takes_cluster_down,
    pytest.mark.timeout(600),
    pytest.mark.skipif("FLOTILLA_KEEP_CLUSTER" in os.environ, reason="FLOTILLA_KEEP_CLUSTER is set"),
]

SHARED_FOLDERS = ("/var/lib/kubelet", "/var/lib/cni", "/var/log/containers", "/run/containerd", "/run/netns")
SETTINGS = ("net/ipv4/ip_forward", "vm/overcommit_memory", "kernel/panic", "kernel/panic_on_oops")
STEPS = ("network", "containerd", "etcd, API server", "kubelet, kube-proxy, storage")


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Things that a cluster could leave behind."""

    processes: frozenset[str]
    mounts: frozenset[str]
    links: frozenset[str]
    routes: frozenset[str]
    rules: str
    cgroups: frozenset[str]
    settings: tuple[str, ...]
    files: frozenset[str]


def look() -> Machine:
    return Machine(
        processes=frozenset(cluster_processes()),
        mounts=frozenset(line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()),
        links=frozenset(line.split(":")[1] for line in output("ip", "-o", "link").splitlines()),
        routes=frozenset(output("ip", "route", "show", "table", "all").splitlines()),
        rules=output("nft", "list", "ruleset"),
        cgroups=frozenset(str(path) for path in Path("/sys/fs/cgroup").glob("**/flotilla")),
        settings=tuple(Path("/proc/sys", name).read_text().strip() for name in SETTINGS),
        files=frozenset(str(path) for folder in SHARED_FOLDERS for path in Path(folder).rglob("*")),
    )


def cluster_processes() -> Iterator[str]:
    """Processes in a network of their own (pods), or with one of the cluster's folders in their arguments."""
    own_network = Path("/proc/self/ns/net").readlink()
    marks = (str(RUN_DIRECTORY), str(directories().cluster))
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            network = (entry / "ns" / "net").readlink()
        except OSError:
            continue
        if arguments and (network != own_network or any(mark in arguments for mark in marks)):
            yield f"{entry.name} {arguments}"


def output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def before() -> Iterator[Machine]:
    cluster.down()
    if not isinstance(cluster.local_cluster(), EmbeddedCluster):
        pytest.skip("kind tidies up after itself")
    yield look()
    cluster.down()


def run_a_pod_with_a_volume() -> None:
    access = Access(kubeconfig=directories().kubeconfig)
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "kept"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    container = {
        "name": "main",
        "image": BASE,
        "command": ["sleep", "infinity"],
        "volumeMounts": [{"name": "kept", "mountPath": "/kept"}],
    }
    volumes = [{"name": "kept", "persistentVolumeClaim": {"claimName": "kept"}}]
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "sleeper"},
        "spec": {"containers": [container], "volumes": volumes},
    }
    access.kubectl("apply", "-f", "-", manifest=yaml.safe_dump_all([claim, pod]))
    access.kubectl("wait", "--for=condition=Ready", "pod/sleeper", "--timeout=60s")


def assert_nothing_is_left(before: Machine) -> None:
    after = look()
    assert after.processes <= before.processes
    assert after.mounts <= before.mounts
    assert after.links <= before.links
    assert after.routes <= before.routes
    assert after.rules == before.rules
    assert after.cgroups == before.cgroups
    assert after.settings == before.settings
    assert after.files <= before.files
    assert not RUN_DIRECTORY.exists()


def kill(*names: str) -> Callable[[], None]:
    def crash() -> None:
        for line in cluster_processes():
            pid, program = line.split()[:2]
            if Path(program).name in names:
                os.kill(int(pid), signal.SIGKILL)

    return crash


@pytest.mark.holds("README.md", "`make cluster-down` takes everything down")
@pytest.mark.holds("local-cluster.md", "`down` leaves nothing, after a crash or a start that was killed too")
@pytest.mark.parametrize(
    "crash",
    [
        pytest.param(lambda: None, marks=pytest.mark.rare, id="nothing crashed"),
        pytest.param(
            kill("kubelet", "containerd"),
            marks=pytest.mark.rare,
            id="kubelet and containerd killed, pods run on",
        ),
        pytest.param(kill("etcd", "kube-apiserver"), marks=pytest.mark.rare, id="API server and etcd killed"),
        pytest.param(kill("containerd-shim-runc-v2"), marks=pytest.mark.rare, id="the pods' shims killed"),
        pytest.param(
            kill("containerd", "containerd-shim-runc-v2", "kubelet", "kube-proxy", "etcd", "kube-apiserver"),
            id="almost everything killed",
        ),
    ],
)
def test_down_leaves_nothing(before: Machine, crash: Callable[[], None]) -> None:
    cluster.up()
    run_a_pod_with_a_volume()
    assert look().rules != before.rules
    crash()
    cluster.down()
    assert_nothing_is_left(before)


@pytest.mark.holds("local-cluster.md", "`down` leaves nothing, after a crash or a start that was killed too")
@pytest.mark.rare
@pytest.mark.parametrize("step", STEPS)
def test_down_leaves_nothing_of_a_start_that_was_killed_after(before: Machine, step: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT / "e2e"), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "local_cluster", "up"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as starting:
        assert starting.stdout is not None
        seen = any(f"✓ {step}" in line for line in starting.stdout)
        starting.kill()
    assert seen
    cluster.down()
    assert_nothing_is_left(before)


@pytest.mark.holds(
    "local-cluster.md",
    "`make cluster-up` starts whatever of the cluster does not run, and leaves alone what does",
)
@pytest.mark.rare
def test_up_restarts_what_was_killed_and_keeps_the_rest(before: Machine) -> None:
    cluster.up()
    access = Access(kubeconfig=directories().kubeconfig)
    access.kubectl("create", "configmap", "kept", "--from-literal=a=1")
    kill("kubelet", "kube-proxy", "kube-apiserver")()
    assert not cluster.running()
    cluster.up()
    assert cluster.running()
    assert access.kubectl("get", "configmap", "kept", "-o", "jsonpath={.data.a}") == "1"
    assert look().rules != before.rules


@pytest.mark.holds("local-cluster.md", "`down` leaves nothing, after a crash or a start that was killed too")
@pytest.mark.rare
def test_up_clears_a_cluster_whose_folder_was_deleted(before: Machine) -> None:
    cluster.up()
    run_a_pod_with_a_volume()
    old = {line.split()[0] for line in cluster_processes()}
    (directories().cluster / "before.json").unlink()
    cluster.up()
    assert cluster.running()
    assert not old & {line.split()[0] for line in cluster_processes()}
    assert look().links > before.links


@pytest.mark.holds("local-cluster.md", "The cluster of another cache folder is refused, not touched")
@pytest.mark.rare
def test_the_cluster_of_another_cache_folder_is_left_alone(
    before: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.up()
    running = {line.split()[0] for line in cluster_processes()}
    monkeypatch.setenv("FLOTILLA_CACHE", str(tmp_path))
    with pytest.raises(LocalClusterError, match="this machine has one already"):
        cluster.down()
    monkeypatch.delenv("FLOTILLA_CACHE")
    assert cluster.running()
    assert running <= {line.split()[0] for line in cluster_processes()}
    assert look().links > before.links


@pytest.mark.holds(
    "local-cluster.md",
    "`make cluster-up` starts whatever of the cluster does not run, and leaves alone what does",
)
@pytest.mark.rare
def test_a_second_up_changes_no_process(before: Machine) -> None:
    cluster.up()
    running = {line.split()[0] for line in cluster_processes()}
    cluster.up()
    assert running <= {line.split()[0] for line in cluster_processes()}
    assert look().links > before.links
