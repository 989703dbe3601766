"""Network policies as the local cluster makes them: rules of nftables, for pods, peers and ports."""

from typing import Any

import pytest

from local_cluster.network_policies import Pods, rules, selects


def pod(name: str, address: str, namespace: str = "team", port: int = 9000, **labels: str) -> dict[str, Any]:
    container = {"name": "c", "ports": [{"name": "web", "containerPort": port}]}
    return {
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {"containers": [container]},
        "status": {"podIPs": [{"ip": address}, {"ip": f"fd00::{address.rsplit('.', 1)[1]}"}]},
    }


PODS = Pods(
    pods=[
        pod("server", "10.0.0.1", app="server"),
        pod("other-server", "10.0.0.2", app="server", port=9001),
        pod("client", "10.0.0.3", app="client"),
        pod("stranger", "10.0.0.4", app="client", namespace="elsewhere"),
    ],
    namespaces={"team": {"name": "team"}, "elsewhere": {"name": "elsewhere"}},
)
CLIENTS = {"podSelector": {"matchLabels": {"app": "client"}}}
ELSEWHERE = {"namespaceSelector": {"matchLabels": {"name": "elsewhere"}}}


def policy(*, types: tuple[str, ...] = ("Ingress",), **ways: Any) -> dict[str, Any]:
    spec = {"podSelector": {"matchLabels": {"app": "server"}}, "policyTypes": list(types), **ways}
    return {"metadata": {"name": "p", "namespace": "team"}, "spec": spec}


def let_through(chain: str, *policies: dict[str, Any], family: str = "ip") -> list[str]:
    """The lines of a chain before the end."""
    text = rules(policies, PODS, family)
    body = text.split(f"chain {chain} {{\n", 1)[1].split("  }", 1)[0]
    *lines, last = [line.strip() for line in body.splitlines()]
    assert last == "drop"
    return lines


@pytest.mark.parametrize(
    ("ingress", "lines"),
    [
        pytest.param([], [], id="nobody"),
        pytest.param([{}], ["ip daddr { 10.0.0.1, 10.0.0.2 } return"], id="everybody"),
        pytest.param(
            [{"ports": [{"port": 80}, {"protocol": "UDP", "port": 53}]}],
            [
                "ip daddr { 10.0.0.1, 10.0.0.2 } tcp dport 80 return",
                "ip daddr { 10.0.0.1, 10.0.0.2 } udp dport 53 return",
            ],
            id="everybody at some ports",
        ),
        pytest.param(
            [{"from": [CLIENTS], "ports": [{"port": 80}]}],
            ["ip daddr { 10.0.0.1, 10.0.0.2 } ip saddr { 10.0.0.3 } tcp dport 80 return"],
            id="pods of the same namespace",
        ),
        pytest.param(
            [{"from": [ELSEWHERE]}],
            ["ip daddr { 10.0.0.1, 10.0.0.2 } ip saddr { 10.0.0.4 } return"],
            id="a namespace",
        ),
        pytest.param(
            [{"from": [{**ELSEWHERE, "podSelector": {"matchLabels": {"app": "none"}}}]}],
            [],
            id="pods of a namespace, of which there are none",
        ),
        pytest.param(
            [{"ports": [{"port": "web"}]}],
            ["ip daddr { 10.0.0.1 } tcp dport 9000 return", "ip daddr { 10.0.0.2 } tcp dport 9001 return"],
            id="a port by its name, which is another one in each pod",
        ),
    ],
)
def test_what_may_come_in(ingress: list[dict[str, Any]], lines: list[str]) -> None:
    one = policy(ingress=ingress)
    assert let_through("ingress", one) == lines
    assert "ip daddr { 10.0.0.1, 10.0.0.2 } jump ingress" in rules([one], PODS, "ip")
    assert "jump egress" not in rules([one], PODS, "ip")


def test_pods_that_may_open_no_connection() -> None:
    one = policy(types=("Ingress", "Egress"), ingress=[{}], egress=[])
    assert let_through("egress", one) == []
    assert "ip saddr { 10.0.0.1, 10.0.0.2 } jump egress" in rules([one], PODS, "ip")


def test_what_may_go_out() -> None:
    one = policy(types=("Egress",), egress=[{"to": [CLIENTS], "ports": [{"port": 80}]}])
    assert let_through("egress", one) == [
        "ip saddr { 10.0.0.1, 10.0.0.2 } ip daddr { 10.0.0.3 } tcp dport 80 return"
    ]


def test_policies_add_up() -> None:
    first = policy(ingress=[{"from": [CLIENTS]}])
    second = policy(ingress=[{"ports": [{"port": 80}]}])
    assert len(let_through("ingress", first, second)) == 2


def test_the_other_family_has_its_own_addresses() -> None:
    assert let_through("ingress", policy(ingress=[{}]), family="ip6") == [
        "ip6 daddr { fd00::1, fd00::2 } return"
    ]


def test_without_policies_nothing_is_stopped() -> None:
    assert "jump" not in rules([], PODS, "ip")


@pytest.mark.parametrize(
    ("expression", "selected"),
    [
        pytest.param({"key": "app", "operator": "In", "values": ["a", "b"]}, True, id="one of some"),
        pytest.param({"key": "app", "operator": "NotIn", "values": ["a"]}, False, id="none of some"),
        pytest.param({"key": "app", "operator": "Exists"}, True, id="there"),
        pytest.param({"key": "app", "operator": "DoesNotExist"}, False, id="not there"),
    ],
)
def test_expressions(expression: dict[str, Any], selected: bool) -> None:
    assert selects({"matchExpressions": [expression]}, {"app": "a"}) is selected


@pytest.mark.parametrize(
    "ingress",
    [
        [{"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}],
        [{"from": [{"podSelector": {"matchExpressions": [{"key": "a", "operator": "Gt"}]}}]}],
        [{"ports": [{"port": 80, "endPort": 90}]}],
        [{"ports": [{"protocol": "TCP"}]}],
    ],
)
def test_what_is_not_supported_is_said(ingress: list[dict[str, Any]]) -> None:
    with pytest.raises(NotImplementedError):
        rules([policy(ingress=ingress)], PODS, "ip")
