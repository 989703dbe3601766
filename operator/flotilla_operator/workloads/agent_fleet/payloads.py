"""The object store of a fleet's large texts as gateways and workers read it.

The credentials are mounted as files and never stand in a variable. New ones are read without a restart.
"""

from urllib.parse import urlsplit

from flotilla_operator.api.fleet_queue import Payloads
from flotilla_operator.objects.resources import Manifest
from flotilla_runtime import contract

VOLUME = "flotilla-payloads"
DEFAULT_REGION = "us-east-1"
ENTRIES = (contract.PAYLOADS_KEY_ENTRY, contract.PAYLOADS_SECRET_ENTRY)


def endpoint_of(payloads: Payloads) -> str:
    """The URL to which requests, and what the credentials sign, are sent."""
    return payloads.endpoint or f"https://s3.{region_of(payloads)}.amazonaws.com"


def region_of(payloads: Payloads) -> str:
    """The region that requests are signed for."""
    return payloads.region or DEFAULT_REGION


def payloads_config(payloads: Payloads | None) -> contract.PayloadsConfig | None:
    """The object store; None if large texts are in Redis."""
    if payloads is None:
        return None
    url = urlsplit(payloads.url)
    return contract.PayloadsConfig(
        endpoint=endpoint_of(payloads),
        bucket=url.netloc,
        prefix=url.path.strip("/"),
        region=region_of(payloads),
        credentials_directory=contract.PAYLOADS_DIRECTORY if payloads.secret_ref is not None else None,
    )


def credentials_volume(payloads: Payloads | None) -> tuple[list[Manifest], list[Manifest]]:
    """The volume and the mount of the credentials, if there are some: these two entries and no other."""
    if payloads is None or payloads.secret_ref is None:
        return [], []
    items = [{"key": entry, "path": entry} for entry in ENTRIES]
    volume = {"name": VOLUME, "secret": {"secretName": payloads.secret_ref.name, "items": items}}
    return [volume], [{"name": VOLUME, "mountPath": contract.PAYLOADS_DIRECTORY, "readOnly": True}]
