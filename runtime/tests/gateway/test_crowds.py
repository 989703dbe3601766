"""More connections at a real gateway process than it holds."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest

from flotilla_runtime.places import Bound
from router_support.certificates import write_pair
from router_support.waiting import until_told

SOURCES = ("127.0.0.1", "127.0.0.2", "127.0.0.3")
MEMORY_MIB = 512  # the limit of a gateway's container


def memory_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


@contextlib.asynccontextmanager
async def connections(port: int, number: int) -> AsyncIterator[list[asyncio.StreamReader]]:
    """So many connections from several addresses that send nothing."""
    opened = []
    for count, source in zip(range(number), itertools.cycle(SOURCES), strict=False):
        opened.append(await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0)))
        if count % 200 == 0:
            await asyncio.sleep(0)
    try:
        yield [reader for reader, _ in opened]
    finally:
        for _, writer in opened:
            writer.transport.abort()


@pytest.mark.holds(
    "tasks.md", "A gateway holds 2,048 connections, 1,024 of one address; those that wait are closed first"
)
@pytest.mark.services
@pytest.mark.xdist_group("gateway")
@pytest.mark.attack("A caller opens more connections than a gateway or a retriever holds")
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_more_connections_than_it_holds_keep_neither_callers_nor_probes_out(
    own_fleet: Any, tmp_path: Path, scheme: str
) -> None:
    fields: dict[str, Any] = {}
    if scheme == "https":
        write_pair(tmp_path, name="localhost")
        fields["tls_directory"] = str(tmp_path)
    process = await own_fleet.start_gateway(**fields)
    port = urlsplit(own_fleet.gateway_url).port
    async with (
        httpx2.AsyncClient(verify=False, trust_env=False, timeout=30) as client,
        connections(port, Bound().connections + 200) as readers,
    ):

        async def closed() -> bool:
            return sum(reader.at_eof() for reader in readers) >= 200

        await until_told(closed)
        for url in (f"{own_fleet.gateway_url}/healthz", f"{own_fleet.gateway_url}/v1/tasks"):
            assert (await client.get(url)).status_code == 200
        for page in ("/readyz", "/metrics", "/v1/status"):
            assert (await client.get(f"{own_fleet.status_url}{page}")).status_code == 200
        assert memory_mib(process.popen.pid) < MEMORY_MIB * 3 / 4
    await own_fleet.submit()
