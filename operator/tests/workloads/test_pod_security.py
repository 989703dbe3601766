"""Rules for every container of every pod that is rendered: restricted pod security, and requests that a
quota counts. Each row names its containers, so that none is left out.
"""

from collections.abc import Iterator
from typing import Any

import pytest

from flotilla_operator.workloads.placeholder import placeholder_pod
from tests.builders import agent_fleet as fleets
from tests.builders import model_replica_set as sets
from tests.builders import vector_index as indexes
from tests.workloads import test_agent_fleet, test_model_replica_set, test_placeholder, test_vector_index

GPU, CPU, NODE, ENGINE, STAGES, DEVICES, SET_PODS = sets.full_featured_objects()
MANAGED, EXTERNAL, KUBERNETES, WITH_GRAPH, FLEET_PODS = fleets.full_featured_objects()
ON_LITE, ON_MILVUS, INDEX_PODS = indexes.full_featured_objects()
ON_HUB = test_vector_index.embedder(model=test_vector_index.ON_HUB)
ON_CLAIM = test_vector_index.embedder()

PLACEHOLDER = placeholder_pod(
    sets.OWNER, "p", test_placeholder.PLACE, test_placeholder.SHAPE, test_placeholder.DRESS
)

ROUTER = ["render", "haproxy", "agent"]
FETCHED = ["read-model-facts", "fetch-model", "engine"]
ON_NODE = ["make-model-folder", *FETCHED]
VERIFIED = [*ROUTER, "verify-model", "engine"]
FLEET = ["redis", "gateway", "worker"]
INDEX = ["retriever", "plan", "shards", "promote"]
SMALLEST_SET = test_model_replica_set.rendered(sets.model_replica_set(), ())
SMALLEST_FLEET = test_agent_fleet.rendered(fleets.agent_fleet())
SMALLEST_INDEX = test_vector_index.rendered(indexes.vector_index(), ON_CLAIM)

ON_GPUS = test_model_replica_set.rendered(GPU, ("a",))
ON_CPUS = test_model_replica_set.rendered(CPU, ())
WITH_NODE_CACHE = test_model_replica_set.rendered(NODE, ())
WITH_EACH_SETTING = test_model_replica_set.rendered(ENGINE, ("a",))
IN_STAGES = test_model_replica_set.rendered(STAGES, ("a", "b"))
ON_DEVICES = test_model_replica_set.rendered(DEVICES, ("a", "b"))
WITH_REDIS = test_agent_fleet.rendered(MANAGED)
REDIS_OUTSIDE = test_agent_fleet.rendered(EXTERNAL)
FOR_KUBERNETES = test_agent_fleet.rendered(KUBERNETES)
OF_A_GRAPH = test_agent_fleet.rendered(WITH_GRAPH)
WITH_MILVUS = test_vector_index.rendered(ON_LITE, ON_HUB)
MILVUS_OUTSIDE = test_vector_index.rendered(ON_MILVUS, ON_CLAIM)
SET_OPTIONS = test_model_replica_set.rendered(SET_PODS, ())
FLEET_OPTIONS = test_agent_fleet.rendered(FLEET_PODS)
INDEX_OPTIONS = test_vector_index.rendered(INDEX_PODS, ON_CLAIM)

RESTRICTED = [
    pytest.param(SET_OPTIONS, [*ROUTER, *FETCHED], id="set with every option of its pods"),
    pytest.param(FLEET_OPTIONS, [*FLEET, "executor"], id="fleet with every option of its pods"),
    pytest.param(INDEX_OPTIONS, ["milvus", *INDEX], id="index with every option of its pods"),
    pytest.param(SMALLEST_SET, [*ROUTER, *FETCHED], id="smallest set"),
    pytest.param(ON_GPUS, [*ROUTER, *FETCHED], id="set on accelerators"),
    pytest.param(ON_CPUS, VERIFIED, id="model on a claim"),
    pytest.param(WITH_EACH_SETTING, [*ROUTER, *FETCHED], id="every engine setting"),
    pytest.param(IN_STAGES, [*ROUTER, *FETCHED, *FETCHED], id="two stages"),
    pytest.param(ON_DEVICES, [*ROUTER, *FETCHED, *FETCHED], id="two stages on devices of a class"),
    pytest.param(SMALLEST_FLEET, FLEET, id="smallest fleet"),
    pytest.param(WITH_REDIS, [*FLEET, "executor"], id="fleet with every field"),
    pytest.param(REDIS_OUTSIDE, ["gateway", "worker"], id="fleet on a Redis outside"),
    pytest.param(FOR_KUBERNETES, FLEET, id="fleet for callers of Kubernetes"),
    pytest.param(OF_A_GRAPH, FLEET, id="fleet with a graph"),
    pytest.param(SMALLEST_INDEX, ["milvus", *INDEX], id="smallest index"),
    pytest.param(WITH_MILVUS, ["milvus", *INDEX], id="index with every field"),
    pytest.param(MILVUS_OUTSIDE, INDEX, id="index on a Milvus outside"),
    pytest.param([PLACEHOLDER], ["placeholder"], id="placeholder of a replica"),
]


def pods_of(objects: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The spec of each pod, and of each template of pods."""
    for one in objects:
        if one["kind"] == "Pod":
            yield one["spec"]
        elif "template" in one.get("spec", {}):
            yield one["spec"]["template"]["spec"]


def containers_of(pod: dict[str, Any]) -> list[dict[str, Any]]:
    return [*pod.get("initContainers", ()), *pod["containers"]]


@pytest.mark.holds("install.md", "Every pod runs as user and group 65532 under the restricted standard")
@pytest.mark.parametrize(("objects", "containers"), RESTRICTED)
def test_every_container_is_restricted(objects: list[dict[str, Any]], containers: list[str]) -> None:
    pods = list(pods_of(objects))
    assert sorted(one["name"] for pod in pods for one in containers_of(pod)) == sorted(containers)
    for pod in pods:
        of_pod = pod["securityContext"]
        assert of_pod["runAsNonRoot"] is True
        assert of_pod["seccompProfile"] == {"type": "RuntimeDefault"}
        assert (of_pod["runAsUser"], of_pod["runAsGroup"], of_pod["fsGroup"]) == (65532, 65532, 65532)
        for container in containers_of(pod):
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"] is True
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert "runAsUser" not in context


@pytest.mark.holds(
    "install.md",
    "Only `modelCache.mode: Node` needs a privileged namespace; root with the capability CHOWN "
    "alone makes the folder",
)
@pytest.mark.holds(
    "engine.md",
    "In a folder of the node the fetcher is not root and gets of `engine.env` only what leads to the hub",
)
@pytest.mark.holds(
    "security.md", "The container that is root has nothing of the user's and the capability CHOWN alone"
)
def test_only_the_maker_of_a_nodes_folder_is_root_and_it_may_only_give_the_folder_away() -> None:
    pods = list(pods_of(WITH_NODE_CACHE))
    for pod in pods:
        assert (pod["securityContext"]["runAsUser"], pod["securityContext"]["runAsNonRoot"]) == (65532, True)
    contexts = {one["name"]: one["securityContext"] for pod in pods for one in containers_of(pod)}
    assert contexts.keys() == {*ROUTER, *ON_NODE}
    assert contexts.pop("make-model-folder") == {
        "runAsUser": 0,
        "runAsGroup": 0,
        "runAsNonRoot": False,
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"], "add": ["CHOWN"]},
    }
    restricted = {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert list(contexts.values()) == [restricted] * len(contexts)


@pytest.mark.holds("decisions/0007-index-builds.md", "Build pods hold no token")
@pytest.mark.parametrize(
    ("objects", "who"),
    [
        pytest.param(SMALLEST_SET, {"haproxy": "llama-router"}, id="smallest set"),
        pytest.param(
            ON_GPUS,
            {"haproxy": "full-gpu-router", "engine": "engine"},
            id="set with an account of the user's",
        ),
        pytest.param(SMALLEST_FLEET, {}, id="smallest fleet"),
        pytest.param(WITH_REDIS, {}, id="fleet with every field"),
        pytest.param(REDIS_OUTSIDE, {}, id="fleet on a Redis outside"),
        pytest.param(FOR_KUBERNETES, {}, id="fleet for callers of Kubernetes"),
        pytest.param(OF_A_GRAPH, {}, id="fleet with a graph"),
        pytest.param(SMALLEST_INDEX, {}, id="smallest index"),
        pytest.param(WITH_MILVUS, {}, id="index with every field"),
        pytest.param(MILVUS_OUTSIDE, {}, id="index on a Milvus outside"),
    ],
)
def test_only_routers_and_engines_with_an_account_of_the_users_have_a_token(
    objects: list[dict[str, Any]], who: dict[str, str]
) -> None:
    pods = list(pods_of(objects))
    with_token = [pod for pod in pods if pod["automountServiceAccountToken"]]
    assert {pod["containers"][0]["name"]: pod["serviceAccountName"] for pod in with_token} == who
    others = [pod for pod in pods if pod not in with_token and "serviceAccountName" in pod]
    assert {pod["containers"][0]["name"] for pod in others} <= {"gateway"}


@pytest.mark.holds(
    "tasks.md",
    "The gateway's own account may ask for two reviews and do nothing else, and has no token with "
    "other modes",
)
@pytest.mark.parametrize(
    ("objects", "account"),
    [
        pytest.param(FOR_KUBERNETES, "full-kubernetes-gateway", id="mode Kubernetes"),
        pytest.param(WITH_REDIS, None, id="mode Secret"),
        pytest.param(REDIS_OUTSIDE, None, id="mode None"),
    ],
)
def test_a_gateway_has_a_token_only_where_it_has_tokens_reviewed_and_one_that_ends(
    objects: list[dict[str, Any]], account: str | None
) -> None:
    (pod,) = [pod for pod in pods_of(objects) if pod["containers"][0]["name"] == "gateway"]
    tokens = [
        source["serviceAccountToken"]
        for volume in pod["volumes"]
        for source in volume.get("projected", {}).get("sources", ())
        if "serviceAccountToken" in source
    ]
    assert pod.get("serviceAccountName") == account
    assert pod["automountServiceAccountToken"] is False
    assert tokens == ([{"path": "token", "expirationSeconds": 3600}] if account else [])


@pytest.mark.holds("install.md", "Every container but the engine's says what it requests of CPU and memory")
@pytest.mark.parametrize(
    ("objects", "containers"),
    [
        pytest.param(SMALLEST_SET, [*ROUTER, *FETCHED], id="smallest set"),
        pytest.param(ON_GPUS, [*ROUTER, *FETCHED], id="set on accelerators"),
        pytest.param(ON_CPUS, VERIFIED, id="model on a claim"),
        pytest.param(WITH_NODE_CACHE, [*ROUTER, *ON_NODE], id="model in a node's cache"),
        pytest.param(WITH_EACH_SETTING, [*ROUTER, *FETCHED], id="every engine setting"),
        pytest.param(IN_STAGES, [*ROUTER, *FETCHED, *FETCHED], id="two stages"),
        pytest.param(ON_DEVICES, [*ROUTER, *FETCHED, *FETCHED], id="two stages on devices of a class"),
        pytest.param(SMALLEST_FLEET, FLEET, id="smallest fleet"),
        pytest.param(REDIS_OUTSIDE, ["gateway", "worker"], id="fleet on a Redis outside"),
        pytest.param(FOR_KUBERNETES, FLEET, id="fleet for callers of Kubernetes"),
        pytest.param(OF_A_GRAPH, FLEET, id="fleet with a graph"),
        pytest.param(SMALLEST_INDEX, ["milvus", *INDEX], id="smallest index"),
        pytest.param(MILVUS_OUTSIDE, INDEX, id="index on a Milvus outside"),
    ],
)
def test_every_container_but_the_engine_asks_for_what_a_quota_counts(
    objects: list[dict[str, Any]], containers: list[str]
) -> None:
    ours = [one for pod in pods_of(objects) for one in containers_of(pod) if one["name"] != "engine"]
    assert sorted(one["name"] for one in ours) == sorted(name for name in containers if name != "engine")
    for one in ours:
        assert one["resources"]["requests"].keys() == {"cpu", "memory"}, one["name"]


@pytest.mark.parametrize(
    ("objects", "requests"),
    [
        pytest.param(SMALLEST_SET, None, id="nothing"),
        pytest.param(ON_GPUS, {"cpu": "8", "memory": "64Gi"}, id="memory and processors"),
    ],
)
def test_the_engine_asks_for_what_the_user_says(
    objects: list[dict[str, Any]], requests: dict[str, str] | None
) -> None:
    (engine,) = (one for pod in pods_of(objects) for one in containers_of(pod) if one["name"] == "engine")
    assert engine.get("resources", {}).get("requests") == requests
