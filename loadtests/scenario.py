"""A load test as its YAML file describes it. Every default is written once, here.

Frozen and strict, as a country is: a key that is not described is refused with a suggestion.
``python -m loadtests.schema`` writes ``scenarios/schema.json`` from these models.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from loadtests.record import Kind
from tenants.country import Described, Listed, Seconds, Several, Share
from tenants.document import find_shipped, read_as, shipped_in
from tenants.errors import suggestion

SCENARIOS = Path(__file__).with_name("scenarios")

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,40}[a-z0-9])?$")]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Whole = Annotated[int, Field(ge=1)]


class Organisations(Described):
    """Some organisations of a country that behave alike: called id-1, id-2, …, or just id where there is one."""

    id: Name
    count: Annotated[int, Field(ge=1, le=1000)] = 1
    plan: Literal["free", "standard", "startup", "batch"] = "standard"


class Arrivals(Described):
    """When requests come, over all organisations of a stream and all countries of the run, each country the same.

    The rate is either ``rate``, in requests a second and country, or ``load``, a share of the capacity that the
    scenario measures first. Open loop: nobody waits for anybody. ``users`` instead makes a closed loop.
    """

    process: Literal["constant", "poisson", "gamma", "ramp", "diurnal", "trace"] = "poisson"
    rate: Positive | None = None
    load: Positive | None = None
    until_rate: Positive | None = None
    """ramp: where it ends."""
    until_load: Positive | None = None
    cv: Positive = 1.0
    """gamma: coefficient of variation of the inter-arrival times."""
    peak: Annotated[float, Field(ge=1)] = 3.0
    """diurnal: the peak's rate over the mean. A day in the country's own time zone passes in the phase."""
    skew: Annotated[float, Field(ge=0)] = 0.0
    """Zipf exponent of the organisations' shares: 0 gives each the same."""
    users: Whole | None = None
    """Closed loop: so many users a country, each of whom asks again when it was answered."""
    think_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0

    @model_validator(mode="after")
    def _one_measure(self) -> Self:
        given = [name for name in ("rate", "load", "users") if getattr(self, name) is not None]
        if self.process == "trace":
            if len(given) > 1 or "users" in given:
                raise ValueError("a trace has its own times: at most one of rate and load, to which it is stretched")
        elif len(given) != 1:
            raise ValueError(f"needs exactly one of rate, load and users, has {' and '.join(given) or 'none'}")
        ends = [name for name in ("until_rate", "until_load") if getattr(self, name) is not None]
        wanted = {"rate": ["until_rate"], "load": ["until_load"]}.get(given[0]) if given else None
        if self.process == "ramp" and ends != wanted:
            raise ValueError("a ramp goes from rate until_rate, or from load until_load")
        if self.process != "ramp" and ends:
            raise ValueError(f"{ends[0]} belongs to a ramp")
        return self


class Lengths(Described):
    """How long prompts and answers are, in tokens: as in a published trace, scaled, or fixed."""

    trace: Literal["azure-conversation", "azure-code", "mooncake-conversation", "servegen"] | None = None
    prompt_scale: Positive = 1.0
    output_scale: Positive = 1.0
    prompt: Whole | None = None
    output: Whole | None = None
    prompt_limit: Whole = 2048
    """Longer ones are cut: a small model's context ends somewhere."""
    output_limit: Whole = 512
    shared: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of a prompt that is the same for all requests of the stream and organisation."""

    @model_validator(mode="after")
    def _either(self) -> Self:
        fixed = (self.prompt is not None, self.output is not None)
        if self.trace is None and fixed != (True, True):
            raise ValueError("needs a trace, or both prompt and output")
        if self.trace is not None and any(fixed):
            raise ValueError("has a trace, so prompt and output are not fixed")
        return self


class Stream(Described):
    """One kind of traffic of some organisations."""

    organisations: Name
    kind: Annotated[Kind, Field(strict=False)] = Kind.CHAT
    arrivals: Arrivals
    lengths: Lengths = Lengths(trace="azure-conversation", prompt_scale=0.1, output_scale=0.2)
    trace_file: Annotated[Path, Field(strict=False)] | None = None
    """The user's own trace, JSON Lines as loadtests/README.md describes them. With ``process: trace``."""
    turns: Annotated[int, Field(ge=1, le=64)] = 4
    """conversation and agent: requests of a session."""
    abort_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the requests that their client leaves halfway."""
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    """Asked for; the model's own when left out."""
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    """Asked for; the model's own when left out."""

    @property
    def sampling(self) -> dict[str, float]:
        """Fields of the request's body."""
        asked = {"temperature": self.temperature, "top_p": self.top_p}
        return {name: value for name, value in asked.items() if value is not None}

    @model_validator(mode="after")
    def _a_trace_has_a_file(self) -> Self:
        if (self.trace_file is not None) != (self.arrivals.process == "trace"):
            raise ValueError("trace_file and arrivals.process: trace go together")
        return self


class Fault(Described):
    """One thing that goes wrong on purpose. :mod:`loadtests.chaos` does it."""

    at_s: Annotated[float, Field(ge=0)]
    """After the phase's beginning."""
    action: Literal["kill", "stop", "terminate", "lock", "latency", "slice", "stall", "reset", "half-close", "roll-out"]
    target: Literal["replica", "gateway", "raylet", "database", "client-link"] = "replica"
    for_s: Seconds | None = None
    """stop and lock: until it goes on. Faults of a link: how long it has them."""
    country: Annotated[str, StringConstraints(pattern=r"^[a-z]{2}$")] | None = None
    """Where; the run's first country when left out."""


class Phase(Described):
    """A stretch of the run with traffic of its own."""

    name: Name
    duration_s: Seconds
    traffic: Listed[Stream] = ()
    faults: Listed[Fault] = ()
    random_faults: Annotated[int, Field(ge=0, le=100)] = 0
    """So many more, drawn with the run's seed."""
    judged: bool = True
    """Whether the promises are held against it. Where capacity is exceeded on purpose, they cannot be."""


class Capacity(Described):
    """How the capacity is found that ``load`` is a share of: a closed loop with so many users a country."""

    users: Whole = 16
    duration_s: Seconds = 20.0
    rate: Positive | None = None
    """Known already, in requests a second and country: then nothing is measured."""


class Expect(Described):
    """What the verdict asks for, beside the countries' own promises."""

    slo: bool = True
    """Hold the countries' promises from tenant.yaml against every judged phase."""
    goodput: Share | None = None
    """Instead of each class's objective."""
    first_token_p99_s: Seconds | None = None
    refusal_p95_s: Seconds | None = None
    """Saying no must stay cheap."""
    isolation: Annotated[float, Field(ge=1)] | None = None
    """First token p95 of the ``isolated`` organisations in the last judged phase over that in the first, at most."""
    isolated: Name | None = None
    fairness: Share | None = None
    """Jain's index over backlogged organisations' served tokens, at least."""
    failures: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the requests that may fail, as in a run that kills replicas."""
    history: bool = False
    """Check every request's history: one end, no token lost or doubled, all accounted for."""


class Scenario(Described):
    """A load test."""

    name: Name
    title: Annotated[str, StringConstraints(min_length=1, max_length=120)]
    about: str = ""
    """What it is meant to show, for the report."""
    countries: Annotated[Listed[str], Field(json_schema_extra={"minItems": 1})] = ("ee",)
    seed: Annotated[int, Field(ge=0)] = 1
    organisations: Several[Organisations]
    capacity: Capacity = Capacity()
    phases: Several[Phase]
    expect: Expect = Expect()
    drain_s: Seconds = 60.0
    """How long the answers still under way at the end are waited for."""

    @property
    def duration_s(self) -> float:
        return sum(phase.duration_s for phase in self.phases)

    @property
    def measures_capacity(self) -> bool:
        """Whether some rate is relative and the capacity is not known."""
        return self.capacity.rate is None and any(
            stream.arrivals.load is not None for phase in self.phases for stream in phase.traffic
        )

    @model_validator(mode="after")
    def _names_hold(self) -> Self:
        known = {group.id for group in self.organisations}
        used = [(f"phase {phase.name}", one.organisations) for phase in self.phases for one in phase.traffic]
        if self.expect.isolated is not None:
            used.append(("expect.isolated", self.expect.isolated))
        for where, name in used:
            if name not in known:
                raise ValueError(
                    f"{where} names the organisations '{name}', which are not described" + suggestion(name, known)
                )
        if (self.expect.isolation is None) != (self.expect.isolated is None):
            raise ValueError("expect.isolation and expect.isolated go together")
        if len({phase.name for phase in self.phases}) < len(self.phases):
            raise ValueError("two phases have the same name")
        return self


def load_scenario(name_or_path: str) -> Scenario:
    """A scenario that is shipped, by name, or any file, by path.

    Raises :class:`tenants.errors.TenantError` with all its problems.
    """
    return read_as(Scenario, find_shipped(name_or_path, SCENARIOS), "the scenario")


def shipped() -> dict[str, Path]:
    """The scenarios that come with the distribution, by name."""
    return shipped_in(SCENARIOS)
