"""The stages of a decision about a fleet: a row for each reason. How many workers: tests/autoscaling.

What becomes of a decision is in test_plan.py.
"""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from flotilla_operator.controllers.agent_fleet.decide import Decision, LookReason, PartReason, decide
from flotilla_operator.controllers.agent_fleet.password import (
    PasswordReason,
    password_made,
    with_password_made,
)
from flotilla_operator.controllers.live_objects import live_object
from flotilla_operator.objects.used_by import ANNOTATION
from flotilla_operator.workloads import agent_fleet as workloads
from tests.builders.agent_fleet import OWNER, agent_fleet, served_model, spec_of
from tests.builders.model_replica_set import IMAGES
from tests.builders.pod_options import RUNTIME_CLASS, runtime_class
from tests.controllers.agent_fleet.test_plan import NOW, Stage

OF_THE_USERS: dict[str, Any] = {"queue": {"redis": {"mode": "External", "urlSecretRef": {"name": "redis"}}}}
SANDBOXED_REDIS = agent_fleet(queue={"redis": {"pod": {"runtimeClassName": RUNTIME_CLASS}}})
CALLED = agent_fleet(gateway={"auth": {"mode": "Secret", "secretRef": {"name": "callers"}}})
SECURED = agent_fleet(gateway={"tls": {"secretRef": {"name": "tls"}}})
FIXED = {"minReplicas": 1, "maxReplicas": 1}
SUPPORT = agent_fleet()
DELETED = {**SUPPORT, "metadata": {**SUPPORT["metadata"], "deletionTimestamp": "2026-05-01T12:00:00Z"}}


async def decided(stage: Stage, fleet: dict[str, Any]) -> Decision:
    observed, _ = await stage.look(fleet)
    decision = decide(observed, stage.now)
    assert decision is not None
    return decision


def new() -> Stage:
    return Stage(served_model())


def running() -> Stage:
    stage = new()
    stage.everything_runs()
    return stage


async def seen_a_moment_ago() -> Stage:
    stage = running()
    await stage.plan(agent_fleet())
    stage.now += timedelta(seconds=5)
    return stage


async def running_without_its_password() -> Stage:
    stage = running()
    stage.secrets.entries = {}
    return stage


async def at_once(stage: Callable[[], Stage]) -> Stage:
    return stage()


@pytest.mark.parametrize(
    ("stage", "fleet", "reason", "made"),
    [
        pytest.param(
            lambda: at_once(running),
            agent_fleet(**OF_THE_USERS),
            PasswordReason.OF_THE_USERS,
            False,
            id="theirs",
        ),
        pytest.param(
            seen_a_moment_ago, SUPPORT, PasswordReason.NOT_LOOKED_FOR, False, id="seen a moment ago"
        ),
        pytest.param(lambda: at_once(running), SUPPORT, PasswordReason.THERE, False, id="it is there"),
        pytest.param(lambda: at_once(new), SUPPORT, PasswordReason.FIRST, True, id="there was none yet"),
        pytest.param(
            running_without_its_password, SUPPORT, PasswordReason.LOST, True, id="Redis has it still"
        ),
    ],
)
async def test_a_password_is_made_when_it_is_missing(
    stage: Callable[[], Any], fleet: dict[str, Any], reason: PasswordReason, made: bool
) -> None:
    password = (await decided(await stage(), fleet)).password
    assert (password.reason, bool(password.made)) == (reason, made)


@pytest.mark.parametrize(
    ("objects", "fleet", "part", "reason"),
    [
        pytest.param((), SUPPORT, "gateway", PartReason.WRITTEN, id="a gateway waits for no model"),
        pytest.param(
            (), agent_fleet(**OF_THE_USERS), "gateway", PartReason.QUEUE_UNUSABLE, id="no address of Redis"
        ),
        pytest.param((), SECURED, "gateway", PartReason.CERTIFICATE_MISSING, id="no certificate"),
        pytest.param((), CALLED, "gateway", PartReason.SECRET_FOR_OTHERS, id="keys of other callers"),
        pytest.param((served_model(),), SUPPORT, "workers", PartReason.WRITTEN, id="the model is known"),
        pytest.param((), SUPPORT, "workers", PartReason.NOT_WIRED, id="the model is not known"),
        pytest.param((), SUPPORT, "redis", PartReason.WRITTEN, id="Redis waits for nothing"),
        pytest.param((), SANDBOXED_REDIS, "redis", PartReason.CLASS_MISSING, id="no class of Redis' pod"),
        pytest.param(
            (runtime_class(),), SANDBOXED_REDIS, "redis", PartReason.WRITTEN, id="the class is there"
        ),
    ],
)
async def test_a_part_is_written_once_it_can_be_configured(
    objects: tuple[dict[str, Any], ...], fleet: dict[str, Any], part: str, reason: PartReason
) -> None:
    callers = {"alice": "x", ANNOTATION: "AgentFleet/billing"}
    decision = await decided(Stage(*objects, callers=callers), fleet)
    assert getattr(decision, part) is reason


def worker_deployment(revision: str) -> dict[str, Any]:
    """The Deployment of an older revision's workers."""
    part = workloads.workers_of(OWNER, revision)
    metadata = {**part.metadata(), "uid": f"uid-{revision}"}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": {"replicas": 1}}


def unready_pod(revision: str) -> dict[str, Any]:
    labels = workloads.workers_of(OWNER, revision).labels
    metadata = {"name": "w-1", "namespace": "default", "uid": "uid-w-1", "labels": labels}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {**metadata, "creationTimestamp": "2026-05-01T11:59:00Z"},
        "spec": {"containers": []},
    }


KEYS = {"gateway": {"auth": {"mode": "Secret", "secretRef": {"name": "callers"}}}}


@pytest.mark.holds(
    "architecture.md", "Objects are looked at after 75 s for their Secrets, after 10 s while one is missing"
)
@pytest.mark.parametrize(
    ("objects", "spec", "reason", "seconds"),
    [
        pytest.param((served_model(),), {}, LookReason.SETTLED, 75, id="what gateways report wakes it"),
        pytest.param((), {}, LookReason.SETTLED, 75, id="a model that appears wakes it"),
        pytest.param((served_model(),), KEYS, LookReason.SECRET_MISSING, 10, id="secrets are not watched"),
        pytest.param(
            (served_model(), worker_deployment("old")),
            {},
            LookReason.REVISION_ENDS,
            75,
            id="a roll is long",
        ),
        pytest.param(
            (served_model(), worker_deployment("old")),
            {"update": {"deadlineSeconds": 30}},
            LookReason.REVISION_ENDS,
            30,
            id="its deadline is near",
        ),
        pytest.param(
            (served_model(), worker_deployment("old"), unready_pod("old")),
            {},
            LookReason.WORKERS_UNREADY,
            10,
            id="nobody tells of a crash loop",
        ),
    ],
)
async def test_a_fleet_is_looked_at_again(
    objects: tuple[dict[str, Any], ...], spec: dict[str, Any], reason: LookReason, seconds: float
) -> None:
    decision = await decided(Stage(*objects), agent_fleet(**spec))
    assert (decision.look, decision.look_again_seconds) == (reason, seconds)


async def test_nothing_is_decided_about_a_deleted_fleet() -> None:
    observed, plan = await running().look(DELETED)
    assert decide(observed, NOW) is None
    assert (plan.writes, plan.status, plan.look_again_seconds) == ((), None, None)


async def test_a_decision_says_what_to_remember_of_the_password() -> None:
    stage = await running_without_its_password()
    first = await decided(stage, SUPPORT)
    stage.now += timedelta(seconds=5)
    second = await decided(stage, SUPPORT)
    assert first.memory.password is not None
    assert second.memory.password is not None
    assert first.memory.password.lost_at == second.memory.password.lost_at == NOW


def test_what_records_the_password_in_a_pod_template_is_read_back() -> None:
    redis = stateful_set()
    made = "2026-05-01T12:05:00Z"
    assert password_made(live_object(with_password_made(redis, made))) == made
    assert password_made(live_object(with_password_made(redis, None))) is None
    assert password_made(None) is None


def stateful_set() -> dict[str, Any]:
    (redis,) = [
        one
        for one in workloads.redis_manifests(OWNER, spec_of().queue.redis, IMAGES, digests={})
        if one["kind"] == "StatefulSet"
    ]
    return {**redis, "metadata": {**redis["metadata"], "uid": "uid-redis"}}
