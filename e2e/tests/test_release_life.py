"""A release's life where pods are real: an upgrade, a namespace that goes with all it holds, an uninstall.

The tests are in this order because each takes something away; what needs the demo comes before them.
"""

from pathlib import Path
from typing import Any

import pytest

from demo.environment import FLEET, SYSTEM_NAMESPACE, Environment
from demo.kubectl import Kubectl
from local_cluster import images
from tests.support.waiting import eventually

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900, func_only=True)]

RELABELLED = Path(__file__).parents[1] / "images" / "relabelled"
WAIT_SECONDS = 240.0
LEASE = "flotilla-operator"


def running(kubectl: Kubectl) -> dict[str, str]:
    """Names and UIDs of the pods that are to run for ever."""
    return {
        pod["metadata"]["name"]: pod["metadata"]["uid"]
        for pod in kubectl.get("pods")["items"]
        if pod["status"]["phase"] == "Running" and "deletionTimestamp" not in pod["metadata"]
    }


def of(pods: dict[str, str], *parts: str) -> dict[str, str]:
    """Those whose name begins with one of these."""
    return {name: uid for name, uid in pods.items() if name.startswith(parts)}


def test_an_upgrade_keeps_every_pod_until_somebody_asks_for_the_new_images(
    demo: Environment, everywhere: Kubectl
) -> None:
    before = running(demo.kubectl)
    old_operators = {pod["metadata"]["name"] for pod in operators(everywhere)}
    next_release = {
        name: images.build_and_import(
            name=name,
            dockerfile=RELABELLED / "Dockerfile",
            context=RELABELLED,
            arguments={"BASE_IMAGE": reference, "RELEASE": "next"},
        )
        for name, reference in demo.build_images().items()
    }
    demo.install_chart(next_release)
    eventually(lambda: leads(everywhere) and leads(everywhere) not in old_operators)
    demo.wait_until_ready()
    refresh = ("annotate", "agentfleet", FLEET, "flotilla.dev/refresh=now", "--overwrite")
    demo.kubectl.run(*refresh)
    clients = (f"{FLEET}-gateway", f"{FLEET}-worker")

    def renewed() -> bool:
        pods = of(running(demo.kubectl), *clients)
        return len(pods) == len(of(before, *clients)) and not set(pods.values()) & set(before.values())

    eventually(renewed)
    demo.wait_until_ready()
    after, models = running(demo.kubectl), ("minilm", "smollm2", "manual")
    assert of(after, *models) == of(before, *models) != {}


def operators(everywhere: Kubectl) -> list[dict[str, Any]]:
    """The operator's pods."""
    selector = "--selector=app.kubernetes.io/component=operator"
    found: list[dict[str, Any]] = everywhere.get("pods", "--namespace", SYSTEM_NAMESPACE, selector)["items"]
    return found


def leads(everywhere: Kubectl) -> str:
    """The name of the pod that leads; empty while none does."""
    lease = everywhere.get("lease", LEASE, "--namespace", SYSTEM_NAMESPACE)
    holder = lease["spec"].get("holderIdentity") or ""
    return next(
        (pod["metadata"]["name"] for pod in operators(everywhere) if pod["metadata"]["name"] in holder), ""
    )


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
    everywhere.apply([index])
    place = ("vectorindex", "outside", "--namespace", "default")
    eventually(lambda: everywhere.get(*place)["metadata"].get("finalizers"))
    demo.helm("uninstall", "flotilla", "--wait")
    eventually(lambda: not everywhere.get(*place)["metadata"].get("finalizers"))
    everywhere.run("delete", *place, "--wait", timeout_seconds=60)
    left = everywhere.run(
        "get", "all,serviceaccounts,roles,rolebindings", "--namespace", SYSTEM_NAMESPACE, "--output=name"
    )
    assert [one for one in left.split() if one != "serviceaccount/default"] == []
    assert "agentfleets.flotilla.dev" in everywhere.run("get", "customresourcedefinitions", "--output=name")
