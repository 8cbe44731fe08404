"""Addresses and default routes through rtnetlink, in a namespace of the test's own."""

from __future__ import annotations

import json
from ipaddress import ip_address, ip_interface

import pytest

from gateway.simulate import plan
from gateway.simulate.hosts import set_addresses, set_default_routes
from tests.netns import in_namespaces, run

pytestmark = pytest.mark.netns


def addresses() -> set[str]:
    # iproute2 lists what its filter leaves out as empty entries.
    (link,) = json.loads(run("ip", "-j", "address", "show", "dev", "b0", "scope", "global"))
    return {f"{one['local']}/{one['prefixlen']}" for one in link["addr_info"] if "local" in one}


def routes() -> set[str]:
    found = json.loads(run("ip", "-j", "route", "show", "default"))
    found += json.loads(run("ip", "-j", "-6", "route", "show", "default"))
    return {one["gateway"] for one in found}


def test_a_host_gets_its_addresses_and_its_way_out_and_again() -> None:
    def body() -> None:
        run("ip", "link", "add", "b0", "type", "bridge")
        run("ip", "link", "set", "b0", "up")
        wanted, gateways = plan.host_of("devices")
        for _ in range(2):  # a container that runs again
            set_addresses("b0", wanted)
            set_default_routes("b0", gateways)
            assert addresses() == {str(each) for each in wanted}
            assert routes() == set(plan.GATEWAY_AT_DEVICES)
        set_default_routes("b0", [ip_address("10.77.1.2")])
        assert routes() == {"10.77.1.2", plan.GATEWAY_AT_DEVICES[1]}

    in_namespaces(body)


def test_what_the_kernel_refuses_is_said() -> None:
    def body() -> None:
        run("ip", "link", "add", "b0", "type", "bridge")
        run("ip", "link", "set", "b0", "up")
        with pytest.raises(OSError, match=r"default route to 192\.0\.2\.1 at b0"):
            set_default_routes("b0", [ip_address("192.0.2.1")])
        with pytest.raises(OSError, match="no interface with this name"):
            set_addresses("nothing", [ip_interface("10.77.1.11/24")])

    in_namespaces(body)
