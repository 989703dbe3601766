"""Options of a component's pods in which every field is set."""

from typing import Any

RUNTIME_CLASS = "sandboxed"
PRIORITY_CLASS = "serving"
LABELS = {"matchLabels": {"team": "search"}}
NEAR = {"labelSelector": LABELS, "topologyKey": "topology.kubernetes.io/zone"}
ZONE_A = {"matchExpressions": [{"key": "topology.kubernetes.io/zone", "operator": "In", "values": ["a"]}]}
RESOURCES = {"requests": {"cpu": "200m"}, "limits": {"memory": "1Gi"}}


def pod_options(*, resources: bool = True) -> dict[str, Any]:
    """Every option; `resources` is left out for a component that has a field for them already."""
    preferred = "preferredDuringSchedulingIgnoredDuringExecution"
    required = "requiredDuringSchedulingIgnoredDuringExecution"
    options = {
        "nodeSelector": {"pool": "services"},
        "tolerations": [
            {
                "key": "pool",
                "operator": "Equal",
                "value": "services",
                "effect": "NoExecute",
                "tolerationSeconds": 30,
            }
        ],
        "affinity": {
            "nodeAffinity": {
                required: {"nodeSelectorTerms": [ZONE_A]},
                preferred: [{"weight": 1, "preference": ZONE_A}],
            },
            "podAffinity": {required: [NEAR], preferred: [{"weight": 1, "podAffinityTerm": NEAR}]},
            "podAntiAffinity": {required: [NEAR], preferred: [{"weight": 1, "podAffinityTerm": NEAR}]},
        },
        "env": [
            {"name": "LOG_FORMAT", "value": "json"},
            {"name": "TEAM", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['team']"}}},
        ],
        "priorityClassName": PRIORITY_CLASS,
        "runtimeClassName": RUNTIME_CLASS,
        "labels": {"team": "search"},
        "annotations": {"example.com/contact": "search@example.com"},
    }
    return {**options, "resources": RESOURCES} if resources else options


def runtime_class(name: str = RUNTIME_CLASS) -> dict[str, Any]:
    """A RuntimeClass."""
    return {
        "apiVersion": "node.k8s.io/v1",
        "kind": "RuntimeClass",
        "metadata": {"name": name, "uid": f"uid-{name}"},
        "handler": "runsc",
    }
