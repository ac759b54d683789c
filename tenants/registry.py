"""The countries of an installation, read from their folders."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Self

from tenants.country import METRICS_PORTS, WILDCARDS, Country
from tenants.document import read_as
from tenants.errors import Problem, TenantError, suggestion
from tenants.networks import Network, merged

FILE_NAME = "tenant.yaml"


def load_country(folder: Path) -> Country:
    """The country that ``<folder>/tenant.yaml`` describes. Raises :class:`TenantError` with all its problems."""
    path = folder / FILE_NAME
    country = read_as(Country, path, f"country {folder.name}")
    if country.code != folder.name:
        message = f"is '{country.code}', yet the folder is called '{folder.name}'"
        raise TenantError(path, [Problem("code", message)])
    return country


def find_country(root: Path, code: str) -> Country:
    """One country by its code. Unlike :class:`Registry`, it does not mind what is wrong with the others."""
    known = [path.parent.name for path in root.glob(f"*/{FILE_NAME}")]
    if code not in known:
        raise TenantError(root, [unknown_country(code, known)])
    return load_country(root / code)


class Registry:
    """Every country of an installation, by code. Immutable; iterates in code order."""

    def __init__(self, root: Path, countries: Iterable[Country]) -> None:
        self.root = root
        self._countries = {country.code: country for country in sorted(countries, key=lambda each: each.code)}
        if problems := list(_clashes(self._countries.values())):
            raise TenantError(root, problems)

    @classmethod
    def load(cls, root: Path) -> Self:
        """Read every folder of ``root`` that holds a tenant file; raise one error for all that are wrong."""
        countries: list[Country] = []
        wrong: list[TenantError] = []
        for path in sorted(root.glob(f"*/{FILE_NAME}")):
            try:
                countries.append(load_country(path.parent))
            except TenantError as error:
                wrong.append(error)
        if len(wrong) == 1:
            raise wrong[0]
        if wrong:
            raise TenantError(root, [_beneath(root, error, each) for error in wrong for each in error.problems])
        if not countries:
            raise TenantError(root, [Problem("", f"holds no country: expected folders with a {FILE_NAME}")])
        return cls(root, countries)

    def __getitem__(self, code: str) -> Country:
        return self._countries[code]

    def get(self, code: str) -> Country | None:
        """The country, or ``None`` when the installation has none of that code."""
        return self._countries.get(code)

    def __contains__(self, code: object) -> bool:
        return code in self._countries

    def __iter__(self) -> Iterator[Country]:
        return iter(self._countries.values())

    def __len__(self) -> int:
        return len(self._countries)

    def select(self, codes: Iterable[str]) -> tuple[Country, ...]:
        """The countries named, in the order named, once each. Raises :class:`TenantError` for unknown ones."""
        wanted = dict.fromkeys(codes)
        unknown = [code for code in wanted if code not in self._countries]
        if unknown:
            raise TenantError(self.root, [unknown_country(code, self._countries) for code in unknown])
        return tuple(self._countries[code] for code in wanted)


def unknown_country(code: str, known: Iterable[str]) -> Problem:
    """What to tell somebody who named a country that is not here."""
    codes = sorted(known)
    near = suggestion(code.lower(), codes)
    return Problem("", f"no country '{code}'{near or '; there are ' + (', '.join(codes) or 'none')}")


def _beneath(root: Path, error: TenantError, problem: Problem) -> Problem:
    return Problem(f"{error.path.relative_to(root)}: {problem.location}".removesuffix(": "), problem.message)


def _clashes(countries: Iterable[Country]) -> Iterator[Problem]:
    for one, other in combinations(countries, 2):
        if one.numeric == other.numeric:
            yield Problem(other.code, f"has the ISO number {one.numeric}, and so has {one.code}")
        if one.port == other.port and _same_host(one.gateway.host, other.gateway.host):
            yield Problem(other.code, f"listens on port {one.port}, and so does {one.code}")
        if one.public_address == other.public_address:
            yield Problem(other.code, f"is reached at {one.public_address}, and so is {one.code}")
        if abs(one.metrics_port - other.metrics_port) < METRICS_PORTS:
            yield Problem(
                other.code,
                f"tells its metrics on ports from {other.metrics_port} on, and {one.code} from {one.metrics_port} on: "
                f"ten belong to each",
            )
        if (endpoint := _endpoint(one)) is not None and endpoint == _endpoint(other):
            yield Problem(other.code, f"sends its telemetry to {endpoint}, and so does {one.code}")
        for network in _shared(one, other):
            yield Problem(other.code, f"calls {network} its own network, and so does {one.code}")


def _shared(one: Country, other: Country) -> list[Network]:
    """The networks of the first country, as far as they are the other's too."""
    others = merged(other.residency.networks)
    return [
        ours
        for ours in merged(one.residency.networks)
        if any(ours.version == theirs.version and ours.overlaps(theirs) for theirs in others)
    ]


def _endpoint(country: Country) -> str | None:
    collector = country.telemetry.collector
    return collector.endpoint if collector is not None else None


def _same_host(one: str, other: str) -> bool:
    return one == other or one in WILDCARDS or other in WILDCARDS
