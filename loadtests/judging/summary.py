"""A verdict in a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Group as Together
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from loadtests import words
from loadtests.judging.checks import Check
from loadtests.judging.figures import Figure, Group, Quantiles

_HEADLINES = {
    "kept": ("The promises were kept.", "bold green"),
    "broken": ("A promise was broken.", "bold red"),
    "none": ("No verdict.", "bold yellow"),
}
_MARKS = {True: ("✓", "green"), False: ("✗", "red"), None: ("?", "yellow")}


def render(
    word: str,
    groups: Sequence[Group],
    checks: Sequence[Check],
    reasons: Sequence[str],
    warm_up_s: Mapping[str, float],
) -> RenderableType:
    """The figures of each country and class, every check with its sentence, and the verdict last, where one looks."""
    parts: list[RenderableType] = []
    if groups:
        parts.append(_table(groups))
        parts.append(_warm_up(warm_up_s))
    parts.extend(_line(*_MARKS[check.passed], check.sentence) for check in checks)
    parts.append(Text(*_HEADLINES[word]))
    parts.extend(_line("·", "yellow", reason) for reason in reasons)
    return Together(*parts)


def _table(groups: Sequence[Group]) -> Table:
    table = Table(caption="Times are p50 / p95 / p99, goodput with its interval of 95% confidence", caption_style="dim")
    for name in ("country", "class"):
        table.add_column(name)
    for name in (
        "sent",
        "not served",
        "tokens/s in, out",
        "first token",
        "inter-token",
        "end to end",
        "goodput",
        "budget",
    ):
        table.add_column(name, justify="right")
    for group in groups:
        table.add_row(*_row(group))
    return table


def _row(group: Group) -> tuple[str, ...]:
    lost = [f"{group.counts[name]} {name}" for name in ("refused", "failed", "aborted") if group.counts[name]]
    return (
        group.country,
        group.service_class,
        words.count(group.counts["sent"]),
        ", ".join(lost) or words.NOTHING,
        f"{words.count(group.tokens_in_per_s)}, {words.count(group.tokens_out_per_s)}",
        _times(group.first_token_s),
        _times(group.inter_token_s),
        _times(group.end_to_end_s),
        _goodput(group.goodput),
        f"{group.budget_used.value:.0%}" if group.budget_used else words.NOTHING,
    )


def _times(quantiles: Quantiles) -> str:
    if not quantiles:
        return words.NOTHING
    values = [one.value for one in quantiles.values()]
    unit, scale = ("ms", 1e3) if max(values) < 1 else ("s", 1.0)
    return f"{' / '.join(words.digits(value * scale) for value in values)} {unit}"


def _goodput(figure: Figure | None) -> str:
    if figure is None:
        return words.NOTHING
    return f"{words.share(figure.value)} ({words.share(figure.interval.low)}–{words.share(figure.interval.high)})"


def _warm_up(warm_up_s: Mapping[str, float]) -> Text:
    cut = [f"{country} {words.seconds(seconds)}" for country, seconds in warm_up_s.items() if seconds > 0]
    return Text(f"Warm-up left out: {', '.join(cut) or 'none was found'}.", "dim")


def _line(mark: str, style: str, sentence: str) -> Text:
    # Text, not markup: sentences quote what a service said.
    return Text.assemble((f"{mark} ", style), sentence)
