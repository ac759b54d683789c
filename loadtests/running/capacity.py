"""How much the service under test can do: the rate at which a closed loop with enough users gets its answers."""

from __future__ import annotations

from pathlib import Path

from loadtests.record import Outcome, Run
from loadtests.scenario import Scenario

WARM_UP = 0.25
"""Share of the measurement that is dropped: the users' first questions come all at once, and caches are cold."""


def measured(folder: Path, scenario: Scenario) -> dict[str, float]:
    """Finished requests a second by country, from the run in ``folder``; without those that finished none.

    A request counts for as much of it as was served in the window. Users that begin together end together, and whether
    a wave of them ends just before the window does or just after it must not decide.
    """
    end = scenario.capacity.duration_s
    begin = end * WARM_UP
    served: dict[str, float] = {}
    for record in Run.read(folder).records:
        within = min(record.ended, end) - max(record.intended, begin)
        if record.outcome is Outcome.FINISHED and within > 0:
            served[record.country] = served.get(record.country, 0.0) + within / record.end_to_end_s
    return {code: share / (end - begin) for code, share in served.items()}
