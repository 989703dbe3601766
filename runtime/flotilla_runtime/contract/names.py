"""Names that several kinds use: labels, annotations, environment variables, headers, paths and ports."""

from typing import Final

DOMAIN: Final = "flotilla.dev"
API_VERSION: Final = f"{DOMAIN}/v1alpha1"

LABEL_MANAGED_BY: Final = "app.kubernetes.io/managed-by"
LABEL_COMPONENT: Final = "app.kubernetes.io/component"
LABEL_INSTANCE: Final = "app.kubernetes.io/instance"
LABEL_NAME: Final = "app.kubernetes.io/name"
MANAGED_BY: Final = "flotilla"

LABEL_OWNER_KIND: Final = f"{DOMAIN}/kind"
LABEL_OWNER_NAME: Final = f"{DOMAIN}/owner"
LABEL_GROUP: Final = f"{DOMAIN}/group"
LABEL_STAGE: Final = f"{DOMAIN}/stage"
LABEL_REVISION: Final = f"{DOMAIN}/revision"
LABEL_GENERATION: Final = f"{DOMAIN}/generation"

ANNOTATION_SERVER_ID: Final = f"{DOMAIN}/server-id"
ANNOTATION_STAGES: Final = f"{DOMAIN}/stages"  # on a pod of a group with several pods: how many pods it has
ANNOTATION_WAITING_SINCE: Final = f"{DOMAIN}/waiting-since"  # on an engine pod: since when its group waits
ANNOTATION_GATE_LIFTED: Final = f"{DOMAIN}/gate-lifted-at"
ANNOTATION_DRAIN_EPOCH: Final = f"{DOMAIN}/drain-epoch"
ANNOTATION_CONFIG_HASH: Final = f"{DOMAIN}/config-hash"

ENV_ENGINE_KEY: Final = "VLLM_API_KEY"  # vLLM's own name; used in engine pods and in router pods

CODE_DIRECTORY: Final = "/opt/flotilla/app"  # in our images, and in those that are built on them
CONFIG_DIRECTORY: Final = "/etc/flotilla"
CONFIG_PATH: Final = f"{CONFIG_DIRECTORY}/config.json"

HEADER_SESSION: Final = "X-Session-Id"
HEADER_PRIORITY: Final = "X-Flotilla-Priority"
HEADER_TENANT: Final = "X-Flotilla-Tenant"
HEADER_TRACE: Final = "traceparent"  # W3C Trace Context
HEADER_REPLICA: Final = "X-Flotilla-Replica"
HEADER_REQUEST: Final = "X-Request-Id"

PORT_ENGINE: Final = 8000
PORT_ENGINE_RANKS: Final = 29501  # the port at which the stages of a group connect to their leader
PORT_ROUTER: Final = 8000
PORT_ROUTER_INTERNAL: Final = 8001
PORT_ROUTER_METRICS: Final = 8404
PORT_ROUTER_AGENT: Final = 8405
PORT_GATEWAY: Final = 8080
PORT_RETRIEVER: Final = 8080
PORT_METRICS: Final = 9090
PORT_MILVUS: Final = 19530
PORT_REDIS: Final = 6379

ENV_HUB_TOKEN: Final = "HF_TOKEN"  # noqa: S105 (a name, not a token)

TERMINATION_LOG_PATH: Final = "/dev/termination-log"
TERMINATION_LOG_BYTES: Final = 4096  # the kubelet's limit for one container's termination message


def gateway_audience(namespace: str, name: str) -> str:
    """The audience of tokens for the gateway of a fleet: they are good nowhere else."""
    return f"{DOMAIN}/{namespace}/{name}"


def url_host(address: str) -> str:
    """A host name or an address as a URL has it: IPv6 addresses stand in brackets."""
    return f"[{address}]" if ":" in address else address
