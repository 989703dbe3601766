"""Engines that do not start, start slowly or are killed, as a real kubelet tells of them.

What the operator makes of a kubelet's words is also tested with words that the tests write
(operator/tests/controllers/model_replica_set/test_bad_input_apiserver.py); here nobody writes them. Where
nothing depends on it the engine is the double.
"""

import json
from collections.abc import Mapping
from typing import Any

import httpx2
import pytest

from flotilla_runtime import contract
from leaks.planted import planted
from tests.support.applied import REPLICA_SET, Site, containers, replica_set
from tests.support.asked import asked
from tests.support.killed import kill
from tests.support.stand_ins import SMALL, configured, doubles, mounted

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(2400, func_only=True)]

NO_SUCH_IMAGE = "localhost:1/none:1"  # nobody listens there
NO_SUCH_OPTION = "--no-such-option"
DOUBLE = b"engine_double"
SLOW_START_SECONDS = 25  # three failing looks of the readiness probe take fifteen
DOWN_SECONDS = 10
KILLED = "ended with code 137"


def slow_doubles(name: str, image: str, seconds: float, **spec: Any) -> dict[str, Any]:
    """A set of doubles that listen only so long after their start."""
    faults = json.dumps({"start_delay_seconds": seconds})
    return doubles(name, image, {"extraArgs": ["--faults", faults]}, **spec)


def patched(site: Site, name: str, **engine: Any) -> None:
    """Change the set's engine."""
    site.patch(REPLICA_SET, name, {"spec": {"engine": engine}})


def uids(pods: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    return {name: pod["metadata"]["uid"] for name, pod in pods.items()}


def restarts(pod: Mapping[str, Any]) -> int:
    """How often the kubelet has started the pod's engine anew."""
    return sum(found["restartCount"] for found in containers(pod) if found["name"] == "engine")


def assert_a_person_is_asked(site: Site, name: str, reason: str, words: str) -> None:
    """Expect `kubectl describe` to show the summary, and a warning in the same words."""
    assert site.condition(REPLICA_SET, name, "Ready")["reason"] == reason
    assert site.condition(REPLICA_SET, name, "Stalled")["status"] == "True"

    def is_warned() -> bool:
        return any(words in note for note in site.notes(name, reason))

    site.until(is_warned, REPLICA_SET, name, f"event {reason} {words!r}")


@pytest.mark.holds("install.md", "An image that cannot be pulled is told in the kubelet's words")
@pytest.mark.holds(
    "groups.md",
    "`ImagePullFailed`, `ContainerConfigError`, `ModelFetchFailed` and `EngineCrashing` have the "
    "kubelet's words",
)
def test_an_image_that_cannot_be_pulled_is_said_in_the_kubelets_words_and_passes(
    site: Site, double: str
) -> None:
    name = "no-image"
    site.apply(doubles(name, NO_SUCH_IMAGE))
    words = f'container engine: Back-off pulling image "{NO_SUCH_IMAGE}"'
    message = site.wait(REPLICA_SET, name, "Available", "False", "ImagePullFailed", words=words)
    assert message.startswith("0 of 1 replicas are ready; no-image-")
    assert_a_person_is_asked(site, name, "ImagePullFailed", NO_SUCH_IMAGE)
    patched(site, name, image=double)
    site.wait_ready(name)


@pytest.mark.holds(
    "groups.md",
    "`ImagePullFailed`, `ContainerConfigError`, `ModelFetchFailed` and `EngineCrashing` have the "
    "kubelet's words",
)
def test_a_secret_that_is_missing_for_the_engine_is_said_and_waited_for(site: Site, double: str) -> None:
    """The kubelet goes on trying, so the pod that waits is the one that serves."""
    name = "no-secret"
    variable = {
        "name": "TOKEN",
        "valueFrom": {"secretKeyRef": {"name": "engine-token", "key": "token"}},
    }
    site.apply(doubles(name, double, {"env": [variable]}))
    words = 'secret "engine-token" not found'
    site.wait(REPLICA_SET, name, "Available", "False", "ContainerConfigError", words=words)
    assert_a_person_is_asked(site, name, "ContainerConfigError", words)
    before = uids(site.pods(name))
    secret = {"metadata": {"name": "engine-token"}, "stringData": {"token": planted("t")}}
    site.apply({"apiVersion": "v1", "kind": "Secret", **secret})
    site.wait_ready(name)
    assert uids(site.pods(name)) == before


@pytest.mark.holds(
    "groups.md",
    "`ImagePullFailed`, `ContainerConfigError`, `ModelFetchFailed` and `EngineCrashing` have the "
    "kubelet's words",
)
def test_an_engine_with_a_wrong_argument_is_told_with_its_last_line_and_its_restarts(
    site: Site, double: str
) -> None:
    """The real engine, for its own words; the double is quicker at showing that a change helps."""
    name = "wrong-argument"
    manifest = replica_set(name)
    manifest["spec"]["engine"]["extraArgs"] = [NO_SUCH_OPTION]
    site.apply(manifest)
    words = "each after a longer wait"
    message = site.wait(REPLICA_SET, name, "Available", "False", "EngineCrashing", words=words)
    assert "container engine ended with code 2: " in message
    assert f"error: unrecognized arguments: {NO_SUCH_OPTION}; restarted " in message
    assert_a_person_is_asked(site, name, "EngineCrashing", NO_SUCH_OPTION)
    patched(site, name, image=double, extraArgs=[])
    site.wait_ready(name)


@pytest.mark.holds(
    "groups.md", "`EngineCrashing` tells of an engine killed for memory, and of one that ended with code 0"
)
def test_an_engine_that_the_kernel_kills_for_memory_is_told_as_that(site: Site, double: str) -> None:
    name = "too-little-memory"
    too_little = {"memory": "20Mi"}
    resources = {"requests": {"cpu": "10m", **too_little}, "limits": too_little}
    site.apply(doubles(name, double, {"resources": resources}))
    words = "container engine ended with code 137: OOMKilled"
    site.wait(REPLICA_SET, name, "Available", "False", "EngineCrashing", words=words)
    assert_a_person_is_asked(site, name, "EngineCrashing", "OOMKilled")
    patched(site, name, resources=SMALL)
    site.wait_ready(name)


@pytest.mark.holds(
    "groups.md", "`EngineCrashing` tells of an engine killed for memory, and of one that ended with code 0"
)
def test_an_engine_that_ends_well_instead_of_serving_is_told_too(site: Site, double: str) -> None:
    """Nothing in its end looks like a failure, and its log is not read by the kubelet."""
    name = "says-goodbye"
    site.apply(doubles(name, double, {"extraArgs": ["--help"]}))
    words = "container engine ended with code 0: Completed; restarted"
    site.wait(REPLICA_SET, name, "Available", "False", "EngineCrashing", words=words)


@pytest.mark.holds(
    "groups.md", "`EngineSlowToStart` after 10 minutes, or three times the usual start, 5 minutes at least"
)
def test_a_slow_start_is_no_fault_and_its_time_is_kept(site: Site, double: str) -> None:
    name = "slow"
    delay = {"faults": {"start_delay_seconds": SLOW_START_SECONDS}}
    site.apply(configured(site, doubles(name, double), delay))
    seen: list[dict[str, Any]] = []

    def serves() -> bool:
        seen.append(site.objects.get(REPLICA_SET, name).get("status") or {})
        return is_ready({"status": seen[-1]})

    site.until(serves, REPLICA_SET, name, "Ready")
    # A pod that still waits for a node beside those of other tests does not start yet.
    before = [
        status
        for status in seen
        if any(group["phase"] == "Loading" for group in status.get("groups") or ())
        and not status["readyReplicas"]
    ]
    starting = [conditions_of(status) for status in before]
    said = {(found["Available"]["reason"], found["Stalled"]["status"]) for found in starting}
    assert said == {("NoReplicaReady", "False")}, starting
    assert ["Loading"] in [[group["phase"] for group in status["groups"]] for status in before]
    assert {found["Progressing"]["message"] for found in starting} == {"0 of 1 replicas are ready"}
    assert [restarts(pod) for pod in site.pods(name).values()] == [0]

    def measured() -> bool:
        capacity = site.objects.get(REPLICA_SET, name)["status"].get("capacity") or {}
        return (capacity.get("startupSeconds") or 0) >= SLOW_START_SECONDS

    site.until(measured, REPLICA_SET, name, f"startupSeconds of {SLOW_START_SECONDS} or more")


def is_ready(item: Mapping[str, Any]) -> bool:
    """Whether an object's condition Ready is true."""
    return conditions_of(item["status"]).get("Ready", {}).get("status") == "True"


def conditions_of(status: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {condition["type"]: condition for condition in status.get("conditions") or ()}


def test_a_killed_engine_is_out_of_the_routing_until_it_has_started_anew(site: Site, double: str) -> None:
    name = "killed"
    site.apply(slow_doubles(name, double, DOWN_SECONDS, replicas=2))
    site.wait_ready(name)
    before = site.pods(name)
    victim, other = sorted(before)
    with asked(site.kubectl, name) as ask:
        kill(before[victim], DOUBLE)
        words = f"{victim}: container engine {KILLED}"
        site.wait(REPLICA_SET, name, "Ready", "False", "EngineCrashing", words=words)
        assert [ask(f"One is down, {number}.") for number in range(10)] == [other] * 10
        site.wait_ready(name)

        def both() -> bool:
            return {ask(f"Both are back, {number}.") for number in range(12)} == {victim, other}

        site.until(both, REPLICA_SET, name, "answers of both replicas")
    after = site.pods(name)
    assert uids(after) == uids(before), "the kubelet starts the engine anew, in the same pod"
    assert (restarts(after[victim]), restarts(after[other])) == (1, 0)


@pytest.mark.holds(
    "groups.md", "A member that ends takes its group with it, and the event says which pod and why"
)
def test_a_group_whose_follower_is_killed_starts_anew_as_a_whole(site: Site, double: str) -> None:
    name = "pair"
    site.apply(doubles(name, double, parallelism={"pipeline": 2}))
    site.wait_ready(name)
    before = site.pods(name)
    (follower,) = (pod for pod in before if pod.endswith("-1"))
    kill(before[follower], DOUBLE)

    def new_ones_serve() -> bool:
        pods = site.pods(name)
        return [is_ready(pod) for pod in pods.values()] == [True, True] and not pods.keys() & before.keys()

    site.until(new_ones_serve, REPLICA_SET, name, "two new pods")
    site.wait_ready(name)
    notes = site.notes(name, "GroupFailed")
    # The kubelet does not always keep how a container ended that it starts anew at once.
    ends = [f"pod {follower}: container engine {words}" for words in (KILLED, "was restarted")]
    assert any(end in note for end in ends for note in notes), notes


@pytest.mark.holds("groups.md", "`PodSetupSlow` after two minutes without volumes")
@pytest.mark.waits_long
def test_volumes_that_do_not_come_are_told_of(site: Site, double: str) -> None:
    """Only the kubelet's events tell of it. The operator calls a pod's volumes slow after two minutes."""
    name = "no-volume"
    site.apply(doubles(name, double, pod=mounted("no-such-map")))
    words = f"see kubectl describe pod {name}-"
    site.wait(REPLICA_SET, name, "Available", "False", "PodSetupSlow", words=words)
    (pod,) = site.pods(name)
    assert any("no-such-map" in note for note in site.notes(pod, "FailedMount"))


@pytest.mark.holds("router.md", "`RouterReady` says in the kubelet's words why no router pod is ready")
def test_a_router_that_has_no_certificate_is_told_of_as_its_container_ended(site: Site, double: str) -> None:
    name = "no-certificate"
    entries = {"tls.crt": "no certificate", "tls.key": "no key"}
    secret = {"metadata": {"name": name}, "stringData": entries}
    site.apply({"apiVersion": "v1", "kind": "Secret", **secret})
    router = {"replicas": 1, "tls": {"secretRef": {"name": name}}}
    site.apply(doubles(name, double, replicas=0, router=router))
    words = "0 of 1 router pods are ready; no-certificate-router-"
    message = site.wait(REPLICA_SET, name, "RouterReady", "False", "RouterCrashing", words=words)
    assert " ended with code " in message
    assert_a_person_is_asked(site, name, "RouterCrashing", words)


@pytest.mark.holds(
    "groups.md",
    "An engine that hangs leaves the routing, is ended by its liveness probe and started anew in its pod",
)
@pytest.mark.waits_long
def test_an_engine_that_hangs_is_started_anew_in_its_pod(site: Site, double: str) -> None:
    """Its liveness probe ends it after 90 seconds."""
    name = "hung"
    site.apply(doubles(name, double))
    site.wait_ready(name)
    before = site.pods(name)
    (pod,) = before
    with site.kubectl.port_forward(f"pod/{pod}", contract.PORT_ENGINE) as port:
        faults = f"http://127.0.0.1:{port}/admin/faults"
        httpx2.post(faults, json={"hang": "Everything"}, timeout=60).raise_for_status()

    def serves_again() -> bool:
        return [(restarts(pod), is_ready(pod)) for pod in site.pods(name).values()] == [(1, True)]

    site.until(serves_again, REPLICA_SET, name, "an engine that was started anew")
    site.wait_ready(name)
    assert uids(site.pods(name)) == uids(before)
    assert any("failed liveness probe" in note for note in site.notes(pod, "Killing"))
