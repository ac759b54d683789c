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

from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Tracer
from prometheus_client import CollectorRegistry, generate_latest

from serving.records.telemetry import metrics
from serving.records.telemetry.courier import Courier
from serving.records.telemetry.distributions import Distributions
from serving.records.telemetry.instruments import Instruments
from serving.records.telemetry.logs import Handler, attach, detach
from serving.records.telemetry.metrics import Labels
from serving.records.telemetry.providers import logger_provider, meter_provider, tracer_provider
from serving.records.telemetry.schema import SEMCONV, Schema
from serving.records.telemetry.trace import Trace, carried
from tenants.country import Country

Service = Literal["domicile-gateway", "domicile-replica"]
_PATHS = {"trace": "/v1/traces", "log": "/v1/logs", "metric": "/v1/metrics"}
_SCOPE = "domicile"


class Telemetry:
    """One process's. May be used from any thread."""

    def __init__(self, country: Country, resource: Resource, schema: Schema) -> None:
        """Use :meth:`open`."""
        collector = country.telemetry.collector
        self.country = country
        self.schema = schema
        self._sampling = country.telemetry.sampling if collector else 0.0
        self._ways = {signal: Courier(collector, path) for signal, path in _PATHS.items()} if collector else {}
        self._registry = CollectorRegistry()
        distributions = Distributions()
        meters = meter_provider(resource, self._registry, distributions, self._ways.get("metric"))
        self.instruments = Instruments(schema, meters.get_meter(_SCOPE, schema_url=SEMCONV), distributions)
        self.instruments.read(metrics.DROPPED, self.dropped)
        self._providers: list[TracerProvider | LoggerProvider | MeterProvider] = [meters]
        self._tracer: Tracer | None = None
        self._handler: Handler | None = None
        if self._ways:
            traces, logs = tracer_provider(resource, self._ways["trace"]), logger_provider(resource, self._ways["log"])
            self._tracer = traces.get_tracer(_SCOPE, schema_url=SEMCONV)
            self._handler = Handler(schema, logs.get_logger(_SCOPE, schema_url=SEMCONV).emit)
            self._providers += [traces, logs]

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
        return generate_latest(self._registry)

    def dropped(self) -> Mapping[Labels, float]:
        """What nobody was told, by signal."""
        lost: dict[Labels, float] = {(signal,): float(way.lost) for signal, way in self._ways.items()}
        return {**lost, ("attribute",): float(self.schema.dropped)}

    def hear_logs(self) -> None:
        """Tell the process's own log records from now on. A process is one country's."""
        if self._handler is not None:
            attach(self._handler)

    def close(self) -> None:
        """Tell what is left; up to :data:`~serving.records.telemetry.courier.CLOSE_S` where nobody answers."""
        if self._handler is not None:
            detach(self._handler)
        for way in self._ways.values():
            way.hurry()
        while self._providers:
            self._providers.pop().shutdown()
