"""etcd and a real API server in a folder, with the rest of a control plane on request.

Each control plane has its own ports, certificates and data, so several run at once. One that is started again
in the same folder has the same objects. For tests of the operator's resilience the API server alone can be
stopped, restarted, and suspended so that it accepts connections and does not answer.
"""

import json
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from local_cluster import components, definitions
from local_cluster.access import Access
from local_cluster.api_client import ApiClient
from local_cluster.binaries import binary
from local_cluster.certificates import Authority, KeyPair
from local_cluster.kubeconfig import write_kubeconfig
from local_cluster.kwok import Parallelism
from local_cluster.kwok import configuration as kwok_configuration
from local_cluster.processes import Daemon, free_port, wait_until

API_SERVER_TIMEOUT_SECONDS = 60.0
ADMINISTRATORS = "system:masters"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The parts to run, and the API server's address.

    `address` is loopback for tests; the full cluster sets an address that pods can reach, and `port` 6443.
    `newest` runs the API server of the newest Kubernetes that Flotilla supports. `definitions` is a folder of
    custom resource definitions, installed at the start.
    """

    controller_manager: bool = False
    scheduler: bool = False
    kwok: bool = False
    kwok_parallelism: Parallelism = field(default_factory=Parallelism)
    kwok_stages: str = ""
    address: str = "127.0.0.1"
    port: int | None = None
    newest: bool = False
    service_addresses: str = components.SERVICE_ADDRESSES
    outlives_parent: bool = False
    api_server_arguments: tuple[str, ...] = ()
    definitions: Path | None = None


class ControlPlane:
    """A control plane in `directory`; use as a context manager, or start and stop it."""

    def __init__(self, directory: Path, options: Options | None = None) -> None:
        self.options = options or Options()
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.authority = Authority(directory / "certificates")
        self.kubeconfig = directory / "kubeconfig"
        self.audit_log = directory / "audit.log"
        self._ports = self._choose_ports()
        self.administrator = self.authority.issue("admin", user="flotilla-admin", groups=[ADMINISTRATORS])
        self._api_server = self._describe_api_server()
        self.url = self._api_server.url
        self.client = self.client_for(self.administrator)
        self.etcd, self.api_server = self._daemons()
        self.others = self._other_daemons()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start every part that is not running; returns when the API server is ready."""
        self.etcd.start()
        self.start_api_server()
        if self.options.definitions is not None:
            definitions.install(self.client, self.options.definitions)
        for daemon in self.others:
            daemon.start()

    def stop(self) -> None:
        """Stop every part."""
        for daemon in reversed(self.others):
            daemon.stop()
        self.stop_api_server()
        self.etcd.stop()

    def start_api_server(self) -> None:
        """Start the API server on its port and wait until it is ready."""
        write_kubeconfig(
            self.kubeconfig,
            url=self.url,
            authority=self.authority.pair.certificate,
            credentials=self.administrator,
        )
        self.api_server.start()
        wait_until(
            self.client.ready,
            part="kube-apiserver",
            timeout_seconds=API_SERVER_TIMEOUT_SECONDS,
            daemons=[self.etcd, self.api_server],
        )

    def stop_api_server(self) -> None:
        """Kill the API server, and with it its watches; a graceful end would wait for the watches."""
        self.api_server.kill()

    def restart_api_server(self) -> None:
        """End the API server and start it again on the same port over the same data."""
        self.stop_api_server()
        self.start_api_server()

    @contextmanager
    def hung_api_server(self) -> Iterator[None]:
        """Suspend the API server: during the block it accepts connections and does not answer."""
        self.api_server.signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.api_server.signal(signal.SIGCONT)

    def client_for(self, credentials: KeyPair) -> ApiClient:
        """A client with the credentials of the given user."""
        return ApiClient(self.url, authority=str(self.authority.pair.certificate), credentials=credentials)

    def user(self, name: str, *, groups: Sequence[str] = ()) -> KeyPair:
        """Credentials of a user with this name and these groups; RBAC says what the user may do."""
        file_name = "user-" + name.replace(":", "-").replace("/", "-")
        return self.authority.issue(file_name, user=name, groups=groups)

    def kubeconfig_for(self, name: str, *, groups: Sequence[str] = ()) -> Path:
        """A kubeconfig for that user."""
        credentials = self.user(name, groups=groups)
        path = self.directory / f"{credentials.certificate.stem}.kubeconfig"
        return write_kubeconfig(
            path, url=self.url, authority=self.authority.pair.certificate, credentials=credentials
        )

    def kubectl(self, *arguments: str, manifest: str | None = None, check: bool = True) -> str:
        """Run kubectl as administrator; see Access."""
        return Access(kubeconfig=self.kubeconfig).kubectl(*arguments, manifest=manifest, check=check)

    def audit_events(self, *, user: str | None = None) -> Iterator[dict[str, Any]]:
        """The audit log's events so far, oldest first; with `user`, those of that user."""
        return audit_events(self.audit_log, user=user)

    def _choose_ports(self) -> dict[str, int]:
        """Choose ports once and keep them in a file, so that a restart uses the same ones."""
        record = self.directory / "ports.json"
        if not record.exists():
            chosen = {
                "etcd": free_port(),
                "etcd_peer": free_port(),
                "api_server": self.options.port or free_port(),
            }
            record.write_text(json.dumps(chosen))
        ports: dict[str, int] = json.loads(record.read_text())
        return ports

    def _describe_api_server(self) -> components.ApiServer:
        policy = self.directory / "audit-policy.yaml"
        policy.write_text(components.AUDIT_POLICY)
        address = self.options.address
        serving = self.authority.issue(
            "api-server",
            user="kube-apiserver",
            names=["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"],
            addresses=sorted({"127.0.0.1", address, components.API_SERVICE_ADDRESS}),
        )
        return components.ApiServer(
            address=address,
            port=self._ports["api_server"],
            advertised=None if address.startswith("127.") else address,
            etcd_url=f"http://127.0.0.1:{self._ports['etcd']}",
            authority=self.authority.pair,
            serving=serving,
            kubelet_client=self.authority.issue(
                "kubelet-client", user="kube-apiserver-kubelet-client", groups=[ADMINISTRATORS]
            ),
            service_account=self.authority.service_account_key(),
            audit_policy=policy,
            audit_log=self.audit_log,
            service_account_admission=self.options.controller_manager,
            service_addresses=self.options.service_addresses,
            extra=self.options.api_server_arguments,
        )

    def _daemon(self, name: str, argv: Sequence[str]) -> Daemon:
        return Daemon(name, argv, directory=self.directory, dies_with_parent=not self.options.outlives_parent)

    def _daemons(self) -> tuple[Daemon, Daemon]:
        etcd = components.Etcd(
            data=self.directory / "etcd", port=self._ports["etcd"], peer_port=self._ports["etcd_peer"]
        )
        api_server = "kube-apiserver-newest" if self.options.newest else "kube-apiserver"
        return (
            self._daemon("etcd", etcd.argv(binary("etcd"))),
            self._daemon("kube-apiserver", self._api_server.argv(binary(api_server))),
        )

    def _other_daemons(self) -> tuple[Daemon, ...]:
        daemons = []
        if self.options.controller_manager:
            argv = components.controller_manager_argv(
                binary("kube-controller-manager"),
                kubeconfig=self.kubeconfig,
                authority=self.authority.pair,
                service_account=self.authority.service_account_key(),
            )
            daemons.append(self._daemon("kube-controller-manager", argv))
        if self.options.scheduler:
            argv = components.scheduler_argv(binary("kube-scheduler"), kubeconfig=self.kubeconfig)
            daemons.append(self._daemon("kube-scheduler", argv))
        if self.options.kwok:
            path = self.directory / "kwok.yaml"
            path.write_text(
                kwok_configuration(
                    self.options.kwok_parallelism,
                    node_address=self.options.address,
                    stages=self.options.kwok_stages,
                )
            )
            argv = components.kwok_argv(binary("kwok"), kubeconfig=self.kubeconfig, configuration=path)
            daemons.append(self._daemon("kwok", argv))
        return tuple(daemons)


def audit_events(log: Path, *, user: str | None = None) -> Iterator[dict[str, Any]]:
    """The events of an audit log, and of the rotated logs beside it."""
    put_away = sorted(log.parent.glob(f"{log.stem}-[0-9]*{log.suffix}"))
    for path in (*put_away, *([log] if log.exists() else [])):
        with path.open() as lines:
            for line in lines:
                if not line.endswith("\n"):
                    break
                if user is not None and user not in line:
                    continue
                event: dict[str, Any] = json.loads(line)
                if user is None or event["user"].get("username") == user:
                    yield event
