"""What callers may count on while replicas of several revisions serve: that which all of them have.

A router knows replicas and no revisions, and an engine answers 404 to a name that it does not serve. So a new
adapter is listed when the last replica without it has gone, and one that is taken away is not listed any more
when the first replica without it is about to come.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from flotilla_operator.api.model_replica_set import ModelReplicaSetSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """The names that callers may send as `model`, and how many sequences one replica works on at once."""

    models: tuple[str, ...]
    max_num_seqs: int


def served_by(spec: ModelReplicaSetSpec) -> Served:
    """What the replicas of this spec serve."""
    adapters = (adapter.name for adapter in spec.engine.adapters)
    return Served(models=(spec.model.name, *adapters), max_num_seqs=spec.engine.max_num_seqs)


def served_by_all(wanted: Served, others: Iterable[Served]) -> Served:
    """What these have in common, in the order of the wanted one; no name at all where a model is renamed."""
    others = tuple(others)
    return Served(
        models=tuple(name for name in wanted.models if all(name in other.models for other in others)),
        max_num_seqs=min(each.max_num_seqs for each in (wanted, *others)),
    )
