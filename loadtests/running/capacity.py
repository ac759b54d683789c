"""How much the service under test can do: the rate at which a closed loop with enough users gets its answers."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from loadtests.record import Outcome, Run
from loadtests.scenario import Scenario

WARM_UP = 0.25
"""Share of the measurement that is dropped: the users' first questions come all at once, and caches are cold."""


def measured(folder: Path, scenario: Scenario) -> dict[str, float]:
    """Finished requests a second by country, from the run in ``folder``; without those that finished none."""
    end = scenario.capacity.duration_s
    begin = end * WARM_UP
    finished = Counter(
        record.country
        for record in Run.read(folder).records
        if record.outcome is Outcome.FINISHED and begin <= record.ended < end
    )
    return {code: count / (end - begin) for code, count in finished.items()}
