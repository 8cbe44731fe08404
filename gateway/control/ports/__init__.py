"""The ports between the clockwork and the rooms around it.

Every method that is not ``async`` returns at once and is called on the event loop's thread; callbacks come back
on that thread too. Implementations live in their own rooms; fakes of each live in ``tests/fakes`` and pass the
same contract suites. What lives here: the ports by subject, all of them named here; values that pass through them.
What must not: implementing one.
"""

from __future__ import annotations

from gateway.control.ports.admission import Admission, Authenticator, Item, Opener, Presenting, Receipt
from gateway.control.ports.clock import Clock, Timed
from gateway.control.ports.enforcing import (
    Advisory,
    Backend,
    Contact,
    LayerProof,
    Proof,
    Renderer,
    Resync,
    Showing,
    Strayed,
)
from gateway.control.ports.facts import Answered, Fact, Notice, Observer, Step
from gateway.control.ports.memory import Entry, History, Journal, Loaded, Running
from gateway.control.ports.site import SiteNow, SiteProfiles, Usage
from gateway.control.ports.standing import Standings, StandingsFollower
from gateway.control.ports.verifier import Confirmed, Verifier
from gateway.control.ports.views import (
    DeviceView,
    Directory,
    Explained,
    Health,
    Operator,
    Overridden,
    Overriding,
    ProofLine,
    Proven,
    ReadBack,
    TargetState,
)

__all__ = [
    "Admission",
    "Advisory",
    "Answered",
    "Authenticator",
    "Backend",
    "Clock",
    "Confirmed",
    "Contact",
    "DeviceView",
    "Directory",
    "Entry",
    "Explained",
    "Fact",
    "Health",
    "History",
    "Item",
    "Journal",
    "LayerProof",
    "Loaded",
    "Notice",
    "Observer",
    "Opener",
    "Operator",
    "Overridden",
    "Overriding",
    "Presenting",
    "Proof",
    "ProofLine",
    "Proven",
    "ReadBack",
    "Receipt",
    "Renderer",
    "Resync",
    "Running",
    "Showing",
    "SiteNow",
    "SiteProfiles",
    "Standings",
    "StandingsFollower",
    "Step",
    "Strayed",
    "TargetState",
    "Timed",
    "Usage",
    "Verifier",
]
