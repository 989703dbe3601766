"""Requests to the fake API server, its replies, and faults in their place."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field

from flotilla_operator.cluster import client
from flotilla_operator.objects.resources import Resource
from tests.support.fake_changes import Manifest
from tests.support.fake_objects import BY_PATH, WITH_STATUS, status_document


@dataclass(frozen=True, slots=True, kw_only=True)
class Request(client.Request):
    """A client's request; the query holds texts, as in a URL."""

    @property
    def is_watch(self) -> bool:
        return self.query.get("watch") in ("1", "true")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """The server's answer."""

    status: int
    document: Manifest
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Fault:
    """Trouble of the next `times` requests that `matches` accepts."""

    matches: Callable[[Request], bool]
    answer: Callable[[], Reply | Awaitable[Reply]]
    times: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Resource and object that a path names."""

    resource: Resource
    namespace: str
    name: str
    subresource: str

    @property
    def called(self) -> str:
        """The resource, as the server's messages call it."""
        group = self.resource.group
        return f"{self.resource.plural}.{group}" if group else self.resource.plural

    @property
    def part(self) -> str:
        """`status` when a write changes only the status, `spec` when it changes all but that."""
        if self.resource not in WITH_STATUS:
            return "all"
        return "status" if self.subresource == "status" else "spec"


class RefusedError(Exception):
    """A request that is refused."""

    def __init__(self, status: int, reason: str, message: str = "", causes: Iterable[str] = ()) -> None:
        super().__init__(message or reason)
        self.reply = Reply(status=status, document=status_document(status, reason, message or reason, causes))


class Faults:
    """The requests that came, and what happens to the next ones."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.hung = asyncio.Event()

    def writes(self, *, leases: bool = False) -> list[Request]:
        return [r for r in self.requests if r.writes and (leases or "/leases" not in r.path)]

    def fail(
        self,
        matches: Callable[[Request], bool],
        status: int,
        *,
        times: int = 1,
        reason: str = "",
        retry_after: int | None = None,
        causes: Iterable[str] = (),
    ) -> None:
        headers = {"Retry-After": str(retry_after)} if retry_after is not None else {}
        document = status_document(status, reason, "a fault", causes)
        reply = Reply(status=status, document=document, headers=headers)
        self.faults.append(Fault(matches, lambda: reply, times))

    def hang(self, matches: Callable[[Request], bool], *, times: int = 1) -> None:
        async def answer() -> Reply:
            self.hung.set()
            await asyncio.sleep(3600)
            raise AssertionError("a request that hangs has a time limit")

        self.faults.append(Fault(matches, answer, times))

    async def fault_of(self, request: Request) -> Reply | None:
        """Note the request, and answer it by a fault if one is asked for."""
        self.requests.append(request)
        for fault in self.faults:
            if fault.times > 0 and fault.matches(request):
                fault.times -= 1
                answer = fault.answer()
                return answer if isinstance(answer, Reply) else await answer
        return None


def located(path: str) -> Target | None:
    """Resource and object that a path names; None for a discovery document or a resource not served."""
    parts = path.strip("/").split("/")
    group, version, rest = (
        ("", parts[1:2], parts[2:]) if parts[0] == "api" else (parts[1:2], parts[2:3], parts[3:])
    )
    namespace = ""
    if rest[:1] == ["namespaces"] and len(rest) > 2:
        namespace, rest = rest[1], rest[2:]
    resource = BY_PATH.get(("".join(group), "".join(version), rest[0])) if rest else None
    if resource is None:
        return None
    name, subresource = [*rest[1:], "", ""][:2]
    return Target(resource=resource, namespace=namespace, name=name, subresource=subresource)


def not_found(target: Target) -> RefusedError:
    return RefusedError(404, "NotFound", f'{target.called} "{target.name}" not found')
