"""Every way an answer can be a "no", and whose fault it is.

The tree::

    DomicileError
    ├── Refused     the caller's: they can mend it (4xx)
    └── Failed      ours: they can only try again (5xx)

Both carry a :class:`Reason`, which fixes status, ``type`` and ``code`` once. The message is found by the
reason's name in the caller's language, in ``gateway/messages/<language>.yaml``; ``facts`` fill its blanks.
Exceptions of other libraries are translated into this tree where they are first met, and
``gateway/problems.py`` is the only place that turns it into bytes.

Codes are OpenAI's where OpenAI has one, since SDKs and callers' code match on them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

INVALID_REQUEST = "invalid_request_error"
UNAVAILABLE = "service_unavailable_error"

OVERLOADED_RETRY_AFTER_S = 2
"""After this long a replica that took no more has finished a few answers."""


@dataclass(frozen=True, slots=True)
class Wire:
    """How a reason looks to a client: HTTP status, OpenAI ``type`` and ``code``, whether the connection ends."""

    status: int
    code: str | None
    type: str = INVALID_REQUEST
    close: bool = False


class Reason(Enum):
    """The closed list of reasons. The member's name, in lower case, is its key in the message catalogues."""

    wire: Wire

    # Who is asking, and where.
    NO_KEY = (401, None)
    INVALID_API_KEY = (401, "invalid_api_key")
    INCORRECT_HOSTNAME = (401, "incorrect_hostname")
    DATA_RESIDENCY_MISMATCH = (403, "data_residency_mismatch")
    MODEL_NOT_FOUND = (404, "model_not_found")
    RESPONSE_NOT_FOUND = (404, "response_not_found")
    RECEIPT_NOT_FOUND = (404, "receipt_not_found")

    # HTTP itself.
    MALFORMED_HTTP = (400, "malformed_request", INVALID_REQUEST, True)
    INVALID_HOST = (400, "invalid_host", INVALID_REQUEST, True)
    UNKNOWN_PATH = (404, "unknown_url")
    METHOD_NOT_ALLOWED = (405, "method_not_allowed")
    UNSUPPORTED_MEDIA_TYPE = (415, "unsupported_media_type")
    UNSUPPORTED_ENCODING = (415, "unsupported_content_encoding")
    BODY_TOO_LARGE = (413, "request_too_large", INVALID_REQUEST, True)
    HEADERS_TOO_LARGE = (431, "request_header_fields_too_large", INVALID_REQUEST, True)
    REQUEST_TIMEOUT = (408, "request_timeout", INVALID_REQUEST, True)

    # The body, before its meaning.
    INVALID_JSON = (400, "invalid_json")
    BODY_NOT_OBJECT = (400, "invalid_body")
    DUPLICATE_KEY = (400, "duplicate_key")
    NUMBER_OUT_OF_RANGE = (400, "invalid_number")
    NESTING_TOO_DEEP = (400, "nesting_too_deep")
    INVALID_TEXT = (400, "invalid_text")

    # What the body asks for.
    UNKNOWN_PARAMETER = (400, "unknown_parameter")
    UNSUPPORTED_PARAMETER = (400, "unsupported_parameter")
    MISSING_REQUIRED_PARAMETER = (400, "missing_required_parameter")
    INVALID_TYPE = (400, "invalid_type")
    INVALID_VALUE = (400, "invalid_value")
    INTEGER_BELOW_MIN_VALUE = (400, "integer_below_min_value")
    INTEGER_ABOVE_MAX_VALUE = (400, "integer_above_max_value")
    DECIMAL_BELOW_MIN_VALUE = (400, "decimal_below_min_value")
    DECIMAL_ABOVE_MAX_VALUE = (400, "decimal_above_max_value")
    STRING_TOO_LONG = (400, "string_above_max_length")
    EMPTY_STRING = (400, "empty_string")
    ARRAY_TOO_LONG = (400, "array_above_max_length")
    EMPTY_ARRAY = (400, "empty_array")
    CONTEXT_LENGTH_EXCEEDED = (400, "context_length_exceeded")
    INVALID_GRAMMAR = (400, "invalid_grammar")
    SCHEMA_TOO_COMPLEX = (400, "schema_too_complex")
    INVALID_TOOL = (400, "invalid_tool")
    INVALID_IMAGE_URL = (400, "invalid_image_url")
    IMAGE_TOO_LARGE = (400, "image_too_large")
    ENGINE_REFUSED = (400, None)

    # How much is asked.
    RATE_LIMIT_EXCEEDED = (429, "rate_limit_exceeded", "tokens")

    # Ours.
    COUNTRY_UNAVAILABLE = (503, "server_is_overloaded", UNAVAILABLE)
    FOREIGN_NODE_IN_CELL = (503, "foreign_node_in_cell", UNAVAILABLE)
    SERVER_IS_OVERLOADED = (503, "server_is_overloaded", UNAVAILABLE)  # noqa: PIE796 - told apart by __new__
    RECORDS_UNAVAILABLE = (503, "server_is_overloaded", UNAVAILABLE)  # noqa: PIE796 - told apart by __new__
    STREAM_INTERRUPTED = (503, "stream_interrupted", UNAVAILABLE)
    INTERNAL_ERROR = (500, "internal_error", "server_error")

    def __new__(cls, *_: object) -> Reason:
        # A value of its own for each: members with equal values would be one member under two names.
        member = object.__new__(cls)
        member._value_ = len(cls.__members__)
        return member

    def __init__(self, status: int, code: str | None, type_: str = INVALID_REQUEST, close: bool = False) -> None:
        self.wire = Wire(status, code, type_, close)

    @property
    def key(self) -> str:
        return self.name.lower()


class DomicileError(Exception):
    """Root of the tree. ``facts`` never hold prompt or answer text (R7)."""

    def __init__(
        self,
        reason: Reason,
        *,
        param: str | None = None,
        retry_after_s: int | None = None,
        allow: str | None = None,
        **facts: str | int | float,
    ) -> None:
        super().__init__(reason.key if param is None else f"{reason.key}: {param}")
        self.reason = reason
        self.param = param
        self.retry_after_s = retry_after_s
        self.allow = allow
        self.facts = facts


class Refused(DomicileError):
    """The caller asked for something they cannot have as asked (4xx)."""


class Failed(DomicileError):
    """We could not do what was rightly asked (5xx)."""
