"""The addresses that a tool may not reach: its own machine's, link-local ones, and where clouds keep keys.

They are checked after a name was resolved, and the connection goes to the address that was checked. So no
name can stand for one of them, whatever it stands for the next time. Behind a proxy this holds less: the
proxy resolves the name again, so what it reaches is its own policy. There the check only refuses names and
addresses that are forbidden as this process sees them. An address of version 4 is found within those of
version 6 that carry one.
"""

import asyncio
import errno
import ipaddress
import socket
from typing import Final

from aiohttp.connector import AddrInfoType

# The networks of version 6 whose last 32 bits are an address of version 4.
CARRIERS: Final = tuple(
    map(ipaddress.IPv6Network, ("::/96", "::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b::/96"))
)
LOCAL_NAT64: Final = ipaddress.IPv6Network("64:ff9b:1::/48")
LOCAL_NAT64_PLACES: Final = (6, 7, 8, 11)  # for prefixes of 48, 56, 64 and 96 bits, as RFC 6052 has them
METADATA: Final = frozenset(
    ipaddress.ip_address(address)
    for address in ("100.100.100.200", "192.0.0.192", "168.63.129.16", "fd00:ec2::254", "fd20:ce::254")
)
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class ForbiddenAddressError(OSError):
    """A tool's URL leads to an address that tools may not reach."""

    def __init__(self, address: str) -> None:
        super().__init__(errno.EACCES, f"tools may not connect to the address {address}")


class AddressCheck:
    """Refuses connections to what tools may not reach.

    Only tests and benchmarks allow the own machine, where their tools run.
    """

    def __init__(self, *, allow_loopback: bool = False) -> None:
        self._allow_loopback = allow_loopback

    def is_forbidden(self, text: str) -> bool:
        """Whether tools may not connect to this address."""
        address = ipaddress.ip_address(text.partition("%")[0])
        return any(map(self._is_refused, (address, *_within(address))))

    def socket(self, found: AddrInfoType) -> socket.socket:
        """A socket for an address that a name was resolved to. Raises ForbiddenAddressError."""
        family, kind, protocol, _, address = found
        self._check(str(address[0]))
        return socket.socket(family, kind, protocol)

    async def check_host(self, host: str) -> None:
        """Raise ForbiddenAddressError if a host that a proxy would connect to has a forbidden address here.

        A name that only the proxy knows passes.
        """
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except socket.gaierror:
            return
        for one in found:
            self._check(str(one[4][0]))

    def _check(self, address: str) -> None:
        if self.is_forbidden(address):
            raise ForbiddenAddressError(address)

    def _is_refused(self, address: Address) -> bool:
        if address.is_link_local or address in METADATA:
            return True
        return (address.is_loopback or address.is_unspecified) and not self._allow_loopback


def _within(address: Address) -> tuple[ipaddress.IPv4Address, ...]:
    """The addresses of version 4 that one of version 6 may stand for."""
    if isinstance(address, ipaddress.IPv4Address):
        return ()
    found = [address.sixtofour, *(address.teredo or ())]
    if any(address in carrier for carrier in CARRIERS):
        found.append(ipaddress.IPv4Address(address.packed[12:]))
    if address in LOCAL_NAT64:
        octets = address.packed[:8] + address.packed[9:]  # the one in between belongs to no address
        found += [ipaddress.IPv4Address(octets[place : place + 4]) for place in LOCAL_NAT64_PLACES]
        return tuple(one for one in found if one is not None and not one.is_unspecified)
    return tuple(one for one in found if one is not None)
