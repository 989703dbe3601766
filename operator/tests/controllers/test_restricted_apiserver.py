"""Secrets of others that users of the kinds name, on a real API server whose operator restricts them.

KWOK plays the kubelet. What counts is that nothing of the namespace mounts what is not for it.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from leaks.planted import planted
from local_cluster.api_client import ApiClient
from local_cluster.control_plane import ControlPlane
from local_cluster.errors import ApiError
from tests.builders.api_objects import changed, smallest
from tests.controllers.model_replica_set.stage import Stage
from tests.support.kinds import Operators, no_failures
from tests.support.waiting import eventually

pytestmark = [pytest.mark.apiserver, pytest.mark.timeout(600)]

PLURALS = {
    "ModelReplicaSet": "modelreplicasets",
    "VectorIndex": "vectorindexes",
    "AgentFleet": "agentfleets",
}
WITH_POD_TEMPLATES = ("apps/v1", "deployments"), ("apps/v1", "statefulsets"), ("batch/v1", "jobs")
USED_BY = "flotilla.dev/used-by"
KEYS = {"mode": "Secret", "secretRef": {"name": "of-others"}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Restricted:
    """A namespace, and an operator that was told to restrict the kinds."""

    client: ApiClient
    namespace: str

    def path(self, plural: str, api: str = "v1") -> str:
        root = f"/api/{api}" if "/" not in api else f"/apis/{api}"
        return f"{root}/namespaces/{self.namespace}/{plural}"

    def objects(self, kind: str) -> str:
        return self.path(PLURALS[kind], "flotilla.dev/v1alpha1")

    def secret(self, name: str, used_by: str | None = None, **entries: str) -> None:
        annotations = {} if used_by is None else {USED_BY: used_by}
        self.client.create(
            self.path("secrets"),
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": name, "annotations": annotations},
                "stringData": entries,
            },
        )

    def claim(self, name: str, used_by: str | None = None) -> None:
        annotations = {} if used_by is None else {USED_BY: used_by}
        size = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
        metadata = {"name": name, "annotations": annotations}
        claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": size}
        self.client.create(self.path("persistentvolumeclaims"), claim)

    def create(self, kind: str, name: str, **values: Any) -> None:
        manifest = changed(smallest(kind, name=name, namespace=self.namespace), **values)
        self.client.create(self.objects(kind), manifest)

    def says(self, kind: str, name: str, reason: str) -> str:
        """The message of the condition with this reason, once there is one."""

        def found() -> str | None:
            status = self.client.get(f"{self.objects(kind)}/{name}").get("status") or {}
            conditions = status.get("conditions") or []
            return next((c["message"] for c in conditions if c["reason"] == reason), None)

        message: str = eventually(found, what=f"{kind} {name} says {reason}")
        return message

    def templates(self) -> dict[str, str]:
        """All that makes pods, by name, and the pods, as text."""
        found = {}
        for api, plural in (*WITH_POD_TEMPLATES, ("v1", "pods")):
            for item in self.client.get(self.path(plural, api))["items"]:
                found[f"{plural}/{item['metadata']['name']}"] = json.dumps(item["spec"])
        return found


@pytest.fixture
def restricted(
    running_control_plane: ControlPlane, running_namespace: str, operators: Operators
) -> Iterator[Restricted]:
    operator = operators.of(*PLURALS, restrict={"enabled": True})
    made = Restricted(client=running_control_plane.client, namespace=running_namespace)
    try:
        with no_failures(operator):
            yield made
    finally:
        for kind in PLURALS:
            for item in made.client.get(made.objects(kind))["items"]:
                made.client.delete(f"{made.objects(kind)}/{item['metadata']['name']}")


@pytest.mark.holds(
    "security.md",
    "An object that a Secret does not list says `SecretForOthers`, and no pod mounts it; what runs stays",
)
@pytest.mark.attack("A user of the kinds mounts a Secret of somebody else as keys or as a certificate")
@pytest.mark.parametrize(
    "used_by",
    [
        pytest.param(None, id="it names nobody"),
        pytest.param("AgentFleet/billing", id="it names another object"),
        pytest.param("team-b/ModelReplicaSet/evil, AgentFleet/team-b/evil", id="of another namespace"),
    ],
)
def test_a_secret_that_is_not_for_an_object_is_mounted_nowhere(
    used_by: str | None, restricted: Restricted
) -> None:
    pair = {"tls.crt": "x", "tls.key": "y"}
    restricted.secret("of-others", used_by, **{**pair, "token": "z", "agentfleet-evil": "k"})
    restricted.create("ModelReplicaSet", "evil", spec__router={"authSecretRef": {"name": "of-others"}})
    restricted.create(
        "ModelReplicaSet", "evil-tls", spec__router={"tls": {"secretRef": {"name": "of-others"}}}
    )
    restricted.create("AgentFleet", "evil", spec__gateway={"auth": KEYS})
    restricted.create("AgentFleet", "evil-tls", spec__gateway={"tls": {"secretRef": {"name": "of-others"}}})
    restricted.create("VectorIndex", "evil", spec__retriever={"authSecretRef": {"name": "of-others"}})
    told = {
        f"{kind}/{name}": restricted.says(kind, name, "SecretForOthers")
        for kind, name in (
            ("ModelReplicaSet", "evil"),
            ("ModelReplicaSet", "evil-tls"),
            ("AgentFleet", "evil"),
            ("AgentFleet", "evil-tls"),
            ("VectorIndex", "evil"),
        )
    }
    assert all("'of-others' is not mounted" in message for message in told.values()), told
    assert {name for name, spec in restricted.templates().items() if "of-others" in spec} == set()

    restricted.secret("its-own", "AgentFleet/good", **pair)
    restricted.create("AgentFleet", "good", spec__gateway={"tls": {"secretRef": {"name": "its-own"}}})
    eventually(lambda: "its-own" in restricted.templates().get("deployments/good-gateway", ""))


@pytest.mark.holds("security.md", "With `restrict.enabled` no status has the last words of a container")
@pytest.mark.attack("Who may read objects, and no logs, reads in a status what a container printed")
def test_what_a_container_printed_is_in_no_status(
    restricted: Restricted, running_control_plane: ControlPlane
) -> None:
    word = "hush7364"
    stage = Stage(running_control_plane, restricted.namespace)
    try:
        stage.node("a")
        stage.create(replicas=1)
        stage.wait("Ready", "True")
        (pod,) = stage.pods()
        crashed = {"exitCode": 1, "reason": "Error", "message": f"Traceback:\n  key {word}"}
        loops = {"waiting": {"reason": "CrashLoopBackOff"}}
        stage.report(pod, state=loops, lastState={"terminated": crashed}, restartCount=3)
        message = stage.wait("Available", "False", "EngineCrashing")
        assert "ended with code 1" in message
        assert (
            f"kubectl logs -n {restricted.namespace} {pod['metadata']['name']} -c engine --previous"
            in message
        )
        assert word not in json.dumps(stage.get())
        assert word not in json.dumps(stage.told())
    finally:
        for path in stage.of_the_cluster:
            stage.client.delete(path)


@pytest.mark.holds(
    "security.md",
    "Before a roll-back the API server is asked by a dry run; what it refuses is not brought back",
)
@pytest.mark.attack(
    "A user of the kinds lets an update fail, so that a spec from before the policies comes back"
)
def test_a_spec_that_a_policy_would_refuse_today_is_not_brought_back(
    restricted: Restricted, running_control_plane: ControlPlane
) -> None:
    """The policy is made after the first revision, as one of the chart is when restrict is switched on."""
    stage = Stage(running_control_plane, restricted.namespace)
    older, newer = ({"image": f"registry.example/{name}/vllm:1"} for name in ("older", "newer"))
    try:
        node = stage.node("a")
        deadline = {"progressDeadlineSeconds": 60, "maxSurge": 0, "maxUnavailable": 1}
        stage.create(replicas=1, engine=older, update=deadline)
        stage.wait("Ready", "True")
        eventually(lambda: (stage.get()["status"].get("rollout") or {}).get("goodRevision"))
        deny_older_images(stage)
        stage.client.merge(f"/api/v1/nodes/{node}", {"spec": {"unschedulable": True}})
        stage.mute_node("b")
        stage.change(engine=newer)
        message = eventually(
            lambda: (
                stage.condition("Progressing")["reason"] == "RollbackRefused"
                and stage.condition("Progressing")["message"]
            ),
            150,
        )
        assert "older images are not allowed here" in message
        images = {pod["spec"]["containers"][0]["image"] for pod in stage.pods()}
        assert older["image"] not in images
        names = [one["metadata"]["name"] for one in stage.client.get(stage.sets)["items"]]
        assert names == ["llama"], "a dry run makes nothing"
    finally:
        for path in stage.of_the_cluster:
            stage.client.delete(path)


def deny_older_images(stage: Stage) -> None:
    """A policy for this namespace, in force."""
    api = "admissionregistration.k8s.io/v1"
    name = f"no-older-{stage.namespace}"
    rule = {"apiGroups": ["flotilla.dev"], "apiVersions": ["*"], "resources": ["modelreplicasets"]}
    policy = {
        "failurePolicy": "Fail",
        "matchConstraints": {"resourceRules": [{**rule, "operations": ["CREATE", "UPDATE"]}]},
        "matchConditions": [
            {
                "name": "the-spec-changes",
                "expression": "request.operation == 'CREATE' || object.spec != oldObject.spec",
            }
        ],
        "validations": [
            {
                "expression": "!object.spec.engine.image.contains('/older/')",
                "message": "older images are not allowed here",
            }
        ],
    }
    here = {"matchLabels": {"kubernetes.io/metadata.name": stage.namespace}}
    binding = {
        "policyName": name,
        "validationActions": ["Deny"],
        "matchResources": {"namespaceSelector": here},
    }
    for kind, plural, spec in (
        ("ValidatingAdmissionPolicy", "validatingadmissionpolicies", policy),
        ("ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings", binding),
    ):
        manifest = {"apiVersion": api, "kind": kind, "metadata": {"name": name}, "spec": spec}
        stage.make(f"/apis/{api}/{plural}", manifest)

    def refuses() -> bool:
        """The policy is in force."""
        held = stage.get()
        new = {key: held[key] for key in ("apiVersion", "kind", "spec")}
        try:
            stage.client.create(f"{stage.sets}?dryRun=All", {**new, "metadata": {"name": "x"}})
        except ApiError:
            return True
        return False

    eventually(refuses)


def volume(claim: str) -> dict[str, Any]:
    return {"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": claim}}]}


def copy_of(claim: str) -> dict[str, Any]:
    size = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    source = {"dataSource": {"kind": "PersistentVolumeClaim", "name": claim}}
    template = {"volumeClaimTemplate": {"spec": {**size, **source}}}
    return {"volumes": [{"name": "v", "ephemeral": template}]}


@pytest.mark.holds(
    "security.md",
    "A claim is for the objects that its `flotilla.dev/used-by` lists, also as the source of a "
    "copy, and that of a managed Redis or Milvus for its own pod alone",
)
@pytest.mark.attack("A user of the kinds mounts a claim of somebody else, or begins a volume as its copy")
@pytest.mark.parametrize(
    "used_by",
    [pytest.param(None, id="it names nobody"), pytest.param("ModelReplicaSet/gpt", id="another object")],
)
def test_a_claim_that_is_not_for_an_object_is_mounted_nowhere(
    used_by: str | None, restricted: Restricted
) -> None:
    restricted.claim("of-others", used_by)
    hub = {"name": "m", "source": "hf://meta/llama"}
    sets: dict[str, dict[str, Any]] = {
        "source": {"spec__model": {"name": "m", "source": "pvc://of-others/m"}},
        "cache": {"spec__model": hub, "spec__modelCache": {"mode": "Claim", "claimName": "of-others"}},
        "volume": {"spec__model": hub, "spec__pod": volume("of-others")},
        "copy": {"spec__model": hub, "spec__pod": copy_of("of-others")},
    }
    for name, values in sets.items():
        restricted.create("ModelReplicaSet", name, **values)
    restricted.create("VectorIndex", "source", spec__source={"path": "pvc://of-others"})
    restricted.create("VectorIndex", "workspace", spec__build={"workspace": {"claimName": "of-others"}})
    restricted.create("AgentFleet", "workers", spec__workers={"minReplicas": 1, "pod": volume("of-others")})
    named = [("ModelReplicaSet", name) for name in sets]
    named += [("VectorIndex", "source"), ("VectorIndex", "workspace"), ("AgentFleet", "workers")]
    for kind, name in named:
        assert "'of-others' is not" in restricted.says(kind, name, "ClaimForOthers")
    assert {name for name, spec in restricted.templates().items() if "of-others" in spec} == set()


@pytest.mark.holds(
    "security.md",
    "A claim is for the objects that its `flotilla.dev/used-by` lists, also as the source of a "
    "copy, and that of a managed Redis or Milvus for its own pod alone",
)
@pytest.mark.attack("A user of the kinds mounts the claim of a managed Redis or Milvus")
def test_the_claim_of_a_store_is_mounted_by_its_own_pod_alone(restricted: Restricted) -> None:
    """Not even where its annotation lists the object. One that names it before it is there waits for it."""
    hub = {"name": "m", "source": "hf://meta/llama"}
    restricted.create("ModelReplicaSet", "early", spec__model=hub, spec__pod=volume("support-redis"))
    restricted.says("ModelReplicaSet", "early", "ClaimMissing")
    restricted.create("AgentFleet", "support")
    restricted.create("VectorIndex", "handbook")
    claims = {"support-redis", "handbook-milvus"}
    names = restricted.path("persistentvolumeclaims")
    eventually(lambda: claims <= {one["metadata"]["name"] for one in restricted.client.get(names)["items"]})
    for claim in claims:
        note = {USED_BY: "ModelReplicaSet/early, ModelReplicaSet/late, AgentFleet/late"}
        restricted.client.merge(f"{names}/{claim}", {"metadata": {"annotations": note}})
    restricted.create("ModelReplicaSet", "late", spec__model=hub, spec__pod=volume("handbook-milvus"))
    restricted.create("AgentFleet", "late", spec__workers={"minReplicas": 1, "pod": volume("support-redis")})
    for kind, name in (("ModelReplicaSet", "early"), ("ModelReplicaSet", "late"), ("AgentFleet", "late")):
        assert "only the pod of that may mount it" in restricted.says(kind, name, "ClaimForOthers")
    mounts = [f'"claimName": "{claim}"' for claim in claims]
    found = {name for name, spec in restricted.templates().items() if any(one in spec for one in mounts)}
    stores = ("statefulsets/support-redis", "statefulsets/handbook-milvus")
    pods = ("pods/support-redis-0", "pods/handbook-milvus-0")
    assert found <= {*stores, *pods}


@pytest.mark.holds(
    "security.md",
    "The URL of a Redis goes to the hosts that its Secret lists, and no message has a part of it",
)
@pytest.mark.attack("A user of the kinds names any Secret as the URL of a Redis")
def test_no_secret_is_read_as_the_url_of_a_redis_that_does_not_say_where_it_goes(
    restricted: Restricted,
) -> None:
    """Neither one that is a URL, nor one that is none, and no message shows a part of it."""
    password = planted("password")
    restricted.secret("redis", url=f"redis://me:{password}@redis.example:6379/0", token=password)
    for name, key in (("url", "url"), ("token", "token")):
        redis = {"mode": "External", "urlSecretRef": {"name": "redis", "key": key}}
        restricted.create("AgentFleet", name, spec__queue={"redis": redis})
    assert "flotilla.dev/send-to: redis.example:6379" in restricted.says(
        "AgentFleet", "url", "SecretForElsewhere"
    )
    assert "cannot be read" in restricted.says("AgentFleet", "token", "SecretForElsewhere")
    fleets = json.dumps(restricted.client.get(restricted.objects("AgentFleet")))
    assert password not in fleets
    assert {name for name, spec in restricted.templates().items() if '"secretName": "redis"' in spec} == set()
