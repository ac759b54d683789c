"""``domicile receipt``: what a receipt proves, found out with the country's public key and nothing else."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from serving.cli.audit import keys_in, token_in
from serving.cli.output import CHECK_FAILED, console, emit_json, emit_table
from serving.cli.tenancy import AsJson
from serving.records.errors import Check, Rejected
from serving.records.jws import LONGEST
from serving.records.receipts import TYPE, Receipt, verify

receipt_app = typer.Typer(help="The receipts that answers come with.", no_args_is_help=True)

CHECKS = {
    Check.FORM: "three parts of base64url, no JSON key twice",
    Check.ALGORITHM: "EdDSA, and no other",
    Check.TYPE: TYPE,
    Check.HEADER: "names its key, and demands nothing else",
    Check.KEY: "one of the country's published keys",
    Check.SIGNATURE: "Ed25519, made with that key",
    Check.CONTENT: "a receipt's members and no others",
    Check.TIME: "not from the future, nor later than its key",
}


@receipt_app.command("verify")
def verify_receipt(
    file: Annotated[typer.FileBinaryRead, typer.Argument(metavar="FILE|-", help="The receipt, or - for stdin.")],
    jwks: Annotated[
        Path, typer.Option(metavar="FILE", help="The country's /.well-known/jwks.json, saved.", exists=True)
    ],
    as_json: AsJson = False,
) -> None:
    """Check a receipt, offline. Exit code 1 when it proves nothing."""
    keys = keys_in(jwks)
    token = token_in(file.read(2 * LONGEST).decode("utf-8", "replace"))
    receipt, rejected = None, None
    try:
        receipt = verify(token, keys, now=time.time())
    except Rejected as error:
        rejected = error
    if as_json:
        emit_json(_described(receipt, rejected))
    else:
        _show(receipt, rejected)
    if rejected is not None:
        raise typer.Exit(CHECK_FAILED)


def _verdicts(rejected: Rejected | None) -> dict[Check, bool | None]:
    """Which checks passed; ``None`` for those that come after the one that did not."""
    order = list(CHECKS)
    failed = len(order) if rejected is None else order.index(rejected.check)
    return {check: place < failed if place <= failed else None for place, check in enumerate(order)}


def _show(receipt: Receipt | None, rejected: Rejected | None) -> None:
    words = {True: "ok", False: "FAIL", None: "-"}
    rows = [
        (words[passed], check.value, rejected.found if rejected and passed is False else CHECKS[check])
        for check, passed in _verdicts(rejected).items()
    ]
    emit_table(("", "check", "what"), rows)
    if receipt is None:
        console.print("[bold red]this proves nothing[/]")
        return
    console.print()
    emit_table(("the country says", ""), ((name, str(value)) for name, value in _said(receipt).items()))


def _described(receipt: Receipt | None, rejected: Rejected | None) -> dict[str, object]:
    return {
        "ok": rejected is None,
        "checks": [{"check": check.value, "passed": passed} for check, passed in _verdicts(rejected).items()],
        "found": None if rejected is None else rejected.found,
        "receipt": None if receipt is None else {**asdict(receipt), "audit": receipt.audit._asdict()},
    }


def _said(receipt: Receipt) -> dict[str, object]:
    usage = receipt.usage
    return {
        "receipt": receipt.id,
        "signed": f"{time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(receipt.iat))} UTC",
        "request": receipt.request,
        "country": receipt.country,
        "site, node": f"{receipt.site}, {receipt.node}",
        "organisation": receipt.organisation,
        "model": f"{receipt.model}, {receipt.model_digest}",
        "policy": receipt.policy_digest,
        "tokens": f"{usage.prompt_tokens} in ({usage.cached_tokens} cached), {usage.completion_tokens} out",
        "outcome": receipt.outcome.value,
        "audit": f"record {receipt.audit.seq}, after the line {receipt.audit.prev}",
    }
