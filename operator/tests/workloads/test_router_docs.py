"""docs/router.md against the rendered routers: the recipe for an autoscaler of one's own, all headers, all
metrics and all reasons of a refusal.
"""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import generate_latest

from flotilla_operator.workloads.model_replica_set import router_objects
from flotilla_runtime import contract
from flotilla_runtime.router.metrics import RouterMetrics
from flotilla_runtime.router.openai_errors import refusals
from tests.builders.model_replica_set import IMAGES, OWNER, spec_of

PAGE = Path(__file__).parents[3] / "docs" / "router.md"


def printed(kind: str) -> dict[str, Any]:
    """The spec of the page's only object of a kind."""
    blocks = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (spec,) = (found["spec"] for found in map(yaml.safe_load, blocks) if found["kind"] == kind)
    assert isinstance(spec, dict)
    return spec


def routers() -> dict[str, Any]:
    """The Deployment of the routers of a set."""
    objects = router_objects(OWNER, spec_of(), IMAGES, several_stages=False)
    (found,) = (manifest for manifest in objects if manifest["kind"] == "Deployment")
    return found


@pytest.mark.holds(
    "router.md", "The PodMonitor and the ScaledObject of the page fit the routers' ports, labels and metrics"
)
def test_the_pod_monitor_reads_the_agents_page_of_the_routers() -> None:
    monitor, template = printed("PodMonitor"), routers()["spec"]["template"]
    assert monitor["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    ports = {
        port["name"]: port["containerPort"]
        for container in template["spec"]["containers"]
        for port in container["ports"]
    }
    assert [ports[page["port"]] for page in monitor["podMetricsEndpoints"]] == [contract.PORT_ROUTER_AGENT]


@pytest.mark.holds(
    "router.md", "The PodMonitor and the ScaledObject of the page fit the routers' ports, labels and metrics"
)
@pytest.mark.holds("router.md", "Waiting and in-flight requests are told")
def test_the_scaler_asks_for_metrics_that_the_routers_of_its_set_have() -> None:
    scaler, metrics = printed("ScaledObject"), generate_latest(RouterMetrics().registry).decode()
    assert scaler["scaleTargetRef"]["name"] == OWNER.name
    assert scaler["triggers"]
    for trigger in scaler["triggers"]:
        query = trigger["metadata"]["query"]
        names, pods = re.findall(r"flotilla_\w+", query), re.findall(r'pod=~"([^"]+)"', query)
        assert len(names) == len(pods) > 0
        assert all(f"# TYPE {name} " in metrics for name in names)
        assert all(re.fullmatch(pattern, f"{routers()['metadata']['name']}-6d5f8-x2x9z") for pattern in pods)


@pytest.mark.holds("router.md", "Every header of ours is on the page")
def test_every_header_of_the_contract_is_on_the_page() -> None:
    headers = [value for name, value in vars(contract).items() if name.startswith("HEADER_")]
    headers.remove(contract.HEADER_TENANT)  # of submissions and searches, and on the page of tasks
    assert headers
    assert [header for header in headers if f"`{header}`" not in PAGE.read_text()] == []


@pytest.mark.holds("router.md", "Every metric of the agent is on the page")
def test_every_metric_of_the_agent_is_on_the_page() -> None:
    metrics = re.findall(r"^# TYPE (\S+) ", generate_latest(RouterMetrics().registry).decode(), re.MULTILINE)
    ours = [name for name in metrics if not name.endswith("_created")]
    assert ours
    assert [name for name in ours if f"| `{name}` |" not in PAGE.read_text()] == []


@pytest.mark.holds("router.md", "Every reason of a refusal is on the page with its status")
def test_every_reason_of_a_refusal_is_on_the_page_with_its_status() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\d{3}) \|", PAGE.read_text(), re.MULTILINE)
    told = refusals(max_request_mib=1, queue_timeout_seconds=1)
    assert dict(rows) == {reason.value: str(error.status) for reason, error in told.items()}
