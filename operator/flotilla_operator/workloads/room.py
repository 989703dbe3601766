"""Demand of a replica on nodes, as a value that placement takes."""

from flotilla_operator.api.model_replica_set import ModelReplicaSetSpec
from flotilla_operator.objects.owners import Owner
from flotilla_operator.placement import Group
from flotilla_operator.placement.manifests import pod_requests, toleration_of
from flotilla_operator.replicas.group import GroupIdentity
from flotilla_operator.workloads.devices import accelerator_resource, device_ask, devices_of
from flotilla_operator.workloads.engine_pod import engine_pod, stages_of
from flotilla_operator.workloads.images import Images


def asked_by(owner: Owner, spec: ModelReplicaSetSpec, images: Images) -> Group | None:
    """Return the ask of any replica of this spec to nodes; None without an accelerator.

    It is read from a rendered pod, so what is asked and what is created cannot differ.
    """
    accelerator, placement = spec.accelerator, spec.placement
    resource, ask = accelerator_resource(spec), device_ask(spec)
    if accelerator is None or resource is None:
        return None
    identity = GroupIdentity(name="any", server_id=0, revision="any")
    manifest = engine_pod(owner, spec, identity, images)
    pod = manifest["spec"]
    return Group(
        owner=f"{owner.namespace}/{owner.name}",
        name=identity.name,
        accelerator=resource,
        requests={**pod_requests(pod), **devices_of(manifest)},
        waiting_since_seconds=0.0,
        stages=stages_of(spec),
        node_selector=pod.get("nodeSelector") or {},
        tolerations=tuple(toleration_of(t) for t in pod.get("tolerations") or ()),
        products=frozenset(accelerator.products),
        products_of_devices=ask is not None and bool(ask.attributes),
        pack_within=placement.pack_pipeline_within,
        spread_across=placement.spread_replicas_across,
        required=placement.required,
    )
