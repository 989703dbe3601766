"""The addresses that a tool may not reach: link-local ones and others where clouds keep credentials.

They are checked after a name was resolved, and the connection goes to the address that was checked, so no
name can stand for one of them. An address of version 4 is found within those of version 6 that carry one.
"""

import asyncio
import errno
import ipaddress
import socket
from typing import Final

from aiohttp.connector import AddrInfoType

NAT64: Final = ipaddress.ip_network("64:ff9b::/96")
METADATA: Final = frozenset(
    ipaddress.ip_address(address)
    for address in ("100.100.100.200", "192.0.0.192", "168.63.129.16", "fd00:ec2::254", "fd20:ce::254")
)
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class ForbiddenAddressError(OSError):
    """A tool's URL leads to an address that tools may not reach."""

    def __init__(self, address: str) -> None:
        super().__init__(errno.EACCES, f"tools may not connect to the address {address}")
        self.address = address


def is_forbidden(text: str) -> bool:
    """Whether tools may not connect to this address."""
    address = ipaddress.ip_address(text.partition("%")[0])
    return any(one.is_link_local or one in METADATA for one in (address, *_within(address)))


def _within(address: Address) -> tuple[ipaddress.IPv4Address, ...]:
    """The addresses of version 4 that one of version 6 stands for."""
    if isinstance(address, ipaddress.IPv4Address):
        return ()
    found = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    if address in NAT64 or int(address) < 2**32:
        found.append(ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF))
    return tuple(one for one in found if one is not None)


def checked_socket(found: AddrInfoType) -> socket.socket:
    """A socket for an address that a name was resolved to. Raises ForbiddenAddressError."""
    family, kind, protocol, _, address = found
    if is_forbidden(str(address[0])):
        raise ForbiddenAddressError(str(address[0]))
    return socket.socket(family, kind, protocol)


async def check_host(host: str) -> None:
    """Raise ForbiddenAddressError if a host that a proxy would connect to has a forbidden address.

    A name that only the proxy knows passes.
    """
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except socket.gaierror:
        return
    for one in found:
        if is_forbidden(str(one[4][0])):
            raise ForbiddenAddressError(str(one[4][0]))
