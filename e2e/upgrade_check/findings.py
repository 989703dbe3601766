"""Finds the faults of an upgrade: pods replaced, children written, objects refused, conditions changed."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Manifest = Mapping[str, Any]
CHANGES = frozenset({"create", "update", "patch", "delete", "deletecollection"})
# Resources that an operator writes at any time. Of our own kinds it may write the status alone.
ALWAYS_WRITTEN = frozenset({"leases", "events"})
OURS = frozenset({"modelreplicasets", "vectorindexes", "agentfleets"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """State of a cluster: UIDs of pods by name, and each object's conditions by type.

    A condition is its status and reason. Its message may say more in a later release.
    """

    pods: Mapping[str, str]
    conditions: Mapping[str, Mapping[str, tuple[str, str]]]

    @property
    def waiting(self) -> dict[str, str]:
        """The objects that are not Ready, and the reason."""
        ready = {
            name: found.get("Ready", ("Unknown", "NeverTold")) for name, found in self.conditions.items()
        }
        return {name: reason for name, (status, reason) in ready.items() if status != "True"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """Faults of an upgrade; each line names the object."""

    pods_replaced: list[str] = field(default_factory=list)
    children_written: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    conditions_changed: list[str] = field(default_factory=list)


def sight_of(pods: Iterable[Manifest], objects: Iterable[Manifest]) -> Sight:
    """State of the cluster by these lists; pods whose work is done are left out."""
    return Sight(
        pods={_name(pod): pod["metadata"]["uid"] for pod in pods if _counts(pod)},
        conditions={f"{one['kind']} {_name(one)}": _conditions(one) for one in objects},
    )


def replaced(before: Sight, after: Sight) -> Iterator[str]:
    """The pods that are gone, are others now, or are new."""
    for name in sorted(before.pods.keys() | after.pods.keys()):
        if before.pods.get(name) == after.pods.get(name):
            continue
        what = "is new" if name not in before.pods else "is gone" if name not in after.pods else "is another"
        yield f"pod {name} {what}"


def changed(before: Sight, after: Sight) -> Iterator[str]:
    """The conditions that say something else."""
    for name, said in sorted(before.conditions.items()):
        now = after.conditions.get(name, {})
        for kind in sorted(said.keys() | now.keys()):
            if said.get(kind) != now.get(kind):
                yield f"{name}: {kind} was {_words(said.get(kind))}, is {_words(now.get(kind))}"


def written(audit_events: Iterable[Manifest]) -> Iterator[str]:
    """The successful requests that changed something other than a status, a lease or an event."""
    for event in audit_events:
        target = event.get("objectRef") or {}
        resource = target.get("resource", "")
        is_change = (
            event["stage"] == "ResponseComplete"
            and event["verb"] in CHANGES
            and event["responseStatus"]["code"] < 300
            and "dryRun=" not in event["requestURI"]
        )
        is_told = resource in OURS and target.get("subresource") == "status"
        if is_change and resource not in ALWAYS_WRITTEN and not is_told:
            name = f"{target.get('namespace', '')}/{target.get('name', '')}"
            yield f"{event['verb']} {resource} {name}"


def _counts(pod: Manifest) -> bool:
    return (pod.get("status") or {}).get("phase") != "Succeeded"


def _conditions(one: Manifest) -> dict[str, tuple[str, str]]:
    found = (one.get("status") or {}).get("conditions") or ()
    return {condition["type"]: (condition["status"], condition["reason"]) for condition in found}


def _words(condition: tuple[str, str] | None) -> str:
    return "absent" if condition is None else " ".join(condition)


def _name(manifest: Manifest) -> str:
    return f"{manifest['metadata']['namespace']}/{manifest['metadata']['name']}"
