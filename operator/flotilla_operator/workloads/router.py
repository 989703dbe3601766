"""The router of a set: HAProxy, and the agent that keeps its servers up to date; two pods by default.

A router pod has three containers. An init container renders HAProxy's files from the configuration, and
HAProxy starts with them. The agent, which may only read pods, adds and drains servers over the admin socket.
The callers' keys are a mounted secret, which the agent reads again when it changes. So the pods are replaced
only when the configuration changes or a new key was made for the engines.
"""

from collections.abc import Sequence
from dataclasses import replace

from flotilla_operator.api.model_replica_set import ModelReplicaSetSpec
from flotilla_operator.objects.owners import Owner
from flotilla_operator.objects.resources import Manifest
from flotilla_operator.workloads import objects
from flotilla_operator.workloads.certificate import TLS_DIRECTORY, certificate_volume
from flotilla_operator.workloads.engine_key import asks_for_our_key, engine_key_variable
from flotilla_operator.workloads.engine_pod import engine_selector
from flotilla_operator.workloads.images import Images
from flotilla_operator.workloads.ingress import from_everybody, from_monitoring, from_pods
from flotilla_operator.workloads.labels import Child
from flotilla_operator.workloads.pod_options import with_options
from flotilla_operator.workloads.pod_security import scratch
from flotilla_operator.workloads.served import Served, served_by, served_by_all
from flotilla_runtime import contract

ANNOTATION_ENGINE_KEY_MADE = f"{contract.DOMAIN}/engine-key-made"
COMPONENT = "router"
KEYS_DIRECTORY = "/var/run/flotilla/keys"
STOP_SECONDS = 30
RUN_DIRECTORY = str(contract.RouterConfig.model_fields["run_directory"].default)
HAPROXY_RESOURCES = {"requests": {"cpu": "50m", "memory": "64Mi"}}
AGENT_RESOURCES = {"requests": {"cpu": "20m", "memory": "64Mi"}}
WAIT_UNTIL_DRAINED = {"preStop": {"httpGet": {"path": "/v1/drained", "port": contract.PORT_ROUTER_AGENT}}}


def routers(owner: Owner) -> Child:
    """The router's own objects: `NAME-router`."""
    return Child(owner=owner, component=COMPONENT, suffix="router")


def router_service(owner: Owner) -> Child:
    """The Service for callers: `NAME-model`."""
    return Child(owner=owner, component=COMPONENT, suffix="model")


def internal_service(owner: Owner) -> Child:
    """The Service through which Flotilla's own pods call a set with HTTPS: `NAME-model-internal`."""
    return Child(owner=owner, component=COMPONENT, suffix="model-internal")


def router_config(
    owner: Owner, spec: ModelReplicaSetSpec, beside: Sequence[Served] = ()
) -> contract.RouterConfig:
    """The configuration of HAProxy and the agent; `beside` is what replicas of other revisions serve."""
    router, served = spec.router, served_by_all(served_by(spec), beside)
    return contract.RouterConfig(
        name=owner.name,
        namespace=owner.namespace,
        models=served.models,
        task=contract.RouterTask(spec.model.task),
        engine_selector=engine_selector(owner),
        router_selector=routers(owner).selector,
        max_num_seqs=served.max_num_seqs,
        load_factor=router.load_factor,
        max_queue=router.max_queue,
        max_request_mib=router.max_request_mib,
        queue_timeout_seconds=router.queue_timeout_seconds,
        request_timeout_seconds=router.request_timeout_seconds,
        drain_deadline_seconds=max(1, spec.drain.deadline_seconds),
        promised_first_byte_seconds=None if spec.slo is None else spec.slo.ttft_seconds,
        promised_total_seconds=None if spec.slo is None else spec.slo.e2e_seconds,
        tls_directory=TLS_DIRECTORY if router.tls is not None else None,
        caller_keys_directory=KEYS_DIRECTORY if router.auth_secret_ref is not None else None,
        hold_at_zero=spec.autoscaling is not None and spec.autoscaling.min_replicas == 0,
        engine_key_environment=contract.ENV_ENGINE_KEY if asks_for_our_key(spec) else None,
    )


def router_manifests(
    owner: Owner,
    spec: ModelReplicaSetSpec,
    images: Images,
    *,
    key_made_anew: str = "",
    beside: Sequence[Served] = (),
) -> list[Manifest]:
    """All objects of the router, in the order in which they are needed."""
    part = routers(owner)
    data = objects.config_file(router_config(owner, spec, beside))
    parts = _pod_parts(part, spec, images, data)
    if key_made_anew:
        annotations = {**parts.annotations, ANNOTATION_ENGINE_KEY_MADE: key_made_anew}
        parts = replace(parts, annotations=annotations)
    return [
        objects.service_account(part),
        objects.role(
            part, rules=[{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}]
        ),
        objects.role_binding(part),
        objects.config_map(part, data=data),
        objects.service(
            router_service(owner),
            selector=part.selector,
            ports=[objects.Port(name="http", number=contract.PORT_ROUTER)],
            type_=spec.router.service.type,
            annotations=spec.router.service.annotations,
        ),
        objects.network_policy(
            part,
            selector=part.selector,
            ingress=[
                from_everybody(contract.PORT_ROUTER),
                from_monitoring(images, contract.PORT_ROUTER_METRICS, contract.PORT_ROUTER_AGENT),
            ],
        ),
        *(_internal(owner) if spec.router.tls is not None else ()),
        objects.pod_disruption_budget(
            part, selector=part.selector, min_available=max(0, spec.router.replicas - 1)
        ),
        with_options(objects.deployment(part, replicas=spec.router.replicas, parts=parts), spec.router.pod),
    ]


def _internal(owner: Owner) -> list[Manifest]:
    """The Service and network policy that offer HTTP to Flotilla's own pods of this namespace only."""
    part, internal = routers(owner), internal_service(owner)
    ours = {contract.LABEL_MANAGED_BY: contract.MANAGED_BY}
    return [
        objects.service(
            internal,
            selector=part.selector,
            ports=[objects.Port(name="internal", number=contract.PORT_ROUTER_INTERNAL)],
        ),
        objects.network_policy(
            internal,
            selector=part.selector,
            ingress=[from_pods(ours, ports=(contract.PORT_ROUTER_INTERNAL,))],
        ),
    ]


def sends_engine_key(deployment: Manifest) -> bool:
    """Whether the routers of this Deployment send the engines' key."""
    containers = deployment["spec"]["template"]["spec"]["containers"]
    return any(
        variable["name"] == contract.ENV_ENGINE_KEY
        for container in containers
        for variable in container.get("env") or ()
    )


def _pod_parts(
    part: Child, spec: ModelReplicaSetSpec, images: Images, data: dict[str, str]
) -> objects.PodParts:
    config_volume, config_mount = objects.config_volume(part.name)
    run_volumes, run_mounts = scratch({"run": RUN_DIRECTORY, "tmp": "/tmp"})  # noqa: S108
    volumes, our_mounts = [config_volume, *run_volumes], [config_mount, *run_mounts]
    if spec.router.auth_secret_ref is not None:
        volumes.append({"name": "keys", "secret": {"secretName": spec.router.auth_secret_ref.name}})
        our_mounts.append({"name": "keys", "mountPath": KEYS_DIRECTORY, "readOnly": True})
    if spec.router.tls is not None:
        volume, mount = certificate_volume(spec.router.tls)
        volumes.append(volume)
        our_mounts, run_mounts = [*our_mounts, mount], [*run_mounts, mount]
    return objects.PodParts(
        init_containers=[_renderer(images, our_mounts)],
        containers=[_haproxy(part.owner, spec, images, run_mounts), _agent(images, our_mounts)],
        volumes=volumes,
        service_account=part.name,
        annotations=objects.config_hash_annotation(data),
        termination_grace_seconds=spec.drain.deadline_seconds + STOP_SECONDS,
        image_pull_secrets=images.pull_secrets,
    )


def _renderer(images: Images, mounts: list[Manifest]) -> Manifest:
    return objects.container(
        "render",
        images.runtime,
        pull_policy=images.pull_policy,
        args=["flotilla_runtime.router", "render"],
        resources=AGENT_RESOURCES,
        volumeMounts=mounts,
    )


def _haproxy(owner: Owner, spec: ModelReplicaSetSpec, images: Images, mounts: list[Manifest]) -> Manifest:
    return objects.container(
        "haproxy",
        images.haproxy,
        pull_policy=images.pull_policy,
        command=["haproxy", "-W", "-db", "-f", f"{RUN_DIRECTORY}/haproxy.cfg"],
        env=[engine_key_variable(owner)] if asks_for_our_key(spec) else [],
        ports=[
            _port("http", contract.PORT_ROUTER),
            *([_port("internal", contract.PORT_ROUTER_INTERNAL)] if spec.router.tls is not None else []),
            _port("metrics", contract.PORT_ROUTER_METRICS),
        ],
        resources=HAPROXY_RESOURCES,
        volumeMounts=mounts,
        readinessProbe=_probe("/health", "metrics", period_seconds=2),
        livenessProbe=_probe("/health", "metrics", period_seconds=10),
        lifecycle=WAIT_UNTIL_DRAINED,
    )


def _agent(images: Images, mounts: list[Manifest]) -> Manifest:
    return objects.container(
        "agent",
        images.runtime,
        pull_policy=images.pull_policy,
        args=["flotilla_runtime.router", "agent"],
        env=[{"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
        ports=[_port("agent", contract.PORT_ROUTER_AGENT)],
        resources=AGENT_RESOURCES,
        volumeMounts=mounts,
        readinessProbe=_probe("/readyz", "agent", period_seconds=2),
        livenessProbe=_probe("/healthz", "agent", period_seconds=10),
        lifecycle=WAIT_UNTIL_DRAINED,
    )


def _port(name: str, number: int) -> Manifest:
    return {"name": name, "containerPort": number, "protocol": "TCP"}


def _probe(path: str, port: str, *, period_seconds: int) -> Manifest:
    return {
        "httpGet": {"path": path, "port": port},
        "periodSeconds": period_seconds,
        "timeoutSeconds": 5,
        "failureThreshold": 3,
    }
