"""The store on every topology of Redis, and what a replica confirms; real servers.

TLS is in the gateway's test_external_redis.py, the scripts themselves in test_store.py.
"""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from flotilla_runtime.agent.errors import StoreUnavailableError, UnconfirmedError
from flotilla_runtime.agent.store.connections import connect, hosts_of
from flotilla_runtime.agent.store.redis_errors import asked
from flotilla_runtime.agent.store.replicas import Replicas
from flotilla_runtime.agent.store.task_store import TaskStore
from flotilla_runtime.agent.tasks import NewTask, SubmitOutcome
from flotilla_runtime.contract import ENV_REDIS_URL, QueueConfig, RedisTopology, TaskKeys, TaskLimits
from local_cluster.processes import free_port
from redis_servers import PASSWORD, RedisServer
from redis_topologies import (
    CLUSTERED,
    MASTER,
    ClusterRedis,
    SentinelRedis,
    TlsRedis,
    paused,
    server,
    valkey_server,
    wait_until,
)

FLEET = "default/support"
KEYS = TaskKeys(FLEET)


def store_at(url: str, topology: RedisTopology, **settings: Any) -> TaskStore:
    config = QueueConfig(fleet=FLEET, topology=topology, lease_seconds=30, **settings)
    return TaskStore(connect(config, {ENV_REDIS_URL: url}), config)


def task(task_id: str) -> NewTask:
    return NewTask(id=task_id, input="why?", caller="ann", limits=TaskLimits(), idempotency_key=task_id)


async def submitted(store: TaskStore, task_id: str) -> SubmitOutcome:
    """The outcome, sent again while Redis fails over."""
    async with asyncio.timeout(20):
        while True:
            try:
                return (await store.submit(task(task_id))).outcome
            except StoreUnavailableError:
                await asyncio.sleep(0.1)


async def uses_everything(store: TaskStore) -> None:
    """Scripts, a transaction, a pipeline, and a blocking command."""
    assert (await store.submit(task("t1"))).outcome is SubmitOutcome.CREATED
    await store.wait_for_work(5)
    [claim] = await store.claim("w1", 10)
    loaded = await store.load("t1")
    assert loaded is not None
    assert loaded.record.attempts == 1
    assert [record.id for record in await store.records(["t1", "t2"])] == ["t1"]
    assert await store.queue_lengths() == (0, 1)
    assert await store.oldest_waiting_ms() is None
    await store.release(claim, "w1")


@pytest.mark.parametrize(
    ("url", "hosts", "first"),
    [
        pytest.param("redis://a/0", [("a", None)], "redis://a/0", id="one host"),
        pytest.param(
            "rediss://u:p%40@a:1,b:2/0?x=1", [("a", 1), ("b", 2)], "rediss://u:p%40@a:1/0?x=1", id="two hosts"
        ),
        pytest.param("redis://[::1]:7,[::2]", [("::1", 7), ("::2", None)], "redis://[::1]:7", id="IPv6"),
    ],
)
def test_the_hosts_of_a_url(url: str, hosts: list[tuple[str, int | None]], first: str) -> None:
    assert hosts_of(url) == (hosts, first)


@pytest.mark.parametrize(
    ("url", "topology", "says"),
    [
        pytest.param(
            "redis://:hidden@a,b", RedisTopology.SINGLE, "several hosts", id="two hosts of a single one"
        ),
        pytest.param(
            "redis://:hidden@a,b/3", RedisTopology.CLUSTER, "database 0 alone", id="a Cluster's database"
        ),
        pytest.param("redis://u:hidden/x@a,b", RedisTopology.SENTINEL, "percent-encode", id="a bad password"),
    ],
)
def test_a_url_that_cannot_be_used_is_told_without_its_password(
    url: str, topology: RedisTopology, says: str
) -> None:
    with pytest.raises(ValueError, match=says) as refused:
        store_at(url, topology)
    assert "hidden" not in str(refused.value)


@pytest.mark.services
@pytest.mark.xdist_group("redis_topologies")
class TestServers:
    """One after another, since each takes several processes."""

    @pytest.fixture
    def stack(self) -> Iterator[ExitStack]:
        """Stops what a test started, also if it fails."""
        with ExitStack() as stops:
            yield stops

    @pytest.fixture
    def sentinel(self, tmp_path: Path) -> Iterator[SentinelRedis]:
        started = SentinelRedis(tmp_path)
        yield started
        started.stop()

    @pytest.fixture
    def cluster(self, tmp_path: Path) -> Iterator[ClusterRedis]:
        started = ClusterRedis(tmp_path)
        yield started
        started.stop()

    @pytest.mark.holds(
        "tasks.md",
        "Under Sentinel and in a Cluster the primary is found; a failover loses nothing that a "
        "replica confirmed",
    )
    async def test_a_failover_under_sentinel_keeps_what_was_confirmed(self, sentinel: SentinelRedis) -> None:
        store = store_at(
            sentinel.url,
            RedisTopology.SENTINEL,
            sentinel_master=MASTER,
            sentinel_password_path=sentinel.sentinel_password_path,
        )
        await uses_everything(store)
        with paused(sentinel.replica), pytest.raises(UnconfirmedError, match="no replica confirmed"):
            await store.submit(task("t2"))
        assert await submitted(store, "t2") is SubmitOutcome.EXISTS, "its key finds the task"
        sentinel.primary.stop()
        assert await submitted(store, "t3") is SubmitOutcome.CREATED
        assert "role:master" in sentinel.replica.ask("info", "replication")
        assert {record.id for record in await store.records(["t1", "t2", "t3"])} == {"t1", "t2", "t3"}
        await store.close()

    @pytest.mark.holds(
        "tasks.md",
        "Under Sentinel and in a Cluster the primary is found; a failover loses nothing that a "
        "replica confirmed",
    )
    async def test_a_submission_sent_again_is_confirmed_anew(self, tmp_path: Path, stack: ExitStack) -> None:
        primary = server(tmp_path / "primary")
        replica = server(tmp_path / "replica", "--replicaof", f"127.0.0.1 {primary.port}")
        stack.callback(primary.stop)
        stack.callback(replica.stop)
        wait_until(lambda: "state=online" in primary.ask("info", "replication"), "no replica")
        store = store_at(f"redis://:{quote(PASSWORD)}@127.0.0.1:{primary.port}", RedisTopology.SINGLE)
        with paused(replica):
            for _ in range(2):
                with pytest.raises(UnconfirmedError):
                    await store.submit(task("t1"))
            assert await submitted_later(store, replica) is SubmitOutcome.EXISTS
        assert replica.ask("exists", KEYS.task("t1")).strip() == "1"
        await store.close()

    @pytest.mark.holds(
        "tasks.md",
        "Under Sentinel and in a Cluster the primary is found; a failover loses nothing that a "
        "replica confirmed",
    )
    async def test_a_replica_that_has_just_come_must_confirm(self, tmp_path: Path, stack: ExitStack) -> None:
        primary = server(tmp_path / "primary")
        stack.callback(primary.stop)
        store = store_at(f"redis://:{quote(PASSWORD)}@127.0.0.1:{primary.port}", RedisTopology.SINGLE)
        assert await submitted(store, "t1") is SubmitOutcome.CREATED, "there is none"
        replica = server(tmp_path / "replica", "--replicaof", f"127.0.0.1 {primary.port}")
        stack.callback(replica.stop)
        wait_until(lambda: "state=online" in primary.ask("info", "replication"), "no replica")
        with paused(replica), pytest.raises(UnconfirmedError):
            await store.submit(task("t2"))
        await store.close()

    @pytest.mark.holds(
        "tasks.md",
        "Under Sentinel and in a Cluster the primary is found; a failover loses nothing that a "
        "replica confirmed",
    )
    @pytest.mark.parametrize("least", ["0", "1"], ids=["needs none", "min-replicas-to-write"])
    async def test_a_replica_that_goes_after_a_write_must_have_confirmed_it_where_one_is_required(
        self, tmp_path: Path, stack: ExitStack, least: str
    ) -> None:
        primary = server(tmp_path / "primary", "--min-replicas-to-write", least)
        replica = server(tmp_path / "replica", "--replicaof", f"127.0.0.1 {primary.port}")
        stack.callback(primary.stop)
        stack.callback(replica.stop)
        wait_until(lambda: "state=online" in primary.ask("info", "replication"), "no replica")
        url = f"redis://:{quote(PASSWORD)}@127.0.0.1:{primary.port}"
        client = connect(QueueConfig(fleet=FLEET), {ENV_REDIS_URL: url})

        async def write(one: Any) -> str:
            replica.pause()
            await one.set("a", "b")
            replica.stop()
            wait_until(lambda: "connected_slaves:0" in primary.ask("info", "replication"), "it is known")
            return "written"

        confirmed = asked(Replicas(client, "count").confirmed(write))
        if least == "0":
            assert await confirmed == "written", "it may have gone for ever"
        else:
            with pytest.raises(StoreUnavailableError):
                await confirmed
        await client.aclose()

    @pytest.mark.holds(
        "tasks.md",
        "Under Sentinel and in a Cluster the primary is found; a failover loses nothing that a "
        "replica confirmed",
    )
    async def test_valkey_serves_and_a_replica_confirms_what_is_in_its_file(
        self, tmp_path: Path, stack: ExitStack
    ) -> None:
        program = valkey_server()
        primary = server(tmp_path / "primary", program=program)
        replica = server(tmp_path / "replica", "--replicaof", f"127.0.0.1 {primary.port}", program=program)
        stack.callback(primary.stop)
        stack.callback(replica.stop)
        wait_until(lambda: "state=online" in primary.ask("info", "replication"), "no replica")
        store = store_at(f"redis://:{quote(PASSWORD)}@127.0.0.1:{primary.port}", RedisTopology.SINGLE)
        assert (await store.facts()).confirms_files
        await uses_everything(store)
        asked = primary.ask("info", "commandstats")
        assert "cmdstat_waitaof" in asked, "once, since the replica writes its file anew after a copy"
        with paused(replica), pytest.raises(UnconfirmedError):
            await store.submit(task("t2"))
        await store.close()

    @pytest.mark.holds(
        "tasks.md",
        "Under Sentinel and in a Cluster the primary is found; a failover loses nothing that a "
        "replica confirmed",
    )
    async def test_a_fleet_uses_the_node_of_a_cluster_that_has_its_slot(self, cluster: ClusterRedis) -> None:
        store = store_at(cluster.url, RedisTopology.CLUSTER)
        await uses_everything(store)
        owner = cluster.owner_of(KEYS.leases)
        assert owner.ask("exists", KEYS.task("t1")).strip() == "1"
        await store.close()

    @pytest.mark.holds(
        "tasks.md",
        "Under Sentinel and in a Cluster the primary is found; a failover loses nothing that a "
        "replica confirmed",
    )
    @pytest.mark.rare
    async def test_a_failover_in_a_cluster_keeps_what_was_confirmed(
        self, tmp_path: Path, stack: ExitStack
    ) -> None:
        cluster = ClusterRedis(tmp_path, replicas=1)
        stack.callback(cluster.stop)
        store = store_at(cluster.url, RedisTopology.CLUSTER)
        owner = cluster.owner_of(KEYS.leases)
        wait_until(lambda: "state=online" in owner.ask("info", "replication"), "no replica")
        await uses_everything(store)
        owner.stop()
        assert await submitted(store, "t2") is SubmitOutcome.CREATED
        assert {record.id for record in await store.records(["t1", "t2"])} == {"t1", "t2"}
        assert cluster.owner_of(KEYS.leases) is not owner
        await store.close()

    @pytest.mark.parametrize("topology", [RedisTopology.SENTINEL, RedisTopology.CLUSTER])
    async def test_whoever_is_asked_for_the_primary_is_asked_over_tls_too(
        self, tmp_path: Path, stack: ExitStack, topology: RedisTopology
    ) -> None:
        is_cluster = topology is RedisTopology.CLUSTER
        clustered = (*CLUSTERED, "--tls-cluster", "yes", "--cluster-port", str(free_port()))
        redis = TlsRedis(tmp_path, *(clustered if is_cluster else ()))
        stack.callback(redis.stop)
        if is_cluster:
            redis.server.ask("cluster", "addslotsrange", "0", "16383")
        store = store_at(redis.url(redis.tls_port if is_cluster else redis.sentinel_port), topology)
        assert await submitted(store, "t1") is SubmitOutcome.CREATED
        assert redis.server.ask("exists", KEYS.task("t1")).strip() == "1"
        await store.close()

    @pytest.mark.holds(
        "tasks.md",
        "Under Sentinel and in a Cluster the primary is found; a failover loses nothing that a "
        "replica confirmed",
    )
    async def test_a_fleet_follows_its_slot_to_another_node(self, cluster: ClusterRedis) -> None:
        store = store_at(cluster.url, RedisTopology.CLUSTER)
        assert await store.queue_lengths() == (0, 0)
        owner = cluster.owner_of(KEYS.leases)
        cluster.give_slot_of(KEYS.leases, next(each for each in cluster.servers if each is not owner))
        assert await submitted(store, "t1") is SubmitOutcome.CREATED
        assert cluster.owner_of(KEYS.leases) is not owner
        await store.close()


async def submitted_later(store: TaskStore, replica: RedisServer) -> SubmitOutcome:
    replica.go_on()
    return await submitted(store, "t1")
