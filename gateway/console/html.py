"""What the pages for a browser have in common: no script, nothing from elsewhere; they load themselves anew.

What lives here: their frame, style, tables and coloured words, pure. What must not: what any of them says.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from html import escape

#: Seconds after which a browser asks again.
REFRESH = 5

_STYLE = """
:root { color-scheme: light dark; --good: #1a7f37; --bad: #c6282d; --wait: #9a6700; }
@media (prefers-color-scheme: dark) { :root { --good: #4ac26b; --bad: #ff7b72; --wait: #d9a514; } }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 80rem; margin: 2rem auto; padding: 0 1.25rem; }
h1 { font-size: 1.5rem; margin: 0; }
h2 { font-size: 1.05rem; margin: 1.75rem 0 .4rem; }
p { margin: .3rem 0; }
nav { display: flex; flex-wrap: wrap; gap: .25rem 1rem; }
nav + .wide, nav + p { margin-top: 1rem; }
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

#: The policy of these pages alone: their own style, and nothing else at all.
POLICY = (
    f"default-src 'none'; style-src 'sha256-{_HASH}'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)

_COLOURS = {"trusted": "good", "verified": "good", "pending": "wait", "accepted": "wait", "suspect": "wait"}
_PLAIN = frozenset({"unknown", "lapsed", "retired"})


def document(title: str, body: str) -> str:
    """A whole page. ``title`` is text, ``body`` HTML already."""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="refresh" content="{REFRESH}">
<title>{escape(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
{body}
</body>
</html>
"""


def word(text: str, shown: str = "") -> str:
    """A standing or a state in its colour; ``shown`` (text) in its place."""
    colour = _COLOURS.get(text, "" if text in _PLAIN else "bad")
    shown = escape(shown or text)
    return f'<span class="{colour}">{shown}</span>' if colour else shown


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table, or "None."; the cells of ``rows`` are HTML already."""
    lines = ["".join(f"<th>{escape(cell)}</th>" for cell in head)] if head else []
    lines += ["".join(f"<td{_time(cell)}>{cell}</td>" for cell in row) for row in rows]
    if len(lines) == bool(head):
        return "<p>None.</p>"
    return '<div class="wide"><table>' + "".join(f"<tr>{line}</tr>" for line in lines) + "</table></div>"


def _time(cell: str) -> str:
    return ' class="time"' if cell[:2] == "20" and cell[10:11] == " " else ""
