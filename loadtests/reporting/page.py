"""The frame of a report: one HTML file that asks nothing of anybody, and the few elements that it is made of.

Whatever comes from outside, as organisations' ids and error codes do, passes :func:`escape` on its way in.
"""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

Tone = Literal["good", "warn", "bad", "calm"]

_STYLE = Path(__file__).with_name("report.css")
_NOTHING_FROM_ELSEWHERE = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'"


@dataclass(frozen=True, slots=True)
class Cell:
    """A table's cell that is more than its text."""

    text: str
    tone: Tone = "calm"
    hint: str = ""


Row = Sequence[str | Cell]


def visible(text: object) -> str:
    """The text with what cannot be seen, and what turns the reading direction, made visible."""
    return "".join("\ufffd" if unicodedata.category(one) in ("Cc", "Cf", "Cs") else one for one in str(text))


def escape(text: object) -> str:
    """Any text, as HTML and SVG take it, in an element or in an attribute."""
    return html.escape(visible(text), quote=True)


@cache
def _style() -> str:
    return _STYLE.read_text(encoding="utf-8")


def page(title: str, body: str) -> str:
    """The whole file."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_NOTHING_FROM_ELSEWHERE}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><meta name="referrer" content="no-referrer">'
        f'<link rel="icon" href="data:,"><title>{escape(title)}</title>'
        f"<style>{_style()}</style></head><body>\n{body}\n</body></html>\n"
    )


def section(key: str, title: str, *parts: str, lead: str = "") -> str:
    """A section with a heading that can be linked to. ``lead`` is plain text, ``parts`` are HTML."""
    intro = f'<p class="lead">{escape(lead)}</p>' if lead else ""
    head = f'<section id="{key}" aria-labelledby="{key}-h"><h2 id="{key}-h">{escape(title)}</h2>'
    return f"{head}{intro}{''.join(parts)}</section>\n"


def contents(sections: Iterable[tuple[str, str]]) -> str:
    """Links to the sections."""
    links = "".join(f'<a href="#{key}">{escape(title)}</a>' for key, title in sections)
    return f'<nav aria-label="Sections">{links}</nav>'


def paragraph(text: str, kind: str = "") -> str:
    """Plain text; ``kind`` is a class of the style sheet."""
    named = f' class="{kind}"' if kind else ""
    return f"<p{named}>{escape(text)}</p>"


def remark(text: str) -> str:
    """Why something is not there."""
    return paragraph(text, "remark")


def table(head: Sequence[str], rows: Iterable[Row], caption: str, words: int = 1) -> str:
    """A table whose first ``words`` columns hold words and whose others hold figures. Empty without rows."""
    lines = [_row(row, words) for row in rows]
    if not lines:
        return ""
    titles = "".join(
        f'<th scope="col"{"" if index < words else " class=n"}>{escape(one)}</th>' for index, one in enumerate(head)
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}"><table>'
        f"<caption>{escape(caption)}</caption><thead><tr>{titles}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def _row(row: Row, words: int) -> str:
    return "<tr>" + "".join(_cell(index, one, words) for index, one in enumerate(row)) + "</tr>"


def _cell(index: int, one: str | Cell, words: int) -> str:
    cell = one if isinstance(one, Cell) else Cell(one)
    kinds = [] if index < words else ["n"]
    if cell.tone != "calm":
        kinds.append(cell.tone)
    named = f' class="{" ".join(kinds)}"' if kinds else ""
    hint = f"<br><small>{escape(cell.hint)}</small>" if cell.hint else ""
    tag, scope = ("th", ' scope="row"') if index == 0 else ("td", "")
    return f"<{tag}{scope}{named}>{escape(cell.text)}{hint}</{tag}>"


def figures(entries: Iterable[tuple[str, str, str, Tone]]) -> str:
    """The row of key figures: name, value, what it means, tone."""
    boxes = (
        f'<div class="{tone}"><dt>{escape(name)}</dt><dd>{escape(value)}</dd><dd class="more">{escape(more)}</dd></div>'
        for name, value, more, tone in entries
    )
    return f'<dl class="figures">{"".join(boxes)}</dl>'


def facts(entries: Iterable[tuple[str, str]]) -> str:
    """Names and values, in two columns."""
    return (
        '<dl class="facts">'
        + "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in entries if value)
        + "</dl>"
    )


def figure(title: str, svg: str, says: str) -> str:
    """A drawing with its title and its sentence. ``svg`` is taken as it is."""
    return (
        f'<figure><h3>{escape(title)}</h3><div class="scroll" tabindex="0" role="region" aria-label="{escape(title)}">'
        f"{svg}</div><figcaption>{escape(says)}</figcaption></figure>"
    )


def more(summary: str, inner: str) -> str:
    """Something that opens when asked to. ``inner`` is HTML."""
    return f"<details><summary>{escape(summary)}</summary>{inner}</details>"


def code(text: str) -> str:
    """Text to be copied."""
    return f'<pre tabindex="0"><code>{escape(text)}</code></pre>'


def footer(text: str) -> str:
    """The last line."""
    return f"<footer>{escape(text)}</footer>"
