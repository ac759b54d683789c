"""From what vLLM answers to what OpenAI's published schemas promise.

vLLM dumps its models with every default they have, so ``null`` stands where a schema wants an object, an array or
absence, and a few required fields are missing. Only that is mended: what vLLM says besides (``reasoning``,
``stop_reason``) stays.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from serving.gateway.answers.completions import chat_completion, completion
from serving.gateway.answers.errors import error_of
from serving.gateway.answers.objects import Json
from serving.gateway.answers.responses import response
from serving.gateway.answers.spent import usage_of
from serving.types import Endpoint

__all__ = ["Json", "complete", "error_of", "usage_of"]


def complete(endpoint: Endpoint, payload: Json, fields: Mapping[str, object]) -> Json:
    """The answer to a request that did not stream, as OpenAI's schema has it.

    ``fields`` are the request's, since Responses echo some that vLLM forgets. Raises
    :class:`~serving.errors.Failed` when the engine was stopped halfway: a torn answer is no answer.
    """
    match endpoint:
        case Endpoint.CHAT:
            return chat_completion(payload)
        case Endpoint.COMPLETIONS:
            return completion(payload)
        case Endpoint.RESPONSES:
            return response(payload, fields, now=int(time.time()))
