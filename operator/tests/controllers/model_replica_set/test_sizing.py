"""Words of a set on its replicas' memory: facts of pods in, status and condition out, word by word.

The arithmetic itself: tests/capacity. A model that does not fit: test_verdicts. The real loop with an init
container's message: test_apiserver.
"""

from typing import Any

import pytest

from flotilla_operator.controllers.model_replica_set.reasons import Reason
from flotilla_operator.placement import Node
from tests.builders.model_configs import LLAMA_8B, LLAMA_70B, MINILM
from tests.builders.model_replica_set import gpu_set, merged, model_replica_set
from tests.builders.placement import cluster, node
from tests.builders.pods import NOW
from tests.controllers.model_replica_set.sized_sets import (
    WEIGHTS_8B,
    WEIGHTS_70B,
    a_set,
    capacity,
    planned,
    saying,
)
from tests.controllers.model_replica_set.test_plan import condition, created, member, observed, shown
from tests.support.planned import plan_of_set as plan

MEMORY = "nvidia.com/gpu.memory"


def labelled(name: str, mib: str | None, **fields: Any) -> Node:
    return node(name, labels={MEMORY: mib} if mib else {}, **fields)


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


@pytest.mark.holds("capacity.md", "`maxModelLen` or the model's own maximum is the longest sequence")
@pytest.mark.holds(
    "capacity.md", "0.92 of the memory is used, or what `--gpu-memory-utilization` says; it is vLLM's default"
)
@pytest.mark.holds("capacity.md", "With another argument that changes memory nothing is judged")
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


@pytest.mark.holds(
    "capacity.md",
    "`sequencesPerReplica` and `sequencesPerReplicaSharingPrefix` of the example are 15.5 and 20.3",
)
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


@pytest.mark.holds(
    "capacity.md",
    "A prefix that cannot be counted with gives `SharedPrefixIgnored`, and the set is Ready all the same",
)
@pytest.mark.parametrize(
    ("engine", "shared", "message"),
    [
        pytest.param(
            {},
            131_072,
            "spec.traffic.sharedPrefixTokens is ignored: 131072 tokens are not less than 131072, the most "
            "that a prompt and its answer may have together; lower it",
            id="it is as long as the model's own longest sequence",
        ),
        pytest.param(
            {"extraArgs": ["--no-enable-prefix-caching"]},
            2048,
            "spec.traffic.sharedPrefixTokens is ignored while prefix caching is off; remove it, or turn "
            "prefix caching on: set spec.engine.prefixCaching to true and remove --no-enable-prefix-caching "
            "from spec.engine.extraArgs",
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


@pytest.mark.holds("capacity.md", "A change of `spec.traffic` rolls no replica")
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


@pytest.mark.holds("capacity.md", "What was read stays in the status when there is no replica")
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


@pytest.mark.holds(
    "capacity.md",
    "`memoryGiB` of the spec goes before the label of the nodes, which counts only where all nodes agree",
)
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


@pytest.mark.holds(
    "capacity.md",
    "`memoryGiB` of the spec goes before the label of the nodes, which counts only where all nodes agree",
)
def test_the_memory_that_the_user_says_goes_first() -> None:
    assert capacity(planned(a_set(), snapshot=cluster(labelled("a", "16384"))))["acceleratorGiB"] == 80


def test_on_cpus_only_the_models_own_figures_are_known() -> None:
    said = capacity(planned(model_replica_set()))
    assert said["kvBytesPerToken"] == 131_072
    assert "acceleratorGiB" not in said
    assert "sequencesPerReplica" not in said
