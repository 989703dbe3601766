"""What a router's agent answers, for tests without routers.

Drains are acknowledged as they stand on the engine pods; load and answers are what the test says.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from flotilla_runtime import contract


@dataclass(kw_only=True)
class RouterWords:
    """What the routers of a set say: `busy` when every replica has a request in flight, `answers` with the
    number of answers and of 5xx among them by revision, `held` for requests that wait for a first replica.
    """

    busy: bool = False
    answers: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    held: int = 0
    idle_seconds: float = 0.0

    def status(self, router: str, leaders: Iterable[Mapping[str, Any]]) -> contract.RouterStatus:
        """The answer of one router, given the pods of the set's first stages."""
        servers = tuple(server_of(pod, self.answers, busy=self.busy) for pod in leaders)
        return contract.RouterStatus(
            name=router,
            synced=True,
            draining=False,
            live_routers=1,
            waiting=0,
            held=self.held,
            in_flight=sum(server.in_flight for server in servers),
            idle_seconds=self.idle_seconds,
            max_connections_per_replica=9,
            queue_limit=9,
            servers=servers,
            refused={},
            unusable={},
        )


def server_of(
    pod: Mapping[str, Any], answers: Mapping[str, tuple[int, int]], *, busy: bool
) -> contract.RouterServer:
    """What a router says of the group that this pod leads."""
    metadata = pod["metadata"]
    annotations, labels = metadata["annotations"], metadata["labels"]
    epoch = annotations.get(contract.ANNOTATION_DRAIN_EPOCH)
    count, failed = answers.get(labels[contract.LABEL_REVISION], (0, 0))
    return contract.RouterServer(
        name=labels[contract.LABEL_GROUP],
        id=int(annotations[contract.ANNOTATION_SERVER_ID]),
        address=pod["status"].get("podIP", ""),
        state=contract.ServerState.READY if epoch is None else contract.ServerState.DRAINING,
        in_flight=int(busy),
        queued=0,
        acknowledged_drain_epoch=None if epoch is None else int(epoch),
        idle_looks=0 if epoch is None or busy else 2,
        answers=count,
        failed=failed,
        kept=count - failed,
    )
