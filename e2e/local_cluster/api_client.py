"""A small synchronous API client for set-up code and tests; objects are plain dictionaries.

The product uses `kubernetes.aio`; a test with the same client could miss that client's mistakes.
"""

import json
import ssl
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import httpx2
import yaml

from local_cluster.certificates import KeyPair
from local_cluster.errors import ApiError

Manifest = dict[str, Any]

REQUEST_TIMEOUT_SECONDS = 30.0
APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"


class ApiClient:
    """Requests to one API server as one user; safe to share between threads."""

    def __init__(self, url: str, *, authority: str, credentials: KeyPair | None = None) -> None:
        context = ssl.create_default_context(cafile=authority)
        if credentials is not None:
            context.load_cert_chain(str(credentials.certificate), str(credentials.key))
        self._http = httpx2.Client(
            base_url=url, verify=context, timeout=REQUEST_TIMEOUT_SECONDS, trust_env=False
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the connections back."""
        self._http.close()

    def ready(self) -> bool:
        """Whether the API server says that it can serve."""
        try:
            return self._http.get("/readyz", timeout=2.0).status_code == httpx2.codes.OK
        except httpx2.HTTPError:
            return False

    def get(self, path: str) -> Manifest:
        """Read an object or a list."""
        return self.request("GET", path)

    def text(self, path: str) -> str:
        """Read something that is not JSON, such as a pod's log."""
        response = self._http.get(path)
        if response.is_error:
            raise _error("GET", path, response)
        return response.text

    def create(self, path: str, body: Mapping[str, Any]) -> Manifest:
        """Post a new object to a collection."""
        return self.request("POST", path, body=body)

    def apply(self, path: str, body: Mapping[str, Any], *, manager: str = "flotilla-e2e") -> Manifest:
        """Server-side apply with conflicts forced."""
        return self.request("PATCH", f"{path}?fieldManager={manager}&force=true", body=body, kind=APPLY)

    def merge(self, path: str, body: Mapping[str, Any]) -> Manifest:
        """Merge patch; works on subresources such as status too."""
        return self.request("PATCH", path, body=body, kind=MERGE)

    def delete(self, path: str) -> Manifest:
        """Delete an object; one that is gone already is no error."""
        try:
            return self.request("DELETE", path)
        except ApiError as error:
            if error.status == httpx2.codes.NOT_FOUND:
                return {}
            raise

    def exists(self, path: str) -> bool:
        """Whether the path can be read."""
        try:
            self.get(path)
        except ApiError as error:
            if error.status == httpx2.codes.NOT_FOUND:
                return False
            raise
        return True

    def request(
        self, method: str, path: str, *, body: Mapping[str, Any] | None = None, kind: str = "application/json"
    ) -> Manifest:
        """One request; an error status becomes an ApiError with the server's message."""
        content = None if body is None else json.dumps(body)
        response = self._http.request(method, path, content=content, headers={"Content-Type": kind})
        answer = _answer(response)
        if response.is_error:
            raise _error(method, path, response)
        return answer


def _answer(response: httpx2.Response) -> Manifest:
    """The body; a text that is not JSON becomes a message."""
    try:
        answer: Manifest = response.json()
    except ValueError:
        answer = {"message": response.text}
    return answer


def _error(method: str, path: str, response: httpx2.Response) -> ApiError:
    message = str(_answer(response).get("message", ""))
    return ApiError(method=method, path=path, status=response.status_code, message=message)


def documents(manifest: str) -> list[Manifest]:
    """The objects of a YAML file of several documents."""
    return [document for document in yaml.safe_load_all(manifest) if document]
