"""Asks the API server, by a dry run, whether it would take the older spec of a roll-back as a new one.

A set that goes back runs a spec that no admission policy has judged since it was written. The dry run is a
POST under a generated name and not a change of the set itself: a policy then judges the spec as it judges a
new object, and the operator needs no right to change sets.
"""

from datetime import datetime

from flotilla_operator.api.model_replica_set import ModelReplicaSetSpec
from flotilla_operator.cluster.writes import DryRun
from flotilla_operator.controllers.model_replica_set.seen import Situation
from flotilla_operator.objects.resources import MODEL_REPLICA_SETS, Manifest
from flotilla_operator.replicas.revisions.rollout import Rollout

LONGEST_START = 33  # of a name, which has at most 40 characters with the suffix that the API server adds
OF_KUBECTL = "kubectl.kubernetes.io/last-applied-configuration"


def dry_runs(situation: Situation, rollout: Rollout, now: datetime) -> list[DryRun]:
    """The question whether the last good spec may be run, if a roll-back asks for leave now."""
    good = situation.me.facts.good
    if good is None or not rollout.may_ask_leave(now):
        return []
    return [DryRun(ref=MODEL_REPLICA_SETS.ref_to(situation.manifest), manifest=_new(situation, good.spec))]


def _new(situation: Situation, spec: ModelReplicaSetSpec) -> Manifest:
    """The set as somebody would create it with this spec: policies may ask for its labels too."""
    held = situation.manifest["metadata"]
    annotations = {
        name: value for name, value in (held.get("annotations") or {}).items() if name != OF_KUBECTL
    }
    return {
        "apiVersion": MODEL_REPLICA_SETS.api_version,
        "kind": MODEL_REPLICA_SETS.kind,
        "metadata": {
            "generateName": f"{held['name'][:LONGEST_START]}-",
            "namespace": held["namespace"],
            "labels": held.get("labels") or {},
            "annotations": annotations,
        },
        "spec": spec.model_dump(mode="json", by_alias=True, exclude_none=True),
    }
