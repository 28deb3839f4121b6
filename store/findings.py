"""What a look at a store found: for people, for programs, and for `store.repair`."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

Severity = Literal["damage", "note"]
#: What a finding is about, for `store.repair`.
Kind = Literal["root", "vocab", "group", "part", "begun", "orphan", "leftover", "stray", "duplicate", "cache", "limit"]

REPAIR = "`opd-tui doctor --repair`"


class Finding(Struct, frozen=True):
    """One thing that is wrong, or worth knowing."""

    place: str  #: as people are told
    what: str  #: a sentence with the place as its subject
    severity: Severity
    remedy: str  #: what to do, "" where nothing is
    kind: Kind
    key: str  #: path inside the store of what `store.repair` would act on


class Report(Struct, frozen=True):
    """What one look at a store found."""

    path: str
    deep: bool
    n_parts: int
    n_files: int
    n_bytes: int  #: read and compared; 0 for a shallow look
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """True where there is no damage."""
        return all(finding.severity != "damage" for finding in self.findings)
