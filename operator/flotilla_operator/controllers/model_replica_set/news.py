"""How an event that tells of one group is made: the same news of two groups are two events."""

from flotilla_operator.cluster.writes import Event, EventType
from flotilla_operator.controllers.model_replica_set.reasons import EventReason


def news_of(group_name: str, reason: EventReason, words: str, *, is_bad: bool = False) -> Event:
    """The event of one group; the note is its name and, right behind it, these words."""
    event_type = EventType.WARNING if is_bad else EventType.NORMAL
    return Event(type=event_type, reason=reason, note=f"{group_name}{words}", subject=group_name)
