"""A program that is the baseline: a bare client that POSTs the pods over 32 connections.

It reads the manifests from a file and prints one JSON object with the monotonic time of its first request.
"""

import argparse
import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

from flotilla_operator.cluster.client import Client
from flotilla_operator.cluster.connection import HttpConnection, load_configuration
from flotilla_operator.objects.resources import PODS

CONNECTIONS = 32


async def post_all(kubeconfig: Path, pods: list[dict[str, Any]]) -> float:
    """Create every pod; returns the monotonic time of the first request in seconds."""
    configuration = await load_configuration(kubeconfig)
    configuration.connection_pool_maxsize = CONNECTIONS
    client = Client(HttpConnection(configuration))
    waiting = iter(pods)

    async def post() -> None:
        for pod in waiting:
            await client.create(PODS, pod)

    started = time.monotonic()
    try:
        await asyncio.gather(*(post() for _ in range(CONNECTIONS)))
    finally:
        await client.close()
    return started


def main() -> int:
    """Create the pods, and print the time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kubeconfig", type=Path, required=True)
    parser.add_argument("--pods", type=Path, required=True)
    options = parser.parse_args()
    pods = json.loads(options.pods.read_text())
    print(json.dumps({"started_at": asyncio.run(post_all(options.kubeconfig, pods))}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
