"""A router's configuration → the files HAProxy starts from. Pure: equal input gives equal bytes.

Written for HAProxy 2.6, the oldest supported, and for 3.x. What 3.x removed or warns of is not used: no
`program` section (gone in 3.3), no two sections or servers of one name (refused since 3.3), no `dispatch` and
no `transparent` (deprecated in 3.3), no `master-worker` keyword (the -W of the command line instead), no
`mailers`, no `nbproc`. Servers are not in the file at all: the agent adds them over the admin socket, each
with the operator's id.

Choices that surprise:
- One thread. A replica is chosen by Lua (router.lua, which also says why not by `balance hash`) and
  connected to by HAProxy; on one thread nothing happens in between. A core carries far more than a fleet of
  engines answers.
- The server side of a connection is closed after each answer. vLLM closes idle ones after 5 s, and a
  request that meets that moment is lost; a server with idle connections cannot be deleted either. A
  connection inside the cluster costs less than a millisecond.
- Refusals are answered by a Lua service that first reads the rest of the body (router.lua says why).
- The engines' key is read from HAProxy's environment at its start, so it stands in no file and in no answer
  of the admin socket's maps. A replica that refuses it (its key is of another making) is a 503 to the caller,
  whose own key was right.
- Only a connection that failed is tried again elsewhere. Were a request sent again because the engine died
  on it, one poisonous request would kill a replica a retry.
- Bodies are buffered up to 64 KiB, so a slow client holds no slot of an engine until that much has arrived.
  A longer body without Content-Length cannot be measured, and is refused.
- `option abortonclose` stands in the defaults, for the frontend needs it too: without it a caller that
  leaves is not noticed before its answer comes, and its request keeps its place in queue and engine.
- The control map is looked up as strings only, and `add(0)` makes numbers of them: a map that is also looked
  up as integers silently takes no value that is none.
- Where a node allows fewer open files than `maxconn` needs, HAProxy warns and serves what it can.
"""

import json
from collections.abc import Iterable
from importlib.resources import files as package_files

from flotilla_runtime import contract
from flotilla_runtime.contract import ListenFamily, RouterConfig, RouterTask
from flotilla_runtime.router.caller_keys import ANONYMOUS
from flotilla_runtime.router.files import RunFiles
from flotilla_runtime.router.openai_errors import OpenAIError, RefusalReason, haproxy_errors, refusals

BACKEND = "engines"
FRONTEND = "callers"
BUFFER_BYTES = 65536
CHUNKED_BODY_BYTES = 49152  # what of a chunked body surely fits the buffer beside the longest headers
NO_SERVERS = "-"  # an empty value cannot be set over the admin socket
REQUEST_RING = "requests"
REQUEST_RING_BYTES = 4 * 1024 * 1024  # some ten thousand lines, which an agent that starts anew reads
REQUEST_LINE_BYTES = 2048
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


def render(config: RouterConfig) -> dict[str, str]:
    """Every file of the run directory, by name. The maps are what holds until the agent has spoken."""
    files = RunFiles(config.run_directory)
    sections = (
        _global(config, files),
        _defaults(config),
        _metrics(config),
        _callers(config, files),
        _engines(config),
    )
    errors = {_error_file(error): error.body for error in (*_haproxy_errors(config), _unauthorized(config))}
    return {
        files.CONFIG: "\n".join("\n".join(section) + "\n" for section in sections),
        files.REFUSALS: _lua_table(config),
        files.LUA: package_files("flotilla_runtime.router").joinpath("router.lua").read_text("utf-8"),
        files.CONTROL_MAP: f"servers {NO_SERVERS}\nqueue_limit {config.max_queue}\ndraining 0\n",
        files.KEYS_MAP: "",
        files.MODELS: _json({"object": "list", "data": [_model(name, config) for name in config.models]}),
        **{_model_file(i): _json(_model(name, config)) for i, name in enumerate(config.models)},
        **dict(sorted(errors.items())),
    }


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _model(name: str, config: RouterConfig) -> dict[str, object]:
    return {"id": name, "object": "model", "created": 0, "owned_by": f"{config.namespace}/{config.name}"}


def _model_file(index: int) -> str:
    return f"model-{index}.json"


def _error_file(error: OpenAIError) -> str:
    return f"error-{error.status}-{error.code}.json"


def _lua_table(config: RouterConfig) -> str:
    """The router's own refusals as a Lua table; a JSON string of this text is a Lua string too."""
    errors = refusals(
        max_request_mib=config.max_request_mib, queue_timeout_seconds=config.queue_timeout_seconds
    )
    rows = (
        f"    {reason.value} = {{ status = {error.status}, headers = {_lua_headers(error, config)}, "
        f"body = {json.dumps(error.body, ensure_ascii=False)} }},\n"
        for reason, error in errors.items()
    )
    return "flotilla_refusals = {\n" + "".join(rows) + "}\n"


def _lua_headers(error: OpenAIError, config: RouterConfig) -> str:
    match error.status:
        case 429 | 503:
            return f'{{ ["retry-after"] = "{config.retry_after_seconds}" }}'
        case 401:
            return '{ ["www-authenticate"] = "Bearer" }'
        case _:
            return "{}"


def _haproxy_errors(config: RouterConfig) -> Iterable[OpenAIError]:
    return haproxy_errors(
        queue_timeout_seconds=config.queue_timeout_seconds,
        request_timeout_seconds=config.request_timeout_seconds,
    ).values()


def _unauthorized(config: RouterConfig) -> OpenAIError:
    errors = refusals(
        max_request_mib=config.max_request_mib, queue_timeout_seconds=config.queue_timeout_seconds
    )
    return errors[RefusalReason.REPLICA_UNAUTHORIZED]


def _bind(config: RouterConfig, port: int) -> str:
    match config.listen_family:
        case ListenFamily.DUAL:
            return f"    bind :::{port} v4v6"
        case ListenFamily.IPV4:
            return f"    bind 0.0.0.0:{port}"
        case ListenFamily.IPV6:
            return f"    bind :::{port} v6only"


def _listeners(config: RouterConfig) -> Iterable[str]:
    if config.tls_directory is None:
        return (_bind(config, config.port),)
    certificate = certificate_path(config.tls_directory)
    tls = f"ssl crt {certificate} ssl-min-ver TLSv1.2 alpn http/1.1"
    return (f"{_bind(config, config.port)} {tls}", _bind(config, config.internal_port))


def certificate_path(tls_directory: str) -> str:
    """The certificate's file, which is also its name on the admin socket."""
    return f"{tls_directory}/{contract.TLS_FILE}"


def _global(config: RouterConfig, files: RunFiles) -> Iterable[str]:
    return (
        "global",
        "    log stdout format raw local0",
        f"    log ring@{REQUEST_RING} format raw local0 info info",
        f"    stats socket {files.path(files.ADMIN_SOCKET)} mode 660 level admin",
        "    stats timeout 1d",
        f"    maxconn {config.max_connections}",
        "    no strict-limits",
        "    nbthread 1",
        f"    tune.bufsize {BUFFER_BYTES}",
        f"    hard-stop-after {config.drain_deadline_seconds}s",
        f"    lua-load {files.path(files.REFUSALS)}",
        f"    lua-load {files.path(files.LUA)}",
        "",
        f"ring {REQUEST_RING}",
        "    format raw",
        f"    maxlen {REQUEST_LINE_BYTES}",
        f"    size {REQUEST_RING_BYTES}",
    )


def _defaults(config: RouterConfig) -> Iterable[str]:
    return (
        "defaults",
        "    mode http",
        "    timeout connect 2s",
        f"    timeout client {config.client_timeout_seconds}s",
        f"    timeout http-request {config.client_timeout_seconds}s",
        "    timeout http-keep-alive 60s",
        f"    timeout queue {config.queue_timeout_seconds}s",
        f"    timeout server {config.request_timeout_seconds}s",
        "    option dontlognull",
        "    option abortonclose",
        "    option http-server-close",
        *(_http_error(error, config) for error in _haproxy_errors(config)),
    )


def _http_error(error: OpenAIError, config: RouterConfig) -> str:
    file = RunFiles(config.run_directory).path(_error_file(error))
    retry = f" hdr Retry-After {config.retry_after_seconds}" if error.status == 503 else ""
    return f"    http-error status {error.status} content-type application/json file {file}{retry}"


def _metrics(config: RouterConfig) -> Iterable[str]:
    return (
        "frontend metrics",
        _bind(config, config.metrics_port),
        "    http-request use-service prometheus-exporter if { path /metrics }",
        "    http-request return status 200 content-type text/plain string ok if { path /health }",
        "    http-request return status 404",
    )


def _refuse(reason: RefusalReason, condition: str) -> tuple[str, str]:
    return (
        f"    http-request set-var(txn.refused) str({reason.value}) {condition}",
        f"    http-request use-service lua.flotilla_refuse {condition}",
    )


def _callers(config: RouterConfig, files: RunFiles) -> Iterable[str]:
    line = ",".join(f'"{key}":"{value}"' for key, value in REQUEST_LINE.items())
    return (
        f"frontend {FRONTEND}",
        *_listeners(config),
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
        f"    acl administrative path {' '.join(ADMINISTRATIVE_PATHS)}",
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
        yield f"{answer} {files.path(_model_file(index))} if {{ path,url_dec -m str {path} }}"


def _quoted(text: str) -> str:
    """A word of HAProxy's configuration that stands for exactly this text."""
    return '"' + "".join("\\" + char if char in '\\"$ ' else char for char in text) + '"'


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


def _engines(config: RouterConfig) -> Iterable[str]:
    keyed = (
        "    http-request lua.flotilla_pick if { var(txn.key) -m found }",
        "    use-server %[var(txn.server)] if { var(txn.server) -m found }",
    )
    return (
        f"backend {BACKEND}",
        "    balance leastconn",
        "    retries 3",
        "    retry-on conn-failure",
        "    option redispatch 1",
        *_engine_key(config),
        *(keyed if config.task is RouterTask.GENERATE else ()),
        f"    http-response set-header {contract.HEADER_REPLICA} %s",
        "    http-response del-header Server",
    )


def _engine_key(config: RouterConfig) -> Iterable[str]:
    if config.engine_key_environment is None:
        return ()
    error = _unauthorized(config)
    file = RunFiles(config.run_directory).path(_error_file(error))
    return (
        f'    http-request set-header Authorization "Bearer ${{{config.engine_key_environment}}}"',
        f"    http-response set-var(txn.refused) str({RefusalReason.REPLICA_UNAUTHORIZED.value}) "
        "if { status 401 }",
        f"    http-response return status {error.status} content-type application/json file {file} "
        f"hdr Retry-After {config.retry_after_seconds} if {{ status 401 }}",
    )
