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
- The engines' key is read from HAProxy's environment at its start, so it stands in no file and in no answer
  of the admin socket's maps. A replica that refuses it (its key is of another making) is a 503 to the caller,
  whose own key was right.
- Only a connection that failed is tried again elsewhere. Were a request sent again because the engine died
  on it, one poisonous request would kill a replica a retry.
- Bodies are buffered up to 64 KiB, so a slow client holds no slot of an engine until that much has arrived.
  Of longer ones the rest must come at 32 KiB/s or faster, `timeout client` on top, or it is cut off: a filter
  in Lua counts, for HAProxy itself lets a body of any length trickle in.
- `option http-no-delay`: without it the kernel holds what is less than a packet for up to 200 ms, in case
  more comes, and a stream's first token is that late.
- `option abortonclose` stands in the defaults, for the frontend needs it too: without it a caller that
  leaves is not noticed before its answer comes, and its request keeps its place in queue and engine.
- Headers that are slow, too long or no HTTP are refused by HAProxy's parser, before there is a request. It
  takes our words from 3.2 on, and only as a whole message instead of a body; 2.6 answers in its own. What is
  too long is a 400 to 2.6 and a 414 or 431 to 3.x, for which 2.6 takes no words at all.
- From 3.1 on HAProxy warns unless it is told what Lua gets for a boolean. It is 1 or 0, as in 2.6: keys are
  joined from what bodies hold, and Lua joins no booleans.
- Where a node allows fewer open files than `maxconn` needs, HAProxy warns and serves what it can.
"""

import json
from collections.abc import Iterable
from http import HTTPStatus
from importlib.resources import files as package_files

from flotilla_runtime import contract
from flotilla_runtime.contract import RouterConfig, RouterTask
from flotilla_runtime.router.files import ARRIVED, BACKEND, NO_SERVERS, REQUEST_RING, RunFiles
from flotilla_runtime.router.frontend import frontend
from flotilla_runtime.router.listeners import bind
from flotilla_runtime.router.openai_errors import OpenAIError, RefusalReason, haproxy_errors, refusals

BUFFER_BYTES = 65536
REQUEST_RING_BYTES = 4 * 1024 * 1024  # some ten thousand lines, which an agent that starts anew reads
REQUEST_LINE_BYTES = 2048
SINCE_3_1 = frozenset({HTTPStatus.REQUEST_URI_TOO_LONG, HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE})
BY_THE_PARSER = SINCE_3_1 | {HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_TIMEOUT}


def render(config: RouterConfig) -> dict[str, str]:
    """Every file of the run directory, by name. The maps are what holds until the agent has spoken."""
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
        files.CONTROL_MAP: f"servers {NO_SERVERS}\nqueue_limit {config.max_queue}\ndraining 0\n",
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
    """What stands in the file: the body, or the whole message."""
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
        f'    http-request set-header Authorization "Bearer ${{{config.engine_key_environment}}}"',
        f"    http-response set-var(txn.refused) str({RefusalReason.REPLICA_UNAUTHORIZED.value}) "
        "if { status 401 }",
        f"    http-response return status {error.status} content-type application/json file {file} "
        f"hdr Retry-After {config.retry_after_seconds} if {{ status 401 }}",
    )
