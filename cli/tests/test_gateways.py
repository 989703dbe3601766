"""Reaching a gateway by its fleet's name: a kubectl of the test's own, and a real server behind it."""

import http.server
import json
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from flotilla_cli.main import main

FLEET: dict[str, Any] = {
    "metadata": {"namespace": "team"},
    "spec": {},
    "status": {"url": "http://support-gateway.team.svc:8080"},
}
KUBECTL = """#!{python}
import json, sys, time
answers = json.load(open({answers!r}))
words = [word for word in sys.argv[1:]]
with open({log!r}, "a") as log:
    log.write(" ".join(words) + "\\n")
name = next(word for word in words if word in ("get", "config", "create", "port-forward"))
answer = answers.get(name)
if answer is None:
    sys.exit("Error: " + name + " was refused")
print(answer if isinstance(answer, str) else json.dumps(answer), flush=True)
if name == "port-forward":
    time.sleep(60)
"""


class Handler(http.server.BaseHTTPRequestHandler):
    """A gateway that knows no tasks, and keeps the tokens that it got."""

    tokens: ClassVar[list[str | None]] = []

    def do_GET(self) -> None:
        self.tokens.append(self.headers.get("Authorization"))
        body = json.dumps({"tasks": [], "nextCursor": None}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        result = {"answer": "Two lines\nof\x1b[2J text", "citations": []}
        body = json.dumps({"id": "t1", "status": "Succeeded", "result": result}).encode()
        self.send_response(201)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    Handler.tokens.clear()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()


class Cluster:
    """A kubectl on the PATH that gives these answers, by its subcommand."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.log, self._answers = folder / "log", folder / "answers.json"
        program = folder / "kubectl"
        text = KUBECTL.format(python=sys.executable, answers=str(self._answers), log=str(self.log))
        program.write_text(text)
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def answers(self, **answers: Any) -> None:
        self._answers.write_text(json.dumps({name.replace("_", "-"): each for name, each in answers.items()}))


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    return Cluster(tmp_path, monkeypatch)


def forwarding(port: int) -> str:
    return f"Forwarding from 127.0.0.1:{port} -> 8080"


def user(**fields: Any) -> dict[str, Any]:
    return {"users": [{"name": "me", "user": fields}]}


def plugin(folder: Path, status: dict[str, Any]) -> dict[str, Any]:
    program = folder / "plugin"
    program.write_text(f"#!/bin/sh\necho '{json.dumps({'status': status})}'\n")
    program.chmod(0o755)
    return {"apiVersion": "client.authentication.k8s.io/v1", "command": str(program), "args": ["token"]}


def mode(name: str) -> dict[str, Any]:
    return {**FLEET, "spec": {"gateway": {"auth": {"mode": name}}}}


def test_the_token_of_the_kubeconfig_goes_through_a_forwarded_port(
    cluster: Cluster, port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.answers(get=FLEET, config=user(token="s3cret"), port_forward=forwarding(port))
    assert main(["tasks", "-f", "support", "-n", "team", "--context", "dev"]) == 0
    assert Handler.tokens == ["Bearer s3cret"]
    asked = cluster.log.read_text().splitlines()
    assert asked[0] == "--context dev get agentfleets.flotilla.dev support --namespace team --output json"
    assert asked[-1].endswith("service/support-gateway :8080")
    told = capsys.readouterr()
    assert told.out == "no tasks\n"
    assert "s3cret" not in told.err + cluster.log.read_text()


def test_an_answer_by_the_name_of_a_fleet_does_nothing_to_the_terminal(
    cluster: Cluster, port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.answers(get=FLEET, config=user(token="t"), port_forward=forwarding(port))
    assert main(["ask", "why?", "--fleet", "support"]) == 0
    assert capsys.readouterr().out == "Two lines\nof\N{REPLACEMENT CHARACTER}[2J text\n"
    assert main(["ask", "why?", "--fleet", "support", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["id"] == "t1"


@pytest.mark.parametrize(
    ("words", "fleet", "config", "token"),
    [
        pytest.param(["--account", "boss"], FLEET, None, "Bearer made", id="a service account's"),
        pytest.param([], mode("None"), None, None, id="none where none is asked for"),
        pytest.param([], FLEET, "plugin", "Bearer of-plugin", id="that of a credential plugin"),
        pytest.param([], FLEET, "file", "Bearer of-file", id="that of a file"),
    ],
)
def test_where_the_token_comes_from(
    cluster: Cluster, port: int, tmp_path: Path, words: list[str], fleet: Any, config: str | None, token: str
) -> None:
    (tmp_path / "token").write_text("of-file\n")
    users = {
        "plugin": user(exec=plugin(tmp_path, {"token": "of-plugin"})),
        "file": user(tokenFile=str(tmp_path / "token")),
    }
    answers = {"get": fleet, "create": "made\n", "port_forward": forwarding(port)}
    cluster.answers(**answers, **({"config": users[config]} if config else {}))
    assert main(["tasks", "--fleet", "support", *words]) == 0
    assert Handler.tokens == [token]


@pytest.mark.parametrize(
    ("answers", "says"),
    [
        pytest.param({}, "get was refused", id="no such fleet"),
        pytest.param(
            {"get": {**FLEET, "status": {}}}, "has no gateway yet; kubectl describe", id="no gateway"
        ),
        pytest.param({"get": mode("Secret")}, "give yours by --token-file", id="a fleet with keys"),
        pytest.param(
            {"get": FLEET, "config": user()}, "no bearer token, which gateways need", id="a certificate only"
        ),
        pytest.param(
            {"get": FLEET, "config": user(exec={"apiVersion": "v1", "command": "/nowhere"})},
            "the credential plugin /nowhere of your kubeconfig gave no token",
            id="a plugin that is missing",
        ),
        pytest.param(
            {"get": FLEET, "config": user(token="t")},
            "does not reach the gateway of support: Error: port-forward was refused",
            id="a port that cannot be forwarded",
        ),
        pytest.param(
            {"get": FLEET, "config": user(token="t"), "port_forward": forwarding(9)},
            "the gateway cannot be reached",
            id="nobody listens",
        ),
    ],
)
def test_what_goes_wrong_is_one_line(
    cluster: Cluster, capsys: pytest.CaptureFixture[str], answers: dict[str, Any], says: str
) -> None:
    cluster.answers(**answers)
    assert main(["tasks", "--fleet", "support"]) == 1
    told = capsys.readouterr().err
    assert told.startswith("flotilla: ")
    assert says in told
    assert told.count("\n") == 1


@pytest.mark.parametrize("token", ["s3cr\net", "s3crét", ""], ids=["two lines", "no ASCII", "nothing"])
@pytest.mark.parametrize("command", [["tasks"], ["ask", "why?"]], ids=["tasks", "ask"])
def test_a_token_that_no_header_can_have_is_not_shown(
    port: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: list[str], token: str
) -> None:
    (tmp_path / "token").write_text(token)
    url = f"http://127.0.0.1:{port}"
    assert main([*command, "--url", url, "--token-file", str(tmp_path / "token")]) == 1
    told = capsys.readouterr().err
    assert told.startswith(f"flotilla: the token in {tmp_path / 'token'} ")
    assert told.endswith("give it a value of one line, of 1 to 8192 printable ASCII characters\n")
    assert "s3cr" not in told


def test_without_kubectl_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["tasks", "--fleet", "support"]) == 1
    assert "install it" in capsys.readouterr().err
