"""`python -m local_cluster`: up, down, status, build, prerequisites."""

import argparse
import sys
import time

from local_cluster import cluster, prerequisites
from local_cluster.binaries import TOOLS, binary
from local_cluster.embedded import EmbeddedCluster
from local_cluster.errors import LocalClusterError
from local_cluster.progress import Progress

DEFAULT_GPU_NODES = 2


def main() -> int:
    """Run one command; what went wrong is printed, not traced."""
    arguments = _parser().parse_args()
    try:
        status: int = arguments.command(arguments)
    except LocalClusterError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="local_cluster", description="A local Kubernetes for Flotilla.")
    commands = parser.add_subparsers(required=True)
    up = commands.add_parser("up", help="start the cluster, or what of it does not run")
    up.add_argument("--gpu-nodes", type=int, default=DEFAULT_GPU_NODES, help="KWOK nodes with 8 GPUs each")
    up.add_argument("--dual-stack", action="store_true", help="IPv6 beside IPv4, for a new cluster")
    up.set_defaults(command=_up)
    commands.add_parser("down", help="take it off the machine").set_defaults(command=_down)
    commands.add_parser("status", help="what runs, and where the kubeconfig is").set_defaults(command=_status)
    build = commands.add_parser("build", help="build the programs that are not in the cache")
    build.add_argument("tools", nargs="*", metavar="TOOL", help=f"of {', '.join(TOOLS)}; all by default")
    build.set_defaults(command=_build)
    needs = commands.add_parser("prerequisites", help="what the machine lacks")
    needs.add_argument("--install", action="store_true", help="install it (root on Debian)")
    needs.add_argument("--demo", action="store_true", help="for the demo alone, not for the tests")
    needs.set_defaults(command=_prerequisites)
    return parser


def _up(arguments: argparse.Namespace) -> int:
    started = time.monotonic()
    kubeconfig = cluster.up(gpu_node_count=arguments.gpu_nodes, dual_stack=arguments.dual_stack)
    print(
        f"\nThe cluster is up after {time.monotonic() - started:.0f} s.\n\n  export KUBECONFIG={kubeconfig}\n"
    )
    return 0


def _down(_: argparse.Namespace) -> int:
    cluster.down()
    return 0


def _status(_: argparse.Namespace) -> int:
    print("\n".join(cluster.status()))
    return 0 if cluster.running() else 3


def _build(arguments: argparse.Namespace) -> int:
    unknown = sorted(set(arguments.tools) - TOOLS.keys())
    if unknown:
        print(f"No such tool: {', '.join(unknown)}. There are {', '.join(TOOLS)}.", file=sys.stderr)
        return 2
    for name in arguments.tools or TOOLS:
        print(binary(name, progress=Progress()))
    return 0


def _prerequisites(arguments: argparse.Namespace) -> int:
    required, welcome = prerequisites.TEST_NEEDS, prerequisites.DOCUMENTS
    if arguments.demo:
        required = prerequisites.demo_needs(embedded=isinstance(cluster.local_cluster(), EmbeddedCluster))
    packages = prerequisites.missing_packages((*required, *welcome))
    if packages and arguments.install and prerequisites.can_install():
        print(f"Installing {' '.join(packages)}")
        prerequisites.install(packages)
    packages = prerequisites.missing_packages(required)
    toolchain = prerequisites.missing_toolchain()
    for line in toolchain:
        print(f"Missing: {line}")
    if packages:
        print(f"Missing packages. As root: {prerequisites.install_command(packages)}")
    return 1 if packages or toolchain else 0


if __name__ == "__main__":
    sys.exit(main())
