"""R2 and R5 in a cell: a node of another country in it stops it, and when that node has left it serves again."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import orjson
import pytest
import yaml

from serving.cli.probe import stopped
from serving.cli.processes import ours
from serving.errors import Reason
from serving.gateway import messages
from serving.gateway.messages import LANGUAGES
from serving.placement import Node, strangers
from serving.replicas import cell as watching
from serving.replicas.cell import Cell, Unseen
from serving.replicas.claim import HEADER, Claim
from serving.types import Endpoint, ServiceClass
from tenants.country import Country, Gateway
from tests.house import SHIPPED, Land, land
from tests.journeys.bodies import ASKED, CHAT
from tests.running import DOMICILE
from tests.tenants.test_country import MINIMAL

HOME, HEAD, ABROAD = Node("11111111", "ee"), Node("22222222", ""), Node("33333333", "kr")


def country(isolation: str = "cell", code: str = "ee") -> Country:
    return Country.model_validate({**MINIMAL, "code": code, "isolation": isolation})


def test_a_stranger_is_who_carries_another_label() -> None:
    assert strangers("ee", [HOME, HEAD]) == ()
    assert strangers("ee", [HOME, ABROAD, HEAD]) == (ABROAD,)
    assert strangers("kr", [ABROAD]) == ()
    odd = [Node("4", "EE"), Node("5", "ee "), Node("6", "e")]
    assert strangers("ee", odd) == tuple(odd), "what is not exactly the country's label is another's"


async def until(true: Callable[[], bool]) -> None:
    for _ in range(2000):
        if true():
            return
        await asyncio.sleep(0.005)
    raise AssertionError


async def test_a_cell_sees_who_joins_and_who_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "LOOK_S", 0.001)
    nodes = [HOME, HEAD]
    cell = await Cell.watched(country(), lambda: list(nodes))
    assert cell.strangers == ()
    nodes.append(ABROAD)
    await until(lambda: cell.strangers == (ABROAD,))
    assert cell.told == "node 33333333 labelled kr"
    nodes.remove(ABROAD)
    await until(lambda: not cell.strangers)
    cell.close()


async def test_a_stranger_who_is_there_first_is_seen_before_anything_is_served() -> None:
    cell = await Cell.watched(country(), lambda: [HOME, ABROAD])
    assert cell.strangers == (ABROAD,)
    cell.close()


async def test_what_nobody_could_look_at_does_not_start() -> None:
    def blind() -> list[Node]:
        raise Unseen("RpcError")

    with pytest.raises(Unseen):
        await Cell.watched(country(), blind)


async def test_a_head_that_is_away_for_a_moment_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "LOOK_S", 0.001)
    nodes, away = [HOME, ABROAD], False
    unseen = 0

    def look() -> list[Node]:
        nonlocal unseen
        if away:
            unseen += 1
            raise Unseen("RpcError")
        return nodes

    cell = await Cell.watched(country(), look)
    away = True
    await until(lambda: unseen > 3)
    assert cell.strangers == (ABROAD,)
    nodes, away = [HOME], False
    await until(lambda: not cell.strangers)
    cell.close()


async def test_a_country_that_shares_its_cluster_does_not_look() -> None:
    def never() -> list[Node]:
        raise AssertionError

    assert (await Cell.watched(country("shared"), never)).strangers == ()


async def test_r5_a_cell_with_a_stranger_refuses_and_names_it(tmp_path: Path) -> None:
    """Before the body is read, at every endpoint that wants a key; a replica refuses by itself, whoever asks."""
    cell = Cell()
    async with land(tmp_path, "ee", cell=cell) as ee:
        assert await asked(ee) == (200, None)
        cell.strangers = (ABROAD,)
        async with ee.client(**{"accept-language": "en"}) as client:
            refused = await client.post(CHAT, json=ASKED[Endpoint.CHAT])
            unread = await client.post(CHAT, content=b"{", headers={"content-type": "application/json"})
            ready, alive = await client.get("/readyz"), await client.get("/healthz")
            assert (await client.get("/v1/models")).status_code == 503
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "foreign_node_in_cell")
        assert "KR" in refused.json()["error"]["message"]
        assert "33333333" in refused.json()["error"]["message"]
        assert int(refused.headers["retry-after"]) > 0
        assert unread.json()["error"]["code"] == "foreign_node_in_cell"
        assert (ready.status_code, ready.json()) == (503, {"status": "stopped", "reason": cell.told})
        assert alive.status_code == 200
        told = ee.country.model_copy(update={"gateway": Gateway(port=ee.gateway.port)})
        assert await asyncio.to_thread(stopped, Country.model_construct(**dict(told))) == cell.told
        assert await misrouted(ee) == 503
        assert len(ee.engine.claims) == 1
        cell.strangers = ()
        assert await asked(ee) == (200, None)


async def test_r5_a_stranger_that_only_a_replica_has_seen_is_named_all_the_same(tmp_path: Path) -> None:
    """Gateways and replicas look each on their own, up to seconds apart."""
    async with land(tmp_path, "ee", replicas=2) as ee:
        seen = Cell()
        seen.strangers = (ABROAD,)
        for stand in ee.stands:
            stand.server._cell = seen
        async with ee.client(**{"accept-language": "en"}) as client:
            for body in (ASKED[Endpoint.CHAT], {**ASKED[Endpoint.CHAT], "stream": True}):
                refused = await client.post(CHAT, json=body)
                assert (refused.status_code, refused.json()["error"]["code"]) == (503, "foreign_node_in_cell")
                assert "33333333" in refused.json()["error"]["message"]
                assert int(refused.headers["retry-after"]) > 0
        assert [stand.engine.claims for stand in ee.stands] == [[], []]


async def asked(place: Land) -> tuple[int, str | None]:
    async with place.client() as client:
        answer = await client.post(CHAT, json=ASKED[Endpoint.CHAT])
    return answer.status_code, answer.json().get("error", {}).get("code")


async def misrouted(place: Land) -> int:
    """Past the gateway, with a claim that is good."""
    now = time.time()
    claim = Claim("ee", "acme", "req-1", ServiceClass.STANDARD, CHAT, now + 60, now + 20)
    host, port = place.stands[0].replica.address.host, place.stands[0].replica.address.port
    async with httpx.AsyncClient() as client:
        answer = await client.post(
            f"http://{host}:{port}{CHAT}",
            content=orjson.dumps(ASKED[Endpoint.CHAT]),
            headers={HEADER: place.cell_key.sign(claim), "content-type": "application/json"},
        )
    return answer.status_code


@pytest.mark.parametrize("language", LANGUAGES)
def test_callers_are_told_in_their_language_which_node_it_is(language: str) -> None:
    said = messages.text(Reason.FOREIGN_NODE_IN_CELL, language, {"country": "KR", "name": "33333333"})
    assert "KR" in said
    assert "33333333" in said


def test_r2_up_refuses_it_before_anything_starts(tmp_path: Path) -> None:
    for code in ("ee", "kr"):
        described = yaml.safe_load((SHIPPED / code / "tenant.yaml").read_text())
        (tmp_path / "countries" / code).mkdir(parents=True)
        if code == "ee":
            described["isolation"] = "cell"
        (tmp_path / "countries" / code / "tenant.yaml").write_text(yaml.safe_dump(described))
    home = tmp_path / "home"
    refused = subprocess.run(
        [DOMICILE, "up"],
        env={**os.environ, "DOMICILE_HOME": str(home), "DOMICILE_COUNTRIES": str(tmp_path / "countries")},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert refused.returncode == 1, refused.stderr
    assert "ee is a cell" in refused.stderr
    assert not home.exists()
    assert not ours(home)
