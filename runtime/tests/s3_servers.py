"""A real server of S3's API for the runtime's tests: Versity's gateway over a temporary folder."""

import os
import socket
import subprocess
import time
from pathlib import Path

from flotilla_runtime.contract import PayloadsConfig
from leaks.planted import planted
from local_cluster.binaries import binary
from local_cluster.processes import free_port

KEY, SECRET, BUCKET = "AKIDTESTS", planted("a secret / with+signs"), "fleets"


class S3Server:
    """The gateway with one bucket; its objects are files."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        program = binary("versitygw")
        for part in ("objects", f"objects/{BUCKET}", "metadata", "secret"):
            (self._folder / part).mkdir()
        self.give_credentials(KEY, SECRET)
        self._process = subprocess.Popen(
            [
                *(str(program), "--quiet", "--port", f"127.0.0.1:{self.port}", "posix"),
                *("--sidecar", str(self._folder / "metadata"), str(self._folder / "objects")),
            ],
            env={**os.environ, "ROOT_ACCESS_KEY": KEY, "ROOT_SECRET_KEY": SECRET},
            stdout=(self._folder / "s3.log").open("ab"),
            stderr=subprocess.STDOUT,
        )
        deadline = time.monotonic() + 30
        while not self._answers():
            assert time.monotonic() < deadline, (self._folder / "s3.log").read_text()
            time.sleep(0.05)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def give_credentials(self, key: str, secret: str) -> None:
        (self._folder / "secret" / "accessKeyId").write_text(f"{key}\n")
        (self._folder / "secret" / "secretAccessKey").write_text(secret)

    def config(self, **settings: str) -> PayloadsConfig:
        return PayloadsConfig(
            **{
                "endpoint": f"http://127.0.0.1:{self.port}",
                "bucket": BUCKET,
                "prefix": "a/prefix=1",
                "credentials_directory": str(self._folder / "secret"),
                **settings,
            }
        )

    def objects(self) -> set[str]:
        """The names of all objects in the bucket."""
        bucket = self._folder / "objects" / BUCKET
        return {str(file.relative_to(bucket)) for file in bucket.rglob("*") if file.is_file()}

    def overwrite(self, name: str, text: str) -> None:
        (self._folder / "objects" / BUCKET / name).write_text(text)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return True
        except OSError:
            return False
