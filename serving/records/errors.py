"""What can go wrong in the records room.

::

    RecordsUnavailable      nothing can be recorded now: whoever serves refuses (fail closed)
    └── CustodyError        a signing key cannot be used safely
    Rejected                a signed statement proves nothing, and which check it failed
"""

from __future__ import annotations

from enum import StrEnum


class RecordsUnavailable(Exception):
    """Nothing can be recorded now. The text names files and causes, never contents."""


class CustodyError(RecordsUnavailable):
    """A signing key, or its folder, cannot be used safely."""


class Check(StrEnum):
    """What a signed statement is held against, in this order."""

    FORM = "form"
    ALGORITHM = "algorithm"
    TYPE = "type"
    HEADER = "header"
    KEY = "key"
    SIGNATURE = "signature"
    CONTENT = "content"
    TIME = "time"


class Rejected(Exception):
    """The first check that a statement failed, and what was found. It quotes nothing that is not signed."""

    def __init__(self, check: Check, found: str) -> None:
        super().__init__(f"{check}: {found}")
        self.check = check
        self.found = found
