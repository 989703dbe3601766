"""Updates: how a set comes to another revision, and back from one that is bad."""

import pytest

from flotilla_operator.objects.resources import MODEL_REPLICA_SETS, SECRETS, SERVICES, Manifest, Resource
from flotilla_runtime import contract
from tests.scenes.scene import Scene
from tests.scenes.words import GPU
from tests.support.fake_requests import RefusedError

pytestmark = pytest.mark.scenes

PAIR = {"tensor": 4, "pipeline": 2}
OTHER_REVISION = {"env": [{"name": "REVISION", "value": "other"}]}


@pytest.mark.holds(
    "draining.md",
    "A replica leaves by a drain when `replicas` falls, at an update, on a cordoned node, and at a "
    "rebalancing",
)
@pytest.mark.holds(
    "draining.md",
    "A change of the pods' template is a new revision and replicas are exchanged group by group",
)
async def test_an_update_turns_groups_over_one_at_a_time(scene: Scene) -> None:
    scene.node("a")
    scene.node("b")
    scene.create()
    await scene.until_ready()
    before = scene.uids()
    with scene.throughout(scene.two_serve):
        scene.change(engine=OTHER_REVISION)
        await scene.until(lambda: scene.is_ready() and not scene.uids() & before)
    assert len(scene.revisions()) == 1


@pytest.mark.holds(
    "draining.md", "`maxSurge` and `maxUnavailable` bound an update, draining replicas included"
)
async def test_an_update_without_surge_on_full_nodes_is_a_roll_during_which_one_serves(scene: Scene) -> None:
    scene.node("a")
    scene.create(update={"maxSurge": 0, "maxUnavailable": 1})
    await scene.until_ready()
    before = scene.uids()
    with scene.throughout(lambda: scene.serving() >= 1 and len(scene.pods()) <= 2):
        scene.change(engine=OTHER_REVISION)
        await scene.until(lambda: scene.is_ready() and not scene.uids() & before)
    assert len(scene.revisions()) == 1


@pytest.mark.holds("draining.md", "It fails when nothing gets on for `progressDeadlineSeconds`")
async def test_an_update_that_never_becomes_ready_goes_back_to_the_last_good_revision(scene: Scene) -> None:
    scene.node("a", gpus=12)
    scene.create()
    await scene.until_ready()
    before, (good,) = scene.uids(), scene.revisions()
    scene.kubelets.never_ready = lambda pod: pod["metadata"]["labels"].get(contract.LABEL_REVISION) != good
    with scene.throughout(scene.two_serve):
        scene.change(engine=OTHER_REVISION)
        message = await scene.until_says("Progressing", "False", "RolledBack")
        await scene.until(lambda: scene.uids() == before)
    assert "it made no progress for 1800 s" in message
    assert f"the set runs revision {good} instead" in message

    (pod, _) = scene.pods()
    scene.delete_pod(pod["metadata"]["name"])
    await scene.until(lambda: scene.serving() == 2 and scene.uids() != before)
    assert scene.revisions() == {good}, "what is made anew is made from the record"


@pytest.mark.holds(
    "security.md",
    "Before a roll-back the API server is asked by a dry run; what it refuses is not brought back",
)
async def test_an_older_spec_that_would_be_refused_today_is_not_brought_back_until_it_is_taken(
    scene: Scene,
) -> None:
    scene.node("a", gpus=12)
    scene.create()
    await scene.until_ready()
    (good,) = scene.revisions()
    scene.kubelets.never_ready = lambda pod: pod["metadata"]["labels"].get(contract.LABEL_REVISION) != good

    def only_others(resource: Resource, new: Manifest) -> None:
        if resource == MODEL_REPLICA_SETS and new["spec"].get("engine", {}).get("env") in (None, []):
            raise RefusedError(422, "Invalid", "the policy of today denied request: name a REVISION")

    scene.api.judge = only_others
    scene.change(engine=OTHER_REVISION)
    message = await scene.until_says("Progressing", "False", "RollbackRefused")
    assert "the policy of today denied request: name a REVISION" in message
    made = scene.pods()
    await scene.pass_time(600)
    assert {pod["metadata"]["uid"] for pod in scene.pods()} == {pod["metadata"]["uid"] for pod in made}
    assert len(scene.api.listed(MODEL_REPLICA_SETS)) == 1, "a dry run makes nothing"
    scene.api.judge = lambda _resource, _new: None
    await scene.until_says("Progressing", "False", "RolledBack")
    await scene.until(lambda: scene.revisions() == {good})


@pytest.mark.holds(
    "draining.md",
    "A failed update goes on with the last good revision, `Progressing` is RolledBack, and a "
    "change of the spec tries again",
)
async def test_an_update_whose_answers_fail_goes_back_and_the_drained_pod_serves_again(scene: Scene) -> None:
    scene.node("a")
    scene.node("b")
    scene.create(drain={"deadlineSeconds": 1800})
    await scene.until_ready()
    before, (good,) = scene.uids(), scene.revisions()
    routers = scene.routers.of("llama")
    routers.busy = True
    scene.change(engine=OTHER_REVISION)
    await scene.until(lambda: scene.draining() < before and len(scene.revisions()) == 2 and scene.draining())
    (bad,) = scene.revisions() - {good}
    routers.answers = {good: (500, 0), bad: (49, 49)}
    await scene.pass_time(60)
    assert scene.status()["rollout"].get("failedRevision") is None, "49 answers prove nothing"
    routers.answers = {good: (500, 0), bad: (50, 3)}
    message = await scene.until_says("Progressing", "False", "RolledBack")
    assert "6% of its 50 answers had a 5xx status" in message
    routers.busy = False
    await scene.until(lambda: scene.uids() == before and not scene.draining())
    await scene.until_told("GroupReturned")


@pytest.mark.holds("draining.md", "`spec.paused` holds the update")
async def test_a_paused_set_holds_its_update(scene: Scene) -> None:
    scene.node("a")
    scene.node("b")
    scene.create()
    await scene.until_ready()
    before = scene.uids()
    with scene.throughout(lambda: scene.uids() == before and not scene.draining()):
        scene.change(engine=OTHER_REVISION, paused=True)
        assert "0 of 2" in await scene.until_says("Progressing", "False", "UpdatePaused")
        await scene.pass_time(300)
    scene.change(paused=False)
    await scene.until(lambda: scene.is_ready() and not scene.uids() & before)


@pytest.mark.holds(
    "draining.md",
    "A drain is called off when replicas are wanted again; the replica with the most conversations "
    "comes back",
)
async def test_a_drain_that_is_called_off_brings_the_same_pod_back(scene: Scene) -> None:
    scene.node("a")
    scene.create(drain={"deadlineSeconds": 1800})
    await scene.until_ready()
    before = scene.uids()
    scene.routers.of("llama").busy = True
    scene.change(replicas=1)
    await scene.until(lambda: scene.status()["ready"] == "1/1" and len(scene.draining()) == 1)
    scene.change(replicas=2)
    await scene.until(lambda: scene.status()["ready"] == "2/2" and not scene.draining())
    await scene.until_told("GroupReturned")
    assert scene.uids() == before
    assert "GroupDraining" in scene.told()
    assert "GroupRemoved" not in scene.told()


@pytest.mark.parametrize(
    ("parallelism", "held"),
    [
        pytest.param({"tensor": 2}, [2, 2], id="fewer accelerators in a stage"),
        pytest.param({"pipeline": 2}, [4, 4, 4, 4], id="two stages where there was one"),
    ],
)
async def test_another_parallelism_is_a_roll_during_which_two_serve(
    scene: Scene, parallelism: dict[str, int], held: list[int]
) -> None:
    for name in "abc":
        scene.node(name)
    scene.create()
    await scene.until_ready()
    before = scene.uids()
    with scene.throughout(scene.two_groups_serve):
        scene.change(parallelism=parallelism)
        await scene.until(lambda: scene.is_ready() and not scene.uids() & before)
    assert [accelerators(pod) for pod in scene.pods()] == held
    assert len(scene.revisions()) == 1


async def test_the_names_of_stages_stay_until_the_last_group_of_two_has_gone(scene: Scene) -> None:
    for name in "abc":
        scene.node(name)
    scene.create(parallelism=PAIR)
    await scene.until_ready()
    assert has_names(scene)

    def named_or_alone() -> bool:
        """A group of two stages has the service that names its pods."""
        return has_names(scene) or all(len(pods) == 1 for pods in scene.groups().values())

    with scene.throughout(named_or_alone):
        scene.change(parallelism={"pipeline": 1})
        await scene.until(lambda: len(scene.revisions()) == 1 and not has_names(scene))
    await scene.until_ready()
    assert [accelerators(pod) for pod in scene.pods()] == [4, 4]


@pytest.mark.holds("draining.md", "`spec.paused` holds the update")
async def test_a_set_paused_in_the_middle_of_its_update_stays_as_it_is_until_it_goes_on(scene: Scene) -> None:
    scene.node("a")
    scene.node("b")
    scene.create(drain={"deadlineSeconds": 1800})
    await scene.until_ready()
    before = scene.uids()
    scene.routers.of("llama").busy = True
    scene.change(engine=OTHER_REVISION)
    await scene.until(lambda: scene.draining() and scene.draining() < before)
    scene.change(paused=True)
    assert "1 of 2" in await scene.until_says("Progressing", "False", "UpdatePaused")
    stay = scene.uids(), scene.draining()
    assert (len(stay[0]), len(stay[1])) == (3, 1)

    scene.routers.of("llama").busy = False  # so that what drains could go
    with scene.throughout(lambda: (scene.uids(), scene.draining()) == stay):
        await scene.pass_time(600)
    with scene.throughout(scene.two_serve):
        scene.change(paused=False)
        await scene.until(lambda: scene.is_ready() and not scene.uids() & before)


async def test_a_revision_that_breaks_the_slo_after_the_last_old_replica_has_gone_is_taken_back(
    scene: Scene,
) -> None:
    scene.node("a")
    scene.node("b")
    scene.create(slo={"ttftSeconds": 1, "attainment": 0.95})
    await scene.until_ready()
    before, (good,) = scene.uids(), scene.revisions()
    routers = scene.routers.of("llama")
    routers.answers = {good: (60, 0)}
    with scene.throughout(scene.two_serve):
        scene.change(engine=OTHER_REVISION)
        await scene.until(lambda: not scene.uids() & before)
        said = await scene.until_says("Progressing", "True", "OnTrial")
        assert f"if it fails, the set goes back to revision {good}" in said
        assert scene.is_ready()
        assert scene.status()["rollout"]["goodRevision"] == good

        (bad,) = scene.revisions()
        routers.answers = {bad: (30, 6)}
        message = await scene.until_says("Progressing", "False", "RolledBack")
        assert "80% of its 60 answers met spec.slo, but 100% of the old revision's answers did" in message
        await scene.until(lambda: scene.revisions() == {good})

    scene.change(engine={"env": [{"name": "REVISION", "value": "mended"}]})
    (mended,) = await scene.until(lambda: scene.revisions() - {good})
    await scene.until_says("Progressing", "True", "OnTrial")
    routers.answers = {mended: (25, 0)}
    await scene.until_says("Progressing", "False", "Settled")
    assert scene.status()["rollout"]["goodRevision"] == mended
    await scene.until_ready()


async def test_a_lost_key_of_the_engines_replaces_every_replica_one_at_a_time(scene: Scene) -> None:
    """Engines would refuse routers with another key, so each replica gets the new one."""
    scene.node("a", gpus=12)
    scene.create()
    await scene.until_ready()
    before, key = scene.uids(), scene.the(SECRETS, "llama-engine-key")
    scene.hands.delete(SECRETS, key)
    await scene.until_told("EngineKeyLost")
    await scene.until(lambda: scene.is_ready() and not scene.uids() & before)
    assert scene.the(SECRETS, "llama-engine-key")["data"] != key["data"]


@pytest.mark.holds(
    "draining.md", "A new engines' key is part of a revision; the way back is the good parts with the new key"
)
async def test_the_way_back_over_a_new_key_makes_new_replicas_from_the_good_parts(scene: Scene) -> None:
    """The good revision cannot serve as it was: its replicas have the key that was lost."""
    scene.node("a", gpus=12)
    scene.create()
    await scene.until_ready()
    before, (good,) = scene.uids(), scene.revisions()
    scene.node("b", mute=True, labels={"pool": "other"})
    scene.hands.delete(SECRETS, scene.the(SECRETS, "llama-engine-key"))
    await scene.operator.kill()  # the one that made the key does not miss it for some seconds
    await scene.start_operator()
    with scene.throughout(scene.two_serve):
        scene.change(placement={"nodeSelector": {"pool": "other"}})
        await scene.until_told("EngineKeyLost")
        await scene.until(lambda: "b" in scene.nodes_of())
        await scene.until_says("Progressing", "False", "RolledBack")
        scene.lose_node("b")
        await scene.until(lambda: not scene.uids() & before and scene.nodes_of() == ["a", "a"])
    assert good not in scene.revisions()
    assert scene.says("Progressing", "False", "RolledBack")


def accelerators(pod: Manifest) -> int:
    return int(pod["spec"]["containers"][0]["resources"]["limits"][GPU])


def has_names(scene: Scene) -> bool:
    """Whether the service is there that gives each pod of the set a name."""
    return scene.hands.get(SERVICES, scene.namespace, "llama-engine") is not None
