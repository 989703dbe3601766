"""Models and adapters that all replicas of a set serve while replicas of several revisions exist.

A router does not know revisions, and an engine answers 404 for a name that it does not serve. So a new
adapter is listed only once the last replica without it is gone, and a removed one is taken off the list
before the first replica without it is made.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from flotilla_operator.api.model_replica_set import ModelReplicaSetSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """The names that callers may send as `model`, and how many sequences a replica runs at the same time."""

    models: tuple[str, ...]
    max_num_seqs: int


def served_by(spec: ModelReplicaSetSpec) -> Served:
    """Return the models that the replicas of this spec serve."""
    adapters = (adapter.name for adapter in spec.engine.adapters)
    return Served(models=(spec.model.name, *adapters), max_num_seqs=spec.engine.max_num_seqs)


def served_by_all(wanted: Served, others: Iterable[Served]) -> Served:
    """Return the models that all of these serve, in the order of `wanted`; none during a renaming."""
    others = tuple(others)
    return Served(
        models=tuple(name for name in wanted.models if all(name in other.models for other in others)),
        max_num_seqs=min(each.max_num_seqs for each in (wanted, *others)),
    )
