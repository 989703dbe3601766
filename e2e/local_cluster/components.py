"""The command lines of the control plane's parts; no process is started here.

The flags that may surprise:

- Kubelets are reached by address, because nothing resolves a node's name.
- etcd does not wait for the disk (no fsync), because the data need not survive a crash of the machine.
- Leader election is off, because there is one process of each part; for the same reason the parts may send
  more requests to the API server than by default.
- Persistent volume claims are synced every second, because a volume that is created after its claim is bound
  only at such a sync.
"""

from dataclasses import dataclass
from pathlib import Path

from local_cluster.certificates import KeyPair
from local_cluster.network import IPV4

CLIENT_QPS = 1000
SERVICE_ADDRESSES = IPV4.services
API_SERVICE_ADDRESS = "10.96.0.1"
ISSUER = "https://kubernetes.default.svc.cluster.local"

# With the bodies of all statuses and events, which are searched for planted secrets (`leaks`).
AUDIT_POLICY = """\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
  - level: Request
    verbs: [create, update, patch]
    resources:
      - {group: "", resources: [events, "*/status"]}
      - {group: events.k8s.io, resources: [events]}
      - {group: flotilla.dev, resources: ["*/status"]}
      - {group: apps, resources: ["*/status"]}
      - {group: batch, resources: ["*/status"]}
  - level: Metadata
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Etcd:
    """Where etcd keeps its data and listens."""

    data: Path
    port: int
    peer_port: int

    @property
    def url(self) -> str:
        """For the API server."""
        return f"http://127.0.0.1:{self.port}"

    def argv(self, program: Path) -> list[str]:
        """etcd's command line."""
        peer = f"http://127.0.0.1:{self.peer_port}"
        return [
            str(program),
            "--name=flotilla",
            f"--data-dir={self.data}",
            f"--listen-client-urls={self.url}",
            f"--advertise-client-urls={self.url}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=flotilla={peer}",
            "--unsafe-no-fsync",
            "--quota-backend-bytes=4294967296",
            "--auto-compaction-mode=periodic",
            "--auto-compaction-retention=30m",
            "--log-level=warn",
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiServer:
    """One API server; `advertised` is None where no pod will ever need to reach it."""

    address: str
    port: int
    advertised: str | None
    etcd_url: str
    authority: KeyPair
    serving: KeyPair
    kubelet_client: KeyPair
    service_account: KeyPair
    audit_policy: Path
    audit_log: Path
    service_account_admission: bool
    service_addresses: str = SERVICE_ADDRESSES
    extra: tuple[str, ...] = ()

    @property
    def url(self) -> str:
        """For every client on this machine."""
        return f"https://{self.address}:{self.port}"

    def argv(self, program: Path) -> list[str]:
        """The API server's command line."""
        reconciled = (
            ["--endpoint-reconciler-type=none"]
            if self.advertised is None
            else [f"--advertise-address={self.advertised}"]
        )
        # Without a controller manager no namespace gets its default service account, and with this
        # plugin the API server would then refuse every pod.
        admission = [] if self.service_account_admission else ["--disable-admission-plugins=ServiceAccount"]
        return [
            str(program),
            f"--etcd-servers={self.etcd_url}",
            f"--bind-address={self.address}",
            f"--secure-port={self.port}",
            *reconciled,
            *admission,
            "--enable-admission-plugins=NodeRestriction",
            f"--service-cluster-ip-range={self.service_addresses}",
            f"--tls-cert-file={self.serving.certificate}",
            f"--tls-private-key-file={self.serving.key}",
            f"--client-ca-file={self.authority.certificate}",
            f"--kubelet-certificate-authority={self.authority.certificate}",
            f"--kubelet-client-certificate={self.kubelet_client.certificate}",
            f"--kubelet-client-key={self.kubelet_client.key}",
            "--kubelet-preferred-address-types=InternalIP",
            f"--service-account-key-file={self.service_account.certificate}",
            f"--service-account-signing-key-file={self.service_account.key}",
            f"--service-account-issuer={ISSUER}",
            "--authorization-mode=Node,RBAC",
            "--allow-privileged=true",
            f"--audit-policy-file={self.audit_policy}",
            f"--audit-log-path={self.audit_log}",
            "--audit-log-maxsize=200",
            "--audit-log-maxbackup=3",
            "--shutdown-delay-duration=0s",
            *self.extra,
        ]


def controller_manager_argv(
    program: Path, *, kubeconfig: Path, authority: KeyPair, service_account: KeyPair
) -> list[str]:
    """The controller manager's command line; it listens on no port, so that many can run at once."""
    return [
        str(program),
        f"--kubeconfig={kubeconfig}",
        f"--root-ca-file={authority.certificate}",
        f"--service-account-private-key-file={service_account.key}",
        "--use-service-account-credentials=true",
        "--allocate-node-cidrs=false",
        "--leader-elect=false",
        "--secure-port=0",
        "--pvclaimbinder-sync-period=1s",
        f"--kube-api-qps={CLIENT_QPS}",
        f"--kube-api-burst={CLIENT_QPS}",
    ]


def scheduler_argv(program: Path, *, kubeconfig: Path) -> list[str]:
    """The scheduler's command line."""
    return [
        str(program),
        f"--kubeconfig={kubeconfig}",
        "--leader-elect=false",
        "--secure-port=0",
        f"--kube-api-qps={CLIENT_QPS}",
        f"--kube-api-burst={CLIENT_QPS}",
    ]


def kwok_argv(program: Path, *, kubeconfig: Path, configuration: Path) -> list[str]:
    """KWOK's command line."""
    return [str(program), f"--kubeconfig={kubeconfig}", f"--config={configuration}"]
