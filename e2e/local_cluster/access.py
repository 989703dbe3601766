"""kubectl and an API client for the cluster of a kubeconfig, be it kind, the embedded cluster or another."""

import base64
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import yaml

from local_cluster.api_client import ApiClient
from local_cluster.binaries import binary
from local_cluster.certificates import KeyPair

KUBECTL_TIMEOUT_SECONDS = 300


@dataclass(frozen=True, kw_only=True)
class Access:
    """kubectl and a client, as the user of the kubeconfig."""

    kubeconfig: Path

    def kubectl(self, *arguments: str, manifest: str | None = None, check: bool = True) -> str:
        """Run the pinned kubectl with `manifest` as its standard input, and return its output.

        With `check` a failure raises an error; without it, the output includes what kubectl wrote to stderr.
        """
        result = subprocess.run(
            [binary("kubectl"), f"--kubeconfig={self.kubeconfig}", *arguments],
            input=manifest,
            capture_output=True,
            text=True,
            check=False,
            timeout=KUBECTL_TIMEOUT_SECONDS,
        )
        if check and result.returncode != 0:
            raise AssertionError(f"kubectl {' '.join(arguments)}: {result.stderr}")
        return result.stdout if check else result.stdout + result.stderr

    @cached_property
    def client(self) -> ApiClient:
        """A client with the kubeconfig's certificate."""
        document = yaml.safe_load(self.kubeconfig.read_text())
        cluster, user = document["clusters"][0]["cluster"], document["users"][0]["user"]
        with tempfile.TemporaryDirectory() as folder:
            authority, certificate, key = (Path(folder, name) for name in ("ca", "certificate", "key"))
            authority.write_bytes(base64.b64decode(cluster["certificate-authority-data"]))
            certificate.write_bytes(base64.b64decode(user["client-certificate-data"]))
            key.write_bytes(base64.b64decode(user["client-key-data"]))
            credentials = KeyPair(certificate=certificate, key=key)
            return ApiClient(cluster["server"], authority=str(authority), credentials=credentials)
