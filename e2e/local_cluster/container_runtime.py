"""The cluster's own containerd, with its own root, state and socket beside any other on the machine.

Images stay in its root when the cluster goes down, so the next start imports nothing. containerd itself
mounts the engine's folder read-only at /opt/engine in every container. So the engine's 6 GB of packages need
not be in an image, and a pod needs no hostPath, which restricted pod security forbids.
"""

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from local_cluster.base_image import PAUSE
from local_cluster.commands import run, succeeds
from local_cluster.directories import RUN_DIRECTORY
from local_cluster.errors import LocalClusterError

CNI_PROGRAMS = Path("/usr/lib/cni")
ENGINE_MOUNT = "/opt/engine"
# The namespace in which a kubelet's containerd looks for images.
NAMESPACE = "k8s.io"
KEY_LABEL = "flotilla.dev/content"
SOCKET = RUN_DIRECTORY / "containerd.sock"
STATE = RUN_DIRECTORY / "containerd"
CAPABILITY_SYS_RESOURCE = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerRuntime:
    """containerd's folders, and the clients and configuration that use them."""

    root: Path
    configuration: Path
    engine: Path
    cni: Path

    def write_configuration(self) -> None:
        """Write containerd's configuration and the base specification of every container."""
        for folder in (self.configuration, self.engine, self.cni, RUN_DIRECTORY):
            folder.mkdir(parents=True, exist_ok=True)
        specification = self.configuration / "base-runtime-spec.json"
        specification.write_text(json.dumps(with_engine_mount(default_specification(), self.engine)))
        text = _configuration(self, specification, restricted=not can_lower_oom_scores())
        (self.configuration / "config.toml").write_text(text)

    def argv(self) -> list[str]:
        """containerd's command line."""
        return ["containerd", "--config", str(self.configuration / "config.toml")]

    def ready(self) -> bool:
        """Whether it answers."""
        return succeeds(["ctr", "--address", SOCKET, "version"], timeout_seconds=5)

    def images(self) -> dict[str, str]:
        """The imported images, each with the content key that `import_image` was given."""
        found = {}
        for line in self.ctr("images", "list").splitlines()[1:]:
            words = line.split()
            labels = dict(label.partition("=")[::2] for label in words[-1].split(","))
            found[words[0]] = labels.get(KEY_LABEL, "")
        return found

    def import_image(self, archive: Path, reference: str, *, key: str) -> None:
        """Import an archive, and label its image with the content key."""
        self.ctr("images", "import", "--digests=false", str(archive))
        self.ctr("images", "label", reference, f"{KEY_LABEL}={key}")

    def tag_image(self, reference: str, other: str) -> None:
        """Give an image a second name, with the content key of the first."""
        self.ctr("images", "tag", "--force", reference, other)

    def remove_containers(self) -> bool:
        """Kill and remove every container; True when none is left and the root may be used again."""
        try:
            containers = self.ctr("containers", "list", "--quiet").split()
            if containers:
                self._attempt("tasks", "delete", "--force", *containers)
                self._attempt("containers", "delete", *containers)
            return not self.ctr("containers", "list", "--quiet").split()
        except (LocalClusterError, subprocess.TimeoutExpired):
            return False

    def ctr(self, *arguments: str) -> str:
        """Run containerd's own client."""
        return run([*self._client(), *arguments], part="containerd", timeout_seconds=600)

    def _attempt(self, *arguments: str) -> bool:
        return succeeds([*self._client(), *arguments])

    def _client(self) -> Sequence[str]:
        return ["ctr", "--address", str(SOCKET), "--namespace", NAMESPACE]


def can_lower_oom_scores() -> bool:
    """Whether this process may lower another's score for the OOM killer; some machines forbid it."""
    line = next(
        line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapEff:")
    )
    return bool(int(line.split()[1], 16) >> CAPABILITY_SYS_RESOURCE & 1)


def default_specification() -> dict[str, object]:
    """The specification from which containerd would start a container without a base specification."""
    specification: dict[str, object] = json.loads(run(["ctr", "oci", "spec"], part="containerd"))
    return specification


def with_engine_mount(specification: dict[str, object], engine: Path) -> dict[str, object]:
    """The specification with the engine's folder mounted read-only."""
    mounts = specification["mounts"]
    if not isinstance(mounts, list):
        raise TypeError("a container specification's mounts are a list")
    mount = {
        "destination": ENGINE_MOUNT,
        "type": "bind",
        "source": str(engine),
        "options": ["rbind", "ro", "nosuid", "nodev"],
    }
    return {**specification, "mounts": [*mounts, mount]}


def _configuration(runtime: ContainerRuntime, specification: Path, *, restricted: bool) -> str:
    cri = 'plugins."io.containerd.grpc.v1.cri"'
    return f"""\
version = 2
root = "{runtime.root}"
state = "{STATE}"
oom_score = 0
# What the cluster does not use; some of it would look for devices or file systems at every start.
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.internal.v1.opt", "io.containerd.internal.v1.tracing",
  "io.containerd.tracing.processor.v1.otlp"]

[grpc]
  address = "{SOCKET}"

[{cri}]
  sandbox_image = "{PAUSE}"
  restrict_oom_score_adj = {str(restricted).lower()}
  netns_mounts_under_state_dir = true
  disable_apparmor = true
  enable_unprivileged_ports = true
  tolerate_missing_hugetlb_controller = true
  [{cri}.cni]
    bin_dir = "{CNI_PROGRAMS}"
    conf_dir = "{runtime.cni}"
  [{cri}.containerd]
    default_runtime_name = "runc"
    snapshotter = "overlayfs"
    [{cri}.containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      base_runtime_spec = "{specification}"
      [{cri}.containerd.runtimes.runc.options]
        Root = "{RUN_DIRECTORY / "runc"}"
        SystemdCgroup = false
"""
