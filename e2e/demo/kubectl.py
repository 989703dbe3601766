"""kubectl for the demo and the end-to-end tests: one cluster, and kubectl's own words in every error."""

import json
import re
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FORWARDING = re.compile(rb"Forwarding from 127\.0\.0\.1:(\d+)")


class KubectlError(RuntimeError):
    """A kubectl command failed; the message is what kubectl printed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kubectl:
    """Runs one kubectl binary against one cluster, in one namespace when `namespace` is set."""

    binary: Path
    kubeconfig: Path
    namespace: str | None = None

    def command(self, *arguments: str) -> list[str]:
        """The full command line."""
        scope = ["--namespace", self.namespace] if self.namespace else []
        return [str(self.binary), "--kubeconfig", str(self.kubeconfig), *scope, *arguments]

    def run(self, *arguments: str, stdin: str | None = None, timeout_seconds: float = 120) -> str:
        """Standard output of a kubectl call; raises KubectlError with standard error when it fails."""
        done = subprocess.run(
            self.command(*arguments),
            check=False,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout_seconds,
        )
        if done.returncode != 0:
            raise KubectlError(done.stderr.strip() or done.stdout.strip())
        return done.stdout

    def get(self, *arguments: str) -> Any:
        """The parsed JSON of `kubectl get`."""
        return json.loads(self.run("get", *arguments, "--output", "json"))

    def apply(self, manifests: Sequence[dict[str, Any]]) -> str:
        """Apply objects given as values."""
        return self.run(
            "apply",
            "--filename",
            "-",
            stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(manifests)}),
        )

    def send_files(self, pod: str, folder: Path, names: Sequence[str], destination: str) -> None:
        """Stream files of `folder` into a pod as a tar archive; `names` are relative to the folder."""
        archive = subprocess.Popen(
            ["tar", "--create", "--dereference", "--directory", str(folder), "--null", "--files-from", "-"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        unpack = subprocess.Popen(
            self.command(
                "exec",
                "--stdin",
                pod,
                "--",
                "tar",
                "--extract",
                "--no-same-owner",
                "--directory",
                destination,
            ),
            stdin=archive.stdout,
            stderr=subprocess.PIPE,
        )
        assert archive.stdin is not None
        assert archive.stdout is not None
        archive.stdout.close()
        archive.stdin.write(b"\0".join(name.encode() for name in names))
        archive.stdin.close()
        _, problem = unpack.communicate(timeout=600)
        if archive.wait() != 0 or unpack.returncode != 0:
            raise KubectlError(f"could not copy {folder} into pod {pod}: {problem.decode().strip()}")

    @contextmanager
    def port_forward(self, target: str, port: int) -> Iterator[int]:
        """Forward a free local port to `target` (for example `service/x`) and yield that local port."""
        process = subprocess.Popen(
            self.command("port-forward", target, f":{port}"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        try:
            assert process.stdout is not None
            found = FORWARDING.search(process.stdout.readline())
            if found is None:
                process.terminate()
                raise KubectlError(process.communicate()[1].decode().strip())
            yield int(found.group(1))
        finally:
            process.terminate()
            process.wait(timeout=10)
