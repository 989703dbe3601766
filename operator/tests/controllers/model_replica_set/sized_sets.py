"""Sets with pods that have said what their model is, for tests of what is made of it."""

from collections.abc import Mapping, Sequence
from typing import Any

from flotilla_operator.placement import Snapshot
from flotilla_runtime.contract import ModelFacts
from tests.builders.model_configs import LLAMA_8B
from tests.builders.model_replica_set import gpu_set, merged
from tests.builders.pods import NOW, container_status, terminated, time_text
from tests.controllers.model_replica_set.test_plan import member, observed
from tests.support.planned import Plan
from tests.support.planned import plan_of_set as plan

WEIGHTS_8B, WEIGHTS_70B = 16_060_556_376, 141_107_497_872  # of the repositories' index files


def saying(config: dict[str, Any], file_bytes: int | None = None) -> list[dict[str, Any]]:
    facts = ModelFacts(config=config, file_bytes=file_bytes).model_dump_json(exclude_none=True)
    return [container_status("read-model-facts", state=terminated(0, facts))]


def planned(
    manifest: dict[str, Any],
    config: dict[str, Any] | None = LLAMA_8B,
    file_bytes: int | None = None,
    *,
    ready: bool = False,
    pods: Sequence[dict[str, Any]] = (),
    snapshot: Snapshot | None = None,
    status: Mapping[str, Any] | None = None,
) -> Plan:
    """A set with one pod that has said this of its model."""
    inits = saying(config, file_bytes) if config is not None else ()
    pods = pods or [member(manifest, "llama-aaaaa", node="a", pin="a", ready=ready, inits=inits)]
    whole = {**manifest, "status": status} if status is not None else manifest
    return plan(observed(whole, pods, snapshot=snapshot), NOW)


def capacity(done: Plan) -> dict[str, Any]:
    assert done.status is not None
    found: dict[str, Any] = done.status["capacity"] or {}
    return found


def a_set(*, tensor: int = 1, **changes: Any) -> dict[str, Any]:
    """Two replicas on H100s of 80 GiB."""
    base = gpu_set(parallelism={"tensor": tensor}, accelerator={"memoryGiB": 80})
    return merged(base, {"spec": changes})


def started(
    manifest: dict[str, Any], name: str, *, age: float, ready_ago: float, **fields: Any
) -> dict[str, Any]:
    pod = member(manifest, name, node="a", ready=True, age=age, **fields)
    pod["status"]["conditions"][0]["lastTransitionTime"] = time_text(ready_ago)
    return pod
