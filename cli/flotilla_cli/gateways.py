"""Connects to the gateway of a fleet: by its URL, or by the fleet's name and the kubeconfig.

By name, `kubectl port-forward` leads to the gateway. The API server's own proxy would not do: it takes the
header Authorization for itself, so no token reaches the gateway. The token is that of the kubeconfig's user,
or one of a service account that `kubectl create token` makes. It is never shown.
"""

import contextlib
import json
import os
import re
import ssl
import subprocess
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpx2

from flotilla_cli.kubectl import Kubectl, KubectlError, command_of, kubectl_of
from flotilla_cli.tokens import token_of_file, token_of_user, token_value

FLEETS: Final = "agentfleets.flotilla.dev"
FORWARDED: Final = re.compile(r"Forwarding from 127\.0\.0\.1:(\d+)")
FORWARD_SECONDS: Final = 20.0
REQUEST_SECONDS: Final = 30.0


class GatewayError(RuntimeError):
    """The gateway cannot be reached, or no token is known for it; the message says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """Which gateway is asked, and as whom: the options of the command line."""

    url: str | None = None
    fleet: str | None = None
    namespace: str | None = None
    context: str | None = None
    token_file: Path | None = None
    account: str | None = None
    ca_file: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """What is read of an AgentFleet."""

    name: str
    namespace: str
    url: str
    mode: str


@contextlib.contextmanager
def connected(where: Where) -> Iterator[httpx2.Client]:
    """A client of the gateway, with the caller's token, for as long as the block runs."""
    trusted = _trusted(where.ca_file)
    if where.url is not None:
        token = token_of_file(where.token_file)
        with _client(where.url, token, trusted, name=None) as client:
            yield client
        return
    kubectl = kubectl_of(where.context)
    fleet = fleet_of(kubectl, where.fleet or "", where.namespace)
    token = token_for(kubectl, where, fleet, os.environ)
    target = urlsplit(fleet.url)
    with forwarded(where.context, fleet, target.port or 8080) as port:
        url = f"{target.scheme}://127.0.0.1:{port}"
        with _client(url, token, trusted, name=target.hostname) as client:
            yield client


def fleet_of(kubectl: Kubectl, name: str, namespace: str | None) -> Fleet:
    """The fleet with this name."""
    there = [] if namespace is None else ["--namespace", namespace]
    found: Mapping[str, Any] = json.loads(kubectl(["get", FLEETS, name, *there, "--output", "json"]))
    url = (found.get("status") or {}).get("url")
    if not url:
        raise GatewayError(
            f"the AgentFleet {name} has no gateway yet; kubectl describe {FLEETS} {name} says what it needs"
        )
    auth = ((found["spec"].get("gateway") or {}).get("auth")) or {}
    mode = auth.get("mode", "Kubernetes")
    return Fleet(name=name, namespace=found["metadata"]["namespace"], url=url, mode=mode)


def token_for(kubectl: Kubectl, where: Where, fleet: Fleet, environment: Mapping[str, str]) -> str | None:
    """The token that this fleet's gateway asks for; None where it asks for none."""
    if where.token_file is not None:
        return token_of_file(where.token_file)
    if fleet.mode == "None":
        return None
    if fleet.mode == "Secret":
        raise GatewayError(
            f"callers of the AgentFleet {fleet.name} send a key from its Secret; give yours by --token-file"
        )
    if where.account is not None:
        return kubectl(["create", "token", where.account, "--namespace", fleet.namespace]).strip()
    shown = kubectl(["config", "view", "--raw", "--minify", "--output", "json"])
    token = token_of_user(json.loads(shown), environment)
    if token is None:
        raise GatewayError(
            "your kubeconfig has no bearer token, which gateways need (a client certificate is none); name a "
            "service account by --account, or give a token by --token-file"
        )
    return token


@contextlib.contextmanager
def forwarded(context: str | None, fleet: Fleet, port: int) -> Iterator[int]:
    """A local port that leads to the gateway, for as long as the block runs."""
    command = [
        *command_of(context),
        *("port-forward", "--namespace", fleet.namespace, "--address", "127.0.0.1"),
        *(f"service/{fleet.name}-gateway", f":{port}"),
    ]
    try:
        process = subprocess.Popen(  # noqa: S603
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
    except FileNotFoundError:
        raise KubectlError("kubectl was not found on the PATH; install it") from None
    timer = threading.Timer(FORWARD_SECONDS, process.kill)
    timer.start()
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        found = FORWARDED.match(process.stdout.readline())
        timer.cancel()
        if found is None:
            process.kill()
            said = process.stderr.read().strip() or f"no answer within {FORWARD_SECONDS:g} s"
            raise GatewayError(f"kubectl port-forward does not reach the gateway of {fleet.name}: {said}")
        threading.Thread(target=process.stdout.read, daemon=True).start()
        yield int(found[1])
    finally:
        timer.cancel()
        process.kill()
        process.wait()


def _trusted(ca_file: Path | None) -> ssl.SSLContext | bool:
    if ca_file is None:
        return True
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as problem:  # also ssl.SSLError, for a file without a certificate
        raise GatewayError(f"--ca-file {ca_file} cannot be read: {problem}") from None


def _client(url: str, token: str | None, trusted: ssl.SSLContext | bool, name: str | None) -> httpx2.Client:
    """A client; `name` is that of the gateway's certificate where the URL has an address in its place."""

    def named(request: httpx2.Request) -> None:
        if name is not None:
            request.extensions["sni_hostname"] = name

    headers = {} if token is None else {"Authorization": f"Bearer {token_value(token, 'the token')}"}
    return httpx2.Client(
        base_url=url,
        headers=headers,
        timeout=REQUEST_SECONDS,
        verify=trusted,
        event_hooks={"request": [named]},
    )
