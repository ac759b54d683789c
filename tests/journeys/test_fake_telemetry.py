"""One trace over gateway and replica, figures that are what was asked, and a country that tells nobody else."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from serving.records.record import Kind
from serving.types import Endpoint
from tenants.country import Collector
from tenants.country import Telemetry as Telling
from tests.house import Land, cut_after, land
from tests.journeys.bodies import ASKED, CHAT
from tests.loopback import events
from tests.records.telemetry.collector import FakeCollector, Span, collecting, hasty
from tests.records.telemetry.figures import Figures, figures_of, summed

ENGINE = {"queue", "prefill", "decode"}
STEPS = {"authenticate", "residency", "read", "attempt"}


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCollector]:
    hasty(monkeypatch)
    with collecting() as found:
        yield found


def telling(collector: FakeCollector, sampling: float = 1.0) -> Telling:
    return Telling(collector=Collector(endpoint=collector.endpoint), sampling=sampling, threshold=2)


@pytest_asyncio.fixture
async def ee(tmp_path: Path, collector: FakeCollector) -> AsyncIterator[Land]:
    async with land(tmp_path, "ee", telling=telling(collector)) as found:
        yield found


async def arrived(collector: FakeCollector, *names: str) -> list[Span]:
    """The spans, once there is a gateway's own and one for each of these names."""

    def there() -> bool:
        spans = collector.spans()
        came, wanted = Counter(span.name for span in spans), Counter(names)
        return wanted <= came and any(not span.parent for span in spans)

    await asyncio.to_thread(collector.until, there)
    return collector.spans()


async def figures(place: Land) -> Figures:
    """What Prometheus reads."""
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"http://127.0.0.1:{place.metrics.port}/metrics")
    assert answer.status_code == 200
    return figures_of(answer.text, place.country.code)


@pytest.mark.parametrize("endpoint", list(Endpoint))
@pytest.mark.parametrize("stream", [False, True])
async def test_one_trace_spans_gateway_and_replica(
    ee: Land, collector: FakeCollector, endpoint: Endpoint, stream: bool
) -> None:
    async with ee.client() as client:
        answer = await client.post(endpoint, json={**ASKED[endpoint], "stream": stream})
    assert answer.status_code == 200
    spans = await arrived(collector, *STEPS, *ENGINE, "replica")
    named = {span.name: span for span in spans}
    (root,) = [span for span in spans if not span.parent]
    assert len({span.trace for span in spans}) == 1
    assert {name for name, span in named.items() if span.parent == root.id} == STEPS
    assert named["replica"].parent == named["attempt"].id
    assert {name for name, span in named.items() if span.parent == named["replica"].id} == ENGINE
    assert {span.service for span in spans} == {"domicile-gateway", "domicile-replica"}
    assert root.name == ("text_completion fake" if endpoint is Endpoint.COMPLETIONS else "chat fake")
    assert root.said["domicile.request.id"] == answer.headers["x-request-id"]
    assert root.said["gen_ai.request.stream"] is stream
    assert root.begun <= named["attempt"].begun <= named["replica"].begun <= named["queue"].begun
    assert named["queue"].ended == named["prefill"].begun <= named["prefill"].ended == named["decode"].begun
    assert named["decode"].ended <= min(named["replica"].ended, root.ended)
    assert not any(span.failed for span in spans)


async def test_tokens_stand_in_the_trace_as_the_answer_tells_them(ee: Land, collector: FakeCollector) -> None:
    async with ee.client() as client:
        usage = (await client.post(CHAT, json=ASKED[CHAT])).json()["usage"]
    spans = {span.name: span for span in await arrived(collector, "prefill", "decode")}
    assert spans["chat fake"].said["gen_ai.usage.output_tokens"] == usage["completion_tokens"]
    assert spans["decode"].said["gen_ai.usage.output_tokens"] == usage["completion_tokens"]
    assert spans["prefill"].said["gen_ai.usage.input_tokens"] == usage["prompt_tokens"]


async def test_a_caller_s_trace_context_is_neither_taken_nor_passed_on(ee: Land, collector: FakeCollector) -> None:
    theirs = "4bf92f3577b34da6a3ce929d0e0e4736"
    headers = {"traceparent": f"00-{theirs}-00f067aa0ba902b7-01", "tracestate": "vendor=canary", "baggage": "a=canary"}
    async with ee.client(**headers) as client:
        assert (await client.post(CHAT, json=ASKED[CHAT])).status_code == 200
    spans = await arrived(collector, "replica", "chat fake")
    assert all(span.trace != theirs for span in spans)
    assert len({span.trace for span in spans}) == 1
    assert b"canary" not in collector.everything()


async def test_a_refusal_is_a_trace_too_and_says_which_rule(ee: Land, collector: FakeCollector) -> None:
    async with ee.client(**{"x-domicile-country": "kr"}) as client:
        assert (await client.post(CHAT, json=ASKED[CHAT])).status_code == 403
    spans = {span.name: span for span in await arrived(collector, "residency")}
    assert spans["residency"].failed
    assert spans["residency"].said["error.type"] == "data_residency_mismatch"
    found = await figures(ee)
    assert summed(found, "domicile_refusals_total", domicile_rule="r3", domicile_reason="data_residency_mismatch") == 1


async def test_a_replica_that_is_lost_and_the_one_that_serves_instead_are_two_attempts(
    tmp_path: Path, collector: FakeCollector
) -> None:
    async with land(tmp_path, "ee", replicas=2, telling=telling(collector)) as ee:
        cut_after(ee, 0)
        async with ee.client() as client:
            assert (await client.post(CHAT, json=ASKED[CHAT])).status_code == 200
        spans = await arrived(collector, "attempt", "attempt", "replica")
        first, second = sorted((one for one in spans if one.name == "attempt"), key=lambda one: one.begun)
        assert (first.failed, first.said["error.type"]) == (True, "lost")
        assert not second.failed
        assert second.id in {one.parent for one in spans if one.name == "replica"}


async def test_nothing_is_traced_where_the_dice_say_no_and_all_is_counted(
    tmp_path: Path, collector: FakeCollector
) -> None:
    async with land(tmp_path, "ee", telling=telling(collector, sampling=0.0)) as ee:
        async with ee.client() as client:
            for _ in range(3):
                assert (await client.post(CHAT, json=ASKED[CHAT])).status_code == 200
        assert all(claim.moments is None for claim in ee.engine.claims)
        assert summed(await figures(ee), "domicile_requests_total") == 3
    assert collector.spans() == []
    assert collector.metrics()["domicile.requests"].sum.data_points[0].as_double == 3


async def test_without_a_collector_the_figures_are_there_all_the_same(tmp_path: Path) -> None:
    async with land(tmp_path, "ee") as ee:
        async with ee.client() as client:
            assert (await client.post(CHAT, json=ASKED[CHAT])).status_code == 200
        assert summed(await figures(ee), "domicile_requests_total", domicile_outcome="served") == 1
        assert all(claim.moments is None for claim in ee.engine.claims)


async def test_figures_are_what_was_asked(ee: Land, collector: FakeCollector) -> None:
    spent = {"prompt_tokens": 0, "completion_tokens": 0}
    async with ee.client() as client, ee.client("umbra") as other:
        for _ in range(3):
            usage = (await client.post(CHAT, json=ASKED[CHAT])).json()["usage"]
            spent = {name: spent[name] + usage[name] for name in spent}
        usage_asked = {**ASKED[CHAT], "stream": True, "stream_options": {"include_usage": True}}
        streamed = await other.post(CHAT, json=usage_asked)
        usage = next(found for event in events(streamed.content)[:-1] if (found := event.json().get("usage")))
        spent = {name: spent[name] + usage[name] for name in spent}
        assert (await client.post(CHAT, json={**ASKED[CHAT], "model": "made-up"})).status_code == 404
    assert (await figures(ee))["domicile_requests_active", ()] == 0
    found = await figures(ee)
    tokens = "gen_ai_client_token_usage_sum"
    assert summed(found, "domicile_requests_total", domicile_outcome="served") == 4
    assert summed(found, "domicile_requests_total", gen_ai_request_model="unknown") == 1
    assert summed(found, "domicile_requests_total", domicile_outcome="refused") == 1
    assert summed(found, "domicile_refusals_total", domicile_reason="model_not_found") == 1
    assert summed(found, tokens, gen_ai_token_type="input") == spent["prompt_tokens"]
    assert summed(found, tokens, gen_ai_token_type="output") == spent["completion_tokens"]
    assert summed(found, "gen_ai_server_request_duration_seconds_count") == 5
    assert summed(found, "gen_ai_server_time_to_first_token_seconds_count") == 1
    assert summed(found, "domicile_receipts_total") == len(await ee.records(Kind.REQUEST)) == 4
    assert found["domicile_audit_healthy", ()] == 1
    assert summed(found, "domicile_slo_requests_total", domicile_kept="true") == 4
    assert found["domicile_replicas", (("domicile_state", "serving"), ("gen_ai_request_model", "fake"))] == 1
    assert found["domicile_fairness_organisations", ()] == 2
    assert 0.5 <= found["domicile_fairness_index", ()] <= 1


async def test_the_collector_is_told_the_same_figures(tmp_path: Path, collector: FakeCollector) -> None:
    async with land(tmp_path, "ee", telling=telling(collector)) as ee:
        async with ee.client() as client:
            assert (await client.post(CHAT, json=ASKED[CHAT])).status_code == 200
        found = await figures(ee)
    told = collector.metrics()
    (duration,) = told["gen_ai.server.request.duration"].histogram.data_points
    assert duration.count == summed(found, "gen_ai_server_request_duration_seconds_count")
    assert duration.sum == summed(found, "gen_ai_server_request_duration_seconds_sum")
    assert sum(duration.bucket_counts) == duration.count


async def test_the_metrics_are_nowhere_at_the_public_door(ee: Land) -> None:
    async with ee.client() as client:
        assert (await client.get("/metrics")).status_code == 404
    async with httpx.AsyncClient() as client:
        private = f"http://127.0.0.1:{ee.metrics.port}"
        assert (await client.get(f"{private}/v1/models")).status_code == 404
        assert (await client.post(f"{private}/metrics")).status_code == 404
