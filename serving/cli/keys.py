"""``domicile key``: the keys that organisations call with."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from serving.cli.output import USAGE, emit_json, emit_table, fail, note, stamp, when
from serving.cli.recorded import act, recorded
from serving.cli.tenancy import AsJson, CountryCode, country_named, ground_of, store_of
from serving.records.record import Kind, Record
from tenants.keyring import mint
from tenants.organisation import KeyRecord

key_app = typer.Typer(help="The keys that organisations call with.", no_args_is_help=True)

GRACE = timedelta(hours=24)

_DURATION = re.compile(r"([0-9]{1,4})([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def duration(text: str) -> timedelta:
    """``30d`` and the like. Raises :class:`typer.BadParameter`."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise typer.BadParameter(f"'{text}' is not a duration such as 90m, 24h or 30d")
    amount, unit = match.groups()
    return timedelta(**{_UNITS[unit]: int(amount)})


KeyId = Annotated[str, typer.Argument(metavar="KEY_ID", help="The key's id, as `domicile key list` shows it.")]


@key_app.command("create")
def create(
    cc: CountryCode,
    org: Annotated[str, typer.Option(help="Whose key it is.")],
    expires_in: Annotated[
        timedelta | None, typer.Option(parser=duration, metavar="DURATION", help="Such as 30d.", show_default="never")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a key and show it, this once."""
    if expires_in == timedelta():
        fail("a key that expires at once opens nothing", USAGE)
    country, now = country_named(cc), datetime.now(UTC)
    expires = None if expires_in is None else now + expires_in
    with store_of(country) as store:
        pepper = ground_of(country).pepper()
        token, key = mint(country=cc, organisation=store.organisation(org).id, pepper=pepper, now=now, expires=expires)
        with recorded(country, _act("created", key)):
            store.add_key(key)
    _show_once(token, key, as_json)


@key_app.command("list")
def list_keys(
    cc: CountryCode,
    org: Annotated[str | None, typer.Option(help="Only this organisation's.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show which keys there are. The keys themselves are kept nowhere."""
    now = datetime.now(UTC)
    with store_of(country_named(cc)) as store:
        keys = store.list_keys(org)
    if as_json:
        emit_json({"keys": [_described(key, now) for key in keys]})
    else:
        emit_table(
            ("id", "organisation", "state", "created", "expires"),
            ((key.id, key.organisation, _state(key, now), when(key.created), when(key.expires)) for key in keys),
        )


@key_app.command("revoke")
def revoke(cc: CountryCode, key_id: KeyId, as_json: AsJson = False) -> None:
    """End a key at once."""
    country, now = country_named(cc), datetime.now(UTC)
    with store_of(country) as store, recorded(country, _act("revoked", store.key(key_id))):
        key = store.revoke_key(key_id, now)
    if as_json:
        emit_json(_described(key, now))
    else:
        note(f"key {key_id} of {key.organisation} opens nothing any more")


@key_app.command("rotate")
def rotate(
    cc: CountryCode,
    key_id: KeyId,
    grace: Annotated[
        timedelta | None,
        typer.Option(parser=duration, metavar="DURATION", help="How long the old key still works.", show_default="24h"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a key that takes over from another one, and show it, this once."""
    country, now = country_named(cc), datetime.now(UTC)
    with store_of(country) as store:
        old = store.key(key_id)
        token, key = mint(country=cc, organisation=old.organisation, pepper=ground_of(country).pepper(), now=now)
        with recorded(country, _act("rotated", old), _act("created", key)):
            old = store.rotate_key(key_id, key, now + (GRACE if grace is None else grace))
    if not as_json:
        note(f"the old key {key_id} works until {when(old.expires)}")
    _show_once(token, key, as_json)


def _act(action: str, key: KeyRecord) -> Record:
    return act(Kind.KEY, action=action, key=key.id, organisation=key.organisation)


def _show_once(token: str, key: KeyRecord, as_json: bool) -> None:
    if as_json:
        emit_json({"key": token, **_described(key, key.created)})
    else:
        note(f"key {key.id} of {key.organisation}, shown this once; it expires: {when(key.expires)}")
        typer.echo(token)


def _state(key: KeyRecord, now: datetime) -> str:
    if key.revoked is not None:
        return "revoked"
    return "active" if key.valid(now) else "expired"


def _described(key: KeyRecord, now: datetime) -> dict[str, object]:
    return {
        "id": key.id,
        "country": key.country,
        "organisation": key.organisation,
        "state": _state(key, now),
        "created": stamp(key.created),
        "expires": stamp(key.expires),
        "revoked": stamp(key.revoked),
    }
