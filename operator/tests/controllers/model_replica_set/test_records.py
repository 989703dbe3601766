"""A revision put on record and taken from there: the set goes on with what worked, and with all else as the
spec has it now.
"""

from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from flotilla_operator.api.model_replica_set import ModelReplicaSet, ModelReplicaSetSpec
from flotilla_operator.cluster.caches import Caches
from flotilla_operator.controllers.model_replica_set.act.records import Making, record
from flotilla_operator.controllers.model_replica_set.observe.recorded import recorded
from flotilla_operator.replicas.facts import Form, SetFacts
from flotilla_operator.replicas.intent import IntentReason, intent_of
from flotilla_operator.workloads.forms import Marks, form_of
from flotilla_operator.workloads.revision import recorded_parts, revision_of, with_recorded_parts
from tests.builders.model_replica_set import (
    IMAGES,
    OWNER,
    full_featured_objects,
    gpu_set,
    model_replica_set,
    spec_of,
)
from tests.controllers.model_replica_set.test_plan import seen_set

SPECS = [ModelReplicaSet.model_validate(manifest).spec for manifest in full_featured_objects()]


@pytest.mark.holds("draining.md", "Each revision is kept as a ControllerRevision")
@pytest.mark.parametrize("before", SPECS)
@pytest.mark.parametrize("now", SPECS)
def test_a_record_restores_its_revision_into_any_spec(before: Any, now: Any) -> None:
    found = with_recorded_parts(now, recorded_parts(before))
    assert revision_of(found) == revision_of(before)
    assert (found.replicas, found.router, found.drain) == (now.replicas, now.router, now.drain)


def test_what_is_no_part_of_a_revision_stays_as_it_is_beside_what_is() -> None:
    before = spec_of(placement={"nodeSelector": {"pool": "a"}, "priorityClassName": "serving"})
    now = spec_of(placement={"nodeSelector": {"pool": "b"}}, replicas=7)
    found = with_recorded_parts(now, recorded_parts(before))
    assert (found.placement.node_selector, found.replicas) == ({"pool": "a"}, 7)
    assert found.placement.priority_class_name == "serving"


def rolled_back(**rollout: str) -> dict[str, Any]:
    return {**gpu_set(), "status": {"rollout": rollout}}


def kept(manifest: dict[str, Any], revision: str, *, key: str = "", refresh: str = "") -> Caches:
    spec = ModelReplicaSet.model_validate(manifest).spec
    made = record(OWNER, Making(revision=revision, number=1, spec=spec, refresh=refresh, key_made_anew=key))
    return Caches.of({**made, "metadata": {**made["metadata"], "uid": "uid-record"}})


def acted_on(
    manifest: dict[str, Any], revision: str, caches: Caches, *, key: str = ""
) -> tuple[ModelReplicaSetSpec, str, str]:
    """The spec in force, its revision, and its refresh, of a set that asks for this revision."""
    form, recorded_facts = facts(manifest, revision, caches, key)
    intent = intent_of(recorded_facts, None)
    assert (IntentReason.ROLLED_BACK in intent.why) is (intent.form is not form)
    return intent.spec, intent.form.revision, intent.form.refresh


def facts(manifest: dict[str, Any], revision: str, caches: Caches, key: str) -> tuple[Form, SetFacts]:
    me = seen_set(manifest, key_made_anew=key)
    newest = replace(me.newest, revision=revision)
    marks = Marks(key_made_anew=key)
    back = recorded(OWNER, newest, marks, me.memory.rollout, caches, partial(form_of, images=IMAGES))
    return newest, replace(me, newest=newest, good=back.good, newest_failed=back.newest_failed)


def test_a_set_whose_revision_has_failed_runs_the_good_one() -> None:
    good = gpu_set(parallelism={"tensor": 2})
    manifest = rolled_back(failedRevision="bad", goodRevision="good")
    spec, revision, _ = acted_on(manifest, "bad", kept(good, "good"))
    assert (spec.parallelism.tensor, revision) == (2, "good")


@pytest.mark.holds(
    "draining.md", "A new engines' key is part of a revision; the way back is the good parts with the new key"
)
def test_the_way_back_over_a_new_key_is_a_revision_of_the_good_parts_and_this_key() -> None:
    good = gpu_set(parallelism={"tensor": 2})
    good_spec = ModelReplicaSet.model_validate(good).spec
    manifest = rolled_back(failedRevision="bad", goodRevision="good")
    caches = kept(good, "good", refresh="monday")
    spec, *marks = acted_on(manifest, "bad", caches, key="noon")
    with_key = revision_of(good_spec, refresh="monday noon")
    assert (spec.parallelism.tensor, marks) == (2, [with_key, "monday"])
    again = kept(good, with_key, refresh="monday", key="noon")
    held = rolled_back(failedRevision="bad", goodRevision=with_key)
    assert list(acted_on(held, "bad", again, key="noon")[1:]) == marks, "and it stays where it is"


def test_where_only_the_key_is_new_the_way_back_leads_to_the_newest_revision_itself() -> None:
    manifest = rolled_back(goodRevision="good")
    asked = revision_of(ModelReplicaSet.model_validate(manifest).spec, refresh="noon")
    _, found = facts(manifest, asked, kept(gpu_set(), "good"), "noon")
    assert found.good is None
    assert not found.can_go_back


@pytest.mark.holds("draining.md", "A new key alone does not try again what has failed")
def test_a_new_key_alone_does_not_try_what_has_failed_again() -> None:
    spec = ModelReplicaSet.model_validate(gpu_set()).spec
    failed, asked = revision_of(spec), revision_of(spec, refresh="noon")
    manifest = rolled_back(failedRevision=failed, goodRevision="good")
    good = kept(gpu_set(parallelism={"tensor": 2}), "good")
    assert acted_on(manifest, asked, good, key="noon")[0].parallelism.tensor == 2


@pytest.mark.parametrize(
    ("manifest", "revision", "caches"),
    [
        pytest.param(gpu_set(), "r", Caches.of(), id="nothing has failed"),
        pytest.param(
            rolled_back(failedRevision="bad", goodRevision="good"),
            "newer",
            kept(gpu_set(), "good"),
            id="the spec was changed since",
        ),
        pytest.param(
            rolled_back(failedRevision="bad", goodRevision="good"), "bad", Caches.of(), id="no record is left"
        ),
        pytest.param(
            {
                **gpu_set(update={"rollback": False}),
                "status": {"rollout": {"failedRevision": "bad", "goodRevision": "good"}},
            },
            "bad",
            kept(gpu_set(), "good"),
            id="rollback was turned off",
        ),
    ],
)
def test_any_other_set_runs_its_spec(manifest: dict[str, Any], revision: str, caches: Caches) -> None:
    spec = ModelReplicaSet.model_validate(manifest).spec
    assert acted_on(manifest, revision, caches)[:2] == (spec, revision)


def test_the_record_of_a_small_set_is_small() -> None:
    spec = ModelReplicaSet.model_validate(model_replica_set()).spec
    made = record(OWNER, Making(revision="r1", number=3, spec=spec))
    assert made["revision"] == 3
    assert made["data"]["model"]["source"] == "hf://meta/llama"
    assert "annotations" not in made["metadata"]
