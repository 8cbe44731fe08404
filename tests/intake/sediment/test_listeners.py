"""Opening listening sockets, and what they say about themselves."""

from __future__ import annotations

import socket

import pytest

from gateway.core.errors import ConfigError
from gateway.intake.sediment import open_listeners
from gateway.intake.sediment.listeners import adopt


def test_both_families_on_one_port() -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 here")
    (four,) = open_listeners(["127.0.0.1:0"])
    port = four.getsockname()[1]
    (six,) = open_listeners([f"[::]:{port}"])
    assert six.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 1
    four.close()
    six.close()


@pytest.mark.parametrize(
    "text", ["8000", "localhost:8000", "127.0.0.1:", "127.0.0.1:http", "[::1:8000x", "1.2.3.4:70000"]
)
def test_an_address_that_cannot_be_used_is_a_config_error(text: str) -> None:
    with pytest.raises(ConfigError, match=r"8000|address or port"):
        open_listeners([text])


def test_a_port_in_use_is_a_config_error_and_leaves_nothing_open() -> None:
    (first,) = open_listeners(["127.0.0.1:0"])
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free = probe.getsockname()[1]
    taken = f"127.0.0.1:{first.getsockname()[1]}"
    with pytest.raises(ConfigError, match="in use"):
        open_listeners([f"127.0.0.1:{free}", taken])
    (again,) = open_listeners([f"127.0.0.1:{free}"])
    again.close()
    first.close()


def test_the_backlog_counts_who_waits() -> None:
    (sock,) = open_listeners(["127.0.0.1:0"])
    where = sock.getsockname()
    listener = adopt(sock)
    assert sock.fileno() == -1
    assert listener.backlog == 0
    waiting = [socket.create_connection(where) for _ in range(3)]
    assert listener.backlog == 3
    for each in waiting:
        each.close()
    listener.close()
