"""Connects to the gateway of a fleet: by its URL, or by the fleet's name and the kubeconfig.

By name, `kubectl port-forward` leads to the gateway. The API server's own proxy would not do: it takes the
header Authorization for itself, so no token reaches the gateway. The token is one of a service account, which
`kubectl create token` makes for this gateway alone: whatever answers behind the forwarded port can use it
nowhere else. The token of the kubeconfig's own user, with which a gateway could act as that user, is sent
only where the user says so. No token is ever shown, and none goes through a proxy in clear.
"""

import contextlib
import ipaddress
import json
import math
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
from flotilla_runtime.contract import gateway_audience

FLEETS: Final = "agentfleets.flotilla.dev"
FORWARDED: Final = re.compile(r"Forwarding from 127\.0\.0\.1:(\d+)")
FORWARD_SECONDS: Final = 20.0
REQUEST_SECONDS: Final = 30.0
LEAST_TOKEN_SECONDS: Final = 600  # which the API server grants at least
MOST_TOKEN_SECONDS: Final = 24 * 3600


class GatewayError(RuntimeError):
    """The gateway cannot be reached, or no token is known for it; the message says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """The gateway that is asked, and as whom: the options of the command line."""

    url: str | None = None
    fleet: str | None = None
    namespace: str | None = None
    context: str | None = None
    token_file: Path | None = None
    account: str | None = None
    with_own_token: bool = False
    ca_file: Path | None = None
    token_seconds: float = LEAST_TOKEN_SECONDS


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """The fields of an AgentFleet that lead to its gateway."""

    name: str
    namespace: str
    uid: str
    url: str
    mode: str


@contextlib.contextmanager
def connected(where: Where) -> Iterator[httpx2.Client]:
    """A client of the gateway, with the caller's token, for as long as the block runs."""
    trusted = _trusted(where.ca_file)
    if where.url is not None:
        with _client(where.url, token_for_url(where, os.environ), trusted, name=None) as client:
            yield client
        return
    kubectl = kubectl_of(where.context)
    fleet = fleet_of(kubectl, where.fleet or "", where.namespace)
    token = token_for(kubectl, where, fleet, os.environ)
    target = urlsplit(fleet.url)
    check_service(kubectl, fleet)
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
    metadata = found["metadata"]
    return Fleet(
        name=metadata.get("name", name),
        namespace=metadata["namespace"],
        uid=metadata.get("uid", ""),
        url=url,
        mode=mode,
    )


def check_service(kubectl: Kubectl, fleet: Fleet) -> None:
    """Raise GatewayError where the Service behind which the gateway should be is not the fleet's.

    Who may write Services there can still forge this: it stops mistakes, and what the token is good for is
    the bound of the damage.
    """
    service = f"{fleet.name}-gateway"
    found = json.loads(
        kubectl(["get", "service", service, "--namespace", fleet.namespace, "--output", "json"])
    )
    owners = found["metadata"].get("ownerReferences") or []
    if not any(owner.get("uid") == fleet.uid for owner in owners):
        raise GatewayError(
            f"the Service {service} does not belong to the AgentFleet {fleet.name}, so nothing is sent to "
            f"it; kubectl describe service {service} --namespace {fleet.namespace} shows what it is"
        )


def token_for_url(where: Where, environment: Mapping[str, str]) -> str | None:
    """The token for a gateway that is named by its URL; None where none was given."""
    if where.account is not None:
        raise GatewayError(
            "--account needs --fleet, because the token is made for the gateway of one fleet; with --url, "
            "give one by --token-file, such as: kubectl create token ACCOUNT --audience "
            f"{gateway_audience('NAMESPACE', 'FLEET')}"
        )
    if not where.with_own_token:
        return token_of_file(where.token_file)
    if not is_private(where.url or ""):
        raise GatewayError(
            "--with-my-own-token sends a token with which others could act as you, so it needs a --url with "
            "https, or of this machine; plain HTTP to another address is read on the way"
        )
    return own_token(kubectl_of(where.context), environment)


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
        seconds = math.ceil(min(max(where.token_seconds, LEAST_TOKEN_SECONDS), MOST_TOKEN_SECONDS))
        audience = gateway_audience(fleet.namespace, fleet.name)
        wanted = ["--namespace", fleet.namespace, "--audience", audience, "--duration", f"{seconds}s"]
        return token_value(
            kubectl(["create", "token", where.account, *wanted]), "the token that kubectl made"
        )
    if where.with_own_token:
        return own_token(kubectl, environment)
    raise GatewayError(no_account(fleet))


def no_account(fleet: Fleet) -> str:
    """The commands to type where nobody said as whom the gateway is asked."""
    name, there = fleet.name, f"--namespace={fleet.namespace}"
    return (
        "say as whom: --account ACCOUNT, a service account of the namespace. To make one that may submit "
        f"tasks: kubectl create serviceaccount asker {there} && "
        f"kubectl create role asker {there} --verb=create,get --resource=agentfleets.flotilla.dev/tasks "
        f"--resource-name={name} && "
        f"kubectl create rolebinding asker {there} --role=asker --serviceaccount={fleet.namespace}:asker; "
        "then add --account asker. One that decides on calls also needs the verb approve. Without one, "
        "--with-my-own-token sends the token of your kubeconfig: the gateway then sees all of it, and could "
        "act as you"
    )


def own_token(kubectl: Kubectl, environment: Mapping[str, str]) -> str:
    """The token of the kubeconfig's user, which is good for the API server too."""
    shown = kubectl(["config", "view", "--raw", "--minify", "--output", "json"])
    token = token_of_user(json.loads(shown), environment)
    if token is None:
        raise GatewayError(
            "your kubeconfig has no bearer token, which gateways need (a client certificate is none); name a "
            "service account by --account, or give a token by --token-file"
        )
    return token


def goes_through_proxies(url: str) -> bool:
    """Whether the environment's proxies may have requests to this URL. Raises httpx2.InvalidURL."""
    parsed = httpx2.URL(url)
    return parsed.scheme == "https" and not is_loopback(parsed.host)


def is_private(url: str) -> bool:
    """Whether nobody on the way reads what is sent to this URL: by https, or to this machine."""
    try:
        parsed = httpx2.URL(url)  # as the client reads it
    except httpx2.InvalidURL:
        return False
    return parsed.scheme == "https" or is_loopback(parsed.host)


def is_loopback(host: str) -> bool:
    """Whether a host of a URL is this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


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


def _trusted(ca_file: Path | None) -> ssl.SSLContext:
    if ca_file is None:
        return httpx2.create_ssl_context()
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as problem:  # also ssl.SSLError, for a file without a certificate
        raise GatewayError(f"--ca-file {ca_file} cannot be read: {problem}") from None


def _client(url: str, token: str | None, trusted: ssl.SSLContext, name: str | None) -> httpx2.Client:
    """A client; `name` is that of the gateway's certificate where the URL has an address in its place.

    The environment's proxies are asked for https alone, and never for this machine: a proxy would get
    whatever is sent in clear.
    """

    def named(request: httpx2.Request) -> None:
        if name is not None:
            request.extensions["sni_hostname"] = name

    headers = {} if token is None else {"Authorization": f"Bearer {token_value(token, 'the token')}"}
    return httpx2.Client(
        base_url=url,
        headers=headers,
        timeout=REQUEST_SECONDS,
        verify=trusted,
        trust_env=goes_through_proxies(url),
        event_hooks={"request": [named]},
    )
