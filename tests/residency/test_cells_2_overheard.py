"""The journey, second part: two organisations of one country, and what one may learn of the other (R9)."""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.proof.cells import Cells
from tests.proof.timing import BOUND, PAIRS, Comparison, compare
from tests.running import MODEL

pytestmark = [pytest.mark.prove, pytest.mark.ray, pytest.mark.engine, pytest.mark.timeout(900)]

Record = Callable[[str, object], None]
WORDS = ("sea", "stone", "winter", "harbour", "lantern", "orchard", "thunder", "meadow")
LENGTH = 160
"""Words, and nearly as many tokens: more than one block of the cache, and not more computing than a listener needs."""
WARM_UP = 5


@pytest.fixture(scope="module")
def umbra(cells: Cells) -> str:
    """The key of a second organisation."""
    cell = cells.cells["ee"]
    assert cell.domicile("org", "create", "ee", "umbra").code == 0
    made = cell.domicile("key", "create", "ee", "--org", "umbra", "--json")
    assert made.code == 0, made.err
    return str(made.json()["key"])


def fresh() -> dict[str, Any]:
    """A request as long as any other, that nobody has made before: its first words already differ."""
    drawn = random.Random(secrets.token_bytes(16))
    text = f"{secrets.token_hex(4)} {' '.join(drawn.choices(WORDS, k=LENGTH))}"
    return {"model": MODEL, "messages": [{"role": "user", "content": text}], "max_tokens": 1, "temperature": 0}


def test_r9_the_same_prompt_is_new_to_another_organisation(cells: Cells, umbra: str, record_property: Record) -> None:
    prompt = fresh()
    assert [cached(cells, key, prompt) for key in (None, umbra)] == [0, 0]
    own = [cached(cells, key, prompt) for key in (None, umbra)]
    assert min(own) > 0
    record_property("tokens taken from the cache, the second organisation's first request", 0)
    record_property("tokens taken from the cache, an organisation's own second request", min(own))


def cached(cells: Cells, key: str | None, prompt: dict[str, Any]) -> int:
    answer = cells.ask("ee", key=key, **prompt)
    assert answer.status_code == 200, answer.text
    return int(answer.json()["usage"]["prompt_tokens_details"]["cached_tokens"])


def test_r9_times_do_not_tell_what_somebody_else_has_asked(cells: Cells, umbra: str, record_property: Record) -> None:
    """Umbra times requests that demo has made just before, and fresh ones; demo times its own again."""
    with cells.world.entered(), httpx.Client(base_url=cells.countries["ee"].address, timeout=60) as client:
        rounds = [listened(client, cells.countries["ee"].key, umbra) for _ in range(WARM_UP + PAIRS)][WARM_UP:]
    asked_before, never_asked, own_again = zip(*rounds, strict=True)
    listener, control = compare(asked_before, never_asked), compare(own_again, never_asked)
    note(record_property, listener, control)
    assert control.low > 0.5 + BOUND, "even a cached answer cannot be told from a computed one: this shows nothing"
    assert not listener.different, f"times tell what somebody else has asked: {listener} of guesses are right"
    if not listener.alike:
        pytest.skip(
            f"the machine was too busy to decide: {listener} of guesses are right, {0.5 + BOUND:.0%} are allowed"
        )


def listened(client: httpx.Client, demo: str, umbra: str) -> tuple[float, float, float]:
    """One round. Times to the first token: umbra asks what demo has asked, and something fresh; demo asks again."""
    known, unknown = fresh(), fresh()
    first_token_s(client, demo, known)
    measured: dict[str, float] = {}
    kinds = {"known": (umbra, known), "unknown": (umbra, unknown), "own": (demo, known)}
    for kind in random.sample(sorted(kinds), len(kinds)):
        measured[kind] = first_token_s(client, *kinds[kind])
    return measured["known"], measured["unknown"], measured["own"]


def first_token_s(client: httpx.Client, key: str, prompt: dict[str, Any]) -> float:
    begun = time.perf_counter()
    headers = {"authorization": f"Bearer {key}"}
    with client.stream("POST", "/v1/chat/completions", json={**prompt, "stream": True}, headers=headers) as answer:
        assert answer.status_code == 200
        lines = (line for line in answer.iter_lines() if line)
        next(lines)
        took = time.perf_counter() - begun
        assert list(lines)[-1] == "data: [DONE]"
    return took


def note(record: Record, listener: Comparison, control: Comparison) -> None:
    record("pairs of answers that were timed", listener.pairs)
    record("right guesses, whether another organisation had asked the same (with its 90% interval)", str(listener))
    record("right guesses that would be too many", f"{0.5 + BOUND:.0%}")
    record("right guesses about one's own repeated requests, where the cache does help", str(control))
