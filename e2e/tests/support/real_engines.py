"""The real engines that tests share, so that few are started: a start takes 20 s of processor time.

`generator` and `embedder` are those of examples/agentfleet.yaml. Each is started once in a test process, from
the arguments of the engine pod that the operator makes for its set, with the key and the guard that such a
pod has. Some tests need further arguments, which every start gets: tool calls for the generator, an adapter
for the embedder. They change nothing that the other tests look at. Tests that use these engines are marked
`EXAMPLE_ENGINES`, which keeps them in one process of pytest-xdist; the engines end with the last of these
tests.

A module with several engines of its own gives its tests a parameter `engine`, a `SharedEngine`; the tests of
one engine run one after the other.
"""

from collections.abc import Generator, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from engine.environment import ensure
from engine.models import EMBEDDER, GENERATOR, ensure_models
from engine.serve import RunningEngine, running
from flotilla_operator.api.model_replica_set import ModelReplicaSetSpec
from flotilla_operator.replicas.group import GroupIdentity
from flotilla_operator.workloads.engine_environment import merged_environment
from flotilla_operator.workloads.engine_guard import ANNOTATION, DIRECTORY, ENV_MIDDLEWARE, FILE
from flotilla_operator.workloads.engine_pod import engine_pod
from flotilla_runtime import contract
from leaks.planted import planted
from local_cluster.directories import CHECKOUT
from local_cluster.processes import free_port
from tests.builders.model_replica_set import IMAGES, OWNER, merged, spec_of
from tests.support.engine_files import EngineFiles
from tests.workloads.engine_settings import BY_NAME, EMBEDDER_ADAPTER

EXAMPLE_GROUP = "engines of the example"
EXAMPLE_ENGINES = pytest.mark.xdist_group(EXAMPLE_GROUP)
KEY = planted("the-engines-key")
EXAMPLE = CHECKOUT / "examples" / "agentfleet.yaml"
TOOLS = ("--enable-auto-tool-choice", "--tool-call-parser", "hermes", "--enable-prompt-tokens-details")


@dataclass(frozen=True, slots=True, kw_only=True)
class PodsEngine:
    """An engine that was started as the container of a pod; `arguments` are those behind the model."""

    model: str
    container: dict[str, Any]
    arguments: tuple[str, ...]
    engine: RunningEngine


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedEngine:
    """An engine that shows all of these settings, given by their names in `engine_settings.SETTINGS`, and
    what its tests need besides.
    """

    name: str
    settings: tuple[str, ...]
    besides: Mapping[str, Any] = field(default_factory=dict)
    rare: bool = False

    def engine(self) -> dict[str, Any]:
        """Its `spec.engine`."""
        engine = dict(self.besides)
        for name in self.settings:
            assert not BY_NAME[name].rest, "needs an engine of its own"
            engine = merged(engine, BY_NAME[name].engine)
        return engine


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests of an engine together, where the first of them is. Each engine then starts once, also in
    a run with one process.
    """
    first: dict[str, int] = {}
    order = {}
    for place, item in enumerate(items):
        engine = engine_of(item)
        order[item] = place if engine is None else first.setdefault(engine, place)
    items.sort(key=order.__getitem__)


def engine_of(item: pytest.Item) -> str | None:
    """The name of the engine, or of the two of the example, that a test shares with others."""
    group = item.get_closest_marker("xdist_group")
    if group is not None and group.args == (EXAMPLE_GROUP,):
        return EXAMPLE_GROUP
    used = item.callspec.params.get("engine") if hasattr(item, "callspec") else None
    return used.name if isinstance(used, SharedEngine) else None


class ExampleEngines:
    """The engines of the example that run, by their task; one starts when it is first asked for."""

    def __init__(self, files: EngineFiles, folders: pytest.TempPathFactory) -> None:
        self._files = files
        self._folders = folders
        self._running: dict[str, PodsEngine] = {}
        self._ends = ExitStack()

    def of(self, task: str) -> PodsEngine:
        """The engine of the example's set with this task."""
        if task not in self._running:
            made = started_as_a_pod(spec_for_tests(task), self._files, self._folders.mktemp(task))
            self._running[task] = self._ends.enter_context(made)
        return self._running[task]

    def stop(self) -> None:
        """End all that run."""
        self._ends.close()
        self._running.clear()


RUNNING = pytest.StashKey[ExampleEngines]()


@pytest.fixture(scope="session")
def engine_files(tmp_path_factory: pytest.TempPathFactory) -> EngineFiles:
    """Models, adapters and draft heads, in folders that stand for a pod's volumes."""
    models = ensure_models()
    root = tmp_path_factory.mktemp("engine-files")
    return EngineFiles.made(root, models / GENERATOR.name, models / EMBEDDER.name)


@pytest.fixture(scope="session")
def example_engines(
    request: pytest.FixtureRequest, engine_files: EngineFiles, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ExampleEngines]:
    """The engines of the example. An engine starts when a test first asks for it."""
    engines = ExampleEngines(engine_files, tmp_path_factory)
    request.config.stash[RUNNING] = engines
    yield engines
    engines.stop()


@pytest.fixture(scope="module")
def generator(example_engines: ExampleEngines) -> PodsEngine:
    """The example's generator."""
    return example_engines.of("Generate")


@pytest.fixture(scope="module")
def embedder(example_engines: ExampleEngines) -> PodsEngine:
    """The example's embedder, which serves an adapter beside its model."""
    return example_engines.of("Embed")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(
    item: pytest.Item, nextitem: pytest.Item | None
) -> Generator[None, object, object]:
    """Stop the example's engines behind the last of their tests: they take gigabytes of memory."""
    result = yield
    engines = item.config.stash.get(RUNNING, None)
    if engines is not None and (nextitem is None or engine_of(nextitem) != EXAMPLE_GROUP):
        engines.stop()
    return result


def spec_for_tests(task: str) -> ModelReplicaSetSpec:
    """The example's spec with what tests need besides; its model's name has a slash, as on the hub."""
    spec = specs_of_the_example()[task]
    if task == "Embed":
        model, engine = "pvc://m/minilm", {**spec["engine"], "adapters": [EMBEDDER_ADAPTER]}
    else:
        model = "pvc://m/llama"
        engine = {**spec["engine"], "extraArgs": [*spec["engine"]["extraArgs"], *TOOLS]}
    return spec_of(
        model={**spec["model"], "name": f"our/{spec['model']['name']}", "source": model}, engine=engine
    )


def specs_of_the_example() -> dict[str, dict[str, Any]]:
    """The specs of the example's sets by their task."""
    objects = yaml.safe_load_all(EXAMPLE.read_text())
    specs = [found["spec"] for found in objects if found["kind"] == "ModelReplicaSet"]
    return {spec["model"]["task"]: spec for spec in specs}


@contextmanager
def started_as_a_pod(spec: ModelReplicaSetSpec, files: EngineFiles, folder: Path) -> Iterator[PodsEngine]:
    """The engine of a replica's pod, with paths that exist here."""
    identity = GroupIdentity(name="llama-abcde", server_id=1, revision="r")
    pod: dict[str, Any] = engine_pod(OWNER, spec, identity, IMAGES)
    container: dict[str, Any] = pod["spec"]["containers"][0]
    (folder / FILE).write_text(pod["metadata"]["annotations"][ANNOTATION])
    middleware = next(row["value"] for row in container["env"] if row["name"] == ENV_MIDDLEWARE)
    variables = {
        **{variable["name"]: variable["value"] for variable in merged_environment([], spec)},
        contract.ENV_ENGINE_KEY: KEY,
        ENV_MIDDLEWARE: middleware.replace(DIRECTORY, str(folder)),
    }
    arguments = files.arguments(container["args"])
    with running(ensure(), arguments, free_port(), folder / "log", variables) as engine:
        yield PodsEngine(
            model=spec.model.name, container=container, arguments=tuple(arguments[1:]), engine=engine
        )
