"""``python -m loadtests``: run a load test, write a run's report again, compare two runs, list the scenarios.

Exit codes: 0 the promises were kept, 1 one was broken, 2 no verdict: usage, bad input, an interrupted run, or a load
generator that was the bottleneck itself.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from loadtests.mischief.inventory import COMMAND
from loadtests.record import JUNIT, REPORT, VERDICT, NotARun, Run
from loadtests.scenario import Scenario, load_scenario, shipped
from loadtests.slo import Verdict
from loadtests.targets import read_targets
from tenants.errors import TenantError

NO_VERDICT = 2
WIDE = 160


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Returns its exit code."""
    chosen = _parser().parse_args(arguments)
    errors = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        code: int = chosen.does(chosen)
    except (TenantError, NotARun) as error:
        errors.print(f"[bold red]error:[/] {escape(str(error))}")
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        errors.print(f"[bold red]error:[/] {escape(f'{error.strerror or error}{where}')}")
    except KeyboardInterrupt:
        errors.print("[bold red]error:[/] interrupted")
    else:
        return code
    return NO_VERDICT


def run(chosen: argparse.Namespace) -> int:
    """``run SCENARIO``."""
    # Imported here: what only lists scenarios needs neither the plots nor the chaos.
    from loadtests.run import Job, execute, scaled

    scenario = _scenario(chosen)
    folder = chosen.out or Path("reports") / f"loadtest-{scenario.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    job = Job(
        scenario if chosen.duration_scale == 1 else scaled(scenario, chosen.duration_scale),
        read_targets(chosen.targets),
        chosen.targets,
        folder,
        scenario.seed if chosen.seed is None else chosen.seed,
        dict(chosen.capacity),
        chosen.inventory,
        ("--plain-openai",) if chosen.plain_openai else (),
    )
    verdict = execute(job, Console(stderr=True, highlight=False, quiet=chosen.quiet))
    return _say(folder, verdict, chosen)


def report(chosen: argparse.Namespace) -> int:
    """``report DIR``: judge it and write its report again."""
    from loadtests.run import conclude

    return _say(chosen.folder, conclude(chosen.folder), chosen)


def compare(chosen: argparse.Namespace) -> int:
    """``compare DIR DIR``."""
    from loadtests import compare as comparison

    one, other = Run.read(chosen.one), Run.read(chosen.other)
    chosen.out.write_text(comparison.render(one, other), encoding="utf-8")
    Console(highlight=False).print(comparison.as_table(comparison.compare_runs(one, other)))
    print(chosen.out)
    return 0


def scenarios(chosen: argparse.Namespace) -> int:
    """``scenarios``: those that are shipped."""
    found = [load_scenario(name) for name in shipped()]
    if chosen.json:
        rows = [{"name": one.name, "title": one.title, "duration_s": one.duration_s} for one in found]
        print(json.dumps(rows, indent=2, ensure_ascii=False))
        return 0
    table = Table("scenario", "what it is", "countries", "takes", box=None, header_style="bold", pad_edge=False)
    for one in found:
        measuring_s = one.capacity.duration_s if one.measures_capacity else 0
        table.add_row(one.name, one.title, " ".join(one.countries), _minutes(one.duration_s + measuring_s))
    Console(highlight=False).print(table)
    return 0


def describe(chosen: argparse.Namespace) -> int:
    """``describe SCENARIO``: as JSON with every default, for programs that prepare a run."""
    print(json.dumps(_scenario(chosen).model_dump(mode="json"), indent=2, ensure_ascii=False))
    return 0


def _scenario(chosen: argparse.Namespace) -> Scenario:
    scenario = load_scenario(chosen.scenario)
    return (
        scenario.model_copy(update={"countries": tuple(dict.fromkeys(chosen.country))}) if chosen.country else scenario
    )


def _say(folder: Path, verdict: Verdict, chosen: argparse.Namespace) -> int:
    if chosen.json:
        print(json.dumps(verdict.to_json(), indent=2, ensure_ascii=False))
    elif not chosen.quiet:
        # Where nobody's terminal says how wide it is, a log's reader scrolls rather than guesses at cut words.
        console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDE)
        console.print(verdict.summary())
        for name in (REPORT, VERDICT, JUNIT):
            console.print(str(folder / name), soft_wrap=True)
    return verdict.exit_code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m loadtests", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _run_parser(commands.add_parser("run", help="run a scenario and judge it"))
    again = commands.add_parser("report", help="judge a run and write its report again")
    again.add_argument("folder", type=Path, metavar="DIR")
    _output(again)
    again.set_defaults(does=report)
    two = commands.add_parser("compare", help="compare two runs")
    two.add_argument("one", type=Path, metavar="DIR")
    two.add_argument("other", type=Path, metavar="DIR")
    two.add_argument("--out", type=Path, default=Path("comparison.html"), help="where to (default: %(default)s)")
    two.set_defaults(does=compare)
    told = commands.add_parser("describe", help="print a scenario as JSON")
    _selection(told)
    told.set_defaults(does=describe)
    listed = commands.add_parser("scenarios", help="list those that are shipped")
    listed.add_argument("--json", action="store_true", help="as JSON")
    listed.set_defaults(does=scenarios)
    return parser


def _run_parser(parser: argparse.ArgumentParser) -> None:
    _selection(parser)
    parser.add_argument("--targets", type=Path, required=True, help="JSON file of endpoints and keys, mode 600")
    parser.add_argument("--out", type=Path, help="folder to make for the run (default: reports/loadtest-…)")
    parser.add_argument("--seed", type=_seed, help="instead of the scenario's own")
    parser.add_argument("--duration-scale", type=_factor, default=1.0, metavar="X", help="every phase X times as long")
    parser.add_argument(
        "--capacity", type=_rate, nargs="+", action="extend", default=[], metavar="CC=R", help="known requests/s"
    )
    parser.add_argument(
        "--inventory",
        type=_command,
        default=COMMAND,
        metavar="COMMAND",
        help=f"names the processes that faults happen to (default: {' '.join(COMMAND)})",
    )
    parser.add_argument("--plain-openai", action="store_true", help="send no field that OpenAI does not know")
    _output(parser)
    parser.set_defaults(does=run)


def _selection(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("scenario", help="a shipped scenario's name, or a path to a .yaml file")
    parser.add_argument(
        "--country", type=_code, action="append", default=[], metavar="CC", help="instead of the scenario's; repeatable"
    )


def _output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print the verdict as JSON")
    parser.add_argument("--quiet", action="store_true", help="say nothing but errors")


def _rate(text: str) -> tuple[str, float]:
    code, _, rate = text.partition("=")
    return _code(code), _factor(rate)


def _code(text: str) -> str:
    if not re.fullmatch("[a-z]{2}", text):
        raise argparse.ArgumentTypeError(f"'{text}' is no country's code, such as ee")
    return text


def _command(text: str) -> tuple[str, ...]:
    words = tuple(shlex.split(text))
    if not words:
        raise argparse.ArgumentTypeError("is empty")
    return words


def _factor(text: str) -> float:
    value = float(text)
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"must be a number above 0, not {text}")
    return value


def _seed(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"must not be negative, as {text} is")
    return value


def _minutes(seconds: float) -> str:
    return f"{math.ceil(seconds)} s" if seconds < 120 else f"{math.ceil(seconds / 60)} min"


if __name__ == "__main__":
    sys.exit(main())
