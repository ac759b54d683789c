"""``domicile models``: checkpoints without a hub."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from serving.cli.output import emit_json, errors, fail
from serving.cli.tenancy import AsJson
from serving.engine.models import BUNDLED, ModelError, prepare
from serving.settings import Settings

models_app = typer.Typer(no_args_is_help=True, help="Checkpoints that come with the pinned packages.")


@models_app.callback()
def models() -> None:
    """Checkpoints that come with the pinned packages."""


@models_app.command("prepare")
def prepare_models(
    names: Annotated[list[str] | None, typer.Argument(metavar="[MODEL]…", help="All bundled ones by default.")] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Check the digest of every file again.")] = False,
    as_json: AsJson = False,
) -> None:
    """Turn a bundled model into a checkpoint that vLLM serves. Once; safe to interrupt and to run again."""
    wanted = names or sorted(BUNDLED)
    ready = {}
    for name in wanted:
        try:
            ready[name] = prepare_with_progress(name, Settings.from_environment(), verify=verify)
        except ModelError as error:
            fail(str(error))
    if as_json:
        emit_json({"models": ready})


def prepare_with_progress(name: str, settings: Settings, *, verify: bool = False) -> str:
    """Prepare one model, with a progress bar on stderr. Returns the checkpoint's folder."""
    columns = (TextColumn("{task.fields[name]}"), BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=errors) as bar:
        task = bar.add_task("starting", total=1.0, name=name)

        def show(doing: str, done: float) -> None:
            bar.update(task, description=doing, completed=done)

        return str(prepare(name, settings.models, show, verify=verify))
