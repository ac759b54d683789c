"""``domicile simulate``: the batching core in virtual time, without an engine and without a country that is up."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated, Literal

import typer

from serving.batching.jobs import Reason
from serving.batching.simulate import simulate as run
from serving.batching.simulation.judge import CountryResult, Figures, Quantiles, Result
from serving.batching.simulation.scenario import Scenario
from serving.batching.simulation.shipped import load_scenario
from serving.cli.output import USAGE, emit_json, emit_table, fail, note
from serving.cli.tenancy import AsJson
from serving.settings import Settings
from tenants.errors import TenantError

HEADINGS = (
    *("", "offered", "served", "429", "503", "late", "failed", "goodput"),
    *("first token", "inter-token", "tokens/s"),
)


def simulate(
    scenario: Annotated[str, typer.Argument(help="A simulation that is shipped, or a path to a .yaml file.")],
    seed: Annotated[int | None, typer.Option(min=0, help="Instead of the scenario's own.")] = None,
    scheduler: Annotated[
        Literal["fair", "vllm"] | None,
        typer.Option(help="Instead of the scenario's own: our batching core, or vLLM's first come, first served."),
    ] = None,
    duration: Annotated[
        float | None, typer.Option(min=0.001, help="Seconds in which requests come, instead of the scenario's own.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Play traffic, replicas and faults in virtual time. Exit code 0, or 2 for a scenario that cannot be played."""
    try:
        described = load_scenario(scenario, Settings.from_environment().countries)
    except TenantError as error:
        fail(str(error), USAGE)
    asked = {"seed": seed, "scheduler": scheduler, "duration_s": duration}
    chosen = described.model_copy(update={name: value for name, value in asked.items() if value is not None})
    result = run(chosen)
    if as_json:
        emit_json(asdict(result))
    else:
        _show(chosen, result)


def _show(scenario: Scenario, result: Result) -> None:
    alone = len(result.countries) == 1
    emit_table(HEADINGS, [row for country in result.countries for row in _rows(country, alone)])
    for country in result.countries:
        note(f"{country.code}: busy {_share(country.utilisation)}, fairness {_plain(country.fairness)}")
    note("Times are p50, p95 in s and ms; tokens those of prompts, answers. With --json: p99, and all organisations.")
    note(f"{result.scheduler}, seed {result.seed}, {result.duration_s:g} s of requests. {scenario.about}".strip())


def _rows(country: CountryResult, alone: bool) -> Iterator[tuple[str, ...]]:
    """A country's lines; its organisations only where it is the only one. The JSON has all."""
    yield _row(f"{country.code} × {country.replicas}", country.total)
    if len(country.classes) > 1:
        for name, figures in country.classes.items():
            yield _row(f"  {name}", figures)
    if alone:
        for name, figures in country.organisations.items():
            yield _row(f"    {name}", figures)


def _row(name: str, figures: Figures) -> tuple[str, ...]:
    refused = (figures.refused.get(Reason.OVER_SHARE, 0), figures.refused.get(Reason.OVERLOADED, 0))
    others = figures.expired + sum(figures.refused.values()) - sum(refused)
    return (
        name,
        *map(str, (figures.offered, figures.served, *refused, others, figures.failed)),
        _share(figures.goodput),
        _quantiles(figures.first_token_s, 1.0),
        _quantiles(figures.inter_token_s, 1e3),
        f"{figures.prompt_tokens_per_s:.0f}, {figures.answer_tokens_per_s:.0f}",
    )


def _quantiles(quantiles: Quantiles, unit: float) -> str:
    return ", ".join("–" if value is None else _three_digits(value * unit) for value in (quantiles.p50, quantiles.p95))


def _three_digits(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def _plain(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
