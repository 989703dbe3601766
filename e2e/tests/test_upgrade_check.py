"""Findings of `make upgrade-check`: on values, and once on a real API server with a release that disturbs."""

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from local_cluster.directories import CHECKOUT
from upgrade_check.announced import LIST, Announced, announced_between, announced_in, judged
from upgrade_check.check import upgrade
from upgrade_check.cluster import as_a_user_writes
from upgrade_check.findings import Findings, Sight, changed, replaced, sight_of, written
from upgrade_check.release import Release, release_at, this_release


def pod(name: str, uid: str, phase: str = "Running") -> dict[str, Any]:
    return {"metadata": {"namespace": "n", "name": name, "uid": uid}, "status": {"phase": phase}}


def model_set(name: str, **conditions: str) -> dict[str, Any]:
    """Each condition as STATUS REASON."""
    split = [(kind, *said.split()) for kind, said in conditions.items()]
    listed = [{"type": kind, "status": status, "reason": reason} for kind, status, reason in split]
    metadata = {"namespace": "n", "name": name}
    return {"kind": "ModelReplicaSet", "metadata": metadata, "status": {"conditions": listed}}


BEFORE = sight_of(
    [pod("stays", "1"), pod("restarts", "2"), pod("goes", "3")],
    [
        model_set("llama", Ready="True Ready", Placed="True AllPlaced"),
        model_set("phi", Ready="False Gone"),
    ],
)


def test_nothing_is_found_where_nothing_changed() -> None:
    done = replace(BEFORE, pods=dict(BEFORE.pods))
    assert [*replaced(BEFORE, done), *changed(BEFORE, done)] == []


def test_each_pod_that_is_not_the_same_is_named() -> None:
    after = sight_of([pod("stays", "1"), pod("restarts", "9"), pod("comes", "4")], [])
    assert list(replaced(BEFORE, after)) == [
        "pod n/comes is new",
        "pod n/goes is gone",
        "pod n/restarts is another",
    ]


def test_a_pod_whose_work_is_done_may_come_and_go() -> None:
    assert sight_of([pod("step", "5", phase="Succeeded")], []).pods == {}


def test_each_condition_that_says_something_else_is_named() -> None:
    after = Sight(
        pods=BEFORE.pods,
        conditions={"ModelReplicaSet n/llama": {"Ready": ("True", "Ready"), "Placed": ("False", "Paused")}},
    )
    assert list(changed(BEFORE, after)) == [
        "ModelReplicaSet n/llama: Placed was True AllPlaced, is False Paused",
        "ModelReplicaSet n/phi: Ready was False Gone, is absent",
    ]


def test_what_was_never_ready_is_told_with_its_reason() -> None:
    untold = sight_of([], [model_set("new")])
    assert BEFORE.waiting == {"ModelReplicaSet n/phi": "Gone"}
    assert untold.waiting == {"ModelReplicaSet n/new": "NeverTold"}


def request(verb: str = "patch", resource: str = "deployments", **more: Any) -> dict[str, Any]:
    return {
        "stage": "ResponseComplete",
        "verb": verb,
        "objectRef": {"resource": resource, "namespace": "n", "name": "x", **more.pop("target", {})},
        "responseStatus": {"code": 200},
        "requestURI": "/apis/apps/v1/namespaces/n/deployments/x",
        **more,
    }


@pytest.mark.parametrize(
    ("event", "found"),
    [
        pytest.param(request(), ["patch deployments n/x"], id="a child"),
        pytest.param(request("delete", "pods"), ["delete pods n/x"], id="a delete"),
        pytest.param(request(resource="agentfleets"), ["patch agentfleets n/x"], id="a user's object itself"),
        pytest.param(request(resource="agentfleets", target={"subresource": "status"}), [], id="its status"),
        pytest.param(
            request(target={"subresource": "status"}), ["patch deployments n/x"], id="another status"
        ),
        pytest.param(request("get"), [], id="a read"),
        pytest.param(request("update", "leases"), [], id="the lease"),
        pytest.param(request("create", "events"), [], id="an event"),
        pytest.param(request(stage="RequestReceived"), [], id="a request that has only arrived"),
        pytest.param(request(responseStatus={"code": 409}), [], id="a write that was refused"),
        pytest.param(request(requestURI="/x?dryRun=All"), [], id="a dry run"),
    ],
)
def test_writes_of_children_are_found(event: dict[str, Any], found: list[str]) -> None:
    assert list(written([event])) == found


def test_objects_are_applied_as_users_write_them_and_act() -> None:
    manifest = {**model_set("llama"), "spec": {"paused": True, "replicas": 2}}
    written_by_user = as_a_user_writes(manifest)
    assert written_by_user["metadata"] == {"name": "llama"}
    assert written_by_user["spec"] == {"paused": False, "replicas": 2}
    assert "status" not in written_by_user


def test_a_commit_that_does_not_exist_is_told(tmp_path: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        release_at("no-such-commit", tmp_path / "release")


FOUND = Findings(
    pods_replaced=["pod n/a-gateway-1 is another", "pod n/a-redis-0 is another"],
    children_written=["create serviceaccounts n/a-gateway"],
)


def change(kind: str, what: str) -> Announced:
    return Announced(kind=kind, what=what, changelog="Said.")


GATEWAYS = change("pods_replaced", "pod */*-gateway-* is another")
QUEUE = change("pods_replaced", "pod n/a-redis-0 is another")
ACCOUNT = change("children_written", "create serviceaccounts */*-gateway")


@pytest.mark.parametrize(
    ("announced", "unannounced", "missing"),
    [
        pytest.param([GATEWAYS, QUEUE, ACCOUNT], [], [], id="all was announced"),
        pytest.param([GATEWAYS, ACCOUNT], ["pod n/a-redis-0 is another"], [], id="one was not"),
        pytest.param(
            [GATEWAYS, QUEUE, ACCOUNT, change("refused", "*")],
            [],
            [change("refused", "*")],
            id="what was announced did not happen",
        ),
        pytest.param(
            [GATEWAYS, QUEUE, change("pods_replaced", "create serviceaccounts */*-gateway")],
            ["create serviceaccounts n/a-gateway"],
            [change("pods_replaced", "create serviceaccounts */*-gateway")],
            id="the kind is another",
        ),
        pytest.param(
            [GATEWAYS, QUEUE, change("children_written", "create serviceaccounts */a")],
            ["create serviceaccounts n/a-gateway"],
            [change("children_written", "create serviceaccounts */a")],
            id="a pattern covers the whole finding",
        ),
    ],
)
def test_exactly_what_was_announced_may_happen(
    announced: list[Announced], unannounced: list[str], missing: list[Announced]
) -> None:
    found = judged(FOUND, announced)
    assert [line for _, line in found.unannounced] == unannounced
    assert list(found.missing) == missing
    assert len(found.announced) == 3 - len(unannounced)
    assert found.is_clean is not bool(unannounced or missing)


def test_brackets_and_dots_of_a_finding_stand_for_themselves() -> None:
    refused = change("refused", "422 spec.tools[0].name: *")
    assert refused.covers("refused", "422 spec.tools[0].name: too long\n(and more)")
    assert not refused.covers("refused", "422 spec.tools0.name: too long")


def test_what_the_release_before_announced_has_happened() -> None:
    assert announced_between(CHECKOUT, CHECKOUT) == ()


@pytest.mark.parametrize(
    ("entry", "fault"),
    [
        pytest.param("- kind: refused", "exactly the keys changelog, kind, what", id="keys are missing"),
        pytest.param("- just words", "exactly the keys", id="no mapping"),
        pytest.param(
            "- {kind: moved, what: x, changelog: y}", "kind 'moved' must be one of", id="no such kind"
        ),
        pytest.param("- {kind: refused, what: 7, changelog: y}", "what of .* must be a text", id="a number"),
        pytest.param(
            "- {kind: refused, what: '* *', changelog: y}", "covers every finding of its kind", id="anything"
        ),
    ],
)
def test_a_wrong_entry_is_named(tmp_path: Path, entry: str, fault: str) -> None:
    (tmp_path / LIST).parent.mkdir(parents=True)
    (tmp_path / LIST).write_text(entry)
    with pytest.raises(ValueError, match=fault):
        announced_in(tmp_path)
    assert announced_in(tmp_path / "before the list") == ()


def test_the_changelog_tells_of_every_announced_change() -> None:
    unreleased = (CHECKOUT / "CHANGELOG.md").read_text().partition("## Unreleased")[2].split("\n## ")[0]
    said = " ".join(unreleased.split())
    assert [one for one in announced_in(CHECKOUT) if one.changelog not in said] == []


def edited(folder: Path, path: str, sound: str, broken: str) -> None:
    text = (folder / path).read_text()
    assert sound in text, path
    (folder / path).write_text(text.replace(sound, broken))


def a_copy(folder: Path) -> Release:
    """This checkout's operator, definitions and tests in another folder."""
    for part in ("operator", "runtime", "e2e", "crds", "examples"):
        shutil.copytree(CHECKOUT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    return replace(this_release(), folder=folder)


def disturbing(folder: Path) -> Release:
    """A release that gives every Deployment another template and has lost a field."""
    release = a_copy(folder)
    grace = "parts.termination_grace_seconds"
    edited(folder, "operator/flotilla_operator/workloads/objects.py", grace, f"({grace} or 30) + 1")
    edited(folder, "crds/flotilla.dev_modelreplicasets.yaml", "loadFactor:", "busyFactor:")
    return release


@pytest.mark.holds("decisions/0008-upgrades.md", "An upgrade of the operator restarts nothing")
@pytest.mark.apiserver
@pytest.mark.rare
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("make", "disturbs"), [(a_copy, False), (disturbing, True)])
def test_an_upgrade_that_disturbs_is_found_and_one_that_does_not_is_clean(
    tmp_path: Path, make: Callable[[Path], Release], disturbs: bool
) -> None:
    seen, findings = upgrade(this_release(), make(tmp_path / "after"))
    assert len(seen.pods) > len(seen.conditions) > 20
    routers = [line for line in findings.pods_replaced if "-router-" in line]
    assert bool(routers) is bool(findings.pods_replaced) is disturbs, findings
    assert bool(findings.children_written) is disturbs, findings
    assert bool(findings.refused) is disturbs
    assert all('"spec.router.loadFactor"' in line for line in findings.refused)
    assert disturbs or findings.conditions_changed == []
