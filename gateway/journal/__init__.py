"""The memory: durable facts, a digest chain, queries. It has no opinions.

What must not live here: anything that decides, or that asks what a fact means.
"""

from __future__ import annotations

from gateway.journal.history import SqliteHistory
from gateway.journal.rehearse import JournalReader
from gateway.journal.sqlite import SqliteJournal
from gateway.journal.wishes import wishes

__all__ = ["JournalReader", "SqliteHistory", "SqliteJournal", "wishes"]
