"""The controller of Jobs, whose pods do the steps of a build and report three documents."""

import copy

from flotilla_operator.objects.resources import JOBS, PODS, Manifest
from flotilla_runtime import contract
from flotilla_runtime.contract import BuildStep, StepReport
from tests.scenes.parts.part import Part, controller_of, owned_by
from tests.support.settling import REPORTS

RESTARTED_NEVER = {"restartPolicy": "Never"}


class Jobs(Part):
    """Makes one pod for each completion; a pod ends well as soon as its kubelet has started it."""

    def look(self) -> None:
        for job in self.api.listed(JOBS):
            if "deletionTimestamp" not in job["metadata"]:
                self._look_at(job)

    def _look_at(self, job: Manifest) -> None:
        metadata, wanted = job["metadata"], job["spec"].get("completions", 1)
        pods = [
            pod
            for pod in self.api.listed(PODS, metadata["namespace"])
            if controller_of(pod) == metadata["uid"]
        ]
        for number in range(len(pods), wanted):
            self._make_pod(job, f"{metadata['name']}-{number}")
        for pod in pods:
            if pod["status"]["phase"] == "Running":
                self._end_well(job, pod)
        ended = sum(pod["status"]["phase"] == "Succeeded" for pod in pods)
        status = {"active": len(pods) - ended, "succeeded": ended}
        if ended == wanted:
            status["conditions"] = self.cluster.condition(job, "Complete", "True")
        self.cluster.report(JOBS, job, **status)

    def _make_pod(self, job: Manifest, name: str) -> None:
        template = copy.deepcopy(job["spec"]["template"])
        about = template.get("metadata") or {}
        about |= {"name": name, "namespace": job["metadata"]["namespace"], "ownerReferences": owned_by(job)}
        spec = {**RESTARTED_NEVER, **template["spec"]}
        self.cluster.create(PODS, {"apiVersion": "v1", "kind": "Pod", "metadata": about, "spec": spec})

    def _end_well(self, job: Manifest, pod: Manifest) -> None:
        step = BuildStep(job["metadata"]["labels"][contract.LABEL_STEP])
        report = StepReport.model_validate({"step": step, **REPORTS[step]})
        ended = {"exitCode": 0, "message": report.model_dump_json(exclude_defaults=True)}
        statuses = [
            {**one, "ready": False, "state": {"terminated": ended}}
            for one in pod["status"]["containerStatuses"]
        ]
        self.cluster.report(PODS, pod, phase="Succeeded", containerStatuses=statuses)
