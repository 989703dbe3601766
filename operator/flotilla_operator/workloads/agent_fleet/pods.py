"""The gateway and the workers: two Deployments with the runtime's image and without Kubernetes tokens."""

from collections.abc import Iterable, Sequence
from typing import Any

from flotilla_operator.api.agent_fleet import AgentFleetSpec, AuthMode
from flotilla_operator.api.fleet_queue import RedisMode
from flotilla_operator.objects.hashes import stable_hash
from flotilla_operator.objects.owners import Owner
from flotilla_operator.objects.resources import Manifest
from flotilla_operator.workloads import objects
from flotilla_operator.workloads.agent_fleet.delegates import agent_configs, validator_configs
from flotilla_operator.workloads.agent_fleet.levers import cache, rate_limits
from flotilla_operator.workloads.agent_fleet.model_names import model_names
from flotilla_operator.workloads.agent_fleet.parts import (
    GATEWAY_USER,
    REDIS_PASSWORD_PATH,
    WORKER_USER,
    SecretEntry,
    Wiring,
    gateway,
    redis_url,
    redis_users,
    workers,
    workers_of,
)
from flotilla_operator.workloads.agent_fleet.payloads import (
    credentials_volume,
    endpoint_of,
    payloads_config,
)
from flotilla_operator.workloads.agent_fleet.revision import revision_of
from flotilla_operator.workloads.agent_fleet.telemetry import headers_volume, receivers
from flotilla_operator.workloads.agent_fleet.token_reviews import (
    asks_for_reviews,
    review_access,
    review_manifests,
)
from flotilla_operator.workloads.agent_fleet.tools import (
    called_urls,
    has_executors,
    secret_volumes,
    tool_configs,
)
from flotilla_operator.workloads.certificate import TLS_DIRECTORY, certificate_volume
from flotilla_operator.workloads.images import Images
from flotilla_operator.workloads.ingress import from_everybody, from_monitoring
from flotilla_operator.workloads.labels import Child
from flotilla_operator.workloads.pod_options import asks, with_memory_limit, with_options
from flotilla_operator.workloads.template_parts import TemplatePart
from flotilla_runtime import contract

# An image that is built on ours may have changed the entrypoint, and an older one finds our code by
# PYTHONPATH. So the command runs the module that its argument names, isolated, with the folder of the code.
_RUN_MODULE = (
    "import sys; from runpy import run_module; "
    f"sys.path.insert(0, {contract.CODE_DIRECTORY!r}); del sys.argv[0]; "
    "run_module(sys.argv[0], run_name='__main__', alter_sys=True)"
)
RUNTIME_COMMAND = ["python3", "-I", "-B", "-u", "-c", _RUN_MODULE]
RUNTIME_COMMAND_OF_BEFORE = ["python3", "-m"]
GATEWAY_STOP_SECONDS = 30
WORKER_STOP_SECONDS = 60  # the time of the workers' handover, and a few seconds to write it
GATEWAY_RESOURCES = {"requests": {"cpu": "50m", "memory": "96Mi"}}
GATEWAY_MEMORY = "512Mi"  # for as many connections and bodies as it holds
WORKER_RESOURCES = {"requests": {"cpu": "100m", "memory": "128Mi"}}


def queue_config(owner: Owner, spec: AgentFleetSpec, user: str) -> contract.QueueConfig:
    """The configuration of the queue, for the gateway or the workers, with their user of a managed Redis."""
    managed = spec.queue.redis.mode is RedisMode.MANAGED
    sentinel = spec.queue.redis.sentinel
    has_password = sentinel is not None and sentinel.password_secret_ref is not None
    return contract.QueueConfig(
        fleet=f"{owner.namespace}/{owner.name}",
        url=redis_url(owner) if managed else None,
        user=user if managed else None,
        password_path=REDIS_PASSWORD_PATH if managed else None,
        max_waiting=spec.queue.max_waiting,
        result_ttl_seconds=spec.queue.result_ttl_seconds,
        lease_seconds=spec.recovery.lease_seconds,
        max_attempts=spec.recovery.max_attempts,
        topology=contract.RedisTopology(spec.queue.redis.topology),
        sentinel_master=None if sentinel is None else sentinel.master,
        sentinel_password_path=contract.SENTINEL_PASSWORD_PATH if has_password else None,
        max_stored_mib=spec.queue.max_stored_mib,
        queue_percent=spec.gateway.caller_limits.queue_percent,
        journal_ttl_seconds=spec.queue.journal_ttl_seconds,
        conversation_ttl_seconds=spec.queue.conversation_ttl_seconds,
        dead_letter_ttl_seconds=spec.queue.dead_letter_ttl_seconds,
        unknown_effect_seconds=spec.recovery.unknown_effect_seconds,
        payloads=payloads_config(spec.queue.payloads),
    )


def gateway_config(
    owner: Owner, spec: AgentFleetSpec, wiring: Wiring, images: Images, revision: str
) -> contract.GatewayConfig:
    """The configuration of the gateway, which gives new tasks this revision."""
    accepts = asks_for_reviews(spec) and images.gateways_accept_cluster_tokens
    names = model_names(spec.models)
    priced = {model.role for model in wiring.models if model.pricing.is_known}
    return contract.GatewayConfig(
        queue=queue_config(owner, spec, GATEWAY_USER),
        namespace=owner.namespace,
        name=owner.name,
        auth=contract.GatewayAuth(spec.gateway.auth.mode),
        revision=revision,
        trusted=spec.gateway.auth.trusted,
        approvers=spec.gateway.auth.approvers,
        agents=tuple(agent.name for agent in spec.agents),
        models=_once(names.values()),
        unpriced_models=_once(name for role, name in names.items() if role not in priced),
        limits=_limits(spec),
        isolates_tenants=all(
            model.isolate_tenants for model in spec.models if model.role != contract.EMBED_ROLE
        ),
        requests_per_minute=spec.gateway.caller_limits.requests_per_minute,
        serves_openai=spec.gateway.open_ai.enabled,
        serves_a2a=spec.gateway.a2a.enabled,
        description=spec.gateway.a2a.description,
        telemetry=wiring.telemetry,
        tls_directory=TLS_DIRECTORY if spec.gateway.tls is not None else None,
        accepts_cluster_tokens=accepts,
    )


def runtime_command(images: Images) -> list[str]:
    """The command that runs a module of ours, for which the image may not be ours."""
    is_isolated = TemplatePart.ISOLATED_PYTHON in images.parts
    return RUNTIME_COMMAND if is_isolated else RUNTIME_COMMAND_OF_BEFORE


def _once(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))


def worker_config(owner: Owner, spec: AgentFleetSpec, wiring: Wiring) -> contract.WorkerConfig:
    """The configuration of the workers."""
    return contract.WorkerConfig(
        queue=queue_config(owner, spec, WORKER_USER),
        prompt=spec.agent.prompt or "",
        entrypoint=spec.agent.entrypoint,
        graph=spec.agent.graph,
        has_executors=has_executors(spec),
        retrieval=contract.Retrieval(spec.agent.retrieval),
        tools=tool_configs(spec),
        agents=agent_configs(spec),
        validators=validator_configs(spec),
        revision=revision_of(spec),
        adopted_path=contract.ADOPTED_PATH,
        models=wiring.models,
        indexes=wiring.indexes,
        rate_limits=rate_limits(spec),
        cache=cache(spec),
        limits=_limits(spec),
        telemetry=wiring.telemetry,
        concurrency=spec.workers.concurrency,
    )


def gateway_manifests(
    owner: Owner, spec: AgentFleetSpec, wiring: Wiring, images: Images, revision: str
) -> list[Manifest]:
    """The objects of the gateway, which gives new tasks this revision.

    Gateways read anew every few seconds what the models have room for, so a change of it replaces none.
    """
    part = gateway(owner)
    data = objects.config_file(gateway_config(owner, spec, wiring, images, revision))
    pod = _gateway_pod(owner, spec, wiring, images, data, revision)
    workload = with_options(
        objects.deployment(part, replicas=spec.gateway.replicas, parts=pod), spec.gateway.pod
    )
    return [
        objects.config_map(part, data={**data, **_capacity(wiring)}),
        objects.service(
            part,
            selector=part.selector,
            ports=[_service_port(spec)],
            type_=spec.gateway.service.type,
            annotations=spec.gateway.service.annotations,
        ),
        objects.network_policy(
            part,
            selector=part.selector,
            ingress=[
                from_everybody(contract.PORT_GATEWAY),
                from_monitoring(images, contract.PORT_METRICS),
            ],
        ),
        objects.pod_disruption_budget(
            part, selector=part.selector, min_available=max(0, spec.gateway.replicas - 1)
        ),
        *review_manifests(owner, spec),
        with_memory_limit(workload, GATEWAY_MEMORY)
        if TemplatePart.GATEWAY_MEMORY in images.parts
        else workload,
    ]


def _capacity(wiring: Wiring) -> dict[str, str]:
    if not wiring.capacities:
        return {}
    told = contract.FleetCapacity(models=wiring.capacities)
    return {contract.CAPACITY_FILE: objects.json_text(told.model_dump(mode="json", exclude_defaults=True))}


def worker_manifests(
    owner: Owner,
    spec: AgentFleetSpec,
    wiring: Wiring,
    images: Images,
    replicas: int,
    adopted: Sequence[str] = ("",),
) -> list[Manifest]:
    """The objects of the workers of the spec's revision.

    `adopted` are the other revisions whose tasks they take. Workers read the list anew every few seconds, so
    a change of it replaces none.
    """
    part, everybody = workers_of(owner, revision_of(spec)), workers(owner)
    data = objects.config_file(worker_config(owner, spec, wiring))
    list_of_adopted = {contract.ADOPTED_FILE: objects.json_text(sorted(adopted))}
    return [
        objects.config_map(part, data={**data, **list_of_adopted}),
        objects.network_policy(
            everybody, selector=everybody.selector, ingress=[from_monitoring(images, contract.PORT_METRICS)]
        ),
        with_options(
            objects.deployment(part, replicas=replicas, parts=_worker_pod(owner, spec, wiring, images, data)),
            spec.workers.pod,
        ),
    ]


def _service_port(spec: AgentFleetSpec) -> objects.Port:
    """The pods' port keeps its name, so the Service leads to pods from before and after a change of `tls`."""
    name = "http" if spec.gateway.tls is None else "https"
    return objects.Port(name=name, number=contract.PORT_GATEWAY, target="http")


def _gateway_pod(
    owner: Owner,
    spec: AgentFleetSpec,
    wiring: Wiring,
    images: Images,
    data: dict[str, str],
    revision: str,
) -> objects.PodParts:
    volumes, mounts, environment = _common(gateway(owner), GATEWAY_USER, owner, spec, wiring)
    environment += images.proxies.variables(*_object_store(spec), *receivers(wiring))
    if spec.gateway.auth.mode is AuthMode.SECRET and spec.gateway.auth.secret_ref is not None:
        volumes.append({"name": "callers", "secret": {"secretName": spec.gateway.auth.secret_ref.name}})
        mounts.append({"name": "callers", "mountPath": contract.CALLERS_DIRECTORY, "readOnly": True})
    has_account = asks_for_reviews(spec) and TemplatePart.GATEWAY_REVIEWS in images.parts
    if asks_for_reviews(spec):
        its_volumes, its_mounts = review_access(has_token=has_account)
        volumes += its_volumes
        mounts += its_mounts
    if spec.gateway.tls is not None:
        volume, mount = certificate_volume(spec.gateway.tls)
        volumes.append(volume)
        mounts.append(mount)
    container = objects.container(
        "gateway",
        images.runtime,
        pull_policy=images.pull_policy,
        args=["flotilla_runtime.gateway"],
        env=environment,
        ports=[pod_port("http", contract.PORT_GATEWAY), pod_port("metrics", contract.PORT_METRICS)],
        resources=GATEWAY_RESOURCES,
        volumeMounts=mounts,
        **pod_probes(),
    )
    return objects.PodParts(
        containers=[container],
        volumes=volumes,
        service_account=gateway(owner).name if has_account else None,
        mounts_token=False,
        annotations={**pod_annotations(data, wiring, environment), contract.LABEL_REVISION: revision},
        termination_grace_seconds=GATEWAY_STOP_SECONDS,
        image_pull_secrets=images.pull_secrets,
    )


def _worker_pod(
    owner: Owner, spec: AgentFleetSpec, wiring: Wiring, images: Images, data: dict[str, str]
) -> objects.PodParts:
    volumes, mounts, environment = _common(
        workers_of(owner, revision_of(spec)), WORKER_USER, owner, spec, wiring
    )
    environment += [_from_secret(entry) for entry in wiring.model_keys]
    called = (called.url for called in called_urls(spec))
    urls = (*(model.url for model in wiring.models), *called, *_object_store(spec), *receivers(wiring))
    environment += images.proxies.variables(*urls)
    secret_files, secret_mounts = secret_volumes(spec)
    if wiring.index_keys:
        volumes.append({"name": "index-keys", "projected": {"sources": _index_keys(wiring)}})
        mount = {"name": "index-keys", "mountPath": contract.INDEX_KEYS_DIRECTORY, "readOnly": True}
        mounts.append(mount)
    container = objects.container(
        "worker",
        spec.image or images.runtime,
        pull_policy=images.pull_policy,
        command=runtime_command(images) if spec.image is not None else None,
        args=["flotilla_runtime.agent"],
        env=environment,
        ports=[pod_port("metrics", contract.PORT_METRICS)],
        resources=spec.workers.resources.manifest() if asks(spec.workers.resources) else WORKER_RESOURCES,
        volumeMounts=[*mounts, *secret_mounts, *spec.workers.pod.volume_mounts],
        **pod_probes(),
    )
    pull_secrets = (secret.name for secret in spec.workers.pod.image_pull_secrets)
    return objects.PodParts(
        containers=[container],
        volumes=[*volumes, *secret_files, *spec.workers.pod.volumes],
        labels={contract.LABEL_INDEX_KEYS: contract.INDEX_KEYS_SENT} if wiring.sends_keys else {},
        annotations=pod_annotations(data, wiring, environment),
        termination_grace_seconds=WORKER_STOP_SECONDS,
        image_pull_secrets=tuple(dict.fromkeys((*images.pull_secrets, *pull_secrets))),
    )


def _index_keys(wiring: Wiring) -> list[Manifest]:
    """The sources of the volume with a file for each index; a new key replaces its content, and no pod."""
    return [
        {"secret": {"name": one.name, "items": [{"key": one.key, "path": one.index}]}}
        for one in wiring.index_keys
    ]


def _common(
    part: Child, user: str, owner: Owner, spec: AgentFleetSpec, wiring: Wiring
) -> tuple[list[Manifest], list[Manifest], list[Manifest]]:
    """The volumes, mounts and environment of gateway and workers: configuration, Redis, payloads, traces."""
    volumes, mounts, environment = redis_access(part, (redis_users(owner).name, user), spec)
    files, their_mounts = credentials_volume(spec.queue.payloads)
    headers, mounted = headers_volume(spec.telemetry, wiring)
    return [*volumes, *files, *headers], [*mounts, *their_mounts, *mounted], environment


def redis_access(
    part: Child, user: tuple[str, str], spec: AgentFleetSpec
) -> tuple[list[Manifest], list[Manifest], list[Manifest]]:
    """The volumes, mounts and environment of a pod with a configuration and Redis.

    `user` is the secret with the password for a managed Redis, and its entry there.
    """
    volume, mount = objects.config_volume(part.name)
    volumes, mounts = [volume], [mount]
    environment: list[Manifest] = [
        {"name": contract.ENV_POD_NAME, "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
    ]
    secret_ref = spec.queue.redis.url_secret_ref
    if spec.queue.redis.mode is RedisMode.MANAGED:
        secret, entry_of_user = user
        items = [{"key": entry_of_user, "path": contract.REDIS_PASSWORD_KEY}]
        volumes.append({"name": "redis", "secret": {"secretName": secret, "items": items}})
        mounts.append({"name": "redis", "mountPath": contract.REDIS_SECRET_DIRECTORY, "readOnly": True})
    elif secret_ref is not None:
        entry = SecretEntry(environment=contract.ENV_REDIS_URL, name=secret_ref.name, key=secret_ref.key)
        environment.append(_from_secret(entry))
    sentinel = spec.queue.redis.sentinel
    if sentinel is not None and (ref := sentinel.password_secret_ref) is not None:
        file = contract.SENTINEL_PASSWORD_PATH.rpartition("/")[2]
        items = [{"key": ref.key, "path": file}]
        volumes.append({"name": "flotilla-sentinel", "secret": {"secretName": ref.name, "items": items}})
        mounts.append(
            {"name": "flotilla-sentinel", "mountPath": contract.SENTINEL_DIRECTORY, "readOnly": True}
        )
    return volumes, mounts, environment


def _object_store(spec: AgentFleetSpec) -> tuple[str, ...]:
    return () if spec.queue.payloads is None else (endpoint_of(spec.queue.payloads),)


def pod_annotations(data: dict[str, str], wiring: Wiring, environment: list[Manifest]) -> dict[str, str]:
    """The annotation that replaces the pods when their configuration or a secret of theirs changes."""
    named = {
        source["secretKeyRef"]["name"]
        for variable in environment
        if "secretKeyRef" in (source := variable.get("valueFrom") or {})
    }
    versions = {name: wiring.secret_versions.get(name, "") for name in named}
    return {contract.ANNOTATION_CONFIG_HASH: stable_hash({"data": data, "secrets": versions})}


def _limits(spec: AgentFleetSpec) -> contract.TaskLimits:
    return contract.TaskLimits(
        max_steps=spec.limits.max_steps,
        max_tokens=spec.limits.max_tokens,
        max_cost_usd=spec.limits.max_cost_usd,
        max_wall_seconds=spec.limits.max_wall_seconds,
        max_depth=spec.limits.max_depth,
        max_fan_out=spec.limits.max_fan_out,
    )


def _from_secret(entry: SecretEntry) -> Manifest:
    return {
        "name": entry.environment,
        "valueFrom": {"secretKeyRef": {"name": entry.name, "key": entry.key}},
    }


def pod_port(name: str, number: int) -> Manifest:
    """A port of a container."""
    return {"name": name, "containerPort": number, "protocol": "TCP"}


def pod_probes() -> dict[str, Any]:
    """The probes of a container that tells its health on its port for metrics."""

    def probe(path: str, period_seconds: int) -> dict[str, Any]:
        return {
            "httpGet": {"path": path, "port": "metrics"},
            "periodSeconds": period_seconds,
            "timeoutSeconds": 5,
            "failureThreshold": 3,
        }

    return {
        "startupProbe": {**probe("/healthz", 1), "failureThreshold": 60},
        "readinessProbe": probe("/readyz", 3),
        "livenessProbe": probe("/healthz", 10),
    }
