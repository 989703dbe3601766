"""The environment variables of an engine pod's containers: ours, overridden by the user's."""

import math
from collections.abc import Sequence

from flotilla_operator.api.model_replica_set import ModelReplicaSetSpec
from flotilla_operator.objects.owners import Owner
from flotilla_operator.objects.quantities import CPU, quantity
from flotilla_operator.objects.resources import Manifest
from flotilla_operator.workloads.engine_checks import ENV_DRAIN_DEADLINE, ENV_SERVED_MODEL
from flotilla_operator.workloads.engine_guard import ENV_MIDDLEWARE, MIDDLEWARE
from flotilla_operator.workloads.engine_key import engine_key_variable
from flotilla_operator.workloads.stages import Stage

HOME = "/home/flotilla"


def engine_environment(owner: Owner, spec: ModelReplicaSetSpec, stage: Stage) -> list[Manifest]:
    """Our variables, overridden by the user's variables of the same name.

    `USER` is set because some libraries read the user's name, and the image has no entry for a numeric user.
    """
    ours = {
        "HOME": HOME,
        "USER": "flotilla",
        "XDG_CACHE_HOME": f"{HOME}/.cache",
        "HF_HOME": f"{HOME}/.cache/huggingface",
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        ENV_MIDDLEWARE: MIDDLEWARE,
        ENV_SERVED_MODEL: spec.model.name,
        ENV_DRAIN_DEADLINE: str(spec.drain.deadline_seconds),
        **_cpu_environment(spec),
    }
    variables: list[Manifest] = [{"name": name, "value": value} for name, value in ours.items()]
    if stage.count > 1:
        address = {"fieldRef": {"fieldPath": "status.podIP"}}
        variables.append({"name": "VLLM_HOST_IP", "valueFrom": address})
    return merged_environment([*variables, engine_key_variable(owner)], spec)


def merged_environment(ours: Sequence[Manifest], spec: ModelReplicaSetSpec) -> list[Manifest]:
    """Our variables, followed by the user's; the user's replace ours of the same name."""
    theirs = [variable.manifest() for variable in spec.engine.env]
    names = {variable["name"] for variable in theirs}
    return [*(variable for variable in ours if variable["name"] not in names), *theirs]


def _cpu_environment(spec: ModelReplicaSetSpec) -> dict[str, str]:
    """The variables for engines on CPUs.

    Threads are not bound to cores, because several engines on a node would all choose the same cores. The
    number of threads follows from the CPU limit; a CPU request does not limit what an engine may use.
    """
    if spec.accelerator is not None:
        return {}
    environment = {"VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    limit = spec.engine.resources.limits.get(CPU)
    if limit is not None:
        environment["OMP_NUM_THREADS"] = str(max(1, math.ceil(quantity(limit))))
    return environment
