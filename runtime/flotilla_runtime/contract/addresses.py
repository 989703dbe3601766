"""The addresses to which nobody is led by what a user names: one list for tools, models and the operator.

They are those of the own machine, link-local ones, and others at which clouds keep keys. An address of
version 4 is found within those of version 6 that carry one. Whoever connects checks the address to which a
name was resolved, and connects to that.
"""

import ipaddress
from typing import Final

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


def is_forbidden(text: str, *, allow_loopback: bool = False) -> bool:
    """Whether nobody may be led to this address."""
    address = ipaddress.ip_address(text.partition("%")[0])
    return any(_is_refused(one, allow_loopback=allow_loopback) for one in (address, *_within(address)))


def _is_refused(address: Address, *, allow_loopback: bool) -> bool:
    if address.is_link_local or address in METADATA:
        return True
    return (address.is_loopback or address.is_unspecified) and not allow_loopback


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
