"""A certificate and its key, as a secret of type kubernetes.io/tls is mounted."""

import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from flotilla_runtime import contract
from leaks.planted import planted

NAME = "llama-model.default.svc"


def write_pair(
    directory: Path, *, name: str = NAME, key_of_another: bool = False, password: bool = False
) -> str:
    """A certificate of its own making and its key, as the secret is mounted; the certificate as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    start = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=36500))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    written = ec.generate_private_key(ec.SECP256R1()) if key_of_another else key
    pem = certificate.public_bytes(serialization.Encoding.PEM).decode()
    (directory / contract.TLS_FILE).write_text(pem)
    (directory / contract.TLS_KEY_FILE).write_bytes(
        written.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(planted("pair").encode())
            if password
            else serialization.NoEncryption(),
        )
    )
    return pem
