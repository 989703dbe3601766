"""Groups, each showing only what matters to a row."""

from datetime import timedelta
from typing import Any

from flotilla_operator.replicas.group import Phase, ReplicaGroup
from flotilla_operator.workloads.group_pods import member_of
from tests.builders.pods import NOW, engine_pod, id_of


def member(
    name: str, phase: Phase = Phase.READY, *, revision: str = "new", age: float = 60, **fields: Any
) -> ReplicaGroup:
    return ReplicaGroup(
        **{
            "name": name,
            "members": (member_of(engine_pod(name, node="a")),),
            "phase": phase,
            "revision": revision,
            "server_id": id_of(name),
            "created_at": NOW - timedelta(seconds=age),
            "ready": phase is Phase.READY,
            **fields,
        }
    )
