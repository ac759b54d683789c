"""The ``domicile`` command. Exit codes: 0 fine, 1 a check failed, 2 usage."""

from __future__ import annotations

import os

import typer

from serving.cli.audit import audit_app
from serving.cli.chat import chat
from serving.cli.doctor import doctor
from serving.cli.egress import egress_app
from serving.cli.keys import key_app
from serving.cli.loadtest import loadtest
from serving.cli.models import models_app
from serving.cli.organisations import org_app
from serving.cli.receipt import receipt_app
from serving.cli.simulate import simulate
from serving.cli.status import status
from serving.cli.up import down, up
from serving.settings import hush

app = typer.Typer(
    name="domicile",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Every country its own ChatGPT-style API, from its own soil.",
)
app.command()(up)
app.command()(down)
app.command()(status)
app.command()(doctor)
app.command()(chat)
app.command()(loadtest)
app.command()(simulate)
app.add_typer(org_app, name="org")
app.add_typer(key_app, name="key")
app.add_typer(models_app, name="models")
app.add_typer(egress_app, name="egress")
app.add_typer(audit_app, name="audit")
app.add_typer(receipt_app, name="receipt")


def main() -> None:
    # What the command makes, and what every process that it starts makes, is its user's alone.
    os.umask(0o077)
    hush()
    app()
