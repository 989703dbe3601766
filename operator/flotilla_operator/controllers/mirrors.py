"""Decides which resources are kept in the caches, in which namespaces, and how.

kopf watches our own kinds, and a sweeper lists them from time to time. For namespaces and for all resources
that a controller watches, a reflector does both. When the configuration lists namespaces to watch, namespaced
resources are watched only there, except pods and resource claims, which can hold accelerators anywhere.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from flotilla_operator.cluster.caches import Caches
from flotilla_operator.cluster.client import Client
from flotilla_operator.cluster.reflector import Mirror, Reflector, Sweeper
from flotilla_operator.controllers.config import OperatorConfig
from flotilla_operator.controllers.controller import Controller
from flotilla_operator.controllers.wakes import Wakes
from flotilla_operator.objects.resources import (
    NAMESPACES,
    NEVER_WATCHED,
    PODS,
    RESOURCE_CLAIMS,
    Manifest,
    Resource,
)
from flotilla_operator.telemetry.metrics import Metrics

# GPUs in use are counted over all namespaces. Otherwise the operator would give out GPUs that are taken.
EVERYWHERE: Final = frozenset({PODS, RESOURCE_CLAIMS})


@dataclass(frozen=True, slots=True, kw_only=True)
class Mirrors:
    """Everything that keeps the caches equal to the API server."""

    reflectors: Sequence[Reflector]
    sweepers: Sequence[Sweeper]

    @classmethod
    def of(
        cls,
        controllers: Sequence[Controller[Any, Any]],
        config: OperatorConfig,
        caches: Caches,
        client: Client,
        wakes: Wakes,
        metrics: Metrics,
        draw: Callable[[float, float], float] = random.uniform,
    ) -> "Mirrors":
        """A sweeper for each of our kinds, which kopf watches, and a reflector for everything else."""
        ours = {controller.resource for controller in controllers}
        named = {resource for controller in controllers for resource in controller.watches}
        watched = (named | {NAMESPACES}) - ours
        if forbidden := watched & NEVER_WATCHED:
            raise ValueError(f"these must not be listed or watched: {sorted(r.plural for r in forbidden)}")

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
                    quiet=config.restrict.enabled,
                )
                for namespace in ((None,) if everywhere else config.watch_namespaces)
            ]

        reflectors = [
            Reflector(mirror, silence_seconds=config.loop.watch_silence_seconds, draw=draw)
            for resource in sorted(watched, key=lambda resource: resource.plural)
            for mirror in mirrors_of(resource)
        ]
        for resource in watched:
            ages = [r.age_seconds for r in reflectors if r.mirror.resource == resource]
            metrics.watch_age(resource, ages)
        sweepers = [
            Sweeper(mirror, interval_seconds=config.loop.sweep_interval_seconds, draw=draw)
            for resource in sorted(ours, key=lambda resource: resource.plural)
            for mirror in mirrors_of(resource)
        ]
        return cls(reflectors=reflectors, sweepers=sweepers)

    @property
    def watchers(self) -> Sequence[Reflector | Sweeper]:
        """All reflectors and sweepers."""
        return [*self.reflectors, *self.sweepers]

    def feed(self, resource: Resource, event: str | None, manifest: Manifest) -> None:
        """Put an event from kopf into the store; all mirrors of a kind share one, so the first is used."""
        mirror = next(s.mirror for s in self.sweepers if s.mirror.resource == resource)
        if event == "DELETED":
            mirror.remove(manifest)
        else:
            mirror.put(manifest)
