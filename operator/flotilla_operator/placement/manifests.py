"""Reads nodes and pods of the API as placement's values.

The raw dictionaries are read without a client's models, because thousands of pods pass through here.
"""

from collections.abc import Mapping
from typing import Any

from flotilla_operator.objects.quantities import amounts, largest, total
from flotilla_operator.placement.groups import Claim
from flotilla_operator.placement.topology import Node, Taint, Toleration

Manifest = Mapping[str, Any]

CORDON_TAINT = "node.kubernetes.io/unschedulable"
# Kubernetes and node autoscalers set these taints for a time: the node is not ready now, but may fit later.
PASSING_TAINTS = ("node.kubernetes.io/", "node.cloudprovider.kubernetes.io/", "karpenter.sh/")
FINISHED = frozenset({"Succeeded", "Failed"})


def node_of(manifest: Manifest) -> Node:
    """A node as placement sees it."""
    spec, status = manifest.get("spec") or {}, manifest.get("status") or {}
    conditions = {c["type"]: c["status"] for c in status.get("conditions") or ()}
    taints = [
        Taint(key=taint["key"], value=taint.get("value") or "", effect=taint["effect"])
        for taint in spec.get("taints") or ()
        if taint["key"] != CORDON_TAINT
    ]
    passing = [taint for taint in taints if taint.key.startswith(PASSING_TAINTS)]
    leaving = "deletionTimestamp" in manifest["metadata"]
    return Node(
        name=manifest["metadata"]["name"],
        allocatable=amounts(status.get("allocatable") or {}),
        labels=manifest["metadata"].get("labels") or {},
        taints=tuple(taint for taint in taints if taint not in passing),
        cordoned=bool(spec.get("unschedulable")),
        ready=conditions.get("Ready") == "True"
        and not leaving
        and not any(taint.keeps_away for taint in passing),
    )


def toleration_of(manifest: Manifest) -> Toleration:
    """A toleration of core/v1."""
    return Toleration(
        key=manifest.get("key") or "",
        operator=manifest.get("operator") or "Equal",
        value=manifest.get("value") or "",
        effect=manifest.get("effect") or "",
    )


def pod_requests(spec: Manifest) -> dict[str, int]:
    """Return the requests of a pod to its node, as the scheduler counts them.

    That is what containers and sidecars need together, or the peak of an init container.
    """
    running = [_requests(c) for c in spec["containers"]]
    sidecars: list[Mapping[str, int]] = []
    peaks: list[Mapping[str, int]] = []
    for container in spec.get("initContainers") or ():
        requests = _requests(container)
        if container.get("restartPolicy") == "Always":
            sidecars.append(requests)
        peaks.append(total([*sidecars, requests] if container.get("restartPolicy") != "Always" else sidecars))
    steady = total([*running, *sidecars])
    overhead = amounts(spec.get("overhead") or {})
    return total([largest([steady, *peaks]), overhead, {"pods": 1}])


def pinned_node(spec: Manifest) -> str | None:
    """Return the node to which a pod's required node affinity pins it, bound or not; else None."""
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    terms = (affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}).get(
        "nodeSelectorTerms"
    ) or ()
    names = {
        tuple(field.get("values") or ())
        for term in terms
        for field in term.get("matchFields") or ()
        if field["key"] == "metadata.name" and field["operator"] == "In"
    }
    only = next(iter(names), ())
    return only[0] if len(names) == 1 and len(only) == 1 else None


def claim_of(pod: Manifest) -> Claim | None:
    """Return the claim of a bound or pinned pod; None when it has no node or has ended."""
    if (pod.get("status") or {}).get("phase") in FINISHED:
        return None
    node = pod["spec"].get("nodeName") or pinned_node(pod["spec"])
    return Claim(node=node, requests=pod_requests(pod["spec"])) if node else None


def _requests(container: Manifest) -> dict[str, int]:
    resources = container.get("resources") or {}
    return amounts({**(resources.get("limits") or {}), **(resources.get("requests") or {})})
