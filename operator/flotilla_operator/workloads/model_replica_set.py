"""All objects of a ModelReplicaSet except its engine pods, which are made one by one (`engine_pod`)."""

from collections.abc import Sequence

from flotilla_operator.api.model_replica_set import ModelReplicaSetSpec
from flotilla_operator.objects.owners import Owner
from flotilla_operator.objects.resources import Manifest
from flotilla_operator.workloads import objects
from flotilla_operator.workloads.engine_pod import engine_selector, engines
from flotilla_operator.workloads.images import Images
from flotilla_operator.workloads.ingress import from_monitoring, from_pods
from flotilla_operator.workloads.router import (
    internal_service,
    router_manifests,
    router_service,
    routers,
)
from flotilla_operator.workloads.served import Served
from flotilla_runtime import contract


def router_objects(
    owner: Owner,
    spec: ModelReplicaSetSpec,
    images: Images,
    *,
    several_stages: bool,
    key_made_anew: str = "",
    pods_to_keep: int = 0,
    beside: Sequence[Served] = (),
) -> list[Manifest]:
    """The objects around the engine pods, in the order in which they are needed.

    `several_stages`: a group with several pods is wanted or still exists. `key_made_anew`: the time at which
    the engines' key was made, if it is not the first one. `beside`: what replicas of other revisions serve.
    `pods_to_keep`: the number of healthy engine pods that evictions must leave.
    """
    part = engines(owner)
    return [
        *([names_of_stages(owner)] if several_stages else ()),
        objects.network_policy(
            part,
            selector=part.selector,
            ingress=[
                from_pods(routers(owner).selector, ports=(contract.PORT_ENGINE,)),
                *([from_monitoring(images, contract.PORT_ENGINE)] if images.metrics_peers else ()),
                *([_among_stages(owner)] if several_stages else ()),
            ],
        ),
        objects.pod_disruption_budget(part, selector=part.selector, min_available=pods_to_keep),
        *router_manifests(owner, spec, images, key_made_anew=key_made_anew, beside=beside),
    ]


def names_of_stages(owner: Owner) -> Manifest:
    """The headless Service through which the stages of a group find their leader.

    It selects only leaders, because nothing looks up the other pods, and Kubernetes writes all addresses
    again for each new pod. Sets whose groups have one pod do not have this Service.
    """
    port = objects.Port(name="http", number=contract.PORT_ENGINE)
    return objects.headless_service(
        engines(owner), selector=engine_selector(owner), ports=[port], publish_not_ready=True
    )


def _among_stages(owner: Owner) -> Manifest:
    """Allow all ports among the engine pods: the stages of a group choose the ports that they use."""
    return {"from": [{"podSelector": {"matchLabels": engines(owner).selector}}]}


def router_deployment_name(owner: Owner) -> str:
    """The name of the routers' Deployment."""
    return routers(owner).name


def service_url(owner: Owner, spec: ModelReplicaSetSpec) -> str:
    """The base URL of the set's OpenAI API for callers."""
    scheme = "http" if spec.router.tls is None else "https"
    return f"{scheme}://{router_service(owner).name}.{owner.namespace}.svc:{contract.PORT_ROUTER}/v1"


def internal_url(owner: Owner, spec: ModelReplicaSetSpec) -> str:
    """The base URL for Flotilla's own pods: HTTP, because they cannot verify the user's certificate."""
    if spec.router.tls is None:
        return service_url(owner, spec)
    return f"http://{internal_service(owner).name}.{owner.namespace}.svc:{contract.PORT_ROUTER_INTERNAL}/v1"
