"""Pods that take a secret's entry from their environment are rolled when its value changes, and only then."""

from collections.abc import Mapping

import pytest

from flotilla_operator.cluster.writes import Apply
from flotilla_operator.controllers.controller import Secret
from flotilla_operator.objects.hashes import keyed_hash
from flotilla_runtime import contract
from tests.builders.agent_fleet import agent_fleet, served_model
from tests.builders.vector_index import vector_index
from tests.controllers.agent_fleet import test_plan as fleets
from tests.controllers.vector_index import indexes

EXTERNAL = {"mode": "External", "uri": "http://milvus:19530", "tokenSecretRef": {"name": "milvus"}}


def retriever_hash(token: bytes = b"t", key: bytes = b"k", **others: bytes) -> str:
    """The retriever's hash under these values, in the index's own entries and in others beside them."""
    stage = indexes.Stage(
        vector_index(milvus=EXTERNAL),
        indexes.embedder(router={"authSecretRef": {"name": "keys"}}),
        indexes.claim("documents"),
        milvus={"token": token},
        keys={"vectorindex-handbook": key, **others},
    )
    (deployment,) = [
        write.manifest
        for write in stage.plan().writes
        if isinstance(write, Apply) and write.manifest["kind"] == "Deployment"
    ]
    found: str = deployment["spec"]["template"]["metadata"]["annotations"][contract.ANNOTATION_CONFIG_HASH]
    return found


def test_a_retriever_notices_another_token_of_milvus() -> None:
    assert retriever_hash(token=b"rotated") != retriever_hash()


@pytest.mark.holds("router.md", "A fleet and an index call with their own entries of the Secret")
def test_a_retriever_notices_another_key_for_the_embedder() -> None:
    assert retriever_hash(key=b"rotated") != retriever_hash()


def test_another_caller_in_a_shared_secret_restarts_no_retriever() -> None:
    assert retriever_hash(another=b"caller") == retriever_hash()


async def versions(**entries: str) -> Mapping[str, str]:
    """Knowledge of a fleet about the secret that holds the callers of its model."""
    stage = fleets.Stage(served_model(router={"authSecretRef": {"name": "keys"}}), keys=entries)
    observed, _ = await stage.look(agent_fleet())
    return observed.wiring.secret_versions


@pytest.mark.holds("router.md", "A fleet and an index call with their own entries of the Secret")
async def test_a_fleet_notices_its_own_key_and_not_another_callers() -> None:
    mine = {"agentfleet-support": "k"}
    before = await versions(**mine)
    assert await versions(**mine, another="caller") == before
    assert await versions(**{"agentfleet-support": "rotated"}) != before


def test_a_version_tells_nothing_of_the_value_without_the_secrets_uid() -> None:
    def version(uid: str, value: bytes) -> str:
        return Secret(name="s", uid=uid, resource_version="1", data={"k": value}).version("k")

    assert version("one", b"a") == version("one", b"a") == keyed_hash(b"a", key="one")
    assert len({version("one", b"a"), version("one", b"b"), version("two", b"a")}) == 3
