"""All objects of a ModelReplicaSet but its engine pods, which come and go one by one (`engine_pod`)."""

from collections.abc import Sequence

from flotilla_operator.api.model_replica_set import ModelReplicaSetSpec
from flotilla_operator.workloads import objects
from flotilla_operator.workloads.engine_pod import engine_selector, engines
from flotilla_operator.workloads.images import Images
from flotilla_operator.workloads.labels import Manifest, Owner
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
    """What stands around the engine pods, in the order in which it is needed.

    `several_stages` says whether a group of several pods is wanted or still there; `key_made_anew` is the
    time of the engines' key, where it is not their first one; `beside` is what replicas of other revisions
    serve. Evictions leave `pods_to_keep` engine pods healthy.
    """
    part = engines(owner)
    return [
        *([names_of_stages(owner)] if several_stages else ()),
        objects.network_policy(
            part,
            selector=part.selector,
            ingress=[
                {
                    "from": [{"podSelector": {"matchLabels": routers(owner).selector}}],
                    "ports": [{"protocol": "TCP", "port": contract.PORT_ENGINE}],
                },
                *([_among_stages(owner)] if several_stages else ()),
            ],
        ),
        objects.pod_disruption_budget(part, selector=part.selector, min_available=pods_to_keep),
        *router_manifests(owner, spec, images, key_made_anew=key_made_anew, beside=beside),
    ]


def names_of_stages(owner: Owner) -> Manifest:
    """The Service by which the stages of a group find their leader. It has the leaders alone, and where
    groups have one pod there is none: nobody asks for another pod's name, and Kubernetes writes all addresses
    anew whenever one comes.
    """
    port = objects.Port(name="http", number=contract.PORT_ENGINE)
    return objects.headless_service(
        engines(owner), selector=engine_selector(owner), ports=[port], publish_not_ready=True
    )


def _among_stages(owner: Owner) -> Manifest:
    """The stages of a group talk to each other on ports that they choose."""
    return {"from": [{"podSelector": {"matchLabels": engines(owner).selector}}]}


def router_deployment_name(owner: Owner) -> str:
    """The Deployment whose pods are the routers."""
    return routers(owner).name


def service_url(owner: Owner, spec: ModelReplicaSetSpec) -> str:
    """Where callers find the set's model, in OpenAI's terms."""
    scheme = "http" if spec.router.tls is None else "https"
    return f"{scheme}://{router_service(owner).name}.{owner.namespace}.svc:{contract.PORT_ROUTER}/v1"


def internal_url(owner: Owner, spec: ModelReplicaSetSpec) -> str:
    """Where Flotilla's own pods find it: they know no authority that signed the user's certificate."""
    if spec.router.tls is None:
        return service_url(owner, spec)
    return f"http://{internal_service(owner).name}.{owner.namespace}.svc:{contract.PORT_ROUTER_INTERNAL}/v1"
