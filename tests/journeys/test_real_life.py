"""What happens to a house that stands: callers leave, processes are told to end, processes are killed.

In this order, since each leaves the house as it found it and the last takes it down.
"""

from __future__ import annotations

import json
import signal
import time

import httpx
import openai
import psutil
import pytest

from tests.residency.silence import loud
from tests.running import MODEL, RunningHouse

pytestmark = [pytest.mark.ray, pytest.mark.engine, pytest.mark.timeout(900)]

LONG = {
    "model": MODEL,
    "messages": [{"role": "user", "content": "Tell a story."}],
    "temperature": 0,
    "max_tokens": 3000,
    "stream": True,
    "ignore_eos": True,
}
RECOVERY_S = 300


def test_up_again_changes_nothing(running_house: RunningHouse) -> None:
    before = {process.pid for process in running_house.processes()}
    again = running_house.domicile("up", "--json")
    assert again.code == 0, again.err
    assert {one["key"] for one in again.json()["countries"]} == {c.key for c in running_house.countries.values()}  # type: ignore[attr-defined]
    assert {process.pid for process in running_house.processes()} == before


def test_nothing_reads_logs_aloud_to_nobody(running_house: RunningHouse) -> None:
    lines = [" ".join(process.cmdline()) for process in running_house.processes()]

    assert lines
    assert not [line for line in lines if "log_monitor" in line]


def test_status_tells_how_it_stands(running_house: RunningHouse) -> None:
    status = running_house.domicile("status", "--json")
    assert status.code == 0, status.err
    assert {one["country"] for one in status.json()["countries"]} == {"ee", "kr"}  # type: ignore[attr-defined]


def test_nothing_phones_home(running_house: RunningHouse) -> None:
    """R8 in the processes that run, not only in what asked for them."""
    for title in ("gateway", MODEL):
        for code in running_house.countries:
            family = running_house.actor(code, title)
            for process in (family, *family.children(recursive=True)):
                assert loud(process) == {}


def test_countries_of_one_cluster_keep_to_themselves(running_house: RunningHouse) -> None:
    """R8: nobody abroad, and nobody of another country, is at the other end of any connection."""
    for code in running_house.countries:
        seen = running_house.domicile("doctor", "--egress", code, "--watch", "2", "--json")
        assert seen.code == 0, seen.out
        document = json.loads(seen.out)
        assert document["samples"] > 1
        peers = {one["peer"] for one in document["connections"]}
        assert {"own", "head"} <= peers <= {"own", "head", "loopback"}


def test_a_replica_serves_nobody_without_a_claim(running_house: RunningHouse) -> None:
    """R4 on the real engine, and what vLLM's own application leaves open (row 12)."""
    private = running_house.replica_url("ee")
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}]}
    key = {"authorization": f"Bearer {running_house.countries['ee'].key}"}
    assert httpx.post(f"{private}/v1/chat/completions", json=body, headers=key).status_code == 403
    for path in ("/invocations", "/pause", "/v1/models", "/metrics", "/health"):
        assert httpx.post(private + path, json=body, headers=key).status_code == 404
        assert httpx.get(private + path, headers=key).status_code == 404


def test_a_caller_who_leaves_ends_the_generation(running_house: RunningHouse) -> None:
    country = running_house.countries["ee"]
    with country.http() as client, client.stream("POST", "/v1/chat/completions", json=LONG) as answer:
        lines = answer.iter_lines()
        for _ in range(10):
            next(lines)
    # 3,000 tokens take minutes here: an engine that has fallen silent was told to stop.
    workers = _engine(running_house, "ee")
    deadline = time.monotonic() + 20
    while (busy := _busy(workers)) > 0.15 and time.monotonic() < deadline:
        time.sleep(0.5)
    assert busy <= 0.15


def test_sigterm_lets_answers_finish(running_house: RunningHouse) -> None:
    country = running_house.countries["ee"]
    replica = running_house.actor("ee", MODEL)
    with (
        country.http() as client,
        client.stream("POST", "/v1/chat/completions", json={**LONG, "max_tokens": 60}) as answer,
    ):
        lines = (line for line in answer.iter_lines() if line)
        next(lines)
        replica.send_signal(signal.SIGTERM)
        rest = list(lines)
    assert rest[-1] == "data: [DONE]"
    assert len(rest) >= 60
    seen = country.wait_until_serving(RECOVERY_S)
    assert set(seen) <= {200, 503}
    assert running_house.actor("ee", MODEL).pid != replica.pid


def test_sigkill_means_503_and_then_service_again(running_house: RunningHouse) -> None:
    """R5: a country that is down is down; nobody else answers, and nobody else notices."""
    home, neighbour = running_house.countries["ee"], running_house.countries["kr"]
    replica = running_house.actor("ee", MODEL)
    engine = replica.children(recursive=True)
    with home.http() as client, client.stream("POST", "/v1/chat/completions", json=LONG) as answer:
        lines = (line for line in answer.iter_lines() if line)
        next(lines)
        replica.kill()
        rest = list(lines)
    assert rest[-1].startswith('data: {"error"')
    with pytest.raises(openai.InternalServerError) as refused:
        home.sdk(default_headers={"accept-language": "en"}).chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "Hello"}]
        )
    assert refused.value.status_code == 503
    assert refused.value.code == "server_is_overloaded"
    assert int(refused.value.response.headers["retry-after"]) > 0
    assert refused.value.response.headers["x-domicile-country"] == "ee"
    abroad = neighbour.sdk().chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "Hello"}], max_tokens=4
    )
    assert abroad.choices
    assert set(home.wait_until_serving(RECOVERY_S)) <= {200, 503}
    _, alive = psutil.wait_procs(engine, timeout=10)
    assert not alive, "the killed replica's engine must not live on"


def test_a_gateway_that_is_killed_comes_back(running_house: RunningHouse) -> None:
    country = running_house.countries["kr"]
    running_house.actor("kr", "gateway").kill()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"{country.address}/readyz", timeout=5).status_code == 200:
                break
        except httpx.TransportError:
            time.sleep(0.5)
    assert set(country.wait_until_serving(30)) <= {200, 503}


def test_down_leaves_nothing(running_house: RunningHouse) -> None:
    # By kinship, since that is not how `down` finds them: Ray's agents carry no mark that could be read.
    family = {child for one in running_house.processes() for child in (one, *one.children(recursive=True))}
    stranger = psutil.Popen(["sleep", "60"])
    try:
        down = running_house.domicile("down", "--json")
        assert down.code == 0, down.err
        assert down.json()["ended"]
        assert running_house.processes() == []
        _, alive = psutil.wait_procs(family, timeout=0)
        assert not alive
        assert stranger.is_running()
    finally:
        stranger.kill()
        stranger.wait()
    assert running_house.domicile("status").code == 1


def _engine(house: RunningHouse, country: str) -> list[psutil.Process]:
    return list(house.actor(country, MODEL).children(recursive=True))


def _busy(processes: list[psutil.Process], over_s: float = 1.0) -> float:
    """Cores that the processes use together."""
    before = [process.cpu_times() for process in processes]
    time.sleep(over_s)
    after = [process.cpu_times() for process in processes]
    used: float = sum(b.user + b.system - a.user - a.system for a, b in zip(before, after, strict=True))
    return used / over_s
