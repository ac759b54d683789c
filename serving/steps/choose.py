"""Which replica serves a request: the rules of :mod:`serving.placement` over the live table."""

from __future__ import annotations

from collections.abc import Mapping, Set
from hashlib import blake2b

from serving.placement import Replica, Want, choose
from serving.replicas.table import Table
from serving.types import Caller, Prompt

_FIRST_READ = ("messages", "prompt", "instructions", "input")
_PREFIX_CHARACTERS = 2048
_BYTES_PER_TOKEN = 4


class Chooser:
    """Picks replicas of one country."""

    def __init__(self, country: str, table: Table) -> None:
        self._country = country
        self._table = table

    def __call__(self, caller: Caller, prompt: Prompt, tried: Set[str] = frozenset()) -> Replica | None:
        """The best replica but those whose ids were ``tried``, or ``None``. Nobody else is asked (R5)."""
        replicas = [replica for replica in self._table.replicas(prompt.model) if replica.id not in tried]
        want = Want(
            country=self._country,
            model=prompt.model,
            # Where there is no choice nobody looks at it, and it costs as much as the rest of the choosing.
            prefix=prefix(caller, prompt) if len(replicas) > 1 else b"",
            prompt_tokens=len(prompt.body) // _BYTES_PER_TOKEN,
        )
        return choose(want, replicas)


def prefix(caller: Caller, prompt: Prompt) -> bytes:
    """Equal for requests of an organisation whose beginnings are equal: those share a cached prefix."""
    text = repr(_beginning(prompt.fields)).encode("utf-8", "replace")
    return blake2b(text, digest_size=16, key=caller.organisation.encode()[:64]).digest()


def _beginning(fields: Mapping[str, object]) -> object:
    """What the model reads first, cut short: a text may be megabytes long."""
    content = next((found for name in _FIRST_READ if (found := fields.get(name))), None)
    first = content[0] if isinstance(content, list) and not isinstance(content[0], int) else content
    if isinstance(first, dict) and isinstance(first.get("content"), str):
        return first.get("role"), first["content"][:_PREFIX_CHARACTERS]
    return first[:_PREFIX_CHARACTERS] if isinstance(first, str | list) else first
