"""HTTPS at the router: the real HAProxy, certificates made in the test."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest
from structlog.testing import capture_logs

from flotilla_runtime import contract
from flotilla_runtime.router.admin_socket import AdminSocket
from flotilla_runtime.router.certificate import CertificateUnreadable, read_certificate
from flotilla_runtime.router.files import RunFiles
from router_support.certificates import NAME, write_pair
from router_support.haproxy_version import ON_BOTH
from router_support.routers import Fleet, Router, fleet
from router_support.waiting import until, until_told


@asynccontextmanager
async def secured(directory: Path) -> AsyncIterator[tuple[Fleet, Router]]:
    async with fleet() as made:
        await made.add("a", 1)
        config = {"engine_port": made.engine_port, "tls_directory": str(directory)}
        async with Router(made.api, "router-1", **config) as router:
            await until(lambda: router.ready_servers() == {"a"})
            yield made, router


def served(router: Router) -> str:
    return ssl.get_server_certificate(("127.0.0.1", router.config.port))


def trusting(pem: str) -> ssl.SSLContext:
    return ssl.create_default_context(cadata=pem)


@pytest.mark.holds(
    "router.md", "`router.tls` makes HTTPS the only way in, TLS 1.2 at least, and `status.url` says so"
)
@pytest.mark.services
@pytest.mark.usefixtures("haproxy")
async def test_https_for_callers_and_http_inside(tmp_path: Path) -> None:
    pem = write_pair(tmp_path)
    async with secured(tmp_path) as (_, router):
        chat = "v1/chat/completions"
        async with httpx2.AsyncClient(verify=trusting(pem)) as client:
            url, sni = f"https://127.0.0.1:{router.config.port}/{chat}", {"sni_hostname": NAME}
            assert (await client.post(url, json={}, extensions=sni)).status_code == 200
        async with httpx2.AsyncClient() as client:
            inside = f"http://127.0.0.1:{router.config.internal_port}/{chat}"
            assert (await client.post(inside, json={})).status_code == 200


@pytest.mark.holds(
    "router.md", "`router.tls` makes HTTPS the only way in, TLS 1.2 at least, and `status.url` says so"
)
@pytest.mark.services
@pytest.mark.usefixtures("haproxy")
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1:DeprecationWarning")
async def test_tls_older_than_1_2_is_refused(tmp_path: Path) -> None:
    write_pair(tmp_path)
    async with secured(tmp_path) as (_, router):
        accepted = {}
        for version in (ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            context.set_ciphers("ALL:@SECLEVEL=0")
            context.minimum_version = context.maximum_version = version
            accepted[version.name] = await asyncio.to_thread(shakes_hands, router.config.port, context)
        assert accepted == {"TLSv1_1": False, "TLSv1_2": True, "TLSv1_3": True}


def shakes_hands(port: int, context: ssl.SSLContext) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port)) as plain, context.wrap_socket(plain):
            return True
    except (ssl.SSLError, ConnectionError):
        return False


@pytest.mark.holds("router.md", "A renewed certificate is taken up, and open connections go on")
@pytest.mark.holds("decisions/0012-https.md", "The agent hands a renewed pair over without a reload")
@pytest.mark.services
@pytest.mark.usefixtures("haproxy")
@ON_BOTH
async def test_a_renewed_certificate_is_taken_up_and_open_streams_go_on(tmp_path: Path) -> None:
    before = write_pair(tmp_path)
    async with secured(tmp_path) as (made, router):
        made.engines["a"].gate.clear()
        admin = AdminSocket(RunFiles(router.config.run_directory))
        process = await admin.process()
        url = f"https://127.0.0.1:{router.config.port}/v1/chat/completions"
        request = {"json": {}, "headers": {"X-Test-Stream": "1"}, "extensions": {"sni_hostname": NAME}}
        async with (
            httpx2.AsyncClient(verify=trusting(before), timeout=30) as client,
            client.stream("POST", url, **request) as response,  # type: ignore[arg-type]
        ):
            lines = response.aiter_lines()
            assert await anext(lines) == "data: first"
            after = write_pair(tmp_path)

            async def is_renewed() -> bool:
                return (await asyncio.to_thread(served, router)).strip() == after.strip()

            await until_told(is_renewed)
            made.engines["a"].gate.set()
            assert [line async for line in lines if line] == ["data: [DONE]"]
        assert await admin.process() == process


@pytest.mark.holds("router.md", "A pair that does not belong together is refused and said")
@pytest.mark.services
@pytest.mark.usefixtures("haproxy")
async def test_a_pair_that_does_not_belong_together_changes_nothing(tmp_path: Path) -> None:
    before = write_pair(tmp_path)
    async with secured(tmp_path) as (_, router):
        with capture_logs() as logs:
            write_pair(tmp_path, key_of_another=True)
            await until(lambda: any(entry["event"] == "certificate_refused" for entry in logs))
            assert (await asyncio.to_thread(served, router)).strip() == before.strip()
            assert router.agent is not None
            assert router.agent.ready
            assert "PRIVATE KEY" not in str(logs) + router.log
        after = write_pair(tmp_path)

        async def is_renewed() -> bool:
            return (await asyncio.to_thread(served, router)).strip() == after.strip()

        await until_told(is_renewed)


@pytest.mark.holds("router.md", "A pair that does not belong together is refused and said")
@pytest.mark.parametrize("text", ["", "no certificate", "-----END CERTIFICATE-----"])
def test_what_is_no_certificate_is_said_without_its_words(tmp_path: Path, text: str) -> None:
    write_pair(tmp_path)
    (tmp_path / contract.TLS_FILE).write_text(text)
    with pytest.raises(CertificateUnreadable) as refused:
        read_certificate(tmp_path)
    told = f"the certificate in {tmp_path} cannot be read (ValueError); check the Secret of spec.router.tls"
    assert str(refused.value) == told
