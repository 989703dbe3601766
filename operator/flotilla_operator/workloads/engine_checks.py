"""The checks of an engine: before it counts as started, and before it is stopped.

A vLLM that answers /health may still fail its first request. So the startup probe passes only when the engine
has produced a first token or a first embedding; until then the pod is not ready. After that /health decides,
because it is cheap and fails when the engine's process has died. Before an engine is stopped, the preStop
hook waits until it is idle. Running requests can end, and no new ones arrive, because the routers drain a pod
as soon as it is being deleted.

Both checks are programs (engine_scripts/) that are passed to the container as an argument. They need only the
`python3` of the vLLM images, so upstream images work unchanged. It starts isolated, so that the container's
variables, which are the user's, bring it no code.
"""

from collections.abc import Mapping
from importlib.resources import files
from typing import Any, Final

from flotilla_operator.api.model_replica_set import Task

ENV_SERVED_MODEL: Final = "FLOTILLA_SERVED_MODEL"
ENV_DRAIN_DEADLINE: Final = "FLOTILLA_DRAIN_DEADLINE_SECONDS"
PYTHON: Final = ("python3", "-I")
FIRST_ANSWER_TIMEOUT_SECONDS: Final = 60
STARTUP_PERIOD_SECONDS: Final = 5
SCRIPTS: Final = files("flotilla_operator.workloads").joinpath("engine_scripts")
FIRST_ANSWER: Final = SCRIPTS.joinpath("first_answer.py").read_text("utf-8")
UNTIL_IDLE: Final = SCRIPTS.joinpath("until_idle.py").read_text("utf-8")

FIRST_ANSWER_REQUEST: Final[Mapping[Task, tuple[str, str]]] = {
    Task.GENERATE: ("/v1/completions", "prompt"),
    Task.EMBED: ("/v1/embeddings", "input"),
}


def probes(task: Task, *, start_within_seconds: int) -> dict[str, Any]:
    """The startup, readiness and liveness probes of an engine with this task."""
    health = {"httpGet": {"path": "/health", "port": "http"}}
    return {
        "startupProbe": {
            "exec": {"command": [*PYTHON, "-c", FIRST_ANSWER, *FIRST_ANSWER_REQUEST[task]]},
            "periodSeconds": STARTUP_PERIOD_SECONDS,
            "timeoutSeconds": FIRST_ANSWER_TIMEOUT_SECONDS,
            "failureThreshold": max(1, start_within_seconds // STARTUP_PERIOD_SECONDS),
        },
        "readinessProbe": {**health, "periodSeconds": 5, "timeoutSeconds": 5, "failureThreshold": 3},
        "livenessProbe": {**health, "periodSeconds": 15, "timeoutSeconds": 10, "failureThreshold": 6},
    }


def lifecycle(leader: str | None = None) -> dict[str, Any]:
    """The preStop hook, which waits until the engine is idle or the drain's deadline has passed.

    A stage that is not the leader waits until the leader is idle.
    """
    command = [*PYTHON, "-c", UNTIL_IDLE, *((leader,) if leader else ())]
    return {"preStop": {"exec": {"command": command}}}
