"""A country's own networks, as CIDRs, and whether an address is in them."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    collapse_addresses,
    ip_address,
    ip_network,
)

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address

WIDEST = {4: 8, 6: 32}
"""The shortest prefix by IP version: a private 10.0.0.0/8, and what a registry allots to one provider in IPv6."""

_DISGUISES = tuple(
    map(IPv6Network, ("::/96", "::ffff:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "2001::/32", "2002::/16"))
)
"""IPv6 ranges whose addresses carry an IPv4 address of anywhere: mapped, translated and tunnelled ones."""


def canonical(text: str) -> str:
    """The network that ``text`` names, as everybody writes it.

    Raises:
        ValueError: it names none, or one that says nothing of where it is.
    """
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        raise ValueError("is not a network: write it as in 10.20.0.0/16 or 2001:db8:20::/48") from None
    if str(network) != text:
        raise ValueError(f"is not written as a network is: {network} is meant")
    if network.is_loopback or network.is_link_local or network.is_multicast:
        raise ValueError("is no place: loopback is always allowed, link-local and multicast addresses never are")
    _narrow(network)
    if network.version == 6 and any(network.overlaps(each) for each in _DISGUISES):
        raise ValueError("holds IPv4 addresses in disguise: name the IPv4 network itself")
    return text


def apart(texts: tuple[str, ...]) -> tuple[str, ...]:
    """The same, unless they make up a network that may not be named whole."""
    for network in merged(texts):
        try:
            _narrow(network)
        except ValueError as error:
            raise ValueError(f"together make up {network}, which {error}") from None
    return texts


def merged(texts: Iterable[str]) -> list[Network]:
    """The networks without overlaps, IPv4 first: no address is in two of them."""
    networks = [ip_network(text) for text in texts]
    fours = [each for each in networks if isinstance(each, IPv4Network)]
    sixes = [each for each in networks if isinstance(each, IPv6Network)]
    return [*collapse_addresses(fours), *collapse_addresses(sixes)]


def within(host: str, texts: Iterable[str]) -> bool:
    """Whether an address is on this machine's loopback or in one of the networks. A name is in none."""
    try:
        address = plain(host)
    except ValueError:
        return False
    return address.is_loopback or any(address in ip_network(text) for text in texts)


def plain(host: str) -> Address:
    """The address that ``host`` writes, an IPv4 one also where a socket of IPv6 shows it mapped.

    Raises:
        ValueError: it is no address.
    """
    address = ip_address(host)
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _narrow(network: Network) -> None:
    widest = WIDEST[network.version]
    if network.prefixlen < widest:
        raise ValueError(
            f"is wider than /{widest}, and so than any country's own network: name the country's parts of it"
        )
