"""Containers that get the chart's proxies, for which addresses, and what the clients in them make of it."""

import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import certifi
import httpx2
import pytest
from pymilvus import MilvusClient, MilvusException

from flotilla_operator.replicas.group import GroupIdentity
from flotilla_operator.workloads.agent_fleet import Wiring
from flotilla_operator.workloads.agent_fleet.pods import gateway_manifests, worker_manifests
from flotilla_operator.workloads.engine_pod import engine_pod
from flotilla_operator.workloads.proxies import Proxies, is_in_cluster, unless_set
from flotilla_operator.workloads.vector_index.build import build_job
from flotilla_operator.workloads.vector_index.identity import EmbedderModel
from flotilla_operator.workloads.vector_index.retriever import retriever_objects
from flotilla_operator.workloads.vector_index.steps import WantedBuild
from flotilla_runtime.agent.worker.calls import http_client
from flotilla_runtime.contract import BuildStep, ModelConnection, QueueConfig, TaskLimits, WorkerConfig
from flotilla_runtime.direct import DIRECT
from flotilla_runtime.gateway.reviews import api_server_client
from tests.builders import agent_fleet
from tests.builders.model_replica_set import IMAGES, OWNER, spec_of
from tests.builders.vector_index import index_spec

OUTSIDE = "https://huggingface.co"
PROXIES = Proxies(http="http://proxy:3128", https="http://proxy:3129", exempt=("corp.example",))
ALWAYS = "localhost,127.0.0.1,::1,.svc,.cluster.local,$(KUBERNETES_SERVICE_HOST)"
NAMES = {"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"}


@pytest.mark.holds("install.md", "What is in the cluster by its form")
@pytest.mark.parametrize(
    ("address", "inside"),
    [
        ("http://milvus:19530", True),
        ("http://milvus.db:19530", True),
        ("https://hub.example", False),
        ("https://huggingface.co", False),
        ("http://milvus.db.svc:19530", True),
        ("https://milvus.db.svc.cluster.local.", True),
        ("http://10.96.0.10:8000/v1", True),
        ("http://100.64.3.4:8000/v1", True),
        ("http://[fd00::7]:19530", True),
        ("http://169.254.169.254", True),
        ("http://localhost:1", True),
        ("http://8.8.8.8:80", False),
        ("https://api.svc.example.com/v1", False),
        ("http://models.example.com/v1", False),
        ("https://notsvc", True),
    ],
)
def test_what_is_in_the_cluster_by_its_form(address: str, inside: bool) -> None:
    assert is_in_cluster(address) is inside
    assert (PROXIES.variables(address) == []) is inside
    assert (PROXIES.of(address) is None) is inside


def test_the_variables_exempt_the_cluster_first() -> None:
    found = {each["name"]: each["value"] for each in PROXIES.variables(OUTSIDE, "http://10.0.0.9:19530")}
    assert found.keys() == NAMES
    assert found["http_proxy"] == found["HTTP_PROXY"] == "http://proxy:3128"
    assert found["https_proxy"] == "http://proxy:3129"
    assert found["no_proxy"] == f"{ALWAYS},10.0.0.9,corp.example"


def test_one_proxy_is_enough_and_without_one_there_are_no_variables() -> None:
    only = Proxies(https="http://proxy:3129", exempt=("a",)).variables(OUTSIDE)
    assert {each["name"] for each in only} == NAMES - {"HTTP_PROXY", "http_proxy"}
    assert Proxies(exempt=("a",)).variables(OUTSIDE) == []


def test_a_host_that_is_none_exempts_nothing_else() -> None:
    (value,) = {each["value"] for each in PROXIES.variables(OUTSIDE, "http://a,*,b")[-2:]}
    assert value == f"{ALWAYS},corp.example"


def test_the_kubelet_replaces_nothing_in_a_password() -> None:
    proxies = Proxies(https="http://u:a$(HOME)b@proxy:3128")
    assert proxies.variables(OUTSIDE)[0]["value"] == "http://u:a$$(HOME)b@proxy:3128"


@pytest.mark.parametrize(
    ("exempt", "direct"),
    [
        ("huggingface.co", True),
        (".huggingface.co", True),
        ("co", True),
        ("*", True),
        ("huggingface.co:443", True),
        ("face.co", False),
        ("10.0.0.0/8", False),
    ],
)
def test_what_the_values_exempt(exempt: str, direct: bool) -> None:
    assert (replace(PROXIES, exempt=(exempt,)).of(OUTSIDE) is None) is direct


def test_a_network_can_be_exempt() -> None:
    assert replace(PROXIES, exempt=("8.8.0.0/16",)).of("http://8.8.4.4") is None
    assert PROXIES.of("http://8.8.4.4") == PROXIES.http
    assert PROXIES.of(OUTSIDE) == PROXIES.https


@pytest.mark.holds("install.md", "A user's own proxy wins for the fetcher")
@pytest.mark.parametrize(
    ("theirs", "left"),
    [
        ({"HF_HOME"}, NAMES),
        ({"HTTPS_PROXY"}, NAMES - {"HTTPS_PROXY", "https_proxy"}),
        ({"no_proxy"}, NAMES - {"NO_PROXY", "no_proxy"}),
        ({"ALL_PROXY"}, {"NO_PROXY", "no_proxy"}),
    ],
)
def test_what_a_user_sets_wins_however_it_is_spelt(theirs: set[str], left: set[str]) -> None:
    assert {each["name"] for each in unless_set(PROXIES.variables(OUTSIDE), theirs)} == left


def environments(**spec: Any) -> dict[str, dict[str, Any]]:
    """The proxy variables of each container of an engine pod."""
    identity = GroupIdentity(name="llama-abcde", server_id=1, revision="r")
    pod = engine_pod(OWNER, spec_of(**spec), identity, replace(IMAGES, proxies=PROXIES))["spec"]
    return {
        container["name"]: {
            each["name"]: each["value"] for each in container.get("env", ()) if each["name"] in NAMES
        }
        for container in (*pod["initContainers"], *pod["containers"])
    }


@pytest.mark.holds(
    "install.md",
    "Only containers that connect to the outside get the chart's proxies, and never for the cluster",
)
def test_of_an_engine_pod_only_what_asks_the_hub_gets_proxies() -> None:
    found = environments()
    assert found.pop("engine") == {}
    assert len(found) == 2
    assert all(each.keys() == NAMES for each in found.values())


@pytest.mark.holds("install.md", "A user's own proxy wins for the fetcher")
@pytest.mark.parametrize("mode", ["None", "Node"])
def test_a_users_proxy_for_the_fetcher_stays_the_only_one(mode: str) -> None:
    env = [{"name": "HTTPS_PROXY", "value": "http://theirs:1"}]
    found = environments(engine={"env": env}, modelCache={"mode": mode})
    fetcher = found["fetch-model"]
    assert fetcher.keys() == NAMES - {"https_proxy"}
    assert fetcher["HTTPS_PROXY"] == "http://theirs:1"
    assert found.get("make-model-folder", {}) == {}


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param({"model": {"source": "pvc://weights/llama"}}, id="on a claim"),
        pytest.param(
            {"engine": {"env": [{"name": "HF_ENDPOINT", "value": "http://hub.team.svc"}]}},
            id="from a hub in the cluster",
        ),
    ],
)
def test_a_model_that_is_near_needs_no_proxy(spec: dict[str, Any]) -> None:
    assert not any(environments(**spec).values())


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, list[str]]]:
    """A proxy that answers by itself, and the addresses that it was asked for."""
    asked: list[str] = []

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def do_CONNECT(self) -> None:
            asked.append(self.path)
            self.send_error(503)

        def log_message(self, *_: Any) -> None:
            """Nothing: the test reads what was asked."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        address = f"http://127.0.0.1:{server.server_address[1]}"
        for variable in Proxies(http=address, https=address).variables("http://models.example.com"):
            value = variable["value"].replace("$(KUBERNETES_SERVICE_HOST)", "127.0.0.9")
            monkeypatch.setenv(variable["name"], value)
        yield address, asked
        server.shutdown()


async def reached(client: httpx2.AsyncClient, url: str) -> None:
    """Ask; nothing listens at an address of the cluster here."""
    with suppress(httpx2.TransportError):
        await client.get(url)


@pytest.mark.holds(
    "install.md",
    "Only containers that connect to the outside get the chart's proxies, and never for the cluster",
)
async def test_workers_use_the_proxy_for_endpoints_and_never_for_the_cluster(
    proxy: tuple[str, list[str]],
) -> None:
    limits = TaskLimits(max_steps=1, max_tokens=1, max_wall_seconds=60)
    queue = QueueConfig(fleet="team/a", max_waiting=1, result_ttl_seconds=1, lease_seconds=60, max_attempts=1)
    config = WorkerConfig(queue=queue, prompt="", models=(), indexes=(), limits=limits, concurrency=1)
    async with http_client(config) as client:
        for host in ("llama-model.team.svc:8000", "x.team.svc.cluster.local", "127.0.0.9:1", "localhost:1"):
            await reached(client, f"http://{host}/v1")
        await reached(client, "http://models.example.com/v1")
    assert proxy[1] == ["http://models.example.com/v1"]


@pytest.mark.holds(
    "install.md",
    "What is asked in the cluster alone is asked without a proxy, whatever the environment names",
)
async def test_clients_of_the_cluster_use_no_proxy_whatever_the_environment_says(
    proxy: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("ALL_PROXY", proxy[0])
    api_server = {"KUBERNETES_SERVICE_HOST": "cluster.invalid"}
    for client in (httpx2.AsyncClient(mounts=DIRECT), api_server_client(api_server, certifi.where())):
        async with client:
            await reached(client, "http://cluster.invalid:1/v1")
            await reached(client, "https://cluster.invalid:1/v1")
    assert proxy[1] == []
    async with httpx2.AsyncClient() as client:
        await reached(client, "http://cluster.invalid:1/v1")
    assert len(proxy[1]) == 1


@pytest.mark.holds(
    "install.md",
    "Only containers that connect to the outside get the chart's proxies, and never for the cluster",
)
async def test_builds_and_retrievers_reach_a_milvus_outside_by_the_proxy(
    proxy: tuple[str, list[str]],
) -> None:
    for uri in ("http://handbook-milvus.team.svc:19530", "https://milvus.example.com"):
        with suppress(MilvusException):
            MilvusClient(uri=uri, timeout=60)
    assert set(proxy[1]) == {"milvus.example.com:443"}


THROUGH = replace(IMAGES, proxies=PROXIES)
ZILLIZ = {"mode": "External", "uri": "https://in01.example.com:443"}
NEAR = {"mode": "External", "uri": "http://milvus.db.svc:19530"}


def proxied(pod: dict[str, Any]) -> bool:
    (container,) = pod["spec"]["containers"]
    return {each["name"] for each in container.get("env", ())} >= NAMES


@pytest.mark.holds(
    "install.md",
    "Only containers that connect to the outside get the chart's proxies, and never for the cluster",
)
@pytest.mark.parametrize(
    ("milvus", "source", "steps", "retriever"),
    [
        pytest.param({}, "pvc://models/minilm", set(), False, id="all in the cluster"),
        pytest.param({}, "hf://minilm", {"plan"}, False, id="a tokenizer of the hub"),
        pytest.param(NEAR, "hf://minilm", {"plan"}, False, id="a Milvus of the cluster"),
        pytest.param(ZILLIZ, "pvc://models/minilm", {"plan", "shards", "promote"}, True, id="outside"),
    ],
)
def test_the_steps_of_a_build_and_the_retriever_get_proxies_for_what_is_outside(
    milvus: dict[str, Any], source: str, steps: set[str], retriever: bool
) -> None:
    model = {"name": "all-minilm", "source": source, "task": "Embed"}
    embedder = EmbedderModel(name="minilm", url="http://minilm-model:8000/v1", spec=spec_of(model=model))
    build = WantedBuild(generation="g-1", id="abc", promotion="def", shared_workspace=False)
    spec = index_spec(milvus=milvus)
    jobs = {
        str(step): build_job(OWNER, spec, THROUGH, embedder, build, step)["spec"]["template"]
        for step in BuildStep
    }
    assert {step for step, pod in jobs.items() if proxied(pod)} == steps
    made = retriever_objects(OWNER, spec, THROUGH, embedder, {}, keyless=False)
    (pod,) = (one["spec"]["template"] for one in made if one["kind"] == "Deployment")
    assert proxied(pod) is retriever


@pytest.mark.holds(
    "install.md",
    "Only containers that connect to the outside get the chart's proxies, and never for the cluster",
)
@pytest.mark.parametrize(
    ("url", "through"),
    [("http://llama-model.default.svc:8000/v1", False), ("https://api.example.com/v1", True)],
)
def test_workers_get_proxies_for_endpoints_outside_and_gateways_never(url: str, through: bool) -> None:
    model = ModelConnection(role="Default", name="llama", url=url, model="llama")
    wiring = Wiring(models=(model,))
    spec = agent_fleet.spec_of()
    made = [
        *worker_manifests(agent_fleet.OWNER, spec, wiring, THROUGH, replicas=1),
        *gateway_manifests(agent_fleet.OWNER, spec, wiring, THROUGH, "r"),
    ]
    pods = {
        one["metadata"]["labels"]["app.kubernetes.io/component"]: proxied(one["spec"]["template"])
        for one in made
        if one["kind"] == "Deployment"
    }
    assert pods == {"worker": through, "gateway": False}
