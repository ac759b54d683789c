"""What Prometheus reads of a gateway, by name and labels."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from serving.records.telemetry.metrics import Kind, Metric

_UNITS = {"s": "_seconds"}
Figures = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def figures_of(page: str, country: str) -> Figures:
    """The samples, without the labels that say whose process it is."""
    found: Figures = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            labels = dict(sample.labels)
            assert labels.pop("domicile_country") == country
            assert labels.pop("domicile_site").startswith(f"{country}-")
            found[sample.name, tuple(sorted(labels.items()))] = sample.value
    return found


def summed(found: Figures, name: str, **labels: str) -> float:
    """The series of a name that have these labels, together."""
    return sum(value for (one, said), value in found.items() if one == name and labels.items() <= dict(said).items())


def exposed(name: str) -> str:
    """A metric's or label's name as Prometheus spells it."""
    return name.replace(".", "_")


def family(metric: Metric) -> str:
    """A metric's name on the page, without what a histogram's series add."""
    base = exposed(metric.name) + _UNITS.get(metric.unit, "")
    return base + "_total" if metric.kind is Kind.COUNTER else base
