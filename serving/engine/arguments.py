"""From a model's entry in ``tenant.yaml`` to the arguments of the pinned vLLM.

What a country may name at all is judged in :mod:`tenants.arguments`. Here each named value is held against
``arguments.json``, a description of the pinned vLLM's own parser, so that a typo is refused in
milliseconds, before anything starts and without importing vLLM. vLLM's parser has the last word at start.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Literal, TypedDict

from pydantic import JsonValue

from serving.batching.orders import Orders
from serving.types import ServiceClass
from tenants.country import Engine, Model, Slo

DESCRIPTION = Path(__file__).with_name("arguments.json")
GIB = 1024**3
CUDA_DEVICE = Path("/dev/nvidia0")
Device = Literal["cpu", "gpu"]
DEFAULT_SLO = Slo()
SCHEDULERS: Mapping[Device, str] = {
    "cpu": "serving.batching.scheduler.FairScheduler",
    "gpu": "serving.batching.scheduler.FairAsyncScheduler",
}
NUCLEUS = "serving.batching.nucleus:Nucleus"
CPU_WORKER = "serving.engine.worker.Worker"
CPU_EXECUTOR = "serving.engine.executor.SleepingExecutor"
LINEAR = "domicile_linear"
"""Key in vLLM's ``additional_config``: which linear layers were chosen, for the worker. What vLLM compiled for the one
is not taken for the other's, since this dictionary is part of what it is found by."""
CPU_BLOCK_TOKENS = 32
"""Tokens of a block of the KV cache: the fewest with which vLLM's attention on CPUs starts, where vLLM takes 128. A
prefix is shared in whole blocks, and a step is faster (decision 34)."""
BATCH_PIECE_TOKENS = 4
"""vLLM's ``stream_interval`` for class ``batch``: tokens of an event after the first. Who can wait needs no event for
each, which costs front, gateway and client what the engine could compute with. The promise is of tokens on average."""
SWITCHES = ("switch", "nothing")


class ArgumentsRefused(ValueError):
    """vLLM would not take these engine arguments. The text says which and why."""


class Description(TypedDict):
    """One argument of vLLM's parser."""

    takes: Literal["switch", "nothing", "one", "many"]
    """``switch`` can be written ``--no-…`` too, ``nothing`` cannot."""
    type: Literal["int", "float", "text"]
    choices: list[str] | None


@cache
def described() -> dict[str, Description]:
    description: dict[str, Description] = json.loads(DESCRIPTION.read_text())
    return description


def device(engine: Engine) -> Device:
    """Where the model runs: ``auto`` is a GPU where the node has one."""
    if engine.device != "auto":
        return engine.device
    return "gpu" if CUDA_DEVICE.exists() else "cpu"


def arguments(model: Model, weights: str, slo: Slo = DEFAULT_SLO) -> dict[str, JsonValue]:
    """All arguments for one engine: the country's own, and those that the runtime decides.

    Args:
        weights: a local folder, or a hub id where the country allows hubs.
        slo: what the country promises, which the engine's steps are made to keep.

    Raises:
        ArgumentsRefused: for a value that the pinned vLLM would not take.
    """
    engine = model.engine
    check(engine.arguments)
    chosen: dict[str, JsonValue] = {
        "model": weights,
        "served_model_name": [model.id],
        "enforce_eager": engine.profile == "fast-start",
        "tensor_parallel_size": engine.tensor_parallel_size,
        "pipeline_parallel_size": engine.pipeline_parallel_size,
        # Callers see what their organisation's cache saved them (API.md), and nothing else is logged of a request.
        "enable_prompt_tokens_details": True,
        "enable_log_requests": False,
        "disable_fastapi_docs": True,
    }
    if device(engine) == "cpu":
        chosen["kv_cache_memory_bytes"] = int(engine.kv_cache_gib * GIB)
        chosen["block_size"] = CPU_BLOCK_TOKENS
    elif engine.tensor_parallel_size * engine.pipeline_parallel_size > 1:
        # Workers join the replica's placement group, whose bundles carry the country's label.
        chosen["distributed_executor_backend"] = "ray"
    additional: dict[str, JsonValue] = {}
    if engine.scheduler == "fair":
        chosen["scheduler_cls"] = SCHEDULERS[device(engine)]
        additional |= Orders.keeping(inter_token_s(slo)).config()
    if device(engine) == "cpu":
        additional[LINEAR] = engine.linear
        # On GPUs vLLM's own sampling kernel is the fast one.
        chosen["logits_processors"] = [NUCLEUS]
        chosen["worker_cls"] = CPU_WORKER
        chosen["distributed_executor_backend"] = CPU_EXECUTOR
    if additional:
        chosen["additional_config"] = additional
    return {**chosen, **engine.arguments}


def inter_token_s(slo: Slo) -> float:
    """The strictest inter-token promise of all but those who asked to wait."""
    return min(slo.promise(one).inter_token_s for one in ServiceClass if one is not ServiceClass.BATCH)


def check(named: Mapping[str, JsonValue]) -> None:
    """Hold values against the description of vLLM's parser.

    Raises:
        ArgumentsRefused: with every problem found, one a line.
    """
    problems = [problem for name, value in named.items() if (problem := _problem(name, value))]
    if problems:
        raise ArgumentsRefused("\n".join(problems))


def _problem(name: str, value: JsonValue) -> str | None:
    known = described().get(name)
    if known is None:
        return f"engine argument '{name}' is not known to the pinned vLLM"
    if known["takes"] in SWITCHES and not isinstance(value, bool):
        return f"engine argument '{name}' is true or false, not {value!r}"
    if known["choices"] and isinstance(value, str | int) and str(value) not in known["choices"]:
        return f"engine argument '{name}' is one of {', '.join(known['choices'])}, not {value!r}"
    if known["type"] == "int" and (isinstance(value, bool) or not isinstance(value, int | str)):
        return f"engine argument '{name}' is a whole number, not {value!r}"
    if known["type"] == "float" and (isinstance(value, bool) or not isinstance(value, int | float)):
        return f"engine argument '{name}' is a number, not {value!r}"
    return None


def command_line(chosen: Mapping[str, JsonValue]) -> list[str]:
    """The arguments as vLLM's parser reads them: the form in which its own checks apply."""
    line: list[str] = []
    for name, value in chosen.items():
        flag = name.replace("_", "-")
        if value is None:
            continue
        takes = described()[name]["takes"]
        if takes in SWITCHES:
            line += [f"--{flag}"] if value else [f"--no-{flag}"] * (takes == "switch")
        elif isinstance(value, list) and takes == "many":
            line += [f"--{flag}", *map(str, value)]
        elif isinstance(value, dict | list):
            line += [f"--{flag}", json.dumps(value)]
        else:
            line += [f"--{flag}", str(value)]
    return line
