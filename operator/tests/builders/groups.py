"""Groups, each showing only what matters to a row."""

from datetime import timedelta
from typing import Any

from flotilla_operator.controllers.model_replica_set.life import Phase, ReplicaGroup
from tests.builders.pods import NOW


def member(
    name: str, phase: Phase = Phase.READY, *, revision: str = "new", age: float = 60, **fields: Any
) -> ReplicaGroup:
    return ReplicaGroup(
        **{
            "name": name,
            "pod_name": name,
            "uid": name,
            "pinned": False,
            "phase": phase,
            "revision": revision,
            "server_id": 1,
            "node": "a",
            "created_at": NOW - timedelta(seconds=age),
            "ready": phase is Phase.READY,
            **fields,
        }
    )
