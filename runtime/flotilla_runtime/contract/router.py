"""The contract for the router: its configuration, and the status that its agent reports to the operator."""

import re
from enum import StrEnum
from typing import Final

from pydantic import Field

from flotilla_runtime.contract.names import (
    PORT_ENGINE,
    PORT_ROUTER,
    PORT_ROUTER_AGENT,
    PORT_ROUTER_INTERNAL,
    PORT_ROUTER_METRICS,
)
from flotilla_runtime.contract.sections import Section, WireModel

TLS_ENTRY: Final = "tls.crt"  # the entries of a Secret of type kubernetes.io/tls
TLS_KEY_ENTRY: Final = "tls.key"
TLS_FILE: Final = "tls.pem"
TLS_KEY_FILE: Final = "tls.pem.key"  # HAProxy looks for it beside the certificate


class RouterTask(StrEnum):
    """The task of the set's model. Embedding requests have no conversation, so any replica may get them."""

    GENERATE = "Generate"
    EMBED = "Embed"


class ListenFamily(StrEnum):
    """The address families on which the router listens."""

    DUAL = "Dual"
    IPV4 = "IPv4"
    IPV6 = "IPv6"


class RouterConfig(Section):
    """`config.json` of a router pod, read by `render` for HAProxy and by the agent.

    `models` are the names that every replica serves, including adapters; it is empty while a model is
    renamed. `engine_selector` selects the engine pods of one set; pods whose LABEL_STAGE is not "0" are
    ignored, because only the leader of a group serves. `router_selector` selects the set's router pods:
    limits apply to each process, so each agent divides them by the number of live routers.
    `caller_keys_directory` is the mount of the secret with the callers' keys; None accepts every caller.
    `tls_directory` is the mount of the certificate and its key, as TLS_FILE and TLS_KEY_FILE. With it, `port`
    serves HTTPS, and `internal_port` serves HTTP for Flotilla's own pods. With `hold_at_zero`, a request
    waits when there is no replica, within the limits of the queue. `engine_key_environment` names HAProxy's
    environment variable with the key of the engines; with None the caller's own header is passed on.
    `max_connections` is HAProxy's limit; callers get 95 % of it, so that probes and scrapes are answered when
    callers have used up theirs. The rest of a body that is refused is read for `refused_body_seconds`.
    `run_directory` is an emptyDir that HAProxy and the agent share. A router pod that is being deleted waits
    for its streams for up to `drain_deadline_seconds`; the pod's grace period must be longer. Answers within
    the two `promised_…` times are counted as kept.
    """

    name: str = Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)
    namespace: str = Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)
    models: tuple[str, ...]
    task: RouterTask = RouterTask.GENERATE
    engine_selector: dict[str, str] = Field(min_length=1)
    router_selector: dict[str, str] = Field(min_length=1)
    max_num_seqs: int = Field(default=48, ge=1)
    load_factor: float = Field(default=1.25, gt=1, le=10)
    max_queue: int = Field(default=1000, ge=1)
    max_request_mib: int = Field(default=16, ge=1, le=1024)
    max_connections: int = Field(default=8_000, ge=100)
    refused_body_seconds: int = Field(default=5, ge=1)
    queue_timeout_seconds: int = Field(default=60, ge=1)
    request_timeout_seconds: int = Field(default=600, ge=1)
    client_timeout_seconds: int = Field(default=30, ge=1)
    retry_after_seconds: int = Field(default=5, ge=1)
    drain_deadline_seconds: int = Field(default=300, ge=1)
    promised_first_byte_seconds: float | None = None
    promised_total_seconds: float | None = None
    caller_keys_directory: str | None = None
    tls_directory: str | None = None
    hold_at_zero: bool = False
    engine_key_environment: str | None = Field(default=None, pattern=r"^[A-Z_][A-Z0-9_]*$")
    run_directory: str = "/run/flotilla"
    listen_family: ListenFamily = ListenFamily.DUAL
    port: int = PORT_ROUTER
    internal_port: int = PORT_ROUTER_INTERNAL
    metrics_port: int = PORT_ROUTER_METRICS
    agent_port: int = PORT_ROUTER_AGENT
    engine_port: int = PORT_ENGINE


class ServerState(StrEnum):
    """A replica's state in HAProxy: it gets requests, it only finishes them, or HAProxy has no server yet."""

    READY = "Ready"
    DRAINING = "Draining"
    ABSENT = "Absent"


class RouterServer(WireModel):
    """One replica as one router sees it.

    `acknowledged_drain_epoch` is the epoch of the drain that this router has applied: it sends no new request
    to the replica, and `in_flight` are the last ones that it has sent. `idle_looks` counts how many times in
    a row, since that drain began, the engine itself had no running or waiting request.

    `answers`, `failed` (status 500 and above) and `kept` (within the promised times) cover the last half
    hour, and `sessions` are the conversations of the last ten minutes. They are levels, not counters. After a
    restart of the agent they are computed again from the lines that HAProxy still holds in its ring.

    `kv_usage` is the share of the replica's KV cache in use; None when the engine does not report it.
    """

    name: str
    id: int
    address: str
    state: ServerState
    in_flight: int
    queued: int
    acknowledged_drain_epoch: int | None = None
    idle_looks: int = 0
    answers: int = 0
    failed: int = 0
    kept: int = 0
    sessions: int = 0
    kv_usage: float | None = None


class RouterStatus(WireModel):
    """The answer to GET /v1/status on PORT_ROUTER_AGENT, which the operator scrapes from every router pod.

    `synced`: every replica's state has been applied at least once since the agent started. `waiting` counts
    the requests in queues, `held` those that wait for a first replica, and `in_flight` those that replicas
    are answering. `idle_seconds` is the time since the last of these, at most the time since the agent's
    start. `refused` counts refused requests by reason since the agent's start.

    `arrivals_per_second` counts the requests for the replicas, including those that were held, or refused for
    lack of room or of replicas. `kept_per_second` counts the answers within the promised times. Both cover
    the last minute, or the time since the agent's start if that is shorter; they are None when HAProxy could
    not be asked. `unusable` maps pods that cannot be servers to the problem.
    """

    name: str
    synced: bool
    draining: bool
    live_routers: int
    waiting: int
    held: int = 0
    in_flight: int
    idle_seconds: float = 0
    arrivals_per_second: float | None = None
    kept_per_second: float | None = None
    max_connections_per_replica: int
    queue_limit: int
    servers: tuple[RouterServer, ...]
    refused: dict[str, int]
    unusable: dict[str, str]


def router_urls(name: str, namespace: str) -> tuple[str, ...]:
    """The base URLs at which Flotilla's own pods can call a ModelReplicaSet: plain, and of one with HTTPS.

    Empty for a name that no ModelReplicaSet can have.
    """
    if re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name) is None:
        return ()
    return (
        f"http://{name}-model.{namespace}.svc:{PORT_ROUTER}/v1",
        f"http://{name}-model-internal.{namespace}.svc:{PORT_ROUTER_INTERNAL}/v1",
    )
