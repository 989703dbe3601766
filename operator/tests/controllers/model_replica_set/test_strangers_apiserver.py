"""Attacks on the operator of a set, on a real API server: false routers, folders of the node.

KWOK says that the pods run. A test gives them addresses at which servers of its own answer.
"""

import gzip
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest

from flotilla_operator.telemetry.answers import BODY_LIMIT_BYTES
from flotilla_operator.telemetry.scrape import TARGETS_OF_AN_OWNER
from flotilla_runtime import contract
from leaks.planted import planted
from tests.controllers.model_replica_set.stage import Stage
from tests.support.hostile import Hostile, answering, listening
from tests.support.processes import OperatorProcess
from tests.support.waiting import eventually

pytestmark = [pytest.mark.apiserver, pytest.mark.timeout(600)]

ASKED_OFTEN = {"minReplicas": 0, "maxReplicas": 2, "scaleToZeroAfterSeconds": 60}
LARGEST_MIB = 300
SMALL_BOMB = gzip.compress(bytes(10**8))
SMALL = {"requests": {"cpu": "1m"}}
SECURITY = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


class Impostors:
    """Pods with the labels of a set's routers, made by somebody who may make pods in its namespace."""

    def __init__(self, stage: Stage, node: str) -> None:
        self.stage = stage
        self.node = node
        self.pods = f"/api/v1/namespaces/{stage.namespace}/pods"
        selector = "labelSelector=flotilla.dev/owner=llama,app.kubernetes.io/component=router"
        router = eventually(lambda: stage.client.get(f"{self.pods}?{selector}")["items"])[0]
        self.labels = {
            key: value for key, value in router["metadata"]["labels"].items() if key != "pod-template-hash"
        }

    def make(self, addresses: Sequence[str]) -> None:
        """One at each address."""
        names = [f"impostor-{number}" for number in range(len(addresses))]
        for name in names:
            self._create(name)
        for name, address in zip(names, addresses, strict=True):
            path = f"{self.pods}/{name}"
            eventually(partial(self._address, path))
            status = {"podIP": address, "podIPs": [{"ip": address}]}
            self.stage.client.merge(f"{path}/status", {"status": status})

    def _address(self, path: str) -> str | None:
        found: str | None = self.stage.client.get(path)["status"].get("podIP")
        return found

    def _create(self, name: str) -> None:
        container = {"name": "c", "image": "none", "resources": SMALL, "securityContext": SECURITY}
        spec = {
            "nodeName": self.node,
            "containers": [container],
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 1,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
        }
        metadata = {"name": name, "labels": self.labels}
        self.stage.client.create(
            self.pods, {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
        )


@pytest.fixture
def impostors(stage: Stage) -> Impostors:
    node = stage.node("a")
    stage.create(autoscaling=ASKED_OFTEN)
    return Impostors(stage, node)


@contextmanager
def false_router(impostors: Impostors, answer: bytes, *, endless: bool = False) -> Iterator[Hostile]:
    """One that the operator has asked some times."""
    hostile = Hostile(port=contract.PORT_ROUTER_AGENT, answer=answer, endless=endless)
    (address,) = own_addresses(1)
    with listening(hostile, [address]):
        impostors.make([address])
        eventually(lambda: hostile.asked[address] > 3)
        yield hostile


def own_addresses(count: int) -> list[str]:
    """Loopback addresses that no other test has."""
    network = f"127.{1 + secrets.randbelow(250)}.{1 + secrets.randbelow(250)}"
    return [f"{network}.{number}" for number in range(1, count + 1)]


def assert_it_still_works(stage: Stage) -> None:
    """A set that is made now is placed."""
    stage.create("after", replicas=1)
    stage.wait("Placed", "True", name="after")


@pytest.mark.holds("security.md", "The operator follows no redirect of a pod")
@pytest.mark.attack("A pod with a router's labels answers the operator with a redirect")
def test_a_false_router_leads_the_operator_nowhere(impostors: Impostors) -> None:
    with listening(Hostile(port=0, answer=answering("200 OK", b"{}")), own_addresses(1)) as aim:
        elsewhere = f"http://{aim.address}:{aim.port}/v1/secret"
        with false_router(impostors, answering("307 Elsewhere", Location=elsewhere)) as router:
            assert aim.asked == {}
            assert router.paths.keys() == {"/v1/status"}


@pytest.mark.attack("It answers without end, compressed, or with JSON that is nested a million times")
@pytest.mark.parametrize(
    ("answer", "endless"),
    [
        pytest.param(answering("200 OK", b'{"waiting": "'), True, id="without end"),
        pytest.param(answering("200 OK", b"[" * 1_000_000), False, id="nested"),
        pytest.param(
            answering("200 OK", gzip.compress(bytes(10**8)), **{"Content-Encoding": "gzip"}),
            False,
            id="compressed",
        ),
    ],
)
def test_no_answer_of_a_false_router_ends_the_questions(
    answer: bytes, endless: bool, impostors: Impostors, operator: OperatorProcess
) -> None:
    with false_router(impostors, answer, endless=endless) as router:
        assert router.longest_read < 16 * BODY_LIMIT_BYTES, "most of it fills buffers"
        assert operator.running
        assert operator.memory_mib(peak=True) < LARGEST_MIB
        assert_it_still_works(impostors.stage)
        before = router.asked.total()
        eventually(lambda: router.asked.total() > before)


@pytest.mark.attack("Thousands of pods have a router's labels")
def test_of_many_false_routers_some_are_asked(impostors: Impostors) -> None:
    addresses = own_addresses(TARGETS_OF_AN_OWNER + 50)
    hostile = Hostile(port=contract.PORT_ROUTER_AGENT, answer=answering("200 OK", b"{}"))
    with listening(hostile, addresses):
        impostors.make(addresses)
        eventually(lambda: max(hostile.asked.values(), default=0) > 3)
        assert len(hostile.asked) <= TARGETS_OF_AN_OWNER
        impostors.stage.node("b")
        assert_it_still_works(impostors.stage)


@pytest.mark.attack("A user names `/etc`, or another folder of the node")
def test_no_pod_gets_a_folder_of_the_node_that_is_not_listed(stage: Stage) -> None:
    stage.node("a")
    paths = ["/etc", "/", "/srv", "/srv/models/..", "/srv/models/../../etc", "//etc", "/srv/models/team"]
    for number, path in enumerate(paths):
        stage.create(f"s{number}", replicas=1, modelCache={"mode": "Node", "path": path})
    for number in range(len(paths)):
        stage.wait("SpecValid", "False", "NodePathNotListed", name=f"s{number}")
    everywhere = f"/api/v1/namespaces/{stage.namespace}/pods"
    assert [pod for pod in stage.client.get(everywhere)["items"] if folders(pod)] == []


@pytest.mark.holds(
    "security.md", "An object that would send it elsewhere says `SecretForElsewhere`, and what runs stays"
)
@pytest.mark.attack("A user of the kinds sends a token of somebody else to an address of their own")
def test_a_token_goes_to_no_hub_that_its_secret_does_not_name(stage: Stage) -> None:
    stage.node("a")
    metadata = {"name": "hf", "annotations": {"flotilla.dev/send-to": "huggingface.co"}}
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": metadata,
        "stringData": {"token": planted("x")},
    }
    stage.client.create(f"/api/v1/namespaces/{stage.namespace}/secrets", secret)
    model = {"name": "llama", "source": "hf://meta/llama", "tokenSecretRef": {"name": "hf"}}
    evil = {"env": [{"name": "HF_ENDPOINT", "value": "https://hub.evil.example"}]}
    stage.create("evil", replicas=1, model=model, engine=evil)
    stage.create("good", replicas=1, model=model)
    message = stage.wait("SpecValid", "False", "SecretForElsewhere", name="evil")
    assert "does not list hub.evil.example:443" in message
    stage.wait("Placed", "True", name="good")
    assert stage.pods("evil") == []


USERS = ("PYTHONPATH", "LD_PRELOAD", "HF_HOME")
MAKER, FETCHER = "make-model-folder", "fetch-model"


@pytest.mark.attack(
    "A user's variables run code as root (`PYTHONPATH`, `LD_PRELOAD`)",
    "A user's variables make the fetcher write elsewhere (`HF_HOME`)",
    "A set's hub gives other sets of the namespace false models",
)
def test_the_variables_and_the_hub_of_a_set_reach_its_own_part_of_the_folder(stage: Stage) -> None:
    stage.node("a")
    admits = {"pod-security.kubernetes.io/enforce": "privileged"}
    stage.client.merge(f"/api/v1/namespaces/{stage.namespace}", {"metadata": {"labels": admits}})
    variables = [{"name": name, "value": "/models/evil"} for name in USERS]
    for name in ("one", "other"):
        hub = {"name": "HF_ENDPOINT", "value": f"https://{name}.example"}
        cache = {"mode": "Node", "path": "/srv/models"}
        stage.create(
            name, replicas=1, parallelism={"tensor": 1}, modelCache=cache, engine={"env": [*variables, hub]}
        )
    (one,), (other,) = (eventually(partial(stage.pods, name)) for name in ("one", "other"))
    for pod in (one, other):
        assert set(USERS) <= names_of_variables(pod, "engine"), "they are the engine's"
        assert names_of_variables(pod, MAKER) == set()
        assert not set(USERS) & names_of_variables(pod, FETCHER)
        for name, container in containers(pod).items():
            assert name == MAKER or container["securityContext"].get("runAsUser") != 0
    assert parts(one).isdisjoint(parts(other))


def containers(pod: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in (*pod["spec"]["initContainers"], *pod["spec"]["containers"])}


def names_of_variables(pod: dict[str, Any], container: str) -> set[str]:
    return {one["name"] for one in containers(pod)[container].get("env") or ()}


def parts(pod: dict[str, Any]) -> set[str]:
    """The parts of the folder that the containers mount, all but the one that makes them."""
    return {
        mount["subPath"]
        for name, container in containers(pod).items()
        for mount in container["volumeMounts"]
        if mount["name"] == "models" and name != MAKER
    }


def folders(pod: dict[str, Any]) -> list[str]:
    """The folders of its node that a pod mounts."""
    return [volume["hostPath"]["path"] for volume in pod["spec"].get("volumes") or [] if "hostPath" in volume]
