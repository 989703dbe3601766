"""Reads secrets alike in every part: the operator, the pods and the command line.

A secret is a token, a key or a password from an environment variable, a file or an entry of a Secret. Editors
and `kubectl create secret --from-file` leave line breaks at its end, so spaces and line breaks around it do
not count. What is left must fit where it is sent. An empty secret is refused like any other that cannot be
used. No error has a part of the value, which is therefore never sent to a library that would quote it.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

LONGEST_SECRET: Final = 8192  # characters; HAProxy takes no longer header, and no token of a cluster has more
_AROUND: Final = " \t\r\n"


class SecretForm(StrEnum):
    """The characters that a secret may have where it is sent."""

    HEADER = "printable ASCII characters"
    TEXT = "printable characters in UTF-8"  # passwords and URLs, which stand in no header


class SecretError(ValueError):
    """A secret cannot be used. The message names where it stands and the fix, never a part of its value."""


def secret_value(raw: str | bytes, where: str, form: SecretForm = SecretForm.HEADER) -> str:
    """The secret without what is around it; raises SecretError. `where` names its place for the message."""
    wrong = what_is_wrong(raw, form)
    if wrong is not None:
        raise SecretError(f"{where} {wrong}")
    return _decoded(raw).strip(_AROUND)


def secret_of(
    environment: Mapping[str, str], variable: str, field: str = "", form: SecretForm = SecretForm.HEADER
) -> str | None:
    """The secret in an environment variable, None where it is not set; raises SecretError.

    `field` is the field of the object that names the secret.
    """
    raw = environment.get(variable)
    about = f" ({field})" if field else ""
    return None if raw is None else secret_value(raw, f"the environment variable {variable}{about}", form)


def what_is_wrong(raw: str | bytes, form: SecretForm = SecretForm.HEADER) -> str | None:
    """Why a value cannot be used, and the fix, as the end of a sentence about its place; None if it can."""
    fix = f"give it a value of one line, of 1 to {LONGEST_SECRET} {form}"
    if len(raw) > 2 * LONGEST_SECRET:
        return f"is too long; {fix}"
    try:
        value = _decoded(raw).strip(_AROUND)
        value.encode()
    except UnicodeError:
        return f"is no text in UTF-8; {fix}"
    if not value:
        return f"is empty; {fix}"
    if len(value) > LONGEST_SECRET:
        return f"is too long; {fix}"
    if form is SecretForm.HEADER and not value.isascii():
        return f"has characters that are not ASCII; {fix}"
    if not value.isprintable():
        return f"has a line break or another control character in it; {fix}"
    return None


def _decoded(raw: str | bytes) -> str:
    return raw if isinstance(raw, str) else raw.decode()
