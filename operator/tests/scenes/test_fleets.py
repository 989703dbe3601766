"""A fleet of agents: it waits for its model and its index, and is ready with them."""

from functools import partial

import pytest

from flotilla_operator.objects.resources import (
    AGENT_FLEETS,
    DEPLOYMENTS,
    MODEL_REPLICA_SETS,
    PERSISTENT_VOLUME_CLAIMS,
    PODS,
    SECRETS,
    VECTOR_INDEXES,
    Manifest,
)
from flotilla_runtime import contract
from leaks.planted import in_secret
from tests.builders.api_objects import changed, smallest
from tests.scenes.scene import Scene
from tests.scenes.words import NAMESPACE

pytestmark = pytest.mark.scenes


async def test_a_fleet_waits_for_its_model_and_is_ready_with_it(scene: Scene) -> None:
    scene.node("a")
    scene.cluster.create(AGENT_FLEETS, smallest("AgentFleet", name="support"))
    says = partial(scene.says, name="support", resource=AGENT_FLEETS)
    await scene.until(lambda: says("ModelsReady", "False"))
    await scene.until(lambda: says("QueueReady", "True"))
    assert not says("Ready", "True")

    scene.create("m")
    await scene.until(lambda: says("Ready", "True"))
    scene.cluster.delete(MODEL_REPLICA_SETS, scene.get("m"))
    await scene.until(lambda: says("ModelsReady", "False"))


def is_retriever(pod: Manifest) -> bool:
    return bool(pod["metadata"]["labels"].get(contract.LABEL_COMPONENT) == "retriever")


@pytest.mark.holds(
    "argocd.md", "A fleet is not Ready before its index, and stays Ready while the index is built anew"
)
async def test_a_fleet_is_not_ready_before_its_index_and_stays_so_while_that_is_built_anew(
    scene: Scene,
) -> None:
    scene.node("a")
    scene.node("b")
    scene.create("m")
    scene.kubelets.never_ready = is_retriever
    indexes = [{"name": "h", "indexRef": {"name": "handbook"}}]
    scene.cluster.create(AGENT_FLEETS, changed(smallest("AgentFleet", name="support"), spec__indexes=indexes))
    fleet = partial(scene.says, name="support", resource=AGENT_FLEETS)
    index = partial(scene.says, name="handbook", resource=VECTOR_INDEXES)
    await scene.until(lambda: fleet("IndexesReady", "False", "IndexMissing"))
    been_ready = False

    def in_order() -> bool:
        """The fleet is Ready only once its index has been."""
        nonlocal been_ready
        found = scene.api.get(VECTOR_INDEXES, NAMESPACE, "handbook")
        been_ready = been_ready or (found is not None and bool(index("Ready", "True")))
        return been_ready or not fleet("Ready", "True")

    with scene.throughout(in_order):
        documents = {"metadata": {"name": "documents", "namespace": NAMESPACE}, "spec": {}}
        scene.cluster.create(PERSISTENT_VOLUME_CLAIMS, documents)
        model = {"name": "all-minilm", "source": "hf://minilm", "task": "Embed"}
        scene.create("minilm", replicas=1, model=model)
        scene.cluster.create(VECTOR_INDEXES, smallest("VectorIndex", name="handbook"))
        await scene.until(lambda: fleet("IndexesReady", "False", "IndexBuilding"))
        await scene.until(lambda: fleet("IndexesReady", "False", "IndexStarting"))
        assert index("Built", "True"), "it is built, and nobody answers yet"
        assert not index("Ready", "True")
        (pod,) = filter(is_retriever, scene.api.listed(PODS))
        scene.cluster.report(PODS, pod, conditions=scene.cluster.condition(pod, "Ready", "True"))
        await scene.until(lambda: fleet("Ready", "True"))
    scene.kubelets.never_ready = lambda _pod: False

    def ready() -> bool:
        """The fleet stays Ready."""
        return bool(fleet("Ready", "True"))

    with scene.throughout(ready):
        built = scene.the(VECTOR_INDEXES, "handbook")
        scene.cluster.merge(VECTOR_INDEXES, built, {"spec": {"source": {"revision": "2"}}})
        await scene.until(lambda: index("Built", "False", "Building"))
        await scene.until(lambda: index("Ready", "False"))
        await scene.until(lambda: index("Ready", "True"))
        await scene.pass_time(60)


@pytest.mark.holds("tools.md", "Workers report what they cannot use, and take it back")
async def test_a_fleet_says_that_an_mcp_server_is_silent_until_workers_take_it_back(scene: Scene) -> None:
    scene.node("a")
    scene.create("m")
    tools = [{"name": "git", "mcp": {"url": "http://git.example/mcp"}}]
    scene.cluster.create(AGENT_FLEETS, changed(smallest("AgentFleet", name="support"), spec__tools=tools))
    says = partial(scene.says, name="support", resource=AGENT_FLEETS)
    await scene.until(lambda: says("Ready", "True"))
    silent = contract.ToolReport(tool="git", trouble=contract.ToolTrouble.NO_ANSWER, message="it is silent")
    scene.gateways.of("support").tools = (silent,)
    await scene.until(lambda: says("ToolsReady", "False", "ToolUnreachable"))
    assert says("Ready", "False")
    scene.gateways.of("support").tools = ()
    await scene.until(lambda: says("ToolsReady", "True"))
    await scene.until(lambda: says("Ready", "True"))


async def test_where_kinds_are_restricted_a_gateway_waits_until_its_certificate_is_for_its_fleet() -> None:
    """The line of the message is run; a change of the annotation is noticed without another event."""
    async with Scene(restrict={"enabled": True}).playing() as scene:
        scene.node("a")
        pair = {"tls.crt": "", "tls.key": ""}
        metadata = {"name": "tls", "namespace": NAMESPACE}
        scene.cluster.create(SECRETS, {"metadata": metadata, "data": pair})
        tls = {"tls": {"secretRef": {"name": "tls"}}}
        fleet = changed(smallest("AgentFleet", name="support"), spec__gateway=tls)
        scene.cluster.create(AGENT_FLEETS, fleet)
        says = partial(scene.says, name="support", resource=AGENT_FLEETS)
        await scene.until(lambda: says("GatewayReady", "False", "SecretForOthers"))
        assert scene.api.get(DEPLOYMENTS, NAMESPACE, "support-gateway") is None
        note = {"metadata": {"annotations": {"flotilla.dev/used-by": "AgentFleet/support"}}}
        scene.cluster.merge(SECRETS, scene.the(SECRETS, "tls"), note)
        await scene.until(lambda: says("GatewayReady", "True"))


async def test_a_fleet_runs_on_while_the_key_of_its_traces_is_missing_or_for_elsewhere(scene: Scene) -> None:
    scene.node("a")
    scene.create("m")
    telemetry = {"otlpEndpoint": "https://traces.example", "headersSecretRef": {"name": "traces"}}
    fleet = changed(
        smallest("AgentFleet", name="support"), spec__telemetry=telemetry, spec__workers__minReplicas=1
    )
    scene.cluster.create(AGENT_FLEETS, fleet)
    says = partial(scene.says, name="support", resource=AGENT_FLEETS)
    await scene.until(lambda: says("WorkersReady", "False", "SecretMissing"))
    await scene.until(lambda: bool(workers(scene)))

    def put(send_to: str) -> None:
        annotations = {"flotilla.dev/send-to": send_to}
        metadata = {"name": "traces", "namespace": NAMESPACE, "annotations": annotations}
        scene.api.put(SECRETS, {"metadata": metadata, "data": {"Authorization": in_secret("token")}})

    put("traces.example")
    await scene.until(lambda: says("Ready", "True"))
    assert all(map(sends_traces, workers(scene)))
    put("other.example")
    await scene.until(lambda: says("WorkersReady", "False", "SecretForElsewhere"))
    await scene.until(lambda: not any(map(sends_traces, workers(scene))))
    assert says("GatewayReady", "True"), "tasks go on, without traces"


def workers(scene: Scene) -> list[Manifest]:
    return [pod for pod in scene.api.listed(PODS) if pod["metadata"]["name"].startswith("support-worker")]


def sends_traces(pod: Manifest) -> bool:
    return "flotilla-telemetry" in {volume["name"] for volume in pod["spec"]["volumes"]}
