"""A verdict as JUnit's XML, which CI systems show check by check."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from loadtests.judging.checks import Check


def render(scenario: str, checks: Sequence[Check], reasons: Sequence[str]) -> str:
    """One suite with a case for each check. What was not decided is skipped; why there is no verdict is an error.

    The attributes are those of https://github.com/testmoapp/junitxml.
    """
    failed = sum(check.passed is False for check in checks)
    skipped = sum(check.passed is None for check in checks)
    totals = {
        "name": f"loadtest.{scenario}",
        "tests": str(len(checks) + bool(reasons)),
        "failures": str(failed),
        "errors": str(int(bool(reasons))),
        "skipped": str(skipped),
    }
    root = Element("testsuites", totals)
    suite = SubElement(root, "testsuite", totals)
    for check in checks:
        _case(suite, scenario, check)
    if reasons:
        case = SubElement(suite, "testcase", {"classname": f"loadtest.{scenario}", "name": "verdict"})
        SubElement(case, "error", {"message": "no verdict"}).text = _clean("\n".join(reasons))
    indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + tostring(root, encoding="unicode") + "\n"


def _case(suite: Element, scenario: str, check: Check) -> None:
    where = " ".join(part for part in (check.country, check.service_class) if part)
    named = {"classname": f"loadtest.{scenario}", "name": _clean(f"{check.name} {where}".strip())}
    case = SubElement(suite, "testcase", named)
    sentence = _clean(check.sentence)
    if check.passed is False:
        SubElement(case, "failure", {"message": sentence}).text = sentence
    elif check.passed is None:
        SubElement(case, "skipped", {"message": sentence})
    else:
        SubElement(case, "system-out").text = sentence


def _clean(text: str) -> str:
    """XML 1.0 has no place for control characters, not even escaped."""
    kept = (one if one in "\n\t" or unicodedata.category(one) not in ("Cc", "Cs", "Cn") else "\ufffd" for one in text)
    return "".join(kept)
