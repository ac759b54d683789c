"""From an answer to its proof, on real vLLM and Ray, by the means that a caller, a stranger and an auditor have."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from serving.engine.models import MANIFEST
from tests.journeys.bodies import CHAT
from tests.running import DOMICILE, MODEL, Ran, RunningCountry, RunningHouse, ran

pytestmark = [pytest.mark.ray, pytest.mark.engine, pytest.mark.timeout(900)]

ASKED: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "Count to five."}], "temperature": 0}


def records(house: RunningHouse, kind: str, last: int = 1000) -> list[dict[str, Any]]:
    shown: Any = house.domicile("audit", "show", "ee", "--last", str(last), "--json").json()
    return [record["fields"] for record in shown["records"] if record["kind"] == kind]


def stranger(folder: Path, *words: str | Path) -> Ran:
    """A command of somebody who has the program, and nothing of the country's but what they were given."""
    environment = {**os.environ, "DOMICILE_HOME": str(folder / "empty")}
    return ran(DOMICILE, *map(str, words), environment=environment)


def fetched(client: httpx.Client, receipt: str, folder: Path) -> Path:
    answer = client.get(f"/v1/receipts/{receipt}")
    assert answer.status_code == 200, answer.text
    file = folder / receipt
    file.write_bytes(answer.content)
    return file


def keys(client: httpx.Client, folder: Path) -> Path:
    file = folder / "jwks.json"
    file.write_bytes(httpx.get(f"{client.base_url}/.well-known/jwks.json").content)
    return file


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_its_receipt_and_a_stranger_who_verifies_it(
    running_house: RunningHouse, tmp_path: Path, stream: bool
) -> None:
    country = running_house.countries["ee"]
    options: Any = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
    raw = country.sdk().chat.completions.with_raw_response.create(**ASKED, **options, max_tokens=12)
    parsed: Any = raw.parse()
    usage = [chunk.usage for chunk in parsed][-1] if stream else parsed.usage
    with country.http() as client:
        file, jwks = fetched(client, raw.headers["x-domicile-receipt"], tmp_path), keys(client, tmp_path)
    verified = stranger(tmp_path, "receipt", "verify", file, "--jwks", jwks, "--json")
    assert verified.code == 0, verified.out + verified.err
    said: Any = verified.json()["receipt"]
    assert said["usage"] == {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "cached_tokens": usage.prompt_tokens_details.cached_tokens,
    }
    assert (said["country"], said["organisation"], said["model"]) == ("ee", "demo", MODEL)
    assert (said["outcome"], said["request"]) == ("completed", raw.headers["x-request-id"])
    manifest = json.loads((running_house.settings.models / MODEL / MANIFEST).read_text())
    assert said["model_digest"] == f"sha256:{manifest['digest']}"
    assert running_house.domicile("audit", "verify", "ee", "--against", str(file)).code == 0


def test_a_stream_that_did_not_ask_for_usage_is_as_it_always_was_and_is_counted(
    running_house: RunningHouse, tmp_path: Path
) -> None:
    with running_house.countries["ee"].http() as client:
        whole = client.post(CHAT, json={**ASKED, "max_tokens": 12}).json()["usage"]
        answer = client.post(CHAT, json={**ASKED, "max_tokens": 12, "stream": True})
        assert b'"usage"' not in answer.content
        assert answer.content.endswith(b"data: [DONE]\n\n")
        file, jwks = fetched(client, answer.headers["x-domicile-receipt"], tmp_path), keys(client, tmp_path)
    said: Any = stranger(tmp_path, "receipt", "verify", file, "--jwks", jwks, "--json").json()["receipt"]
    assert said["usage"]["prompt_tokens"] == whole["prompt_tokens"]
    assert said["usage"]["completion_tokens"] == whole["completion_tokens"]


def test_a_caller_who_leaves_is_accounted_for_by_the_engine(running_house: RunningHouse) -> None:
    body = {**ASKED, "max_tokens": 2000, "ignore_eos": True, "stream": True}
    with running_house.countries["ee"].http() as client, client.stream("POST", CHAT, json=body) as answer:
        request = answer.headers["x-request-id"]
        lines = (line for line in answer.iter_lines() if line)
        for _ in range(8):
            next(lines)
    deadline = time.monotonic() + 20
    while not (found := [each for each in records(running_house, "request") if each["request"] == request]):
        assert time.monotonic() < deadline, "it was never recorded"
        time.sleep(0.2)
    (record,) = found
    assert record["outcome"] == "client_left"
    assert record["prompt_tokens"] > 0
    assert 5 <= record["completion_tokens"] < 2000


def test_what_the_house_did_to_stand_here_is_in_its_log(running_house: RunningHouse) -> None:
    placed = records(running_house, "placement")
    assert {"up", "joined"} <= {each["action"] for each in placed}
    (joined,) = [each for each in placed if each["action"] == "joined"][:1]
    manifest = json.loads((running_house.settings.models / MODEL / MANIFEST).read_text())
    assert joined["model_digest"] == f"sha256:{manifest['digest']}"
    assert [each["action"] for each in records(running_house, "policy")][:1] == ["applied"]
    scaling = records(running_house, "scaling")[0]
    assert (scaling["model"], scaling["wanted"], scaling["running"]) == (MODEL, 1, 0)
    assert records(running_house, "key")[0]["action"] == "created"


def test_a_claim_that_a_real_replica_rejects_is_in_the_log(running_house: RunningHouse) -> None:
    """R4: the replica is another process, and writes to the same chain."""
    private = running_house.replica_url("ee")
    assert httpx.post(f"{private}/v1/chat/completions", json=ASKED).status_code == 403
    time.sleep(1)
    assert {each["reason"] for each in records(running_house, "refusal") if each["rule"] == "r4"} >= {"no_claim"}
    assert running_house.domicile("audit", "verify", "ee").code == 0


def test_a_flipped_bit_in_a_copy_is_found_and_located(running_house: RunningHouse, tmp_path: Path) -> None:
    with running_house.countries["ee"].http() as client:
        jwks = keys(client, tmp_path)
    copy = tmp_path / "copy"
    assert running_house.domicile("audit", "export", "ee", str(copy)).code == 0
    assert stranger(tmp_path, "audit", "verify", "ee", "--at", copy, "--jwks", jwks).code == 0
    segment = next(copy.glob("audit-*.jsonl"))
    content = bytearray(segment.read_bytes())
    before = hashlib.sha256(content).hexdigest()
    place = content.index(b'"kind":"request"') + 30
    content[place] ^= 1
    assert hashlib.sha256(content).hexdigest() != before
    segment.write_bytes(content)
    verdict = stranger(tmp_path, "audit", "verify", "ee", "--at", copy, "--jwks", jwks, "--json")
    assert verdict.code == 1
    faults: Any = verdict.json()["faults"]
    line = content[:place].count(b"\n") + 1
    assert {(fault["segment"], fault["line"]) for fault in faults} == {(segment.name, line)}


def test_a_new_signing_key_and_old_receipts_hold_and_new_ones_too(running_house: RunningHouse, tmp_path: Path) -> None:
    country = running_house.countries["ee"]
    with country.http() as client:
        old = fetched(client, _answered(client), tmp_path)
        rotated = running_house.domicile("audit", "rotate-key", "ee", "--json")
        assert rotated.code == 0, rotated.err
        new = fetched(client, _answered(client), tmp_path)
        jwks = keys(client, tmp_path)
    for file in (old, new):
        assert stranger(tmp_path, "receipt", "verify", file, "--jwks", jwks).code == 0
    assert len(json.loads(jwks.read_text())["keys"]) == 2
    assert running_house.domicile("audit", "verify", "ee").code == 0


def _answered(client: httpx.Client) -> str:
    answer = client.post(CHAT, json={**ASKED, "max_tokens": 2})
    assert answer.status_code == 200
    return answer.headers["x-domicile-receipt"]


def test_a_gateway_that_is_told_to_end_leaves_no_record_unwritten(running_house: RunningHouse) -> None:
    country = running_house.countries["kr"]
    gateway = running_house.actor("kr", "gateway")
    body = {**ASKED, "max_tokens": 60, "ignore_eos": True, "stream": True}
    with country.http() as client, client.stream("POST", CHAT, json=body) as answer:
        receipt = answer.headers["x-domicile-receipt"]
        lines = (line for line in answer.iter_lines() if line)
        next(lines)
        gateway.send_signal(signal.SIGTERM)
        rest = list(lines)
    assert rest[-1] == "data: [DONE]"
    gateway.wait(60)
    shown: Any = running_house.domicile("audit", "show", "kr", "--last", "100", "--json").json()
    (record,) = [each for each in shown["records"] if each["fields"].get("receipt") == receipt]
    assert (record["fields"]["outcome"], record["fields"]["completion_tokens"]) == ("completed", 60)
    assert any(each["kind"] == "checkpoint" and each["seq"] > record["seq"] for each in shown["records"])
    _until_ready(country)
    assert running_house.domicile("audit", "verify", "kr").code == 0


def _until_ready(country: RunningCountry) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with suppress(httpx.TransportError):
            if httpx.get(f"{country.address}/readyz", timeout=5).status_code == 200:
                return
        time.sleep(0.5)
    raise AssertionError("the gateway did not come back")
