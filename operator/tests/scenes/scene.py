"""A scene: a namespace, its nodes, and an operator at work, on a fake API server and a clock that jumps.

The operator is the real one from its assembly on: reflectors, queue, reconciler, controllers, writer, lease.
`parts` play the rest of a cluster.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any

import yaml

from flotilla_operator.cluster.crash_points import CrashPoint, go_on
from flotilla_operator.controllers.agent_fleet.controller import AgentFleetController
from flotilla_operator.controllers.assembly import Parts, assemble
from flotilla_operator.controllers.config import OperatorConfig, parse_config
from flotilla_operator.controllers.controller import Controller
from flotilla_operator.controllers.main import Operator
from flotilla_operator.controllers.model_replica_set.controller import ModelReplicaSetController
from flotilla_operator.controllers.vector_index.controller import VectorIndexController
from flotilla_operator.objects.resources import (
    NAMESPACES,
    NODES,
    OUR_KINDS,
    PODS,
    Manifest,
    Resource,
)
from flotilla_operator.objects.times import timestamp
from local_cluster.kwok import gpu_node
from tests.builders.world import IMAGES
from tests.scenes.outside import SceneOutside
from tests.scenes.parts.budgets import Budgets
from tests.scenes.parts.collector import Collector, PodCollector
from tests.scenes.parts.gateways import Gateways
from tests.scenes.parts.jobs import Jobs
from tests.scenes.parts.kubelet import Kubelets
from tests.scenes.parts.part import Cluster, Part
from tests.scenes.parts.routers import Routers
from tests.scenes.parts.scheduler import Scheduler
from tests.scenes.parts.scraped import Scraped
from tests.scenes.parts.stateful import Claims, StatefulSets
from tests.scenes.parts.workloads import Deployments
from tests.scenes.words import NAMESPACE, Words
from tests.support.fake_answers import Answers
from tests.support.virtual_time import running_loop

HOUR_SECONDS = 3600.0


class OperatorAtWork:
    """One process of the operator, until it ends or is killed."""

    def __init__(self, outside: SceneOutside, parts: Parts, task: "asyncio.Task[None]") -> None:
        self.outside = outside
        self.parts = parts
        self.task = task

    @property
    def reconciles(self) -> int:
        """How many reconciles have ended."""
        samples = (s for family in self.parts.metrics.registry.collect() for s in family.samples)
        return int(sum(s.value for s in samples if s.name == "flotilla_controller_reconcile_total"))

    async def kill(self) -> None:
        """End it at once: it sends nothing more, and its lease stays taken until that expires."""
        self.outside.killed = True
        self.task.cancel()
        await asyncio.wait([self.task])


class Killer:
    """Kills the operator where it comes to a crash point, so many times, and starts the next one."""

    def __init__(self, scene: "Scene", point: CrashPoint, times: int) -> None:
        self.killed = 0
        self._scene = scene
        self._point = point
        self._times = times
        self._there = asyncio.Event()

    def reached(self, point: CrashPoint) -> None:
        """From here on the process sends nothing."""
        if point is self._point and self.killed < self._times and not self._scene.operator.outside.killed:
            self.killed += 1
            self._scene.operator.outside.killed = True
            self._there.set()

    async def run(self) -> None:
        """Start the next operator each time."""
        while True:
            await self._there.wait()
            self._there.clear()
            await self._scene.operator.kill()
            await self._scene.start_operator(self.reached)


class Scene(Words):
    """A played cluster with an operator at work, and time."""

    def __init__(self, *, seed: int = 0, **config: Any) -> None:
        self.seed = seed
        self.config: OperatorConfig = parse_config({"images": IMAGES, **config})
        loop = running_loop()
        self.loop = loop
        api = Answers(now=loop.now)
        self.api = api
        self.cluster = Cluster(api, random.Random(f"cluster {seed}").uniform)
        super().__init__(self.cluster)
        api.put(NAMESPACES, {"metadata": {"name": NAMESPACE}, "status": {"phase": "Active"}})
        self.kubelets = Kubelets(self.cluster)
        self.routers = Routers(self.cluster)
        self.gateways = Gateways()
        answers = {"router": self.routers.answer, "gateway": self.gateways.answer}
        self.scraped = Scraped(self.cluster, answers)
        self.scheduler = Scheduler(self.cluster)
        self.played: list[Part] = [
            self.kubelets,
            self.scheduler,
            Deployments(self.cluster),
            StatefulSets(self.cluster),
            Claims(self.cluster),
            Jobs(self.cluster),
            Budgets(self.cluster),
            Collector(self.cluster),
            PodCollector(self.cluster),
        ]
        self.operators: list[OperatorAtWork] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._changed = asyncio.Event()
        self._promises: list[Callable[[], bool]] = []
        self._broken: list[str] = []
        self.api.listeners.append(self._note)

    @asynccontextmanager
    async def playing(self) -> AsyncIterator["Scene"]:
        """The cluster is played and an operator is at work until the block ends."""
        self._tasks = [asyncio.create_task(part.run(), name=type(part).__name__) for part in self.played]
        try:
            await self.start_operator()
            yield self
            await asyncio.sleep(0)
            self._check()
            for operator in self.operators:
                if not operator.outside.killed:
                    assert operator.parts.health.problems() == []
        finally:
            for task in [*(operator.task for operator in self.operators), *self._tasks]:
                task.cancel()
            await asyncio.gather(*(o.task for o in self.operators), *self._tasks, return_exceptions=True)

    # The operator.

    async def start_operator(self, reached: Callable[[CrashPoint], None] = go_on) -> OperatorAtWork:
        """A new process; it reconciles once it has the lease."""
        outside = SceneOutside(self.api, self.scraped, seed=f"{self.seed}-{len(self.operators)}")
        controllers: list[Controller[Any, Any]] = [
            ModelReplicaSetController(),
            VectorIndexController(),
            AgentFleetController(),
        ]
        stack = AsyncExitStack()
        parts = await assemble(controllers, self.config, outside, reached, stack)

        async def work() -> None:
            async with stack:
                await Operator(parts).run(asyncio.Event())

        operator = OperatorAtWork(outside, parts, asyncio.create_task(work(), name="operator"))
        self.operators.append(operator)
        return operator

    async def kill_at(self, point: CrashPoint, *, times: int) -> Killer:
        """From now on an operator that comes to this point is killed there, and another one started."""
        killer = Killer(self, point, times)
        await self.operator.kill()
        await self.start_operator(killer.reached)
        self._tasks.append(asyncio.create_task(killer.run(), name="killer"))
        return killer

    @property
    def operator(self) -> OperatorAtWork:
        """The newest process."""
        return self.operators[-1]

    def node(self, name: str, *, mute: bool = False, **shape: Any) -> str:
        """A node with GPUs; a mute one has no kubelet, so that its pods neither start nor end."""
        manifest = gpu_node(name, **shape)
        manifest["status"]["conditions"] = [
            {"type": "Ready", "status": "True", "lastTransitionTime": timestamp(self.api.now())}
        ]
        if mute:
            self.kubelets.mute.add(name)
        self.api.put(NODES, manifest)
        return name

    def silence_node(self, name: str) -> None:
        """The node no longer answers: its pods stay, and the control plane says that they are not ready."""
        self.kubelets.mute.add(name)
        node = self.the(NODES, name, "")
        self.cluster.report(NODES, node, conditions=self.cluster.condition(node, "Ready", "Unknown"))
        for pod in self.cluster.listed(PODS):
            if pod["spec"].get("nodeName") == name:
                self.cluster.report(PODS, pod, conditions=self.cluster.condition(pod, "Ready", "False"))

    def node_answers_again(self, name: str) -> None:
        """The node's kubelet reports, and does what was asked of it meanwhile."""
        self.kubelets.mute.discard(name)
        node = self.the(NODES, name, "")
        self.cluster.report(NODES, node, conditions=self.cluster.condition(node, "Ready", "True"))
        for pod in self.cluster.listed(PODS):
            runs = pod["status"].get("phase") == "Running" and not self.kubelets.never_ready(pod)
            if runs and pod["spec"].get("nodeName") == name:
                self.cluster.report(PODS, pod, conditions=self.cluster.condition(pod, "Ready", "True"))

    # Time.

    async def until(self, holds: Callable[[], Any], within_seconds: float = HOUR_SECONDS) -> Any:
        """Wait for a condition on the objects; it is asked after each change. Returns its answer."""
        end = self.loop.time() + within_seconds
        while not (found := holds()):
            self._check()
            left = end - self.loop.time()
            assert left > 0, f"not within {within_seconds:.0f} s\n{self._described()}"
            self._changed.clear()
            try:
                async with asyncio.timeout(left):
                    await self._changed.wait()
            except TimeoutError:
                continue
        self._check()
        return found

    async def pass_time(self, seconds: float) -> None:
        """Let so many virtual seconds go by."""
        await asyncio.sleep(seconds)
        self._check()

    @contextmanager
    def throughout(self, promise: Callable[[], bool]) -> Iterator[None]:
        """Meanwhile the promise is kept after every single change."""
        assert promise(), f"from the beginning: {promise.__doc__ or promise.__name__}"
        self._promises.append(promise)
        try:
            yield
        finally:
            self._promises.remove(promise)
        self._check()

    def _note(self, _resource: Resource, _manifest: Manifest) -> None:
        self._changed.set()
        for promise in self._promises:
            if not promise():
                self._broken.append(f"{promise.__doc__ or promise.__name__}\n{self._described()}")

    def _check(self) -> None:
        """Fail for a broken promise, and for a part or an operator that has ended."""
        broken, self._broken = self._broken, []
        assert not broken, broken[0]
        for task in [*self._tasks, *(o.task for o in self.operators if not o.outside.killed)]:
            if task.done():
                _ = task.cancelled() or task.result()
                raise AssertionError(f"{task.get_name()} has ended")

    def _described(self) -> str:
        """Our objects and what was told of them, for a test that fails."""
        sets = [one for resource in OUR_KINDS for one in self.api.listed(resource)]
        shown = [yaml.safe_dump({one["metadata"]["name"]: one.get("status")}) for one in sets]
        told = [f"{e['regarding'].get('name')} {e['reason']}: {e['note']}" for e in self.events()]
        pods = [
            f"{p['metadata']['name']} on {p['spec'].get('nodeName')}: {p['status'].get('phase')}"
            for p in self.api.listed(PODS)
        ]
        return "\n".join([f"at {self.loop.now():%H:%M:%S}", *shown, *told, *pods])
