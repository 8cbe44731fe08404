"""The policy book and the decision it gives: standing x device -> profile, with the chain of rules that made it.

What lives here: the book's value types, the decision, and the checks that a book must pass by itself, against an
inventory and against the links that nobody may cut. What must not: reading files, rendering for a backend, time
of its own.

The decision is total and monotone in access: trusted reaches at least what suspect with a running deadline
reaches, and that at least what every other standing reaches, which is nothing.
"""

from __future__ import annotations

from gateway.core.policy.book import (
    ADMITTED,
    BUILT_IN,
    KINDS,
    NORMAL,
    OPERATORS,
    PROBATION,
    PROFILES,
    RESERVED,
    AlertThreshold,
    Book,
    Condition,
    CorridorEntry,
    Deployment,
    DeviceClass,
    Kind,
    Level,
    Match,
    Operator,
    Override,
    Path,
    Profile,
    ProfileName,
    Protocol,
    Rate,
    Reach,
    ResourceThreshold,
    Ruled,
    Service,
    SiteProfile,
    Standings,
    Thresholds,
)
from gateway.core.policy.check import Finding, Severity, check, check_against
from gateway.core.policy.decide import (
    SiteDecision,
    decide,
    decide_by,
    decide_site,
    quorum_for,
    rank,
    ruled_by,
    rules_by,
    rules_for,
    tighter,
)
from gateway.core.policy.explain import Looked, because, explain
from gateway.core.policy.lockout import Link, Links, check_lockout
from gateway.core.policy.rulings import compile_book, compiling, matched, matches
from gateway.core.policy.zone import Zone, meet, zone_of

__all__ = [
    "ADMITTED",
    "BUILT_IN",
    "KINDS",
    "NORMAL",
    "OPERATORS",
    "PROBATION",
    "PROFILES",
    "RESERVED",
    "AlertThreshold",
    "Book",
    "Condition",
    "CorridorEntry",
    "Deployment",
    "DeviceClass",
    "Finding",
    "Kind",
    "Level",
    "Link",
    "Links",
    "Looked",
    "Match",
    "Operator",
    "Override",
    "Path",
    "Profile",
    "ProfileName",
    "Protocol",
    "Rate",
    "Reach",
    "ResourceThreshold",
    "Ruled",
    "Service",
    "Severity",
    "SiteDecision",
    "SiteProfile",
    "Standings",
    "Thresholds",
    "Zone",
    "because",
    "check",
    "check_against",
    "check_lockout",
    "compile_book",
    "compiling",
    "decide",
    "decide_by",
    "decide_site",
    "explain",
    "matched",
    "matches",
    "meet",
    "quorum_for",
    "rank",
    "ruled_by",
    "rules_by",
    "rules_for",
    "tighter",
    "zone_of",
]
