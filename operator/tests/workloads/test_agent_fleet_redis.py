"""The rendered redis.conf, password.conf and users.conf, read by a real redis-server."""

import base64
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError
from redis.retry import Retry

from flotilla_operator.workloads import agent_fleet as workloads
from flotilla_runtime import contract
from flotilla_runtime.agent.journal import CallKind, CallOutcome, EndReason, Intended, TaskStatus
from flotilla_runtime.agent.protocols import Finish, Reply
from flotilla_runtime.agent.store.connections import connect
from flotilla_runtime.agent.store.task_store import TaskStore
from flotilla_runtime.agent.store.texts import TextStore
from flotilla_runtime.agent.tasks import NewTask
from flotilla_runtime.agent.tool_requests import HeldRequests, ToolRequest
from tests.builders.agent_fleet import OWNER, spec_of
from tests.builders.model_replica_set import IMAGES

pytestmark = pytest.mark.services


def test_a_real_redis_takes_the_configuration_and_keeps_what_it_answered(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    config = configuration(tmp_path, port)
    server = subprocess.Popen(["redis-server", str(config)], stdout=subprocess.DEVNULL)
    try:
        assert ask(port, "s3cret", "config", "get", "appendfsync") == "appendfsync\nalways"
        assert ask(port, "s3cret", "config", "get", "maxmemory-policy").endswith("noeviction")
        assert ask(port, "s3cret", "set", "task", "kept") == "OK"
        refused = subprocess.run(
            ["redis-cli", "-e", "-p", str(port), "ping"], capture_output=True, check=False
        )
        assert refused.returncode != 0, "the probe fails when the answer is an error"
        server.kill()
        server.wait()
        server = subprocess.Popen(["redis-server", str(config)], stdout=subprocess.DEVNULL)
        assert ask(port, "s3cret", "get", "task") == "kept"
    finally:
        server.kill()
        server.wait()


def configuration(folder: Path, port: int) -> Path:
    """The files as the pod mounts them, with this test's paths and port."""
    config, *_ = workloads.redis_manifests(OWNER, spec_of().queue.redis, IMAGES, has_executors=True)
    secret = workloads.password_secret(OWNER, "s3cret")
    users = workloads.users_secret(OWNER, {"gateway": "s3cret-g", "worker": "s3cret-w"})
    for made in (secret, users):
        for name, content in made["data"].items():
            (folder / name).write_bytes(base64.b64decode(content))
    (folder / "executor").mkdir()
    executor = workloads.executor_secret(OWNER, "s3cret-e")["data"]["users.conf"]
    (folder / "executor" / "users.conf").write_bytes(base64.b64decode(executor))
    (folder / "data").mkdir()
    text = str(config["data"]["redis.conf"])
    text = text.replace(f"{contract.REDIS_SECRET_DIRECTORY}-executor", str(folder / "executor"))
    for directory in (f"{contract.REDIS_SECRET_DIRECTORY}-users", contract.REDIS_SECRET_DIRECTORY):
        text = text.replace(directory, str(folder))
    text = text.replace("dir /data", f"dir {folder}/data")
    (folder / "redis.conf").write_text(text.replace(f"port {contract.PORT_REDIS}", f"port {port}"))
    return folder / "redis.conf"


def ask(port: int, password: str, *command: str) -> str:
    """What the probe's own client says, as soon as it says anything."""
    end = time.monotonic() + 10
    while True:
        told = subprocess.run(
            ["redis-cli", "-e", "-p", str(port), *command],
            env={**os.environ, "REDISCLI_AUTH": password},
            capture_output=True,
            text=True,
            check=False,
        )
        if told.returncode == 0:
            return told.stdout.strip()
        assert time.monotonic() < end, told.stderr
        time.sleep(0.05)


INTENT = Intended(at=1, call="answer/1", kind=CallKind.MODEL, target="llama", reserved_tokens=10)
END = Finish(
    status=TaskStatus.SUCCEEDED, reason=EndReason.COMPLETED, result={"answer": "so"}, busy_ms={}, calls={}
)
REFUSALS = (
    "has no permissions",
    "can't access at least one",
    "can't run this command",
    "not allowed from script",
    "command not allowed",
)
FLEET = "default/support"
PREFIX = f"flotilla:{{{FLEET}}}:"


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        number: int = listener.getsockname()[1]
    config = configuration(tmp_path_factory.mktemp("redis"), number)
    server = subprocess.Popen(["redis-server", str(config)], stdout=subprocess.DEVNULL)
    ask(number, "s3cret", "ping")
    yield number
    server.kill()
    server.wait()


def client(port: int, user: str, password: str) -> Any:
    once = Retry(NoBackoff(), 0)  # else a refused password is tried for seconds
    return redis.Redis(port=port, username=user, password=password, decode_responses=True, retry=once)


@pytest.mark.attack("A gateway or worker that was taken over administers its Redis")
@pytest.mark.parametrize("user", ["gateway", "worker", "executor"])
@pytest.mark.parametrize(
    "command",
    [
        "CONFIG SET maxmemory 1",
        "CONFIG GET *",
        "ACL LIST",
        "ACL SETUSER me on nopass +@all",
        "FLUSHALL",
        "SHUTDOWN NOSAVE",
        "REPLICAOF evil.example 6379",
        "MODULE LOAD /tmp/x.so",
        "DEBUG SLEEP 1",
        "MONITOR",
        "KEYS *",
        "CLIENT KILL ID 1",
        "CLIENT LIST",
        "CLIENT TRACKING ON BCAST",
        "CLUSTER GETKEYSINSLOT 0 9",
        "PUBSUB CHANNELS",
        "PUBSUB SHARDCHANNELS",
        "RANDOMKEY",
        "SCAN 0",
        "SLOWLOG GET",
        "LATENCY LATEST",
        "SCRIPT FLUSH",
        "FUNCTION FLUSH",
        "SAVE",
        "SET other-fleets-key x",
        "GET flotilla:{default/other}:task:1",
        "PUBLISH flotilla:{default/other}:events x",
        "EVAL redis.call('SET','elsewhere','x') 0",
        "EVAL redis.call('CONFIG','GET','*') 0",
        "EVAL redis.call('SCAN','0') 0",
    ],
)
def test_a_user_administers_nothing_and_touches_no_other_key(port: int, user: str, command: str) -> None:
    link, everything = client(port, user, f"s3cret-{user[0]}"), client(port, "default", "s3cret")
    before, words = everything.dbsize(), command.split(" ")
    with pytest.raises(redis.ResponseError) as refused:
        link.execute_command(*words)
    assert any(said in str(refused.value) for said in REFUSALS), refused.value
    assert (everything.dbsize(), everything.config_get("maxmemory")) == (before, {"maxmemory": "429496729"})


@pytest.mark.attack("A function of a tool executor reads models' keys, or tasks of others")
@pytest.mark.parametrize(
    "command",
    [
        "HGETALL flotilla:{default/support}:task:01t",
        "LRANGE flotilla:{default/support}:journal:01t 0 -1",
        "HSET flotilla:{default/support}:task:01t status Succeeded",
        "DEL flotilla:{default/support}:held",
        "XRANGE flotilla:{default/support}:text:01t - +",
        "SSUBSCRIBE flotilla:{default/support}:events:01t",
        "PUBLISH flotilla:{default/support}:tools:x y",
        "PSUBSCRIBE __keyspace@0__:*",
        "PUBSUB SHARDNUMSUB flotilla:{default/support}:events:01t",
        "OBJECT ENCODING flotilla:{default/support}:held",
        "EXISTS flotilla:{default/support}:held",
        "SORT flotilla:{default/support}:tools:x BY nosort GET flotilla:{default/support}:task:*",
        "SORT_RO flotilla:{default/support}:tools:x BY nosort GET flotilla:{default/support}:task:*",
        "CLIENT TRACKING ON BCAST",
        "CLIENT TRACKING ON BCAST PREFIX flotilla:",
        "SCAN 0",
        "RANDOMKEY",
        "DBSIZE",
        "INFO keyspace",
        "MEMORY STATS",
        "EVAL redis.call('HGETALL','flotilla:{default/support}:task:01t') 0",
    ],
)
def test_an_executor_reaches_the_keys_of_its_queue_alone(port: int, command: str) -> None:
    link = client(port, "executor", "s3cret-e")
    with pytest.raises(redis.ResponseError) as refused:
        link.execute_command(*command.split(" "))
    assert any(said in str(refused.value) for said in REFUSALS), refused.value


async def test_the_executors_queue_works_with_these_users(port: int, tmp_path: Path) -> None:
    """What workers, executors and gateways ask of the queue: a request, its claim, its reply, figures."""
    gateway, worker, executor = (
        store_of(user, port, tmp_path).tool_requests for user in ("gateway", "worker", "executor")
    )
    request = ToolRequest(id="k", name="t", call="c", key="k", arguments={}, effect=contract.Effect.UNSAFE)
    await worker.ask(request, "v1", "w1#x", "a1")
    await executor.wait_for_work("v1", 1)
    (granted,) = await executor.claim("e1#x", "v1", 1, "t1")
    assert await executor.renew("e1#x", {"k": granted.token}) == HeldRequests()
    assert (await gateway.figures()).executors == {"e1": 1}
    assert await worker.withdraw("k", "w1#x") == "Stopping"
    assert await executor.news("e1#x", 1) == ["k"]
    assert await executor.answer("k", granted.token, Reply(outcome=CallOutcome.SUCCEEDED, value=1))
    assert await worker.news("w1#x", 1) == ["k"]
    assert (await worker.look("w1#x", "v1", ["k"]))["k"].reply == Reply(
        outcome=CallOutcome.SUCCEEDED, value=1
    )
    for queue in (gateway, worker, executor):
        await queue.close()


def test_each_user_has_its_own_password_and_the_one_of_before_still_opens(port: int) -> None:
    for user, password in (("gateway", "s3cret-w"), ("worker", "s3cret-g"), ("worker", "s3cret")):
        with pytest.raises(AuthenticationError):
            client(port, user, password).ping()
    assert client(port, "default", "s3cret").ping(), (
        "pods of the release before go on until they are replaced"
    )


async def test_the_task_store_works_with_these_users(port: int, tmp_path: Path) -> None:
    """What gateways and workers ask of the store: submission, claim, journal, end, figures, events."""
    gateway, worker = (store_of(user, port, tmp_path) for user in ("gateway", "worker"))
    link = connect(queue_of("worker", port, tmp_path))
    texts = TextStore(link, FLEET)
    new = NewTask(id="01t", input="why?", caller="ann", limits=contract.TaskLimits())
    assert (await gateway.submit(new)).id == "01t"
    await worker.wait_for_work(1)
    (claim,) = await worker.claim("w1", 1)
    loaded = await worker.load("01t")
    assert loaded is not None
    await worker.renew([claim])
    await worker.append(claim, len(loaded.entries), [INTENT])
    assert (await gateway.progress("01t", 0, 100))[0] is TaskStatus.RUNNING
    await worker.finish(claim, END)
    assert [one.status for one in await gateway.records(["01t"])] == [TaskStatus.SUCCEEDED]
    assert await gateway.ids("ann", None, 10) == ["01t"]
    assert (await gateway.submit(replace(new, id="02t"))).id == "02t"
    assert await gateway.cancel("02t")
    assert await gateway.figures()
    assert await worker.forget_ended() == 0
    channel = f"{PREFIX}events:01t"
    heard = client(port, "gateway", "s3cret-g").pubsub()
    heard.ssubscribe(channel, texts.channel("01t"))
    assert await texts.watched(["01t", "02t"]) == {"01t"}
    assert client(port, "worker", "s3cret-w").execute_command("SPUBLISH", channel, "x") >= 0
    assert client(port, "worker", "s3cret-w").execute_command("WAIT", 0, 10) == 0
    await link.aclose()
    for store in (gateway, worker):
        await store.close()


def store_of(user: str, port: int, folder: Path) -> TaskStore:
    """The runtime's own store, with the user that the operator gives it."""
    config = queue_of(user, port, folder)
    return TaskStore(connect(config), config)


def queue_of(user: str, port: int, folder: Path) -> contract.QueueConfig:
    (folder / f"{user}-only").write_text(f"s3cret-{user[0]}")
    return contract.QueueConfig(
        fleet=FLEET,
        url=f"redis://127.0.0.1:{port}/0",
        user=user,
        password_path=str(folder / f"{user}-only"),
    )
