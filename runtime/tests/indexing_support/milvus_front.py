"""A real HAProxy before a Milvus, as users have it: it ends TLS and demands a token."""

import base64
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from indexing_support.milvus import MilvusServer
from leaks.planted import planted
from local_cluster.certificates import Authority
from local_cluster.processes import free_port

TOKEN = planted("reader:salt and pepper")
REFUSAL = "auth check failure, please check username and password are correct"  # Milvus' own words
UNAUTHENTICATED = 16  # gRPC's code

CONFIG = """
global
  log stdout format raw local0
defaults
  mode http
  log global
  option httplog
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend tls
  bind 127.0.0.1:{port} ssl crt {certificate} alpn h2
  http-request return status 200 hdr content-type application/grpc hdr grpc-status {code} hdr grpc-message \
"{refusal}" unless {{ req.hdr(authorization) -m str {token} }}
  default_backend milvus
backend milvus
  server milvus 127.0.0.1:{milvus_port} proto h2
"""


class MilvusFront:
    """Passes gRPC on to Milvus Lite, which has neither TLS nor users; its certificate is for 127.0.0.1."""

    def __init__(self, folder: Path, milvus: MilvusServer) -> None:
        self.port = free_port()
        self._authority = Authority(folder / "authority")
        self._folder = folder
        self._milvus = milvus
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def authority(self) -> Path:
        """The certificate of the authority that signed the front's own."""
        return self._authority.pair.certificate

    def start(self) -> None:
        pair = self._authority.issue("milvus", user="milvus", addresses=["127.0.0.1"])
        certificate, config = self._folder / "milvus.pem", self._folder / "haproxy.cfg"
        certificate.write_bytes(pair.certificate.read_bytes() + pair.key.read_bytes())
        config.write_text(
            CONFIG.format(
                port=self.port,
                certificate=certificate,
                code=UNAUTHENTICATED,
                refusal=REFUSAL,
                token=base64.b64encode(TOKEN.encode()).decode(),  # as Milvus' clients send it
                milvus_port=self._milvus.port,
            )
        )
        with (self._folder / "haproxy.log").open("ab") as log:
            self._process = subprocess.Popen(
                ["haproxy", "-db", "-f", str(config)], stdout=log, stderr=subprocess.STDOUT
            )
        deadline = time.monotonic() + 30
        while not self._listens():
            assert time.monotonic() < deadline, (self._folder / "haproxy.log").read_text()
            time.sleep(0.02)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def _listens(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False
