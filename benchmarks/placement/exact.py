"""Compares how much placement admits on small clusters with the optimum, which a solver proves.

The solver has the same constraints: the accelerators of each node, the stages of a group, and the rack that a
group must stay in. It knows no queue order and no preferences, and may admit any groups. Placement serves
older groups first, so when groups arrived at different times it is also compared with a solver that must do
the same. Equal groups are one variable with a count in the solver's model; the optimum is the same, and the
proof is shorter.
"""

import random
from collections import Counter
from dataclasses import dataclass

import highspy

from flotilla_operator.placement import Group, Snapshot, Topology, place
from flotilla_operator.placement.groups import RACK
from flotilla_operator.placement.plan import turn
from placement.clusters import (
    PIPELINE_SHARE,
    POLICY,
    TENSOR_SIZES,
    TENSOR_WEIGHTS,
    busy,
    free_accelerators,
    group,
    node,
)


@dataclass(frozen=True, slots=True)
class Case:
    """A small cluster and its queue."""

    snapshot: Snapshot
    waiting: tuple[Group, ...]


def case(draw: random.Random, longest_wait_seconds: float) -> Case:
    """Two to eight nodes in two zones of two racks, and groups that want 0.5 to 2 times what is free."""
    count = draw.randint(2, 8)
    topology = Topology.of(
        node(index, f"zone-{index % 2}", f"rack-{draw.randrange(2)}") for index in range(count)
    )
    snapshot = Snapshot(topology=topology, claims=busy(topology, draw.uniform(0, 0.6), draw))
    free = sum(free_accelerators(snapshot).values())
    wanted = draw.uniform(0.5, 2) * free
    waiting: list[Group] = []
    while sum(one.accelerators for one in waiting) < wanted:
        stages = 2 if draw.random() < PIPELINE_SHARE else 1
        must = draw.random() < 0.5
        waiting.append(
            group(
                f"group-{len(waiting):02}",
                tensor=draw.choices(TENSOR_SIZES, TENSOR_WEIGHTS)[0],
                stages=stages,
                since=-draw.uniform(0, longest_wait_seconds),
                pack_within=RACK if stages > 1 else None,
                required=must and stages > 1,
            )
        )
    return Case(snapshot, tuple(waiting))


def admitted(of: Case) -> int:
    """The accelerators of the groups that placement admits."""
    placement = place(of.snapshot, of.waiting, POLICY, 0)
    placement.check(of.snapshot, of.waiting, POLICY)
    return sum(binding.group.accelerators for binding in placement.bindings)


def optimum(of: Case) -> int:
    """The accelerators of the groups that the solver admits; raises when it has no proof of the optimum."""
    model = highspy.Highs()  # type: ignore[no-untyped-call]
    model.setOptionValue("output_flag", False)
    model.setOptionValue("mip_rel_gap", 0.0)
    topology, free = of.snapshot.topology, free_accelerators(of.snapshot)
    used: dict[str, list[highspy.highs_linear_expression]] = {name: [] for name in free}
    gained = []
    for (tensor, stages, must), count in Counter(
        (one.wanted, one.stages, one.must_pack) for one in of.waiting
    ).items():
        path = (POLICY.path(RACK),) if must else ()
        wholes = []
        for members in topology.partition(*path).members.values():
            whole = model.addIntegral(lb=0, ub=count)
            parts = []
            for position in members:
                name = topology.nodes[position].name
                part = model.addIntegral(lb=0, ub=max(free[name] // tensor, 0))
                used[name].append(tensor * part)
                parts.append(part)
            model.addConstr(sum(parts[1:], 1 * parts[0]) == stages * whole)
            wholes.append(whole)
            gained.append(tensor * stages * whole)
        model.addConstr(sum(wholes[1:], 1 * wholes[0]) <= count)
    for name, terms in used.items():
        model.addConstr(sum(terms[1:], terms[0]) <= max(free[name], 0))
    model.maximize(sum(gained[1:], gained[0]))
    if model.getModelStatus() != highspy.HighsModelStatus.kOptimal:
        raise RuntimeError(f"the solver did not prove its optimum: {model.getModelStatus()}")
    return round(model.getObjectiveValue())


def in_turn(of: Case) -> int:
    """The optimum in queue order: each group is admitted if the solver finds room for it and those before."""
    kept: list[Group] = []
    for one in sorted(of.waiting, key=turn):
        wanted = sum(other.accelerators for other in (*kept, one))
        if optimum(Case(of.snapshot, (*kept, one))) == wanted:
            kept.append(one)
    return sum(one.accelerators for one in kept)


@dataclass(frozen=True, slots=True)
class Shares:
    """Replicas that placement admits, as shares of those that the solver admits."""

    exact: float
    below_exact: int
    in_turn: float


def shares(count: int, seed: int, longest_wait_seconds: float) -> Shares:
    """The shares over this many clusters; the order is solved only where placement is below the optimum."""
    draw = random.Random(seed)
    cases = [one for one in (case(draw, longest_wait_seconds) for _ in range(count)) if one.waiting]
    ours, best = [admitted(one) for one in cases], [optimum(one) for one in cases]
    assert all(a <= b for a, b in zip(ours, best, strict=True)), "the solver missed an admission"
    turns = [b if a == b else in_turn(one) for one, a, b in zip(cases, ours, best, strict=True)]
    return Shares(
        exact=sum(ours) / sum(best),
        below_exact=sum(a < b for a, b in zip(ours, best, strict=True)),
        in_turn=sum(ours) / sum(turns),
    )
