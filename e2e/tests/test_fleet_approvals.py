"""A tool of an MCP server waits for approval; `flotilla` approves its call, and replays the task.

The server counts reservations, so a call that is made twice shows. What may be decided, and who may, is
runtime/tests/gateway/test_approvals.py.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from demo.environment import Environment
from tests.support.applied import Site, example
from tests.support.fleet_tasks import ended_calls, fleet_token, gateway_of, submitted
from tests.support.servers import server
from tests.support.stand_ins import doubles

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(2400, func_only=True)]

NAME = "clerk"
ROOMS = "rooms"
MANAGER = "manager"
SERVER = """
from mcp.server.mcpserver import MCPServer
from starlette.responses import JSONResponse
server, reserved = MCPServer("rooms"), []

@server.tool(description="Reserves a room.")
def reserve(room: str) -> str:
    reserved.append(room)
    return "reserved"

@server.custom_route("/reserved", methods=["GET"])
async def told(request):
    return JSONResponse(reserved)

server.run("streamable-http", host="0.0.0.0", port=8080)
"""
ANSWER = "The blue room is yours."
CALL: dict[str, Any] = {"name": f"{ROOMS}_reserve", "arguments": {"room": "blue"}}
PLAN = {"turns": [{"tool_calls": [CALL]}, {"content": ANSWER}]}
QUESTION = f"Reserve the blue room. [[plan {json.dumps(PLAN)}]]"


def fleet() -> dict[str, Any]:
    address = f"http://{ROOMS}:8080/mcp"
    return example(
        "AgentFleet",
        NAME,
        models=[{"role": "Default", "modelRef": {"name": NAME}}],
        indexes=[],
        tools=[{"name": ROOMS, "mcp": {"url": address}, "effect": "Unsafe", "approval": "Always"}],
        workers={"maxReplicas": 1},
        gateway={"replicas": 1},
    )


def manager(namespace: str) -> list[dict[str, Any]]:
    """A service account with the role `admin`, which may approve."""
    subject = {"kind": "ServiceAccount", "name": MANAGER, "namespace": namespace}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "admin"}
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": MANAGER}},
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"name": MANAGER},
            "roleRef": role,
            "subjects": [subject],
        },
    ]


class CommandLine:
    """`flotilla`, as the manager, by the fleet's name and the kubeconfig."""

    def __init__(self, site: Site) -> None:
        path = f"{site.kubectl.binary.parent}{os.pathsep}{os.environ['PATH']}"
        self.environment = {**os.environ, "KUBECONFIG": str(site.kubectl.kubeconfig), "PATH": path}
        self.where = ("--fleet", NAME, "--namespace", str(site.kubectl.namespace), "--account", MANAGER)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        flotilla = Path(sys.executable).parent / "flotilla"
        return subprocess.run(
            [flotilla, *arguments, *self.where],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=90,
        )

    def json(self, *arguments: str) -> Any:
        """Output of a command that succeeds."""
        done = self.run(*arguments, "--output", "json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.mark.holds(
    "tasks.md", "A call of an MCP server's tool is approved, and its task replayed, from the command line"
)
@pytest.mark.once
def test_a_call_is_approved_and_its_task_replayed_by_the_command_line(
    installed: Environment, site: Site, double: str
) -> None:
    site.apply(doubles(NAME, double))
    site.kubectl.apply(manager(str(site.kubectl.namespace)))
    site.apply(fleet())
    flotilla = CommandLine(site)
    token = fleet_token(site.kubectl, NAME, MANAGER)
    with (
        server(site, installed.build_images()["runtime"], ROOMS, SERVER) as rooms,
        gateway_of(site.kubectl, NAME, token) as client,
    ):
        task = submitted(client, QUESTION)
        (approval,) = site.until(lambda: approvals(flotilla, task), "AgentFleet", NAME, "a call that waits")
        assert (approval["target"], approval["arguments"]) == (CALL["name"], CALL["arguments"])
        assert rooms.get("/reserved").json() == []
        flotilla.json("approve", task, "--call", approval["call"], "--comment", "blue is free")
        calls = ended_calls(answered(flotilla, site, task))
        assert rooms.get("/reserved").json() == ["blue"]

        refused = flotilla.run("replay", task, "--from", approval["call"].removesuffix("#approval"))
        assert refused.returncode == 1
        assert CALL["name"] in refused.stderr
        again = flotilla.json("replay", task, "--from", calls[-1])["id"]
        answered(flotilla, site, again)
        assert rooms.get("/reserved").json() == ["blue"], "a replay takes over what was reserved"


def approvals(flotilla: CommandLine, task: str) -> list[dict[str, Any]]:
    """Questions that wait for approval, if the list of what waits has the task."""
    waiting = flotilla.json("tasks", "--waits-for", "Approval")["tasks"]
    found: list[dict[str, Any]] = flotilla.json("task", "show", task)["approvals"]
    return found if [each["id"] for each in waiting] == [task] else []


def answered(flotilla: CommandLine, site: Site, task: str) -> dict[str, Any]:
    """The task, once it has its answer."""

    def ended() -> dict[str, Any] | None:
        told: dict[str, Any] = flotilla.json("task", "show", task)
        assert told["status"] not in {"Failed", "Cancelled"}, told
        return told if told["status"] == "Succeeded" else None

    shown: dict[str, Any] = site.until(ended, "AgentFleet", NAME, "the answer")
    assert shown["result"]["answer"] == ANSWER
    return shown
