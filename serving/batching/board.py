"""What the scheduler inside the engine and the pacer in front of it tell each other: a few numbers in shared memory.

The two are in different processes, and the pacer decides on every request: it reads in a microsecond what a message
would bring later. For the engine's reading there is one writer and any number of readers, in one file that both map. A
version number around the values, odd while they are written, keeps readers from torn ones. The other way goes a single
number.
"""

from __future__ import annotations

import mmap
import os
import struct
from dataclasses import astuple, dataclass
from pathlib import Path

SIZE = 4096
_VERSION = struct.Struct("=Q")
_VALUES = struct.Struct("=10d")
_TRIES = 100
_CROWD = struct.Struct("=Q")
_CROWD_AT = SIZE // 2
"""On a cache line of its own."""


@dataclass(frozen=True, slots=True)
class Reading:
    """The engine as it was after its last step. All zero before the first one."""

    fixed_s: float = 0.0
    prefill_token_s: float = 0.0
    decode_stream_s: float = 0.0
    context_token_s: float = 0.0
    """The four coefficients of :class:`serving.batching.steptime.StepTime`, in seconds."""
    error: float = 0.0
    """Mean relative error of that model, forgetting."""
    observations: float = 0.0
    """Steps that the model was fitted to."""
    prefill_left: float = 0.0
    """Prompt tokens that the engine has and has not prefilled."""
    decoding: float = 0.0
    """Streams that are being decoded."""
    context_tokens: float = 0.0
    """Tokens in the KV cache of those streams."""
    stepped_at: float = 0.0
    """When the last step ended, by ``time.monotonic()``, which the processes of a machine share."""


class Board:
    """The shared file. Raises ``OSError`` where it cannot be made or mapped."""

    def __init__(self, path: Path, *, create: bool = False) -> None:
        self.path = path
        descriptor = os.open(path, os.O_RDWR | (os.O_CREAT | os.O_EXCL if create else 0), 0o600)
        try:
            if create:
                os.truncate(descriptor, SIZE)
            self._map = mmap.mmap(descriptor, SIZE)
        finally:
            os.close(descriptor)
        self._version = 0

    def write(self, reading: Reading) -> None:
        """For the one writer."""
        self._version += 1
        _VERSION.pack_into(self._map, 0, self._version)
        _VALUES.pack_into(self._map, _VERSION.size, *astuple(reading))
        self._version += 1
        _VERSION.pack_into(self._map, 0, self._version)

    def read(self) -> Reading:
        """The last whole reading. Where the writer died halfway, what it left."""
        values: tuple[float, ...] = ()
        for _ in range(_TRIES):
            before = _VERSION.unpack_from(self._map, 0)[0]
            values = _VALUES.unpack_from(self._map, _VERSION.size)
            if before % 2 == 0 and _VERSION.unpack_from(self._map, 0)[0] == before:
                break
        return Reading(*values)

    def tell_crowd(self, waiting: int) -> None:
        """How many wait before the engine. For the one pacer."""
        _CROWD.pack_into(self._map, _CROWD_AT, waiting)

    def crowd(self) -> int:
        """How many waited when the pacer last said so."""
        return int(_CROWD.unpack_from(self._map, _CROWD_AT)[0])

    def close(self, *, remove: bool = False) -> None:
        self._map.close()
        if remove:
            self.path.unlink(missing_ok=True)
