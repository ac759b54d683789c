"""What was decided about a country whose file is no policy: it was refused, or it is gone. In the country's own log."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256

from serving.cli.recorded import act
from serving.planning.nouns import Refusal
from serving.records.ground import RecordsGround
from serving.records.record import Kind
from serving.settings import Settings
from tenants.registry import FILE_NAME


def note_removed(codes: Iterable[str], settings: Settings) -> None:
    """Record that countries are removed. Raises :class:`~serving.records.errors.RecordsUnavailable`."""
    for code in codes:
        RecordsGround(settings.country(code), code).audit().append([act(Kind.PLACEMENT, action="removed")])


def note_refused(code: str, refusals: Iterable[Refusal], former: str | None, settings: Settings) -> None:
    """Record that what a file says was refused, a record a rule. A country that never was up has no log to say it in.

    The digest is of the file's bytes: what cannot be read as a policy has no other name.
    """
    ground = RecordsGround(settings.country(code), code)
    if not ground.audit_directory.exists():
        return
    digest = f"sha256:{sha256((settings.countries / code / FILE_NAME).read_bytes()).hexdigest()}"
    before = {} if former is None else {"former_digest": former}
    rules = sorted({each.rule.lower() for each in refusals} - {""})
    named = [{"rule": rule} for rule in rules] or [{}]
    ground.audit().append(
        [act(Kind.POLICY, action="refused", policy_digest=digest, **before, **rule) for rule in named]
    )
