"""A client for the API server that works with raw dictionaries.

The official client's generated methods and models are not used: a model needs eight times the memory of its
dictionary, and the typed `patch_…` methods choose a content type silently. Here every request names its
content type and its time limit. The connection that sends the requests is handed in: `connection` has the
one over HTTP.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from flotilla_operator.objects.resources import Manifest, Resource

JSON: Final = "application/json"
APPLY: Final = "application/apply-patch+yaml"
JSON_PATCH: Final = "application/json-patch+json"
MERGE_PATCH: Final = "application/merge-patch+json"

FIELD_MANAGER: Final = "flotilla"
STATUS_MANAGER: Final = "flotilla-status"
LIST_TIMEOUT_SECONDS: Final = 60.0
PAGE_SIZE: Final = 500
PAGE_BYTES: Final = 8 * 2**20


class ApiError(Exception):
    """The API server refused a request.

    `reason` is the machine-readable reason of the Status object (`AlreadyExists`, `Conflict`, …), and
    `causes` holds the reasons in its details. Code reads the message only where these do not tell two cases
    apart.
    """

    def __init__(
        self,
        *,
        status: int,
        reason: str = "",
        message: str = "",
        causes: frozenset[str] = frozenset(),
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message
        self.causes = causes
        self.retry_after_seconds = retry_after_seconds


def error_from(status: int, document: Any, retry_after: str | None = None) -> ApiError:
    """The error in a Status object, or in the answer of a proxy that sends none."""
    fields = document if isinstance(document, dict) else {}
    details = fields.get("details") or {}
    seconds = str(retry_after or details.get("retryAfterSeconds") or "")
    return ApiError(
        status=int(fields.get("code") or status),
        reason=str(fields.get("reason") or ""),
        message=str(fields.get("message") or document or ""),
        causes=frozenset(str(cause.get("reason")) for cause in details.get("causes") or ()),
        retry_after_seconds=float(seconds) if seconds.isdigit() else None,
    )


class AnswerTooLongError(ValueError):
    """An answer is longer than its request allows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Some of the objects of a list, and the list's resource version."""

    items: list[Manifest]
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request to the API server; `longest_answer` is in bytes, None for no limit."""

    method: str
    path: str
    query: Mapping[str, Any] = field(default_factory=dict)
    body: Any = None
    content_type: str = JSON
    longest_answer: int | None = None

    @property
    def writes(self) -> bool:
        """Whether it changes anything."""
        return self.method != "GET"


class Connection(Protocol):
    """Sends requests.

    An answer with an error is raised as `ApiError`, a lost one as `OSError`, one that is longer than its
    request allows as `AnswerTooLongError`.
    """

    async def request(self, request: Request, timeout_seconds: float | None = None) -> Manifest:
        """The answer; TimeoutError when there is none in time. A connection has a limit of its own."""

    def stream(self, request: Request, silence_seconds: float) -> AsyncIterator[Manifest]:
        """The documents of an answer that goes on; TimeoutError when none arrives for `silence_seconds`."""

    async def close(self) -> None:
        """Send nothing any more."""


class Client:
    """The requests that the operator sends."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def close(self) -> None:
        """Close the connection."""
        await self._connection.close()

    async def get(self, resource: Resource, namespace: str, name: str) -> Manifest:
        """One object by name."""
        return await self._connection.request(Request(method="GET", path=resource.path(namespace, name)))

    async def list_all(self, resource: Resource, namespace: str | None = None) -> tuple[list[Manifest], str]:
        """All objects, and the resource version from which a watch continues."""
        items: list[Manifest] = []
        version = ""
        async for page in self.pages(resource, namespace):
            items += page.items
            version = page.version
        return items, version

    async def pages(self, resource: Resource, namespace: str | None = None) -> AsyncIterator[Page]:
        """All objects, page by page.

        Objects may have 1.5 MiB each. A page that would be longer than 8 MiB is asked for again with a
        quarter of the objects; after one that fits, the next one may have twice as many.
        """
        query: dict[str, Any] = {"limit": PAGE_SIZE}
        while True:
            asked = Request(
                method="GET", path=resource.path(namespace), query=query, longest_answer=PAGE_BYTES
            )
            try:
                page = await self._connection.request(asked, LIST_TIMEOUT_SECONDS)
            except AnswerTooLongError:
                if query["limit"] == 1:
                    raise
                query["limit"] = max(1, query["limit"] // 4)
                continue
            for item in page["items"]:
                item.setdefault("apiVersion", resource.api_version)
                item.setdefault("kind", resource.kind)
            token = page["metadata"].get("continue")
            yield Page(items=page["items"], version=page["metadata"]["resourceVersion"])
            if not token:
                return
            del page
            query |= {"limit": min(PAGE_SIZE, 2 * query["limit"]), "continue": token}

    def watch(
        self,
        resource: Resource,
        namespace: str | None,
        resource_version: str,
        *,
        server_timeout_seconds: int,
        silence_seconds: float,
    ) -> AsyncIterator[dict[str, Any]]:
        """The changes since a resource version, including bookmarks, until the server ends the stream.

        Raises TimeoutError when nothing arrives for `silence_seconds`.
        """
        query = {
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": server_timeout_seconds,
        }
        asked = Request(method="GET", path=resource.path(namespace), query=query)
        return self._connection.stream(asked, silence_seconds)

    async def apply(
        self,
        resource: Resource,
        manifest: Manifest,
        *,
        manager: str = FIELD_MANAGER,
        subresource: str | None = None,
        force: bool = True,
    ) -> Manifest:
        """Server-side apply of the whole manifest."""
        metadata = manifest["metadata"]
        return await self._connection.request(
            Request(
                method="PATCH",
                path=resource.path(metadata.get("namespace"), metadata["name"], subresource),
                query={"fieldManager": manager, "force": str(force).lower(), "fieldValidation": "Strict"},
                body=manifest,
                content_type=APPLY,
            )
        )

    async def create(self, resource: Resource, manifest: Manifest, *, dry_run: bool = False) -> Manifest:
        """Create a new object with POST; with `dry_run` the server only answers as if it did."""
        query = {"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict"}
        return await self._connection.request(
            Request(
                method="POST",
                path=resource.path(manifest["metadata"].get("namespace")),
                query={**query, "dryRun": "All"} if dry_run else query,
                body=manifest,
            )
        )

    async def replace(self, resource: Resource, manifest: Manifest) -> Manifest:
        """Replace an object with PUT. The server refuses it unless the manifest has the current version."""
        metadata = manifest["metadata"]
        return await self._connection.request(
            Request(
                method="PUT",
                path=resource.path(metadata.get("namespace"), metadata["name"]),
                query={"fieldManager": FIELD_MANAGER},
                body=manifest,
            )
        )

    async def json_patch(
        self, resource: Resource, namespace: str, name: str, operations: Sequence[Mapping[str, Any]]
    ) -> Manifest:
        """Apply a JSON patch: the server applies all operations or none."""
        return await self._connection.request(
            Request(
                method="PATCH",
                path=resource.path(namespace, name),
                query={"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict"},
                body=list(operations),
                content_type=JSON_PATCH,
            )
        )

    async def merge_patch(
        self, resource: Resource, namespace: str, name: str, patch: Mapping[str, Any]
    ) -> Manifest:
        """Apply a merge patch; used for the series of an event."""
        return await self._connection.request(
            Request(
                method="PATCH",
                path=resource.path(namespace, name),
                query={"fieldManager": FIELD_MANAGER},
                body=dict(patch),
                content_type=MERGE_PATCH,
            )
        )

    async def delete(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        *,
        uid: str,
        resource_version: str | None = None,
        propagation: str = "Background",
        grace_period_seconds: int | None = None,
    ) -> Manifest:
        """Delete the object with this UID, and not a newer one of the same name.

        With a resource version, delete it only in that version.
        """
        preconditions = {"uid": uid, "resourceVersion": resource_version}
        options: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": {name: value for name, value in preconditions.items() if value is not None},
            "propagationPolicy": propagation,
        }
        if grace_period_seconds is not None:
            options["gracePeriodSeconds"] = grace_period_seconds
        return await self._connection.request(
            Request(method="DELETE", path=resource.path(namespace, name), body=options)
        )
