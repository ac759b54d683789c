"""What we accept, vLLM's own models accept too, and read the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from serving.errors import Refused
from serving.gateway.openai import chat, completions, read, responses
from serving.types import Endpoint, Prompt
from tests.gateway.openai.bodies import CORPUS, LIMITS, encode, mutations

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def models() -> dict[Endpoint, Any]:
    pytest.importorskip("vllm")
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
    from vllm.entrypoints.openai.completion.protocol import CompletionRequest
    from vllm.entrypoints.openai.responses.protocol import ResponsesRequest

    return {
        Endpoint.CHAT: ChatCompletionRequest,
        Endpoint.COMPLETIONS: CompletionRequest,
        Endpoint.RESPONSES: ResponsesRequest,
    }


def understood(models: dict[Endpoint, Any], prompt: Prompt) -> Any:
    """The request as vLLM reads it, as far as it goes without a model."""
    request = models[prompt.endpoint].model_validate(json.loads(prompt.body))
    if prompt.endpoint is Endpoint.RESPONSES:
        request.to_sampling_params(default_max_tokens=64)
    else:
        request.to_sampling_params(64, {})
    return request


@pytest.mark.parametrize(("endpoint", "body"), [pytest.param(e, b, id=name) for e, name, b in CORPUS])
def test_vllm_accepts_what_we_accept(models: dict[Endpoint, Any], endpoint: Endpoint, body: dict[str, Any]) -> None:
    prompt = read(endpoint, encode(body), LIMITS)
    request = understood(models, prompt)
    assert request.model == prompt.model
    assert bool(request.stream) == prompt.stream


@pytest.mark.parametrize(("endpoint", "body"), [pytest.param(e, b, id=name) for e, name, b in CORPUS])
def test_vllm_accepts_what_we_accept_changed(
    models: dict[Endpoint, Any], endpoint: Endpoint, body: dict[str, Any]
) -> None:
    for changed in mutations(body):
        # Several choices without chance are OpenAI's to give and vLLM's to refuse.
        if changed.get("n") == 2 and not changed.get("temperature"):
            continue
        try:
            prompt = read(endpoint, encode(changed), LIMITS)
        except Refused:
            continue
        understood(models, prompt)


def test_no_field_of_ours_reaches_the_cache_salt() -> None:
    for table in (chat.FIELDS, completions.FIELDS, responses.FIELDS):
        assert not {"cache_salt", "kv_transfer_params", "vllm_xargs", "priority", "request_id"} & table.keys()


def test_vllm_reads_prompt_cache_key_nowhere() -> None:
    """It is a field of one model and no more; a release that starts to use it must be looked at."""
    vllm = pytest.importorskip("vllm")
    sources = Path(vllm.__file__).parent.rglob("*.py")
    named = {path.name for path in sources if "prompt_cache_key" in path.read_text(errors="ignore")}
    assert named <= {"protocol.py"}
