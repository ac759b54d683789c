"""Lengths fit the published distributions, and a user's own trace is read or refused with the lines that are wrong."""

from __future__ import annotations

import json
import math
import random
import warnings
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.planning.published import MOONCAKE_HITS, PUBLISHED, SERVEGEN_CV, SERVEGEN_SKEW, Quantiles
from loadtests.scenario import Lengths
from loadtests.traces import TraceRow, clients, lengths, quantile_draws, read_trace
from tenants.errors import TenantError

DRAWS = 20_000
SEEDS = range(5)
UNCUT = {"prompt_limit": 1_000_000, "output_limit": 1_000_000}
Values = npt.NDArray[np.float64]

# From the papers, apart from the tables that imitate them: mean, p50, p90, p99 where known.
TARGETS: Mapping[tuple[str, str], tuple[float, float | None, float | None, float | None]] = {
    ("azure-conversation", "prompt"): (1155, 1020, 2735, 4142),
    ("azure-conversation", "output"): (211, 129, 424, 601),
    ("azure-code", "prompt"): (2048, 1469, 5194, 7436),
    ("azure-code", "output"): (28, 13, 55, 252),
    ("mooncake-conversation", "prompt"): (12_035, None, None, None),
    ("mooncake-conversation", "output"): (343, None, None, None),
    ("servegen", "prompt"): (1155, None, None, None),
    ("servegen", "output"): (211, 211 * math.log(2), 211 * math.log(10), 211 * math.log(100)),
}


def sample(trace: str, which: str, seed: int) -> Values:
    spec = Lengths.model_validate({"trace": trace, **UNCUT})
    return np.array([pair[which == "output"] for pair in islice(lengths(spec, random.Random(seed)), DRAWS)], float)


def distance(found: Values, quantiles: Quantiles) -> float:
    """Kolmogorov–Smirnov: the largest difference between the two cumulative distributions.

    Tokens are whole numbers, so the empirical one is met halfway through the step of each.
    """
    probabilities, values = zip(*quantiles, strict=True)
    points, counts = np.unique(found, return_counts=True)
    reached = np.cumsum(counts) / len(found)
    wanted = np.interp(np.log(points + 0.5), np.log(values), probabilities)
    return float(np.abs(reached - wanted).max())


def critical(count: int) -> float:
    """The distance that one sample in 100,000 of the right distribution exceeds (Kolmogorov's limit)."""
    return math.sqrt(-math.log(1e-5 / 2) / 2 / count)


def fits(found: Values, trace: str, which: str) -> bool:
    return distance(found, getattr(PUBLISHED[trace], which)) < critical(len(found)) + 0.002


@pytest.mark.parametrize(("trace", "which"), TARGETS)
@pytest.mark.parametrize("seed", SEEDS)
def test_lengths_fit_the_published_distribution(trace: str, which: str, seed: int) -> None:
    found = sample(trace, which, seed)
    assert fits(found, trace, which)
    mean, *quantiles = TARGETS[trace, which]
    assert found.mean() == pytest.approx(mean, rel=0.04)
    for share, wanted, tolerance in zip((0.5, 0.9, 0.99), quantiles, (0.05, 0.05, 0.08), strict=True):
        if wanted is not None:
            assert np.quantile(found, share) == pytest.approx(wanted, rel=tolerance, abs=1)


@pytest.mark.parametrize(("trace", "which"), TARGETS)
def test_the_fit_is_a_test_that_fails_for_other_distributions(trace: str, which: str) -> None:
    """Everybody's first idea of a prompt's length: uniform, exponential or log-normal of the right mean."""
    rng = np.random.default_rng(1)
    mean = TARGETS[trace, which][0]
    wrong = {
        "uniform": rng.uniform(1, 2 * mean, DRAWS),
        "log-normal": rng.lognormal(math.log(mean) - 0.125, 0.5, DRAWS),
        "shifted": sample(trace, which, 1) * 1.1,
    }
    if (trace, which) != ("servegen", "output"):
        wrong["exponential"] = rng.exponential(mean, DRAWS)
    for name, found in wrong.items():
        assert not fits(np.maximum(1, np.round(found)), trace, which), name


@pytest.mark.parametrize(("trace", "which"), TARGETS)
def test_a_published_table_is_a_quantile_function(trace: str, which: str) -> None:
    probabilities, values = zip(*getattr(PUBLISHED[trace], which), strict=True)
    assert probabilities[0] == 0
    assert probabilities[-1] == 1
    assert list(probabilities) == sorted(set(probabilities))
    assert list(values) == sorted(values)
    assert values[0] >= 1


@pytest.mark.parametrize("trace", PUBLISHED)
def test_prompt_and_answer_are_uncorrelated(trace: str) -> None:
    pairs = [*islice(lengths(Lengths.model_validate({"trace": trace, **UNCUT}), random.Random(4)), DRAWS)]
    assert abs(float(np.corrcoef(np.log(np.array(pairs, float)).T)[0, 1])) < 0.03


def test_the_arrivals_of_the_azure_traces_and_mooncakes_hits_are_as_measured() -> None:
    assert PUBLISHED["azure-conversation"].arrival_cv == 1.09
    assert PUBLISHED["azure-code"].arrival_cv == 13
    assert MOONCAKE_HITS == 0.366


def test_lengths_are_scaled_and_then_cut() -> None:
    spec = Lengths.model_validate({"trace": "azure-conversation", "prompt_scale": 0.5, "prompt_limit": 1000})
    found = [prompt for prompt, _ in islice(lengths(spec, random.Random(1)), 5000)]
    assert max(found) == 1000
    assert float(np.median(found)) == pytest.approx(510, rel=0.08)
    assert min(found) >= 1


def test_tiny_scales_leave_a_token() -> None:
    spec = Lengths.model_validate({"trace": "azure-code", "prompt_scale": 1e-6, "output_scale": 1e-6})
    assert set(islice(lengths(spec, random.Random(1)), 100)) == {(1, 1)}


def test_fixed_lengths_are_fixed() -> None:
    assert set(islice(lengths(Lengths(prompt=40, output=16), random.Random(1)), 9)) == {(40, 16)}


def test_lengths_are_repeatable() -> None:
    spec = Lengths(trace="servegen")
    one, same, other = ([*islice(lengths(spec, random.Random(seed)), 600)] for seed in (1, 1, 2))
    assert one == same != other


def test_servegens_clients_share_the_load_as_published() -> None:
    """m-large: the first 1, 5 and 10 clients make 16, 43 and 63% of the load."""
    shares = [client.share for client in clients(31, random.Random(1))]
    assert [sum(shares[:top]) for top in (1, 5, 10)] == pytest.approx([0.16, 0.43, 0.63], abs=0.02)
    flat = [client.share for client in clients(31, random.Random(1), SERVEGEN_SKEW - 0.2)]
    assert sum(flat[:10]) < 0.61 - 0.05, "the same comparison tells another exponent apart"


def test_servegens_clients_are_as_bursty_as_published() -> None:
    found = clients(20_000, random.Random(1))
    spread = np.array([client.cv for client in found])
    assert np.quantile(spread, [0.5, 0.75, 0.9]) == pytest.approx([1.2, 2.2, 6.2], rel=0.05)
    assert sum(client.family == "gamma" for client in found) / len(found) == pytest.approx(0.7, abs=0.02)


def test_draws_reach_both_ends_of_their_quantiles_and_no_further() -> None:
    found = [*islice(quantile_draws(SERVEGEN_CV, random.Random(1)), DRAWS)]
    assert min(found) >= 0.5
    assert max(found) <= 12


GOOD = {"at": 1.0, "prompt_tokens": 10, "output_tokens": 5}


def written(folder: Path, *rows: Mapping[str, Any] | str) -> Path:
    path = folder / "trace.jsonl"
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def complaints(path: Path) -> list[str]:
    with pytest.raises(TenantError) as raised:
        read_trace(path)
    assert raised.value.path == path
    return [str(problem) for problem in raised.value.problems]


def test_a_trace_is_read_with_all_that_it_says(tmp_path: Path) -> None:
    full = {**GOOD, "at": 2, "organisation": "acme", "session": 7, "shared_tokens": 4}
    assert read_trace(written(tmp_path, GOOD, full)) == (
        TraceRow(1.0, 10, 5),
        TraceRow(2.0, 10, 5, "acme", "7", 4),
    )


def test_a_trace_may_end_in_blank_lines_and_have_windows_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_bytes(json.dumps(GOOD).encode() + b"\r\n" + json.dumps(GOOD).encode() + b"\r\n\r\n\n")
    assert len(read_trace(path)) == 2


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"at": 1, "prompt_tokens": 3}, "output_tokens is missing"),
        ({**GOOD, "at": -1}, "at must be a finite number of seconds, 0 or more (given: -1)"),
        ({**GOOD, "at": float("nan")}, "at must be a finite number of seconds, 0 or more (given: nan)"),
        ({**GOOD, "at": float("inf")}, "at must be a finite"),
        ({**GOOD, "at": 10**400}, "at must be a finite"),
        ({**GOOD, "at": "1"}, "at must be a finite"),
        ({**GOOD, "at": True}, "at must be a finite"),
        ({**GOOD, "prompt_tokens": 0}, "prompt_tokens must be a whole number, 1 or more (given: 0)"),
        ({**GOOD, "output_tokens": 2.5}, "output_tokens must be a whole number"),
        ({**GOOD, "output_tokens": None}, "output_tokens must be a whole number"),
        ({**GOOD, "shared_tokens": 11}, "shared_tokens must be a whole number, 0 to prompt_tokens (given: 11)"),
        ({**GOOD, "organisation": ""}, "organisation must be a name"),
        ({**GOOD, "session": 1.5}, "session must be a name or a whole number"),
        ({**GOOD, "promt_tokens": 4}, "unknown key 'promt_tokens'; did you mean 'prompt_tokens'?"),
        ({**GOOD, "at": 0.5}, "at is 0.5, before the line above (1): sort the trace by time"),
        ("", "is blank"),
        ("   ", "is blank"),
        ("{", "is not JSON"),
        ('{"at": 1,}', "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[1, 2]", "is not a JSON object"),
        ("null", "is not a JSON object"),
    ],
)
def test_a_hole_is_said_with_its_line(tmp_path: Path, row: Mapping[str, Any] | str, said: str) -> None:
    found = complaints(written(tmp_path, GOOD, row, GOOD))
    assert len(found) == 1
    assert found[0].startswith(f"line 2: {said}")


def test_all_that_is_wrong_with_a_line_is_said(tmp_path: Path) -> None:
    assert complaints(written(tmp_path, {"at": None})) == [
        "line 1: prompt_tokens is missing",
        "line 1: output_tokens is missing",
        "line 1: at must be a finite number of seconds, 0 or more (given: None)",
    ]


def test_the_first_five_problems_are_said_and_the_others_counted(tmp_path: Path) -> None:
    found = complaints(written(tmp_path, GOOD, *["x"] * 12))
    assert [one.split(":")[0] for one in found[:5]] == [f"line {number}" for number in range(2, 7)]
    assert found[5:] == ["and 7 more problems"]


@pytest.mark.parametrize("content", [b"", b"\n\n  \n"])
def test_an_empty_trace_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_bytes(content)
    assert complaints(path) == ["is empty: a trace needs at least one request"]


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    assert complaints(tmp_path / "none.jsonl") == ["cannot be read: No such file or directory"]
    assert complaints(tmp_path) == ["cannot be read: Is a directory"]


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_bytes(b"\x1f\x8b\x08\x00\xff\xfe\n\x80\x81\n")
    assert all("is not JSON" in one for one in complaints(path))


def test_an_hour_without_requests_is_warned_of(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"line 2: nothing comes for 2\.0 hours before it"):
        rows = read_trace(written(tmp_path, {**GOOD, "at": 0}, {**GOOD, "at": 7200}))
    assert len(rows) == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_trace(written(tmp_path, {**GOOD, "at": 0}, {**GOOD, "at": 3600}))


@given(st.binary(max_size=200))
def test_no_file_does_more_than_be_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    path.write_bytes(content)
    with pytest.raises(TenantError):
        read_trace(path)
