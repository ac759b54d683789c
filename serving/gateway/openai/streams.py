"""Whether to stream, and what to send along."""

from __future__ import annotations

from serving.gateway.openai.checks import Check, Table, boolean, members, nullable, wrong_value

STREAM: Check = nullable(boolean)
OPTIONS: Table = {"include_usage": nullable(boolean), "include_obfuscation": nullable(boolean)}
stream_options: Check = nullable(members(OPTIONS))


def check_stream_options(fields: dict[str, object]) -> None:
    """Options of a stream need a stream."""
    if fields.get("stream_options") is not None and not fields.get("stream"):
        raise wrong_value("stream_options", "stream: true")


def wants_usage(fields: dict[str, object]) -> bool:
    options = fields.get("stream_options")
    return isinstance(options, dict) and options.get("include_usage") is True
