"""World for `observe`: the manifests of a cluster, secrets by name, the operator's configuration."""

from collections.abc import Iterable, Mapping
from typing import Any

from flotilla_operator.cluster.caches import Caches
from flotilla_operator.cluster.queue import KeyedQueue
from flotilla_operator.controllers.config import OperatorConfig, parse_config
from flotilla_operator.controllers.controller import Secret, World
from flotilla_operator.controllers.steering import Decisions, SteeringLoop
from flotilla_operator.objects import send_to, used_by
from flotilla_operator.objects.resources import NODES
from flotilla_operator.telemetry.measurements import Measurements
from tests.builders.pods import NOW

IMAGES = {name: f"registry.example/{name}:1" for name in ("runtime", "haproxy", "redis", "milvus", "engine")}
CONFIG = parse_config({"images": IMAGES})
RESTRICTED = parse_config({"images": IMAGES, "restrict": {"enabled": True}})
Entries = Mapping[str, str | bytes]


class Secrets:
    """Secrets of the namespace default by name, all of one controller, and the names that were asked for.

    An entry with the name of the annotation `flotilla.dev/send-to` or `…/used-by` becomes that annotation.
    """

    def __init__(self, entries: Mapping[str, Entries], controller_uid: str | None = None) -> None:
        self.entries = entries
        self.controller_uid = controller_uid
        self.asked: list[str] = []

    async def get(self, namespace: str, name: str, *, owned_by: str | None = None) -> Secret | None:
        self.asked.append(name)
        if namespace != "default" or name not in self.entries:
            return None
        values = self.entries[name].items()
        data = {key: value.encode() if isinstance(value, str) else value for key, value in values}
        notes = {note: data.pop(note, None) for note in (send_to.ANNOTATION, used_by.ANNOTATION)}
        said = {note: None if text is None else text.decode() for note, text in notes.items()}
        return Secret(
            name=name,
            uid=f"uid-{name}",
            resource_version="7",
            data=data,
            controller_uid=self.controller_uid,
            send_to=said[send_to.ANNOTATION],
            used_by=said[used_by.ANNOTATION],
        )


class NothingDecided:
    """No steering loop runs."""

    def last(self, uid: str) -> None:
        return None


class AllAreGone:
    """Every node that is asked for and is not in the cache has been missed for long enough."""

    def __init__(self, caches: Caches) -> None:
        self._caches = caches
        self._names: set[str] = set()

    async def look_for(self, names: Iterable[str]) -> None:
        self._names |= set(names)

    def gone(self) -> frozenset[str]:
        return frozenset(name for name in self._names if self._caches.get(NODES, "", name) is None)


class NoneIsGone:
    """No node was missed for long."""

    async def look_for(self, names: Iterable[str]) -> None:
        """Ask nobody."""

    def gone(self) -> frozenset[str]:
        return frozenset()


def steering_loop(queue: KeyedQueue | None = None, measurements: Measurements | None = None) -> SteeringLoop:
    """The loop with a clock that stands."""
    return SteeringLoop(
        measurements or Measurements(),
        queue or KeyedQueue(),
        figures_interval_seconds=10.0,
        now=lambda: NOW,
        monotonic=lambda: 0.0,
    )


def world(
    *manifests: dict[str, Any],
    secrets: Secrets | None = None,
    measurements: Measurements | None = None,
    config: OperatorConfig = CONFIG,
    decisions: Decisions | None = None,
) -> World:
    caches = Caches.of(*manifests)
    return World(
        caches=caches,
        measurements=measurements or Measurements(),
        config=config,
        secrets=secrets or Secrets({}),
        decisions=decisions or NothingDecided(),
        absent_nodes=AllAreGone(caches),
        steady=lambda: 0.0,
    )
