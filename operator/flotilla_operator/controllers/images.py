"""The operator's configuration of images, as workloads take it."""

from flotilla_operator.controllers.config import OperatorConfig
from flotilla_operator.workloads.images import Images
from flotilla_operator.workloads.proxies import Proxies


def images_of(config: OperatorConfig) -> Images:
    """The images with how they are fetched."""
    return Images(
        runtime=config.images.runtime,
        haproxy=config.images.haproxy,
        redis=config.images.redis,
        milvus=config.images.milvus,
        engine=config.images.engine,
        engine_cpu=config.images.engine_cpu or config.images.engine,
        pull_policy=config.image_pull_policy,
        pull_secrets=config.image_pull_secrets,
        metrics_peers=config.monitoring.peers,
        proxies=proxies_of(config),
        accelerator_tolerations=tuple(one.manifest() for one in config.placement.tolerations),
        gateway_role=config.gateway.cluster_role,
        gateways_accept_cluster_tokens=config.gateway.accept_cluster_tokens,
    )


def proxies_of(config: OperatorConfig) -> Proxies:
    """The proxies for addresses outside of the cluster."""
    named = config.proxy
    exempt = tuple(entry for part in named.no_proxy.split(",") if (entry := part.strip()))
    return Proxies(http=named.http_proxy, https=named.https_proxy, exempt=exempt)
