"""The recipe of docs/router.md for a scaler of one's own, held against the routers as they are rendered."""

import re
from pathlib import Path
from typing import Any

import yaml
from prometheus_client import generate_latest

from flotilla_operator.workloads.model_replica_set import router_objects
from flotilla_runtime import contract
from flotilla_runtime.router.metrics import RouterMetrics
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


def test_the_pod_monitor_reads_the_agents_page_of_the_routers() -> None:
    monitor, template = printed("PodMonitor"), routers()["spec"]["template"]
    assert monitor["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    ports = {
        port["name"]: port["containerPort"]
        for container in template["spec"]["containers"]
        for port in container["ports"]
    }
    assert [ports[page["port"]] for page in monitor["podMetricsEndpoints"]] == [contract.PORT_ROUTER_AGENT]


def test_the_scaler_asks_for_metrics_that_the_routers_of_its_set_have() -> None:
    scaler, metrics = printed("ScaledObject"), generate_latest(RouterMetrics().registry).decode()
    assert scaler["scaleTargetRef"]["name"] == OWNER.name
    for trigger in scaler["triggers"]:
        query = trigger["metadata"]["query"]
        names, pods = re.findall(r"flotilla_\w+", query), re.findall(r'pod=~"([^"]+)"', query)
        assert len(names) == len(pods) > 0
        assert all(f"# TYPE {name} " in metrics for name in names)
        assert all(re.fullmatch(pattern, f"{routers()['metadata']['name']}-6d5f8-x2x9z") for pattern in pods)
