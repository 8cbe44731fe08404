"""The plan: what is wanted against what stands, as steps in a safe order.

What lives here: the diff of one batch of addresses and what each step leaves behind. What must not: deciding
what is wanted, rendering for a backend, the time of day: ends are boot seconds and come in as arguments.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from gateway.core.model import DENY, Address, Change, ChangeKind, DeviceId, Rule

#: Seconds by which a later end must differ before it is worth a step: renewals of one lease period come together,
#: and the half second is nothing against a lease. An earlier end is never too small to act on.
REFRESH_SLACK = 0.5

_CUT, _WITHDRAW, _FORGET, _ADMIT, _REFRESH = ChangeKind


def diff(
    want: Mapping[Address, Rule | None],
    have: Mapping[Address, Rule],
    lease_until: float,
    renew_before: float = math.inf,
) -> tuple[Change, ...]:
    """Return the steps that bring ``have`` to ``want``, for the addresses that ``want`` names.

    ``want`` None: no trace may stay. Every ``Change.until`` is min(rule's deadline, ``lease_until``), boot seconds.
    A later end is worth a step only where what stands ends before ``renew_before``: an admission whose lease has
    just begun is not told again at every pass, for it can only end too early and is renewed long before.
    Order: tighten before loosen (cut, withdraw, forget, an earlier end, another profile, admit, a later end);
    within one kind the order of ``want``. Another profile comes before fresh admissions because it may narrow.
    """
    cuts: list[Change] = []
    withdrawals: list[Change] = []
    forgotten: list[Change] = []
    earlier: list[Change] = []
    moved: list[Change] = []
    admitted: list[Change] = []
    later: list[Change] = []
    for address, rule in want.items():
        stands = have.get(address)
        if rule is None:
            if stands is not None:
                forgotten.append(Change(_FORGET, address))
            continue
        profile = rule.profile
        if profile == DENY:
            if rule.tombstone:
                if stands is None or not stands.tombstone or stands.profile != DENY:
                    cuts.append(Change(_CUT, address))
            elif stands is not None and stands.profile != DENY:
                withdrawals.append(Change(_WITHDRAW, address))
            continue
        until = min(lease_until, rule.until)
        if stands is None or stands.profile == DENY or stands.tombstone:
            admitted.append(Change(_ADMIT, address, profile, until))
        elif stands.profile != profile:
            moved.append(Change(_ADMIT, address, profile, until))
        elif until < stands.until:
            earlier.append(Change(_REFRESH, address, profile, until))
        elif until - stands.until > REFRESH_SLACK and stands.until < renew_before:
            later.append(Change(_REFRESH, address, profile, until))
    return (*cuts, *withdrawals, *forgotten, *earlier, *moved, *admitted, *later)


def after(change: Change, device: DeviceId) -> Rule | None:
    """Return what stands at the change's address once the change is verified; None: nothing of ours.

    A withdrawal leaves nothing: it is planned only where an admission, hence no tombstone, stood.
    """
    kind = change.kind
    if kind is _ADMIT or kind is _REFRESH:
        return Rule(device, change.profile, change.until)
    if kind is _CUT:
        return Rule(device, DENY, 0.0, tombstone=True)
    return None
