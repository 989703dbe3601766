"""Groups, each showing only what matters to a row."""

from datetime import timedelta
from typing import Any

from flotilla_operator.controllers.model_replica_set.life import Member, Phase, ReplicaGroup
from tests.builders.pods import NOW, engine_pod


def member(
    name: str, phase: Phase = Phase.READY, *, revision: str = "new", age: float = 60, **fields: Any
) -> ReplicaGroup:
    return ReplicaGroup(
        **{
            "name": name,
            "members": (Member(stage=0, pod=engine_pod(name, node="a")),),
            "phase": phase,
            "revision": revision,
            "server_id": 1,
            "created_at": NOW - timedelta(seconds=age),
            "ready": phase is Phase.READY,
            **fields,
        }
    )
