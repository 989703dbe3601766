"""A status field says "Not yet reported" exactly when nothing writes it, and no column shows such a field.

The controllers settle the objects of test_fields_that_act.py, which covers most fields. The scenes below make
the operator write the rest: waiting, failing, rebalancing and loaded sets, and a fleet whose gateway reports.
Whether the figures are right is tested with the controllers.
"""

import asyncio
import functools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

import pytest

from flotilla_operator.api.annotations import ANNOTATION_REBALANCE
from flotilla_operator.api.kinds import KINDS, Kind
from flotilla_operator.api.schema import not_reported
from flotilla_operator.cluster.writes import Create
from flotilla_operator.objects.refused_writes import RefusedWrite, WriteReason
from flotilla_operator.objects.resources import MODEL_REPLICA_SETS, PODS
from flotilla_operator.replicas.facts import RouterLoad
from flotilla_operator.replicas.revisions.answers import Answers
from flotilla_runtime import contract
from tests.api.test_fields_that_act import CONTROLLERS, NOW, ROUNDS, objects_of, surroundings
from tests.builders import agent_fleet
from tests.builders.model_configs import GEMMA2_9B
from tests.builders.model_replica_set import gpu_set, model_replica_set
from tests.builders.placement import GPU, cluster, node, used
from tests.builders.pods import stage_pod, time_text
from tests.controllers.agent_fleet.test_decide import worker_deployment
from tests.controllers.agent_fleet.test_plan import Stage as FleetStage
from tests.controllers.model_replica_set.sized_sets import a_set, planned, started
from tests.controllers.model_replica_set.test_dry_runs import failing
from tests.controllers.model_replica_set.test_plan import member, observed, revision_of_set
from tests.support.planned import Plan, told_of_set
from tests.support.planned import plan_of_set as plan
from tests.support.schemas import fields
from tests.support.settling import SettlingCluster

Status = Mapping[str, Any]
by_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
RACK, ZONE = "topology.kubernetes.io/rack", "topology.kubernetes.io/zone"
TWO_RACKS = cluster(*(node(name, gpus=8, labels={RACK: name, ZONE: "z"}) for name in "ab"))
ANSWERS = Answers(count=40, failed=1, kept=38)


def stages_that_serve() -> Plan:
    """Two stages on two nodes: domain, packing, fragmentation, spread."""
    manifest = gpu_set(
        replicas=1,
        parallelism={"tensor": 4, "pipeline": 2},
        placement={"spreadReplicasAcross": ZONE},
    )
    revision = revision_of_set(manifest)
    pods = [
        stage_pod(stage, revision=revision, pin=name, node=name, ready=True, requests={GPU: "4"})
        for stage, name in enumerate("ab")
    ]
    return plan(observed(manifest, pods, snapshot=TWO_RACKS), NOW)


def more_that_wait_than_are_listed() -> Plan:
    full = cluster(node("a"), claims=(used("a", 8),))
    return plan(observed(gpu_set(replicas=60), snapshot=full), NOW)


def moves_asked_for() -> Plan:
    manifest = gpu_set(replicas=2)
    manifest["metadata"]["annotations"] = {ANNOTATION_REBALANCE: "show"}
    pods = [
        member(manifest, f"llama-{name}", node=name, pin=name, ready=True, server_id=number)
        for number, name in enumerate("ab", start=1)
    ]
    load = RouterLoad(waiting=0, running=0, sessions={"llama-a": 3, "llama-b": 5})
    return plan(observed(manifest, pods, load=load), NOW)


def a_trial_under_load() -> Plan:
    """Answers of both revisions, a trial, and every figure of the routers."""
    manifest = gpu_set(replicas=1, slo={"ttftSeconds": 2})
    rollout = {
        "revision": revision_of_set(manifest),
        "goodRevision": "old",
        "trialTime": time_text(60),
        "answersBeforeTrial": asdict(ANSWERS),
        "oldAnswers": asdict(ANSWERS),
    }
    load = RouterLoad(
        waiting=1,
        running=2,
        sessions={"llama-a": 3},
        answers={"llama-a": ANSWERS},
        arrivals_per_second=2.0,
        kept_per_second=1.9,
        kv_usage=0.4,
    )
    pods = [member(manifest, "llama-a", node="a", pin="a", ready=True)]
    return plan(observed({**manifest, "status": {"rollout": rollout}}, pods, load=load), NOW)


def an_update_that_failed() -> Plan:
    manifest = gpu_set(replicas=1)
    rollout = {
        "revision": revision_of_set(manifest),
        "goodRevision": "old",
        "outdatedReplicas": 1,
        "progressTime": time_text(1800),
    }
    pods = [member(manifest, "llama-old", node="a", pin="a", ready=True, revision="old")]
    return plan(observed({**manifest, "status": {"rollout": rollout}}, pods), NOW)


def a_roll_back_that_is_refused() -> Plan:
    seen = failing()
    refusal = RefusedWrite(
        ref=MODEL_REPLICA_SETS.ref_to(seen.manifest), reason=WriteReason.INVALID, message="no such prefix"
    )
    return Plan(status=told_of_set(seen, [refusal], NOW).status)


def a_replica_that_failed() -> Plan:
    manifest = gpu_set(replicas=1)
    return plan(observed(manifest, [member(manifest, "llama-a", node="a", pin="a", phase="Failed")]), NOW)


def pods_that_are_refused() -> Plan:
    seen = observed(gpu_set(replicas=1))
    (pod,) = (
        write.manifest
        for write in plan(seen, NOW).writes
        if isinstance(write, Create) and write.manifest["kind"] == PODS.kind
    )
    refusal = RefusedWrite(ref=PODS.ref_to(pod), reason=WriteReason.QUOTA_EXCEEDED, message="exceeded quota")
    return Plan(status=told_of_set(seen, [refusal], NOW).status)


def a_request_at_zero_replicas() -> Plan:
    manifest = model_replica_set(autoscaling={"minReplicas": 0, "maxReplicas": 1})
    seen = observed(manifest, load=RouterLoad(waiting=1, running=0, idle_seconds=0.0))
    return plan(seen, NOW)


def a_model_that_was_measured() -> Plan:
    manifest = a_set(
        model={"revision": "6f6073b"},
        engine={"maxModelLen": 8192},
        traffic={"sharedPrefixTokens": 1500},
    )
    pods = [started(manifest, "llama-a", age=110, ready_ago=10)]
    sized = planned(manifest, GEMMA2_9B)
    assert sized.status is not None
    held = {"capacity": sized.status["capacity"]}
    return plan(observed({**manifest, "status": held}, pods), NOW)


def a_gateway_that_reports() -> Plan:
    fleet = agent_fleet.agent_fleet(slo={}, paused=True)
    stage = FleetStage(agent_fleet.served_model(), fleet)
    stage.everything_runs()
    stage.put(worker_deployment("old"))
    stage.report(
        contract.FleetStatus(
            fleet="default/support",
            waiting=3,
            in_flight=2,
            suspended=1,
            admission=contract.Admission(most=16, limit=contract.AdmissionLimit.WARM_KV, model="llama"),
            cost_usd=0.2,
            cache_hits=3,
            cache_misses=1,
            used_mib=12.5,
            limit_mib=300.0,
            replicas=1,
            ended={"Completed": 9, "Timeout": 1},
            recovered=1,
            tokens=5000,
            p50_seconds=2.0,
            p95_seconds=8.0,
            wait_p95_seconds=1.0,
            busy_seconds={"Queue": 9.0, "Model/llama": 30.0},
            revisions={"old": contract.RevisionTasks(running=2)},
        )
    )
    return asyncio.run(stage.plan(fleet))


SCENES: Mapping[str, Iterable[Callable[[], Plan]]] = {
    "ModelReplicaSet": (
        stages_that_serve,
        more_that_wait_than_are_listed,
        moves_asked_for,
        a_trial_under_load,
        an_update_that_failed,
        a_roll_back_that_is_refused,
        a_replica_that_failed,
        pods_that_are_refused,
        a_request_at_zero_replicas,
        a_model_that_was_measured,
    ),
    "VectorIndex": (),
    "AgentFleet": (a_gateway_that_reports,),
}


@functools.cache
def statuses_of(kind: str) -> tuple[Status, ...]:
    return (*settled_statuses(kind), *(scene().status or {} for scene in SCENES[kind]))


def settled_statuses(kind: str) -> Iterator[Status]:
    for manifest in objects_of(kind):
        settled = SettlingCluster(*surroundings())
        asyncio.run(settled.settle(CONTROLLERS[kind](), manifest, NOW, ROUNDS))
        yield settled.objects[kind, manifest["metadata"]["name"]]["status"]


def paths_in(value: Any, path: str) -> Iterator[str]:
    """The paths of everything that is there; None is absent."""
    if isinstance(value, Mapping):
        for name, content in value.items():
            if content is not None:
                yield f"{path}.{name}"
                yield from paths_in(content, f"{path}.{name}")
    elif isinstance(value, list):
        for item in value:
            yield from paths_in(item, f"{path}[]")


def written(kind: str) -> set[str]:
    return {path for status in statuses_of(kind) for path in paths_in(status, "status")}


def condition_types(kind: str) -> set[str]:
    return {one["type"] for status in statuses_of(kind) for one in status["conditions"]}


def status_fields(kind: Kind) -> set[str]:
    return {path for path, _ in fields(kind) if path.startswith("status.") and not path.endswith("[]")}


def untruths(kind: Kind, found: Iterable[str]) -> list[str]:
    """Where the descriptions are wrong about what is written."""
    unreported = {field.path for field in not_reported(kind)}
    known = status_fields(kind)
    return [
        *(f"{path} is written: take its NotYetReported away" for path in sorted(unreported & set(found))),
        *(
            f"{path} is written in no scene: add one, or mark it NotYetReported"
            for path in sorted(known - unreported - set(found))
        ),
        *(f"{path} is written and not in the API" for path in sorted(set(found) - known)),
    ]


@pytest.mark.holds("api/not-yet.md", "A listed status field is never written, every other one is")
@by_kind
def test_what_is_said_to_be_not_reported_is_never_written_and_all_else_is(kind: Kind) -> None:
    assert untruths(kind, written(kind.name)) == []


@by_kind
def test_a_description_that_is_wrong_is_noticed(kind: Kind) -> None:
    unreported = {field.path for field in not_reported(kind)}
    reported = status_fields(kind) - unreported
    missing = min(reported)
    for wrongly in unreported:
        assert untruths(kind, reported | {wrongly}) == [f"{wrongly} is written: take its NotYetReported away"]
    assert untruths(kind, reported - {missing}) == [
        f"{missing} is written in no scene: add one, or mark it NotYetReported"
    ]
    assert untruths(kind, reported | {"status.x"}) == ["status.x is written and not in the API"]


@pytest.mark.holds("api/README.md", "Every column of `kubectl get` shows a field that is written")
@by_kind
def test_every_column_shows_a_field_that_is_written(kind: Kind) -> None:
    spec = {path for path, _ in fields(kind) if path.startswith("spec.")}
    there = spec | written(kind.name) | {"metadata.creationTimestamp"}
    for column in kind.columns:
        path = column.path.removeprefix(".")
        shown = re.fullmatch(r'status\.conditions\[\?\(@\.type=="(\w+)"\)\]\.(\w+)', path)
        if shown is None:
            assert path in there, column.name
        else:
            assert shown[1] in condition_types(kind.name), column.name
            assert f"status.conditions[].{shown[2]}" in there, column.name


@pytest.mark.holds("api/README.md", "The conditions that are described are those that are written")
@by_kind
def test_the_conditions_that_are_written_are_those_that_are_described(kind: Kind) -> None:
    described = dict(fields(kind))["status.conditions"]["description"]
    assert set(re.findall(r"\b([A-Z][A-Za-z]+):", described)) == condition_types(kind.name)
