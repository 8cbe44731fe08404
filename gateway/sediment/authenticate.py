"""From the bytes of an ALERT to a verdict or a refusal: the only code that makes verdicts of SEDIMENT.

Pure: keys, marks and the time of receipt come in as arguments; nothing is remembered here. The verification plan,
numbered alike in the code:

1. lengths     the frame is one ALERT, exactly; the signature is as long as the source's key makes them
2. device      the device is in the inventory of this source and has an HMAC key
3. hmac        the digest is that device's over bytes 36 to the end
4. signature   the verifier's key signed the *received* bytes 75 to the endpoint's port
5. verifier    ... under the configured verifier id
6. freshness   the timestamp lies within the clock window
7. replay      this very alert was not accepted before
8. order       it is newer than what was accepted before it and than the last failure
9. retired     a retired device is not raised

After step 5 an alert is authentic. Raising is strict: a PASS must satisfy all of 6 to 9. Lowering is generous: an
authentic failure fails no freshness check, it becomes a verdict that says how timely it is; only one that is
already accounted for is refused (7, 8). REQUESTED and the reasons that are recorded without effect must be fresh;
they never move the marks, so 7 and 8 have nothing to say about them.

The signature covers neither timestamp nor nonce; only the HMAC does, and the device itself holds that key. Whoever
holds it can put an old signed body under a new header and passes all nine steps. What contains that is elsewhere:
a listener that devices cannot reach, the recovery rule after a failure, and one question to the verifier.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC

from gateway.core.acceptance import WINDOW_FUTURE, WINDOW_PAST, Window, weigh
from gateway.core.errors import InputRefused, Refusal
from gateway.core.model import DeviceId, Envelope, Outcome, Record, Rejected, SourceName, Tier, Verdict
from gateway.sediment.text import printable
from gateway.sediment.wire import HMAC_START, Alert, Endpoint, Protocol, Reason, decode_alert

_PADDING = PKCS1v15()
_HASH = SHA256()

# What each reason means here, as (outcome, tier, the source's own word).
_MEANINGS = {
    Reason.PASS: (Outcome.PASSED, Tier.AFFIRMING, "PASS"),
    Reason.FAILED_ATTEST: (Outcome.FAILED, Tier.CONTRAINDICATED, "FAILED_ATTEST"),
    Reason.FAILED_AUTH: (Outcome.FAILED, Tier.CONTRAINDICATED, "FAILED_AUTH"),
    Reason.USER_REJECT: (Outcome.REJECTED, Tier.CONTRAINDICATED, "USER_REJECT"),
    Reason.REQUESTED: (Outcome.REQUESTED, Tier.NONE, "REQUESTED"),
    Reason.INIT: (Outcome.NOTED, Tier.NONE, "INIT"),
    Reason.EXPIRATION: (Outcome.NOTED, Tier.NONE, "EXPIRATION"),
    Reason.TIME_OUT: (Outcome.NOTED, Tier.NONE, "TIME_OUT"),
    Reason.SQN_OUT_OF_SYNC: (Outcome.NOTED, Tier.NONE, "SQN_OUT_OF_SYNC"),
}

# An endpoint's protocol for people; NONE says that there is no endpoint.
_PROTOCOL_NAMES = {Protocol.TCP: "tcp", Protocol.UDP: "udp", Protocol.BLUETOOTH: "bluetooth"}

# Members that every alert is compared with, by name: reading one from its Enum costs ten times as much.
_PASSED = Outcome.PASSED
_FAILED = Outcome.FAILED
_REQUESTED = Outcome.REQUESTED


@dataclass(frozen=True, slots=True)
class SedimentSource:
    """One SEDIMENT verifier as a source of verdicts. Windows are in seconds around our wall clock."""

    name: SourceName
    public_key: RSAPublicKey
    verifier_id: bytes
    window_past: int = WINDOW_PAST
    window_future: int = WINDOW_FUTURE


class SedimentAuthenticator:
    """Authenticates the ALERTs of one source.

    ``hmac_keys`` are the devices' authKeys. The mapping is looked at for each alert and never copied, so an
    inventory that changes it takes effect at once.
    """

    __slots__ = ("_hmac_keys", "_signature_size", "_source", "_verify", "_window")

    def __init__(self, source: SedimentSource, hmac_keys: Mapping[DeviceId, bytes]) -> None:
        self._source = source
        self._hmac_keys = hmac_keys
        self._verify = source.public_key.verify
        self._window = Window(source.window_past, source.window_future)
        self._signature_size = (source.public_key.key_size + 7) // 8

    def authenticate(  # noqa: PLR0911 -- one return for each step, in the plan's order
        self, envelope: Envelope, record_of: Callable[[DeviceId], Record | None]
    ) -> Verdict | Rejected:
        """Judge one envelope at the moment it was received. Never raises for any bytes.

        ``record_of`` looks up the device's record of this source, None when the source does not know it.
        A refusal after step 5 is marked authentic.
        """
        frame = envelope.data
        # 1 lengths
        try:
            alert = decode_alert(frame)
        except InputRefused as refused:
            return self._reject(envelope, refused.refusal, refused.detail)
        header, verifier_id, _, _, signature, (start, end) = alert
        if len(signature) != self._signature_size:
            what = f"signature of {len(signature)} bytes; this source's key makes {self._signature_size}"
            return self._reject(envelope, Refusal.LENGTHS, what, alert)
        # 2 device
        device = _as_device(header.device)
        key = self._hmac_keys.get(device)
        record = None if key is None else record_of(device)
        if key is None or record is None:
            return self._reject(envelope, Refusal.DEVICE, "the inventory of this source does not list it", alert)
        # 3 hmac
        # By the library that verifies the signature: where Python's own is another one, two of them push each other
        # out of the processor's caches, which costs a tenth of both.
        found = HMAC(key, _HASH)
        found.update(frame[HMAC_START:])
        if not hmac.compare_digest(header.digest, found.finalize()):
            what = "the digest is all zero" if not any(header.digest) else "the digest is not this device's"
            return self._reject(envelope, Refusal.HMAC, what, alert)
        # 4 signature
        try:
            self._verify(signature, frame[start:end], _PADDING, _HASH)
        except InvalidSignature:
            return self._reject(envelope, Refusal.SIGNATURE, "not made by this source's key", alert)
        # 5 verifier
        if verifier_id != self._source.verifier_id:
            what = f"signed as '{printable(verifier_id)}', not as the configured verifier"
            return self._reject(envelope, Refusal.VERIFIER, what, alert)
        return self._appraise(envelope, alert, device, record)

    def _appraise(self, envelope: Envelope, alert: Alert, device: DeviceId, record: Record) -> Verdict | Rejected:
        """Steps 6 to 9, for an authentic alert."""
        header = alert.header
        outcome, tier, reason = _MEANINGS[alert.reason]
        timeliness, refusal = weigh(
            outcome, header.timestamp, header.nonce, record, envelope.received.wall, self._window
        )
        if refusal is not None:
            return self._reject(envelope, *refusal, alert, authentic=True)
        return Verdict(
            device,
            self._source.name,
            outcome,
            header.timestamp,
            timeliness,
            header.nonce,
            reason,
            _claim(alert.endpoint, outcome),
            None,
            tier,
        )

    def _reject(
        self,
        envelope: Envelope,
        refusal: Refusal,
        detail: str,
        alert: Alert | None = None,
        *,
        authentic: bool = False,
    ) -> Rejected:
        device = "" if alert is None else printable(alert.header.device)
        at = envelope.received.wall
        return Rejected(self._source.name, refusal, detail, envelope.peer, at, device, authentic)


def _as_device(raw: bytes) -> DeviceId:
    """The id as it would stand in the inventory. Bytes beyond ASCII become U+FFFD, which no inventory holds."""
    return DeviceId(raw.decode("ascii", "replace"))


def _claim(endpoint: Endpoint, outcome: Outcome) -> str:
    """The endpoint that the verifier reported, for people, as ``tcp:192.0.2.7:35940``; "" when it reported none.

    The port of PASS and FAILED_ATTEST arrives byte-swapped (a network-order number encoded once more) and is put
    right. REQUESTED carries a compiled-in default that says nothing. The byte order in the reasons that were
    never seen is not known: they go without port.
    """
    protocol = _PROTOCOL_NAMES.get(endpoint.protocol)
    if outcome is _REQUESTED or protocol is None or not endpoint.address:
        return ""
    text = f"{protocol}:{printable(endpoint.address)}"
    if outcome is _PASSED or outcome is _FAILED:
        text += f":{(endpoint.port & 0xFF) << 8 | endpoint.port >> 8}"
    return text
