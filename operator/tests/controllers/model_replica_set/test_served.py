"""Instructions to routers while two revisions serve: the models that callers find at all of them."""

import json
from typing import Any

import pytest

from flotilla_operator.api.model_replica_set import ModelReplicaSet
from flotilla_operator.cluster.writes import Apply
from flotilla_operator.controllers.model_replica_set.act.records import Making, record
from flotilla_operator.controllers.model_replica_set.observe.memory import Memory
from flotilla_operator.controllers.model_replica_set.observe.observe import observe
from flotilla_operator.workloads.revision import revision_of
from flotilla_runtime import contract
from tests.builders.model_replica_set import OWNER, model_replica_set
from tests.builders.pods import NOW, engine_pod
from tests.builders.world import Secrets, world
from tests.support.planned import plan_of_set as plan

SQL, MAIL = ({"name": name, "source": f"hf://acme/{name}"} for name in ("sql", "mail"))


def revision(manifest: dict[str, Any]) -> str:
    return revision_of(ModelReplicaSet.model_validate(manifest).spec)


def on_record(manifest: dict[str, Any]) -> dict[str, Any]:
    spec = ModelReplicaSet.model_validate(manifest).spec
    made = record(OWNER, Making(revision=revision(manifest), number=1, spec=spec))
    return {**made, "metadata": {**made["metadata"], "uid": f"uid-{made['metadata']['name']}"}}


async def told(now: dict[str, Any], *cluster: dict[str, Any]) -> contract.RouterConfig:
    """Instructions to a router of this set beside these pods and records."""
    key = Secrets({"llama-engine-key": {"key": "k", "madeAnew": ""}}, controller_uid=OWNER.uid)
    done = plan(await observe(now, world(*cluster, secrets=key), Memory(), NOW), NOW)
    (config,) = (
        write.manifest
        for write in done.writes
        if isinstance(write, Apply) and write.manifest["kind"] == "ConfigMap"
    )
    return contract.RouterConfig.model_validate(json.loads(config["data"]["config.json"]))


@pytest.mark.holds(
    "engine.md", "During an update routers list what both revisions serve, and use the smaller `maxNumSeqs`"
)
@pytest.mark.parametrize(
    ("before", "now", "models", "sequences"),
    [
        pytest.param({}, {"adapters": [SQL]}, ("llama",), 48, id="a new adapter waits for the last replica"),
        pytest.param({"adapters": [SQL]}, {}, ("llama",), 48, id="one that is taken away is not listed"),
        pytest.param(
            {"adapters": [SQL]}, {"adapters": [MAIL, SQL]}, ("llama", "sql"), 48, id="what both have is"
        ),
        pytest.param({"maxNumSeqs": 16}, {"maxNumSeqs": 64}, ("llama",), 16, id="no replica gets more"),
        pytest.param({"maxNumSeqs": 64}, {"maxNumSeqs": 16}, ("llama",), 16, id="nor does a new one"),
    ],
)
async def test_during_an_update_routers_know_what_all_replicas_serve(
    before: dict[str, Any], now: dict[str, Any], models: tuple[str, ...], sequences: int
) -> None:
    old, new = model_replica_set(engine=before), model_replica_set(engine=now)
    pods = [
        engine_pod("llama-x", revision=revision(old), ready=True),
        engine_pod("llama-y", revision=revision(new), ready=True),
    ]
    config = await told(new, *pods, on_record(old), on_record(new))
    assert (config.models, config.max_num_seqs) == (models, sequences)
    config = await told(new, *pods[:1], on_record(old))
    assert (config.models, config.max_num_seqs) == (models, sequences), "no new replica is there yet"
    config = await told(new, *pods[1:], on_record(old), on_record(new))
    adapters = [adapter["name"] for adapter in now.get("adapters", ())]
    assert config.models == ("llama", *adapters), "the last old replica has gone"
    assert config.max_num_seqs == now.get("maxNumSeqs", 48)


@pytest.mark.holds("engine.md", "While `model.name` changes, no name is listed")
async def test_while_a_model_is_renamed_no_name_is_served_by_all() -> None:
    old, new = model_replica_set(), model_replica_set(model={"name": "llama-2"})
    pod = engine_pod("llama-x", revision=revision(old), ready=True)
    assert (await told(new, pod, on_record(old))).models == ()


async def test_a_revision_without_a_record_narrows_nothing() -> None:
    pod = engine_pod("llama-x", revision="lost", ready=True)
    assert (await told(model_replica_set(engine={"adapters": [SQL]}), pod)).models == ("llama", "sql")
