"""The router: its configuration, and what its agent answers to the operator."""

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

TLS_FILE: Final = "tls.pem"
TLS_KEY_FILE: Final = "tls.pem.key"  # HAProxy looks for it beside the certificate


class RouterTask(StrEnum):
    """What the set's model does; embeddings have no conversation, so they are not kept on a replica."""

    GENERATE = "Generate"
    EMBED = "Embed"


class ListenFamily(StrEnum):
    """The address families that the router's listeners take."""

    DUAL = "Dual"
    IPV4 = "IPv4"
    IPV6 = "IPv6"


class RouterConfig(Section):
    """`config.json` of a router pod: read by `render` for HAProxy and by the agent beside it.

    `models` are the names that every replica serves, adapters too; none while a model is renamed. The engine
    selector must find the pods of one set; pods whose LABEL_STAGE is not "0" are passed over, since only a
    group's leader serves. The router selector finds the set's router pods: limits are per process, so each
    agent divides by the number alive.
    `caller_keys_directory` is where the secret of callers' keys is mounted; None lets everyone in.
    `tls_directory` is where the certificate and its key are mounted, as TLS_FILE and TLS_KEY_FILE: then
    `port` speaks HTTPS, and `internal_port` speaks HTTP to Flotilla's own pods.
    `hold_at_zero` makes a request that finds no replica wait for one, up to the queue's time and length.
    `engine_key_environment` names the environment variable of HAProxy that holds the key the engines ask for;
    None passes on what the caller sent.
    `run_directory` is an emptyDir that HAProxy and the agent share. `drain_deadline_seconds` is how long a
    router pod that is being deleted waits for its streams; the pod's grace period must be longer. The two
    `promised_…` are the times that answers are counted against.
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
    """What HAProxy does with a server: sends it requests, lets it finish, or nothing yet."""

    READY = "Ready"
    DRAINING = "Draining"
    ABSENT = "Absent"


class RouterServer(WireModel):
    """One replica as one router sees it.

    `acknowledged_drain_epoch` is the epoch of the drain this router has applied: it sends the replica nothing
    new, and `in_flight` is all that is left of it here. `idle_looks` counts how often in a row, since that
    drain began, the engine itself had nothing running or waiting. `answers`, `failed` (500 and above) and
    `kept` (within the promised times) are those of the last half hour, `sessions` the conversations of the
    last ten minutes: levels and no counters, which outlive the agent as far as HAProxy's ring of lines goes.
    `kv_usage` is the share of its KV cache in use, None where the engine does not say so.
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
    """Answer of GET /v1/status on PORT_ROUTER_AGENT, which the operator scrapes from every router pod.

    `synced` says that every replica's state has been applied at least once since HAProxy started. `waiting`
    is every request in a queue, `held` those that wait for a first replica, `in_flight` those a replica works
    on. `idle_seconds` is how long there has been none of them, the agent's start at the earliest. `refused`
    counts by reason since then. `arrivals_per_second` are the requests that came for the replicas, also those
    that were held, or refused for want of room or replicas; `kept_per_second` the answers within the promised
    times: both of the last minute, or of what has passed of it since the agent's start, and None when HAProxy
    has not been asked. `unusable` are pods that cannot be servers, each with the problem.
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
