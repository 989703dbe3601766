"""A fleet's objects as golden files, the fields that are the point by name, and their stability.

The smallest fleet is a whole file, the other scenarios are files of what differs from it, as in
test_model_replica_set.py. That the API server takes them under restricted pod security is shown in
controllers/agent_fleet/test_apiserver.py.
"""

import base64
import json
import random
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flotilla_operator.api.agent_fleet import AgentFleet
from flotilla_operator.controllers.agent_fleet.references import References
from flotilla_operator.objects.owners import Owner
from flotilla_operator.workloads import agent_fleet as workloads
from flotilla_operator.workloads.agent_fleet import IndexKey, SecretEntry, Wiring
from flotilla_operator.workloads.agent_fleet.payloads import payloads_config
from flotilla_operator.workloads.agent_fleet.telemetry import telemetry_config
from flotilla_operator.workloads.images import Images
from flotilla_runtime import contract
from golden_files import Whole, difference, objects_of
from tests.builders.agent_fleet import OWNER, agent_fleet, full_featured_objects, served_index, spec_of
from tests.builders.model_replica_set import IMAGES
from tests.builders.world import world
from tests.support.rendering import json_of, shuffled, yaml_of

GOLDEN = Path(__file__).parent / "golden"
MANAGED, EXTERNAL, KUBERNETES, WITH_GRAPH, FULL_PODS = full_featured_objects()
WIRING = Wiring(
    models=(
        contract.ModelConnection(
            role="Default", name="llama", url="http://llama-model.default.svc:8000/v1", model="llama-70b"
        ),
    ),
    indexes=(
        contract.IndexConnection(
            name="handbook", url="http://handbook-retriever/v1/retrieve", deadline_milliseconds=10_000
        ),
    ),
    model_keys=(SecretEntry(environment="FLOTILLA_MODEL_KEY_JUDGE", name="judge", key="apiKey"),),
    secret_versions={"judge": "uid/1"},
)
INDEX_KEY = IndexKey(index="handbook", name="handbook-retriever-key", key="key")
WITH_KEYS = replace(
    WIRING,
    indexes=(WIRING.indexes[0].model_copy(update={"key_path": INDEX_KEY.path}),),
    index_keys=(INDEX_KEY,),
)
SMALLEST = agent_fleet()
SCENARIOS = [
    pytest.param(SMALLEST, id="smallest-fleet"),
    pytest.param(MANAGED, id="every-field-with-its-own-redis"),
    pytest.param(EXTERNAL, id="fleet-on-a-redis-of-the-users"),
    pytest.param(KUBERNETES, id="fleet-for-kubernetes-callers"),
    pytest.param(FULL_PODS, id="fleet-with-every-option-of-its-pods"),
]
DIGESTS = {"gateway": "1" * 64, "worker": "2" * 64, "executor": "3" * 64}


def rendered(
    manifest: dict[str, Any], wiring: Wiring = WIRING, images: Images = IMAGES
) -> list[dict[str, Any]]:
    spec, name = AgentFleet.model_validate(manifest).spec, manifest["metadata"]["name"]
    if spec.telemetry is not None:
        wiring = replace(wiring, telemetry=telemetry_config(spec.telemetry))
    owner = Owner(kind="AgentFleet", namespace="default", name=name, uid=f"uid-{name}")
    objects = [
        *workloads.gateway_manifests(owner, spec, wiring, images, workloads.revision_of(spec)),
        *workloads.worker_manifests(owner, spec, wiring, images, 2),
    ]
    executors = workloads.has_executors(spec)
    if executors:
        objects += workloads.executor_manifests(owner, spec, wiring, images, 1)
    if spec.queue.redis.mode == "Managed":
        users = workloads.users_secret(owner, {"gateway": "example-g", "worker": "example-w"})
        secrets = [workloads.password_secret(owner, "example"), users]
        if executors:
            secrets.append(workloads.executor_secret(owner, "example-e"))
        redis = workloads.redis_manifests(
            owner, spec.queue.redis, images, digests=DIGESTS, has_executors=executors
        )
        objects = [*secrets, workloads.claim(owner, spec.queue.redis), *redis, *objects]
    return objects


@pytest.mark.holds("install.md", "Every container but the engine's says what it requests of CPU and memory")
@pytest.mark.holds("install.md", "No container but those with limits in the spec has limits")
@pytest.mark.holds("install.md", "No container of ours requests more than 100m and 512Mi by default")
@pytest.mark.holds("architecture.md", "Each kind makes the objects that the page lists")
@pytest.mark.holds(
    "security.md", "No pod gets a token of the cluster but routers and those with a service account"
)
def test_the_smallest_fleet_is_as_reviewed(golden: Callable[[Path, str], None]) -> None:
    golden(GOLDEN / "smallest-fleet.yaml", yaml_of(rendered(SMALLEST, WITH_KEYS)))


def test_workers_have_keys_of_indexes_only_where_there_are_some() -> None:
    with_keys, without = templates(SMALLEST, WITH_KEYS)["worker"], templates(SMALLEST)["worker"]
    volumes = {volume["name"] for volume in with_keys["spec"]["volumes"]}
    assert volumes - {volume["name"] for volume in without["spec"]["volumes"]} == {"index-keys"}
    assert contract.LABEL_INDEX_KEYS not in without["metadata"]["labels"]


@pytest.mark.holds(
    "decisions/0019-search-keys.md",
    "A worker has the label only if it sends a key to every index of its fleet",
)
def test_workers_say_that_they_send_keys_only_when_they_do_for_every_index() -> None:
    other = contract.IndexConnection(name="manual", url="http://manual-retriever/v1/retrieve")
    some = replace(WITH_KEYS, indexes=(*WITH_KEYS.indexes, other))
    label = contract.LABEL_INDEX_KEYS
    assert templates(SMALLEST, WITH_KEYS)["worker"]["metadata"]["labels"][label] == contract.INDEX_KEYS_SENT
    assert label not in templates(SMALLEST, some)["worker"]["metadata"]["labels"]
    assert label not in templates(SMALLEST, WITH_KEYS)["gateway"]["metadata"]["labels"]


@pytest.mark.holds("search.md", "Retrievers and workers read a changed key without a restart")
def test_another_value_of_a_key_replaces_no_worker() -> None:
    changed = replace(WITH_KEYS, secret_versions={**WIRING.secret_versions, INDEX_KEY.name: "another"})
    assert templates(SMALLEST, WITH_KEYS) == templates(SMALLEST, changed)


@pytest.mark.holds("tasks.md", "With `gateway.tls` the port is named `https`, and `status.url` says so")
@pytest.mark.holds(
    "tasks.md", "The headers of tools are mounted as files, and go only where `flotilla.dev/send-to` says"
)
@pytest.mark.parametrize("manifest", SCENARIOS[1:])
def test_what_differs_from_the_smallest_fleet_is_as_reviewed(
    manifest: dict[str, Any], golden: Callable[[Path, str], None], request: pytest.FixtureRequest
) -> None:
    whole = Whole(
        file="smallest-fleet.yaml",
        parts=objects_of(yaml_of(rendered(SMALLEST, WITH_KEYS))),
        owner=(SMALLEST["metadata"]["name"], manifest["metadata"]["name"]),
    )
    here = objects_of(yaml_of(rendered(manifest, WITH_KEYS)))
    golden(GOLDEN / f"{request.node.callspec.id}.diff", difference(whole, here))


@pytest.mark.parametrize("manifest", SCENARIOS)
def test_shuffled_input_renders_the_same_bytes(manifest: dict[str, Any]) -> None:
    expected = json_of(rendered(manifest))
    for seed in range(20):
        assert json_of(rendered(shuffled(manifest, random.Random(seed)))) == expected


def templates(manifest: dict[str, Any], wiring: Wiring = WIRING) -> dict[str, dict[str, Any]]:
    """Pod templates by component."""
    found = [each for each in rendered(manifest, wiring) if each["kind"] in ("Deployment", "StatefulSet")]
    return {
        each["metadata"]["labels"]["app.kubernetes.io/component"]: each["spec"]["template"] for each in found
    }


@pytest.mark.holds(
    "decisions/0003-redis-for-tasks.md",
    "The managed Redis syncs before it answers, evicts nothing and has a password of its own",
)
def test_redis_syncs_before_it_answers_evicts_nothing_and_asks_for_the_password() -> None:
    (config,) = [
        each["data"]["redis.conf"]
        for each in rendered(agent_fleet())
        if each["kind"] == "ConfigMap" and "redis.conf" in each["data"]
    ]
    for line in ("appendonly yes", "appendfsync always", "maxmemory-policy noeviction", "bind * -::*"):
        assert line in config.splitlines()
    assert "requirepass" not in config
    assert f"include {contract.REDIS_SECRET_DIRECTORY}/password.conf" in config


@pytest.mark.holds("tasks.md", "Redis holds 40 % of its claim's size")
@pytest.mark.parametrize(
    ("size", "bytes_"),
    [("1Gi", 429_496_729), ("500Mi", 209_715_200), ("10G", 4_000_000_000), ("1", 1)],
)
def test_redis_holds_less_than_its_claim_has_room_for(size: str, bytes_: int) -> None:
    spec = spec_of(queue={"redis": {"storage": {"size": size}}})
    config, *_ = workloads.redis_manifests(OWNER, spec.queue.redis, IMAGES, digests=DIGESTS)
    assert f"maxmemory {bytes_}" in config["data"]["redis.conf"].splitlines()


@pytest.mark.holds(
    "decisions/0003-redis-for-tasks.md",
    "The memory limit of Redis has room for tasks, their copy and the clients, and an upgrade "
    "restarts none for its rights",
)
@pytest.mark.parametrize(
    ("size", "most"),
    [
        pytest.param("1Gi", "1018Mi", id="2 x 409.6 + 102.4 + 96"),
        pytest.param("1Ti", "943815Mi", id="a large claim"),
        pytest.param("1", "129Mi", id="never below what is requested"),
    ],
)
def test_the_memory_limit_has_room_for_tasks_their_copy_and_the_clients(size: str, most: str) -> None:
    told = agent_fleet(queue={"redis": {"storage": {"size": size}}})
    container = templates(told)["redis"]["spec"]["containers"][0]
    assert container["resources"] == {
        "requests": {"cpu": "50m", "memory": "128Mi"},
        "limits": {"memory": most},
    }


@pytest.mark.holds(
    "decisions/0003-redis-for-tasks.md",
    "The memory limit of Redis has room for tasks, their copy and the clients, and an upgrade "
    "restarts none for its rights",
)
def test_the_users_own_resources_take_the_place_of_the_limit() -> None:
    own = {"requests": {"memory": "4Gi"}}
    told = agent_fleet(queue={"redis": {"pod": {"resources": own}}})
    resources = templates(told)["redis"]["spec"]["containers"][0]["resources"]
    assert (resources["requests"], resources.get("limits") or {}) == (own["requests"], {})


@pytest.mark.holds(
    "decisions/0003-redis-for-tasks.md",
    "The memory limit of Redis has room for tasks, their copy and the clients, and an upgrade "
    "restarts none for its rights",
)
def test_an_upgrade_restarts_no_redis_for_its_rights() -> None:
    """The annotation that restarts Redis is of what the release before wrote: its lines are kept."""
    redis = templates(agent_fleet())["redis"]
    assert redis["metadata"]["annotations"]["flotilla.dev/config-hash"] == "xnxjrbq3aw"
    config, *_ = workloads.redis_manifests(OWNER, spec_of().queue.redis, IMAGES, digests=DIGESTS)
    assert "users.conf" not in config["data"]["redis.conf"]


@pytest.mark.holds("pods.md", "Redis stores at most half of its memory limit")
@pytest.mark.parametrize(
    ("limits", "bytes_"),
    [
        pytest.param({"memory": "512Mi"}, 268_435_456, id="a limit below what the claim has room for"),
        pytest.param({"memory": "8Gi"}, 429_496_729, id="a limit above it"),
        pytest.param({"cpu": "1"}, 429_496_729, id="no limit of memory"),
        pytest.param({"memory": 0}, 1, id="a limit that nothing can keep"),
    ],
)
def test_redis_holds_at_most_half_of_its_memory_limit(limits: dict[str, Any], bytes_: int) -> None:
    spec = spec_of(queue={"redis": {"pod": {"resources": {"limits": limits}}}})
    config, *_ = workloads.redis_manifests(OWNER, spec.queue.redis, IMAGES, digests=DIGESTS)
    assert f"maxmemory {bytes_}" in config["data"]["redis.conf"].splitlines()


@pytest.mark.holds(
    "install.md",
    "Claims with `deletionPolicy: Retain` are kept, and have the label by which the page lists them",
)
@pytest.mark.holds("decisions/0003-redis-for-tasks.md", "It keeps its claim when the fleet is deleted")
def test_a_retained_claim_has_no_owner_and_a_claim_to_be_deleted_has() -> None:
    kept = workloads.claim(OWNER, spec_of().queue.redis)
    assert "ownerReferences" not in kept["metadata"]
    assert kept["metadata"]["labels"]["flotilla.dev/owner"] == "support"
    spec = spec_of(queue={"redis": {"deletionPolicy": "Delete"}})
    gone = workloads.claim(OWNER, spec.queue.redis)
    assert gone["metadata"]["ownerReferences"][0]["uid"] == "uid-support"


@pytest.mark.holds(
    "argocd.md",
    "No claim has the label by which Argo CD may track, and older claims lose it, also of fleets "
    "that are paused or gone",
)
@pytest.mark.parametrize("policy", ["Retain", "Delete"])
def test_no_claim_has_the_label_by_which_argo_cd_may_track(policy: str) -> None:
    """Nor one that is to be deleted with the fleet: it may be retained one day."""
    spec = spec_of(queue={"redis": {"deletionPolicy": policy}})
    assert "app.kubernetes.io/instance" not in workloads.claim(OWNER, spec.queue.redis)["metadata"]["labels"]


def test_only_gateway_and_workers_reach_redis() -> None:
    (policy,) = [
        each
        for each in rendered(agent_fleet())
        if each["kind"] == "NetworkPolicy" and each["metadata"]["name"] == "support-redis"
    ]
    peers = [peer["podSelector"]["matchLabels"] for peer in policy["spec"]["ingress"][0]["from"]]
    assert [peer["app.kubernetes.io/component"] for peer in peers] == ["gateway", "worker"]
    assert policy["spec"]["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "redis"


def config_of(manifest: dict[str, Any], component: str) -> dict[str, Any]:
    (found,) = [
        each["data"]["config.json"]
        for each in rendered(manifest)
        if each["kind"] == "ConfigMap"
        and each["metadata"]["labels"]["app.kubernetes.io/component"] == component
    ]
    config: dict[str, Any] = json.loads(found)
    return config


def test_the_runtime_reads_what_the_operator_writes() -> None:
    worker = contract.WorkerConfig.model_validate(config_of(MANAGED, "worker"))
    assert (worker.concurrency, worker.limits.max_steps, worker.queue.max_attempts) == (100, 12, 3)
    assert (worker.queue.fleet, worker.models, worker.indexes) == (
        "default/full-managed",
        WIRING.models,
        WIRING.indexes,
    )
    gateway = contract.GatewayConfig.model_validate(config_of(MANAGED, "gateway"))
    assert (gateway.auth, gateway.queue.max_waiting) == (contract.GatewayAuth.SECRET, 500)
    assert gateway.queue.model_copy(update={"user": "worker"}) == worker.queue


@pytest.mark.parametrize(
    ("retriever", "milliseconds"), [({"deadlineMilliseconds": 10_000}, 10_000), ({}, 500), (None, 500)]
)
async def test_workers_are_told_how_long_an_index_may_take(
    retriever: dict[str, Any] | None, milliseconds: int
) -> None:
    index = {**served_index(), "spec": {} if retriever is None else {"retriever": retriever}}
    fleet = agent_fleet(indexes=[{"name": "handbook", "indexRef": {"name": "handbook"}}])
    spec = AgentFleet.model_validate(fleet).spec
    wiring, _ = await References(fleet, spec, world(index)).look_up()
    assert [each.deadline_milliseconds for each in wiring.indexes] == [milliseconds]


def test_the_gateway_knows_which_prices_are_unknown_also_of_a_model_that_is_not_there_yet() -> None:
    def told(models: tuple[contract.ModelConnection, ...]) -> tuple[list[str], list[str]]:
        spec = AgentFleet.model_validate(SMALLEST).spec
        config, *_ = workloads.gateway_manifests(OWNER, spec, Wiring(models=models), IMAGES, "r")
        data = json.loads(config["data"]["config.json"])
        return data["models"], data.get("unpriced_models", [])

    [model] = WIRING.models
    priced = contract.Pricing(input_per_million_usd=1, output_per_million_usd=2)
    assert told(()) == told((model,)) == (["llama"], ["llama"]), "it is not rolled when the model appears"
    assert told((model.model_copy(update={"pricing": priced}),)) == (["llama"], [])


def test_the_workers_are_told_which_graph_they_run() -> None:
    config = config_of(WITH_GRAPH, "worker")
    assert (config["graph"], config.get("prompt"), config.get("entrypoint")) == ("app:graph", None, None)


def test_no_secret_stands_in_a_config_map_or_in_a_template() -> None:
    secret, users, *others = rendered(MANAGED)
    hosts = r"(registry|lb|weather|shop|rooms|docs|mcp|policy|objects|traces)\.example"
    text = re.sub(hosts, "", yaml_of(others))
    encoded = base64.b64encode(b"example").decode()
    assert encoded in yaml_of([secret])
    assert base64.b64encode(b"example-w").decode() in yaml_of([users])
    assert [password for password in ("example", encoded) if password in text] == []


@pytest.mark.holds(
    "decisions/0003-redis-for-tasks.md",
    "Gateways and workers have a user of Redis each, and Redis has only the hashes of their passwords",
)
def test_gateways_and_workers_have_a_user_of_redis_each_and_redis_has_the_hashes_alone() -> None:
    for component in ("gateway", "worker"):
        queue = config_of(SMALLEST, component)["queue"]
        assert queue["user"] == component
        (volume,) = [
            one for one in templates(SMALLEST)[component]["spec"]["volumes"] if one["name"] == "redis"
        ]
        items = [{"key": component, "path": "password"}]
        assert volume["secret"] == {"secretName": "support-redis-users", "items": items}
    (mounted,) = [one for one in templates(SMALLEST)["redis"]["spec"]["volumes"] if one["name"] == "users"]
    assert [item["key"] for item in mounted["secret"]["items"]] == ["users.conf"]
    users = workloads.users_secret(OWNER, {"gateway": "secret-g", "worker": "secret-w"})
    text = base64.b64decode(users["data"]["users.conf"]).decode()
    assert "secret-" not in text
    assert [line.split()[:3] for line in text.splitlines()] == [
        ["user", "gateway", "on"],
        ["user", "worker", "on"],
    ]
    assert text.count("~flotilla:{default/support}:* &flotilla:{default/support}:* ") == 2
    config, *_ = workloads.redis_manifests(OWNER, spec_of().queue.redis, IMAGES, digests=DIGESTS)
    configured = [one for one in config["data"]["redis.conf"].splitlines() if one.startswith("user ")]
    assert [one.partition("#")[2][64:] for one in configured] == [
        one.partition("#")[2][64:] for one in text.splitlines()
    ]
    assert [one.split()[3] for one in configured] == [f"#{DIGESTS[one]}" for one in ("gateway", "worker")]
    rights = text.splitlines()[0].partition(" ~")[2]
    told = (Path(__file__).parents[3] / "docs" / "tasks.md").read_text(encoding="utf-8")
    assert f"ACL SETUSER support on >PASSWORD ~{rights}\n" in told, "an external Redis needs the same"


@pytest.mark.holds(
    "security.md",
    "Executors have no key of a model, an index or a bucket, and reach the keys of their queue alone",
)
@pytest.mark.attack("A function of a tool executor reads models' keys, or tasks of others")
def test_executors_have_the_functions_and_no_key_of_a_model_an_index_or_an_object_store() -> None:
    executor, worker = (templates(MANAGED, WITH_KEYS)[name]["spec"] for name in ("executor", "worker"))
    (container,) = executor["containers"]
    assert {one["name"] for one in container["env"]} == {"FLOTILLA_POD_NAME"}
    assert {one["name"] for one in executor["volumes"]} == {"config", "redis", "scratch"}
    (redis,) = [one["secret"] for one in executor["volumes"] if one["name"] == "redis"]
    items = [{"key": "executor", "path": "password"}]
    assert redis == {"secretName": "full-managed-redis-executor", "items": items}
    assert executor["automountServiceAccountToken"] is False
    assert {"FLOTILLA_MODEL_KEY_JUDGE"} <= {one["name"] for one in worker["containers"][0]["env"]}
    config = config_of(MANAGED, "executor")
    assert [tool["name"] for tool in config["tools"]] == ["order", "refund"]
    assert "models" not in config
    assert "payloads" not in config["queue"]
    assert config_of(MANAGED, "worker")["has_executors"] is True


@pytest.mark.holds("tools.md", "Executors have a network policy of their own")
def test_who_may_connect_to_redis_and_to_executors() -> None:
    policies = {
        one["metadata"]["name"]: one["spec"] for one in rendered(MANAGED) if one["kind"] == "NetworkPolicy"
    }
    peers = [
        peer["podSelector"]["matchLabels"][contract.LABEL_COMPONENT]
        for rule in policies["full-managed-redis"]["ingress"]
        for peer in rule["from"]
    ]
    assert peers == ["gateway", "worker", "executor"]
    (rule,) = policies["full-managed-executor"]["ingress"]
    assert [port["port"] for port in rule["ports"]] == [contract.PORT_METRICS]
    without = [one for one in rendered(SMALLEST) if one["metadata"]["name"].endswith("executor")]
    assert without == []


@pytest.mark.holds("tools.md", "An executor that must stop lets functions end and hands the rest over")
def test_an_executor_that_is_to_stop_lets_its_longest_function_end() -> None:
    slow = {"name": "slow", "python": "app:slow", "timeoutSeconds": 300}
    fleet = agent_fleet(image="registry.example/agents:1", tools=[slow], toolExecutors={})
    assert config_of(fleet, "executor")["handover_seconds"] == 300
    assert templates(fleet)["executor"]["spec"]["terminationGracePeriodSeconds"] == 315


def test_pods_are_rolled_by_configuration_and_by_secrets_they_read_and_by_nothing_else() -> None:
    before = templates(MANAGED)
    same = templates({**MANAGED, "spec": {**MANAGED["spec"], "workers": MANAGED["spec"]["workers"]}})
    assert same == before
    rotated = templates(MANAGED, Wiring(**{**_fields(WIRING), "secret_versions": {"judge": "uid/2"}}))
    assert rotated["worker"] != before["worker"]
    assert (rotated["gateway"], rotated["redis"]) == (before["gateway"], before["redis"])


def _fields(wiring: Wiring) -> dict[str, Any]:
    return {name: getattr(wiring, name) for name in ("models", "indexes", "model_keys", "complete")}


def test_callers_are_read_from_their_secret_and_the_clusters_authority_only_where_needed() -> None:
    volumes = {
        name: {volume["name"] for volume in templates(manifest)["gateway"]["spec"]["volumes"]}
        for name, manifest in (("secret", MANAGED), ("none", EXTERNAL), ("kubernetes", KUBERNETES))
    }
    assert volumes == {
        "secret": {"config", "redis", "flotilla-payloads", "flotilla-telemetry", "callers"},
        "none": {"config", "flotilla-sentinel", "tls"},
        "kubernetes": {"config", "redis", "cluster", "api-token"},
    }


def test_both_have_the_credentials_of_the_object_store_as_files() -> None:
    payloads = {"url": "s3://fleets/a/b/", "secretRef": {"name": "s3"}, "region": "eu-central-1"}
    rendered = templates(agent_fleet(queue={"payloads": payloads}))
    for part in ("gateway", "worker"):
        pod = rendered[part]["spec"]
        (volume,) = [one for one in pod["volumes"] if one["name"] == "flotilla-payloads"]
        assert volume["secret"] == {
            "secretName": "s3",
            "items": [
                {"key": "accessKeyId", "path": "accessKeyId"},
                {"key": "secretAccessKey", "path": "secretAccessKey"},
            ],
        }
        mounts = {mount["name"]: mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
        assert mounts["flotilla-payloads"] == contract.PAYLOADS_DIRECTORY
    spec = spec_of(queue={"payloads": payloads})
    assert payloads_config(spec.queue.payloads) == contract.PayloadsConfig(
        endpoint="https://s3.eu-central-1.amazonaws.com",
        bucket="fleets",
        prefix="a/b",
        region="eu-central-1",
        credentials_directory=contract.PAYLOADS_DIRECTORY,
    )


def test_both_send_traces_with_the_headers_of_a_secret_that_need_not_be_there() -> None:
    telemetry = {
        "otlpEndpoint": "https://traces.example/otel",
        "headersSecretRef": {"name": "traces"},
        "samplePercent": 5,
    }
    rendered = templates(agent_fleet(telemetry=telemetry))
    for part in ("gateway", "worker"):
        pod = rendered[part]["spec"]
        (volume,) = [one for one in pod["volumes"] if one["name"] == "flotilla-telemetry"]
        assert volume["secret"] == {"secretName": "traces", "optional": True}
        mounts = {mount["name"]: mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
        assert mounts["flotilla-telemetry"] == contract.TELEMETRY_HEADERS_DIRECTORY
    spec = spec_of(telemetry=telemetry)
    assert spec.telemetry is not None
    told = contract.TelemetryConfig(
        endpoint="https://traces.example/otel",
        headers_directory=contract.TELEMETRY_HEADERS_DIRECTORY,
        sample_percent=5,
    )
    assert telemetry_config(spec.telemetry) == told
    wiring = replace(WIRING, telemetry=told)
    assert workloads.pods.worker_config(OWNER, spec, wiring).telemetry == told
    assert workloads.pods.gateway_config(OWNER, spec, wiring, IMAGES, "r").telemetry == told


@pytest.mark.holds(
    "observability.md",
    "The Secret with headers goes only where `flotilla.dev/send-to` says, is read anew, and is in no log",
)
def test_a_secret_that_may_not_be_sent_is_not_mounted() -> None:
    spec = spec_of(
        telemetry={"otlpEndpoint": "https://traces.example", "headersSecretRef": {"name": "traces"}}
    )
    for manifests in (
        workloads.gateway_manifests(OWNER, spec, WIRING, IMAGES, "r"),
        workloads.worker_manifests(OWNER, spec, WIRING, IMAGES, 1),
    ):
        assert "traces" not in repr(manifests)


def test_an_object_store_without_credentials_needs_no_files() -> None:
    payloads = {"url": "s3://fleets", "endpoint": "http://minio.storage.svc:9000"}
    gateway = templates(agent_fleet(queue={"payloads": payloads}))["gateway"]["spec"]
    assert "flotilla-payloads" not in {volume["name"] for volume in gateway["volumes"]}
    spec = spec_of(queue={"payloads": payloads})
    assert payloads_config(spec.queue.payloads) == contract.PayloadsConfig(
        endpoint="http://minio.storage.svc:9000", bucket="fleets"
    )


def test_workers_have_time_to_hand_over() -> None:
    grace = templates(agent_fleet())["worker"]["spec"]["terminationGracePeriodSeconds"]
    assert grace > contract.WorkerConfig.model_fields["handover_seconds"].default
