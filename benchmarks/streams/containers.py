"""The containers of the pods: an engine double, or a router with its agent, on the pod's address.

Commands, arguments, environment and hooks are those of the pod that the operator created. All pods share one
network here, so where a pod names 127.0.0.1 or every address, the pod's own address is used.
"""

import base64
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import httpx2

from flotilla_runtime import contract
from flotilla_runtime.contract import ListenFamily, RouterConfig
from flotilla_runtime.router.__main__ import write_files
from flotilla_runtime.router.files import RunFiles
from local_cluster.control_plane import ControlPlane
from local_cluster.processes import Daemon, wait_until

ROOT = Path(__file__).parents[2]
PATHS = os.pathsep.join(str(ROOT / name) for name in ("e2e", "operator", "runtime", "benchmarks"))
SECONDS_A_TOKEN = 0.5
PROBE_SECONDS = 5.0
START_SECONDS = 60.0

Pod = Mapping[str, Any]


class Containers(Protocol):
    """The containers of one pod."""

    def start(self) -> None:
        """Start them."""

    def started(self) -> bool:
        """Whether the startup probe passes."""

    def ready(self) -> bool:
        """Whether the readiness probes pass."""

    def before_stop(self, grace_seconds: float) -> None:
        """The preStop hooks."""

    def stop(self) -> None:
        """Send SIGTERM, and SIGKILL when the process does not end in time."""

    def kill(self) -> None:
        """Kill the containers without a warning."""


class EngineContainers:
    """One engine double."""

    def __init__(self, plane: ControlPlane, pod: Pod, address: str, folder: Path) -> None:
        self._container = pod["spec"]["containers"][0]
        self._address = address
        folder.mkdir(parents=True)
        speed = folder / "double.json"
        speed.write_text(json.dumps({"decode_step_seconds": SECONDS_A_TOKEN}))
        self._environment = {**environment(plane, pod, self._container), "PYTHONPATH": PATHS}
        argv = [sys.executable, "-m", "engine_double", *self._container["args"]]
        argv += [f"--config={speed}", f"--host={address}", f"--port={contract.PORT_ENGINE}"]
        self._double = Daemon(
            "engine", argv, directory=folder, environment=self._environment, dies_with_parent=True
        )

    def start(self) -> None:
        """Start the double."""
        self._double.start()

    def started(self) -> bool:
        """Whether its startup probe passes."""
        return self._run(self._container["startupProbe"]["exec"]["command"], PROBE_SECONDS)

    def ready(self) -> bool:
        """Whether it is healthy."""
        return answers(f"http://{self._address}:{contract.PORT_ENGINE}/health")

    def before_stop(self, grace_seconds: float) -> None:
        """Wait until it is idle."""
        self._run(self._container["lifecycle"]["preStop"]["exec"]["command"], grace_seconds)

    def stop(self) -> None:
        """End it."""
        self._double.stop()

    def kill(self) -> None:
        """SIGKILL."""
        self._double.kill()

    def _run(self, command: list[str], seconds: float) -> bool:
        argv = [sys.executable, *(word.replace("127.0.0.1", self._address) for word in command[1:])]
        with suppress(subprocess.TimeoutExpired):
            done = subprocess.run(
                argv,
                env={**os.environ, **self._environment},
                capture_output=True,
                timeout=seconds,
                check=False,
            )
            return done.returncode == 0
        return False


class RouterContainers:
    """HAProxy and the agent."""

    def __init__(self, plane: ControlPlane, pod: Pod, address: str, folder: Path) -> None:
        self._plane = plane
        self._pod = pod
        self._address = address
        self._folder = folder
        self._config = self._own_config()
        haproxy = next(c for c in pod["spec"]["containers"] if c["name"] == "haproxy")
        config = folder / RunFiles.CONFIG
        self._haproxy = Daemon(
            "haproxy",
            ["haproxy", "-W", "-db", "-f", config],
            directory=folder,
            environment=environment(plane, pod, haproxy),
            dies_with_parent=True,
        )
        self._agent = Daemon(
            "agent",
            self._agent_argv(),
            directory=folder,
            environment={"PYTHONPATH": PATHS},
            dies_with_parent=True,
        )

    def start(self) -> None:
        """Render the files, then start both programs."""
        write_files(self._config, self._folder)
        path = self._folder / RunFiles.CONFIG
        path.write_text(path.read_text().replace("bind 0.0.0.0:", f"bind {self._address}:"))
        (self._folder / "config.json").write_text(self._config.model_dump_json())
        account = self._pod["spec"]["serviceAccountName"]
        namespace = self._pod["metadata"]["namespace"]
        token = self._plane.client.create(
            f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token",
            {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}},
        )
        (self._folder / "token").write_text(token["status"]["token"])
        self._haproxy.start()
        socket = self._folder / RunFiles.ADMIN_SOCKET
        wait_until(socket.exists, part="haproxy", timeout_seconds=START_SECONDS, daemons=[self._haproxy])
        self._agent.start()

    def started(self) -> bool:
        """As `ready`, because the pod has no startup probe."""
        return self.ready()

    def ready(self) -> bool:
        """Whether HAProxy is healthy and the agent is ready."""
        return answers(f"http://{self._address}:{self._config.metrics_port}/health") and answers(
            f"http://{self._address}:{self._config.agent_port}/readyz"
        )

    def before_stop(self, grace_seconds: float) -> None:
        """Wait until the agent reports that nothing is in flight."""
        with suppress(httpx2.HTTPError):
            httpx2.get(
                f"http://{self._address}:{self._config.agent_port}/v1/drained",
                timeout=grace_seconds,
                trust_env=False,
            )

    def stop(self) -> None:
        """End both."""
        self._haproxy.stop()
        self._agent.stop()

    def kill(self) -> None:
        """SIGKILL to both."""
        self._haproxy.kill()
        self._agent.kill()

    def _own_config(self) -> RouterConfig:
        namespace = self._pod["metadata"]["namespace"]
        volumes = self._pod["spec"]["volumes"]
        name = next(volume["configMap"]["name"] for volume in volumes if volume["name"] == "config")
        written = self._plane.client.get(f"/api/v1/namespaces/{namespace}/configmaps/{name}")
        config = RouterConfig.model_validate_json(written["data"]["config.json"])
        return config.model_copy(
            update={"run_directory": str(self._folder), "listen_family": ListenFamily.IPV4}
        )

    def _agent_argv(self) -> list[str]:
        return [
            sys.executable,
            "-m",
            "router_agent",
            f"--config={self._folder / 'config.json'}",
            f"--api={self._plane.url}",
            f"--token={self._folder / 'token'}",
            f"--authority={self._plane.authority.pair.certificate}",
            f"--pod={self._pod['metadata']['name']}",
            f"--address={self._address}",
        ]


def environment(plane: ControlPlane, pod: Pod, container: Mapping[str, Any]) -> dict[str, str]:
    """A container's environment variables, resolved as by the kubelet from values, secrets and pod fields."""
    found: dict[str, str] = {}
    for variable in container.get("env") or ():
        source = variable.get("valueFrom") or {}
        if "secretKeyRef" in source:
            reference = source["secretKeyRef"]
            path = f"/api/v1/namespaces/{pod['metadata']['namespace']}/secrets/{reference['name']}"
            encoded = plane.client.get(path)["data"][reference["key"]]
            found[variable["name"]] = base64.b64decode(encoded).decode()
        elif not source:
            found[variable["name"]] = variable.get("value", "")
    return found


def answers(url: str) -> bool:
    """Whether an HTTP probe of this URL succeeds."""
    try:
        return httpx2.get(url, timeout=PROBE_SECONDS, trust_env=False).is_success
    except httpx2.HTTPError:
        return False
