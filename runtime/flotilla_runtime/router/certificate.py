"""The router's certificate as the mounted secret holds it → what HAProxy is told when it was renewed.

HAProxy reads both files when it starts. Afterwards a renewed pair is handed over on the admin socket as a
transaction: new connections get the new certificate, and those that are open are left alone.
"""

import hashlib
import ssl
from dataclasses import dataclass, field
from pathlib import Path

from flotilla_runtime import contract

END = "-----END CERTIFICATE-----"


class CertificateUnreadable(Exception):  # noqa: N818 (it is named by what happened)
    """The files are not there, or hold no certificate; the message holds nothing of the key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """A certificate with its chain and key; the fingerprint is the leaf's, as HAProxy shows it."""

    fingerprint: str
    pem: str = field(repr=False)


def read_certificate(directory: Path) -> Certificate:
    """The pair of now."""
    try:
        chain = directory.joinpath(contract.TLS_FILE).read_text("ascii").strip()
        key = directory.joinpath(contract.TLS_KEY_FILE).read_text("ascii").strip()
        leaf = ssl.PEM_cert_to_DER_cert(chain[: chain.index(END) + len(END)])
    except (OSError, ValueError) as error:
        raise CertificateUnreadable(f"{directory}: {type(error).__name__}") from error
    digest = hashlib.sha1(leaf, usedforsecurity=False).hexdigest().upper()
    lines = (line for line in f"{chain}\n{key}".splitlines() if line.strip())  # an empty line ends a payload
    return Certificate(fingerprint=digest, pem="\n".join(lines))


def fingerprint_shown(reply: str) -> str | None:
    """The fingerprint in HAProxy's answer to `show ssl cert`."""
    for line in reply.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "SHA1 FingerPrint":
            return value.strip()
    return None
