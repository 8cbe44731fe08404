"""One source of a posted format with its authenticator and the records of its devices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from gateway.core.lifecycle import Rules, event_of, step
from gateway.core.model import DeviceId, Envelope, Instant, Presented, Record, Rejected, SourceName, Verdict
from gateway.verdicts import FORMATS, Algorithm, Proof, VerdictAuthenticator, VerdictSource, load_key
from tests.posting import key_for, public_pem

SOURCE = SourceName("src")
RULES = Rules(recovery_passes=1)


class Bench:
    """Judges documents of one format. ``keys``: id to kind; private halves are ``key_for(id, kind)``."""

    def __init__(
        self,
        form: str,
        keys: Mapping[str, str],
        *,
        proof: Proof | None = None,
        subject: str = "",
        devices: tuple[str, ...] = ("cam-1", "cam-2"),
    ) -> None:
        row = FORMATS[form]
        loaded = {
            name: load_key(name, Algorithm(kind), public_pem(key_for(name, kind))) for name, kind in keys.items()
        }
        default = row.subjects[0] if row.subjects else ""
        self.source = VerdictSource(SOURCE, loaded, proof or row.proofs[0], subject or default)
        self.form = row
        self.authenticator = VerdictAuthenticator(self.source, row)
        self.records: dict[DeviceId, Record] = {DeviceId(name): Record() for name in devices}

    def but(self, **changes: object) -> Bench:
        """The same with another source."""
        made = Bench.__new__(Bench)
        made.__dict__.update(self.__dict__)
        made.source = replace(self.source, **changes)  # type: ignore[arg-type]
        made.authenticator = VerdictAuthenticator(made.source, self.form)
        return made

    def judge(self, data: bytes, at: float, presented: Presented | None = None) -> list[Verdict | Rejected]:
        """Everything that one document brings, each accepted verdict stepped before the next is judged."""
        envelope = Envelope(data, SOURCE, "192.0.2.9", Instant(at, 100.0), presented)
        opened = self.authenticator.open(envelope)
        if isinstance(opened, Rejected):
            return [opened]
        results: list[Verdict | Rejected] = []
        for statement in opened:
            result = self.authenticator.appraise(statement, envelope, self.records.get)
            results.append(result)
            if isinstance(result, Verdict):
                record = self.records[result.device]
                self.records[result.device] = step(record, event_of(result, at), RULES).record
        return results

    def one(self, data: bytes, at: float, presented: Presented | None = None) -> Verdict | Rejected:
        """The only result."""
        (result,) = self.judge(data, at, presented)
        return result

    def verdict(self, data: bytes, at: float, presented: Presented | None = None) -> Verdict:
        """The only result, which must be a verdict."""
        result = self.one(data, at, presented)
        assert isinstance(result, Verdict), result
        return result

    def refused(self, data: bytes, at: float, presented: Presented | None = None) -> str:
        """The step that refuses it."""
        result = self.one(data, at, presented)
        assert isinstance(result, Rejected), result
        return result.refusal.value
