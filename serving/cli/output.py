"""How commands speak: tables and words for people, one JSON document for scripts, errors on stderr."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime
from typing import NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

CHECK_FAILED = 1
USAGE = 2

console = Console(highlight=False)
errors = Console(stderr=True, highlight=False, soft_wrap=True)


def fail(message: str, code: int = CHECK_FAILED) -> NoReturn:
    """Say what is wrong on stderr and leave with ``code``."""
    errors.print(f"[bold red]error:[/] {escape(message)}")
    raise typer.Exit(code)


def note(message: str) -> None:
    """A remark beside the result: on stderr, so that pipes get the result alone."""
    errors.print(escape(message), style="dim")


def emit_json(document: object) -> None:
    """The command's whole result as one JSON document on stdout."""
    typer.echo(json.dumps(document, indent=2, ensure_ascii=False))


def emit_table(headings: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    """The command's result for people."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    console.print(table)


def when(moment: datetime | None) -> str:
    """A time for people."""
    return "never" if moment is None else f"{moment:%Y-%m-%d %H:%M} UTC"


def stamp(moment: datetime | None) -> str | None:
    """A time for scripts: RFC 3339 in UTC."""
    return None if moment is None else moment.isoformat().replace("+00:00", "Z")
