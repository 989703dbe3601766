"""Facts read from a fleet's worker pods: the number of tasks told of each, and why none becomes ready."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from flotilla_operator.objects import deletion_cost
from flotilla_operator.objects.resources import PODS, Manifest, ObjectRef
from flotilla_operator.objects.times import known_time
from flotilla_operator.replicas.trouble import TroubleReason
from flotilla_operator.workloads.pod_trouble import trouble_of
from flotilla_runtime import contract

# So long a worker may be unready for a reason that nobody states, such as a node that does not come.
NEVER_READY_SECONDS: Final = 600.0
CRASH_LOOP: Final = "CrashLoopBackOff"
HOPELESS: Final = (TroubleReason.IMAGE_PULL_FAILED, TroubleReason.CONTAINER_CONFIG_ERROR)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerPod:
    """One worker pod.

    `cost` is its deletion cost as it was last written. `unready_since` is None for a pod that is ready.
    `trouble` says why it does not run, and is `hopeless` where time does not mend it. With `lacks_function`
    it ended because its image lacks a function of the spec; its last words, in `trouble`, name it.
    """

    ref: ObjectRef
    uid: str
    revision: str
    cost: str | None = None
    unready_since: datetime | None = None
    trouble: str = ""
    hopeless: bool = False
    lacks_function: bool = False


def worker_pod(pod: Manifest) -> WorkerPod:
    """Read a worker pod from its manifest."""
    metadata = pod["metadata"]
    trouble = trouble_of(pod, ends=TroubleReason.ENGINE_CRASHING)
    return WorkerPod(
        ref=PODS.ref_to(pod),
        uid=metadata["uid"],
        revision=(metadata.get("labels") or {}).get(contract.LABEL_REVISION, ""),
        cost=(metadata.get("annotations") or {}).get(deletion_cost.ANNOTATION),
        unready_since=_unready_since(pod),
        trouble="" if trouble is None else f"{metadata['name']}: {trouble.message}",
        hopeless=_loops(pod) or (trouble is not None and trouble.reason in HOPELESS),
        lacks_function=any(map(_lacks_function, _containers(pod))),
    )


def never_ready(pods: Sequence[WorkerPod], now: datetime) -> str | None:
    """Why no worker of a revision becomes ready; None while one is, or may become so."""
    if not pods or any(pod.unready_since is None for pod in pods):
        return None
    hopeless = next((pod for pod in pods if pod.hopeless), None)
    if hopeless is not None:
        return hopeless.trouble
    limit = now - timedelta(seconds=NEVER_READY_SECONDS)
    if all(pod.unready_since is not None and pod.unready_since <= limit for pod in pods):
        named = next((pod.trouble for pod in pods if pod.trouble), "")
        return named or f"no worker has been ready for {NEVER_READY_SECONDS:.0f} s"
    return None


def costs_to_write(pods: Iterable[WorkerPod], tasks: Mapping[str, int]) -> list[tuple[WorkerPod, str]]:
    """The pods whose deletion cost is not the number of tasks that they hold, with that number."""
    wanted = ((pod, str(tasks.get(pod.ref.name, 0))) for pod in pods)
    return [(pod, cost) for pod, cost in wanted if (pod.cost or "0") != cost]


def _unready_since(pod: Manifest) -> datetime | None:
    for condition in (pod.get("status") or {}).get("conditions") or ():
        if condition["type"] == "Ready":
            if condition["status"] == "True":
                return None
            since = condition.get("lastTransitionTime")
            return known_time(since or pod["metadata"].get("creationTimestamp"))
    return known_time(pod["metadata"].get("creationTimestamp"))


def _containers(pod: Manifest) -> Iterable[Mapping[str, Any]]:
    return (pod.get("status") or {}).get("containerStatuses") or ()


def _loops(pod: Manifest) -> bool:
    waiting = ((container.get("state") or {}).get("waiting") or {} for container in _containers(pod))
    return any(state.get("reason") == CRASH_LOOP for state in waiting)


def _lacks_function(container: Mapping[str, Any]) -> bool:
    ends = (
        (container.get("state") or {}).get("terminated"),
        (container.get("lastState") or {}).get("terminated"),
    )
    return any(ended is not None and ended.get("exitCode") == contract.EXIT_PERMANENT for ended in ends)
