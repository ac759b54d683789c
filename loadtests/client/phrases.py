"""What the stub says: the answers of an OpenAI endpoint as bytes, made once where they are said more than once."""

from __future__ import annotations

from typing import Any

import orjson

WORD = " word"
DIALECTS = {"/v1/chat/completions": "chat", "/v1/completions": "text", "/v1/responses": "response"}
HTML = b"<!doctype html><html><body>It works!</body></html>"
_LAST = b"0\r\n\r\n"


def event(data: bytes, name: str = "") -> bytes:
    """One server-sent event as one chunk of a body."""
    frame = (b"event: " + name.encode() + b"\n" if name else b"") + b"data: " + data + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(frame), frame)


class Chunks:
    """Every byte that is said more than once."""

    def __init__(self, country: str, tokens_per_event: int) -> None:
        country = f"x-domicile-country: {country}\r\n" if country else ""
        common = f"x-request-id: req_stub\r\n{country}"
        self.stream = (
            f"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n{common}"
            "transfer-encoding: chunked\r\n\r\n"
        ).encode()
        self._whole = f"content-type: %s\r\n{common}content-length: %d\r\n\r\n"
        self.words = {
            dialect: [b"", *(_content(dialect, WORD * n) for n in range(1, tokens_per_event + 1))]
            for dialect in DIALECTS.values()
        }
        self.begins = {"chat": _chunk({"role": "assistant", "content": ""}), "text": b"", "response": b""}

    def whole(self, status: str, body: bytes, kind: str = "application/json") -> bytes:
        return f"HTTP/1.1 {status}\r\n{self._whole % (kind, len(body))}".encode() + body


def asked(fields: dict[str, Any]) -> int:
    """How many tokens a request wants."""
    return int(fields.get("max_tokens") or fields.get("max_output_tokens") or 16)


def _chunk(delta: object, finish: str | None = None, *, text: str | None = None) -> bytes:
    choice: dict[str, Any] = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish, "token_ids": None}
    kind = "chat.completion.chunk"
    if text is not None:
        choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": finish, "stop_reason": None}
        kind = "text_completion"
    return event(orjson.dumps({**_same(kind), "choices": [choice]}))


def _same(kind: str) -> dict[str, Any]:
    return {"id": "chatcmpl-0123456789abcdef0123456789abcdef", "object": kind, "created": 1767225600, "model": "stub"}


def _content(dialect: str, text: str) -> bytes:
    if dialect == "response":
        name = "response.output_text.delta"
        return event(orjson.dumps({"type": name, "item_id": "msg_0", "output_index": 0, "delta": text}), name)
    return _chunk(None, text=text) if dialect == "text" else _chunk({"content": text})


def tail(dialect: str, fields: dict[str, Any], tokens: int) -> bytes:
    """What ends an answer of so many tokens, the body's last chunk included."""
    usage = _usage(fields, tokens)
    if dialect == "response":
        said = {"usage": {"input_tokens": usage["prompt_tokens"], "output_tokens": tokens}, "status": "completed"}
        name = "response.completed"
        return event(orjson.dumps({"type": name, "response": said}), name) + _LAST
    finish = _chunk(None, "length", text="") if dialect == "text" else _chunk({}, "length")
    count = event(orjson.dumps({**_same("chat.completion.chunk"), "choices": [], "usage": usage}))
    wants = (fields.get("stream_options") or {}).get("include_usage")
    return finish + (count if wants else b"") + event(b"[DONE]") + _LAST


def _usage(fields: dict[str, Any], tokens: int) -> dict[str, int]:
    """A word for a token, as far as anybody who has no tokenizer can tell."""
    messages = fields.get("messages") or [{"content": fields.get("prompt") or fields.get("input") or ""}]
    prompt = sum(len(str(message.get("content") or "").split()) for message in messages)
    return {"prompt_tokens": prompt, "completion_tokens": tokens, "total_tokens": prompt + tokens}


def whole(dialect: str, fields: dict[str, Any], tokens: int) -> dict[str, Any]:
    """An answer in one piece."""
    text, usage = WORD * tokens, _usage(fields, tokens)
    if dialect == "response":
        output = [{"type": "message", "content": [{"type": "output_text", "text": text}]}]
        counts = {"input_tokens": usage["prompt_tokens"], "output_tokens": tokens}
        return {"id": "resp_0", "object": "response", "status": "completed", "output": output, "usage": counts}
    said = {"text": text} if dialect == "text" else {"message": {"role": "assistant", "content": text}}
    choice = {"index": 0, "finish_reason": "length", **said}
    return {**_same("chat.completion"), "choices": [choice], "usage": usage}


def error(code: str) -> bytes:
    """A refusal's body."""
    return orjson.dumps({"error": {"message": "Not now.", "type": "stub", "param": None, "code": code}})
