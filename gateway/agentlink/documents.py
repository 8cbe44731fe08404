"""Documents of profiles for the host of an agent: told as a whole, in pieces, and how far they got there.

The newest truth wins, as at every layer that never admits. What was told stands when the link is lost: the agent's
host keeps it, also over restarts, until it is told otherwise. What must not live here: what a document says,
KubeArmor, streams.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from gateway.agentlink import messages as wire
from gateway.agentlink.remote import Session
from gateway.kubearmor.documents import Document

#: Bytes of one piece: a cut waits for one of them at the most, less than a millisecond on a slow network.
PIECE_BYTES = 64 << 10
#: Bytes of everything that is told of one host: what a message may have.
DECLARED_BYTES = wire.MESSAGE_BYTES

_decoder = msgspec.msgpack.Decoder(wire.Declared)
_OUTCOMES = frozenset({"idle", "waiting", "accepted", "verified", "failed"})


def pack(serial: int, declared: wire.Declared) -> Iterator[wire.Piece]:
    """Make the messages that tell what is declared."""
    data = wire.encode(declared)
    for start in range(0, len(data), PIECE_BYTES):
        yield wire.Piece(serial, data[start : start + PIECE_BYTES], start + PIECE_BYTES >= len(data))


def read_declared(data: bytes) -> wire.Declared:
    """Return what was put together or kept. Raises ``LinkProtocolError``."""
    try:
        return _decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise wire.LinkProtocolError(f"documents cannot be read: {str(error)[:120]}") from error


class Pieces:
    """Puts together what comes in pieces; a newer serial begins anew."""

    def __init__(self) -> None:
        self._serial = -1
        self._data = bytearray()

    def take(self, piece: wire.Piece) -> tuple[int, wire.Declared] | None:
        """What is complete with this piece. Raises ``LinkProtocolError``."""
        if piece.serial != self._serial:
            self._serial, self._data = piece.serial, bytearray()
        self._data += piece.data
        if len(self._data) > DECLARED_BYTES:
            raise wire.LinkProtocolError(f"documents of more than {DECLARED_BYTES} bytes")
        if not piece.last:
            return None
        data, self._serial, self._data = bytes(self._data), -1, bytearray()
        return piece.serial, read_declared(data)


class RemoteDocuments:
    """The gateway's hand for the documents at one agent's host: takes them as an advisory layer does.

    ``run`` until cancelled; the hub tells it of attachments.
    """

    def __init__(self, agent: str) -> None:
        self.agent = agent
        self._documents: tuple[Document, ...] = ()
        self._absent: frozenset[str] = frozenset()
        self._known = False
        self._serial = 0
        self._wake = asyncio.Event()
        self._session: Session | None = None
        self._refused = ""
        self._told: wire.Advised | None = None

    @property
    def name(self) -> str:
        """The ``backend`` label of metrics."""
        return "kubearmor"

    def declare_documents(self, documents: Sequence[Document], absent: frozenset[str] = frozenset()) -> None:
        """Take the newest truth. Returns at once."""
        same = self._known and absent == self._absent and list(map(id, documents)) == list(map(id, self._documents))
        if not same:
            self._documents, self._absent, self._known = tuple(documents), absent, True
            self._serial += 1
            self._wake.set()

    # --- attachments ------------------------------------------------------------------------------------

    def attached(self, session: Session, protocol: int) -> None:
        """An agent is there, speaking this version of the protocol."""
        self._told = None
        self._session = session
        self._refused = ""
        if protocol < wire.DOCUMENTS_PROTOCOL:
            self._refused = (
                f"agent {self.agent} speaks link protocol {protocol}, documents come with"
                f" {wire.DOCUMENTS_PROTOCOL}: upgrade it"
            )
        self._wake.set()

    def detached(self, session: Session) -> None:
        """The attachment has ended."""
        if self._session is session:
            self._session = None

    def advised(self, told: wire.Advised) -> None:
        """The agent says how far it got. Raises ``LinkProtocolError``."""
        if told.state not in _OUTCOMES:
            raise wire.LinkProtocolError("documents got as far as nowhere that is known")
        self._told = told

    async def run(self) -> None:
        """Tell what is declared, whenever it changes and at each attachment."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            session, serial = self._session, self._serial
            if session is None or self._refused or not self._known:
                continue
            pieces = await asyncio.to_thread(_pieces, serial, self._documents, self._absent)
            if session is self._session and serial == self._serial:
                session.tell(pieces)

    # --- showing ----------------------------------------------------------------------------------------

    @property
    def concerned(self) -> bool:
        """Whether there is something to show: documents that should stand, or some still to be taken away."""
        return bool(self._documents) or (self._told is not None and self._told.state not in ("idle", "verified"))

    def state(self) -> Mapping[str, str]:
        """``state`` waiting, accepted, verified, failed or idle, and ``detail``; both also as ``documents``."""
        state, detail = self._state()
        return {"state": state, "detail": detail, "documents": state, "documents_detail": detail}

    def _state(self) -> tuple[str, str]:
        told = self._told
        if self._session is None:
            if not self._documents:
                return "idle", ""
            return "waiting", f"agent {self.agent} is away: what it was told before stands there"
        if self._refused:
            return ("failed", self._refused) if self._documents else ("idle", "")
        if told is None or told.serial != self._serial:
            return "waiting", f"agent {self.agent} has not taken them yet"
        return told.state, told.detail[: wire.SENTENCE]


def _pieces(serial: int, documents: Sequence[Document], absent: frozenset[str]) -> Sequence[wire.Piece]:
    texts = tuple(
        msgspec.json.encode({"kind": document.kind, **document.render()}, order="deterministic")
        for document in documents
    )
    return tuple(pack(serial, wire.Declared(texts, tuple(sorted(absent)))))
