"""What was last made so of a country, kept on its own ground: what a plan holds its file against."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from serving.planning.nouns import Applied, Part
from serving.planning.parts import parts
from serving.records.files import make_private, replace
from serving.settings import Settings
from tenants.country import Country

FILE = "applied.json"


@dataclass(frozen=True, slots=True)
class Kept:
    """What was applied, and the generation of processes that it was applied in."""

    applied: Applied
    generation: str


def last(code: str, settings: Settings) -> Kept | None:
    """What was last applied, whether or not it runs; ``None`` where nothing says so."""
    try:
        told = json.loads(_file(code, settings).read_bytes())
        made_of = {name: Part(**part) for name, part in told["parts"].items()}
        return Kept(Applied(str(told["digest"]), dict(told["policy"]), made_of), str(told["generation"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def keep(country: Country, generation: str, settings: Settings) -> None:
    """Write down that this is what runs from now on. Raises :class:`OSError`."""
    file = _file(country.code, settings)
    make_private(file.parent)
    document = {
        "digest": country.policy_digest,
        "generation": generation,
        "parts": {name: asdict(part) for name, part in parts(country).items()},
        "policy": country.model_dump(mode="json"),
    }
    replace(file, json.dumps(document, indent=1, ensure_ascii=False).encode())


def _file(code: str, settings: Settings) -> Path:
    return settings.country(code) / FILE
