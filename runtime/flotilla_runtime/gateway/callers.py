"""The callers of the task API and of the front ends: their names, their tenants and their rates."""

import math
from http import HTTPStatus
from typing import Protocol

from starlette.requests import Request

from flotilla_runtime.contract import DOMAIN, HEADER_TENANT
from flotilla_runtime.gateway.auth import Authenticator, Identity, Verb, tenant_of
from flotilla_runtime.gateway.problems import ProblemError
from flotilla_runtime.gateway.requests import named_tenant


class Rates(Protocol):
    """Counts the requests of each caller."""

    requests_per_minute: int

    async def wait_seconds(self, caller: str) -> float:
        """Take one request; 0, or after how many seconds the caller may make one."""


class Callers:
    """The callers of a fleet."""

    def __init__(self, authenticator: Authenticator, rates: Rates | None = None) -> None:
        self._authenticator = authenticator
        self._rates = rates

    async def identify(self, request: Request, verb: Verb) -> Identity:
        """The caller; raises a problem where it may not do this, or not so often."""
        caller = await self.allowed(request, verb)
        if self._rates is None:
            return caller
        wait = await self._rates.wait_seconds(caller.name)
        if wait > 0:
            raise ProblemError(
                HTTPStatus.TOO_MANY_REQUESTS,
                "caller-rate",
                f"you have sent more than {self._rates.requests_per_minute} requests in a minute, your own "
                "limit (gateway.callerLimits.requestsPerMinute); try again later",
                headers={"Retry-After": str(math.ceil(wait))},
            )
        return caller

    async def allowed(self, request: Request, verb: Verb) -> Identity:
        """The same for a request that is counted already."""
        return await self._authenticator.identify(request.headers.get("authorization"), verb)

    async def may_approve(self, request: Request) -> bool:
        """Whether the caller may decide on what waits for approval."""
        return await self._authenticator.may_approve(request.headers.get("authorization"))

    async def tenant(self, request: Request, caller: Identity, named: str | None = None) -> str:
        """The tenant of a submission: the caller's own, or another one that it may name."""
        own = tenant_of(caller.name)
        tenant = named_tenant(named, request.headers.get(HEADER_TENANT))
        if tenant is None or tenant == own:
            return own
        if not await self._authenticator.may_act(request.headers.get("authorization")):
            raise ProblemError(
                HTTPStatus.FORBIDDEN,
                "forbidden-tenant",
                f"you may not name the tenant {tenant}: yours is {own}. Leave it out, or have somebody allow "
                f"you the verb act on the resource agentfleets/tenants of the API group {DOMAIN}; a caller "
                "with a key needs its entry in gateway.auth.trusted",
            )
        return tenant
