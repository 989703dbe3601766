"""Queries of a real PostgreSQL, which is asked to write, to hang and to answer without end."""

import asyncio
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agents.peers.postgres import asked, postgres, programs
from flotilla_runtime.agent.journal import CallKind, CallOutcome
from flotilla_runtime.agent.protocols import Call, Certainty, Reply
from flotilla_runtime.agent.tools.addresses import AddressCheck
from flotilla_runtime.agent.tools.http_tool import HttpTools
from flotilla_runtime.agent.tools.runner import ToolRunner
from flotilla_runtime.agent.worker.loading import load_tools
from flotilla_runtime.contract import Effect, SqlQuery, ToolConfig
from leaks.planted import MARK, planted

pytestmark = pytest.mark.services
ANY: dict[str, Any] = {
    "type": "object",
    "properties": {name: {} for name in ("city", "day", "ids", "a", "b")},
}
TABLE = """create table cities (id int, name text, day date, about jsonb);
insert into cities values (1, 'Faro', '2026-05-01', '{"sea": true}'), (2, 'Lisboa', null, null);
create role reader login"""


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """The URL of a database with a table. PostgreSQL runs as another user, whom pytest's folders keep out."""
    binaries = programs()
    assert binaries is not None, "PostgreSQL is not installed; run `make prerequisites`"
    with tempfile.TemporaryDirectory() as folder, postgres(Path(folder), binaries) as url:
        for statement in TABLE.split(";\n"):
            asked(binaries, url, statement)
        yield f"{url}/postgres"


async def run(
    url: str, query: str, arguments: dict[str, Any] | None = None, *, addresses: AddressCheck | None = None,
    folder: Path, max_rows: int = 100, **fields: Any,
) -> Reply:  # fmt: skip
    """Run the query as a tool."""
    path = folder / "url"
    path.write_text(f"{url}\n")
    config = ToolConfig(
        **{
            "name": "t",
            "sql": SqlQuery(url_path=str(path), query=query, max_rows=max_rows),
            "parameters": ANY,
            "timeout_seconds": 5,
            **fields,
        }
    )
    http = HttpTools(addresses=addresses or AddressCheck(allow_loopback=True))
    runner = ToolRunner(load_tools([config], http), http)
    call = Call(
        id="c", kind=CallKind.TOOL, target="t", request=arguments or {}, key="k", effect=Effect.UNSAFE
    )
    reply = await runner.make(call)
    await runner.close()
    return reply


@pytest.mark.holds("tools.md", "A query is one read-only statement with bound arguments, and gives rows")
@pytest.mark.parametrize(
    ("query", "arguments", "rows"),
    [
        pytest.param(
            "select * from cities where name = :city",
            {"city": "Faro"},
            [{"id": 1, "name": "Faro", "day": "2026-05-01", "about": {"sea": True}}],
            id="a text",
        ),
        pytest.param(
            "select id from cities where day = :day; ", {"day": "2026-05-01"}, [{"id": 1}], id="a date"
        ),
        pytest.param(
            "select id from cities where id = any(:ids) order by id desc",
            {"ids": [1, 2]},
            [{"id": 2}, {"id": 1}],
            id="a list, and an order",
        ),
        pytest.param(
            "select id from cities where about @> :a -- sea", {"a": {"sea": True}}, [{"id": 1}], id="JSON"
        ),
        pytest.param(
            "select count(*) as n from cities where (:city::text is null or name = :city)",
            {},
            [{"n": 2}],
            id="an argument that is not given is null",
        ),
        pytest.param("values (1.5, true)", {}, [{"column1": 1.5, "column2": True}], id="values"),
    ],
)  # fmt: skip
async def test_a_query_gives_rows(
    database: str, tmp_path: Path, query: str, arguments: dict[str, Any], rows: list[Any]
) -> None:
    reply = await run(database, query, arguments, folder=tmp_path)
    assert (reply.outcome, reply.value) == (CallOutcome.SUCCEEDED, {"rows": rows, "hasMore": False}), (
        reply.problem
    )


@pytest.mark.holds("tools.md", "A query is one read-only statement with bound arguments, and gives rows")
@pytest.mark.attack("SQL that writes, or that is more than one statement")
@pytest.mark.parametrize(
    ("query", "arguments", "says"),
    [
        pytest.param("delete from cities", {}, "syntax error", id="a statement that writes"),
        pytest.param("delete from cities returning id", {}, "syntax error", id="and gives rows"),
        pytest.param(
            "with gone as (delete from cities returning id) select * from gone",
            {},
            "data-modifying statement must be at the top level",
            id="one that writes in between",
        ),
        pytest.param("select 1 into copied", {}, "INTO is not allowed", id="one that makes a table"),
        pytest.param("select * from cities for update", {}, "read-only transaction", id="one that locks"),
        pytest.param("select nextval('numbers')", {}, "", id="a sequence"),
        pytest.param(
            "select set_config('transaction_read_only', 'off', true)", {}, "before any query", id="a setting"
        ),
        pytest.param("select lo_create(0)", {}, None, id="a function that writes all the same"),
        pytest.param(
            "select id from cities where name = :city",
            {"city": "'; drop table cities; --"},
            None,
            id="an argument",
        ),
    ],
)  # fmt: skip
async def test_nothing_is_written(
    database: str, tmp_path: Path, query: str, arguments: dict[str, Any], says: str | None
) -> None:
    reply = await run(database, query, arguments, folder=tmp_path)
    assert (reply.outcome is CallOutcome.FAILED) is (says is not None), reply.value
    assert (says or "") in (reply.problem or ""), reply.problem
    assert reply.certainty is Certainty.KNOWN
    count = "select count(*) as n, (select count(*) from pg_largeobject_metadata) as large from cities"
    left = await run(database, count, folder=tmp_path)
    assert left.value["rows"] == [{"n": 2, "large": 0}]


@pytest.mark.holds("tools.md", "Rows over the limits are left out, and the agent is told")
@pytest.mark.parametrize(
    ("fields", "rows", "has_more"),
    [
        pytest.param({"max_rows": 3}, 3, True, id="too many rows"),
        pytest.param({"max_rows": 100_000, "max_result_kib": 1}, 113, True, id="too many bytes"),
        pytest.param({"max_rows": 1000}, 1000, False, id="just as many as may be"),
    ],
)
async def test_rows_are_cut_off_and_the_agent_is_told(
    database: str, tmp_path: Path, fields: dict[str, Any], rows: int, has_more: bool
) -> None:
    query = "select generate_series(1, 1000) as n"
    reply = await run(database, query, folder=tmp_path, **fields)
    assert (len(reply.value["rows"]), reply.value["hasMore"]) == (rows, has_more)


@pytest.mark.holds("tools.md", "Rows over the limits are left out, and the agent is told")
@pytest.mark.parametrize(
    ("query", "says"),
    [
        pytest.param("select repeat('x', 300000) as x", "a row has more than maxResultKiB", id="a large row"),
        pytest.param("select 1 as a, 2 as a", "two columns have the name a", id="a name twice"),
        pytest.param("select id from nowhere", 'relation "nowhere" does not exist', id="no table"),
        pytest.param("select :a::int", "invalid input syntax for type integer", id="a wrong argument"),
        pytest.param("select :b as b", "NUL", id="an argument that no text can be"),
    ],
)
async def test_what_goes_wrong_is_told(database: str, tmp_path: Path, query: str, says: str) -> None:
    reply = await run(database, query, {"a": "x", "b": "\0"}, folder=tmp_path)
    assert (reply.outcome, reply.certainty) == (CallOutcome.FAILED, Certainty.KNOWN)
    assert says in (reply.problem or ""), reply.problem


@pytest.mark.holds("tools.md", "A query that takes too long is ended in the database")
async def test_a_query_that_takes_too_long_is_ended_in_the_database(database: str, tmp_path: Path) -> None:
    started = time.monotonic()
    reply = await run(database, "select pg_sleep(60)", folder=tmp_path, timeout_seconds=0.3)
    assert reply.outcome is CallOutcome.TIMED_OUT
    assert time.monotonic() - started < 2
    query = """select count(*) as n from pg_stat_activity
        where query like '%pg_sleep(60)%' and pid <> pg_backend_pid()"""
    async with asyncio.timeout(5):
        while (await run(database, query, folder=tmp_path)).value["rows"] != [{"n": 0}]:  # noqa: ASYNC110
            await asyncio.sleep(0.1)


@pytest.mark.holds("tools.md", "A query that takes too long is ended in the database")
async def test_a_server_that_hangs_is_not_waited_for(tmp_path: Path) -> None:
    server = await asyncio.start_server(lambda reader, writer: asyncio.sleep(60), "127.0.0.1", 0)
    url = f"postgresql://me:{planted('me')}@127.0.0.1:{server.sockets[0].getsockname()[1]}/x"
    started = time.monotonic()
    reply = await run(url, "select 1", folder=tmp_path, timeout_seconds=0.3)
    server.close()
    assert (reply.outcome, reply.certainty) == (CallOutcome.TIMED_OUT, Certainty.KNOWN)
    assert time.monotonic() - started < 2


@pytest.mark.attack("The errors of a database show its URL or its password")
@pytest.mark.parametrize(
    ("url", "says"),
    [
        pytest.param(
            f"postgresql://me:{planted('me')}@127.0.0.1:9/x", "takes no connection", id="nobody there"
        ),
        pytest.param(
            f"postgresql://me:{planted('me')}@nowhere.invalid/x", "has no address", id="no such host"
        ),
        pytest.param(f"postgresql://me:{planted('me')}@a,b/x", "does not name one host", id="two hosts"),
    ],
)
async def test_a_database_that_is_not_there_is_told_without_its_url(
    tmp_path: Path, url: str, says: str
) -> None:
    reply = await run(url, "select 1", folder=tmp_path)
    assert reply.outcome is CallOutcome.FAILED
    assert says in (reply.problem or "")
    assert not any(part in (reply.problem or "") for part in (MARK, "me:", "nowhere.invalid"))


async def test_a_role_that_is_refused_is_told_without_its_name(database: str, tmp_path: Path) -> None:
    reply = await run(database.replace("bench@", f"nobody:{planted('nobody')}@"), "select 1", folder=tmp_path)
    assert "takes no connection" in (reply.problem or "")
    assert "nobody" not in (reply.problem or "")


@pytest.mark.attack("A name in a tool's URL stands for such an address")
async def test_a_database_at_a_forbidden_address_is_not_reached(database: str, tmp_path: Path) -> None:
    reply = await run(database, "select 1", folder=tmp_path, addresses=AddressCheck())
    assert "may not connect to the address 127.0.0.1" in (reply.problem or "")
