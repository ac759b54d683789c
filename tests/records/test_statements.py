from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import pytest

from serving.records.errors import Check, Rejected
from serving.records.jws import seal
from serving.records.record import GENESIS
from serving.records.signing import NOTICE_S, KeyFolder
from serving.records.statements import Checkpoint, Head, Removal, Statement
from tests.records.logs import NOW

SAID = Checkpoint("ee", 41, GENESIS, NOW)


@pytest.fixture
def folder(tmp_path: Path) -> KeyFolder:
    return KeyFolder(tmp_path / "signing")


def refused(kind: type[Statement], token: str, folder: KeyFolder, country: str = "ee") -> Check:
    with pytest.raises(Rejected) as caught:
        kind.open(token, folder.public(), country)
    return caught.value.check


@pytest.mark.parametrize("said", [SAID, Removal("ee", 41, GENESIS, NOW), Head.of_nothing("ee", NOW)])
def test_what_is_sealed_is_opened_as_what_it_is_and_nothing_else(folder: KeyFolder, said: Statement) -> None:
    token = said.seal(folder.current())
    assert type(said).open(token, folder.public(), "ee") == said
    for other in {Checkpoint, Removal, Head} - {type(said)}:
        assert refused(other, token, folder) is Check.TYPE
    assert refused(type(said), token, folder, "kr") is Check.CONTENT


def test_a_retired_key_states_nothing_after_its_end(folder: KeyFolder) -> None:
    old = folder.current()
    folder.rotate(NOW / 1000)
    last = NOW + NOTICE_S * 1000
    assert Checkpoint.open(replace(SAID, time=last).seal(old), folder.public(), "ee").time == last
    assert refused(Checkpoint, replace(SAID, time=last + 1).seal(old), folder) is Check.TIME


@pytest.mark.parametrize("change", [{"seq": "41"}, {"seq": True}, {"seq": 41.0}, {"hash": None}, {"note": "x"}])
def test_its_members_are_what_they_should_be(folder: KeyFolder, change: dict[str, object]) -> None:
    token = seal(folder.current(), Checkpoint.typ, {**asdict(SAID), **change})
    assert refused(Checkpoint, token, folder) is Check.CONTENT
    less = {name: value for name, value in asdict(SAID).items() if name != "time"}
    assert refused(Checkpoint, seal(folder.current(), Checkpoint.typ, less), folder) is Check.CONTENT
