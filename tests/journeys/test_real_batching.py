"""The batching core on the real engine: one organisation floods and another goes on; sampling keeps its meaning."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest

from serving.engine.turnaway import TurnedAway
from tests.running import MODEL, RunningCountry, RunningHouse

pytestmark = [pytest.mark.ray, pytest.mark.engine, pytest.mark.timeout(600)]

FLOOD = 40
LONG = "The sea was calm and the harbour full of ships. " * 100
SEVERAL_STEPS = "The sea was calm and the harbour full of ships. " * 250
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


def new_key(house: RunningHouse, organisation: str) -> str:
    assert house.domicile("org", "create", "ee", organisation, "--plan", "standard").code == 0
    made = house.domicile("key", "create", "ee", "--org", organisation, "--json")
    key = made.json()["key"]
    assert isinstance(key, str)
    return key


@pytest.fixture(scope="module")
def keys(running_house: RunningHouse) -> dict[str, str]:
    return {name: new_key(running_house, name) for name in ("flooding", "quiet")}


async def ask(client: httpx.AsyncClient, key: str, **fields: object) -> httpx.Response:
    body = {"model": MODEL, "messages": QUESTION, "max_tokens": 8, "temperature": 0, **fields}
    return await client.post("/v1/chat/completions", json=body, headers={"authorization": f"Bearer {key}"})


@pytest.fixture(scope="module")
def answers(running_country: RunningCountry, keys: dict[str, str]) -> tuple[list[httpx.Response], list[httpx.Response]]:
    """Of forty long prompts at once, and of a quiet neighbour who asks meanwhile, one question after the other."""

    async def meanwhile() -> tuple[list[httpx.Response], list[httpx.Response]]:
        limits = httpx.Limits(max_connections=2 * FLOOD)
        async with httpx.AsyncClient(base_url=running_country.address, timeout=300, limits=limits) as client:
            flood = [
                asyncio.create_task(
                    ask(
                        client,
                        keys["flooding"],
                        messages=[{"role": "user", "content": f"{number}. {LONG}"}],
                        stream=stream,
                    )
                )
                for number, stream in enumerate([True, False] * (FLOOD // 2))
            ]
            await asyncio.sleep(1.0)
            quiet = [await ask(client, keys["quiet"]) for _ in range(5)]
            return list(await asyncio.gather(*flood)), quiet

    return asyncio.run(meanwhile())


def test_a_quiet_neighbour_of_a_flood_is_served_as_ever(
    answers: tuple[list[httpx.Response], list[httpx.Response]],
) -> None:
    _, quiet = answers
    assert [one.status_code for one in quiet] == [200] * len(quiet)
    assert all("Paris" in one.json()["choices"][0]["message"]["content"] for one in quiet)


def test_a_flood_is_turned_away_before_it_was_begun_and_told_when_to_come_back(
    answers: tuple[list[httpx.Response], list[httpx.Response]],
) -> None:
    flood, _ = answers
    turned_away = [one for one in flood if one.status_code != 200]
    assert turned_away, "forty long prompts are more than can be served in time"
    assert len(turned_away) < len(flood), "those that can be are"
    for one in turned_away:
        assert one.status_code in (429, 503)
        assert int(one.headers["retry-after"]) >= 1
        assert one.headers["x-should-retry"] == "true"
        code = {429: "rate_limit_exceeded", 503: "server_is_overloaded"}[one.status_code]
        assert one.json()["error"]["code"] == code
    assert any(one.status_code == 429 for one in turned_away)
    for served in flood:
        if served.status_code == 200 and served.headers["content-type"].startswith("text/event-stream"):
            assert served.text.rstrip().endswith("data: [DONE]")


@pytest.mark.usefixtures("answers")
def test_whoever_is_turned_away_after_being_read_is_no_fault_in_the_replica_s_log(running_house: RunningHouse) -> None:
    replicas = [one for one in running_house.processes() if one.name().startswith("ray::ServeReplica")]
    logs = {Path(file.path) for one in replicas for file in one.open_files() if file.path.endswith((".out", ".err"))}
    written = "".join(log.read_text() for log in logs)
    assert "vllm" in written
    assert TurnedAway.__name__ not in written


def test_who_computes_lets_those_go_first_who_answer(running_house: RunningHouse) -> None:
    nice = {" ".join(process.cmdline()): process.nice() for process in running_house.processes()}
    computing = [value for title, value in nice.items() if title.startswith("VLLM::Worker")]
    answering = [value for title, value in nice.items() if title.startswith(("VLLM::EngineCore", "ray::ServeReplica"))]
    assert computing
    assert answering
    assert min(computing) > max(answering)


def test_a_worker_listens_with_one_thread(running_house: RunningHouse) -> None:
    """Every one more would wake the cores that it computes on a hundred times a second."""
    workers = [one for one in running_house.processes() if " ".join(one.cmdline()).startswith("VLLM::Worker")]
    assert workers
    for worker in workers:
        names = [(task / "comm").read_text().strip() for task in Path(f"/proc/{worker.pid}/task").iterdir()]
        assert names.count("gloo_tcp_loop") == 1


def test_seeds_and_n_keep_their_meaning(running_country: RunningCountry) -> None:
    sdk = running_country.sdk()

    def drawn(**options: object) -> list[str]:
        answer = sdk.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": "Tell me about the sea."}],
            max_tokens=24,
            temperature=1.0,
            **options,  # type: ignore[call-overload]
        )
        return [str(choice.message.content) for choice in answer.choices]

    assert drawn(seed=7, top_p=0.9) == drawn(seed=7, top_p=0.9)
    assert drawn(seed=7, top_p=0.9) != drawn(seed=8, top_p=0.9)
    assert len(set(drawn(seed=7, top_p=0.95, n=3))) > 1
    greedy = drawn(seed=1, extra_body={"top_k": 1})
    assert greedy == drawn(seed=2, extra_body={"top_k": 1}), "of one token there is nothing to draw"


def test_a_seeded_prompt_of_several_steps_is_answered_and_its_seed_means_the_same(
    running_country: RunningCountry,
) -> None:
    def drawn(seed: int) -> str:
        answer = running_country.sdk().chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": SEVERAL_STEPS}],
            max_tokens=16,
            temperature=1.5,
            seed=seed,
        )
        assert answer.usage is not None
        assert answer.usage.prompt_tokens > 2048, "vLLM's own budget of a step"
        return str(answer.choices[0].message.content)

    assert drawn(seed=5) == drawn(seed=5), "the second is prefilled in other pieces, since the cache has most of it"
    assert drawn(seed=5) != drawn(seed=6)


def test_log_probabilities_are_as_the_model_said_them(running_country: RunningCountry) -> None:
    told = running_country.sdk().chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "Say yes."}],
        max_tokens=4,
        top_p=0.5,
        logprobs=True,
        top_logprobs=5,
    )
    content = told.choices[0].logprobs
    assert content is not None
    assert content.content
    assert all(len(token.top_logprobs) == 5 for token in content.content)
    assert all(one.logprob > -1000 for token in content.content for one in token.top_logprobs), "as the model said them"
