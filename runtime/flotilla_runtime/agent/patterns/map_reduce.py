"""Map-reduce: each item is mapped, and the results are reduced in groups until one is left.

A group is reduced as soon as its own parts are there. A part that is missing is left out, and counted.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from flotilla_runtime.agent.answers import Answer
from flotilla_runtime.agent.patterns.branches import Branch, Group
from flotilla_runtime.agent.patterns.plans import Plan
from flotilla_runtime.agent.patterns.runtime import Branching
from flotilla_runtime.agent.patterns.values import Missing, MissingReason, PatternKind

GROUP_SIZE: Final = 10
AT_ONCE: Final = 16
MOST_ITEMS: Final = 10_000
NO_PARTS: Final = "none of its parts is there"

Map = Callable[[Any, str], Awaitable[Any]]
Reduce = Callable[[Sequence[Any], str], Awaitable[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A call of the tree: that of an item, or one that reduces `parts`."""

    key: str
    parts: tuple[str, ...] = ()
    item: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reduced:
    """The reduction of all items. `received` of `expected` are in it; `missing` names calls that failed."""

    value: Any
    expected: int
    received: int
    missing: Mapping[str, Missing] = field(default_factory=dict)

    @property
    def is_complete(self) -> bool:
        """Whether every item is in it."""
        return self.received == self.expected


def tree(items: int, group_size: int) -> list[Node]:
    """The calls for so many items, each after its parts. The last one has everything in it.

    A single part that is left over goes up as it is.
    """
    nodes = [Node(key=f"map/{item}", item=item) for item in range(items)]
    level, heads = 1, [node.key for node in nodes]
    above: dict[str, list[Node]] = {}
    while level == 1 or len(heads) > 1:
        groups = [heads[first : first + group_size] for first in range(0, len(heads), group_size)]
        is_last = len(groups) == 1
        heads = []
        for place, parts in enumerate(groups):
            if len(parts) == 1 and not is_last:
                heads.append(parts[0])
                continue
            node = Node(key=f"reduce/{level}/{place}", parts=tuple(parts))
            above.setdefault(parts[-1], []).append(node)
            heads.append(node.key)
        level += 1
    return list(_in_order(nodes, above))


def _in_order(nodes: Sequence[Node], above: Mapping[str, Sequence[Node]]) -> list[Node]:
    """Each group is reduced before the next one is mapped, where both could begin."""
    ordered: list[Node] = []
    for leaf in nodes:
        waiting = [leaf]
        while waiting:
            node = waiting.pop()
            ordered.append(node)
            waiting.extend(above.get(node.key, ()))
    return ordered


def map_reduce_group(
    branching: Branching,
    name: str,
    items: Sequence[Any],
    nodes: Sequence[Node],
    calls: tuple[Map, Reduce],
    roles: tuple[str, str],
    *,
    at_once: int,
    timeout_seconds: float | None,
) -> Group:
    """A branch for each call of the tree. The last one has the second role, all others the first."""
    mapping, reducing = calls
    branches = []
    for place, node in enumerate(nodes):
        role = roles[place == len(nodes) - 1]
        if node.item is not None:
            make: Callable[..., Awaitable[Any]] = partial(_mapped, mapping, items[node.item], role)
        else:
            make = partial(_reduced, reducing, role)
        branches.append(Branch(key=node.key, make=make, after=node.parts, timeout_seconds=timeout_seconds))
    plan = Plan(kind=PatternKind.MAP_REDUCE, at_once=at_once)
    return Group(branching, branching.allotted(name), branches, plan)


async def reduced(group: Group, nodes: Sequence[Node]) -> Reduced:
    """Return the reduction when the whole tree has ended."""
    ended = await group.ended()
    missing = {node.key: one for node in nodes if isinstance(one := ended[node.key], Missing)}
    last = nodes[-1].key
    return Reduced(
        value=None if last in missing else ended[last],
        expected=sum(node.item is not None for node in nodes),
        received=received(nodes, missing.keys()),
        missing=missing,
    )


def received(nodes: Sequence[Node], missing: Any) -> int:
    """How many items came through all calls above them."""
    counts: dict[str, int] = {}
    for node in nodes:
        own = 1 if node.item is not None else sum(counts[part] for part in node.parts)
        counts[node.key] = 0 if node.key in missing else own
    return counts[nodes[-1].key]


def refuse_bad_tree(items: Sequence[Any], group_size: int, at_once: int) -> None:
    """Raise ValueError for what cannot be meant."""
    if not 1 <= len(items) <= MOST_ITEMS:
        raise ValueError(f"map_reduce takes 1 to {MOST_ITEMS} items, not {len(items)}")
    if group_size < 2:
        raise ValueError("group_size must be at least 2, or no reduction would end")
    if at_once < 1:
        raise ValueError("at_once must be at least 1")


async def _mapped(mapping: Map, item: Any, role: str) -> Any:
    return _text(await mapping(item, role))


async def _reduced(reducing: Reduce, role: str, *parts: Any) -> Any:
    there = [part for part in parts if not isinstance(part, Missing)]
    if not there:
        return Missing(reason=MissingReason.FAILED, problem=NO_PARTS)
    return _text(await reducing(there, role))


def _text(value: Any) -> Any:
    return value.text if isinstance(value, Answer) else value
