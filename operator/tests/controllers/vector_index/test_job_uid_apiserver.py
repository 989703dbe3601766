"""The plan's pod learns of its Job by a label that the API server gives every pod of a Job."""

import pytest

from flotilla_operator.api.vector_index import VectorIndexSpec
from flotilla_operator.objects.owners import Owner
from flotilla_operator.workloads.vector_index.build import JOB_UID_LABEL, build_job
from flotilla_operator.workloads.vector_index.identity import EmbedderModel
from flotilla_operator.workloads.vector_index.steps import WantedBuild
from flotilla_runtime.contract import BuildStep
from local_cluster.control_plane import ControlPlane
from tests.builders.model_replica_set import IMAGES, spec_of
from tests.builders.vector_index import vector_index

pytestmark = pytest.mark.apiserver


@pytest.mark.holds("decisions/0007-index-builds.md", "A run that returns under its old name starts over")
def test_every_pod_of_a_job_carries_its_uid(
    running_control_plane: ControlPlane, running_namespace: str
) -> None:
    jobs = f"/apis/batch/v1/namespaces/{running_namespace}/jobs"
    owner = Owner(kind="VectorIndex", namespace=running_namespace, name="handbook", uid="uid-handbook")
    model = {"name": "minilm", "source": "pvc://models/minilm", "task": "Embed"}
    embedder = EmbedderModel(name="minilm", url="http://minilm:8000/v1", spec=spec_of(model=model))
    build = WantedBuild(generation="g-1", id="abc", promotion="def", shared_workspace=False)
    spec = VectorIndexSpec.model_validate(vector_index()["spec"])
    job = build_job(owner, spec, IMAGES, embedder, build, BuildStep.PLAN)
    del job["metadata"]["ownerReferences"]  # there is no such index, and its Job would be collected
    uids = []
    for _ in range(2):
        made = running_control_plane.client.create(jobs, job)
        uids.append(made["metadata"]["uid"])
        assert made["spec"]["template"]["metadata"]["labels"][JOB_UID_LABEL] == uids[-1]
        running_control_plane.kubectl(
            *("delete", "job", made["metadata"]["name"], "-n", running_namespace, "--cascade=background")
        )
    assert len(set(uids)) == 2
