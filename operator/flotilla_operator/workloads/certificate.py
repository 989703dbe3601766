"""A certificate of the user's and its key, mounted for HTTPS."""

from flotilla_operator.api.parts import Tls
from flotilla_operator.objects.resources import Manifest
from flotilla_runtime import contract

TLS_DIRECTORY = "/var/run/flotilla/tls"


def certificate_volume(tls: Tls) -> tuple[Manifest, Manifest]:
    """The volume and its mount. The kubelet updates the files when the certificate is renewed."""
    items = [
        {"key": contract.TLS_ENTRY, "path": contract.TLS_FILE},
        {"key": contract.TLS_KEY_ENTRY, "path": contract.TLS_KEY_FILE},
    ]
    volume = {"name": "tls", "secret": {"secretName": tls.secret_ref.name, "items": items}}
    return volume, {"name": "tls", "mountPath": TLS_DIRECTORY, "readOnly": True}
