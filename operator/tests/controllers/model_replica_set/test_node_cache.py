"""Folders of nodes in which a set may keep models, also where it goes back to an older revision."""

from typing import Any

import pytest

from flotilla_operator.controllers.model_replica_set.observe.memory import Memory
from flotilla_operator.controllers.model_replica_set.observe.node_cache import refused_node_cache
from flotilla_operator.controllers.model_replica_set.observe.observe import observe
from flotilla_operator.controllers.model_replica_set.reasons import Reason
from flotilla_operator.replicas.intent import in_force
from flotilla_operator.workloads.revision import recorded_parts
from tests.builders.model_replica_set import model_replica_set, spec_of
from tests.builders.pods import NOW
from tests.controllers.model_replica_set.test_observe import world
from tests.controllers.model_replica_set.test_plan import created, revision_of_set
from tests.controllers.model_replica_set.test_references import CONFIGURED, LISTED
from tests.support.planned import plan_of_set as plan

NOT_LISTED, MOUNTED = Reason.NODE_PATH_NOT_LISTED, Reason.NODE_CACHE_MOUNTED
ON_CLAIM = {"source": "pvc://weights/llama"}


def mounts(*names: str) -> dict[str, Any]:
    mounted = [{"name": name, "mountPath": f"/{number}"} for number, name in enumerate(names)]
    return {"volumes": [{"name": "own", "emptyDir": {}}], "volumeMounts": mounted}


@pytest.mark.holds(
    "engine.md",
    "A folder of the node that is not listed is `NodePathNotListed`; no pod is made, and what runs stays",
)
@pytest.mark.holds("engine.md", "A mount of the whole folder of the node is `NodeCacheMounted`")
@pytest.mark.holds("security.md", "Only listed folders of nodes are used, also by a rollback")
@pytest.mark.parametrize(
    ("path", "spec", "refused"),
    [
        pytest.param(LISTED, {}, None, id="listed"),
        pytest.param(f"{LISTED}/", {}, None, id="listed, with a slash"),
        pytest.param("/srv/models", {}, NOT_LISTED, id="another"),
        pytest.param(f"{LISTED}/team", {}, NOT_LISTED, id="one below it"),
        pytest.param("/var/lib/flotilla", {}, NOT_LISTED, id="the one above it"),
        pytest.param("/var/lib", {}, NOT_LISTED, id="far above it"),
        pytest.param("/", {}, NOT_LISTED, id="everything"),
        pytest.param(f"{LISTED}/../models", {}, NOT_LISTED, id="the same by a way upwards"),
        pytest.param(f"{LISTED}/../../../../etc", {}, NOT_LISTED, id="elsewhere by a way upwards"),
        pytest.param("/srv/models", {"model": ON_CLAIM}, None, id="another, in which nothing is kept"),
        pytest.param(LISTED, {"pod": mounts("own")}, None, id="a volume of the user's own is mounted"),
        pytest.param(LISTED, {"pod": mounts("own", "models")}, MOUNTED, id="the whole of it is mounted too"),
    ],
)
def test_a_folder_of_a_node(path: str, spec: dict[str, Any], refused: Reason | None) -> None:
    found = refused_node_cache(spec_of(modelCache={"mode": "Node", "path": path}, **spec), [LISTED])
    assert (found and found.reason) == refused
    assert found is None or found.message.startswith("spec.")


@pytest.mark.parametrize("cache", [{"mode": "None"}, {"mode": "Claim", "claimName": "models"}])
def test_other_caches_need_no_list(cache: dict[str, str]) -> None:
    assert refused_node_cache(spec_of(modelCache=cache), []) is None


def test_with_no_list_no_folder_may_be_used() -> None:
    found = refused_node_cache(spec_of(modelCache={"mode": "Node"}), [])
    assert found is not None
    assert found.reason is NOT_LISTED


@pytest.mark.holds("security.md", "Only listed folders of nodes are used, also by a rollback")
async def test_a_set_does_not_go_back_to_a_folder_that_is_not_listed() -> None:
    """The newest revision has failed, so new replicas would be made from the record of an older one."""
    old = model_replica_set(modelCache={"mode": "Node", "path": "/etc"}, replicas=1)
    newest = model_replica_set(replicas=1)
    good = revision_of_set(old)
    rollout = {"revision": revision_of_set(newest), "goodRevision": good}
    manifest = {
        **newest,
        "status": {"rollout": {**rollout, "failedRevision": revision_of_set(newest)}},
    }
    record = {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": {
            "name": f"llama-{good}",
            "namespace": "default",
            "uid": "record",
            "labels": {"flotilla.dev/revision": good},
            "ownerReferences": [{"uid": manifest["metadata"]["uid"], "controller": True}],
        },
        "data": recorded_parts(spec_of(modelCache={"mode": "Node", "path": "/etc"}, replicas=1)),
        "revision": 1,
    }
    observed = await observe(manifest, world(manifest, record, config=CONFIGURED), Memory(), NOW)
    assert in_force(observed.facts).spec.model_cache.path == "/etc"
    assert [missing.reason for missing in observed.missing] == [NOT_LISTED]
    assert created(plan(observed, NOW)) == []
