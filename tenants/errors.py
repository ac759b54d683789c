"""What can be wrong with a country's description, said so that its author can mend it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from tenants.rules import Weakens
from tenants.weakening import weakens

_KINDS = {
    **dict.fromkeys(("tuple_type", "list_type", "set_type", "frozen_set_type"), "must be a list"),
    **dict.fromkeys(("dict_type", "model_type", "model_attributes_type"), "must be a mapping of keys to values"),
}
"""What a file's author calls a kind that Pydantic calls by its name in Python."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing to mend. ``location`` is dotted, as in ``models[0].engine``; empty for the whole file."""

    location: str
    message: str
    rule: str = ""
    """The rule that it would weaken (see :mod:`tenants.rules`); empty for a mistake that weakens none."""
    remedy: str = ""

    def __str__(self) -> str:
        said = f"{self.location}: {self.message}" if self.location else self.message
        weakens = f" ({self.rule})" if self.rule else ""
        return f"{said}{weakens}: {self.remedy}" if self.remedy else f"{said}{weakens}"


class TenantError(ValueError):
    """A tenant file, or a set of them, that cannot be used. Carries every problem found, not only the first."""

    def __init__(self, path: Path, problems: Iterable[Problem]) -> None:
        self.path = path
        self.problems = tuple(problems)
        super().__init__("\n".join(f"{path}: {problem}" for problem in self.problems))


def suggestion(word: str, candidates: Iterable[str]) -> str:
    """``"; did you mean 'x'?"``, or nothing when no candidate is near."""
    near = get_close_matches(word, sorted(candidates), n=1)
    return f"; did you mean '{near[0]}'?" if near else ""


def explain(error: ValidationError, model: type[BaseModel], subject: str) -> tuple[Problem, ...]:
    """Pydantic's complaints about ``model`` in plain words; ``subject`` is what the file describes."""
    return tuple(_problem(details, model, subject) for details in error.errors(include_url=False))


def _problem(details: ErrorDetails, model: type[BaseModel], subject: str) -> Problem:
    *parents, last = location = details["loc"]
    if (weakened := _weakened(details)) is not None:
        return Problem(_dotted(location), str(weakened), weakened.rule, weakened.remedy)
    if details["type"] == "extra_forbidden":
        hint = suggestion(str(last), _fields(model, parents))
        at = f" at {_dotted(parents)}" if parents else ""
        return Problem(_dotted(location), f"unknown key '{last}' in {subject}{at}{hint}")
    if details["type"] == "missing":
        return Problem(_dotted(location), f"is required in {subject}")
    message = _KINDS.get(details["type"]) or details["msg"].removeprefix("Value error, ")
    given = details["input"]
    if isinstance(given, str | int | float) and last != "[key]":
        message = f"{message} (given: {given!r})"
    return Problem(_dotted(location), message)


def _weakened(details: ErrorDetails) -> Weakens | None:
    if details["type"] == "extra_forbidden":
        return weakens(str(details["loc"][-1]))
    error = details.get("ctx", {}).get("error")
    return error if isinstance(error, Weakens) else None


def _dotted(location: Iterable[str | int]) -> str:
    dotted = ""
    for part in location:
        if isinstance(part, int):
            dotted += f"[{part}]"
        elif part != "[key]":
            dotted += f".{part}" if dotted else part
    return dotted


def _fields(model: type[BaseModel], location: Iterable[str | int]) -> Iterable[str]:
    """Names of the fields that ``model`` has at ``location``."""
    for part in location:
        if isinstance(part, str) and part in model.model_fields:
            model = next(_models_in(model.model_fields[part].annotation), model)
    return model.model_fields


def _models_in(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)
