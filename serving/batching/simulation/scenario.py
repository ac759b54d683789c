"""A simulation as its YAML file describes it. Every default is written once, here.

Frozen and strict, as a country is: a key that is not described is refused with a suggestion.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from tenants.country import Described, Listed, Seconds, Several, Slo
from tenants.errors import suggestion
from tenants.organisation import Plan

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,40}[a-z0-9])?$")]
Code = Annotated[str, StringConstraints(pattern=r"^[a-z]{2}$")]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Whole = Annotated[int, Field(ge=1)]
Scheduler = Literal["fair", "vllm"]


def _whole_seconds(offset_h: float) -> float:
    if not -12 <= offset_h <= 14:
        raise ValueError("no time zone is so far from UTC")
    return offset_h


class StepTiming(Described):
    """What an engine's step costs, as :mod:`serving.batching.steptime` fits it. In seconds."""

    fixed_s: NotNegative
    prefill_token_s: NotNegative
    decode_stream_s: NotNegative
    context_token_s: NotNegative = 0.0
    between_s: NotNegative = 0.0
    """Between a step's end and the next one's beginning, which no step-time model sees."""
    noise: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Coefficient of variation of a step's time around what the above say."""

    @model_validator(mode="after")
    def _takes_time(self) -> Self:
        if self.fixed_s + self.between_s + min(self.prefill_token_s, self.decode_stream_s) <= 0:
            raise ValueError("a step would take no time")
        return self


class EngineSize(Described):
    """What an engine was started with. vLLM's own defaults."""

    max_num_seqs: Whole = 256
    max_num_batched_tokens: Whole = 2048
    max_num_queued_reqs: Whole | None = None
    """vllm: its own admission control, how many requests may be unfinished; the fair scheduler has no use for it."""

    @model_validator(mode="after")
    def _has_room_for_decodes(self) -> Self:
        if self.max_num_batched_tokens < self.max_num_seqs:
            raise ValueError("max_num_batched_tokens is at least max_num_seqs: every stream gets a token a step")
        return self


class Site(Described):
    """A country. Shares nothing with the others."""

    code: Code
    replicas: Annotated[int, Field(ge=0, le=4096)] = 1
    utc_offset_h: Annotated[float, AfterValidator(_whole_seconds)] | None = None
    """Of its clocks; from its tenant.yaml's time zone, in January, when left out."""
    slo: Slo | None = None
    """What it promises; as its tenant.yaml says when left out."""


class Organisations(Described):
    """Some organisations of every country that behave alike: called id-1, id-2, …, or just id where there is one."""

    id: Name
    count: Annotated[int, Field(ge=1, le=10_000)] = 1
    plan: Annotated[Plan, Field(strict=False)] = Plan.STANDARD
    """Its service class and weight go with it..."""
    weight: Positive | None = None
    """...unless the weight is given."""

    @property
    def names(self) -> tuple[str, ...]:
        return (self.id,) if self.count == 1 else tuple(f"{self.id}-{place + 1}" for place in range(self.count))


class Arrivals(Described):
    """When a country's requests come, over all organisations of a stream.

    ``rate`` is requests a second and country, open loop: nobody waits for anybody. ``users`` makes a closed loop.
    """

    process: Literal["poisson", "constant", "gamma", "diurnal"] = "poisson"
    rate: Positive | None = None
    cv: Annotated[float, Field(ge=0.01, le=100)] = 1.0
    """gamma: coefficient of variation of each organisation's inter-arrival times."""
    peak: Annotated[float, Field(ge=1, le=20)] = 3.0
    """diurnal: the rate at 20:00 local time over the day's mean, which is ``rate``."""
    day_s: Positive | None = None
    """diurnal: how long a day takes; the whole simulation when left out. It begins at 0:00 UTC."""
    skew: NotNegative = 0.0
    """Zipf exponent of the organisations' shares: 0 gives each the same."""
    users: Whole | None = None
    """Closed loop: so many users a country, each of whom asks again when it was answered."""
    think_s: NotNegative = 0.0
    begins_s: NotNegative = 0.0
    ends_s: Positive | None = None
    """When nobody asks any more; with the simulation when left out."""

    @model_validator(mode="after")
    def _one_measure(self) -> Self:
        if (self.rate is None) == (self.users is None):
            raise ValueError("needs exactly one of rate and users")
        if self.ends_s is not None and self.ends_s <= self.begins_s:
            raise ValueError("ends before it begins")
        return self


class Lengths(Described):
    """How long prompts and answers are, in tokens: as in a published trace, scaled, or fixed."""

    trace: Literal["azure-conversation", "azure-code"] | None = None
    prompt_scale: Positive = 1.0
    output_scale: Positive = 1.0
    prompt: Whole | None = None
    output: Whole | None = None
    prompt_limit: Whole = 2048
    """Longer ones are cut: a model's context ends somewhere."""
    output_limit: Whole = 512
    asked: Literal["exactly", "limit"] = "exactly"
    """What callers write as ``max_tokens``: the very length, as load tests do, or ``output_limit``."""

    @model_validator(mode="after")
    def _either(self) -> Self:
        fixed = (self.prompt is not None, self.output is not None)
        if self.trace is None and fixed != (True, True):
            raise ValueError("needs a trace, or both prompt and output")
        if self.trace is not None and any(fixed):
            raise ValueError("has a trace, so prompt and output are not fixed")
        return self


SHORT_CHATS = Lengths(trace="azure-conversation", prompt_scale=0.05, output_scale=0.1)
"""What a small model on a few CPU cores is asked."""


class Recorded(Described):
    """A request that came once, at a moment of the simulation and of lengths that are known."""

    at_s: NotNegative
    prompt: Whole
    output: Whole


class Stream(Described):
    """One kind of traffic of some organisations: drawn, or as it was recorded."""

    organisations: Name
    countries: Listed[Code] = ()
    """Where; everywhere when left out."""
    arrivals: Arrivals | None = None
    lengths: Lengths = SHORT_CHATS
    """Of drawn traffic."""
    recorded: Listed[Recorded] = ()
    """Instead of both: these very requests, in any order, of the organisations in turn. Those after the end are left
    out."""

    @model_validator(mode="after")
    def _drawn_or_recorded(self) -> Self:
        if (self.arrivals is None) == (not self.recorded):
            raise ValueError("needs exactly one of arrivals and recorded")
        if self.recorded and self.lengths != SHORT_CHATS:
            raise ValueError("is recorded, so lengths are not drawn")
        return self


class Fault(Described):
    """One thing that goes wrong with one replica."""

    at_s: NotNegative
    action: Literal["die", "stall"]
    for_s: Seconds
    """die: until another has taken its place. stall: how long it takes no step."""
    country: Code | None = None
    """Where; in every country when left out."""
    replica: Annotated[int, Field(ge=0)] | None = None
    """Which of the country's, from 0; drawn when left out."""


class Scenario(Described):
    """A simulation."""

    name: Name
    about: str = ""
    """What it is meant to show."""
    seed: Annotated[int, Field(ge=0)] = 1
    duration_s: Seconds = 60.0
    """How long requests come. What is under way then is served to its end."""
    scheduler: Scheduler = "fair"
    """vllm: first come, first served, everybody admitted, the whole token budget in every step."""
    model: Literal["exact", "learned"] = "exact"
    """Whether the batching core knows the step time or learns it from the steps."""
    step_time: StepTiming
    engine: EngineSize = EngineSize()
    path_s: NotNegative = 0.0
    """Of the way from callers to replicas and back: what it adds to each first token."""
    lost: Literal["again", "fail"] = "again"
    """What becomes of requests whose replica dies: another of the country goes on with them, or they fail."""
    countries: Several[Site]
    organisations: Several[Organisations]
    traffic: Several[Stream]
    faults: Listed[Fault] = ()

    @model_validator(mode="after")
    def _names_hold(self) -> Self:
        codes = [site.code for site in self.countries]
        groups = [group.id for group in self.organisations]
        for what, names in (("country", codes), ("group of organisations", groups)):
            if len(set(names)) < len(names):
                raise ValueError(f"describes the same {what} twice")
        everybody = [name for group in self.organisations for name in group.names]
        if len(set(everybody)) < len(everybody):
            raise ValueError("two organisations have the same name")
        for place, stream in enumerate(self.traffic):
            _known(f"traffic[{place}]", "organisations", [stream.organisations], groups)
            _known(f"traffic[{place}]", "country", stream.countries, codes)
        for place, fault in enumerate(self.faults):
            _known(f"faults[{place}]", "country", [fault.country] if fault.country else (), codes)
            for site in self.countries:
                if fault.replica is not None and fault.country in (None, site.code) and fault.replica >= site.replicas:
                    raise ValueError(f"faults[{place}] is of replica {fault.replica}, {site.code} has {site.replicas}")
        return self


def _known(where: str, what: str, names: Iterable[str], known: Iterable[str]) -> None:
    for name in names:
        if name not in known:
            raise ValueError(f"{where} names the {what} '{name}', not described" + suggestion(name, known))
