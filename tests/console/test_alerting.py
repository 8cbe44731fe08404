"""Metrics of runtime alerts: what was counted, by closed lists of labels; a silent host has no streams."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest

from gateway.console.alerting import AlertCollector, Listened


def exposed(collector: AlertCollector) -> list[str]:
    registry = CollectorRegistry()
    registry.register(collector)
    return [line for line in generate_latest(registry).decode().splitlines() if not line.startswith("#")]


def test_before_it_is_wired_nothing_is_exposed() -> None:
    assert exposed(AlertCollector()) == []


def test_what_was_counted_is_exposed_and_a_silent_host_has_no_streams() -> None:
    collector = AlertCollector()
    here = Listened({"alerts"}, {"alerts": 4, "logs": 0}, {"source": 2}, {"alerts": 1}, {"alerts": 3})
    silent = Listened((), {}, {}, {}, {})
    counts = {("gateway", "network", "blocked"): 4}
    collector.wire({"gateway": lambda: here, "app": lambda: silent}, lambda: counts, lambda: {"gateway": "why"})
    assert exposed(collector) == [
        'ragate_alerts_total{act="blocked",target="gateway",what="network"} 4.0',
        'ragate_alert_stream_up{stream="alerts",target="gateway"} 1.0',
        'ragate_alert_stream_up{stream="logs",target="gateway"} 0.0',
        'ragate_alert_stream_messages_total{stream="alerts",target="gateway"} 4.0',
        'ragate_alert_stream_messages_total{stream="logs",target="gateway"} 0.0',
        'ragate_alert_stream_breaks_total{stream="alerts",target="gateway"} 1.0',
        'ragate_alert_stream_breaks_total{stream="logs",target="gateway"} 0.0',
        'ragate_alert_stream_pauses_total{stream="alerts",target="gateway"} 3.0',
        'ragate_alerts_lost_total{reason="source",target="gateway"} 2.0',
        'ragate_alert_alarm{target="gateway"} 1.0',
        'ragate_alert_alarm{target="app"} 0.0',
    ]
