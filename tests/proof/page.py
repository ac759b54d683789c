"""The report as one page that asks nothing of anybody: to be read, printed and filed by somebody who knows no code."""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path

from tests.proof.outcome import Judged, Tried, Verdict, counted
from tests.proof.rules import BEYOND

STYLE = Path(__file__).with_name("page.css")
_NOTHING_FROM_ELSEWHERE = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'"
_TONE = {Verdict.PROVEN: "good", Verdict.NOT_PROVEN: "warn", Verdict.FAILED: "bad"}
_MARK = {Verdict.PROVEN: "✓", Verdict.NOT_PROVEN: "–", Verdict.FAILED: "✗"}
_FIGURES = (
    ("packets recorded on the countries' links", "packets recorded", "every one, from start to end"),
    ("of them to or from anywhere but the country and its callers", "went astray", "0 is what was promised"),
    ("files searched for the word", "files searched", "for a text that must not be there"),
)

READ = (
    "Domicile is a program by which each country answers its own callers' questions to a language model, on its own "
    "machines. It promises eleven things about where those questions go. Each promise was tried by automatic tests, "
    "which any party can run again. This page says what was tried, what was seen, and what that does not show."
)
WORDS = (
    ("proven", "everything that was tried came out as promised, in this run."),
    (
        "not proven here",
        "something could not be tried on this machine. It is not known to be wrong, and this page does not say that "
        "it is right.",
    ),
    ("failed", "something came out otherwise than promised."),
)


def escape(text: object) -> str:
    """Any text as HTML takes it; what cannot be seen, or turns the reading direction, is made visible."""
    shown = "".join("\ufffd" if unicodedata.category(one) in ("Cc", "Cf", "Cs") else one for one in str(text))
    return html.escape(shown, quote=True)


def page(judged: Sequence[Judged], facts: Sequence[tuple[str, str]], began: datetime, ended: datetime) -> str:
    """The whole file."""
    title = f"Proof of residency, {began:%d %B %Y}".replace(", 0", ", ")
    body = "\n".join(
        (
            _head(judged, began, ended),
            _overview(judged),
            *map(_rule, judged),
            _section("beyond", "What no test shows", _list(BEYOND)),
            _section("what", "What was tested", _facts([*facts, ("Began", _time(began)), ("Ended", _time(ended))])),
            _section("again", "To do it again", _again()),
        )
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_NOTHING_FROM_ELSEWHERE}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><meta name="referrer" content="no-referrer">'
        f'<link rel="icon" href="data:,"><title>{escape(title)}</title>'
        f"<style>{STYLE.read_text(encoding='utf-8')}</style></head><body>\n{body}\n</body></html>\n"
    )


def _head(judged: Sequence[Judged], began: datetime, ended: datetime) -> str:
    minutes = round((ended - began).total_seconds() / 60)
    took = f"{minutes} minutes" if minutes > 1 else "a minute"
    return (
        f'<header><p class="kicker">Domicile · {escape(_time(began))} · {took}</p>'
        f"<h1>Proof of residency</h1><p>{escape(READ)}</p></header>{_conclusion(judged)}{_figures(judged)}"
    )


def _conclusion(judged: Sequence[Judged]) -> str:
    counts, total = counted(judged), len(judged)
    if counts[Verdict.FAILED]:
        tone, text = "bad", f"{counts[Verdict.FAILED]} of {total} guarantees failed"
    elif counts[Verdict.NOT_PROVEN]:
        tone, text = (
            "warn",
            f"{counts[Verdict.PROVEN]} of {total} guarantees are proven, the others could not be tried in full",
        )
    else:
        tone, text = "good", f"All {total} guarantees are proven in this run"
    why = "".join(f"<p>{escape(each)}</p>" for each in _reasons(judged))
    return f'<div class="verdict {tone}"><p>{escape(text)}</p>{why}</div>'


def _reasons(judged: Sequence[Judged]) -> Iterable[str]:
    """Why something was not tried, each reason once with the rules that it is about."""
    about: dict[str, list[str]] = {}
    for each in judged:
        for why in dict.fromkeys(
            why for tried in each.tried if tried.verdict is Verdict.NOT_PROVEN for why in tried.why
        ):
            about.setdefault(why, []).append(each.rule.code)
    return (f"{', '.join(codes)}: {why}" for why, codes in about.items())


def _figures(judged: Sequence[Judged]) -> str:
    ran = {outcome.test for each in judged for tried in each.tried for outcome in tried.outcomes}
    seen = dict(pair for each in judged for tried in each.tried for pair in tried.seen)
    boxes = [(f"{len(ran):,}", "tests", "single ones, each with its own result")]
    boxes += [(_grouped(seen[name]), label, more) for name, label, more in _FIGURES if name in seen]
    shown = "".join(
        f'<div><dt>{escape(label)}</dt><dd>{escape(value)}</dd><dd class="more">{escape(more)}</dd></div>'
        for value, label, more in boxes
    )
    return f'<dl class="figures">{shown}</dl>'


def _overview(judged: Sequence[Judged]) -> str:
    rows = "".join(
        f'<tr><th scope="row"><a href="#{each.rule.code}">{each.rule.code}</a></th><td>{escape(each.rule.title)}</td>'
        f"<td>{_badge(each.verdict)}</td></tr>"
        for each in judged
    )
    head = "".join(f'<th scope="col">{title}</th>' for title in ("Rule", "Guarantee", "Result"))
    words = "".join(f"<dt>{escape(word)}</dt><dd>{escape(means)}</dd>" for word, means in WORDS)
    return _section(
        "overview",
        "The guarantees",
        f'<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table><dl class="facts">{words}</dl>',
    )


def _rule(judged: Judged) -> str:
    rule = judged.rule
    return (
        f'<section id="{rule.code}" aria-labelledby="{rule.code}-h"><h2 id="{rule.code}-h">'
        f'<span class="code">{rule.code}</span> {escape(rule.title)} {_badge(judged.verdict)}</h2>'
        f'<p class="guarantee">{escape(rule.guarantee)}</p><ol class="proofs">{"".join(map(_proof, judged.tried))}</ol>'
        f'<p class="beyond"><b>What this does not show.</b> {escape(rule.beyond)}</p></section>'
    )


def _proof(tried: Tried) -> str:
    seen = _facts([(name[:1].upper() + name[1:], _grouped(value)) for name, value in tried.seen]) if tried.seen else ""
    why = "".join(f'<p class="why">{escape(each)}</p>' for each in tried.why)
    return (
        f'<li class="{_TONE[tried.verdict]}"><p><span class="mark" aria-hidden="true">{_MARK[tried.verdict]}</span>'
        f'<span class="said">{escape(tried.verdict.capitalize())}. </span>{escape(tried.proof.what)}</p>'
        f"{seen}{why}{_tests(tried)}</li>"
    )


def _tests(tried: Tried) -> str:
    if not tried.outcomes:
        return ""
    passed = sum(outcome.verdict is Verdict.PROVEN for outcome in tried.outcomes)
    many = len(tried.outcomes)
    said = f"{many} tests, all passed" if passed == many else f"{many} tests, {passed} passed"
    if many == 1:
        said = "1 test, passed" if passed else "1 test"
    names = "".join(f"<li>{escape(name)}</li>" for name in tried.proof.tests)
    return f"<details><summary>{said}</summary><ul>{names}</ul></details>"


def _again() -> str:
    return (
        "<p>On a Linux machine with Python 3.11, as root (the network namespaces need it), in a checkout of the "
        "commit named above:</p><pre><code>make prove</code></pre><p>Beside this page lie <code>proof.json</code> "
        "(the same, for machines), <code>junit.xml</code> (every single test) and the recordings of each country's "
        "link, <code>link-ee.pcap</code> and <code>link-kr.pcap</code>, which any packet analyser opens. They hold "
        "the headers of the packets and nothing of the texts.</p>"
    )


def _section(key: str, title: str, inner: str) -> str:
    return f'<section id="{key}" aria-labelledby="{key}-h"><h2 id="{key}-h">{escape(title)}</h2>{inner}</section>'


def _badge(verdict: Verdict) -> str:
    return f'<span class="badge {_TONE[verdict]}">{_MARK[verdict]} {escape(verdict)}</span>'


def _facts(entries: Iterable[tuple[str, str]]) -> str:
    pairs = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in entries)
    return f'<dl class="facts">{pairs}</dl>'


def _list(texts: Iterable[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(text)}</li>' for text in texts)}</ul>"


def _grouped(value: str) -> str:
    return f"{int(value):,}" if value.isdigit() else value


def _time(moment: datetime) -> str:
    return f"{moment.day} {moment:%B %Y, %H:%M} UTC"
