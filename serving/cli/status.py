"""``domicile status``: how the countries stand, seen from Ray Serve, from their own address and from the machine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime

import typer

from serving.cli.cluster import ClusterError, LocalCluster, Record
from serving.cli.inventory import actors, family_memory, titles
from serving.cli.output import CHECK_FAILED, USAGE, console, emit_json, emit_table, errors, fail, note
from serving.cli.probe import ready, stopped
from serving.cli.tenancy import AsJson
from serving.cli.up import CountryOption
from serving.settings import Settings
from tenants.country import Country
from tenants.errors import TenantError
from tenants.ground import CountryGround, GroundError
from tenants.registry import find_country
from tenants.store import StoreError

MIB = 1024**2
GATEWAY = "gateway"


@dataclass(frozen=True, slots=True)
class Deployed:
    """What Ray Serve knows of a country's application."""

    phase: str
    """As in :class:`serving.cli.serve.State`, or ``unknown`` where Ray does not answer."""
    deployments: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    message: str = ""
    drift: bool = False
    """The country's file has changed since it was deployed."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How one country stands."""

    country: str
    address: str
    phase: str
    ready: bool
    replicas: Mapping[str, Mapping[str, int]]
    """Deployment to replica state to count."""
    processes: Mapping[str, Sequence[int]]
    """Deployment to process ids."""
    memory_mib: int
    organisations: int
    live_keys: int
    drift: bool
    message: str
    raylets: Sequence[int]
    """Process ids of the country's nodes on this machine."""
    store: str
    """File of the organisations and keys, which may not be there yet."""


def status(country: CountryOption = None, as_json: AsJson = False) -> None:
    """Show how countries stand: those named, or all that are up. Exit code 0 when every one is ready."""
    settings = Settings.from_environment()
    cluster = LocalCluster(settings)
    cluster.enter()
    raylets = cluster.raylets()
    chosen, unreadable = _read(country or _present(cluster, raylets), settings)
    if country and unreadable:
        fail("\n".join(unreadable), USAGE)
    standings = _survey(chosen, cluster, settings, raylets)
    if as_json:
        emit_json({"countries": [asdict(each) for each in standings]})
    elif standings:
        _show(standings)
    for problem in unreadable:
        errors.print(problem, markup=False)
    if not standings and not unreadable:
        left = "; processes of a crash are left, see domicile doctor" if raylets else ""
        errors.print(f"nothing is up{left}; start with: domicile up")
    if unreadable or not standings or not all(each.ready for each in standings):
        raise typer.Exit(CHECK_FAILED)


def _read(codes: Iterable[str], settings: Settings) -> tuple[list[Country], list[str]]:
    """The countries, and what is wrong with the files of those that cannot be read: they may run nonetheless."""
    countries, unreadable = [], []
    for code in dict.fromkeys(codes):
        try:
            countries.append(find_country(settings.countries, code))
        except TenantError as error:
            unreadable.append(str(error))
    return countries, unreadable


def _present(cluster: LocalCluster, raylets: Mapping[str, int]) -> list[str]:
    """The countries that were deployed, or have a node by now, where the cluster lives."""
    record = cluster.record()
    return sorted({*record.applied, *raylets} - {""}) if record is not None and "" in raylets else []


def _survey(
    countries: Sequence[Country], cluster: LocalCluster, settings: Settings, raylets: Mapping[str, int]
) -> list[Standing]:
    record = cluster.record()
    living = record if record is not None and "" in raylets else None
    known = deployed(countries, living) if living is not None and countries else {}
    running = titles(cluster.processes())
    return [
        _standing(one, known.get(one.code, Deployed("absent")), settings, running, raylets.get(one.code))
        for one in countries
    ]


def deployed(countries: Iterable[Country], record: Record) -> dict[str, Deployed]:
    """Ask Ray Serve. Where it does not answer, the phases are ``unknown`` and the message says why."""
    # Imported here: Ray takes seconds, which nobody has to wait for where nothing is up.
    from serving.cli import serve

    by_code = {one.code: one for one in countries}
    try:
        with serve.joined(record):
            states = serve.states(list(by_code))
    except ClusterError as error:
        return {code: Deployed("unknown", message=str(error)) for code in by_code}
    return {
        code: Deployed(
            state.phase,
            state.deployments,
            state.message,
            drift=code in record.applied and record.applied[code] != serve.fingerprint(by_code[code]),
        )
        for code, state in states.items()
    }


def _standing(
    country: Country, state: Deployed, settings: Settings, titles: Mapping[int, str], raylet: int | None
) -> Standing:
    organisations, keys = _customers(country, settings)
    # A node without an application is what `up` has before it deploys.
    phase = "starting" if state.phase == "absent" and raylet is not None else state.phase
    names = dict.fromkeys([GATEWAY, *state.deployments, *(model.id for model in country.models)])
    # Another program may answer at the address of a country that is not up.
    serves = state.phase != "absent" and ready(country)
    return Standing(
        country=country.code,
        address=country.address,
        phase=phase,
        ready=serves,
        replicas=state.deployments,
        processes={name: pids for name, pids in actors(titles, country.code, names).items() if pids},
        memory_mib=family_memory(raylet) // MIB if raylet is not None else 0,
        organisations=organisations,
        live_keys=keys,
        drift=state.drift,
        message=state.message if serves or state.phase == "absent" else state.message or stopped(country),
        raylets=[] if raylet is None else [raylet],
        store=str(CountryGround(settings.country(country.code), country.code).store_path),
    )


def _customers(country: Country, settings: Settings) -> tuple[int, int]:
    """How many organisations there are, and how many keys that open something."""
    ground = CountryGround(settings.country(country.code), country.code)
    if not ground.store_path.exists():
        return 0, 0
    now = datetime.now(UTC)
    try:
        with ground.store() as store:
            return len(store.list_organisations()), sum(key.valid(now) for key in store.list_keys())
    except (StoreError, GroundError) as error:
        note(f"{country.code}: {error}")
        return 0, 0


def _show(standings: Sequence[Standing]) -> None:
    emit_table(
        ("country", "address", "phase", "ready", "memory", "organisations", "keys"),
        (
            (
                each.country,
                each.address,
                each.phase,
                "yes" if each.ready else "no",
                f"{each.memory_mib / 1024:.1f} GiB",
                str(each.organisations),
                str(each.live_keys),
            )
            for each in standings
        ),
    )
    rows = [
        (each.country, name, _counted(each.replicas.get(name, {})), " ".join(map(str, each.processes.get(name, ()))))
        for each in standings
        for name in sorted({*each.replicas, *each.processes})
    ]
    if rows:
        console.print()
        emit_table(("country", "deployment", "replicas", "processes"), rows)
    for each in standings:
        if each.drift:
            note(f"{each.country}: its tenant.yaml has changed since it was deployed; domicile up applies it")
        if each.message:
            note(f"{each.country}: {each.message}")


def _counted(states: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {state.lower()}" for state, count in sorted(states.items()))
