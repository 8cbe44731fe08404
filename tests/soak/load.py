"""What is done to the service: genuine alerts, operators' acts, and everything hostile."""

from __future__ import annotations

import random
import secrets
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress

from cryptography.hazmat.primitives.asymmetric import rsa

from gateway.console.client import Client, NotRunning, Refused
from gateway.sediment.compose import compose_alert, compose_message, evidence_endpoint, sign_alert_body
from gateway.sediment.wire import MessageId, Reason
from tests.soak.model import Kind, Model, Sent
from tests.soak.site import CONSOLE, DOOR, NEIGHBOUR, STRANGER, VERIFIER, Service

SEND_SECONDS = 3.0
RECORDED = 400
"""Frames kept for being replayed."""
BACK = 110
"""Seconds by which a pass may be dated back and is still inside the clock window when it is judged."""
FLOOD = 300
"""Connections of strangers at a time."""
HELD = 40
"""Slow connections at a time: below what one neighbour is allowed, so that its other input is still read."""

_KINDS = {
    Reason.PASS: Kind.PASS,
    Reason.FAILED_ATTEST: Kind.FAIL,
    Reason.USER_REJECT: Kind.FAIL,
    Reason.REQUESTED: Kind.NOTE,
    Reason.TIME_OUT: Kind.NOTE,
}


class Traffic:
    """Everything that is sent. ``lock`` is held while something is sent and the model is told of it."""

    def __init__(self, service: Service, model: Model, lock: threading.RLock, seed: int) -> None:
        self.service = service
        self.model = model
        self.lock = lock
        self.counts: Counter[str] = Counter()
        self.sure = True  # False while the journal cannot be written: raising may be refused
        self._random = random.Random(seed)
        self._hostile_random = random.Random(seed + 1)
        self._bodies: dict[tuple[str, Reason], bytes] = {}
        self._used: dict[str, set[int]] = {name: set() for name in model.devices}
        self._recorded: deque[tuple[str, Sent, bytes]] = deque(maxlen=RECORDED)
        self._foreign_key = rsa.generate_private_key(65537, 2048)
        self._slow: deque[tuple[float, socket.socket]] = deque()
        self._operator = Client(service.files.folder / "var" / "operator.sock")

    # --- genuine

    def alert(self, device: str, reason: Reason, issued: int) -> bytes:
        """A genuine alert."""
        key = (device, reason)
        if key not in self._bodies:
            self._bodies[key] = sign_alert_body(
                device=device.encode(),
                verifier_id=b"RAP_Server",
                reason=reason,
                endpoint=evidence_endpoint(b"192.0.2.7", 35_940),
                signing_key=self.service.files.keys.signing,
            )
        return compose_message(
            message_id=MessageId.ALERT,
            timestamp=issued,
            nonce=secrets.token_bytes(32),
            tail=self._bodies[key],
            hmac_key=self.service.files.keys.hmac[device],
        )

    def one(self) -> None:
        """Send one thing that somebody with the right keys may send, and tell the model."""
        device = self._random.choice(self.service.files.devices)
        dice = self._random.random()
        if dice < 0.05 and self._recorded:
            self._deliver("replay", *self._random.choice(self._recorded))
            return
        reason, issued = self._verdict(device, dice)
        if issued in self._used[device]:
            return
        self._used[device].add(issued)
        sent = Sent(_KINDS[reason], issued)
        frame = self.alert(device, reason, issued)
        if self._deliver(reason.name.lower(), device, sent, frame):
            self._recorded.append((device, sent, frame))

    def _verdict(self, device: str, dice: float) -> tuple[Reason, int]:
        now = int(time.time())
        newest = max(state.newest for state in self.model.devices[device].states)
        if dice < 0.75:
            early = max(newest + 1, now - BACK)
            issued = self._random.randint(early, now) if early < now and dice < 0.2 else now
            return Reason.PASS, issued
        if dice < 0.87:
            return Reason.FAILED_ATTEST, now
        if dice < 0.90:
            return Reason.USER_REJECT, now
        if dice < 0.92:
            return Reason.FAILED_ATTEST, now - 300
        if dice < 0.93:
            return Reason.FAILED_ATTEST, now + 30
        if dice < 0.96:
            return Reason.PASS, now - 200
        return self._random.choice((Reason.REQUESTED, Reason.TIME_OUT)), now

    def _deliver(self, what: str, device: str, sent: Sent, frame: bytes) -> bool:
        """Send a frame as the verifier does. False: it was not sent."""
        with self.lock:
            if not self.service.healthy_since:
                return False
            try:
                with self._connect(VERIFIER) as connection:
                    at = time.time()
                    surely = self.sure or sent.kind is not Kind.PASS
                    self.model.sent(device, sent, at, surely=surely)
                    connection.sendall(frame)
            except OSError as error:
                self.counts[f"not sent: {error.__class__.__name__}"] += 1
                return False
            self.counts[what] += 1
            return True

    def operate(self) -> None:
        """Hold a device, or release one that is held."""
        device = self._random.choice(self.service.files.devices)
        with self.lock:
            if not self.service.healthy_since:
                return
            held = [
                name for name, one in self.model.devices.items() if any(s.word.value == "held" for s in one.states)
            ]
            release = len(held) > 30 or (held and self._random.random() < 0.5)
            device, verb, kind = (
                (self._random.choice(held), "release", Kind.RELEASE) if release else (device, "hold", Kind.HOLD)
            )
            self.model.sent(device, Sent(kind), time.time(), surely=self.sure or kind is Kind.HOLD)
            try:
                self._operator.act(device, verb, "soak")
            except (NotRunning, Refused) as error:
                self.counts[f"operator: {error.__class__.__name__}"] += 1
                raise
            self.counts[verb] += 1

    @staticmethod
    def _connect(source: str, seconds: float = SEND_SECONDS) -> socket.socket:
        connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            connection.settimeout(seconds)
            connection.bind((source, 0))
            connection.connect(DOOR)
        except OSError:
            connection.close()
            raise
        return connection

    # --- hostile: nothing in here may move any device

    def hostile(self) -> None:
        """One attempt of somebody who has no key, or uses one wrongly."""
        attempt = self._hostile_random.choice(self._attempts())
        source = self._hostile_random.choice((VERIFIER, NEIGHBOUR, NEIGHBOUR, STRANGER))
        data = attempt()
        self.counts[f"hostile: {attempt.__name__.strip('_')}"] += 1
        with suppress(OSError), self._connect(source, 1.0) as connection:
            connection.sendall(data)

    def _attempts(self) -> tuple[Callable[[], bytes], ...]:
        return (
            self._garbage,
            self._truncated,
            self._flipped,
            self._foreign_signature,
            self._foreign_hmac,
            self._nobody,
            self._http,
            self._other_kind,
            self._many_frames,
        )

    def _genuine(self) -> bytes:
        device = self._hostile_random.choice(self.service.files.devices)
        return self.alert(
            device, self._hostile_random.choice((Reason.PASS, Reason.FAILED_ATTEST)), int(time.time())
        )

    def _garbage(self) -> bytes:
        return self._hostile_random.randbytes(self._hostile_random.randint(1, 40_000))

    def _truncated(self) -> bytes:
        frame = self._genuine()
        return frame[: self._hostile_random.randint(1, len(frame) - 1)]

    def _flipped(self) -> bytes:
        frame = bytearray(self._genuine())
        frame[self._hostile_random.randrange(len(frame))] ^= 1 << self._hostile_random.randrange(8)
        return bytes(frame)

    def _foreign_signature(self) -> bytes:
        device = self._hostile_random.choice(self.service.files.devices)
        return self._forged(device, self.service.files.keys.hmac[device], self._foreign_key, b"RAP_Server")

    def _foreign_hmac(self) -> bytes:
        one, other = self._hostile_random.sample(self.service.files.devices, 2)
        keys = self.service.files.keys
        return self._forged(one, keys.hmac[other], keys.signing, b"RAP_Server")

    def _nobody(self) -> bytes:
        keys = self.service.files.keys
        return self._forged("../../nobody", next(iter(keys.hmac.values())), keys.signing, b"RAP_Server")

    @staticmethod
    def _forged(device: str, hmac_key: bytes, signing: rsa.RSAPrivateKey, verifier: bytes) -> bytes:
        return compose_alert(
            device=device.encode(),
            verifier_id=verifier,
            reason=Reason.PASS,
            endpoint=evidence_endpoint(b"192.0.2.7", 1),
            timestamp=int(time.time()),
            nonce=secrets.token_bytes(32),
            signing_key=signing,
            hmac_key=hmac_key,
        )

    def _http(self) -> bytes:
        return b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"

    def _other_kind(self) -> bytes:
        frame = bytearray(self._genuine())
        frame[70] = self._hostile_random.choice([kind for kind in MessageId if kind is not MessageId.ALERT])
        return bytes(frame)

    def _many_frames(self) -> bytes:
        return b"".join(self._flipped() for _ in range(self._hostile_random.randint(2, 60)))

    def slow(self) -> None:
        """Begin one more connection that never finishes, at the door or the console, and give up an old one."""
        console = self._hostile_random.random() < 0.3
        with suppress(OSError):
            connection = socket.create_connection(
                CONSOLE if console else DOOR, 1.0, (self._hostile_random.choice((NEIGHBOUR, VERIFIER)), 0)
            )
            connection.sendall(b"GET /metrics HT" if console else self._truncated())
            self._slow.append((time.time(), connection))
            self.counts["hostile: slow"] += 1
        while self._slow and (len(self._slow) > HELD or time.time() - self._slow[0][0] > 8.0):
            self._slow.popleft()[1].close()

    def flood(self) -> None:
        """Strangers connect by hundreds and stay."""
        opened: list[socket.socket] = []
        try:
            for _ in range(FLOOD):
                connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
                opened.append(connection)
                connection.setblocking(False)
                connection.bind((STRANGER, 0))
                connection.connect_ex(DOOR)
            self.counts["hostile: flood connections"] += len(opened)
            time.sleep(0.5)
        finally:
            for connection in opened:
                connection.close()

    def let_go(self) -> None:
        """Close every connection that is still open."""
        while self._slow:
            self._slow.popleft()[1].close()
