"""The rendered redis.conf and password.conf, read by a real redis-server."""

import base64
import os
import socket
import subprocess
import time
from pathlib import Path

import pytest

from flotilla_operator.workloads import agent_fleet as workloads
from flotilla_runtime import contract
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
    config, *_ = workloads.redis_manifests(OWNER, spec_of().queue.redis, IMAGES)
    secret = workloads.password_secret(OWNER, "s3cret")
    (folder / "data").mkdir()
    (folder / "password.conf").write_bytes(base64.b64decode(secret["data"]["password.conf"]))
    text = str(config["data"]["redis.conf"])
    text = text.replace(contract.REDIS_SECRET_DIRECTORY, str(folder)).replace(
        "dir /data", f"dir {folder}/data"
    )
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
