"""Access to an index's searches: the decision as a table, and what follows from it."""

from collections.abc import Callable
from typing import Any

import pytest

from flotilla_operator.cluster.caches import Caches
from flotilla_operator.cluster.writes import Apply, Create
from flotilla_operator.controllers.vector_index.access import (
    AccessReason,
    KeyReason,
    SearchingFleet,
    access_decision,
)
from flotilla_operator.controllers.vector_index.seen import Observed
from flotilla_operator.objects.refused_writes import RefusedWrite, WriteReason
from flotilla_operator.objects.resources import AGENT_FLEETS, DEPLOYMENTS, NODES, PODS, SECRETS, Key
from flotilla_runtime import contract
from leaks.planted import planted
from tests.builders.agent_fleet import agent_fleet
from tests.builders.vector_index import OWNER, vector_index
from tests.controllers.vector_index.indexes import NOW, Stage, claim, embedder
from tests.support.planned import Plan

Manifest = dict[str, Any]
SENDS = {contract.LABEL_INDEX_KEYS: contract.INDEX_KEYS_SENT}


def fleet(name: str, *, template_sends: bool | None, pods_without: int = 0) -> SearchingFleet:
    return SearchingFleet(name=name, template_sends=template_sends, pods_without=pods_without)


NEW = fleet("new", template_sends=True)
UNMADE = fleet("unmade", template_sends=None)
OLD = fleet("old", template_sends=False, pods_without=2)
ENDING = fleet("ending", template_sends=True, pods_without=1)
ASLEEP = fleet("asleep", template_sends=False)
LEFT = fleet("left", template_sends=None, pods_without=1)


@pytest.mark.holds(
    "search.md",
    "After an upgrade searches without a key are answered until no worker is left that sends none, "
    "and then never again",
)
@pytest.mark.parametrize(
    ("before", "has_retriever", "paused", "fleets", "reason", "old"),
    [
        pytest.param(True, True, False, (), AccessReason.REQUIRED_BEFORE, (), id="once is for ever"),
        pytest.param(True, False, True, (OLD,), AccessReason.REQUIRED_BEFORE, (), id="whatever comes"),
        pytest.param(False, False, False, (OLD,), AccessReason.NEVER_SEARCHED, (), id="a new index"),
        pytest.param(False, True, False, (), AccessReason.WORKERS_SEND_KEYS, (), id="no fleet"),
        pytest.param(False, True, False, (NEW, UNMADE), AccessReason.WORKERS_SEND_KEYS, (), id="all do"),
        pytest.param(False, True, False, (NEW, OLD), AccessReason.OLD_WORKERS, ("old",), id="one does not"),
        pytest.param(False, True, False, (ASLEEP,), AccessReason.OLD_WORKERS, ("asleep",), id="at zero"),
        pytest.param(False, True, False, (ENDING,), AccessReason.OLD_WORKERS, ("ending",), id="it ends"),
        pytest.param(False, True, False, (LEFT,), AccessReason.OLD_WORKERS, ("left",), id="left over"),
        pytest.param(
            False, True, False, (OLD, ASLEEP), AccessReason.OLD_WORKERS, ("asleep", "old"), id="two do not"
        ),
        pytest.param(False, True, True, (NEW,), AccessReason.PAUSED, (), id="nothing is changed"),
    ],
)
def test_when_a_key_is_required(
    before: bool,
    has_retriever: bool,
    paused: bool,
    fleets: tuple[SearchingFleet, ...],
    reason: AccessReason,
    old: tuple[str, ...],
) -> None:
    decision = access_decision(
        key_found=True, required_before=before, has_retriever=has_retriever, paused=paused, fleets=fleets
    )
    assert (decision.reason, decision.old_fleets) == (reason, old)
    assert decision.required is (reason not in (AccessReason.OLD_WORKERS, AccessReason.PAUSED))


@pytest.mark.parametrize(
    ("found", "key"),
    [
        pytest.param(None, KeyReason.OF_THE_USERS, id="the spec names a secret"),
        pytest.param(True, KeyReason.THERE, id="it was made"),
        pytest.param(False, KeyReason.MADE, id="there is none"),
    ],
)
def test_where_the_key_comes_from(found: bool | None, key: KeyReason) -> None:
    decision = access_decision(
        key_found=found, required_before=False, has_retriever=False, paused=False, fleets=()
    )
    assert decision.key is key


def old_index(*others: Manifest, **spec: Any) -> Stage:
    """An index that a release without keys has made, and it was searched."""
    stage = Stage(vector_index(**spec), embedder(), claim("documents"), *others)
    stage.step()
    stage.ready()
    stage.step()
    del stage.index["status"]["keys"]
    stage.secrets.entries = {}
    return stage


def with_key(stage: Stage) -> Stage:
    """The key that the operator made is there."""
    stage.secrets.entries = {**stage.secrets.entries, "handbook-retriever-key": {"key": planted("hush")}}
    stage.secrets.controller_uid = OWNER.uid
    return stage


def searching(name: str = "support", index: str = "handbook") -> Manifest:
    return agent_fleet(name, indexes=[{"name": "h", "indexRef": {"name": index}}])


def workers_of(name: str = "support", *, sends: bool, replicas: int = 1) -> list[Manifest]:
    """The Deployment of the workers, and their pods."""
    labels = {"flotilla.dev/kind": "AgentFleet", "flotilla.dev/owner": name}
    labels |= {"app.kubernetes.io/component": "worker", **(SENDS if sends else {})}
    owner = {"apiVersion": "flotilla.dev/v1alpha1", "kind": "AgentFleet", "name": name, "uid": f"uid-{name}"}
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": f"{name}-worker",
            "namespace": "default",
            "uid": f"uid-{name}-worker",
            "labels": labels,
            "ownerReferences": [{**owner, "controller": True}],
        },
        "spec": {"replicas": replicas, "template": {"metadata": {"labels": labels}}},
    }
    return [deployment, *(worker_pod(f"{name}-{n}", labels) for n in range(replicas))]


def worker_pod(name: str, labels: Manifest, **metadata: Any) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": "default",
            "uid": f"uid-{name}",
            "labels": labels,
            **metadata,
        },
        "status": {"phase": "Running"},
    }


def keyless(plan: Plan) -> bool:
    """Whether the retriever is told to answer searches without a key."""
    (config,) = (
        write.manifest
        for write in plan.writes
        if isinstance(write, Apply)
        and (write.manifest["kind"], write.manifest["metadata"]["name"])
        == ("ConfigMap", "handbook-retriever")
    )
    return bool(config["data"].get(contract.KEYLESS_FILE) == contract.KEYLESS)


def keys_told(plan: Plan) -> Any:
    assert plan.status is not None
    return plan.status.get("keys")


GENERATED = {"secretName": "handbook-retriever-key", "entry": "key"}


@pytest.mark.holds(
    "search.md", "The operator makes one key, once, before the retriever, and `status.keys` names its Secret"
)
def test_a_new_index_gets_a_key_before_its_retriever_and_requires_it_at_once() -> None:
    plan = Stage().step()
    writes = [one for one in plan.writes if isinstance(one, Apply | Create)]
    names = [(one.manifest["kind"], one.manifest["metadata"]["name"]) for one in writes]
    key = ("Secret", "handbook-retriever-key")
    assert names.index(key) < names.index(("Deployment", "handbook-retriever"))
    (secret,) = (one for one in plan.writes if isinstance(one, Create) and one.manifest["kind"] == "Secret")
    assert secret.manifest["metadata"]["ownerReferences"] == [OWNER.reference]
    assert len(secret.manifest["data"]["key"]) > 40
    (retriever,) = (one for one in plan.writes if isinstance(one, Apply) and is_retriever(one.manifest))
    assert retriever.needs == {SECRETS.ref("default", "handbook-retriever-key")}
    assert not keyless(plan)
    assert keys_told(plan) == {**GENERATED, "required": True}


def is_retriever(manifest: Manifest) -> bool:
    return bool(manifest["kind"] == "Deployment" and manifest["metadata"]["name"] == "handbook-retriever")


def secrets_made(plan: Plan) -> int:
    return sum(isinstance(one, Create) and one.manifest["kind"] == "Secret" for one in plan.writes)


@pytest.mark.holds(
    "search.md", "The operator makes one key, once, before the retriever, and `status.keys` names its Secret"
)
def test_the_key_is_made_once_and_again_when_it_was_lost_without_a_new_pod() -> None:
    stage = with_key(Stage())
    first = stage.step()
    assert secrets_made(first) == 0
    stage.secrets.entries = {}
    again = stage.step()
    assert secrets_made(again) == 1
    before, after = (
        next(one.manifest for one in plan.writes if isinstance(one, Apply) and is_retriever(one.manifest))
        for plan in (first, again)
    )
    assert before == after


def test_a_secret_of_somebody_elses_is_not_the_key() -> None:
    stage = with_key(Stage())
    stage.secrets.controller_uid = "uid-of-another"
    assert secrets_made(stage.step()) == 1


def test_a_key_that_cannot_be_made_is_not_told() -> None:
    stage = Stage()
    seen = stage.observe()
    decision = stage.controller.decide(seen, NOW)
    key = SECRETS.ref("default", "handbook-retriever-key")
    refusal = RefusedWrite(ref=key, reason=WriteReason.NAME_TAKEN, message="belongs to somebody else")
    told = stage.controller.tell(seen, decision, [refusal], NOW)
    assert told.status is not None
    assert "keys" not in told.status
    (ready,) = (one for one in told.status["conditions"] if one["type"] == "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "NameTaken")


@pytest.mark.holds(
    "search.md",
    "After an upgrade searches without a key are answered until no worker is left that sends none, "
    "and then never again",
)
def test_an_older_index_requires_keys_once_its_fleets_workers_send_them() -> None:
    stage = with_key(old_index(searching(), *workers_of(sends=False)))
    waiting = stage.step()
    assert keyless(waiting)
    assert keys_told(waiting) == {**GENERATED, "required": False}
    assert "until the workers of support are replaced" in stage.message("RetrieverReady")

    stage.put(*workers_of(sends=True))
    stage.put(worker_pod("ending", worker_labels(sends=False), deletionTimestamp=NOW.isoformat()))
    assert keyless(stage.step()), "a worker that ends finishes its searches"

    del stage.objects["Pod", "ending"]
    required = stage.step()
    assert not keyless(required)
    assert keys_told(required) == {**GENERATED, "required": True}
    assert "workers" not in stage.message("RetrieverReady")

    stage.put(*workers_of(sends=False))
    assert not keyless(stage.step()), "from then on always"


def worker_labels(*, sends: bool) -> Manifest:
    labels: Manifest = workers_of(sends=sends)[1]["metadata"]["labels"]
    return labels


def with_pod_of_a_stranger() -> list[Manifest]:
    labels = {**worker_labels(sends=False), "app.kubernetes.io/component": "gateway"}
    return [*workers_of(sends=True), worker_pod("gateway", labels)]


def with_pod_that_is_over() -> list[Manifest]:
    over = worker_pod("over", worker_labels(sends=False))
    over["status"]["phase"] = "Failed"
    return [*workers_of(sends=True), over]


def with_deployment_of_somebody_elses() -> list[Manifest]:
    deployment, *_ = workers_of(sends=False, replicas=0)
    deployment["metadata"]["ownerReferences"][0]["uid"] = "uid-of-another"
    return [deployment]


@pytest.mark.holds(
    "search.md",
    "After an upgrade searches without a key are answered until no worker is left that sends none, "
    "and then never again",
)
@pytest.mark.parametrize(
    ("others", "waits"),
    [
        pytest.param(lambda: [searching(), *workers_of(sends=False)], True, id="old workers"),
        pytest.param(lambda: [searching(), *workers_of(sends=False, replicas=0)], True, id="none runs now"),
        pytest.param(lambda: [searching(), *workers_of(sends=True)], False, id="new workers"),
        pytest.param(lambda: [searching()], False, id="none was made"),
        pytest.param(lambda: [searching(), *with_pod_that_is_over()], False, id="an old one is over"),
        pytest.param(lambda: [searching(), *with_pod_of_a_stranger()], False, id="a pod that is no worker"),
        pytest.param(
            lambda: [searching(), *with_deployment_of_somebody_elses()], False, id="workers of somebody else"
        ),
        pytest.param(
            lambda: [searching(index="other"), *workers_of(sends=False)], False, id="of another index"
        ),
    ],
)
def test_which_workers_are_waited_for(others: Callable[[], list[Manifest]], waits: bool) -> None:
    assert keyless(with_key(old_index(*others())).step()) is waits


@pytest.mark.holds("search.md", "A paused index stays as it is, and its fleets send no key")
def test_a_paused_index_is_told_as_it_was() -> None:
    stage = old_index()
    stage.index["spec"]["paused"] = True
    plan = stage.step()
    assert not plan.writes
    assert keys_told(plan) is None
    served = with_key(Stage())
    served.step()
    served.index["spec"]["paused"] = True
    assert keys_told(served.step()) == {**GENERATED, "required": True}


def retriever_secret(plan: Plan) -> str | None:
    """The secret that the retriever mounts, None where its Deployment is not written."""
    for write in plan.writes:
        if isinstance(write, Apply) and is_retriever(write.manifest):
            volumes = write.manifest["spec"]["template"]["spec"]["volumes"]
            return next(str(v["secret"]["secretName"]) for v in volumes if v["name"] == "keys")
    return None


@pytest.mark.holds(
    "search.md",
    "With `retriever.authSecretRef` each entry is a caller, and while the Secret is missing the "
    "retriever stays as it is",
)
def test_the_keys_of_the_users_secret_are_mounted_and_none_is_made() -> None:
    stage = Stage(vector_index(retriever={"authSecretRef": {"name": "callers"}}), callers={"ann": "a"})
    plan = stage.step()
    assert secrets_made(plan) == 0
    assert retriever_secret(plan) == "callers"
    assert keys_told(plan) == {"secretName": "callers", "required": True}
    assert stage.secrets.asked == ["callers"]


@pytest.mark.holds(
    "search.md",
    "With `retriever.authSecretRef` each entry is a caller, and while the Secret is missing the "
    "retriever stays as it is",
)
def test_while_the_users_secret_is_missing_the_retriever_stays_as_it_is() -> None:
    stage = with_key(Stage())
    stage.build()
    stage.index["spec"]["retriever"] = {"authSecretRef": {"name": "callers"}}
    plan = stage.step()
    assert retriever_secret(plan) is None
    assert keys_told(plan) == {**GENERATED, "required": True}
    assert stage.condition("RetrieverReady") == ("False", "SecretMissing")
    assert "spec.retriever.authSecretRef" in stage.message("RetrieverReady")
    assert plan.look_again_seconds == 10
    stage.secrets.entries = {**stage.secrets.entries, "callers": {"ann": "a"}}
    assert retriever_secret(stage.step()) == "callers"
    assert stage.condition("RetrieverReady") == ("True", "RetrieverAvailable")


@pytest.mark.holds(
    "search.md",
    "With `retriever.authSecretRef` each entry is a caller, and while the Secret is missing the "
    "retriever stays as it is",
)
@pytest.mark.parametrize("entries", [{}, {"ann": ""}, {"ann": " \n"}], ids=["none", "empty", "blank"])
def test_a_secret_that_lets_nobody_in_is_told(entries: dict[str, str]) -> None:
    stage = Stage(vector_index(retriever={"authSecretRef": {"name": "callers"}}), callers=entries)
    plan = stage.step()
    assert retriever_secret(plan) == "callers", "taking the last key away takes effect"
    assert stage.condition("RetrieverReady") == ("False", "SecretKeyMissing")
    assert "nobody can search" in stage.message("RetrieverReady")


@pytest.mark.holds("security.md", "Nobody searches without a key, and keys are in no log, message or metric")
def test_the_key_is_in_no_message_and_no_event() -> None:
    stage = with_key(Stage())
    stage.build()
    seen = stage.observe()
    assert isinstance(seen, Observed)
    assert planted("hush") not in f"{seen} {stage.index} {stage.events}"


INDEX = Key("VectorIndex", "default", "handbook")


@pytest.mark.holds(
    "decisions/0019-search-keys.md", "Workers and fleets wake an index that waits for them, and no other"
)
@pytest.mark.parametrize(
    ("changed", "required", "woken"),
    [
        pytest.param((AGENT_FLEETS, searching()), False, [INDEX], id="a fleet that names it"),
        pytest.param((AGENT_FLEETS, searching(index="other")), False, [], id="a fleet of another"),
        pytest.param((PODS, workers_of(sends=True)[1]), False, [INDEX], id="a worker"),
        pytest.param((DEPLOYMENTS, workers_of(sends=True)[0]), False, [INDEX], id="the workers"),
        pytest.param((PODS, workers_of("unknown", sends=True)[1]), False, [], id="a worker of no fleet"),
        pytest.param((PODS, worker_pod("other", {})), False, [], id="another pod"),
        pytest.param((NODES, {"metadata": {"name": "n"}}), False, [], id="a node"),
        pytest.param((PODS, workers_of(sends=True)[1]), True, [], id="it requires keys already"),
    ],
)
def test_what_wakes_an_index_that_waits_for_workers(
    changed: tuple[Any, Manifest], required: bool, woken: list[Key]
) -> None:
    stage = Stage()
    index = vector_index(status={"keys": {**GENERATED, "required": required}})
    caches = Caches.of(index, searching())
    assert list(stage.controller.wakes(*changed, caches)) == woken


def test_looking_again_is_soon_only_while_a_secret_is_missing() -> None:
    stage = with_key(Stage())
    stage.build()
    plan = stage.step()
    assert plan.look_again_seconds == 600
