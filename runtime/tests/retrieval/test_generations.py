"""Generations that are served while Milvus does what it should not; on a real gRPC server that says no."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import pytest

from flotilla_runtime.contract import BuildReason, MilvusConnection
from flotilla_runtime.indexing.errors import BuildError
from flotilla_runtime.indexing.store import Store
from flotilla_runtime.retrieval import generations as generations_module
from flotilla_runtime.retrieval.generations import Generations


class Refusing(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Answers every call with one status; the greeting of a client is taken."""

    def __init__(self, status: grpc.StatusCode) -> None:
        self.status = status

    def service(self, details: Any) -> Any:
        def answer(_: bytes, context: Any) -> bytes:
            if details.method.endswith("/Connect"):
                return b""
            context.abort(self.status, "not for you")
            raise AssertionError("abort raises")

        return grpc.unary_unary_rpc_method_handler(answer)


@contextmanager
def refusing(status: grpc.StatusCode) -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((Refusing(status),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"http://127.0.0.1:{port}"
    server.stop(None)


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        pytest.param(grpc.StatusCode.PERMISSION_DENIED, BuildReason.MILVUS_UNREACHABLE, id="no permission"),
        pytest.param(grpc.StatusCode.UNAUTHENTICATED, BuildReason.MILVUS_UNREACHABLE, id="no token"),
    ],
)
def test_an_error_of_grpcs_own_is_milvus_saying_no(status: grpc.StatusCode, reason: BuildReason) -> None:
    with refusing(status) as url:
        store = Store(MilvusConnection(uri=url))
        with pytest.raises(BuildError) as refused:
            store.resolve("flotilla_handbook")
        assert refused.value.reason is reason
        assert f"{status.name}: not for you" in refused.value.message
        store.close()


class Broken(Store):
    """Fails at first in a way that nobody has thought of."""

    def __init__(self) -> None:
        super().__init__(MilvusConnection(uri="http://127.0.0.1:1"))
        self.asked = 0

    def resolve(self, alias: str) -> str | None:
        self.asked += 1
        if self.asked < 3:
            raise ZeroDivisionError(alias)
        return None


async def test_the_alias_is_followed_again_after_any_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generations_module, "REFRESH_SECONDS", 0.01)
    store = Broken()
    generations = Generations(store, "flotilla_handbook")
    following = asyncio.create_task(generations.keep_fresh())
    async with asyncio.timeout(30):
        while store.asked < 3 or generations.problem != "no build of this index has been promoted yet":
            assert not following.done(), following.exception()
            await asyncio.sleep(0.01)
    following.cancel()
