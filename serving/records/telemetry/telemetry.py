"""What one process of a country tells, and the only way to tell it: without a country there is nobody to tell.

Without a collector in the country's file there is no thread, no trace and no log record; the figures are kept all the
same, for the Prometheus page.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from itertools import chain
from secrets import token_hex
from time import time_ns
from typing import Literal, Self

from serving.records.telemetry import metrics
from serving.records.telemetry.courier import Courier
from serving.records.telemetry.instruments import Instruments, Labels, Reading
from serving.records.telemetry.logs import Handler, attach, detach
from serving.records.telemetry.otlp import Encoder
from serving.records.telemetry.prometheus import page
from serving.records.telemetry.schema import Schema, Value
from serving.records.telemetry.trace import Context, Ended, Trace
from tenants.country import Country

log = logging.getLogger(__name__)

Service = Literal["domicile-gateway", "domicile-replica"]


class Telemetry:
    """One process's. May be read from any thread; the figures are written by one event loop."""

    def __init__(self, country: Country, courier: Courier | None, instruments: Instruments, schema: Schema) -> None:
        self.country = country
        self.instruments = instruments
        self.schema = schema
        self._courier = courier
        self._sampling = country.telemetry.sampling if courier else 0.0
        self._own: dict[str, str] = {"domicile.country": country.code}
        self._handler: Handler | None = None
        instruments.read(metrics.DROPPED, self._dropped)

    @classmethod
    def open(cls, country: Country, service: Service, site: str) -> Self:
        """
        Args:
            site: where the process stands, as in ``x-domicile-site``.

        Raises:
            OSError: the collector's authority cannot be read.
        """
        schema = Schema(country)
        instruments = Instruments(schema)
        own: dict[str, Value] = {
            "service.name": service,
            "service.namespace": "domicile",
            "service.version": version("domicile"),
            "service.instance.id": token_hex(8),
            "domicile.country": country.code,
            "domicile.site": site,
        }
        collector = country.telemetry.collector
        courier = None
        if collector is not None:
            courier = Courier(collector, Encoder(schema.kept(own), time_ns()), instruments.readings)
        telemetry = cls(country, courier, instruments, schema)
        telemetry._own["domicile.site"] = site
        return telemetry

    def sampled(self) -> Trace | None:
        """A new trace, for the share of requests that is traced."""
        return Trace(self._tell) if self._sampling and random.random() < self._sampling else None  # noqa: S311 - dice

    def carried_on(self, traceparent: str) -> Trace | None:
        """The trace of a request that came with a valid claim, and with this in it."""
        context = Context.read(traceparent) if traceparent and self._courier else None
        return Trace(self._tell, context) if context else None

    def page(self) -> str:
        """For Prometheus."""
        return page(self.instruments.readings(), self._own)

    def readings(self) -> Iterable[Reading]:
        return self.instruments.readings()

    def hear_logs(self) -> None:
        """Tell the process's own log records from now on. A process is one country's."""
        if self._courier is not None and self._handler is None:
            self._handler = Handler(self.schema, self._courier.tell)
            attach(self._handler)

    def close(self) -> None:
        """Tell what is left; up to :data:`~serving.records.telemetry.courier.CLOSE_S` where nobody answers."""
        if self._handler is not None:
            detach(self._handler)
            self._handler = None
        if self._courier is not None:
            self._courier.close()

    def _tell(self, span: Ended) -> None:
        if self._courier is not None:
            self._courier.tell(_closed(span, self.schema))

    def _dropped(self) -> Mapping[Labels, float]:
        lost = self._courier.dropped() if self._courier else {}
        return {(signal,): float(count) for signal, count in chain(lost.items(), [("attribute", self.schema.dropped)])}


def _closed(span: Ended, schema: Schema) -> Ended:
    """The span with what the schema describes."""
    error = span.error if not span.error or schema.allows("error.type", span.error) else "internal_error"
    return Ended(
        span.trace,
        span.id,
        span.parent,
        span.name,
        span.begun,
        span.ended,
        span.serves,
        span.asks,
        schema.kept(span.attributes),
        error,
    )
