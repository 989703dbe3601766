"""The taints that a set's pods tolerate: its own, that of its accelerator, and those of the chart.

Clouds taint nodes with accelerators by the resource's name, GKE for example with
`nvidia.com/gpu=present:NoSchedule`. Kubernetes' admission plugin ExtendedResourceToleration gives pods that
request the resource a toleration of it. Not every cluster has the plugin, and placement must know what pods
tolerate before they exist, so the operator does the same. None of this is part of a revision: pods that run
stay.
"""

from flotilla_operator.api.model_replica_set import ModelReplicaSetSpec
from flotilla_operator.objects.resources import Manifest
from flotilla_operator.workloads.images import Images


def tolerations_of(spec: ModelReplicaSetSpec, images: Images) -> list[Manifest]:
    """The tolerations of the set's engine pods, each once."""
    wanted = [toleration.manifest() for toleration in spec.placement.tolerations]
    if spec.accelerator is not None:
        if spec.accelerator.resource is not None:
            wanted.append({"key": spec.accelerator.resource, "operator": "Exists", "effect": "NoSchedule"})
        wanted += images.accelerator_tolerations
    return [one for position, one in enumerate(wanted) if one not in wanted[:position]]
