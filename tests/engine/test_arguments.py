"""From tenant.yaml to the pinned vLLM's command line."""

from __future__ import annotations

import json

import pytest

from serving.engine.arguments import DESCRIPTION, ArgumentsRefused, arguments, check, command_line, described
from tenants.country import Engine, Model, Source


def model(**engine: object) -> Model:
    return Model(id="m", source=Source(bundled="smollm2-135m-instruct"), engine=Engine.model_validate(engine))


def test_what_the_country_names_passes_through() -> None:
    chosen = arguments(model(device="cpu", arguments={"max_model_len": 2048, "dtype": "float32"}), "/weights")
    assert (chosen["max_model_len"], chosen["dtype"]) == (2048, "float32")
    assert chosen["model"] == "/weights"
    assert chosen["served_model_name"] == ["m"]


def test_the_profile_decides_about_compiling() -> None:
    assert arguments(model(device="cpu"), "/w")["enforce_eager"] is True
    assert arguments(model(device="cpu", profile="throughput"), "/w")["enforce_eager"] is False


def test_the_cpu_has_a_cache_of_the_size_named_and_the_gpu_is_left_to_vllm() -> None:
    assert arguments(model(device="cpu", kv_cache_gib=0.5), "/w")["kv_cache_memory_bytes"] == 512 * 1024**2
    assert "kv_cache_memory_bytes" not in arguments(model(device="gpu"), "/w")


def test_the_cpus_cache_has_small_blocks_unless_the_country_says_otherwise() -> None:
    assert arguments(model(device="cpu"), "/w")["block_size"] == 32
    assert arguments(model(device="cpu", arguments={"block_size": 64}), "/w")["block_size"] == 64
    assert "block_size" not in arguments(model(device="gpu"), "/w")


def test_workers_on_several_gpus_join_the_placement_group() -> None:
    assert arguments(model(device="gpu", tensor_parallel_size=2), "/w")["distributed_executor_backend"] == "ray"
    assert "distributed_executor_backend" not in arguments(model(device="gpu"), "/w")


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ({"max_model_len": "many"}, None),
        ({"max_model_len": 1.5}, "whole number"),
        ({"max_model_len": True}, "whole number"),
        ({"dtype": "float31"}, "float32"),
        ({"enable_auto_tool_choice": "yes"}, "true or false"),
        ({"gpu_memory_utilization": "much"}, "a number"),
        ({"no_such_argument": 1}, "not known to the pinned vLLM"),
    ],
)
def test_a_value_that_vllm_would_not_take(named: dict[str, object], said: str | None) -> None:
    if said is None:
        check(named)  # type: ignore[arg-type] # "4k" is a length to vLLM, so its own parser judges words
        return
    with pytest.raises(ArgumentsRefused, match=said):
        check(named)  # type: ignore[arg-type]


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(ArgumentsRefused) as refused:
        check({"dtype": "x", "max_model_len": 1.5})
    assert str(refused.value).count("\n") == 1


@pytest.mark.engine
@pytest.mark.timeout(300)
def test_the_description_is_the_pinned_parsers() -> None:
    from serving.engine.describe import describe_arguments

    assert json.loads(DESCRIPTION.read_text()) == describe_arguments()


@pytest.mark.engine
@pytest.mark.timeout(300)
def test_vllm_reads_the_command_line_as_it_was_meant() -> None:
    from serving.engine.vllm import parse

    named = {
        "max_model_len": 1024,
        "dtype": "float32",
        "enable_auto_tool_choice": True,
        "tool_call_parser": "hermes",
        "enable_prefix_caching": False,
        "override_generation_config": {"temperature": 0.2},
    }
    chosen = arguments(model(device="cpu", arguments=named), "/weights")
    args = parse(command_line(chosen))
    for name, value in chosen.items():
        assert getattr(args, name) == value, name
    with pytest.raises(ArgumentsRefused):
        parse(["--tool-call-parser", "nobody", "--enable-auto-tool-choice", "--model", "/weights"])


def test_every_argument_that_the_runtime_sets_is_described() -> None:
    for device in ("cpu", "gpu"):
        assert set(arguments(model(device=device, tensor_parallel_size=2), "/w")) <= set(described())
