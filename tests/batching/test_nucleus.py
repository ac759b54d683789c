"""The logits processor, driven by vLLM's own sampler: what is sampled and reported is what vLLM alone would."""

from __future__ import annotations

from copy import copy, deepcopy
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import torch
from torch import Tensor

from tests.kernels.rows import batch

pytestmark = pytest.mark.engine

ROWS, VOCABULARY = 6, 4000
OURS = "domicile_nucleus"


def params(**wanted: Any) -> Any:
    from vllm import SamplingParams

    return SamplingParams(**wanted)


def processor(vocabulary: int = VOCABULARY) -> Any:
    from serving.batching.nucleus import Nucleus

    config = SimpleNamespace(model_config=SimpleNamespace(get_vocab_size=lambda: vocabulary))
    return Nucleus(config, torch.device("cpu"), False)


def taken(**wanted: Any) -> Any:
    from serving.batching.nucleus import take_over

    request = params(**wanted)
    take_over(request)
    return request


def update(size: int, added: Any = (), removed: Any = (), moved: Any = ()) -> Any:
    from vllm.v1.sample.logits_processor import BatchUpdate

    return BatchUpdate(size, list(removed), [(row, one, None, []) for row, one in added], list(moved))


MIXED: tuple[dict[str, Any], ...] = (
    {"temperature": 0.8, "top_p": 0.9},
    {"temperature": 0.0},
    {"temperature": 1.0, "top_k": 20, "top_p": 0.8},
    {"temperature": 1.3},
    {"temperature": 0.7, "min_p": 0.05},
    {"temperature": 1.0, "top_k": 5, "seed": 7},
)


def sampled(requests: list[Any], logits: Tensor, mode: str, ours: bool, sampler: Any = None) -> Any:
    """One step of vLLM's sampler or of another, its input built as ``InputBatch`` builds it."""
    from vllm.v1.sample.logits_processor import LogitsProcessors
    from vllm.v1.sample.logits_processor.builtin import MinPLogitsProcessor
    from vllm.v1.sample.metadata import SamplingMetadata
    from vllm.v1.sample.sampler import Sampler

    config: Any = SimpleNamespace(scheduler_config=SimpleNamespace(max_num_seqs=8))
    chain = [MinPLogitsProcessor(config, torch.device("cpu"), False), *([processor()] if ours else [])]
    for one in chain:
        one.update_state(update(len(requests), added=enumerate(requests)))
    nothing = torch.zeros(len(requests))
    top_p = torch.tensor([one.top_p for one in requests])
    top_k = torch.tensor([one.top_k if one.top_k > 0 else logits.shape[1] for one in requests], dtype=torch.int32)
    metadata = SamplingMetadata(
        temperature=torch.tensor([one.temperature for one in requests]),
        all_greedy=all(one.temperature == 0 for one in requests),
        all_random=all(one.temperature > 0 for one in requests),
        top_p=top_p if bool((top_p < 1).any()) else None,
        top_k=top_k if bool((top_k < logits.shape[1]).any()) else None,
        generators={
            row: torch.Generator().manual_seed(one.seed) for row, one in enumerate(requests) if one.seed is not None
        },
        max_num_logprobs=5,
        no_penalties=True,
        prompt_token_ids=None,
        frequency_penalties=nothing,
        presence_penalties=nothing,
        repetition_penalties=nothing + 1,
        output_token_ids=[[] for _ in requests],
        allowed_token_ids_mask=None,
        bad_words_token_ids={},
        logitsprocs=LogitsProcessors(chain),
    )
    if ours:
        assert metadata.top_p is None, "there is nothing left that vLLM would sort for"
        assert metadata.top_k is None
    torch.manual_seed(11)
    with torch.inference_mode():
        return (sampler or Sampler)(logprobs_mode=mode)(logits.clone(), metadata)


@pytest.mark.parametrize("mode", ["raw_logprobs", "raw_logits", "processed_logprobs", "processed_logits"])
@pytest.mark.parametrize("kind", ["real", "flat", "peaked"])
def test_tokens_and_logprobs_are_those_of_vllm_alone(mode: str, kind: str) -> None:
    logits = batch(kind, ROWS, VOCABULARY, seed=3)
    theirs = sampled([params(**one) for one in MIXED], logits, mode, ours=False)
    same_as(sampled([taken(**one) for one in MIXED], logits, mode, ours=True), theirs)


def same_as(ours: Any, theirs: Any) -> None:
    assert torch.equal(ours.sampled_token_ids, theirs.sampled_token_ids)
    found, expected = ours.logprobs_tensors, theirs.logprobs_tensors
    likely = expected.logprobs > -torch.inf  # which of the impossible ones are listed is nobody's promise
    assert torch.equal(found.logprobs, expected.logprobs)
    assert torch.equal(found.logprob_token_ids[likely], expected.logprob_token_ids[likely])
    assert torch.equal(found.selected_token_ranks, expected.selected_token_ranks)


@pytest.fixture
def draws(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rows of each draw in one sweep."""
    from serving.batching.nucleus import Nucleus

    made: list[int] = []
    draw = Nucleus.draw

    def counted(self: Any, logits: Tensor, *more: Tensor) -> Tensor:
        made.append(len(logits))
        return draw(self, logits, *more)

    monkeypatch.setattr(Nucleus, "draw", counted)
    return made


RANDOM = tuple(one for one in MIXED if one["temperature"])
PLAIN: tuple[dict[str, Any], ...] = ({"temperature": 1.0}, {"temperature": 0.5, "seed": 3})
"""Nobody drops anything, which is what callers ask for who say nothing."""


@pytest.mark.parametrize("asked", [MIXED, RANDOM, PLAIN], ids=["mixed", "random", "plain"])
@pytest.mark.parametrize("mode", ["raw_logprobs", "raw_logits"])
@pytest.mark.parametrize("kind", ["real", "flat", "peaked"])
def test_one_sweep_draws_what_vllm_alone_draws(kind: str, mode: str, asked: Any, draws: list[int]) -> None:
    from serving.batching.sampler import NucleusSampler

    logits = batch(kind, len(asked), 49_152, seed=5)
    theirs = sampled([params(**one) for one in asked], logits, mode, ours=False)
    same_as(sampled([taken(**one) for one in asked], logits, mode, True, NucleusSampler), theirs)
    assert draws == [len(asked)]


@pytest.mark.parametrize("mode", ["processed_logprobs", "processed_logits"])
def test_what_is_left_of_the_logits_is_reported_where_that_is_asked_for(mode: str, draws: list[int]) -> None:
    from serving.batching.sampler import NucleusSampler

    logits = batch("real", ROWS, VOCABULARY, seed=5)
    theirs = sampled([params(**one) for one in MIXED], logits, mode, ours=False)
    same_as(sampled([taken(**one) for one in MIXED], logits, mode, True, NucleusSampler), theirs)
    assert draws == []


@pytest.mark.parametrize("ours", [True, False], ids=["greedy", "without our processor"])
def test_a_batch_that_is_not_for_one_sweep_is_left_to_vllm(ours: bool, draws: list[int]) -> None:
    from serving.batching.sampler import NucleusSampler

    asked = (
        [{"temperature": 0.0}] * 2 if ours else [{"temperature": 0.8, "top_p": 0.9}, {"temperature": 0.7, "min_p": 0.1}]
    )
    logits = batch("real", 2, VOCABULARY, seed=5)
    theirs = sampled([params(**one) for one in asked], logits, "raw_logprobs", ours=False)
    same_as(sampled([params(**one) for one in asked], logits, "raw_logprobs", ours, NucleusSampler), theirs)
    assert draws == []


def test_seeds_come_from_where_vllm_takes_them() -> None:
    """So that a request with a seed gets the answer that it got before, and its generator goes on as it would."""
    import inspect

    from vllm.v1.sample.ops.topk_topp_sampler import TopKTopPSampler

    source = inspect.getsource(TopKTopPSampler.forward_cpu)
    assert "torch.randint(0, 2**31, (batch_size,), dtype=torch.long)" in source
    assert "torch.ops._C.fused_gumbel_argmax(logits_f32, seeds)" in source


def test_vllm_draws_by_the_definition() -> None:
    """The reference, in Python and without vLLM, and vLLM's own compiled code give one token, for any seed."""
    from importlib import import_module

    from kernels.nucleus import reference

    import_module("vllm._C")  # which registers the operation

    logits = batch("flat", 200, 150, seed=9) * 2
    seeds = torch.randint(0, 2**31, (200,), generator=torch.Generator().manual_seed(1))
    seeds[:4] = torch.tensor([0, 1, 2**31 - 1, -1])
    assert torch.equal(reference.draw(logits, torch.ones(200), seeds), torch.ops._C.fused_gumbel_argmax(logits, seeds))


def test_parameters_go_where_vllm_does_not_look() -> None:
    request = taken(temperature=0.5, top_k=40, top_p=0.9, min_p=0.1, extra_args={"other": 1})
    assert (request.top_k, request.top_p, request.min_p) == (0, 1.0, 0.0)
    assert request.extra_args == {"other": 1, OURS: [40, 0.9, 0.1]}


@pytest.mark.parametrize(
    "wanted", [{"temperature": 0.0, "top_p": 0.5, "top_k": 3}, {"temperature": 1.0}, {"top_k": -1}]
)
def test_what_has_nothing_on_is_left_alone(wanted: dict[str, Any]) -> None:
    assert OURS not in taken(**wanted).extra_args


@pytest.mark.parametrize("wanted", [{"temperature": 0.0}, {"top_p": 0.5}])
def test_what_a_client_writes_under_our_name_is_gone(wanted: dict[str, Any]) -> None:
    sent = {OURS: [1, 0.1, 0.9]}
    request = taken(extra_args=sent, **wanted)
    assert request.extra_args.get(OURS) in (None, [0, 0.5, 0.0])
    assert sent == {OURS: [1, 0.1, 0.9]}, "the client's own dictionary may be shared"


@pytest.mark.parametrize("again", [copy, deepcopy, lambda one: one.clone()], ids=["copy", "deepcopy", "clone"])
def test_copies_for_further_answers_keep_them(again: Any) -> None:
    request = taken(n=3, top_p=0.5)
    assert again(request).extra_args == {OURS: [0, 0.5, 0.0]}


def test_they_reach_the_engine_over_the_wire() -> None:
    from vllm import SamplingParams
    from vllm.v1.serial_utils import MsgpackDecoder, MsgpackEncoder

    request = taken(top_k=3, top_p=0.5, min_p=0.25)
    arrived = MsgpackDecoder(SamplingParams).decode(MsgpackEncoder().encode(request))
    ours = processor()
    ours.update_state(update(1, added=[(0, arrived)]))
    assert dropped(ours, 1) == [VOCABULARY - 1]
    assert msgspec.structs.asdict(arrived)["top_p"] == 1.0


def dropped(ours: Any, rows: int) -> list[int]:
    """Of each row; the largest logit is three times as likely as the next, and so on."""
    logits = (-torch.arange(float(VOCABULARY)) * 1.0986).repeat(rows, 1)
    logits[:, 200:] = -300.0
    found = ours.apply(logits)
    assert found is logits
    return [int((row == -torch.inf).sum()) for row in found]


@pytest.mark.parametrize(
    "hostile",
    [None, 3, "x", [], [1], ["a", 0.5, 0.5], [1.5, 0.5, 0], [3, "1", 0], [3, float("nan"), 0], [2**70, 0.5, 0], {}],
    ids=str,
)
def test_words_of_a_client_that_got_through_do_not_end_the_engine(hostile: Any) -> None:
    ours = processor()
    request = SimpleNamespace(extra_args={OURS: hostile})
    ours.update_state(update(1, added=[(0, request)]))
    assert dropped(ours, 1) == [0]


def test_rows_are_followed_as_requests_come_go_and_move() -> None:
    from vllm.v1.sample.logits_processor import MoveDirectionality as Move

    ours, whole = processor(), VOCABULARY
    one, two, none = taken(top_k=1), taken(top_k=2), taken(temperature=0.0)
    assert dropped(ours, 3) == [0, 0, 0]
    ours.update_state(update(3, added=[(0, one), (1, none), (2, two)]))
    assert dropped(ours, 3) == [whole - 1, 0, whole - 2]
    ours.update_state(None)
    assert dropped(ours, 3) == [whole - 1, 0, whole - 2]
    ours.update_state(update(3, moved=[(0, 2, Move.SWAP)]))
    assert dropped(ours, 3) == [whole - 2, 0, whole - 1]
    ours.update_state(update(2, removed=[0], moved=[(2, 0, Move.UNIDIRECTIONAL)]))
    assert dropped(ours, 2) == [whole - 1, 0]
    ours.update_state(update(2, added=[(0, none), (1, two)]))
    assert dropped(ours, 2) == [0, whole - 2]
    ours.update_state(update(1, removed=[1]))
    assert dropped(ours, 1) == [0]


def test_nothing_is_looked_at_where_nobody_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    from serving.batching import nucleus

    ours = processor()
    ours.update_state(update(2, added=[(0, taken(temperature=0.0)), (1, taken())]))
    monkeypatch.setattr(nucleus, "cpu", None)
    assert dropped(ours, 2) == [0, 0]


def test_vllm_takes_it_for_argmax_invariant() -> None:
    from vllm.v1.sample.logits_processor import LogitsProcessors

    ours = processor()
    assert LogitsProcessors([ours]).argmax_invariant == [ours]


def test_a_vocabulary_that_cannot_be_added_up_ends_the_engine_s_start_and_not_a_step() -> None:
    processor(2**19 - 1)
    with pytest.raises(ValueError, match="524288 tokens"):
        processor(2**19)
