"""The plots of a report. Each takes a :class:`View` and gives a :class:`Drawing`, or says why there is none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from loadtests import words
from loadtests.record import Outcome
from loadtests.reporting.knee import offered_against_latency
from loadtests.reporting.promises import promise
from loadtests.reporting.series import OUTCOMES, Columns, Floats, View, ecdf, edges, quantile, thin, windowed
from loadtests.reporting.svg import SERIES, Drawing, Ink, bands, canvas, inline, label, legend, marks

FEW = 1200
"""So many requests are drawn as points, too."""
MOST_LINES = len(SERIES)
MOST_BARS = 16
MOST_RATIOS = 36
_SPREAD = 25
"""Where the slowest takes so many times the typical, a linear axis shows only the slowest."""

_NEAR = 4
"""A promise that is further off than so many times the slowest is not drawn: it would squeeze what is."""

_RATIO_TICKS = (
    (1.2, (0.9, 0.95, 1.0, 1.05, 1.1)),
    (2.2, (0.5, 0.65, 0.8, 1.0, 1.25, 1.5, 2.0)),
    (12.0, (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)),
    (float("inf"), (1e-4, 1e-3, 0.01, 0.1, 1.0, 10.0, 100.0, 1e3, 1e4)),
)

_INK_OF = {
    Outcome.FINISHED: Ink.GOOD,
    Outcome.REFUSED: Ink.WARN,
    Outcome.FAILED: Ink.BAD,
    Outcome.ABORTED: Ink.MUTED,
}


def latency(view: View) -> Drawing | str:
    """First token, p50 and p95 of each window, over time."""
    requests = view.requests
    answered = int(np.isfinite(requests.first_token_s).sum())
    if not answered:
        return "No request got a first token, so there is no latency to draw."
    cuts = edges(view.ends, answered)
    p50, p95 = windowed(requests.intended, requests.first_token_s, cuts, (0.5, 0.95))
    with canvas(320) as (figure, [axes]):
        _events(axes, view)
        if answered <= FEW:
            axes.scatter(requests.intended, requests.first_token_s, s=9, color=Ink.ONE, alpha=0.35, linewidth=0)
        _line(axes, cuts, p50, Ink.ONE, "p50")
        _line(axes, cuts, p95, Ink.TWO, "p95")
        _promises(axes, view)
        _seconds_axis(axes, [p50, p95])
        label(axes, "seconds into the run")
        legend(axes)
        worst = int(np.nanargmax(p95))
        says = (
            f"First token, counted from when each request was due, in windows of {words.seconds(_width(cuts))}. "
            f"The median window's p95 is {words.seconds(float(np.nanmedian(p95)))}; the worst is "
            f"{words.seconds(float(p95[worst]))}, {words.seconds(float(cuts[worst]))} into the run."
        )
        return inline(figure, "latency", "First token over time", says)


def distributions(view: View) -> Drawing | str:
    """ECDFs of first token, inter-token and end-to-end time, a line for each country and class."""
    groups = view.requests.by("country", "service_class")
    groups = {key: one for key, one in groups.items() if np.isfinite(one.end_to_end_s).any()}
    if not groups:
        return "No request finished, so there is no distribution to draw."
    shown = dict(sorted(groups.items(), key=lambda item: -len(item[1].records))[:MOST_LINES])
    with canvas(360, columns=3, sharey=True) as (figure, panels):
        _three(panels)
        for ink, (key, one) in zip(SERIES, sorted(shown.items()), strict=False):
            drawn = (ecdf(one.first_token_s), ecdf(*one.inter_tokens()), ecdf(one.end_to_end_s))
            for axes, (times, shares) in zip(panels, drawn, strict=True):
                axes.plot(times, shares, color=ink, label=" · ".join(key) if axes is panels[0] else None)
            for axes, name in zip(panels, ("first_token_s", "inter_token_s"), strict=False):
                limit = float(getattr(promise(view, *key), name))
                if limit <= _NEAR * axes.dataLim.x1:
                    axes.axvline(limit, color=ink, linestyle=(0, (4, 3)), linewidth=1.2)
        figure.legend(loc="outside upper left", ncols=6)
        half, most = (quantile(view.requests.first_token_s, share) for share in (0.5, 0.95))
        left = f" {len(groups) - len(shown)} smaller groups are in the table only." if len(groups) > len(shown) else ""
        says = (
            "The share of requests (in the middle: of tokens) that waited at most so long. Dashed: what is promised. "
            f"Of all requests, half had their first token within {words.seconds(half)} and 95% within "
            f"{words.seconds(most)}." + left
        )
        return inline(figure, "distributions", "Distributions", says)


def rate(view: View) -> Drawing | str:
    """Offered rate against first token p95 and against goodput, with the knee where there is one."""
    found = offered_against_latency(view)
    if isinstance(found, str):
        return found
    with canvas(320, columns=2) as (figure, [left, right]):
        left.plot(found.offered, found.p95, "o", color=Ink.TWO, markersize=5, alpha=0.75, markeredgewidth=0)
        right.plot(
            [0, max(found.offered)], [0, max(found.offered)], color=Ink.MUTED, linewidth=1, linestyle=(0, (2, 3))
        )
        right.plot(found.offered, found.goodput, "o", color=Ink.ONE, markersize=5, alpha=0.75, markeredgewidth=0)
        if found.knee is not None:
            for axes in (left, right):
                marks(axes, [found.knee], [f"knee {words.digits(found.knee)}/s"])
        label(left, "requests a second, offered", "First token p95")
        label(right, "requests a second, offered", "Requests a second that kept the promise")
        _seconds_axis(left, [np.array(found.p95)])
        for axes in (left, right):
            axes.set_xlim(left=0)
        right.set_ylim(bottom=0)
        if found.knee is None:
            knee = "No knee shows: latency does not turn up within the rates that were offered."
        else:
            knee = f"The knee is at {words.digits(found.knee)} requests a second: beyond it, waiting grows steeply."
        return inline(
            figure, "rate", "Rate against latency", f"Each point is a window. {knee} Dotted: all promises kept."
        )


def organisations(view: View) -> Drawing | str:
    """Served tokens, first token p95 and refusals of each organisation."""
    groups = view.requests.by("country", "organisation")
    if not groups:
        return "No organisation asked anything."
    shown = sorted(groups.items(), key=lambda item: -float(item[1].tokens.sum()))[:MOST_BARS]
    names = [f"{organisation} ({country})" for (country, organisation), _ in shown]
    places = np.arange(len(shown))[::-1]
    bars = (
        ("Tokens served a second", [float(one.tokens.sum()) / view.seconds for _, one in shown], words.digits, Ink.ONE),
        ("First token p95", [quantile(one.first_token_s, 0.95) for _, one in shown], words.seconds, Ink.TWO),
        ("Refused", [float(one.is_(Outcome.REFUSED).mean()) for _, one in shown], words.share, Ink.WARN),
    )
    with canvas(70 + 26 * len(shown), columns=3, sharey=True) as (figure, panels):
        for axes, (title, values, written, ink) in zip(panels, bars, strict=True):
            axes.barh(places, np.nan_to_num(values), height=0.62, color=ink, linewidth=0)
            axes.grid(visible=False)
            axes.set_xticks([])
            axes.spines["bottom"].set_visible(False)
            top = max([*np.nan_to_num(values).tolist(), 1e-9])
            axes.set_xlim(0, top * 1.45)
            axes.set_yticks(places, [_short(name) for name in names])
            label(axes, y=title)
            for place, value in zip(places, values, strict=True):
                at = 0 if np.isnan(value) else value
                axes.text(at + top * 0.03, place, written(value), va="center", fontsize=11, color=Ink.MUTED)
        left = f" The {len(shown)} that were served most, of {len(groups)}." if len(groups) > len(shown) else ""
        first = shown[0][1].tokens.sum() / max(1.0, sum(float(one.tokens.sum()) for one in groups.values()))
        says = (
            f"What each organisation got. {names[0]} got most: {words.share(float(first))} of all tokens served." + left
        )
        return inline(figure, "organisations", "Organisations", says)


def replicas(view: View) -> Drawing | str:
    """KV cache use, requests running and waiting, and time in the queue, for each replica."""
    if not view.sampled("replica", "running") and not view.sampled("replica", "kv_cache_usage"):
        return "The replicas' own figures were not sampled, as with an endpoint that does not tell them."
    with canvas(430, rows=3, sharex=True) as (figure, panels):
        cache, load, queue = panels
        for axes in panels:
            _events(axes, view, named=axes is cache)
        usage = view.sampled("replica", "kv_cache_usage")
        for ink, (source, (at, values)) in zip(SERIES * 20, usage.items(), strict=False):
            axes_label = source.removeprefix("replica:").replace(":", " ") if len(usage) <= 8 else None
            cache.plot(at, values, color=ink, label=axes_label, linewidth=1.6)
        most = 0.0
        for name, ink in (("running", Ink.ONE), ("waiting", Ink.TWO)):
            at, values = _summed(view.sampled("replica", name))
            load.plot(at, values, color=ink, label=name, linewidth=1.6)
            most = max([most, *values.tolist()]) if name == "waiting" else most
        for ink, (at, values) in zip(SERIES * 20, view.sampled("replica", "queue_s").values(), strict=False):
            queue.plot(at, values, color=ink, linewidth=1.6)
        label(cache, y="KV cache in use, by replica")
        label(load, y="Requests in the engines, all replicas")
        label(queue, "seconds into the run", "Time in the engine's queue, by replica")
        cache.yaxis.set_major_formatter(FuncFormatter(lambda value, _: words.share(value)))
        cache.set_ylim(0, 1.02)
        load.set_ylim(bottom=0)
        _seconds_axis(queue, [])
        for axes in (cache, load):
            legend_right(axes)
        peak = max((float(np.nanmax(values)) for _, values in usage.values() if len(values)), default=float("nan"))
        says = f"The KV cache was {words.share(peak)} full at most, and {words.count(most)} requests waited at most."
        return inline(figure, "replicas", "KV cache and queue", says)


def machine(view: View) -> Drawing | str:
    """The machine's CPU, and the load generator's own CPU and lag."""
    cpu, own = view.sampled("machine", "cpu"), view.sampled("generator", "cpu")
    lag = view.sampled("generator", "lag_p99_s")
    if not (cpu or own or lag):
        return "Neither the machine nor the load generator was sampled."
    with canvas(330, rows=2, sharex=True) as (figure, [top, bottom]):
        for axes in (top, bottom):
            _events(axes, view, named=axes is top)
        for at, values in cpu.values():
            top.plot(at, values, color=Ink.ONE, label="machine, of all cores")
        for number, (at, values) in enumerate(own.values()):
            top.plot(at, values, color=Ink.TWO, label=None if number else "load generator, of one core")
        for number, (at, values) in enumerate(lag.values()):
            bottom.plot(at, values, color=Ink.FOUR, label=None if number else "p99")
        label(top, y="CPU")
        label(bottom, "seconds into the run", "The load generator's lag")
        top.yaxis.set_major_formatter(FuncFormatter(lambda value, _: words.share(value)))
        top.set_ylim(bottom=0)
        _seconds_axis(bottom, [])
        legend_right(top)
        legend_right(bottom)
        busy = [float(np.mean(values)) for _, values in cpu.values()]
        late = [float(np.max(values)) for _, values in lag.values()]
        says = f"The machine was {words.share(busy[0])} busy on average. " if busy else ""
        says += f"The load generator's lag p99 was {words.seconds(max(late))} at its worst." if late else ""
        return inline(figure, "machine", "Machine and load generator", says)


def outcomes(view: View) -> Drawing | str:
    """How requests ended, stacked, and the tokens a second, over time."""
    requests = view.requests
    if not requests.records:
        return "No request ended, so there is no outcome to draw."
    cuts = edges(view.ends, len(requests.records))
    middle, width = (cuts[:-1] + cuts[1:]) / 2, _width(cuts)
    with canvas(400, rows=2, sharex=True) as (figure, [top, bottom]):
        for axes in (top, bottom):
            _events(axes, view, named=axes is top)
        base = np.zeros(len(middle))
        for outcome in OUTCOMES:
            counted = np.histogram(requests.ended[requests.is_(outcome)], cuts)[0] / width
            if counted.any():
                ink = _INK_OF[outcome]
                top.fill_between(
                    middle, base, base + counted, step="mid", color=ink, alpha=0.8, linewidth=0, label=outcome
                )
                base = base + counted
        tokens = requests.tokens_between(cuts)
        _line(bottom, cuts, tokens, Ink.THREE, "")
        label(top, y="Requests that ended, a second")
        label(bottom, "seconds into the run", "Output tokens a second")
        for axes in (top, bottom):
            axes.set_ylim(bottom=0)
        legend_right(top)
        counts = [f"{words.count(n)} {one}" for one in OUTCOMES if (n := int(requests.is_(one).sum()))]
        says = (
            f"{', '.join(counts)}. The most output in a window is {words.digits(float(tokens.max()))} tokens a second."
        )
        return inline(figure, "outcomes", "Outcomes and throughput", says)


def overlaid(sides: Mapping[str, Columns]) -> Drawing | str:
    """ECDFs of two runs or sides over each other."""
    if any(not np.isfinite(one.end_to_end_s).any() for one in sides.values()):
        return "One of the two finished no request, so there are no distributions to lay over each other."
    with canvas(340, columns=3, sharey=True) as (figure, panels):
        _three(panels)
        for ink, (name, one) in zip(SERIES, sides.items(), strict=False):
            for axes, drawn in zip(
                panels, (ecdf(one.first_token_s), ecdf(*one.inter_tokens()), ecdf(one.end_to_end_s)), strict=True
            ):
                axes.plot(*drawn, color=ink, label=_short(name) if axes is panels[0] else None)
        figure.legend(loc="outside upper left", ncols=2)
        says = "All countries and classes together: the share that waited at most so long. Further left is faster."
        return inline(figure, "overlaid", "Both distributions", says)


def forest(rows: Sequence[tuple[str, float, float, float, str]], one: str, other: str) -> Drawing | str:
    """Ratios with their intervals: name, ratio, low, high, and ``better``, ``worse`` or something else."""
    drawn = [row for row in rows if np.isfinite(row[1:4]).all() and min(row[1:4]) > 0]
    if not drawn:
        return "No figure can be compared as a ratio."
    places = np.arange(len(drawn))[::-1]
    with canvas(80 + 24 * len(drawn)) as (figure, [axes]):
        for place, (_, middle, low, high, verdict) in zip(places, drawn, strict=True):
            ink = {"better": Ink.GOOD, "worse": Ink.BAD}.get(verdict, Ink.MUTED)
            axes.plot([low, high], [place, place], color=ink)
            axes.plot([middle], [place], "o", color=ink, markersize=6, markeredgewidth=0)
        axes.axvline(1, color=Ink.MUTED, linewidth=1)
        axes.set_yticks(places, [row[0] for row in drawn])
        axes.set_ylim(-0.8, len(drawn) - 0.2)
        axes.set_xscale("log")
        low, high = axes.get_xlim()
        ticks = next(few for span, few in _RATIO_TICKS if max(high, 1 / low) <= span)
        axes.set_xticks([one for one in ticks if low <= one <= high])
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: words.ratio(value)))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.grid(visible=False)
        label(axes, f"{_short(other)} over {_short(one)}")
        says = (
            "Points are ratios, lines their 95% confidence intervals. "
            "Green is better, red is worse, grey is not shown to differ."
        )
        return inline(figure, "forest", "Ratios", says)


def legend_right(axes: Axes) -> None:
    """In the title's line, at the right."""
    if axes.get_legend_handles_labels()[1]:
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1.0), ncols=8)


def _line(axes: Axes, cuts: Floats, values: Floats, ink: Ink, name: str) -> None:
    """Values of windows at their middles; one that has no neighbours is a point."""
    middle, there = (cuts[:-1] + cuts[1:]) / 2, np.isfinite(values)
    axes.plot(middle, values, color=ink, label=name or None)
    alone = there & ~np.roll(there, 1) & ~np.roll(there, -1)
    axes.plot(middle[alone], values[alone], "o", color=ink, markersize=4, markeredgewidth=0)


def _events(axes: Axes, view: View, named: bool = True) -> None:
    bands(axes, [(begin, end, name if named else "") for begin, end, name in view.phases])
    shown = thin(list(enumerate(view.faults, 1)), 40)
    marks(axes, [fault.at for _, fault in shown], [f"F{number}" if named else "" for number, _ in shown])
    if view.interrupted:
        marks(axes, [view.interrupted.at], ["interrupted" if named else ""])
    axes.set_xlim(0, view.ends)


def _promises(axes: Axes, view: View) -> None:
    """The promises of first token, where they are near enough to be seen beside what was measured."""
    pairs = view.requests.by("country", "service_class")
    limits = {promise(view, *pair).first_token_s for pair in pairs}
    top = axes.get_ylim()[1]
    for number, limit in enumerate(sorted(one for one in limits if one <= 2 * top)):
        axes.axhline(limit, color=Ink.MUTED, linewidth=1.2, linestyle=(0, (4, 3)), label=None if number else "promised")


def _summed(series: Mapping[str, tuple[Floats, Floats]]) -> tuple[Floats, Floats]:
    """All sources' values in each second together, each source by its mean in that second."""
    total: dict[float, float] = {}
    for at, values in series.values():
        second = np.floor(at)
        for one in np.unique(second):
            total[float(one)] = total.get(float(one), 0.0) + float(values[second == one].mean())
    times = sorted(total)
    return np.array(times), np.array([total[one] for one in times])


def _seconds_axis(axes: Axes, series: Sequence[Floats]) -> None:
    values = np.concatenate([one[np.isfinite(one) & (one > 0)] for one in series]) if series else np.array([])
    if len(values) and values.max() > _SPREAD * np.median(values):
        axes.set_yscale("log")
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: words.seconds(value)))


def _three(panels: Sequence[Axes]) -> None:
    """Axes for the distributions of the three times."""
    for axes, title in zip(panels, ("First token", "Between tokens, per token", "End to end"), strict=True):
        label(axes, y=title)
        axes.set_ylim(0, 1.01)
        axes.set_yticks([0, 0.25, 0.5, 0.75, 0.95], ["0", "25%", "50%", "75%", "95%"])
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(10, subs=(1.0, 3.0), numticks=12))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: words.seconds(value)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.grid(visible=True, axis="x")


def _short(name: str) -> str:
    return name if len(name) <= 30 else name[:13] + "…" + name[-16:]


def _width(cuts: Floats) -> float:
    return float(cuts[1] - cuts[0])
