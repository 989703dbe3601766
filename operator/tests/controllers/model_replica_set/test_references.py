"""References that the cluster lacks: seen by `observe`, and what the plan says and does about it."""

from typing import Any

import pytest

from flotilla_operator.cluster.writes import Apply
from flotilla_operator.controllers.config import parse_config
from flotilla_operator.controllers.model_replica_set.decide.looks import SECRET_IS_MISSING
from flotilla_operator.controllers.model_replica_set.observe.memory import Memory
from flotilla_operator.controllers.model_replica_set.observe.observe import observe
from flotilla_operator.controllers.model_replica_set.reasons import Reason
from flotilla_operator.controllers.model_replica_set.seen import Observed
from flotilla_operator.objects import used_by
from tests.builders.model_replica_set import gpu_set, model_replica_set
from tests.builders.pods import NOW
from tests.builders.world import CONFIG, RESTRICTED
from tests.controllers.model_replica_set.test_devices import (
    DRIVER,
    device_class,
    node,
    on_devices,
    resource_slice,
)
from tests.controllers.model_replica_set.test_observe import node as gpu_node
from tests.controllers.model_replica_set.test_observe import priority_class, world
from tests.controllers.model_replica_set.test_plan import condition, created, creates, shown
from tests.support.planned import Plan
from tests.support.planned import plan_of_set as plan

LISTED = "/var/lib/flotilla/models"
CONFIGURED = parse_config(
    {"images": CONFIG.images.model_dump(by_alias=True), "modelCache": {"nodePaths": [LISTED]}}
)
TOKEN = model_replica_set(model={"tokenSecretRef": {"name": "hf"}})
TOKEN_FOR_A_HUB_OF_A_CONFIG_MAP = model_replica_set(
    model={"tokenSecretRef": {"name": "hf"}},
    engine={"env": [{"name": "HF_ENDPOINT", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "hub"}}}]},
)
TOKEN_THROUGH_A_PROXY = model_replica_set(
    model={"tokenSecretRef": {"name": "hf"}},
    engine={"env": [{"name": "https_proxy", "value": "http://evil.example:3128"}]},
)
CALLERS = model_replica_set(router={"authSecretRef": {"name": "callers"}})
TLS = model_replica_set(router={"tls": {"secretRef": {"name": "tls"}}})
IN_LIMITS = model_replica_set(engine={"resources": {"limits": {"nvidia.com/gpu": "1"}}})
HELD = model_replica_set(model={"source": "pvc://models/llama"})
CACHED = model_replica_set(modelCache={"mode": "Claim", "claimName": "models"})
ON_NODE = model_replica_set(modelCache={"mode": "Node", "path": "/srv/models"})
WHOLE_CACHE = model_replica_set(
    modelCache={"mode": "Node", "path": LISTED},
    pod={"volumeMounts": [{"name": "models", "mountPath": "/all"}]},
)
SERVING = model_replica_set(placement={"priorityClassName": "serving"})
SANDBOXED = model_replica_set(pod={"runtimeClassName": "sandboxed"})
ROUTED_SANDBOXED = model_replica_set(router={"pod": {"runtimeClassName": "sandboxed"}})
ROUTED_FIRST = model_replica_set(router={"pod": {"priorityClassName": "serving"}})
ASKING = model_replica_set(
    placement={"priorityClassName": "serving", "nodeProvisioning": {"mode": "Placeholders"}}
)
MEMORY = {"limits": {"memory": "32Gi"}}
OFFLOADING = gpu_set(replicas=1, engine={"kvOffloadGiB": 32, "resources": MEMORY})
OFFLOADING_LESS = gpu_set(replicas=1, engine={"kvOffloadGiB": 16, "resources": MEMORY})
# Room for the sets that ask for accelerators; a set on CPUs needs none.
DEVICES = [node("a"), resource_slice("a")]
GPUS = [gpu_node("a")]
CLAIM: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "PersistentVolumeClaim",
    "metadata": {"name": "models", "namespace": "default", "uid": "c"},
}


IN_A_VOLUME = model_replica_set(
    pod={"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "models"}}]}
)
GPTS_CLAIM = {
    **CLAIM,
    "metadata": {**CLAIM["metadata"], "annotations": {used_by.ANNOTATION: "ModelReplicaSet/gpt"}},
}


async def looked_at(
    manifest: dict[str, Any], objects: list[dict[str, Any]], secrets: dict[str, Any]
) -> tuple[Observed, Plan]:
    seen = await observe(manifest, world(manifest, *objects, config=CONFIGURED, **secrets), Memory(), NOW)
    return seen, plan(seen, NOW)


@pytest.mark.holds("node-autoscalers.md", "A set that cannot preempt placeholders is told by `SpecValid`")
@pytest.mark.holds(
    "placement.md", "A class that is missing, not countable or contradicts makes `SpecValid` False"
)
@pytest.mark.holds("pods.md", "A missing class is a condition that names the field")
@pytest.mark.holds(
    "architecture.md", "Objects are looked at after 75 s for their Secrets, after 10 s while one is missing"
)
@pytest.mark.holds(
    "security.md", "An object that would send it elsewhere says `SecretForElsewhere`, and what runs stays"
)
@pytest.mark.parametrize(
    ("manifest", "objects", "secrets", "reason"),
    [
        pytest.param(TOKEN, [], {}, Reason.SECRET_MISSING, id="no token"),
        pytest.param(
            TOKEN,
            [],
            {"hf": {"token": "x", "flotilla.dev/send-to": "hub.example"}},
            Reason.SECRET_FOR_ELSEWHERE,
            id="a token for another hub",
        ),
        pytest.param(
            TOKEN_FOR_A_HUB_OF_A_CONFIG_MAP,
            [],
            {"hf": {"token": "x", "flotilla.dev/send-to": "huggingface.co"}},
            Reason.SECRET_FOR_ELSEWHERE,
            id="a hub whose address is not known",
        ),
        pytest.param(
            TOKEN_THROUGH_A_PROXY,
            [],
            {"hf": {"token": "x", "flotilla.dev/send-to": "huggingface.co"}},
            Reason.SECRET_FOR_ELSEWHERE,
            id="a token that a proxy would read",
        ),
        pytest.param(CALLERS, [], {}, Reason.SECRET_MISSING, id="no keys of callers"),
        pytest.param(TLS, [], {}, Reason.SECRET_MISSING, id="no certificate"),
        pytest.param(TOKEN, [], {"hf": {"x": b"x"}}, Reason.SECRET_KEY_MISSING, id="no entry for the token"),
        pytest.param(TOKEN, [], {"hf": {"token": b" \n"}}, Reason.SECRET_KEY_MISSING, id="an empty token"),
        pytest.param(
            TOKEN, [], {"hf": {"token": b"x\0"}}, Reason.SECRET_KEY_MISSING, id="a token that is no header"
        ),
        pytest.param(
            TLS, [], {"tls": {"tls.crt": b"x"}}, Reason.SECRET_KEY_MISSING, id="a certificate without a key"
        ),
        pytest.param(
            CALLERS, [], {"callers": {"x": b" \n"}}, Reason.SECRET_KEY_MISSING, id="blank keys of callers"
        ),
        pytest.param(
            CALLERS,
            [],
            {"callers": {"x": b"\xc3\xa9", "y": b"y" * 20_000}},
            Reason.SECRET_KEY_MISSING,
            id="keys of callers that nobody can send",
        ),
        pytest.param(
            CALLERS,
            [],
            {"callers": {"x": "x", used_by.ANNOTATION: "AgentFleet/support"}},
            Reason.SECRET_FOR_OTHERS,
            id="keys of the callers of a fleet",
        ),
        pytest.param(
            TLS,
            [],
            {"tls": {"tls.crt": "x", "tls.key": "x", used_by.ANNOTATION: "team-b/ModelReplicaSet/llama"}},
            Reason.SECRET_FOR_OTHERS,
            id="a certificate that names an object of another namespace",
        ),
        pytest.param(HELD, [], {}, Reason.CLAIM_MISSING, id="no claim that holds the model"),
        pytest.param(CACHED, [], {}, Reason.CLAIM_MISSING, id="no claim that caches the model"),
        pytest.param(IN_A_VOLUME, [], {}, Reason.CLAIM_MISSING, id="no claim of a volume"),
        pytest.param(HELD, [GPTS_CLAIM], {}, Reason.CLAIM_FOR_OTHERS, id="the files of another set"),
        pytest.param(CACHED, [GPTS_CLAIM], {}, Reason.CLAIM_FOR_OTHERS, id="the cache of another set"),
        pytest.param(IN_A_VOLUME, [GPTS_CLAIM], {}, Reason.CLAIM_FOR_OTHERS, id="a volume of another set"),
        pytest.param(ON_NODE, [], {}, Reason.NODE_PATH_NOT_LISTED, id="a node's folder that is not listed"),
        pytest.param(WHOLE_CACHE, [], {}, Reason.NODE_CACHE_MOUNTED, id="all models of a node mounted"),
        pytest.param(
            IN_LIMITS, [], {}, Reason.ACCELERATOR_IN_RESOURCES, id="an accelerator in the limits alone"
        ),
        pytest.param(SERVING, [], {}, Reason.PRIORITY_CLASS_MISSING, id="no such priority class"),
        pytest.param(SANDBOXED, [], {}, Reason.RUNTIME_CLASS_MISSING, id="no such runtime class"),
        pytest.param(
            ROUTED_SANDBOXED, [], {}, Reason.RUNTIME_CLASS_MISSING, id="no such runtime class of routers"
        ),
        pytest.param(
            ROUTED_FIRST, [], {}, Reason.PRIORITY_CLASS_MISSING, id="no such priority class of routers"
        ),
        pytest.param(
            ASKING,
            [priority_class("serving", -5)],
            {},
            Reason.CANNOT_PREEMPT,
            id="a class that is not above the placeholders'",
        ),
        pytest.param(
            ASKING,
            [{**priority_class("serving", 7), "preemptionPolicy": "Never"}],
            {},
            Reason.CANNOT_PREEMPT,
            id="a class that preempts nobody",
        ),
        pytest.param(on_devices(), DEVICES, {}, Reason.DEVICE_CLASS_MISSING, id="no such device class"),
        pytest.param(
            on_devices(),
            [
                *DEVICES,
                device_class("device.capacity['gpu.example'].memory.isGreaterThan(quantity('1Gi'))"),
            ],
            {},
            Reason.DEVICE_CLASS_NOT_COUNTABLE,
            id="a device class that is more than equalities",
        ),
        pytest.param(
            on_devices(),
            [
                *DEVICES,
                device_class(
                    f"device.attributes['{DRIVER}'].product == 'A100' && device.driver == '{DRIVER}'"
                ),
            ],
            {},
            Reason.DEVICE_ATTRIBUTES_CONTRADICT,
            id="a device class of another product",
        ),
        pytest.param(
            on_devices(),
            [*DEVICES, device_class("device.attributes['x'].ecc == true")],
            {},
            Reason.DEVICE_ATTRIBUTES_CONTRADICT,
            id="an attribute of no driver",
        ),
        pytest.param(
            OFFLOADING, GPUS, {}, Reason.NO_ROOM_TO_OFFLOAD, id="more offloaded than there is memory"
        ),
    ],
)
async def test_what_is_missing_is_said_and_holds_new_replicas_back(
    manifest: dict[str, Any], objects: list[dict[str, Any]], secrets: dict[str, Any], reason: Reason
) -> None:
    seen, done = await looked_at(manifest, objects, secrets)
    (missing,) = seen.missing
    assert missing.reason is reason
    assert condition(done, "SpecValid")["message"] == missing.message
    assert missing.message.startswith("spec."), "it names the field"
    assert shown(done, "SpecValid") == ("False", reason)
    assert shown(done, "Placed") == ("False", reason)
    assert shown(done, "Stalled") == ("True", reason)
    assert [event.reason for event in done.events] == [reason]
    assert created(done) == creates(done, "ResourceClaimTemplate") == []
    of_a_secret = reason in SECRET_IS_MISSING
    assert done.look_again_seconds == (10 if of_a_secret else 75), "secrets are not watched"


@pytest.mark.parametrize(
    ("manifest", "objects", "secrets"),
    [
        pytest.param(TOKEN, [], {"hf": {"token": b"x"}}, id="the token"),
        pytest.param(CALLERS, [], {"callers": {}}, id="keys of callers, of which there may be none yet"),
        pytest.param(CALLERS, [], {"callers": {"x": b"", "y": b"y"}}, id="a key of one caller"),
        pytest.param(TLS, [], {"tls": {"tls.crt": b"x", "tls.key": b"x"}}, id="the certificate"),
        pytest.param(
            CALLERS,
            [],
            {"callers": {used_by.ANNOTATION: "AgentFleet/a, ModelReplicaSet/llama"}},
            id="keys that are for this set",
        ),
        pytest.param(HELD, [CLAIM], {}, id="the claim that holds the model"),
        pytest.param(CACHED, [CLAIM], {}, id="the claim that caches the model"),
        pytest.param(IN_A_VOLUME, [CLAIM], {}, id="the claim of a volume"),
        pytest.param(SERVING, [priority_class("serving", -5)], {}, id="a class, where nobody is preempted"),
        pytest.param(
            SERVING,
            [{**priority_class("serving", 7), "preemptionPolicy": "Never"}],
            {},
            id="a class that preempts nobody, where nobody has to be",
        ),
        pytest.param(ASKING, [priority_class("serving", -4)], {}, id="a class above the placeholders'"),
        pytest.param(on_devices(), [*DEVICES, device_class()], {}, id="the device class"),
        pytest.param(OFFLOADING_LESS, GPUS, {}, id="less offloaded than there is memory"),
    ],
)
async def test_what_is_there_holds_nothing_back(
    manifest: dict[str, Any], objects: list[dict[str, Any]], secrets: dict[str, Any]
) -> None:
    _, done = await looked_at(manifest, objects, secrets)
    assert shown(done, "SpecValid") == ("True", Reason.VALID)
    assert len(created(done)) == 1


async def test_all_that_is_missing_is_said_in_one_condition() -> None:
    names = {"tokenSecretRef": {"name": "hf"}}
    manifest = model_replica_set(model=names, router={"authSecretRef": {"name": "callers"}})
    _, done = await looked_at(manifest, [], {})
    message = condition(done, "SpecValid")["message"]
    assert "spec.model.tokenSecretRef" in message
    assert "spec.router.authSecretRef" in message


@pytest.mark.holds(
    "security.md",
    "An object that a Secret does not list says `SecretForOthers`, and no pod mounts it; what runs stays",
)
@pytest.mark.parametrize("field", ["authSecretRef", "tls"])
async def test_where_kinds_are_restricted_a_secret_that_names_nobody_is_mounted_nowhere(field: str) -> None:
    """Routers that run stay as they are, and none is made."""
    manifest = {"authSecretRef": CALLERS, "tls": TLS}[field]
    secrets: dict[str, Any] = {"callers": {"x": "x"}, "tls": {"tls.crt": "x", "tls.key": "x"}}
    name = "callers" if field == "authSecretRef" else "tls"
    seen = await observe(manifest, world(manifest, config=RESTRICTED, **secrets), Memory(), NOW)
    done = plan(seen, NOW)
    assert shown(done, "SpecValid") == ("False", Reason.SECRET_FOR_OTHERS)
    line = f"kubectl annotate -n default secret {name} flotilla.dev/used-by='ModelReplicaSet/llama'"
    assert condition(done, "SpecValid")["message"].endswith(line)
    assert created(done) == []
    applied = {(one["kind"], one["metadata"]["name"]) for one in applies(done)}
    assert ("Deployment", "llama-router") not in applied
    assert ("ConfigMap", "llama-router") not in applied
    secrets[name][used_by.ANNOTATION] = "ModelReplicaSet/llama"
    done = plan(await observe(manifest, world(manifest, config=RESTRICTED, **secrets), Memory(), NOW), NOW)
    assert ("Deployment", "llama-router") in {(one["kind"], one["metadata"]["name"]) for one in applies(done)}


def applies(done: Plan) -> list[dict[str, Any]]:
    return [write.manifest for write in done.writes if isinstance(write, Apply)]
