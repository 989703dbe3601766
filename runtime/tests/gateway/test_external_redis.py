"""A fleet on a Redis outside the cluster: a real redis-server with TLS, in the URL that the pods are given.

The rest of the task API is in test_task_api.py, the rest of the store in test_store.py.
"""

import asyncio
import json
import traceback
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from flotilla_operator.workloads import agent_fleet as workloads
from flotilla_runtime.agent.errors import StoreUnavailableError
from flotilla_runtime.agent.store.connections import connect
from flotilla_runtime.agent.store.task_store import TaskStore
from flotilla_runtime.contract import ENV_REDIS_URL, QueueConfig, TaskKeys
from leaks.planted import planted
from local_cluster.certificates import Authority
from local_cluster.processes import free_port
from redis_servers import RedisServer
from router_support.waiting import until
from tests.builders.agent_fleet import OWNER, spec_of
from tests.builders.model_replica_set import IMAGES

pytestmark = [pytest.mark.services, pytest.mark.xdist_group("external_redis")]

SPEC = spec_of(queue={"redis": {"mode": "External", "urlSecretRef": {"name": "redis"}}})
ADVICE = "Add the certificate of its authority to the URL, as the parameter ssl_ca_data."


class ExternalRedis(RedisServer):
    """A Redis with a port for TLS beside its plain one; its certificate is for 127.0.0.1 alone."""

    def __init__(self, folder: Path) -> None:
        authority = Authority(folder / "authority")
        pair = authority.issue("redis", user="redis", addresses=["127.0.0.1"])
        self.authority = authority.pair.certificate
        self.tls_port = free_port()
        tls = ("--tls-port", str(self.tls_port), "--tls-auth-clients", "no")
        files = ("--tls-cert-file", str(pair.certificate), "--tls-key-file", str(pair.key))
        super().__init__(folder, *tls, *files)

    def tls_url(self, *, host: str = "127.0.0.1", password: str | None = None, trusted: bool = True) -> str:
        """The URL that a user writes into the secret of `urlSecretRef`."""
        secret = quote(password or self.password, safe="")
        query = f"?ssl_ca_data={quote(self.authority.read_text(), safe='')}" if trusted else ""
        return f"rediss://:{secret}@{host}:{self.tls_port}/0{query}"


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ExternalRedis]:
    """One server for the module."""
    server = ExternalRedis(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()


def told(manifests: list[dict[str, Any]], url: str) -> tuple[QueueConfig, dict[str, str]]:
    """The queue and the secrets' variables that a part's pods get, when the secret `redis` holds this URL."""
    by_kind = {manifest["kind"]: manifest for manifest in manifests}
    config = json.loads(by_kind["ConfigMap"]["data"]["config.json"])
    [container] = by_kind["Deployment"]["spec"]["template"]["spec"]["containers"]
    entries = {("redis", "url"): url}
    environment = {
        variable["name"]: entries[reference["name"], reference["key"]]
        for variable in container["env"]
        if (reference := variable["valueFrom"].get("secretKeyRef")) is not None
    }
    return QueueConfig.model_validate(config["queue"]), environment


def queue_of(fleet: Any, url: str) -> QueueConfig:
    """The queue of gateway and workers alike; their processes get the variables that their pods would get."""
    wiring = workloads.Wiring()
    queue, fleet.environment = told(workloads.gateway_manifests(OWNER, SPEC, wiring, IMAGES, "7f3a"), url)
    assert told(workloads.worker_manifests(OWNER, SPEC, wiring, IMAGES, 1), url) == (queue, fleet.environment)
    return queue


def store_at(url: str) -> TaskStore:
    queue = QueueConfig(fleet="default/support")
    return TaskStore(connect(queue, {ENV_REDIS_URL: url}), queue)


def assert_no_secret_in(logs: str, *passwords: str) -> None:
    assert "gateway_started" in logs
    assert "worker_started" in logs
    for password in passwords:
        assert password not in logs
        assert quote(password) not in logs


def all_in(log: Path, problems: tuple[str, ...]) -> bool:
    """Whether one line of the log names every problem."""
    return any(all(part in line for part in problems) for line in log.read_text().splitlines())


@pytest.mark.holds(
    "install.md", "A fleet uses its own Redis over TLS, with an authority named in the URL as `ssl_ca_data`"
)
@pytest.mark.holds("tasks.md", "A fleet works with a Redis outside of the cluster, over TLS")
async def test_a_task_is_submitted_run_and_answered_over_tls(fleet: Any, redis_server: ExternalRedis) -> None:
    queue = queue_of(fleet, redis_server.tls_url())
    assert queue.url is None, "the address is in the secret alone"
    gateway = await fleet.start_gateway(queue=queue)
    worker = await fleet.start_worker("w1", queue=queue)
    task = await fleet.ended(await fleet.submit())
    assert (task["status"], task["reason"]) == ("Succeeded", "Completed")
    assert task["result"]["answer"] == "VACUUM recovers disk space [1]."
    assert redis_server.ask("exists", TaskKeys(queue.fleet).task(task["id"])).strip() == "1"
    assert_no_secret_in(gateway.log.read_text() + worker.log.read_text(), redis_server.password)


@pytest.mark.holds(
    "install.md",
    "An untrusted authority and a wrong password of Redis are told in the logs, and no log shows a password",
)
@pytest.mark.parametrize(
    ("url", "problems"),
    [
        pytest.param(
            {"trusted": False},
            ("unable to get local issuer certificate", ADVICE),
            id="a certificate of an unknown authority",
        ),
        pytest.param(
            {"password": planted("wrong horse")},
            ("AuthenticationError",),
            id="a wrong password",
        ),
    ],
)
async def test_gateway_and_worker_say_in_their_logs_why_redis_cannot_be_used(
    fleet: Any, redis_server: ExternalRedis, url: dict[str, Any], problems: tuple[str, ...]
) -> None:
    queue = queue_of(fleet, redis_server.tls_url(**url))
    worker = await fleet.start_worker("w1", becomes_ready=False, queue=queue)
    gateway = await fleet.start_gateway(queue=queue)
    async with fleet.client() as client:
        refused, figures = await asyncio.gather(
            client.post("/v1/tasks", json={"input": "How is space reclaimed?"}),
            client.get(f"{fleet.status_url}/v1/status"),
        )
    assert (refused.status_code, refused.json()["type"].rsplit("/")[-1]) == (503, "unavailable")
    assert figures.status_code == 503, "the operator then says RedisUnreachable"
    for process in (gateway, worker):
        await until(partial(all_in, process.log, problems))
    logs = gateway.log.read_text() + worker.log.read_text()
    assert_no_secret_in(logs + refused.text, redis_server.password, planted("wrong horse"))


@pytest.mark.holds("install.md", "Gateways and workers trust the authorities of the runtime image")
async def test_the_authorities_of_the_image_are_trusted(
    redis_server: ExternalRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(redis_server.authority))
    store = store_at(redis_server.tls_url(trusted=False))
    await store.ping()
    await store.close()


@pytest.mark.holds("install.md", "The certificate of Redis must name its host")
async def test_a_certificate_for_another_name_is_told_without_advice_about_its_authority(
    redis_server: ExternalRedis,
) -> None:
    store = store_at(redis_server.tls_url(host="localhost"))
    with pytest.raises(StoreUnavailableError) as refused:
        await store.ping()
    assert "certificate is not valid for 'localhost'" in refused.value.problem
    assert ADVICE not in refused.value.problem
    await store.close()


@pytest.mark.holds(
    "install.md",
    "An untrusted authority and a wrong password of Redis are told in the logs, and no log shows a password",
)
def test_a_password_that_was_not_encoded_is_told_without_the_password() -> None:
    with pytest.raises(ValueError, match="percent-encode the special characters of the password") as refused:
        store_at("rediss://:hidden/word@redis.example:6380/0")
    printed = "".join(traceback.format_exception(refused.value.with_traceback(None)))
    assert "hidden" not in printed
    assert "word@" not in printed
