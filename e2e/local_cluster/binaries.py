"""The cluster's programs, built from pinned Go modules and cached by version.

Each folder under e2e/tools is a Go module; its go.mod pins the version and its go.sum the content. When
several processes want a program at once, one builds it and the others wait at a file lock. Where
KUBEBUILDER_ASSETS is set (controller-runtime's convention for API server tests), its binaries are used.
"""

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from local_cluster.declared import check_declared
from local_cluster.directories import CHECKOUT, Directories, directories
from local_cluster.errors import BuildFailed
from local_cluster.progress import Progress

TOOLS_DIRECTORY = CHECKOUT / "e2e" / "tools"
ASSETS_VARIABLE = "KUBEBUILDER_ASSETS"
BUILD_TIMEOUT_SECONDS = 3600
OWN_VERSION = "1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A program: its Go package, the module folder to build in, and the dependency that gives its version.

    A program without `pinned` is our own source and has our own version.
    """

    name: str
    folder: str
    package: str
    pinned: str = ""
    program: str = ""
    in_assets: bool = False

    @property
    def file_name(self) -> str:
        """The program's file name, which is not the tool's name when there are two versions of a program."""
        return self.program or self.name

    @property
    def module(self) -> Path:
        """The Go module that pins the tool and everything below it."""
        return TOOLS_DIRECTORY / self.folder

    def version(self) -> str:
        """The pinned version, without the v."""
        if not self.pinned:
            return OWN_VERSION
        pattern = rf"^\s*(?:require\s+)?{re.escape(self.pinned)} v(\S+)"
        found = re.search(pattern, (self.module / "go.mod").read_text(), re.MULTILINE)
        if found is None:
            raise BuildFailed(
                part=self.name,
                problem=f"{self.module}/go.mod does not require {self.pinned}",
                fix=f"Add the requirement: cd {self.module} && go get {self.pinned}@VERSION",
            )
        return found.group(1)


def _kubernetes(name: str, *, in_assets: bool = False) -> Tool:
    return Tool(
        name=name,
        folder="kubernetes",
        package=f"k8s.io/kubernetes/cmd/{name}",
        pinned="k8s.io/kubernetes",
        in_assets=in_assets,
    )


TOOLS: Mapping[str, Tool] = {
    tool.name: tool
    for tool in (
        Tool(
            name="etcd",
            folder="etcd",
            package="go.etcd.io/etcd/server/v3",
            pinned="go.etcd.io/etcd/server/v3",
            in_assets=True,
        ),
        _kubernetes("kube-apiserver", in_assets=True),
        Tool(
            name="kube-apiserver-newest",
            folder="kube-apiserver-newest",
            package="k8s.io/kubernetes/cmd/kube-apiserver",
            pinned="k8s.io/kubernetes",
            program="kube-apiserver",
        ),
        _kubernetes("kubectl", in_assets=True),
        _kubernetes("kube-controller-manager"),
        _kubernetes("kube-scheduler"),
        _kubernetes("kubelet"),
        _kubernetes("kube-proxy"),
        Tool(
            name="kwok",
            folder="kwok",
            package="sigs.k8s.io/kwok/cmd/kwok",
            pinned="sigs.k8s.io/kwok",
        ),
        Tool(
            name="karpenter-kwok",
            folder="karpenter-kwok",
            package="sigs.k8s.io/karpenter/kwok",
            pinned="sigs.k8s.io/karpenter",
        ),
        Tool(
            name="argocd",
            folder="argocd",
            package="github.com/argoproj/argo-cd/v3/cmd",
            pinned="github.com/argoproj/argo-cd/v3",
        ),
        Tool(name="helm", folder="helm", package="helm.sh/helm/v3/cmd/helm", pinned="helm.sh/helm/v3"),
        Tool(name="coredns", folder="coredns", package=".", pinned="github.com/coredns/coredns"),
        Tool(
            name="local-path-provisioner",
            folder="local-path-provisioner",
            package="github.com/rancher/local-path-provisioner",
            pinned="github.com/rancher/local-path-provisioner",
        ),
        Tool(name="pause", folder="pause", package="."),
        Tool(
            name="versitygw",
            folder="versitygw",
            package="github.com/versity/versitygw/cmd/versitygw",
            pinned="github.com/versity/versitygw",
        ),
    )
}


# Programs that the cluster does not need; the tiers whose tests need one declare it (e2e/tiers/tiers.py).
FOR_SINGLE_TESTS = frozenset({"kube-apiserver-newest", "karpenter-kwok", "argocd", "versitygw"})
CLUSTER_TOOLS = tuple(name for name in TOOLS if name not in FOR_SINGLE_TESTS)


def binary(name: str, *, progress: Progress | None = None) -> Path:
    """The program's path; builds the program when the cache does not have the pinned version."""
    tool = TOOLS[name]
    assets = os.environ.get(ASSETS_VARIABLE)
    if tool.in_assets and assets and (Path(assets) / tool.file_name).is_file():
        return Path(assets) / tool.file_name
    check_declared(name)
    target = _target(tool, directories())
    if target.is_file():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with locked(target.parent.with_suffix(target.parent.suffix + ".lock")):
        if not target.is_file():
            shown = progress or Progress(out=sys.stderr)
            with shown.step(f"build {tool.name} {tool.version()}"):
                _build(tool, target)
    return target


def missing_binaries() -> tuple[str, ...]:
    """Tools that the next start of a full cluster would have to build."""
    return tuple(name for name in CLUSTER_TOOLS if not _target(TOOLS[name], directories()).is_file())


def module_directory(tool: Tool) -> Path:
    """The source of the tool's pinned module in Go's cache; it holds the program's manifests."""
    told = _run_go(tool, ["mod", "download"], ["-json"], tool.pinned)
    return Path(json.loads(told)["Dir"])


def _target(tool: Tool, places: Directories) -> Path:
    return places.binaries / f"{tool.name}-{tool.version()}" / tool.file_name


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock, so that callers in this and other processes run the block one after the other."""
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _go(tool: Tool) -> str:
    go = shutil.which("go")
    if go is None:
        raise BuildFailed(
            part=tool.name,
            problem="the program must be built, and there is no `go` in PATH",
            fix="Install Go 1.26 or newer (https://go.dev/dl), or set KUBEBUILDER_ASSETS.",
        )
    return go


def _build(tool: Tool, target: Path) -> None:
    partial = target.with_suffix(".part")
    options = ["-trimpath", f"-ldflags={_linker_flags(tool)}", "-o", str(partial)]
    _run_go(tool, ["build"], options, tool.package)
    partial.rename(target)


def _run_go(tool: Tool, command: list[str], options: list[str], subject: str) -> str:
    """The output of a `go` command in the tool's module; a failure raises BuildFailed."""
    result = subprocess.run(
        [_go(tool), *command, *options, subject],
        cwd=tool.module,
        env={**os.environ, "CGO_ENABLED": "0"},
        capture_output=True,
        text=True,
        timeout=BUILD_TIMEOUT_SECONDS,
        check=False,
    )
    if result.returncode != 0:
        by_hand = " ".join(["go", *command])
        raise BuildFailed(
            part=tool.name,
            problem=f"`{by_hand}` ended with exit status {result.returncode}:\n{result.stderr[-2000:]}",
            fix=f"To see the whole output, run: cd {tool.module} && {by_hand} {subject}",
        )
    return result.stdout


def _linker_flags(tool: Tool) -> str:
    if tool.pinned != "k8s.io/kubernetes":
        return "-s -w"
    version = tool.version()
    major, minor, _ = version.split(".", 2)
    variable = "-X k8s.io/component-base/version"
    return f"-s -w {variable}.gitVersion=v{version} {variable}.gitMajor={major} {variable}.gitMinor={minor}"
