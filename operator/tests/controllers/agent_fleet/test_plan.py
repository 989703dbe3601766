"""Plans of a fleet's controller from observed values: conditions, writes, figures; no server.

The real loop against a real API server is in test_apiserver.py; objects in workloads/test_agent_fleet.py.
"""

import base64
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from flotilla_operator.autoscaling.revisions import RevisionsDecision
from flotilla_operator.cluster.caches import Caches
from flotilla_operator.cluster.queue import KeyedQueue
from flotilla_operator.cluster.writes import Apply, Create, Delete, JsonPatch
from flotilla_operator.controllers.agent_fleet.controller import AgentFleetController
from flotilla_operator.controllers.agent_fleet.decide import decide
from flotilla_operator.controllers.agent_fleet.figures import bottleneck
from flotilla_operator.controllers.agent_fleet.memory import Memory
from flotilla_operator.controllers.agent_fleet.reasons import Reason
from flotilla_operator.controllers.agent_fleet.seen import Observed
from flotilla_operator.controllers.agent_fleet.steering import steering_of
from flotilla_operator.controllers.controller import World
from flotilla_operator.controllers.steering import SteeringLoop
from flotilla_operator.objects.resources import AGENT_FLEETS, SECRETS, key_of, resource_of
from flotilla_operator.telemetry.measurements import Answered, Measurement, Measurements
from flotilla_operator.workloads import agent_fleet as workloads
from flotilla_operator.workloads.agent_fleet.pods import gateway_config
from flotilla_operator.workloads.labels import Child
from flotilla_runtime import contract
from leaks.planted import planted
from tests.builders.agent_fleet import (
    OWNER,
    agent_fleet,
    served_index,
    served_model,
    worker_of,
)
from tests.builders.world import CONFIG, Entries, NoneIsGone, Secrets
from tests.cluster.test_queue import HandClock
from tests.support.planned import Plan, plan_by

NOW = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
WORKER = worker_of(agent_fleet())
REDIS_SECRETS: dict[str, Entries] = {
    "support-redis": {"password": planted("hush")},
    "support-redis-users": {"gateway": planted("hush-g"), "worker": planted("hush-w")},
}
IDLE = contract.FleetStatus(fleet="default/support", waiting=0, in_flight=0)
FULL = contract.Admission(most=16, limit=contract.AdmissionLimit.WARM_KV, model="llama", warm=16)


class Stage:
    """A controller with a world to look at."""

    def __init__(self, *objects: dict[str, Any], **secrets: Entries) -> None:
        self.now = NOW
        named = (one for one in objects if one["kind"] == "AgentFleet")
        self.fleet = next(named, agent_fleet())
        self.controller = AgentFleetController()
        self.config = CONFIG
        self.caches = Caches.of(*objects)
        self.measurements = Measurements()
        self.secrets = Secrets(secrets, controller_uid=OWNER.uid)
        self.queue = KeyedQueue(timer=HandClock())
        self.steering = SteeringLoop(
            self.measurements,
            self.queue,
            figures_interval_seconds=10.0,
            now=lambda: self.now,
            monotonic=lambda: 0.0,
        )

    async def look(self, fleet: dict[str, Any]) -> tuple[Observed, Plan]:
        """A reconcile after the steering loop has decided on what the gateways report."""
        world = World(
            caches=self.caches,
            measurements=self.measurements,
            config=self.config,
            secrets=self.secrets,
            decisions=self.steering,
            absent_nodes=NoneIsGone(),
            steady=lambda: 0.0,
        )
        key = key_of(AGENT_FLEETS, fleet)
        observed = await self.controller.observe(key, fleet, world, self.now)
        self.steering.follow(key, steering_of(observed, decide(observed, self.now)))
        decided = self.steering.last(OWNER.uid)
        assert decided is None or isinstance(decided, RevisionsDecision)
        observed = replace(observed, scaled=decided)
        return observed, plan_by(self.controller, observed, self.now)

    async def plan(self, fleet: dict[str, Any]) -> Plan:
        return (await self.look(fleet))[1]

    def report(self, figures: contract.FleetStatus) -> None:
        """A gateway pod that says this."""
        self.put(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {
                    "name": "support-gateway-1",
                    "namespace": "default",
                    "uid": "uid-pod",
                    "labels": workloads.gateway(OWNER).labels,
                },
                "status": {"podIP": "fd00::7"},
            }
        )
        document = figures.model_dump(by_alias=True)
        self.measurements.record("uid-pod", Measurement(at=self.now, document=document))

    def put(self, manifest: dict[str, Any]) -> None:
        self.caches.store(resource_of(manifest)).put(manifest)

    def run(self, kind: str, part: str, ready: int, replicas: int = 1, *, gives: str = "") -> None:
        """A Deployment or StatefulSet of the fleet with so many ready pods.

        Gateways give new tasks the revision `gives`.
        """
        component, _, revision = part.partition("-")
        child = Child(owner=OWNER, component=component, suffix=part, revision=revision or None)
        annotations = {"flotilla.dev/revision": gives} if gives else {}
        counts = {"replicas": replicas, "updatedReplicas": replicas, "readyReplicas": ready}
        self.put(
            {
                "apiVersion": "apps/v1",
                "kind": kind,
                "metadata": {**child.metadata(), "uid": f"uid-{part}"},
                "spec": {"replicas": replicas, "template": {"metadata": {"annotations": annotations}}},
                "status": counts,
            }
        )

    def everything_runs(self) -> None:
        self.secrets.entries = {**REDIS_SECRETS, **self.secrets.entries}
        self.run("StatefulSet", "redis", 1)
        redis = {**workloads.redis(OWNER).metadata(), "uid": "uid-redis-config"}
        self.put({"apiVersion": "v1", "kind": "ConfigMap", "metadata": redis, "data": {}})
        worker = worker_of(self.fleet)
        self.run("Deployment", "gateway", 2, 2, gives=worker.removeprefix("worker-"))
        self.run("Deployment", worker, 0, 0)
        self.report(IDLE)


def condition(plan: Plan, condition_type: str) -> dict[str, Any]:
    assert plan.status is not None
    found: dict[str, Any] = next(c for c in plan.status["conditions"] if c["type"] == condition_type)
    return found


def written(plan: Plan) -> list[str]:
    return [
        f"{write.manifest['kind']} {write.manifest['metadata']['name']}"
        for write in plan.writes
        if isinstance(write, Apply | Create)
    ]


async def test_a_new_fleet_gets_everything_at_once_when_its_model_is_there() -> None:
    plan = await Stage(served_model()).plan(agent_fleet())
    assert written(plan) == [
        "Secret support-redis",
        "Secret support-redis-users",
        "PersistentVolumeClaim support-redis",
        "ConfigMap support-redis",
        "Service support-redis",
        "NetworkPolicy support-redis",
        "StatefulSet support-redis",
        "ConfigMap support-gateway",
        "Service support-gateway",
        "NetworkPolicy support-gateway",
        "PodDisruptionBudget support-gateway",
        "ServiceAccount support-gateway",
        "Deployment support-gateway",
        f"ConfigMap support-{WORKER}",
        "NetworkPolicy support-worker",
        f"Deployment support-{WORKER}",
    ]
    assert condition(plan, "Ready")["status"] == "False"
    assert condition(plan, "Reconciling")["status"] == "True"
    assert condition(plan, "QueueReady")["reason"] == Reason.REDIS_STARTING
    assert condition(plan, "GatewayReady")["reason"] == Reason.GATEWAY_STARTING


async def test_an_answer_of_a_gateway_that_cannot_be_read_is_unknown_figures() -> None:
    stage = Stage(served_model())
    stage.everything_runs()
    stage.measurements.record("uid-pod", Measurement(at=NOW, document={"waiting": "many"}))
    observed, plan = await stage.look(agent_fleet())
    assert observed.figures is None
    assert plan.status is not None
    assert "tasks" not in plan.status
    assert condition(plan, "SpecValid")["status"] == "True"


async def test_a_fleet_whose_parts_run_is_ready() -> None:
    stage = Stage(served_model(), served_index())
    stage.everything_runs()
    plan = await stage.plan(agent_fleet(indexes=[{"name": "h", "indexRef": {"name": "handbook"}}]))
    assert condition(plan, "Ready")["status"] == "True"
    assert condition(plan, "ModelsReady")["reason"] == Reason.MODELS_AVAILABLE
    assert condition(plan, "IndexesReady")["reason"] == Reason.INDEXES_SERVED
    assert condition(plan, "WorkersReady")["reason"] == Reason.NO_TASKS
    assert condition(plan, "QueueReady")["reason"] == Reason.REDIS_AVAILABLE
    assert condition(plan, "GatewayReady")["reason"] == Reason.TOKENS_IN_CLEAR
    assert plan.status is not None
    assert plan.status["url"] == "http://support-gateway.default.svc:8080"
    assert plan.status["ready"] == "3/3"
    assert plan.status["bottleneck"] == "None"
    assert stage.secrets.asked == ["support-redis", "support-redis-users"]


@pytest.mark.holds("tasks.md", "With `gateway.tls` the port is named `https`, and `status.url` says so")
@pytest.mark.holds(
    "tasks.md", "While the certificate is missing the gateways that run stay, and a condition says so"
)
async def test_a_fleet_without_its_certificate_keeps_the_gateway_that_runs() -> None:
    stage = Stage(served_model())
    stage.everything_runs()
    fleet = agent_fleet(gateway={"tls": {"secretRef": {"name": "tls"}}})
    before = await stage.plan(fleet)
    assert not any("gateway" in name for name in written(before))
    assert before.look_again_seconds == 10
    stage.secrets.entries = {**stage.secrets.entries, "tls": {"tls.crt": "x", "tls.key": "y"}}
    after = await stage.plan(fleet)
    assert "Deployment support-gateway" in written(after)
    assert after.status is not None
    assert after.status["url"] == "https://support-gateway.default.svc:8080"


@pytest.mark.holds(
    "tasks.md",
    "A pair that cannot be used is told, the one before stays, and a new gateway waits for a good one",
)
async def test_what_a_gateway_says_of_its_certificate_wakes_the_fleet() -> None:
    stage = Stage(served_model(), tls={"tls.crt": "x", "tls.key": "y"})
    stage.everything_runs()
    fleet = agent_fleet(gateway={"tls": {"secretRef": {"name": "tls"}}})
    observed, _ = await stage.look(fleet)
    steering = steering_of(observed, decide(observed, NOW))
    problem = IDLE.model_copy(update={"certificate_problem": "the key is of another certificate"})

    def told(figures: contract.FleetStatus) -> Any:
        return steering.step([Answered(at=NOW, answer=figures)], None, NOW).figures

    assert told(IDLE) == told(IDLE)
    assert told(IDLE) != told(problem)


async def test_a_fleet_recovers_when_its_model_appears() -> None:
    stage = Stage()
    fleet = agent_fleet()
    before = await stage.plan(fleet)
    assert not any("worker" in name for name in written(before))
    assert "Deployment support-gateway" in written(before)
    stage.put(served_model())
    after = await stage.plan(fleet)
    assert f"Deployment support-{WORKER}" in written(after)
    assert condition(after, "ModelsReady")["status"] == "True"


async def test_workers_that_run_are_left_alone_while_a_model_is_gone() -> None:
    stage = Stage()
    stage.everything_runs()
    stage.run("Deployment", WORKER, 2, 2)
    plan = await stage.plan(agent_fleet())
    assert not any("worker" in name for name in written(plan))
    assert condition(plan, "ModelsReady")["status"] == "False"


async def test_a_fleet_looks_again_sooner_while_a_secret_is_missing() -> None:
    """A model that is missing wakes the fleet when it comes; secrets are not watched."""
    assert (await Stage().plan(agent_fleet())).look_again_seconds == 75
    fleet = agent_fleet(gateway={"auth": {"mode": "Secret", "secretRef": {"name": "callers"}}})
    assert (await Stage(served_model()).plan(fleet)).look_again_seconds == 10
    keys = Stage(served_model(), callers={"alice": "k"})
    assert (await keys.plan(fleet)).look_again_seconds == 75


@pytest.mark.holds(
    "tasks.md",
    "Workers are ceil((waiting + in flight) / concurrency), at once upwards, after a quiet minute downwards",
)
async def test_workers_follow_the_queue() -> None:
    stage = Stage(served_model())
    stage.everything_runs()
    fleet = agent_fleet(workers={"concurrency": 10, "maxReplicas": 3})
    stage.report(IDLE.model_copy(update={"waiting": 15, "in_flight": 2}))
    plan = await stage.plan(fleet)
    (workers,) = [
        write.manifest
        for write in plan.writes
        if isinstance(write, Apply)
        and write.manifest["metadata"]["name"] == f"support-{WORKER}"
        and write.manifest["kind"] == "Deployment"
    ]
    assert workers["spec"]["replicas"] == 2
    assert plan.status is not None
    assert plan.status["workers"] == {"desired": 2, "ready": 0}
    assert plan.status["tasks"]["waiting"] == 15
    assert condition(plan, "WorkersReady")["reason"] == Reason.WORKERS_STARTING
    assert plan.look_again_seconds == 75
    stage.run("Deployment", WORKER, 2, 2)
    assert condition(await stage.plan(fleet), "WorkersReady")["reason"] == Reason.WORKERS_AVAILABLE


async def test_the_password_is_made_once_and_kept_out_of_sight() -> None:
    stage = Stage(served_model())
    observed, plan = await stage.look(agent_fleet())
    created, users = [write.manifest for write in plan.writes if isinstance(write, Create)]
    password = base64.b64decode(created["data"]["password"]).decode()
    assert base64.b64decode(created["data"]["password.conf"]).decode() == f'requirepass "{password}"\n'
    of_users = [base64.b64decode(users["data"][name]).decode() for name in ("gateway", "worker")]
    assert all(len(one) >= 40 for one in (password, *of_users))
    assert len({password, *of_users}) == 3
    assert not any(one in repr(observed) for one in (password, *of_users))
    stage.secrets.entries = REDIS_SECRETS
    assert not any(isinstance(write, Create) for write in (await stage.plan(agent_fleet())).writes)


async def test_a_settled_fleet_asks_for_its_password_once_a_sweep() -> None:
    stage = Stage(served_model(), agent_fleet())
    stage.everything_runs()
    for _ in range(61):
        await stage.plan(agent_fleet())
        stage.now += timedelta(seconds=5)
    assert stage.secrets.asked == 2 * ["support-redis", "support-redis-users"]


@pytest.mark.parametrize(
    "config",
    [
        pytest.param({}, id="the rights of before, which are in the secrets, as after an upgrade"),
        pytest.param(
            {
                workloads.CONFIG_FILE: "".join(
                    f"user {one} on #{'e' * 64} ~x\n" for one in workloads.REDIS_USERS
                )
            },
            id="passwords of somebody who may edit ConfigMaps",
        ),
    ],
)
async def test_the_rights_of_redis_users_come_from_the_secrets_and_never_from_its_configuration(
    config: dict[str, str],
) -> None:
    stage = Stage(served_model(), agent_fleet())
    stage.everything_runs()
    known = {**workloads.redis(OWNER).metadata(), "uid": "u"}
    stage.put({"apiVersion": "v1", "kind": "ConfigMap", "metadata": known, "data": config})
    passwords = {name: str(REDIS_SECRETS["support-redis-users"][name]) for name in workloads.REDIS_USERS}
    digests = workloads.digests_of(passwords)
    for _ in range(2):
        observed, plan = await stage.look(agent_fleet())
        assert observed.redis_digests == digests
        (written_config,) = [
            write.manifest["data"][workloads.CONFIG_FILE]
            for write in plan.writes
            if isinstance(write, Apply)
            and (write.manifest["kind"], write.manifest["metadata"]["name"]) == ("ConfigMap", "support-redis")
        ]
        assert all(f"user {user} on #{digest} " in written_config for user, digest in digests.items())
        stage.now += timedelta(seconds=5)
    assert stage.secrets.asked == ["support-redis", "support-redis-users"], "the second time from memory"


def rolled(plan: Plan) -> dict[str, str | None]:
    """Passwords in the pods of each part."""
    return {
        write.manifest["metadata"]["name"]: write.manifest["spec"]["template"]["metadata"]["annotations"].get(
            "flotilla.dev/password-made"
        )
        for write in plan.writes
        if isinstance(write, Apply) and write.manifest["kind"] in ("Deployment", "StatefulSet")
    }


async def test_a_password_that_was_deleted_is_made_anew_and_everything_that_has_it_starts_again() -> None:
    stage = Stage(served_model(), agent_fleet())
    stage.everything_runs()
    assert set(rolled(await stage.plan(agent_fleet())).values()) == {None}
    stage.secrets.entries = {}
    stage.now += timedelta(seconds=300)
    plan = await stage.plan(agent_fleet())
    assert condition(plan, "QueueReady")["reason"] == Reason.PASSWORD_LOST
    assert "support-redis" in condition(plan, "QueueReady")["message"]
    assert set(rolled(plan)) == {"support-redis", "support-gateway", f"support-{WORKER}"}
    assert set(rolled(plan).values()) == {"2026-05-01T12:05:00Z"}
    assert isinstance(plan.writes[-1], Create), "a crash before it finds the password missing again"
    stage.now += timedelta(seconds=5)
    assert set(rolled(await stage.plan(agent_fleet())).values()) == {"2026-05-01T12:05:00Z"}

    stage.secrets.entries = REDIS_SECRETS
    redis = next(
        w.manifest for w in plan.writes if isinstance(w, Apply) and w.manifest["kind"] == "StatefulSet"
    )
    status = {"readyReplicas": 1}
    metadata = {**redis["metadata"], "uid": "uid-redis", "ownerReferences": [OWNER.reference]}
    stage.put({**redis, "metadata": metadata, "status": status})
    for minutes in (1, 60):
        stage.now += timedelta(minutes=minutes)
        after = await stage.plan(agent_fleet())
        assert set(rolled(after).values()) == {"2026-05-01T12:05:00Z"}
        assert condition(after, "QueueReady")["reason"] == Reason.REDIS_AVAILABLE
        assert not any(isinstance(write, Create) for write in after.writes)


async def test_a_first_password_that_is_refused_is_asked_for_again_and_is_not_lost() -> None:
    stage = Stage(served_model())
    for _ in range(2):
        plan = await stage.plan(agent_fleet())
        assert isinstance(plan.writes[0], Create)
        assert condition(plan, "QueueReady")["reason"] == Reason.REDIS_STARTING
        assert set(rolled(plan).values()) == {None}
        stage.now += timedelta(seconds=20)
    stage.run("StatefulSet", "redis", 0)
    lost = await stage.plan(agent_fleet())
    assert condition(lost, "QueueReady")["reason"] == Reason.PASSWORD_LOST, "Redis is only made with one"
    assert isinstance(lost.writes[-1], Create)


async def test_the_password_of_a_deleted_fleet_is_not_this_one_s_and_nothing_starts_with_it() -> None:
    stage = Stage(served_model())
    stage.secrets.entries = REDIS_SECRETS
    stage.secrets.controller_uid = "uid-before"
    for _ in range(2):
        plan = await stage.plan(agent_fleet())
        created = {SECRETS.ref_to(one.manifest) for one in plan.writes if isinstance(one, Create)}
        assert len(created) == 2
        need_it = {
            write.manifest["metadata"]["name"]
            for write in plan.writes
            if isinstance(write, Apply) and created <= write.needs
        }
        assert need_it == {"support-redis", "support-gateway", f"support-{WORKER}"}
        stage.now += timedelta(seconds=3)


@pytest.mark.holds(
    "decisions/0003-redis-for-tasks.md",
    "Pods of a release before users go on with the password that they have",
)
async def test_a_redis_from_before_users_gets_theirs_and_keeps_its_password() -> None:
    """An upgrade: pods from before go on with the password that they have, and nothing is said to be lost."""
    stage = Stage(served_model())
    stage.everything_runs()
    stage.secrets.entries = {"support-redis": {"password": planted("hush")}}
    plan = await stage.plan(agent_fleet())
    (created,) = (write.manifest for write in plan.writes if isinstance(write, Create))
    assert created["metadata"]["name"] == "support-redis-users"
    assert plan.writes[0] == Create(manifest=created), "before the pods that mount it"
    assert set(rolled(plan).values()) == {None}
    assert condition(plan, "QueueReady")["reason"] == Reason.REDIS_AVAILABLE


async def test_users_that_were_lost_are_made_anew() -> None:
    stage = Stage(served_model())
    stage.everything_runs()
    plan = await stage.plan(agent_fleet())
    (redis,) = (
        one.manifest
        for one in plan.writes
        if isinstance(one, Apply) and one.manifest["kind"] == "StatefulSet"
    )
    metadata = {**redis["metadata"], "uid": "uid-redis", "ownerReferences": [OWNER.reference]}
    stage.put({**redis, "metadata": metadata, "status": {"readyReplicas": 1}})
    stage.secrets.entries = {"support-redis": {"password": planted("hush")}}
    stage.now += timedelta(seconds=300)
    plan = await stage.plan(agent_fleet())
    assert condition(plan, "QueueReady")["reason"] == Reason.PASSWORD_LOST
    assert "support-redis-users" in condition(plan, "QueueReady")["message"]
    assert isinstance(plan.writes[-1], Create)
    assert set(rolled(plan).values()) == {"2026-05-01T12:05:00Z"}


def claim(**metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": "support-redis",
            "namespace": "default",
            "uid": "uid-claim",
            "resourceVersion": "5",
            "labels": workloads.redis(OWNER).labels,
            **metadata,
        },
    }


@pytest.mark.parametrize(
    ("live", "policy", "patched_to"),
    [
        pytest.param(claim(), "Retain", None, id="kept stays kept"),
        pytest.param(claim(), "Delete", [OWNER.reference], id="kept, to be deleted with the fleet"),
        pytest.param(
            claim(ownerReferences=[OWNER.reference]), "Retain", [], id="to be deleted, now to be kept"
        ),
        pytest.param(claim(ownerReferences=[OWNER.reference]), "Delete", None, id="deleted stays so"),
        pytest.param(claim(labels={}), "Delete", None, id="somebody else's is refused by the writer"),
    ],
)
async def test_a_changed_deletion_policy_reaches_the_claim(
    live: dict[str, Any], policy: str, patched_to: list[dict[str, Any]] | None
) -> None:
    plan = await Stage(served_model(), live).plan(agent_fleet(queue={"redis": {"deletionPolicy": policy}}))
    patches = [write for write in plan.writes if isinstance(write, JsonPatch)]
    if patched_to is None:
        (applied,) = [
            write
            for write in plan.writes
            if isinstance(write, Apply) and write.manifest["kind"] == "PersistentVolumeClaim"
        ]
        assert applied.retained is (policy == "Retain")
        assert patches == []
    else:
        (patch,) = patches
        assert patch.operations[0]["value"] == patched_to


@pytest.mark.holds(
    "install.md", "`QueueReady` is False with `RedisUnreachable` while gateways cannot use Redis"
)
async def test_with_a_redis_of_the_users_ours_goes_and_the_claim_stays() -> None:
    stage = Stage(served_model(), claim(), redis={"url": "redis://elsewhere:6379"})
    stage.everything_runs()
    fleet = agent_fleet(queue={"redis": {"mode": "External", "urlSecretRef": {"name": "redis"}}})
    plan = await stage.plan(fleet)
    gone = {write.ref.plural for write in plan.writes if isinstance(write, Delete)}
    assert gone == {"statefulsets", "configmaps"}
    assert not any("redis" in name for name in written(plan))
    assert condition(plan, "QueueReady")["status"] == "True"
    stage.measurements.forget("uid-pod")
    plan = await stage.plan(fleet)
    assert condition(plan, "QueueReady")["reason"] == Reason.REDIS_UNREACHABLE


@pytest.mark.holds("agents.md", "`status.cacheHitRate` is the share that the cache answered")
@pytest.mark.holds(
    "tasks.md", "A failed task is kept with its journal for `queue.deadLetterTTLSeconds`, and counted"
)
@pytest.mark.holds("tasks.md", "The operator reads the gateways' `/v1/status`")
async def test_figures_become_the_status() -> None:
    stage = Stage(served_model())
    stage.everything_runs()
    stage.report(
        IDLE.model_copy(
            update={
                "ended": {"Completed": 30, "ModelFailed": 8, "Cancelled": 2},
                "recovered": 3,
                "tokens": 12_345,
                "cost_usd": 1.0,
                "suspended": 2,
                "waiting_for_approval": 1,
                "dead_letters": 9,
                "used_mib": 12.345,
                "limit_mib": 300.0,
                "replicas": 1,
                "admission": FULL,
                "p50_seconds": 1.2345,
                "p95_seconds": 9.876,
                "cache_hits": 30,
                "cache_misses": 10,
            }
        )
    )
    plan = await stage.plan(agent_fleet())
    assert plan.status is not None
    assert plan.status["tasks"] == {
        "waiting": 0,
        "running": 0,
        "suspended": 2,
        "admitted": 16,
        "succeeded1h": 30,
        "failed1h": 8,
        "recovered1h": 3,
        "unknownEffects": 0,
        "waitingForApproval": 1,
        "deadLetters": 9,
    }
    assert plan.status["latency"] == {"p50Seconds": 1.2, "p95Seconds": 9.9, "waitP95Seconds": None}
    assert (plan.status["goodputPerMinute"], plan.status["successRate"]) == (0.5, 0.789)
    assert (plan.status["tokensPerTask"], plan.status["costPerTaskUSD"]) == (309, 0.025)
    assert plan.status["cacheHitRate"] == 0.75
    assert plan.status["store"] == {"usedMiB": 12.0, "limitMiB": 300.0, "replicas": 1}


async def test_figures_that_are_unknown_are_left_out() -> None:
    plan = await Stage(served_model()).plan(agent_fleet())
    assert plan.status is not None
    assert not {"tasks", "latency", "bottleneck", "successRate"} & set(plan.status)


@pytest.mark.holds("agents.md", "`status.bottleneck` names the rate limit for which calls wait most")
@pytest.mark.holds(
    "tasks.md", "No workers are started for tasks that admission holds back, and `bottleneck` names the model"
)
@pytest.mark.parametrize(
    ("figures", "named"),
    [
        pytest.param({}, "None", id="nothing waits"),
        pytest.param({"busy_seconds": {"Queue": 1, "Model/a": 99}}, "None", id="hardly any wait"),
        pytest.param(
            {"waiting": 5, "busy_seconds": {"Queue": 50, "Model/a": 40, "Index/b": 10}},
            "Model/a",
            id="the slowest",
        ),
        pytest.param(
            {"busy_seconds": {"Queue": 50, "Model/a": 10, "Index/b": 40}}, "Index/b", id="waited, not now"
        ),
        pytest.param(
            {"busy_seconds": {"Model/a": 40, "RateLimit/openai": 60}},
            "RateLimit/openai",
            id="calls waited for their turn, and no task in the queue",
        ),
        pytest.param(
            {"waiting": 5, "in_flight": 4000, "busy_seconds": {"Model/a": 40, "RateLimit/openai": 60}},
            "RateLimit/openai",
            id="workers that are full of calls that wait for their turn",
        ),
        pytest.param(
            {"busy_seconds": {"Model/a": 99, "RateLimit/openai": 1}}, "None", id="hardly any turn waited for"
        ),
        pytest.param(
            {"waiting": 5, "in_flight": 4000, "busy_seconds": {"Queue": 50, "Model/a": 40}},
            "Workers",
            id="every place of every worker is taken",
        ),
        pytest.param({"waiting": 5}, "Workers", id="nobody has begun"),
        pytest.param(
            {"waiting": 5, "in_flight": 16, "admission": FULL, "busy_seconds": {"Tool/a": 40}},
            "Model/llama",
            id="admission by a model holds tasks back",
        ),
        pytest.param(
            {"waiting": 5, "in_flight": 9, "admission": FULL, "busy_seconds": {"Tool/a": 40}},
            "Tool/a",
            id="there is room at the model",
        ),
        pytest.param(
            {"waiting": 5, "in_flight": 4000, "admission": FULL, "busy_seconds": {"Tool/a": 40}},
            "Workers",
            id="neither workers nor the model have room",
        ),
    ],
)
async def test_the_bottleneck_is_named_from_where_the_time_went(figures: dict[str, Any], named: str) -> None:
    observed, _ = await Stage(served_model()).look(agent_fleet())
    assert bottleneck(IDLE.model_copy(update=figures), observed.spec) == named


async def test_what_is_remembered_of_fleets_that_are_gone_is_dropped() -> None:
    memory, other = Memory(), agent_fleet("other")
    stage = Stage(served_model(), agent_fleet(), other)
    stage.controller = AgentFleetController(memory)
    for fleet in (agent_fleet(), other):
        await stage.plan(fleet)
    assert memory.fleets.keys() == {OWNER.uid, "uid-other"}
    stage.caches.store(AGENT_FLEETS).remove("default", "support", OWNER.uid)
    await stage.plan(other)
    assert memory.fleets.keys() == {"uid-other"}


async def test_news_is_told_once() -> None:
    stage = Stage(served_model(router={"authSecretRef": {"name": "keys"}}))
    fleet = agent_fleet()
    first = await stage.plan(fleet)
    assert [event.reason for event in first.events] == [Reason.SECRET_MISSING]
    assert (await stage.plan({**fleet, "status": first.status})).events == []


async def test_the_gateways_are_scraped_on_either_family() -> None:
    stage = Stage(served_model())
    stage.everything_runs()
    observed, _ = await stage.look(agent_fleet())
    (target,) = observed.targets
    assert (target.url, target.key) == ("http://[fd00::7]:9090/v1/status", "uid-pod")


def test_models_and_indexes_wake_the_fleet() -> None:
    fleet = agent_fleet(indexes=[{"name": "h", "indexRef": {"name": "handbook"}}])
    named = [(each.resource.kind, each.name) for each in AgentFleetController().references(fleet)]
    assert named == [("ModelReplicaSet", "llama"), ("VectorIndex", "handbook")]


async def test_a_models_address_name_and_context_reach_the_workers() -> None:
    stage = Stage(
        served_model(
            model={"name": "llama-70b"},
            engine={"maxModelLen": 32768},
            router={"authSecretRef": {"name": "keys"}},
        ),
        keys={"agentfleet-support": "k"},
    )
    observed, _ = await stage.look(agent_fleet())
    (model,) = observed.wiring.models
    assert model == contract.ModelConnection(
        role="Default",
        name="llama",
        url="http://llama-model.default.svc:8000/v1",
        model="llama-70b",
        context_tokens=32768,
        key_environment="FLOTILLA_MODEL_KEY_DEFAULT",
        tokenizes=True,
    )
    (key,) = observed.wiring.model_keys
    assert (key.name, key.key) == ("keys", "agentfleet-support")
    assert list(observed.wiring.secret_versions) == ["keys"]


@pytest.mark.holds(
    "tasks.md",
    "`maxOutputTokens` bounds each request for an answer, and an answer with all that continues it",
)
@pytest.mark.parametrize(
    "model",
    [
        pytest.param({"modelRef": {"name": "llama"}}, id="a replica set"),
        pytest.param({"endpoint": {"url": "http://models.example/v1", "model": "m"}}, id="an endpoint"),
    ],
)
@pytest.mark.parametrize("most", [300, None])
async def test_the_bound_of_answers_reaches_the_workers(model: dict[str, Any], most: int | None) -> None:
    stage = Stage(served_model())
    told = {} if most is None else {"maxOutputTokens": most}
    observed, _ = await stage.look(agent_fleet(models=[{"role": "Default", **model, **told}]))
    assert [one.max_output_tokens for one in observed.wiring.models] == [most]


@pytest.mark.holds(
    "tasks.md",
    "With `isolateTenants` a model finds in its cache what the same tenant has sent, and nothing "
    "else; without it callers are told no cached tokens",
)
@pytest.mark.parametrize(
    ("isolating", "told"),
    [
        pytest.param(("Default", "Routine"), True, id="every model that answers"),
        pytest.param(("Default",), False, id="one of two"),
        pytest.param((), False, id="none"),
    ],
)
async def test_callers_are_told_of_caches_only_where_every_model_isolates_tenants(
    isolating: tuple[str, ...], told: bool
) -> None:
    stage = Stage(served_model())
    models = [
        {"role": role, "modelRef": {"name": "llama"}, "isolateTenants": role in isolating}
        for role in ("Default", "Routine")
    ]
    embedder = {"role": "Embed", "endpoint": {"url": "http://models.example/v1", "model": "m"}}
    observed, _ = await stage.look(agent_fleet(models=[*models, embedder]))
    assert {one.role for one in observed.wiring.models if one.isolate_tenants} == set(isolating)
    gateway = gateway_config(observed.owner, observed.spec, observed.wiring, observed.images, "r1")
    assert gateway.isolates_tenants is told


@pytest.mark.holds(
    "router.md", "Fleets and builds go on over plain HTTP by an internal service that a NetworkPolicy guards"
)
async def test_a_model_that_serves_https_is_called_inside_the_cluster() -> None:
    stage = Stage(served_model(router={"tls": {"secretRef": {"name": "tls"}}}))
    observed, _ = await stage.look(agent_fleet())
    (model,) = observed.wiring.models
    assert model.url == "http://llama-model-internal.default.svc:8001/v1"


SEARCHING = agent_fleet(indexes=[{"name": "h", "indexRef": {"name": "handbook"}}])
CONNECTION = contract.IndexConnection(name="h", url="http://handbook-retriever.default.svc:8080/v1/retrieve")
KEY_PATH = "/var/run/flotilla/index-keys/h"


@pytest.mark.holds(
    "search.md",
    "Fleets have the generated key; in a Secret of the user's they need an entry `agentfleet-NAME`",
)
async def test_the_key_of_an_index_reaches_the_workers() -> None:
    stage = Stage(served_model(), served_index())
    observed, _ = await stage.look(SEARCHING)
    assert observed.wiring.indexes == (CONNECTION.model_copy(update={"key_path": KEY_PATH}),)
    (key,) = observed.wiring.index_keys
    assert (key.name, key.key, key.path) == ("handbook-retriever-key", "key", KEY_PATH)
    assert "handbook-retriever-key" not in stage.secrets.asked, "the index sees to its secret"


@pytest.mark.holds(
    "search.md",
    "Fleets have the generated key; in a Secret of the user's they need an entry `agentfleet-NAME`",
)
async def test_an_index_with_the_users_keys_needs_an_entry_for_the_fleet() -> None:
    index = served_index(keys={"secretName": "searchers", "required": True})
    index["spec"] = {"retriever": {"authSecretRef": {"name": "searchers"}}}
    stage = Stage(served_model(), index, searchers={"agentfleet-support": "k"})
    observed, plan = await stage.look(SEARCHING)
    (key,) = observed.wiring.index_keys
    assert (key.name, key.key) == ("searchers", "agentfleet-support")
    assert condition(plan, "IndexesReady")["status"] == "True"

    lacking = Stage(served_model(), index, searchers={"ann": "k"})
    lacking.everything_runs()
    plan = await lacking.plan(SEARCHING)
    assert not any("worker" in name for name in written(plan)), "workers stay as they are"
    assert condition(plan, "IndexesReady")["reason"] == Reason.SECRET_KEY_MISSING
    message = condition(plan, "IndexesReady")["message"]
    assert "spec.retriever.authSecretRef of VectorIndex 'handbook'" in message
    assert "has no entry 'agentfleet-support'; add it" in message
    assert plan.look_again_seconds == 10


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        pytest.param({"secretName": "admins", "entry": "password"}, "handbook-retriever-key", id="made"),
        pytest.param({"secretName": "admins"}, None, id="of the user's, of which the spec names none"),
    ],
)
async def test_the_status_of_an_index_gives_away_no_secret(
    keys: dict[str, Any], expected: str | None
) -> None:
    """A user who may write the status, and nothing else, gets no secret mounted, and none sent elsewhere."""
    index = served_index(keys={**keys, "required": True}, url="http://evil.example.com/v1/retrieve")
    observed, _ = await Stage(served_model(), index, admins={"password": planted("s3cret")}).look(SEARCHING)
    assert [key.name for key in observed.wiring.index_keys] == ([expected] if expected else [])
    assert all(one.url == CONNECTION.url for one in observed.wiring.indexes)
    assert observed.wiring.complete is (expected is not None)


@pytest.mark.holds("search.md", "A paused index stays as it is, and its fleets send no key")
async def test_an_index_of_an_older_release_is_searched_without_a_key() -> None:
    stage = Stage(served_model(), served_index(keys=None))
    observed, plan = await stage.look(SEARCHING)
    assert observed.wiring.indexes == (CONNECTION,)
    assert observed.wiring.index_keys == ()
    assert f"Deployment support-{worker_of(SEARCHING)}" in written(plan)


async def test_gateways_are_told_what_the_models_have_room_for() -> None:
    set_of_two = served_model(engine={"maxNumSeqs": 5})
    set_of_two["status"] |= {
        "readyReplicas": 2,
        "capacity": {"sequencesPerReplica": 8.0, "sequenceTokens": 4096},
    }
    endpoint = {"url": "https://api.example/v1", "model": "large"}
    models = [
        {"role": "Default", "modelRef": {"name": "llama"}, "contextTokens": 2048},
        {"role": "Routine", "endpoint": endpoint},
    ]
    plan = await Stage(set_of_two).plan(agent_fleet(models=models))
    (gateway,) = [
        write.manifest
        for write in plan.writes
        if isinstance(write, Apply)
        and write.manifest["kind"] == "ConfigMap"
        and write.manifest["metadata"]["name"] == "support-gateway"
    ]
    told = contract.FleetCapacity.model_validate_json(gateway["data"][contract.CAPACITY_FILE])
    assert told.models == (
        contract.ModelCapacity(name="llama", context_tokens=2048, kv_tokens=65_536, slots=10),
    ), "nothing is known of an endpoint"


async def test_workers_follow_what_admission_lets_run() -> None:
    stage = Stage(served_model())
    stage.everything_runs()
    stage.report(IDLE.model_copy(update={"waiting": 90, "in_flight": 16, "admission": FULL}))
    plan = await stage.plan(agent_fleet(workers={"concurrency": 10, "maxReplicas": 9}))
    assert plan.status is not None
    assert plan.status["workers"]["desired"] == 2
    assert plan.status["bottleneck"] == "Model/llama"
