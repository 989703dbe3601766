"""Reads the router's certificate from the mounted secret, to give a renewed one to HAProxy.

HAProxy reads both files when it starts. Later a renewed certificate is set over the admin socket in a
transaction: new connections get the new certificate, and open connections are not affected.
"""

import hashlib
import ssl
from dataclasses import dataclass, field
from pathlib import Path

from flotilla_runtime import contract

END = "-----END CERTIFICATE-----"


class CertificateUnreadable(Exception):  # noqa: N818 (it is named by what happened)
    """The files do not exist or hold no certificate; the message never contains the key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """A certificate with its chain and key, and the leaf's fingerprint in HAProxy's format."""

    fingerprint: str
    pem: str = field(repr=False)


def read_certificate(directory: Path) -> Certificate:
    """The certificate and key that the files hold now."""
    try:
        chain = directory.joinpath(contract.TLS_FILE).read_text("ascii").strip()
        key = directory.joinpath(contract.TLS_KEY_FILE).read_text("ascii").strip()
        leaf = ssl.PEM_cert_to_DER_cert(chain[: chain.index(END) + len(END)])
    except (OSError, ValueError) as error:
        raise CertificateUnreadable(
            f"the certificate in {directory} cannot be read ({type(error).__name__}); check the Secret of "
            "spec.router.tls"
        ) from error
    digest = hashlib.sha1(leaf, usedforsecurity=False).hexdigest().upper()
    lines = (line for line in f"{chain}\n{key}".splitlines() if line.strip())  # an empty line ends a payload
    return Certificate(fingerprint=digest, pem="\n".join(lines))
