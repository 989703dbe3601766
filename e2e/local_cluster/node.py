"""The kubelet's and kube-proxy's configuration for the one real node."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from local_cluster.certificates import KeyPair
from local_cluster.container_runtime import SOCKET
from local_cluster.network import IPV4, Families, joined

NODE_NAME = "flotilla-local"
KUBELET_USER = f"system:node:{NODE_NAME}"
KUBELET_GROUP = "system:nodes"
PROXY_USER = "system:kube-proxy"
DNS_ADDRESS = "10.96.0.10"
CLUSTER_DOMAIN = "cluster.local"
CGROUP = "flotilla"
LABELS = {"flotilla.dev/real-node": "true"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Kubelet:
    """The kubelet's folder and credentials."""

    directory: Path
    kubeconfig: Path
    authority: Path
    serving: KeyPair
    resolver: Path
    health_port: int
    families: Families

    @property
    def pod_logs(self) -> Path:
        """Where containers' output is kept."""
        return self.directory / "pod-logs"

    def argv(self, program: Path, configuration: Path) -> list[str]:
        """The kubelet's command line."""
        return [
            str(program),
            f"--config={configuration}",
            f"--kubeconfig={self.kubeconfig}",
            f"--root-dir={self.directory / 'root'}",
            f"--hostname-override={NODE_NAME}",
            f"--node-ip={joined([family.node for family in self.families])}",
            "--node-labels=" + ",".join(f"{key}={value}" for key, value in LABELS.items()),
        ]

    def configuration(self) -> str:
        """Its config file: no eviction for a full disk, and no image collection, as none is pulled."""
        document: dict[str, Any] = {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": IPV4.node,
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(self.authority)},
            },
            "authorization": {"mode": "Webhook"},
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{CGROUP}",
            "clusterDNS": [DNS_ADDRESS],
            "clusterDomain": CLUSTER_DOMAIN,
            "containerRuntimeEndpoint": f"unix://{SOCKET}",
            "imageServiceEndpoint": f"unix://{SOCKET}",
            "evictionHard": {
                "memory.available": "100Mi",
                "nodefs.available": "0%",
                "nodefs.inodesFree": "0%",
                "imagefs.available": "0%",
                "imagefs.inodesFree": "0%",
            },
            "failSwapOn": False,
            "healthzBindAddress": "127.0.0.1",
            "healthzPort": self.health_port,
            "imageGCHighThresholdPercent": 100,
            "imageGCLowThresholdPercent": 99,
            "kubeAPIQPS": 100,
            "kubeAPIBurst": 200,
            "makeIPTablesUtilChains": False,
            "oomScoreAdj": 0,
            "podLogsDir": str(self.pod_logs),
            "readOnlyPort": 0,
            "registerNode": True,
            "resolvConf": str(self.resolver),
            "serializeImagePulls": False,
            "syncFrequency": "10s",
            "tlsCertFile": str(self.serving.certificate),
            "tlsPrivateKeyFile": str(self.serving.key),
            "volumePluginDir": str(self.directory / "volume-plugins"),
        }
        return yaml.safe_dump(document)


def proxy_configuration(*, kubeconfig: Path, health_port: int, metrics_port: int, families: Families) -> str:
    """kube-proxy's config file: nftables, and no change of the machine's connection tracking."""
    document: dict[str, Any] = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clientConnection": {"kubeconfig": str(kubeconfig)},
        "clusterCIDR": joined([family.pods for family in families]),
        "hostnameOverride": NODE_NAME,
        "nodePortAddresses": [f"{family.node}/{family.node_bits}" for family in families],
        "conntrack": {
            "maxPerCore": 0,
            "min": 0,
            "tcpEstablishedTimeout": "0s",
            "tcpCloseWaitTimeout": "0s",
        },
        "healthzBindAddress": f"127.0.0.1:{health_port}",
        "metricsBindAddress": f"127.0.0.1:{metrics_port}",
        "nftables": {"syncPeriod": "30s", "minSyncPeriod": "0s"},
        "oomScoreAdj": 0,
    }
    return yaml.safe_dump(document)


def storage_configuration(volumes: Path) -> str:
    """local-path-provisioner's config file: every claim becomes a folder below `volumes`."""
    paths = [{"node": "DEFAULT_PATH_FOR_NON_LISTED_NODES", "paths": [str(volumes)]}]
    return json.dumps({"nodePathMap": paths})
