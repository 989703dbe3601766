"""An API server made of dictionaries, for the faults that a real one does not make on demand.

It serves list (in pages), watch (with bookmarks, resumable), get, create, server-side apply, JSON and merge
patch, replace and delete with a UID precondition, for any resource. It has no controllers, no defaulting and
no validation: what depends on those is tested against a real API server. Faults are asked for one by one.
"""

import asyncio
import contextlib
import copy
import json
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from kubernetes.aio.client.configuration import Configuration

from flotilla_operator.cluster.client import Client
from flotilla_operator.cluster.resources import ALL, Resource

Manifest = dict[str, Any]
BY_PATH = {(r.group, r.version, r.plural): r for r in ALL}
NAMESPACES = Resource(group="", version="v1", plural="namespaces", kind="Namespace", namespaced=False)
DISCOVERED = (*ALL, NAMESPACES)


@dataclass
class Request:
    """What a client asked for."""

    method: str
    path: str
    query: dict[str, str]
    content_type: str
    body: Any

    @property
    def writes(self) -> bool:
        return self.method != "GET"

    @property
    def is_watch(self) -> bool:
        return self.query.get("watch") in ("1", "true")


@dataclass
class Fault:
    """What happens to the next `times` requests that `matches` accepts."""

    matches: Callable[[Request], bool]
    answer: Callable[[], Any]
    times: int = 1


@dataclass
class Shelf:
    """One resource's objects, its history, and the watches on it."""

    objects: dict[tuple[str, str], Manifest] = field(default_factory=dict)
    history: list[tuple[int, str, Manifest]] = field(default_factory=list)
    watches: set["asyncio.Queue[dict[str, Any] | None]"] = field(default_factory=set)


class FakeApi:
    """The server's state; `running()` serves it on a free port."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.version = 100
        self.oldest_version = 0
        self.port = 0
        self._shelves: dict[Resource, Shelf] = {}
        self._applied: dict[tuple[Resource, str, str, str], Manifest] = {}
        self.hung = asyncio.Event()

    # State, as a test sets and reads it.

    def shelf(self, resource: Resource) -> Shelf:
        return self._shelves.setdefault(resource, Shelf())

    def put(self, resource: Resource, manifest: Manifest, *, silently: bool = False) -> Manifest:
        """Store an object; `silently` tells no watch, as in a gap."""
        metadata = manifest.setdefault("metadata", {})
        manifest.setdefault("apiVersion", resource.api_version)
        manifest.setdefault("kind", resource.kind)
        place = (metadata.get("namespace", ""), metadata["name"])
        shelf = self.shelf(resource)
        self.version += 1
        metadata.setdefault("uid", f"uid-{self.version}")
        metadata.setdefault("generation", 1)
        metadata.setdefault("creationTimestamp", "2026-01-01T00:00:00Z")
        metadata["resourceVersion"] = str(self.version)
        kind_of_event = "MODIFIED" if place in shelf.objects else "ADDED"
        shelf.objects[place] = manifest
        if not silently:
            self._tell(shelf, kind_of_event, manifest)
        return manifest

    def remove(self, resource: Resource, namespace: str, name: str, *, silently: bool = False) -> None:
        shelf = self.shelf(resource)
        manifest = copy.deepcopy(shelf.objects.pop((namespace, name)))
        self.version += 1
        manifest["metadata"]["resourceVersion"] = str(self.version)
        if not silently:
            self._tell(shelf, "DELETED", manifest)

    def get(self, resource: Resource, namespace: str, name: str) -> Manifest | None:
        return self.shelf(resource).objects.get((namespace, name))

    def writes(self, *, leases: bool = False) -> list[Request]:
        return [r for r in self.requests if r.writes and (leases or "/leases" not in r.path)]

    # Faults.

    def fail(
        self,
        matches: Callable[[Request], bool],
        status: int,
        *,
        times: int = 1,
        reason: str = "",
        retry_after: int | None = None,
        causes: Iterable[str] = (),
    ) -> None:
        def answer() -> web.Response:
            body = status_document(status, reason, "a fault", causes)
            headers = {"Retry-After": str(retry_after)} if retry_after is not None else {}
            return web.json_response(body, status=status, headers=headers)

        self.faults.append(Fault(matches, answer, times))

    def hang(self, matches: Callable[[Request], bool], *, times: int = 1) -> None:
        async def answer() -> web.Response:
            self.hung.set()
            await asyncio.sleep(3600)
            return web.Response()

        self.faults.append(Fault(matches, answer, times))

    def end_watches(self, resource: Resource, code: int | None = None) -> None:
        """End the open watches, with an ERROR event when a code is given; 410 also forgets the history."""
        shelf = self.shelf(resource)
        for queue in shelf.watches:
            if code is not None:
                queue.put_nowait(
                    {"type": "ERROR", "object": status_document(code, "Expired" if code == 410 else "", "x")}
                )
            queue.put_nowait(None)
        if code == 410:
            shelf.history.clear()
            self.oldest_version = self.version

    def bookmark(self, resource: Resource) -> None:
        item = {
            "type": "BOOKMARK",
            "object": {"kind": resource.kind, "metadata": {"resourceVersion": str(self.version)}},
        }
        for queue in self.shelf(resource).watches:
            queue.put_nowait(item)

    # Serving.

    @asynccontextmanager
    async def running(self, port: int = 0) -> AsyncIterator["FakeApi"]:
        application = web.Application(client_max_size=2**24)
        application.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(application, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", port)
        await site.start()
        self.port = runner.addresses[0][1]
        try:
            yield self
        finally:
            await runner.cleanup()

    def configuration(self) -> Configuration:
        return Configuration(host=f"http://127.0.0.1:{self.port}")

    @asynccontextmanager
    async def client(self, **options: Any) -> AsyncIterator[Client]:
        client = Client(self.configuration(), **options)
        try:
            yield client
        finally:
            await client.close()

    def kubeconfig(self) -> str:
        return json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "fake",
                "clusters": [{"name": "fake", "cluster": {"server": f"http://127.0.0.1:{self.port}"}}],
                "users": [{"name": "fake", "user": {"token": "fake"}}],
                "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "fake"}}],
            }
        )

    async def _handle(self, http: web.Request) -> web.StreamResponse:
        text = await http.text()
        request = Request(
            http.method,
            http.path,
            dict(http.query),
            http.headers.get("Content-Type", ""),
            json.loads(text) if text else None,
        )
        self.requests.append(request)
        for fault in self.faults:
            if fault.times > 0 and fault.matches(request):
                fault.times -= 1
                answer = fault.answer()
                return await answer if asyncio.iscoroutine(answer) else answer  # type: ignore[no-any-return]
        located = locate(request.path)
        if located is None:
            return web.json_response(self._discovery(request.path))
        resource, namespace, name, subresource = located
        if request.method == "GET" and request.is_watch:
            return await self._watch(
                http, resource, namespace, int(request.query.get("resourceVersion") or 0)
            )
        try:
            return web.json_response(self._answer(request, resource, namespace, name, subresource))
        except RefusedError as refused:
            return web.json_response(
                status_document(refused.status, refused.reason, refused.reason), status=refused.status
            )

    def _discovery(self, path: str) -> Manifest:
        groups = sorted({(r.group, r.version) for r in ALL if r.group})
        if path in ("/api", "/version"):
            return {
                "kind": "APIVersions",
                "versions": ["v1"],
                "major": "1",
                "minor": "34",
                "gitVersion": "v1.34.0",
            }
        if path == "/apis":
            return {
                "kind": "APIGroupList",
                "groups": [
                    {
                        "name": group,
                        "versions": [{"groupVersion": f"{group}/{version}", "version": version}],
                        "preferredVersion": {"groupVersion": f"{group}/{version}", "version": version},
                    }
                    for group, version in groups
                ],
            }
        api_version = path.removeprefix("/apis/").removeprefix("/api/")
        return {
            "kind": "APIResourceList",
            "groupVersion": api_version,
            "resources": [
                {
                    "name": r.plural,
                    "singularName": r.kind.lower(),
                    "namespaced": r.namespaced,
                    "kind": r.kind,
                    "verbs": ["list", "watch", "get", "patch", "create", "delete"],
                }
                for r in DISCOVERED
                if r.api_version == api_version
            ],
        }

    def _answer(
        self, request: Request, resource: Resource, namespace: str, name: str, subresource: str
    ) -> Manifest:
        if request.method == "GET":
            return self._read(request, resource, namespace, name)
        if request.method == "POST":
            return self._create(request.body, resource, namespace)
        held = self.get(resource, namespace, name)
        if request.method == "PATCH" and request.content_type.startswith("application/apply-patch"):
            return self._apply(request, resource, namespace, name, subresource, held)
        if held is None:
            raise RefusedError(404, "NotFound")
        if request.method == "DELETE":
            return self._delete(request, resource, namespace, name, held)
        if request.method == "PUT":
            if request.body["metadata"].get("resourceVersion") != held["metadata"]["resourceVersion"]:
                raise RefusedError(409, "Conflict")
            return self.put(resource, request.body)
        changed = copy.deepcopy(held)
        if request.content_type.startswith("application/json-patch"):
            for operation in request.body:
                patch_one(changed, operation)
        else:
            merge(changed, request.body)
        return self._settle(resource, namespace, name, changed)

    def _settle(self, resource: Resource, namespace: str, name: str, changed: Manifest) -> Manifest:
        metadata = changed["metadata"]
        if metadata.get("deletionTimestamp") and not metadata.get("finalizers"):
            self.remove(resource, namespace, name)
            return changed
        return self.put(resource, changed)

    def _read(self, request: Request, resource: Resource, namespace: str, name: str) -> Manifest:
        shelf = self.shelf(resource)
        if name:
            if (found := shelf.objects.get((namespace, name))) is None:
                raise RefusedError(404, "NotFound")
            return found
        items = [m for (where, _), m in sorted(shelf.objects.items()) if not namespace or where == namespace]
        start, limit = int(request.query.get("continue", 0)), int(request.query.get("limit", 0)) or len(items)
        metadata = {"resourceVersion": str(self.version)}
        if start + limit < len(items):
            metadata["continue"] = str(start + limit)
        return {
            "kind": f"{resource.kind}List",
            "apiVersion": resource.api_version,
            "metadata": metadata,
            "items": items[start : start + limit],
        }

    def _create(self, body: Manifest, resource: Resource, namespace: str) -> Manifest:
        if (namespace, body["metadata"]["name"]) in self.shelf(resource).objects:
            raise RefusedError(409, "AlreadyExists")
        return self.put(resource, body)

    def _apply(
        self,
        request: Request,
        resource: Resource,
        namespace: str,
        name: str,
        subresource: str,
        held: Manifest | None,
    ) -> Manifest:
        if held is None and subresource:
            raise RefusedError(404, "NotFound")
        wanted_uid = request.body["metadata"].get("uid")
        if wanted_uid and (held is None or held["metadata"]["uid"] != wanted_uid):
            raise RefusedError(409, "Conflict")
        manager = (resource, namespace, name, request.query["fieldManager"])
        before = self._applied.get(manager, {})
        self._applied[manager] = copy.deepcopy(request.body)
        changed = copy.deepcopy(held) if held is not None else {}
        prune(changed, before, request.body)
        merge(changed, copy.deepcopy(request.body))
        if held == changed:
            return held
        if held is not None and held.get("spec") != changed.get("spec"):
            changed["metadata"]["generation"] = held["metadata"]["generation"] + 1
        return self.put(resource, changed)

    def _delete(
        self, request: Request, resource: Resource, namespace: str, name: str, held: Manifest
    ) -> Manifest:
        wanted_uid = ((request.body or {}).get("preconditions") or {}).get("uid")
        if wanted_uid and wanted_uid != held["metadata"]["uid"]:
            raise RefusedError(409, "Conflict")
        if held["metadata"].get("finalizers"):
            changed = copy.deepcopy(held)
            changed["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
            return self.put(resource, changed)
        self.remove(resource, namespace, name)
        return {"kind": "Status", "apiVersion": "v1", "status": "Success"}

    async def _watch(
        self, http: web.Request, resource: Resource, namespace: str, since: int
    ) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(http)
        shelf = self.shelf(resource)
        queue: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        if since and since < self.oldest_version:
            queue.put_nowait({"type": "ERROR", "object": status_document(410, "Expired", "too old")})
            queue.put_nowait(None)
        for version, event, manifest in shelf.history if since else ():
            if version > since:
                queue.put_nowait({"type": event, "object": manifest})
        if not since:
            for manifest in shelf.objects.values():
                queue.put_nowait({"type": "ADDED", "object": manifest})
        shelf.watches.add(queue)
        try:
            with contextlib.suppress(ConnectionError):
                while (item := await queue.get()) is not None:
                    where = item["object"].get("metadata", {}).get("namespace", "")
                    if not namespace or not where or where == namespace:
                        await response.write(json.dumps(item).encode() + b"\n")
        finally:
            shelf.watches.discard(queue)
        return response

    def _tell(self, shelf: Shelf, event: str, manifest: Manifest) -> None:
        kept = copy.deepcopy(manifest)
        shelf.history.append((self.version, event, kept))
        for queue in shelf.watches:
            queue.put_nowait({"type": event, "object": kept})


class RefusedError(Exception):
    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


def status_document(status: int, reason: str, message: str, causes: Iterable[str] = ()) -> Manifest:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "code": status,
        "reason": reason,
        "message": message,
        "details": {"causes": [{"reason": cause} for cause in causes]},
    }


def locate(path: str) -> tuple[Resource, str, str, str] | None:
    """The resource, namespace, name and subresource in a path; None for a discovery document."""
    parts = path.strip("/").split("/")
    group, version, rest = (
        ("", parts[1:2], parts[2:]) if parts[0] == "api" else (parts[1:2], parts[2:3], parts[3:])
    )
    namespace = ""
    if rest[:1] == ["namespaces"] and len(rest) > 2:
        namespace, rest = rest[1], rest[2:]
    if not rest:
        return None
    resource = BY_PATH["".join(group), "".join(version), rest[0]]
    name, subresource = [*rest[1:], "", ""][:2]
    return resource, namespace, name, subresource


def merge(target: Manifest, patch: Manifest) -> None:
    for key, value in patch.items():
        if value is None:
            target.pop(key, None)
        elif isinstance(value, dict) and isinstance(target.get(key), dict):
            merge(target[key], value)
        else:
            target[key] = value


def prune(target: Manifest, before: Manifest, now: Manifest) -> None:
    """Remove what the manager applied before and no longer applies."""
    for key, value in before.items():
        if key not in now:
            target.pop(key, None)
        elif isinstance(value, dict) and isinstance(now[key], dict) and isinstance(target.get(key), dict):
            prune(target[key], value, now[key])


def patch_one(target: Manifest, operation: dict[str, Any]) -> None:
    *parents, last = [part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:]]
    place: Any = target
    for part in parents:
        place = place[int(part)] if isinstance(place, list) else place[part]
    index: Any = (len(place) if last == "-" else int(last)) if isinstance(place, list) else last
    match operation["op"]:
        case "test":
            held = place.get(index) if isinstance(place, dict) else place[index]
            if held != operation["value"]:
                raise RefusedError(422, "Invalid")
        case "remove":
            del place[index]
        case "add" if isinstance(place, list):
            place.insert(index, operation["value"])
        case _:
            place[index] = operation["value"]
