"""Authenticates the callers of the task API, in one of three modes.

`None` accepts everybody and shows all tasks. `Secret` accepts a bearer token that is an entry of a mounted
secret; the entry's name is the caller. `Kubernetes` asks the API server with the caller's own token, so the
gateway itself needs no rights: the verb `create` on agentfleets/tasks allows a caller to submit, cancel,
resolve, signal and replay, `get` to read its own tasks, and `list` to see the tasks of others too. `approve`
allows it to read what waits for approval, and to decide. The verb `act` on agentfleets/tenants allows it to
name another tenant than its own. Tokens are never logged or stored; only a
hash is kept, for a minute at most.
"""

import asyncio
import hashlib
import re
import ssl
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final, Protocol

import httpx2

from flotilla_runtime.contract import DOMAIN, url_host
from flotilla_runtime.direct import DIRECT
from flotilla_runtime.gateway.problems import ProblemError, unavailable
from flotilla_runtime.mounted_keys import MountedKeys, bearer_token

KEPT_SECONDS: Final = 60.0
REFUSAL_KEPT_SECONDS: Final = 5.0
MOST_KEPT: Final = 10_000
REVIEW_TIMEOUT_SECONDS: Final = 5.0
RETRY_AFTER_SECONDS: Final = 2
KUBERNETES: Final = "kubernetes"
SERVICE_ACCOUNT: Final = "system:serviceaccount:"
NAMESPACE: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")


class Verb(StrEnum):
    """What a caller wants to do: the last on tenants, the others on tasks."""

    CREATE = "create"
    GET = "get"
    LIST = "list"
    APPROVE = "approve"
    ACT = "act"


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """An authorized caller. It sees its own tasks if `sees_own`, with `sees_all` those of others too, and
    with `approves` those that wait for approval.
    """

    name: str
    sees_all: bool = False
    sees_own: bool = True
    approves: bool = False


def tenant_of(caller: str) -> str:
    """The tenant of a caller, by the name that its mode gives it: the namespace of a service account, else
    the name of the user, the entry of the secret, or `anonymous`.

    A user whose name could be a namespace gets `user:` in front: who may make a namespace of that name must
    not become the same tenant.
    """
    mode, _, name = caller.partition(":")
    if mode == KUBERNETES and name.startswith(SERVICE_ACCOUNT):
        namespace, _, _ = name.removeprefix(SERVICE_ACCOUNT).partition(":")
        return namespace
    if mode == KUBERNETES and NAMESPACE.fullmatch(name):
        return f"user:{name}"
    return name or caller


class Authenticator(Protocol):
    """Identifies a caller, or raises a ProblemError."""

    async def identify(self, authorization: str | None, verb: Verb) -> Identity:
        """The caller that sent this Authorization header; raises when it may not do this."""

    async def may_act(self, authorization: str | None) -> bool:
        """Whether a caller that is identified may name another tenant than its own."""

    async def may_approve(self, authorization: str | None) -> bool:
        """Whether a caller that is identified may decide on what waits for approval."""


class NoAuthentication:
    """The mode `None`: everybody is the same caller."""

    async def identify(self, authorization: str | None, verb: Verb) -> Identity:
        """The anonymous caller, which sees all tasks."""
        return Identity(name="anonymous", sees_all=True, approves=True)

    async def may_act(self, authorization: str | None) -> bool:
        """Nobody may: everybody could."""
        return False

    async def may_approve(self, authorization: str | None) -> bool:
        """Everybody may: there is nobody else who could."""
        return True


class CallerKeys(MountedKeys):
    """The mode `Secret`: the keys of a mounted secret."""

    def __init__(
        self, directory: Path, trusted: Collection[str] = (), approvers: Collection[str] = ()
    ) -> None:
        super().__init__(directory)
        self._trusted = frozenset(trusted)
        self._approvers = frozenset(approvers)

    async def identify(self, authorization: str | None, verb: Verb) -> Identity:
        """The entry with the sent value."""
        caller = self.caller_of(_bearer_token(authorization))
        if caller is None:
            raise _unauthorized("the key is not in the fleet's Secret of callers; send one of its keys")
        if verb is Verb.APPROVE and caller not in self._approvers:
            raise ProblemError(
                HTTPStatus.FORBIDDEN,
                "forbidden",
                f"the caller {caller} may not decide on what waits for approval; its entry must be in "
                "gateway.auth.approvers",
            )
        return Identity(name=f"secret:{caller}", approves=caller in self._approvers)

    async def may_act(self, authorization: str | None) -> bool:
        """Whether the entry is one of `gateway.auth.trusted`."""
        caller = await self.identify(authorization, Verb.ACT)
        return caller.name.removeprefix("secret:") in self._trusted

    async def may_approve(self, authorization: str | None) -> bool:
        """Whether the entry is one of `gateway.auth.approvers`."""
        return (await self.identify(authorization, Verb.GET)).approves


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetName:
    """The fleet that a review is about."""

    namespace: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kept:
    until: float
    value: Any


class KubernetesReviews:
    """The mode `Kubernetes`: asks the API server with the caller's own token who it is and what it may do."""

    def __init__(
        self, client: httpx2.AsyncClient, fleet: FleetName, monotonic_seconds: Callable[[], float]
    ) -> None:
        self._client = client
        self._fleet = fleet
        self._clock = monotonic_seconds
        self._kept: dict[tuple[bytes, str], _Kept] = {}

    async def identify(self, authorization: str | None, verb: Verb) -> Identity:
        """The user of the token, if it may do this with the fleet's tasks."""
        token = _bearer_token(authorization)
        if not (token.isascii() and token.isprintable()):
            raise _unauthorized("this is not a Kubernetes token; send one, such as from kubectl create token")
        user = await self._user(token)
        allowed, sees_all, approves = await asyncio.gather(
            self._may(token, verb), self._may(token, Verb.LIST), self._may_read_as_approver(token, verb)
        )
        if not allowed and not approves:
            raise ProblemError(
                HTTPStatus.FORBIDDEN,
                "forbidden",
                f"{user} may not {verb} tasks of the AgentFleet {self._fleet.name} in namespace "
                f"{self._fleet.namespace}; bind it to a Role with the verb {verb} on the resource "
                f"agentfleets/tasks of the API group {DOMAIN}",
            )
        return Identity(
            name=f"{KUBERNETES}:{user}",
            sees_all=sees_all and allowed,
            sees_own=allowed,
            approves=approves,
        )

    async def may_act(self, authorization: str | None) -> bool:
        """Whether the user of the token may act as the fleet's tenants."""
        return await self._may(_bearer_token(authorization), Verb.ACT)

    async def may_approve(self, authorization: str | None) -> bool:
        """Whether the user of the token may decide on what waits for approval."""
        return await self._may(_bearer_token(authorization), Verb.APPROVE)

    async def _may_read_as_approver(self, token: str, verb: Verb) -> bool:
        """Whether what waits for approval may be read because the caller may decide on it."""
        return verb is Verb.GET and await self._may(token, Verb.APPROVE)

    async def _user(self, token: str) -> str:
        review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
        path = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
        status = await self._review(token, "user", path, review)
        return str(status["userInfo"]["username"])

    async def _may(self, token: str, verb: Verb) -> bool:
        attributes = {
            "namespace": self._fleet.namespace,
            "verb": str(verb),
            "group": DOMAIN,
            "resource": "agentfleets",
            "subresource": "tenants" if verb is Verb.ACT else "tasks",
            "name": self._fleet.name,
        }
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        }
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        status = await self._review(token, str(verb), path, review)
        return bool(status.get("allowed"))

    async def _review(
        self, token: str, about: str, path: str, review: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """The status of a review; from memory while it is recent enough."""
        key = (_hash(token.encode()), about)
        now = self._clock()
        if (kept := self._kept.get(key)) is not None and kept.until > now:
            return _given(kept.value)
        answer = await self._asked(token, path, review)
        good = not isinstance(answer, ProblemError) and answer.get("allowed", True)
        seconds = KEPT_SECONDS if good else REFUSAL_KEPT_SECONDS
        self._make_room(now)
        self._kept[key] = _Kept(until=now + seconds, value=answer)
        return _given(answer)

    async def _asked(
        self, token: str, path: str, review: Mapping[str, Any]
    ) -> Mapping[str, Any] | ProblemError:
        try:
            response = await self._client.post(
                path, json=dict(review), headers={"Authorization": f"Bearer {token}"}
            )
        except (httpx2.HTTPError, httpx2.InvalidURL) as problem:
            raise unavailable(
                "your token cannot be checked, because the Kubernetes API does not answer "
                f"({type(problem).__name__}); try again in {RETRY_AFTER_SECONDS} s",
                RETRY_AFTER_SECONDS,
            ) from None
        if response.status_code == HTTPStatus.UNAUTHORIZED:
            return _unauthorized("Kubernetes does not accept this token; it may have expired")
        if not response.is_success:
            raise unavailable(
                f"your token cannot be checked: the Kubernetes API answered {response.status_code} to "
                f"{path}; try again in {RETRY_AFTER_SECONDS} s",
                RETRY_AFTER_SECONDS,
            )
        status: Mapping[str, Any] = response.json().get("status") or {}
        return status

    def _make_room(self, now: float) -> None:
        if len(self._kept) < MOST_KEPT:
            return
        self._kept = {key: kept for key, kept in self._kept.items() if kept.until > now}
        while len(self._kept) >= MOST_KEPT:
            del self._kept[next(iter(self._kept))]


def api_server_client(environment: Mapping[str, str], ca_path: str) -> httpx2.AsyncClient:
    """A client of the cluster's API server without its own credentials."""
    host, port = environment["KUBERNETES_SERVICE_HOST"], environment.get("KUBERNETES_SERVICE_PORT", "443")
    return httpx2.AsyncClient(
        base_url=f"https://{url_host(host)}:{port}",
        verify=ssl.create_default_context(cafile=ca_path),
        timeout=REVIEW_TIMEOUT_SECONDS,
        mounts=DIRECT,
    )


def _given(answer: Mapping[str, Any] | ProblemError) -> Mapping[str, Any]:
    if isinstance(answer, ProblemError):
        raise answer
    return answer


def _bearer_token(authorization: str | None) -> str:
    token = bearer_token(authorization)
    if token is None:
        raise _unauthorized(
            "the request has no bearer token; send the header Authorization: Bearer, followed by your key or "
            "token"
        )
    return token


def _unauthorized(detail: str) -> ProblemError:
    return ProblemError(
        HTTPStatus.UNAUTHORIZED,
        "unauthorized",
        detail,
        headers={"WWW-Authenticate": f'Bearer realm="{DOMAIN}"'},
    )


def _hash(secret: bytes) -> bytes:
    return hashlib.sha256(secret).digest()
