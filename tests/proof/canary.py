"""A word that nobody else would write, in every form that it could have been written down in, and the search for it."""

from __future__ import annotations

import os
import secrets
import struct
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

CHUNK = 8 * 1024 * 1024
Encode = Callable[[str], list[int]]


@dataclass(frozen=True, slots=True)
class Canary:
    """One word, whose ``core`` is looked for; :meth:`via` says in which part of a request it was sent."""

    core: str

    @classmethod
    def fresh(cls) -> Canary:
        return cls(f"kanaari{secrets.token_hex(8)}")

    def via(self, channel: str) -> str:
        return f"{self.core}-{channel}"

    def forms(self, encode: Encode) -> dict[str, bytes]:
        """Name of an encoding to the bytes that betray the word in it."""
        raw = self.core.encode()
        ids = encode(f" {self.core} ")[1:-1]
        found = {
            "plain": raw,
            "UTF-16": self.core.encode("utf-16-le"),
            "UTF-32": self.core.encode("utf-32-le"),
            "hexadecimal": raw.hex().encode(),
            "JSON escapes": "".join(f"\\u{ord(letter):04x}" for letter in self.core).encode(),
            "reversed": raw[::-1],
        }
        for start in range(3):
            # Base64 looks different at each of three places; the first and last characters depend on neighbours.
            found[f"base64, {start}"] = b64encode(bytes(start) + raw)[4:-4].rstrip(b"=")
        for between in (", ", ",", " "):
            found[f"token ids, {between!r}"] = between.join(map(str, ids)).encode()
        for width in ("i", "q"):
            found[f"token ids, {struct.calcsize(width)} bytes each"] = struct.pack(f"<{len(ids)}{width}", *ids)
        return found


@dataclass(frozen=True, slots=True)
class Find:
    """A place where the word is."""

    where: str
    form: str
    around: str


@dataclass
class Searched:
    """What was looked through, and what was found."""

    places: int
    bytes: int
    finds: list[Find]

    def __add__(self, other: Searched) -> Searched:
        return Searched(self.places + other.places, self.bytes + other.bytes, self.finds + other.finds)


class Search:
    """Looks for one canary in all its forms."""

    def __init__(self, canary: Canary, encode: Encode) -> None:
        # In lower case, as what is searched will be: one look for each form is much faster than a pattern of all.
        self._forms = {name: form.lower() for name, form in canary.forms(encode).items()}
        self._longest = max(map(len, self._forms.values()))

    def text(self, where: str, data: bytes) -> Searched:
        lower = data.lower()
        found = [(name, lower.find(form)) for name, form in self._forms.items()]
        return Searched(1, len(data), [Find(where, name, _around(data, at)) for name, at in found if at >= 0])

    def file(self, path: Path) -> Searched:
        """Raises ``OSError`` where it cannot be read."""
        size, finds, kept = 0, list[Find](), b""
        with path.open("rb") as file:
            while data := file.read(CHUNK):
                size += len(data)
                finds += self.text(str(path), kept + data).finds
                kept = data[-self._longest :]
        return Searched(1, size, finds)

    def files(self, roots: Iterable[Path], since: float, spared: Iterable[Path] = ()) -> Searched:
        """Every regular file below ``roots`` that was written ``since``, and the names of all of them."""
        whole = Searched(0, 0, [])
        for path in changed(roots, since, [each.resolve() for each in spared]):
            whole.finds += self.text("a file's name", str(path).encode()).finds
            try:
                whole += self.file(path)
            except FileNotFoundError:
                continue
        return whole


def changed(roots: Iterable[Path], since: float, spared: list[Path]) -> Iterator[Path]:
    """Regular files below ``roots`` that were written ``since``, each once. Links are not followed."""
    seen: set[tuple[int, int]] = set()
    for root in roots:
        for folder, folders, names in os.walk(root):
            folders[:] = [name for name in folders if Path(folder, name) not in spared]
            for path in (Path(folder, name) for name in names):
                try:
                    status = path.lstat()
                except FileNotFoundError:
                    continue
                key = status.st_dev, status.st_ino
                if path.is_file() and not path.is_symlink() and status.st_mtime >= since and key not in seen:
                    seen.add(key)
                    yield path


def _around(data: bytes, at: int) -> str:
    return data[max(0, at - 80) : at + 80].decode(errors="replace")
