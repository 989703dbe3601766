"""The stub's HTTP paths, with the hub's headers that tell its client why a request is refused."""

import asyncio
import json
from collections.abc import Awaitable, Callable

from aiohttp import web
from pydantic import ValidationError

from hub_stub.configuration import Access, Configuration, Faults
from hub_stub.repositories import Repositories, Snapshot, StoredFile

PIECE_BYTES = 1 << 16
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class RefusedError(Exception):
    """An error answer with the hub's own headers."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})


class Hub:
    """Serves the repositories under a root."""

    def __init__(self, repositories: Repositories, configuration: Configuration) -> None:
        self._repositories = repositories
        self._configuration = configuration
        self._faults_changed = asyncio.Event()
        self._set(configuration.faults)
        self.requests: list[str] = []

    def application(self) -> web.Application:
        """The routes."""
        application = web.Application(middlewares=[self._record_and_fail])
        repository = "{organisation}/{name}"
        application.router.add_get(f"/api/models/{repository}", self._model)
        application.router.add_get(f"/api/models/{repository}/revision/{{revision}}", self._model)
        application.router.add_get(f"/api/models/{repository}/tree/{{revision}}", self._tree)
        application.router.add_get(f"/{repository}/resolve/{{revision}}/{{file:.+}}", self._resolve)
        application.router.add_get(f"/large/{repository}/{{file:.+}}", self._large)
        application.router.add_post("/admin/faults", self._set_faults)
        application.router.add_get("/admin/requests", self._requests)
        return application

    @web.middleware
    async def _record_and_fail(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if not request.path.startswith("/admin"):
            self.requests.append(f"{request.method} {request.path}")
            if self._busy_left > 0 and self._faults.busy is not None:
                self._busy_left -= 1
                return web.Response(status=self._faults.busy.status)
        try:
            return await handler(request)
        except RefusedError as refused:
            return web.json_response({"error": str(refused)}, status=refused.status, headers=refused.headers)

    async def _model(self, request: web.Request) -> web.StreamResponse:
        repository, snapshot = self._open(request)
        siblings = [
            {"rfilename": file.name, "size": file.size, "blobId": file.blob, **_lfs(file)}
            for file in snapshot.files.values()
        ]
        access = self._access(repository)
        return web.json_response(
            {
                "_id": snapshot.commit[:24],
                "id": repository,
                "modelId": repository,
                "sha": snapshot.commit,
                "private": access.private,
                "gated": "manual" if access.gated else False,
                "disabled": False,
                "siblings": siblings,
                "tags": [],
            }
        )

    async def _tree(self, request: web.Request) -> web.StreamResponse:
        _, snapshot = self._open(request)
        return web.json_response(
            [
                {"type": "file", "path": file.name, "oid": file.blob, "size": file.size, **_lfs(file)}
                for file in snapshot.files.values()
            ]
        )

    async def _resolve(self, request: web.Request) -> web.StreamResponse:
        repository, snapshot = self._open(request)
        self._refuse_gated(request, repository)
        file = self._file(request, snapshot)
        headers = {"X-Repo-Commit": snapshot.commit, "ETag": f'"{file.blob}"'}
        if not file.large:
            return await self._send(request, file, headers)
        headers |= {"X-Linked-ETag": f'"{file.sha256}"', "X-Linked-Size": str(file.size)}
        headers["Location"] = str(request.url.origin() / "large" / repository / file.name)
        return web.Response(status=302, headers=headers)

    async def _large(self, request: web.Request) -> web.StreamResponse:
        _, snapshot = self._open(request)
        file = self._file(request, snapshot)
        # The hub redirects to a store on another host, whose answers name no commit. The stub redirects to
        # itself, and the client expects the commit in the answer.
        headers = {"X-Repo-Commit": snapshot.commit, "ETag": f'"{file.sha256}"'}
        return await self._send(request, file, headers)

    async def _send(
        self, request: web.Request, file: StoredFile, headers: dict[str, str]
    ) -> web.StreamResponse:
        start = request.http_range.start or 0
        if start >= file.size > 0:
            return web.Response(status=416, headers={"Content-Range": f"bytes */{file.size}"})
        headers |= {"Accept-Ranges": "bytes", "Content-Length": str(file.size - start)}
        if "Range" in request.headers:
            headers["Content-Range"] = f"bytes {start}-{file.size - 1}/{file.size}"
        response = web.StreamResponse(status=206 if "Range" in request.headers else 200, headers=headers)
        await response.prepare(request)
        if request.method == "HEAD":
            return response
        end = self._cut_at(file)
        with file.path.open("rb") as content:
            content.seek(start)
            while piece := content.read(min(PIECE_BYTES, max(0, (end or file.size) - content.tell()))):
                await response.write(piece)
                await self._stand_still(file, content.tell())
        if end is not None and request.transport is not None:
            request.transport.close()
        return response

    async def _stand_still(self, file: StoredFile, sent: int) -> None:
        """Only for requests that come to this place from before it: what goes on behind it is served."""
        stall = self._faults.stall
        if stall is None or stall.file != file.name or not 0 <= sent - stall.after_bytes < PIECE_BYTES:
            return
        while self._faults.stall == stall:
            await self._faults_changed.wait()

    def _cut_at(self, file: StoredFile) -> int | None:
        cut = self._faults.cut
        if cut is None or cut.file != file.name or self._cuts_left == 0:
            return None
        if self._cuts_left is not None:
            self._cuts_left -= 1
        return cut.after_bytes

    def _open(self, request: web.Request) -> tuple[str, Snapshot]:
        """The repository that a path names; private ones and missing ones look the same."""
        repository = f"{request.match_info['organisation']}/{request.match_info['name']}"
        token = _token(request)
        if token is not None and token not in self._configuration.tokens:
            raise RefusedError(401, "", "Invalid credentials in Authorization header")
        snapshot = self._repositories.snapshot(repository)
        hidden = self._access(repository).private and not self._let_in(token, repository)
        if snapshot is None or hidden:
            status = 401 if token is None else 404
            raise RefusedError(status, "RepoNotFound", "Repository not found")
        revision = request.match_info.get("revision")
        if revision not in {None, snapshot.commit, *self._access(repository).revisions}:
            raise RefusedError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return repository, snapshot

    def _refuse_gated(self, request: web.Request, repository: str) -> None:
        token = _token(request)
        if self._access(repository).gated and not self._let_in(token, repository):
            status = 401 if token is None else 403
            raise RefusedError(status, "GatedRepo", f"Access to model {repository} is restricted.")

    def _file(self, request: web.Request, snapshot: Snapshot) -> StoredFile:
        file = snapshot.files.get(request.match_info["file"])
        if file is None:
            raise RefusedError(404, "EntryNotFound", "Entry not found")
        return file

    def _access(self, repository: str) -> Access:
        return self._configuration.repositories.get(repository, Access())

    def _let_in(self, token: str | None, repository: str) -> bool:
        return token is not None and repository in self._configuration.tokens.get(token, ())

    def _set(self, faults: Faults) -> None:
        self._faults = faults
        self._faults_changed.set()
        self._faults_changed = asyncio.Event()
        self._busy_left = faults.busy.times if faults.busy else 0
        self._cuts_left = faults.cut.times if faults.cut else 0

    async def _set_faults(self, request: web.Request) -> web.StreamResponse:
        try:
            self._set(Faults.model_validate_json(await request.read()))
        except ValidationError as problem:
            return web.json_response({"error": str(problem)}, status=400)
        return web.json_response(self._faults.model_dump(mode="json"))

    async def _requests(self, _request: web.Request) -> web.StreamResponse:
        return web.Response(text=json.dumps(self.requests), content_type="application/json")


def _token(request: web.Request) -> str | None:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token if scheme == "Bearer" and token else None


def _lfs(file: StoredFile) -> dict[str, object]:
    if not file.large:
        return {}
    return {"lfs": {"oid": file.sha256, "sha256": file.sha256, "size": file.size, "pointerSize": 135}}
