"""A Milvus outside the cluster, with TLS and a token: the steps of a build and the retriever as processes.

Milvus Lite has neither, so a real HAProxy stands before it, as users put one before theirs. The tests without
TLS are in test_processes.py and test_builds.py.
"""

import base64
import time
from collections.abc import Iterator

import httpx2
import pytest

from flotilla_runtime.contract import ENV_MILVUS_TOKEN, EXIT_RETRY, BuildReason
from indexing_support.builds import Index
from indexing_support.milvus import MilvusServer
from indexing_support.milvus_front import REFUSAL, TOKEN, MilvusFront
from indexing_support.processes import log_of, readiness, retriever, run
from leaks.planted import planted

pytestmark = [pytest.mark.services, pytest.mark.xdist_group("milvus")]

# gRPC trusts the authorities of this file, and without it those that come with its library.
TRUSTED_AUTHORITIES = "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"
WRONG_TOKEN = planted("reader:guessed")
UNKNOWN_AUTHORITY = "CERTIFICATE_VERIFY_FAILED: unable to get local issuer certificate"


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory, milvus: MilvusServer) -> Iterator[MilvusFront]:
    """One HAProxy for the module."""
    started = MilvusFront(tmp_path_factory.mktemp("front"), milvus)
    started.start()
    yield started
    started.stop()


@pytest.fixture
def external(index: Index, front: MilvusFront) -> Index:
    """An index whose `spec.milvus.uri` is that of the front."""
    index.write("a.txt", "The moon moves the sea.")
    index.milvus_uri = front.uri
    return index


def assert_no_token_in(text: str) -> None:
    for token in (TOKEN, WRONG_TOKEN):
        assert token not in text
        assert base64.b64encode(token.encode()).decode() not in text


@pytest.mark.holds(
    "install.md",
    "Builds and the retriever use Milvus over TLS with a token, with the authorities of "
    "`GRPC_DEFAULT_SSL_ROOTS_FILE_PATH`",
)
@pytest.mark.holds(
    "decisions/0007-index-builds.md",
    "A build and a retriever work on a Milvus outside of the cluster, over TLS",
)
def test_a_build_and_the_retriever_use_it_over_tls_with_the_token(
    external: Index, front: MilvusFront
) -> None:
    environment = {TRUSTED_AUTHORITIES: str(front.authority), ENV_MILVUS_TOKEN: TOKEN}
    for step in ("plan", "shards", "promote"):
        status, report = run(external, step, environment=environment)
        assert (status, report.reason) == (0, None), report.message
    with retriever(external, environment=environment) as (_, url):
        deadline = time.monotonic() + 60
        while (ready := readiness(url)) is None or ready.status_code != 200:
            assert time.monotonic() < deadline, log_of(external)
            time.sleep(0.05)
        answer = httpx2.post(f"{url}/v1/retrieve", json={"query": "moon"}, timeout=10).json()
    assert answer["passages"][0]["text"] == "The moon moves the sea."
    assert "step_done" in log_of(external)
    assert_no_token_in(log_of(external))


@pytest.mark.holds(
    "install.md",
    "An untrusted authority and a wrong token of Milvus are told as the cause, and no log shows a token",
)
@pytest.mark.parametrize(
    ("trusted", "token", "said"),
    [
        pytest.param(False, TOKEN, UNKNOWN_AUTHORITY, id="a certificate of an unknown authority"),
        pytest.param(True, WRONG_TOKEN, f"UNAUTHENTICATED: {REFUSAL}", id="a wrong token"),
    ],
)
def test_a_step_and_the_retriever_say_why_milvus_cannot_be_used(
    external: Index, front: MilvusFront, trusted: bool, token: str, said: str
) -> None:
    environment = {ENV_MILVUS_TOKEN: token}
    if trusted:
        environment[TRUSTED_AUTHORITIES] = str(front.authority)
    with retriever(external, environment=environment) as (_, url):
        status, report = run(external, "plan", environment=environment)
        deadline = time.monotonic() + 60
        while (unready := readiness(url)) is None or said not in unready.text:
            assert time.monotonic() < deadline, log_of(external)
            time.sleep(0.05)
    assert (status, report.reason) == (EXIT_RETRY, BuildReason.MILVUS_UNREACHABLE)
    assert said in report.message
    assert unready.status_code == 503
    assert said in unready.json()["detail"]
    assert "step_failed" in log_of(external)
    assert_no_token_in(log_of(external) + report.message + unready.text)
