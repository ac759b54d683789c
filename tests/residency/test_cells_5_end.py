"""The journey, last part: what it left behind, and what passed over the links while it lasted (R1, R7, R8)."""

from __future__ import annotations

import signal
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from tokenizers import Tokenizer

from tests.proof.canary import Canary, Search, Searched, changed
from tests.proof.cells import Cells
from tests.proof.finding import ROOT
from tests.proof.within import told
from tests.running import DOMICILE, MODEL, ran

pytestmark = [pytest.mark.prove, pytest.mark.ray, pytest.mark.engine, pytest.mark.timeout(900)]

Record = Callable[[str, object], None]


@pytest.fixture(scope="module")
def search(cells: Cells, canary: Canary) -> Search:
    tokenizer = Tokenizer.from_file(str(cells.cells["ee"].house.settings.models / MODEL / "tokenizer.json"))
    return Search(canary, lambda text: list(tokenizer.encode(text, add_special_tokens=False).ids))


@pytest.fixture(scope="module")
def roots(cells: Cells, evidence: Path) -> list[Path]:
    """Wherever a program writes of its own accord: homes, caches, logs, the checkout, the evidence itself."""
    system = [Path("/var/tmp"), Path("/var/log"), Path("/var/crash"), Path("/var/lib/systemd/coredump")]
    return [
        *(cell.folder for cell in cells.cells.values()),
        evidence,
        Path(tempfile.gettempdir()),
        ROOT,
        Path.home(),
        *system,
    ]


def test_r7_a_word_that_was_asked_and_answered_is_in_no_artefact(
    cells: Cells, search: Search, roots: list[Path], record_property: Record
) -> None:
    """While the countries still serve."""
    files = search.files(roots, cells.begun)
    seen = Searched(0, 0, [])
    for code, cell in cells.cells.items():
        pages = told(cell)
        assert len(pages) > 2
        assert all(pages.values())
        for name, page in pages.items():
            seen += search.text(f"{code}: {name}", page)
        for process in cell.house.processes():
            for where, text in shown(process):
                seen += search.text(where, text)
    assert (files.finds, seen.finds) == ([], [])
    assert files.places > 20
    assert seen.places > 20
    record_property("pages of figures, environments and command lines searched", seen.places)
    record_property("traces, logs and figures that collectors were sent and that were searched", sent(cells))


def sent(cells: Cells) -> int:
    return sum(len(cell.collector.bodies) for cell in cells.cells.values())


def shown(process: psutil.Process) -> Iterator[tuple[str, bytes]]:
    """What a process shows of itself to whoever may look."""
    with suppress(psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
        for name in ("environ", "cmdline", "comm"):
            yield f"{name} of {process.pid}", Path(f"/proc/{process.pid}/{name}").read_bytes()


def test_r7_a_process_that_crashes_leaves_no_dump(cells: Cells, roots: list[Path], record_property: Record) -> None:
    """Crashed as by a fault of its own, where this machine lets every process dump its memory."""
    crashed = [process for cell in cells.cells.values() for process in serving(cells, cell.code)]
    for process in crashed:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGSEGV)
    _, alive = psutil.wait_procs(crashed, timeout=30)
    assert not alive
    dumps = [path for path in changed(roots, cells.begun, []) if is_dump(path)]
    assert dumps == []
    record_property("processes crashed (SIGSEGV)", len(crashed))
    record_property("memory dumps that they left", 0)


def serving(cells: Cells, code: str) -> list[psutil.Process]:
    """The gateway, the replica, and the engine's own processes, innermost first."""
    house = cells.cells[code].house
    actors = [*house.actors(code, MODEL), *house.actors(code, "gateway")]
    return [*(child for actor in actors for child in actor.children(recursive=True)), *actors]


def is_dump(path: Path) -> bool:
    """An ELF file of type core."""
    with path.open("rb") as file:
        head = file.read(18)
    return head[:4] == b"\x7fELF" and head[16:18] == b"\x04\x00"


def test_r7_and_when_all_has_ended_nothing_is_left_either(
    cells: Cells, canary: Canary, search: Search, roots: list[Path], record_property: Record
) -> None:
    for cell in cells.cells.values():
        assert cell.domicile("down").code == 0
        assert cell.house.processes() == []
    found = search.files([*roots, Path("/dev/shm")], cells.begun)
    assert found.finds == []
    record_property("files searched for the word", found.places)
    record_property("bytes in them", found.bytes)
    planted = cells.cells["ee"].folder / "planted.log"
    planted.write_bytes(b"\0".join(canary.forms(lambda _: [1, 22, 333, 4444, 5]).values()) + canary.core.encode())
    assert search.files(roots, cells.begun).finds
    planted.unlink()


@pytest.mark.parametrize("code", ["ee", "kr"])
def test_r10_the_log_is_whole_and_the_receipts_are_its_witnesses(
    cells: Cells, code: str, receipts: Path, record_property: Record
) -> None:
    """After kills, crashes and restarts: an export, verified by a stranger with the keys that it fetched before."""
    cell, export = cells.cells[code], receipts / f"{code}-export"
    assert cell.domicile("audit", "export", code, str(export)).code == 0
    held = [word for file in sorted(receipts.glob(f"{code}-rcpt*")) for word in ("--against", str(file))]
    jwks = receipts / f"{code}.jwks"
    stranger = {**cell.house.environment, "DOMICILE_HOME": str(receipts / "empty")}
    verdict = ran(
        *(DOMICILE, "audit", "verify", code, "--at", str(export), "--jwks", str(jwks), "--json"),
        *held,
        environment=stranger,
    )
    assert verdict.code == 0, verdict.out + verdict.err
    assert held
    record_property("records of the audit log verified", verdict.json()["records"])
    record_property("receipts held against it", len(held) // 2)


def test_r1_no_packet_went_abroad_or_came_from_there(cells: Cells, record_property: Record) -> None:
    packets = 0
    for code, cell in cells.cells.items():
        seen = cell.link.seen()
        assert seen.lost == 0, f"{seen.lost} packets on the link of {code} passed unseen"
        assert seen.foreign({cell.land.address, cell.land.callers}) == {}
        packets += seen.total
    assert packets > 1000
    record_property("packets recorded on the countries' links", packets)
    record_property("packets that passed unrecorded", 0)
    record_property("of them to or from anywhere but the country and its callers", 0)


def test_r1_and_one_that_does_would_be_seen_and_not_arrive(cells: Cells, record_property: Record) -> None:
    """The control: from Estonia's namespace somebody does what must never happen."""
    home, abroad = cells.cells["ee"], cells.cells["kr"]
    known = abroad.link.seen().total
    with home.inside(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stray:
        stray.sendto(b"hello", (abroad.land.address, 53))
    (flow,) = home.link.seen().foreign({home.land.address, home.land.callers})
    assert (flow.protocol, flow.destination) == ("UDP", abroad.land.address)
    assert abroad.link.seen().total == known
    record_property("packets sent abroad on purpose, at the end", 1)
    record_property("of those recorded where they left", 1)
    record_property("of those that arrived in the other country", 0)
