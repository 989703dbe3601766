"""The contract for traces of tasks: where workers and gateways of a fleet send them."""

from typing import Final

from flotilla_runtime.contract.sections import Section

TELEMETRY_HEADERS_DIRECTORY: Final = "/var/run/flotilla/telemetry"


class TelemetryConfig(Section):
    """A receiver of OTLP over HTTP: `/v1/traces` follows on its `endpoint`.

    Each file of `headers_directory`, a mounted secret, is a header. With `content` spans have what tasks,
    models and tools were asked and answered.
    """

    endpoint: str
    headers_directory: str | None = None
    content: bool = False
    sample_percent: float = 100
