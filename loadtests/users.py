"""The users of the service, on Locust: one class for each kind of traffic.

Locust counts and shows; when something is sent is not for its users to decide. :mod:`loadtests.client.generator` calls
:meth:`LlmUser.session` at the times of the schedule, whether or not earlier sessions are over.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from locust import User

from loadtests.client import asking
from loadtests.client.answer import Answer
from loadtests.client.desk import Desk
from loadtests.record import Arrival, Kind, Outcome, Record
from loadtests.scenario import Stream

READY_S = 0.01
"""How long after it is decided on a request is sent, where no schedule names a time: to write its body in."""
_PROTOCOL = "LLM"


class LlmUser(User):
    """Someone who asks and reads the answer. Never spawned by Locust."""

    abstract = True
    kind: ClassVar[Kind]

    def session(self, desk: Desk, arrival: Arrival, stream: Stream, until: float) -> Answer:
        """All requests that one arrival begins, none of them begun after ``until``. Returns the last answer."""
        return desk.ask(arrival, stream)

    def tell(self, record: Record) -> None:
        """Let Locust count an ended request, from the time it was to be sent. Refusals are no failures."""
        name = str(self.kind)
        if record.outcome in (Outcome.REFUSED, Outcome.ABORTED):
            name = f"{name} {record.outcome}"
        failure = RuntimeError(record.code) if record.outcome is Outcome.FAILED else None
        self._fire(name, record.end_to_end_s, record.output_tokens, failure)
        if record.first_token_s is not None and record.outcome is Outcome.FINISHED:
            self._fire(f"{self.kind} first token", record.first_token_s, record.first_tokens, None)

    def _fire(self, name: str, seconds: float, tokens: int, failure: Exception | None) -> None:
        self.environment.events.request.fire(
            request_type=_PROTOCOL,
            name=name,
            response_time=seconds * 1000,
            response_length=tokens,
            exception=failure,
            context={},
        )


class ChatUser(LlmUser):
    """Streams a chat completion."""

    abstract = True
    kind = Kind.CHAT


class PlainChatUser(LlmUser):
    """Waits for a chat completion in one piece."""

    abstract = True
    kind = Kind.CHAT_PLAIN


class CompletionsUser(LlmUser):
    """Streams a completion of a text."""

    abstract = True
    kind = Kind.COMPLETIONS


class ResponsesUser(LlmUser):
    """Streams a response."""

    abstract = True
    kind = Kind.RESPONSES


class ConversationUser(LlmUser):
    """Asks, reads, and asks again with all that was said before."""

    abstract = True
    kind = Kind.CONVERSATION

    def session(self, desk: Desk, arrival: Arrival, stream: Stream, until: float) -> Answer:
        said = asking.opening(arrival, desk.salt)
        answer = desk.ask(arrival, stream, said)
        for _ in range(1, stream.turns):
            due = desk.clock.now() + READY_S
            if answer.outcome is not Outcome.FINISHED or due >= until:
                break
            arrival = replace(arrival, serial=arrival.serial + 1, turn=arrival.turn + 1, at=due)
            said = asking.went_on(said, "".join(answer.text), arrival, desk.salt)
            answer = desk.ask(arrival, stream, said)
        return answer


class AgentUser(ConversationUser):
    """Goes on with what its tools returned, until it is done."""

    abstract = True
    kind = Kind.AGENT


class DocumentUser(LlmUser):
    """Sends a long text and wants a short answer."""

    abstract = True
    kind = Kind.DOCUMENT


class StructuredUser(LlmUser):
    """Wants JSON of a given shape."""

    abstract = True
    kind = Kind.STRUCTURED


class ForeignUser(LlmUser):
    """Shows one country's key at another's door."""

    abstract = True
    kind = Kind.FOREIGN


USERS: tuple[type[LlmUser], ...] = (
    ChatUser,
    PlainChatUser,
    CompletionsUser,
    ResponsesUser,
    ConversationUser,
    AgentUser,
    DocumentUser,
    StructuredUser,
    ForeignUser,
)
