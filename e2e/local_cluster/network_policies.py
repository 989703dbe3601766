"""Network policies of the local cluster as rules of nftables.

Pods are routed, so what one pod sends to another passes the `forward` hook, with the addresses of pods: the
addresses of services are translated before. What the node itself sends, such as the kubelet's probes, passes
another hook and is never stopped.

`python -m local_cluster.network_policies --api URL ...` reads pods, namespaces and policies once a second and
writes the rules when they have changed. The rules are ours alone, in a table of their own. Supported is what
Flotilla's policies use: selectors of pods and namespaces, and TCP and UDP ports by number and by name.
"""

import argparse
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from local_cluster.api_client import ApiClient
from local_cluster.certificates import KeyPair
from local_cluster.commands import run
from local_cluster.errors import LocalClusterError
from local_cluster.network import POLICIES

LOOK_SECONDS = 1.0
OVER = frozenset({"Succeeded", "Failed"})
OPERATORS = frozenset({"In", "NotIn", "Exists", "DoesNotExist"})

Manifest = Mapping[str, Any]
EVERYTHING: Manifest = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pods:
    """The pods that have an address of their own, and the labels of their namespaces."""

    pods: Sequence[Manifest]
    namespaces: Mapping[str, Mapping[str, str]]

    def of(self, selector: Manifest, *, namespace: str) -> list[Manifest]:
        """The pods of a namespace that a selector selects."""
        return [
            pod
            for pod in self.pods
            if pod["metadata"]["namespace"] == namespace
            and selects(selector, pod["metadata"].get("labels") or {})
        ]

    def peers(self, peer: Manifest, *, namespace: str) -> list[Manifest]:
        """The pods that a peer of a policy in this namespace names."""
        if "ipBlock" in peer:
            raise NotImplementedError("ipBlock")
        spaces = [namespace]
        if "namespaceSelector" in peer:
            spaces = [
                name for name, labels in self.namespaces.items() if selects(peer["namespaceSelector"], labels)
            ]
        selector = peer.get("podSelector") or EVERYTHING
        return [pod for space in spaces for pod in self.of(selector, namespace=space)]


def selects(selector: Manifest, labels: Mapping[str, str]) -> bool:
    """Whether a label selector of Kubernetes selects these labels; an empty one selects everything."""
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    return all(_meets(one, labels) for one in selector.get("matchExpressions") or ())


def _meets(expression: Manifest, labels: Mapping[str, str]) -> bool:
    key, operator, values = expression["key"], expression["operator"], expression.get("values") or ()
    if operator not in OPERATORS:
        raise NotImplementedError(operator)
    if operator in ("Exists", "DoesNotExist"):
        return (key in labels) is (operator == "Exists")
    return (labels.get(key) in values) is (operator == "In")


def rules(policies: Sequence[Manifest], pods: Pods, family: str) -> str:
    """The table of one IP family, `ip` or `ip6`.

    A packet that opens a connection must be let through by a policy of its sender, if it has one for what it
    sends, and by one of its receiver, if that has one for what comes in.
    """
    table = f"table {family} {POLICIES}"
    chains = [_Chain(way, policies, pods, family) for way in (EGRESS, INGRESS)]
    jumps = [
        f"    {family} {chain.way.own} {{ {', '.join(chain.isolated)} }} jump {chain.way.name}"
        for chain in chains
        if chain.isolated
    ]
    return "\n".join(
        [
            f"{table} {{}}",
            f"delete {table}",
            f"{table} {{",
            *(line for chain in chains for line in chain.lines()),
            "  chain forward {",
            "    type filter hook forward priority filter; policy accept;",
            "    ct state established,related accept",
            *jumps,
            "  }",
            "}",
            "",
        ]
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Way:
    """Direction of packets, in or out: where a packet has the pod's own address, and where its peer's."""

    name: str
    own: str
    other: str
    peers: str


INGRESS = _Way(name="ingress", own="daddr", other="saddr", peers="from")
EGRESS = _Way(name="egress", own="saddr", other="daddr", peers="to")


class _Chain:
    """Traffic that the policies let through, one way.

    The rest is dropped and not refused: the first packets of a new pod, whose address is not known yet, come
    again.
    """

    def __init__(self, way: _Way, policies: Sequence[Manifest], pods: Pods, family: str) -> None:
        self.way = way
        self._family = family
        self._pods = pods
        self._policies = [one for one in policies if way.name.capitalize() in one["spec"]["policyTypes"]]
        self.isolated = sorted({address for one in self._policies for address in self._own(one)})

    def lines(self) -> list[str]:
        """The chain's lines."""
        return [
            f"  chain {self.way.name} {{",
            *sorted({line for one in self._policies for line in self._let_through(one)}),
            "    drop",
            "  }",
        ]

    def _own(self, policy: Manifest) -> list[str]:
        return list(self._addresses(self._selected(policy)))

    def _selected(self, policy: Manifest) -> list[Manifest]:
        namespace = policy["metadata"]["namespace"]
        return self._pods.of(policy["spec"].get("podSelector") or EVERYTHING, namespace=namespace)

    def _let_through(self, policy: Manifest) -> Iterator[str]:
        selected = self._selected(policy)
        for rule in policy["spec"].get(self.way.name) or ():
            for own, ports in self._by_ports(rule, selected):
                peers = self._peers(rule, policy["metadata"]["namespace"])
                if own and peers is not None:
                    yield f"    {self._family} {self.way.own} {{ {', '.join(own)} }}{peers}{ports} return"

    def _peers(self, rule: Manifest, namespace: str) -> str | None:
        """The part of the rule about the peers; empty for everybody, None for nobody."""
        if not rule.get(self.way.peers):
            return ""
        found = [
            address
            for peer in rule[self.way.peers]
            for address in self._addresses(self._pods.peers(peer, namespace=namespace))
        ]
        return f" {self._family} {self.way.other} {{ {', '.join(sorted(set(found)))} }}" if found else None

    def _by_ports(self, rule: Manifest, selected: Sequence[Manifest]) -> Iterator[tuple[list[str], str]]:
        """The selected pods with the part of the rule about the ports; a name may be another port in each."""
        if not rule.get("ports"):
            yield sorted(self._addresses(selected)), ""
            return
        for port in rule["ports"]:
            if "endPort" in port or "port" not in port:
                raise NotImplementedError("a range of ports, or a protocol without a port")
            protocol = port.get("protocol", "TCP").lower()
            grouped: dict[int, list[Manifest]] = defaultdict(list)
            for pod in selected:
                number = port["port"] if isinstance(port["port"], int) else _named(pod, port["port"])
                if number is not None:
                    grouped[number].append(pod)
            for number, pods in sorted(grouped.items()):
                yield sorted(self._addresses(pods)), f" {protocol} dport {number}"

    def _addresses(self, pods: Iterable[Manifest]) -> Iterator[str]:
        for pod in pods:
            for each in pod["status"].get("podIPs") or ():
                if (":" in each["ip"]) is (self._family == "ip6"):
                    yield each["ip"]


def _named(pod: Manifest, name: str) -> int | None:
    """The number of a port that a container of the pod names."""
    for container in pod["spec"]["containers"]:
        for port in container.get("ports") or ():
            if port.get("name") == name:
                return int(port["containerPort"])
    return None


def read(client: ApiClient) -> tuple[list[Manifest], Pods]:
    """The policies, and the pods that they can be about."""
    policies = client.get("/apis/networking.k8s.io/v1/networkpolicies?resourceVersion=0")["items"]
    pods = client.get("/api/v1/pods?resourceVersion=0")["items"]
    spaces = client.get("/api/v1/namespaces?resourceVersion=0")["items"]
    labels = {one["metadata"]["name"]: one["metadata"].get("labels") or {} for one in spaces}
    running = [pod for pod in pods if _has_an_address_of_its_own(pod)]
    return policies, Pods(pods=running, namespaces=labels)


def _has_an_address_of_its_own(pod: Manifest) -> bool:
    over = pod["status"].get("phase") in OVER
    return bool(pod["status"].get("podIPs")) and not over and not pod["spec"].get("hostNetwork")


def follow(client: ApiClient, families: Sequence[str]) -> None:
    """Write the rules again and again.

    An API server that does not answer is asked again. While there is a policy with something that is not
    supported, the rules stay as they are, and the log says why.
    """
    written: dict[str, str] = {}
    while True:
        try:
            policies, pods = read(client)
            for family in families:
                text = rules(policies, pods, family)
                if written.get(family) != text:
                    run(["nft", "-f", "-"], part="network policies", stdin=text)
                    written[family] = text
        except (LocalClusterError, httpx2.HTTPError, OSError, NotImplementedError, KeyError) as problem:
            print(f"the policies are not followed: {problem}", file=sys.stderr, flush=True)
        time.sleep(LOOK_SECONDS)


def main() -> None:
    """Follow the policies of the API server at a URL."""
    parser = argparse.ArgumentParser(prog="local_cluster.network_policies", description=__doc__)
    parser.add_argument("--api", required=True, help="the API server's URL")
    parser.add_argument("--authority", required=True, type=Path)
    parser.add_argument("--certificate", required=True, type=Path)
    parser.add_argument("--key", required=True, type=Path)
    parser.add_argument("--families", nargs="+", choices=("ip", "ip6"), default=["ip"])
    options = parser.parse_args()
    credentials = KeyPair(certificate=options.certificate, key=options.key)
    with ApiClient(options.api, authority=str(options.authority), credentials=credentials) as client:
        follow(client, options.families)


if __name__ == "__main__":
    main()
