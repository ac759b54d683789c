"""What is no caller's abuse and answered all the same: a country that is down, or has too much to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.types import Endpoint
from tests.hostile.asking import EVERYWHERE, asked, refused
from tests.house import cut_after, land, lands
from tests.journeys.bodies import ASKED, CHAT, ask, text_of
from tests.loopback import events
from tests.schemas import check

pytestmark = pytest.mark.asyncio(loop_scope="module")


@EVERYWHERE
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("how", ["down", "draining", "overloaded"])
async def test_row_40_overloaded_or_down(tmp_path: Path, endpoint: Endpoint, stream: bool, how: str) -> None:
    async with lands(tmp_path, "ee", "kr") as (ee, kr):
        if how == "down":
            await ee.stands[0].vanish()
        elif how == "draining":
            ee.report(draining=ee.stands)
        else:
            ee.stands[0].server.draining = True
        response = await asked(ee, endpoint, stream=stream)
        error = refused(response, 503, "server_is_overloaded")
        assert error["type"] == "service_unavailable_error"
        assert 0 < int(response.headers["retry-after"]) <= 120
        assert response.headers["x-should-retry"] == "true"
        assert not kr.engine.claims


@pytest.mark.parametrize("resumable", [True, False])
async def test_row_40_a_replica_dies_mid_stream(tmp_path: Path, resumable: bool) -> None:
    fields = {"stop": "?"} if not resumable else {}
    async with land(tmp_path, replicas=2) as ee, ee.client() as client:
        whole = (await ask(client, CHAT))["choices"][0]["message"]["content"]
        lost = cut_after(ee, 3)
        response = await client.post(CHAT, json={**ASKED[CHAT], "stream": True, **fields})
        *told, last = events(response.content)
        assert len(lost) == 1
        if resumable:
            assert last.data == "[DONE]"
            assert text_of(told) == whole
        else:
            check("error", last.json())
            assert last.json()["error"]["type"] == "service_unavailable_error"
            assert 0 < len(text_of(told)) < len(whole)
            assert whole.startswith(text_of(told))
