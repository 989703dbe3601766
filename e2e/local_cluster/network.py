"""The machine's side of the pod network, all of it under names of our own.

Pods are routed, not bridged (CNI `ptp`): a bridge needs br_netfilter for replies from a service on
the same node to be translated back. The node's address lives on an interface of our own, so it is
the same on every machine, does not move with a changing network, and nobody outside reaches the API
server or the kubelet on it. One nftables table of ours for each family lets pods out.

IPv6 is there on request. It needs forwarding switched on for the whole machine, which makes Linux
drop default routes learnt from routers; so interfaces that learn are told to go on (accept_ra 2).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from local_cluster.commands import run, succeeds

INTERFACE = "flotilla0"
TABLE = "flotilla-local-cluster"
OUR_TABLES = (f"ip {TABLE}", f"ip6 {TABLE}", "ip kube-proxy", "ip6 kube-proxy")
NETWORK_NAME = "flotilla"
# Small enough for the usual tunnels and virtual machines on the way out.
POD_MTU_BYTES = 1400
FORWARDING_V6 = "net/ipv6/conf/all/forwarding"
# The kubelet changes the first three, the pod network needs the others. `down` puts all back.
SYSCTLS = (
    "vm/overcommit_memory",
    "kernel/panic",
    "kernel/panic_on_oops",
    "net/ipv4/ip_forward",
    FORWARDING_V6,
)
LEARNS, LEARNS_AND_FORWARDS = "1", "2"


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """The addresses of one IP family, and its name at `ip`, `nft` and in settings."""

    name: str
    node: str
    node_bits: int
    pods: str
    services: str
    everywhere: str
    forwarding: str


IPV4 = Family(
    name="ip",
    node="10.243.0.1",
    node_bits=32,
    pods="10.244.0.0/16",
    services="10.96.0.0/16",
    everywhere="0.0.0.0/0",
    forwarding="net/ipv4/ip_forward",
)
IPV6 = Family(
    name="ip6",
    node="fd00:10:243::1",
    node_bits=128,
    pods="fd00:10:244::/64",
    services="fd00:10:96::/112",
    everywhere="::/0",
    forwarding=FORWARDING_V6,
)
Families = tuple[Family, ...]
SINGLE_STACK: Families = (IPV4,)
DUAL_STACK: Families = (IPV4, IPV6)


def bring_up(families: Families) -> None:
    """Interface, addresses, forwarding and rules; does nothing twice."""
    if not succeeds(["ip", "link", "show", INTERFACE]):
        # A bridge without ports, as not every kernel has the dummy device.
        run(["ip", "link", "add", INTERFACE, "type", "bridge"], part="network")
    run(["ip", "link", "set", INTERFACE, "up"], part="network")
    for family in families:
        address = f"{family.node}/{family.node_bits}"
        # Without duplicate address detection, which would keep an IPv6 address from use for a second.
        extra = ["nodad"] if family is IPV6 else []
        run(["ip", "address", "replace", address, "dev", INTERFACE, *extra], part="network")
        if family is IPV6:
            for setting in _learning_interfaces():
                _write_sysctl(setting, LEARNS_AND_FORWARDS)
        _write_sysctl(family.forwarding, "1")
        run(["nft", "-f", "-"], part="network", stdin=rules(family))


def rules(family: Family) -> str:
    """Pods that leave the pod network do so under the machine's address."""
    table = f"table {family.name} {TABLE}"
    return f"""\
{table} {{}}
delete {table}
{table} {{
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    {family.name} saddr {family.pods} {family.name} daddr != {family.pods} masquerade
  }}
}}
"""


def take_down() -> None:
    """Remove the interface and every table of ours."""
    if succeeds(["ip", "link", "show", INTERFACE]):
        run(["ip", "link", "delete", INTERFACE], part="network")
    for table in OUR_TABLES:
        succeeds(["nft", "delete", "table", *table.split()])


def read_sysctls() -> dict[str, str]:
    """The settings that a cluster changes, as they are now."""
    names = [name for name in (*SYSCTLS, *_learning_interfaces()) if Path("/proc/sys", name).exists()]
    return {name: Path("/proc/sys", name).read_text().strip() for name in names}


def restore_sysctls(values: Mapping[str, str]) -> None:
    """Put settings back to what they were."""
    for name, value in values.items():
        # An interface may have gone meanwhile.
        if Path("/proc/sys", name).exists():
            _write_sysctl(name, value)


def cni_configuration(allocations: Path, families: Families) -> str:
    """The pod network for containerd; which address is whose stands in `allocations`."""
    plugins = [
        {
            "type": "ptp",
            "mtu": POD_MTU_BYTES,
            "ipam": {
                "type": "host-local",
                "dataDir": str(allocations),
                "ranges": [[{"subnet": family.pods}] for family in families],
                "routes": [{"dst": family.everywhere} for family in families],
            },
        }
    ]
    return json.dumps({"cniVersion": "0.4.0", "name": NETWORK_NAME, "plugins": plugins}, indent=1)


def resolver_configuration() -> str:
    """Name servers that a pod can reach: a resolver on this machine's loopback is not among them."""
    for path in (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf")):
        if path.exists():
            lines = [line for line in path.read_text().splitlines() if _is_reachable_server(line)]
            if lines:
                return "\n".join(lines) + "\n"
    return ""


def joined(values: Sequence[str]) -> str:
    """Several families' values as Kubernetes' flags take them."""
    return ",".join(values)


def _learning_interfaces() -> list[str]:
    """Settings of interfaces that learn routes as long as the machine does not forward."""
    found = sorted(Path("/proc/sys/net/ipv6/conf").glob("*/accept_ra"))
    return [str(path.relative_to("/proc/sys")) for path in found if path.read_text().strip() == LEARNS]


def _is_reachable_server(line: str) -> bool:
    words = line.split()
    return len(words) > 1 and words[0] == "nameserver" and not words[1].startswith(("127.", "::1"))


def _write_sysctl(name: str, value: str) -> None:
    path = Path("/proc/sys", name)
    if path.read_text().strip() != value:
        path.write_text(value)
