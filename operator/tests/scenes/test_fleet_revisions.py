"""A fleet whose agent changes under running tasks, and what becomes of its workers."""

import json
from functools import partial
from typing import Any

import pytest

from flotilla_operator.objects.resources import (
    AGENT_FLEETS,
    CONFIG_MAPS,
    DEPLOYMENTS,
    PODS,
    Manifest,
)
from flotilla_runtime import contract
from tests.builders.api_objects import changed, smallest
from tests.scenes.parts.gateways import PlayedTasks
from tests.scenes.parts.part import is_ready
from tests.scenes.scene import Scene
from tests.scenes.words import NAMESPACE

pytestmark = pytest.mark.scenes


class Fleet:
    """The fleet of a scene, in words."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.says = partial(scene.says, name="support", resource=AGENT_FLEETS)

    async def is_made(self, **spec: Any) -> str:
        """It is ready; returns its revision."""
        self.scene.node("a")
        self.scene.create("m")
        manifest = smallest("AgentFleet", name="support")
        manifest = changed(manifest, **{f"spec__{name}": value for name, value in spec.items()})
        self.scene.cluster.create(AGENT_FLEETS, manifest)
        await self.scene.until(lambda: self.says("Ready", "True"))
        return self.revision

    async def changes(self, prompt: str = "Answer otherwise.") -> str:
        """Its agent changes, and gateways give new tasks the new revision, which is returned."""
        before, fleet = self.revision, self.scene.the(AGENT_FLEETS, "support")
        self.scene.cluster.merge(AGENT_FLEETS, fleet, {"spec": {"agent": {"prompt": prompt}}})
        await self.scene.until(lambda: self.revision != before)
        new = self.revision
        await self.scene.until(lambda: self.gateway_revision == new)
        return new

    @property
    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = self.scene.the(AGENT_FLEETS, "support").get("status") or {}
        return status

    @property
    def revision(self) -> str:
        return str(self.status.get("revision"))

    @property
    def gateway_revision(self) -> str:
        gateway = self.scene.the(DEPLOYMENTS, "support-gateway")
        return str(gateway["spec"]["template"]["metadata"]["annotations"].get("flotilla.dev/revision"))

    @property
    def tasks(self) -> PlayedTasks:
        return self.scene.gateways.of("support")

    def older(self) -> dict[str, int | None]:
        """The older revisions of the status, with their tasks."""
        return {one["revision"]: one.get("tasks") for one in self.status.get("olderRevisions", ())}

    def workers(self, revision: str) -> Manifest | None:
        return self.scene.api.get(DEPLOYMENTS, NAMESPACE, f"support-worker-{revision}")

    def pods(self, revision: str | None = None) -> list[Manifest]:
        """The worker pods of a revision, or of all, that are not being deleted."""
        return [
            pod
            for pod in self.scene.api.listed(PODS)
            if pod["metadata"]["labels"].get(contract.LABEL_COMPONENT) == "worker"
            and revision in (None, pod["metadata"]["labels"].get(contract.LABEL_REVISION))
            and "deletionTimestamp" not in pod["metadata"]
        ]

    def ready(self, revision: str) -> int:
        return sum(map(is_ready, self.pods(revision)))

    def adopted(self, revision: str) -> list[str]:
        config = self.scene.the(CONFIG_MAPS, f"support-worker-{revision}")
        found: list[str] = json.loads(config["data"]["adopted.json"])
        return found


@pytest.mark.holds(
    "tasks.md",
    "A task keeps the revision of its submission, and the workers of an older one stay until none "
    "of its tasks is left",
)
async def test_tasks_run_on_with_the_revision_of_their_submission(scene: Scene) -> None:
    fleet = Fleet(scene)
    old = await fleet.is_made(workers={"concurrency": 1})
    fleet.tasks.are(old, running=2)
    await scene.until(lambda: fleet.ready(old) == 2)
    first, second = (pod["metadata"]["uid"] for pod in fleet.pods(old))

    def both_stay() -> bool:
        """The workers with running tasks stay."""
        return {first, second} == {pod["metadata"]["uid"] for pod in fleet.pods(old)}

    with scene.throughout(both_stay):
        new = await fleet.changes()
        fleet.tasks.are(new, waiting=1)
        await scene.until(lambda: fleet.ready(new) == 1)
        await scene.until(lambda: fleet.says("Progressing", "True", "Updating"))
        await scene.until(lambda: fleet.older() == {old: 2})
        await scene.until(lambda: fleet.says("Ready", "True"))
        await scene.pass_time(600)
    fleet.tasks.are(old, running=1)
    await scene.until(lambda: len(fleet.pods(old)) == 1)
    fleet.tasks.are(old)
    await scene.until(lambda: fleet.workers(old) is None and not fleet.pods(old))
    assert scene.api.get(CONFIG_MAPS, NAMESPACE, f"support-worker-{old}") is None
    await scene.until(lambda: fleet.says("Progressing", "True", "Settled"))
    assert fleet.older() == {}
    assert fleet.ready(new) == 1


@pytest.mark.holds(
    "tasks.md",
    "After `update.deadlineSeconds` the tasks that are left go over, and a worker that takes them "
    "is ready throughout",
)
async def test_tasks_that_are_left_at_the_deadline_go_over(scene: Scene) -> None:
    fleet = Fleet(scene)
    old = await fleet.is_made(update={"deadlineSeconds": 600})
    fleet.tasks.are(old, running=1)
    await scene.until(lambda: fleet.ready(old) == 1)
    new = await fleet.changes()
    await scene.pass_time(560)
    assert (len(fleet.pods(old)), fleet.pods(new), fleet.adopted(new)) == (1, [], [""])

    await scene.until(lambda: fleet.adopted(new) == sorted(["", old]), within_seconds=60)

    def somebody_has_it() -> bool:
        """A worker that takes the task is ready."""
        return fleet.ready(old) + fleet.ready(new) > 0

    with scene.throughout(somebody_has_it):
        await scene.until(lambda: fleet.workers(old) is None)
        assert fleet.ready(new) == 1
        await scene.pass_time(60)
    assert fleet.adopted(new) == sorted(["", old]), "its revision stays that of its submission"
    fleet.tasks.are(old)
    await scene.until(lambda: fleet.adopted(new) == [""])


@pytest.mark.holds("tasks.md", "They go over at once where no worker of theirs becomes ready")
async def test_tasks_go_over_at_once_where_no_worker_of_theirs_becomes_ready(scene: Scene) -> None:
    fleet = Fleet(scene)
    old = await fleet.is_made()
    fleet.tasks.are(old, suspended=1)
    new = await fleet.changes()
    await scene.pass_time(120)
    assert (fleet.pods(), fleet.adopted(new)) == ([], [""]), "a task that sleeps needs no worker"
    scene.kubelets.never_ready = lambda pod: pod["metadata"]["labels"].get(contract.LABEL_REVISION) == old
    fleet.tasks.are(old, waiting=1)
    (pod,) = await scene.until(lambda: fleet.pods(old))
    await scene.pass_time(60)
    assert fleet.adopted(new) == [""]
    waiting = {"state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}}
    pod = scene.the(PODS, pod["metadata"]["name"])
    scene.cluster.report(PODS, pod, containerStatuses=[{"name": "worker", "ready": False, **waiting}])
    await scene.until(lambda: fleet.ready(new) == 1, within_seconds=120)
    assert fleet.adopted(new) == sorted(["", old])
    assert fleet.workers(old) is None


@pytest.mark.holds("tasks.md", "A change back makes the older revision the new one, with its workers")
async def test_going_back_makes_the_old_revision_the_new_one(scene: Scene) -> None:
    fleet = Fleet(scene)
    prompt = scene_prompt()
    old = await fleet.is_made()
    fleet.tasks.are(old, running=1)
    await scene.until(lambda: fleet.ready(old) == 1)
    (before,) = fleet.pods(old)
    new = await fleet.changes()
    fleet.tasks.are(new, running=1)
    await scene.until(lambda: fleet.ready(new) == 1)
    assert await fleet.changes(prompt) == old
    fleet.tasks.are(new)
    await scene.until(lambda: fleet.workers(new) is None)
    assert [pod["metadata"]["uid"] for pod in fleet.pods()] == [before["metadata"]["uid"]]


def scene_prompt() -> str:
    prompt: str = smallest("AgentFleet")["spec"]["agent"]["prompt"]
    return prompt


@pytest.mark.holds("tasks.md", "A revision is in force once its models, indexes and secrets are known")
async def test_a_new_revision_that_is_not_whole_is_not_in_force(scene: Scene) -> None:
    """Tasks keep workers while the new revision names a model that does not exist yet."""
    fleet = Fleet(scene)
    old = await fleet.is_made()
    models = [{"role": "Default", "modelRef": {"name": "absent"}}]
    scene.cluster.merge(AGENT_FLEETS, scene.the(AGENT_FLEETS, "support"), {"spec": {"models": models}})
    await scene.until(lambda: fleet.says("ModelsReady", "False", "ModelMissing"))
    await scene.pass_time(60)
    assert (fleet.revision, fleet.gateway_revision) == (old, old)
    scene.create("absent")
    await scene.until(lambda: fleet.revision != old)


@pytest.mark.holds("tasks.md", "A timer of a suspended task wakes a fleet at zero")
async def test_a_timer_wakes_a_fleet_at_zero(scene: Scene) -> None:
    fleet = Fleet(scene)
    revision = await fleet.is_made()
    fleet.tasks.are(revision, suspended=1)
    await scene.pass_time(300)
    assert fleet.pods() == []
    fleet.tasks.are(revision, waiting=1)
    await scene.until(lambda: fleet.ready(revision) == 1, within_seconds=60)
    fleet.tasks.are(revision, suspended=1)
    await scene.until(lambda: fleet.pods() == [], within_seconds=180)


@pytest.mark.holds("tasks.md", "Workers with the fewest tasks are deleted first")
async def test_workers_with_fewer_tasks_go_first(scene: Scene) -> None:
    fleet = Fleet(scene)
    revision = await fleet.is_made(workers={"concurrency": 10})
    fleet.tasks.are(revision, running=30)
    await scene.until(lambda: fleet.ready(revision) == 3)
    names = [pod["metadata"]["name"] for pod in fleet.pods()]
    fleet.tasks.workers = dict(zip(names, (10, 10, 10), strict=True))
    await scene.pass_time(60)
    assert not any("pod-deletion-cost" in str(pod["metadata"].get("annotations")) for pod in fleet.pods())
    fleet.tasks.are(revision, running=6)
    fleet.tasks.workers = dict(zip(names, (1, 0, 5), strict=True))
    await scene.until(lambda: len(fleet.pods()) == 1)
    assert fleet.pods()[0]["metadata"]["name"] == names[2]


@pytest.mark.holds("tasks.md", "Workers of a release before revisions hand over once a new one is ready")
async def test_workers_of_a_release_before_revisions_hand_over(scene: Scene) -> None:
    fleet = Fleet(scene)
    revision = await fleet.is_made()
    before = legacy_of(scene.the(DEPLOYMENTS, f"support-worker-{revision}"))
    scene.cluster.create(DEPLOYMENTS, before)
    fleet.tasks.are("", running=1)
    began = False

    def somebody_is_ready() -> bool:
        """From the first ready worker on there is one."""
        nonlocal began
        ready = [pod for pod in fleet.pods() if is_ready(pod)]
        began = began or bool(ready)
        return not began or bool(ready)

    with scene.throughout(somebody_is_ready):
        await scene.until(lambda: fleet.ready(revision) == 1)
        await scene.until(lambda: scene.api.get(DEPLOYMENTS, NAMESPACE, "support-worker") is None)
        await scene.pass_time(60)
    assert fleet.adopted(revision) == [""]


def legacy_of(deployment: Manifest) -> Manifest:
    """The Deployment that a release before revisions made."""
    labels = {**deployment["metadata"]["labels"]}
    del labels[contract.LABEL_REVISION]
    template = {**deployment["spec"]["template"], "metadata": {"labels": labels}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": "support-worker",
            "namespace": NAMESPACE,
            "labels": labels,
            "ownerReferences": deployment["metadata"]["ownerReferences"],
        },
        "spec": {
            **deployment["spec"],
            "replicas": 1,
            "selector": {"matchLabels": labels},
            "template": template,
        },
    }
