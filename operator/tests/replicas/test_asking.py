"""Requests to a node autoscaler for replicas that have no room; its slots: test_provisioning."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from flotilla_operator.placement import Refusal
from flotilla_operator.replicas.asking import AskingReason, ask_for_nodes
from flotilla_operator.replicas.provisioning import Attempts, Placeholder, PlaceholderId
from tests.builders.outlooks import bound, outlook, refused, waiting
from tests.builders.pods import NOW

ASKS: dict[str, Any] = {"placement": {"nodeProvisioning": {"mode": "Placeholders", "timeoutSeconds": 600}}}
STANDING = Placeholder(
    name="p", uid="uid-p", id=PlaceholderId(slot=0, stage=0), created_at=NOW, node=None, shape="another"
)
GAVE_UP = Attempts(timeouts=1, last_timeout="no node came", retry_at=NOW + timedelta(seconds=60))


@pytest.mark.parametrize(
    ("outcomes", "attempts", "reason", "created"),
    [
        pytest.param((refused("x"),), Attempts(), AskingReason.NODES_REQUESTED, 1, id="one has no room"),
        pytest.param((refused("x"),), GAVE_UP, AskingReason.TIMED_OUT, 0, id="it was asked in vain"),
    ],
)
def test_nodes_are_asked_for(
    outcomes: tuple[Refusal, ...], attempts: Attempts, reason: AskingReason, created: int
) -> None:
    seen = outlook(waiting=waiting("x"), outcomes=outcomes, **ASKS)
    facts = replace(seen.me.facts, memory=replace(seen.me.memory, attempts=attempts))
    asking = ask_for_nodes(replace(seen, me=replace(seen.me, facts=facts)), (), 0, NOW)
    assert asking is not None
    assert asking.reason is reason
    assert len(asking.provisioning.create) == created


def test_nothing_is_asked_for_where_the_set_does_not_ask_or_has_room() -> None:
    assert ask_for_nodes(outlook(waiting=waiting("x"), outcomes=(refused("x"),)), (), 0, NOW) is None
    has_room = ask_for_nodes(outlook(waiting=waiting("x"), outcomes=(bound("x"),), **ASKS), (), 1, NOW)
    assert has_room is not None
    assert (has_room.shape, has_room.provisioning.create) == (None, ())


def test_placeholders_go_when_the_set_asks_no_more_and_when_they_ask_for_something_else() -> None:
    silent = ask_for_nodes(outlook(waiting=waiting("x"), outcomes=(refused("x"),)), (STANDING,), 0, NOW)
    assert silent is not None
    assert silent.provisioning.remove == (STANDING,)
    seen = outlook(waiting=waiting("x"), outcomes=(refused("x"),), **ASKS)
    asking = ask_for_nodes(seen, (STANDING,), 0, NOW)
    assert asking is not None
    assert [one.name for one in asking.provisioning.remove] == ["p"]
    assert asking.shape is not None
    fitting = replace(STANDING, shape=asking.shape.hash)
    kept = ask_for_nodes(seen, (fitting,), 0, NOW)
    assert kept is not None
    assert (kept.provisioning.kept, kept.provisioning.create) == ((fitting,), ())


def test_while_something_else_holds_all_back_what_stands_stays() -> None:
    seen = outlook(waiting=waiting("x"), outcomes=None, lacks=True, **ASKS)
    asking = ask_for_nodes(seen, (STANDING,), 0, NOW)
    assert asking is not None
    assert (asking.provisioning.kept, asking.provisioning.create) == ((STANDING,), ())
