"""How old a group is that waits: it keeps its place in the queue when it is given up before it ran, and when
more groups wait than the status names.
"""

from datetime import timedelta
from typing import Any

import pytest

from flotilla_operator.api.model_replica_set import ModelReplicaSet
from flotilla_operator.cluster.status import is_urgent
from flotilla_operator.controllers.model_replica_set.tell.status import AGES_SHOWN, GROUPS_SHOWN
from flotilla_operator.objects.times import parsed_timestamp
from flotilla_operator.placement import Snapshot
from flotilla_operator.replicas.demand import demand_of, judged_groups
from flotilla_operator.replicas.group import EndingReason
from flotilla_operator.replicas.intent import in_force
from flotilla_runtime import contract
from tests.builders.model_replica_set import gpu_set
from tests.builders.placement import cluster, node, used
from tests.builders.pods import NOW, time_text
from tests.controllers.model_replica_set.test_plan import created, member, observed, reasons
from tests.support.planned import plan_of_set as plan

FULL = cluster(node("a"), claims=(used("a", 8),))


def late(manifest: dict[str, Any], waited_seconds: float) -> dict[str, Any]:
    """A pod that was pinned in vain, of a group that had waited before it got its pods."""
    pod = member(manifest, "llama-xxxxx", pin="a", age=31)
    pod["metadata"]["annotations"][contract.ANNOTATION_WAITING_SINCE] = time_text(waited_seconds)
    return pod


def waiting_since(status: Any) -> list[str]:
    return [entry["sinceTime"] for entry in status["groups"] if entry["phase"] == "Waiting"]


def next_status(manifest: dict[str, Any], later: float, snapshot: Snapshot = FULL) -> dict[str, Any]:
    done = plan(observed(manifest, snapshot=snapshot), NOW + timedelta(seconds=later))
    assert done.status is not None
    return dict(done.status)


class TestAGroupThatIsReleased:
    @pytest.mark.holds("placement.md", "A group that is released before it ran keeps its age")
    def test_is_as_old_as_before_it_got_its_pods(self) -> None:
        manifest = gpu_set(replicas=1)
        done = plan(observed(manifest, [late(manifest, 500)], snapshot=FULL), NOW)
        assert reasons(done)[0] == EndingReason.RELEASED
        assert done.status is not None
        assert waiting_since(done.status) == [time_text(500)]

    @pytest.mark.holds("placement.md", "A group that is released before it ran keeps its age")
    def test_carries_its_age_to_its_next_place(self) -> None:
        manifest = gpu_set(replicas=1)
        done = plan(observed(manifest, [late(manifest, 500)], snapshot=cluster(node("a"), node("b"))), NOW)
        (pod,) = created(done)
        assert pod["metadata"]["annotations"][contract.ANNOTATION_WAITING_SINCE] == time_text(500)

    def test_gives_its_age_to_one_group_only(self) -> None:
        manifest = gpu_set(replicas=2)
        done = plan(observed(manifest, [late(manifest, 500)], snapshot=FULL), NOW)
        assert done.status is not None
        assert waiting_since(done.status) == [time_text(500), time_text()]

    def test_has_its_age_written_at_once_for_the_next_look_sees_no_pods(self) -> None:
        manifest = gpu_set(replicas=2)
        manifest["status"] = {
            "groups": [{"name": "llama-y", "phase": "Waiting", "sinceTime": time_text(500)}]
        }
        binding = late(manifest, 500)
        binding["metadata"]["creationTimestamp"] = time_text(29)
        before = plan(observed(manifest, [binding], snapshot=FULL), NOW).status
        manifest["status"] = before
        after = plan(observed(manifest, [late(manifest, 500)], snapshot=FULL), NOW).status
        assert before is not None
        assert after is not None
        assert waiting_since(after) == [time_text(500)] * 2
        assert is_urgent(before, after)
        assert not is_urgent(after, after)

    def test_of_an_operator_that_noted_no_age_is_as_old_as_its_pods(self) -> None:
        manifest = gpu_set(replicas=1)
        done = plan(observed(manifest, [member(manifest, "llama-x", pin="a", age=31)], snapshot=FULL), NOW)
        assert done.status is not None
        assert waiting_since(done.status) == [time_text(31)]


class TestMoreGroupsThanTheStatusNames:
    def test_all_keep_their_age_and_those_with_a_name_their_name(self) -> None:
        manifest = gpu_set(replicas=GROUPS_SHOWN + 10)
        first = next_status(manifest, later=0)
        assert first["moreWaiting"] == [{"sinceTime": time_text(), "replicas": 10}]
        manifest["status"] = first
        seen = observed(manifest, snapshot=FULL)
        later, mine = NOW + timedelta(seconds=300), in_force(seen.facts)
        demand = demand_of(mine, judged_groups(mine, seen.around, later), seen.around, later)
        assert [waiting.since for waiting in demand.waiting] == [parsed_timestamp(time_text())] * 60
        named = [entry["name"] for entry in first["groups"]]
        assert [waiting.name for waiting in demand.waiting[:GROUPS_SHOWN]] == named
        again = next_status(manifest, later=300)
        told = ("groups", "groupCounts", "moreWaiting")
        assert [again[name] for name in told] == [first[name] for name in told], "nothing is news"

    def test_those_that_come_later_are_younger(self) -> None:
        manifest = gpu_set(replicas=GROUPS_SHOWN + 10)
        manifest["status"] = next_status(manifest, later=0)
        manifest["spec"]["replicas"] += 5
        more = next_status(manifest, later=60)["moreWaiting"]
        assert more == [
            {"sinceTime": time_text(), "replicas": 10},
            {"sinceTime": time_text(-60), "replicas": 5},
        ]

    def test_too_many_ages_are_told_as_the_youngest_of_them(self) -> None:
        manifest = gpu_set(replicas=GROUPS_SHOWN)
        for minute in range(AGES_SHOWN + 5):
            manifest["status"] = next_status(manifest, later=minute)
            manifest["spec"]["replicas"] += 1
        more = next_status(manifest, later=60)["moreWaiting"]
        assert len(more) == AGES_SHOWN
        assert sum(entry["replicas"] for entry in more) == AGES_SHOWN + 5
        assert more[-1] == {"sinceTime": time_text(-60), "replicas": 6}
        manifest["status"] = {"moreWaiting": more}
        assert ModelReplicaSet.model_validate(manifest).status is not None

    def test_one_that_finds_room_is_the_oldest(self) -> None:
        manifest = gpu_set(replicas=GROUPS_SHOWN + 10)
        manifest["status"] = next_status(manifest, later=0)
        done = plan(observed(manifest, snapshot=cluster(node("a"))), NOW + timedelta(seconds=60))
        ages = [pod["metadata"]["annotations"][contract.ANNOTATION_WAITING_SINCE] for pod in created(done)]
        assert ages == [time_text()] * 2
