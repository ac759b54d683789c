"""What ``up`` and ``down`` do to a country is in its audit log."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

from serving.cli.output import note
from serving.cli.recorded import act, latest_policy, record_ending, recorded
from serving.records.record import Kind, Record
from serving.settings import Settings
from tenants.country import Country
from tenants.errors import TenantError
from tenants.registry import find_country

Deployments = Mapping[str, Mapping[str, int]]
"""Deployment to replica state to count, as Ray Serve has it."""


@contextmanager
def deploying(countries: Sequence[Country], now: Mapping[str, Deployments], *, restart: bool) -> Iterator[None]:
    """Record what a deployment changes, then let the block deploy."""
    with ExitStack() as stack:
        for one in countries:
            stack.enter_context(recorded(one, *_acts(one, now[one.code], restart=restart)))
        yield


def taking_down(codes: Sequence[str], settings: Settings) -> None:
    for code in codes:
        try:
            one = find_country(settings.countries, code)
        except TenantError as error:
            note(f"{code}: this is not in the audit log: {error}")
        else:
            record_ending(one, act(Kind.PLACEMENT, action="down"), settings=settings)


def _acts(country: Country, running: Deployments, *, restart: bool) -> list[Record]:
    """That it is deployed, under which policy where that is another one than before, and how it is scaled."""
    acts = [act(Kind.PLACEMENT, action="restart" if restart else "up")]
    former = latest_policy(country)
    if former != country.policy_digest:
        known = {} if former is None else {"former_digest": former}
        acts.append(act(Kind.POLICY, action="applied", policy_digest=country.policy_digest, **known))
    for model in country.models:
        count = running.get(model.id, {}).get("RUNNING", 0)
        if count != model.replicas:
            acts.append(act(Kind.SCALING, model=model.id, wanted=model.replicas, running=count))
    return acts
