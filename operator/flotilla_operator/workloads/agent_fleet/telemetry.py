"""Where gateways and workers of a fleet send traces, and the headers with which they do."""

from flotilla_operator.api.agent_fleet import Telemetry
from flotilla_operator.objects.resources import Manifest
from flotilla_operator.workloads.agent_fleet.parts import Wiring
from flotilla_runtime import contract

VOLUME = "flotilla-telemetry"


def telemetry_config(telemetry: Telemetry) -> contract.TelemetryConfig:
    """Return the telemetry configuration of the pods."""
    headers = telemetry.headers_secret_ref
    return contract.TelemetryConfig(
        endpoint=telemetry.otlp_endpoint,
        headers_directory=None if headers is None else contract.TELEMETRY_HEADERS_DIRECTORY,
        content=telemetry.content,
        sample_percent=telemetry.sample_percent,
    )


def headers_volume(telemetry: Telemetry | None, wiring: Wiring) -> tuple[list[Manifest], list[Manifest]]:
    """The volume and the mount of the secret with the headers, in lists; empty where none is sent.

    The secret is optional: a fleet runs without traces rather than not at all.
    """
    if telemetry is None or telemetry.headers_secret_ref is None or wiring.telemetry is None:
        return [], []
    secret = {"secretName": telemetry.headers_secret_ref.name, "optional": True}
    mount = {"name": VOLUME, "mountPath": contract.TELEMETRY_HEADERS_DIRECTORY, "readOnly": True}
    return [{"name": VOLUME, "secret": secret}], [mount]


def receivers(wiring: Wiring) -> tuple[str, ...]:
    """The URL that traces go to, if any."""
    return () if wiring.telemetry is None else (wiring.telemetry.endpoint,)
