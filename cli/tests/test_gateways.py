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

from flotilla_cli.gateways import goes_through_proxies
from flotilla_cli.main import main
from leaks.planted import MARK, planted

FLEET: dict[str, Any] = {
    "metadata": {"name": "support", "namespace": "team", "uid": "u1"},
    "spec": {},
    "status": {"url": "http://support-gateway.team.svc:8080"},
}
SERVICE: dict[str, Any] = {"metadata": {"ownerReferences": [{"kind": "AgentFleet", "uid": "u1"}]}}
OWN = ["--with-my-own-token"]
ACCOUNTS, MINE, OF_PLUGIN, OF_FILE = (planted(name) for name in ("account", "mine", "plugin", "file"))
ATTACK = pytest.mark.attack(
    "What answers behind a fleet's Service gets the token of a cluster's administrator"
)
KUBECTL = """#!{python}
import json, sys, time
answers = json.load(open({answers!r}))
words = [word for word in sys.argv[1:]]
with open({log!r}, "a") as log:
    log.write(" ".join(words) + "\\n")
name = next(word for word in words if word in ("get", "config", "create", "port-forward"))
if name == "get" and words[words.index("get") + 1] == "service":
    name = "service"
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
        self.log, self._answers = folder / "kubectl.log", folder / "answers.json"
        program = folder / "kubectl"
        text = KUBECTL.format(python=sys.executable, answers=str(self._answers), log=str(self.log))
        program.write_text(text)
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def answers(self, **answers: Any) -> None:
        told = {"service": SERVICE, **answers}
        self._answers.write_text(json.dumps({name.replace("_", "-"): each for name, each in told.items()}))


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


@pytest.mark.holds(
    "README.md", "The command that asks the fleet finds it by its name, with a token of a service account"
)
@pytest.mark.holds(
    "tasks.md",
    "Or by a fleet's name, through a forwarded port, with a service account's token for this gateway alone",
)
@ATTACK
def test_a_token_for_this_gateway_alone_goes_through_a_forwarded_port(
    cluster: Cluster, port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.answers(
        get=FLEET,
        config=user(token=planted("administrator")),
        create=f"{ACCOUNTS}\n",
        port_forward=forwarding(port),
    )
    assert main(["tasks", "-f", "support", "-n", "team", "--context", "dev", "--account", "ann"]) == 0
    assert Handler.tokens == [f"Bearer {ACCOUNTS}"]
    asked = cluster.log.read_text().splitlines()
    assert asked[0] == "--context dev get agentfleets.flotilla.dev support --namespace team --output json"
    assert (
        "--context dev create token ann --namespace team --audience flotilla.dev/team/support --duration 600s"
        in asked
    )
    assert not [line for line in asked if " config " in line], "the user's own is not read"
    assert asked[-1].endswith("service/support-gateway :8080")
    told = capsys.readouterr()
    assert told.out == "no tasks\n"
    assert ACCOUNTS not in told.err + cluster.log.read_text()


@pytest.mark.holds(
    "tasks.md", "`flotilla ask --fleet` finds the gateway, and an answer cannot command the terminal"
)
def test_an_answer_by_the_name_of_a_fleet_does_nothing_to_the_terminal(
    cluster: Cluster, port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.answers(get=FLEET, create="t", port_forward=forwarding(port))
    asking = ["ask", "why?", "--fleet", "support", "--account", "ann"]
    assert main(asking) == 0
    assert capsys.readouterr().out == "Two lines\nof\N{REPLACEMENT CHARACTER}[2J text\n"
    assert main([*asking, "-o", "json", "--timeout-seconds", "3600"]) == 0
    assert json.loads(capsys.readouterr().out)["id"] == "t1"
    assert "--duration 3720s" in cluster.log.read_text(), "it is good for as long as the answer may take"
    assert main([*asking, "--timeout-seconds", "1e9"]) == 0
    assert "--duration 86400s" in cluster.log.read_text(), "a day at most"


@pytest.mark.parametrize(
    "command", [["ask", "why?", "--fleet", "support", "--account", "ann"], ["rebalance", "a"]]
)
@pytest.mark.parametrize("time", ["inf", "nan", "-inf", "0", "-5", "1e999", "soon"])
def test_a_time_that_is_none_is_refused_by_the_name_of_its_option(
    command: list[str], time: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([*command, f"--timeout-seconds={time}"])
    told = capsys.readouterr().err
    assert f"--timeout-seconds: '{time}' is no number of seconds above 0, such as 300" in told


@pytest.mark.holds(
    "tasks.md",
    "`flotilla` sends the kubeconfig's token only where its user says so, and never in clear to "
    "another machine; it asks no proxy for this machine, and sends nothing to a Service that is "
    "not the fleet's",
)
@ATTACK
@pytest.mark.parametrize("words", [["tasks"], ["approve", "t1"], ["ask", "why?"]])
def test_the_kubeconfigs_own_token_is_not_sent_unless_its_user_says_so(
    cluster: Cluster, port: int, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    cluster.answers(get=FLEET, config=user(token=planted("administrator")), port_forward=forwarding(port))
    assert main([*words, "--fleet", "support"]) == 1
    assert Handler.tokens == []
    told = capsys.readouterr().err
    for says in (
        "kubectl create serviceaccount asker --namespace=team && kubectl create role asker --namespace=team "
        "--verb=create,get --resource=agentfleets.flotilla.dev/tasks --resource-name=support && "
        "kubectl create rolebinding asker --namespace=team --role=asker --serviceaccount=team:asker; ",
        "then add --account asker",
        "--with-my-own-token",
    ):
        assert says in told
    assert "administrator" not in told


@pytest.mark.holds(
    "tasks.md",
    "`flotilla` sends the kubeconfig's token only where its user says so, and never in clear to "
    "another machine; it asks no proxy for this machine, and sends nothing to a Service that is "
    "not the fleet's",
)
@pytest.mark.parametrize(
    ("url", "sent"),
    [
        pytest.param("http://gateway.example:8080", False, id="another machine"),
        pytest.param("http://127.0.0.1.example:8080", False, id="a name that looks like this machine"),
        pytest.param("http://127.0.0.1@gateway.example", False, id="a user that looks like this machine"),
        pytest.param("http://127.0.0.1\\@gateway.example", False, id="a host that others read otherwise"),
        pytest.param("http://[", False, id="no URL"),
        pytest.param("{here}", True, id="this machine"),
    ],
)
@pytest.mark.attack("Somebody on the way reads the token of a person's kubeconfig")
def test_ones_own_token_goes_to_another_machine_by_https_alone(
    cluster: Cluster, port: int, capsys: pytest.CaptureFixture[str], url: str, sent: bool
) -> None:
    cluster.answers(config=user(token=MINE))
    url = url.format(here=f"http://127.0.0.1:{port}")
    assert main(["tasks", "--url", url, "--with-my-own-token"]) == (0 if sent else 1)
    assert Handler.tokens == ([f"Bearer {MINE}"] if sent else [])
    told = capsys.readouterr().err
    assert sent or "so it needs a --url with https, or of this machine" in told
    assert "mine" not in told


@pytest.mark.holds(
    "tasks.md",
    "`flotilla` sends the kubeconfig's token only where its user says so, and never in clear to "
    "another machine; it asks no proxy for this machine, and sends nothing to a Service that is "
    "not the fleet's",
)
@pytest.mark.attack("A proxy of the environment gets the token on its way to the forwarded port")
@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "HTTPS_PROXY"])
@pytest.mark.parametrize("how", ["--fleet", "--url", "--url localhost"])
def test_no_proxy_is_asked_for_what_is_on_this_machine(
    cluster: Cluster, port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, how: str
) -> None:
    """The proxy is a server of our own, which would answer too, and tell what it got."""
    proxied: list[str] = []

    class Proxy(Handler):
        def do_GET(self) -> None:
            proxied.append(f"{self.path} {self.headers.get('Authorization')}")
            super().do_GET()

    proxy = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.server_address[1]}")
    for no in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(no, raising=False)
    cluster.answers(get=FLEET, create=ACCOUNTS, port_forward=forwarding(port))
    (tmp_path / "token").write_text(ACCOUNTS)
    host = "localhost" if how.endswith("localhost") else "127.0.0.1"
    where = {
        "--fleet": ["--fleet", "support", "--account", "ann"],
    }.get(how, ["--url", f"http://{host}:{port}", "--token-file", str(tmp_path / "token")])
    try:
        assert main(["tasks", *where]) == 0
    finally:
        proxy.shutdown()
    assert (proxied, Handler.tokens) == ([], [f"Bearer {ACCOUNTS}"])


@pytest.mark.holds(
    "tasks.md",
    "`flotilla` sends the kubeconfig's token only where its user says so, and never in clear to "
    "another machine; it asks no proxy for this machine, and sends nothing to a Service that is "
    "not the fleet's",
)
@pytest.mark.parametrize(
    ("url", "may"),
    [
        ("http://127.0.0.1:1", False),
        ("http://gateway.example", False),
        ("https://127.0.0.1:1", False),
        ("https://[::1]:1", False),
        ("HTTPS://gateway.example", True),
    ],
)
def test_proxies_get_what_is_encrypted_alone(url: str, may: bool) -> None:
    assert goes_through_proxies(url) is may


@pytest.mark.parametrize("url", ["https://[", "http://[", "http://a b"])
def test_what_is_no_url_is_told(capsys: pytest.CaptureFixture[str], url: str) -> None:
    assert main(["tasks", "--url", url]) == 1
    told = capsys.readouterr().err
    assert (told.startswith("flotilla: "), told.count("\n")) == (True, 1)


@pytest.mark.holds(
    "tasks.md",
    "`flotilla` sends the kubeconfig's token only where its user says so, and never in clear to "
    "another machine; it asks no proxy for this machine, and sends nothing to a Service that is "
    "not the fleet's",
)
@pytest.mark.attack("Somebody's own Service has the name of a fleet's gateway")
@pytest.mark.parametrize(
    "owners",
    [[], [{"kind": "AgentFleet", "name": "support", "uid": "another"}]],
    ids=["nobody's", "another's"],
)
def test_nothing_is_sent_to_a_service_that_is_not_the_fleets(
    cluster: Cluster, port: int, capsys: pytest.CaptureFixture[str], owners: list[Any]
) -> None:
    service = {"metadata": {"ownerReferences": owners}}
    cluster.answers(get=FLEET, service=service, create=ACCOUNTS, port_forward=forwarding(port))
    assert main(["tasks", "--fleet", "support", "--account", "ann"]) == 1
    assert Handler.tokens == []
    assert "the Service support-gateway does not belong to the AgentFleet support" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["--account", "a", "--with-my-own-token"],
        ["--account", "a", "--token-file", "-"],
        ["--token-file", "-", "--with-my-own-token"],
    ],
)
def test_one_way_is_chosen(words: list[str]) -> None:
    with pytest.raises(SystemExit):
        main(["tasks", "--fleet", "support", *words])


@pytest.mark.holds(
    "README.md", "The command that asks the fleet finds it by its name, with a token of a service account"
)
@pytest.mark.holds(
    "tasks.md",
    "Or by a fleet's name, through a forwarded port, with a service account's token for this gateway alone",
)
@pytest.mark.parametrize(
    ("words", "fleet", "config", "token"),
    [
        pytest.param(["--account", "boss"], FLEET, None, f"Bearer {ACCOUNTS}", id="a service account's"),
        pytest.param([], mode("None"), None, None, id="none where none is asked for"),
        pytest.param(OWN, FLEET, "token", f"Bearer {MINE}", id="the kubeconfig's, where its user says so"),
        pytest.param(OWN, FLEET, "plugin", f"Bearer {OF_PLUGIN}", id="that of a credential plugin"),
        pytest.param(OWN, FLEET, "file", f"Bearer {OF_FILE}", id="that of a file"),
    ],
)
def test_where_the_token_comes_from(
    cluster: Cluster, port: int, tmp_path: Path, words: list[str], fleet: Any, config: str | None, token: str
) -> None:
    (tmp_path / "token").write_text(f"{OF_FILE}\n")
    users = {
        "plugin": user(exec=plugin(tmp_path, {"token": OF_PLUGIN})),
        "file": user(tokenFile=str(tmp_path / "token")),
        "token": user(token=MINE),
    }
    answers = {"get": fleet, "create": f"{ACCOUNTS}\n", "port_forward": forwarding(port)}
    cluster.answers(**answers, **({"config": users[config]} if config else {}))
    assert main(["tasks", "--fleet", "support", *words]) == 0
    assert Handler.tokens == [token]


@pytest.mark.holds(
    "tasks.md",
    "Its errors are one line that says what to do, also where no gateway answers or the URL is none",
)
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
            {"get": FLEET, "config": user(token="t"), "service": None},
            "service was refused",
            id="a Service that cannot be read",
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
    assert main(["tasks", "--fleet", "support", *OWN]) == 1
    told = capsys.readouterr().err
    assert told.startswith("flotilla: ")
    assert says in told
    assert told.count("\n") == 1


@pytest.mark.holds(
    "tasks.md",
    "`flotilla` sends the kubeconfig's token only where its user says so, and never in clear to "
    "another machine; it asks no proxy for this machine, and sends nothing to a Service that is "
    "not the fleet's",
)
def test_an_account_needs_the_name_of_its_fleet(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tasks", "--url", "http://127.0.0.1:1", "--account", "ann"]) == 1
    assert "kubectl create token ACCOUNT --audience flotilla.dev/NAMESPACE/FLEET" in capsys.readouterr().err


@pytest.mark.parametrize(
    "token", [f"{ACCOUNTS[:2]}\n{ACCOUNTS}", f"{ACCOUNTS}é", ""], ids=["two lines", "no ASCII", "nothing"]
)
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
    assert MARK not in told


@pytest.mark.holds(
    "tasks.md",
    "Its errors are one line that says what to do, also where no gateway answers or the URL is none",
)
def test_without_kubectl_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["tasks", "--fleet", "support"]) == 1
    assert "install it" in capsys.readouterr().err
