"""The objects of a set as golden files, the fields that are the point of each by name, and their stability.

The smallest set is one whole file: everything around the engine pods, and the pods of one replica. Each other
scenario is a file of what differs from it, object by object. It holds a unified diff of each object, because
whole objects repeat hundreds of lines, and a list of changed values does not show what is around them. Each
hunk begins with the path of its lines, so the file can be read alone. The whole file and the difference
determine every byte that is rendered (e2e/tests/test_golden_files.py). Rewrite with `--rewrite-golden`.

That the API server takes the objects under restricted pod security is shown in
controllers/model_replica_set/test_apiserver.py.
"""

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flotilla_operator.api.model_replica_set import ModelReplicaSet, ModelReplicaSetSpec
from flotilla_operator.objects.owners import Owner
from flotilla_operator.placement.devices import DeviceClass
from flotilla_operator.replicas.group import GroupIdentity
from flotilla_operator.workloads.devices import claim_template
from flotilla_operator.workloads.engine_pod import engine_pod, engine_pods, stages_of
from flotilla_operator.workloads.images import Images
from flotilla_operator.workloads.model_replica_set import internal_url, router_objects, service_url
from flotilla_operator.workloads.revision import revision_of
from flotilla_runtime import contract
from golden_files import Whole, difference, objects_of
from tests.builders.model_replica_set import IMAGES, OWNER, full_featured_objects, model_replica_set, spec_of
from tests.support.rendering import json_of, shuffled, yaml_of

GOLDEN = Path(__file__).parent / "golden"
FULL_GPU, FULL_CPU, FULL_NODE, FULL_ENGINE, FULL_STAGES, FULL_DEVICES, FULL_PODS = full_featured_objects()

SMALLEST = model_replica_set()
SCENARIOS = [
    pytest.param(SMALLEST, (), id="smallest-set"),
    pytest.param(FULL_GPU, ("gpu-7",), id="every-field-on-gpus"),
    pytest.param(FULL_CPU, (), id="embedder-from-a-claim-on-cpus"),
    pytest.param(FULL_NODE, (), id="models-cached-on-the-node"),
    pytest.param(FULL_ENGINE, ("gpu-7",), id="every-setting-of-the-engine"),
    pytest.param(FULL_STAGES, ("gpu-7", "gpu-8"), id="two-stages-on-two-nodes"),
    pytest.param(FULL_DEVICES, ("gpu-7", "gpu-8"), id="two-stages-with-devices-of-a-class"),
    pytest.param(FULL_PODS, (), id="set-with-every-option-of-its-pods"),
]


def owner_of(manifest: dict[str, Any]) -> Owner:
    metadata = manifest["metadata"]
    return Owner(
        kind="ModelReplicaSet", namespace=metadata["namespace"], name=metadata["name"], uid=metadata["uid"]
    )


def rendered(
    manifest: dict[str, Any], nodes: tuple[str, ...], images: Images = IMAGES
) -> list[dict[str, Any]]:
    owner, spec = owner_of(manifest), ModelReplicaSet.model_validate(manifest).spec
    identity = GroupIdentity(name=f"{owner.name}-abcde", server_id=1, revision=revision_of(spec), nodes=nodes)
    template = claim_template(owner, spec, identity.revision, DeviceClass("gpu", "gpu.example", {}))
    templates = [] if template is None else [template]
    stages = stages_of(spec)
    to_keep = spec.replicas * stages - 1
    around = router_objects(owner, spec, images, several_stages=stages > 1, pods_to_keep=to_keep)
    return [*around, *templates, *engine_pods(owner, spec, identity, images)]


@pytest.mark.holds("install.md", "No container but those with limits in the spec has limits")
@pytest.mark.holds("install.md", "No container of ours requests more than 100m and 512Mi by default")
@pytest.mark.holds("engine.md", "48 sequences at once where `maxNumSeqs` is absent")
@pytest.mark.holds("groups.md", "The startup probe ends an engine after 1800 s without a first answer")
@pytest.mark.holds(
    "groups.md", "Stages meet at their leader's name from a headless service; a set of single pods has none"
)
@pytest.mark.holds("architecture.md", "Each kind makes the objects that the page lists")
@pytest.mark.holds(
    "security.md", "No pod gets a token of the cluster but routers and those with a service account"
)
def test_the_smallest_set_is_as_reviewed(golden: Callable[[Path, str], None]) -> None:
    golden(GOLDEN / "smallest-set.yaml", yaml_of(rendered(SMALLEST, ())))


@pytest.mark.holds("install.md", "`spec.pod.imagePullSecrets` reaches the engine's pod")
@pytest.mark.holds(
    "groups.md",
    "A replica with pipeline stages is one pod for each stage, joined by vLLM's own mode for several nodes",
)
@pytest.mark.holds(
    "groups.md", "The NetworkPolicy lets the engine pods of a set with stages reach each other"
)
@pytest.mark.holds(
    "router.md", "Fleets and builds go on over plain HTTP by an internal service that a NetworkPolicy guards"
)
@pytest.mark.holds(
    "decisions/0012-https.md",
    "The internal service is always ClusterIP, and its policy lets in only Flotilla's pods of the namespace",
)
@pytest.mark.parametrize(("manifest", "nodes"), SCENARIOS[1:])
def test_what_differs_from_the_smallest_set_is_as_reviewed(
    manifest: dict[str, Any],
    nodes: tuple[str, ...],
    golden: Callable[[Path, str], None],
    request: pytest.FixtureRequest,
) -> None:
    whole = Whole(
        file="smallest-set.yaml",
        parts=objects_of(yaml_of(rendered(SMALLEST, ()))),
        owner=(owner_of(SMALLEST).name, owner_of(manifest).name),
    )
    here = objects_of(yaml_of(rendered(manifest, nodes)))
    golden(GOLDEN / f"{request.node.callspec.id}.diff", difference(whole, here))


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


@pytest.mark.holds("capacity.md", "A model is measured before it is fetched")
def test_a_models_size_is_read_before_it_is_fetched_with_all_that_lets_the_fetcher_in() -> None:
    facts, fetcher = pod_of(model={"tokenSecretRef": {"name": "hf"}})["spec"]["initContainers"]
    assert facts["args"] == ["flotilla_runtime.models.facts", *fetcher["args"][1:]]
    assert {**facts, "name": "", "args": []} == {**fetcher, "name": "", "args": []}
    assert "HF_TOKEN" in environment(facts)


@pytest.mark.holds(
    "decisions/0011-model-facts.md", "For `pvc://` the container that checks the folder leaves them"
)
def test_a_model_on_a_claim_is_checked_and_read_at_once() -> None:
    (only,) = pod_of(model={"source": "pvc://models/llama"})["spec"]["initContainers"]
    assert "--verify" in only["args"]


@pytest.mark.holds("install.md", '`extraArgs: ["--host", "0.0.0.0"]` wins over our own `--host`')
@pytest.mark.holds("engine.md", "The model comes first and without a name, `extraArgs` come last")
def test_the_users_arguments_come_last() -> None:
    assert engine_of(engine={"extraArgs": ["--host", "0.0.0.0"]})["args"][-2:] == ["--host", "0.0.0.0"]


@pytest.mark.holds("engine.md", "`env` reaches the engine and the fetching container")
def test_the_users_environment_wins_and_reaches_the_fetcher() -> None:
    pod = pod_of(engine={"env": [{"name": "HF_HUB_OFFLINE", "value": "0"}, {"name": "P", "value": "q"}]})
    engine, fetcher = pod["spec"]["containers"][0], pod["spec"]["initContainers"][-1]
    names = [variable["name"] for variable in engine["env"]]
    assert len(names) == len(set(names))
    assert environment(engine)["HF_HUB_OFFLINE"] == "0"
    assert environment(fetcher) == {"HF_HUB_OFFLINE": "0"}


@pytest.mark.holds("install.md", "Engines listen on `::`")
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


@pytest.mark.holds("engine.md", "The model comes first and without a name, `extraArgs` come last")
def test_the_model_comes_first_and_without_a_name() -> None:
    arguments = engine_of(model={"name": "llama", "source": "pvc://models/llama"})["args"]
    assert arguments[0] == "/claims/models/llama"
    assert "--model" not in arguments


def test_an_embedder_is_not_told_to_cache_prefixes() -> None:
    told = {
        task: [
            name for name in engine_of(model={"task": task})["args"] if "prefix" in name or "chunked" in name
        ]
        for task in ("Generate", "Embed")
    }
    assert told == {"Generate": ["--enable-prefix-caching", "--enable-chunked-prefill"], "Embed": []}


@pytest.mark.holds("engine.md", "The limit of `cpu` is the number of threads")
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


@pytest.mark.holds(
    "install.md",
    "`images.engine` is for sets with an accelerator, `images.engineCPU` for sets without, "
    "`spec.engine.image` wins over both",
)
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


@pytest.mark.holds(
    "decisions/0006-a-first-answer.md", "A replica is ready after its first answer, not after `/health`"
)
def test_ready_means_a_first_answer_and_not_only_health() -> None:
    generate, embed = engine_of(), engine_of(model={"task": "Embed"})
    assert generate["startupProbe"]["exec"]["command"][-2:] == ["/v1/completions", "prompt"]
    assert embed["startupProbe"]["exec"]["command"][-2:] == ["/v1/embeddings", "input"]


@pytest.mark.holds("draining.md", "The grace period is the drain's deadline and 30 s")
def test_a_stop_waits_for_the_drain_and_a_little_more() -> None:
    pod = pod_of(drain={"deadlineSeconds": 45})
    assert pod["spec"]["terminationGracePeriodSeconds"] == 75
    assert environment(pod["spec"]["containers"][0])["FLOTILLA_DRAIN_DEADLINE_SECONDS"] == "45"


@pytest.mark.holds(
    "node-autoscalers.md", "Nodes go when replicas leave, and no loaded model is moved to save a node"
)
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


@pytest.mark.holds("router.md", "A NetworkPolicy lets only the set's routers reach its engines")
def test_only_the_sets_routers_reach_its_engines() -> None:
    (policy,) = [
        m
        for m in rendered(model_replica_set(), ())
        if m["kind"] == "NetworkPolicy" and m["metadata"]["name"] == "llama-engine"
    ]
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


@pytest.mark.holds("engine.md", "The router lists the model and its adapters at `/v1/models`")
def test_adapters_are_models_at_the_router() -> None:
    (config,) = [m for m in rendered(FULL_ENGINE, ()) if m["kind"] == "ConfigMap"]
    read = contract.RouterConfig.model_validate_json(config["data"]["config.json"])
    assert read.models == ("llama", "sql", "mail")


NEW = "registry.example/new@sha256:11"


def router_template(spec: ModelReplicaSetSpec, images: Images = IMAGES) -> dict[str, Any]:
    """The template of the routers' pods, by which Kubernetes rolls them."""
    objects = router_objects(OWNER, spec, images, several_stages=False)
    (deployment,) = [m for m in objects if m["kind"] == "Deployment"]
    template: dict[str, Any] = deployment["spec"]["template"]
    return template


def test_a_changed_configuration_rolls_the_routers_and_another_number_of_replicas_does_not() -> None:
    before, after = router_template(spec_of()), router_template(spec_of(router={"maxQueue": 5}))
    hashes = [each["metadata"]["annotations"][contract.ANNOTATION_CONFIG_HASH] for each in (before, after)]
    assert hashes[0] != hashes[1]
    assert router_template(spec_of(replicas=5)) == before


@pytest.mark.parametrize(
    ("images", "old", "containers"),
    [
        pytest.param(replace(IMAGES, haproxy=NEW), IMAGES.haproxy, ["haproxy"], id="HAProxy's"),
        pytest.param(replace(IMAGES, runtime=NEW), IMAGES.runtime, ["render", "agent"], id="the runtime's"),
    ],
)
def test_a_new_image_rolls_the_routers_by_nothing_but_itself(
    images: Images, old: str, containers: list[str]
) -> None:
    changed = router_template(spec_of(), images)
    pod = changed["spec"]
    with_it = [c for c in (*pod["initContainers"], *pod["containers"]) if c["image"] == NEW]
    assert [container["name"] for container in with_it] == containers
    for container in with_it:
        container["image"] = old
    assert changed == router_template(spec_of())


@pytest.mark.holds("README.md", "A model answers OpenAI's API at `http://NAME-model:8000/v1`")
@pytest.mark.holds(
    "router.md", "`router.tls` makes HTTPS the only way in, TLS 1.2 at least, and `status.url` says so"
)
def test_the_url_names_the_service() -> None:
    plain, secured = spec_of(), spec_of(router={"tls": {"secretRef": {"name": "tls"}}})
    assert service_url(OWNER, plain) == "http://llama-model.default.svc:8000/v1"
    assert internal_url(OWNER, plain) == service_url(OWNER, plain)
    assert service_url(OWNER, secured) == "https://llama-model.default.svc:8000/v1"
    assert internal_url(OWNER, secured) == "http://llama-model-internal.default.svc:8001/v1"
