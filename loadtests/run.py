"""One run, from the scenario to the report.

    check every endpoint → make the folder → measure the capacity, where rates are relative to it → write the plan
    → start the load generator → watch, sample, do mischief → judge → report

Whatever ends a run early, its folder is closed properly: what was in flight is recorded, and the verdict and the
report are written and say that they are of an interrupted run.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from shutil import which

from rich.console import Console
from rich.markup import escape

from loadtests import chaos, report, schedule, slo
from loadtests.chaos import Mischief
from loadtests.judging import history
from loadtests.mischief.inventory import COMMAND, NoSuchTarget
from loadtests.record import OURS, REPORT, Event, Run, Sample
from loadtests.running.capacity import measured
from loadtests.running.child import LOG, Generator
from loadtests.running.endpoints import complaints
from loadtests.running.folder import add, prepare, room_for, write_plan, zero_of
from loadtests.running.live import Board, Watch
from loadtests.running.machine import Meter
from loadtests.running.signals import Told
from loadtests.scenario import SCENARIOS, Scenario
from loadtests.schedule import Schedule, Span
from loadtests.targets import Targets
from tenants.errors import Problem, TenantError

SCENARIO = "scenario.yaml"
CAPACITY = "capacity"
"""The folder, inside the run's own, of the requests that measured the capacity: they are no part of the test."""
INTERRUPTION = "interruption"
OVERTIME_S = 60.0
"""After the last answer was waited for, before the generator is taken for stuck."""
SETTLED_S = 10.0
"""After the last answer, how long whoever samples the replicas may take to see them idle. Each is seen every second."""
TICK_S = 0.25
SAMPLE_EVERY_S = 1.0


class Stopped(Exception):
    """Why a run ended before its time."""


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be run."""

    scenario: Scenario
    targets: Targets
    targets_file: Path
    folder: Path
    seed: int
    capacity: Mapping[str, float] = field(default_factory=dict)
    """Requests a second and country, where known already."""
    inventory: Sequence[str] = COMMAND
    """The command that names the processes to which faults happen."""
    options: Sequence[str] = ()
    """For the load generator, beside what is said above."""


def begin(scenario: Scenario, targets: Targets, seed: int, capacity: Mapping[str, float], folder: Path) -> Schedule:
    """Make the run's folder, decide everything that is to be sent, and write both down as the plan.

    Raises :class:`tenants.errors.TenantError` for a folder that cannot be used, or a scenario that the targets do not
    suit.
    """
    planned = schedule.make(scenario, targets, seed, capacity)
    prepare(folder)
    room_for(planned, folder)
    write_plan(folder, scenario, targets, seed, capacity, planned.phases, planned.duration_s)
    return planned


def conclude(folder: Path) -> slo.Verdict:
    """Judge the run in ``folder``, and write the verdict, its JUnit form and the report beside it.

    Raises :class:`loadtests.record.NotARun`, and :class:`OSError` where nothing can be written.
    """
    run = Run.read(folder)
    verdict = slo.judge(run)
    slo.write(folder, verdict)
    (folder / REPORT).write_text(report.render(run, verdict), encoding="utf-8")
    return verdict


def execute(job: Job, console: Console) -> slo.Verdict:
    """Run it, showing on ``console`` how it goes.

    Raises:
        TenantError: before anything is sent, where it cannot be run.
        OSError: the disk was full before the run was over.
    """
    _rehearse(job)
    prepare(job.folder)
    (job.folder / SCENARIO).write_text(job.scenario.model_dump_json(exclude_unset=True), encoding="utf-8")
    write_plan(job.folder, job.scenario, job.targets, job.seed, {})
    with Told() as told:
        try:
            capacity = _capacity(job, console, told)
            planned = schedule.make(job.scenario, job.targets, job.seed, capacity)
            room_for(planned, job.folder)
            write_plan(job.folder, job.scenario, job.targets, job.seed, capacity, planned.phases, planned.duration_s)
            _main(job, planned, capacity, console, told)
            _settle(job.folder, told)
        except Stopped as stopped:
            console.print(f"[bold red]stopped:[/] {escape(str(stopped))}", soft_wrap=True)
        # Within the block: who presses Ctrl-C twice wants the report all the same.
        return conclude(job.folder)


def scaled(scenario: Scenario, factor: float) -> Scenario:
    """The same scenario with its phases, its faults and the capacity's measurement ``factor`` times as long."""

    def longer(seconds: float | None) -> float | None:
        return seconds if seconds is None else seconds * factor

    phases = tuple(
        phase.model_copy(
            update={
                "duration_s": phase.duration_s * factor,
                "faults": tuple(
                    fault.model_copy(update={"at_s": fault.at_s * factor, "for_s": longer(fault.for_s)})
                    for fault in phase.faults
                ),
            }
        )
        for phase in scenario.phases
    )
    capacity = scenario.capacity.model_copy(update={"duration_s": scenario.capacity.duration_s * factor})
    return scenario.model_copy(update={"phases": phases, "capacity": capacity})


def _rehearse(job: Job) -> None:
    """Find out what is wrong before the capacity is measured, with a capacity that is made up."""
    scenario, targets = job.scenario, job.targets
    if all(side.name != OURS for side in targets.sides):
        names = ", ".join(side.name for side in targets.sides)
        raise TenantError(job.targets_file, [Problem("sides", f"none is called '{OURS}', only {names}")])
    planned = schedule.make(scenario, targets, job.seed, dict.fromkeys(scenario.countries, 1.0))
    found = complaints(targets, scenario.countries)
    if found:
        raise TenantError(job.targets_file, [Problem("", one) for one in found])
    try:
        with _mischief(job, planned):
            pass
    except NoSuchTarget as error:
        raise TenantError(SCENARIOS / job.scenario.name, [Problem("", f"has faults, and {error}")]) from error


def _capacity(job: Job, console: Console, told: Told) -> Mapping[str, float]:
    """Requests a second by country: as told, as the scenario knows it, or as measured now."""
    scenario = job.scenario
    known = {code: scenario.capacity.rate for code in scenario.countries if scenario.capacity.rate is not None}
    known.update(job.capacity)
    if not scenario.measures_capacity or all(code in known for code in scenario.countries):
        return known
    folder = job.folder / CAPACITY
    prepare(folder)
    write_plan(folder, scenario, job.targets, job.seed, {})
    duration_s = scenario.capacity.duration_s
    idle = Schedule((), (), (Span("measuring the capacity", OURS, 0.0, duration_s, False),), duration_s, ())
    generator = Generator(
        folder, job.folder / SCENARIO, job.targets_file, job.seed, known, "--only-capacity", *job.options
    )
    try:
        _attend(job, folder, generator, idle, console, told)
    except Stopped as stopped:
        raise _stopped(job.folder, f"{stopped}, while the capacity was measured") from stopped
    found = {**measured(folder, scenario), **known}
    silent = [code for code in scenario.countries if not found.get(code)]
    if silent:
        what = f"{', '.join(silent)} finished no request while the capacity was measured: see {folder / LOG}"
        raise _stopped(job.folder, what)
    console.print("capacity: " + ", ".join(f"{code} {rate:.2f} requests/s" for code, rate in found.items()))
    return found


def _main(job: Job, planned: Schedule, capacity: Mapping[str, float], console: Console, told: Told) -> None:
    """Send what was planned, and do the mischief that was."""
    folder = job.folder
    try:
        with _mischief(job, planned) as (mischief, targets_file):
            generator = Generator(folder, folder / SCENARIO, targets_file, job.seed, capacity, *job.options)
            _attend(job, folder, generator, planned, console, told, mischief)
        for problem in mischief.problems if mischief else ():
            console.print(f"[yellow]not disturbed as planned:[/] {escape(problem)}")
    except NoSuchTarget as error:
        raise _stopped(folder, str(error)) from error


def _settle(folder: Path, told: Told) -> None:
    """Wait until the replicas have been sampled after the last answer, by whoever samples them."""
    latest = time.monotonic() + SETTLED_S
    while told.by is None and time.monotonic() < latest and history.unsettled(Run.read(folder)):
        told.wait(SAMPLE_EVERY_S)


@contextmanager
def _mischief(job: Job, planned: Schedule) -> Iterator[tuple[Mischief | None, Path]]:
    """What goes wrong during the run, and the targets file with the links that fail in it."""
    faults = chaos.faults_of(planned, job.scenario, job.seed)
    if not faults:
        yield None, job.targets_file
        return
    with ExitStack() as leaving:
        targets, links = leaving.enter_context(chaos.linked(job.targets, faults, job.seed))
        targets_file = leaving.enter_context(_kept_private(targets)) if links else job.targets_file
        roll_out = _found(chaos.ROLL_OUT)
        mischief = Mischief(faults, job.folder, links=links, inventory=_found(job.inventory), roll_out=roll_out)
        yield leaving.enter_context(mischief), targets_file


def _attend(
    job: Job,
    folder: Path,
    generator: Generator,
    planned: Schedule,
    console: Console,
    told: Told,
    mischief: Mischief | None = None,
) -> None:
    """Watch the generator until it has done. Raises :class:`Stopped` when it ends, or has to, before that."""
    meter, watch, sampled = Meter(), Watch(folder, planned), 0.0
    latest = time.monotonic() + planned.duration_s + job.scenario.drain_s + OVERTIME_S
    try:
        with Board(watch, planned.duration_s, console, job.scenario.name) as board:
            while generator.ended() is None:
                # Set by the generator, a little ahead, once it has read everything and could send.
                zero = zero_of(folder)
                now = time.monotonic() - zero
                board.show(now)
                if watch.generator and mischief:
                    mischief.begin(zero)
                    mischief = None
                if told.by is not None:
                    raise _stopped(folder, f"the run was interrupted ({told.by})")
                if time.monotonic() > latest:
                    raise _stopped(folder, f"the load generator was stuck: see {folder / LOG}")
                if now >= sampled:
                    sampled += SAMPLE_EVERY_S
                    add(folder, Sample(now, "machine", meter.read()))
                told.wait(TICK_S)
    finally:
        generator.stop()
    if status := generator.ended():
        words = generator.last_words()
        raise _stopped(folder, f"the load generator died with status {status}: {words} (see {folder / LOG})")


def _stopped(folder: Path, why: str) -> Stopped:
    """What is to be raised, once it stands among the run's events: before the generator's own that it was told."""
    add(folder, Event(max(0.0, time.monotonic() - zero_of(folder)), INTERRUPTION, why))
    return Stopped(why)


def _found(command: Sequence[str]) -> tuple[str, ...]:
    """The command, looked for on the path and then beside this Python, as in an environment that is not active."""
    name, *rest = command
    beside = Path(sys.executable).parent / name
    return (which(name) or (str(beside) if beside.exists() else name), *rest)


@contextmanager
def _kept_private(targets: Targets) -> Iterator[Path]:
    """The targets in a file, with their keys, outside of the run's folder and only for as long as it is needed."""
    descriptor, name = tempfile.mkstemp(prefix="domicile-targets-", suffix=".json")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(targets.model_dump_json())
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)
