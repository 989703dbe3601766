"""How many replicas a set is to have: what `spec.replicas` says, or what autoscaling decides in its place.

The decision becomes the `replicas` of the spec that is planned, so everything that reads them (turnover, the
disruption budget, the status) follows it. A set that is not planned itself is taken as it was decided last.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from flotilla_operator.api.model_replica_set import ModelReplicaSetSpec
from flotilla_operator.autoscaling.from_zero import ZeroDecision, ZeroPolicy, ZeroSignals, decide
from flotilla_operator.cluster.writes import Manifest
from flotilla_operator.controllers.conditions import parsed_timestamp, timestamp
from flotilla_operator.controllers.model_replica_set.seen import RouterLoad

DECISIONS_KEPT = 5


def scaling_of(
    manifest: Manifest,
    spec: ModelReplicaSetSpec,
    signals: ZeroSignals | None,
) -> ZeroDecision | None:
    """What autoscaling decides; None where `spec.replicas` counts."""
    if spec.autoscaling is None:
        return None
    policy = ZeroPolicy(
        min_replicas=spec.autoscaling.min_replicas,
        max_replicas=spec.autoscaling.max_replicas,
        scale_to_zero_after_seconds=spec.autoscaling.scale_to_zero_after_seconds,
        start_deadline_seconds=spec.update.progress_deadline_seconds,
    )
    return decide(signals, policy, current=_last_wanted(manifest))


def with_replicas(spec: ModelReplicaSetSpec, decision: ZeroDecision | None) -> ModelReplicaSetSpec:
    """The spec with the number that was decided."""
    return spec if decision is None else spec.model_copy(update={"replicas": decision.wanted})


def as_decided_last(manifest: Manifest, spec: ModelReplicaSetSpec) -> ModelReplicaSetSpec:
    """The spec with the number that its own last plan decided."""
    if spec.autoscaling is None:
        return spec
    return spec.model_copy(update={"replicas": _last_wanted(manifest)})


def zero_signals(load: RouterLoad, pods: Sequence[Manifest], now: datetime) -> ZeroSignals | None:
    """What the routers report, as the decision takes it; unknown when none of them answers."""
    if load.waiting is None or load.running is None:
        return None
    return ZeroSignals(
        requests=load.waiting + load.running,
        idle_seconds=load.idle_seconds,
        ready_seconds=ready_seconds(pods, now),
    )


def ready_seconds(pods: Sequence[Manifest], now: datetime) -> float | None:
    """For how long all replicas have been ready; None when one is not, or there is none."""
    staying = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
    times = [_ready_since(pod) for pod in staying]
    known = [since for since in times if since is not None]
    if not known or len(known) < len(times):
        return None
    return (now - max(known)).total_seconds()


def scaling_status(manifest: Manifest, decision: ZeroDecision | None, now: datetime) -> dict[str, Any] | None:
    """`status.autoscaling`: whose number it is, and the last decisions that changed it."""
    if decision is None:
        return None
    before = ((manifest.get("status") or {}).get("autoscaling") or {}).get("lastDecisions") or []
    kept = list(before)
    if decision.wanted != decision.current:
        said = {
            "time": timestamp(now),
            "from": decision.current,
            "to": decision.wanted,
            "reason": f"{decision.reason}: {decision.message}",
        }
        kept = [*kept, said][-DECISIONS_KEPT:]
    return {"owner": "Flotilla", "mode": str(decision.reason), "lastDecisions": kept}


def _last_wanted(manifest: Manifest) -> int:
    return int((manifest.get("status") or {}).get("desiredReplicas") or 0)


def _ready_since(pod: Mapping[str, Any]) -> datetime | None:
    for condition in (pod.get("status") or {}).get("conditions") or ():
        if condition["type"] == "Ready" and condition["status"] == "True":
            return parsed_timestamp(condition["lastTransitionTime"])
    return None
