"""The listening TCP sockets: bound once by the supervisor, handed to the server processes."""

import ipaddress
import socket
import sys

# Bytes that the kernel holds for a client beyond what is under way to it. By itself it holds megabytes for each client that
# does not read, and it is long before such a client is noticed.
MAX_UNSENT = 32768


def bind_sockets(host: str, port: int, count: int) -> list[socket.socket]:
    """One socket a server process, all on one port; port 0 picks a free one.

    On Linux the kernel spreads connections over them (SO_REUSEPORT); elsewhere all accept from one socket.
    Raises OSError if the address is taken or there is none of that name.
    """
    family, address = _resolve(host, port)
    probe = _bind(family, address, reuse_port=False)
    if count == 1 or not sys.platform.startswith("linux"):
        return [probe] * count
    # The probe shows that nobody else has the port: a second server with SO_REUSEPORT would take connections.
    address = probe.getsockname()
    probe.close()
    return [_bind(family, address, reuse_port=True) for _ in range(count)]


def url_of(sock: socket.socket, is_tls: bool = False) -> str:
    """Where a client on this machine reaches the socket."""
    address: tuple[str, int] = sock.getsockname()[:2]
    host, port = address
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    scheme = "https" if is_tls else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def is_loopback(sock: socket.socket) -> bool:
    """Whether only this machine reaches the socket."""
    return ipaddress.ip_address(sock.getsockname()[0].partition("%")[0]).is_loopback


def _resolve(host: str, port: int) -> tuple[int, tuple[str, int]]:
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except UnicodeError as error:  # a part of the name is empty or too long
        raise OSError(f"not a host's name: {error}") from error
    family, _, _, _, address = found[0]
    return family, address  # type: ignore[return-value]


def _bind(family: int, address: tuple[str, int], reuse_port: bool) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):  # connections have it from here
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, MAX_UNSENT)
        sock.bind(address)
    except OSError:
        sock.close()
        raise
    return sock
