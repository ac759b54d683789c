"""A country as its ``tenant.yaml`` describes it. Every default is written once, here.

Frozen and strict: what is not described below is refused. :mod:`tenants.registry` reads the files and turns
pydantic's complaints into a :class:`~tenants.errors.TenantError`.
"""

from __future__ import annotations

import json
from hashlib import sha256
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    Strict,
    StringConstraints,
    ValidationInfo,
    field_validator,
    model_validator,
)

from tenants.arguments import ALLOWED, judge
from tenants.networks import apart, canonical, within

PORT_BASE = 9000
METRICS_PORT_BASE = 20000
METRICS_PORTS = 10
"""How many a country has: its gateway processes on a node, and a new one beside them in a roll-out."""
WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 (names them, binds nothing)
"""Hosts that mean every interface, and where a client on the same machine finds them."""

Item = TypeVar("Item")


def _absolute(path: Path) -> Path:
    if not path.is_absolute():
        raise ValueError("must be an absolute path on the country's own nodes")
    return path


def _time_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ValueError("is not in the IANA time zone database") from None
    return name


def _literal(url: str) -> str:
    parts = urlsplit(url)
    try:
        port, host = parts.port, ip_address(parts.hostname or "")
    except ValueError:
        raise ValueError(
            "must be http:// or https:// with an IP address: a name could be pointed abroad after this was looked at"
        ) from None
    plain = f"{parts.scheme}://[{host}]:{port}" if ":" in str(host) else f"{parts.scheme}://{host}:{port}"
    if parts.scheme not in ("http", "https") or port is None or url.rstrip("/") != plain:
        raise ValueError("must be http://ADDRESS:PORT or https://ADDRESS:PORT and nothing more")
    return plain


def _some(items: tuple[Item, ...]) -> tuple[Item, ...]:
    # Not Field(min_length=1): that complains again about a list whose only entry is wrong.
    if not items:
        raise ValueError("needs at least one entry")
    return items


def _distinct(items: tuple[Item, ...]) -> tuple[Item, ...]:
    if len(set(items)) < len(items):
        raise ValueError("lists the same entry twice")
    return items


Text = Annotated[str, StringConstraints(min_length=1, max_length=120, strip_whitespace=True)]
Language = Annotated[str, StringConstraints(pattern=r"^[a-z]{2,3}$")]
HostName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9.-]+(:[0-9]+)?$", to_lower=True)]
Listed = Annotated[tuple[Item, ...], Strict(False)]
Several = Annotated[tuple[Item, ...], Strict(False), AfterValidator(_some), Field(json_schema_extra={"minItems": 1})]
LocalPath = Annotated[Path, Strict(False), AfterValidator(_absolute)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=4096)]
NetworkName = Annotated[str, AfterValidator(canonical)]
ArgumentName = Annotated[str, AfterValidator(judge), Field(json_schema_extra={"enum": sorted(ALLOWED)})]


class Described(BaseModel):
    """What all parts of a country share: frozen, strict, and no key that is not described."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)


class Tls(Described):
    """The listener's own certificate."""

    certificate: LocalPath
    """PEM file: the certificate, then its intermediates."""

    key: LocalPath
    """PEM file: the private key."""


class Gateway(Described):
    """The country's door."""

    host: Text = "127.0.0.1"
    """Address to listen on; 0.0.0.0 or :: for every interface of the country's nodes."""

    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    """Port to listen on; 9000 plus the country's ISO 3166-1 number when left out."""

    replicas: Count = 1
    """Gateway processes that share the address."""

    public_url: Annotated[str, StringConstraints(pattern=r"^https?://[^/\s?#]+$")] | None = None
    """Where callers find the country, when something in front of the gateway gives it another name."""

    hostnames: Annotated[Listed[HostName], AfterValidator(_distinct)] = ()
    """Names accepted in the Host header beside the address itself."""

    tls: Tls | None = None

    max_body_bytes: Annotated[int, Field(ge=1024)] = 8 * 1024 * 1024
    """Largest request body that is read."""


class Source(Described):
    """Where a model's weights come from: exactly one of the three."""

    bundled: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9.-]*$")] | None = None
    """A model that one of our pinned packages ships."""

    path: LocalPath | None = None
    """A folder on the country's own nodes."""

    hub: Annotated[str, StringConstraints(pattern=r"^[\w.-]+/[\w.-]+$")] | None = None
    """A model hub's org/name. Fetching crosses the border, so residency.allow_hub must say yes."""

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        named = [name for name in ("bundled", "path", "hub") if getattr(self, name) is not None]
        if len(named) != 1:
            raise ValueError(f"needs exactly one of bundled, path and hub, has {' and '.join(named) or 'none'}")
        return self


class Engine(Described):
    """How vLLM runs a model."""

    device: Literal["auto", "cpu", "gpu"] = "auto"

    profile: Literal["fast-start", "throughput"] = "fast-start"
    """fast-start is ready in under a minute; throughput compiles first and then serves faster."""

    kv_cache_gib: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    """Memory for the KV cache on a CPU. On a GPU, see arguments.gpu_memory_utilization."""

    scheduler: Literal["fair", "vllm"] = "fair"
    """vllm: first come, first served, without fair shares between organisations, early refusals or steps that keep the
    inter-token promise."""

    linear: Literal["packed", "vllm"] = "packed"
    """On CPUs. packed: where the weights of a model computed in float32 are numbers of bfloat16, they are kept as such
    and widened while computing, which is faster and as exact. vllm: its own layers."""

    tensor_parallel_size: Count = 1
    pipeline_parallel_size: Count = 1

    arguments: dict[ArgumentName, JsonValue] = {}
    """Passed to vLLM as they are. Read-only by convention."""


class Model(Described):
    """One model that the country serves."""

    id: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}$")]
    """What callers write as `model`."""

    source: Source
    replicas: Annotated[int, Field(ge=0, le=4096)] = 1
    engine: Engine = Engine()

    granted: Literal["all", "named"] = "all"
    """named: only organisations that were granted the model by its id."""


class Promise(Described):
    """What a service class may wait. What is left out is as for everybody."""

    first_token_s: Seconds | None = None
    inter_token_s: Seconds | None = None
    objective: Share | None = None


class Slo(Described):
    """What the country promises its callers about waiting.

    A request keeps the promise when its first token comes within first_token_s and its further ones within
    inter_token_s each, on the request's average.
    """

    first_token_s: Seconds = 2.0
    inter_token_s: Seconds = 0.15
    objective: Share = 0.95
    """Share of requests that keep the promise; what is left to one is the error budget."""

    classes: dict[Literal["interactive", "standard", "batch"], Promise] = {
        "batch": Promise(first_token_s=60.0, inter_token_s=1.0)
    }
    """Service classes that are promised something else. Read-only by convention."""

    request_s: Seconds = 600.0
    """Deadline of a whole answer."""

    def promise(self, service_class: str) -> Slo:
        """What holds for a service class."""
        own = next((promise for name, promise in self.classes.items() if name == service_class), Promise())
        return self.model_copy(update=own.model_dump(exclude_none=True))


class Residency(Described):
    """What is at home, and what may come in from abroad. Nothing here lets anything out."""

    networks: Annotated[Listed[NetworkName], AfterValidator(_distinct), AfterValidator(apart)] = ()
    """The country's own networks as CIDRs: where its nodes, its collector and its database are. Loopback always is."""

    allow_hub: bool = False
    """Let this country's nodes fetch models from a model hub abroad."""


class Collector(Described):
    """The country's own OpenTelemetry collector."""

    endpoint: Annotated[str, AfterValidator(_literal)]
    """Base URL of OTLP over HTTP, its host an address and no name: http://10.1.2.3:4318."""

    certificate_authority: LocalPath | None = None
    """For https: PEM file of the country's own authority. No other is trusted."""

    @model_validator(mode="after")
    def _authority_with_https(self) -> Self:
        if self.endpoint.startswith("https:") == (self.certificate_authority is None):
            raise ValueError("needs certificate_authority with https, and only there")
        return self


class Prometheus(Described):
    """The private listener of a gateway's metrics. Whoever reaches it may read them."""

    listen: Literal["loopback", "node"] = "loopback"
    """node: on the node's own address, for a Prometheus on another node of the country."""

    port: Annotated[int, Field(ge=1, le=65535 - METRICS_PORTS)] | None = None
    """The first of ten ports, of which each gateway process takes one; 20000 plus ten times the country's ISO 3166-1
    number when left out."""


class Telemetry(Described):
    """What the country's operators see of it. None of it goes abroad."""

    collector: Collector | None = None
    """Where traces, metrics and logs are sent; nowhere when left out."""

    sampling: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.05
    """Share of requests that are traced."""

    threshold: Annotated[int, Field(ge=2, le=1000)] = 5
    """An aggregate over fewer organisations than this is not told."""

    prometheus: Prometheus = Prometheus()


class Safety(Described):
    """Which safety policy applies."""

    policy: Literal["standard"] = "standard"


def _at_home(telemetry: Telemetry, info: ValidationInfo) -> Telemetry:
    residency = info.data.get("residency")
    if telemetry.collector is None or not isinstance(residency, Residency):
        return telemetry
    host = urlsplit(telemetry.collector.endpoint).hostname or ""
    if not within(host, residency.networks):
        raise ValueError(
            f"collector.endpoint {host} is not in residency.networks, so telemetry would leave the country: "
            "name a collector in one of the country's own networks, or on loopback"
        )
    return telemetry


def _admitted(model: Model, info: ValidationInfo) -> Model:
    residency = info.data.get("residency")
    if model.source.hub is not None and isinstance(residency, Residency) and not residency.allow_hub:
        raise ValueError(
            f"source.hub '{model.source.hub}' would be fetched from abroad: "
            "put it on the country's nodes and name its path, or set residency.allow_hub: true"
        )
    return model


class Country(Described):
    """A tenant: one country, its address, its models and its promises."""

    code: Annotated[str, StringConstraints(pattern=r"^[a-z]{2}$")]
    """ISO 3166-1 alpha-2, lower case. The folder has the same name."""

    name: Text
    """What the country calls itself."""

    english_name: Text
    numeric: Annotated[int, Field(ge=1, le=999)]
    """ISO 3166-1 numeric."""

    time_zone: Annotated[str, AfterValidator(_time_zone)]
    """IANA name, as in Europe/Tallinn."""

    languages: Annotated[Several[Language], AfterValidator(_distinct)]
    """BCP 47 primary tags, the default first."""

    isolation: Literal["shared", "cell"] = "shared"
    """cell: a Ray cluster of the country's own."""

    gateway: Gateway = Gateway()
    slo: Slo = Slo()
    residency: Residency = Residency()
    telemetry: Annotated[Telemetry, AfterValidator(_at_home)] = Telemetry()
    safety: Safety = Safety()
    models: Several[Annotated[Model, AfterValidator(_admitted)]]

    @field_validator("models")
    @classmethod
    def _ids_differ(cls, models: tuple[Model, ...]) -> tuple[Model, ...]:
        seen: set[str] = set()
        for model in models:
            if model.id in seen:
                raise ValueError(f"two models have the id '{model.id}'")
            seen.add(model.id)
        return models

    @property
    def port(self) -> int:
        """The gateway's port."""
        return self.gateway.port or PORT_BASE + self.numeric

    @property
    def metrics_port(self) -> int:
        """The first port that gateways tell their metrics on."""
        return self.telemetry.prometheus.port or METRICS_PORT_BASE + METRICS_PORTS * self.numeric

    @property
    def address(self) -> str:
        """Base URL of the gateway for a client on the same machine, without a slash at the end."""
        host = WILDCARDS.get(self.gateway.host, self.gateway.host)
        scheme = "http" if self.gateway.tls is None else "https"
        return f"{scheme}://[{host}]:{self.port}" if ":" in host else f"{scheme}://{host}:{self.port}"

    @property
    def public_address(self) -> str:
        """Base URL to tell callers."""
        return self.gateway.public_url or self.address

    @property
    def policy_digest(self) -> str:
        """Names everything that this file decides, defaults included: ``sha256:`` of it as JSON with sorted keys."""
        decided = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return f"sha256:{sha256(decided.encode()).hexdigest()}"

    def model(self, id: str) -> Model | None:
        """The model that callers know by this id."""
        return next((model for model in self.models if model.id == id), None)
