"""The demo as a newcomer sees it: three kinds on a real kubelet with real models, Redis, Milvus and HAProxy.

Covered here: the demo's answers, `kubectl get`, the task API from outside, Redis killed after a 201. The
index has a fifth of the demo's documents, so that it is built in a fifth of the time.
Broken input and the chart's life are tested beside each kind and in test_chart*.py.
"""

import base64
import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest

from demo.environment import FLEET, SYSTEM_NAMESPACE, Environment
from demo.kubectl import Kubectl
from demo.questions import QUESTIONS
from flotilla_cli.tasks import TaskFailedError, ask
from tests.support.fleet_tasks import SHORTEST, UNDER_WAY, answer_of, fleet_token, gateway_of
from tests.support.killed import kill
from tests.support.pages import some_pages
from tests.support.waiting import eventually

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.xdist_group("demo"),
    pytest.mark.timeout(2400, func_only=True),
]
TEN_MEGABYTES = 10_000_000


@pytest.fixture(scope="module")
def gateway(demo: Environment) -> Iterator[httpx2.Client]:
    """A client with a token that may submit tasks."""
    with gateway_of(demo.kubectl, FLEET, demo.token()) as client:
        yield client


@pytest.mark.holds(
    "README.md", "Three kinds applied together give a working product that answers questions with sources"
)
def test_at_least_two_of_three_answers_name_the_right_page(demo: Environment) -> None:
    right = 0
    for one in QUESTIONS:
        with suppress(TaskFailedError):  # an answer without an end is a wrong one
            ((question, answer),) = demo.ask([one])
            assert answer.text.strip()
            right += any(Path(document).name in question.right_pages for document in answer.documents)
    assert right >= 2


@pytest.mark.holds("README.md", "The steps of `make demo` bring up all three kinds until they are ready")
@pytest.mark.holds("README.md", "`kubectl get flotilla` lists all three kinds")
@pytest.mark.holds("README.md", "The operator and the chart work on 1.34, and with the API server of 1.37")
@pytest.mark.holds(
    "local-cluster.md", "The default storage class binds a claim that an ordinary user can write to"
)
def test_one_command_lists_all_three_kinds_as_ready(demo: Environment) -> None:
    items = demo.kubectl.get("flotilla")["items"]
    assert sorted(item["kind"] for item in items) == [
        "AgentFleet",
        "ModelReplicaSet",
        "ModelReplicaSet",
        "VectorIndex",
    ]
    for item in items:
        ready = next(c for c in item["status"]["conditions"] if c["type"] == "Ready")
        assert ready["status"] == "True", item["metadata"]["name"]
        assert item["status"]["observedGeneration"] == item["metadata"]["generation"]


@pytest.mark.holds(
    "capacity.md",
    "Layers, heads and widths come from the model's own `config.json`, read by an init container",
)
def test_what_a_token_of_the_model_takes_is_known_from_the_models_own_config(demo: Environment) -> None:
    status = demo.kubectl.get("modelreplicaset", "smollm2")["status"]
    layers, kv_heads, head_width, bytes_of_bfloat16 = 30, 3, 64, 2
    assert status["capacity"]["kvBytesPerToken"] == 2 * layers * kv_heads * head_width * bytes_of_bfloat16


def test_every_document_is_accounted_for(demo: Environment) -> None:
    status = demo.kubectl.get("vectorindex", "manual")["status"]
    documents = status["documents"]
    accounted = documents["indexed"] + documents.get("duplicates", 0) + documents.get("deadLettered", 0)
    assert documents["discovered"] == accounted == len(some_pages().names) > 20
    assert status["chunks"] > documents["indexed"]


@pytest.mark.holds("install.md", "Every pod runs as user and group 65532 under the restricted standard")
def test_the_namespace_enforces_restricted_and_every_pod_obeys(
    demo: Environment, everywhere: Kubectl
) -> None:
    namespace = everywhere.get("namespace", str(demo.kubectl.namespace))
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    pods = demo.kubectl.get("pods")["items"]
    assert len(pods) >= 8
    for pod in pods:
        for container in pod["spec"]["containers"]:
            assert container["securityContext"]["readOnlyRootFilesystem"] is True, pod["metadata"]["name"]


def test_only_pods_that_call_the_api_server_have_its_token(demo: Environment) -> None:
    with_token = {
        pod["metadata"]["labels"]["app.kubernetes.io/component"]
        for pod in demo.kubectl.get("pods")["items"]
        if any(
            "serviceAccountToken" in source
            for volume in pod["spec"]["volumes"]
            for source in volume.get("projected", {}).get("sources", ())
        )
    }
    assert with_token == {"gateway", "router"}


SEARCHES = """
import json, sys, urllib.error, urllib.request
url, key = sys.argv[1:]
headers = {"Authorization": f"Bearer {key}"} if key else {}
body = json.dumps({"query": "What is a savepoint?"}).encode()
try:
    print(urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=30).status)
except urllib.error.HTTPError as error:
    print(error.code)
"""


def search(demo: Environment, key: str) -> str:
    """The status of a search by a pod that is no worker."""
    pod = pod_of(demo, "gateway")["metadata"]["name"]
    url = demo.kubectl.get("vectorindex", "manual")["status"]["url"]
    program = ("python3", "-c", SEARCHES, url, key)
    return demo.kubectl.run("exec", pod, "--container=gateway", "--", *program).strip()


@pytest.mark.holds(
    "search.md",
    "Whoever sends a key of the Secret may search, everybody else gets 401 with `WWW-Authenticate` "
    "and the code `unauthorized`",
)
@pytest.mark.attack("A pod without a key searches an index")
def test_nobody_searches_without_the_key_of_the_index(demo: Environment) -> None:
    keys = demo.kubectl.get("vectorindex", "manual")["status"]["keys"]
    assert keys["required"] is True
    secret = demo.kubectl.get("secret", keys["secretName"])
    key = base64.b64decode(secret["data"][keys["entry"]]).decode()
    assert search(demo, key) == "200", "whoever can read the Secret may search"
    assert search(demo, "") == "401"
    assert search(demo, "guessed") == "401"


CONNECTS = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), 5).close()
except OSError as problem:
    print(problem)
else:
    print("connected")
"""
GATEWAY, RETRIEVER, WORKER = ("gateway", "gateway"), ("retriever", "retriever"), ("worker", "worker")


def pod_of(demo: Environment, component: str) -> dict[str, Any]:
    pods = demo.kubectl.get("pods", f"--selector=app.kubernetes.io/component={component}")["items"]
    return next(pod for pod in pods if pod["status"]["phase"] == "Running")


def connects(demo: Environment, of: tuple[str, str], component: str, port: int) -> bool:
    """Whether a pod's container can connect to a pod of a component."""
    (sender, container), receiver = of, pod_of(demo, component)
    pod = pod_of(demo, sender)["metadata"]["name"]
    program = ("python3", "-c", CONNECTS, receiver["status"]["podIP"], str(port))
    told = demo.kubectl.run("exec", pod, f"--container={container}", "--", *program)
    return told.strip() == "connected"


@pytest.mark.holds("router.md", "A network that enforces policies keeps others from the engines")
@pytest.mark.holds(
    "security.md",
    "Every pod has a policy; what is open to everybody and to those who scrape is as the page says",
)
@pytest.mark.attack("A pod that was taken over reaches Redis, Milvus Lite or an engine of others")
@pytest.mark.parametrize(
    ("sender", "component", "port", "expected"),
    [
        pytest.param(GATEWAY, "redis", 6379, True, id="a gateway needs Redis"),
        pytest.param(RETRIEVER, "milvus", 19530, True, id="a retriever needs Milvus Lite"),
        pytest.param(WORKER, "router", 8000, True, id="everybody may call a model"),
        pytest.param(RETRIEVER, "gateway", 8080, True, id="everybody may call a fleet"),
        pytest.param(GATEWAY, "retriever", 8080, True, id="everybody may ask, with a key"),
        pytest.param(RETRIEVER, "redis", 6379, False, id="a retriever needs no Redis"),
        pytest.param(GATEWAY, "milvus", 19530, False, id="a gateway needs no Milvus Lite"),
        pytest.param(WORKER, "engine", 8000, False, id="nobody passes by the routers"),
        pytest.param(GATEWAY, "worker", 8080, False, id="workers offer nothing"),
    ],
)
def test_who_can_connect_to_what(
    demo: Environment, sender: tuple[str, str], component: str, port: int, expected: bool
) -> None:
    assert connects(demo, sender, component, port) is expected


@pytest.mark.holds("security.md", "Redis and Milvus Lite may open no connection")
@pytest.mark.attack("Redis or Milvus Lite, taken over, opens connections")
def test_milvus_lite_can_open_no_connection(demo: Environment) -> None:
    assert connects(demo, GATEWAY, "retriever", 8080), "others can"
    assert not connects(demo, ("milvus", "milvus"), "retriever", 8080)


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        pytest.param(b"{not json", 400, "JSON", id="not JSON"),
        pytest.param(b'{"inputs": "?"}', 400, "inputs", id="an unknown field"),
        pytest.param(json.dumps({"input": "x" * TEN_MEGABYTES}).encode(), 413, "", id="ten megabytes"),
    ],
)
def test_a_bad_task_is_refused_with_a_problem(
    gateway: httpx2.Client, body: bytes, status: int, words: str
) -> None:
    response = gateway.post("/v1/tasks", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == status
    assert response.headers["content-type"].startswith("application/problem+json")
    assert words in response.text


@pytest.mark.parametrize(
    ("token", "status"),
    [
        pytest.param("", 401, id="no token"),
        pytest.param("Bearer nonsense", 401, id="a token nobody issued"),
    ],
)
def test_wrong_credentials_are_refused(gateway: httpx2.Client, token: str, status: int) -> None:
    response = gateway.post("/v1/tasks", json={"input": "?"}, headers={"Authorization": token})
    assert response.status_code == status


def test_a_caller_without_rights_is_told_so(demo: Environment, gateway: httpx2.Client) -> None:
    token = fleet_token(demo.kubectl, FLEET, "default")
    response = gateway.post("/v1/tasks", json={"input": "?"}, headers={"Authorization": f"Bearer {token}"})
    assert response.status_code == 403
    assert "agentfleets/tasks" in response.text


@pytest.mark.holds("tasks.md", "A task is answered with 201 once it is on disk")
def test_a_task_outlives_redis_killed_right_after_its_201(demo: Environment, gateway: httpx2.Client) -> None:
    submitted = gateway.post("/v1/tasks", json={"input": SHORTEST})
    assert submitted.status_code == 201
    kill(demo.kubectl.get("pod", f"{FLEET}-redis-0"), b"redis-server")

    def succeeded() -> bool:
        response = gateway.get(f"/v1/tasks/{submitted.json()['id']}")
        assert response.status_code in {200, 503}, response.text
        if response.status_code == 503:
            return False
        task = response.json()
        assert task["status"] in UNDER_WAY or answer_of(task), response.text
        return bool(answer_of(task))

    eventually(succeeded, 240)


@pytest.mark.holds("tasks.md", "`flotilla ask` waits for the answer and shows its sources")
def test_the_same_question_can_be_asked_from_the_command_line(gateway: httpx2.Client) -> None:
    answer = ask(gateway, "How do I roll back to a savepoint in a transaction?")
    assert answer.documents


@pytest.mark.holds("performance.md", "The idle operator takes less than 150 MiB")
def test_the_idle_operator_takes_less_than_150_mib(everywhere: Kubectl) -> None:
    lines = everywhere.run(
        *("get", "--raw", f"/api/v1/nodes/{_real_node(everywhere)}/proxy/metrics/resource")
    ).splitlines()
    used = [
        float(line.split()[1])
        for line in lines
        if line.startswith("container_memory_working_set_bytes")
        and f'namespace="{SYSTEM_NAMESPACE}"' in line
        and 'container="operator"' in line
    ]
    assert len(used) == 2
    assert max(used) < 150 * 2**20


def _real_node(kubectl: Kubectl) -> str:
    nodes = kubectl.get("nodes")["items"]
    return next(
        str(node["metadata"]["name"])
        for node in nodes
        if "kwok.x-k8s.io/node" not in node["metadata"].get("annotations", {})
    )
