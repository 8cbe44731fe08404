"""Hints about SEDIMENT's attestations: what the hook script and the GUI feed say, judged without keys.

What lives here: reading one hint and deciding whether an anchored binding backs it. What must not: any way up. A
hint names a device of the inventory, by a binding that is anchored and, where the hint has an address, covers it;
everything else is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NoReturn

from gateway.core.binding import backs
from gateway.core.errors import InputRefused, Refusal
from gateway.core.model import Address, Binding, DeviceId, Envelope, Hint, Record, Rejected, SourceName
from gateway.sediment.text import printable

#: Bytes of a device id: SEDIMENT's message has one byte for its length.
DEVICE_MOST = 255
#: Bytes of the longest text of an IPv6 address.
ADDRESS_MOST = 45

#: The reasons that SEDIMENT's script is given, in its own words (v1.0.0, ``modules/protocol/Log.cpp``,
#: ``Log::toReason``), and whether each speaks against the device. Its relying party runs the script for PASS and
#: FAILED_ATTEST alone (``servers/firewall/Firewall.cpp``); the others mean here what they mean in an alert.
REASONS: Mapping[bytes, bool] = {
    b"PASS": False,
    b"REQUESTED": False,
    b"INIT": False,
    b"EXPIRATION": False,
    b"TIME_OUT": False,
    b"SQN_OUT_OF_SYNC": False,
    b"FAILED_ATTEST": True,
    b"FAILED_AUTH": True,
    b"USER_REJECT": True,
}

_SECONDS = re.compile(rb"-?[0-9]{1,10}\.[0-9]{6}\Z")
_JUDGEMENTS: Mapping[bytes, tuple[bool, str]] = {b"correct": (False, "correct"), b"incorrect": (True, "incorrect")}


class HookHints:
    """Judges what ``ragate-hook`` hands in: ``DEVICE NUL ADDRESS NUL REASON``, the arguments of the script.

    ``bindings`` is looked at for each hint and never copied.
    """

    __slots__ = ("_bindings", "_source")

    def __init__(self, source: SourceName, bindings: Mapping[DeviceId, Binding]) -> None:
        self._source = source
        self._bindings = bindings

    def authenticate(
        self,
        envelope: Envelope,
        record_of: Callable[[DeviceId], Record | None],  # noqa: ARG002 - the port's shape
    ) -> Hint | Rejected:
        """Judge one envelope. Never raises for any bytes."""
        fields = envelope.data.split(b"\0")
        claimed = fields[0]
        try:
            if len(fields) != 3:
                _refuse(Refusal.LENGTHS, f"{len(fields)} fields; a hint has device, address and reason")
            adverse = REASONS.get(fields[2])
            if adverse is None:
                _refuse(Refusal.LENGTHS, f"reason '{printable(fields[2])}' is none of SEDIMENT's")
            binding = _binding_of(claimed, self._bindings)
            address = _address_of(fields[1])
            if not backs(binding, address):
                what = f"no anchored binding of the device covers {address}"
                _refuse(Refusal.BINDING, what)
        except InputRefused as refused:
            return _rejected(self._source, envelope, refused, claimed)
        return Hint(binding.device, self._source, adverse, fields[2].decode("ascii"))


class FeedHints:
    """Judges the payloads of one verifier's GUI feed: ``DEVICE,correct|incorrect,SECONDS``, no address."""

    __slots__ = ("_bindings", "_of", "_source")

    def __init__(self, source: SourceName, of: SourceName, bindings: Mapping[DeviceId, Binding]) -> None:
        """``of``: the source whose verifier feeds; it speaks of that source's devices (``bindings``) alone."""
        self._source = source
        self._of = of
        self._bindings = bindings

    def authenticate(
        self,
        envelope: Envelope,
        record_of: Callable[[DeviceId], Record | None],  # noqa: ARG002 - the port's shape
    ) -> Hint | Rejected:
        """Judge one envelope. Never raises for any bytes."""
        # From the right: an id is 255 bytes of anything, commas included.
        fields = envelope.data.rsplit(b",", 2)
        claimed = fields[0]
        try:
            judgement = _JUDGEMENTS.get(fields[1]) if len(fields) == 3 else None
            if judgement is None or not _SECONDS.match(fields[2]):
                _refuse(Refusal.LENGTHS, f"'{printable(envelope.data)}' is not DEVICE,correct|incorrect,SECONDS")
            binding = _binding_of(claimed, self._bindings)
            if not backs(binding, None):
                _refuse(Refusal.BINDING, "the device has no anchored binding: a hint without proof names nobody")
        except InputRefused as refused:
            return _rejected(self._source, envelope, refused, claimed)
        adverse, word = judgement
        return Hint(binding.device, self._source, adverse, word, self._of)


def _binding_of(claimed: bytes, bindings: Mapping[DeviceId, Binding]) -> Binding:
    """The exact bytes of an inventory's id, or nobody: beyond ASCII nothing is like anything."""
    binding = None
    if len(claimed) <= DEVICE_MOST:
        binding = bindings.get(DeviceId(claimed.decode("ascii", "replace")))
    if binding is None:
        _refuse(Refusal.DEVICE, "the inventory does not list it")
    return binding


def _address_of(text: bytes) -> Address:
    if len(text) > ADDRESS_MOST:
        _refuse(Refusal.LENGTHS, f"an address of {len(text)} bytes")
    try:
        address = Address.parse(text.decode("ascii"))
    except ValueError:
        address = None
    if address is None or address.prefix == 64:
        _refuse(Refusal.LENGTHS, f"'{printable(text)}' is no address")
    return address


def _refuse(refusal: Refusal, detail: str) -> NoReturn:
    raise InputRefused(refusal, detail)


def _rejected(source: SourceName, envelope: Envelope, refused: InputRefused, claimed: bytes) -> Rejected:
    device = printable(claimed)
    return Rejected(source, refused.refusal, refused.detail, envelope.peer, envelope.received.wall, device)
