"""Plots as inline SVG that belongs to its page: its colours are the page's, light and dark, and its text is text.

Matplotlib draws with placeholders, which become CSS variables afterwards. No state is kept between two drawings, and
the same figure gives the same bytes.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from loadtests.reporting.page import escape, visible

WIDTH = 920
"""Of a drawing, in CSS pixels at its natural size; a point of matplotlib's is one of them."""


class Ink(StrEnum):
    """A colour of the page's, as the placeholder that stands for it while matplotlib draws."""

    TEXT = "#010100"
    MUTED = "#010200"
    LINE = "#010300"
    PAPER = "#010400"
    BAND = "#010500"
    GOOD = "#010600"
    WARN = "#010700"
    BAD = "#010800"
    ONE = "#020100"
    TWO = "#020200"
    THREE = "#020300"
    FOUR = "#020400"
    FIVE = "#020500"
    SIX = "#020600"

    @property
    def variable(self) -> str:
        """The property in the page's style sheet."""
        return f"--{self.name.lower()}"


SERIES = (Ink.ONE, Ink.TWO, Ink.THREE, Ink.FOUR, Ink.FIVE, Ink.SIX)

_RC: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "domicile",
    "text.parse_math": False,  # an organisation may be called $x$
    "axes.unicode_minus": True,
    "font.size": 12,
    "font.family": "DejaVu Sans",
    "text.color": Ink.TEXT.value,
    "axes.edgecolor": Ink.LINE.value,
    "axes.labelcolor": Ink.MUTED.value,
    "axes.labelsize": 12,
    "axes.titlesize": 12,
    "axes.titlelocation": "left",
    "axes.titlecolor": Ink.MUTED.value,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.xmargin": 0.01,
    "grid.color": Ink.LINE.value,
    "grid.linewidth": 1,
    "xtick.color": Ink.LINE.value,
    "ytick.color": Ink.LINE.value,
    "xtick.labelcolor": Ink.MUTED.value,
    "ytick.labelcolor": Ink.MUTED.value,
    "xtick.labelsize": 12,
    "ytick.labelsize": 12,
    "ytick.major.size": 0,
    "ytick.minor.size": 0,
    "lines.linewidth": 2,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "legend.fontsize": 12,
    "legend.handlelength": 1.4,
    "legend.columnspacing": 1.6,
    "legend.borderaxespad": 0.2,
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.h_pad": 8 / 72,
    "figure.constrained_layout.w_pad": 6 / 72,
}

_METADATA = re.compile(r"\s*<metadata>.*?</metadata>", re.DOTALL)
_BEGIN = re.compile(r"^.*?<svg[^>]*?(viewBox=\"[^\"]*\")[^>]*>", re.DOTALL)
_FONT = re.compile(r"font: ([^;\"]*?)(\d+(?:\.\d+)?)px [^;\"]*")
_GROUP = re.compile(r'<g id="[^"]*">')
_NAMED = re.compile(r'\bid="|url\(#|xlink:href="#')
_SPACE = re.compile(r">\n\s+<")
_PATH = re.compile(r'\bd="[^"]*"')
_DECIMALS = re.compile(r"(\.\d\d)\d+")


@dataclass(frozen=True, slots=True)
class Drawing:
    """A plot, ready for a page."""

    svg: str
    says: str
    """What it shows, in a sentence or two: its caption, and its description for those who do not see it."""


@contextmanager
def canvas(height: int, columns: int = 1, rows: int = 1, **options: Any) -> Iterator[tuple[Figure, list[Axes]]]:
    """A figure in the page's style. Draw on it, and :func:`inline` it, before the context ends."""
    with rc_context(_RC):
        figure = Figure(figsize=(WIDTH / 72, height / 72), dpi=72)
        grid = figure.subplots(rows, columns, squeeze=False, **options)
        yield figure, list(grid.flat)


def inline(figure: Figure, key: str, title: str, says: str) -> Drawing:
    """The figure as an ``<svg>`` element; ``key`` is unique in its page, and all its ids begin with it."""
    says = visible(says)
    written = io.StringIO()
    figure.patch.set_alpha(0)
    for axes in figure.axes:
        axes.patch.set_alpha(0)
    with warnings.catch_warnings():
        # The fonts at hand need not know every script: the reader's browser chooses its own.
        warnings.simplefilter("ignore", UserWarning)
        figure.savefig(written, format="svg", metadata={"Date": None})
    raw = _METADATA.sub("", written.getvalue())
    body = _BEGIN.sub("", raw)
    box = _BEGIN.match(raw)
    head = (
        f'<svg class="plot" role="img" aria-labelledby="{key}-title {key}-desc" {box.group(1) if box else ""}>'
        f'<title id="{key}-title">{escape(title)}</title><desc id="{key}-desc">{escape(says)}</desc>'
    )
    return Drawing(head + _tidied(body, key), says)


def _tidied(body: str, key: str) -> str:
    body = _GROUP.sub("<g>", body)
    body = _NAMED.sub(lambda found: found.group().replace("xlink:", "") + key + "-", body)
    body = _FONT.sub(r"font: \1\2px var(--sans)", body)
    for ink in Ink:
        body = body.replace(ink.value, f"var({ink.variable})")
    body = _PATH.sub(lambda found: _DECIMALS.sub(r"\1", found.group()), body)
    return _SPACE.sub("><", body).strip()


def legend(axes: Axes, columns: int = 8) -> None:
    """Above the plot, at its left, in one row."""
    if axes.get_legend_handles_labels()[1]:
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=columns)


def label(axes: Axes, x: str = "", y: str = "") -> None:
    """What the axes count, with units: y above its axis, where it is read without turning one's head."""
    axes.set_xlabel(x, loc="right")
    axes.set_title(y)


def bands(axes: Axes, spans: Sequence[tuple[float, float, str]]) -> None:
    """Stretches of time, every other one tinted, with their names at their head."""
    for number, (begin, end, name) in enumerate(spans):
        if number % 2:
            axes.axvspan(begin, end, color=Ink.BAND, linewidth=0, zorder=0)
        if name:
            axes.text(
                begin,
                1.0,
                " " + visible(name),
                color=Ink.MUTED,
                transform=axes.get_xaxis_transform(),
                va="top",
                fontsize=11,
                clip_on=True,
            )


def marks(axes: Axes, times: Sequence[float], names: Sequence[str]) -> None:
    """Moments, as lines with a short name below the phases'."""
    for at, name in zip(times, names, strict=True):
        axes.axvline(at, color=Ink.BAD, linewidth=1, linestyle=(0, (3, 3)), zorder=1)
        axes.text(
            at,
            0.86,
            " " + visible(name),
            color=Ink.BAD,
            transform=axes.get_xaxis_transform(),
            va="top",
            fontsize=11,
            clip_on=True,
        )
