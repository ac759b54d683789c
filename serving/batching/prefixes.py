"""What the engine's prefix cache probably still holds, as seen from in front of it.

Chained hashes of whole blocks of tokens, under the organisation's own salt, as vLLM's cache keeps them; the least
recently used go first. A guess: order, due times and refusals go by it, and no answer ever depends on it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence


class Prefixes:
    """Remembers as many blocks as the engine's cache has room for."""

    def __init__(self, tokens: int, block: int) -> None:
        """
        Args:
            tokens: capacity of the engine's KV cache, 0 where it keeps no prefixes.
            block: tokens of one of its blocks, the granularity at which prefixes are compared.
        """
        self._block = block
        self._most = tokens // block
        self._blocks: OrderedDict[int, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._blocks)

    def cached(self, salt: str, prompt: Sequence[int]) -> int:
        """How many tokens at the prompt's beginning are probably cached: fewer than all of them."""
        found = 0
        for block in self._hashes(salt, prompt):
            if block not in self._blocks:
                break
            found += self._block
        return min(found, max(0, len(prompt) - 1))

    def add(self, salt: str, prompt: Sequence[int]) -> None:
        """The prompt is in the cache now."""
        if not self._most:
            return
        for block in self._hashes(salt, prompt):
            self._blocks[block] = None
            self._blocks.move_to_end(block)
        while len(self._blocks) > self._most:
            self._blocks.popitem(last=False)

    def _hashes(self, salt: str, prompt: Sequence[int]) -> Iterator[int]:
        chained = hash(salt)
        for end in range(self._block, len(prompt) + 1, self._block):
            chained = hash((chained, tuple(prompt[end - self._block : end])))
            yield chained
