"""Choosing a replica, for any state of the world."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from serving.placement import Replica, Want, choose, eligible, home_of
from serving.types import Address

HERE = Address("127.0.0.1", 1)
COUNTRIES, MODELS = ("ee", "kr", "EE", ""), ("m", "n")

prefixes = st.binary(max_size=8)
wants = st.builds(
    Want,
    country=st.sampled_from(COUNTRIES),
    model=st.sampled_from(MODELS),
    prefix=prefixes,
    prompt_tokens=st.integers(0, 10_000),
)


@st.composite
def worlds(draw: st.DrawFn, *countries: str) -> list[Replica]:
    ids = draw(st.lists(st.text("abc", min_size=1, max_size=3), max_size=8, unique=True))
    return [
        Replica(
            id=id_,
            country=draw(st.sampled_from(countries or COUNTRIES)),
            model=draw(st.sampled_from(MODELS)),
            address=HERE,
            healthy=draw(st.booleans()),
            draining=draw(st.booleans()),
            outstanding_tokens=draw(st.integers(0, 100_000)),
        )
        for id_ in ids
    ]


def twins(*loads: int) -> list[Replica]:
    return [Replica(f"r{number}", "ee", "m", HERE, outstanding_tokens=load) for number, load in enumerate(loads)]


def want(prefix: bytes = b"p", prompt_tokens: int = 100) -> Want:
    return Want("ee", "m", prefix, prompt_tokens)


@given(wants, worlds())
def test_what_is_chosen_is_the_country_s_the_model_s_healthy_and_staying(asked: Want, world: list[Replica]) -> None:
    chosen = choose(asked, world)
    if chosen is None:
        assert not eligible(asked, world)
        return
    assert chosen in world
    assert (chosen.country, chosen.model, chosen.healthy, chosen.draining) == (asked.country, asked.model, True, False)


@given(wants, worlds("kr"))
def test_no_state_of_the_world_lets_a_foreign_replica_be_chosen(asked: Want, world: list[Replica]) -> None:
    assert choose(replace(asked, country="ee"), world) is None


@given(wants, worlds(), worlds("kr"))
def test_foreign_replicas_do_not_even_matter(asked: Want, world: list[Replica], foreign: list[Replica]) -> None:
    own = replace(asked, country="ee")
    others = [replace(replica, id=f"foreign-{replica.id}") for replica in foreign]
    assert choose(own, [*others, *world]) == choose(own, world)


@given(wants, worlds(), st.randoms())
def test_it_is_deterministic_whatever_the_order(asked: Want, world: list[Replica], random: Random) -> None:
    shuffled = world[:]
    random.shuffle(shuffled)
    assert choose(asked, shuffled) == choose(asked, world) == choose(asked, iter(world))


@given(prefixes, st.integers(0, 9), st.integers(2, 10))
def test_a_replica_that_goes_moves_only_its_own_prefixes(prefix: bytes, gone: int, count: int) -> None:
    before = twins(*[0] * count)
    after = [replica for replica in before if replica.id != f"r{gone}"]
    if home_of(prefix, before) != f"r{gone}":
        assert home_of(prefix, after) == home_of(prefix, before)


@given(prefixes, st.integers(1, 9))
def test_one_that_comes_takes_prefixes_and_moves_none_between_others(prefix: bytes, count: int) -> None:
    before, after = twins(*[0] * count), twins(*[0] * (count + 1))
    assert home_of(prefix, after) in (home_of(prefix, before), f"r{count}")


def test_prefixes_are_spread() -> None:
    world = twins(0, 0, 0, 0)
    homes = [home_of(str(number).encode(), world) for number in range(4000)]
    assert all(800 < homes.count(replica.id) < 1200 for replica in world)


@given(prefixes, st.integers(0, 10_000))
def test_idle_replicas_are_chosen_by_their_prefix(prefix: bytes, prompt_tokens: int) -> None:
    chosen = choose(want(prefix, prompt_tokens + 1), world := twins(0, 0, 0))
    assert chosen is not None
    assert chosen.id == home_of(prefix, world)


@given(prefixes, st.integers(0, 10_000), st.integers(1, 10_000))
def test_affinity_yields_as_soon_as_the_home_has_more_to_do_than_a_prefill(
    prefix: bytes, prompt_tokens: int, more: int
) -> None:
    home = home_of(prefix, twins(0, 0, 0))
    for extra, stays in ((prompt_tokens - 1, True), (prompt_tokens + more, False)):
        world = [
            replace(replica, outstanding_tokens=max(0, extra) if replica.id == home else 0)
            for replica in twins(0, 0, 0)
        ]
        chosen = choose(want(prefix, prompt_tokens), world)
        assert chosen is not None
        if prompt_tokens > 0:
            assert (chosen.id == home) is stays


def test_the_only_one_is_chosen_however_busy() -> None:
    assert choose(want(), twins(10**9)) == twins(10**9)[0]
