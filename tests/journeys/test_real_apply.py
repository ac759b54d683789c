"""A file is edited while its country serves: plan tells, apply makes it so, no stream is dropped, and all is recorded.

In this order: each test finds the house as the one before left it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml

from tests.running import MODEL, RunningCountry, RunningHouse, standing

pytestmark = [pytest.mark.ray, pytest.mark.engine, pytest.mark.timeout(1200)]

TOKENS = 300
ANSWER = {
    "model": MODEL,
    "messages": [{"role": "user", "content": "Tell a story."}],
    "max_tokens": TOKENS,
    "stream": True,
    "ignore_eos": True,
}
APPLY_S = 900


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHouse]:
    with standing(tmp_path_factory.mktemp("apply"), "ee") as found:
        yield found


class Callers:
    """Two callers who read one answer after the other, so that streams run at every moment, until they are let go."""

    def __init__(self, country: RunningCountry) -> None:
        self.answers: list[list[str]] = []
        self._country = country
        self._enough = threading.Event()
        self._begun = threading.Barrier(3)
        self._threads = [threading.Thread(target=self._call, daemon=True) for _ in range(2)]

    def __enter__(self) -> Callers:
        for thread in self._threads:
            thread.start()
        self._begun.wait(60)
        return self

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        for thread in self._threads:
            thread.join(120)
            assert not thread.is_alive()

    def _call(self) -> None:
        first = True
        while not self._enough.is_set():
            lines: list[str] = []
            self.answers.append(lines)
            for line in self._lines():
                lines.append(line)
                if first:
                    self._begun.wait(60)
                first = False

    def _lines(self) -> Iterator[str]:
        """An answer's lines, and what broke it where something did."""
        try:
            with (
                self._country.http() as client,
                client.stream("POST", "/v1/chat/completions", json=ANSWER) as answer,
            ):
                yield f"status {answer.status_code}"
                yield from filter(None, answer.iter_lines())
        except httpx.HTTPError as error:
            yield repr(error)

    def require_whole(self) -> None:
        """Every answer came, with all its tokens, to its end."""
        assert len(self.answers) >= 2
        for lines in self.answers:
            assert lines[0] == "status 200", lines
            assert lines[-1] == "data: [DONE]", lines[-3:]
            assert len(lines) > TOKENS * 0.9


def edit(house: RunningHouse, change: Callable[[dict[str, Any]], None]) -> Path:
    file = house.settings.countries / "ee" / "tenant.yaml"
    described = yaml.safe_load(file.read_text())
    change(described)
    file.write_text(yaml.safe_dump(described, allow_unicode=True))
    return file


def planned(house: RunningHouse, code: int = 0) -> dict[str, Any]:
    ran = house.domicile("plan", "--json")
    assert ran.code == code, ran.err + ran.out
    return ran.json()


def policies(house: RunningHouse) -> list[dict[str, Any]]:
    ran = house.domicile("audit", "show", "ee", "--last", "1000", "--json")
    assert ran.code == 0, ran.err
    records: Any = ran.json()["records"]
    return [each["fields"] for each in records if each["kind"] == "policy"]


def test_nothing_is_planned_for_what_has_just_come_up(house: RunningHouse) -> None:
    plan = planned(house)
    assert plan["changes"] is False
    assert plan["refused"] is False
    assert plan["countries"][0]["drift"] == []
    assert plan["strays"] == []
    (applied,) = policies(house)
    assert applied["action"] == "applied"
    assert applied["policy_digest"] == plan["countries"][0]["policy_digest"]


def test_what_only_the_gateway_reads_leaves_the_engine_alone(house: RunningHouse) -> None:
    replica, gateway = house.actor("ee", MODEL).pid, house.actor("ee", "gateway").pid
    edit(house, lambda file: file["gateway"].update(max_body_bytes=1024 * 1024))
    (change,) = planned(house)["countries"][0]["changes"]
    assert (change["path"], change["after"]) == ("gateway.max_body_bytes", 1024 * 1024)
    with Callers(house.countries["ee"]) as callers:
        applied = house.domicile("apply", "--json", timeout_s=APPLY_S)
        assert applied.code == 0, applied.err
        assert planned(house)["changes"] is False
    callers.require_whole()
    assert house.actor("ee", MODEL).pid == replica
    assert _gone(gateway)


def test_a_promise_and_an_engine_argument_under_a_running_stream(house: RunningHouse) -> None:
    replica = house.actor("ee", MODEL).pid

    def change(file: dict[str, Any]) -> None:
        file["slo"] = {"first_token_s": 3.0}
        file["models"][0]["engine"]["arguments"]["max_model_len"] = 3072

    edit(house, change)
    (country,) = planned(house)["countries"]
    assert {each["path"] for each in country["changes"]} == {
        "slo.first_token_s",
        f"models[{MODEL}].engine.arguments.max_model_len",
    }
    assert {each["deployment"]: each["how"] for each in country["steps"]} == {"gateway": "roll", MODEL: "roll"}
    with Callers(house.countries["ee"]) as callers:
        applied = house.domicile("apply", "--json", timeout_s=APPLY_S)
        assert applied.code == 0, applied.err
        assert planned(house)["changes"] is False
    callers.require_whole()
    assert _gone(replica)
    told = policies(house)
    assert [each["action"] for each in told] == ["applied"] * 3
    assert told[-1]["former_digest"] == told[-2]["policy_digest"]
    assert told[-1]["policy_digest"] == country["policy_digest"]
    assert all(each["actor"] for each in told)


def test_a_weakening_is_refused_and_what_runs_goes_on(house: RunningHouse) -> None:
    before = {process.pid for process in house.actors("ee", "gateway")}
    edit(house, lambda file: file["models"][0]["engine"]["arguments"].update(trust_remote_code=True))
    plan = planned(house, code=1)
    (refusal,) = plan["refusals"]
    assert (refusal["country"], refusal["rule"]) == ("ee", "R8")
    assert refusal["location"] == "models[0].engine.arguments.trust_remote_code"
    for command in (("apply", "--yes"), ("up", "--country", "ee")):
        refused = house.domicile(*command)
        assert refused.code == 1
        assert "R8" in refused.out + refused.err
    assert house.countries["ee"].wait_until_serving(30) == [200]
    assert before >= {process.pid for process in house.actors("ee", "gateway")}
    edit(house, lambda file: file["models"][0]["engine"]["arguments"].pop("trust_remote_code"))
    assert planned(house)["changes"] is False
    assert [each["action"] for each in policies(house)][-2:] == ["refused"] * 2
    assert policies(house)[-1]["rule"] == "r8"
    assert house.domicile("audit", "verify", "ee").code == 0


def test_a_file_that_is_gone_takes_the_country_down_only_when_that_is_meant(house: RunningHouse) -> None:
    (house.settings.countries / "ee" / "tenant.yaml").unlink()
    (country,) = planned(house)["countries"]
    assert country["action"] == "remove"
    asked = house.domicile("apply")
    assert asked.code == 2
    assert "--yes" in asked.err
    assert house.countries["ee"].wait_until_serving(30) == [200]
    removed = house.domicile("apply", "--yes", timeout_s=APPLY_S)
    assert removed.code == 0, removed.err
    assert house.actors("ee", "gateway") == house.actors("ee", MODEL) == []
    assert "holds no country" in house.domicile("plan").err


def _gone(pid: int) -> bool:
    """Whether a process that was replaced ends, once its last answer is finished."""
    try:
        psutil.Process(pid).wait(60)
    except psutil.NoSuchProcess:
        return True
    except psutil.TimeoutExpired:
        return False
    return True
