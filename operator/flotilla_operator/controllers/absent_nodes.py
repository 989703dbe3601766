"""Finds out whether a node that the cache lacks is really gone.

Caches of different kinds lag differently: a pod may be seen on a node that the cache does not have yet. What
is done about a lost node cannot be taken back, so a node counts as gone only when it was missed for 40
seconds and the API server says that there is none. Kubernetes waits as long before it removes the pods.
"""

from collections.abc import Callable, Iterable
from typing import Final, Protocol

import structlog

from flotilla_operator.cluster.caches import Caches
from flotilla_operator.cluster.client import ApiError, Client
from flotilla_operator.objects.resources import NODES

MISSED_FOR_SECONDS: Final = 40.0
FORGOTTEN_AFTER_SECONDS: Final = 3600.0  # a node that no pod names any more
NOT_FOUND: Final = 404

log = structlog.get_logger(__name__)


class AbsentNodes(Protocol):
    """Says which nodes are gone."""

    async def look_for(self, names: Iterable[str]) -> None:
        """Note which of these nodes the cache lacks, and ask for those that it has lacked for long."""

    def gone(self) -> frozenset[str]:
        """All nodes of which it is known that they do not exist."""


class AbsentNodesByCache:
    """The nodes that pods name and the cache lacks, each with the time since which it is missed."""

    def __init__(self, client: Client, caches: Caches, *, clock: Callable[[], float]) -> None:
        self._client = client
        self._caches = caches
        self._clock = clock
        self._missed_since: dict[str, float] = {}
        self._named_at: dict[str, float] = {}
        self._gone: set[str] = set()

    async def look_for(self, names: Iterable[str]) -> None:
        """Note which of these nodes the cache lacks, and ask for those that it has lacked for long."""
        self._forget_old()
        for name in sorted(set(names)):
            if self._caches.get(NODES, "", name) is not None:
                self._forget(name)
                continue
            self._named_at[name] = self._clock()
            since = self._missed_since.setdefault(name, self._clock())
            if name not in self._gone and self._clock() - since >= MISSED_FOR_SECONDS:
                await self._ask_for(name)

    def gone(self) -> frozenset[str]:
        """All nodes of which it is known that they do not exist."""
        for name in [name for name in self._missed_since if self._caches.get(NODES, "", name) is not None]:
            self._forget(name)
        return frozenset(self._gone)

    async def _ask_for(self, name: str) -> None:
        try:
            node = await self._client.get(NODES, "", name)
        except ApiError as error:
            if error.status != NOT_FOUND:
                raise
            log.info("node_gone", name=name)
            self._gone.add(name)
            return
        self._caches.store(NODES).put(node)
        self._forget(name)

    def _forget_old(self) -> None:
        """Clusters that scale lose nodes all the time; those that nobody asks about are kept for an hour."""
        before = self._clock() - FORGOTTEN_AFTER_SECONDS
        for name in [name for name, at in self._named_at.items() if at < before]:
            self._forget(name)

    def _forget(self, name: str) -> None:
        self._missed_since.pop(name, None)
        self._named_at.pop(name, None)
        self._gone.discard(name)
