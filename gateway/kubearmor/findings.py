"""What a finding about a policy document is: where, how bad, which code, what, why it matters, what to write.

What must not live here: the rules that find them, and the list of codes.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class Mode(Enum):
    """Where the documents are meant to go.

    ``VM``   to a daemon without an orchestrator, as events over gRPC: nothing validates them on the way
    ``K8S``  to a cluster, as custom resources: the API server applies the published schema first
    """

    VM = "vm"
    K8S = "k8s"


class Severity(Enum):
    """``error``: it is refused, does the opposite of what it says, or harms others. ``warning``: a part of it has
    no effect, or more effect than it says. ``note``: works, and is worth knowing."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


class Place(NamedTuple):
    """A place in a file; line and column count from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


#: The place of what was built and not read.
NOWHERE = Place("", 0, 0)


class Finding(NamedTuple):
    """One finding. ``code`` is stable and names an entry of the list of codes, ``why`` is that entry's reason."""

    file: str
    line: int
    column: int
    severity: Severity
    code: str
    what: str
    why: str
    mend: str

    def __str__(self) -> str:
        place = Place(self.file, self.line, self.column)
        return f"{place}: {self.severity.value}: {self.code}: {self.what}; {self.mend}"


class Code(NamedTuple):
    """One entry of the list of codes: how bad it is in each mode (None: fine there), a title, why it matters."""

    vm: Severity | None
    k8s: Severity | None
    title: str
    why: str

    def severity(self, mode: Mode) -> Severity | None:
        """How bad it is in ``mode``; None when it is fine there."""
        return self.vm if mode is Mode.VM else self.k8s
