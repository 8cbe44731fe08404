"""The index page: what there is to look at, one sentence each. No script, nothing from anywhere else."""

from __future__ import annotations

import base64
import hashlib
from html import escape

from gateway import __version__

#: (path, link or "", sentence)
_READS = (
    (
        "/devices",
        "/devices",
        "Every device for a browser: who is let through, who is not, and why. Query: standing, after, limit.",
    ),
    (
        "/devices/{id}",
        "",
        "One device for a browser: what each target has of it, when and how that was read back, and why.",
    ),
    (
        "/v1/devices",
        "/v1/devices",
        "Every device: standing, profile, deadline, addresses, targets. Query: limit, after, standing.",
    ),
    (
        "/v1/devices/{id}",
        "",
        "One device in full: the chain of rules behind its decision, its records per source, its last verdicts.",
    ),
    (
        "/v1/devices/{id}/explanation",
        "",
        "Why a device gets what it gets: each rule of each level, what it reaches, what each gate answers now.",
    ),
    (
        "/v1/devices/{id}/proof",
        "",
        "What every target shows of a device now: the element read, and when; or why it could not be read.",
    ),
    (
        "/v1/site",
        "/v1/site",
        "The site's profile, the conditions that were looked at, and resources above a threshold.",
    ),
    ("/readyz", "/readyz", "Whether every part works, part by part; 503 while one does not."),
    ("/healthz", "/healthz", "Whether the process answers at all."),
    ("/metrics", "/metrics", "Counters, latencies and resources in the Prometheus text format."),
)

_ACTS = (
    ("POST /v1/devices/{id}/hold", "", 'Hold a device. Body: {"reason": "..."}.'),
    ("POST /v1/devices/{id}/attest", "", 'Have a device attest again. Body: {"reason": "..."}.'),
    ("GET /v1/claims", "", "Devices that their verifiers see at an address which the inventory does not bind."),
    ("POST /v1/devices/{id}/release", "", 'Release a held device to what lies beneath. Body: {"reason": "..."}.'),
    (
        "POST /v1/devices/{id}/override",
        "",
        'Give a device a profile for some seconds. Body: {"profile": "...", "seconds": 3600, "reason": "..."}.',
    ),
    ("POST /v1/devices/{id}/end-override", "", 'End an override early. Body: {"reason": "..."}.'),
)

_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 52rem; margin: 3rem auto; padding: 0 1.25rem; }
h1 { font-size: 1.5rem; margin: 0; }
p { margin: .25rem 0 1.75rem; opacity: .75; }
dl { margin: 0; border-top: 1px solid #8886; }
div { padding: .7rem 0; border-bottom: 1px solid #8886; }
dt { font: 15px/1.5 ui-monospace, monospace; }
dd { margin: .1rem 0 0; }
"""

_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode("ascii")

#: The policy of this page alone: its own style, and nothing else at all.
POLICY = (
    f"default-src 'none'; style-src 'sha256-{_HASH}'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)


def page(*, acts: bool) -> str:
    """The page; ``acts`` for the operator socket, which takes more than questions."""
    entries = (*_READS, *_ACTS) if acts else _READS
    listed = "\n".join(_entry(*entry) for entry in entries)
    note = "" if acts else " This window only shows; acts need the operator socket (ragate devices hold, release)."
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>ragate</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>ragate {escape(__version__)}</h1>
<p>Which devices are gated, and why.{note}</p>
<dl>
{listed}
</dl>
</body>
</html>
"""


def _entry(path: str, link: str, sentence: str) -> str:
    shown = escape(path)
    name = f'<a href="{escape(link)}">{shown}</a>' if link else shown
    return f"<div><dt>{name}</dt><dd>{escape(sentence)}</dd></div>"
