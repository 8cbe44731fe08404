"""A device's page: what its targets have of it, and why. No script, nothing from elsewhere; it loads itself anew.

What lives here: HTML of the API's own answer, pure. What must not: anything that the API does not say.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from gateway.console import text

#: Seconds after which a browser asks again.
REFRESH = 5

_STYLE = """
:root { color-scheme: light dark; --good: #1a7f37; --bad: #c6282d; --wait: #9a6700; }
@media (prefers-color-scheme: dark) { :root { --good: #4ac26b; --bad: #ff7b72; --wait: #d9a514; } }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 80rem; margin: 2rem auto; padding: 0 1.25rem; }
h1 { font-size: 1.5rem; margin: 0; }
h2 { font-size: 1.05rem; margin: 1.75rem 0 .4rem; }
p { margin: .3rem 0; }
nav { display: flex; gap: 1rem; }
table { border-collapse: collapse; min-width: 40%; }
td:first-child { white-space: nowrap; }
.wide { overflow-x: auto; }
th, td { text-align: left; vertical-align: top; padding: .35rem .9rem .35rem 0; border-bottom: 1px solid #8884; }
th { font-weight: 600; white-space: nowrap; }
td.time { white-space: nowrap; font-variant-numeric: tabular-nums; }
small { opacity: .75; display: block; }
.good { color: var(--good); font-weight: 600; }
.bad { color: var(--bad); font-weight: 600; }
.wait { color: var(--wait); font-weight: 600; }
"""

_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode("ascii")

#: The policy of this page alone: its own style, and nothing else at all.
POLICY = (
    f"default-src 'none'; style-src 'sha256-{_HASH}'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)

_COLOURS = {"trusted": "good", "verified": "good", "pending": "wait", "accepted": "wait", "suspect": "wait"}
_PLAIN = frozenset({"unknown", "lapsed", "retired"})


def device_page(device: Mapping[str, Any], now: float) -> str:
    """The page of one device, of ``device_detail``'s answer; ``now`` in UNIX seconds."""
    name = escape(device["id"])
    why = device["last"]["why"] if device["last"] else "No verdict about it has arrived yet."
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="refresh" content="{REFRESH}">
<title>{name} {escape(device["standing"])}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>{name} {_word(device["standing"])}</h1>
<p>Profile {escape(device["profile"])}: {escape(why)}</p>
<nav>
<a href="/v1/devices/{name}">JSON</a><a href="/v1/devices/{name}/explanation">Explanation</a>
<a href="/v1/devices/{name}/proof">Proof, read now</a><a href="/">All windows</a>
</nav>
<h2>Targets</h2>
{_table(_TARGETS, [_target(each, now) for each in device["targets"]])}
<h2>Device</h2>
{_table((), _facts(device, now))}
<h2>Decision</h2>
{_table((), [(escape(rule),) for rule in device["chain"]])}
<h2>Sources</h2>
{_table(_RECORDS, [_record(source, record, now) for source, record in device["records"].items()])}
<h2>Last verdicts</h2>
{_table(_VERDICTS, [_verdict(row) for row in device["verdicts"]])}
<p><small>As of {text.instant(now)}; the page asks again every {REFRESH} s.</small></p>
</body>
</html>
"""


def _word(word: str) -> str:
    colour = _COLOURS.get(word, "" if word in _PLAIN else "bad")
    return f'<span class="{colour}">{escape(word)}</span>' if colour else escape(word)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Cells are HTML already."""
    lines = ["".join(f"<th>{escape(cell)}</th>" for cell in head)] if head else []
    lines += ["".join(f"<td{_time(cell)}>{cell}</td>" for cell in row) for row in rows]
    if len(lines) == bool(head):
        return "<p>None.</p>"
    return '<div class="wide"><table>' + "".join(f"<tr>{line}</tr>" for line in lines) + "</table></div>"


def _time(cell: str) -> str:
    return ' class="time"' if cell[:2] == "20" and cell[10:11] == " " else ""


_TARGETS = ("Target", "Wanted", "State", "Accepted", "Verified", "Admission ends at the latest", "Why")


def _target(target: Mapping[str, Any], now: float) -> tuple[str, ...]:
    role = target["backend"] + ("" if target["required"] else ", advisory")
    end = target["latest_end"]
    cut = target["state"] == "pending" and target["wanted"] == "deny" and end is not None
    state = _word(target["state"]) + (
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
    return rows


def _moment(unix: float | None, now: float) -> str:
    return "none: nothing is admitted" if unix is None else f"{text.instant(unix)} ({text.until(unix, now)})"


_RECORDS = ("Source", "Standing", "Deadline", "Newest verdict", "Last failure", "Passes owed", "Held")


def _record(source: str, record: Mapping[str, Any], now: float) -> tuple[str, ...]:
    return (
        escape(source),
        _word(record["standing"]),
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
