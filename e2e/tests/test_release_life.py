"""A release's life where pods are real: an upgrade, a namespace that goes with all it holds, an uninstall.

The tests are in this order because each takes something away. They run alone, after everything that needs the
demo.
"""

from dataclasses import replace

import httpx2
import pytest

from demo.environment import FLEET, SYSTEM_NAMESPACE, Environment
from demo.kubectl import Kubectl
from local_cluster import images
from local_cluster.api_client import Manifest
from tests.support.applied import Site
from tests.support.fleet_tasks import SHORTEST, found, gateway_of, submitted, succeeded
from tests.support.waiting import eventually

pytestmark = [pytest.mark.cluster, pytest.mark.ends_release, pytest.mark.timeout(2400, func_only=True)]

WAIT_SECONDS = 240.0
FREED_SECONDS = 60.0  # for an object without a finalizer
LEASE = "flotilla-operator"
TASKS = 4  # a worker takes eight
RENEWED = (f"{FLEET}-gateway", f"{FLEET}-worker")


def running(site: Site) -> dict[str, str]:
    """Names and UIDs of the pods that are to run for ever."""
    return {
        pod["metadata"]["name"]: pod["metadata"]["uid"]
        for pod in site.objects.list("Pod")
        if pod["status"]["phase"] == "Running" and "deletionTimestamp" not in pod["metadata"]
    }


def of(pods: dict[str, str], *parts: str) -> dict[str, str]:
    """Those whose name begins with one of these."""
    return {name: uid for name, uid in pods.items() if name.startswith(parts)}


@pytest.mark.holds("install.md", "An upgrade of the chart keeps every object and every running pod")
@pytest.mark.holds("install.md", "`flotilla.dev/refresh` gives objects pods with the new images")
@pytest.mark.holds("recovery.md", "Fleets go on while the operator or the API server is away")
@pytest.mark.holds("decisions/0008-upgrades.md", "An upgrade of the operator restarts nothing")
@pytest.mark.holds("decisions/0008-upgrades.md", "`flotilla.dev/refresh` rolls a fleet")
def test_an_upgrade_keeps_every_pod_until_somebody_asks_for_the_new_images(
    demo: Environment,
) -> None:
    site, system = Site(demo.kubectl), Site(replace(demo.kubectl, namespace=SYSTEM_NAMESPACE))
    eventually(
        lambda: len(of(running(site), f"{FLEET}-worker")) == 1, what="one worker, after a quiet minute"
    )
    before = running(site)
    old_operators = {pod["metadata"]["name"] for pod in operators(system)}
    with gateway_of(demo.kubectl, FLEET, demo.token()) as client:
        tasks = begun(client)
        demo.install_chart(images.retag(demo.build_images(), "next"))
        eventually(lambda: leads(system) and leads(system) not in old_operators)
        demo.wait_until_ready()
        assert running(site) == before
        tasks += begun(client)
    site.patch("AgentFleet", FLEET, {"metadata": {"annotations": {"flotilla.dev/refresh": "now"}}})

    def renewed() -> bool:
        pods = of(running(site), *RENEWED)
        return len(pods) == len(of(before, *RENEWED)) and not set(pods.values()) & set(before.values())

    eventually(renewed)
    demo.wait_until_ready()
    after, models = running(site), ("minilm", "smollm2", "manual")
    assert of(after, *models) == of(before, *models) != {}
    with gateway_of(demo.kubectl, FLEET, demo.token()) as client:
        eventually(lambda: all(succeeded(client, task) for task in tasks), what="the answers of all tasks")


def begun(client: httpx2.Client) -> list[str]:
    """Tasks at which the fleet's one worker is at work."""
    tasks = [submitted(client, SHORTEST) for _ in range(TASKS)]
    eventually(lambda: found(client, tasks[-1])["status"] != "Waiting", what="a worker")
    return tasks


def operators(system: Site) -> list[Manifest]:
    """The operator's pods."""
    return system.objects.list("Pod", "labelSelector=app.kubernetes.io/component=operator")


def leads(system: Site) -> str:
    """The name of the pod that leads; empty while none does."""
    holder = system.objects.get("Lease", LEASE)["spec"].get("holderIdentity") or ""
    names = (pod["metadata"]["name"] for pod in operators(system))
    return next((name for name in names if name in holder), "")


@pytest.mark.holds("performance.md", "A namespace with all kinds ends within seconds")
def test_a_namespace_that_is_deleted_goes_with_all_that_is_at_work_in_it(
    demo: Environment, everywhere: Kubectl
) -> None:
    """With the default drain of five minutes.

    It takes about ten seconds. The limit allows for a machine on which a pod outlives Kubernetes' second
    look, for the third comes only when half of the drain is over.
    """
    name = str(demo.kubectl.namespace)
    everywhere.run("delete", "namespace", name, "--wait", timeout_seconds=WAIT_SECONDS)
    assert name not in everywhere.run("get", "namespaces", "--output=name")


@pytest.mark.holds(
    "install.md", "An uninstall keeps definitions and objects, and they can be deleted afterwards"
)
@pytest.mark.holds(
    "install.md", "The Job after an uninstall deletes its ClusterRole and its ClusterRoleBinding"
)
def test_what_is_left_after_an_uninstall_can_be_deleted(demo: Environment, everywhere: Kubectl) -> None:
    """An index in a Milvus outside has a finalizer of ours; the chart's last Job takes it away."""
    index = {
        "apiVersion": "flotilla.dev/v1alpha1",
        "kind": "VectorIndex",
        "metadata": {"name": "outside", "namespace": "default"},
        "spec": {
            "milvus": {"mode": "External", "uri": "http://milvus.nowhere.svc:19530"},
            "source": {"path": "pvc://documents"},
            "embedding": {"modelRef": {"name": "none"}, "dimension": 384},
            "retention": {"deletionPolicy": "Delete"},
        },
    }
    outside = Site(replace(demo.kubectl, namespace="default"))
    outside.apply(index)
    eventually(lambda: outside.objects.get("VectorIndex", "outside")["metadata"].get("finalizers"))
    demo.helm("uninstall", "flotilla", "--wait")
    eventually(lambda: not outside.objects.get("VectorIndex", "outside")["metadata"].get("finalizers"))
    outside.remove("VectorIndex", "outside", FREED_SECONDS)
    left = everywhere.run(
        "get", "all,serviceaccounts,roles,rolebindings", "--namespace", SYSTEM_NAMESPACE, "--output=name"
    )
    assert [one for one in left.split() if one != "serviceaccount/default"] == []
    of_the_job = ("clusterroles,clusterrolebindings", "--selector=app.kubernetes.io/instance=flotilla")
    role_of_gateways = f"clusterrole.rbac.authorization.k8s.io/{SYSTEM_NAMESPACE}-flotilla-operator-gateway"
    eventually(lambda: everywhere.run("get", *of_the_job, "--output=name").split() == [role_of_gateways])
    assert "agentfleets.flotilla.dev" in everywhere.run("get", "customresourcedefinitions", "--output=name")
