"""Quotes on pages are what the code says: messages, metrics, and the fields of the search API.

A page shows a message for the example that it describes; the same example is computed here. The metrics of
routers are in operator/tests/workloads/test_router_docs.py, those of retrievers in
runtime/tests/retrieval/test_search_page.py.
"""

import re
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from pydantic import BaseModel

from flotilla_operator.capacity import Accelerator, Parallel, Wanted, fit, remedies, shape_of
from flotilla_operator.capacity.explain import explained
from flotilla_operator.placement.outcome import Refusal, RefusalReason
from flotilla_runtime.agent.worker.metrics import WorkerMetrics
from flotilla_runtime.contract import Passage, RetrieveRequest, RetrieveResponse
from flotilla_runtime.gateway.metrics import GatewayMetrics
from tests.builders.model_configs import LLAMA_70B
from tests.builders.placement import group

DOCS = Path(__file__).parents[3] / "docs"
WEIGHT_FILE_BYTES = 141_107_497_872  # as the page says


def quoted(page: str, pattern: str) -> str:
    """The only text of the page that matches, on one line."""
    (found,) = re.findall(pattern, (DOCS / page).read_text(), re.DOTALL)
    return " ".join(str(found).split())


@pytest.mark.holds("capacity.md", "The message of the example, word by word")
def test_what_the_capacity_page_quotes() -> None:
    shape, parallel = shape_of(LLAMA_70B, WEIGHT_FILE_BYTES), Parallel(tensor=2)
    accelerator, wanted = Accelerator(memory_gib=80), Wanted(max_model_len=131_072)
    verdict = fit(shape, accelerator, wanted, parallel)
    said = explained(shape, accelerator, wanted, verdict, remedies(shape, accelerator, wanted, parallel, 8))
    assert quoted("capacity.md", r"```\nSpecValid  False  ModelDoesNotFit\n(.*?)```") == said


@pytest.mark.holds("placement.md", "Every node is counted under the first reason against it, in one sentence")
def test_what_the_placement_page_quotes() -> None:
    refusal = Refusal(
        group=group("a", stages=2, pack_within="topology.kubernetes.io/zone", required=True),
        nodes_total=3,
        counts={RefusalReason.NO_DOMAIN_WITH_ROOM: 2, RefusalReason.TOPOLOGY_LABEL_MISSING: 1},
        fits_when_empty=False,
        stages_with_room=2,
        stages_in_one_domain=1,
    )
    assert quoted("placement.md", r"\n\n(    0/3 nodes .*?)\n\n") == refusal.message


@pytest.mark.holds("search.md", "Every field of the request and of the answer is on the page")
@pytest.mark.parametrize(
    ("heading", "model", "prefix"),
    [
        pytest.param("Request", RetrieveRequest, "", id="the request"),
        pytest.param("Answer", RetrieveResponse, "", id="the answer"),
        pytest.param("Answer", Passage, "passages[].", id="a passage"),
    ],
)
def test_every_field_of_a_search_is_on_its_page(heading: str, model: type[BaseModel], prefix: str) -> None:
    (section,) = re.findall(
        rf"^## {heading}\n(.*?)^## ", (DOCS / "search.md").read_text(), re.DOTALL | re.MULTILINE
    )
    named = re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE)
    ours = [name.removeprefix(prefix) for name in named if name.startswith(prefix)]
    fields = [field.alias or name for name, field in model.model_fields.items()]
    assert sorted(name for name in ours if "." not in name) == sorted(fields)


@pytest.mark.holds("tasks.md", "Every metric of gateways and workers is on the page")
@pytest.mark.parametrize(
    "registry",
    [
        pytest.param(GatewayMetrics().registry, id="gateways"),
        pytest.param(WorkerMetrics().registry, id="workers"),
    ],
)
def test_every_metric_of_a_fleet_is_on_the_tasks_page(registry: CollectorRegistry) -> None:
    names = re.findall(r"^# TYPE (\S+) ", generate_latest(registry).decode(), re.MULTILINE)
    ours = [name for name in names if not name.endswith("_created")]
    assert ours
    assert [name for name in ours if f"| `{name}` |" not in (DOCS / "tasks.md").read_text()] == []
