"""What a replica is asked beside what the client asked."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from serving.gateway.openai import Limits, read
from serving.steps.account import accounted
from serving.types import Endpoint, Prompt

LIMITS = Limits(context_length=4096, country="ee")
USAGE = {"include_usage": True}


def prompt(raw: str, endpoint: Endpoint = Endpoint.CHAT) -> Prompt:
    return read(endpoint, raw.encode(), LIMITS)


blanks = st.text(alphabet=" \t\r\n", max_size=5)


@given(st.text(max_size=50), blanks, blanks)
def test_a_stream_asks_for_usage_and_the_client_s_own_bytes_stay(text: str, before: str, within: str) -> None:
    fields = {"model": "m", "messages": [{"role": "user", "content": text.replace("\x00", "") or "x"}], "stream": True}
    raw = before + "{" + within + json.dumps(fields)[1:]
    asked = accounted(prompt(raw))
    assert json.loads(asked.body) == {**fields, "stream_options": USAGE} == asked.fields
    assert asked.body.endswith(raw.encode()[len(before) + 1 :])
    assert asked.include_usage


def test_a_client_s_options_are_kept_and_no_name_stands_twice() -> None:
    for given_, expected in (
        ("null", USAGE),
        ('{"include_usage": false}', USAGE),
        ('{"include_obfuscation": true}', {"include_obfuscation": True, **USAGE}),
    ):
        messages = '"messages": [{"role": "user", "content": "é"}]'
        raw = f'{{"model": "m", {messages}, "stream": true, "stream_options": {given_}}}'
        asked = accounted(prompt(raw))
        assert json.loads(asked.body)["stream_options"] == expected
        assert asked.body.count(b"stream_options") == 1


def test_what_tells_its_usage_anyway_is_sent_as_it_came() -> None:
    messages = '"model": "m", "messages": [{"role": "user", "content": "x"}]'
    for asked in (
        prompt(f"{{{messages}}}"),
        prompt(f'{{{messages}, "stream": true, "stream_options": {{"include_usage": true}}}}'),
        prompt('{"model": "m", "input": "x", "stream": true}', Endpoint.RESPONSES),
    ):
        assert accounted(asked) is asked
