"""HTTPS at the gateway: a real gateway process over a real Redis, and certificates made in the test."""

import asyncio
import socket
import ssl
from pathlib import Path
from typing import Any

import httpx2
import pytest

from flotilla_cli import main
from flotilla_runtime import contract
from flotilla_runtime.gateway.certificate import Certificate
from router_support.certificates import NAME, write_pair
from router_support.waiting import until_told


def place(url: str) -> tuple[str, int]:
    parts = httpx2.URL(url)
    assert parts.port is not None
    return parts.host, parts.port


def served(url: str) -> str:
    return ssl.get_server_certificate(place(url)).strip()


def shakes_hands(url: str, version: ssl.TLSVersion, name: str | None) -> bool:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = version
    try:
        with (
            socket.create_connection(place(url)) as plain,
            context.wrap_socket(plain, server_hostname=name),
        ):
            return True
    except (ssl.SSLError, ConnectionError):
        return False


async def certificate_problem(fleet: Any) -> str | None:
    answer = await fleet.get(f"{fleet.status_url}/v1/status")
    return contract.FleetStatus.model_validate(answer.json()).certificate_problem


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    made = tmp_path / "tls"
    made.mkdir()
    return made


@pytest.mark.holds(
    "tasks.md",
    "`gateway.tls` makes HTTPS the only way in, TLS 1.2 at least; a renewed certificate is taken "
    "up, and open streams go on",
)
@pytest.mark.holds(
    "decisions/0012-https.md",
    "A gateway loads a changed pair into a new context, and reports one that cannot be loaded",
)
@pytest.mark.services
@pytest.mark.xdist_group("gateway")
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1:DeprecationWarning")
async def test_a_renewed_certificate_is_taken_up_and_open_streams_go_on(
    own_fleet: Any, directory: Path
) -> None:
    before = write_pair(directory)
    gateway = await own_fleet.start_gateway(tls_directory=str(directory))
    context = ssl.create_default_context(cadata=before)
    async with httpx2.AsyncClient(verify=context, base_url=own_fleet.gateway_url, timeout=30) as client:
        named: Any = {"extensions": {"sni_hostname": NAME}}
        task = (await client.post("/v1/tasks", json={"input": "a"}, **named)).json()["id"]
        async with client.stream("GET", f"/v1/tasks/{task}/events", **named) as stream:
            lines = stream.aiter_lines()
            assert await anext(lines) == "id: 0"
            write_pair(directory, key_of_another=True)

            async def is_refused() -> bool:
                return await certificate_problem(own_fleet) is not None

            await until_told(is_refused)
            assert served(own_fleet.gateway_url) == before.strip()
            after = write_pair(directory)

            async def is_renewed() -> bool:
                return served(own_fleet.gateway_url) == after.strip()

            await until_told(is_renewed)
            async with own_fleet.client() as another:
                assert (await another.post(f"/v1/tasks/{task}/cancel")).status_code == 200
            assert "event: ended" in [line async for line in lines]
    assert await certificate_problem(own_fleet) is None
    for name in (None, NAME):
        versions = (ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)
        taken = [
            await asyncio.to_thread(shakes_hands, own_fleet.gateway_url, each, name) for each in versions
        ]
        assert taken == [False, True, True]
    assert (await own_fleet.get(f"{own_fleet.status_url}/metrics")).status_code == 200
    assert "PRIVATE KEY" not in gateway.log.read_text()


@pytest.mark.holds(
    "tasks.md",
    "A pair that cannot be used is told, the one before stays, and a new gateway waits for a good one",
)
@pytest.mark.services
@pytest.mark.xdist_group("gateway")
async def test_a_gateway_without_a_certificate_waits_for_one_and_says_so(
    own_fleet: Any, directory: Path
) -> None:
    await own_fleet.start_gateway(tls_directory=str(directory), becomes_ready=False)
    assert "cannot be used (FileNotFoundError)" in str(await certificate_problem(own_fleet))
    assert (await own_fleet.get(f"{own_fleet.status_url}/readyz")).status_code == 503
    assert not await asyncio.to_thread(shakes_hands, own_fleet.gateway_url, ssl.TLSVersion.TLSv1_3, NAME)
    write_pair(directory)

    async def is_ready() -> bool:
        return bool((await own_fleet.get(f"{own_fleet.status_url}/readyz")).status_code == 200)

    await until_told(is_ready)
    assert (await own_fleet.get(f"{own_fleet.gateway_url}/healthz")).status_code == 200


@pytest.mark.holds("tasks.md", "`flotilla ask --ca-file` trusts an authority of one's own")
@pytest.mark.services
@pytest.mark.xdist_group("gateway")
async def test_the_command_line_asks_over_https_and_trusts_the_authority_of_ca_file(
    own_fleet: Any, directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    authority = tmp_path / "ca.crt"
    authority.write_text(write_pair(directory, name="localhost"))
    await own_fleet.start_gateway(tls_directory=str(directory))
    await own_fleet.start_worker("w1")
    url = own_fleet.gateway_url.replace("127.0.0.1", "localhost")

    async def ask(*options: str) -> int:
        return await asyncio.to_thread(main.main, ["ask", "--url", url, *options, "How is space reclaimed?"])

    assert await ask() == 1
    assert "the certificate is not trusted: self-signed certificate" in capsys.readouterr().err
    assert await ask("--ca-file", str(tmp_path / "absent")) == 1
    assert "--ca-file" in capsys.readouterr().err
    assert await ask("--ca-file", str(authority)) == 0
    assert "VACUUM recovers disk space" in capsys.readouterr().out


@pytest.mark.holds(
    "tasks.md",
    "A pair that cannot be used is told, the one before stays, and a new gateway waits for a good one",
)
@pytest.mark.holds(
    "decisions/0012-https.md",
    "A gateway loads a changed pair into a new context, and reports one that cannot be loaded",
)
@pytest.mark.parametrize(
    ("chain", "key", "says"),
    [
        pytest.param("", None, "cannot be used (", id="an empty certificate"),
        pytest.param(None, "", "cannot be used (", id="an empty key"),
        pytest.param("no certificate", "no key", "cannot be used (", id="no PEM"),
        pytest.param(None, "of another", "KEY_VALUES_MISMATCH", id="the key of another"),
        pytest.param(None, "with a password", "ValueError", id="a key with a password"),
    ],
)
def test_a_pair_that_cannot_be_used_is_told_and_the_one_before_stays(
    directory: Path, chain: str | None, key: str | None, says: str
) -> None:
    certificate = Certificate(directory)
    write_pair(directory)
    certificate.refresh()
    assert (certificate.usable, certificate.problem) == (True, None)
    write_pair(directory, key_of_another=key == "of another", password=key == "with a password")
    if chain is not None:
        (directory / contract.TLS_FILE).write_text(chain)
    if key in ("", "no key"):
        (directory / contract.TLS_KEY_FILE).write_text(key)
    certificate.refresh()
    assert says in str(certificate.problem)
    assert "PRIVATE" not in str(certificate.problem)
    assert certificate.usable
    write_pair(directory)
    certificate.refresh()
    assert certificate.problem is None
