"""The chart on a real API server: admitted under restricted pod security, upgraded, uninstalled, its roles.

KWOK plays the kubelet, so pods "run" without their images; that the operator in them works is shown by the
demo's tests.
"""

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from flotilla_operator.api.kinds import KINDS
from flotilla_operator.controllers.uninstall import run
from local_cluster.control_plane import ControlPlane
from local_cluster.kwok import create_nodes, gpu_nodes
from tests.support.chart import CHART, IMAGES, NAMESPACE, RELEASE, ROOT, helm, hooks, only, rendered, setting
from tests.support.waiting import eventually

pytestmark = [pytest.mark.apiserver, pytest.mark.xdist_group("chart"), pytest.mark.timeout(600)]

OTHERS = "team"
EXAMPLE = ROOT / "examples" / "agentfleet.yaml"
OURS = "flotilla.dev/milvus"
FOREIGN = "example.com/theirs"
OBJECTS = "/apis/flotilla.dev/v1alpha1/namespaces"
INDEX = f"{OBJECTS}/{OTHERS}/vectorindexes/manual"
RIGHTS = f"{NAMESPACE}-{RELEASE}-operator-uninstall"
ROLE_OF_GATEWAYS = f"clusterrole.rbac.authorization.k8s.io/{NAMESPACE}-{RELEASE}-operator-gateway"
RIGHTS_OF_THE_JOB = (
    f"clusterrole.rbac.authorization.k8s.io/{RIGHTS}",
    f"clusterrolebinding.rbac.authorization.k8s.io/{RIGHTS}",
)


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
        asked = {"group": "flotilla.dev", "resource": plural, "subresource": part, "verb": verb}
        spec = {"user": user, "resourceAttributes": {**asked, "namespace": OTHERS}}
        review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
        answer = self.plane.client.create("/apis/authorization.k8s.io/v1/subjectaccessreviews", review)
        return bool(answer["status"]["allowed"])

    def is_installed(self) -> bool:
        return RELEASE in self.helm("list", "--short").split()


def namespace(name: str, **labels: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


@pytest.fixture(scope="module")
def cluster(chart_plane: ControlPlane) -> Iterator[Site]:
    """Nodes, and a namespace for the operator; in the end nothing of ours is left."""
    create_nodes(chart_plane.client, list(gpu_nodes(2, gpus=0)))
    restricted = {"pod-security.kubernetes.io/enforce": "restricted"}
    chart_plane.client.create("/api/v1/namespaces", namespace(NAMESPACE, **restricted))
    chart_plane.client.create("/api/v1/namespaces", namespace(OTHERS))
    made = Site(plane=chart_plane)
    yield made
    if made.is_installed():
        made.helm("uninstall", RELEASE, "--wait")
        delete_everything(made)


@pytest.fixture
def site(cluster: Site) -> Site:
    """A cluster with the release."""
    if not cluster.is_installed():
        cluster.helm("install", RELEASE, str(CHART), *setting(IMAGES))
        eventually(lambda: cluster.ready_operators() == 2)
    return cluster


@pytest.mark.holds("install.md", "The chart installs with `helm install` under restricted pod security")
def test_it_installs_where_restricted_pod_security_is_enforced(site: Site) -> None:
    assert "kubectl get flotilla" in site.helm("get", "notes", RELEASE)
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


@pytest.mark.holds(
    "tasks.md", "The verbs `create`, `get` and `list` on `agentfleets/tasks` say who may do what"
)
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


@pytest.mark.holds(
    "install.md", "An uninstall keeps definitions and objects, and they can be deleted afterwards"
)
@pytest.mark.holds(
    "install.md", "The Job after an uninstall deletes its ClusterRole and its ClusterRoleBinding"
)
@pytest.mark.holds("install.md", "An upgrade of the chart keeps every object and every running pod")
async def test_objects_outlive_upgrade_and_uninstall_and_then_everything_can_go(
    site: Site, tmp_path: Path
) -> None:
    """The rest of a release's life; each step begins where the one before it ended."""
    upgrade_keeps_every_object_and_every_definition(site, tmp_path / "newer")
    uninstall_keeps_definitions_and_objects_and_leaves_nothing_else(site)
    await job_after_the_uninstall_takes_our_finalizers_with_its_own_rights(site, tmp_path)
    it_installs_again_where_the_definitions_were_kept(site)
    delete_everything(site)


def upgrade_keeps_every_object_and_every_definition(site: Site, newer: Path) -> None:
    site.plane.kubectl("apply", f"--filename={EXAMPLE}", f"--namespace={OTHERS}")
    before = site.identities()
    shutil.copytree(CHART, newer)
    description = newer / "Chart.yaml"
    description.write_text(description.read_text().replace("version: 0.1.0", "version: 0.1.1"))
    crd = newer / "files" / "crds" / "flotilla.dev_agentfleets.yaml"
    crd.write_text(crd.read_text().replace("- af\n", "- af\n    - fleet\n"))
    site.helm("upgrade", RELEASE, str(newer), *setting(IMAGES), "--set=operator.logLevel=debug")
    eventually(lambda: "fleet" in short_names_of_fleets(site))
    assert "assistant" in site.plane.kubectl("get", "fleet", f"--namespace={OTHERS}")
    eventually(lambda: site.ready_operators() == 2)
    assert site.identities() == before


def short_names_of_fleets(site: Site) -> list[str]:
    """As the API server serves them."""
    served = site.plane.client.get("/apis/flotilla.dev/v1alpha1")["resources"]
    return next(found["shortNames"] for found in served if found["name"] == "agentfleets")


def uninstall_keeps_definitions_and_objects_and_leaves_nothing_else(site: Site) -> None:
    site.plane.client.merge(INDEX, {"metadata": {"finalizers": [OURS, FOREIGN]}})
    before = site.identities()
    site.helm("uninstall", RELEASE, "--wait")
    assert site.identities() == before
    eventually(lambda: not collected_last(site))
    assert left_of_the_release(site) == [ROLE_OF_GATEWAYS, *RIGHTS_OF_THE_JOB]


def collected_last(site: Site) -> list[str]:
    """The objects of the release that go after the uninstall: its pods, and what they belong to."""
    places = ("/api/v1", "pods"), ("/apis/apps/v1", "replicasets"), ("/apis/apps/v1", "deployments")
    selector = f"labelSelector=app.kubernetes.io/instance={RELEASE}"
    return [
        item["metadata"]["name"]
        for version, plural in (*places, ("/apis/batch/v1", "jobs"))
        for item in site.plane.client.get(f"{version}/namespaces/{NAMESPACE}/{plural}?{selector}")["items"]
    ]


def left_of_the_release(site: Site) -> list[str]:
    here = "all,configmap,serviceaccount,role,rolebinding,networkpolicy,poddisruptionbudget"
    label = f"--selector=app.kubernetes.io/instance={RELEASE}"
    left = [
        site.plane.kubectl("get", here, f"--namespace={NAMESPACE}", label, "--output=name"),
        site.plane.kubectl("get", "clusterrole,clusterrolebinding", label, "--output=name"),
    ]
    return "".join(left).split()


async def job_after_the_uninstall_takes_our_finalizers_with_its_own_rights(
    site: Site, tmp_path: Path
) -> None:
    """KWOK ended the Job without running it, and helm took its account away; here it is given again."""
    text = yaml.safe_dump(only(hooks(), "ServiceAccount"))
    site.plane.kubectl("apply", "--filename=-", f"--namespace={NAMESPACE}", manifest=text)
    kubeconfig = as_account(site, f"{RELEASE}-operator-uninstall", tmp_path)
    await run(kubeconfig, [OTHERS], None)
    assert site.plane.client.get(INDEX)["metadata"]["finalizers"] == [FOREIGN]
    site.plane.client.merge(INDEX, {"metadata": {"finalizers": [OURS, FOREIGN]}})
    await run(kubeconfig, [], RIGHTS)
    site.plane.kubectl("delete", "--filename=-", f"--namespace={NAMESPACE}", manifest=text)
    assert site.plane.client.get(INDEX)["metadata"]["finalizers"] == [FOREIGN]
    site.plane.client.merge(INDEX, {"metadata": {"finalizers": []}})
    eventually(
        lambda: left_of_the_release(site) == [ROLE_OF_GATEWAYS], what="the Job's rights gone, by its own hand"
    )


def as_account(site: Site, name: str, folder: Path) -> Path:
    """A kubeconfig with a token of a service account, as a pod of it would have."""
    token = site.plane.kubectl("create", "token", name, f"--namespace={NAMESPACE}").strip()
    document = yaml.safe_load(site.plane.kubeconfig.read_text())
    for user in document["users"]:
        user["user"] = {"token": token}
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(document))
    return path


def it_installs_again_where_the_definitions_were_kept(site: Site) -> None:
    kept = site.plane.kubectl("get", "crd", "--output=name")
    assert kept.count("flotilla.dev") == len(KINDS)
    site.helm("install", RELEASE, str(CHART), *setting(IMAGES))
    site.helm("uninstall", RELEASE, "--wait")


def delete_everything(site: Site) -> None:
    """Objects that a user deletes after an uninstall."""
    kinds = ",".join(kind.plural for kind in KINDS)
    site.plane.kubectl("delete", kinds, "--all", f"--namespace={OTHERS}", "--timeout=120s")
    definitions = (f"crd/{kind.plural}.flotilla.dev" for kind in KINDS)
    site.plane.kubectl("delete", *definitions, "--timeout=120s")
    # KWOK ends the Job that would delete these without running it.
    site.plane.kubectl("delete", ROLE_OF_GATEWAYS, *RIGHTS_OF_THE_JOB, "--ignore-not-found", "--timeout=120s")
    site.plane.kubectl("delete", "namespace", OTHERS, NAMESPACE, "--timeout=120s")
