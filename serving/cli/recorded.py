"""What an operator does is in the country's audit log: told before it is done, and again where it then failed."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from serving.cli.output import fail, note
from serving.records.errors import RecordsUnavailable
from serving.records.identifiers import name
from serving.records.journal import Journal
from serving.records.record import Kind, Record, Value
from serving.records.tail import latest
from serving.settings import Settings
from tenants.country import Country

FAILED = "failed"


def journal_of(country: Country, settings: Settings | None = None) -> Journal:
    """The country's journal, where ``settings`` or else the environment says that it is."""
    return Journal.for_country(country, settings or Settings.from_environment())


def act(kind: Kind, **fields: Value) -> Record:
    """The record of something that whoever runs this command does."""
    return Record(kind, {**fields, "actor": actor()})


def actor() -> str:
    """The machine's user, as the machine knows them: the environment could say anything."""
    with suppress(KeyError):
        user = pwd.getpwuid(os.getuid()).pw_name
        if name(user):
            return user
    return f"uid-{os.getuid()}"


@contextmanager
def recorded(country: Country, *acts: Record, settings: Settings | None = None) -> Iterator[None]:
    """Record acts, then let the block do them. Where nothing can be recorded, the command ends and nothing is done."""
    journal = journal_of(country, settings)
    if acts:
        _append(journal, acts)
    try:
        yield
    except BaseException:
        if acts:
            _append(journal, [Record(each.kind, {**each.fields, "outcome": FAILED}) for each in acts])
        raise


def latest_policy(country: Country) -> str | None:
    """The policy digest that was recorded last; ``None`` where none was."""
    try:
        line = latest(journal_of(country).ground.audit_directory, Kind.POLICY)
    except RecordsUnavailable as error:
        fail(str(error))
    return None if line is None else str(line.fields["policy_digest"])


def record_ending(country: Country, *acts: Record, settings: Settings | None = None) -> None:
    """Record that something ends. It does so too where this cannot be recorded: to stop must always be possible."""
    try:
        journal_of(country, settings).append(acts)
    except RecordsUnavailable as error:
        note(f"{country.code}: this is not in the audit log: {error}")


def _append(journal: Journal, records: tuple[Record, ...] | list[Record]) -> None:
    try:
        journal.append(records)
    except RecordsUnavailable as error:
        fail(f"nothing was done, since it cannot be recorded: {error}")
