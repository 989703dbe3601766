"""The client: content types, time limits, errors, and that nobody goes round it."""

import ast
import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

import flotilla_operator
from flotilla_operator.cluster.client import PAGE_BYTES, ApiError, Client, error_from
from flotilla_operator.cluster.connection import load_configuration
from flotilla_operator.objects.resources import (
    ALL,
    CONFIG_MAPS,
    LEASES,
    MODEL_REPLICA_SETS,
    NODES,
    PODS,
    resource_at,
    resource_of,
)
from tests.support.fake_api import FakeApi

MANIFEST = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "default"}}


@pytest.mark.parametrize(
    ("call", "method", "content_type"),
    [
        pytest.param(
            lambda c: c.apply(CONFIG_MAPS, MANIFEST), "PATCH", "application/apply-patch+yaml", id="apply"
        ),
        pytest.param(
            lambda c: c.json_patch(CONFIG_MAPS, "default", "a", []),
            "PATCH",
            "application/json-patch+json",
            id="JSON patch",
        ),
        pytest.param(
            lambda c: c.merge_patch(CONFIG_MAPS, "default", "a", {}),
            "PATCH",
            "application/merge-patch+json",
            id="merge patch",
        ),
        pytest.param(lambda c: c.create(PODS, MANIFEST), "POST", "application/json", id="create"),
        pytest.param(
            lambda c: c.delete(PODS, "default", "a", uid="1"), "DELETE", "application/json", id="delete"
        ),
    ],
)
async def test_every_write_names_its_content_type(
    call: Callable[[Client], Awaitable[object]], method: str, content_type: str
) -> None:
    api = FakeApi()
    api.put(CONFIG_MAPS, {"metadata": {"name": "a", "namespace": "default"}})
    api.put(
        PODS, {"metadata": {"name": "a", "namespace": "default", "uid": "1"}}
    ) if method == "DELETE" else None
    async with api.running(), api.client() as client:
        await call(client)
        assert (api.requests[-1].method, api.requests[-1].content_type) == (method, content_type)


async def test_a_request_that_hangs_ends_at_its_time_limit() -> None:
    api = FakeApi()
    async with api.running(), api.client(request_timeout_seconds=0.1) as client:
        api.hang(lambda _: True)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.get(CONFIG_MAPS, "default", "a"), 5)


async def test_a_server_that_is_away_is_a_connection_error() -> None:
    api = FakeApi()
    async with api.running():
        pass
    async with api.client() as client:
        with pytest.raises(ConnectionError):
            await client.get(CONFIG_MAPS, "default", "a")


async def test_an_answer_that_is_not_json_is_an_error_with_its_text() -> None:
    assert error_from(502, "<html>bad gateway", "3").status == 502
    assert error_from(502, "<html>bad gateway", "3").retry_after_seconds == 3
    with pytest.raises(ApiError, match="bad gateway"):
        raise error_from(502, "<html>bad gateway")


def test_the_causes_of_a_refusal_are_kept_by_reason() -> None:
    document = {"code": 403, "details": {"causes": [{"reason": "NamespaceTerminating"}]}}
    assert error_from(403, document).causes == {"NamespaceTerminating"}


@pytest.mark.parametrize(
    ("exempt", "proxy"),
    [
        pytest.param("", "http://proxy:3128", id="the environment's proxy is taken"),
        pytest.param("127.0.0.1", None, id="unless it exempts the API server"),
    ],
)
async def test_the_environment_s_proxy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exempt: str, proxy: str | None
) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy:3128")
    monkeypatch.setenv("no_proxy", exempt)
    path = tmp_path / "kubeconfig"
    path.write_text(FakeApi().kubeconfig())
    assert (await load_configuration(path)).proxy == proxy


async def test_credentials_come_from_the_kubeconfig(tmp_path: Path) -> None:
    api = FakeApi()
    path = tmp_path / "kubeconfig"
    path.write_text(api.kubeconfig())
    configuration = await load_configuration(path)
    assert configuration.host == f"http://127.0.0.1:{api.port}"
    assert (await configuration.auth_settings())["BearerToken"]["value"] == "Bearer fake"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (PODS.path(), "/api/v1/pods"),
        (PODS.path("default", "a"), "/api/v1/namespaces/default/pods/a"),
        (NODES.path("", "n"), "/api/v1/nodes/n"),
        (
            MODEL_REPLICA_SETS.path("default", "m", "status"),
            "/apis/flotilla.dev/v1alpha1/namespaces/default/modelreplicasets/m/status",
        ),
        (LEASES.path("default"), "/apis/coordination.k8s.io/v1/namespaces/default/leases"),
    ],
)
def test_paths(path: str, expected: str) -> None:
    assert path == expected


def test_a_resource_is_found_by_kind_and_by_plural() -> None:
    for resource in ALL:
        assert resource_of({"apiVersion": resource.api_version, "kind": resource.kind}) is resource
        assert resource_at(resource.ref("default", "a")) is resource


def test_only_the_connection_speaks_to_the_api_server() -> None:
    """Whoever goes round it has no time limit, no content type and no fence."""
    package = Path(flotilla_operator.__file__).parent
    importers = {
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if (isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "kubernetes")
        or (isinstance(node, ast.Import) and any(a.name.split(".")[0] == "kubernetes" for a in node.names))
    }
    assert importers == {"cluster/connection.py", "controllers/watching.py"}


@pytest.mark.holds("security.md", "Strangers' objects take little of the operator's memory")
async def test_pages_are_as_short_as_large_objects_need() -> None:
    api = FakeApi()
    for number in range(60):
        size = 2**20 if number < 40 else 10
        metadata = {"name": f"{number:03}", "namespace": "default"}
        api.put(CONFIG_MAPS, {"metadata": metadata, "data": {"a": "x" * size}})
    async with api.running(), api.client() as client:
        pages = [page async for page in client.pages(CONFIG_MAPS)]
    names = [item["metadata"]["name"] for page in pages for item in page.items]
    assert names == [f"{number:03}" for number in range(60)], "each once"
    assert max(sum(len(item["data"]["a"]) for item in page.items) for page in pages) < PAGE_BYTES
    assert len({page.version for page in pages}) == 1


async def test_small_objects_come_in_large_pages() -> None:
    api = FakeApi()
    for number in range(1001):
        api.put(CONFIG_MAPS, {"metadata": {"name": f"{number:04}", "namespace": "default"}})
    async with api.running(), api.client() as client:
        assert [len(page.items) async for page in client.pages(CONFIG_MAPS)] == [500, 500, 1]
