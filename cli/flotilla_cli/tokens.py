"""Bearer tokens: of a file, or of the user of a kubeconfig."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from flotilla_runtime.contract import SecretError, secret_value
from flotilla_runtime.contract.failure_texts import what_failed

PLUGIN_SECONDS: Final = 60.0


class TokenError(RuntimeError):
    """A token cannot be read; the message names where it should be."""


def token_of_file(token_file: Path | None) -> str | None:
    """The token in this file; `-` is standard input, and no file is no token."""
    if token_file is None:
        return None
    try:
        text = sys.stdin.read() if str(token_file) == "-" else token_file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise TokenError(f"--token-file {token_file} cannot be read: {what_failed(problem)}") from None
    return token_value(text, f"the token in {token_file}")


def token_value(raw: str, where: str) -> str:
    """The token without what is around it; raises TokenError for one that no header can have."""
    try:
        return secret_value(raw, where)
    except SecretError as problem:
        raise TokenError(str(problem)) from None


def token_of_user(kubeconfig: Mapping[str, Any], environment: Mapping[str, str] = os.environ) -> str | None:
    """The token of the only user of a minified kubeconfig; None where it has none."""
    users = kubeconfig.get("users") or []
    user: Mapping[str, Any] = (users[0].get("user") or {}) if users else {}
    if user.get("token"):
        return token_value(str(user["token"]), "the token of your kubeconfig")
    if user.get("tokenFile"):
        return token_of_file(Path(user["tokenFile"]))
    return _of_plugin(user["exec"], environment) if user.get("exec") else None


def _of_plugin(plugin: Mapping[str, Any], environment: Mapping[str, str]) -> str | None:
    """The token that a credential plugin gives, as kubectl asks for it."""
    about = {"apiVersion": plugin["apiVersion"], "kind": "ExecCredential", "spec": {"interactive": False}}
    extra = {each["name"]: each["value"] for each in plugin.get("env") or []}
    try:
        done = subprocess.run(  # noqa: S603
            [plugin["command"], *(plugin.get("args") or [])],
            env={**environment, **extra, "KUBERNETES_EXEC_INFO": json.dumps(about)},
            stdout=subprocess.PIPE,
            check=True,
            timeout=PLUGIN_SECONDS,
        )
        token = (json.loads(done.stdout).get("status") or {}).get("token")
    except (OSError, ValueError, subprocess.SubprocessError) as problem:
        kind = type(problem).__name__
        raise TokenError(
            f"the credential plugin {plugin['command']} of your kubeconfig gave no token ({kind}); give one "
            "by --token-file"
        ) from None
    return None if token is None else token_value(str(token), "the token of your credential plugin")
