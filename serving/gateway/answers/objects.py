"""What the other files here share about JSON objects."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

Json = dict[str, Any]


def without_nulls(value: Mapping[str, Any], *nullable: str) -> Json:
    """``value`` less the nulls that mean absence. Those of ``nullable`` mean themselves."""
    return {key: item for key, item in value.items() if item is not None or key in nullable}


def to_bytes(value: Json) -> bytes:
    """Compact UTF-8, as vLLM writes it."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
