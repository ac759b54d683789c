from __future__ import annotations

from datetime import UTC, datetime

import pytest

from serving.types import ServiceClass
from tenants.organisation import Organisation, Plan
from tests.tenants.test_country import country

NOW = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.mark.parametrize("id", ["a", "acme", "acme-2", "0", "a" * 63])
def test_ids(id: str) -> None:
    assert Organisation("ee", id, Plan.FREE, None, NOW).id == id


@pytest.mark.parametrize("id", ["", "-a", "a-", "Acme", "a" * 64, "a b", "a/b", "acme\n", "õ", "a_b"])
def test_no_ids(id: str) -> None:
    with pytest.raises(ValueError, match="cannot name an organisation"):
        Organisation("ee", id, Plan.FREE, None, NOW)


@pytest.mark.parametrize("plan", Plan)
def test_every_plan_has_a_service_class(plan: Plan) -> None:
    assert ServiceClass(plan.service_class)


def test_models_granted_by_name_are_not_for_everybody() -> None:
    source = {"bundled": "small"}
    ee = country(models=[{"id": "open", "source": source}, {"id": "gated", "source": source, "granted": "named"}])

    def granted(*models: str) -> frozenset[str]:
        return Organisation("ee", "acme", Plan.FREE, frozenset(models) or None, NOW).may_use(ee)

    assert granted() == {"open"}
    assert granted("gated", "open") == {"gated", "open"}
    assert granted("gated", "withdrawn") == {"gated"}
