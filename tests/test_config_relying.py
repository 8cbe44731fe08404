"""The relying party's port in the main file: what a good one gives, and every mistake with its place and the
mend."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.app.parts import relying_port, restart
from gateway.config import Endpoint, Relying, RelyingLimits, find_findings, load
from gateway.config.relying import DEVICE_SETTINGS
from gateway.core.policy import Finding
from tests.sediment.recorded import messages
from tests.written import BOOK, RAGATE, edit, error_of, public_pem, put, site

__all__ = ["public_pem", "site"]  # fixtures

INSTEAD = """\
  relying:
    listen: 10.77.1.1:8010
    app_server: feed
    verifier: 10.77.2.2:8100
"""
BESIDE = """\
  relying:
    listen: 10.77.1.1:8010
    mode: beside
    app_server: feed
    relying_party: 127.0.0.1:8002
"""


@pytest.fixture
def port(site: Path) -> Path:
    """A whole configuration with the relying party's port, ours."""
    with_port(site, INSTEAD)
    edit(site / "policies/book.yaml", "path: routed", "path: relayed")
    return site


def with_port(site: Path, text: str) -> None:
    put(site / "ragate.yaml", RAGATE.replace("sources:\n", f"{text}sources:\n", 1))


def relying(site: Path) -> Relying:
    found = load(site / "ragate.yaml").relying
    assert found is not None
    return found


def test_without_the_section_there_is_none(site: Path) -> None:
    assert load(site / "ragate.yaml").relying is None


def test_defaults(port: Path) -> None:
    assert relying(port) == Relying(
        listen=(Endpoint("10.77.1.1", 8010),), app_server="feed", verifier=Endpoint("10.77.2.2", 8100)
    )


def test_everything(port: Path) -> None:
    more = """\
    here: 192.0.2.1:9000
    connections: kept
    clock_ahead: 5s
    device_settings: {mqtt_url: 127.0.0.1, report_interval: 2, sign_enabled: true, fixed_delay: -1}
    limits: {connections: 10, connections_per_peer: 5, frame_seconds: 1, idle_seconds: 1m, onward_seconds: 2}
"""
    with_port(port, INSTEAD + more)
    found = relying(port)
    assert (found.here, found.connections, found.clock_ahead) == (Endpoint("192.0.2.1", 9000), "kept", 5.0)
    assert found.device_settings == (
        b"report_interval 2\nsign_enabled true\nfixed_delay -1\nmqtt_url 127.0.0.1\0"  # in SEDIMENT's order
    )
    assert found.limits == RelyingLimits(10, 5, 1.0, 60.0, 2.0)


def test_settings_for_devices_give_the_recorded_text(port: Path) -> None:
    recorded = next(one for one in messages("pass") if one.kind == "CONFIG" and one.fields["configs"])
    text = str(recorded.fields["configs"])
    lines = dict(line.split(" ") for line in text.rstrip("\0").split("\n"))
    assert list(lines) == list(DEVICE_SETTINGS)
    written = ", ".join(f"{key}: {word}" for key, word in reversed(lines.items()))
    with_port(port, f"{INSTEAD}    device_settings: {{{written}}}\n")
    assert relying(port).device_settings == text.encode()


def test_beside(port: Path) -> None:
    with_port(port, BESIDE)
    found = relying(port)
    assert (found.mode, found.relying_party) == ("beside", Endpoint("127.0.0.1", 8002))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (INSTEAD.replace("    app_server: feed\n", ""), "needs 'app_server'"),
        (INSTEAD.replace("feed", "fead"), "did you mean 'feed'?"),
        (INSTEAD.replace("    verifier: 10.77.2.2:8100\n", ""), "mode instead needs 'verifier'"),
        (INSTEAD.replace("10.77.2.2:8100", "'[fd77::2]:8100'"), "speak IPv4 only"),
        (INSTEAD.replace("10.77.2.2:8100", "verifier.example:8100"), "verifier"),
        (INSTEAD.replace("listen: 10.77.1.1:8010", "listen: 0.0.0.0:8001"), "write here:"),
        (INSTEAD.replace("10.77.1.1:8010", "10.77.1.1:8000"), "is taken: the door for alerts listens on 0.0.0.0"),
        (INSTEAD + "    relying_party: 127.0.0.1:8002\n", "no meaning with mode instead"),
        (INSTEAD + "    mode: besides\n", "did you mean 'beside'?"),
        (INSTEAD + "    conections: kept\n", "did you mean 'connections'?"),
        (INSTEAD + "    connections: maybe\n", "use one of: each, kept"),
        (INSTEAD + "    clock_ahead: 2h\n", "clock_ahead of 7200 seconds is out of range"),
        (INSTEAD + "    limits: {onward_seconds: 30}\n", "onward_seconds of 30 seconds is out of range"),
        (INSTEAD + "    device_settings: {}\n", "no setting is listed"),
        (INSTEAD + "    device_settings: {report_interval: soon}\n", "write a whole number"),
        (INSTEAD + "    device_settings: {sign_enabled: yes}\n", "write true or false"),
        (INSTEAD + "    device_settings: {transport: two words}\n", "write one word"),
        (INSTEAD + "    device_settings: {fwScript: /bin/sh}\n", "'fwScript' is not known"),
        (BESIDE.replace("    relying_party: 127.0.0.1:8002\n", ""), "mode beside needs 'relying_party'"),
        (BESIDE + "    verifier: 10.77.2.2:8100\n", "verifier has no meaning with mode beside"),
        (BESIDE + "    device_settings: {report_interval: 2}\n", "device_settings has no meaning with mode beside"),
        (BESIDE.replace("127.0.0.1:8002", "10.77.1.1:8010"), "where we listen ourselves"),
    ],
)
def test_mistakes_name_their_place_and_the_mend(port: Path, text: str, said: str) -> None:
    with_port(port, text)
    told = error_of(lambda: load(port / "ragate.yaml"))
    assert said in told
    assert told.startswith(f"{port / 'ragate.yaml'}:")


def test_a_udp_service_is_no_app_server(port: Path) -> None:
    put(port / "policies/book.yaml", BOOK.replace("protocol: tcp, path: routed", "protocol: udp, path: routed"))
    assert "DATA comes by TCP" in error_of(lambda: load(port / "ragate.yaml"))


def test_the_book_may_not_gate_the_port_itself(port: Path) -> None:
    put(port / "policies/book.yaml", BOOK.replace("10.77.3.2, port: 8001", "10.77.1.1, port: 8010"))
    assert "the relying party at 10.77.1.1 port 8010/tcp" in error_of(lambda: load(port / "ragate.yaml"))


def of_the_port(site: Path) -> list[Finding]:
    return [one for one in find_findings(load(site / "ragate.yaml")) if one.subject.startswith("doors.relying")]


def test_findings(port: Path) -> None:
    (finding,) = of_the_port(port)
    assert "passed on to relying.example:8000" in finding.what
    edit(port / "ragate.yaml", "    forward_to: relying.example:8000\n", "")
    assert of_the_port(port) == []
    edit(port / "policies/book.yaml", "path: relayed", "path: routed")
    (finding,) = of_the_port(port)
    assert "routed" in finding.what
    assert "path: relayed" in finding.mend


def test_findings_beside(port: Path) -> None:
    with_port(port, BESIDE)
    assert of_the_port(port) == []
    with_port(port, BESIDE.replace("127.0.0.1:8002", "10.77.9.9:8002"))
    edit(port / "ragate.yaml", "    forward_to: relying.example:8000\n", "")
    passing, around = of_the_port(port)
    assert "forward_to: 10.77.9.9:8002" in passing.mend
    assert "10.77.9.9:8002" in around.what


def test_what_devices_are_told_is_the_first_address_unless_written(port: Path) -> None:
    party = relying_port.party(relying(port))
    assert (party.here.address, party.here.port) == (b"10.77.1.1", 8010)
    assert (party.verifier.address, party.verifier.port) == (b"10.77.2.2", 8100)
    assert party.settings is None


def test_a_book_that_moves_the_app_server_needs_a_new_start(port: Path) -> None:
    config = load(port / "ragate.yaml")
    edit(port / "policies/book.yaml", "address: 10.77.3.2", "address: 10.77.3.9")
    moved = load(port / "ragate.yaml").book
    assert restart.needs_restart(config, config.book, config.book) == []
    assert any("carries DATA to feed" in why for why in restart.needs_restart(config, config.book, moved))


# --- without a door for alerts of its own -----------------------------------------------------------------------

ALERT_DOOR = RAGATE[RAGATE.index("  sediment:\n") : RAGATE.index("sources:\n")]


def test_the_port_alone_is_enough(port: Path) -> None:
    edit(port / "ragate.yaml", ALERT_DOOR, "")
    config = load(port / "ragate.yaml")
    assert config.door.listen == ()
    assert config.relying is not None
    assert not [found for found in find_findings(config) if found.severity == "error"]


def test_devices_that_stand_where_the_verifier_does_are_told(port: Path) -> None:
    edit(port / "ragate.yaml", ALERT_DOOR, "")
    edit(port / "ragate.yaml", "peers: [10.77.2.2]", "peers: [10.77.0.0/16]")
    what = [found.what for found in find_findings(load(port / "ragate.yaml"))]
    assert "alerts that come from their addresses are taken for a verifier's" in what


def test_no_door_for_verdicts_at_all(site: Path) -> None:
    edit(site / "ragate.yaml", ALERT_DOOR, "  hook: {users: [0]}\n")
    told = error_of(lambda: load(site / "ragate.yaml"))
    assert "no door takes verdicts: none of sediment, relying, rest and rpc is written" in told
    assert "write doors: {sediment: {listen: 127.0.0.1:8000}}, or one of the others" in told
    assert "no door takes the alerts" not in told


def test_what_cannot_be_read_is_not_told_to_be_missing(site: Path) -> None:
    edit(site / "ragate.yaml", ALERT_DOOR, "  sediment: {listen: nowhere}\n")
    told = error_of(lambda: load(site / "ragate.yaml"))
    assert "nowhere" in told
    assert "no door" not in told
