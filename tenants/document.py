"""One YAML file to plain Python, without YAML's surprises.

PyYAML speaks YAML 1.1, where ``no`` is false, ``032`` is 26, ``12:30`` is 750 and the last of two equal keys
wins. Norway's code is ``no`` and Argentina's number is ``032``, so scalars are read as YAML 1.2's core schema
reads them (https://yaml.org/spec/1.2.2/#103-core-schema) and duplicate keys are refused.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from tenants.errors import Problem, TenantError, explain, suggestion

Model = TypeVar("Model", bound=BaseModel)

MAX_BYTES = 256 * 1024

_PREFIX = "tag:yaml.org,2002:"


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 (PyYAML's own shape)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[object, object]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.MarkedYAMLError(
                        problem=f"key '{key.value}' is written twice", problem_mark=key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_decimal(self, node: yaml.ScalarNode) -> int:
        return int(node.value)


_Loader.add_implicit_resolver(f"{_PREFIX}null", re.compile(r"^(~|null|Null|NULL|)$"), ["~", "n", "N", ""])
_Loader.add_implicit_resolver(f"{_PREFIX}bool", re.compile(r"^(true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
_Loader.add_implicit_resolver(f"{_PREFIX}int", re.compile(r"^[-+]?[0-9]+$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    f"{_PREFIX}float",
    re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$"),
    list("-+.0123456789"),
)
_Loader.add_constructor(f"{_PREFIX}int", _Loader.construct_decimal)


def read_mapping(path: Path) -> dict[object, object]:
    """The mapping that a YAML file holds. Raises :class:`TenantError` for anything else."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise TenantError(path, [Problem("", f"cannot be read: {error.strerror}")]) from error
    if len(raw) > MAX_BYTES:
        raise TenantError(path, [Problem("", f"is larger than {MAX_BYTES // 1024} KiB")])
    try:
        content: object = yaml.load(raw.decode("utf-8"), Loader=_Loader)  # noqa: S506 (a SafeLoader)
    except UnicodeDecodeError as error:
        raise TenantError(path, [Problem("", f"is not UTF-8 at byte {error.start}")]) from error
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise TenantError(path, [Problem(line, error.problem or "is not YAML")]) from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise TenantError(path, [Problem("", "is not YAML")]) from error
    if content is None:
        raise TenantError(path, [Problem("", "is empty")])
    if not isinstance(content, dict):
        raise TenantError(path, [Problem("", "must be a mapping of keys to values")])
    return content


def read_as(model: type[Model], path: Path, what: str) -> Model:
    """A YAML file as a pydantic model. Raises :class:`TenantError` with all the problems of ``what`` it describes."""
    content = read_mapping(path)
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise TenantError(path, explain(error, model, what)) from error


def shipped_in(folder: Path) -> dict[str, Path]:
    """The YAML files that come with the distribution in a folder, by name."""
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def find_shipped(name_or_path: str, folder: Path) -> Path:
    """A shipped file, by its name, or any file, by a path that says that it is YAML.

    Raises:
        TenantError: for a name of nothing in the folder.
    """
    path = Path(name_or_path)
    if path.suffix in (".yaml", ".yml"):
        return path
    known = shipped_in(folder)
    if name_or_path in known:
        return known[name_or_path]
    near = suggestion(name_or_path, known)
    near = near or f"; there are {', '.join(sorted(known))}, or give a path to a .yaml file"
    raise TenantError(folder, [Problem("", f"no {folder.name.removesuffix('s')} '{name_or_path}'{near}")])
