"""A guess at whether this machine has an Internet connection, made without sending a packet."""

from __future__ import annotations

import socket

__all__ = ["has_internet_connection"]

_SOMEWHERE = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))
"""Addresses reserved for documentation (RFC 5737, RFC 3849): nobody has them, so the way there is the default route."""


def has_internet_connection() -> bool:
    """Whether there is a route to the Internet, for `ExporterPool(connectivity=...)`.

    Asks the machine's own routing table by connecting a datagram socket, which sends nothing. A route is no proof that
    the other end answers; no route is proof that it does not.
    """
    for family, address in _SOMEWHERE:
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((address, 9))
                return True
        except OSError:
            continue
    return False
