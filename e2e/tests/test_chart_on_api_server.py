"""The chart on a real API server: admitted under restricted pod security, upgraded, uninstalled, its roles.

KWOK plays the kubelet, so pods "run" without their images; that the operator in them works is shown by the
demo's tests. The tests are in the order of a release's life; each leaves it where the next begins.
"""

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from flotilla_operator.api.kinds import KINDS
from flotilla_operator.cluster.client import Client, load_configuration
from flotilla_operator.controllers.uninstall import release
from local_cluster.control_plane import ControlPlane, Options
from local_cluster.kwok import create_nodes, gpu_nodes
from tests.support.chart import CHART, NAMESPACE, RELEASE, ROOT, helm, hooks, rendered
from tests.support.waiting import eventually

pytestmark = [pytest.mark.apiserver, pytest.mark.timeout(600)]

OTHERS = "team"
EXAMPLE = ROOT / "examples" / "agentfleet.yaml"
OURS = "flotilla.dev/milvus"
FOREIGN = "example.com/theirs"
OBJECTS = "/apis/flotilla.dev/v1alpha1/namespaces"


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A control plane with nodes, and a namespace that enforces restricted pod security for the operator."""

    plane: ControlPlane

    def helm(self, *arguments: str) -> str:
        return helm(*arguments, f"--namespace={NAMESPACE}", f"--kubeconfig={self.plane.kubeconfig}")

    def ready_operators(self) -> int:
        path = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/{RELEASE}-operator"
        return int(self.plane.client.get(path).get("status", {}).get("readyReplicas", 0))

    def identities(self) -> dict[str, str]:
        """The UIDs of the users' objects and of our definitions."""
        places = [f"{OBJECTS}/{OTHERS}/{kind.plural}" for kind in KINDS]
        places.append("/apis/apiextensions.k8s.io/v1/customresourcedefinitions")
        return {
            f"{place}/{item['metadata']['name']}": item["metadata"]["uid"]
            for place in places
            for item in self.plane.client.get(place)["items"]
        }

    def may(self, user: str, verb: str, resource: str) -> bool:
        plural, _, part = resource.partition("/")
        answer = self.plane.kubectl(
            *("auth", "can-i", verb, f"{plural}.flotilla.dev", f"--subresource={part}"),
            *(f"--as={user}", f"--namespace={OTHERS}"),
            check=False,
        )
        return answer.strip().splitlines()[-1] == "yes"


def namespace(name: str, **labels: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A control plane of our own: helm takes over no definitions that somebody else has installed."""
    options = Options(controller_manager=True, scheduler=True, kwok=True)
    with ControlPlane(tmp_path_factory.mktemp("chart-plane"), options) as plane:
        create_nodes(plane.client, list(gpu_nodes(2, gpus=0)))
        restricted = {"pod-security.kubernetes.io/enforce": "restricted"}
        plane.client.create("/api/v1/namespaces", namespace(NAMESPACE, **restricted))
        plane.client.create("/api/v1/namespaces", namespace(OTHERS))
        yield Site(plane=plane)


def test_it_installs_where_restricted_pod_security_is_enforced(site: Site) -> None:
    notes = site.helm("install", RELEASE, str(CHART))
    eventually(lambda: site.ready_operators() == 2)
    assert "kubectl get flotilla" in notes
    pods = site.plane.client.get(f"/api/v1/namespaces/{NAMESPACE}/pods")["items"]
    assert len({pod["spec"]["nodeName"] for pod in pods}) == 2


def test_the_namespace_would_have_refused_a_pod_with_more_rights(site: Site) -> None:
    (deployment,) = [manifest for manifest in rendered() if manifest["kind"] == "Deployment"]
    pod = deployment["spec"]["template"]
    pod["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = True
    manifest = {"apiVersion": "v1", "kind": "Pod", **pod}
    manifest["metadata"] = {"name": "privileged", "namespace": NAMESPACE}
    refusal = site.plane.kubectl("apply", "--filename=-", manifest=yaml.safe_dump(manifest), check=False)
    assert "violates PodSecurity" in refusal


def test_the_notes_name_everything_that_an_uninstall_keeps(site: Site) -> None:
    notes = site.helm("get", "notes", RELEASE)
    command = next(line for line in notes.splitlines() if "kubectl delete crd" in line)
    assert set(re.findall(r"[a-z]+\.flotilla\.dev", command)) == {
        f"{kind.plural}.flotilla.dev" for kind in KINDS
    }
    assert "deletionPolicy Retain" in notes


@pytest.mark.parametrize(
    ("role", "may", "may_not"),
    [
        pytest.param(
            "view",
            [("get", "modelreplicasets"), ("watch", "agentfleets")],
            [("create", "vectorindexes"), ("create", "agentfleets/tasks")],
            id="view reads",
        ),
        pytest.param(
            "edit",
            [
                *[("get", "agentfleets"), ("create", "vectorindexes"), ("patch", "modelreplicasets/scale")],
                *[("create", "agentfleets/tasks"), ("get", "agentfleets/tasks")],
            ],
            [("list", "agentfleets/tasks"), ("patch", "agentfleets/status")],
            id="edit writes and submits tasks",
        ),
        pytest.param(
            "admin",
            [("delete", "agentfleets"), ("list", "agentfleets/tasks")],
            [("patch", "agentfleets/status")],
            id="admin sees everybody's tasks",
        ),
    ],
)
def test_the_clusters_own_roles_know_our_kinds(
    site: Site, role: str, may: list[tuple[str, str]], may_not: list[tuple[str, str]]
) -> None:
    user = f"some-{role}"
    site.plane.kubectl(
        "create", "rolebinding", user, f"--clusterrole={role}", f"--user={user}", f"--namespace={OTHERS}"
    )
    eventually(lambda: site.may(user, *may[0]))  # the aggregation takes a moment
    assert [right for right in may if not site.may(user, *right)] == []
    assert [right for right in may_not if site.may(user, *right)] == []


def test_an_upgrade_keeps_every_object_and_every_definition(site: Site, tmp_path: Path) -> None:
    site.plane.kubectl("apply", f"--filename={EXAMPLE}", f"--namespace={OTHERS}")
    before = site.identities()
    newer = tmp_path / "flotilla"
    shutil.copytree(CHART, newer)
    description = newer / "Chart.yaml"
    description.write_text(description.read_text().replace("version: 0.1.0", "version: 0.1.1"))
    crd = newer / "files" / "crds" / "flotilla.dev_agentfleets.yaml"
    crd.write_text(crd.read_text().replace("- af\n", "- af\n    - fleet\n"))
    site.helm("upgrade", RELEASE, str(newer), "--set=operator.logLevel=debug")
    eventually(
        lambda: "assistant" in site.plane.kubectl("get", "fleet", f"--namespace={OTHERS}", check=False)
    )
    eventually(lambda: site.ready_operators() == 2)
    assert site.identities() == before


def test_an_uninstall_keeps_definitions_and_objects_and_leaves_nothing_else(site: Site) -> None:
    site.plane.kubectl(
        *("patch", "vectorindex", "manual", f"--namespace={OTHERS}", "--type=merge"),
        f"--patch={json.dumps({'metadata': {'finalizers': [OURS, FOREIGN]}})}",
    )
    before = site.identities()
    site.helm("uninstall", RELEASE, "--wait")
    assert site.identities() == before
    eventually(lambda: not left_of_the_release(site))


def left_of_the_release(site: Site) -> list[str]:
    here = "all,configmap,serviceaccount,role,rolebinding,networkpolicy,poddisruptionbudget"
    label = f"--selector=app.kubernetes.io/instance={RELEASE}"
    left = [
        site.plane.kubectl("get", here, f"--namespace={NAMESPACE}", label, "--output=name"),
        site.plane.kubectl("get", "clusterrole,clusterrolebinding", label, "--output=name"),
    ]
    return "".join(left).split()


async def test_the_job_after_the_uninstall_takes_our_finalizers_with_its_own_rights(
    site: Site, tmp_path: Path
) -> None:
    """KWOK ended the Job without running it, and helm took its account away; here it is given again."""
    account = [manifest for manifest in hooks() if manifest["kind"] != "Job"]
    text = yaml.safe_dump_all(account)
    site.plane.kubectl("apply", "--filename=-", f"--namespace={NAMESPACE}", manifest=text)
    client = Client(await load_configuration(as_account(site, f"{RELEASE}-operator-uninstall", tmp_path)))
    try:
        assert await release(client, []) == 1
        assert await release(client, [OTHERS]) == 0
    finally:
        await client.close()
    site.plane.kubectl("delete", "--filename=-", f"--namespace={NAMESPACE}", manifest=text)
    place = f"{OBJECTS}/{OTHERS}/vectorindexes/manual"
    assert site.plane.client.get(place)["metadata"]["finalizers"] == [FOREIGN]
    site.plane.client.merge(place, {"metadata": {"finalizers": []}})


def as_account(site: Site, name: str, folder: Path) -> Path:
    """A kubeconfig with a token of a service account, as a pod of it would have."""
    token = site.plane.kubectl("create", "token", name, f"--namespace={NAMESPACE}").strip()
    document = yaml.safe_load(site.plane.kubeconfig.read_text())
    for user in document["users"]:
        user["user"] = {"token": token}
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(document))
    return path


def test_after_an_uninstall_everything_of_ours_can_be_deleted(site: Site) -> None:
    kinds = ",".join(kind.plural for kind in KINDS)
    site.plane.kubectl("delete", kinds, "--all", f"--namespace={OTHERS}", "--timeout=120s")
    definitions = (f"crd/{kind.plural}.flotilla.dev" for kind in KINDS)
    site.plane.kubectl("delete", *definitions, "--timeout=120s")
    site.plane.kubectl("delete", "namespace", OTHERS, NAMESPACE, "--timeout=120s")


def test_it_installs_again_where_the_definitions_were_kept(site: Site) -> None:
    system = "again"
    arguments = (f"--namespace={system}", f"--kubeconfig={site.plane.kubeconfig}")
    helm("install", RELEASE, str(CHART), "--create-namespace", *arguments)
    helm("uninstall", RELEASE, *arguments)
    kept = site.plane.kubectl("get", "crd", "--output=name")
    assert kept.count("flotilla.dev") == len(KINDS)
    helm("install", RELEASE, str(CHART), *arguments)
