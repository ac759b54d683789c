"""``domicile plan`` and ``domicile apply``: what would change, and make it so."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import typer

from serving.cli import policies
from serving.cli.applied import last
from serving.cli.cluster import ClusterError, LocalCluster
from serving.cli.converge import Wanted, make_so
from serving.cli.examine import read, refusals
from serving.cli.observe import observe
from serving.cli.output import CHECK_FAILED, USAGE, emit_json, errors, fail, note
from serving.cli.ports import LOOPBACK
from serving.cli.showing import show, summary
from serving.cli.tenancy import AsJson
from serving.engine.arguments import ArgumentsRefused
from serving.engine.models import ModelError
from serving.planning.describe import document
from serving.planning.drift import strays
from serving.planning.nouns import Drift, Observed, Plan
from serving.planning.plan import plan as planned
from serving.records.errors import RecordsUnavailable
from serving.settings import Settings
from tenants.country import Country
from tenants.ground import GroundError
from tenants.registry import unknown_country

NOT_DONE = (ArgumentsRefused, ModelError, ClusterError, GroundError, RecordsUnavailable, OSError)
Countries = Annotated[
    list[str] | None,
    typer.Option(
        "--country", "-c", metavar="CC", help="A country's code; may be repeated.", show_default="those that run"
    ),
]


@dataclass(frozen=True, slots=True)
class Look:
    """The files, what runs, and what is to be done about the one and the other."""

    files: dict[str, Country]
    observed: Observed
    plan: Plan
    strays: tuple[Drift, ...]

    @property
    def chosen(self) -> list[Country]:
        return [self.files[each.country] for each in self.plan.countries if each.country in self.files]


def plan(country: Countries = None, as_json: AsJson = False) -> None:
    """Show what apply would change, and what it refuses and why. Changes nothing. Exit code 1 when it refuses."""
    settings = here()
    cluster = LocalCluster(settings)
    cluster.enter()
    look = look_at(country, cluster, settings)
    if as_json:
        emit_json(_document(look))
    else:
        show(look.plan, look.strays)
    if look.plan.refused:
        raise typer.Exit(CHECK_FAILED)


def apply(
    country: Countries = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before a country that runs is removed.")] = False,
    timeout: Annotated[float, typer.Option(help="Seconds to wait until every country is ready.")] = 900.0,
    as_json: AsJson = False,
) -> None:
    """Make what runs what the files say, without dropping a stream, and record it. Refuses what plan refuses."""
    settings = here()
    cluster = LocalCluster(settings)
    cluster.enter()
    look = look_at(country, cluster, settings)
    if not as_json:
        show(look.plan, look.strays)
    if look.plan.refused and as_json:
        emit_json({**_document(look), "applied": False})
    require_unrefused(look, settings, shown=True)
    if not look.plan.empty:
        wanted = Wanted(look.plan, look.files, timeout)
        _agree([each.country for each in wanted.removed], yes=yes, as_json=as_json)
        try:
            make_so(wanted, cluster, settings)
        except NOT_DONE as error:
            fail(str(error))
    if as_json:
        emit_json({**_document(look), "applied": not look.plan.empty})
    elif not look.plan.empty:
        note(f"done: {summary(look.plan)}")


def here() -> Settings:
    """The settings of an installation on one machine."""
    # The gateways are where the replicas are, so nobody else needs to reach those.
    return replace(Settings.from_environment(), private_host=LOOPBACK)


def look_at(codes: Sequence[str] | None, cluster: LocalCluster, settings: Settings) -> Look:
    """Look at the files and at what runs. Without codes, the countries that run are meant. A wrong code is usage."""
    files, wrong = read(settings)
    observed = observe(cluster, settings)
    known = {*files, *wrong, *observed.applied}
    if unknown := [code for code in codes or () if code not in known]:
        fail("\n".join(str(unknown_country(code, known)) for code in unknown), USAGE)
    if not known:
        fail(f"{settings.countries} holds no country", USAGE)
    meant = list(dict.fromkeys(codes or sorted(observed.applied)))
    # With nobody named, a file that is wrong is told of also where its country does not run.
    looked_at = meant if codes else sorted({*files, *wrong})
    found = refusals(files, wrong, looked_at, settings)
    return Look(files, observed, planned(files, meant, observed, found), tuple(strays(observed)))


def require_unrefused(look: Look, settings: Settings, *, shown: bool = False) -> None:
    """Record what is refused, and end the command with it."""
    if not look.plan.refused:
        return
    if not shown:
        show(look.plan, look.strays, errors)
    by_country = {each.country for each in look.plan.refusals}
    for code in sorted(by_country):
        kept = last(code, settings)
        former = None if kept is None else kept.applied.digest
        own = [each for each in look.plan.refusals if each.country == code]
        try:
            policies.note_refused(code, own, former, settings)
        except (RecordsUnavailable, OSError) as error:
            note(f"{code}: that it was refused cannot be recorded: {error}")
    raise typer.Exit(CHECK_FAILED)


def _agree(removed: Iterable[str], *, yes: bool, as_json: bool) -> None:
    codes = ", ".join(removed)
    if not codes or yes:
        return
    if as_json or not sys.stdin.isatty():
        fail(f"{codes} runs and would be removed: say --yes if that is meant", USAGE)
    if not typer.confirm(f"{codes} runs, and will be removed once its answers are finished. Go on?", err=True):
        fail("nothing was changed")


def _document(look: Look) -> dict[str, object]:
    strays_ = [{"kind": each.kind, "what": each.what} for each in look.strays]
    return {**document(look.plan), "strays": strays_}
