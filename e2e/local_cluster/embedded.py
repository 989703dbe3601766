"""The full cluster without Docker: a control plane, one real node, DNS, storage, and GPU nodes of KWOK.

Every step can be repeated, so `up` also repairs a cluster: it starts the processes that have died and leaves
the others. After a restart of the machine `up` first removes what the old cluster left, because its folders
describe processes and mounts that are gone.
"""

import shutil
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx2

from local_cluster import addons, base_image, leftovers, network, node
from local_cluster.binaries import CLUSTER_TOOLS, binary
from local_cluster.container_runtime import ContainerRuntime
from local_cluster.control_plane import ADMINISTRATORS, ControlPlane, Options
from local_cluster.directories import CHECKOUT, RUN_DIRECTORY, Directories
from local_cluster.errors import LocalClusterError
from local_cluster.kubeconfig import put, write_kubeconfig
from local_cluster.kwok import GPU_TAINT, create_nodes, gpu_nodes
from local_cluster.prerequisites import check_embedded
from local_cluster.processes import Daemon, free_port, wait_until
from local_cluster.progress import Progress

API_SERVER_PORT = 6443
TIMEOUT_SECONDS = 120.0
# These are stopped last, because containerd must still run to remove its containers.
CONTAINER_PROGRAMS = frozenset({"containerd", "containerd-shim-runc-v2"})
CONTROL_PLANE = Options(
    controller_manager=True,
    scheduler=True,
    kwok=True,
    address=network.IPV4.node,
    port=API_SERVER_PORT,
    outlives_parent=True,
    # GPU nodes have a taint, as in most clusters. ExtendedResourceToleration adds the toleration for it to
    # each pod that asks for a GPU. That does not help a ModelReplicaSet: placement counts only the
    # tolerations in its spec, so without one its replicas wait and get no pods.
    api_server_arguments=(
        "--enable-admission-plugins=NodeRestriction,ExtendedResourceToleration",
        "--max-requests-inflight=1000",
    ),
)


@dataclass(slots=True, kw_only=True)
class EmbeddedCluster:
    """The cluster of this machine, of which there is at most one."""

    places: Directories
    progress: Progress = field(default_factory=Progress)

    @property
    def runtime(self) -> ContainerRuntime:
        """Its containerd."""
        return ContainerRuntime(
            root=self.places.cache / "containerd",
            configuration=self._node_folder / "containerd",
            engine=self.places.engine,
            cni=self._node_folder / "cni",
        )

    @property
    def present(self) -> bool:
        """Whether `up` was called, even if it failed, and no `down` has succeeded since."""
        return self._before_path.exists()

    @property
    def families(self) -> network.Families:
        """The IP families of the cluster that is there."""
        return network.DUAL_STACK if self._dual_stack_path.exists() else network.SINGLE_STACK

    def up(self, *, gpu_node_count: int, dual_stack: bool = False) -> None:
        """Start whatever is not running; `dual_stack` is ignored for a cluster that exists already."""
        check_embedded()
        leftovers.check_owner(self.places)
        fresh = self._prepare_folder()
        if fresh and dual_stack:
            self._dual_stack_path.touch()
        for name in CLUSTER_TOOLS:
            binary(name, progress=self.progress)
        coredns = base_image.ensure_coredns(self.places, self.progress)[0]
        archives = self._archives()
        with self.progress.step("network"):
            network.bring_up(self.families)
        with self.progress.step("containerd"):
            self._start_containerd()
        with ThreadPoolExecutor(max_workers=1) as beside:
            imported = beside.submit(self._import_images, archives)
            with self.progress.step("etcd, API server, controllers, scheduler, KWOK"):
                plane = self.control_plane()
                plane.start()
                put(self.places.kubeconfig, plane.kubeconfig.read_text())
            with self.progress.step("system images"):
                imported.result()
        with self.progress.step("kubelet, kube-proxy, storage"):
            self._start_node(plane)
            addons.apply(plane, addons.storage())
            self._wait(lambda: addons.node_ready(plane), "the node", plane)
            self._wait(lambda: addons.endpoint_known(plane), "the endpoint of service kubernetes", plane)
        with self.progress.step("DNS (CoreDNS)"):
            addons.apply(plane, addons.dns(coredns))
            self._wait(lambda: addons.deployment_ready(plane, "kube-system", "coredns"), "CoreDNS", plane)
        with self.progress.step(f"{gpu_node_count} GPU nodes (KWOK)"):
            nodes = gpu_nodes(gpu_node_count, taints=[GPU_TAINT])
            names = create_nodes(plane.client, nodes)
            self._wait(lambda: all(addons.node_ready(plane, name) for name in names), "the GPU nodes", plane)

    def down(self) -> None:
        """Remove everything of the cluster from the machine; images stay in the cache."""
        leftovers.check_owner(self.places)
        before = leftovers.Before.load(self._before_path)
        with self.progress.step("stop the cluster's processes"):
            leftovers.end_processes(self.places, spare=CONTAINER_PROGRAMS)
            images_usable = self._remove_containers() if self.present else True
        with self.progress.step("remove mounts, cgroups, network, state"):
            leftovers.clear(self.places, before)
            self._keep_logs()
            leftovers.remove_state(self.places)
            if not images_usable:
                shutil.rmtree(self.runtime.root, ignore_errors=True)

    def status(self) -> list[str]:
        """One line for each process and node, and the path of the kubeconfig."""
        if not self.present:
            return ["There is no local cluster; start one with `make cluster-up`."]
        daemons = [self._containerd(), *self._daemons_but_containerd()]
        lines = [
            f"{daemon.name:<26} {'pid ' + str(daemon.pid) if daemon.pid else 'NOT RUNNING'}"
            for daemon in daemons
        ]
        with suppress(LocalClusterError, httpx2.HTTPError):
            for item in self.control_plane().client.get("/api/v1/nodes")["items"]:
                state = "Ready" if addons.is_ready(item) else "NotReady"
                lines.append(f"node {item['metadata']['name']:<21} {state}")
        return [*lines, f"KUBECONFIG={self.places.kubeconfig}"]

    def healthy(self) -> bool:
        """Whether every process runs and the node is Ready."""
        if not self.present:
            return False
        daemons = [self._containerd(), *self._daemons_but_containerd()]
        return all(daemon.pid for daemon in daemons) and addons.node_ready(self.control_plane())

    def control_plane(self) -> ControlPlane:
        """The cluster's control plane; this call does not start it."""
        services = network.joined([family.services for family in self.families])
        options = replace(CONTROL_PLANE, service_addresses=services)
        return ControlPlane(self.places.cluster / "control-plane", options)

    @property
    def _node_folder(self) -> Path:
        return self.places.cluster / "node"

    @property
    def _before_path(self) -> Path:
        return self.places.cluster / "before.json"

    @property
    def _dual_stack_path(self) -> Path:
        return self.places.cluster / "dual-stack"

    def _prepare_folder(self) -> bool:
        """Make the cluster's folder; True when there was no cluster before."""
        before = leftovers.Before.load(self._before_path)
        rebooted = before is not None and before.boot != leftovers.boot_id()
        # Somebody may have deleted the cache folder under a running cluster.
        forgotten = before is None and RUN_DIRECTORY.exists()
        if rebooted or forgotten:
            with self.progress.step("remove what an earlier cluster left"):
                leftovers.clear(self.places, before)
                leftovers.remove_state(self.places)
                shutil.rmtree(self.runtime.root, ignore_errors=True)
            before = None
        leftovers.claim(self.places)
        self._node_folder.mkdir(parents=True, exist_ok=True)
        if before is None:
            leftovers.Before.read().save(self._before_path)
        return before is None

    def _archives(self) -> dict[str, Path]:
        coredns_reference, coredns = base_image.ensure_coredns(self.places, self.progress)
        return {
            base_image.BASE: base_image.ensure_base(self.places, self.progress),
            base_image.PAUSE: base_image.ensure_pause(self.places, self.progress),
            coredns_reference: coredns,
        }

    def _import_images(self, archives: dict[str, Path]) -> None:
        present = self.runtime.images()
        for reference, archive in archives.items():
            if present.get(reference) != archive.stem:
                self.runtime.import_image(archive, reference, key=archive.stem)

    def _daemon(self, name: str, argv: list[str], environment: Mapping[str, str] | None = None) -> Daemon:
        return Daemon(
            name, argv, directory=self._node_folder, environment=environment, dies_with_parent=False
        )

    def _containerd(self) -> Daemon:
        return self._daemon("containerd", self.runtime.argv())

    def _start_containerd(self) -> None:
        runtime, daemon = self.runtime, self._containerd()
        if daemon.pid is None:
            runtime.write_configuration()
            allocations = self._node_folder / "addresses"
            (runtime.cni / "10-flotilla.conflist").write_text(
                network.cni_configuration(allocations, self.families)
            )
        daemon.start()
        wait_until(runtime.ready, part="containerd", timeout_seconds=30, daemons=[daemon])

    def _remove_containers(self) -> bool:
        """Remove all containers while containerd runs; True when its images can be kept."""
        try:
            self._start_containerd()
            usable = self.runtime.remove_containers()
        except (LocalClusterError, OSError):
            usable = False
        self._containerd().stop()
        return usable

    def _daemons_but_containerd(self) -> list[Daemon]:
        plane = self.control_plane()
        names = ("kubelet", "kube-proxy", "network-policies", "local-path-provisioner")
        return [*(self._daemon(name, []) for name in names), *plane.others, plane.api_server, plane.etcd]

    def _start_node(self, plane: ControlPlane) -> None:
        """Start those that are not running; a running kube-proxy would end if its file were written again."""
        makers = {
            "kubelet": self._kubelet,
            "kube-proxy": self._kube_proxy,
            "network-policies": self._network_policies,
            "local-path-provisioner": self._provisioner,
        }
        for name, make in makers.items():
            if self._daemon(name, []).pid is None:
                make(plane).start()

    def _user_kubeconfig(self, plane: ControlPlane, file_name: str, user: str, groups: list[str]) -> Path:
        credentials = plane.authority.issue(
            file_name, user=user, groups=groups, names=[node.NODE_NAME], addresses=[network.IPV4.node]
        )
        path = self._node_folder / f"{file_name}.kubeconfig"
        authority = plane.authority.pair.certificate
        return write_kubeconfig(path, url=plane.url, authority=authority, credentials=credentials)

    def _kubelet(self, plane: ControlPlane) -> Daemon:
        resolver = self._node_folder / "resolv.conf"
        resolver.write_text(network.resolver_configuration())
        groups = [node.KUBELET_GROUP]
        kubeconfig = self._user_kubeconfig(plane, "kubelet", node.KUBELET_USER, groups)
        kubelet = node.Kubelet(
            directory=self._node_folder / "kubelet",
            kubeconfig=kubeconfig,
            authority=plane.authority.pair.certificate,
            serving=plane.authority.issue("kubelet", user=node.KUBELET_USER, groups=groups),
            resolver=resolver,
            health_port=free_port(),
            families=self.families,
        )
        kubelet.directory.mkdir(exist_ok=True)
        leftovers.make_cgroups()
        configuration = self._node_folder / "kubelet.yaml"
        configuration.write_text(kubelet.configuration())
        return self._daemon("kubelet", kubelet.argv(binary("kubelet"), configuration))

    def _kube_proxy(self, plane: ControlPlane) -> Daemon:
        kubeconfig = self._user_kubeconfig(plane, "kube-proxy", node.PROXY_USER, [])
        configuration = self._node_folder / "kube-proxy.yaml"
        configuration.write_text(
            node.proxy_configuration(
                kubeconfig=kubeconfig,
                health_port=free_port(),
                metrics_port=free_port(),
                families=self.families,
            )
        )
        return self._daemon("kube-proxy", [str(binary("kube-proxy")), f"--config={configuration}"])

    def _network_policies(self, plane: ControlPlane) -> Daemon:
        credentials = plane.authority.issue(
            "network-policies", user="network-policies", groups=[ADMINISTRATORS]
        )
        argv = [
            *(sys.executable, "-m", "local_cluster.network_policies"),
            *("--api", plane.url, "--authority", str(plane.authority.pair.certificate)),
            *("--certificate", str(credentials.certificate), "--key", str(credentials.key)),
            *("--families", *(family.name for family in self.families)),
        ]
        environment = {"PYTHONPATH": str(CHECKOUT / "e2e")}
        return self._daemon("network-policies", argv, environment)

    def _provisioner(self, plane: ControlPlane) -> Daemon:
        configuration = self._node_folder / "storage.json"
        configuration.write_text(node.storage_configuration(self.places.cluster / "volumes"))
        helper = self._node_folder / "storage-helper-pod.yaml"
        helper.write_text(addons.storage_helper_pod(base_image.BASE))
        argv = [
            *(str(binary("local-path-provisioner")), "start"),
            *("--kubeconfig", str(plane.kubeconfig), "--config", str(configuration)),
            *("--namespace", "local-path-storage", "--configmap-name", "local-path-config"),
            *("--service-account-name", "local-path-provisioner"),
            *("--helper-pod-file", str(helper), "--helper-image", base_image.BASE),
        ]
        return self._daemon("local-path-provisioner", argv)

    def _wait(self, probe: Callable[[], bool], part: str, plane: ControlPlane) -> None:
        daemons = [self._daemon("kubelet", []), self._daemon("kube-proxy", []), plane.api_server]
        wait_until(probe, part=part, timeout_seconds=TIMEOUT_SECONDS, daemons=daemons)

    def _keep_logs(self) -> None:
        kept = self.places.cluster / "logs"
        kept.mkdir(parents=True, exist_ok=True)
        for log in self.places.cluster.glob("*/*.log"):
            if log.parent != kept:
                log.replace(kept / log.name)
