"""Removes a deleted index's collections from an external Milvus, where its deletion policy is Delete.

It runs inside the operator, because no new Job can be created in a namespace that is being deleted. It uses
Milvus' HTTP interface, which needs no extra library. It always ends at a deadline and reports what it left
behind: whatever answers at that address must not block the deletion of the index or of its namespace. A user
chose the address, so no redirect is followed, an answer may have 1 MiB, and an address that tools may not
reach, such as where clouds keep the credentials of their machines, is never connected to. A proxy is asked
for no such address either, nor for a name of one, as far as the operator can resolve names.

Milvus knows collections only by their names, so those of the index are found by the prefix that it gives them
(`workloads.vector_index.identity`). A new index of the same name has the same prefix. Its promotion writes
its UID into the collection's descriptor, and what another index has promoted is left alone.
"""

import asyncio
import errno
import json
import socket
from collections.abc import Mapping, Set
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from urllib.parse import unquote, urlsplit

import aiohttp

from flotilla_operator.telemetry.answers import ONE_ANSWER, read_answer
from flotilla_runtime.contract.addresses import is_forbidden
from flotilla_runtime.contract.failure_texts import what_failed, without

DEADLINE_SECONDS = 20.0
DESCRIPTOR = "flotilla.descriptor"  # the property of a collection, written by the runtime's build steps


AddrInfo = tuple[int, int, int, str, tuple[Any, ...]]  # as socket.getaddrinfo gives it


class CleanupState(StrEnum):
    """The state of a removal that has started."""

    RUNNING = "Running"
    DONE = "Done"
    GIVEN_UP = "GivenUp"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleanup:
    """The state of a removal, and a message that says what was not removed and why."""

    state: CleanupState
    message: str = ""


DONE = Cleanup(state=CleanupState.DONE)
NOT_FOUND = frozenset({100, 1600})  # no such collection, no such alias


class UnreachableAddressError(OSError):
    """The operator does not connect to the address, whoever names it."""


class CleanupError(Exception):
    """Milvus refused a request, or did not answer as Milvus does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Remains:
    """Collections and aliases to remove, and the Milvus that has them."""

    uri: str
    database: str
    token: str | None
    alias: str
    prefix: str
    index_uid: str
    proxy: str | None = None


async def remove(remains: Remains, *, allow_loopback: bool = False) -> Cleanup:
    """Drop the alias and every collection of the index; never raises, and ends at the deadline.

    Only tests allow the operator's own machine, where their Milvus is.
    """
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            await _remove(remains, _Addresses(allow_loopback=allow_loopback))
    except Exception as error:
        why = without(what_failed(error), [remains.token])
        return Cleanup(
            state=CleanupState.GIVEN_UP,
            message=f"the collections {remains.prefix}* were not removed from {remains.uri} "
            f"(database {remains.database}): {why}; drop them by hand",
        )
    return DONE


async def _remove(remains: Remains, addresses: "_Addresses") -> None:
    headers = {} if remains.token is None else {"Authorization": f"Bearer {remains.token}"}
    connector = aiohttp.TCPConnector(socket_factory=addresses.socket if remains.proxy is None else None)
    through = await _way_to(remains, addresses)
    async with aiohttp.ClientSession(headers=headers, connector=connector, auto_decompress=False) as session:

        async def call(path: str, body: Mapping[str, str]) -> Any:
            url = f"{remains.uri.rstrip('/')}/v2/vectordb/{path}"
            asked = {"json": {"dbName": remains.database, **body}, **ONE_ANSWER, **through}
            async with session.post(url, **asked) as answer:
                content = json.loads(await read_answer(answer))
            if not isinstance(content, Mapping) or "code" not in content:
                raise CleanupError(f"{path}: the answer is not one of Milvus; check spec.milvus.uri")
            if content["code"] not in (0, 200, *NOT_FOUND):
                raise CleanupError(f"{path}: {content.get('message') or content['code']}")
            return content.get("data")

        named = [name for name in await call("collections/list", {}) or () if name.startswith(remains.prefix)]
        about = {name: await call("collections/describe", {"collectionName": name}) for name in named}
        of_others = {name for name in named if promoted_by(about[name]) not in ("", remains.index_uid)}
        alias = await call("aliases/describe", {"aliasName": remains.alias})
        if _collection(alias) not in of_others:
            await call("aliases/drop", {"aliasName": remains.alias})
        for name in named:
            if name not in of_others:
                await call("collections/drop", {"collectionName": name})


async def _way_to(remains: Remains, addresses: "_Addresses") -> Mapping[str, Any]:
    """How a request names the proxy: its password apart from its address, since errors quote addresses.

    Raises OSError if the proxy would be asked for a forbidden address.
    """
    if remains.proxy is None:
        return {}
    with suppress(socket.gaierror):  # perhaps the proxy knows the name
        for found in await asyncio.get_running_loop().getaddrinfo(urlsplit(remains.uri).hostname, None):
            addresses.check(str(found[4][0]))
    proxy = urlsplit(remains.proxy)
    login, _, place = proxy.netloc.rpartition("@")
    user, _, password = login.partition(":")
    basic = aiohttp.encode_basic_auth(unquote(user), unquote(password)) if login else ""
    to_the_proxy = "proxy_headers" if urlsplit(remains.uri).scheme == "https" else "headers"
    headers = {"Proxy-Authorization": basic} if basic else {}
    return {"proxy": f"{proxy.scheme}://{place}", to_the_proxy: headers}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Addresses:
    """Refuses connections to what tools may not reach either."""

    allow_loopback: bool

    def socket(self, found: AddrInfo) -> socket.socket:
        """A socket for an address that a name was resolved to; raises OSError for a forbidden one.

        It is asked after the name was resolved, so that no name can stand for such an address.
        """
        family, kind, protocol, _, address = found
        self.check(str(address[0]))
        return socket.socket(family, kind, protocol)

    def check(self, address: str) -> None:
        """Raise OSError for a forbidden address."""
        if is_forbidden(address, allow_loopback=self.allow_loopback):
            raise UnreachableAddressError(
                errno.EACCES,
                f"the operator does not connect to {address}: it is of its own machine, link-local, or where "
                "clouds keep credentials",
            )


def promoted_by(described: Any) -> str:
    """The UID of the index that promoted a collection, from Milvus' description of it; empty for none."""
    found = described if isinstance(described, Mapping) else {}
    held = found.get("properties") or ()
    texts = [one.get("value") for one in held if isinstance(one, Mapping) and one.get("key") == DESCRIPTOR]
    for text in (*texts, found.get("description")):
        with suppress(ValueError, TypeError):
            descriptor = json.loads(text or "")
            if isinstance(descriptor, Mapping):
                return str(descriptor.get("index_uid") or "")
    return ""


def _collection(alias: Any) -> str:
    return str(alias.get("collectionName") or "") if isinstance(alias, Mapping) else ""


class Cleanups:
    """The running removals, by the UID of the index. A removal that a restart interrupts starts again."""

    def __init__(self, *, allow_loopback: bool = False) -> None:
        self._allow_loopback = allow_loopback
        self._tasks: dict[str, asyncio.Task[Cleanup]] = {}
        self._looked_at: dict[str, datetime] = {}

    def first_look(self, uid: str, now: datetime) -> datetime:
        """When this process looked first at the index that is being deleted."""
        return self._looked_at.setdefault(uid, now)

    def start(self, uid: str, remains: Remains) -> None:
        """Start the removal, unless it has started."""
        if uid not in self._tasks:
            self._tasks[uid] = asyncio.create_task(remove(remains, allow_loopback=self._allow_loopback))

    def state(self, uid: str) -> Cleanup | None:
        """The state of the removal; None before it has started."""
        task = self._tasks.get(uid)
        if task is None:
            return None
        return task.result() if task.done() else Cleanup(state=CleanupState.RUNNING)

    def keep_only(self, uids: Set[str]) -> None:
        """Forget the removals of all other indexes, which no longer exist."""
        for uid in (self._tasks.keys() | self._looked_at.keys()) - uids:
            self.forget(uid)

    def forget(self, uid: str) -> None:
        """End the removal of an index that no longer has our finalizer, or is not being deleted."""
        self._looked_at.pop(uid, None)
        if (task := self._tasks.pop(uid, None)) is not None:
            task.cancel()
