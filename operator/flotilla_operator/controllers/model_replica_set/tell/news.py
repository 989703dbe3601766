"""Builds events about single groups. The subject is the group, so news of two groups are two events."""

from flotilla_operator.cluster.writes import Event, EventType
from flotilla_operator.controllers.model_replica_set.reasons import EventReason
from flotilla_operator.replicas.group import EndingReason


def news_of(
    group_name: str, reason: EventReason | EndingReason, words: str, *, is_bad: bool = False
) -> Event:
    """An event about one group. Its note is the group's name followed directly by `words`."""
    event_type = EventType.WARNING if is_bad else EventType.NORMAL
    return Event(type=event_type, reason=reason, note=f"{group_name}{words}", subject=group_name)
