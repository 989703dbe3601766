"""Tasks that name an agent of the fleet: over the task API, and as a model of OpenAI's API; no server."""

import json
from http import HTTPStatus
from typing import Any

import pytest

from flotilla_runtime.agent.replays import Replay
from flotilla_runtime.agent.tasks import LoadedTask, NewTask, Submission, SubmitOutcome, TaskRecord
from flotilla_runtime.contract import GatewayAuth, GatewayConfig, QueueConfig, TaskLimits
from flotilla_runtime.gateway.auth import Identity
from flotilla_runtime.gateway.openai.answers import chat_completion, response
from flotilla_runtime.gateway.openai.requests import asked_chat, asked_response
from flotilla_runtime.gateway.problems import ProblemError
from flotilla_runtime.gateway.replays import Replays
from flotilla_runtime.gateway.requests import parse_submission
from flotilla_runtime.gateway.service import Outcome, Sources, TaskService

KNOWN = ("researcher", "writer")
ANN = Identity(name="ann", sees_own=True, sees_all=False)


class Store:
    """Keeps what is submitted."""

    def __init__(self) -> None:
        self.stored: list[NewTask] = []

    async def submit(self, task: NewTask) -> Submission:
        self.stored.append(task)
        return Submission(outcome=SubmitOutcome.CREATED, id=task.id)

    async def replay(self, record: TaskRecord, task: NewTask, kept: Any) -> Submission:
        return await self.submit(task)


def config(*agents: str) -> GatewayConfig:
    return GatewayConfig(
        queue=QueueConfig(fleet="d/s"), namespace="d", name="s", auth=GatewayAuth.NONE, agents=agents
    )


def service(store: Any, *agents: str) -> TaskService:
    sources = Sources(wall_ms=lambda: 0, monotonic_seconds=lambda: 0.0, random_bits=lambda bits: 0)
    return TaskService(store, config(*agents), sources)


def record(agent: str = "") -> TaskRecord:
    fields = {
        "id": "t1",
        "status": "Succeeded",
        "priority": "Interactive",
        "caller": "ann",
        "input": "why?",
        "limits": TaskLimits().model_dump_json(),
        "metadata": "{}",
        "submittedAt": "0",
        "attempts": "1",
        "result": '{"answer": "Because."}',
    }
    return TaskRecord.of(fields | ({"agent": agent} if agent else {}))


@pytest.mark.holds(
    "tasks.md",
    "A task goes to the agent that it names, replays too; a name that there is not is refused with "
    "those that there are",
)
@pytest.mark.parametrize(
    ("fields", "agent"),
    [
        pytest.param({}, "", id="the fleet's own"),
        pytest.param({"agent": None}, "", id="none"),
        pytest.param({"agent": "writer"}, "writer", id="one of the fleet"),
    ],
)
async def test_a_task_goes_to_the_agent_that_it_names(fields: dict[str, Any], agent: str) -> None:
    store = Store()
    request = parse_submission(json.dumps({"input": "why?", **fields}).encode())
    await service(store, *KNOWN).submit(request, ANN, "ann")
    (stored,) = store.stored
    assert stored.agent == agent
    assert stored.fields().get("agent") == (agent or None), "tasks of the fleet's own have no such field"


@pytest.mark.holds(
    "tasks.md",
    "A task goes to the agent that it names, replays too; a name that there is not is refused with "
    "those that there are",
)
@pytest.mark.parametrize(
    ("known", "says"),
    [
        pytest.param(
            KNOWN,
            "agent: there is no agent 'nobody'; the agents are researcher, writer; leave it out for the "
            "fleet's own",
            id="among others",
        ),
        pytest.param(
            (),
            "agent: there is no agent 'nobody'; the fleet has none beside its own; leave it out for the "
            "fleet's own",
            id="where there is none",
        ),
    ],
)
async def test_an_agent_that_there_is_not_is_refused_by_its_field_with_those_that_there_are(
    known: tuple[str, ...], says: str
) -> None:
    store = Store()
    request = parse_submission(b'{"input": "why?", "agent": "nobody"}')
    with pytest.raises(ProblemError) as refused:
        await service(store, *known).submit(request, ANN, "ann")
    problem = refused.value
    assert (problem.status, problem.kind) == (HTTPStatus.UNPROCESSABLE_ENTITY, "unknown-agent")
    assert problem.detail == says
    assert [one.field for one in problem.fields] == ["agent"]
    assert store.stored == []


@pytest.mark.holds(
    "tasks.md",
    "A task goes to the agent that it names, replays too; a name that there is not is refused with "
    "those that there are",
)
async def test_a_replay_is_done_by_the_same_agent() -> None:
    store = Store()
    replays = Replays(service(store, *KNOWN), store, config(*KNOWN))  # type: ignore[arg-type]
    loaded = LoadedTask(record=record("writer"), entries=(), read_at=0)
    await replays._submitted(loaded, Replay(kept=(), effects=(), spawned=(), approvals=()).kept, None)
    assert [task.agent for task in store.stored] == ["writer"]


@pytest.mark.holds("front-ends.md", "NAME/AGENT is a model of OpenAI's API")
@pytest.mark.parametrize("ask", [asked_chat, asked_response])
def test_an_agent_is_a_model_of_openais_api(ask: Any) -> None:
    said = {"messages": [{"role": "user", "content": "why?"}]} if ask is asked_chat else {"input": "why?"}

    def asked(model: str) -> str | None:
        body = json.dumps({"model": model, **said}).encode()
        agent: str | None = ask(body, "support", None, KNOWN).submission.agent
        return agent

    assert (asked("support"), asked("support/writer")) == (None, "writer")
    with pytest.raises(ProblemError) as refused:
        asked("support/nobody")
    assert refused.value.detail == (
        "there is no model 'support/nobody'; the models are 'support', 'support/researcher', 'support/writer'"
    )


@pytest.mark.holds("front-ends.md", "NAME/AGENT is a model of OpenAI's API")
def test_an_answer_names_the_model_that_was_asked() -> None:
    for agent, model in (("", "support"), ("writer", "support/writer")):
        outcome = Outcome(record=record(agent))
        assert chat_completion(outcome, "support")["model"] == model
        assert response(outcome, "support")["model"] == model
