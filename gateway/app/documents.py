"""Documents of profiles at an agent's host: kept in its state folder, judged, and declared to its KubeArmor.

What was told last stands until something else is told, whether or not the gateway can be reached, over restarts of
the agent and of KubeArmor. What must not live here: the link, the connection to KubeArmor, making documents.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from gateway.agentlink import messages as wire
from gateway.agentlink.documents import DECLARED_BYTES, read_declared
from gateway.certs.folder import PRIVATE, write_whole
from gateway.core.errors import ConfigError
from gateway.kubearmor.codes import Notes
from gateway.kubearmor.documents import ClusterDocument, Document
from gateway.kubearmor.findings import Mode, Severity
from gateway.kubearmor.names import DocumentRefused
from gateway.kubearmor.parse import parse
from gateway.kubearmor.validate import judge

#: In the state folder.
FILE = "documents"
NO_KUBEARMOR = "the agent of this host has no kubearmor: in its file, so nobody takes them"


class Layer(Protocol):
    """What takes documents on this host and shows how far they got."""

    def declare_documents(self, documents: Sequence[Document], absent: frozenset[str] = frozenset()) -> None:
        """See ``Advisory``."""
        ...

    def state(self) -> Mapping[str, str]:
        """With ``documents`` and ``documents_detail``."""
        ...


class ToldDocuments:
    """The newest documents that the gateway told. ``kubearmor``: whether this host has it.

    Raises ``ConfigError`` for a file in the state folder that cannot be read.
    """

    def __init__(self, state: Path, say: Callable[[str, str], None], *, kubearmor: bool) -> None:
        self._file = state / FILE
        self._say = say
        self._kubearmor = kubearmor
        self._serial: int | None = None  # None: nobody has told anything since the start
        self._told = self._saved = self._kept()
        self._layer: Layer | None = None
        self._at: tuple[Layer, wire.Declared] | None = None  # what was declared, and to whom
        self._read: Mapping[bytes, Document] = {}
        self._refused = ""

    def _kept(self) -> wire.Declared | None:
        try:
            with self._file.open("rb") as opened:
                data = opened.read(DECLARED_BYTES + 1)
            return read_declared(data)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ConfigError(str(self._file), f"cannot be read: {error.strerror}", "check its rights") from error
        except wire.LinkProtocolError as error:
            raise ConfigError(str(self._file), str(error), "delete it: the gateway tells them again") from error

    @classmethod
    def forget(cls, state: Path) -> frozenset[str]:
        """Delete what is kept (the agent is uninstalled); names of all network documents that it knows of.

        Raises ``ConfigError``.
        """
        found = cls(state, lambda _subject, _what: None, kubearmor=True)
        (state / FILE).unlink(missing_ok=True)
        return frozenset() if found._told is None else frozenset(found._told.absent)

    def take(self, serial: int, declared: wire.Declared) -> None:
        """The gateway has told what should stand. Returns at once."""
        self._serial = serial
        if declared != self._told:
            self._told = declared

    def use(self, layer: Layer) -> None:
        """This is the host's layer from here on."""
        self._layer = layer

    async def turn(self) -> None:
        """Keep and declare what was told, where that has not been done."""
        layer, told = self._layer, self._told
        if told is None:
            return
        if told is not self._saved:
            self._saved = told
            try:
                await asyncio.to_thread(write_whole, self._file, wire.encode(told), PRIVATE)
            except ConfigError as error:  # they stand all the same; a start without the gateway has the older ones
                self._say("kubearmor", str(error))
        if layer is None or self._at == (layer, told):
            return
        try:
            found = await asyncio.to_thread(_judged, told.documents, self._read)
        except DocumentRefused as error:
            self._refused = f"the gateway's documents are refused here, the older ones stand: {error}"
            self._say("kubearmor", self._refused)
        else:
            self._refused, self._read = "", found
            layer.declare_documents(tuple(found.values()), frozenset(told.absent))
        self._at = (layer, told)

    def advised(self) -> wire.Advised | None:
        """How far the newest got; None: the gateway has told nothing since the start."""
        if self._serial is None or self._told is None:
            return None
        state, detail = self._state(self._told)
        return wire.Advised(self._serial, state, detail[: wire.SENTENCE])

    def _state(self, told: wire.Declared) -> tuple[str, str]:
        if not self._kubearmor:
            return ("failed", NO_KUBEARMOR) if told.documents else ("idle", "")
        if self._layer is None or self._at != (self._layer, told):
            return "waiting", "not declared to KubeArmor yet"
        if self._refused:
            return "failed", self._refused
        state = self._layer.state()
        whole, detail = state.get("documents", ""), state.get("documents_detail", "")
        if whole in ("idle", "accepted", "verified", "failed"):
            return whole, detail
        return "waiting", f"{state.get('state', '')}: {detail or state.get('detail', '')}"


def _judged(texts: Sequence[bytes], known: Mapping[bytes, Document]) -> Mapping[bytes, Document]:
    """The documents of these texts; what is known already is the same object. Raises ``DocumentRefused``."""
    notes = Notes(Mode.VM)
    found: dict[bytes, Document] = {}
    for text in texts:
        document = known.get(text)
        if document is None:
            read = parse(text, "the gateway", notes)
            if len(read) != 1 or isinstance(read[0], ClusterDocument):
                msg = "what should be a document of this host is none; are both ends of the same version?"
                raise DocumentRefused(msg)
            (document,) = read
        found[text] = document
    if len({document.name for document in found.values()}) != len(texts):
        msg = "two documents have one name; are both ends of the same version?"
        raise DocumentRefused(msg)
    judge(tuple(found.values()), notes)
    for each in notes.found:
        if each.severity is Severity.ERROR:
            raise DocumentRefused(f"{each.code}: {each.what}; {each.mend}")
    return found
