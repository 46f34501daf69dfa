"""Addresses that cannot be listened on."""

import pytest

from server.process.listen import bind_sockets


@pytest.mark.parametrize("host", ["a..b", "x" * 70, "192.0.2.1"])
def test_no_host_of_this_machine(host: str) -> None:
    with pytest.raises(OSError, match="not a host's name|[Cc]annot assign|[Cc]an't assign"):
        bind_sockets(host, 0, 1)
