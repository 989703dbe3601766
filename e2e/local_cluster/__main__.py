"""The command line `python -m local_cluster`: up, down, status, build, prerequisites."""

import argparse
import sys
import time

from local_cluster import cluster, prerequisites
from local_cluster.binaries import CLUSTER_TOOLS, TOOLS, binary
from local_cluster.embedded import EmbeddedCluster
from local_cluster.errors import LocalClusterError
from local_cluster.progress import Progress

DEFAULT_GPU_NODES = 2


def main() -> int:
    """Run one command; the message of a LocalClusterError is printed without a traceback."""
    arguments = _parser().parse_args()
    try:
        status: int = arguments.command(arguments)
    except LocalClusterError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m local_cluster",
        description="Starts and stops a local Kubernetes cluster for Flotilla.",
    )
    commands = parser.add_subparsers(required=True)
    up = commands.add_parser("up", help="start the cluster, or those of its parts that are not running")
    up.add_argument(
        "--gpu-nodes",
        type=int,
        default=DEFAULT_GPU_NODES,
        help=f"how many simulated nodes with 8 GPUs each to create with KWOK (default: {DEFAULT_GPU_NODES})",
    )
    up.add_argument(
        "--dual-stack",
        action="store_true",
        help="use IPv6 beside IPv4; has an effect only when the cluster is created",
    )
    up.set_defaults(command=_up)
    down = commands.add_parser("down", help="remove the cluster from this machine")
    down.set_defaults(command=_down)
    status = commands.add_parser(
        "status", help="print which parts are running, and the path of the kubeconfig"
    )
    status.set_defaults(command=_status)
    build = commands.add_parser("build", help="build the cluster's programs that are not in the cache")
    build.add_argument(
        "tools",
        nargs="*",
        metavar="TOOL",
        help=f"one of {', '.join(TOOLS)}; without a name, those of the cluster",
    )
    build.set_defaults(command=_build)
    needs = commands.add_parser("prerequisites", help="print the Debian packages that this machine lacks")
    needs.add_argument("--install", action="store_true", help="install them (needs root on Debian)")
    needs.add_argument("--demo", action="store_true", help="only those of the demo, not those of the tests")
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
        print(f"Unknown tool: {', '.join(unknown)}. Choose from {', '.join(TOOLS)}.", file=sys.stderr)
        return 2
    for name in arguments.tools or CLUSTER_TOOLS:
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
        print(f"Packages are missing. Run this as root: {prerequisites.install_command(packages)}")
    return 1 if packages or toolchain else 0


if __name__ == "__main__":
    sys.exit(main())
