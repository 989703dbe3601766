"""Authenticates the callers of the task API, in one of three modes.

`None` accepts everybody and shows all tasks. `Secret` accepts a bearer token that is an entry of a mounted
secret; the entry's name is the caller. `Kubernetes` (reviews.py) has the API server say who a token is and
what that user may do: the verb `create` on agentfleets/tasks allows a caller to submit, cancel, resolve,
signal and replay, `get` to read its own tasks, and `list` to see the tasks of others too. `approve` allows it
to read what waits for approval, and to decide. The verb `act` on agentfleets/tenants allows it to name
another tenant than its own. Tokens are never logged or stored; only a hash is kept.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from pathlib import Path
from typing import Final, Protocol

from flotilla_runtime.contract import DOMAIN
from flotilla_runtime.gateway.problems import ProblemError
from flotilla_runtime.mounted_keys import MountedKeys, bearer_token

KUBERNETES: Final = "kubernetes"
SERVICE_ACCOUNT: Final = re.compile(r"system:serviceaccount:([a-z0-9]([-a-z0-9]*[a-z0-9])?):[-a-z0-9.]+")
NAMESPACE: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
USER: Final = "user:"


class Verb(StrEnum):
    """The action that a caller wants: the last on tenants, the others on tasks."""

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
    not become the same tenant. So does one whose name begins with `user:`, or is empty, so that no two users
    are one tenant.
    """
    mode, _, name = caller.partition(":")
    if mode != KUBERNETES:
        return name or caller
    if (account := SERVICE_ACCOUNT.fullmatch(name)) is not None:
        return account[1]
    if not name or name.startswith(USER) or NAMESPACE.fullmatch(name):
        return f"{USER}{name}"
    return name


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
        caller = self.caller_of(bearer_token_of(authorization))
        if caller is None:
            raise unauthorized("the key is not in the fleet's Secret of callers; send one of its keys")
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


def bearer_token_of(authorization: str | None) -> str:
    """The bearer token of a request; raises for a request without one."""
    token = bearer_token(authorization)
    if token is None:
        raise unauthorized(
            "the request has no bearer token; send the header Authorization: Bearer, followed by your key or "
            "token"
        )
    return token


def unauthorized(detail: str) -> ProblemError:
    """The problem for a caller that nobody knows."""
    return ProblemError(
        HTTPStatus.UNAUTHORIZED,
        "unauthorized",
        detail,
        headers={"WWW-Authenticate": f'Bearer realm="{DOMAIN}"'},
    )
