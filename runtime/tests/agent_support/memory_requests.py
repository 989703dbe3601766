"""The executors' queue in memory: what its scripts are held to (test_tool_requests.py), and a double."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from flotilla_runtime.agent.errors import StoreUnavailableError
from flotilla_runtime.agent.protocols import Certainty, Reply
from flotilla_runtime.agent.tool_requests import (
    Granted,
    HeldRequests,
    RequestState,
    Seen,
    ToolRequest,
    WithdrawOutcome,
    encoded_reply,
    read_reply,
)
from flotilla_runtime.contract import Effect, ToolRequestFigures, ToolRequestsOfRevision

OPEN = (RequestState.WAITING, RequestState.RUNNING)


@dataclass(slots=True)
class Kept:
    """A request, and what became of it. `place` is its turn."""

    request: ToolRequest
    revision: str
    asked: str
    place: int
    state: RequestState = RequestState.WAITING
    waiter: str = ""
    executor: str = ""
    token: str | None = None
    reply: Reply | None = None
    lost: int = 0
    is_withdrawn: bool = False


@dataclass
class MemoryRequests:
    """The queue. A lease ends when `lose` says so; with `is_away` nothing is answered."""

    is_away: bool = False
    kept: dict[str, Kept] = field(default_factory=dict)
    granted: dict[str, list[str]] = field(default_factory=dict)
    heard: dict[str, asyncio.Queue[str]] = field(default_factory=dict)
    places: int = 0

    async def ask(self, request: ToolRequest, revision: str, waiter: str, asked: str) -> Seen:
        self._check()
        one = self.kept.get(request.id)
        if one is None or (one.asked != asked and self._is_open(one)):
            self.places += 1
            one = self.kept[request.id] = Kept(request, revision, asked, self.places)
        if one.state is RequestState.WAITING:
            one.revision = revision
        one.waiter = waiter
        return self._seen(request.id)

    async def look(self, waiter: str, revision: str | None, ids: list[str]) -> Mapping[str, Seen]:
        self._check()
        return {one: self._looked_at(waiter, revision, one) for one in ids}

    def _looked_at(self, waiter: str, revision: str | None, name: str) -> Seen:
        one = self.kept.get(name)
        if one is not None:
            one.waiter = waiter
            if one.state is RequestState.WAITING and revision is None:
                del self.kept[name]
                return Seen(state=RequestState.TAKEN_BACK)
            if one.state is RequestState.WAITING and revision is not None:
                one.revision = revision
        return self._seen(name)

    async def withdraw(self, request_id: str, waiter: str) -> WithdrawOutcome:
        self._check()
        one = self.kept.get(request_id)
        if one is None or one.waiter != waiter or one.state not in OPEN:
            return WithdrawOutcome.IGNORED
        if one.state is RequestState.WAITING:
            del self.kept[request_id]
            return WithdrawOutcome.WITHDRAWN
        one.is_withdrawn = True
        self._tell(one.executor, request_id)
        return WithdrawOutcome.STOPPING

    async def claim(self, executor: str, revision: str, wanted: int, token: str) -> list[Granted]:
        self._check()
        ids = self.granted.setdefault(token, [])
        if not ids:
            waiting = [
                (one.place, name)
                for name, one in self.kept.items()
                if one.state is RequestState.WAITING and one.revision == revision
            ]
            for _, name in sorted(waiting)[:wanted]:
                one = self.kept[name]
                one.state, one.executor, one.token = RequestState.RUNNING, executor, token
                ids.append(name)
        return [
            Granted(request=replace(self.kept[name].request, most_lost=5), token=token)
            for name in ids
            if self._holds(name, token)
        ]

    async def renew(self, executor: str, held: Mapping[str, str]) -> HeldRequests:
        self._check()
        lost = {name for name, token in held.items() if not self._holds(name, token)}
        return HeldRequests(
            lost=frozenset(lost),
            withdrawn=frozenset(name for name in held.keys() - lost if self.kept[name].is_withdrawn),
        )

    async def answer(self, request_id: str, token: str, reply: Reply) -> bool:
        self._check()
        one = self.kept.get(request_id)
        if one is None or one.token != token:
            return False
        if one.state is RequestState.RUNNING:
            one.state, one.reply = RequestState.ANSWERED, read_reply(encoded_reply(reply))
            self._tell(one.waiter, request_id)
        return True

    async def give_back(self, request_id: str, token: str) -> bool:
        self._check()
        one = self.kept.get(request_id)
        if one is None or one.token != token:
            return False
        if one.state is RequestState.RUNNING:
            one.state, one.token, one.executor = RequestState.WAITING, None, ""
        return True

    async def wait_for_work(self, revision: str, seconds: float) -> None:
        await asyncio.sleep(0.001)

    async def news(self, process: str, seconds: float) -> list[str]:
        self._check()
        heard = self.heard.setdefault(process, asyncio.Queue())
        try:
            async with asyncio.timeout(0.01):
                return [await heard.get()]
        except TimeoutError:
            return []

    async def figures(self) -> ToolRequestFigures:
        revisions: dict[str, ToolRequestsOfRevision] = {}
        executors: dict[str, int] = {}
        for one in self.kept.values():
            before = revisions.get(one.revision, ToolRequestsOfRevision())
            if one.state is RequestState.WAITING:
                revisions[one.revision] = before.model_copy(update={"waiting": before.waiting + 1})
            if one.state is RequestState.RUNNING:
                revisions[one.revision] = before.model_copy(update={"running": before.running + 1})
                name = one.executor.partition("#")[0]
                executors[name] = executors.get(name, 0) + 1
        return ToolRequestFigures(revisions=revisions, executors=executors)

    def lose(self, request_id: str) -> None:
        """The lease of a running request ends."""
        one = self.kept[request_id]
        assert one.state is RequestState.RUNNING
        one.lost += 1
        one.token = None
        if one.request.effect is Effect.UNSAFE or one.lost > one.request.most_lost:
            one.state = RequestState.LOST
            self._tell(one.waiter, request_id)
        else:
            one.state, one.executor = RequestState.WAITING, ""

    def _is_open(self, one: Kept) -> bool:
        unknown = one.reply is not None and one.reply.certainty is not Certainty.KNOWN
        return one.state is RequestState.LOST or (unknown and one.request.effect is Effect.UNSAFE)

    def _holds(self, name: str, token: str) -> bool:
        one = self.kept.get(name)
        return one is not None and one.state is RequestState.RUNNING and one.token == token

    def _seen(self, name: str) -> Seen:
        one = self.kept.get(name)
        if one is None:
            return Seen(state=RequestState.GONE)
        return Seen(state=one.state, reply=one.reply, executor=one.executor)

    def _tell(self, process: str, name: str) -> None:
        self.heard.setdefault(process, asyncio.Queue()).put_nowait(name)

    def _check(self) -> None:
        if self.is_away:
            raise StoreUnavailableError("away")
