"""Two runs, or the two sides of one run, figure by figure: by how much they differ, and how sure that is.

Requests that are near in time share the same queue, so they are no independent observations. What is resampled is
stretches of time, within each phase and in runs of neighbours (the stationary bootstrap of
:mod:`loadtests.judging.statistics`); where two sides took turns it is their slices, in pairs, as both sides met the
same minute of the machine, and each pair is drawn alone. Intervals are Student's, of the logarithm of the ratio,
with the resamples' standard error. A figure is called better or worse only where its interval would leave out "no
difference" after a Bonferroni correction for all the figures that are compared, so that a run compared with its like
seldom claims anything.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import NormalDist

import numpy as np
from rich.table import Table

from loadtests import words
from loadtests.judging.blocks import Blocks, Figures, measured
from loadtests.record import Run
from loadtests.reporting import page, plots
from loadtests.reporting.series import Columns, Floats, View

DRAWS = 1000
FEWEST = 30
"""Requests on each side, below which nothing is claimed."""
FEWEST_BLOCKS = 6
SEED = 20
CONFIDENCE = 0.95
ALL = ("all", "all")
"""In place of a country and a class: all of them together."""
NOT_DRAWN = ("failures", "tokens/s")
"""In the table only: a ratio of two small numbers would squeeze all others, and an open loop's tokens are its own."""


class Word(StrEnum):
    """What is claimed of a figure."""

    BETTER = "better"
    WORSE = "worse"
    SAME = "no difference shown"
    FEW = "too few to tell"


@dataclass(frozen=True, slots=True)
class Line:
    """One figure of one country and class, here and there."""

    country: str
    service_class: str
    figure: str
    one: float
    other: float
    ratio: float
    """The other over the one."""
    low: float
    high: float
    word: Word
    written: Callable[[float], str]


@dataclass(frozen=True, slots=True)
class Comparison:
    """All of them."""

    one: str
    other: str
    lines: tuple[Line, ...]
    paired: bool
    sides: Mapping[str, Columns]


def compare(one: View, other: View, names: tuple[str, str]) -> Comparison:
    """Two views of one run (its sides, paired slice by slice), or of two runs."""
    paired = one.run is other.run
    groups = one.requests.by("country", "service_class"), other.requests.by("country", "service_class")
    cells = [cell for cell in groups[0] if cell in groups[1]]
    here, there = Blocks.of(one, paired), Blocks.of(other, paired)
    if paired:
        here, there = here.paired_with(there)
    whole = measured(one, one.requests, here), measured(other, other.requests, there)
    draws = _draws(*whole, paired)
    pairs = [(cell, measured(one, groups[0][cell], here), measured(other, groups[1][cell], there)) for cell in cells]
    if len(cells) > 1:
        pairs.insert(0, (ALL, *whole))
    found = [
        (cell, (name, mine), (name, its), mine.ratios(its, name, *draws))
        for cell, mine, its in pairs
        for name in mine.names
    ]
    claims = len(found)
    lines = tuple(_line(cell, one_of, other_of, draws, claims) for cell, one_of, other_of, draws in found)
    return Comparison(*names, lines, paired, {names[0]: one.requests, names[1]: other.requests})


def compare_runs(one: Run, other: Run) -> Comparison:
    """The side under test of both, each called by its folder."""
    names = one.folder.resolve().name or "one", other.folder.resolve().name or "other"
    if names[0] == names[1]:
        names = f"{names[0]} (first)", f"{names[1]} (second)"
    return compare(View(one), View(other), names)


def render(one: Run, other: Run) -> str:
    """The comparison of two runs as one self-contained HTML file."""
    found = compare_runs(one, other)
    entries = [(name, _titled(run)) for name, run in zip((found.one, found.other), (one, other), strict=True)]
    head = (
        '<p class="kicker">Comparison of two load tests</p>'
        f"<h1>{page.escape(found.other)} against {page.escape(found.one)}</h1>"
        f'<div class="verdict {_tone(found)}"><p>{page.escape(sentence(found))}</p></div>{page.facts(entries)}'
    )
    different = _differences(one, other)
    notes = page.paragraph(different, "remark") if different else ""
    body = f"<header>{head}</header><main>{notes}{page.section('figures', 'Figure by figure', as_html(found))}</main>"
    return page.page(f"{found.other} against {found.one}", body)


def sentence(found: Comparison) -> str:
    """What it comes to."""
    better, worse = (sum(line.word is word for line in found.lines) for word in (Word.BETTER, Word.WORSE))
    if not found.lines:
        return "The two have no country and class in common, so nothing can be compared."
    if all(line.word is Word.FEW for line in found.lines):
        return "There are too few requests to compare the two."
    if not better and not worse:
        return f"No difference shown in any of {words.named(len(found.lines), 'figure')}."
    return (
        f"Of {words.named(len(found.lines), 'figure')}, {found.other} is better in {better} and worse in {worse}; "
        "in the others no difference is shown."
    )


def as_html(found: Comparison) -> str:
    """Both distributions, the ratios, and the table. Once in a page: its plots' ids are fixed."""
    parts = []
    rows = [
        (
            " · ".join(dict.fromkeys((one.country, one.service_class, one.figure))),
            one.ratio,
            one.low,
            one.high,
            one.word.value,
        )
        for one in found.lines
        if one.figure not in NOT_DRAWN
    ]
    drawn = (
        ("Both distributions", plots.overlaid(found.sides)),
        ("Ratios", plots.forest(rows[: plots.MOST_RATIOS], found.one, found.other)),
    )
    for title, drawing in drawn:
        parts.append(
            page.remark(drawing) if isinstance(drawing, str) else page.figure(title, drawing.svg, drawing.says)
        )
    head = ("Country", "Class", "Figure", found.one, found.other, "Difference", "95% interval", "Verdict")
    parts.append(page.table(head, map(_row, found.lines), _caption(found), words=3))
    return "".join(parts)


def as_table(found: Comparison) -> Table:
    """The same for the terminal."""
    table = Table(title=sentence(found), title_justify="left", title_style="bold", box=None, header_style="dim")
    for index, name in enumerate(
        ("country", "class", "figure", found.one, found.other, "difference", "95% interval", "")
    ):
        table.add_column(page.visible(name).replace("[", "\\["), justify="right" if 3 <= index <= 6 else "left")
    styles = {Word.BETTER: "green", Word.WORSE: "red"}
    for line in found.lines:
        cells = [one.text if isinstance(one, page.Cell) else one for one in _row(line)]
        table.add_row(*(page.visible(one).replace("[", "\\[") for one in cells), style=styles.get(line.word))
    return table


def _draws(one: Figures, other: Figures, paired: bool) -> tuple[Floats, Floats]:
    """Resamples of both sides' blocks; the same ones where the blocks are pairs."""
    rng = np.random.default_rng(SEED)
    if paired:
        both = one.blocks.draws(rng, DRAWS, None)
        return both, both
    return one.blocks.draws(rng, DRAWS, one.pulse), other.blocks.draws(rng, DRAWS, other.pulse)


def _line(
    cell: tuple[str, ...], one: tuple[str, Figures], other: tuple[str, Figures], draws: Floats, claims: int
) -> Line:
    name, figures = one
    ratio = figures.ratio(other[1], name)
    requests = min(figures.requests, other[1].requests)
    blocks = min(figures.blocks.count, other[1].blocks.count)
    error = _error(draws, blocks)
    low, high = _interval(ratio, error, 1 - CONFIDENCE, blocks)
    few = requests < FEWEST or blocks < FEWEST_BLOCKS
    claimed = _interval(ratio, error, (1 - CONFIDENCE) / max(claims, 1), blocks)
    word = Word.FEW if few else _word(*claimed, figures.more_is_better(name))
    return Line(
        cell[0], cell[1], name, figures.value(name), other[1].value(name), ratio, low, high, word, figures.written(name)
    )


def _interval(ratio: float, error: float, chance: float, blocks: int) -> tuple[float, float]:
    """Of the ratio, with Student's t, as its error is known from so many blocks (Cornish and Fisher's expansion)."""
    if math.isnan(error) or not 0 < ratio < math.inf:
        return math.nan, math.nan
    z = NormalDist().inv_cdf(1 - chance / 2)
    half = error * (z + (z**3 + z) / (4 * blocks))
    return ratio * math.exp(-half), ratio * math.exp(half)


def _error(draws: Floats, blocks: int) -> float:
    """The standard error of the logarithm; a bootstrap of few blocks takes it for too small by their number."""
    logs = np.log(draws[np.isfinite(draws) & (draws > 0)])
    if blocks < 2 or len(logs) < len(draws) / 2:
        return math.nan
    lost = blocks ** (1 / 3) / blocks
    return float(np.std(logs)) / math.sqrt(1 - lost)


def _word(low: float, high: float, more_is_better: bool) -> Word:
    if not (low > 1 or high < 1):
        return Word.SAME
    return Word.BETTER if (low > 1) is more_is_better else Word.WORSE


def _row(line: Line) -> Sequence[str | page.Cell]:
    tones: dict[Word, page.Tone] = {Word.BETTER: "good", Word.WORSE: "bad"}
    between = words.NOTHING
    if math.isfinite(line.low):
        between = f"{words.percent_more(line.low)} … {words.percent_more(line.high)}"
    return (
        line.country.upper(),
        line.service_class,
        line.figure,
        line.written(line.one),
        line.written(line.other),
        words.percent_more(line.ratio),
        between,
        page.Cell(line.word.value, tones.get(line.word, "calm")),
    )


def _caption(found: Comparison) -> str:
    how = "slices of the two sides in pairs" if found.paired else "stretches of time of each run"
    return (
        f"The difference is {found.other} over {found.one}. Intervals by bootstrap over {how}; better and worse are "
        f"said with a correction for {words.named(len(found.lines), 'comparison')}."
    )


def _tone(found: Comparison) -> str:
    said = {line.word for line in found.lines}
    if Word.WORSE in said:
        return "warn" if Word.BETTER in said else "bad"
    return "good" if Word.BETTER in said else "calm"


def _titled(run: Run) -> str:
    plan = run.plan
    title, began = plan.get("scenario", {}).get("title", ""), plan.get("began", "")
    return f"{title}, {began}, seed {plan.get('seed', '')}, {words.named(len(run.records), 'request')}"


def _differences(one: Run, other: Run) -> str:
    """What makes the two hard to compare, beside what is compared."""
    names = {"scenario": "scenarios", "seed": "seeds", "machine": "machines", "capacity": "capacities"}
    found = [text for key, text in names.items() if one.plan.get(key) != other.plan.get(key)]
    return f"Mind that the two had different {', '.join(found)}." if found else ""
