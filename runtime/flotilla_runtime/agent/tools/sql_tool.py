"""A query of a PostgreSQL database: one statement with bound arguments.

It runs in a read-only transaction that is rolled back. Each call has a connection of its own, so no
setting of one call is left for the next, and a new password needs no restart. The database is told to
end a statement that takes too long, and to send no more than is kept.
"""

import asyncio
import json
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, cast

import psycopg
import structlog
from psycopg.types.json import Jsonb

from flotilla_runtime.agent.journal import CallOutcome
from flotilla_runtime.agent.models.json_text import read_json
from flotilla_runtime.agent.models.values import shown
from flotilla_runtime.agent.protocols import Call, Reply
from flotilla_runtime.agent.tools.addresses import AddressCheck, ForbiddenAddressError
from flotilla_runtime.agent.tools.results import KIB
from flotilla_runtime.agent.tools.sql_text import Statement
from flotilla_runtime.contract import DatabaseUrl, SecretForm, SqlQuery, ToolConfig, read_database_url
from flotilla_runtime.contract.failure_texts import what_failed
from flotilla_runtime.secret_files import secret_in

MOST_CONNECTIONS: Final = 16  # of one tool in one worker
MOST_ADDRESSES: Final = 4
CONNECT_SECONDS: Final = 10
SETTINGS: Final = """select set_config('statement_timeout', %s, true),
set_config('default_transaction_read_only', 'on', true)"""

log = structlog.get_logger(__name__)


class UnreachableError(Exception):
    """The database takes no connection. The message has nothing of its URL."""


class ArgumentError(ValueError):
    """An argument cannot be sent to the database."""


class RowsError(ValueError):
    """The rows that came cannot be told."""


class SqlTool:
    """Runs the statement of one tool."""

    def __init__(
        self, config: ToolConfig, asked: SqlQuery, statement: Statement, addresses: AddressCheck
    ) -> None:
        self._config = config
        self._asked = asked
        self._statement = statement
        self._addresses = addresses
        self._places = asyncio.Semaphore(MOST_CONNECTIONS)
        self._left_behind: set[asyncio.Task[Any]] = set()

    async def make(self, call: Call, _task: str) -> Reply:
        """Run the statement; failures are replies, and none of them has changed anything."""
        limit = self._config.timeout_seconds
        running = asyncio.create_task(self._run(call.request))
        self._left_behind.add(running)
        running.add_done_callback(self._left_behind.discard)
        try:
            await asyncio.wait({running}, timeout=limit)
            if not running.done():
                problem = f"no result within timeoutSeconds ({limit:g} s)"
                return Reply(outcome=CallOutcome.TIMED_OUT, problem=problem)
            return running.result()
        finally:
            running.cancel()  # it tells the database, and nobody waits for that

    async def _run(self, arguments: Mapping[str, Any]) -> Reply:
        try:
            async with self._places:
                return await self._asked_of(await self._connected(), arguments)
        except psycopg.errors.QueryCanceled:
            limit = self._config.timeout_seconds
            problem = f"no result within timeoutSeconds ({limit:g} s)"
            return Reply(outcome=CallOutcome.TIMED_OUT, problem=problem)
        except (UnreachableError, ForbiddenAddressError) as problem:
            return _failed(str(problem))
        except psycopg.Error as problem:
            return _failed(problem.diag.message_primary or what_failed(problem))
        except (ValueError, OverflowError) as problem:
            return _failed(what_failed(problem))

    async def _asked_of(
        self, connection: psycopg.AsyncConnection[Any], arguments: Mapping[str, Any]
    ) -> Reply:
        most = self._config.max_result_kib * KIB
        given = {name: _bound(name, arguments.get(name)) for name in self._statement.names}
        limits = {"flotilla_bytes": most, "flotilla_rows": self._asked.max_rows + 1}
        async with connection:
            await connection.set_read_only(True)
            # Rolled back, because a read-only transaction of PostgreSQL 15 may make large objects.
            async with connection.transaction(force_rollback=True), connection.cursor() as cursor:
                await cursor.execute(SETTINGS, [f"{max(1, round(self._config.timeout_seconds * 1000))}ms"])
                found = cursor.stream(self._statement.text.encode(), {**given, **limits})
                try:
                    return await self._kept(found, most)
                finally:
                    await cast("AsyncGenerator[Any, None]", found).aclose()

    async def _kept(self, found: AsyncIterator[Any], most_bytes: int) -> Reply:
        """The first rows, as many as may be kept."""
        rows: list[Any] = []
        async for (row,) in found:
            if row is None:
                return _failed(f"a row has more than maxResultKiB ({self._config.max_result_kib} KiB)")
            most_bytes -= len(row.encode()) + 1
            if most_bytes < 0 or len(rows) == self._asked.max_rows:
                return _rows(rows, has_more=True)
            rows.append(_value(row))
        return _rows(rows, has_more=False)

    async def _connected(self) -> psycopg.AsyncConnection[Any]:
        """A connection to an address that was checked. Raises UnreachableError."""
        try:
            text = await asyncio.to_thread(secret_in, Path(self._asked.url_path), SecretForm.TEXT, "it")
            url = read_database_url(text)
        except (OSError, ValueError) as problem:
            said = problem.strerror if isinstance(problem, OSError) else problem
            raise UnreachableError(f"the URL of the database cannot be used: {said}") from None
        addresses = await self._resolved(url)
        try:
            return await psycopg.AsyncConnection.connect(
                host=",".join([url.host] * len(addresses)),
                hostaddr=",".join(addresses),
                port=str(url.port),
                user=url.user,
                password=url.password,
                dbname=url.name,
                connect_timeout=CONNECT_SECONDS,
                application_name="flotilla",
                prepare_threshold=None,
                **dict(url.options),  # type: ignore[arg-type]
            )
        except psycopg.Error as problem:
            log.warning("database_unreachable", tool=self._config.name, sqlstate=problem.sqlstate)
            refused = f" ({problem.sqlstate})" if problem.sqlstate else ""
            raise UnreachableError(f"the database takes no connection{refused}") from None

    async def _resolved(self, url: DatabaseUrl) -> Sequence[str]:
        try:
            found = await asyncio.get_running_loop().getaddrinfo(url.host, url.port, type=socket.SOCK_STREAM)
        except OSError:
            raise UnreachableError("the host of the database has no address") from None
        addresses = list(dict.fromkeys(str(one[4][0]) for one in found))[:MOST_ADDRESSES]
        for address in addresses:
            if self._addresses.is_forbidden(address):
                raise ForbiddenAddressError(address)
        return addresses


def _bound(name: str, value: Any) -> Any:
    if any(isinstance(one, str) and "\0" in one for one in (value if isinstance(value, list) else [value])):
        raise ArgumentError(f"the argument {name} has a NUL character, which no text of PostgreSQL has")
    return Jsonb(value) if isinstance(value, dict) else value


def _value(row: str) -> Any:
    try:
        return read_json(row)
    except ValueError:
        columns = [name for name, _ in json.loads(row, object_pairs_hook=list)]
        twice = sorted({name for name in columns if columns.count(name) > 1})
        said = f"two columns have the name {twice[0]}; give one another, by `as`" if twice else "no JSON"
        raise RowsError(f"the rows cannot be told: {said}") from None


def _rows(rows: Sequence[Any], *, has_more: bool) -> Reply:
    return Reply(outcome=CallOutcome.SUCCEEDED, value={"rows": list(rows), "hasMore": has_more})


def _failed(problem: str) -> Reply:
    return Reply(outcome=CallOutcome.FAILED, problem=shown(problem))
