"""A LangGraph graph from an image of one's own asks for approval, and its trace is whole at a receiver.

The graph is examples/agents/graph.py. What a kill repeats is runtime/tests/agent/graphs.
"""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx2
import pytest

from demo.environment import ROOT, Environment
from leaks.planted import planted
from local_cluster import images
from tests.support import trace_receiver
from tests.support.applied import Site, example
from tests.support.fleet_tasks import gateway_of, submitted
from tests.support.servers import PORT, server
from tests.support.stand_ins import doubles

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(2400, func_only=True)]

NAME = "shopper"
KEY = planted("a-key-of-mine")
ANSWER = "The suite costs 300 euro."
CALL = {"name": "price", "arguments": {"article": "suite"}}
PLAN = {"turns": [{"tool_calls": [CALL]}, {"content": ANSWER}]}
QUESTION = f"What does the suite cost? [[plan {json.dumps(PLAN)}]]"
DOCKERFILE = """
ARG RUNTIME_IMAGE
FROM ${RUNTIME_IMAGE}
ARG LANGGRAPH
USER root
RUN pip install --no-cache-dir --no-compile langgraph==${LANGGRAPH}
USER 65532:65532
COPY graph.py /opt/flotilla/app/
"""


def graph_image(folder: Path, runtime: str) -> str:
    """The reference of an image with the example's graph and the LangGraph that it is tested with."""
    (folder / "graph.py").write_text((ROOT / "examples" / "agents" / "graph.py").read_text())
    (folder / "Dockerfile").write_text(DOCKERFILE)
    return images.build_and_import(
        name=NAME,
        dockerfile=folder / "Dockerfile",
        context=folder,
        paths=("graph.py",),
        arguments={"RUNTIME_IMAGE": runtime, "LANGGRAPH": version("langgraph")},
    )


def fleet(image: str) -> dict[str, Any]:
    auth = {"mode": "Secret", "secretRef": {"name": NAME}, "approvers": ["me"]}
    return example(
        "AgentFleet",
        NAME,
        agent={"graph": "graph:graph"},
        image=image,
        models=[{"role": "Default", "modelRef": {"name": NAME}}],
        indexes=[],
        tools=[{"name": "price", "python": "graph:price", "effect": "Pure"}],
        workers={"maxReplicas": 1},
        gateway={"replicas": 1, "auth": auth},
        telemetry={"otlpEndpoint": f"http://{trace_receiver.NAME}:{PORT}"},
    )


@pytest.mark.holds(
    "observability.md",
    "A graph from an image of one's own is approved in a cluster, and its task's trace is whole at "
    "a receiver",
)
@pytest.mark.once
def test_a_graph_is_approved_and_its_trace_is_whole(
    installed: Environment, site: Site, double: str, tmp_path: Path
) -> None:
    runtime = installed.build_images()["runtime"]
    site.apply(doubles(NAME, double))
    key = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": NAME}, "stringData": {"me": KEY}}
    site.apply(key)
    site.apply(fleet(graph_image(tmp_path, runtime)))
    with (
        server(site, runtime, trace_receiver.NAME, trace_receiver.SERVER) as receiver,
        gateway(site) as client,
    ):
        task = submitted(client, QUESTION)
        (approval,) = site.until(lambda: told(client, task)["approvals"], "AgentFleet", NAME, "an interrupt")
        assert approval["arguments"] == {"question": "May it cost so much?", "euro": 300}
        decision = {"call": approval["call"], "approved": True}
        client.post(f"/v1/tasks/{task}/approve", json=decision).raise_for_status()
        ended = site.until(lambda: succeeded(client, task), "AgentFleet", NAME, "the answer")
        assert ended["result"] == ANSWER
        spans = site.until(lambda: whole_trace_of_the_end(receiver), "AgentFleet", NAME, "the trace")
    named = Counter(span["name"] for span in spans)
    assert (named["submit task"], named[f"invoke_agent {NAME}"]) == (1, 1)
    assert (named[f"chat {NAME}"], named["execute_tool price"]) == (2, 1)
    replicas = {span["replica"] for span in spans if span["name"] == f"chat {NAME}"}
    assert replicas <= set(site.pods(NAME))
    assert {span["service"] for span in spans} == {"flotilla-gateway", "flotilla-worker"}


@contextmanager
def gateway(site: Site) -> Iterator[httpx2.Client]:
    """A client of the fleet's gateway, once the fleet is ready."""
    site.wait("AgentFleet", NAME, "Ready", "True")
    with gateway_of(site.kubectl, NAME, KEY) as client:
        yield client


def told(client: httpx2.Client, task: str) -> dict[str, Any]:
    """The task, which has not failed."""
    found: dict[str, Any] = client.get(f"/v1/tasks/{task}").raise_for_status().json()
    assert found["status"] not in {"Failed", "Cancelled"}, found
    return found


def succeeded(client: httpx2.Client, task: str) -> dict[str, Any] | None:
    found = told(client, task)
    return found if found["status"] == "Succeeded" else None


def whole_trace_of_the_end(receiver: httpx2.Client) -> list[dict[str, Any]]:
    """The spans of a whole trace, once that of the task, which comes last, is among them."""
    spans = trace_receiver.whole_trace(receiver)
    return spans if any(span["name"].startswith("invoke_agent") for span in spans) else []
