"""The rendered redis.conf, password.conf and users.conf, read by a real redis-server."""

import base64
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoPermissionError
from redis.retry import Retry

from flotilla_operator.workloads import agent_fleet as workloads
from flotilla_operator.workloads.agent_fleet.redis_server import alive_command
from flotilla_runtime import contract
from flotilla_runtime.agent.errors import StoreUnavailableError
from flotilla_runtime.agent.journal import CallKind, CallOutcome, EndReason, Intended, TaskStatus
from flotilla_runtime.agent.protocols import Finish, Reply
from flotilla_runtime.agent.store.connections import connect
from flotilla_runtime.agent.store.script_values import SCRIPTS, script_source
from flotilla_runtime.agent.store.task_store import TaskStore
from flotilla_runtime.agent.store.texts import TextStore
from flotilla_runtime.agent.store.tool_requests import ToolRequests
from flotilla_runtime.agent.tasks import NewTask
from flotilla_runtime.agent.tool_requests import HeldRequests, ToolRequest
from leaks.planted import planted
from tests.builders.agent_fleet import OWNER, spec_of
from tests.builders.model_replica_set import IMAGES

pytestmark = pytest.mark.services


@pytest.mark.holds(
    "decisions/0003-redis-for-tasks.md",
    "The managed Redis syncs before it answers, evicts nothing and has a password of its own",
)
def test_a_real_redis_takes_the_configuration_and_keeps_what_it_answered(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    config = configuration(tmp_path, port)
    server = started(config)
    try:
        assert ask(port, PASSWORD, "config", "get", "appendfsync") == "appendfsync\nalways"
        assert ask(port, PASSWORD, "config", "get", "maxmemory-policy").endswith("noeviction")
        assert ask(port, PASSWORD, "set", "task", "kept") == "OK"
        refused = subprocess.run(
            ["redis-cli", "-e", "-p", str(port), "ping"], capture_output=True, check=False
        )
        assert refused.returncode != 0, "the probe fails when the answer is an error"
        server.kill()
        server.wait()
        server = started(config)
        assert ask(port, PASSWORD, "get", "task") == "kept"
    finally:
        server.kill()
        server.wait()


def started(config: Path) -> subprocess.Popen[bytes]:
    with (config.parent / "redis.log").open("ab") as log:
        return subprocess.Popen(["redis-server", str(config)], stdout=log)


def configuration(folder: Path, port: int) -> Path:
    """The files as the pod mounts them, with this test's paths and port."""
    users = workloads.users_secret(OWNER, {"gateway": PASSWORDS["gateway"], "worker": PASSWORDS["worker"]})
    made = (users, workloads.executor_secret(OWNER, PASSWORDS["executor"]))
    digests = {user: one for secret in made for user, one in workloads.digests_of_made(secret).items()}
    config, *_ = workloads.redis_manifests(
        OWNER, spec_of().queue.redis, IMAGES, digests=digests, has_executors=True
    )
    for name, content in workloads.password_secret(OWNER, PASSWORD)["data"].items():
        (folder / name).write_bytes(base64.b64decode(content))
    (folder / "data").mkdir()
    text = str(config["data"]["redis.conf"]).replace(contract.REDIS_SECRET_DIRECTORY, str(folder))
    text = text.replace("dir /data", f"dir {folder}/data")
    (folder / "redis.conf").write_text(text.replace(f"port {contract.PORT_REDIS}", f"port {port}"))
    return folder / "redis.conf"


def ask(port: int, password: str, *command: str) -> str:
    """Answer to the probe's own client, as soon as there is one."""
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


PASSWORD = planted("s3cret")
PASSWORDS = {user: planted(f"s3cret-{user}") for user in ("gateway", "worker", "executor")}
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
    server = started(config)
    ask(number, PASSWORD, "ping")
    yield number
    server.kill()
    server.wait()


def client(port: int, user: str, password: str) -> Any:
    once = Retry(NoBackoff(), 0)  # else a refused password is tried for seconds
    return redis.Redis(port=port, username=user, password=password, decode_responses=True, retry=once)


@pytest.mark.holds(
    "decisions/0003-redis-for-tasks.md",
    "The users of Redis may call what our programs call, and nothing else",
)
@pytest.mark.holds(
    "decisions/0003-redis-for-tasks.md", "These users administer nothing and touch no other key"
)
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
        "EVAL return 0",
        "FUNCTION LIST",
        "SORT flotilla:{default/support}:tools:x",
        "SELECT 1",
        "SWAPDB 0 1",
        "COPY flotilla:{default/support}:tools:x flotilla:{default/support}:tools:y",
        "RENAME flotilla:{default/support}:tools:x flotilla:{default/support}:tools:y",
        "OBJECT FREQ flotilla:{default/support}:tools:x",
        "LCS flotilla:{default/support}:tools:x flotilla:{default/support}:tools:y",
        "SETRANGE flotilla:{default/support}:tools:x 536870911 x",
    ],
)
def test_a_user_administers_nothing_and_touches_no_other_key(port: int, user: str, command: str) -> None:
    link, everything = (
        client(port, user, PASSWORDS[user]),
        client(port, "default", PASSWORD),
    )
    before, words = everything.dbsize(), command.split(" ")
    with pytest.raises(redis.ResponseError) as refused:
        link.execute_command(*words)
    assert any(said in str(refused.value) for said in REFUSALS), refused.value
    assert (everything.dbsize(), everything.config_get("maxmemory")) == (before, {"maxmemory": "429496729"})


@pytest.mark.holds(
    "tools.md",
    "Executors have a user of Redis of their own, which exists while there are any and reaches "
    "their queue alone",
)
@pytest.mark.holds(
    "security.md",
    "Executors have no key of a model, an index or a bucket, and reach the keys of their queue alone",
)
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
        "EVAL return 0",
        "SCRIPT LOAD return",
        "SCRIPT KILL",
        "FUNCTION LOAD #!lua",
        "FCALL f 0",
        "GET flotilla:{default/support}:tools:x",
    ],
)
def test_an_executor_reaches_the_keys_of_its_queue_alone(port: int, command: str) -> None:
    link = client(port, "executor", PASSWORDS["executor"])
    with pytest.raises(redis.ResponseError) as refused:
        link.execute_command(*command.split(" "))
    assert any(said in str(refused.value) for said in REFUSALS), refused.value


@pytest.mark.holds(
    "security.md",
    "Executors have no key of a model, an index or a bucket, and reach the keys of their queue alone",
)
async def test_the_executors_queue_works_with_these_users(port: int, tmp_path: Path) -> None:
    """Commands of workers, executors and gateways to the queue: a request, its claim, its reply, figures."""
    gateway, worker = (store_of(user, port, tmp_path).tool_requests for user in ("gateway", "worker"))
    executor = executors_queue(port, tmp_path)
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


@pytest.mark.holds(
    "decisions/0003-redis-for-tasks.md",
    "Pods of a release before users go on with the password that they have",
)
def test_each_user_has_its_own_password_and_the_one_of_before_still_opens(port: int) -> None:
    for user, password in (
        ("gateway", PASSWORDS["worker"]),
        ("worker", PASSWORDS["gateway"]),
        ("worker", PASSWORD),
    ):
        with pytest.raises(AuthenticationError):
            client(port, user, password).ping()
    assert client(port, "default", PASSWORD).ping(), (
        "pods of the release before go on until they are replaced"
    )


@pytest.mark.holds(
    "decisions/0003-redis-for-tasks.md",
    "Gateways and workers have a user of Redis each, and Redis has only the hashes of their passwords",
)
async def test_the_task_store_works_with_these_users(port: int, tmp_path: Path) -> None:
    """Commands of gateways and workers to the store: submission, claim, journal, end, figures, events."""
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
    heard = client(port, "gateway", PASSWORDS["gateway"]).pubsub()
    heard.ssubscribe(channel, texts.channel("01t"))
    assert await texts.watched(["01t", "02t"]) == {"01t"}
    assert client(port, "worker", PASSWORDS["worker"]).execute_command("SPUBLISH", channel, "x") >= 0
    assert client(port, "worker", PASSWORDS["worker"]).execute_command("WAIT", 0, 10) == 0
    await link.aclose()
    for store in (gateway, worker):
        await store.close()


LOOP = "redis.call('SET', KEYS[1], 'x') while true do end"


@pytest.mark.holds(
    "decisions/0003-redis-for-tasks.md", "An executor can neither load a script nor lead a loaded one astray"
)
@pytest.mark.attack(
    "A function of a tool executor loops in Redis, so that nobody is answered",
    "An executor writes a million requests that are none, so that gateways are busy with them",
)
async def test_an_executor_runs_no_script_but_those_that_others_have_loaded(
    port: int, tmp_path: Path
) -> None:
    """It finds none before a worker has asked, and then none that it can lead astray by keys of its own."""
    link, everything = (
        client(port, "executor", PASSWORDS["executor"]),
        client(port, "default", PASSWORD),
    )
    everything.script_flush()
    own = f"{PREFIX}tools:"
    executor = executors_queue(port, tmp_path)
    assert await executor.claim("e1#x", "v1", 1, "t0") == [], "nobody has loaded them"
    worker = store_of("worker", port, tmp_path)
    await worker.tool_requests.look("w1#x", "v1", ["none"])
    assert await executor.claim("e1#x", "v1", 1, "t0") == []
    for way in (("EVAL", LOOP), ("EVAL_RO", LOOP), ("SCRIPT", "LOAD", LOOP), ("FUNCTION", "LOAD", LOOP)):
        with pytest.raises(NoPermissionError):
            link.execute_command(*way, *(() if way[-2] == "LOAD" else (1, f"{own}x")))
    # A task of its own making whose parents make a ring, for the scripts that follow them.
    ring = {"id": "a", "parent": "a", "root": "a", "status": "Running", "token": 1}
    link.hset(f"{own}task:a", mapping=ring)
    for name in SCRIPTS:
        sha = everything.script_load(script_source(name))
        with pytest.raises(redis.ResponseError, match=r"permission|can't run"):
            link.evalsha(sha, 1, f"{own}held", own, "a", 1, "a", "a")
    link.rpush(f"{own}granted:t9", *range(200_000))
    link.zadd(f"{own}queues", dict.fromkeys(map(str, range(100_000)), 1e15))
    begun = time.monotonic()
    await executor.claim("e1#x", "v1", 10**9, "t9")
    assert (await store_of("gateway", port, tmp_path).tool_requests.figures()).revisions == {}
    assert time.monotonic() - begun < 5
    sha = executor._scripts["renew"].sha
    with pytest.raises(redis.ResponseError, match="too many arguments"):
        link.evalsha(sha, 1, f"{own}queues", own, 1000, *range(100_001))
    everything.delete(f"{own}granted:t9", f"{own}queues", f"{own}task:a")
    await executor.close()
    await worker.close()


def executors_queue(port: int, folder: Path) -> ToolRequests:
    config = queue_of("executor", port, folder)
    return ToolRequests(connect(config), config, may_load=False)


def alive(port: int, password: str, patience_seconds: float = 50) -> bool:
    """Result of the pod's probe."""
    command = alive_command(patience_seconds).replace("redis-cli", f"redis-cli -p {port}")
    found = subprocess.run(
        ["sh", "-c", command], env={**os.environ, "REDISCLI_AUTH": password}, capture_output=True, check=False
    )
    return found.returncode == 0


@pytest.mark.holds(
    "decisions/0003-redis-for-tasks.md",
    "A Redis that answers BUSY for a minute is ended, and comes back with all that it answered; "
    "one that loads is not",
)
@pytest.mark.attack("A worker that was taken over writes in Redis and loops, so that nobody is answered")
async def test_a_redis_that_answers_busy_is_found_dead_and_comes_back_with_all_that_it_answered(
    tmp_path: Path,
) -> None:
    """Nobody can end a script that has written, so the kubelet does: after six failures, within a minute."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        number: int = listener.getsockname()[1]
    config = configuration(tmp_path, number)
    server = started(config)
    try:
        ask(number, PASSWORD, "config", "set", "busy-reply-threshold", "100")
        assert alive(number, PASSWORD)
        gateway = store_of("gateway", number, tmp_path)
        await gateway.submit(NewTask(id="01t", input="why?", caller="ann", limits=contract.TaskLimits()))
        worker = client(number, "worker", PASSWORDS["worker"])
        sha = worker.script_load(LOOP)
        link = worker.connection_pool.get_connection()
        link.send_command("EVALSHA", sha, 1, f"{PREFIX}task:01t")
        until(lambda: not alive(number, PASSWORD))
        with pytest.raises(StoreUnavailableError, match="BUSY"):
            await gateway.records(["01t"])
        killed = client(number, "default", PASSWORD)
        with pytest.raises(redis.ResponseError, match=r"UNKILLABLE|BUSY"):
            killed.script_kill()
        assert not alive(number, PASSWORD)
        server.terminate()
        with pytest.raises(subprocess.TimeoutExpired):
            server.wait(1)
        server.kill()
        server.wait()
        server = started(config)
        ask(number, PASSWORD, "ping")
        assert alive(number, PASSWORD)
        await gateway.close()
        gateway = store_of("gateway", number, tmp_path)
        assert [one.status for one in await gateway.records(["01t"])] == [TaskStatus.WAITING]
        assert ask(number, PASSWORD, "type", f"{PREFIX}task:01t") == "hash", "the loop's write is undone"
        await gateway.close()
    finally:
        server.kill()
        server.wait()


@pytest.mark.holds(
    "decisions/0003-redis-for-tasks.md",
    "A Redis that answers BUSY for a minute is ended, and comes back with all that it answered; "
    "one that loads is not",
)
@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        pytest.param(b"+PONG\r\n", True, id="it answers"),
        pytest.param(b"-LOADING Redis is loading the dataset in memory\r\n", True, id="it loads its file"),
        pytest.param(b"-NOAUTH Authentication required.\r\n", True, id="another password"),
        pytest.param(b"-MISCONF Redis cannot save\r\n", True, id="its disk is full"),
        pytest.param(b"-BUSY Redis is busy running a script.\r\n", False, id="a script runs"),
        pytest.param(b"", False, id="no answer for too long"),
        pytest.param(None, False, id="nobody listens"),
    ],
)
def test_what_counts_as_dead(answer: bytes | None, expected: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        number = listener.getsockname()[1]
        if answer is not None:
            Thread(target=answer_everything, args=(listener, answer), daemon=True).start()
        else:
            listener.close()
        assert alive(number, PASSWORD, patience_seconds=10 if answer else 0.5) is expected


def answer_everything(listener: socket.socket, answer: bytes) -> None:
    with suppress(OSError):
        link, _ = listener.accept()
        while link.recv(1000):
            link.sendall(answer)


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.holds(
    "decisions/0003-redis-for-tasks.md",
    "The memory limit of Redis has room for tasks, their copy and the clients, and an upgrade "
    "restarts none for its rights",
)
@pytest.mark.attack(
    "An executor reads no answers of Redis, or sends a command without an end, so that its memory fills"
)
def test_a_client_that_does_not_read_is_cut_off_and_the_others_go_on(port: int) -> None:
    """Answers that nobody reads would fill the memory of the pod beyond what tasks may take."""
    everything = client(port, "default", PASSWORD)
    key = f"{PREFIX}tools:large"
    everything.rpush(key, "x" * 8_000_000)
    link = client(port, "executor", PASSWORDS["executor"]).connection_pool.get_connection()
    with suppress(redis.ConnectionError, OSError):
        for _ in range(80):
            link.send_command("LRANGE", key, 0, -1)
    until(lambda: int(everything.info("stats")["evicted_clients"]) > 0 or not unread(everything))
    assert client(port, "worker", PASSWORDS["worker"]).ping()
    everything.delete(key)


def unread(everything: Any) -> int:
    return sum(int(one["omem"]) for one in everything.client_list())


def store_of(user: str, port: int, folder: Path) -> TaskStore:
    """The runtime's own store, with the user that the operator gives it."""
    config = queue_of(user, port, folder)
    return TaskStore(connect(config), config)


def queue_of(user: str, port: int, folder: Path) -> contract.QueueConfig:
    (folder / f"{user}-only").write_text(PASSWORDS[user])
    return contract.QueueConfig(
        fleet=FLEET,
        url=f"redis://127.0.0.1:{port}/0",
        user=user,
        password_path=str(folder / f"{user}-only"),
    )
