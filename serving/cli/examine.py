"""Read the countries' files and look at their grounds: what can be planned, and what is refused for whom and why."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import combinations

from serving.cli.checks.home import lacking
from serving.engine.arguments import ArgumentsRefused, check
from serving.planning.nouns import Refusal
from serving.settings import Settings
from tenants.country import Country
from tenants.errors import Problem, TenantError
from tenants.registry import FILE_NAME, clashes, load_country
from tenants.sharing import belongings, shared


def read(settings: Settings) -> tuple[dict[str, Country], dict[str, tuple[Problem, ...]]]:
    """The countries whose files can be read, and what is wrong with the files of the others."""
    countries, wrong = {}, {}
    for path in sorted(settings.countries.glob(f"*/{FILE_NAME}")):
        code = path.parent.name
        try:
            countries[code] = load_country(path.parent)
        except TenantError as error:
            wrong[code] = error.problems
    return countries, wrong


def refusals(
    countries: Mapping[str, Country],
    wrong: Mapping[str, Iterable[Problem]],
    codes: Collection[str],
    settings: Settings,
) -> Iterator[Refusal]:
    """Why some of the countries named are refused: for what their files say, and for what they share with any other."""
    for code in codes:
        yield from (_refusal(code, problem) for problem in wrong.get(code, ()))
        if code in countries:
            yield from (_refusal(code, problem) for problem in _unfit(countries[code], settings))
    owned = {code: belongings(one, settings.country(code)) for code, one in countries.items()}
    for one, other in combinations(countries, 2):
        if named := next((code for code in (other, one) if code in codes), None):
            both = [countries[one], countries[other]]
            problems = (*clashes(both), *shared({one: owned[one], other: owned[other]}))
            yield from (_refusal(named, problem) for problem in problems)


def _unfit(country: Country, settings: Settings) -> Iterator[Problem]:
    """What could not start, though the file may say it."""
    for number, model in enumerate(country.models):
        try:
            check(model.engine.arguments)
        except ArgumentsRefused as error:
            for line in str(error).splitlines():
                yield Problem(f"models[{number}].engine.arguments", line)
        if model.replicas and (told := lacking(country, model, settings.models)):
            yield Problem(f"models[{number}].source", told)


def _refusal(code: str, problem: Problem) -> Refusal:
    return Refusal(code, problem.location, problem.rule, problem.message, problem.remedy)
