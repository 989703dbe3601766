"""The object store of large texts: its signature, a real server of S3's API, and what it must not reach."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from aiohttp import web

from agent_support.stores import END, done, intent, loaded, open_store, running, task, with_lines
from flotilla_runtime.agent.errors import BrokenEntryError, PayloadsUnavailableError
from flotilla_runtime.agent.store.s3 import S3Objects
from flotilla_runtime.agent.store.s3_signature import Credentials, Request, signed_headers
from flotilla_runtime.agent.tools.addresses import AddressCheck
from flotilla_runtime.contract import PayloadsConfig
from local_cluster.processes import free_port
from redis_servers import RedisServer
from s3_servers import KEY, SECRET, S3Server

FLEET = "default/support"
HERE = AddressCheck(allow_loopback=True)  # where the server of these tests is
LARGE = "y" * 100 * 1024

services = pytest.mark.services


@pytest.mark.parametrize(
    ("query", "signature"),
    [
        pytest.param(
            {"max-keys": "2", "prefix": "J"},
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
            id="a list",
        ),
        pytest.param(
            {"lifecycle": ""},
            "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
            id="a name without a value",
        ),
    ],
)
def test_the_signature_is_that_of_awss_own_examples(query: dict[str, str], signature: str) -> None:
    credentials = Credentials(
        access_key_id="AKIAIOSFODNN7EXAMPLE",
        secret_access_key="wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    )
    request = Request(method="GET", host="examplebucket.s3.amazonaws.com", path="/", query=query)
    at = datetime(2013, 5, 24, tzinfo=UTC)
    headers = signed_headers(request, credentials, region="us-east-1", now=at)
    assert headers["authorization"].endswith(f"Signature={signature}")
    assert credentials.secret_access_key not in repr(credentials)


def test_without_credentials_nothing_is_signed() -> None:
    request = Request(method="GET", host="s3.example", path="/")
    headers = signed_headers(request, None, region="us-east-1", now=datetime(2013, 5, 24, tzinfo=UTC))
    assert "authorization" not in headers


@pytest.fixture
async def objects(s3_server: S3Server) -> AsyncIterator[S3Objects]:
    opened = S3Objects(s3_server.config(), FLEET, addresses=HERE)
    yield opened
    await opened.close()


def digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


@services
async def test_objects_are_kept_read_listed_and_deleted(s3_server: S3Server, objects: S3Objects) -> None:
    bodies = {f"t1/{number}": b"x" * 100 * number for number in range(1, 4)} | {"t10/1": b"of another task"}
    for name, body in bodies.items():
        for _ in range(2):
            await objects.put(name, body, digest(body))
    assert s3_server.objects() == {f"a/prefix=1/{FLEET}/{name}" for name in bodies}
    assert [await objects.get(name, 1000) for name in bodies] == list(bodies.values())
    assert await objects.get("t1/3", 10) == b"x" * 11, "no more is read than may be"
    assert await objects.get("t1/9", 10) is None
    assert await objects.names("t1/") == ["t1/1", "t1/2", "t1/3"]
    for _ in range(2):
        await objects.delete("t1/1")
    assert await objects.names("t1/") == ["t1/2", "t1/3"]


@pytest.mark.holds(
    "tasks.md",
    "Texts of more than 64 KiB are kept once for each task, in Redis or in a bucket, and go with it",
)
@pytest.mark.holds(
    "tasks.md", "A crash between the text and what stands for it leaves nothing when the task is forgotten"
)
@pytest.mark.attack("Who may write to the bucket changes a large text")
@services
async def test_a_tasks_large_texts_are_in_the_bucket_until_it_is_forgotten(
    s3_server: S3Server, objects: S3Objects, redis_server: RedisServer
) -> None:
    store = await with_lines(open_store(redis_server, objects, result_ttl_seconds=0, journal_ttl_seconds=0))
    claim = await running(store, replace(task("t1"), input=LARGE))
    await store.append(claim, 2, [intent(), done(value=LARGE), intent("b"), done("b", value=LARGE[1:])])
    await objects.put("t1/of-a-write-whose-worker-was-lost", b"x", digest(b"x"))
    assert (await loaded(store, "t1")).record.input == LARGE
    entry = (await loaded(store, "t1")).entries[5]
    assert (await store.whole("t1", entry)) == done("b", value=LARGE[1:])
    (name,) = [name for name in s3_server.objects() if name.endswith(entry.payload.hash)]  # type: ignore[union-attr]
    s3_server.overwrite(name, "another text")
    with pytest.raises(BrokenEntryError, match="was changed"):
        await store.whole("t1", entry)
    assert len(s3_server.objects()) == 4, "the input, two results, and what was lost"
    await store.finish(claim, END)
    await asyncio.sleep(0.01)
    assert await store.forget_ended() == 1
    await store.drop_payloads()
    assert s3_server.objects() == set()
    await store.close()


@pytest.mark.holds(
    "tasks.md", "New credentials of the bucket need no restart, and go only where `flotilla.dev/send-to` says"
)
@services
async def test_wrong_credentials_are_told_and_right_ones_need_no_restart(
    s3_server: S3Server, objects: S3Objects
) -> None:
    s3_server.give_credentials(KEY, "wrong")
    with pytest.raises(PayloadsUnavailableError, match="answered 403 SignatureDoesNotMatch") as refused:
        await objects.put("t1/1", b"x", digest(b"x"))
    assert "wrong" not in str(refused.value)
    s3_server.give_credentials(KEY, SECRET)
    await objects.put("t1/1", b"x", digest(b"x"))
    other = S3Objects(s3_server.config(bucket="missing"), FLEET, addresses=HERE)
    with pytest.raises(PayloadsUnavailableError, match="answered 404 NoSuchBucket"):
        await other.get("t1/1", 10)
    await other.close()


@pytest.mark.attack(
    "The endpoint of `queue.payloads` redirects, or leads to where a cloud keeps its credentials"
)
@pytest.mark.parametrize(
    ("endpoint", "said"),
    [
        pytest.param(
            "http://169.254.169.254", "may not connect to this address of it: 169.254.169.254", id="metadata"
        ),
        pytest.param("http://[fd00:ec2::254]:80", "may not connect", id="metadata over IPv6"),
        pytest.param(f"http://127.0.0.1:{free_port()}", "ClientConnectorError", id="nobody there"),
    ],
)
async def test_what_is_no_object_store_is_told(endpoint: str, said: str) -> None:
    objects = S3Objects(PayloadsConfig(endpoint=endpoint, bucket="b"), FLEET, addresses=HERE)
    with pytest.raises(PayloadsUnavailableError, match=said):
        await objects.get("t1/1", 10)
    await objects.close()


@pytest.mark.attack(
    "The endpoint of `queue.payloads` redirects, or leads to where a cloud keeps its credentials"
)
async def test_no_redirect_is_followed() -> None:
    asked: list[tuple[str, str | None]] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append((request.path, request.headers.get("Accept-Encoding")))
        raise web.HTTPTemporaryRedirect("http://169.254.169.254/latest/meta-data")

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    objects = S3Objects(
        PayloadsConfig(endpoint=f"http://127.0.0.1:{port}/s3/", bucket="b"), FLEET, addresses=HERE
    )
    with pytest.raises(PayloadsUnavailableError, match="answered 307"):
        await objects.get("t1/1", 10)
    assert asked == [(f"/s3/b/{FLEET}/t1/1", "identity")]
    await objects.close()
    await runner.cleanup()


async def test_credentials_that_cannot_be_read_are_told() -> None:
    config = PayloadsConfig(endpoint="http://127.0.0.1:1", bucket="b", credentials_directory="/missing")
    objects = S3Objects(config, FLEET)
    with pytest.raises(PayloadsUnavailableError, match="FileNotFoundError"):
        await objects.get("t1/1", 10)
    await objects.close()
