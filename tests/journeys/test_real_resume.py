"""An answer whose replica is killed halfway goes on at another replica of the same country (row 40)."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from tests.running import MODEL, RunningCountry, RunningHouse, standing

pytestmark = [pytest.mark.ray, pytest.mark.engine, pytest.mark.timeout(900)]

TOKENS = 300
ASKED = {
    "model": MODEL,
    "messages": [{"role": "user", "content": "Tell me about the sea."}],
    "temperature": 0,
    "max_tokens": TOKENS,
    "ignore_eos": True,
    "stream": True,
    "stream_options": {"include_usage": True},
}


@pytest.fixture(scope="module")
def two_replicas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHouse]:
    with standing(tmp_path_factory.mktemp("pair"), "ee", replicas=2) as house:
        yield house


def test_the_rest_of_an_answer_comes_from_the_other_replica(two_replicas: RunningHouse) -> None:
    country = two_replicas.countries["ee"]
    undisturbed = list(told(country))
    house_mates = two_replicas.actors("ee", MODEL)
    disturbed = []
    for event in told(country):
        disturbed.append(event)
        if len(disturbed) == 20:
            computing(house_mates).kill()
    assert "error" not in disturbed[-1]
    assert text(disturbed) == text(undisturbed), "greedy, so the other replica says what the first would have said"
    assert {event["id"] for event in disturbed} == {disturbed[0]["id"]}
    assert disturbed[-2]["choices"][0]["finish_reason"] == "length"
    usage, whole = disturbed[-1]["usage"], undisturbed[-1]["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (whole["prompt_tokens"], TOKENS)


def told(country: RunningCountry) -> Iterator[dict[str, Any]]:
    with country.http() as client, client.stream("POST", "/v1/chat/completions", json=ASKED) as answer:
        for line in answer.iter_lines():
            data = line.removeprefix("data: ")
            if data not in ("", "[DONE]"):
                yield json.loads(data)


def text(events: list[dict[str, Any]]) -> str:
    return "".join(event["choices"][0]["delta"].get("content") or "" for event in events if event["choices"])


def computing(replicas: list[psutil.Process]) -> psutil.Process:
    """The one whose engine works at this moment; the other one's rests."""
    before = [spent_s(replica) for replica in replicas]
    time.sleep(0.5)
    spent = {spent_s(replica) - since: replica for replica, since in zip(replicas, before, strict=True)}
    assert max(spent) > 5 * min(spent), "one of the two serves the answer"
    return spent[max(spent)]


def spent_s(replica: psutil.Process) -> float:
    """CPU time of a replica and its engine."""
    return sum(sum(one.cpu_times()[:2]) for one in (replica, *replica.children(recursive=True)))
