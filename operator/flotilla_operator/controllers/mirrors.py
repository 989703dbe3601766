"""Which resources are kept in the caches, where, and by what.

kopf watches our own kinds and a sweeper lists them now and then; a reflector does both for namespaces and for
everything that a controller names. With a list of namespaces to watch, namespaced resources are watched in
those alone, but for what holds accelerators: pods and resource claims.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from flotilla_operator.cluster.caches import Caches
from flotilla_operator.cluster.client import Client
from flotilla_operator.cluster.reflector import Mirror, Reflector, Sweeper
from flotilla_operator.cluster.resources import (
    NAMESPACES,
    NEVER_WATCHED,
    PODS,
    RESOURCE_CLAIMS,
    Resource,
)
from flotilla_operator.cluster.writes import Manifest
from flotilla_operator.controllers.config import OperatorConfig
from flotilla_operator.controllers.controller import Controller
from flotilla_operator.controllers.wakes import Wakes
from flotilla_operator.telemetry.metrics import Metrics

# GPUs are counted over every namespace, or two teams would be given the same one.
EVERYWHERE: Final = frozenset({PODS, RESOURCE_CLAIMS})


@dataclass(frozen=True, slots=True, kw_only=True)
class Mirrors:
    """Everything that keeps the caches equal to the API server."""

    reflectors: Sequence[Reflector]
    sweepers: Sequence[Sweeper]

    @classmethod
    def of(
        cls,
        controllers: Sequence[Controller[Any]],
        config: OperatorConfig,
        caches: Caches,
        client: Client,
        wakes: Wakes,
        metrics: Metrics,
    ) -> "Mirrors":
        """A sweeper for each of our kinds, which kopf watches, and a reflector for everything else."""
        ours = {controller.resource for controller in controllers}
        named = {resource for controller in controllers for resource in controller.watches}
        watched = (named | {NAMESPACES}) - ours
        if forbidden := watched & NEVER_WATCHED:
            raise ValueError(f"never listed or watched: {sorted(r.plural for r in forbidden)}")

        def mirrors_of(resource: Resource) -> list[Mirror]:
            everywhere = not config.watch_namespaces or resource in EVERYWHERE or not resource.namespaced
            return [
                Mirror(
                    resource=resource,
                    store=caches.store(resource),
                    client=client,
                    on_change=wakes.changed,
                    namespace=namespace,
                    observer=metrics,
                )
                for namespace in ((None,) if everywhere else config.watch_namespaces)
            ]

        reflectors = [
            Reflector(mirror, silence_seconds=config.loop.watch_silence_seconds)
            for resource in sorted(watched, key=lambda resource: resource.plural)
            for mirror in mirrors_of(resource)
        ]
        for resource in watched:
            ages = [r.age_seconds for r in reflectors if r.mirror.resource == resource]
            metrics.watch_age(resource, ages)
        sweepers = [
            Sweeper(mirror, interval_seconds=config.loop.sweep_interval_seconds)
            for resource in sorted(ours, key=lambda resource: resource.plural)
            for mirror in mirrors_of(resource)
        ]
        return cls(reflectors=reflectors, sweepers=sweepers)

    @property
    def watchers(self) -> Sequence[Reflector | Sweeper]:
        """All of them."""
        return [*self.reflectors, *self.sweepers]

    def feed(self, resource: Resource, event: str | None, manifest: Manifest) -> None:
        """Take what kopf saw; any mirror of the kind will do, they share one store."""
        mirror = next(s.mirror for s in self.sweepers if s.mirror.resource == resource)
        if event == "DELETED":
            mirror.remove(manifest)
        else:
            mirror.put(manifest)
