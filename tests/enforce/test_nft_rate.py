"""A profile's rate of new connections, judged by real flows: client - gateway - server in network namespaces."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.core.errors import ConfigError
from gateway.core.model import Address, Applied, Change, ChangeKind
from gateway.enforce.nft import Baseline, ConnectionRate, Endpoint, GatedService, NftBackend, render_baseline_file
from gateway.enforce.nft.libnftables import run_commands
from gateway.enforce.nft.ruleset import fingerprint
from tests.netns import Echo, Flow, KernelClock, Site, blocked, in_namespaces, passes

FEED, STATUS = 8001, 8002
SERVER4, SERVER6 = "10.77.3.2", "fd77:3::2"
DEVICE4, OTHER4, DEVICE6, DEVICE_NET = "10.77.1.11", "10.77.1.12", "fd77:1::11", "fd77:1:0:5::/64"
KNOWN = [Address.parse(text) for text in (DEVICE4, OTHER4, DEVICE6, DEVICE_NET)]
CLOCK = KernelClock()
BOTH = frozenset({"admitted", "probation"})
#: Filled again by one in 20 minutes: no test is as slow as that.
THREE = ConnectionRate(3, 3_600)


def services() -> tuple[GatedService, ...]:
    return tuple(
        GatedService(Endpoint(Address.parse(address), port, protocol), BOTH)
        for address in (SERVER4, SERVER6)
        for port in (FEED, STATUS)
        for protocol in ("tcp", "udp")
    )


PLAIN = Baseline(services(), inventory_size=len(KNOWN))
SLOW = replace(PLAIN, rates={"probation": THREE})


async def admit(backend: NftBackend, address: str, profile: str) -> None:
    change = Change(ChangeKind.ADMIT, Address.parse(address), profile, CLOCK.now().boot + 60)
    for outcome in await backend.apply([change]):
        assert outcome.state is Applied.VERIFIED, outcome


@pytest.mark.netns
@pytest.mark.parametrize("kind", ["tcp", "udp"])
@pytest.mark.parametrize(
    ("device", "sources", "server"),
    [
        (DEVICE4, [DEVICE4], SERVER4),
        (DEVICE6, [DEVICE6], SERVER6),
        (DEVICE_NET, ["fd77:1:0:5::1", "fd77:1:0:5::2"], SERVER6),
    ],
)
def test_new_connections_end_at_the_rate_and_standing_ones_go_on(
    kind: str, device: str, sources: list[str], server: str
) -> None:
    async def body() -> None:
        site = Site()
        backend = NftBackend(SLOW, KNOWN, CLOCK)
        await backend.start()
        try:
            Echo(site.server, server, FEED)
            Echo(site.server, server, STATUS)
            await admit(backend, device, "probation")
            first = Flow(kind, site.client, (sources[0], 0), (server, FEED))
            assert first.opens()
            assert first.echoes()
            assert passes(kind, site.client, sources[-1], (server, STATUS))  # all services share the bucket
            assert passes(kind, site.client, sources[0], (server, FEED))
            for source in sources:  # and all addresses of a /64
                assert blocked(kind, site.client, source, (server, FEED))
            assert all(first.echoes() for _ in range(10))
            await admit(backend, device, "admitted")  # no rate there
            assert all(passes(kind, site.client, sources[0], (server, FEED)) for _ in range(5))
        finally:
            await backend.stop()

    in_namespaces(body)


@pytest.mark.netns
def test_each_device_has_a_bucket_of_its_own_and_a_cut_outranks_it() -> None:
    async def body() -> None:
        site = Site()
        backend = NftBackend(SLOW, KNOWN, CLOCK)
        await backend.start()
        try:
            Echo(site.server, SERVER4, FEED)
            for device in (DEVICE4, OTHER4):
                await admit(backend, device, "probation")
            assert all(passes("tcp", site.client, DEVICE4, (SERVER4, FEED)) for _ in range(3))
            assert blocked("tcp", site.client, DEVICE4, (SERVER4, FEED))
            flow = Flow("tcp", site.client, (OTHER4, 0), (SERVER4, FEED))
            assert flow.opens()
            assert flow.echoes()
            await backend.cut([Change(ChangeKind.CUT, Address.parse(OTHER4))])
            assert not flow.echoes(0.15)
        finally:
            await backend.stop()

    in_namespaces(body)


@pytest.mark.netns
def test_a_bucket_fills_again() -> None:
    async def body() -> None:
        site = Site()
        backend = NftBackend(replace(PLAIN, rates={"probation": ConnectionRate(2, 1)}), KNOWN, CLOCK)
        await backend.start()
        try:
            Echo(site.server, SERVER4, FEED)
            await admit(backend, DEVICE4, "probation")
            # A connection that is refused tries again by itself: at two a second eight come about in the end.
            assert all(passes("tcp", site.client, DEVICE4, (SERVER4, FEED)) for _ in range(8))
        finally:
            await backend.stop()

    in_namespaces(body)


@pytest.mark.netns
def test_a_standing_table_is_adopted_whole_and_mended_to_another_rate() -> None:
    async def body() -> None:
        site = Site()
        Echo(site.server, SERVER4, FEED)
        for baseline, adopted in ((SLOW, False), (SLOW, True), (PLAIN, True), (SLOW, True)):
            backend = NftBackend(baseline, KNOWN, CLOCK)
            assert await backend.start() is adopted
            await admit(backend, DEVICE4, "probation")
            await backend.stop()
            text = run_commands("list table inet ragate")
            assert ("rate.probation4" in text) is bool(baseline.rates)
            assert (" limit rate over 3/hour burst 3 packets " in text) is bool(baseline.rates)
        quick = replace(PLAIN, rates={"probation": ConnectionRate(50, 1), "admitted": ConnectionRate(1, 60)})
        backend = NftBackend(quick, KNOWN, CLOCK)
        assert await backend.start() is True
        text = run_commands("list table inet ragate")
        assert "limit rate over 50/second burst 50 packets" in text
        assert "limit rate over 1/minute burst 1 packets" in text
        assert all(passes("tcp", site.client, DEVICE4, (SERVER4, FEED)) for _ in range(4))
        run_commands(render_baseline_file(quick, KNOWN))  # beside a running gateway
        await backend.stop()

    in_namespaces(body)


def test_rates_belong_to_the_fingerprint() -> None:
    marks = {fingerprint(replace(PLAIN, rates=rates)) for rates in ({}, {"probation": THREE}, {"admitted": THREE})}
    assert len(marks) == 3


@pytest.mark.parametrize(
    ("profile", "rate"),
    [("nobody", THREE), ("probation", ConnectionRate(0, 1)), ("probation", ConnectionRate(1, 2))],
)
def test_rates_that_are_none(profile: str, rate: ConnectionRate) -> None:
    with pytest.raises(ConfigError, match="rate"):
        replace(PLAIN, rates={profile: rate})


def test_the_largest_rate_fits_the_kernels_count() -> None:
    most = replace(PLAIN, rates={"probation": ConnectionRate(1_000_000, 3_600)})
    # tokens are nanoseconds x burst in 64 bits (net/netfilter/nft_limit.c)
    assert 3_600 * 10**9 * most.rates["probation"].number < 1 << 64
    with pytest.raises(ConfigError):
        replace(PLAIN, rates={"probation": ConnectionRate(1_000_001, 3_600)})
