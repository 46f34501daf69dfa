"""The names a server without keys is called by.

A web page whose own name leads to this machine (DNS rebinding) is of one origin with the server as far as its browser
can tell, so CORS keeps nothing from it. Its requests carry that name, which whoever wrote the page owns. Nobody owns an
address, a name without a dot, or one of a domain that is not in the public DNS.
"""

import ipaddress
import socket
from collections.abc import Iterable

from server.errors import ApiError, shown

_PRIVATE = (".localhost", ".local", ".internal", ".home.arpa")


class Hosts:
    """`allowed`: names that are accepted beside those that nobody owns; "*" is all."""

    def __init__(self, allowed: Iterable[str] = ()) -> None:
        names = [_settled(name) for name in allowed if name.strip()]
        self._names = frozenset((*names, _settled(socket.gethostname())))
        self._takes_all = "*" in names

    def check(self, host: str) -> None:
        """A request's Host header; no browser sends an empty one. Raises ApiError (403)."""
        name = _settled(_without_port(host))
        if not (self._takes_all or "." not in name or name in self._names or name.endswith(_PRIVATE)):
            _check_address(name)


def _check_address(name: str) -> None:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        message = (
            f"Host: {shown(name)} is not known as a name of this server, which asks for no key; accepted: addresses, "
            "localhost, names in allowed_hosts, and any name once there are keys"
        )
        raise ApiError(403, message, kind="permission_error", code="host_not_allowed") from None


def _without_port(host: str) -> str:
    """`[::1]:8000` is ::1."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def _settled(name: str) -> str:
    return name.strip().lower().removesuffix(".")
