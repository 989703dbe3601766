"""What a set says of its replicas' memory: facts of pods in, status and condition out, word by word.

The arithmetic itself: tests/capacity. The real loop with an init container's message: test_apiserver.
"""

from collections.abc import Sequence
from typing import Any

import pytest

from flotilla_operator.cluster.writes import Plan
from flotilla_operator.controllers.model_replica_set.plan import plan
from flotilla_operator.controllers.model_replica_set.reasons import Reason
from flotilla_operator.controllers.model_replica_set.startups import STARTUPS_KEPT
from flotilla_operator.placement import Node, Snapshot
from flotilla_runtime.contract import ANNOTATION_WAITING_SINCE, ModelFacts
from tests.builders.model_configs import DEEPSEEK_V3, LLAMA_8B, LLAMA_70B, MINILM, QWEN2_7B
from tests.builders.model_replica_set import gpu_set, merged, model_replica_set
from tests.builders.placement import cluster, node
from tests.builders.pods import NOW, container_status, terminated, time_text
from tests.controllers.model_replica_set.test_plan import (
    condition,
    created,
    deleted,
    member,
    observed,
    revision_of_set,
    shown,
)

WEIGHTS_8B, WEIGHTS_70B = 16_060_556_376, 141_107_497_872  # of the repositories' index files
MEMORY = "nvidia.com/gpu.memory"


def saying(config: dict[str, Any], file_bytes: int | None = None) -> list[dict[str, Any]]:
    facts = ModelFacts(config=config, file_bytes=file_bytes).model_dump_json(exclude_none=True)
    return [container_status("read-model-facts", state=terminated(0, facts))]


def labelled(name: str, mib: str | None, **fields: Any) -> Node:
    return node(name, labels={MEMORY: mib} if mib else {}, **fields)


def planned(
    manifest: dict[str, Any],
    config: dict[str, Any] | None = LLAMA_8B,
    file_bytes: int | None = None,
    *,
    ready: bool = False,
    pods: Sequence[dict[str, Any]] = (),
    snapshot: Snapshot | None = None,
    status: dict[str, Any] | None = None,
) -> Plan:
    """A set with one pod that has said this of its model."""
    inits = saying(config, file_bytes) if config is not None else ()
    pods = pods or [member(manifest, "llama-aaaaa", node="a", pin="a", ready=ready, inits=inits)]
    whole = {**manifest, "status": status} if status is not None else manifest
    return plan(observed(whole, pods, snapshot=snapshot), NOW)


def capacity(done: Plan) -> dict[str, Any]:
    assert done.status is not None
    found: dict[str, Any] = done.status["capacity"] or {}
    return found


def a_set(*, tensor: int = 1, **changes: Any) -> dict[str, Any]:
    """Two replicas on H100s of 80 GiB."""
    base = gpu_set(parallelism={"tensor": tensor}, accelerator={"memoryGiB": 80})
    return merged(base, {"spec": changes})


def test_a_set_says_what_one_replica_holds() -> None:
    done = planned(a_set(engine={"maxModelLen": 8192}), LLAMA_8B, WEIGHTS_8B)
    said = capacity(done)
    # 80 · 0.92 − 2 GiB of working memory − 14.96 GiB of weights, in pieces of 8192 · 131072 B.
    assert said["sequencesPerReplica"] == pytest.approx((80 * 0.92 - 2 - 14.957) / 1, abs=0.1) == 56.6
    assert said["kvBytesPerToken"] == 131_072
    assert (said["weightsGiB"], said["acceleratorGiB"], said["sequenceTokens"]) == (14.96, 80, 8192)
    assert said["model"]["weightsFrom"] == "Files"
    assert shown(done, "SpecValid") == ("True", Reason.VALID)
    assert len(created(done)) == 1


@pytest.mark.parametrize(
    ("changes", "config", "expected"),
    [
        pytest.param(
            {}, LLAMA_8B, {"sequenceTokens": 131072, "sequencesPerReplica": 3.5}, id="its own length"
        ),
        pytest.param(
            {"engine": {"maxModelLen": 8192, "kvCacheDtype": "FP8"}},
            LLAMA_8B,
            {"kvBytesPerToken": 65_536, "sequencesPerReplica": 113.3},
            id="an 8-bit cache",
        ),
        pytest.param(
            {"engine": {"maxModelLen": 8192, "extraArgs": ["--gpu-memory-utilization=0.5"]}},
            LLAMA_8B,
            {"sequencesPerReplica": 23.0},
            id="less of the memory",
        ),
        pytest.param(
            {"engine": {"maxModelLen": 8192, "extraArgs": ["--gpu_memory_utilization", "0.5"]}},
            LLAMA_8B,
            {"sequencesPerReplica": 23.0},
            id="the same in two words",
        ),
        pytest.param(
            {"engine": {"extraArgs": ["--quantization", "fp8"]}},
            LLAMA_8B,
            {"sequencesPerReplica": None, "kvBytesPerToken": 131_072},
            id="an argument that changes memory",
        ),
        pytest.param(
            {"engine": {"extraArgs": ["--gpu-memory-utilization", "most"]}},
            LLAMA_8B,
            {"sequencesPerReplica": None},
            id="a share that is no number",
        ),
        pytest.param(
            {"engine": {"maxModelLen": 8192}, "parallelism": {"pipeline": 2}},
            LLAMA_8B,
            {"kvBytesPerToken": 131_072, "sequencesPerReplica": 128.2},
            id="two stages, each with half of the layers and one table",
        ),
        pytest.param({}, MINILM, {"kvBytesPerToken": 0, "sequencesPerReplica": None}, id="an encoder"),
        pytest.param(
            {}, {"model_type": "llama"}, {"model": None, "acceleratorGiB": 80}, id="a config that lacks"
        ),
        pytest.param({}, None, {"model": None, "acceleratorGiB": 80}, id="nothing said yet"),
    ],
)
def test_figures(changes: dict[str, Any], config: dict[str, Any] | None, expected: dict[str, Any]) -> None:
    done = planned(a_set(**changes), config)
    assert {name: capacity(done).get(name) for name in expected} == expected
    assert shown(done, "SpecValid") == ("True", Reason.VALID)


PREFIX = "sequencesPerReplicaSharingPrefix"


@pytest.mark.parametrize(
    ("engine", "shared", "expected"),
    [
        pytest.param({"maxModelLen": 8192}, None, (56.6, None), id="nothing is told"),
        # 56.6 GiB; 1 GiB a sequence, a quarter of it kept once.
        pytest.param({"maxModelLen": 8192}, 2048, (56.6, 75.2), id="a quarter is kept once"),
        pytest.param({}, 2048, (3.5, 3.6), id="of the model's own length"),
        pytest.param(
            {"maxModelLen": 8192, "extraArgs": ["--quantization", "fp8"]},
            2048,
            (None, None),
            id="an argument that changes memory",
        ),
        pytest.param(
            {"extraArgs": ["--max-model-len=300000"]}, 200_000, (None, None), id="a length of the user's own"
        ),
        pytest.param(
            {"maxModelLen": 8192, "extraArgs": ["--no-enable-prefix-caching", "--enable_prefix_caching"]},
            2048,
            (56.6, 75.2),
            id="caching off and on again",
        ),
    ],
)
def test_both_numbers_of_sequences_are_told(
    engine: dict[str, Any], shared: int | None, expected: tuple[float | None, float | None]
) -> None:
    traffic = {} if shared is None else {"sharedPrefixTokens": shared}
    done = planned(a_set(engine=engine, traffic=traffic), LLAMA_8B, WEIGHTS_8B)
    said = capacity(done)
    assert (said.get("sequencesPerReplica"), said.get(PREFIX)) == expected
    assert shown(done, "SpecValid") == ("True", Reason.VALID)


@pytest.mark.parametrize(
    ("engine", "shared", "message"),
    [
        pytest.param(
            {},
            131_072,
            "spec.traffic.sharedPrefixTokens is not counted with: 131072 tokens are not less than 131072, "
            "the longest that a prompt may be with its answer; lower it",
            id="it is as long as the model's own longest sequence",
        ),
        pytest.param(
            {"extraArgs": ["--no-enable-prefix-caching"]},
            2048,
            "spec.traffic.sharedPrefixTokens is not counted with while prefix caching is off; remove it, or "
            "turn caching on: spec.engine.prefixCaching true, and no --no-enable-prefix-caching in "
            "spec.engine.extraArgs",
            id="an argument turns caching off",
        ),
    ],
)
def test_a_prefix_that_cannot_be_counted_with_is_told_and_holds_nothing_back(
    engine: dict[str, Any], shared: int, message: str
) -> None:
    manifest = a_set(engine=engine, traffic={"sharedPrefixTokens": shared})
    done = planned(manifest, LLAMA_8B, WEIGHTS_8B)
    assert shown(done, "SpecValid") == ("False", Reason.SHARED_PREFIX_IGNORED)
    assert condition(done, "SpecValid")["message"] == message
    assert (capacity(done)["sequencesPerReplica"], capacity(done).get(PREFIX)) == (3.5, None)
    assert len(created(done)) == 1
    serving = [member(manifest, f"llama-{n}", node="a", ready=True, inits=saying(LLAMA_8B)) for n in "ab"]
    done = plan(observed(manifest, serving), NOW)
    assert shown(done, "SpecValid") == ("False", Reason.SHARED_PREFIX_IGNORED)
    assert shown(done, "Ready") == ("True", "Ready")


def test_what_callers_send_rolls_no_replica_and_moves_its_figure() -> None:
    first = a_set(engine={"maxModelLen": 8192})
    inits = saying(LLAMA_8B, WEIGHTS_8B)
    pods = [member(first, f"llama-{n}", node="a", ready=True, inits=inits) for n in "ab"]
    for shared, together in ((2048, 75.2), (4096, 112.3)):
        later = merged(first, {"spec": {"traffic": {"sharedPrefixTokens": shared}}})
        done = plan(observed(later, pods), NOW)
        assert capacity(done)[PREFIX] == together
        assert done.status is not None
        assert done.status["rollout"]["outdatedReplicas"] == 0
        assert created(done) == []


def test_a_model_that_cannot_fit_says_by_how_much_and_what_would() -> None:
    done = planned(a_set(tensor=2), LLAMA_70B, WEIGHTS_70B)
    assert shown(done, "SpecValid") == ("False", Reason.MODEL_DOES_NOT_FIT)
    assert condition(done, "SpecValid")["message"] == (
        "65.7 GiB of weights and 20.0 GiB of KV cache for one sequence of 131072 tokens do not fit: each "
        "80 GiB accelerator has 71.6 GiB for both, so 14.1 GiB lack on each; what would fit: tensor 4, or "
        "maxModelLen 37888"
    )
    assert shown(done, "Stalled") == ("True", Reason.MODEL_DOES_NOT_FIT)
    assert capacity(done).get("sequencesPerReplica") is None


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


def test_of_several_that_never_served_one_is_left_to_try_and_the_others_give_back_what_they_hold() -> None:
    manifest = a_set(tensor=2, replicas=3)
    done = planned(manifest, pods=several(manifest), snapshot=ROOM_FOR_SEVERAL)
    assert sorted(deleted(done)) == ["llama-a", "llama-c"]
    assert [(str(event.reason), event.note) for event in done.events[:2]] == [
        ("GroupReleased", "llama-a: ModelDoesNotFit: llama-b is left to try"),
        ("GroupReleased", "llama-c: ModelDoesNotFit: llama-b is left to try"),
    ]
    after = planned(manifest, pods=several(manifest)[:1], snapshot=ROOM_FOR_SEVERAL, status=done.status)
    assert (deleted(after), created(after)) == ([], [])
    assert shown(after, "Placed") == ("False", Reason.MODEL_DOES_NOT_FIT)


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
    assert condition(done, "SpecValid")["message"].endswith("what would fit: tensor 4 with pipeline 3")


def test_a_tensor_that_does_not_divide_the_heads_is_known_without_memory() -> None:
    done = planned(gpu_set(parallelism={"tensor": 8}), QWEN2_7B)
    assert shown(done, "SpecValid") == ("False", Reason.TENSOR_DOES_NOT_DIVIDE_HEADS)
    assert condition(done, "SpecValid")["message"] == (
        "tensor 8 does not divide the model's 28 attention heads and 4 KV heads; set "
        "spec.parallelism.tensor to one of 1, 2, 4"
    )


def test_a_replica_that_serves_proves_the_arithmetic_wrong() -> None:
    manifest = a_set(tensor=2)
    serving = started(manifest, "llama-a", age=500, ready_ago=400, inits=saying(LLAMA_70B, WEIGHTS_70B))
    done = planned(manifest, pods=[serving])
    assert shown(done, "SpecValid") == ("True", Reason.VALID)
    after = planned(manifest, LLAMA_70B, WEIGHTS_70B, status=done.status)
    assert shown(after, "SpecValid") == ("True", Reason.VALID), "it did not fit once it had gone"


def test_a_set_without_pods_knows_its_model_from_its_status() -> None:
    seen = planned(a_set(tensor=2), LLAMA_70B, WEIGHTS_70B)
    later = a_set(tensor=4)
    done = plan(observed({**later, "status": seen.status}, ()), NOW)
    assert capacity(done)["model"] == capacity(seen)["model"]
    assert shown(done, "SpecValid") == ("True", Reason.VALID)
    assert len(created(done)) == 2


@pytest.mark.parametrize(
    "model",
    [
        pytest.param({"source": "hf://meta/other"}, id="another source"),
        pytest.param({"revision": "v2"}, id="another revision"),
    ],
)
def test_what_was_said_of_another_model_is_forgotten(model: dict[str, Any]) -> None:
    seen = planned(a_set(tensor=2), LLAMA_70B, WEIGHTS_70B)
    done = plan(observed({**a_set(tensor=2, model=model), "status": seen.status}, ()), NOW)
    assert "model" not in capacity(done)
    assert shown(done, "SpecValid") == ("True", Reason.VALID)


def test_a_pod_of_an_older_revision_says_nothing_of_the_new_model() -> None:
    manifest = a_set(tensor=2)
    old = member(manifest, "llama-old", node="a", revision="old", ready=True, inits=saying(LLAMA_70B))
    assert "model" not in capacity(planned(manifest, pods=[old]))


@pytest.mark.parametrize(
    ("nodes", "gib"),
    [
        pytest.param([labelled("a", "81920"), labelled("b", "81920")], 80, id="all say the same"),
        pytest.param([labelled("a", "81920"), labelled("b", "46068")], None, id="they differ"),
        pytest.param([labelled("a", "81920"), labelled("b", None)], None, id="one says nothing"),
        pytest.param([labelled("a", "much"), labelled("b", "much")], None, id="no number"),
        pytest.param(
            [labelled("a", "81920"), labelled("b", "46068", product="L40S")], 80, id="another product"
        ),
        pytest.param(
            [labelled("a", "81920"), labelled("b", "16384", gpus=2)], 80, id="a node that is too small"
        ),
        pytest.param(
            [labelled("a", "81920"), labelled("b", None, gpus=0)], 80, id="a node without accelerators"
        ),
        pytest.param([], None, id="no node"),
    ],
)
def test_the_memory_that_nodes_say(nodes: list[Node], gib: float | None) -> None:
    manifest = gpu_set(parallelism={"tensor": 4})
    assert capacity(planned(manifest, snapshot=cluster(*nodes))).get("acceleratorGiB") == gib


def test_the_memory_that_the_user_says_goes_first() -> None:
    assert capacity(planned(a_set(), snapshot=cluster(labelled("a", "16384"))))["acceleratorGiB"] == 80


def test_on_cpus_only_the_models_own_figures_are_known() -> None:
    said = capacity(planned(model_replica_set()))
    assert said["kvBytesPerToken"] == 131_072
    assert "acceleratorGiB" not in said
    assert "sequencesPerReplica" not in said


def started(
    manifest: dict[str, Any], name: str, *, age: float, ready_ago: float, **fields: Any
) -> dict[str, Any]:
    pod = member(manifest, name, node="a", ready=True, age=age, **fields)
    pod["status"]["conditions"][0]["lastTransitionTime"] = time_text(ready_ago)
    return pod


def test_a_start_is_measured_from_creation_to_ready_and_the_median_is_shown() -> None:
    manifest = a_set(replicas=3)
    ages = {"llama-a": (300, 200), "llama-b": (300, 180), "llama-c": (1000, 10)}
    pods = [started(manifest, name, age=age, ready_ago=ago) for name, (age, ago) in ages.items()]
    said = capacity(planned(manifest, pods=pods))
    assert [(start["group"], start["seconds"]) for start in said["startups"]] == [
        ("llama-a", 100),
        ("llama-b", 120),
        ("llama-c", 990),
    ]
    assert said["startupSeconds"] == 120


def test_starts_outlive_their_pods_and_the_operator_and_are_never_more_than_a_few() -> None:
    manifest, status = a_set(replicas=1), None
    for number in range(STARTUPS_KEPT + 3):
        pods = [started(manifest, f"llama-{number}", age=500 - number, ready_ago=400 - number)]
        status = planned(manifest, pods=pods, status=status or {}).status
    assert status is not None
    kept = [start["group"] for start in status["capacity"]["startups"]]
    assert kept == [f"llama-{number}" for number in range(3, STARTUPS_KEPT + 3)]
    gone = planned({**manifest, "spec": {**manifest["spec"], "replicas": 0}}, None, pods=[], status=status)
    assert capacity(gone)["startupSeconds"] == 100


def test_a_replica_that_regains_its_readiness_has_not_started_anew() -> None:
    manifest = a_set(replicas=1)
    first = planned(manifest, pods=[started(manifest, "llama-a", age=500, ready_ago=400)])
    assert first.status is not None
    again = [started(manifest, "llama-a", age=500, ready_ago=10)]
    assert capacity(planned(manifest, pods=again, status=first.status))["startupSeconds"] == 100


def test_an_engine_that_crashed_first_is_not_measured() -> None:
    manifest = a_set(replicas=1)
    restarted = [container_status(ready=True, restartCount=1)]
    pods = [started(manifest, "llama-a", age=500, ready_ago=10, containers=restarted)]
    assert "startupSeconds" not in capacity(planned(manifest, pods=pods))


def test_a_stage_behind_the_leader_is_ready_before_there_is_an_answer_and_measures_no_start() -> None:
    manifest = a_set(parallelism={"pipeline": 2}, replicas=1)
    second: dict[str, Any] = {"group": "llama-a", "stage": 1, "stages": 2}
    worker = started(manifest, "llama-a-1", age=500, ready_ago=490, **second)
    leader: dict[str, Any] = {"stages": 2, "inits": saying(LLAMA_70B, WEIGHTS_70B)}
    loading = [member(manifest, "llama-a", node="a", age=500, **leader), worker]
    first = planned(manifest, pods=loading)
    again = planned(manifest, pods=loading, status=first.status)
    assert "startups" not in capacity(first)
    assert shown(again, "SpecValid") == ("False", Reason.MODEL_DOES_NOT_FIT)

    half = [started(manifest, "llama-a", age=500, ready_ago=100, **leader)]
    assert "startups" not in capacity(planned(manifest, pods=half, status=again.status))

    served = planned(manifest, pods=[*half, worker], status=again.status)
    assert capacity(served)["startupSeconds"] == 400
    assert shown(served, "SpecValid") == ("True", Reason.VALID)
