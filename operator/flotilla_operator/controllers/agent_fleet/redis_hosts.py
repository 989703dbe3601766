"""The hosts to which the URL of a user's Redis leads, to compare them with where a secret may be sent."""

SENTINEL_PORT = 26_379


def hosts_of(url: bytes) -> tuple[str | None, ...]:
    """The URL of each host, without user, password and path; None stands for what cannot be read.

    A URL of sentinels names several hosts, with commas: `redis://user:password@a:26379,b:26379/0`.
    """
    try:
        text = url.decode().strip()
    except UnicodeDecodeError:
        return (None,)
    _, mark, rest = text.partition("://")
    hosts = rest.partition("/")[0].partition("?")[0].rpartition("@")[2].split(",")
    if not mark:
        return (None,)
    return tuple(f"redis://{_with_port(host.strip())}" for host in hosts)


def _with_port(host: str) -> str:
    port = host.rpartition("]")[2] if host.startswith("[") else host
    return host if ":" in port else f"{host}:{SENTINEL_PORT}"
