"""A set after room was looked for, showing only what matters to a row."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from flotilla_operator.placement import Binding, PlacementPlan, Refusal, Score, Snapshot
from flotilla_operator.replicas.backoff import Backoff
from flotilla_operator.replicas.demand import Demand, Waiting
from flotilla_operator.replicas.intent import in_force
from flotilla_operator.replicas.leaving.turnover import Turnover
from flotilla_operator.replicas.outlook import Outlook
from flotilla_operator.replicas.surroundings import Surroundings
from tests.builders.groups import member
from tests.builders.model_replica_set import gpu_set
from tests.builders.placement import POLICY, cluster, group
from tests.builders.pods import NOW
from tests.controllers.model_replica_set.test_plan import seen_set

SET = "default/llama"


def waiting(*names: str) -> tuple[Waiting, ...]:
    return tuple(Waiting(name=name, since=NOW - timedelta(seconds=60)) for name in names)


def bound(name: str, node: str = "a") -> Binding:
    return Binding(group=group(name, owner=SET), nodes=(node,), domain=None, score=Score())


def refused(name: str, *, fits_when_empty: bool = True) -> Refusal:
    return Refusal(group=group(name, owner=SET), nodes_total=0, counts={}, fits_when_empty=fits_when_empty)


def outlook(
    *,
    waiting: tuple[Waiting, ...] = (),
    outcomes: Sequence[Binding | Refusal] | None = (),
    lacks: bool = False,
    backoff: Backoff | None = None,
    server_ids: Sequence[int] = (),
    snapshot: Snapshot | None = None,
    accelerated: bool = True,
    **spec: Any,
) -> Outlook:
    """Without `outcomes` nothing was asked of placement."""
    me = in_force(seen_set(gpu_set(**({} if accelerated else {"accelerator": None}), **spec)))
    groups = tuple(replace(member(f"llama-{number}"), server_id=number) for number in server_ids)
    demand = Demand(
        revision=me.revision, groups=groups, turnover=Turnover(), waiting=waiting, backoff=backoff
    )
    placement = (
        None
        if outcomes is None
        else PlacementPlan(
            bindings=tuple(one for one in outcomes if isinstance(one, Binding)),
            refusals=tuple(one for one in outcomes if isinstance(one, Refusal)),
        )
    )
    around = Surroundings(snapshot=snapshot or cluster(), policy=POLICY)
    return Outlook(me=me, demand=demand, around=around, placement=placement, lacks=lacks)
