"""Removes an index's collections from a Milvus of somebody else's, when the index goes with its data.

It runs inside the operator (a namespace that terminates takes no new Job), over Milvus' HTTP interface, which
needs no further library. It ends at a deadline, whatever Milvus does or answers, and says what it left:
nothing that stands at that address may keep the index, or its namespace, from going.
"""

import asyncio
from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any

import aiohttp

from flotilla_operator.controllers.vector_index.seen import Cleanup, CleanupState

DEADLINE_SECONDS = 20.0
DONE = Cleanup(state=CleanupState.DONE)
NOT_FOUND = frozenset({100, 1600})  # no such collection, no such alias


class CleanupError(Exception):
    """Milvus said no."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Remains:
    """What is to be removed, and where."""

    uri: str
    database: str
    token: str | None
    alias: str
    prefix: str


async def remove(remains: Remains) -> Cleanup:
    """Drop the alias and every collection of the index; never raises, and ends at the deadline."""
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            await _remove(remains)
    except Exception as error:
        why = (
            str(error) if isinstance(error, CleanupError) else f"{type(error).__name__}: {error}".rstrip(": ")
        )
        return Cleanup(
            state=CleanupState.GIVEN_UP,
            message=f"the collections {remains.prefix}* are left in {remains.uri} "
            f"(database {remains.database}): {why}; drop them by hand",
        )
    return DONE


async def _remove(remains: Remains) -> None:
    headers = {"Authorization": f"Bearer {remains.token}"} if remains.token else {}
    async with aiohttp.ClientSession(headers=headers) as session:

        async def call(path: str, body: Mapping[str, str]) -> Any:
            url = f"{remains.uri.rstrip('/')}/v2/vectordb/{path}"
            async with session.post(url, json={"dbName": remains.database, **body}) as answer:
                answer.raise_for_status()
                content = await answer.json(content_type=None)
            if not isinstance(content, Mapping) or "code" not in content:
                raise CleanupError(f"{path}: this is not how Milvus answers")
            if content["code"] not in (0, 200, *NOT_FOUND):
                raise CleanupError(f"{path}: {content.get('message') or content['code']}")
            return content.get("data")

        await call("aliases/drop", {"aliasName": remains.alias})
        for name in await call("collections/list", {}) or ():
            if name.startswith(remains.prefix):
                await call("collections/drop", {"collectionName": name})


class Cleanups:
    """The removals that run, by the UID of the index; one that is lost in a restart starts again."""

    def __init__(self) -> None:
        self._tasks: dict[str, asyncio.Task[Cleanup]] = {}

    def state(self, uid: str, remains: Remains) -> Cleanup:
        """How far the removal is; the first question starts it."""
        task = self._tasks.get(uid)
        if task is None:
            task = self._tasks[uid] = asyncio.create_task(remove(remains))
        return task.result() if task.done() else Cleanup(state=CleanupState.RUNNING)

    def keep_only(self, uids: Set[str]) -> None:
        """Forget the removals of indexes that are gone."""
        for uid in self._tasks.keys() - uids:
            self.forget(uid)

    def forget(self, uid: str) -> None:
        """The index has no finalizer of ours any more."""
        self._tasks.pop(uid, None)
