"""A revision put on record and taken from there: the set goes on with what worked, and with all else as the
spec has it now.
"""

from typing import Any

import pytest

from flotilla_operator.api.model_replica_set import ModelReplicaSet
from flotilla_operator.cluster.caches import Caches
from flotilla_operator.controllers.model_replica_set.records import RolledBack, record, restored
from flotilla_operator.workloads.revision import recorded_parts, revision_of, with_recorded_parts
from tests.builders.model_replica_set import (
    OWNER,
    full_featured_objects,
    gpu_set,
    model_replica_set,
    spec_of,
)

SPECS = [ModelReplicaSet.model_validate(manifest).spec for manifest in full_featured_objects()]


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


def kept(manifest: dict[str, Any], revision: str) -> Caches:
    spec = ModelReplicaSet.model_validate(manifest).spec
    made = record(OWNER, spec, revision, 1)
    return Caches.of({**made, "metadata": {**made["metadata"], "uid": "uid-record"}})


def test_a_set_whose_revision_has_failed_runs_the_good_one() -> None:
    good = gpu_set(parallelism={"tensor": 2})
    manifest = rolled_back(failedRevision="bad", goodRevision="good")
    spec = ModelReplicaSet.model_validate(manifest).spec
    found, back = restored(spec, manifest, "bad", kept(good, "good"))
    assert (found.parallelism.tensor, back) == (2, RolledBack(good="good", failed="bad"))


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
    assert restored(spec, manifest, revision, caches) == (spec, None)


def test_the_record_of_a_small_set_is_small() -> None:
    spec = ModelReplicaSet.model_validate(model_replica_set()).spec
    assert record(OWNER, spec, "r1", 3)["revision"] == 3
    assert record(OWNER, spec, "r1", 3)["data"]["model"]["source"] == "hf://meta/llama"
