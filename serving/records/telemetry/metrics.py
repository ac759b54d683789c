"""The closed list of metrics: name, unit, labels. The Prometheus page and the collector are told the same ones.

Names are OpenTelemetry's; its specification for Prometheus says what they are on the page
(https://opentelemetry.io/docs/specs/otel/compatibility/prometheus_and_openmetrics/).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 7.5, 10.0, 20.0, 30.0, 60.0, 120.0, 600.0)
TOKEN_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.125, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
TOKENS = (1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16384.0, 65536.0, 262144.0, 1048576.0)


Labels = tuple[str, ...]
"""Values in the order of :attr:`Metric.labels`; an empty one is a label that is not there."""


class Kind(Enum):
    """How a metric behaves."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True, eq=False)
class Metric:
    """One metric. Every one is also labelled with the country and the site, as the process's own."""

    name: str
    kind: Kind
    unit: str
    about: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()

    def said(self, labels: Labels) -> dict[str, str]:
        """Labels by their names."""
        return {name: value for name, value in zip(self.labels, labels, strict=True) if value}


_CLASS, _MODEL, _OPERATION = "domicile.service_class", "gen_ai.request.model", "gen_ai.operation.name"
_ASKED = (_OPERATION, _MODEL, _CLASS)

DURATION = Metric(
    "gen_ai.server.request.duration",
    Kind.HISTOGRAM,
    "s",
    "Time to the last byte of an answer, or to the refusal.",
    (*_ASKED, "error.type"),
    SECONDS,
)
FIRST_TOKEN = Metric(
    "gen_ai.server.time_to_first_token",
    Kind.HISTOGRAM,
    "s",
    "Time to the first bytes of a streamed answer.",
    _ASKED,
    SECONDS,
)
INTER_TOKEN = Metric(
    "gen_ai.server.time_per_output_token",
    Kind.HISTOGRAM,
    "s",
    "Time per token after the first, of a streamed answer.",
    _ASKED,
    TOKEN_SECONDS,
)
TOKENS_USED = Metric(
    "gen_ai.client.token.usage",
    Kind.HISTOGRAM,
    "{token}",
    "Tokens of an answer's prompt (input) and of the answer (output).",
    (*_ASKED, "gen_ai.token.type"),
    TOKENS,
)
REQUESTS = Metric(
    "domicile.requests",
    Kind.COUNTER,
    "{request}",
    "Generating requests that have ended, by what they came to.",
    (*_ASKED, "domicile.outcome"),
)
REFUSALS = Metric(
    "domicile.refusals",
    Kind.COUNTER,
    "{request}",
    "Requests that were not served, by the rule that says why, also those that never came to generating.",
    (_CLASS, "domicile.rule", "domicile.reason"),
)
PROMISES = Metric(
    "domicile.slo.requests",
    Kind.COUNTER,
    "{request}",
    "Requests that the country's promise speaks of, and whether it was kept.",
    (_CLASS, "domicile.kept"),
)
OBJECTIVE = Metric(
    "domicile.slo.objective",
    Kind.GAUGE,
    "1",
    "Share of requests whose promise is to be kept.",
    (_CLASS,),
)
ACTIVE = Metric("domicile.requests.active", Kind.GAUGE, "{request}", "Generating requests that are at the gateway now.")
RESUMED = Metric(
    "domicile.answers.resumed", Kind.COUNTER, "{answer}", "Answers that another replica of the country carried on."
)
REPLICAS = Metric(
    "domicile.replicas",
    Kind.GAUGE,
    "{replica}",
    "Replicas as this gateway sees them.",
    (_MODEL, "domicile.state"),
)
RECEIPTS = Metric("domicile.receipts", Kind.COUNTER, "{receipt}", "Receipts that were noted to be signed.")
AUDIT_WAITING = Metric("domicile.audit.waiting", Kind.GAUGE, "{record}", "Audit records that are not on disk yet.")
AUDIT_HEALTHY = Metric("domicile.audit.healthy", Kind.GAUGE, "1", "Whether audit records can be written.")
FAIRNESS = Metric(
    "domicile.fairness.index",
    Kind.GAUGE,
    "1",
    "Jain's index over the organisations served lately: 1 where each got its share, 1/n where one got all.",
)
TOP_SHARE = Metric(
    "domicile.fairness.top_share",
    Kind.GAUGE,
    "1",
    "What the organisation that was served most lately had of all tokens.",
)
ORGANISATIONS = Metric(
    "domicile.fairness.organisations", Kind.GAUGE, "{organisation}", "Organisations that were served lately."
)
DROPPED = Metric(
    "domicile.telemetry.dropped",
    Kind.COUNTER,
    "{item}",
    "What the collector was not told: it did not answer, or the schema does not describe it.",
    ("domicile.signal",),
)

ALL = (
    DURATION,
    FIRST_TOKEN,
    INTER_TOKEN,
    TOKENS_USED,
    REQUESTS,
    REFUSALS,
    PROMISES,
    OBJECTIVE,
    ACTIVE,
    RESUMED,
    REPLICAS,
    RECEIPTS,
    AUDIT_WAITING,
    AUDIT_HEALTHY,
    FAIRNESS,
    TOP_SHARE,
    ORGANISATIONS,
    DROPPED,
)
