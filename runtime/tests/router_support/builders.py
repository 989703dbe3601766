"""Short ways to say what a router's test is about."""

from typing import Any

from flotilla_runtime import contract
from flotilla_runtime.contract import RouterConfig, ServerState
from flotilla_runtime.router.commands import AdminState
from flotilla_runtime.router.pods import Replica
from flotilla_runtime.router.requests import RequestRecord
from flotilla_runtime.router.servers import ObservedServer

ENGINES = {contract.LABEL_OWNER_NAME: "smol", contract.LABEL_COMPONENT: "engine"}
ROUTERS = {contract.LABEL_OWNER_NAME: "smol", contract.LABEL_COMPONENT: "router"}


def config(**fields: Any) -> RouterConfig:
    return RouterConfig(
        **{
            "name": "smol",
            "namespace": "demo",
            "models": ("smollm2",),
            "engine_selector": ENGINES,
            "router_selector": ROUTERS,
            **fields,
        }
    )


def pod(
    name: str,
    *,
    server_id: int | str | None = None,
    ip: str | None = "10.0.0.1",
    ready: bool = True,
    terminating: bool = False,
    drain_epoch: int | str | None = None,
    stage: str = "0",
    phase: str = "Running",
    created: str = "2026-01-01T00:00:00Z",
    group: str | None = None,
    labels: dict[str, str] = ENGINES,
) -> dict[str, Any]:
    annotations = {}
    if server_id is not None:
        annotations[contract.ANNOTATION_SERVER_ID] = str(server_id)
    if drain_epoch is not None:
        annotations[contract.ANNOTATION_DRAIN_EPOCH] = str(drain_epoch)
    metadata: dict[str, Any] = {
        "name": name,
        "labels": {**labels, contract.LABEL_GROUP: group or name, contract.LABEL_STAGE: stage},
        "annotations": annotations,
        "creationTimestamp": created,
    }
    if terminating:
        metadata["deletionTimestamp"] = "2026-01-01T01:00:00Z"
    status: dict[str, Any] = {
        "phase": phase,
        "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
    }
    if ip is not None:
        status["podIP"] = ip
    return {"metadata": metadata, "status": status}


def replica(
    name: str,
    server_id: int,
    *,
    ip: str = "10.0.0.1",
    state: ServerState = ServerState.READY,
    drain_epoch: int | None = None,
) -> Replica:
    return Replica(name=name, id=server_id, ip=ip, state=state, drain_epoch=drain_epoch)


def server(
    name: str,
    server_id: int,
    *,
    ip: str = "10.0.0.1",
    port: int = contract.PORT_ENGINE,
    admin: AdminState = AdminState.READY,
    max_connections: int = 53,
    in_flight: int = 0,
    queued: int = 0,
) -> ObservedServer:
    return ObservedServer(
        name=name,
        id=server_id,
        ip=ip,
        port=port,
        admin=admin,
        max_connections=max_connections,
        in_flight=in_flight,
        queued=queued,
    )


def record(**fields: Any) -> RequestRecord:
    """A request that replica `a` answered."""
    answer: dict[str, Any] = {
        "ended_at": 0.0,
        "caller": "fleet",
        "priority": "Interactive",
        "key_source": "Header",
        "conversation": None,
        "moved": False,
        "refused": None,
        "replica": "a",
        "status": 200,
        "aborted": False,
        "queue_seconds": 0.0,
        "first_byte_seconds": 0.5,
        "total_seconds": 4.0,
    }
    return RequestRecord(**(answer | fields))
