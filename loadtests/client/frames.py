"""Server-sent events, cut into frames however the network cut them.

After the HTML standard, section 9.2 (server-sent events): frames end with an empty line, lines end with CR, LF or both,
and a line that starts with a colon is a comment.
"""

from __future__ import annotations

_EMPTY_LINE = b"\n\n"
_DATA = b"data: "


class Frames:
    """Gives the data of every frame that a piece of the stream completes."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held = b""

    def feed(self, piece: bytes) -> list[bytes]:
        """The data of the frames that end in ``piece``. Frames without data are left out."""
        if self._held:
            piece = self._held + piece
        last_return = b""
        if b"\r" in piece:
            if piece.endswith(b"\r"):  # its line feed may be still to come
                piece, last_return = piece[:-1], b"\r"
            piece = piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        frames = piece.split(_EMPTY_LINE)
        self._held = frames.pop() + last_return
        return [data for frame in frames if (data := _data(frame))]

    @property
    def torn(self) -> bool:
        """Whether the stream so far ends in the middle of a frame."""
        return bool(self._held.strip())


def _data(frame: bytes) -> bytes:
    if frame.startswith(_DATA) and frame.find(b"\n") < 0:
        return frame[6:]
    lines = (line[5:].removeprefix(b" ") for line in frame.split(b"\n") if line.startswith(b"data:"))
    return b"\n".join(lines)
