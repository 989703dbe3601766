"""The scheduler: binds pods to nodes that have room, as their node selectors, affinities and taints allow.

It does not preempt: that is tested against the real one.
"""

import copy
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from flotilla_operator.objects.quantities import amounts
from flotilla_operator.objects.resources import NODES, PERSISTENT_VOLUME_CLAIMS, PODS, Manifest
from flotilla_operator.placement.manifests import FINISHED, pod_requests
from tests.scenes.parts.part import Cluster, Part, is_ready

KEEPS_AWAY = ("NoSchedule", "NoExecute")
NOT_READY = "node.kubernetes.io/unreachable"


class Scheduler(Part):
    """Looks at all pods that wait for a node, the oldest first."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster)
        self._paused = False

    def pause(self) -> None:
        """Bind nothing for now."""
        self._paused = True

    def go_on(self) -> None:
        """Bind what waits."""
        self._paused = False
        self.wake()

    def look(self) -> None:
        if self._paused:
            return
        pods = self.api.listed(PODS)
        used = _used(pods)
        for pod in sorted(pods, key=lambda one: int(one["metadata"]["uid"].rpartition("-")[2])):
            if _waits(pod):
                self._place(pod, used)

    def _place(self, pod: Manifest, used: dict[str, Counter[str]]) -> None:
        wanted = pod_requests(pod["spec"])
        if not self._has_claims(pod):
            self._say_unschedulable(pod, "pod has unbound immediate PersistentVolumeClaims")
            return
        for node in self.api.listed(NODES):
            name = node["metadata"]["name"]
            taken = used.setdefault(name, Counter())
            if _may_run(pod["spec"], node) and _fits(wanted, taken, node):
                taken.update(wanted)
                changed = copy.deepcopy(pod)
                changed["spec"]["nodeName"] = name
                changed["status"]["conditions"] = self.cluster.condition(pod, "PodScheduled", "True")
                self.api.change(PODS, pod, changed)
                return
        self._say_unschedulable(pod, f"0/{len(self.api.listed(NODES))} nodes are available")

    def _has_claims(self, pod: Manifest) -> bool:
        named = [
            v["persistentVolumeClaim"]["claimName"]
            for v in pod["spec"].get("volumes", ())
            if "persistentVolumeClaim" in v
        ]
        found = [self.api.get(PERSISTENT_VOLUME_CLAIMS, pod["metadata"]["namespace"], name) for name in named]
        return all(
            claim is not None and (claim.get("status") or {}).get("phase") == "Bound" for claim in found
        )

    def _say_unschedulable(self, pod: Manifest, message: str) -> None:
        conditions = self.cluster.condition(
            pod, "PodScheduled", "False", reason="Unschedulable", message=message
        )
        self.cluster.report(PODS, pod, conditions=conditions)


def _waits(pod: Manifest) -> bool:
    spec = pod["spec"]
    over = "deletionTimestamp" in pod["metadata"] or pod["status"].get("phase") in FINISHED
    return not (over or spec.get("nodeName") or spec.get("schedulingGates"))


def _used(pods: Iterable[Manifest]) -> dict[str, Counter[str]]:
    """Resources that bound pods take of their nodes, those too that are being deleted."""
    used: dict[str, Counter[str]] = {}
    for pod in pods:
        node = pod["spec"].get("nodeName")
        if node and pod["status"].get("phase") not in FINISHED:
            used.setdefault(node, Counter()).update(pod_requests(pod["spec"]))
    return used


def _fits(wanted: Mapping[str, int], taken: Counter[str], node: Manifest) -> bool:
    room = amounts(node["status"]["allocatable"])
    return all(taken[name] + amount <= room.get(name, 0) for name, amount in wanted.items())


def _may_run(spec: Manifest, node: Manifest) -> bool:
    labels = node["metadata"].get("labels") or {}
    if not (spec.get("nodeSelector") or {}).items() <= labels.items() or not is_ready(node):
        return False
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    terms = (affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}).get("nodeSelectorTerms")
    if terms and not any(_selects(term, node) for term in terms):
        return False
    taints = list((node.get("spec") or {}).get("taints") or ())
    if (node.get("spec") or {}).get("unschedulable"):
        taints.append({"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"})
    hard = [taint for taint in taints if taint["effect"] in KEEPS_AWAY]
    return all(any(_tolerates(one, taint) for one in spec.get("tolerations") or ()) for taint in hard)


def _selects(term: Manifest, node: Manifest) -> bool:
    labels = node["metadata"].get("labels") or {}
    fields = {"metadata.name": node["metadata"]["name"]}
    return all(_holds(one, labels) for one in term.get("matchExpressions") or ()) and all(
        _holds(one, fields) for one in term.get("matchFields") or ()
    )


def _holds(requirement: Mapping[str, Any], values: Mapping[str, str]) -> bool:
    found, listed = values.get(requirement["key"]), list(requirement.get("values") or ())
    match requirement["operator"]:
        case "In":
            return found in listed
        case "NotIn":
            return found not in listed
        case "Exists":
            return found is not None
        case "DoesNotExist":
            return found is None
        case "Gt":
            return found is not None and int(found) > int(listed[0])
        case _:
            return found is not None and int(found) < int(listed[0])


def _tolerates(toleration: Mapping[str, Any], taint: Mapping[str, Any]) -> bool:
    if toleration.get("effect") not in (None, "", taint["effect"]):
        return False
    if toleration.get("operator") == "Exists":
        return toleration.get("key") in (None, "", taint["key"])
    same_value = toleration.get("value", "") == taint.get("value", "")
    return same_value and bool(toleration.get("key") == taint["key"])
