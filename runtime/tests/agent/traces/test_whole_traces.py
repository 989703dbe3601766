"""Tasks in memory, and their traces at a receiver: whole, whatever happened to their workers.

What a span says is in test_spans.py, a receiver that is away in test_export.py.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from agent_support.collector import Collector, Received, collecting
from agent_support.memory import CrashError, CrashPoints, MemoryStore
from agent_support.running import ScriptedCalls, config_of, program_of, said, tool_of, usual
from flotilla_runtime.agent.engine.run import Clock, Means, RunOutcome, TaskRun
from flotilla_runtime.agent.journal import CallKind
from flotilla_runtime.agent.protocols import Call, Reply
from flotilla_runtime.agent.tasks import child_id
from flotilla_runtime.agent.traces.export import Exporter, OtlpBatches
from flotilla_runtime.agent.worker.metrics import WorkerMetrics
from flotilla_runtime.agent.worker.traced import Tracer
from flotilla_runtime.agents import Context, Task
from flotilla_runtime.contract import Effect, TelemetryConfig

TASK = "01k0000000aaaaaaaaaaaaaaaa"
CITIES = ("Lisbon", "Porto")
TOOLS = (tool_of("weather", Effect.PURE), tool_of("book", Effect.UNSAFE))
CONFIG = config_of(indexes=("handbook",))


async def agent(ctx: Context, task: Task) -> Any:
    """A fan-out, a search, a model and a spawned task."""
    if task.input == "below":
        return (await ctx.llm("Below.")).text
    asked = {city: partial(ctx.tool, "weather", {"city": city}) for city in CITIES}
    gathered = await ctx.fan_out(asked)
    await ctx.retrieve("handbook", "secret question")
    with ctx.scope("turn/1"):
        text = (await ctx.llm(f"Of {sorted(gathered.present)}.")).text
    await ctx.random()
    child = await ctx.spawn("below")
    return {"text": text, "below": child}


def scripted(call: Call) -> Reply:
    return (
        said("So it is.", replica="m-0", nano_usd=2_000_000) if call.kind is CallKind.MODEL else usual(call)
    )


class Traced:
    """A task that is run by workers which trace."""

    def __init__(self, collector: Collector, **telemetry: Any) -> None:
        self.store = MemoryStore()
        self.store.submit(TASK, "secret question")
        self.calls = ScriptedCalls(script=scripted)
        self.config = TelemetryConfig(endpoint=collector.url, **telemetry)
        self.metrics = WorkerMetrics()

    def crash_at(self, point: int | None) -> None:
        self.store.points = self.calls.points = CrashPoints(crash_at=point)

    async def run(self, task_id: str) -> RunOutcome | None:
        """One run, by a process of its own; None if that is gone before its last spans were sent."""
        exporter = Exporter(
            self.config,
            service="flotilla-worker",
            instance="w",
            ends=self.metrics.spans,
            send=OtlpBatches(self.config),
        )
        tracer = Tracer(exporter, CONFIG)
        claim, task = self.store.claim(task_id)
        self.store.now_ms += 10
        journal, calls = tracer.traced(task, self.store, self.calls, lambda: self.store.now_ms)
        clock = Clock(monotonic_seconds=lambda: self.store.now_ms / 1000)
        means = Means(worker="w", journal=journal, calls=calls, clock=clock)
        outcome: RunOutcome | None = None
        try:
            outcome = await TaskRun(claim, task, program_of(agent, *TOOLS, config=CONFIG), means).run()
        except* CrashError:
            pass
        else:
            exporter.start()
            tracer.stop()
        return outcome

    async def to_the_end(self, crash_at: int | None = None) -> None:
        self.crash_at(crash_at)
        for _ in range(20):
            for task_id, task in tuple(self.store.tasks.items()):
                if task.finish is None and await self.run(task_id) is None:
                    self.crash_at(None)
            if self.store.tasks[TASK].finish is not None:
                return
        raise AssertionError("the task does not end")


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as receiver:
        yield receiver


def named(spans: dict[str, Received], name: str) -> Received:
    (found,) = [span for span in spans.values() if span.name == name]
    return found


def above(spans: dict[str, Received], span: Received) -> list[str]:
    names = []
    while span.parent:
        span = spans[span.parent]
        names.append(span.name)
    return names


@pytest.mark.holds(
    "observability.md",
    "A task is one whole trace over gateway, queue, calls, branches and spawned tasks, and a part "
    "of its caller's",
)
async def test_a_task_with_a_fan_out_and_a_model_call_gives_one_whole_trace(collector: Collector) -> None:
    await Traced(collector).to_the_end()
    spans = collector.check_whole()
    agents = {span.attributes["flotilla.task.id"]: span for span in spans.values() if "agent" in span.name}
    root, below = agents[TASK], agents[child_id(TASK, "spawn")]
    assert (root.name, root.parent, root.service) == ("invoke_agent support", "", "flotilla-worker")
    assert above(spans, below) == ["spawn", "invoke_agent support"]
    tools = [span for span in spans.values() if span.name == "execute_tool weather"]
    assert sorted(above(spans, tool) for tool in tools) == [
        ["Lisbon", "fan_out", "invoke_agent support"],
        ["Porto", "fan_out", "invoke_agent support"],
    ]
    chats = [span for span in spans.values() if span.name == "chat smollm2"]
    assert sorted(len(above(spans, chat)) for chat in chats) == [2, 3]
    assert ["turn/1", "invoke_agent support"] in [above(spans, chat) for chat in chats]
    assert above(spans, named(spans, "retrieval handbook")) == ["invoke_agent support"]
    assert {span.attributes["flotilla.replica"] for span in chats} == {"m-0"}
    assert "random" not in {span.name for span in spans.values()}, "it takes no time"
    assert collector.paths[0] == "/v1/traces"


@pytest.mark.holds(
    "observability.md",
    "The other side of a call gets its span; the replica that answered is in the span of the call",
)
async def test_the_other_side_of_a_call_is_told_its_span(collector: Collector) -> None:
    traced = Traced(collector)
    await traced.to_the_end()
    spans = collector.check_whole()
    for call in traced.calls.asked:
        assert call.traceparent is not None
        version, trace, span, flags = call.traceparent.split("-")
        assert (version, flags) == ("00", "01")
        assert (spans[span].trace, spans[span].attributes["flotilla.call.id"]) == (trace, call.id)


@pytest.mark.holds("observability.md", "A task goes on in the same trace, whatever happened to its workers")
async def test_a_task_that_is_crashed_anywhere_goes_on_in_the_same_trace(collector: Collector) -> None:
    """Each story gives the spans of the one without a crash, but for waits: they depend on who was there.

    What is lost with a worker right after it has given a task up in good order, nobody gives again.
    """
    whole = Traced(collector)
    await whole.to_the_end()
    expected = {span.id for span in collector.check_whole().values() if span.name != "queue"}
    points = whole.store.points.passed
    assert len(points) > 30
    for point, name in enumerate(points):
        if name in ("after finish", "after suspend") or point % 2:
            continue
        collector.spans.clear()
        await Traced(collector).to_the_end(crash_at=point)
        assert expected <= {span.id for span in collector.spans}, name
        assert not _without_parent(collector), name


def _without_parent(collector: Collector) -> set[str]:
    return {span.parent for span in collector.spans if span.parent} - {span.id for span in collector.spans}


@pytest.mark.holds(
    "observability.md", "A trace is sampled by its id, as OpenTelemetry decides, whole or not at all"
)
async def test_a_trace_that_is_not_sampled_sends_nothing(collector: Collector) -> None:
    traced = Traced(collector, sample_percent=0)
    await traced.to_the_end()
    assert collector.spans == []
    assert {call.traceparent for call in traced.calls.asked} == {None}


@pytest.mark.holds(
    "observability.md", "Content is sent only where it is asked for, in the form of the conventions"
)
@pytest.mark.attack("A receiver of traces is to learn what tasks are about, or their keys")
async def test_content_is_sent_only_where_it_is_asked_for(collector: Collector) -> None:
    await Traced(collector).to_the_end()
    assert "secret question" not in repr(collector.spans)
    assert "So it is." not in repr(collector.spans)
    collector.spans.clear()
    await Traced(collector, content=True).to_the_end()
    told = {name for span in collector.spans for name in span.attributes}
    assert {
        *("gen_ai.input.messages", "gen_ai.output.messages"),
        *("gen_ai.tool.call.arguments", "gen_ai.tool.call.result"),
        *("langfuse.observation.input", "langfuse.observation.output"),
    } <= told
    assert "secret question" in repr(collector.spans)
