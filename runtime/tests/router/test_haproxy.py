"""The rendered configuration: golden files, determinism, and what the real HAProxy, 2.6 and 3.x, says of it.

The plainest router's configuration is a whole file. The other scenarios are files of what differs from it,
section by section. `--rewrite-golden` writes all of them. How HAProxy then behaves is in
test_router_service.py.
"""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flotilla_runtime import contract
from flotilla_runtime.contract import ListenFamily, RouterConfig, RouterTask
from flotilla_runtime.router.__main__ import main, usable_family, write_files
from flotilla_runtime.router.haproxy import render
from flotilla_runtime.router.openai_errors import RefusalReason, refusals
from golden_files import Whole, difference, sections_of
from router_support.builders import config
from router_support.certificates import write_pair
from router_support.haproxy_version import ON_EVERY, branch_of

GOLDEN = Path(__file__).parent / "golden"
RETRY, BEARER = {"retry-after": "9"}, {"www-authenticate": "Bearer"}

PLAINEST = "generate"
SCENARIOS: dict[str, dict[str, Any]] = {
    PLAINEST: {},
    "embed_without_conversations": {"task": RouterTask.EMBED, "models": ("minilm",)},
    "callers_with_keys_and_adapters": {
        "caller_keys_directory": "/etc/flotilla/keys",
        "models": ("meta-llama/Llama-3.3-70B-Instruct", "sql"),
        "load_factor": 1.5,
        "engine_key_environment": "VLLM_API_KEY",
    },
    "https": {"tls_directory": "/var/run/flotilla/tls", "hold_at_zero": True},
    "held_at_zero": {"hold_at_zero": True},
    "ipv4_only_small_limits": {
        "listen_family": ListenFamily.IPV4,
        "max_queue": 10,
        "max_request_mib": 1,
        "queue_timeout_seconds": 3,
    },
}


def rendered(scenario: str) -> str:
    return render(config(**SCENARIOS[scenario]))["haproxy.cfg"]


@pytest.mark.holds(
    "router.md",
    "Without the secret everybody who reaches the service may call; with one that is not there nobody",
)
def test_the_plainest_configuration_is_as_reviewed(golden: Callable[[Path, str], None]) -> None:
    golden(GOLDEN / f"{PLAINEST}.cfg", rendered(PLAINEST))


@pytest.mark.holds("router.md", "Keys, limits and queue are the same on both listeners")
@pytest.mark.holds("decisions/0009-engine-key.md", "The engines' key is in no file of the router's")
@pytest.mark.holds("decisions/0012-https.md", "HAProxy reads the mounted files and the key is copied nowhere")
@pytest.mark.parametrize("scenario", [name for name in SCENARIOS if name != PLAINEST])
def test_what_differs_from_the_plainest_is_as_reviewed(
    scenario: str, golden: Callable[[Path, str], None]
) -> None:
    whole = Whole(file=f"{PLAINEST}.cfg", parts=sections_of(rendered(PLAINEST)))
    golden(GOLDEN / f"{scenario}.diff", difference(whole, sections_of(rendered(scenario))))


@pytest.mark.holds(
    "decisions/0002-haproxy.md", "`haproxy -c` takes the configuration without a warning on 2.6 and 3.x"
)
def test_what_was_removed_from_3x_is_not_used() -> None:
    """HAProxy 3.x refuses or warns of these words, and of sections of one name, by its release notes."""
    removed = ("nbproc", "bind-process", "dispatch", "transparent", "program", "mailers", "master-worker")
    for fields in SCENARIOS.values():
        lines = render(config(**fields))["haproxy.cfg"].splitlines()
        assert {line.split()[0] for line in lines if line.strip()}.isdisjoint(removed)
        sections = [line for line in lines if line and not line.startswith(" ")]
        assert len(set(sections)) == len(sections)


def test_the_point_of_each_setting() -> None:
    """A reader of the golden file must not lose these in a diff."""
    text = render(config(queue_timeout_seconds=7, caller_keys_directory="/keys"))["haproxy.cfg"]
    for line in (
        "bind :::8000 v4v6",
        "option http-buffer-request",
        "option abortonclose",
        "option redispatch 1",
        "retry-on conn-failure",
        "timeout queue 7s",
        "tune.bufsize 65536",
        "nbthread 1",
        "http-request del-header Authorization",
    ):
        assert f"    {line}\n" in text


@pytest.mark.holds("engine.md", "While `model.name` changes, no name is listed")
def test_while_no_name_is_served_by_all_replicas_none_is_listed() -> None:
    files = render(config(models=()))
    assert json.loads(files["models.json"]) == {"object": "list", "data": []}
    assert "model-0.json" not in files


@pytest.mark.holds("router.md", "A refusal is a whole answer in OpenAI's form with a code")
@pytest.mark.parametrize(
    ("status", "code"),
    [
        pytest.param(400, "bad_request", id="headers that are no HTTP"),
        pytest.param(408, "request_timeout", id="headers that do not arrive"),
        pytest.param(414, "url_too_long", id="a path longer than the buffer"),
        pytest.param(431, "headers_too_large", id="headers longer than the buffer"),
    ],
)
def test_what_the_parser_answers_is_a_whole_message(status: int, code: str) -> None:
    """A body would do for what HAProxy answers later; its parser takes nothing but a message."""
    files = render(config())
    name = f"error-{status}-{code}.http"
    lines = files["haproxy.cfg"].splitlines()
    assert any(line.endswith(name) and f" http-error status {status} errorfile " in line for line in lines)
    head, _, body = files[name].partition("\r\n\r\n")
    first, *headers = head.split("\r\n")
    assert first.startswith(f"HTTP/1.1 {status} ")
    assert f"Content-Length: {len(body.encode())}" in headers
    assert json.loads(body)["error"]["code"] == code


@pytest.mark.holds("router.md", "A refusal is a whole answer in OpenAI's form with a code")
@pytest.mark.parametrize(
    ("reason", "status", "code", "headers"),
    [
        pytest.param(RefusalReason.NO_REPLICAS, 503, "no_replicas", RETRY, id="no replica is ready"),
        pytest.param(RefusalReason.QUEUE_FULL, 429, "queue_full", RETRY, id="the queue is full"),
        pytest.param(
            RefusalReason.QUEUE_TIMEOUT, 503, "queue_timeout", RETRY, id="no replica took it in time"
        ),
        pytest.param(RefusalReason.UNAUTHORIZED, 401, "invalid_api_key", BEARER, id="no valid key"),
        pytest.param(RefusalReason.TOO_LARGE, 413, "request_too_large", {}, id="a body that is too large"),
        pytest.param(RefusalReason.LENGTH_REQUIRED, 411, "length_required", {}, id="a long chunked body"),
        pytest.param(RefusalReason.TOO_SLOW, 400, "bad_request", {}, id="a body that comes too slowly"),
        pytest.param(RefusalReason.UNKNOWN_PATH, 404, "unknown_url", {}, id="a path of nobody's"),
        pytest.param(RefusalReason.UNKNOWN_MODEL, 404, "model_not_found", {}, id="a model of nobody's"),
        pytest.param(
            RefusalReason.REPLICA_UNAUTHORIZED,
            503,
            "replica_unauthorized",
            RETRY,
            id="the replica wants another key",
        ),
    ],
)
def test_a_refusal_is_rendered_with_its_status_code_and_headers(
    reason: RefusalReason, status: int, code: str, headers: dict[str, str]
) -> None:
    lines = render(config(max_request_mib=2, retry_after_seconds=9))["refusals.lua"].splitlines()
    (line,) = (line for line in lines if line.startswith(f"    {reason} = "))
    assert f"status = {status}," in line
    for name in ("retry-after", "www-authenticate"):
        assert (f'["{name}"]' in line) is (name in headers)
        assert f'["{name}"] = "{headers.get(name, "")}"' in line or name not in headers
    error = json.loads(json.loads(line.partition("body = ")[2].removesuffix(" },")))["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["code"] == code


def test_a_refusal_says_the_limit() -> None:
    errors = refusals(max_request_mib=2, queue_timeout_seconds=60)
    assert "larger than 2 MiB" in errors[RefusalReason.TOO_LARGE].message
    assert "waited 60 s" in errors[RefusalReason.QUEUE_TIMEOUT].message


def check(directory: Path, checked: RouterConfig) -> subprocess.CompletedProcess[str]:
    write_files(checked, directory)
    command = ["haproxy", "-c", "-f", str(directory / "haproxy.cfg")]
    environment = {**os.environ, contract.ENV_ENGINE_KEY: "key"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


@pytest.mark.holds(
    "decisions/0002-haproxy.md", "`haproxy -c` takes the configuration without a warning on 2.6 and 3.x"
)
@pytest.mark.services
@pytest.mark.usefixtures("haproxy")
@ON_EVERY
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_haproxy_takes_it_without_a_warning(scenario: str, tmp_path: Path) -> None:
    fields = SCENARIOS[scenario] | {"run_directory": str(tmp_path)}
    if "tls_directory" in fields:
        write_pair(tmp_path)
        fields |= {"tls_directory": str(tmp_path)}
    result = check(tmp_path, config(**fields))
    assert result.returncode == 0, result.stderr
    assert "WARNING" not in result.stderr, result.stderr


@pytest.mark.services
def test_the_tests_run_the_branch_of_the_charts_haproxy(
    charts_haproxy: Path, charts_branch: tuple[int, ...]
) -> None:
    """Debian's suites move on. Then SUITE_OF_THE_CHART, or the chart's image, must move too."""
    assert branch_of(charts_haproxy) == charts_branch


@pytest.mark.services
@pytest.mark.usefixtures("haproxy")
@ON_EVERY
def test_haproxy_takes_a_model_of_any_name(tmp_path: Path) -> None:
    names = ("a b", "it's", 'say "hi"', "back\\slash", "$HOME", "%[src]", "#1", "ü")
    result = check(tmp_path, config(models=names, run_directory=str(tmp_path)))
    assert result.returncode == 0, result.stderr


@pytest.mark.holds("install.md", "The router listens on IPv4 alone where the node has no IPv6")
@pytest.mark.parametrize(
    ("wanted", "has_ipv6", "used"),
    [
        pytest.param(ListenFamily.DUAL, True, ListenFamily.DUAL, id="both where there are both"),
        pytest.param(ListenFamily.DUAL, False, ListenFamily.IPV4, id="both become one where IPv6 is off"),
        pytest.param(ListenFamily.IPV6, False, ListenFamily.IPV6, id="what was asked for alone stays"),
    ],
)
def test_the_family_that_a_node_can_listen_on(
    wanted: ListenFamily, has_ipv6: bool, used: ListenFamily
) -> None:
    assert usable_family(wanted, has_ipv6=has_ipv6) is used


@pytest.mark.holds(
    "decisions/0009-engine-key.md",
    "HAProxy sends the key in the place of the caller's own, from its environment",
)
def test_the_command_writes_the_files(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.mkdir()
    (keys / "fleet").write_text("secret\n")
    described = config(caller_keys_directory=str(keys), run_directory=str(tmp_path / "unused"))
    (tmp_path / "config.json").write_text(described.model_dump_json())
    run = tmp_path / "run"
    assert main(["render", "--config", str(tmp_path / "config.json"), "--to", str(run)]) == 0
    assert {path.name for path in run.iterdir()} == set(render(described))
    digest = "2BB80D537B1DA3E38BD30361AA855686BDE0EACD7162FEF6A25FE97BF527A25B"
    assert (run / "keys.map").read_text() == f"{digest} fleet\n"
