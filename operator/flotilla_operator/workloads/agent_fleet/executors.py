"""The tool executors: a Deployment for each revision, whose pods have the functions and no model's key.

Their user of a managed Redis may use the keys of their queue alone. An external Redis has the user of its
URL.
"""

from typing import Final

from flotilla_operator.api.agent_fleet import AgentFleetSpec, ToolExecutors
from flotilla_operator.objects.owners import Owner
from flotilla_operator.objects.resources import Manifest
from flotilla_operator.workloads import objects
from flotilla_operator.workloads.agent_fleet.delegates import validator_configs
from flotilla_operator.workloads.agent_fleet.parts import (
    EXECUTOR_USER,
    Wiring,
    executors,
    executors_of,
    redis_executor,
)
from flotilla_operator.workloads.agent_fleet.pods import (
    WORKER_RESOURCES,
    pod_annotations,
    pod_port,
    pod_probes,
    queue_config,
    redis_access,
    runtime_command,
)
from flotilla_operator.workloads.agent_fleet.revision import revision_of
from flotilla_operator.workloads.agent_fleet.tools import function_configs
from flotilla_operator.workloads.images import Images
from flotilla_operator.workloads.ingress import from_monitoring
from flotilla_operator.workloads.pod_options import asks, with_options
from flotilla_runtime import contract

LEAST_HANDOVER_SECONDS: Final = 45.0
LAST_WORDS_SECONDS: Final = 15  # to write what was handed over


def executor_config(owner: Owner, spec: AgentFleetSpec, wanted: ToolExecutors) -> contract.ExecutorConfig:
    """The configuration of the executors. One that is to stop lets its longest function end."""
    tools, checks = function_configs(spec), validator_configs(spec)
    seconds = [*(tool.timeout_seconds for tool in tools), *(check.timeout_seconds for check in checks)]
    queue = queue_config(owner, spec, EXECUTOR_USER)
    return contract.ExecutorConfig(
        queue=queue.model_copy(update={"payloads": None}),
        tools=tools,
        validators=checks,
        revision=revision_of(spec),
        concurrency=wanted.concurrency,
        handover_seconds=max([LEAST_HANDOVER_SECONDS, *seconds]),
    )


def executor_manifests(
    owner: Owner, spec: AgentFleetSpec, wiring: Wiring, images: Images, replicas: int
) -> list[Manifest]:
    """The objects of the executors of the spec's revision."""
    wanted = spec.tool_executors
    assert wanted is not None
    part, everybody = executors_of(owner, revision_of(spec)), executors(owner)
    config = executor_config(owner, spec, wanted)
    data = objects.config_file(config)
    pod = _pod(owner, spec, wanted, wiring, images, data, round(config.handover_seconds))
    return [
        objects.config_map(part, data=data),
        objects.network_policy(
            everybody, selector=everybody.selector, ingress=[from_monitoring(images, contract.PORT_METRICS)]
        ),
        with_options(objects.deployment(part, replicas=replicas, parts=pod), wanted.pod),
    ]


def _pod(
    owner: Owner,
    spec: AgentFleetSpec,
    wanted: ToolExecutors,
    wiring: Wiring,
    images: Images,
    data: dict[str, str],
    handover_seconds: int,
) -> objects.PodParts:
    part = executors_of(owner, revision_of(spec))
    user = (redis_executor(owner).name, EXECUTOR_USER)
    volumes, mounts, environment = redis_access(part, user, spec)
    container = objects.container(
        "executor",
        spec.image or images.runtime,
        pull_policy=images.pull_policy,
        command=runtime_command(images),
        args=["flotilla_runtime.agent.executor"],
        env=environment,
        ports=[pod_port("metrics", contract.PORT_METRICS)],
        resources=wanted.resources.manifest() if asks(wanted.resources) else WORKER_RESOURCES,
        volumeMounts=[*mounts, *wanted.pod.volume_mounts],
        **pod_probes(),
    )
    pull_secrets = (secret.name for secret in wanted.pod.image_pull_secrets)
    return objects.PodParts(
        containers=[container],
        volumes=[*volumes, *wanted.pod.volumes],
        annotations=pod_annotations(data, wiring, environment),
        termination_grace_seconds=handover_seconds + LAST_WORDS_SECONDS,
        image_pull_secrets=tuple(dict.fromkeys((*images.pull_secrets, *pull_secrets))),
    )
