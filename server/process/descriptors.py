"""File descriptors: a connection is one, and the limit a process begins with is often far below what it may have."""

import resource
from dataclasses import replace

from server.config import ServerConfig

OWN_DESCRIPTORS = 256  # of a server process, beside its connections: sockets, metrics, and connections that are being refused


class TooFewDescriptors(Exception):
    """Not even one connection could be taken; the message says what is needed."""


def fit_connections(settings: ServerConfig) -> tuple[ServerConfig, str]:
    """The settings with as many connections as there can be, and a warning where those are fewer than asked for.

    Raises this process's own limit as far as the connections need; what it starts has the same. Raises TooFewDescriptors.
    """
    needed = settings.max_connections + OWN_DESCRIPTORS
    limit = _raise_limit(needed)
    if limit >= needed:
        return settings, ""
    most = limit - OWN_DESCRIPTORS
    if most < 1:
        raise TooFewDescriptors(
            f"a process may have {limit} file descriptors here; at least {OWN_DESCRIPTORS + 1} are needed: "
            "raise the hard limit (ulimit -Hn, LimitNOFILE)"
        )
    warning = (
        f"max_connections = {settings.max_connections} needs {needed} file descriptors, and a process may have {limit} here: "
        f"a server process takes {most} connections; raise the hard limit (ulimit -Hn, LimitNOFILE) or lower --max-connections"
    )
    return replace(settings, max_connections=most), warning


def _raise_limit(needed: int) -> int:
    """The limit that holds from now on: `needed` and more, unless the hard limit is below that."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return needed
    wanted = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return max(soft, wanted)
