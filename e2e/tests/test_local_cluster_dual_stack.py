"""The cluster with IPv6 beside IPv4: a service that prefers both is reached over both.

These tests take down the cluster that runs and leave none; FLOTILLA_KEEP_CLUSTER skips them.
"""

import os
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest
import yaml

from local_cluster import cluster
from local_cluster.access import Access
from local_cluster.base_image import BASE
from local_cluster.embedded import EmbeddedCluster

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.rare,
    pytest.mark.takes_cluster_down,
    pytest.mark.timeout(900),
    pytest.mark.skipif("FLOTILLA_KEEP_CLUSTER" in os.environ, reason="FLOTILLA_KEEP_CLUSTER is set"),
    pytest.mark.skipif(not Path("/proc/net/if_inet6").exists(), reason="this machine has no IPv6"),
]

READ = """
import sys, time, urllib.request
for attempt in range(40):
    try:
        print(urllib.request.urlopen(f"http://[{sys.argv[1]}]:8000/", timeout=2).status)
        break
    except OSError as error:
        print(error, file=sys.stderr)
        time.sleep(0.5)
"""


def forwarding() -> str:
    return Path("/proc/sys/net/ipv6/conf/all/forwarding").read_text().strip()


@pytest.fixture(scope="module")
def forwarding_before() -> str:
    cluster.down()
    return forwarding()


@pytest.fixture(scope="module")
def dual(forwarding_before: str) -> Iterator[Access]:
    assert forwarding_before
    if not isinstance(cluster.local_cluster(), EmbeddedCluster):
        pytest.skip("kind makes its own dual-stack network")
    access = Access(kubeconfig=cluster.up(dual_stack=True))
    container = {
        "name": "main",
        "image": BASE,
        "command": ["python3", "-m", "http.server", "8000", "--bind", "::"],
        "readinessProbe": {"httpGet": {"path": "/", "port": 8000}, "periodSeconds": 1},
    }
    pods = [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "labels": {"app": name}},
            "spec": {"terminationGracePeriodSeconds": 0, "containers": [container]},
        }
        for name in ("server", "client")
    ]
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "pages"},
        "spec": {
            "ipFamilyPolicy": "PreferDualStack",
            "selector": {"app": "server"},
            "ports": [{"port": 8000}],
        },
    }
    access.kubectl("apply", "-f", "-", manifest=yaml.safe_dump_all([*pods, service]))
    access.kubectl("wait", "--for=condition=Ready", "pod", "--all", "--timeout=180s")
    yield access
    cluster.down()


def read(access: Access, address: str) -> str:
    return access.kubectl("exec", "client", "--", "python3", "-c", READ, address).strip()


@pytest.mark.holds(
    "local-cluster.md",
    "`--dual-stack` gives an address of each family, and `down` puts the machine's settings back",
)
def test_a_pod_has_an_address_of_each_family(dual: Access) -> None:
    addresses = dual.client.get("/api/v1/namespaces/default/pods/server")["status"]["podIPs"]
    assert [ip_address(each["ip"]).version for each in addresses] == [4, 6]


def test_a_pod_reaches_another_over_ipv6(dual: Access) -> None:
    addresses = dual.client.get("/api/v1/namespaces/default/pods/server")["status"]["podIPs"]
    assert read(dual, addresses[1]["ip"]) == "200"


@pytest.mark.holds(
    "local-cluster.md",
    "`--dual-stack` gives an address of each family, and `down` puts the machine's settings back",
)
def test_a_pod_reaches_a_service_over_ipv6(dual: Access) -> None:
    addresses = dual.client.get("/api/v1/namespaces/default/services/pages")["spec"]["clusterIPs"]
    assert [ip_address(each).version for each in addresses] == [4, 6]
    assert read(dual, addresses[1]) == "200"


@pytest.mark.holds(
    "local-cluster.md",
    "`--dual-stack` gives an address of each family, and `down` puts the machine's settings back",
)
def test_the_machines_ipv6_settings_are_put_back(dual: Access, forwarding_before: str) -> None:
    assert dual.client.ready()
    assert forwarding() == "1"
    cluster.down()
    assert forwarding() == forwarding_before
