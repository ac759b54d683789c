"""pytest's side of the proof suite: with ``--proof DIR`` a run's outcomes become a report there."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.proof.circumstances import circumstances
from tests.proof.outcome import Judged, Outcome, Verdict, judge, worst
from tests.proof.page import page

_WHY = 300


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--proof", type=Path, metavar="DIR", help="write the report of the proof suite there")


def pytest_configure(config: pytest.Config) -> None:
    folder: Path | None = config.getoption("--proof")
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        config.pluginmanager.register(Recorder(folder.resolve()), "proof-recorder")


class Recorder:
    """Keeps what became of each test, and tells it at the end."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._begun = datetime.now(UTC)
        self._outcomes: dict[str, Outcome] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        before = self._outcomes.get(report.nodeid)
        verdict, why = _verdict(report)
        if before is not None:
            verdict, why = worst([verdict, before.verdict]), before.why or why
        seen = tuple((str(name), str(value)) for name, value in report.user_properties)
        seconds = report.duration + (before.seconds if before is not None else 0.0)
        self._outcomes[report.nodeid] = Outcome(report.nodeid, verdict, round(seconds, 3), why, seen)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._outcomes[report.nodeid] = Outcome(
                report.nodeid, Verdict.FAILED, 0.0, "this file of tests cannot be read", ()
            )

    def pytest_sessionfinish(self) -> None:
        judged, facts, ended = judge(self._outcomes), circumstances(), datetime.now(UTC)
        told = {
            "began": self._begun.isoformat(timespec="seconds"),
            "ended": ended.isoformat(timespec="seconds"),
            "circumstances": dict(facts),
            "rules": [_rule(each) for each in judged],
        }
        (self._folder / "proof.json").write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n")
        (self._folder / "proof.html").write_text(page(judged, facts, self._begun, ended), encoding="utf-8")

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        terminalreporter.section("proof")
        for each in judge(self._outcomes):
            terminalreporter.write_line(f"{each.rule.code:4} {each.verdict:16} {each.rule.title}")
            for why in dict.fromkeys(why for tried in each.tried for why in tried.why):
                terminalreporter.write_line(f"     {why}")
        terminalreporter.write_line(f"the report: {self._folder / 'proof.html'}")


def _verdict(report: pytest.TestReport) -> tuple[Verdict, str]:
    if report.failed:
        crash = getattr(report.longrepr, "reprcrash", None)
        return Verdict.FAILED, (crash.message if crash is not None else str(report.longrepr))[:_WHY]
    if report.skipped:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        return Verdict.NOT_PROVEN, reason.removeprefix("Skipped: ")
    return Verdict.PROVEN, ""


def _rule(judged: Judged) -> dict[str, Any]:
    return {
        "rule": judged.rule.code,
        "title": judged.rule.title,
        "guarantee": judged.rule.guarantee,
        "verdict": judged.verdict,
        "beyond": judged.rule.beyond,
        "proofs": [
            {
                "what": tried.proof.what,
                "verdict": tried.verdict,
                "why": tried.why,
                "seen": dict(tried.seen),
                "tests": [asdict(outcome) for outcome in tried.outcomes],
            }
            for tried in judged.tried
        ],
    }
