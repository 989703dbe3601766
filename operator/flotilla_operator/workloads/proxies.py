"""The proxies for addresses outside of the cluster: which containers get them, and for which addresses not.

A container gets the variables only if it connects to an address that is not in the cluster. They always
exempt the cluster: clients that know no networks would send requests for its addresses to the proxy, so each
address of a spec that is in the cluster is exempt by its name, too.
"""

import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from flotilla_operator.api.parts import Environment
from flotilla_operator.objects.resources import Manifest

IN_CLUSTER = (".svc", ".cluster.local")
# The kubelet puts the API server's address in for the last one.
EXEMPT = ("localhost", "127.0.0.1", "::1", *IN_CLUSTER, "$(KUBERNETES_SERVICE_HOST)")
_HOST = re.compile(r"[a-z0-9.:-]+")
_BY_SCHEME = ("http_proxy", "https_proxy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxies:
    """The proxies by the scheme of the address; `exempt` are hosts, suffixes and networks without one."""

    http: str = ""
    https: str = ""
    exempt: tuple[str, ...] = ()

    def variables(self, *addresses: str) -> list[Manifest]:
        """The variables of a container that connects to these addresses; none if all are in the cluster."""
        if not (self.http or self.https) or all(is_in_cluster(address) for address in addresses):
            return []
        named = [_host(address) for address in addresses if is_in_cluster(address)]
        theirs = [*(host for host in named if _HOST.fullmatch(host)), *self.exempt]
        exempt = ",".join(dict.fromkeys([*EXEMPT, *map(_literal, theirs)]))
        by_name = {
            "http_proxy": _literal(self.http),
            "https_proxy": _literal(self.https),
            "no_proxy": exempt,
        }
        return [
            {"name": spelt, "value": value}
            for name, value in by_name.items()
            if value
            for spelt in (name.upper(), name)
        ]

    def of(self, address: str) -> str | None:
        """The proxy for an address; None if there is none for it."""
        host = _host(address)
        if is_in_cluster(address) or any(_covers(entry, host) for entry in self.exempt):
            return None
        return (self.https if urlsplit(address).scheme == "https" else self.http) or None


NO_PROXIES = Proxies()


def unless_set(variables: Sequence[Manifest], names: Iterable[str]) -> list[Manifest]:
    """Those of our variables that no variable of the user's stands for, in whatever case it is spelt."""
    theirs = {name.lower() for name in names}
    replaced = theirs | set(_BY_SCHEME) if "all_proxy" in theirs else theirs
    return [variable for variable in variables if variable["name"].lower() not in replaced]


def named_proxies(*environments: Environment) -> tuple[str | None, ...]:
    """The addresses of the proxies in a user's variables; None for one that is read from somewhere else."""
    named = [
        variable
        for environment in environments
        for variable in environment
        if (name := variable.name.lower()).endswith("_proxy") and name != "no_proxy"
    ]
    addresses = (None if variable.value_from is not None else variable.value or "" for variable in named)
    return tuple(address for address in addresses if address != "")


def is_in_cluster(address: str) -> bool:
    """Whether an address is in the cluster by its form.

    These are names of services: with one part, with two over plain HTTP, and those that end in `.svc` or in
    the cluster's domain. And private addresses, as pods and services have.
    """
    host = _host(address)
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        parts = host.split(".")
        short = len(parts) == 1 or (len(parts) == 2 and urlsplit(address).scheme == "http")
        return short or host.endswith(IN_CLUSTER)
    return not found.is_global


def _host(address: str) -> str:
    try:
        return (urlsplit(address).hostname or "").rstrip(".")
    except ValueError:
        return ""


def _covers(entry: str, host: str) -> bool:
    if entry == "*":
        return True
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        suffix = entry.partition(":")[0].lower().lstrip(".")
        return bool(suffix) and (host == suffix or host.endswith(f".{suffix}"))


def _literal(text: str) -> str:
    """The text without anything that the kubelet would replace."""
    return text.replace("$", "$$")
