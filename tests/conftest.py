"""What journeys on the real engine share: one house for all of them, since it takes a minute to stand."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings

from serving.records.telemetry.schema import Schema
from tests.records.telemetry.collector import FakeCollector, collecting
from tests.running import RunningCountry, RunningHouse, standing

# No example fails for being slow: a busy machine says nothing about the code.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

# What the telemetry's schema does not describe is an error in a test, where it would be dropped elsewhere.
Schema.refuses = True


@pytest.fixture(scope="session")
def collector_of_ee() -> Iterator[FakeCollector]:
    """What Estonia's processes tell in the running house."""
    with collecting() as collector:
        yield collector


@pytest.fixture(scope="session")
def running_house(tmp_path_factory: pytest.TempPathFactory, collector_of_ee: FakeCollector) -> Iterator[RunningHouse]:
    """Estonia traces every request and has a collector; Korea has what a country has that says nothing of it."""
    telling = {"collector": {"endpoint": collector_of_ee.endpoint}, "sampling": 1.0}
    with standing(tmp_path_factory.mktemp("house"), "ee", "kr", telemetry={"ee": telling}) as house:
        yield house


@pytest.fixture(scope="session")
def running_country(running_house: RunningHouse) -> RunningCountry:
    """Estonia."""
    return running_house.countries["ee"]
