"""The closed schema: what it knows passes, whatever else anybody says does not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes
from opentelemetry.semconv._incubating.metrics import gen_ai_metrics
from opentelemetry.semconv.attributes import code_attributes, error_attributes, exception_attributes, http_attributes
from opentelemetry.semconv.schemas import Schemas

from serving.records.telemetry import faults, metrics
from serving.records.telemetry.schema import SEMCONV, Schema, Undescribed
from serving.records.telemetry.telemetry import Telemetry
from serving.steps import record
from tenants.country import Country
from tenants.registry import load_country
from tests.house import SHIPPED
from tests.records.telemetry.figures import family, figures_of

EE = load_country(SHIPPED / "ee")
FREE = {"domicile.site", "domicile.request.id", "exception.type", "code.file.path", "service.version"}
FREE |= {"service.instance.id"}
"""Attributes whose values are made by us and follow a form; all other texts are of a list."""


@pytest.fixture
def lenient(monkeypatch: pytest.MonkeyPatch) -> Schema:
    """As in production."""
    monkeypatch.setattr(Schema, "refuses", False)
    return Schema(EE)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("gen_ai.prompt", "hello"),
        ("domicile.organisation", "acme"),
        ("gen_ai.request.model", "a-model-that-a-caller-made-up"),
        ("domicile.country", "kr"),
        ("domicile.service_class", "Interactive"),
        ("domicile.request.id", "req_1"),
        ("domicile.attempt", -1),
        ("domicile.attempt", True),
        ("domicile.attempt", "1"),
        ("gen_ai.request.stream", 1),
        ("error.type", "what the engine said"),
        ("exception.type", "Error: hello"),
        ("code.file.path", "hello there.py"),
        ("http.route", "/v1/chat/completions?q=hello"),
    ],
)
def test_what_is_not_described_is_refused_in_tests_and_dropped_elsewhere(
    lenient: Schema, name: str, value: str | int
) -> None:
    assert lenient.kept({name: value, "domicile.state": "serving"}) == {"domicile.state": "serving"}
    assert lenient.dropped == 1
    strict = Schema(EE)
    strict.refuses = True
    with pytest.raises(Undescribed) as refused:
        strict.allows(name, value)
    assert str(value) not in str(refused.value) or type(value) is not str


@given(st.text(min_size=1))
def test_no_text_is_a_value_but_those_that_we_wrote(text: str) -> None:
    """For every attribute that takes a text, short of identifiers with a form of their own."""
    schema = Schema(EE)
    listed = [name for name in schema.attributes if name not in FREE]
    taken = [name for name in listed if schema.attributes[name].rule(text)]
    assert all(text in schema.attributes[name].said for name in taken)


def test_an_identifier_with_a_form_holds_no_sentence() -> None:
    schema = Schema(EE)
    for name in FREE:
        assert not schema.attributes[name].rule("tell me of the sea")
        assert not schema.attributes[name].rule("море")


def test_a_span_is_one_of_those_that_there_are(lenient: Schema) -> None:
    assert lenient.names("prefill")
    assert lenient.names(f"chat {EE.models[0].id}")
    assert not lenient.names("chat made-up")
    assert not lenient.names("tell me of the sea")
    assert lenient.dropped == 2


def test_every_metric_s_labels_are_described() -> None:
    schema = Schema(EE)
    for metric in metrics.ALL:
        assert set(metric.labels) <= schema.attributes.keys()
        assert "organisation" not in " ".join(metric.labels)
    assert len({family(metric) for metric in metrics.ALL}) == len(metrics.ALL)


@pytest.mark.usefixtures("lenient")
def test_a_label_set_with_something_undescribed_is_not_counted() -> None:
    telemetry = Telemetry.open(EE, "domicile-gateway", "ee-test")
    instruments = telemetry.instruments
    instruments.add(metrics.REFUSALS, "standard", "authenticate", "no_key")
    instruments.add(metrics.REFUSALS, "standard", "r3", "my own words")
    instruments.observe(metrics.DURATION, 1.0, "chat", "made-up", "standard", "")
    found = figures_of(telemetry.page().decode(), "ee")
    said = (("domicile_reason", "no_key"), ("domicile_rule", "authenticate"), ("domicile_service_class", "standard"))
    assert found == {
        ("domicile_refusals_total", said): 1,
        ("domicile_telemetry_dropped_total", (("domicile_signal", "attribute"),)): 2,
    }


def test_names_are_those_of_the_release_that_we_say() -> None:
    assert SEMCONV in {schema.value for schema in Schemas}
    modules = (gen_ai_attributes, code_attributes, error_attributes, exception_attributes, http_attributes)
    known = {value for module in modules for value in vars(module).values() if isinstance(value, str)}
    ours = {name for name in Schema(EE).attributes if not name.startswith(("domicile.", "service."))}
    assert ours <= known
    theirs = {value for value in vars(gen_ai_metrics).values() if isinstance(value, str)}
    assert {metric.name for metric in metrics.ALL if metric.name.startswith("gen_ai.")} <= theirs


def test_rules_are_those_of_the_audit_log() -> None:
    assert {*record._RULES.values(), "validate"} == set(faults.RULES)


def test_a_country_s_models_are_its_own(lenient: Schema) -> None:
    assert isinstance(EE, Country)
    for model in EE.models:
        assert lenient.allows("gen_ai.request.model", model.id)
