"""The farewell of an index over HTTPS, in a process of its own, since trust is read when a process starts.

What servers may answer without TLS is in test_cleanup.py.
"""

import json
import os
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from local_cluster.certificates import Authority

REPOSITORY = Path(__file__).parents[4]
TOKEN = "root:salt and pepper"
PREFIX = "flotilla_a_g_"
PROGRAM = """
import asyncio, sys
from flotilla_operator.controllers.vector_index.cleanup import Remains, remove

uri, token, prefix = sys.argv[1:]
remains = Remains(uri=uri, database="default", token=token, alias="flotilla_a", prefix=prefix, index_uid="")
done = asyncio.run(remove(remains, allow_loopback=True))
print(done.state, done.message)
"""


@dataclass(slots=True)
class SecuredMilvus:
    """Milvus' HTTP interface with one collection of the index, behind a certificate for 127.0.0.1."""

    authority: Path
    uri: str = ""
    calls: list[tuple[str, str | None]] = field(default_factory=list)  # path and Authorization


@pytest.fixture
def milvus(tmp_path: Path) -> Iterator[SecuredMilvus]:
    authority = Authority(tmp_path / "authority")
    pair = authority.issue("milvus", user="milvus", addresses=["127.0.0.1"])
    state = SecuredMilvus(authority=authority.pair.certificate)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            state.calls.append((self.path, self.headers["Authorization"]))
            names = [f"{PREFIX}1"] if self.path.endswith("collections/list") else {}
            body = json.dumps({"code": 0, "data": names}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    state.uri = f"https://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield state
    server.shutdown()
    server.server_close()
    thread.join()


def removed(uri: str, **environment: str) -> str:
    """Words of the removal."""
    source = f"{REPOSITORY}/operator:{REPOSITORY}/runtime"
    process = subprocess.run(
        [sys.executable, "-c", PROGRAM, uri, TOKEN, PREFIX],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": source, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return process.stdout + process.stderr


@pytest.mark.holds(
    "install.md",
    "The operator empties a Milvus over TLS, and gives its token to no server that it does not trust",
)
def test_collections_are_dropped_over_https_with_the_token(milvus: SecuredMilvus) -> None:
    assert removed(milvus.uri, SSL_CERT_FILE=str(milvus.authority)).strip() == "Done"
    paths = [
        "collections/list",
        "collections/describe",
        "aliases/describe",
        "aliases/drop",
        "collections/drop",
    ]
    assert milvus.calls == [(f"/v2/vectordb/{path}", f"Bearer {TOKEN}") for path in paths]


@pytest.mark.holds(
    "install.md",
    "The operator empties a Milvus over TLS, and gives its token to no server that it does not trust",
)
def test_a_server_that_is_not_trusted_gets_no_token_and_is_told(milvus: SecuredMilvus) -> None:
    said = removed(milvus.uri)
    assert said.startswith(f"GivenUp the collections {PREFIX}* were not removed from {milvus.uri}")
    assert "unable to get local issuer certificate" in said
    assert said.strip().endswith("drop them by hand")
    assert milvus.calls == []
    assert TOKEN not in said
