"""Whole statuses of a set as golden files: every field and every message, in the scenes that matter.

One row for each reason is in test_reasons.py.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flotilla_operator.controllers.missing import Missing
from flotilla_operator.controllers.model_replica_set.reasons import Reason
from flotilla_operator.controllers.model_replica_set.seen import Observed
from flotilla_operator.replicas.facts import RouterLoad
from flotilla_operator.replicas.revisions.answers import Answers
from tests.builders.model_configs import LLAMA_8B
from tests.builders.model_replica_set import gpu_set
from tests.builders.placement import cluster, node, used
from tests.builders.pods import NOW, time_text
from tests.controllers.model_replica_set.sized_sets import a_set, saying
from tests.controllers.model_replica_set.test_placeholders import asking_set
from tests.controllers.model_replica_set.test_plan import member, observed, revision_of_set
from tests.controllers.model_replica_set.test_reasons import (
    OUTDATED,
    backing_off,
    nodes_that_did_not_come,
    rebalancing,
    rolling_out,
    scaled,
    serving,
    that_moves,
)
from tests.support.planned import plan_of_set
from tests.support.statuses import status_difference, status_text

GOLDEN = Path(__file__).parent / "golden"
WHOLE = "set-that-serves.yaml"
SLO = {"ttftSeconds": 2, "e2eSeconds": 30, "attainment": 0.9}


def a_set_that_serves() -> Observed:
    """Two replicas with conversations, of a model that has said what it is."""
    manifest = a_set(replicas=2, slo=SLO)
    answers = {revision_of_set(manifest): Answers(count=200, failed=1, kept=190)}
    load = RouterLoad(
        waiting=3,
        running=12,
        by_group={"llama-x": 8, "llama-y": 4},
        sessions={"llama-x": 40, "llama-y": 35},
        idle_seconds=0.0,
        answers=answers,
        arrivals_per_second=2.5,
        kept_per_second=2.375,
        kv_usage=0.625,
    )
    held = {"rollout": {"revision": revision_of_set(manifest), "goodRevision": revision_of_set(manifest)}}
    pods = serving(manifest, ("llama-x", "a"), ("llama-y", "b"), inits=saying(LLAMA_8B))
    return observed({**manifest, "status": held}, pods, load=load)


def a_new_set_that_waits_for_room() -> Observed:
    full = cluster(node("a", gpus=4), node("b", gpus=8), claims=(used("a", 4), used("b", 6)))
    return observed(gpu_set(), snapshot=full)


def a_set_that_no_node_can_ever_hold() -> Observed:
    return observed(gpu_set(parallelism={"tensor": 8}), snapshot=cluster(node("a", gpus=4)))


def a_set_that_lacks_secrets() -> Observed:
    lacks = [
        Missing(reason=Reason.SECRET_MISSING, message="spec.model.tokenSecretRef: there is no Secret 'hf'"),
        Missing(reason=Reason.SECRET_KEY_MISSING, message="spec.engine.env: the Secret has no entry 'url'"),
    ]
    return observed(gpu_set(generation=3, shiny=True), missing=tuple(lacks))


def an_update_that_waits_for_room() -> Observed:
    return observed(gpu_set(), OUTDATED, snapshot=cluster(node("a")))


def an_update_on_trial() -> Observed:
    manifest = rolling_out(gpu_set(replicas=1, slo=SLO), progressTime=time_text(300))
    answers = {
        "old": Answers(count=900, failed=2, kept=870),
        revision_of_set(manifest): Answers(count=20, failed=0, kept=19),
    }
    load = RouterLoad(waiting=0, running=1, idle_seconds=0.0, answers=answers)
    return observed(manifest, serving(manifest, ("llama-x", "a")), load=load)


def an_update_that_is_rolled_back() -> Observed:
    return observed(rolling_out(gpu_set(), progressTime=time_text(1800)), OUTDATED)


def a_set_scaled_to_zero() -> Observed:
    return scaled(RouterLoad(waiting=0, running=0, idle_seconds=120.0))


SCENES: dict[str, Callable[[], Observed]] = {
    "new-set-that-waits-for-room": a_new_set_that_waits_for_room,
    "set-that-no-node-can-ever-hold": a_set_that_no_node_can_ever_hold,
    "set-that-lacks-secrets": a_set_that_lacks_secrets,
    "set-that-backs-off": lambda: observed(backing_off()),
    "set-that-has-asked-for-nodes": lambda: observed(asking_set(), snapshot=cluster()),
    "set-whose-nodes-did-not-come": nodes_that_did_not_come,
    "update-that-waits-for-room": an_update_that_waits_for_room,
    "update-on-trial": an_update_on_trial,
    "update-that-is-rolled-back": an_update_that_is_rolled_back,
    "update-that-is-paused": lambda: observed(gpu_set(paused=True), OUTDATED),
    "set-scaled-to-zero": a_set_scaled_to_zero,
    "set-that-is-rebalanced": lambda: rebalancing(that_moves()),
    "replica-that-has-crashed": lambda: observed(
        gpu_set(replicas=1), [member(gpu_set(replicas=1), "llama-x", node="a", pin="a", phase="Failed")]
    ),
}


def status_of(seen: Observed) -> str:
    status: Any = plan_of_set(seen, NOW).status
    assert status is not None
    return status_text(seen.manifest, status)


def test_the_status_of_a_set_that_serves_is_as_reviewed(golden: Callable[[Path, str], None]) -> None:
    golden(GOLDEN / WHOLE, status_of(a_set_that_serves()))


@pytest.mark.parametrize("name", SCENES)
def test_what_differs_from_it_in_other_scenes_is_as_reviewed(
    name: str, golden: Callable[[Path, str], None]
) -> None:
    whole = status_of(a_set_that_serves())
    found = status_difference(status_of(SCENES[name]()), file=WHOLE, whole=whole)
    golden(GOLDEN / f"{name}.diff", found)
