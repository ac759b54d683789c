from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

import tenants
from tenants import schema
from tenants.errors import TenantError
from tenants.registry import Registry, find_country
from tests.tenants.test_country import MINIMAL

SHIPPED = Path(tenants.__file__).parent / "countries"


def write(root: Path, code: str, **changes: object) -> None:
    (root / code).mkdir(parents=True)
    (root / code / "tenant.yaml").write_text(yaml.safe_dump({**MINIMAL, "code": code, **changes}), encoding="utf-8")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path, "kr", numeric=410)
    write(tmp_path, "ee", numeric=233)
    (tmp_path / "README.md").write_text("not a country")
    return tmp_path


def test_countries_come_by_code_and_in_its_order(root: Path) -> None:
    registry = Registry.load(root)
    assert [country.code for country in registry] == ["ee", "kr"]
    assert registry["kr"].numeric == 410
    assert registry.get("xx") is None
    assert "ee" in registry
    assert "xx" not in registry
    assert len(registry) == 2


def test_select_keeps_the_order_asked_for(root: Path) -> None:
    assert [country.code for country in Registry.load(root).select(["kr", "ee", "kr"])] == ["kr", "ee"]


def test_select_helps_with_a_slip(root: Path) -> None:
    with pytest.raises(TenantError) as caught:
        Registry.load(root).select(["EE", "ee", "zz"])
    assert [str(problem) for problem in caught.value.problems] == [
        "no country 'EE'; did you mean 'ee'?",
        "no country 'zz'; there are ee, kr",
    ]


def test_an_empty_installation_says_so(tmp_path: Path) -> None:
    with pytest.raises(TenantError, match="holds no country"):
        Registry.load(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"numeric": 233, "gateway": {"port": 9999}}, "has the ISO number 233, and so has ee"),
        ({"numeric": 410, "gateway": {"port": 9233}}, "listens on port 9233, and so does ee"),
        ({"numeric": 410, "gateway": {"port": 9233, "host": "0.0.0.0"}}, "listens on port 9233, and so does ee"),
        ({"numeric": 410, "gateway": {"public_url": "http://127.0.0.1:9233"}}, "is reached at"),
    ],
)
def test_two_countries_never_share_an_address(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    write(tmp_path, "ee")
    write(tmp_path, "kr", **changes)
    with pytest.raises(TenantError, match=message):
        Registry.load(tmp_path)


def test_one_port_on_two_hosts_is_two_addresses(tmp_path: Path) -> None:
    write(tmp_path, "ee", gateway={"host": "127.0.0.2", "port": 9000})
    write(tmp_path, "kr", gateway={"host": "127.0.0.3", "port": 9000}, numeric=410)
    assert len(Registry.load(tmp_path)) == 2


def test_r2_two_countries_never_call_the_same_ground_their_own(tmp_path: Path) -> None:
    write(tmp_path, "ee", residency={"networks": ["10.1.0.0/16", "2001:db8::/48"]})
    write(tmp_path, "kr", numeric=410, residency={"networks": ["2001:db8:1::/48", "10.0.0.0/8"]})
    with pytest.raises(TenantError) as caught:
        Registry.load(tmp_path)
    assert [str(problem) for problem in caught.value.problems] == [
        "kr: calls 10.1.0.0/16 its own network, and so does ee"
    ]


def test_r6_two_countries_never_share_a_collector_nor_the_ports_of_their_metrics(tmp_path: Path) -> None:
    collector = {"endpoint": "http://127.0.0.1:4318"}
    write(tmp_path, "ee", telemetry={"collector": collector, "prometheus": {"port": 22330}})
    write(tmp_path, "kr", numeric=410, telemetry={"collector": collector, "prometheus": {"port": 22339}})
    with pytest.raises(TenantError) as caught:
        Registry.load(tmp_path)
    assert [str(problem) for problem in caught.value.problems] == [
        "kr: tells its metrics on ports from 22339 on, and ee from 22330 on: ten belong to each",
        "kr: sends its telemetry to http://127.0.0.1:4318, and so does ee",
    ]


def test_what_is_wrong_with_all_countries_is_told_at_once(root: Path) -> None:
    for code in ("ee", "kr"):
        (root / code / "tenant.yaml").write_text("code: [")
    with pytest.raises(TenantError) as caught:
        Registry.load(root)
    assert [problem.location.split(":")[0] for problem in caught.value.problems] == ["ee/tenant.yaml", "kr/tenant.yaml"]


def test_one_country_can_be_found_beside_a_broken_one(root: Path) -> None:
    (root / "kr" / "tenant.yaml").write_text("code: [")
    assert find_country(root, "ee").code == "ee"
    for code in ("EE", "..", "../ee", ""):
        with pytest.raises(TenantError, match="no country"):
            find_country(root, code)


def test_the_ten_countries_shipped() -> None:
    registry = Registry.load(SHIPPED)
    assert [country.code for country in registry] == ["ae", "ar", "de", "ee", "gr", "in", "jp", "kr", "kz", "sk"]
    assert registry["ee"].languages[0] == "et"
    for country in registry:
        assert country.model("smollm2-135m-instruct") is not None
        first = (SHIPPED / country.code / "tenant.yaml").read_text(encoding="utf-8").splitlines()[0]
        assert first == "# yaml-language-server: $schema=../../schema.json"


def test_the_schema_is_fresh() -> None:
    assert schema.PATH.read_text(encoding="utf-8") == schema.render(), "run python -m tenants.schema"


def test_the_schema_agrees_with_the_countries_shipped() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(json.loads(schema.PATH.read_text(encoding="utf-8")))
    for path in SHIPPED.glob("*/tenant.yaml"):
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        validator.validate(content)
        assert not validator.is_valid({**content, "modles": []})
        assert not validator.is_valid({**content, "languages": []})
