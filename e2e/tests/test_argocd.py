"""A real Argo CD syncs the chart and an example as docs/argocd.md says, and deletes them again.

KWOK plays the pods and ends those of Jobs: the steps of a build report, and the Job that the chart has for
the time after a deletion does nothing. The operator is a process beside the cluster, with the chart's
account.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from flotilla_operator.objects.resources import (
    AGENT_FLEETS,
    MODEL_REPLICA_SETS,
    OUR_KINDS,
    PERSISTENT_VOLUME_CLAIMS,
    PODS,
)
from local_cluster import argocd
from local_cluster.control_plane import ControlPlane, Options
from local_cluster.kwok import create_nodes, gpu_nodes
from local_cluster.processes import free_port
from tests.support.chart import CHART, NAMESPACE, RELEASE, ROOT, Manifest, only, rendered
from tests.support.waiting import eventually
from upgrade_check.cluster import MANIFESTS

pytestmark = [pytest.mark.apiserver, pytest.mark.rare, pytest.mark.timeout(1500)]

TEAM = "team"
HERE = ROOT / "examples" / "argocd"
APPLICATIONS = f"/apis/argoproj.io/v1alpha1/namespaces/{argocd.NAMESPACE}/applications"
ACCOUNT = f"system:serviceaccount:{NAMESPACE}:{RELEASE}-operator"
GROUPS = ["system:serviceaccounts", f"system:serviceaccounts:{NAMESPACE}", "system:authenticated"]
RETAINED = "assistant-redis"
HEALTHY_WITHIN_SECONDS = 300.0
QUIET_SECONDS = 300.0
DELETED_WITHIN_SECONDS = 60.0
VOLUMES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A control plane with Argo CD, and the Applications of the page."""

    plane: ControlPlane
    applications: dict[str, Manifest]

    def create(self, name: str) -> None:
        text = yaml.safe_dump(self.applications[name])
        self.plane.kubectl("apply", "--filename=-", manifest=text)

    def delete(self, name: str) -> float:
        """Delete an Application with what it made; returns the seconds until it was gone."""
        began = time.monotonic()
        self.plane.client.delete(f"{APPLICATIONS}/{name}")
        gone = f"{APPLICATIONS}/{name}"
        eventually(lambda: not self.plane.client.exists(gone), seconds=300.0, what=f"no Application {name}")
        return time.monotonic() - began

    def status(self, name: str) -> Manifest:
        found: Manifest = self.plane.client.get(f"{APPLICATIONS}/{name}").get("status") or {}
        return found

    def is_healthy(self, name: str) -> bool:
        """Whether Argo CD says that everything is as in Git, and healthy."""
        status = self.status(name)
        healthy = status.get("health", {}).get("status") == "Healthy"
        return bool(healthy and status.get("sync", {}).get("status") == "Synced")

    def synced_at(self, name: str) -> str | None:
        """When the last sync ended; None while one runs."""
        found: str | None = self.status(name).get("operationState", {}).get("finishedAt")
        return found

    def fleet_is_ready(self) -> bool:
        fleet = self.plane.client.get(AGENT_FLEETS.path(TEAM, "assistant"))
        conditions = (fleet.get("status") or {}).get("conditions") or ()
        return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)

    def claim(self) -> tuple[str, str]:
        """The identity of the retained claim, and the volume with its data."""
        found = self.plane.client.get(PERSISTENT_VOLUME_CLAIMS.path(TEAM, RETAINED))
        return found["metadata"]["uid"], found["spec"]["volumeName"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("argocd")
    stages = (MANIFESTS / "pods.yaml").read_text()
    options = Options(controller_manager=True, scheduler=True, kwok=True, kwok_stages=stages)
    with ControlPlane(folder / "control-plane", options) as plane:
        create_nodes(plane.client, list(gpu_nodes(2)))
        plane.kubectl("create", "namespace", TEAM)
        what_a_user_has = [*map(volume, range(VOLUMES)), claim("models"), claim("documents")]
        plane.kubectl("apply", "--filename=-", manifest=yaml.safe_dump_all(what_a_user_has))
        with argocd.argo_cd(plane, folder / "argocd"):
            patch = str((HERE / "health.yaml").relative_to(ROOT))
            (line,) = [one for one in page() if one.startswith("kubectl patch configmap")]
            plane.kubectl(*line.replace(patch, str(ROOT / patch)).split()[1:])
            yield Site(plane=plane, applications=applications(folder))


def page() -> Sequence[str]:
    return (ROOT / "docs" / "argocd.md").read_text().splitlines()


def applications(folder: Path) -> dict[str, Manifest]:
    """The Applications of the example, with repositories that are there."""
    example = (ROOT / "examples" / "agentfleet.yaml").read_text()
    index, fleet = example.split("kind: AgentFleet")
    kept = fleet.replace("deletionPolicy: Delete", "deletionPolicy: Retain")
    assert kept != fleet
    manifest = folder / "agentfleet.yaml"
    manifest.write_text(f"{index}kind: AgentFleet{kept}")
    repositories = {
        "flotilla": argocd.git_repository(folder / "flotilla.git", {"charts/flotilla": CHART}),
        "assistant": argocd.git_repository(folder / "team.git", {"agentfleet.yaml": manifest}),
    }
    found = {}
    for one in yaml.safe_load_all((HERE / "applications.yaml").read_text()):
        name = one["metadata"]["name"]
        one["spec"]["source"]["repoURL"] = repositories[name]
        found[name] = one
    return found


def volume(number: int) -> dict[str, Any]:
    spec = {
        "capacity": {"storage": "20Gi"},
        "accessModes": ["ReadWriteOnce", "ReadWriteMany"],
        "hostPath": {"path": "/nowhere"},
    }
    metadata = {"name": f"volume-{number}"}
    return {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": metadata, "spec": spec}


def claim(name: str) -> dict[str, Any]:
    spec = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
    metadata = {"name": name, "namespace": TEAM}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec}


@contextmanager
def operator(site: Site, folder: Path) -> Iterator[None]:
    """The operator's process with the chart's own configuration and rights."""
    config = json.loads(only(rendered(), "ConfigMap")["data"]["config.json"])
    ports = {"healthPort": free_port(), "metricsPort": free_port()}
    (folder / "config.json").write_text(json.dumps({**config, **ports}))
    kubeconfig = site.plane.kubeconfig_for(ACCOUNT, groups=GROUPS)
    arguments = [f"--config={folder / 'config.json'}", f"--kubeconfig={kubeconfig}"]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT / "operator"), str(ROOT / "runtime")]),
        "POD_NAMESPACE": NAMESPACE,
        "POD_NAME": "operator-0",
    }
    with (folder / "operator.log").open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "flotilla_operator.controllers", *arguments],
            env=environment,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
        try:
            yield
        finally:
            process.terminate()
            process.wait(timeout=60)


@pytest.mark.holds(
    "argocd.md",
    "Argo CD itself runs the health check: an Application is Healthy when its fleet is Ready, and not before",
)
@pytest.mark.holds(
    "argocd.md", "Argo CD sees no drift for five minutes, and a set that something else scales stays as it is"
)
@pytest.mark.holds("argocd.md", "Both Applications are deleted within a minute, with the chart's hooks")
@pytest.mark.holds(
    "argocd.md",
    "A retained claim outlives its Application, which has the fleet's name, also where Argo CD "
    "tracks by label",
)
def test_argo_cd_syncs_the_chart_and_a_fleet_and_deletes_them(site: Site, tmp_path: Path) -> None:
    """Each step begins where the one before it ended."""
    site.create("flotilla")
    eventually(lambda: site.is_healthy("flotilla"), seconds=HEALTHY_WITHIN_SECONDS, what="a synced chart")
    with operator(site, tmp_path):
        site.create("assistant")
        the_fleet_is_healthy_when_it_is_ready(site)
        replicas_set_elsewhere_stay(site)
        nothing_differs_for_minutes(site)
        kept = site.claim()
        seconds = site.delete("assistant")
        the_team_has_only_its_claims(site, kept)

        by_label = {"data": {"application.resourceTrackingMethod": "label"}}
        site.plane.client.merge(f"/api/v1/namespaces/{argocd.NAMESPACE}/configmaps/argocd-cm", by_label)
        site.create("assistant")
        the_fleet_is_healthy_when_it_is_ready(site)
        again = site.delete("assistant")
        the_team_has_only_its_claims(site, kept)
    of_the_chart = site.delete("flotilla")
    assert max(seconds, again, of_the_chart) < DELETED_WITHIN_SECONDS
    definitions = site.plane.kubectl("get", "customresourcedefinitions", "--output=name")
    assert definitions.count("flotilla.dev") == len(OUR_KINDS)


def the_fleet_is_healthy_when_it_is_ready(site: Site) -> None:
    def healthy() -> bool:
        """An Application that is healthy, and never before the fleet is Ready."""
        found = site.is_healthy("assistant")
        assert not found or site.fleet_is_ready()
        return found

    eventually(healthy, seconds=HEALTHY_WITHIN_SECONDS)


def replicas_set_elsewhere_stay(site: Site) -> None:
    """As the second example is written, neither drift nor a sync sets them back."""
    path = MODEL_REPLICA_SETS.path(TEAM, "smollm2")
    site.plane.client.merge(path, {"spec": {"replicas": 2}})
    eventually(lambda: not site.is_healthy("assistant"), what="a set that is scaled is Progressing")
    eventually(lambda: site.is_healthy("assistant"), seconds=HEALTHY_WITHIN_SECONDS, what="it is scaled")
    before = site.synced_at("assistant")
    options = site.applications["assistant"]["spec"]["syncPolicy"]["syncOptions"]  # as `argocd app sync` does
    operation = {"sync": {"syncOptions": options}}
    site.plane.client.merge(f"{APPLICATIONS}/assistant", {"operation": operation})
    eventually(lambda: site.synced_at("assistant") not in (None, before), what="another sync")
    assert site.plane.client.get(path)["spec"]["replicas"] == 2


def nothing_differs_for_minutes(site: Site) -> None:
    """Argo CD compares all the time, and syncs nothing again."""
    synced = {name: str(site.synced_at(name)) for name in site.applications}
    end = time.monotonic() + QUIET_SECONDS
    while time.monotonic() < end:
        for name, finished in synced.items():
            assert site.is_healthy(name), site.status(name)
            assert site.synced_at(name) == finished, "it was synced again"
        time.sleep(2)
    compared = site.status("flotilla")["reconciledAt"]
    assert compared > synced["flotilla"], "Argo CD has not looked again"


def the_team_has_only_its_claims(site: Site, kept: tuple[str, str]) -> None:
    for kind in OUR_KINDS:
        assert site.plane.client.get(kind.path(TEAM))["items"] == []
    eventually(lambda: site.plane.client.get(PODS.path(TEAM))["items"] == [], what="no pod")
    assert site.claim() == kept
    left = site.plane.client.get(PERSISTENT_VOLUME_CLAIMS.path(TEAM))["items"]
    assert {one["metadata"]["name"] for one in left} == {"models", "documents", RETAINED}
