"""R11: no file can weaken R1 to R10 or the human-rights floor. Plan refuses, and says which rule it is about."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from serving.cli.examine import read, refusals
from serving.planning.nouns import Refusal
from serving.settings import Settings
from tenants import floor
from tenants.arguments import REFUSED
from tenants.ground import CountryGround
from tenants.rules import RULES, Weakens
from tests.house import SHIPPED

CODES = sorted(path.parent.name for path in SHIPPED.glob("*/tenant.yaml"))

WEAKENINGS: dict[str, tuple[str, object]] = {
    # Where it stands in the file: the rule, and what somebody might write.
    "accept_keys_of": ("R1", ["kr"]),
    "gateway.also_serves": ("R1", ["kr"]),
    "fallback_strategy": ("R2", [{"label_selector": {}}]),
    "label_selector": ("R2", {"domicile/country": "!in(kr)"}),
    "models.0.fallback": ("R2", {"country": "kr"}),
    "models.0.node_affinity": ("R2", "soft"),
    "models.0.engine.arguments.data_parallel_address": ("R2", "203.0.113.7"),
    "gateway.skip_residency": ("R3", True),
    "gateway.read_body_first": ("R3", True),
    "require_claims": ("R4", False),
    "cell_key": ("R4", "00"),
    "models.0.engine.arguments.host": ("R4", "0.0.0.0"),
    "residency.spillover": ("R5", {"to": "kr"}),
    "failover": ("R5", "kr"),
    "residency.overflow_country": ("R5", "kr"),
    "store": ("R6", "postgres://203.0.113.7/all"),
    "database_url": ("R6", "postgres://203.0.113.7/all"),
    "directory": ("R6", "/srv/all"),
    "telemetry.exporters": ("R6", ["https://203.0.113.7"]),
    "telemetry.collector": ("R6", {"endpoint": "http://203.0.113.7:4318"}),
    "telemetry.collector.endpoint": ("R6", "http://collector.example:4318"),
    "residency.networks": ("R6", ["0.0.0.0/0"]),
    "models.0.engine.arguments.kv_transfer_config": ("R6", {"kv_connector": "NixlConnector"}),
    "log_prompts": ("R7", True),
    "gateway.log_requests": ("R7", True),
    "telemetry.capture_content": ("R7", True),
    "telemetry.capture_message_content": ("R7", True),
    "gateway.log_level": ("R7", "debug"),
    "models.0.engine.arguments.enable_log_requests": ("R7", True),
    "models.0.engine.enable_log_requests": ("R7", True),
    "models.0.engine.arguments.enable_log_outputs": ("R7", True),
    "models.0.engine.arguments.otlp_traces_endpoint": ("R7", "http://127.0.0.1:4317"),
    "usage_stats": ("R8", True),
    "http_proxy": ("R8", "http://203.0.113.7:3128"),
    "models.0.source": ("R8", {"hub": "org/model"}),
    "models.0.trust_remote_code": ("R8", True),
    "models.0.engine.trustRemoteCode": ("R8", True),
    "models.0.engine.plugins": ("R8", ["everything"]),
    "models.0.engine.arguments.trust_remote_code": ("R8", True),
    "models.0.engine.arguments.hf_overrides": ("R8", {"text_config": {"auto_map": {"AutoModel": "m.M"}}}),
    "models.0.engine.arguments.chat_template": ("R8", "https://203.0.113.7/t.jinja"),
    "models.0.engine.arguments.tool_parser_plugin": ("R8", "/tmp/parser.py"),
    "models.0.engine.arguments.logits_processors": ("R8", ["mine:Mine"]),
    "models.0.engine.cache_salt": ("R9", "off"),
    "models.0.share_prefix_cache": ("R9", True),
    "models.0.engine.arguments.prefix_caching_hash_algo": ("R9", "builtin"),
    "audit": ("R10", "off"),
    "receipts": ("R10", False),
    "receipts.enabled": ("R10", False),
    "signing_key": ("R10", "/srv/shared.pem"),
    "force": ("R11", True),
    "residency.ignore_refusals": ("R11", ["R5"]),
    "safety": ("floor", {"policy": "off"}),
    "safety.policy": ("floor", None),
    "safety.moderation": ("floor", False),
    "retention_days": ("floor", 1),
}


class House:
    """The shipped countries in a folder of the test's own, with their grounds."""

    def __init__(self, root: Path) -> None:
        self.settings = Settings(home=root / "home", countries=root / "countries")
        for code in CODES:
            shutil.copytree(SHIPPED / code, self.settings.countries / code)

    def edit(self, code: str, change: Callable[[dict[str, Any]], None]) -> None:
        file = self.settings.countries / code / "tenant.yaml"
        described = yaml.safe_load(file.read_text())
        change(described)
        file.write_text(yaml.safe_dump(described, allow_unicode=True))

    def ground(self, code: str) -> Path:
        return self.settings.country(code)

    def refusals(self, *codes: str) -> list[Refusal]:
        countries, wrong = read(self.settings)
        return list(refusals(countries, wrong, codes or CODES, self.settings))


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def put(document: dict[str, Any], path: str, value: object) -> None:
    *parents, last = path.split(".")
    place: Any = document
    for name in parents:
        place = place[int(name)] if isinstance(place, list) else place.setdefault(name, {})
    place[last] = copy.deepcopy(value)


def test_every_shipped_country_is_fit_as_it_comes(house: House) -> None:
    assert house.refusals() == []


@pytest.mark.parametrize("path", WEAKENINGS)
def test_a_weakening_is_refused_in_every_country_with_its_rule(house: House, path: str) -> None:
    rule, value = WEAKENINGS[path]
    for code in CODES:
        house.edit(code, lambda document: put(document, path, value))
    found = house.refusals()
    assert sorted(each.country for each in found) == CODES, "once in each, and for nothing else"
    assert {each.rule for each in found} == {rule}
    assert all(each.reason and each.remedy and "permitted" not in each.reason for each in found)


def test_each_rule_and_the_floor_has_a_weakening_above() -> None:
    assert {rule for rule, _ in WEAKENINGS.values()} == RULES.keys()


@pytest.mark.parametrize("name", sorted(name for name, refusal in REFUSED.items() if refusal.rule))
def test_a_refused_argument_is_known_by_its_name_wherever_it_stands(house: House, name: str) -> None:
    house.edit("ee", lambda document: put(document, f"models.0.engine.{name}", True))
    (found,) = house.refusals("ee")
    assert found.rule == REFUSED[name].rule


def test_a_slip_is_not_taken_for_a_weakening(house: House) -> None:
    house.edit("ee", lambda document: document.update(langauges=["et"], modles=[], sloo={}))
    found = house.refusals("ee")
    assert {each.rule for each in found} == {""}
    assert "did you mean 'languages'?" in found[0].reason


def test_the_floor_is_a_list_that_holds() -> None:
    assert floor.THE_FLOOR.keys() == {"safety", "audit", "receipts", "retention"}
    for policy in ("off", None, False, "minimal"):
        with pytest.raises(Weakens, match="standard"):
            floor.safety_policy(policy)
    assert str(floor.RETENTION_DAYS) in floor.THE_FLOOR["retention"]


def pair(*edits: dict[str, Any]) -> Callable[[House], None]:
    def edit(house: House) -> None:
        for code, changes in zip(("ee", "kr"), edits, strict=True):
            house.edit(code, lambda document, changes=changes: document.update(copy.deepcopy(changes)))  # type: ignore[misc]

    return edit


def same_folder(house: House) -> None:
    house.ground("ee").mkdir(parents=True)
    house.ground("kr").symlink_to(house.ground("ee"))


def same_store(house: House) -> None:
    for code in ("ee", "kr"):
        house.ground(code).mkdir(parents=True)
    CountryGround(house.ground("ee"), "ee").store().close()
    (house.ground("kr") / "tenants.sqlite").hardlink_to(house.ground("ee") / "tenants.sqlite")


def same_secret(name: str) -> Callable[[House], None]:
    def write(house: House) -> None:
        for code in ("ee", "kr"):
            file = house.ground(code) / name
            file.parent.mkdir(parents=True)
            file.touch(mode=0o600)
            file.write_bytes(b"x" * 32)

    return write


def same_tls_key(house: House) -> None:
    key = house.settings.home / "key.pem"
    key.parent.mkdir(parents=True)
    key.touch(mode=0o600)
    key.write_text("a key")
    shutil.copy(key, other := key.with_name("other.pem"))
    pair(*({"gateway": {"tls": {"certificate": "/c.pem", "key": str(one)}}} for one in (key, other)))(house)


def same_model_folder(house: House) -> None:
    folder = house.settings.home / "weights"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    pair(*[{"models": [{"id": "m", "source": {"path": str(folder)}}]}] * 2)(house)


SHARED: dict[str, tuple[str, Callable[[House], None]]] = {
    "port": ("R1", pair({}, {"gateway": {"port": 9233}})),
    "address": ("R1", pair(*[{"gateway": {"public_url": "https://one.example"}}] * 2)),
    "collector": ("R6", pair(*[{"telemetry": {"collector": {"endpoint": "http://127.0.0.1:4318"}}}] * 2)),
    "metrics port": ("R6", pair(*[{"telemetry": {"prometheus": {"port": 30000}}}] * 2)),
    "network": ("R6", pair(*[{"residency": {"networks": ["10.0.0.0/16"]}}] * 2)),
    "folder": ("R6", same_folder),
    "store": ("R6", same_store),
    "cell key": ("R4", same_secret("cell.key")),
    "pepper": ("R1", same_secret("pepper")),
    "signing key": ("R10", same_secret("signing/current.pem")),
    "TLS key": ("R1", same_tls_key),
    "model folder": ("R6", same_model_folder),
}


@pytest.mark.parametrize("what", SHARED)
@pytest.mark.parametrize("named", ["ee", "kr"])
def test_two_countries_share_nothing(house: House, what: str, named: str) -> None:
    rule, share = SHARED[what]
    share(house)
    found = house.refusals(named)
    assert [(each.country, each.rule) for each in found] == [(named, rule)]
    assert found[0].remedy
    assert house.refusals("gr") == [], "whoever has nothing to do with it goes on"


def test_weights_that_nobody_can_write_may_be_read_by_two(house: House) -> None:
    same_model_folder(house)
    (house.settings.home / "weights").chmod(0o555)
    assert house.refusals() == []


def test_looking_makes_nothing(house: House) -> None:
    house.refusals()
    assert not house.settings.home.exists()


def test_no_secret_is_told(house: House) -> None:
    same_secret("cell.key")(house)
    assert "xxxx" not in repr(house.refusals())
