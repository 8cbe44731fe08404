"""What is read of KubeArmor's alerts, logs and messages, and what is refused."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.model import Address
from gateway.kubearmor.alerts import (
    ACTS,
    DETAIL_MOST,
    NAME_MOST,
    WHATS,
    AlertRefused,
    RuntimeAlert,
    check,
    read_alert,
    read_log,
    read_message,
    shown,
)
from gateway.kubearmor.pb.events_pb2 import Alert, Log, Message

#: As the daemon said it (its own build, network policy enforcer, a packet over veth).
RECORDED: dict[str, Any] = {
    "Timestamp": 1795311807,
    "UpdatedTime": "2026-11-22T01:43:27.558617Z",
    "HostName": "edge",
    "PolicyName": "60-network-honey",
    "Severity": "8",
    "Tags": "T1",
    "Message": "hello",
    "Type": "MatchedNetworkPolicy",
    "Operation": "NetworkFirewall",
    "Resource": "INGRESS",
    "Data": "SourceIP=10.99.0.2 SourcePort=60730 DestinationIP=10.99.0.1 DestinationPort=2323 Protocol=TCP",
    "Action": "Block",
    "Result": "Permission denied",
    "Enforcer": "NetworkPolicyEnforcer",
    "EventData": {
        "SourcePort": "60730",
        "SourceIP": "10.99.0.2",
        "Protocol": "TCP",
        "DestinationPort": "2323",
        "DestinationIP": "10.99.0.1",
    },
}


def network(**changes: Any) -> bytes:
    return Alert(**{**RECORDED, **changes}).SerializeToString()


def test_an_alert_of_a_network_policy_names_where_the_packet_came_from() -> None:
    assert read_alert(network()) == RuntimeAlert(
        "network",
        "blocked",
        "60-network-honey",
        8,
        Address.parse("10.99.0.2"),
        "edge",
        "ingress TCP from 10.99.0.2:60730 to 10.99.0.1:2323",
    )


def test_what_has_no_map_is_read_from_the_line() -> None:
    assert read_alert(network(EventData={})) == read_alert(network())


def test_an_alert_that_has_lost_its_severity_has_none() -> None:
    assert read_alert(network(Severity="", Tags="", Message="")).severity == 0


def test_what_goes_out_says_nothing_of_whom_it_goes_to() -> None:
    alert = read_alert(network(Resource="EGRESS"))
    assert alert.source is None
    assert alert.detail.startswith("egress TCP from 10.99.0.2")


@pytest.mark.parametrize("address", ["0.0.0.0", "255.255.255.255", "224.0.0.1", "ff02::1", "::ffff:10.0.0.1"])
def test_an_address_that_no_device_can_have_names_nobody(address: str) -> None:
    assert read_alert(network(EventData={**RECORDED["EventData"], "SourceIP": address})).source is None


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"Severity": "11"}, "severity '11'"),
        ({"Severity": "8\n"}, "severity"),
        ({"Severity": "high"}, "severity 'high'"),
        ({"Severity": "٣"}, "severity"),
        ({"Resource": "SIDEWAYS"}, "direction"),
        ({"EventData": {**RECORDED["EventData"], "SourceIP": "10.0.0.300"}}, "SourceIP"),
        ({"EventData": {**RECORDED["EventData"], "SourceIP": "fe80::1%eth0"}}, "SourceIP"),
        ({"EventData": {"SourceIP": "10.0.0.3"}}, "DestinationIP"),
        ({"EventData": {**RECORDED["EventData"], "SourcePort": "99999"}}, "SourcePort"),
        ({"EventData": {**RECORDED["EventData"], "DestinationPort": "-1"}}, "DestinationPort"),
        ({"EventData": {}, "Data": "SourceIP=; rm -rf"}, "SourceIP"),
    ],
)
def test_an_alert_that_the_daemon_does_not_write_is_refused(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(AlertRefused, match=why):
        read_alert(network(**changes))


def test_only_a_packet_has_a_source() -> None:
    """A container's process can choose its name, its arguments and the files it opens, never the type."""
    alert = read_alert(network(Type="MatchedPolicy", ContainerName="app"))
    assert (alert.what, alert.source, alert.subject) == ("other", None, "app")


@pytest.mark.parametrize(
    ("operation", "what"),
    [("Process", "process"), ("File", "file"), ("Network", "socket"), ("Syscall", "syscall"), ("Unheard", "other")],
)
def test_an_alert_about_a_process(operation: str, what: str) -> None:
    alert = Alert(
        Type="MatchedPolicy",
        HostName="edge",
        ContainerName="app\x1b[2J",
        PolicyName="40-container-app-0a1b2c3d",
        Severity="10",
        Operation=operation,
        Resource="/srv/feeds/\n" + "x" * 5_000,
        ProcessName="/usr/bin/python3",
        Action="Audit (Block)",
    )
    read = read_alert(alert.SerializeToString())
    assert (read.what, read.act, read.severity) == (what, "audited", 10)
    assert read.subject == "app\\x1b[2J"
    assert read.detail.startswith(f"{operation} by /usr/bin/python3: /srv/feeds/\\x0a")
    assert len(read.detail) <= DETAIL_MOST


def test_the_daemon_says_that_it_drops() -> None:
    said = Alert(Type="SystemEvent", ContainerName="app", MaxAlertsPerSec=10, DroppingAlertsInterval=30)
    read = read_alert(said.SerializeToString())
    assert (read.what, read.act, read.source) == ("throttled", "told", None)
    assert "more than 10 alerts a second" in read.detail
    assert "for 30 s" in read.detail


def test_a_log_is_an_alert_when_something_was_denied() -> None:
    log = Log(Type="HostLog", HostName="edge", Operation="File", Resource="/etc/x", Result="Passed", Source="cat")
    assert read_log(log.SerializeToString()) is None
    log.Result = "Permission denied"
    assert read_log(log.SerializeToString()) == RuntimeAlert(
        "denial", "blocked", "", 0, None, "edge", "File by cat: /etc/x"
    )


def test_the_daemons_own_words_from_a_warning_on() -> None:
    message = Message(HostName="edge", Level="DEBUG", Message="Pushing Telemetry without source")
    assert read_message(message.SerializeToString()) is None
    message.Level, message.Message = "ERROR", "nft apply error\x00"
    read = read_message(message.SerializeToString())
    assert read is not None
    assert (read.what, read.act, read.detail) == ("daemon", "told", "ERROR: nft apply error\\x00")


READERS = (read_alert, read_log, read_message)


def kept(alert: RuntimeAlert | None) -> None:
    """The promises of every reader, and that what a host has read the gateway takes over a link."""
    if alert is None:
        return
    assert alert.what in WHATS
    assert alert.act in ACTS
    assert len(alert.policy) <= NAME_MOST
    assert len(alert.detail) <= DETAIL_MOST
    assert check(alert) is alert


@given(st.binary(max_size=300), st.sampled_from(READERS))
def test_any_bytes_are_read_or_refused(data: bytes, reader: Any) -> None:
    with suppress(AlertRefused):
        kept(reader(data))


@given(
    st.fixed_dictionaries(
        {
            name: st.text(max_size=300) | st.just(RECORDED[name])
            for name in ("Type", "Operation", "Resource", "Data", "Action", "Severity", "PolicyName", "HostName")
        }
    ),
    st.dictionaries(st.sampled_from([*RECORDED["EventData"], "x"]), st.text(max_size=80) | st.just("10.0.0.1")),
)
def test_any_alert_is_read_or_refused(fields: dict[str, Any], event_data: dict[str, str]) -> None:
    with suppress(AlertRefused):
        kept(read_alert(Alert(**fields, EventData=event_data).SerializeToString()))


@given(st.text(max_size=100), st.integers(4, 60))
def test_shown_text_is_printable_and_bounded(text: str, most: int) -> None:
    made = shown(text, most)
    assert len(made) <= most
    assert made.isascii()
    assert made.isprintable()
    if text.isascii() and text.isprintable() and "\\" not in text and len(text) <= most:
        assert made == text


GOOD = RuntimeAlert("network", "blocked", "p", 8, Address.parse("10.0.0.1"), "edge", "x")


@pytest.mark.parametrize(
    "changes",
    [
        {"what": "nonsense"},
        {"act": "nonsense"},
        {"severity": 11},
        {"severity": -1},
        {"policy": "x" * (NAME_MOST + 1)},
        {"detail": "a\nb"},
        {"subject": "é"},
        {"source": Address(b"1234567", 56)},
        {"source": Address(bytes(16), 64)},
        {"what": "file"},
    ],
)
def test_over_a_link_nothing_comes_that_no_reader_makes(changes: dict[str, Any]) -> None:
    assert check(GOOD) is GOOD
    with pytest.raises(AlertRefused):
        check(GOOD._replace(**changes))
