"""Runs the user's kubectl, with the user's own context and credentials."""

import subprocess
from collections.abc import Callable, Sequence

Kubectl = Callable[[Sequence[str]], str]


class KubectlError(RuntimeError):
    """kubectl is missing or has failed; the message says what it said."""


def command_of(context: str | None) -> list[str]:
    """The start of each command."""
    return ["kubectl", *([] if context is None else ["--context", context])]


def kubectl_of(context: str | None) -> Kubectl:
    """A function that runs kubectl and returns what it prints."""

    def run(arguments: Sequence[str]) -> str:
        try:
            done = subprocess.run(  # noqa: S603
                [*command_of(context), *arguments], capture_output=True, text=True, check=True
            )
        except FileNotFoundError:
            raise KubectlError("kubectl was not found on the PATH; install it") from None
        except subprocess.CalledProcessError as failed:
            message = failed.stderr.strip() or f"kubectl ended with exit status {failed.returncode}"
            raise KubectlError(message) from None
        return done.stdout

    return run
