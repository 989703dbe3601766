"""A program that watches engine pods, and prints the time at which a number of them were bound at once.

It is a process of its own, so that the work of operator and client does not delay the measurement. A pod that
is deleted no longer counts, so a group that was released and created again counts once. It prints "watching"
when its watch has begun, then one JSON object with the monotonic time at which `--count` pods were bound.
"""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from flotilla_operator.cluster.client import Client
from flotilla_operator.cluster.connection import HttpConnection, load_configuration
from flotilla_operator.objects.resources import PODS, Manifest

SILENCE_SECONDS = 600.0


@dataclass(slots=True)
class BoundEngines:
    """The engine pods with a group's label that have a node and are not being deleted."""

    uids: set[str] = field(default_factory=set)

    def replace(self, pods: Iterable[Manifest]) -> None:
        """Start again from a list of all pods."""
        self.uids = {pod["metadata"]["uid"] for pod in pods if _is_bound_engine(pod)}

    def take(self, event: Manifest) -> None:
        """Apply one event of the watch."""
        if event["type"] not in ("ADDED", "MODIFIED", "DELETED"):
            return
        pod = event["object"]
        if event["type"] != "DELETED" and _is_bound_engine(pod):
            self.uids.add(pod["metadata"]["uid"])
        else:
            self.uids.discard(pod["metadata"]["uid"])


async def bound_at(kubeconfig: Path, namespace: str, count: int) -> float:
    """The monotonic time, in seconds, at which this many pods were bound."""
    client = Client(HttpConnection(await load_configuration(kubeconfig)))
    bound = BoundEngines()
    try:
        pods, version = await client.list_all(PODS, namespace)
        print("watching", flush=True)
        while True:
            bound.replace(pods)
            if len(bound.uids) >= count:
                return time.monotonic()
            async for event in client.watch(
                PODS, namespace, version, server_timeout_seconds=600, silence_seconds=SILENCE_SECONDS
            ):
                bound.take(event)
                if len(bound.uids) >= count:
                    return time.monotonic()
            pods, version = await client.list_all(PODS, namespace)
    finally:
        await client.close()


def _is_bound_engine(pod: Manifest) -> bool:
    metadata = pod["metadata"]
    is_engine = "flotilla.dev/stage" in (metadata.get("labels") or {})
    return is_engine and bool(pod["spec"].get("nodeName")) and "deletionTimestamp" not in metadata


def main() -> int:
    """Watch, and print the time."""
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
