"""The RuntimeClasses and PriorityClasses that the options of pods name, and those that do not exist.

Admission refuses pods that name a class that does not exist. The API server tells that to whoever creates the
pods: for a Deployment, a StatefulSet or a Job that is a controller of Kubernetes, and no user. So the
operator looks for the classes itself.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from flotilla_operator.api.pods import PodOptions
from flotilla_operator.cluster.caches import Caches
from flotilla_operator.objects.resources import PRIORITY_CLASSES, RUNTIME_CLASSES, Reference, Resource


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedClass:
    """A class that a field names."""

    field: str
    resource: Resource
    name: str

    @property
    def reference(self) -> Reference:
        """The reference by which a change of the class wakes the object."""
        return Reference(self.resource, "", self.name)

    @property
    def missing(self) -> str:
        """Message for a class that does not exist."""
        return f"{self.field}: there is no {self.resource.kind} {self.name!r}; create it or name another"


def runtime_class(path: str, name: str | None) -> Iterator[NamedClass]:
    """The RuntimeClass that the options at a path name, if any."""
    if name is not None:
        yield NamedClass(field=f"{path}.runtimeClassName", resource=RUNTIME_CLASSES, name=name)


def classes_of(path: str, options: PodOptions) -> Iterator[NamedClass]:
    """The classes that the options at a path name."""
    yield from runtime_class(path, options.runtime_class_name)
    if options.priority_class_name is not None:
        field = f"{path}.priorityClassName"
        yield NamedClass(field=field, resource=PRIORITY_CLASSES, name=options.priority_class_name)


def missing_of(named: Iterable[NamedClass], caches: Caches) -> Iterator[NamedClass]:
    """The classes that do not exist."""
    return (one for one in named if caches.get(one.resource, "", one.name) is None)
