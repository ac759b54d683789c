"""R6, R7 and R11: telemetry is told at home, nothing else can have it sent elsewhere, and no text is in it."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest

from tenants.country import Collector
from tenants.country import Telemetry as Telling
from tenants.errors import TenantError
from tenants.registry import load_country
from tests.house import SHIPPED, Land, cut_after, land, lands
from tests.journeys.bodies import ASKED, CHAT, COMPLETIONS, RESPONSES
from tests.records.telemetry.collector import FakeCollector, collecting, hasty

CANARY = "kanaarilind"
PLAIN = CANARY.encode()


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCollector]:
    hasty(monkeypatch)
    with collecting() as found:
        yield found


def telling(collector: FakeCollector) -> Telling:
    return Telling(collector=Collector(endpoint=collector.endpoint), sampling=1.0)


async def page(place: Land) -> bytes:
    async with httpx.AsyncClient() as client:
        return (await client.get(f"http://127.0.0.1:{place.metrics.port}/metrics")).content


HEADERS = {
    "traceparent": f"00-{PLAIN.hex():0<32.32}-00f067aa0ba902b7-01",
    "baggage": f"word={CANARY}",
    "x-request-id": CANARY,
    "user-agent": CANARY,
    "x-canary": CANARY,
}
SAID = f"Tell me of the {CANARY}."
BODIES = (
    (CHAT, {**ASKED[CHAT], "messages": [{"role": "user", "content": SAID}], "user": CANARY}),
    (COMPLETIONS, {**ASKED[COMPLETIONS], "prompt": SAID}),
    (RESPONSES, {**ASKED[RESPONSES], "input": SAID, "metadata": {"word": CANARY}}),
    # Refused: at the door, while reading, and by the engine.
    (CHAT, {**ASKED[CHAT], "model": CANARY}),
    (CHAT, {**ASKED[CHAT], CANARY: 1}),
    (CHAT, {**ASKED[CHAT], "temperature": CANARY}),
    (CHAT, {**ASKED[CHAT], "messages": [{"role": CANARY, "content": CANARY}]}),
    (CHAT, {**ASKED[CHAT], "messages": [{"role": "user", "content": f"{CANARY} " * 5000}]}),
    (CHAT, {**ASKED[CHAT], "response_format": {"type": "json_schema", "json_schema": {"name": CANARY, "schema": {}}}}),
)


@pytest.mark.parametrize("stream", [False, True])
async def test_r7_no_word_of_a_caller_is_in_a_span_a_metric_or_a_log(
    tmp_path: Path, collector: FakeCollector, stream: bool
) -> None:
    async with land(tmp_path, "ee", replicas=2, telling=telling(collector)) as ee:
        ee.service.telemetry.hear_logs()
        async with ee.client(**HEADERS) as client:
            for endpoint, body in BODIES:
                await client.post(endpoint, json={**body, "stream": stream})
            await client.post(CHAT, content=PLAIN, headers={"content-type": "application/json"})
            await client.get(f"/v1/models/{CANARY}")
            await client.get(f"/{CANARY}", headers={"authorization": f"Bearer {CANARY}"})
            # A replica that is lost, an engine that dies saying what it had, and a record that quotes all of it.
            cut_after(ee, 2, "breaks off")
            await client.post(CHAT, json={**BODIES[0][1], "stream": stream})
            for stand in ee.stands:
                stand.engine.die()
            await client.post(CHAT, json={**BODIES[0][1], "stream": stream})
            logging.getLogger("serving.gateway.door").error("%s was asked", SAID, exc_info=ValueError(SAID))
        figures = await page(ee)
    told = collector.everything()
    assert {path for path, _ in collector.bodies} == {"/v1/traces", "/v1/metrics", "/v1/logs"}
    assert any(span.failed for span in collector.spans())
    for where in (told, figures):
        assert PLAIN not in where
        assert PLAIN.hex().encode() not in where
        assert b"acme" not in where
        assert ee.keys["acme"].encode() not in where
    assert bytes.fromhex(f"{PLAIN.hex():0<32.32}") not in told


async def test_r6_a_country_s_telemetry_goes_to_its_own_collector_only(
    tmp_path: Path, collector: FakeCollector
) -> None:
    """Two countries side by side, each with its collector: what was asked of one is not with the other's."""
    with collecting() as other:
        async with (
            lands(tmp_path / "a", "ee", telling=telling(collector)) as (ee,),
            lands(tmp_path / "b", "kr", telling=telling(other)) as (kr,),
        ):
            for place, count in ((ee, 1), (kr, 2)):
                async with place.client() as client:
                    for _ in range(count):
                        assert (await client.post(CHAT, json=ASKED[CHAT])).status_code == 200
            for told in (collector, other):
                await asyncio.to_thread(told.until, partial(_some, told))
        for told, code, count in ((collector, "ee", 1), (other, "kr", 2)):
            assert len({span.trace for span in told.spans()}) == count
            assert _countries(told) == {code}


def _some(told: FakeCollector) -> bool:
    return bool(told.spans())


def _countries(told: FakeCollector) -> set[object]:
    return {said["domicile.country"] for said in told.processes()}


@pytest.mark.parametrize(
    ("endpoint", "why"),
    [
        ("http://203.0.113.7:4318", "residency.networks, so telemetry would leave the country"),
        ("http://10.0.0.7:4318", "residency.networks"),
        ("http://collector.example:4318", "a name could be pointed abroad"),
        ("http://localhost:4318", "a name could be pointed abroad"),
        ("http://127.1:4318", "a name could be pointed abroad"),
        ("http://[::ffff:203.0.113.7]:4318", "collector.endpoint|ADDRESS:PORT"),
        ("http://0.0.0.0:4318", "residency.networks"),
        ("http://u:p@127.0.0.1:4318", "ADDRESS:PORT"),
        ("http://127.0.0.1:4318/v1/traces", "ADDRESS:PORT"),
        ("http://127.0.0.1", "ADDRESS:PORT"),
        ("ftp://127.0.0.1:4318", "ADDRESS:PORT"),
        ("https://127.0.0.1:4318", "certificate_authority"),
    ],
)
def test_r11_a_collector_that_is_not_the_country_s_own_is_refused(tmp_path: Path, endpoint: str, why: str) -> None:
    with pytest.raises(TenantError, match=why):
        _with(tmp_path, f"telemetry: {{collector: {{endpoint: '{endpoint}'}}}}")


@pytest.mark.parametrize("endpoint", ["http://10.20.3.4:4318", "http://127.0.0.1:4318", "http://[2001:db8:20::7]:4318"])
def test_r11_one_in_its_own_networks_is_taken(tmp_path: Path, endpoint: str) -> None:
    networks = "residency: {networks: ['10.20.0.0/16', '2001:db8:20::/48']}"
    _with(tmp_path, f"{networks}\ntelemetry: {{collector: {{endpoint: '{endpoint}'}}}}")


def _with(folder: Path, sections: str) -> None:
    home = folder / "ee"
    home.mkdir()
    home.joinpath("tenant.yaml").write_text((SHIPPED / "ee" / "tenant.yaml").read_text() + f"\n{sections}\n")
    load_country(home)


ASKING = """
import asyncio, sys
from pathlib import Path
from tenants.country import Collector, Telemetry
from tests.house import land
from tests.journeys.bodies import ASKED, CHAT

async def main() -> None:
    telling = Telemetry(collector=Collector(endpoint=sys.argv[2]) if sys.argv[2] else None, sampling=1.0)
    async with land(Path(sys.argv[1]), "ee", telling=telling) as ee:
        async with ee.client() as client:
            assert (await client.post(CHAT, json=ASKED[CHAT])).status_code == 200
        assert b"domicile_requests_total{" in ee.service.telemetry.page()

asyncio.run(main())
"""


@pytest.mark.parametrize("has_one", [False, True])
def test_r11_the_environment_cannot_have_telemetry_sent_elsewhere(
    tmp_path: Path, collector: FakeCollector, has_one: bool
) -> None:
    """Whatever OpenTelemetry's SDK, an exporter or an HTTP library would read, in a process of its own."""
    with collecting() as elsewhere:
        there = elsewhere.endpoint
        signals = ("", "_TRACES", "_METRICS", "_LOGS")
        environment = {
            **{f"OTEL_EXPORTER_OTLP{signal}_ENDPOINT": f"{there}{_path(signal)}" for signal in signals},
            **{f"OTEL_EXPORTER_OTLP{signal}_HEADERS": "x-canary=1" for signal in signals},
            **{f"OTEL{signal}_EXPORTER": "otlp,console" for signal in signals[1:]},
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_EXPORTER_OTLP_INSECURE": "true",
            "OTEL_RESOURCE_ATTRIBUTES": f"word={CANARY},service.name={CANARY}",
            "OTEL_SERVICE_NAME": CANARY,
            "OTEL_TRACES_SAMPLER": "always_on",
            "OTEL_SDK_DISABLED": "true",
            "OTEL_PROPAGATORS": "tracecontext,baggage",
            # What the SDK looks for as it is imported, and when its parts are made: not numbers, or too small ones.
            "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": CANARY,
            "OTEL_EXPERIMENTAL_RESOURCE_DETECTORS": "process,host,os",
            "OTEL_PYTHON_CONTEXT": CANARY,
            "OTEL_PYTHON_METER_PROVIDER": CANARY,
            "OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED": "true",
            "OTEL_METRICS_EXEMPLAR_FILTER": CANARY,
            "OTEL_METRIC_EXPORT_INTERVAL": "0",
            "OTEL_ATTRIBUTE_COUNT_LIMIT": "0",
            "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": "0",
            **dict.fromkeys(("OTEL_BSP_SCHEDULE_DELAY", "OTEL_BLRP_SCHEDULE_DELAY"), "3600000"),
            **dict.fromkeys(("OTEL_BSP_MAX_QUEUE_SIZE", "OTEL_BLRP_MAX_QUEUE_SIZE"), "1"),
            "OTEL_EXPORTER_PROMETHEUS_HOST": "0.0.0.0",
            **dict.fromkeys(("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"), there),
            "NO_PROXY": "",
            "no_proxy": "",
        }
        # The client of the test itself must not be led astray either.
        asking = ASKING.replace("ee.client()", "_client(ee)").replace(
            "asyncio.run",
            "import httpx\n\ndef _client(ee):\n    return httpx.AsyncClient(base_url=ee.url, "
            'headers={"Authorization": f"Bearer {ee.keys[\'acme\']}"}, trust_env=False)\n\nasyncio.run',
        )
        done = subprocess.run(
            [sys.executable, "-c", asking, str(tmp_path), collector.endpoint if has_one else ""],
            env={**os.environ, **environment, "PYTHONPATH": str(Path(__file__).parents[2])},
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        assert elsewhere.bodies == []
        assert elsewhere.asked == 0
    assert bool(collector.spans()) is has_one
    assert PLAIN not in collector.everything()


def _path(signal: str) -> str:
    return f"/v1/{signal[1:].lower()}" if signal else ""
