"""Manifests that can be rendered again as a release of before did.

A kind's `act` renders with all parts. The writer alone knows the template that a workload has in the cluster,
and asks for the one with the same parts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from flotilla_operator.cluster.writes import Parts
from flotilla_operator.objects.resources import Manifest
from flotilla_operator.workloads.images import Images
from flotilla_operator.workloads.template_parts import TemplatePart


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """A manifest with all parts, and how to render it with only some."""

    manifest: Manifest
    parts: Parts

    def changed(self, change: Callable[[Manifest], Manifest]) -> "Rendered":
        """The same with a change that does not depend on the parts."""
        with_only = self.parts.with_only
        parts = Parts(names=self.parts.names, with_only=lambda names: change(with_only(names)))
        return Rendered(manifest=change(self.manifest), parts=parts)


def rendered(render: Callable[[Images], Sequence[Manifest]], images: Images) -> list[Rendered]:
    """The manifests that `render` makes of the images."""
    return [
        Rendered(
            manifest=one, parts=Parts(names=frozenset(images.parts), with_only=_again(one, render, images))
        )
        for one in render(images)
    ]


def _again(
    manifest: Manifest, render: Callable[[Images], Sequence[Manifest]], images: Images
) -> Callable[[frozenset[str]], Manifest]:
    def with_only(names: frozenset[str]) -> Manifest:
        parts = frozenset(part for part in TemplatePart if part in names)
        return next(one for one in render(replace(images, parts=parts)) if _name(one) == _name(manifest))

    return with_only


def _name(manifest: Manifest) -> tuple[str, str]:
    return manifest["kind"], manifest["metadata"]["name"]
