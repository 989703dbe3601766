"""Verdicts on a model that does not fit: what the set says, which replicas give back what they hold,
and what proves the verdict wrong. The sizes it rests on: test_sizing.
"""

from typing import Any

import pytest

from flotilla_operator.controllers.model_replica_set.reasons import Reason
from flotilla_runtime.contract import ANNOTATION_WAITING_SINCE
from tests.builders.model_configs import DEEPSEEK_V3, LLAMA_70B, QWEN2_7B
from tests.builders.model_replica_set import gpu_set
from tests.builders.placement import cluster, node
from tests.builders.pods import container_status, time_text
from tests.controllers.model_replica_set.sized_sets import (
    WEIGHTS_70B,
    a_set,
    capacity,
    planned,
    saying,
    started,
)
from tests.controllers.model_replica_set.test_plan import (
    condition,
    created,
    deleted,
    member,
    revision_of_set,
    shown,
)


@pytest.mark.holds(
    "capacity.md",
    "A model that does not fit makes `SpecValid` False with the reason, the GiB that lack and what would fit",
)
def test_a_model_that_cannot_fit_says_by_how_much_and_what_would() -> None:
    done = planned(a_set(tensor=2), LLAMA_70B, WEIGHTS_70B)
    assert shown(done, "SpecValid") == ("False", Reason.MODEL_DOES_NOT_FIT)
    assert condition(done, "SpecValid")["message"] == (
        "the model does not fit: each accelerator needs 65.7 GiB for weights and 20.0 GiB for the KV cache "
        "of one sequence of 131072 tokens; an accelerator of 80 GiB has 71.6 GiB for both, which is 14.1 GiB "
        "too little; it would fit with spec.parallelism.tensor 4, or with spec.engine.maxModelLen 37888"
    )
    assert shown(done, "Stalled") == ("True", Reason.MODEL_DOES_NOT_FIT)
    assert capacity(done).get("sequencesPerReplica") is None


@pytest.mark.holds("capacity.md", "No new replica is started for a model that does not fit")
def test_no_further_replica_is_started_for_it_and_those_that_exist_may_try() -> None:
    done = planned(a_set(tensor=2), LLAMA_70B, WEIGHTS_70B)
    assert created(done) == []
    assert not any(type(write).__name__ == "Delete" for write in done.writes)
    assert shown(done, "Placed") == ("False", Reason.MODEL_DOES_NOT_FIT)


def several(manifest: dict[str, Any], **fields: Any) -> list[dict[str, Any]]:
    """Three replicas that load, the oldest first; it has said what its model is."""
    inits = saying(LLAMA_70B, WEIGHTS_70B)
    return [
        member(manifest, f"llama-{at}", node=at, pin=at, age=age, **({"inits": inits} | fields))
        for age, at in ((30, "b"), (20, "a"), (10, "c"))
    ]


ROOM_FOR_SEVERAL = cluster(*(node(name) for name in "abc"))


@pytest.mark.holds(
    "capacity.md",
    "Replicas that never served give their accelerators back, all but one, and keep their place in the queue",
)
def test_of_several_that_never_served_one_is_left_to_try_and_the_others_give_back_what_they_hold() -> None:
    manifest = a_set(tensor=2, replicas=3)
    done = planned(manifest, pods=several(manifest), snapshot=ROOM_FOR_SEVERAL)
    assert sorted(deleted(done)) == ["llama-a", "llama-c"]
    words = "ModelDoesNotFit: it releases its accelerators, and only llama-b still tries to start"
    assert [(str(event.reason), event.note) for event in done.events[:2]] == [
        ("GroupReleased", f"llama-a: {words}"),
        ("GroupReleased", f"llama-c: {words}"),
    ]
    after = planned(manifest, pods=several(manifest)[:1], snapshot=ROOM_FOR_SEVERAL, status=done.status)
    assert (deleted(after), created(after)) == ([], [])
    assert shown(after, "Placed") == ("False", Reason.MODEL_DOES_NOT_FIT)


@pytest.mark.holds(
    "capacity.md",
    "Replicas that never served give their accelerators back, all but one, and keep their place in the queue",
)
def test_those_that_are_given_up_wait_on_with_the_age_that_they_had() -> None:
    manifest = a_set(tensor=2, replicas=3)
    trying, *others = several(manifest)
    others[0]["metadata"]["annotations"][ANNOTATION_WAITING_SINCE] = time_text(500)
    done = planned(manifest, pods=[trying, *others], snapshot=ROOM_FOR_SEVERAL)
    after = planned(manifest, pods=[trying], snapshot=ROOM_FOR_SEVERAL, status=done.status)
    for status in (done.status, after.status):
        assert status is not None
        ages = [entry["sinceTime"] for entry in status["groups"] if entry["phase"] == "Waiting"]
        assert ages == [time_text(500), time_text(10)]


@pytest.mark.holds(
    "capacity.md", "Replicas that serve, of an older revision or of a paused set are not touched"
)
@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        pytest.param({"paused": True}, {}, id="of a paused set"),
        pytest.param({}, {"inits": ()}, id="of a model of which nothing is known"),
        pytest.param({}, {"ready": True}, id="that serve"),
        pytest.param({}, {"containers": [container_status(started=True)]}, id="whose engines answer"),
        pytest.param({"engine": {"maxModelLen": 8192}}, {}, id="of a model that fits"),
    ],
)
def test_no_replicas_are_given_up(changes: dict[str, Any], fields: dict[str, Any]) -> None:
    manifest = a_set(tensor=2, replicas=3, **changes)
    assert deleted(planned(manifest, pods=several(manifest, **fields), snapshot=ROOM_FOR_SEVERAL)) == []


@pytest.mark.holds(
    "capacity.md", "Replicas that serve, of an older revision or of a paused set are not touched"
)
def test_replicas_of_an_older_revision_and_of_one_that_was_good_stay() -> None:
    manifest = a_set(tensor=2, replicas=3)
    old = [
        member(manifest, f"llama-{at}-old", node=at, pin=at, revision="old", ready=True, server_id=number)
        for number, at in enumerate("abc", start=4)
    ]
    new = several(manifest)[:1]
    assert deleted(planned(manifest, pods=[*old, *new], snapshot=ROOM_FOR_SEVERAL)) == []
    now = {"revision": revision_of_set(manifest)}
    restarting = several(manifest)
    for proof in ({"goodRevision": now["revision"]}, {"mostReadyReplicas": 1}):
        status = {"rollout": {**now, **proof}}
        done = planned(manifest, pods=restarting, snapshot=ROOM_FOR_SEVERAL, status=status)
        assert (deleted(done), shown(done, "SpecValid")) == ([], ("True", Reason.VALID)), proof


def test_what_a_node_can_give_bounds_what_is_proposed() -> None:
    small = cluster(node("a", gpus=4), node("b", gpus=4))
    done = planned(a_set(tensor=4), DEEPSEEK_V3, snapshot=small)
    assert condition(done, "SpecValid")["message"].endswith(
        "it would fit with spec.parallelism.tensor 4 and spec.parallelism.pipeline 3"
    )


@pytest.mark.holds("capacity.md", "A tensor that does not divide the attention heads has its own reason")
def test_a_tensor_that_does_not_divide_the_heads_is_known_without_memory() -> None:
    done = planned(gpu_set(parallelism={"tensor": 8}), QWEN2_7B)
    assert shown(done, "SpecValid") == ("False", Reason.TENSOR_DOES_NOT_DIVIDE_HEADS)
    assert condition(done, "SpecValid")["message"] == (
        "spec.parallelism.tensor is 8, but the model's 28 attention heads and 4 KV heads cannot be spread "
        "evenly over 8 accelerators; set it to one of 1, 2, 4"
    )


@pytest.mark.holds("capacity.md", "A replica that becomes ready proves the verdict wrong")
def test_a_replica_that_serves_proves_the_arithmetic_wrong() -> None:
    manifest = a_set(tensor=2)
    serving = started(manifest, "llama-a", age=500, ready_ago=400, inits=saying(LLAMA_70B, WEIGHTS_70B))
    done = planned(manifest, pods=[serving])
    assert shown(done, "SpecValid") == ("True", Reason.VALID)
    after = planned(manifest, LLAMA_70B, WEIGHTS_70B, status=done.status)
    assert shown(after, "SpecValid") == ("True", Reason.VALID), "it did not fit once it had gone"
