"""Two network namespaces with a cable between: a country's machine, and a far end at home and abroad at once."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

HOME, ABROAD = "10.20.0.1", "203.0.113.1"
"""Addresses at the cable's far end: a collector's, in the country's networks, and a stranger's (RFC 5737)."""
INSIDE = {HOME: "10.20.0.2", ABROAD: "203.0.113.2"}
"""The country's own machine, as each of the two sees it."""


IP = shutil.which("ip") or "ip"


def missing() -> str:
    """Why this machine cannot do it; empty where it can."""
    if os.geteuid() != 0:
        return "needs root, for network namespaces"
    absent = [command for command in ("ip", "nft", "unshare") if shutil.which(command) is None]
    return f"needs {', '.join(absent)}" if absent else ""


@dataclass(frozen=True)
class Namespace:
    """A network namespace by its name."""

    name: str

    @property
    def command(self) -> list[str]:
        """What comes before a command that is to run here."""
        return [IP, "netns", "exec", self.name]

    def run(self, *command: str, text: str | None = None) -> str:
        done = subprocess.run(
            [*self.command, *command],
            input=text,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def python(self, code: str, *words: str) -> str:
        return self.run(sys.executable, "-c", code, *words).strip()

    @contextmanager
    def running(self, code: str, *words: str) -> Iterator[subprocess.Popen[str]]:
        """A program that has said that it is ready, for as long as the block."""
        command = [*self.command, sys.executable, "-uc", code, *words]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
            try:
                assert running.stdout is not None
                assert running.stdout.readline().strip() == "ready"
                yield running
            finally:
                running.kill()


@contextmanager
def cable() -> Iterator[tuple[Namespace, Namespace]]:
    """The country's machine, and the far end."""
    tag = secrets.token_hex(3)
    inside, outside = Namespace(f"domicile-{tag}-in"), Namespace(f"domicile-{tag}-out")
    made = []
    try:
        for one in (inside, outside):
            _ip("netns", "add", one.name)
            made.append(one)
        _ip("link", "add", "near", "netns", inside.name, "type", "veth", "peer", "name", "far", "netns", outside.name)
        for far, near in INSIDE.items():
            inside.run("ip", "address", "add", f"{near}/24", "dev", "near")
            outside.run("ip", "address", "add", f"{far}/24", "dev", "far")
        for one, link in ((inside, "near"), (outside, "far")):
            one.run("ip", "link", "set", "lo", "up")
            one.run("ip", "link", "set", link, "up")
        yield inside, outside
    finally:
        for one in made:
            _ip("netns", "delete", one.name)


def _ip(*words: str) -> None:
    subprocess.run([IP, *words], check=True, timeout=30, capture_output=True)
