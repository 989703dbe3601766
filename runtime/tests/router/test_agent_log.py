"""Log lines of the agent's rounds; the rounds themselves are in test_router_service.py."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import structlog

from flotilla_runtime.router.agent import RouterAgent
from flotilla_runtime.router.commands import (
    AddServer,
    ChangeMap,
    CloseConnections,
    Command,
    DeleteServer,
    EnableServer,
    MapChange,
)
from flotilla_runtime.router.files import RunFiles
from flotilla_runtime.router.pod_watch import KubernetesAccess
from router_support.builders import config

Round = tuple[tuple[Command, ...], Mapping[Command, str]]

ADD = AddServer(name="a", id=1, ip="10.0.0.1", port=8000, max_connections=53)
CLOSE = CloseConnections(name="b")
DELETE = DeleteServer(name="b")
ANOTHER = EnableServer(name="c")
KEY = ChangeMap(change=MapChange.ADD, file=RunFiles.KEYS_MAP, key="0A1B2C", value="ann")
NAMED_LIKE_THE_KEYS = EnableServer(name=RunFiles.KEYS_MAP)
ADDED, CLOSED, DELETED, ENABLED = (
    "add server engines/a 10.0.0.1:8000 id 1 maxconn 53",
    "shutdown sessions server engines/b",
    "del server engines/b",
    "enable server engines/c",
)


def told(folder: Path, *rounds: Round) -> list[tuple[str, Any]]:
    agent = RouterAgent(
        config(run_directory=str(folder)), KubernetesAccess(url="http://unused"), own_pod="router-1"
    )
    with structlog.testing.capture_logs() as logged:
        for commands, refused in rounds:
            agent._report(commands, refused, {})
    return [(line["event"], line.get("commands", line.get("command"))) for line in logged]


def test_a_command_that_is_refused_round_after_round_is_told_once(tmp_path: Path) -> None:
    stuck: Round = ((CLOSE, DELETE), {DELETE: "server not in maintenance"})
    assert told(tmp_path, stuck, stuck, stuck) == [
        ("haproxy_updated", [CLOSED]),
        ("haproxy_refused", DELETED),
    ]


def test_what_is_done_beside_it_is_told(tmp_path: Path) -> None:
    refused: Mapping[Command, str] = {DELETE: "server not in maintenance"}
    rounds: list[Round] = [
        ((DELETE,), refused),
        ((DELETE, ADD), refused),
        ((DELETE, ANOTHER), refused),
        ((), {}),
    ]
    assert told(tmp_path, *rounds) == [
        ("haproxy_refused", DELETED),
        ("haproxy_updated", [ADDED]),
        ("haproxy_updated", [ENABLED]),
    ]


def test_the_same_command_is_told_again_after_a_round_without_it(tmp_path: Path) -> None:
    assert told(tmp_path, ((ADD,), {}), ((), {}), ((ADD,), {})) == [("haproxy_updated", [ADDED])] * 2


def test_no_key_is_told_not_even_its_hash(tmp_path: Path) -> None:
    assert told(tmp_path, ((KEY,), {KEY: "no"}), ((KEY,), {})) == [
        ("haproxy_refused", "a caller's key"),
        ("haproxy_updated", []),
    ]


def test_a_command_that_only_looks_like_one_of_keys_is_told(tmp_path: Path) -> None:
    assert told(tmp_path, ((NAMED_LIKE_THE_KEYS,), {})) == [
        ("haproxy_updated", ["enable server engines/keys.map"])
    ]
