"""For Locust: ``locust -f loadtests/locustfile.py --scenario steady --targets FILE``, with its web page or --headless.

Users and spawn rate say nothing here: how much is sent, and when, is the scenario's. The run ends by itself. With
``--master`` and ``--worker`` the requests are divided among the workers; see loadtests/README.md.
"""

from __future__ import annotations

import logging
import signal
import sys
from pathlib import Path
from typing import Any, cast

# Locust puts the locustfile's folder first on the path, where our modules would take the names of others. What it puts
# first it also takes away again, so the distribution's folder is named twice.
ROOT = str(Path(__file__).resolve().parents[1])
sys.path[:1] = [ROOT]
sys.path.append(ROOT)

import gevent  # noqa: E402
from locust import LoadTestShape, User, events, task  # noqa: E402
from locust.argument_parser import LocustArgumentParser  # noqa: E402
from locust.env import Environment  # noqa: E402
from locust.runners import MasterRunner, WorkerRunner  # noqa: E402

from loadtests.client.crew import BEGIN, HALT, WORK, Alone, Crew, Master, Worker  # noqa: E402
from loadtests.client.order import Order  # noqa: E402
from tenants.errors import TenantError  # noqa: E402

NO_RUN = 2
logger = logging.getLogger(__name__)
crew: Crew | None = None


class LoadGenerator(User):
    """One of these runs in each process, and only shows that it does: see loadtests.client.generator."""

    @task
    def be(self) -> None:
        gevent.sleep(3600)


class UntilItIsOver(LoadTestShape):
    """Keeps one user a process while the run lasts, so that nobody turns the load up or down."""

    def tick(self) -> tuple[int, float] | None:
        if crew is not None and crew.over:
            return None
        workers = len(self.runner.clients) if isinstance(self.runner, MasterRunner) else 1
        return max(1, workers), 100


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator] # Locust's
def options(parser: LocustArgumentParser) -> None:
    group = parser.add_argument_group("load test")
    group.add_argument("--scenario", default="", help="Name of a shipped scenario, or a path to a .yaml file")
    group.add_argument("--targets", default="", help="File that says whom to ask, with which keys (see targets.py)")
    group.add_argument("--run-folder", default="", help="Where to write; a new one under reports/ when left out")
    group.add_argument("--seed", type=int, default=None, help="Instead of the scenario's own")
    group.add_argument("--capacity", nargs="*", default=[], metavar="CC=RATE", help="Requests/s by country, as known")
    group.add_argument("--only-capacity", action="store_true", help="Measure the capacity and nothing else")
    group.add_argument("--plain-openai", action="store_true", help="Send no field that OpenAI does not know")


@events.init.add_listener  # type: ignore[untyped-decorator] # Locust's
def prepare(environment: Environment, **_: Any) -> None:
    """Listen to the crew, and refuse what cannot be run before anything is sent."""
    # Requests that failed are the verdict's business: what ran to its end ran well.
    environment.process_exit_code = 0
    runner, told = environment.runner, cast(Any, environment.parsed_options)
    if isinstance(runner, WorkerRunner):
        worker = Worker(environment)
        _enlist(worker)
        runner.register_message(BEGIN, lambda msg, **_: worker.begin(msg.data))
        runner.register_message(HALT, lambda **_: worker.halt(), concurrent=True)
        return
    if isinstance(runner, MasterRunner):
        runner.register_message(WORK, _heard)
    if told.headless or told.scenario:
        try:
            Order.of(told).plan()
        except TenantError as error:
            print(error, file=sys.stderr)
            sys.exit(NO_RUN)
    if told.headless:
        # Locust listens to SIGTERM only once a headless run is over.
        gevent.signal_handler(signal.SIGTERM, cast(Any, runner).quit)


@events.test_start.add_listener  # type: ignore[untyped-decorator] # Locust's
def start(environment: Environment, **_: Any) -> None:
    runner, told = environment.runner, cast(Any, environment.parsed_options)
    if isinstance(runner, WorkerRunner):
        return
    try:
        folder = Path(told.run_folder) if told.run_folder else None
        found = (Master if isinstance(runner, MasterRunner) else Alone)(environment, Order.of(told), folder)
        found.start()
        _enlist(found)
    except (TenantError, OSError) as error:
        logger.error("%s", error)
        environment.process_exit_code = NO_RUN
        gevent.spawn(_give_up, runner, told.headless)


@events.test_stopping.add_listener  # type: ignore[untyped-decorator] # Locust's
def stop(environment: Environment, **_: Any) -> None:
    """However it ends, what is in flight is recorded and the files are whole."""
    if crew is not None:
        crew.halt()
    if not isinstance(environment.runner, WorkerRunner):
        _enlist(None)  # the web page may begin another run


def _heard(msg: Any, **_: Any) -> None:
    if isinstance(crew, Master):
        crew.heard(msg.node_id, msg.data)


def _give_up(runner: Any, headless: bool) -> None:
    (runner.quit if headless else runner.stop)()


def _enlist(found: Crew | None) -> None:
    global crew
    crew = found
