"""As a program: watches engine pods, and says when the last of so many was bound.

It is a process of its own, so neither side's work delays the clock. Prints "watching" once the watch stands,
then one JSON object with the machine's monotonic time at which `--count` pods were bound.
"""

import argparse
import asyncio
import json
import sys
import time
from pathlib import Path

from flotilla_operator.cluster.client import Client, load_configuration
from flotilla_operator.cluster.resources import PODS
from flotilla_operator.cluster.writes import Manifest

SILENCE_SECONDS = 600.0


async def bound_at(kubeconfig: Path, namespace: str, count: int) -> float:
    """Monotonic seconds at which so many pods with a group's label had a node."""
    client = Client(await load_configuration(kubeconfig))
    bound: set[str] = set()
    try:
        pods, version = await client.list_all(PODS, namespace)
        print("watching", flush=True)
        while True:
            bound |= {pod["metadata"]["uid"] for pod in pods if _is_bound_engine(pod)}
            async for event in client.watch(
                PODS, namespace, version, server_timeout_seconds=600, silence_seconds=SILENCE_SECONDS
            ):
                if event["type"] == "MODIFIED" and _is_bound_engine(event["object"]):
                    bound.add(event["object"]["metadata"]["uid"])
                if len(bound) >= count:
                    return time.monotonic()
            pods, version = await client.list_all(PODS, namespace)
    finally:
        await client.close()


def _is_bound_engine(pod: Manifest) -> bool:
    return "flotilla.dev/stage" in (pod["metadata"].get("labels") or {}) and bool(pod["spec"].get("nodeName"))


def main() -> int:
    """Watch and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kubeconfig", type=Path, required=True)
    parser.add_argument("--namespace", required=True)
    parser.add_argument("--count", type=int, required=True)
    options = parser.parse_args()
    at = asyncio.run(bound_at(options.kubeconfig, options.namespace, options.count))
    print(json.dumps({"bound_at": at}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
