"""Answers of a router's agent, for tests without routers.

Which pods are servers is decided by the router's own code. Drains are acknowledged as they stand on the pods;
load and answers are what the test says.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from flotilla_runtime import contract
from flotilla_runtime.router.pods import Replica, replicas_of


@dataclass(kw_only=True)
class RouterWords:
    """Answers of the routers of a set: `busy` when every replica has a request in flight, `answers` with the
    number of answers and of 5xx among them by revision, `held` for requests that wait for a first replica.
    """

    busy: bool = False
    answers: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    held: int = 0
    idle_seconds: float = 0.0

    def status(self, router: str, leaders: Iterable[Mapping[str, Any]]) -> contract.RouterStatus:
        """The answer of one router, given the pods of the set's first stages."""
        pods = list(leaders)
        replicas = replicas_of(pods)
        revisions = {
            _labels(pod)[contract.LABEL_GROUP]: _labels(pod)[contract.LABEL_REVISION] for pod in pods
        }
        servers = tuple(
            server_of(one, self.answers.get(revisions[one.name], (0, 0)), busy=self.busy)
            for one in replicas.usable
        )
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
            unusable=dict(replicas.unusable),
        )


def server_of(replica: Replica, answered: tuple[int, int], *, busy: bool) -> contract.RouterServer:
    """A router's words on a replica; `answered` are its answers and the 5xx among them."""
    count, failed = answered
    return contract.RouterServer(
        name=replica.name,
        id=replica.id,
        address=replica.ip,
        state=replica.state,
        in_flight=int(busy),
        queued=0,
        acknowledged_drain_epoch=replica.drain_epoch,
        idle_looks=0 if replica.drain_epoch is None or busy else 2,
        answers=count,
        failed=failed,
        kept=count - failed,
    )


def _labels(pod: Mapping[str, Any]) -> Mapping[str, str]:
    labels: Mapping[str, str] = pod["metadata"]["labels"]
    return labels
