"""A device's page: what its targets have of it, and why.

What lives here: HTML of the API's own answer, pure. What must not: anything that the API does not say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from gateway.console import html, text


def device_page(device: Mapping[str, Any], now: float) -> str:
    """The page of one device, of ``device_detail``'s answer; ``now`` in UNIX seconds."""
    name = escape(device["id"])
    why = device["last"]["why"] if device["last"] else "No verdict about it has arrived yet."
    body = f"""<h1>{name} {html.word(device["standing"])}</h1>
<p>Profile {escape(device["profile"])}: {escape(why)}</p>
<nav>
<a href="/v1/devices/{name}">JSON</a><a href="/v1/devices/{name}/explanation">Explanation</a>
<a href="/v1/devices/{name}/proof">Proof, read now</a><a href="/devices">All devices</a><a href="/">All windows</a>
</nav>
<h2>Targets</h2>
{html.table(_TARGETS, [_target(each, now) for each in device["targets"]])}
<h2>Device</h2>
{html.table((), _facts(device, now))}
<h2>Decision</h2>
{html.table((), [(escape(rule),) for rule in device["chain"]])}
<h2>Sources</h2>
{html.table(_RECORDS, [_record(source, record, now) for source, record in device["records"].items()])}
<h2>Last verdicts</h2>
{html.table(_VERDICTS, [_verdict(row) for row in device["verdicts"]])}
<p><small>As of {text.instant(now)}; the page asks again every {html.REFRESH} s.</small></p>"""
    return html.document(f"{device['id']} {device['standing']}", body)


_TARGETS = ("Target", "Wanted", "State", "Accepted", "Verified", "Admission ends at the latest", "Why")


def _target(target: Mapping[str, Any], now: float) -> tuple[str, ...]:
    role = target["backend"] + ("" if target["required"] else ", advisory")
    end = target["latest_end"]
    cut = target["state"] == "pending" and target["wanted"] == "deny" and end is not None
    state = html.word(target["state"]) + (
        f"<small>a cut that waits: at most {text.until(end, now)}</small>" if cut else ""
    )
    read = target["verified_at"]
    how = f"{text.until(read, now)}, {target['verified_how']}" if read else ""
    return (
        f"{escape(target['target'])}<small>{escape(role)}</small>",
        escape(target["wanted"]),
        state,
        _took(target["accepted_ms"]),
        f"{_took(target['verified_ms'])}<small>{escape(how or 'not read back yet')}</small>",
        "none" if end is None else f"{text.instant(end)}<small>{text.until(end, now)}</small>",
        escape(target["detail"]) or "-",
    )


def _took(milliseconds: float | None) -> str:
    return "-" if milliseconds is None else f"{milliseconds:.1f} ms after the verdict"


def _facts(device: Mapping[str, Any], now: float) -> Sequence[tuple[str, str]]:
    override = device["override"]
    rows = [
        ("Deadline", _moment(device["deadline"], now)),
        ("Lease", _moment(device["lease_until"], now)),
        ("Addresses", escape(" ".join(device["addresses"]) or "none")),
        ("Anchor", escape(device["anchor"])),
        ("Labels", escape(", ".join(f"{key}={value}" for key, value in device["labels"].items()) or "none")),
    ]
    if override is not None:
        said = f"{override['profile']} until {text.instant(override['until'])}, by {override['actor']}: "
        rows.append(("Override", escape(said + override["reason"])))
    if held := text.held(device["held"], now):
        rows.append(("Held", escape(held)))
    return rows


def _moment(unix: float | None, now: float) -> str:
    return "none: nothing is admitted" if unix is None else f"{text.instant(unix)} ({text.until(unix, now)})"


_RECORDS = ("Source", "Standing", "Deadline", "Newest verdict", "Last failure", "Passes owed", "Held")


def _record(source: str, record: Mapping[str, Any], now: float) -> tuple[str, ...]:
    return (
        escape(source),
        html.word(record["standing"]),
        text.until(record["deadline"], now),
        text.instant(record["newest"]) if record["newest"] else "-",
        text.instant(record["epoch"]) if record["epoch"] else "-",
        str(record["debt"]),
        "yes" if record["hold"] else "no",
    )


_VERDICTS = ("At", "Event", "Effect", "Standing", "Verified at each target", "Why")


def _verdict(row: Mapping[str, Any]) -> tuple[str, ...]:
    before, after = row.get("before"), row.get("after")
    moved = f"{before} → {after}" if before and before != after else str(after or "-")
    took = ", ".join(f"{each['target']} {_brief(each)}" for each in row.get("outcomes") or ())
    return (
        text.instant(row["at"]),
        escape(str(row.get("event") or row.get("refusal") or row.get("kind") or "-")),
        escape(str(row.get("effect") or "-")),
        escape(moved),
        escape(took or "-"),
        escape(str(row.get("why") or row.get("detail") or "-")),
    )


def _brief(outcome: Mapping[str, Any]) -> str:
    took = outcome["verified_ms"]
    return outcome["state"] if took is None else f"{took:.1f} ms"
