"""The machine's side of the pod network; every interface and table in it has a name of our own.

- Pods are routed, not bridged (CNI `ptp`). A bridge would need br_netfilter, so that replies from a service
  on
  the same node are translated back.
- The node's address is on an interface of our own. So it is the same on every machine and stays when the
  machine's network changes, and nobody outside can reach the API server or the kubelet on it.
- One nftables table for each IP family masquerades the traffic that leaves the pod network. Another one stops
  what network policies do not let through; network_policies.py writes it.
- IPv6 is used on request. It needs forwarding for the whole machine, and with forwarding Linux drops default
  routes that it learnt from routers. So the interfaces that learn such routes get accept_ra 2, which keeps
  them.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from local_cluster.commands import run, succeeds

INTERFACE = "flotilla0"
TABLE = "flotilla-local-cluster"
POLICIES = "flotilla-policies"
OUR_TABLES = tuple(
    f"{family} {table}" for family in ("ip", "ip6") for table in (TABLE, POLICIES, "kube-proxy")
)
NETWORK_NAME = "flotilla"
# Small enough for the usual tunnels and virtual machine networks.
POD_MTU_BYTES = 1400
FORWARDING_V6 = "net/ipv6/conf/all/forwarding"
# The kubelet changes the first three, and the pod network needs the others. `down` restores all of them.
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
    """The addresses of one IP family, and its name for `ip`, for `nft` and in settings."""

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
    """Set up the interface, the addresses, forwarding and the rules; can be repeated."""
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
    """The nftables rules by which traffic from pods leaves the pod network with the machine's address."""
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
    """Remove the interface and both tables."""
    if succeeds(["ip", "link", "show", INTERFACE]):
        run(["ip", "link", "delete", INTERFACE], part="network")
    for table in OUR_TABLES:
        succeeds(["nft", "delete", "table", *table.split()])


def read_sysctls() -> dict[str, str]:
    """The settings that a cluster changes, as they are now."""
    names = [name for name in (*SYSCTLS, *_learning_interfaces()) if Path("/proc/sys", name).exists()]
    return {name: Path("/proc/sys", name).read_text().strip() for name in names}


def restore_sysctls(values: Mapping[str, str]) -> None:
    """Restore these settings."""
    for name, value in values.items():
        # An interface may have gone meanwhile.
        if Path("/proc/sys", name).exists():
            _write_sysctl(name, value)


def cni_configuration(allocations: Path, families: Families) -> str:
    """The pod network's configuration for containerd; `allocations` is the folder of addresses in use."""
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
    """This machine's name servers that a pod can reach, so without those on its loopback."""
    for path in (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf")):
        if path.exists():
            lines = [line for line in path.read_text().splitlines() if _is_reachable_server(line)]
            if lines:
                return "\n".join(lines) + "\n"
    return ""


def joined(values: Sequence[str]) -> str:
    """The values as one flag of Kubernetes takes them."""
    return ",".join(values)


def _learning_interfaces() -> list[str]:
    """The accept_ra settings of interfaces that learn routes only while the machine does not forward."""
    found = sorted(Path("/proc/sys/net/ipv6/conf").glob("*/accept_ra"))
    return [str(path.relative_to("/proc/sys")) for path in found if path.read_text().strip() == LEARNS]


def _is_reachable_server(line: str) -> bool:
    words = line.split()
    return len(words) > 1 and words[0] == "nameserver" and not words[1].startswith(("127.", "::1"))


def _write_sysctl(name: str, value: str) -> None:
    path = Path("/proc/sys", name)
    if path.read_text().strip() != value:
        path.write_text(value)
