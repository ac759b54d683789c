"""``domicile audit``: a country's log of what it did, and whether it is still what was written."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from serving.cli.output import CHECK_FAILED, USAGE, console, emit_json, emit_table, fail, note
from serving.cli.recorded import act, journal_of
from serving.cli.tenancy import AsJson, CountryCode, country_named
from serving.records import audit_verify, receipts
from serving.records.audit_verify import Verdict
from serving.records.chain import Fault
from serving.records.errors import RecordsUnavailable, Rejected
from serving.records.export import export as export_log
from serving.records.ground import RecordsGround
from serving.records.journal import Journal
from serving.records.jwks import PublicKeys
from serving.records.record import Kind, decode
from serving.records.tail import tail

audit_app = typer.Typer(help="A country's log of what it did.", no_args_is_help=True)

SHOWN = 20
SIGNING = "signing:"
"""Before a signing key's id, so that it is not taken for a caller's."""
_LONG, _SHORT = 40, 16


@audit_app.command("verify")
def verify(
    cc: CountryCode,
    at: Annotated[
        Path | None, typer.Option(metavar="DIR", help="An export, wherever the country is; needs --jwks.")
    ] = None,
    jwks: Annotated[Path | None, typer.Option(metavar="FILE", help="The country's public keys.", exists=True)] = None,
    against: Annotated[
        list[Path] | None,
        typer.Option(metavar="RECEIPT", help="A receipt that somebody holds; repeat for several.", exists=True),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Look at every record, link and signature. Exit code 1 when the log is not what was written."""
    if at is not None and jwks is None:
        fail("an export cannot vouch for the keys beside it: name the country's with --jwks", USAGE)
    with _told():
        directory = at or _ground(cc).audit_directory
        keys = _ground(cc).keys().public() if jwks is None else keys_in(jwks)
        known = _known(against or [], keys)
        verdict = audit_verify.verify(directory, keys, cc, known)
    if verdict.first is not None and any(seq < verdict.first for seq in known):
        note(f"records before {verdict.first} were removed: a receipt that is older was not held against the log")
    _conclude(verdict, as_json)


@audit_app.command("export")
def export(
    cc: CountryCode,
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A folder that is not there yet.")],
    as_json: AsJson = False,
) -> None:
    """Copy the log for an auditor, as JSON Lines with what proves it. Exit code 1 when the copy does not verify."""
    with _told():
        ground = _ground(cc)
        verdict = export_log(ground.audit_directory, directory, ground.keys().public(), cc)
    note(f"in {directory}; to verify it anywhere: domicile audit verify {cc} --at DIR --jwks FILE")
    _conclude(verdict, as_json)


@audit_app.command("show")
def show(
    cc: CountryCode,
    last: Annotated[int, typer.Option(min=1, help="How many.")] = SHOWN,
    as_json: AsJson = False,
) -> None:
    """Show the newest records, as they are: `verify` says whether to believe them."""
    with _told():
        lines = tail(_ground(cc).audit_directory, last)
    records = [json.loads(line) for line in lines if decode(line) is not None]
    if len(records) < len(lines):
        note(f"{len(lines) - len(records)} lines are no records: run domicile audit verify {cc}")
    if as_json:
        emit_json({"records": records})
    else:
        emit_table(("record", "time", "kind", "what"), (_row(record) for record in records))


@audit_app.command("rotate-key")
def rotate_key(cc: CountryCode, as_json: AsJson = False) -> None:
    """Let a new key sign the log and the receipts from now on. What the old one signed still verifies."""
    with _told():
        journal = _journal(cc)
        keys = journal.ground.keys()
        journal.append([act(Kind.KEY, action="retired", key=f"{SIGNING}{keys.current().kid}")])
        kid = keys.rotate(time.time()).kid
        journal.append([act(Kind.KEY, action="created", key=f"{SIGNING}{kid}")])
    if as_json:
        emit_json({"country": cc, "kid": kid})
    else:
        note(f"{cc} signs with key {kid} now; running gateways do so within a minute")


@audit_app.command("retain")
def retain(
    cc: CountryCode,
    days: Annotated[int, typer.Option(min=1, help="How many days of records and receipts to keep.")],
    as_json: AsJson = False,
) -> None:
    """Remove records and receipts that are older, and say so in a signed record. Whole segments go, so some stay."""
    with _told():
        journal = _journal(cc)
        journal.append([act(Kind.ADMIN, action="retention", subject=f"{days}-days")])
        segments = journal.ground.audit().retain(days)
        with journal.ground.receipts() as store:
            dropped = store.drop_before(int(time.time()) - days * 86_400)
    if as_json:
        emit_json({"country": cc, "segments": segments, "receipts": dropped})
    else:
        note(f"{cc}: {segments} segments of the log and {dropped} receipts were older, and are gone")


def keys_in(file: Path) -> PublicKeys:
    """The keys of a JWK set, or an end to the command."""
    try:
        return PublicKeys.read(file.read_bytes())
    except (OSError, ValueError) as error:
        fail(f"{file}: {error}")


def token_in(text: str) -> str:
    """The receipt itself, also out of what ``GET /v1/receipts/{id}`` answered."""
    if not text.lstrip().startswith("{"):
        return text
    try:
        return str(json.loads(text)["receipt"])
    except (ValueError, KeyError):
        return text


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except RecordsUnavailable as error:
        fail(str(error))


def _ground(cc: str) -> RecordsGround:
    return _journal(cc).ground


def _journal(cc: str) -> Journal:
    country = country_named(cc)
    journal = journal_of(country)
    if not journal.ground.audit_directory.exists():
        fail(f"{country.english_name} has no audit log yet")
    return journal


def _known(files: list[Path], keys: PublicKeys) -> dict[int, str]:
    """What receipts say of the log: each names the hash of the record before its own."""
    known = {}
    for file in files:
        try:
            receipt = receipts.verify(token_in(file.read_text("utf-8", "replace")), keys, now=time.time())
        except Rejected as error:
            fail(f"{file} is no receipt of these keys: {error}")
        known[receipt.audit.seq - 1] = receipt.audit.prev
    known.pop(0, None)
    return known


def _conclude(verdict: Verdict, as_json: bool) -> None:
    if as_json:
        emit_json(_described(verdict))
    else:
        _show(verdict)
    if not verdict.ok:
        raise typer.Exit(CHECK_FAILED)


def _show(verdict: Verdict) -> None:
    span = "no record" if verdict.first is None else f"records {verdict.first} to {verdict.last}"
    console.print(
        f"{verdict.country}: {span} in {verdict.segments} segments, {len(verdict.checkpoints)} signed checkpoints",
        soft_wrap=True,
    )
    if verdict.time is not None:
        console.print(f"the last record is from {verdict.time}", soft_wrap=True)
    if verdict.beyond:
        note(f"{verdict.beyond} records came after the signed head: a writer was cut off, and the next takes them up")
    for fault in verdict.faults:
        console.print(f"[bold red]fault[/]  {fault}", soft_wrap=True)
    console.print(
        "[green]the log is what was written[/]" if verdict.ok else "[bold red]the log is not what was written[/]"
    )


def _described(verdict: Verdict) -> dict[str, object]:
    return {
        "ok": verdict.ok,
        "country": verdict.country,
        "first": verdict.first,
        "last": verdict.last,
        "time": verdict.time,
        "records": verdict.records,
        "segments": verdict.segments,
        "checkpoints": len(verdict.checkpoints),
        "beyond_head": verdict.beyond,
        "faults": [_fault(fault) for fault in verdict.faults],
    }


def _fault(fault: Fault) -> dict[str, object]:
    place = fault.place
    return {
        "flaw": fault.flaw.value,
        "segment": place.segment,
        "line": place.line,
        "record": place.seq,
        "expected": fault.expected,
    }


def _row(record: dict[str, object]) -> tuple[str, ...]:
    fields = record["fields"]
    assert isinstance(fields, dict)
    what = "  ".join(f"{name}={_short(str(value))}" for name, value in fields.items())
    return str(record["seq"]), str(record["time"]), str(record["kind"]), what


def _short(value: str) -> str:
    """Digests and signatures, for people: `--json` has them whole."""
    return value if len(value) <= _LONG else f"{value[:_SHORT]}…"
