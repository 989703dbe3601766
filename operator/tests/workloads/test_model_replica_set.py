"""The objects of a set as golden files, the fields that are the point of each by name, and their stability.

One file a scenario: everything around the engine pods, and one engine pod. Rewrite with `--rewrite-golden`.
That the API server takes them under restricted pod security is shown in
controllers/model_replica_set/test_apiserver.py.
"""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flotilla_operator.api.model_replica_set import ModelReplicaSet, ModelReplicaSetSpec
from flotilla_operator.placement.devices import DeviceClass
from flotilla_operator.workloads.devices import claim_template
from flotilla_operator.workloads.engine_pod import GroupIdentity, engine_pod, engine_pods, stages_of
from flotilla_operator.workloads.labels import Owner
from flotilla_operator.workloads.model_replica_set import internal_url, router_objects, service_url
from flotilla_operator.workloads.revision import revision_of
from flotilla_runtime import contract
from tests.builders.model_replica_set import IMAGES, OWNER, full_featured_objects, model_replica_set, spec_of
from tests.support.rendering import json_of, shuffled, yaml_of

GOLDEN = Path(__file__).parent / "golden"
FULL_GPU, FULL_CPU, FULL_NODE, FULL_ENGINE, FULL_STAGES, FULL_DEVICES = full_featured_objects()

SCENARIOS = [
    pytest.param(model_replica_set(), (), id="smallest-set"),
    pytest.param(FULL_GPU, ("gpu-7",), id="every-field-on-gpus"),
    pytest.param(FULL_CPU, (), id="embedder-from-a-claim-on-cpus"),
    pytest.param(FULL_NODE, (), id="models-cached-on-the-node"),
    pytest.param(FULL_ENGINE, ("gpu-7",), id="every-setting-of-the-engine"),
    pytest.param(FULL_STAGES, ("gpu-7", "gpu-8"), id="two-stages-on-two-nodes"),
    pytest.param(FULL_DEVICES, ("gpu-7", "gpu-8"), id="two-stages-with-devices-of-a-class"),
]


def owner_of(manifest: dict[str, Any]) -> Owner:
    metadata = manifest["metadata"]
    return Owner(
        kind="ModelReplicaSet", namespace=metadata["namespace"], name=metadata["name"], uid=metadata["uid"]
    )


def rendered(manifest: dict[str, Any], nodes: tuple[str, ...]) -> list[dict[str, Any]]:
    owner, spec = owner_of(manifest), ModelReplicaSet.model_validate(manifest).spec
    identity = GroupIdentity(name=f"{owner.name}-abcde", server_id=1, revision=revision_of(spec), nodes=nodes)
    template = claim_template(owner, spec, identity.revision, DeviceClass("gpu", "gpu.example", {}))
    templates = [] if template is None else [template]
    stages = stages_of(spec)
    to_keep = spec.replicas * stages - 1
    around = router_objects(owner, spec, IMAGES, several_stages=stages > 1, pods_to_keep=to_keep)
    return [*around, *templates, *engine_pods(owner, spec, identity, IMAGES)]


@pytest.mark.parametrize(("manifest", "nodes"), SCENARIOS)
def test_golden(
    manifest: dict[str, Any],
    nodes: tuple[str, ...],
    golden: Callable[[Path, str], None],
    request: pytest.FixtureRequest,
) -> None:
    golden(GOLDEN / f"{request.node.callspec.id}.yaml", yaml_of(rendered(manifest, nodes)))


@pytest.mark.parametrize(("manifest", "nodes"), SCENARIOS)
def test_shuffled_input_renders_the_same_bytes(manifest: dict[str, Any], nodes: tuple[str, ...]) -> None:
    expected = json_of(rendered(manifest, nodes))
    for seed in range(20):
        again = shuffled(manifest, random.Random(seed))
        assert json_of(rendered(again, nodes)) == expected


def pod_of(**spec: Any) -> dict[str, Any]:
    parsed = spec_of(**spec)
    identity = GroupIdentity(name="llama-abcde", server_id=3, revision="r", nodes=spec.pop("nodes", ()))
    return engine_pod(OWNER, parsed, identity, IMAGES)


def engine_of(**spec: Any) -> dict[str, Any]:
    container: dict[str, Any] = pod_of(**spec)["spec"]["containers"][0]
    return container


def environment(container: dict[str, Any]) -> dict[str, Any]:
    return {variable["name"]: variable.get("value") for variable in container["env"]}


def pod_specs(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    specs = {
        "Pod": lambda m: m["spec"],
        "Deployment": lambda m: m["spec"]["template"]["spec"],
    }
    return [specs[m["kind"]](m) for m in rendered(manifest, ()) if m["kind"] in specs]


@pytest.mark.parametrize(("manifest", "nodes"), SCENARIOS[:3])
def test_every_container_is_restricted(manifest: dict[str, Any], nodes: tuple[str, ...]) -> None:
    for spec in pod_specs(manifest):
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in [*spec["containers"], *spec["initContainers"]]:
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"] is True
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert "runAsUser" not in context


def test_only_the_fetcher_of_a_node_cache_is_root_and_without_capabilities() -> None:
    pod = pod_of(modelCache={"mode": "Node"})
    for fetcher in pod["spec"]["initContainers"]:
        assert fetcher["securityContext"]["runAsUser"] == 0
        assert fetcher["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert "runAsUser" not in pod["spec"]["containers"][0]["securityContext"]


def test_a_models_size_is_read_before_it_is_fetched_with_all_that_lets_the_fetcher_in() -> None:
    facts, fetcher = pod_of(model={"tokenSecretRef": {"name": "hf"}})["spec"]["initContainers"]
    assert facts["args"] == ["flotilla_runtime.models.facts", *fetcher["args"][1:]]
    assert {**facts, "name": "", "args": []} == {**fetcher, "name": "", "args": []}
    assert "HF_TOKEN" in environment(facts)


def test_a_model_on_a_claim_is_checked_and_read_at_once() -> None:
    (only,) = pod_of(model={"source": "pvc://models/llama"})["spec"]["initContainers"]
    assert "--verify" in only["args"]


def test_the_users_arguments_come_last() -> None:
    assert engine_of(engine={"extraArgs": ["--host", "0.0.0.0"]})["args"][-2:] == ["--host", "0.0.0.0"]


def test_the_users_environment_wins_and_reaches_the_fetcher() -> None:
    pod = pod_of(engine={"env": [{"name": "HF_HUB_OFFLINE", "value": "0"}, {"name": "P", "value": "q"}]})
    engine, fetcher = pod["spec"]["containers"][0], pod["spec"]["initContainers"][-1]
    names = [variable["name"] for variable in engine["env"]]
    assert len(names) == len(set(names))
    assert environment(engine)["HF_HUB_OFFLINE"] == "0"
    assert environment(fetcher)["P"] == "q"


@pytest.mark.parametrize(
    ("changes", "argument"),
    [
        pytest.param({"model": {"task": "Embed"}}, ["--runner", "pooling"], id="an embedder pools"),
        pytest.param({"engine": {"kvCacheDtype": "FP8E5M2"}}, ["--kv-cache-dtype", "fp8_e5m2"], id="dtype"),
        pytest.param({"engine": {"maxModelLen": 4096}}, ["--max-model-len", "4096"], id="length"),
        pytest.param({"engine": {"maxNumSeqs": 7}}, ["--max-num-seqs", "7"], id="sequences"),
        pytest.param(
            {"parallelism": {"tensor": 4}, "accelerator": {"resource": "nvidia.com/gpu"}},
            ["--tensor-parallel-size", "4"],
            id="tensor",
        ),
        pytest.param({}, ["--enable-prefix-caching"], id="prefix caching on"),
        pytest.param({"engine": {"prefixCaching": False}}, ["--no-enable-prefix-caching"], id="and off"),
        pytest.param(
            {"engine": {"chunkedPrefill": False}}, ["--no-enable-chunked-prefill"], id="chunked off"
        ),
        pytest.param({}, ["--host", "::"], id="both families"),
        pytest.param({}, ["--served-model-name", "llama"], id="name"),
    ],
)
def test_engine_arguments(changes: dict[str, Any], argument: list[str]) -> None:
    arguments = engine_of(**changes)["args"]
    start = arguments.index(argument[0])
    assert arguments[start : start + len(argument)] == argument


def test_the_model_comes_first_and_without_a_name() -> None:
    arguments = engine_of(model={"name": "llama", "source": "pvc://models/llama"})["args"]
    assert arguments[0] == "/claims/models/llama"
    assert "--model" not in arguments


def test_an_embedder_is_not_told_to_cache_prefixes() -> None:
    arguments = engine_of(model={"task": "Embed"})["args"]
    assert not any("prefix" in argument or "chunked" in argument for argument in arguments)


@pytest.mark.parametrize(
    ("resources", "threads"),
    [
        pytest.param({"limits": {"cpu": "2"}}, "2", id="the limit"),
        pytest.param({"limits": {"cpu": "1500m"}}, "2", id="a part of a core rounds up"),
        pytest.param({"requests": {"cpu": "1"}}, None, id="a request is no bound"),
        pytest.param({}, None, id="unknown"),
    ],
)
def test_cpu_engines_share_cores_without_binding(resources: dict[str, Any], threads: str | None) -> None:
    variables = environment(engine_of(engine={"resources": resources}))
    assert variables["VLLM_CPU_OMP_THREADS_BIND"] == "nobind"
    assert variables.get("OMP_NUM_THREADS") == threads


@pytest.mark.parametrize(
    ("spec", "image"),
    [
        pytest.param({}, IMAGES.engine_cpu, id="vLLM's build for CUDA ends at once without a GPU"),
        pytest.param({"accelerator": {"resource": "nvidia.com/gpu"}}, IMAGES.engine, id="on accelerators"),
        pytest.param({"engine": {"image": "own:1"}}, "own:1", id="the user's own"),
    ],
)
def test_an_engine_is_built_for_what_it_runs_on(spec: dict[str, Any], image: str) -> None:
    assert engine_of(**spec)["image"] == image


def test_gpu_engines_are_left_to_the_device() -> None:
    variables = environment(engine_of(accelerator={"resource": "nvidia.com/gpu"}))
    assert "VLLM_CPU_OMP_THREADS_BIND" not in variables


def test_accelerators_are_limits_of_the_engine() -> None:
    container = engine_of(
        accelerator={"resource": "amd.com/gpu"},
        parallelism={"tensor": 8},
        engine={"resources": {"requests": {"cpu": "4"}}},
    )
    assert container["resources"] == {"requests": {"cpu": "4"}, "limits": {"amd.com/gpu": "8"}}


@pytest.mark.parametrize(("manifest", "nodes"), SCENARIOS)
def test_all_but_the_engine_ask_for_what_a_quota_counts(
    manifest: dict[str, Any], nodes: tuple[str, ...]
) -> None:
    """The engine's requests are the user's."""
    for spec in pod_specs(manifest):
        for container in [*spec["containers"], *spec["initContainers"]]:
            if container["name"] != "engine":
                assert set(container["resources"]["requests"]) == {"cpu", "memory"}


def test_ready_means_a_first_answer_and_not_only_health() -> None:
    generate, embed = engine_of(), engine_of(model={"task": "Embed"})
    assert generate["startupProbe"]["exec"]["command"][-2:] == ["/v1/completions", "prompt"]
    assert embed["startupProbe"]["exec"]["command"][-2:] == ["/v1/embeddings", "input"]


def test_a_stop_waits_for_the_drain_and_a_little_more() -> None:
    pod = pod_of(drain={"deadlineSeconds": 45})
    assert pod["spec"]["terminationGracePeriodSeconds"] == 75
    assert environment(pod["spec"]["containers"][0])["FLOTILLA_DRAIN_DEADLINE_SECONDS"] == "45"


def test_consolidation_never_moves_a_loaded_model() -> None:
    annotations = pod_of()["metadata"]["annotations"]
    assert annotations["karpenter.sh/do-not-disrupt"] == "true"
    assert annotations["cluster-autoscaler.kubernetes.io/safe-to-evict"] == "false"
    assert annotations[contract.ANNOTATION_SERVER_ID] == "3"


def test_user_labels_never_override_ours() -> None:
    labels = pod_of(pod={"labels": {contract.LABEL_STAGE: "9", "team": "x"}})["metadata"]["labels"]
    assert labels[contract.LABEL_STAGE] == "0"
    assert labels["team"] == "x"


def test_services_prefer_dual_stack() -> None:
    services = [m for m in rendered(model_replica_set(), ()) if m["kind"] == "Service"]
    assert {s["metadata"]["name"] for s in services} == {"llama-model"}
    assert all(s["spec"]["ipFamilyPolicy"] == "PreferDualStack" for s in services)


def test_only_the_sets_routers_reach_its_engines() -> None:
    (policy,) = [m for m in rendered(model_replica_set(), ()) if m["kind"] == "NetworkPolicy"]
    (rule,) = policy["spec"]["ingress"]
    assert rule["from"] == [
        {
            "podSelector": {
                "matchLabels": {
                    "flotilla.dev/kind": "ModelReplicaSet",
                    "flotilla.dev/owner": "llama",
                    "app.kubernetes.io/component": "router",
                }
            }
        }
    ]
    assert rule["ports"] == [{"protocol": "TCP", "port": 8000}]


def test_the_routers_configuration_is_what_the_runtime_reads() -> None:
    (config,) = [m for m in rendered(FULL_GPU, ()) if m["kind"] == "ConfigMap"]
    read = contract.RouterConfig.model_validate_json(config["data"]["config.json"])
    assert read.models == ("llama-70b",)
    assert read.max_queue == 500
    assert read.load_factor == 1.5
    assert read.caller_keys_directory is not None
    assert read.engine_selector[contract.LABEL_STAGE] == "0"


def test_adapters_are_models_at_the_router() -> None:
    (config,) = [m for m in rendered(FULL_ENGINE, ()) if m["kind"] == "ConfigMap"]
    read = contract.RouterConfig.model_validate_json(config["data"]["config.json"])
    assert read.models == ("llama", "sql", "mail")


def test_a_changed_configuration_rolls_the_routers_and_a_new_image_alone_their_pods() -> None:
    def annotation(spec: ModelReplicaSetSpec) -> str:
        objects = router_objects(OWNER, spec, IMAGES, several_stages=False)
        (deployment,) = [m for m in objects if m["kind"] == "Deployment"]
        value: str = deployment["spec"]["template"]["metadata"]["annotations"][
            contract.ANNOTATION_CONFIG_HASH
        ]
        return value

    assert annotation(spec_of()) == annotation(spec_of(replicas=5))
    assert annotation(spec_of()) != annotation(spec_of(router={"maxQueue": 5}))


def test_the_url_names_the_service() -> None:
    plain, secured = spec_of(), spec_of(router={"tls": {"secretRef": {"name": "tls"}}})
    assert service_url(OWNER, plain) == "http://llama-model.default.svc:8000/v1"
    assert internal_url(OWNER, plain) == service_url(OWNER, plain)
    assert service_url(OWNER, secured) == "https://llama-model.default.svc:8000/v1"
    assert internal_url(OWNER, secured) == "http://llama-model-internal.default.svc:8001/v1"
