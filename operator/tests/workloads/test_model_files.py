"""How files come into an engine pod: the volumes, where they are mounted, what the container is told."""

from itertools import pairwise
from typing import Any

import pytest

from flotilla_operator.replicas.group import GroupIdentity
from flotilla_operator.workloads.engine_pod import engine_pod
from flotilla_runtime.contract import EngineFiles, FilesRole
from tests.builders.model_replica_set import IMAGES, OWNER, spec_of

ADAPTER = {"name": "sql", "source": "hf://acme/sql"}
ON_CLAIM = {"name": "mail", "source": "pvc://heads/mail"}


def pod_of(**spec: Any) -> dict[str, Any]:
    identity = GroupIdentity(name="llama-abcde", server_id=1, revision="r")
    pod: dict[str, Any] = engine_pod(OWNER, spec_of(**spec), identity, IMAGES)["spec"]
    return pod


def volumes(pod: dict[str, Any]) -> dict[str, str]:
    """Source of each volume of files."""
    own = {"home", "tmp", "shm", "engine-guard"}
    found = [volume for volume in pod["volumes"] if volume["name"] not in own]
    return {
        volume["name"]: volume["persistentVolumeClaim"]["claimName"]
        if "persistentVolumeClaim" in volume
        else next(key for key in volume if key != "name")
        for volume in found
    }


def mounts(container: dict[str, Any]) -> dict[str, tuple[str, bool]]:
    """Volume and whether it is read-only, by path."""
    return {
        mount["mountPath"]: (mount["name"], mount.get("readOnly", False))
        for mount in container["volumeMounts"]
        if mount["mountPath"].startswith(("/models", "/claims"))
    }


@pytest.mark.holds(
    "engine.md", "What is fetched lies in `/models`, claims are mounted read-only in `/claims/NAME`"
)
@pytest.mark.parametrize(
    ("spec", "expected_volumes", "expected_mounts"),
    [
        pytest.param({}, {"models": "emptyDir"}, {"/models": ("models", False)}, id="fetched"),
        pytest.param(
            {"model": {"source": "pvc://weights/llama"}},
            {"files-0": "weights"},
            {"/claims/weights": ("files-0", True)},
            id="on a claim",
        ),
        pytest.param(
            {"model": {"source": "pvc://weights/llama"}, "engine": {"adapters": [ADAPTER]}},
            {"models": "emptyDir", "files-0": "weights"},
            {"/models": ("models", False), "/claims/weights": ("files-0", True)},
            id="on a claim, and an adapter is fetched",
        ),
        pytest.param(
            {
                "model": {"source": "pvc://heads/llama"},
                "engine": {
                    "adapters": [ON_CLAIM],
                    "speculative": {"method": "Draft", "model": "pvc://drafts/small"},
                },
            },
            {"files-0": "heads", "files-1": "drafts"},
            {"/claims/heads": ("files-0", True), "/claims/drafts": ("files-1", True)},
            id="three things on two claims",
        ),
        pytest.param(
            {
                "modelCache": {"mode": "Claim", "claimName": "heads"},
                "engine": {"adapters": [ON_CLAIM]},
            },
            {"models": "heads"},
            {"/models": ("models", False), "/claims/heads": ("models", True)},
            id="a claim that is the cache too is one volume",
        ),
    ],
)
def test_volumes_and_mounts(
    spec: dict[str, Any], expected_volumes: dict[str, str], expected_mounts: dict[str, tuple[str, bool]]
) -> None:
    pod = pod_of(**spec)
    assert volumes(pod) == expected_volumes
    assert mounts(pod["initContainers"][0]) == expected_mounts
    engine = mounts(pod["containers"][0])
    assert engine == {path: (volume, True) for path, (volume, _) in expected_mounts.items()}


def test_what_only_lies_on_claims_is_verified_and_anything_else_fetched() -> None:
    on_claim = {"source": "pvc://weights/llama"}
    assert pod_of(model=on_claim)["initContainers"][0]["name"] == "verify-model"
    with_adapter = pod_of(model=on_claim, engine={"adapters": [ADAPTER]})
    assert with_adapter["initContainers"][0]["name"] == "fetch-model"


@pytest.mark.holds("engine.md", "An adapter's revision is what the fetching container is told")
@pytest.mark.parametrize(
    ("engine", "told"),
    [
        pytest.param({}, [], id="nothing beside the model"),
        pytest.param(
            {
                "adapters": [{**ADAPTER, "revision": "v1", "rank": 64}, ON_CLAIM],
                "speculative": {"method": "Draft", "model": "hf://acme/small"},
            },
            [
                EngineFiles(
                    role=FilesRole.GUESSER,
                    field="spec.engine.speculative.model",
                    folder="/models/acme--small",
                    source="hf://acme/small",
                ),
                EngineFiles(
                    role=FilesRole.ADAPTER,
                    field="spec.engine.adapters[sql]",
                    folder="/models/acme--sql@v1",
                    source="hf://acme/sql",
                    revision="v1",
                    highest_rank=64,
                ),
                EngineFiles(
                    role=FilesRole.ADAPTER,
                    field="spec.engine.adapters[mail]",
                    folder="/claims/heads/mail",
                    highest_rank=16,
                ),
            ],
            id="a draft model, an adapter of the hub and one on a claim",
        ),
    ],
)
def test_the_container_is_told_each_thing_with_its_field_and_rank(
    engine: dict[str, Any], told: list[EngineFiles]
) -> None:
    arguments = pod_of(engine=engine)["initContainers"][0]["args"]
    values = [value for name, value in pairwise(arguments) if name == "--also"]
    assert [EngineFiles.model_validate_json(value) for value in values] == told
