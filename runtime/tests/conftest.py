"""Servers for the runtime's tests: each its own process, on a free port, in a temporary folder."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from local_cluster.processes import free_port
from redis_servers import ALL_RIGHTS, RedisServer
from s3_servers import S3Server


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    """A running Redis of this test's own."""
    assert shutil.which("redis-server"), "install it: apt-get install redis-server"
    folder = tmp_path / "redis"
    folder.mkdir()
    server = RedisServer(folder)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def s3_server(tmp_path: Path) -> Iterator[S3Server]:
    """A running object store of this test's own."""
    folder = tmp_path / "s3"
    folder.mkdir()
    server = S3Server(folder)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def redis_cluster(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis Cluster of one node, which holds scripts to the rule of one hash slot all the same."""
    # Its second port would else be the first and 10,000, which another process may have.
    settings = ("--cluster-enabled", "yes", "--cluster-port", str(free_port()))
    server = RedisServer(tmp_path, *settings, rights=ALL_RIGHTS)
    server.start()
    server.ask("cluster", "addslotsrange", "0", "16383")
    deadline = time.monotonic() + 30
    while "cluster_state:ok" not in server.ask("cluster", "info"):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    yield server
    server.stop()
