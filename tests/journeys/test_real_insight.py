"""The real engine in a trace and in the figures: the country's collector and Prometheus are told what was asked."""

from __future__ import annotations

import socket

import httpx
import pytest

from serving.types import Endpoint
from tenants.country import METRICS_PORTS
from tenants.registry import load_country
from tests.loopback import events
from tests.records.telemetry.collector import FakeCollector, Span
from tests.records.telemetry.figures import Figures, figures_of, summed
from tests.running import MODEL, RunningHouse

pytestmark = [pytest.mark.ray, pytest.mark.engine, pytest.mark.timeout(600)]

QUESTION = [{"role": "user", "content": "What is the capital of the canary islands?"}]
BODY = {"model": MODEL, "messages": QUESTION, "max_tokens": 12, "temperature": 0}
TOKENS = "gen_ai_client_token_usage_sum"


def figures(house: RunningHouse, code: str) -> Figures:
    """Of the country's one gateway, on whichever of its ports it is."""
    first = load_country(house.settings.countries / code).metrics_port
    for port in range(first, first + METRICS_PORTS):
        with socket.socket() as probe:
            open_here = probe.connect_ex(("127.0.0.1", port)) == 0
        if open_here:
            return figures_of(httpx.get(f"http://127.0.0.1:{port}/metrics").text, code)
    raise AssertionError(f"no metrics of {code}")


def asked(house: RunningHouse, code: str, *, stream: bool) -> tuple[str, dict[str, int]]:
    """A question's id, and what its answer cost."""
    body = {**BODY, "stream": stream, **({"stream_options": {"include_usage": True}} if stream else {})}
    with house.countries[code].http() as client:
        answer = client.post(Endpoint.CHAT, json=body)
    assert answer.status_code == 200
    if not stream:
        return answer.headers["x-request-id"], answer.json()["usage"]
    usages = (event.json().get("usage") for event in events(answer.content)[:-1])
    return answer.headers["x-request-id"], next(filter(None, usages))


def trace_of(collector: FakeCollector, request: str) -> dict[str, Span]:
    """The spans of a request by name, when all are there."""

    def found() -> dict[str, Span]:
        spans = collector.spans()
        traces = [span.trace for span in spans if span.said.get("domicile.request.id") == request]
        return {span.name: span for span in spans if span.trace in traces}

    collector.until(lambda: {"attempt", "replica", "queue", "prefill", "decode"} <= found().keys())
    return found()


@pytest.mark.parametrize("stream", [False, True])
def test_queue_prefill_and_decode_stand_in_one_trace(
    running_house: RunningHouse, collector_of_ee: FakeCollector, stream: bool
) -> None:
    request, usage = asked(running_house, "ee", stream=stream)
    spans = trace_of(collector_of_ee, request)
    root = spans[f"chat {MODEL}"]
    assert spans["attempt"].parent == root.id
    assert spans["replica"].parent == spans["attempt"].id
    assert {spans[name].parent for name in ("queue", "prefill", "decode")} == {spans["replica"].id}
    assert (root.service, spans["replica"].service) == ("domicile-gateway", "domicile-replica")
    assert spans["queue"].ended <= spans["prefill"].begun < spans["prefill"].ended <= spans["decode"].begun
    assert spans["decode"].begun < spans["decode"].ended
    assert spans["prefill"].said["gen_ai.usage.input_tokens"] == usage["prompt_tokens"]
    assert spans["decode"].said["gen_ai.usage.output_tokens"] == usage["completion_tokens"]
    assert root.said["gen_ai.usage.output_tokens"] == usage["completion_tokens"]


def test_the_figures_are_what_was_asked(running_house: RunningHouse) -> None:
    before = figures(running_house, "ee")
    spent = [asked(running_house, "ee", stream=stream)[1] for stream in (False, True, True)]
    after = figures(running_house, "ee")

    def grown(name: str, **labels: str) -> float:
        return summed(after, name, **labels) - summed(before, name, **labels)

    assert grown("domicile_requests_total", domicile_outcome="served", gen_ai_request_model=MODEL) == 3
    assert grown("gen_ai_server_time_to_first_token_seconds_count") == 2
    assert grown("domicile_receipts_total") == 3
    for kind, name in (("input", "prompt_tokens"), ("output", "completion_tokens")):
        assert grown(TOKENS, gen_ai_token_type=kind) == sum(usage[name] for usage in spent)


def test_no_text_and_no_other_country_is_among_what_the_collector_was_told(
    running_house: RunningHouse, collector_of_ee: FakeCollector
) -> None:
    asked(running_house, "kr", stream=False)
    request, _ = asked(running_house, "ee", stream=False)
    trace_of(collector_of_ee, request)
    told = collector_of_ee.everything()
    assert b"canary" not in told
    assert b"capital" not in told
    assert b"kr" not in {span.said.get("domicile.country") for span in collector_of_ee.spans()}
    assert summed(figures(running_house, "kr"), "domicile_requests_total", domicile_outcome="served") >= 1
