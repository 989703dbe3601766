"""The executors' queue in Redis: requests for functions of the fleet's image, and their replies.

What workers and executors write goes through one script each. Executors have a user of their own, which may
use these keys alone, and may load no script: gateways and workers load all of them.
"""

import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import NoScriptError

from flotilla_runtime.agent.errors import StoreUnavailableError
from flotilla_runtime.agent.protocols import Certainty, Reply
from flotilla_runtime.agent.store.redis_errors import asked as answered
from flotilla_runtime.agent.store.replicas import Replicas
from flotilla_runtime.agent.tool_requests import (
    Granted,
    HeldRequests,
    RequestState,
    Seen,
    ToolRequest,
    WithdrawOutcome,
    encoded_reply,
    read_reply,
    read_request,
)
from flotilla_runtime.contract import QueueConfig, ToolRequestFigures, ToolRequestsOfRevision
from flotilla_runtime.contract.executors import ExecutorKeys

SCRIPTS: Final = ("ask", "look", "withdraw", "claim", "renew", "answer", "figures")
NEWS_AT_ONCE: Final = 100
RENEWED_AT_ONCE: Final = 1000  # the scripts take no more
STATES: Final = frozenset(map(str, RequestState))


def script_source(name: str) -> str:
    """A script of the executors' queue, with the prelude in front."""
    folder = files("flotilla_runtime.agent.store") / "scripts" / "executors"
    return "\n".join((folder / f"{part}.lua").read_text(encoding="utf-8") for part in ("prelude", name))


class ScriptsMissingError(StoreUnavailableError):
    """Redis has not got the scripts, and an executor may not load them."""


class ToolRequests:
    """The queue of one fleet, for workers, executors and gateways; an executor is none that `may_load`."""

    def __init__(self, client: Redis, config: QueueConfig, *, may_load: bool = True) -> None:
        self.keys: Final = ExecutorKeys(config.fleet)
        self._client = client
        self._lease_ms = round(config.lease_seconds * 1000)
        self._replicas = Replicas(client, self.keys.confirmations)
        self._scripts = {name: client.register_script(script_source(name)) for name in SCRIPTS}
        self._may_load = may_load
        self._has_loaded = False

    async def close(self) -> None:
        """Close every connection."""
        await self._client.aclose()

    # For workers

    async def ask(self, request: ToolRequest, revision: str, waiter: str, asked: str) -> Seen:
        """Put a request, or join the one that is there; `asked` names this asking, also when sent again."""
        body = request.encoded()
        return _seen(
            await self._run(
                "ask", request.id, revision, waiter, asked, request.effect, request.most_lost, body
            )
        )

    async def look(self, waiter: str, revision: str | None, ids: list[str]) -> Mapping[str, Seen]:
        """Return the state of these requests. Those that wait go to the executors of this revision.

        Without one they are taken back. A replica knows of that before this returns, where there is one: a
        failover must not grant what the worker calls by itself.
        """
        values = [self.keys.prefix, waiter, "0" if revision is None else "1", revision or "", *ids]

        async def write(one: Redis) -> Any:
            return await self._script("look", values, one)

        looked = write(self._client) if revision is not None else self._replicas.confirmed(write)
        return dict(zip(ids, map(_seen, await answered(looked)), strict=True))

    async def withdraw(self, request_id: str, waiter: str) -> WithdrawOutcome:
        """Take a request back, unless another worker waits for it."""
        return WithdrawOutcome(await self._run("withdraw", request_id, waiter))

    # For executors

    async def claim(self, executor: str, revision: str, wanted: int, token: str) -> list[Granted]:
        """Claim the oldest requests; sent again under the same token it grants the same.

        While nobody has loaded the scripts, as right after a start of Redis, there are none to claim.

        A replica has the claim before this returns, where there is one: a failover must not grant an Unsafe
        request a second time.
        """
        values: list[str | int] = [self.keys.prefix, executor, revision, wanted, token, self._lease_ms]

        async def write(one: Redis) -> Any:
            return await self._script("claim", values, one)

        try:
            parts = iter(await answered(self._replicas.confirmed(write)))
        except ScriptsMissingError:
            return []
        return [
            Granted(request=read_request(request_id, effect, body), token=token)
            for request_id, effect, body in zip(parts, parts, parts, strict=True)
        ]

    async def renew(self, executor: str, held: Mapping[str, str]) -> HeldRequests:
        """Renew the leases of these requests, which are given with their tokens."""
        all_lost, all_withdrawn = set[str](), set[str]()
        requests = list(held.items())
        for start in range(0, len(requests), RENEWED_AT_ONCE):
            pairs = [part for pair in requests[start : start + RENEWED_AT_ONCE] for part in pair]
            lost, withdrawn = await self._run("renew", self._lease_ms, *pairs)
            all_lost.update(lost)
            all_withdrawn.update(withdrawn)
        return HeldRequests(lost=frozenset(all_lost), withdrawn=frozenset(all_withdrawn))

    async def answer(self, request_id: str, token: str, reply: Reply) -> bool:
        """Write the reply, once; False if the lease was lost."""
        known = int(reply.certainty is Certainty.KNOWN)
        return bool(await self._run("answer", request_id, token, known, encoded_reply(reply)))

    async def give_back(self, request_id: str, token: str) -> bool:
        """Hand a request over to another executor."""
        return bool(await self._run("answer", request_id, token, 0, ""))

    async def wait_for_work(self, revision: str, seconds: float) -> None:
        """Return when a request came that woke no other executor, or after this time."""
        await answered(self._client.blpop([self.keys.calls(revision)], timeout=seconds))

    # For both, and for gateways

    async def news(self, process: str, seconds: float) -> list[str]:
        """The ids of which this process has something to hear; waits for one for this long."""
        key = self.keys.inbox(process)
        first = await answered(self._client.blpop([key], timeout=seconds))
        if first is None:
            return []
        more: Any = await answered(self._client.lpop(key, NEWS_AT_ONCE))
        return [str(first[1]), *map(str, more or ())]

    async def figures(self) -> ToolRequestFigures:
        """Count the requests and the executors that there are now."""
        told = json.loads(await self._run("figures"))
        return ToolRequestFigures(
            revisions={
                revision: ToolRequestsOfRevision(waiting=counts[0], running=counts[1])
                for revision, counts in dict(told["queues"]).items()
            },
            executors=dict(told["executors"]),
        )

    async def _run(self, script: str, *arguments: Any) -> Any:
        values = [self.keys.prefix, *map(str, arguments)]
        return await answered(self._script(script, values, self._client))

    async def _script(self, name: str, values: Sequence[Any], one: Redis) -> Any:
        """Run a script. Who may load it loads all, because executors need them and may not."""
        if self._may_load and not self._has_loaded:
            await self._load(one)
        run = (self._scripts[name].sha, 1, self.keys.queues, *values)
        try:
            return await one.evalsha(*run)
        except NoScriptError as missing:
            if not self._may_load:
                raise ScriptsMissingError("no gateway or worker has loaded its scripts yet") from missing
            await self._load(one)
            return await one.evalsha(*run)

    async def _load(self, one: Redis) -> None:
        for script in self._scripts.values():
            await one.script_load(script.script)
        self._has_loaded = True


def _seen(told: Any) -> Seen:
    """Read a request's state. Executors may write these keys, so an unknown state counts as no request."""
    state, reply, executor = told
    if state not in STATES:
        return Seen(state=RequestState.GONE)
    return Seen(state=RequestState(state), reply=read_reply(reply) if reply else None, executor=executor)
