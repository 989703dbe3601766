"""The certificate that the gateway serves, read again and again from the mounted secret.

Each new pair is loaded into a context of its own, and handshakes get the newest context that could be loaded.
So a pair that cannot be used changes nothing, and connections that are open keep their certificate.
"""

import asyncio
import ssl
from pathlib import Path
from typing import Final

import structlog

from flotilla_runtime import contract

READ_EVERY_SECONDS: Final = 1.0

log = structlog.get_logger(__name__)


class Certificate:
    """Gives each handshake on `context` the newest good pair, and refuses it while there is none.

    `problem` says why the pair that the files hold now cannot be used. It never contains the key.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._pair: tuple[bytes, bytes] | None = None
        self._newest: ssl.SSLContext | None = None
        self.problem: str | None = None
        self.context: Final = _empty_context()
        self.context.sni_callback = self._choose  # called for each handshake, also without a server name

    @property
    def usable(self) -> bool:
        """Whether any pair was good so far."""
        return self._newest is not None

    async def follow(self, interval_seconds: float = READ_EVERY_SECONDS) -> None:
        """Read the files again and again, forever: without this, a certificate would expire."""
        while True:
            try:
                await asyncio.to_thread(self.refresh)
            except Exception:
                log.exception("certificate_not_read", directory=str(self._directory))
            await asyncio.sleep(interval_seconds)

    def refresh(self) -> None:
        """Load the pair that the files hold now, if it has changed or could not be read before."""
        chain, key = self._directory / contract.TLS_FILE, self._directory / contract.TLS_KEY_FILE
        try:
            pair = chain.read_bytes(), key.read_bytes()
            if pair == self._pair:
                return
            newest = _empty_context()
            newest.load_cert_chain(chain, key, password=_no_password)
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            self._report(error)
            return
        log.info("certificate_loaded", directory=str(self._directory))
        self._pair, self._newest, self.problem = pair, newest, None

    def _report(self, error: Exception) -> None:
        why = getattr(error, "reason", None) or type(error).__name__
        problem = (
            f"the certificate and key in the Secret of spec.gateway.tls cannot be used ({why}); put a PEM "
            "certificate into its entry tls.crt and the key of that certificate, without a password, into "
            "tls.key"
        )
        if problem != self.problem:
            log.warning("certificate_refused", problem=problem)
        self._pair, self.problem = None, problem

    def _choose(self, handshake: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> int | None:
        if self._newest is None:
            return ssl.ALERT_DESCRIPTION_INTERNAL_ERROR
        handshake.context = self._newest
        return None


def _empty_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _no_password() -> str:
    """OpenSSL would otherwise ask the terminal for it."""
    raise ValueError("the key has a password")
