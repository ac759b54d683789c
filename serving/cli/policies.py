"""What was decided about a country's policy, in the country's own audit log: what was applied, refused and removed."""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import Iterable
from hashlib import sha256

from serving.planning.nouns import Refusal
from serving.records.ground import RecordsGround
from serving.records.record import Kind, Record
from serving.settings import Settings
from tenants.registry import FILE_NAME

_FIT = re.compile(r"[^A-Za-z0-9._:/@+-]")


def actor() -> str:
    """The operating system's name of who runs this command, as far as a record can say it."""
    try:
        name = _FIT.sub("_", pwd.getpwuid(os.getuid()).pw_name)
    except KeyError:
        name = ""
    return name[:128] if name[:1].isalnum() else f"uid:{os.getuid()}"


def note(code: str, action: str, digest: str, former: str | None, settings: Settings) -> None:
    """Record what is done. Raises :class:`~serving.records.errors.RecordsUnavailable`: then it is not to be done."""
    before = {} if former is None else {"former_digest": former}
    fields = {"action": action, "policy_digest": digest, **before, "actor": actor()}
    RecordsGround(settings.country(code), code).audit().append([Record(Kind.POLICY, fields)])


def note_refused(code: str, refusals: Iterable[Refusal], former: str | None, settings: Settings) -> None:
    """Record that what a file says was refused, a record a rule. A country that never was up has no log to say it in.

    The digest is of the file's bytes: what cannot be read as a policy has no other name.
    """
    ground = RecordsGround(settings.country(code), code)
    if not ground.audit_directory.exists():
        return
    digest = f"sha256:{sha256((settings.countries / code / FILE_NAME).read_bytes()).hexdigest()}"
    before = {} if former is None else {"former_digest": former}
    fields = {"action": "refused", "policy_digest": digest, **before, "actor": actor()}
    rules = sorted({each.rule.lower() for each in refusals} - {""})
    named = [{"rule": rule} for rule in rules] or [{}]
    ground.audit().append([Record(Kind.POLICY, {**fields, **rule}) for rule in named])
