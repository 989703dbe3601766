"""Texts for the errors of libraries: raised by the libraries themselves, with a secret in each."""

import asyncio
import contextlib
import json
import ssl
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp
import grpc
import httpx2
import psycopg
import pytest
import redis.asyncio
import redis.exceptions
from pydantic import BaseModel

from flotilla_runtime.agent.errors import StoreUnavailableError
from flotilla_runtime.agent.store.redis_errors import redis_said
from flotilla_runtime.contract.failure_texts import trace_of, what_failed, without
from leaks.planted import planted
from router_support.certificates import write_pair

HUSH = planted("hush")
NOWHERE = "127.0.0.1:1"


async def header_of_httpx2() -> None:
    async with httpx2.AsyncClient() as client:
        server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            await client.get(f"http://127.0.0.1:{port}", headers={"Authorization": f"Bearer {HUSH}\n"})


async def url_of_httpx2() -> None:
    async with httpx2.AsyncClient() as client:
        await client.get(f"http://user:{HUSH}@host:port/")


async def letters_of_httpx2() -> None:
    async with httpx2.AsyncClient() as client:
        await client.get(f"http://{NOWHERE}", headers={"Authorization": f"{HUSH}é"})


async def url_of_aiohttp() -> None:
    async with aiohttp.ClientSession() as session, session.get(f"http://user:{HUSH}@:0/"):
        pass


async def refused_by_aiohttp() -> None:
    async with aiohttp.ClientSession() as session, session.get(f"http://user:{HUSH}@{NOWHERE}/?key={HUSH}"):
        pass


async def metadata_of_grpc() -> None:
    with grpc.insecure_channel(NOWHERE) as channel:
        channel.unary_unary("/x/y")(b"", metadata=[("Authorization", f"{HUSH}\n")], timeout=5)


async def url_of_psycopg() -> None:
    await psycopg.AsyncConnection.connect(f"postgresql://user:{HUSH}@{NOWHERE}/{HUSH}?nonsense={HUSH}")


async def url_of_redis() -> None:
    redis.asyncio.Redis.from_url(f"redis://:{HUSH}@host/0?socket_timeout={HUSH}")


async def command_of_redis() -> None:
    raise redis.exceptions.ResponseError(f"ERR unknown command 'AUTH', with args beginning with: '{HUSH}'")


async def value_of_pydantic() -> None:
    class Wanted(BaseModel):
        number: int

    Wanted.model_validate({"number": HUSH})


async def value_of_python() -> None:
    int(HUSH)


async def key_of_python() -> None:
    empty: dict[str, str] = {}
    empty[HUSH]


async def group_of_errors() -> None:
    raise ExceptionGroup(HUSH, [ValueError(HUSH), RuntimeError(HUSH)])


async def error_from_another() -> None:
    try:
        raise ValueError(HUSH)
    except ValueError as problem:
        raise RuntimeError(HUSH) from problem


LIBRARIES = [
    header_of_httpx2,
    url_of_httpx2,
    letters_of_httpx2,
    url_of_aiohttp,
    refused_by_aiohttp,
    metadata_of_grpc,
    url_of_psycopg,
    url_of_redis,
    command_of_redis,
    value_of_pydantic,
    value_of_python,
    key_of_python,
    group_of_errors,
    error_from_another,
]


@pytest.mark.attack("A key of another encoding is quoted by an error, or a traceback of it")
@pytest.mark.parametrize("ask", LIBRARIES, ids=lambda ask: ask.__name__)
async def test_an_error_of_a_library_is_told_without_what_it_quotes(
    ask: Callable[[], Awaitable[None]],
) -> None:
    with pytest.raises(Exception) as raised:  # noqa: PT011 - each library has its own
        await ask()
    told = what_failed(raised.value), redis_said(raised.value), trace_of(raised.value)
    assert all(told)
    for text in told:
        assert HUSH not in text.replace(f'"{HUSH}"', "")
    assert type(raised.value).__name__ in told[0]
    assert ask.__name__ in told[2], "the place stands in the traceback"


def test_what_is_known_of_a_failure_is_told() -> None:
    assert what_failed(ConnectionRefusedError(111, "x")) == "ConnectionRefusedError (Connection refused)"
    assert what_failed(StoreUnavailableError("it sleeps")).endswith("does not answer: it sleeps")
    assert redis_said(redis.exceptions.ResponseError("MISCONF x")) == "ResponseError: MISCONF"
    error = httpx2.ConnectError("x")
    error.__cause__ = OSError(113, "x")
    assert what_failed(error) == "ConnectError (No route to host)"


def test_an_untrusted_certificate_is_told_through_a_library_that_hides_its_causes(tmp_path: Path) -> None:
    write_pair(tmp_path, name="localhost")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "tls.pem", tmp_path / "tls.pem.key")

    async def asked() -> str:
        server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=context)
        async with server, httpx2.AsyncClient() as client:
            with pytest.raises(httpx2.ConnectError) as error:
                await client.get(f"https://localhost:{server.sockets[0].getsockname()[1]}/")
            return what_failed(error.value)

    assert asyncio.run(asked()) == "ConnectError (the certificate is not trusted: self-signed certificate)"


def test_what_a_server_sends_back_is_told_without_our_secret() -> None:
    assert without(f"no user {HUSH}", [HUSH, None, "", "no"]) == "no user …"


SCRIPT = """
import logging, sys, threading
sys.path.insert(0, {runtime!r})
from flotilla_runtime.logs import configure_logs
import structlog
import flotilla_runtime.indexing.tokenization, flotilla_runtime.indexing.store
configure_logs()
log = structlog.get_logger()
try:
    raise ValueError({hush!r})
except ValueError as problem:
    log.exception("broke")
    logging.getLogger("asyncio").error("a task: %r", problem, exc_info=True)
    logging.getLogger("uvicorn.error").error(problem)
    for name in ("httpx2", "httpcore2.http11", "urllib3.connectionpool", "huggingface_hub.file_download",
                 "aiohttp.client", "pymilvus.client", "redis", "mcp.client", "opentelemetry.exporter"):
        for level in (logging.DEBUG, logging.INFO, logging.WARNING):
            logging.getLogger(name).log(level, "GET https://host/?key=%s Bearer %s", {hush!r}, {hush!r})
def fails():
    raise RuntimeError({hush!r})
thread = threading.Thread(target=fails)
thread.start()
thread.join()
raise ConnectionRefusedError(111, {hush!r})
"""


@pytest.mark.attack("A library's own log quotes a header")
def test_a_process_prints_no_secret_whatever_its_libraries_say() -> None:
    text = SCRIPT.format(runtime=str(Path(__file__).parents[1]), hush=HUSH)
    done = subprocess.run(
        [sys.executable, "-c", text], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert HUSH not in done.stdout + done.stderr
    first = json.loads(done.stdout.splitlines()[0])
    assert (first["event"], first["level"]) == ("broke", "error")
    assert first["exception"].endswith("ValueError: ValueError")
    assert "Connection refused" in done.stderr
    assert "RuntimeError" in done.stderr
    with contextlib.suppress(ValueError):
        assert all(json.loads(line) for line in done.stdout.splitlines())
