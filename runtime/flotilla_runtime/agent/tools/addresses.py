"""Keeps tools from the addresses that contract/addresses.py lists.

They are checked after a name was resolved, and the connection goes to the address that was checked. So no
name can stand for one of them, whatever it stands for the next time. Behind a proxy this holds less: the
proxy resolves the name again, so what it reaches is its own policy. There the check only refuses names and
addresses that are forbidden as this process sees them.
"""

import asyncio
import errno
import socket

from aiohttp.connector import AddrInfoType

from flotilla_runtime.contract.addresses import is_forbidden


class ForbiddenAddressError(OSError):
    """A tool's URL leads to an address that tools may not reach."""

    def __init__(self, address: str) -> None:
        super().__init__(errno.EACCES, f"tools may not connect to the address {address}")
        self.address = address


class AddressCheck:
    """Refuses connections to what tools may not reach.

    Only tests and benchmarks allow the own machine, where their tools run.
    """

    def __init__(self, *, allow_loopback: bool = False) -> None:
        self._allow_loopback = allow_loopback

    def is_forbidden(self, text: str) -> bool:
        """Whether tools may not connect to this address."""
        return is_forbidden(text, allow_loopback=self._allow_loopback)

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
