"""A program that runs a router's agent on one loopback address, as a pod has an address of its own."""

import argparse
import asyncio
import sys
from pathlib import Path

from flotilla_runtime.contract import RouterConfig
from flotilla_runtime.router.__main__ import run_agent
from flotilla_runtime.router.pod_watch import KubernetesAccess


def main() -> int:
    """Run one agent."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--api", required=True)
    parser.add_argument("--token", type=Path)
    parser.add_argument("--authority", type=Path)
    parser.add_argument("--pod", required=True)
    parser.add_argument("--address", required=True)
    options = parser.parse_args()
    config = RouterConfig.model_validate_json(options.config.read_text())
    access = KubernetesAccess(url=options.api, token_path=options.token, certificate_path=options.authority)
    asyncio.run(run_agent(config, access, own_pod=options.pod, address=options.address))
    return 0


if __name__ == "__main__":
    sys.exit(main())
