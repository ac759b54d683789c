"""The abuses that callers may rely on being answered rightly: what the body asks for."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from time import perf_counter

import pytest
from PIL import Image

from serving.types import Endpoint
from tests.gateway.openai.schemas import BAD_SCHEMAS
from tests.hostile.asking import EVERYWHERE, PROMPTS, QUICKLY_S, asked, refused, still_serve
from tests.house import Land
from tests.journeys.bodies import CHAT, COMPLETIONS, FORECAST, RESPONSES
from tests.schemas import check

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize("endpoint", [CHAT, COMPLETIONS])
async def test_row_25_choices(ee: Land, endpoint: Endpoint) -> None:
    refused(await asked(ee, endpoint, n=10**9), 400, "integer_above_max_value", "n")
    refused(await asked(ee, endpoint, n=0), 400, "integer_below_min_value", "n")


async def test_row_26_best_of(ee: Land) -> None:
    refused(await asked(ee, COMPLETIONS, best_of=10**9), 400, "integer_above_max_value", "best_of")
    refused(await asked(ee, COMPLETIONS, best_of=1, n=2), 400, "integer_below_min_value", "best_of")


@pytest.mark.parametrize(
    ("endpoint", "name"),
    [
        (CHAT, "max_tokens"),
        (CHAT, "max_completion_tokens"),
        (COMPLETIONS, "max_tokens"),
        (RESPONSES, "max_output_tokens"),
    ],
)
async def test_row_27_max_tokens(ee: Land, endpoint: Endpoint, name: str) -> None:
    for value, code in ((0, "below_min"), (-1, "below_min"), (10**12, "above_max"), (4097, "above_max")):
        refused(await asked(ee, endpoint, **{name: value}), 400, f"integer_{code}_value", name)


@EVERYWHERE
@pytest.mark.parametrize("words", [5_000, 1_000_000])
@pytest.mark.parametrize("stream", [False, True])
async def test_row_28_prompt_over_the_context(ee: Land, endpoint: Endpoint, words: int, stream: bool) -> None:
    text = "sea " * words
    prompt = [{"role": "user", "content": text}] if endpoint is CHAT else text
    response = await asked(ee, endpoint, **{PROMPTS[endpoint]: prompt, "stream": stream})
    refused(response, 400, "context_length_exceeded", PROMPTS[endpoint])


async def test_row_29_logprobs(ee: Land) -> None:
    refused(await asked(ee, logprobs=True, top_logprobs=21), 400, "integer_above_max_value", "top_logprobs")
    refused(await asked(ee, RESPONSES, top_logprobs=21), 400, "integer_above_max_value", "top_logprobs")
    refused(await asked(ee, COMPLETIONS, logprobs=21), 400, "integer_above_max_value", "logprobs")
    for endpoint in Endpoint:
        for value in (0, 1, None):
            refused(await asked(ee, endpoint, prompt_logprobs=value), 400, "unknown_parameter", "prompt_logprobs")
    refused(await asked(ee, COMPLETIONS, echo=True, logprobs=1), 400, "unsupported_parameter", "echo")


@pytest.mark.parametrize("endpoint", [CHAT, COMPLETIONS])
@pytest.mark.parametrize(
    "bias", [{str(token): 1 for token in range(5000)}, {"5000": 1}, {"-1": 1}, {"1": 1000}, {"x": 1}, [], "1"]
)
async def test_row_30_logit_bias(ee: Land, endpoint: Endpoint, bias: object) -> None:
    response = await asked(ee, endpoint, logit_bias=bias)
    assert (response.status_code, response.json()["error"]["param"]) == (400, "logit_bias")
    check("error", response.json())


@pytest.mark.parametrize("endpoint", [CHAT, COMPLETIONS])
@pytest.mark.parametrize("stop", [["a"] * 5, "", [""], "x" * 2**20, [], [1]])
async def test_row_31_stop(ee: Land, endpoint: Endpoint, stop: object) -> None:
    response = await asked(ee, endpoint, stop=stop)
    assert (response.status_code, response.json()["error"]["param"]) == (400, "stop")


@EVERYWHERE
async def test_row_32_ranges(ee: Land, endpoint: Endpoint) -> None:
    refused(await asked(ee, endpoint, temperature=3), 400, "decimal_above_max_value", "temperature")
    refused(await asked(ee, endpoint, top_p=-1), 400, "decimal_below_min_value", "top_p")


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("regex", "(((a{90}){90}){90}){90}"),
        ("regex", "a{100000000}"),
        ("regex", "(" * 5000 + ")" * 5000),
        ("regex", "(a|aa)+" * 400),
        ("regex", "(?=a)b"),
        ("regex", "(a"),
        ("grammar", 'root ::= "a"{1,99999}'),
        ("grammar", "a" * 100_000),
        ("choice", ["a"] * 5000),
    ],
)
async def test_row_33_pathological_grammar(ee: Land, kind: str, value: object) -> None:
    begun = perf_counter()
    response = await asked(ee, structured_outputs={kind: value})
    assert perf_counter() - begun < QUICKLY_S
    refused(response, 400, "invalid_grammar", f"structured_outputs.{kind}")
    assert (await asked(ee)).status_code == 200


@pytest.mark.parametrize("name", sorted(BAD_SCHEMAS))
async def test_row_34_recursive_or_huge_schema(ee: Land, name: str) -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": BAD_SCHEMAS[name]}}
    begun = perf_counter()
    refused(await asked(ee, response_format=wanted), 400, "schema_too_complex", "response_format")
    assert perf_counter() - begun < QUICKLY_S


@pytest.mark.parametrize(
    "tool",
    [
        {"type": "web_search"},
        {"type": "mcp", "server_url": "http://169.254.169.254"},
        {"type": "function", "function": {"name": "a b"}},
        {"type": "function", "function": {"name": "x" * 65}},
        "x",
    ],
)
async def test_row_35_bad_tools(ee: Land, tool: object) -> None:
    refused(await asked(ee, tools=[FORECAST, tool]), 400, "invalid_tool", "tools[1]")


async def test_row_35_bad_pattern_in_a_tool(ee: Land) -> None:
    parameters = {"properties": {"x": {"type": "string", "pattern": "(a{100}){200}"}}}
    tool = {"type": "function", "function": {"name": "f", "parameters": parameters}}
    refused(await asked(ee, tools=[tool]), 400, "schema_too_complex", "tools[0]")


UNKNOWN = [
    *("chat_template", "chat_template_kwargs", "prompt_embeds", "media_io_kwargs", "mm_processor_kwargs"),
    *("cache_salt", "kv_transfer_params", "vllm_xargs", "priority", "request_id", "session_id", "guided_json"),
    *("documents", "return_token_ids", "add_special_tokens", "truncate_prompt_tokens", "x-nobody-knows"),
]


@EVERYWHERE
@pytest.mark.parametrize("name", UNKNOWN)
async def test_row_36_unknown_names(ee: Land, endpoint: Endpoint, name: str) -> None:
    for value in (None, 1, {"a": "b"}):
        refused(await asked(ee, endpoint, **{name: value}), 400, "unknown_parameter", name)


def shown(url: object) -> list[dict[str, object]]:
    return [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest/meta-data",
        "http://[::ffff:169.254.169.254]/",
        "https://example.com/redirect",
        "file:///etc/passwd",
        "HTTP://localhost",
        "//host/x",
        "data:text/html;base64,PGI+",
        "data:image/svg+xml;base64,PHN2Zz4=",
        "data:image/png;base64,aGVsbG8=",
        "",
    ],
)
async def test_row_37_images_are_never_fetched(ee: Land, url: str) -> None:
    param = "messages[0].content[0].image_url.url"
    refused(await asked(ee, messages=shown(url)), 400, "invalid_image_url", param)
    part = {"type": "input_image", "image_url": url}
    response = await asked(ee, RESPONSES, input=[{"role": "user", "content": [part]}])
    refused(response, 400, "invalid_image_url", "input[0].content[0].image_url")


async def test_row_38_image_bomb(ee: Land) -> None:
    header = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 6, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    bomb += struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    flat = io.BytesIO()
    Image.new("L", (5000, 5000)).save(flat, "png")
    for data in (bomb, flat.getvalue()):
        url = "data:image/png;base64," + base64.b64encode(data).decode()
        begun = perf_counter()
        response = await asked(ee, messages=shown(url))
        refused(response, 400, "image_too_large", "messages[0].content[0].image_url.url")
        assert perf_counter() - begun < QUICKLY_S


async def test_after_all_of_it_the_countries_still_serve(ee: Land, kr: Land) -> None:
    await still_serve(ee, kr)
