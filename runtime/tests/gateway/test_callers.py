"""How often a caller may ask."""

from dataclasses import dataclass, field
from http import HTTPStatus

import pytest
from starlette.requests import Request

from flotilla_runtime.gateway.auth import NoAuthentication, Verb
from flotilla_runtime.gateway.callers import Callers
from flotilla_runtime.gateway.problems import ProblemError


@dataclass
class Rates:
    """Each caller may ask once, and again after 2.1 s."""

    requests_per_minute: int = 30
    asked: list[str] = field(default_factory=list)

    async def wait_seconds(self, caller: str) -> float:
        self.asked.append(caller)
        return 0.0 if self.asked.count(caller) == 1 else 2.1


@pytest.mark.holds(
    "tasks.md", "A caller that asks too often gets 429 and Retry-After, at all gateways together"
)
async def test_a_caller_that_asks_too_often_is_told_whose_limit_it_is_and_when_to_come_back() -> None:
    callers = Callers(NoAuthentication(), Rates())
    request = Request({"type": "http", "headers": []})
    assert (await callers.identify(request, Verb.GET)).name == "anonymous"
    with pytest.raises(ProblemError) as refused:
        await callers.identify(request, Verb.GET)
    assert refused.value.status is HTTPStatus.TOO_MANY_REQUESTS
    assert refused.value.kind == "caller-rate"
    assert refused.value.headers == {"Retry-After": "3"}
    assert "more than 30 requests in a minute, your own limit" in refused.value.detail
