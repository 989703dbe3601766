"""HAProxy's frontend: the rules that each request passes before it reaches a replica, in this order. Pure.

A request gets an id, its caller is identified by the key, and the router answers some paths itself. Then the
priority is read, the request is refused or held where there is no room or no replica, and the key of its
conversation is found.

Choices that surprise:
- A Lua service sends the refusals, because the rest of the body must be read first (see router.lua).
- Administrative paths are recognised in the way in which the engines read them: escapes are decoded once,
  slashes are not merged and dots are not removed.
- A body that is longer than the buffer and has no Content-Length cannot be measured and is refused.
- The control map is looked up only as strings, and `add(0)` converts them to numbers. HAProxy silently drops
  values that are not numbers from a map that is also looked up as integers.
"""

from collections.abc import Iterable

from flotilla_runtime import contract
from flotilla_runtime.contract import RouterConfig, RouterTask
from flotilla_runtime.router.caller_keys import ANONYMOUS
from flotilla_runtime.router.control_map import DRAINING, QUEUE_LIMIT, SERVERS
from flotilla_runtime.router.files import ARRIVED, BACKEND, RunFiles
from flotilla_runtime.router.listeners import listeners
from flotilla_runtime.router.openai_errors import RefusalReason
from flotilla_runtime.router.requests import LINE_FORMAT

FRONTEND = "callers"
CALLERS_PERCENT = 95
CHUNKED_BODY_BYTES = 49152  # a chunked body of this size fits into the buffer even with the longest headers
BATCH_PRIORITY_CLASS = 1  # a lower class goes first; all other requests have class 0

# Besides /v1/: vLLM's own paths that only compute. Its administrative paths are never passed on.
COMPUTING_PATHS = ("/tokenize", "/detokenize", "/pooling", "/classify", "/score", "/rerank", "/v2/rerank")
ADMINISTRATIVE_PATHS = ("/v1/load_lora_adapter", "/v1/unload_lora_adapter")


def frontend(config: RouterConfig, files: RunFiles) -> Iterable[str]:
    """The lines of the frontend section."""
    return (
        f"frontend {FRONTEND}",
        *listeners(config),
        f"    maxconn {config.max_connections * CALLERS_PERCENT // 100}",
        f"    filter lua.flotilla_refused {config.refused_body_seconds}",
        "    log global",
        f"    log-format '{LINE_FORMAT}'",
        "    option http-buffer-request",
        "",
        *_request_id(),
        "    http-request set-var(txn.path) path,bytes(0,128)",
        "    http-request set-var(txn.draining) "
        f"str({DRAINING}),map_str({files.path(files.CONTROL_MAP)},0),add(0)",
        "    http-after-response set-header Connection close if { var(txn.draining) -m int gt 0 }",
        "    http-request set-log-level silent if { path /health }",
        "    http-request return status 200 content-type text/plain string ok if { path /health }",
        "",
        *_authentication(config, files),
        "",
        *_listed_models(config, files),
        *_refuse(config, RefusalReason.UNKNOWN_MODEL, "if { path_beg /v1/models/ }"),
        f"    acl administrative path,url_dec -m str {' '.join(ADMINISTRATIVE_PATHS)}",
        f"    acl computing path {' '.join(COMPUTING_PATHS)}",
        *_refuse(
            config,
            RefusalReason.UNKNOWN_PATH,
            "if administrative or !{ path_beg /v1/ } !computing",
        ),
        *_refuse(
            config, RefusalReason.TOO_LARGE, f"if {{ req.body_size gt {config.max_request_mib * 1024**2} }}"
        ),
        *_refuse(
            config,
            RefusalReason.LENGTH_REQUIRED,
            f"if !{{ req.hdr(content-length) -m found }} {{ req.body_len gt {CHUNKED_BODY_BYTES} }}",
        ),
        *_arrival(),
        "",
        *_priority(),
        "",
        f"    http-request set-var(txn.queue_limit) str({QUEUE_LIMIT}),"
        f"map_str({files.path(files.CONTROL_MAP)},{config.max_queue}),add(0)",
        *_without_replicas(config),
        *_refuse(config, RefusalReason.QUEUE_FULL, f"if {{ queue({BACKEND}),sub(txn.queue_limit) ge 0 }}"),
        "",
        *_conversation(config, files),
        f"    default_backend {BACKEND}",
    )


def _refuse(config: RouterConfig, reason: RefusalReason, condition: str) -> tuple[str, ...]:
    return (
        f"    http-request set-var(txn.refused) str({reason.value}) {condition}",
        "    .if version_atleast(2.9)",
        f"    http-request set-timeout client {config.refused_body_seconds}s {condition}",
        "    .endif",
        f"    http-request use-service lua.flotilla_refuse {condition}",
    )


def _request_id() -> Iterable[str]:
    name = contract.HEADER_REQUEST
    held = "{ var(txn.request_id) -m found }"
    return (
        f"    http-request set-var(txn.request_id) req.hdr({name}) "
        f"if {{ req.hdr({name}) -m reg ^[A-Za-z0-9._:/+=-]{{1,128}}$ }}",
        f"    http-request set-var(txn.request_id) uuid unless {held}",
        f"    http-request set-header {name} %[var(txn.request_id)]",
        f"    http-after-response set-header {name} %[var(txn.request_id)] if {held}",
    )


def _authentication(config: RouterConfig, files: RunFiles) -> Iterable[str]:
    """Identify the caller by the hash of the key, so neither the map file nor the admin socket shows keys."""
    if config.caller_keys_directory is None:
        return (f"    http-request set-var(txn.caller) str({ANONYMOUS})",)
    return (
        "    http-request set-var(txn.caller) "
        f"http_auth_bearer,sha2(256),hex,map_str({files.path(files.KEYS_MAP)})",
        *_refuse(config, RefusalReason.UNAUTHORIZED, "unless { var(txn.caller) -m found }"),
        "    http-request del-header Authorization",
    )


def _listed_models(config: RouterConfig, files: RunFiles) -> Iterable[str]:
    answer = "    http-request return status 200 content-type application/json file"
    yield f"{answer} {files.path(files.MODELS)} if {{ path /v1/models }}"
    for index, name in enumerate(config.models):
        path = _quoted(f"/v1/models/{name}")
        yield f"{answer} {files.path(files.model(index))} if {{ path,url_dec -m str {path} }}"


def _quoted(text: str) -> str:
    """The text as a quoted word of HAProxy's configuration."""
    return '"' + "".join("\\" + char if char in '\\"$ ' else char for char in text) + '"'


def _arrival() -> Iterable[str]:
    """Count each valid request for a replica, also when no replica has room: this is the demand."""
    return (f"    http-request set-var({ARRIVED}) int(1),add({ARRIVED})",)


def _priority() -> Iterable[str]:
    """Read the priority from the header or, without it, from OpenAI's field `service_tier`.

    A plain text search comes first, because json_query would read the whole body to find no field.
    """
    header = contract.HEADER_PRIORITY
    return (
        "    http-request set-var(txn.priority) str(Interactive)",
        f"    http-request set-var(txn.priority) str(Batch) if {{ req.hdr({header}) -i Batch }}",
        "    http-request set-var(txn.priority) str(Batch) "
        f"if !{{ req.hdr({header}) -m found }} {{ req.body -m sub service_tier }} "
        "{ req.body,json_query('$.service_tier') -m str flex }",
        f"    http-request set-priority-class int({BATCH_PRIORITY_CLASS}) "
        "if { var(txn.priority) -m str Batch }",
    )


def _without_replicas(config: RouterConfig) -> Iterable[str]:
    condition = f"if {{ nbsrv({BACKEND}) eq 0 }}"
    if not config.hold_at_zero:
        return _refuse(config, RefusalReason.NO_REPLICAS, condition)
    return (
        f"    http-request set-var(txn.hold_seconds) int({config.queue_timeout_seconds}) {condition}",
        f"    http-request lua.flotilla_hold {condition}",
        "    http-request use-service lua.flotilla_refuse if { var(txn.refused) -m found }",
    )


def _conversation(config: RouterConfig, files: RunFiles) -> Iterable[str]:
    if config.task is RouterTask.EMBED:
        return ()
    return (
        "    http-request lua.flotilla_key",
        f"    http-request set-var(txn.servers) str({SERVERS}),map_str({files.path(files.CONTROL_MAP)})",
        f"    http-request set-var(txn.load_factor_percent) int({round(config.load_factor * 100)})",
    )
