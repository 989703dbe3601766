"""Makes the files with which HAProxy starts from a router's configuration. Pure: equal input, equal bytes.

The configuration works with HAProxy 2.6, the oldest supported version, and with 3.x. It avoids what 3.x has
removed or warns of: `program` sections (removed in 3.3), two sections or servers of the same name (refused
since 3.3), `dispatch` and `transparent` (deprecated in 3.3), the keyword `master-worker` (the command line
has -W instead), `mailers` and `nbproc`. It contains no servers: the agent adds them over the admin socket,
each with the id that the operator gave it.

Choices that surprise:
- HAProxy runs one thread. Lua chooses a replica and HAProxy connects to it; with one thread nothing changes
  in between. router.lua says why `balance hash` is not used. One core handles far more requests than the
  engines of a set can answer.
- The connection to the server is closed after each answer. vLLM closes idle connections after 5 s, and a
  request that is sent at that moment is lost. A server with idle connections also cannot be deleted. A new
  connection inside the cluster costs less than a millisecond.
- HAProxy reads the engines' key from its environment when it starts, so the key is in no file and in no map.
  When a replica refuses it, because the replica has another key, the caller gets a 503: its own key was
  right.
- A request is tried again on another replica only when the connection failed. If it were also sent again
  after an engine crashed on it, one bad request could crash a replica with each retry.
- Bodies are buffered up to 64 KiB, so a slow client takes no place of an engine before that much has arrived.
  The rest of a longer body must arrive at 32 KiB/s or faster, with `timeout client` as an allowance, or it is
  cut off. A Lua filter enforces this, because HAProxy itself accepts a body of any length at any speed.
- `option http-no-delay`: without it the kernel holds back data that does not fill a packet for up to 200 ms,
  and the first token of a stream is that late.
- `option abortonclose` is in the defaults, because the frontend needs it too. Without it, HAProxy does not
  notice that a caller has left before the answer arrives, and the request keeps its place in queue and
  engine.
- HAProxy's parser refuses headers that are slow, too long or not HTTP before there is a request. HAProxy 3.2
  and later can send our own error for them, and only as a whole message; 2.6 sends its own text. Headers that
  are too long get 400 from 2.6, and 414 or 431 from 3.x; 2.6 accepts no custom errors for these statuses.
- From 3.1 on, HAProxy warns unless the configuration says how Lua receives booleans. We choose 1 and 0, as in
  2.6, because the Lua code concatenates values from bodies, and Lua cannot concatenate booleans.
- When a node allows fewer open files than `maxconn` needs, HAProxy warns and serves fewer connections.
"""

import json
from collections.abc import Iterable
from http import HTTPStatus
from importlib.resources import files as package_files

from flotilla_runtime import contract
from flotilla_runtime.contract import RouterConfig, RouterTask
from flotilla_runtime.router.control_map import initial_text
from flotilla_runtime.router.files import ARRIVED, BACKEND, REQUEST_RING, RunFiles
from flotilla_runtime.router.frontend import frontend
from flotilla_runtime.router.listeners import bind
from flotilla_runtime.router.openai_errors import OpenAIError, RefusalReason, haproxy_errors, refusals

BUFFER_BYTES = 65536
REQUEST_RING_BYTES = 4 * 1024 * 1024  # about ten thousand lines, which a restarted agent reads again
REQUEST_LINE_BYTES = 2048
SINCE_3_1 = frozenset({HTTPStatus.REQUEST_URI_TOO_LONG, HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE})
BY_THE_PARSER = SINCE_3_1 | {HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_TIMEOUT}


def render(config: RouterConfig) -> dict[str, str]:
    """All files of the run directory, by name. The maps hold initial values until the agent sets them."""
    files = RunFiles(config.run_directory)
    sections = (
        _global(config, files),
        _defaults(config),
        _metrics(config),
        frontend(config, files),
        _engines(config),
    )
    errors = {
        _error_file(error): _answer(error) for error in (*_haproxy_errors(config), _unauthorized(config))
    }
    return {
        files.CONFIG: "\n".join("\n".join(section) + "\n" for section in sections),
        files.REFUSALS: _lua_table(config),
        files.LUA: package_files("flotilla_runtime.router").joinpath("router.lua").read_text("utf-8"),
        files.CONTROL_MAP: initial_text(config.max_queue),
        files.KEYS_MAP: "",
        files.MODELS: _json({"object": "list", "data": [_model(name, config) for name in config.models]}),
        **{files.model(i): _json(_model(name, config)) for i, name in enumerate(config.models)},
        **dict(sorted(errors.items())),
    }


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _model(name: str, config: RouterConfig) -> dict[str, object]:
    return {"id": name, "object": "model", "created": 0, "owned_by": f"{config.namespace}/{config.name}"}


def _error_file(error: OpenAIError) -> str:
    return f"error-{error.status}-{error.code}.{'http' if error.status in BY_THE_PARSER else 'json'}"


def _answer(error: OpenAIError) -> str:
    """The content of the file: the body, or the whole HTTP message for errors of the parser."""
    if error.status not in BY_THE_PARSER:
        return error.body
    headers = (
        f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}",
        "Content-Type: application/json",
        f"Content-Length: {len(error.body.encode())}",
        "Connection: close",
    )
    return "\r\n".join((*headers, "", error.body))


def _lua_table(config: RouterConfig) -> str:
    """The router's refusals as a Lua table. JSON strings of these texts are valid Lua strings too."""
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
        f"    set-var {ARRIVED} int(0)",
        "    .if version_atleast(3.1)",
        "    tune.lua.bool-sample-conversion pre-3.1-bug",
        "    .endif",
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
        "    option http-no-delay",
        *(line for error in _haproxy_errors(config) for line in _http_error(error, config)),
    )


def _http_error(error: OpenAIError, config: RouterConfig) -> Iterable[str]:
    file = RunFiles(config.run_directory).path(_error_file(error))
    if error.status in BY_THE_PARSER:
        line = f"    http-error status {error.status} errorfile {file}"
        return ("    .if version_atleast(3.1)", line, "    .endif") if error.status in SINCE_3_1 else (line,)
    retry = f" hdr Retry-After {config.retry_after_seconds}" if error.status == 503 else ""
    return (f"    http-error status {error.status} content-type application/json file {file}{retry}",)


def _metrics(config: RouterConfig) -> Iterable[str]:
    return (
        "frontend metrics",
        bind(config, config.metrics_port),
        "    http-request use-service prometheus-exporter if { path /metrics }",
        "    http-request return status 200 content-type text/plain string ok if { path /health }",
        "    http-request return status 404",
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
        f"    filter lua.flotilla_upload {config.client_timeout_seconds}",
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
        # Spaces and line breaks around the key do not count; nor do they for the engine's guard.
        f'    http-request set-header Authorization "Bearer %[env({config.engine_key_environment}),'
        r'ltrim( \t\r\n),rtrim( \t\r\n)]"',
        f"    http-response set-var(txn.refused) str({RefusalReason.REPLICA_UNAUTHORIZED.value}) "
        "if { status 401 }",
        f"    http-response return status {error.status} content-type application/json file {file} "
        f"hdr Retry-After {config.retry_after_seconds} if {{ status 401 }}",
    )
