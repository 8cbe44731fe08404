"""The page of all devices: who is let through, who is not, and why, in the order of the inventory.

What lives here: HTML of the API's own answers, pure. What must not: anything that the API does not say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any
from urllib.parse import quote

from gateway.console import html, text

PATH = "/devices"

#: Devices on one page: 200 are made in about 15 ms, in slices.
ROWS = 200

_HEAD = ("Device", "Standing", "Profile", "Left", "Verified", "Targets", "Addresses", "Why")


def overview(
    devices: Sequence[Mapping[str, Any]],
    counts: Mapping[str, int],
    parts: Mapping[str, Any],
    site: str,
    now: float,
    *,
    standing: str | None = None,
    after: str | None = None,
    following: str | None = None,
) -> str:
    """The page of ``devices`` (rows of the list), with how many there are by standing and what is not ready.

    ``parts`` is readiness as the API tells it, ``site`` the site's profile, ``now`` UNIX seconds. ``standing`` and
    ``after``: what was asked for; ``following``: the device behind which the next page begins.
    """
    total = sum(counts.values())
    leads = [_link("first page", _address(standing, None))] if after is not None else []
    leads += [_link("next page", _address(standing, following))] if following is not None else []
    body = f"""<h1>{total:,} {"device" if total == 1 else "devices"}</h1>
<p>{_ready(parts)} Site: {escape(site)}.</p>
<nav>
{_choice(f"all {total:,}", "", standing is None, _address(None, None))}
{_choices(counts, standing)}
<a href="/">All windows</a>
</nav>
{html.table(_HEAD, [_row(device, now) for device in devices])}
<nav>{"".join(leads)}</nav>
<p><small>As of {text.instant(now)}; the page asks again every {html.REFRESH} s.</small></p>"""
    return html.document(f"{total:,} devices", body)


def _ready(parts: Mapping[str, Any]) -> str:
    """What an operator has to know first."""
    wrong = [f"{part['part']}: {part['detail']}" for part in parts["parts"] if not part["ready"]]
    if not wrong:
        return f"{html.word('trusted', 'Ready')}: every part works."
    return f"{html.word('failed', 'Not ready')}: {escape('; '.join(wrong))}."


def _choices(counts: Mapping[str, int], chosen: str | None) -> str:
    """One link for each standing that any device has, the lowest first, and for the chosen one."""
    return "\n".join(
        _choice(f"{label} {count:,}", label, label == chosen, _address(label, None))
        for label, count in counts.items()
        if count or label == chosen
    )


def _choice(shown: str, label: str, here: bool, address: str) -> str:
    said = html.word(label, shown) if label else escape(shown)
    return f"<strong>{said}</strong>" if here else f'<a href="{escape(address)}">{said}</a>'


def _link(shown: str, address: str) -> str:
    return f'<a href="{escape(address)}">{escape(shown)}</a>'


def _address(standing: str | None, after: str | None) -> str:
    asked = {"standing": standing, "after": after}
    query = "&".join(f"{name}={quote(value, safe='')}" for name, value in asked.items() if value is not None)
    return f"{PATH}?{query}" if query else PATH


def _row(device: Mapping[str, Any], now: float) -> tuple[str, ...]:
    name, standing, profile, left, took, _, addresses, why = text.device_line(device, now)
    targets = ", ".join(f"{escape(each['target'])} {html.word(each['state'])}" for each in device["targets"])
    return (
        f'<a href="{PATH}/{escape(quote(name, safe=""))}">{escape(name)}</a>',
        html.word(standing),
        escape(profile),
        escape(left),
        "-" if took == "-" else f"{escape(took)} ms",
        targets or "-",
        escape(addresses),
        escape(why),
    )
