"""The rules that a request passes on its way to a replica, in their order: HAProxy's frontend. Pure.

It gets an id, its caller is known by the key, what the router answers itself is answered, its priority is
read, it is refused or held where there is no room or no replica, and the key of its conversation is found.

Choices that surprise:
- Refusals are answered by a Lua service that first reads the rest of the body (router.lua says why).
- An administrative path is known as the engines read it, escapes decoded once. They neither merge slashes nor
  take dots out of a path.
- A body without Content-Length that is longer than the buffer cannot be measured, and is refused.
- The control map is looked up as strings only, and `add(0)` makes numbers of them: a map that is also looked
  up as integers silently takes no value that is none.
"""

from collections.abc import Iterable

from flotilla_runtime import contract
from flotilla_runtime.contract import RouterConfig, RouterTask
from flotilla_runtime.router.caller_keys import ANONYMOUS
from flotilla_runtime.router.files import ARRIVED, BACKEND, RunFiles
from flotilla_runtime.router.listeners import listeners
from flotilla_runtime.router.openai_errors import RefusalReason

FRONTEND = "callers"
CHUNKED_BODY_BYTES = 49152  # what of a chunked body surely fits the buffer beside the longest headers
BATCH_PRIORITY_CLASS = 1  # lower goes first, and 0 is every other request's

# Beside /v1/: vLLM's own paths that only compute. Its administrative ones are never passed on.
COMPUTING_PATHS = ("/tokenize", "/detokenize", "/pooling", "/classify", "/score", "/rerank", "/v2/rerank")
ADMINISTRATIVE_PATHS = ("/v1/load_lora_adapter", "/v1/unload_lora_adapter")

# One JSON object a request: the agent's metrics come from it, and it is the pod's access log.
REQUEST_LINE = {
    "endedMilliseconds": "%[date(0,ms)]",
    "request": "%[var(txn.request_id),json(utf8s)]",
    "caller": "%[var(txn.caller),json(utf8s)]",
    "priority": "%[var(txn.priority),json(utf8s)]",
    "key": "%[var(txn.key_source),json(utf8s)]",
    "conversation": "%[var(txn.key)]",
    "moved": "%[var(txn.moved),json(utf8s)]",
    "refused": "%[var(txn.refused),json(utf8s)]",
    "replica": "%s",
    "path": "%[var(txn.path),json(utf8s)]",
    "status": "%ST",
    "termination": "%ts",
    "queueMilliseconds": "%Tw",
    "firstByteMilliseconds": "%Tr",
    "totalMilliseconds": "%Ta",
}


def frontend(config: RouterConfig, files: RunFiles) -> Iterable[str]:
    """The lines of the section."""
    line = ",".join(f'"{key}":"{value}"' for key, value in REQUEST_LINE.items())
    return (
        f"frontend {FRONTEND}",
        *listeners(config),
        "    log global",
        f"    log-format '{{{line}}}'",
        "    option http-buffer-request",
        "",
        *_request_id(),
        "    http-request set-var(txn.path) path,bytes(0,128)",
        "    http-request set-var(txn.draining) "
        f"str(draining),map_str({files.path(files.CONTROL_MAP)},0),add(0)",
        "    http-after-response set-header Connection close if { var(txn.draining) -m int gt 0 }",
        "    http-request set-log-level silent if { path /health }",
        "    http-request return status 200 content-type text/plain string ok if { path /health }",
        "",
        *_authentication(config, files),
        "",
        *_listed_models(config, files),
        *_refuse(RefusalReason.UNKNOWN_MODEL, "if { path_beg /v1/models/ }"),
        f"    acl administrative path,url_dec -m str {' '.join(ADMINISTRATIVE_PATHS)}",
        f"    acl computing path {' '.join(COMPUTING_PATHS)}",
        *_refuse(
            RefusalReason.UNKNOWN_PATH,
            "if administrative or !{ path_beg /v1/ } !computing",
        ),
        *_refuse(RefusalReason.TOO_LARGE, f"if {{ req.body_size gt {config.max_request_mib * 1024**2} }}"),
        *_refuse(
            RefusalReason.LENGTH_REQUIRED,
            f"if !{{ req.hdr(content-length) -m found }} {{ req.body_len gt {CHUNKED_BODY_BYTES} }}",
        ),
        *_arrival(),
        "",
        *_priority(),
        "",
        "    http-request set-var(txn.queue_limit) str(queue_limit),"
        f"map_str({files.path(files.CONTROL_MAP)},{config.max_queue}),add(0)",
        *_without_replicas(config),
        *_refuse(RefusalReason.QUEUE_FULL, f"if {{ queue({BACKEND}),sub(txn.queue_limit) ge 0 }}"),
        "",
        *_conversation(config, files),
        f"    default_backend {BACKEND}",
    )


def _refuse(reason: RefusalReason, condition: str) -> tuple[str, str]:
    return (
        f"    http-request set-var(txn.refused) str({reason.value}) {condition}",
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
    """Keys are compared by their hash, so neither the map's file nor the admin socket shows one."""
    if config.caller_keys_directory is None:
        return (f"    http-request set-var(txn.caller) str({ANONYMOUS})",)
    return (
        "    http-request set-var(txn.caller) "
        f"http_auth_bearer,sha2(256),hex,map_str({files.path(files.KEYS_MAP)})",
        *_refuse(RefusalReason.UNAUTHORIZED, "unless { var(txn.caller) -m found }"),
        "    http-request del-header Authorization",
    )


def _listed_models(config: RouterConfig, files: RunFiles) -> Iterable[str]:
    answer = "    http-request return status 200 content-type application/json file"
    yield f"{answer} {files.path(files.MODELS)} if {{ path /v1/models }}"
    for index, name in enumerate(config.models):
        path = _quoted(f"/v1/models/{name}")
        yield f"{answer} {files.path(files.model(index))} if {{ path,url_dec -m str {path} }}"


def _quoted(text: str) -> str:
    """A word of HAProxy's configuration that stands for exactly this text."""
    return '"' + "".join("\\" + char if char in '\\"$ ' else char for char in text) + '"'


def _arrival() -> Iterable[str]:
    """Counts what a replica would have to answer, also if none has room: demand, and no caller's mistakes."""
    return (f"    http-request set-var({ARRIVED}) int(1),add({ARRIVED})",)


def _priority() -> Iterable[str]:
    """The header says it; without one, OpenAI's own `service_tier` does.

    A plain search goes first: json_query reads the whole body to say that a field is not there.
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
        return _refuse(RefusalReason.NO_REPLICAS, condition)
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
        f"    http-request set-var(txn.servers) str(servers),map_str({files.path(files.CONTROL_MAP)})",
        f"    http-request set-var(txn.load_factor_percent) int({round(config.load_factor * 100)})",
    )
