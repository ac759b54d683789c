from __future__ import annotations

import ast
import importlib.util
from pathlib import Path

import pytest
import yaml

from tenants.arguments import ALLOWED, REFUSED
from tenants.country import Country, Promise, Slo
from tenants.errors import TenantError
from tenants.registry import load_country

MINIMAL: dict[str, object] = {
    "code": "ee",
    "name": "Eesti",
    "english_name": "Estonia",
    "numeric": 233,
    "time_zone": "Europe/Tallinn",
    "languages": ["et", "ru"],
    "models": [{"id": "small", "source": {"bundled": "small"}}],
}


def country(**changes: object) -> Country:
    return Country.model_validate({**MINIMAL, **changes})


def problems(tmp_path: Path, content: str | dict[str, object]) -> list[str]:
    folder = tmp_path / "ee"
    folder.mkdir(exist_ok=True)
    text = content if isinstance(content, str) else yaml.safe_dump(content)
    (folder / "tenant.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(TenantError) as caught:
        load_country(folder)
    assert all(str(folder / "tenant.yaml") in line for line in str(caught.value).splitlines())
    return [str(problem) for problem in caught.value.problems]


def test_what_is_left_out_has_its_default() -> None:
    minimal = country()
    assert minimal.port == 9233
    assert minimal.address == minimal.public_address == "http://127.0.0.1:9233"
    assert minimal.isolation == "shared"
    assert minimal.models[0].engine.profile == "fast-start"
    assert not minimal.residency.allow_hub


@pytest.mark.parametrize(
    ("gateway", "address"),
    [
        ({"port": 8443}, "http://127.0.0.1:8443"),
        ({"host": "0.0.0.0"}, "http://127.0.0.1:9233"),
        ({"host": "::"}, "http://[::1]:9233"),
        ({"host": "10.1.2.3", "tls": {"certificate": "/c.pem", "key": "/k.pem"}}, "https://10.1.2.3:9233"),
    ],
)
def test_address(gateway: dict[str, object], address: str) -> None:
    assert country(gateway=gateway).address == address


def test_callers_are_told_the_public_url() -> None:
    assert country(gateway={"public_url": "https://api.example.ee"}).public_address == "https://api.example.ee"


def test_model_by_id() -> None:
    one = country()
    assert one.model("small") is one.models[0]
    assert one.model("large") is None


def test_a_country_cannot_be_edited() -> None:
    with pytest.raises(ValueError, match="frozen"):
        country().code = "kr"


def test_every_problem_is_told_at_once(tmp_path: Path) -> None:
    found = problems(
        tmp_path,
        {
            **MINIMAL,
            "modles": [],
            "numeric": "233",
            "time_zone": "Europe/Talinn",
            "models": [
                {"id": "a", "sorce": {}, "source": {"path": "models/a"}},
                {"id": "b", "source": {"bundled": "b", "path": "/b"}},
            ],
        },
    )
    assert "modles: unknown key 'modles' in country ee; did you mean 'models'?" in found
    assert "models[0].sorce: unknown key 'sorce' in country ee at models[0]; did you mean 'source'?" in found
    assert any(line.startswith("numeric: ") and "integer" in line for line in found)
    assert any(line.startswith("time_zone: ") for line in found)
    assert any(line.startswith("models[0].source.path: must be an absolute path") for line in found)
    assert any(line.startswith("models[1].source: needs exactly one") for line in found)
    assert len(found) == 6


@pytest.mark.parametrize(
    ("change", "location"),
    [
        ({"code": "EE"}, "code"),
        ({"languages": []}, "languages"),
        ({"languages": ["et", "et"]}, "languages"),
        ({"languages": ["et-EE"]}, "languages[0]"),
        ({"models": []}, "models"),
        ({"models": MINIMAL["models"] * 2}, "models"),  # type: ignore[operator]
        ({"gateway": {"port": 0}}, "gateway.port"),
        ({"gateway": {"public_url": "https://example.ee/v1"}}, "gateway.public_url"),
        ({"gateway": {"replicas": True}}, "gateway.replicas"),
        ({"slo": {"first_token_s": float("inf")}}, "slo.first_token_s"),
        ({"residency": {"allow_hub": "yes"}}, "residency.allow_hub"),
        ({"residency": {"allow_spillover": True}}, "residency.allow_spillover"),
        ({"isolation": "none"}, "isolation"),
        ({"safety": {"policy": "off"}}, "safety.policy"),
    ],
)
def test_refused(tmp_path: Path, change: dict[str, object], location: str) -> None:
    (found,) = problems(tmp_path, {**MINIMAL, **change})
    assert found.startswith(f"{location}: ")


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    rest = {key: value for key, value in MINIMAL.items() if key != "time_zone"}
    assert problems(tmp_path, rest) == ["time_zone: is required in country ee"]


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"models": "echo"}, "models: must be a list (given: 'echo')"),
        ({"models": {"id": "echo"}}, "models: must be a list"),
        ({"models": ["echo"]}, "models[0]: must be a mapping of keys to values (given: 'echo')"),
        ({"slo": []}, "slo: must be a mapping of keys to values"),
    ],
)
def test_a_kind_is_told_in_words_of_yaml(tmp_path: Path, change: dict[str, object], found: str) -> None:
    assert problems(tmp_path, {**MINIMAL, **change}) == [found]


def test_r8_a_hub_needs_the_country_s_leave(tmp_path: Path) -> None:
    models = [{"id": "small", "source": {"bundled": "small"}}, {"id": "large", "source": {"hub": "org/large"}}]
    (found,) = problems(tmp_path, {**MINIMAL, "models": models})
    assert found.startswith("models[1]: source.hub 'org/large' would be fetched from abroad")
    assert "residency.allow_hub: true" in found
    assert country(models=models, residency={"allow_hub": True}).models[1].source.hub == "org/large"


def with_arguments(**arguments: object) -> dict[str, object]:
    return {**MINIMAL, "models": [{"id": "a", "source": {"path": "/a"}, "engine": {"arguments": arguments}}]}


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_r11_arguments_that_weaken_the_promises_are_refused_with_a_reason(tmp_path: Path, name: str) -> None:
    (found,) = problems(tmp_path, with_arguments(**{name: True}))
    rule, reason = REFUSED[name]
    weakens = f" ({rule}): take it out" if rule else ""
    assert found == f"models[0].engine.arguments.{name}: may not be set here: {reason}{weakens}"


def test_r11_arguments_that_nobody_has_judged_are_refused(tmp_path: Path) -> None:
    found = problems(tmp_path, with_arguments(**{"max-model-len": 1, "send_everything_abroad": True}))
    assert found[0].endswith("did you mean 'max_model_len'?")
    assert found[1].endswith("is not among the vLLM arguments that a country may set")


def test_arguments_pass_through_as_they_are() -> None:
    arguments = {"max_model_len": 4096, "limit_mm_per_prompt": {"image": 2}}
    assert Country.model_validate(with_arguments(**arguments)).models[0].engine.arguments == arguments


def test_the_arguments_judged_are_vllm_s_own() -> None:
    spec = importlib.util.find_spec("vllm")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("vLLM is not installed")
    package = Path(spec.submodule_search_locations[0])
    # Read, not imported: importing vLLM takes half a minute.
    known: set[str] = set()
    for source in ("engine/arg_utils.py", "entrypoints/launchers/cli_args.py"):
        for node in ast.walk(ast.parse((package / source).read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                known |= {
                    field.target.id
                    for field in node.body
                    if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
                }
    assert known >= ALLOWED
    assert known >= REFUSED.keys()
    assert ALLOWED.isdisjoint(REFUSED)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("# nothing\n", "is empty"),
        ("- ee\n", "must be a mapping of keys to values"),
        ("code: [ee\n", "line 2"),
        ("code: ee\ncode: kr\n", "line 2: key 'code' is written twice"),
        ("slo: {request_s: 1, request_s: 2}\n", "line 1: key 'request_s' is written twice"),
        ("code: !!python/object/apply:os.getcwd []\n", "line 1"),
        ("code: \x00\n", "is not YAML"),
        ("[" * 20_000, "is not YAML"),
        ("a" * 300_000, "is larger than 256 KiB"),
    ],
)
def test_a_file_that_is_no_description(tmp_path: Path, content: str, message: str) -> None:
    assert problems(tmp_path, content)[0].startswith(message)


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "tenant.yaml").write_bytes(b"name: \xff\n")
    with pytest.raises(TenantError, match="not UTF-8 at byte 6"):
        load_country(tmp_path)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(TenantError, match=r"tenant\.yaml: cannot be read: No such file"):
        load_country(tmp_path)


def test_the_folder_is_called_like_the_country(tmp_path: Path) -> None:
    assert problems(tmp_path, {**MINIMAL, "code": "kr"}) == ["code: is 'kr', yet the folder is called 'ee'"]


def test_norway_and_argentina_survive_yaml(tmp_path: Path) -> None:
    folder = tmp_path / "no"
    folder.mkdir()
    text = yaml.safe_dump({key: value for key, value in MINIMAL.items() if key not in {"code", "numeric", "languages"}})
    (folder / "tenant.yaml").write_text(f"{text}code: no\nnumeric: 032\nlanguages: [no]\n", encoding="utf-8")
    norway = load_country(folder)
    assert (norway.code, norway.numeric, norway.languages) == ("no", 32, ("no",))


def test_a_class_is_promised_what_everybody_is_but_for_its_own() -> None:
    slo = Slo(first_token_s=1.0, classes={"interactive": Promise(first_token_s=0.5), "batch": Promise(objective=0.5)})
    interactive, standard, batch = map(slo.promise, ("interactive", "standard", "batch"))
    assert (interactive.first_token_s, interactive.inter_token_s) == (0.5, slo.inter_token_s)
    assert (standard.first_token_s, standard.objective) == (1.0, slo.objective)
    assert (batch.first_token_s, batch.objective) == (1.0, 0.5)


def test_the_digest_is_of_what_the_file_says_and_not_of_how_it_is_laid_out() -> None:
    one = {"seed": 1, "dtype": "float32"}
    model = {"id": "small", "source": {"bundled": "small"}}
    first = country(models=[{**model, "engine": {"arguments": one}}])
    other = country(models=[{"engine": {"arguments": dict(reversed(one.items()))}, **model}], isolation="shared")
    assert first.policy_digest == other.policy_digest
    assert first.policy_digest.startswith("sha256:")
    assert len(first.policy_digest) == len("sha256:") + 64
    assert country(name="Estland").policy_digest != country().policy_digest


@pytest.mark.parametrize(
    "good",
    [
        {"hf_overrides": {"rope_scaling": {"type": "linear", "factor": 2.0}}},
        {"chat_template": "/srv/templates/chat.jinja"},
        {"chat_template": "{% for m in messages %}{{ m.content }}{% endfor %}"},
        {"generation_config": "vllm"},
    ],
)
def test_values_that_bring_no_code_are_taken(good: dict[str, object]) -> None:
    model = {"id": "small", "source": {"bundled": "small"}, "engine": {"arguments": good}}
    assert country(models=[model]).models[0].engine.arguments == good
