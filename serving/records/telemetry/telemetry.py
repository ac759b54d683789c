"""What one process of a country tells, and the only way to tell it: without a country there is nobody to tell.

Without a collector in the country's file there is no thread, no trace and no log record; the figures are kept all the
same, for the Prometheus page.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from importlib.metadata import version
from secrets import token_hex
from typing import Literal, Self

from opentelemetry.sdk.resources import Resource
from prometheus_client import generate_latest

from serving.records.telemetry import metrics
from serving.records.telemetry.instruments import Instruments
from serving.records.telemetry.logs import Handler, attach, detach
from serving.records.telemetry.metrics import Labels
from serving.records.telemetry.providers import Figures, Logs, Spans
from serving.records.telemetry.schema import SEMCONV, Schema
from serving.records.telemetry.trace import Trace, carried
from tenants.country import Country

Service = Literal["domicile-gateway", "domicile-replica"]


class Telemetry:
    """One process's. May be used from any thread."""

    def __init__(self, country: Country, resource: Resource, schema: Schema) -> None:
        """Use :meth:`open`."""
        collector = country.telemetry.collector
        self.country = country
        self.schema = schema
        self._figures = Figures(resource, collector)
        self._spans = Spans(resource, collector) if collector else None
        self._logs = Logs(resource, collector) if collector else None
        self._tracer = self._spans.tracer if self._spans else None
        self._sampling = country.telemetry.sampling if collector else 0.0
        self._handler: Handler | None = None
        self._open = True
        self.instruments = Instruments(schema, self._figures.meter, self._figures.distributions)
        self.instruments.read(metrics.DROPPED, self.dropped)

    @classmethod
    def open(cls, country: Country, service: Service, site: str) -> Self:
        """
        Args:
            site: where the process stands, as in ``x-domicile-site``.

        Raises:
            OSError: the collector's authority cannot be read.
        """
        schema = Schema(country)
        own = {
            "service.name": service,
            "service.namespace": "domicile",
            "service.version": version("domicile"),
            "service.instance.id": token_hex(8),
            "domicile.country": country.code,
            "domicile.site": site,
        }
        # Made directly: Resource.create would ask the environment, and look around on the machine.
        return cls(country, Resource(schema.kept(own), SEMCONV), schema)

    def sampled(self) -> Trace | None:
        """A new trace, for the share of requests that is traced."""
        if self._tracer is None or random.random() >= self._sampling:  # noqa: S311 - dice
            return None
        return Trace(self._tracer, self.schema)

    def carried_on(self, traceparent: str) -> Trace | None:
        """The trace of a request that came with a valid claim, and with this in it."""
        context = carried(traceparent) if traceparent and self._tracer else None
        return Trace(self._tracer, self.schema, context) if self._tracer and context else None

    def page(self) -> bytes:
        """For Prometheus: text format 0.0.4."""
        return generate_latest(self._figures.registry)

    def dropped(self) -> Mapping[Labels, float]:
        """What nobody was told, by signal."""
        lost: dict[Labels, float] = {("attribute",): float(self.schema.dropped)}
        if self._spans and self._logs:
            counts = {"trace": self._spans.losses.count, "log": self._logs.losses.count, "metric": self._figures.lost}
            lost |= {(signal,): float(count) for signal, count in counts.items()}
        return lost

    def hear_logs(self) -> None:
        """Tell the process's own log records from now on. A process is one country's."""
        if self._logs is not None and self._handler is None:
            self._handler = Handler(self.schema, self._logs.tell)
            attach(self._handler)

    def close(self) -> None:
        """Tell what is left; up to :data:`~serving.records.telemetry.courier.CLOSE_S` where nobody answers."""
        if self._handler is not None:
            detach(self._handler)
            self._handler = None
        if self._open:
            self._open = False
            parts = [part for part in (self._spans, self._logs, self._figures) if part is not None]
            for part in parts:
                part.hurry()
            for part in parts:
                part.close()
