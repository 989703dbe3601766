"""Inside which domains the stages of a group may be placed, the best kind of domain first.

When not everything is possible, wishes are dropped in this order: the common level, the fast interconnect,
and last the label that the user named, unless it is required.
"""

from flotilla_operator.placement.groups import Group, Policy
from flotilla_operator.placement.topology import Path

Scope = tuple[Path, ...]  # stages share the domain of every path; none means anywhere


def bounds(group: Group, policy: Policy) -> Scope:
    """The domains that the group must not leave."""
    labels = [group.pack_within] if group.must_pack else []
    labels += [group.spread_across] if group.must_spread else []
    return tuple(policy.path(label) for label in labels if label is not None)


def scopes(group: Group, policy: Policy) -> list[Scope]:
    """Every kind of domain to try, the best first."""
    must = bounds(group, policy)
    host, *levels = policy.levels
    fast: list[Scope] = [((policy.interconnect_label,),)] if policy.interconnect_label else []
    tried: list[Scope] = []
    wished: list[Scope] = [(policy.path(group.pack_within),)] if group.pack_within else []
    for pack in (*wished, ()):
        outer = tuple(dict.fromkeys((*must, *pack)))
        tried.append((*outer, host))
        for interconnect in (*fast, ()):
            tried += [(*outer, *interconnect, level) for level in levels]
            tried.append((*outer, *interconnect))
    return list(dict.fromkeys(tried))
