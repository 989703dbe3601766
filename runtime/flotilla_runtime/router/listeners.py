"""The listeners of a router: HTTP, or HTTPS for callers and HTTP on a second port for Flotilla's own pods."""

from collections.abc import Iterable

from flotilla_runtime import contract
from flotilla_runtime.contract import ListenFamily, RouterConfig


def listeners(config: RouterConfig) -> Iterable[str]:
    """The listeners that callers use."""
    if config.tls_directory is None:
        return (bind(config, config.port),)
    certificate = certificate_path(config.tls_directory)
    tls = f"ssl crt {certificate} ssl-min-ver TLSv1.2 alpn http/1.1"
    return (f"{bind(config, config.port)} {tls}", bind(config, config.internal_port))


def bind(config: RouterConfig, port: int) -> str:
    """One listener on the configured address families."""
    match config.listen_family:
        case ListenFamily.DUAL:
            return f"    bind :::{port} v4v6"
        case ListenFamily.IPV4:
            return f"    bind 0.0.0.0:{port}"
        case ListenFamily.IPV6:
            return f"    bind :::{port} v6only"


def certificate_path(tls_directory: str) -> str:
    """The path of the certificate file, which is also its name on the admin socket."""
    return f"{tls_directory}/{contract.TLS_FILE}"
