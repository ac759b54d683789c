"""Our own log records for the country's collector, without a word that somebody else wrote (R7).

A record leaves as what the programmer wrote: its message before anything was filled in, and only where that very text
stands as a literal in the source file that logged it. What is filled in, an exception's text and a traceback never
leave; an exception is told by its class and its place.
"""

from __future__ import annotations

import ast
import logging
import traceback
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path

from opentelemetry._logs import LogRecord, SeverityNumber

from serving.records.telemetry.schema import Schema, Value
from serving.records.telemetry.trace import NOWHERE

OURS = ("serving", "tenants", "kernels")
"""Whose records are told."""
_FAULT = "fault"
_SEVERITIES = (
    (logging.CRITICAL, SeverityNumber.FATAL),
    (logging.ERROR, SeverityNumber.ERROR),
    (logging.WARNING, SeverityNumber.WARN),
    (logging.INFO, SeverityNumber.INFO),
)
_PACKAGES = ("site-packages", "dist-packages")


def fault(error: BaseException) -> dict[str, BaseException]:
    """For ``extra`` of a record that says what went wrong: its text stays out of both the record and the collector."""
    return {_FAULT: error}


class Handler(logging.Handler):
    """Hands what of a record may leave to ``tell``."""

    def __init__(self, schema: Schema, tell: Callable[[LogRecord], None]) -> None:
        super().__init__(logging.INFO)
        self._schema = schema
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._tell(self._told(record))
        except Exception:
            self.handleError(record)

    def _told(self, record: logging.LogRecord) -> LogRecord:
        said: dict[str, Value] = {"code.file.path": below_package(record.pathname), "code.line.number": record.lineno}
        error = getattr(record, _FAULT, None) or (record.exc_info[1] if record.exc_info else None)
        if isinstance(error, BaseException):
            said = {"exception.type": type(error).__name__, **_place(error, said)}
        severity = next((number for level, number in _SEVERITIES if record.levelno >= level), None)
        literal = isinstance(record.msg, str) and record.msg in literals(record.pathname)
        time = int(record.created * 1e9)
        return LogRecord(
            timestamp=time,
            observed_timestamp=time,
            context=NOWHERE,
            severity_text=logging.getLevelName(record.levelno),
            severity_number=severity,
            body=record.msg if literal else None,
            attributes=self._schema.kept(said),
        )

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Says nothing: logging's own would print the record, and so what was filled into it."""
        self._schema.dropped += 1


def attach(handler: Handler) -> None:
    """Hear our records from now on."""
    for name in OURS:
        logging.getLogger(name).addHandler(handler)


def detach(handler: Handler) -> None:
    for name in OURS:
        logging.getLogger(name).removeHandler(handler)


@lru_cache(maxsize=256)
def literals(path: str) -> frozenset[str]:
    """The texts that stand in a source file of ours."""
    if below_package(path).split("/")[0] not in OURS:
        return frozenset()
    try:
        tree = ast.parse(Path(path).read_bytes())
    except (OSError, SyntaxError, ValueError):
        return frozenset()
    return frozenset(
        node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and type(node.value) is str
    )


def below_package(path: str) -> str:
    """A source file's path below the folder that its package is in: where a machine keeps it is nobody's business."""
    parts = Path(path).parts
    for place in range(len(parts) - 1, 0, -1):
        if parts[place - 1] in _PACKAGES or parts[place] in OURS:
            return "/".join(parts[place:])
    return parts[-1] if parts else ""


def _place(error: BaseException, otherwise: Mapping[str, Value]) -> Mapping[str, Value]:
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return otherwise
    return {"code.file.path": below_package(frames[-1].filename), "code.line.number": frames[-1].lineno or 0}
