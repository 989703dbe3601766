"""Seeded schedules: users, nodes and faults at once, and what must hold all the same.

For twenty virtual minutes, sets of one and of two stages, an index and a fleet are changed, their pods and
nodes are lost, and leaders are killed. Meanwhile the API server loses answers, with or without doing what was
asked, at once or late; it answers 500, 503 and 429; single watches say nothing; clocks jump by an hour. Then
the faults end, everything must settle, and everything is deleted.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from flotilla_operator.objects.resources import (
    AGENT_FLEETS,
    DEPLOYMENTS,
    JOBS,
    MODEL_REPLICA_SETS,
    NODES,
    OUR_KINDS,
    PERSISTENT_VOLUME_CLAIMS,
    PODS,
    SERVICES,
    STATEFUL_SETS,
    VECTOR_INDEXES,
    Manifest,
    Resource,
)
from flotilla_runtime import contract
from flotilla_runtime.router.pods import is_ready
from tests.builders.api_objects import smallest
from tests.scenes.scene import Scene
from tests.scenes.words import NAMESPACE
from tests.support.fake_objects import status_document
from tests.support.fake_requests import Fault, Reply, Request
from tests.support.virtual_time import run

TROUBLE_SECONDS = 1200.0
SETTLES_WITHIN_SECONDS = 3600.0
GONE_WITHIN_SECONDS = 1800.0
STATUS_IS_NEW_AFTER_SECONDS = 60.0  # the last write of a status may have been lost, or come late
DRAIN_SECONDS = 120
NODE_NAMES = ("a", "b", "c")
SETS: Mapping[str, Mapping[str, Any]] = {
    "llama": {"replicas": 2},
    "pair": {"replicas": 1, "parallelism": {"tensor": 2, "pipeline": 2}},
    "minilm": {"replicas": 1, "model": {"name": "all-minilm", "source": "hf://minilm", "task": "Embed"}},
}
MOST_REPLICAS = {"llama": 4, "pair": 2, "minilm": 1}
STALLED = (PODS, NODES, MODEL_REPLICA_SETS, DEPLOYMENTS, JOBS, SERVICES)
LEFT_BEHIND = (*OUR_KINDS, PODS, JOBS, DEPLOYMENTS, STATEFUL_SETS, SERVICES)
ANSWER_LOST, FAILED, TOO_MANY = 0.04, 0.04, 0.01  # shares of the requests
LATE_SECONDS = 30.0


@dataclass(slots=True, kw_only=True)
class Outcome:
    """Faults found in one schedule, in words; there should be none."""

    seed: int
    doubled: list[str] = field(default_factory=list)
    undrained: list[str] = field(default_factory=list)
    left_behind: list[str] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)

    @property
    def problems(self) -> list[str]:
        """All of it."""
        return [*self.doubled, *self.undrained, *self.left_behind, *self.stuck]


def play(seed: int) -> Outcome:
    """Play the schedule of this seed on a loop of its own."""
    outcome = Outcome(seed=seed)
    try:
        run(_play(outcome))
    except Exception as error:
        outcome.stuck.append(f"{type(error).__name__}: {error}")
    return outcome


async def _play(outcome: Outcome) -> None:
    async with Scene(seed=outcome.seed).playing() as scene:
        schedule = Schedule(scene, outcome)
        await schedule.trouble()
        await schedule.settle()
        await schedule.end()


class Schedule:
    """One schedule in a scene."""

    def __init__(self, scene: Scene, outcome: Outcome) -> None:
        self.scene = scene
        self.outcome = outcome
        self.random = random.Random(f"schedule {outcome.seed}")
        self.watch = Watch(scene, outcome)  # it looks at a request before a fault takes it
        self.faults = RequestFaults(scene, random.Random(f"faults {outcome.seed}"))
        self.actions: tuple[Callable[[], Awaitable[None]], ...] = (
            self._scale,
            self._scale,
            self._update,
            self._delete_a_pod,
            self._cordon,
            self._lose_a_node,
            self._silence_a_node,
            self._change_leader,
            self._change_leader,
            self._jump,
            self._stall,
            self._stall,
            self._busy,
            self._build_again,
        )

    async def trouble(self) -> None:
        """Everything at once."""
        for name in NODE_NAMES:
            self.scene.node(name, gpus=16)
        self.scene.cluster.create(
            PERSISTENT_VOLUME_CLAIMS, {"metadata": {"name": "documents", "namespace": NAMESPACE}, "spec": {}}
        )
        for name, spec in SETS.items():
            self.scene.create(name, **{"drain": {"deadlineSeconds": DRAIN_SECONDS}, **spec})
        self.scene.cluster.create(VECTOR_INDEXES, smallest("VectorIndex", name="handbook"))
        self.scene.cluster.create(AGENT_FLEETS, _fleet())
        await self.scene.start_operator()
        self.faults.on = True
        end = self.scene.loop.time() + TROUBLE_SECONDS
        while self.scene.loop.time() < end:
            await self.scene.pass_time(self.random.uniform(1, 60))
            await self.random.choice(self.actions)()

    async def settle(self) -> None:
        """The faults end, and everything comes to be as it should."""
        scene = self.scene
        self.faults.on = False
        scene.api.stalled.clear()
        for name in NODE_NAMES:
            self._bring_back(name)
        for name in SETS:
            scene.routers.of(name).busy = False
        await scene.pass_time(STATUS_IS_NEW_AFTER_SECONDS)
        await scene.until(self._is_settled, SETTLES_WITHIN_SECONDS)
        await scene.pass_time(120)
        for name in SETS:
            spec = scene.get(name)["spec"]
            wanted = spec["replicas"] * spec.get("parallelism", {}).get("pipeline", 1)
            if len(scene.pods(name)) != wanted:
                self.outcome.doubled.append(
                    f"{name} has {len(scene.pods(name))} pods in the end, not {wanted}"
                )

    async def end(self) -> None:
        """All objects are deleted, and nothing of them stays."""
        scene = self.scene
        self.watch.over = True
        for resource in OUR_KINDS:
            for one in scene.api.listed(resource):
                scene.cluster.delete(resource, one, propagationPolicy="Background")
        try:
            await scene.until(lambda: not self._left(), GONE_WITHIN_SECONDS)
        except AssertionError:
            self.outcome.left_behind += self._left()

    def _is_settled(self) -> bool:
        scene = self.scene
        fine = scene.says("Ready", "True", name="handbook", resource=VECTOR_INDEXES) and scene.says(
            "Ready", "True", name="support", resource=AGENT_FLEETS
        )
        return bool(fine) and all(map(scene.is_ready, SETS)) and not any(map(scene.draining, SETS))

    def _left(self) -> list[str]:
        found = [(resource, one) for resource in LEFT_BEHIND for one in self.scene.api.listed(resource)]
        return [f"{resource.plural}/{one['metadata']['name']}" for resource, one in found]

    # What happens.

    async def _scale(self) -> None:
        name = self.random.choice(("llama", "llama", "pair"))
        self.scene.change(name, replicas=self.random.randint(1, MOST_REPLICAS[name]))

    async def _update(self) -> None:
        name = self.random.choice(("llama", "pair"))
        env = [{"name": "REVISION", "value": str(self.random.randint(1, 3))}]
        self.scene.change(name, engine={"env": env})

    async def _delete_a_pod(self) -> None:
        pods = [pod for name in SETS for pod in self.scene.pods(name)]
        if pods:
            self.scene.delete_pod(self.random.choice(pods)["metadata"]["name"])

    async def _cordon(self) -> None:
        name = self.random.choice(NODE_NAMES)
        if self.scene.api.get(NODES, "", name):
            self.scene.cordon(name, unschedulable=self.random.random() < 0.5)

    async def _lose_a_node(self) -> None:
        name = self.random.choice(NODE_NAMES)
        if self.scene.api.get(NODES, "", name) is None:
            self._bring_back(name)
        else:
            self.scene.lose_node(name)

    async def _silence_a_node(self) -> None:
        name = self.random.choice(NODE_NAMES)
        if self.scene.api.get(NODES, "", name) is None:
            return
        self.scene.silence_node(name)
        await self.scene.pass_time(self.random.uniform(5, 90))
        self.scene.node_answers_again(name)

    async def _change_leader(self) -> None:
        alive = [one for one in self.scene.operators if not one.outside.killed]
        await alive[0].kill()
        await self.scene.start_operator()

    async def _jump(self) -> None:
        self.scene.operator.outside.jump_seconds = self.random.choice((-3600.0, 0.0, 3600.0))

    async def _stall(self) -> None:
        resource: Resource = self.random.choice(STALLED)
        self.scene.api.stalled.add(resource)
        asyncio.get_running_loop().call_later(
            self.random.uniform(5, 90), self.scene.api.stalled.discard, resource
        )

    async def _busy(self) -> None:
        name = self.random.choice(tuple(SETS))
        words = self.scene.routers.of(name)
        words.busy = not words.busy
        self.watch.busy_since[name] = self.scene.loop.time()

    async def _build_again(self) -> None:
        index = self.scene.the(VECTOR_INDEXES, "handbook")
        revision = {"spec": {"source": {"revision": str(self.random.randint(1, 100))}}}
        self.scene.cluster.merge(VECTOR_INDEXES, index, revision)

    def _bring_back(self, name: str) -> None:
        if self.scene.api.get(NODES, "", name) is None:
            self.scene.node(name, gpus=16)
        self.scene.cordon(name, unschedulable=False)
        self.scene.node_answers_again(name)


class RequestFaults:
    """Trouble of the operators' requests while it is `on`."""

    def __init__(self, scene: Scene, draws: random.Random) -> None:
        self.on = False
        self._api = scene.api
        self._random = draws
        self._request: Request | None = None
        self._number = 1.0
        scene.api.faults.append(Fault(self._strikes, self._answer, times=1_000_000_000))

    def _strikes(self, request: Request) -> bool:
        if not self.on:
            return False
        self._request, self._number = request, self._random.random()
        return self._number < ANSWER_LOST + FAILED + TOO_MANY

    def _answer(self) -> Reply | Awaitable[Reply]:
        request, number = self._request, self._number
        assert request is not None
        if number < ANSWER_LOST and request.method != "GET":
            return self._lose(request)
        if number < ANSWER_LOST + FAILED:
            status = self._random.choice((500, 503))
            return Reply(status=status, document=status_document(status, "InternalError", "a fault"))
        document = status_document(429, "TooManyRequests", "a fault")
        return Reply(status=429, document=document, headers={"Retry-After": "3"})

    async def _lose(self, request: Request) -> Reply:
        way = self._random.random()
        if way < 0.4:
            self._api.answer(request)
        elif way < 0.7:
            late = self._random.uniform(0, LATE_SECONDS)
            asyncio.get_running_loop().call_later(late, self._api.answer, request)
        await asyncio.sleep(3600)
        raise AssertionError("a request without an answer has a time limit")


class Watch:
    """Looks at every change and every deletion for what must never be."""

    def __init__(self, scene: Scene, outcome: Outcome) -> None:
        self.over = False
        self._scene = scene
        self._outcome = outcome
        self._wanted: dict[str, list[tuple[float, int]]] = {}
        self._drains_since: dict[str, float] = {}
        self.busy_since: dict[str, float] = {}
        scene.api.listeners.append(self._note)
        scene.api.faults.append(Fault(self._look_at, lambda: Reply(status=500, document={}), times=1))

    def _note(self, resource: Resource, manifest: Manifest) -> None:
        now = self._scene.loop.time()
        if resource == MODEL_REPLICA_SETS:
            history = self._wanted.setdefault(manifest["metadata"]["name"], [])
            history.append((now, manifest["spec"].get("replicas", 1)))
        if resource == PODS and not self.over:
            annotations = manifest["metadata"].get("annotations") or {}
            if contract.ANNOTATION_DRAIN_EPOCH in annotations:
                self._drains_since.setdefault(manifest["metadata"]["uid"], now)
            else:
                self._drains_since.pop(manifest["metadata"]["uid"], None)
            self._count(_label(manifest, contract.LABEL_OWNER_NAME))

    def _count(self, name: str) -> None:
        """No more replicas serve than were wanted within the last drain, and one more for an update."""
        if name not in SETS:
            return
        now, history = self._scene.loop.time(), self._wanted.get(name, [])
        before = [wanted for at, wanted in history if at <= now - 2 * DRAIN_SECONDS][-1:]
        most = max([*before, *(wanted for at, wanted in history if at > now - 2 * DRAIN_SECONDS)], default=0)
        serving = [pod for pod in self._leaders(name) if is_ready(pod)]
        if len(serving) > most + 1:
            self._outcome.doubled.append(
                f"{now:.0f} s: {len(serving)} replicas of {name} serve, not {most} + 1"
            )

    def _leaders(self, name: str) -> list[Manifest]:
        return [
            pod
            for pod in self._scene.pods(name)
            if _label(pod, contract.LABEL_STAGE) == "0"
            and contract.ANNOTATION_DRAIN_EPOCH not in pod["metadata"]["annotations"]
        ]

    def _look_at(self, request: Request) -> bool:
        """Look at a deletion that an operator asks for; it is never answered from here."""
        if request.method == "DELETE" and "/pods/" in request.path and not self.over:
            pod = self._scene.api.get(PODS, NAMESPACE, request.path.rsplit("/", 1)[-1])
            if pod is not None and self._is_cut(request, pod):
                name, now = pod["metadata"]["name"], self._scene.loop.time()
                self._outcome.undrained.append(f"{now:.0f} s: {name} is deleted while it serves")
        return False

    def _is_cut(self, request: Request, pod: Manifest) -> bool:
        """Whether it ends requests too soon; those that begin during a drain do not count."""
        metadata, asked = pod["metadata"], request.body.get("preconditions") or {}
        hits = all(metadata[name] == wanted for name, wanted in asked.items())
        name = _label(pod, contract.LABEL_OWNER_NAME)
        if not hits or name not in SETS or not is_ready(pod) or "deletionTimestamp" in metadata:
            return False
        group = self._scene.groups(name).get(_label(pod, contract.LABEL_GROUP), [])
        stages = int(metadata["annotations"].get(contract.ANNOTATION_STAGES, 1))
        nodes = [one["spec"].get("nodeName") for one in group]
        whole = len(group) == stages and all(map(is_ready, group))
        if not whole or not all(node and self._scene.api.get(NODES, "", node) for node in nodes):
            return False
        leader = next(one for one in group if _label(one, contract.LABEL_STAGE) == "0")
        since = self._drains_since.get(leader["metadata"]["uid"])
        if since is None:
            return True
        has_requests = self._scene.routers.of(name).busy and self.busy_since[name] <= since
        return has_requests and self._scene.loop.time() - since < DRAIN_SECONDS - 1


def _label(manifest: Manifest, name: str) -> str:
    return str((manifest["metadata"].get("labels") or {}).get(name, ""))


def _fleet() -> Manifest:
    fleet = smallest("AgentFleet", name="support")
    for model in fleet["spec"]["models"]:
        model["modelRef"] = {"name": "llama"}
    return fleet
