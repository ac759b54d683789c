"""What the countries of a plan promise, and which requests were given it: the verdict's rules, for whole columns."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import orjson

from loadtests.judging.evidence import counts, keeps
from loadtests.record import Record
from loadtests.reporting.series import Columns, Mask, View
from tenants.country import Slo


def promise(view: View, country: str, service_class: str) -> Slo:
    """What a class is promised on this side; the default promise where the plan knows no such country."""
    slo = view.targets.get((view.side, country), {}).get("slo")
    return (Slo() if slo is None else Slo.model_validate_json(orjson.dumps(slo))).promise(service_class)


def kept(view: View, requests: Columns) -> Mask:
    """Which requests were answered within their country's promise to their class."""
    return _each(view, requests, keeps)


def counted(view: View, requests: Columns) -> Mask:
    """Which requests count for the goodput: all but those that the load test left before a promise was broken."""
    return _each(view, requests, counts)


def _each(view: View, requests: Columns, asks: Callable[[Record, Slo], bool]) -> Mask:
    pairs = {(one.country, one.service_class) for one in requests.records}
    known = {pair: promise(view, *pair) for pair in pairs}
    return np.array([asks(one, known[one.country, one.service_class]) for one in requests.records], bool)
