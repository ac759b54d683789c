"""``domicile org``: the organisations that may call a country."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from serving.cli.output import USAGE, emit_json, emit_table, fail, note, stamp, when
from serving.cli.recorded import act, recorded
from serving.cli.tenancy import AsJson, CountryCode, country_named, store_of
from serving.records.record import Kind
from tenants.country import Country
from tenants.errors import suggestion
from tenants.organisation import Organisation, Plan

org_app = typer.Typer(help="The organisations that may call a country.", no_args_is_help=True)


@org_app.command("create")
def create(
    cc: CountryCode,
    org: Annotated[str, typer.Argument(metavar="ORG", help="Lower-case letters, digits and inner hyphens.")],
    plan: Annotated[Plan, typer.Option(help="What was agreed on.")] = Plan.STANDARD,
    model: Annotated[
        list[str] | None, typer.Option(help="Grant this model only; repeat for several.", show_default="all models")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Let an organisation in. It calls with keys: see `domicile key create`."""
    country = country_named(cc)
    for name in model or ():
        _require_model(country, name)
    try:
        created = Organisation(cc, org, plan, frozenset(model) if model else None, datetime.now(UTC))
    except ValueError as error:
        fail(str(error), USAGE)
    done = act(Kind.ADMIN, action="organisation_created", organisation=org, subject=plan.value)
    with store_of(country) as store, recorded(country, done):
        store.create_organisation(created)
    if as_json:
        emit_json(_described(created))
    else:
        note(f"organisation {org} may call {country.english_name}; next: domicile key create {cc} --org {org}")


@org_app.command("list")
def list_organisations(cc: CountryCode, as_json: AsJson = False) -> None:
    """Show who may call a country."""
    with store_of(country_named(cc)) as store:
        organisations = store.list_organisations()
    if as_json:
        emit_json({"organisations": [_described(each) for each in organisations]})
    else:
        emit_table(
            ("organisation", "plan", "models", "created"),
            ((each.id, each.plan, _models(each), when(each.created)) for each in organisations),
        )


def _require_model(country: Country, id: str) -> None:
    if country.model(id) is None:
        known = [model.id for model in country.models]
        hint = suggestion(id, known) or f"; there are {', '.join(known)}"
        fail(f"{country.code} has no model '{id}'{hint}")


def _models(organisation: Organisation) -> str:
    return "all" if organisation.models is None else ", ".join(sorted(organisation.models))


def _described(organisation: Organisation) -> dict[str, object]:
    return {
        "country": organisation.country,
        "id": organisation.id,
        "plan": organisation.plan.value,
        "models": None if organisation.models is None else sorted(organisation.models),
        "created": stamp(organisation.created),
    }
