"""What an operator reads at a terminal, made from the API's answers. Pure: values and the time in, text out."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

_GAP = "  "

#: Columns of free text in a table; the rest is in ``ragate explain``.
_WHY_MOST = 60


def table(head: Sequence[str], rows: Iterable[Sequence[str]], paint: Callable[[str], str] = str) -> Iterator[str]:
    """Lines of aligned columns; the last column is not padded. ``paint`` may colour the word of a cell."""
    lines = [tuple(head), *(tuple(clean(cell) for cell in row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    for line in lines:
        cells = [paint(cell) + " " * (width - len(cell)) for cell, width in zip(line, widths, strict=True)]
        yield _GAP.join(cells).rstrip()


def clean(text: str) -> str:
    """Text that cannot move the cursor or forge a line: unprintable characters are shown by their code."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def span(seconds: float) -> str:
    """A duration in its two largest units: ``14m 2s``, ``3h 0m``, ``0.4s``."""
    if seconds < 10:
        return f"{seconds:.1f}s"
    whole = int(seconds)
    for size, name, part, part_name in ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "m"), (60, "m", 1, "s")):
        if whole >= size:
            return f"{whole // size}{name} {whole % size // part}{part_name}"
    return f"{whole}s"


def instant(unix: float) -> str:
    """UNIX seconds as ``2026-11-21 19:30:00Z``."""
    return dt.datetime.fromtimestamp(unix, dt.UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def instant_ms(unix: float) -> str:
    """The same with milliseconds."""
    return dt.datetime.fromtimestamp(unix, dt.UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] + "Z"


def until(unix: float | None, now: float) -> str:
    """How long until an instant, ``-`` without one."""
    if unix is None:
        return "-"
    return span(unix - now) if unix > now else f"{span(now - unix)} ago"


def milliseconds(value: float | None) -> str:
    """Milliseconds with one decimal, ``-`` without a value."""
    return "-" if value is None else f"{value:.1f}"


DEVICE_HEAD = ("DEVICE", "STANDING", "PROFILE", "LEFT", "VERIFIED MS", "TARGETS", "ADDRESSES", "WHY")


def device_line(device: Mapping[str, Any], now: float) -> tuple[str, ...]:
    """One line of the device table, as ``DEVICE_HEAD`` names its columns."""
    why = device["last"]["why"] if device["last"] else _before_the_start(device)
    if device["override"] is not None:
        word = device["override"]
        why = f"override to {word['profile']}, {until(word['until'], now)} left: {word['reason']}"
    if device["held"] is not None:
        why = f"held by {device['held']['actor']}: {device['held']['reason']}"
    return (
        device["id"],
        device["standing"],
        device["profile"],
        until(device["deadline"], now),
        milliseconds(device["verified_ms"]),
        " ".join(f"{t['target']}:{t['state']}" for t in device["targets"]) or "-",
        " ".join(device["addresses"]) or "-",
        why if len(why) <= _WHY_MOST else why[: _WHY_MOST - 1] + "…",
    )


def _before_the_start(device: Mapping[str, Any]) -> str:
    """What is said of a device about which nothing has happened since the service started."""
    newest = device["newest"]
    return f"restored; newest verdict {instant(newest)}" if newest else "no verdict yet"


def counts_line(devices: Iterable[Mapping[str, Any]]) -> str:
    """``12 devices: 10 trusted, 2 distrusted``."""
    counts: dict[str, int] = {}
    for device in devices:
        counts[device["standing"]] = counts.get(device["standing"], 0) + 1
    total = sum(counts.values())
    listed = ", ".join(f"{n} {standing}" for standing, n in sorted(counts.items(), key=lambda item: -item[1]))
    return f"{total} device{'' if total == 1 else 's'}" + (f": {listed}" if listed else "")


def show(device: Mapping[str, Any], now: float) -> Iterator[str]:
    """One device in short: the answer, its deadline and binding, what each target has of it."""
    yield f"{clean(device['id'])} is {device['standing']} and has profile {clean(device['profile'])}."
    last = device["last"]
    if last:
        yield f"Why: {clean(last['why'])}"
        moved = last["before"] if last["before"] == last["after"] else f"{last['before']} → {last['after']}"
        yield f"     {last['event']} ({last['effect']}, {moved}), {span(max(0.0, now - last['at']))} ago"
    else:
        newest = device["newest"]
        restored = newest and f"restored from the journal; newest verdict issued {instant(newest)}"
        yield f"Why: {restored or 'no verdict about it has arrived yet'}"
    yield ""
    yield from _facts(device, now)
    yield ""
    yield "Targets"
    yield from _indented(table(_TARGET_HEAD, (_target_line(t, now) for t in device["targets"])))


def explain(device: Mapping[str, Any], now: float) -> Iterator[str]:
    """Everything about one device as a person reads it: first the answer, then what it rests on, in that order:
    verdicts, standing, the book's levels, the decision, what it reaches, and what stands at each target."""
    several = len(device["records"]) > 1
    yield from show(device, now)
    if device["verdicts"]:
        yield ""
        yield "Last verdicts"
        lines = (_verdict_line(row, named=several) for row in device["verdicts"])
        yield from _indented(table(_VERDICT_HEAD, lines))
    if several:
        yield ""
        yield "Sources"
        for name, record in device["records"].items():
            yield f"  {clean(name)} says {record['standing']}: {clean(_word_of(name, device['verdicts']))}"
    yield ""
    yield "Records"
    yield from _indented(table(_RECORD_HEAD, (_record_line(n, r, now) for n, r in device["records"].items())))
    yield ""
    yield "Book, least specific level first; * marks the rules that made the decision"
    yield from _indented(table(_LEVEL_HEAD, map(_level_line, device["levels"])))
    yield ""
    yield "Decision"
    for number, rule in enumerate(device["chain"], 1):
        yield f"  {number}. {clean(rule)}"
    yield ""
    yield clean(f"Profile {device['profile']} reaches {_reaches(device)}")
    yield ""
    yield "Rules, and what was read back for this answer"
    yield from _indented(table(_RULE_HEAD, (_rule_line(rule, now) for rule in device["rules"])))


def proof(found: Mapping[str, Any], now: float) -> Iterator[str]:
    """What every target shows of a device, element by element."""
    yield clean(f"{found['id']} is {found['standing']} and has profile {found['profile']}.")
    said = "every required target shows what is wanted" if found["proven"] else "not every required target shows it"
    yield f"Asked at {instant_ms(found['at'])}: {said}."
    yield ""
    yield from table(_PROOF_HEAD, (_proof_line(line, now) for line in found["lines"]))


_PROOF_HEAD = ("TARGET", "BACKEND", "WHAT", "WANTED", "ENDS IN", "RESULT", "READ AT", "ELEMENT")


def _proof_line(line: Mapping[str, Any], now: float) -> tuple[str, ...]:
    return (
        line["target"],
        line["backend"],
        line["part"] or line["address"],
        line["wanted"] or "-",
        until(line["until"], now),
        line["result"],
        "-" if line["read_at"] is None else instant_ms(line["read_at"]),
        line["element"] or "-",
    )


_LEVEL_HEAD = ("", "LEVEL", "RULE", "MATCHES", "SAYS", "BECAUSE")


def _level_line(line: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        "*" if line["used"] else "",
        line["level"],
        line["name"] or "-",
        "yes" if line["matched"] else "no",
        line["says"],
        line["because"],
    )


def _reaches(device: Mapping[str, Any]) -> str:
    names = ", ".join(
        f"{each['name']} ({each['address']} port {each['port']}/{each['protocol']})" for each in device["reaches"]
    )
    rate = device["rate"]
    slowed = f"; at most {rate['new_connections']} new connections in {rate['per']:g} s" if rate else ""
    return (names or "no gated service, the corridor only") + slowed


_RULE_HEAD = ("TARGET", "BACKEND", "ADDRESS", "WANTED", "ENDS IN", "STANDS", "ENDS IN")


def _rule_line(rule: Mapping[str, Any], now: float) -> tuple[str, ...]:
    if rule["trouble"]:
        stands = f"not read: {rule['trouble']}"
    elif rule["tombstone"]:
        stands = "cut" if not rule["stands"] else f"cut, and {rule['stands']}"
    else:
        stands = rule["stands"] or "nothing"
    return (
        rule["target"],
        rule["backend"],
        rule["address"],
        rule["wanted"],
        until(rule["until"], now),
        stands,
        until(rule["ends"], now),
    )


def _word_of(source: str, verdicts: Iterable[Mapping[str, Any]]) -> str:
    """The newest verdict of a source that did anything, as far as the shown ones go."""
    for row in verdicts:
        if row.get("source") == source and row.get("kind") == "transition" and row.get("effect") != "none":
            return str(row.get("why") or row.get("event"))
    return "nothing lately"


def _facts(device: Mapping[str, Any], now: float) -> Iterator[str]:
    deadline, lease = device["deadline"], device["lease_until"]
    labels = ", ".join(f"{key}={value}" for key, value in device["labels"].items())
    anchor = "" if device["anchor"] != "none" else "; nothing guarantees that these addresses are the device's"
    facts = (
        ("Deadline", "none: nothing is admitted" if deadline is None else _moment(deadline, now)),
        ("Override", _overridden(device["override"], now)),
        ("Held", held(device["held"], now)),
        ("Lease", "none" if lease is None else _moment(lease, now)),
        ("Binding", f"{' '.join(device['addresses']) or 'no address'} (anchor {device['anchor']}{anchor})"),
        ("Labels", labels or "none"),
        ("Verified", _verified(device["verified_ms"])),
    )
    for name, text in facts:
        if text:
            yield f"{name:<9} {clean(text)}"
    if device.get("replayable"):
        at = ", ".join(device["replayable"])
        yield f"Replayable: at {clean(at)}, evidence from before the newest pass could be sent again"


def _overridden(word: Mapping[str, Any] | None, now: float) -> str:
    """An override in words, nothing without one."""
    if word is None:
        return ""
    return f"{word['profile']} until {_moment(word['until'], now)}, by {word['actor']}: {word['reason']}"


def held(word: Mapping[str, Any] | None, now: float) -> str:
    """An operator's hold in words, nothing without one."""
    return "" if word is None else f"by {word['actor']}, {until(word['at'], now)}: {word['reason']}"


def _verified(value: float | None) -> str:
    return "no verdict enforced yet" if value is None else f"{value:.1f} ms from the last verdict to read-back"


def _moment(unix: float, now: float) -> str:
    left = f"{span(unix - now)} left" if unix > now else f"passed {span(now - unix)} ago"
    return f"{instant(unix)} ({left})"


def _indented(lines: Iterable[str]) -> Iterator[str]:
    return (f"  {line}" for line in lines)


_TARGET_HEAD = ("TARGET", "BACKEND", "REQUIRED", "WANTED", "STATE", "READ BACK", "ENDS IN", "DETAIL")


def _target_line(target: Mapping[str, Any], now: float) -> tuple[str, ...]:
    return (
        target["target"],
        target["backend"],
        "yes" if target["required"] else "no",
        target["wanted"],
        target["state"],
        instant(target["verified_at"]) if target.get("verified_at") else "-",
        until(target["latest_end"], now),
        target["detail"],
    )


_RECORD_HEAD = ("SOURCE", "STANDING", "LEFT", "NEWEST", "LAST FAILURE", "PASSES OWED", "SUSPECTED SINCE", "HELD")


def _record_line(source: str, record: Mapping[str, Any], now: float) -> tuple[str, ...]:
    def at(unix: float) -> str:
        return instant(unix) if unix else "-"

    return (
        source,
        record["standing"],
        until(record["deadline"], now),
        at(record["newest"]),
        at(record["epoch"]),
        str(record["debt"]),
        at(record["suspected_since"]),
        "yes" if record["hold"] else "no",
    )


_VERDICT_HEAD = ("AT", "EVENT", "EFFECT", "STANDING", "VERIFIED MS", "WHY")


def _verdict_line(row: Mapping[str, Any], *, named: bool) -> tuple[str, ...]:
    # Rows of every kind and of older versions come along: what one does not have stays blank.
    at, outcome = row.get("at"), row.get("outcome") or {}
    before, after = row.get("before"), row.get("after")
    took = outcome.get("verified_ms")
    event = row.get("event") or (f"refused: {row['refusal']}" if row.get("refusal") else row.get("kind"))
    return (
        instant(at) if isinstance(at, int | float) else "-",
        str(event or "-"),
        str(row.get("effect") or "-"),
        f"{before} → {after}" if before and before != after else str(after or "-"),
        milliseconds(took if isinstance(took, int | float) else None),
        (f"{row.get('source')}: " if named and row.get("source") else "")
        + str(row.get("why") or row.get("detail") or "")
        + (f" (by {row['actor']})" if row.get("actor") else ""),
    )
