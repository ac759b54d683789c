"""``python -m tests.bench [name…]``: measure, print, and keep the reports under ``reports/``."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from pathlib import Path

from tests.bench.processes import put_ahead
from tests.bench.report import REPORTS, CannotMeasure, Report, summary

BENCHES = (
    "clients",
    "gateway",
    "goodput",
    "passthrough",
    "policy",
    "recording",
    "records",
    "saturation",
    "simulator",
    "startup",
    "telemetry",
)


def options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=f"which: {', '.join(BENCHES)}; all when left out")
    parser.add_argument("--rounds", type=int, help="how often each thing is measured")
    parser.add_argument("--seconds", type=float, help="how long each load of the gateway bench lasts")
    parser.add_argument("--reports", type=Path, default=REPORTS, help="where the reports go")
    parser.add_argument("--gateway", help="passthrough: base URL of a country that is up; it starts its own if unset")
    parser.add_argument("--key", help="passthrough: an API key of that country")
    parser.add_argument("--replica-url", help="passthrough: its replica's private base URL")
    parser.add_argument("--claim-key", type=Path, help="passthrough: the country's cell.key")
    chosen = parser.parse_args(arguments)
    if unknown := set(chosen.names) - set(BENCHES):
        parser.error(f"there is no bench {', '.join(sorted(unknown))}")
    return chosen


def main() -> int:
    chosen = options(sys.argv[1:])
    reports: list[Report] = []
    failed = False
    for name in chosen.names or BENCHES:
        try:
            with put_ahead():
                report = import_module(f"tests.bench.{name}").measure(chosen)
        except CannotMeasure as error:
            print(f"{name}: not measured: {error}", file=sys.stderr)
            failed = True
            continue
        reports.append(report)
        report.save(chosen.reports)
        print(f"{name}: {report.about}\n\n{report.table()}\n")
    if reports:
        (chosen.reports / "bench.md").write_text(summary(reports))
    return 0 if not failed and all(report.passed for report in reports) else 1


if __name__ == "__main__":
    sys.exit(main())
