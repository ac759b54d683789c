"""A body that names another country is at the wrong door, whatever the rest of it asks for."""

from __future__ import annotations

from serving.errors import Reason, Refused
from serving.gateway.openai.strict_json import join

NAMES = ("country", "tenant", "x_domicile_country")


def check_country(fields: dict[str, object], country: str) -> None:
    """Refuse a foreign country under one of :data:`NAMES`, at the top or in ``metadata``.

    The own country is left to the tables: a tag in ``metadata``, an unknown field elsewhere.
    """
    _check(fields, "", country)
    if isinstance(metadata := fields.get("metadata"), dict):
        _check(metadata, "metadata", country)


def _check(fields: dict[str, object], parent: str, country: str) -> None:
    for name in NAMES:
        named = fields.get(name)
        if isinstance(named, str) and named.casefold() != country.casefold():
            raise Refused(Reason.DATA_RESIDENCY_MISMATCH, param=join(parent, name), expected=country)
