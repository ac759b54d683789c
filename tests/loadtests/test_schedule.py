"""A schedule holds everything that its scenario asks for, once for each side, and is the same each time."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtests.record import OURS, Arrival, Kind
from loadtests.scenario import Scenario, load_scenario, shipped
from loadtests.schedule import SIDE_SERIALS, Schedule, Span, aborts, home, make
from loadtests.targets import Targets
from tenants.errors import TenantError

Given = Mapping[str, Any]
LENGTHS = {"trace": "azure-conversation"}


def stream(group: str = "acme", **given: Any) -> dict[str, Any]:
    return {"organisations": group, "arrivals": {"rate": 4.0}, **given}


def phase(*traffic: Given, name: str = "steady", duration_s: float = 60.0, **given: Any) -> dict[str, Any]:
    return {"name": name, "duration_s": duration_s, "traffic": list(traffic), **given}


def scenario(*phases: Given, count: int = 3, **given: Any) -> Scenario:
    groups = [{"id": "acme", "count": count}, {"id": "flood"}]
    content = {"name": "trial", "title": "A trial", "organisations": groups, "phases": list(phases), **given}
    return Scenario.model_validate(content)


def country(code: str, names: Sequence[str] = (), **given: Any) -> dict[str, Any]:
    organisations = [{"id": name, "key": "k"} for name in names]
    return {"code": code, "base_url": "http://127.0.0.1:1", "model": "m", "organisations": organisations, **given}


def targets(*countries: Given, sides: Sequence[str] = (OURS,), slice_s: float = 15.0) -> Targets:
    places = list(countries) or [country("ee")]
    return Targets.model_validate(
        {"slice_s": slice_s, "sides": [{"name": name, "countries": places} for name in sides]}
    )


def made(*phases: Given, on: Targets | None = None, seed: int = 1, **given: Any) -> Schedule:
    return make(scenario(*phases, **given), on or targets(), seed, {})


def problems(given: Scenario, on: Targets, capacity: Mapping[str, float] | None = None) -> str:
    with pytest.raises(TenantError) as raised:
        make(given, on, 1, capacity or {})
    return str(raised.value)


def of_side(side: str, schedule: Schedule) -> tuple[list[Arrival], list[float]]:
    """What must be equal on all sides: all but whose it is, and the times within the phases."""
    offsets: dict[Span, float] = {}
    reached: dict[str, float] = {}
    for span in (span for span in schedule.phases if span.side == side):
        before = reached.get(span.name, 0.0)
        offsets[span] = before - span.begin
        reached[span.name] = before + span.end - span.begin
    found: list[tuple[Arrival, float]] = []
    for one in (one for one in schedule.arrivals if one.side == side):
        (span,) = (span for span in offsets if span.name == one.phase and span.begin <= one.at < span.end)
        serial, session = one.serial % SIDE_SERIALS, one.session % SIDE_SERIALS
        found.append((replace(one, at=0, side="", serial=serial, session=session, prefix=0), one.at + offsets[span]))
    found.sort(key=lambda pair: pair[0].serial)
    return [one for one, _ in found], [at for _, at in found]


STREAMS = st.builds(
    lambda group, kind, arrivals, lengths, turns: stream(
        group, kind=kind, arrivals=arrivals, lengths=lengths, turns=turns
    ),
    st.sampled_from(["acme", "flood"]),
    st.sampled_from([kind for kind in Kind if kind is not Kind.FOREIGN]),
    st.one_of(
        st.fixed_dictionaries(
            {
                "process": st.sampled_from(["constant", "poisson", "gamma", "diurnal"]),
                "rate": st.floats(0.1, 8),
                "cv": st.floats(0.2, 5),
                "skew": st.floats(0, 2),
            }
        ),
        st.fixed_dictionaries({"users": st.integers(1, 5)}),
        st.fixed_dictionaries({"process": st.just("ramp"), "load": st.floats(0.1, 1), "until_load": st.floats(0.1, 1)}),
    ),
    st.one_of(
        st.fixed_dictionaries(
            {"trace": st.sampled_from(["azure-conversation", "azure-code", "mooncake-conversation", "servegen"])}
        ),
        st.fixed_dictionaries({"prompt": st.integers(1, 99), "output": st.integers(1, 9), "shared": st.floats(0, 1)}),
    ),
    st.integers(1, 64),
)
PHASES = st.lists(st.tuples(st.floats(0.5, 40), st.lists(STREAMS, max_size=3), st.booleans()), min_size=1, max_size=3)


@given(
    phases=PHASES,
    sides=st.integers(1, 3),
    codes=st.sampled_from([["ee"], ["ee", "kr"], ["kr", "ee", "br"]]),
    slice_s=st.floats(0.5, 30),
    seed=st.integers(0, 2**40),
)
@settings(max_examples=60, deadline=None)
def test_nothing_is_lost_doubled_or_out_of_place(
    phases: list[tuple[float, list[Given], bool]], sides: int, codes: list[str], slice_s: float, seed: int
) -> None:
    described = [
        phase(*traffic, name=f"p{number}", duration_s=duration_s, judged=judged)
        for number, (duration_s, traffic, judged) in enumerate(phases)
    ]
    given = scenario(*described, countries=codes)
    names = [OURS, "stock", "other"][:sides]
    on = targets(*(country(code) for code in codes), sides=names, slice_s=slice_s)
    capacity = dict.fromkeys(codes, 5.0)
    found = make(given, on, seed, capacity)

    assert found == make(given, on, seed, capacity)
    assert [one.at for one in found.arrivals] == sorted(one.at for one in found.arrivals)
    assert found.duration_s == pytest.approx(given.duration_s * sides)
    assert found.phases[0].begin == 0
    assert all(one.end == other.begin for one, other in pairwise(found.phases))
    assert all(span.end > span.begin for span in found.phases)
    if sides > 1:
        assert all(span.end - span.begin <= slice_s * (1 + 1e-9) for span in found.phases)
    serials = Counter(one.serial for one in found.arrivals)
    assert not serials or max(serials.values()) == 1
    assert 0 not in serials
    reserved = [serial for one in found.arrivals for serial in turns(one, found)]
    assert len(set(reserved)) == len(reserved)
    assert all(one.shared_tokens <= one.prompt_tokens for one in found.arrivals)
    alone = make(given, targets(*(country(code) for code in codes)), seed, capacity)
    wanted, times = of_side(OURS, alone)
    for name in names:
        same, when = of_side(name, found)
        assert same == wanted
        assert when == pytest.approx(times, abs=1e-6)
    closed = sum("users" in traffic["arrivals"] for one in described for traffic in one["traffic"])
    assert len(alone.loops) == closed * len(codes)
    assert {(loop.side, loop.begin, loop.end) for loop in found.loops} <= {
        (span.side, span.begin, span.end) for span in found.phases
    }
    blocks = sorted((loop.serials.start, loop.serials.stop) for loop in found.loops)
    assert all(stop <= start for (_, stop), (start, _) in pairwise(blocks))


def turns(first: Arrival, schedule: Schedule) -> range:
    """The serials that an arrival and its later turns use."""
    several = first.kind in (Kind.CONVERSATION, Kind.AGENT)
    return range(first.serial, first.serial + (schedule.stream_of(first).turns if several else 1))


def test_each_country_has_a_stream_of_its_own_of_the_same_rate() -> None:
    found = made(phase(stream(), duration_s=500), on=targets(country("ee"), country("kr")), countries=["ee", "kr"])
    times = {code: [one.at for one in found.arrivals if one.country == code] for code in ("ee", "kr")}
    assert len(times["ee"]) == pytest.approx(2000, rel=0.1)
    assert len(times["kr"]) == pytest.approx(2000, rel=0.1)
    assert not set(times["ee"]) & set(times["kr"])


def test_another_seed_is_another_schedule() -> None:
    one, other = (made(phase(stream(lengths=LENGTHS)), seed=seed) for seed in (1, 2))
    assert [a.at for a in one.arrivals] != [a.at for a in other.arrivals]
    assert [a.prompt_tokens for a in one.arrivals] != [a.prompt_tokens for a in other.arrivals][: len(one.arrivals)]


def test_a_stream_added_later_leaves_the_others_as_they_were() -> None:
    alone = made(phase(stream()))
    beside = made(phase(stream(), stream("flood", arrivals={"rate": 20})))
    assert list(alone.arrivals) == [one for one in beside.arrivals if one.organisation != "flood"]


@pytest.mark.parametrize(("skew", "first"), [(0.0, 1 / 3), (1.0, 6 / 11), (2.0, 36 / 49)])
def test_organisations_have_their_shares(skew: float, first: float) -> None:
    found = made(phase(stream(arrivals={"rate": 20, "skew": skew}), duration_s=300))
    counts = Counter(one.organisation for one in found.arrivals)
    assert set(counts) == {"acme-1", "acme-2", "acme-3"}
    assert counts["acme-1"] / counts.total() == pytest.approx(first, abs=0.03)


def test_one_organisation_has_no_number() -> None:
    assert {one.organisation for one in made(phase(stream("flood"))).arrivals} == {"flood"}


def test_servegens_lengths_bring_its_clients_unless_the_scenario_has_its_own() -> None:
    def top(arrivals: Given) -> float:
        traffic = stream(arrivals=arrivals, lengths={"trace": "servegen"})
        counts = Counter(one.organisation for one in made(phase(traffic, duration_s=600), count=31).arrivals)
        return counts["acme-1"] / counts.total()

    assert top({"rate": 20}) == pytest.approx(0.16, abs=0.02)
    assert top({"rate": 20, "skew": 0}) == pytest.approx(1 / 31, abs=0.02)


def test_servegens_clients_are_each_bursty_in_their_own_way() -> None:
    def arrivals(**given: float) -> list[float]:
        traffic = stream(arrivals={"rate": 20, "process": "gamma", **given}, lengths={"trace": "servegen"})
        found = made(phase(traffic, duration_s=900), count=31).arrivals
        busy = Counter(one.organisation for one in found)
        return [
            cv([one.at for one in found if one.organisation == name]) for name, number in busy.items() if number > 200
        ]

    own, same = arrivals(), arrivals(cv=1.0)
    assert max(own) > 2
    assert max(same) < 1.3


def cv(times: Sequence[float]) -> float:
    gaps = [later - earlier for earlier, later in pairwise(times)]
    mean = sum(gaps) / len(gaps)
    return float((sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5 / mean)


def test_a_relative_rate_is_a_share_of_each_countrys_capacity() -> None:
    given = scenario(phase(stream(arrivals={"load": 0.5}), duration_s=1000), countries=["ee", "kr"])
    found = make(given, targets(country("ee"), country("kr")), 1, {"ee": 4, "kr": 12})
    counts = Counter(one.country for one in found.arrivals)
    assert counts["ee"] == pytest.approx(2000, rel=0.1)
    assert counts["kr"] == pytest.approx(6000, rel=0.1)


def test_a_capacity_that_the_scenario_knows_needs_no_measuring() -> None:
    given = scenario(phase(stream(arrivals={"load": 0.5}), duration_s=1000), capacity={"rate": 4.0})
    assert len(make(given, targets(), 1, {}).arrivals) == pytest.approx(2000, rel=0.1)


def test_a_relative_rate_without_a_capacity_is_refused() -> None:
    given = scenario(phase(stream(arrivals={"load": 0.5})))
    assert "phases[0].traffic[0].arrivals.load: is a share of the capacity of 'ee', which is not known" in problems(
        given, targets()
    )


@pytest.mark.parametrize("rate", [0, -1, float("nan"), float("inf")])
def test_a_capacity_that_is_no_rate_is_refused(rate: float) -> None:
    given = scenario(phase(stream(arrivals={"load": 0.5})))
    assert "must be a rate above 0" in problems(given, targets(), {"ee": rate})


def test_everything_that_the_targets_lack_is_said_at_once() -> None:
    given = scenario(phase(stream(), stream("flood")), countries=["ee", "kr"])
    said = problems(given, targets(country("ee", ["acme-1", "acme-2", "flod"])))
    assert "countries: the side 'domicile' of the targets has no country 'kr'; it has ee" in said
    assert "phases[0].traffic[0].organisations: the targets hold no key of acme-3 for 'ee'" in said
    assert "phases[0].traffic[1].organisations: the targets hold no key of flood" in said
    assert "did you mean 'flod'?" in said


def test_an_unknown_time_zone_is_refused() -> None:
    assert "unknown time zone 'Mars/Olympus'" in problems(
        scenario(phase(stream())), targets(country("ee", time_zone="Mars/Olympus"))
    )


def test_a_foreign_key_needs_a_second_country() -> None:
    given = scenario(phase(stream(kind="foreign")))
    assert "needs a second country" in problems(given, targets())


def test_a_foreign_request_always_carries_the_same_other_countrys_key() -> None:
    codes = ["ee", "kr", "br"]
    on = targets(*(country(code, ["acme-1", "acme-2", "acme-3"]) for code in codes))
    found = make(scenario(phase(stream(kind="foreign"), duration_s=100), countries=codes), on, 1, {})
    homes = Counter((one.country, home(one, on.sides[0]).code) for one in found.arrivals)
    assert all(sent != own for sent, own in homes)
    assert len(homes) == 6
    assert homes == Counter((one.country, home(one, on.sides[0]).code) for one in found.arrivals)


def test_the_sides_take_turns_and_get_the_same() -> None:
    on = targets(sides=(OURS, "stock"), slice_s=10)
    found = made(phase(stream(lengths=LENGTHS), duration_s=25), on=on)
    assert [span.side for span in found.phases] == [OURS, "stock"] * 3
    assert [span.begin for span in found.phases] == pytest.approx([25 / 3 * number for number in range(6)])
    assert found.duration_s == pytest.approx(50)
    ours, stock = ([one for one in found.arrivals if one.side == side] for side in (OURS, "stock"))
    assert [one.prompt_tokens for one in ours] == [one.prompt_tokens for one in stock]
    assert {one.prefix for one in ours}.isdisjoint(one.prefix for one in stock)


def test_later_turns_have_serials_of_their_own_on_the_same_stream() -> None:
    found = made(phase(stream(kind="conversation", turns=5), stream("flood"), duration_s=30))
    first = [one for one in found.arrivals if one.kind is Kind.CONVERSATION]
    assert all(one.session == one.serial and one.turn == 0 for one in first)
    used = {one.serial + turn for one in first for turn in range(5)}
    assert len(used) == 5 * len(first)
    assert used.isdisjoint(one.serial for one in found.arrivals if one.kind is Kind.CHAT)
    assert {found.stream_of(replace(one, serial=one.serial + 4)).turns for one in first} == {5}


def test_a_closed_loop_has_a_turn_in_each_of_its_sides_slices() -> None:
    traffic = stream(arrivals={"users": 6, "think_s": 0.5, "skew": 1.0})
    found = made(phase(traffic, duration_s=40), on=targets(sides=(OURS, "stock"), slice_s=10))
    assert not found.arrivals
    spans = {(span.side, span.begin, span.end) for span in found.phases}
    assert {(loop.side, loop.begin, loop.end) for loop in found.loops} == spans
    assert {loop.users for loop in found.loops} == {6}
    assert sum(found.loops[0].shares) == pytest.approx(1)
    ranges = sorted((loop.serials.start, loop.serials.stop) for loop in found.loops)
    assert all(stop <= start for (_, stop), (start, _) in pairwise(ranges))


@pytest.mark.parametrize(
    ("given", "share"),
    [
        ({"lengths": {"prompt": 100, "output": 5, "shared": 0.3}}, 0.3),
        ({"lengths": {"prompt": 100, "output": 5}}, 0.0),
        ({"lengths": {"prompt": 100, "output": 5}, "kind": "agent"}, 0.95),
        ({"lengths": {"trace": "mooncake-conversation", "prompt_limit": 100}}, 0.37),
        ({"lengths": {"trace": "mooncake-conversation", "prompt_limit": 100, "shared": 0.0}}, 0.0),
    ],
)
def test_prompts_share_what_they_should(given: Given, share: float) -> None:
    found = made(phase(stream(**given))).arrivals
    assert {one.shared_tokens / one.prompt_tokens for one in found} == {share}


def test_a_prefix_is_an_organisations_in_a_stream_and_lasts_over_phases() -> None:
    found = made(phase(stream(), stream()), phase(stream(), name="later"))
    prefixes = {
        (one.organisation, found.streams.index(found.stream_of(one)), one.phase): one.prefix for one in found.arrivals
    }
    by_organisation: dict[str, set[int]] = {}
    for (organisation, _, _), prefix in prefixes.items():
        by_organisation.setdefault(organisation, set()).add(prefix)
    assert not set.intersection(*by_organisation.values())
    later = {one.organisation: one.prefix for one in found.arrivals if one.phase == "later"}
    assert all(prefix in by_organisation[name] for name, prefix in later.items())


def test_clients_that_leave_are_as_many_as_told_and_the_same_on_both_sides() -> None:
    traffic = stream(arrivals={"rate": 40}, abort_share=0.25)
    found = made(phase(traffic, duration_s=100), on=targets(sides=(OURS, "stock")))
    left = {
        side: [aborts(one, found.stream_of(one)) for one in found.arrivals if one.side == side]
        for side in (OURS, "stock")
    }
    assert left[OURS] == left["stock"]
    shares = [share for share in left[OURS] if share is not None]
    assert len(shares) / len(left[OURS]) == pytest.approx(0.25, abs=0.04)
    assert all(0 < share < 1 for share in shares)


def test_nobody_leaves_where_nobody_is_told_to_and_all_where_all_are() -> None:
    stay, leave = (made(phase(stream(abort_share=share))) for share in (0.0, 1.0))
    assert {aborts(one, stay.stream_of(one)) for one in stay.arrivals} == {None}
    assert None not in {aborts(one, leave.stream_of(one)) for one in leave.arrivals}


ROWS = [
    {"at": 100, "prompt_tokens": 30, "output_tokens": 3, "organisation": "acme-2", "session": "a"},
    {"at": 101, "prompt_tokens": 50, "output_tokens": 4, "organisation": "someone", "session": "a"},
    {"at": 104, "prompt_tokens": 9000, "output_tokens": 5, "organisation": "another", "shared_tokens": 5000},
]


def traced(tmp_path: Path, **given: Any) -> Sequence[Arrival]:
    path = tmp_path / "trace.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in ROWS))
    arrivals = {"process": "trace", **given.pop("arrivals", {})}
    return made(phase(stream(trace_file=str(path), arrivals=arrivals, **given))).arrivals


def test_a_trace_is_played_as_it_was(tmp_path: Path) -> None:
    found = traced(tmp_path)
    assert [(one.at, one.prompt_tokens, one.output_tokens) for one in found] == [(0, 30, 3), (1, 50, 4), (4, 2048, 5)]
    assert [one.organisation for one in found] == ["acme-2", "acme-1", "acme-2"]
    assert [one.turn for one in found] == [0, 1, 0]
    assert found[0].session == found[1].session != 0 == found[2].session
    assert found[2].shared_tokens == 2048, "no more is shared than there is after the cut"


def test_a_traces_lengths_are_scaled_and_cut_where_the_scenario_says_so(tmp_path: Path) -> None:
    lengths = {"trace": "azure-code", "prompt_scale": 0.1, "output_scale": 2.0, "prompt_limit": 800}
    found = traced(tmp_path, lengths=lengths)
    assert [(one.prompt_tokens, one.output_tokens) for one in found] == [(3, 6), (5, 8), (800, 10)]


def test_a_trace_of_conversations_sends_their_first_turns_in_every_lap(tmp_path: Path) -> None:
    found = traced(tmp_path, kind="conversation", arrivals={"rate": 1.0})
    assert {one.turn for one in found} == {0}
    assert len(found) == 2 * 20
    assert len({one.session for one in found}) == len(found)


def test_a_trace_with_holes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text('{"at": 1}\n')
    with pytest.raises(TenantError, match="line 1: prompt_tokens is missing"):
        made(phase(stream(trace_file=str(path), arrivals={"process": "trace"})))


@pytest.mark.parametrize("name", shipped())
def test_every_scenario_that_is_shipped_can_be_played(name: str) -> None:
    given = load_scenario(name)
    on = targets(*(country(code) for code in given.countries))
    found = make(given, on, given.seed, dict.fromkeys(given.countries, 3.0))
    assert found.arrivals or found.loops
    assert {one.country for one in found.arrivals} <= set(given.countries)
