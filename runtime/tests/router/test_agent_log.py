"""What the agent says of its rounds; what it does in them is in test_router_service.py."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import structlog

from flotilla_runtime.router.agent import RouterAgent
from flotilla_runtime.router.pod_watch import KubernetesAccess
from router_support.builders import config

ADD = "add server engines/a 10.0.0.1:8000"
SHUT = "shutdown sessions server engines/b"
DELETE = "del server engines/b"
ANOTHER = "enable server engines/c"
KEY = "add map /run/flotilla/keys.map 0A1B2C ann"


def told(folder: Path, *rounds: tuple[tuple[str, ...], Mapping[str, str]]) -> list[tuple[str, Any]]:
    agent = RouterAgent(
        config(run_directory=str(folder)), KubernetesAccess(url="http://unused"), own_pod="router-1"
    )
    with structlog.testing.capture_logs() as logged:
        for commands, refused in rounds:
            agent._report(commands, refused, {})
    return [(line["event"], line.get("commands", line.get("command"))) for line in logged]


def test_a_command_that_is_refused_round_after_round_is_told_once(tmp_path: Path) -> None:
    stuck = ((SHUT, DELETE), {DELETE: "server not in maintenance"})
    assert told(tmp_path, stuck, stuck, stuck) == [
        ("haproxy_updated", [SHUT]),
        ("haproxy_refused", DELETE),
    ]


def test_what_is_done_beside_it_is_told(tmp_path: Path) -> None:
    refused = {DELETE: "server not in maintenance"}
    rounds = [((DELETE,), refused), ((DELETE, ADD), refused), ((DELETE, ANOTHER), refused), ((), {})]
    assert told(tmp_path, *rounds) == [
        ("haproxy_refused", DELETE),
        ("haproxy_updated", [ADD]),
        ("haproxy_updated", [ANOTHER]),
    ]


def test_the_same_command_is_told_again_after_a_round_without_it(tmp_path: Path) -> None:
    assert told(tmp_path, ((ADD,), {}), ((), {}), ((ADD,), {})) == [("haproxy_updated", [ADD])] * 2


def test_no_key_is_told_not_even_its_hash(tmp_path: Path) -> None:
    assert told(tmp_path, ((KEY,), {KEY: "no"}), ((KEY,), {})) == [
        ("haproxy_refused", "a caller's key"),
        ("haproxy_updated", []),
    ]
