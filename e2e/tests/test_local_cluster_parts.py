"""The parts of the local cluster that only compute: needs, configuration files, nodes, versions.

What they do to a machine is tested in test_local_cluster_{smoke,leftovers,images}.py.
"""

import ipaddress
import itertools
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from local_cluster import components, kind, kwok, network, node, prerequisites, processes
from local_cluster.binaries import ASSETS_VARIABLE, TOOLS, Tool, binary
from local_cluster.certificates import Authority
from local_cluster.container_runtime import with_engine_mount
from local_cluster.directories import CHECKOUT
from local_cluster.errors import LocalClusterError, MissingPrerequisites
from local_cluster.prerequisites import Need
from local_cluster.processes import Daemon, free_port, recorded_pid, start_ticks, wait_until


@pytest.mark.holds("local-cluster.md", "`make prerequisites` names everything missing with the command")
def test_everything_missing_is_named_at_once_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = (
        Need(path="no-such-program", package="first"),
        Need(path="/no/such/file", package="second"),
        Need(path="neither-this-one", package="first"),
    )
    monkeypatch.setattr(prerequisites, "CLUSTER_NEEDS", absent)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(MissingPrerequisites) as refusal:
        prerequisites.check_embedded()
    assert refusal.value.missing[0].startswith("root")
    assert refusal.value.missing[-2:] == ("package first", "package second")
    assert refusal.value.fix.endswith("apt-get install --yes --no-install-recommends first second")


def test_a_demo_needs_no_package_where_docker_brings_the_cluster_and_no_manual_anywhere() -> None:
    assert prerequisites.demo_needs(embedded=False) == ()
    needed = prerequisites.demo_needs(embedded=True)
    assert set(needed) < set(prerequisites.TEST_NEEDS)
    assert not set(needed) & set(prerequisites.DOCUMENTS)


def test_a_file_may_be_in_one_of_several_folders(tmp_path: Path) -> None:
    (tmp_path / "aarch64-linux-gnu").mkdir()
    need = Need(path=f"{tmp_path}/*/libnuma.so.1", package="libnuma1")
    assert not need.present()
    (tmp_path / "aarch64-linux-gnu" / "libnuma.so.1").touch()
    assert need.present()


@pytest.mark.holds("local-cluster.md", "All programs are built from pinned modules with checksums")
@pytest.mark.parametrize("tool", TOOLS.values(), ids=TOOLS)
def test_a_tool_has_a_pinned_version_and_checksums(tool: Tool) -> None:
    assert re.fullmatch(r"\d+(\.\d+\.\d+)?", tool.version())
    assert not tool.pinned or (tool.module / "go.sum").stat().st_size > 0


@pytest.mark.holds("local-cluster.md", "With `KUBEBUILDER_ASSETS` its binaries are used")
def test_binaries_of_the_assets_folder_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "etcd").touch()
    monkeypatch.setenv(ASSETS_VARIABLE, str(tmp_path))
    assert binary("etcd") == tmp_path / "etcd"


@pytest.mark.holds("README.md", "The tests run the oldest and the newest Kubernetes that the guide names")
def test_the_tests_run_the_oldest_and_the_newest_kubernetes_that_the_guide_names() -> None:
    guide = (CHECKOUT / "docs" / "install.md").read_text()
    (named,) = re.findall(r"^- Kubernetes (\S+) to (\S+), and", guide, re.MULTILINE)
    run = [TOOLS[name].version() for name in ("kube-apiserver", "kube-apiserver-newest")]
    assert list(named) == [".".join(version.split(".")[:2]) for version in run]
    assert TOOLS["kubelet"].version() == run[0]


@pytest.mark.holds("local-cluster.md", "GPU nodes are KWOK's and tainted, and nothing else lands there")
def test_a_gpu_node_carries_what_placement_reads() -> None:
    made = kwok.gpu_node("a", gpus=4, zone="z", rack="r", product="NVIDIA-A100", taints=[kwok.GPU_TAINT])
    labels = made["metadata"]["labels"]
    assert labels["topology.kubernetes.io/zone"] == "z"
    assert labels["topology.kubernetes.io/rack"] == "r"
    assert labels["kubernetes.io/hostname"] == "a"
    assert labels["nvidia.com/gpu.product"] == "NVIDIA-A100"
    assert made["status"]["allocatable"]["nvidia.com/gpu"] == "4"
    assert made["spec"]["taints"] == [kwok.GPU_TAINT]


def test_kwok_touches_only_nodes_that_say_so() -> None:
    options = yaml.safe_load(kwok.configuration(kwok.Parallelism(pods=7), node_address="127.0.0.1"))[
        "options"
    ]
    assert options["manageAllNodes"] is False
    assert options["manageNodesWithAnnotationSelector"] == "kwok.x-k8s.io/node=fake"
    assert options["podPlayStageParallelism"] == 7


@pytest.mark.holds("local-cluster.md", "The engine's folder is in every pod, read-only")
def test_the_engine_mount_is_added_to_the_others_and_read_only() -> None:
    specification = with_engine_mount({"mounts": [{"destination": "/proc"}]}, Path("/cache/engine"))
    mounts = json.loads(json.dumps(specification))["mounts"]
    assert [mount["destination"] for mount in mounts] == ["/proc", "/opt/engine"]
    assert mounts[1]["source"] == "/cache/engine"
    assert "ro" in mounts[1]["options"]


@pytest.mark.holds("local-cluster.md", "Nodes, pods, services and fake pods have the networks of the page")
def test_nodes_pods_services_and_fake_pods_have_networks_of_their_own() -> None:
    used = [each for family in network.DUAL_STACK for each in (family.node, family.pods, family.services)]
    networks = [ipaddress.ip_network(each, strict=False) for each in (*used, kwok.POD_ADDRESSES)]
    assert not [
        pair
        for pair in itertools.combinations(networks, 2)
        if pair[0].version == pair[1].version and pair[0].overlaps(pair[1])
    ]
    assert ipaddress.ip_address(node.DNS_ADDRESS) in ipaddress.ip_network(components.SERVICE_ADDRESSES)


def test_kind_gets_the_same_admission_and_the_engines_folder() -> None:
    made = kind.cluster_configuration(Path("/cache/engine"), dual_stack=False)["nodes"][0]
    assert made["extraMounts"][0] == {
        "hostPath": "/cache/engine",
        "containerPath": "/opt/engine",
        "readOnly": True,
    }
    assert "ExtendedResourceToleration" in made["kubeadmConfigPatches"][0]


def test_certificates_are_kept_and_not_made_anew(tmp_path: Path) -> None:
    first = Authority(tmp_path).issue("one", user="one").certificate.read_bytes()
    assert Authority(tmp_path).issue("one", user="one").certificate.read_bytes() == first


def test_a_process_with_a_reused_id_is_not_taken_for_the_recorded_one(tmp_path: Path) -> None:
    record = tmp_path / "daemon.pid"
    mine = {"pid": os.getpid(), "started": start_ticks(os.getpid())}
    record.write_text(json.dumps(mine))
    assert recorded_pid(record) == os.getpid()
    record.write_text(json.dumps({**mine, "started": 1}))
    assert recorded_pid(record) is None


@pytest.mark.holds("local-cluster.md", "Daemons die with the test's process")
def test_a_daemon_of_a_test_ends_with_the_tests_process(tmp_path: Path) -> None:
    script = f"""
from pathlib import Path
from local_cluster.processes import Daemon
import time
Daemon("sleeper", ["sleep", "60"], directory=Path({str(tmp_path)!r}), dies_with_parent=True).start()
print("started", flush=True)
time.sleep(60)
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    with subprocess.Popen(
        [sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "started\n"
        pid = recorded_pid(tmp_path / "sleeper.pid")
        assert pid is not None
        name = Path(f"/proc/{pid}/comm")
        deadline = time.monotonic() + 60
        while name.read_text() != "sleep\n" and time.monotonic() < deadline:
            time.sleep(0.01)  # before that it has not yet asked to end with its parent
        parent.kill()
    while start_ticks(pid) is not None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert start_ticks(pid) is None


def test_a_daemon_that_ignores_the_request_to_end_is_killed(tmp_path: Path) -> None:
    deaf = tmp_path / "deaf"
    stubborn = ["sh", "-c", f"trap '' TERM; touch {deaf}; while :; do sleep 0.1; done"]
    daemon = Daemon("stubborn", stubborn, directory=tmp_path, dies_with_parent=True)
    daemon.start()
    wait_until(deaf.exists, part="stubborn", timeout_seconds=5, daemons=[daemon])
    pid = daemon.pid
    assert pid is not None
    daemon.stop(grace_seconds=0.3)
    assert start_ticks(pid) is None
    assert daemon.pid is None


def test_an_error_names_the_part_the_problem_and_the_fix() -> None:
    error = LocalClusterError(part="kubelet", problem="it ended", fix="Look at its log.")
    assert str(error) == "kubelet: it ended\n  Look at its log."


TAKES_TWENTY_PORTS = """
import sys
from local_cluster import processes
processes.PORT_RANGE = (int(sys.argv[1]), int(sys.argv[2]))
print(*(processes.free_port() for _ in range(20)), flush=True)
sys.stdin.read()
"""


def test_no_port_is_given_twice_here_or_by_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    first = free_port()
    narrow = (first, first + 60)
    monkeypatch.setattr(processes, "PORT_RANGE", narrow)
    with subprocess.Popen(
        [sys.executable, "-c", TAKES_TWENTY_PORTS, *map(str, narrow)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as other:
        assert other.stdout is not None
        elsewhere = [int(port) for port in other.stdout.readline().split()]
        here = [free_port() for _ in range(20)]
        other.kill()
    assert len({first, *here, *elsewhere}) == 41
