"""Where a load test sends its requests, and with which keys. Written by ``domicile loadtest``, or by hand (JSON).

The file holds keys, so it must be its owner's alone to read; a run's folder keeps a copy without them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, ValidationError

from tenants.country import Described, Listed, Several, Slo
from tenants.errors import Problem, TenantError, explain


class Organisation(Described):
    """A customer whose key the load test holds."""

    id: str
    key: str = Field(default="", repr=False)
    service_class: Literal["interactive", "standard", "batch"] = "standard"
    weight: Annotated[float, Field(gt=0)] = 1.0


class Country(Described):
    """One endpoint that speaks the OpenAI API."""

    code: Annotated[str, StringConstraints(pattern=r"^[a-z]{2}$")]
    base_url: Annotated[str, StringConstraints(pattern=r"^https?://[^/\s]+(/v1)?/?$")]
    model: str
    time_zone: str = "UTC"
    slo: Slo = Slo()
    organisations: Listed[Organisation] = ()
    """Empty for an endpoint that asks for no key: every organisation of the scenario is then taken as it is."""
    residency: bool = True
    """Whether the answers must name this country, as Domicile's do."""
    ca: Annotated[Path, Field(strict=False)] | None = None
    """PEM file of the certificate to trust, for https."""

    @property
    def origin(self) -> str:
        return self.base_url.rstrip("/").removesuffix("/v1")


class Side(Described):
    """One system: the one under test, called ``domicile``, or what it is compared with."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]{1,40}$")]
    countries: Several[Country]


class Targets(Described):
    """Everything that a run may talk to. With two sides, they take turns in slices of ``slice_s``."""

    sides: Several[Side]
    slice_s: Annotated[float, Field(gt=0)] = 15.0

    def without_keys(self) -> dict[str, Any]:
        """What may be kept."""
        return self.model_dump(
            mode="json",
            exclude={"sides": {"__all__": {"countries": {"__all__": {"organisations": {"__all__": {"key"}}}}}}},
        )


def read_targets(path: Path) -> Targets:
    """Raises :class:`tenants.errors.TenantError` for a file that is no such thing, or that others may read."""
    try:
        if path.stat().st_mode & 0o077:
            raise TenantError(path, [Problem("", "holds keys, and others may read it: chmod 600 it")])
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise TenantError(path, [Problem("", f"cannot be read: {error.strerror}")]) from error
    try:
        return Targets.model_validate_json(text)
    except ValidationError as error:
        raise TenantError(path, explain(error, Targets, "the targets")) from error
