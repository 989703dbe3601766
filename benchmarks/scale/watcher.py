"""As a program: watches engine pods, and says when so many of them stood bound at once.

It is a process of its own, so neither side's work delays the clock. A pod that goes away again counts no
more, so a group that was released and made anew counts once. Prints "watching" once the watch stands, then
one JSON object with the machine's monotonic time at which `--count` pods were bound.
"""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from flotilla_operator.cluster.client import Client, load_configuration
from flotilla_operator.cluster.resources import PODS
from flotilla_operator.cluster.writes import Manifest

SILENCE_SECONDS = 600.0


@dataclass(slots=True)
class BoundEngines:
    """The engine pods with a group's label that have a node and stay."""

    uids: set[str] = field(default_factory=set)

    def replace(self, pods: Iterable[Manifest]) -> None:
        """These are all the pods there are."""
        self.uids = {pod["metadata"]["uid"] for pod in pods if _is_bound_engine(pod)}

    def take(self, event: Manifest) -> None:
        """One event of the watch."""
        if event["type"] not in ("ADDED", "MODIFIED", "DELETED"):
            return
        pod = event["object"]
        if event["type"] != "DELETED" and _is_bound_engine(pod):
            self.uids.add(pod["metadata"]["uid"])
        else:
            self.uids.discard(pod["metadata"]["uid"])


async def bound_at(kubeconfig: Path, namespace: str, count: int) -> float:
    """Monotonic seconds at which so many pods stood bound."""
    client = Client(await load_configuration(kubeconfig))
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
